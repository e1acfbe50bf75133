import { effect } from '@preact/signals';
import { render } from 'preact';
import { App } from './app';
import { start } from './gateway';
import { endsSoon, link, storage, tellState } from './state';
import './style.css';

effect(() => {
  void link.value;
  void storage.value;
  void endsSoon.value;
  tellState();
});
start();
const page = document.getElementById('page')!;
page.replaceChildren();
render(<App />, page);
