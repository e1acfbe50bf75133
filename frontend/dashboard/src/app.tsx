// The frame around the views: the bar, the state in its corner, the banner, and what screen readers are told.
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';
import { clock } from './format';
import { logOut, reconnectNow } from './gateway';
import { go, href, route } from './route';
import { banner, corner, link, notice, said, session } from './state';
import { hasShortcuts } from './theme';
import { lazy } from './views/lazy';
import { Prices } from './views/prices';

const inMain = (problem: ComponentChildren) => <main id="main" class="lost">{problem}</main>;
const alone = (problem: ComponentChildren) => problem;
const Gateway = lazy(() => import('./views/gateway').then((it) => it.Gateway), inMain);
const Orders = lazy(() => import('./views/orders').then((it) => it.Orders), inMain);
const Help = lazy(() => import('./views/dialogs').then((it) => it.Help), alone);
const LoginForm = lazy(() => import('./views/dialogs').then((it) => it.LoginForm), alone);

const VIEWS: [string, string][] = [['prices', 'Prices'], ['orders', 'Orders'], ['gateway', 'Gateway']];

export function App() {
  const { view } = route.value;
  const isHelping = useSignal(false);
  useEffect(() => {
    const title = VIEWS.find(([name]) => name === view)?.[1] ?? 'Not found';
    const { tone, word } = corner.value;
    document.title = `${tone === 'ok' ? '' : `${word} · `}${title} · Zonewire`;
  });
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const at = event.target as HTMLElement;
      if (at.closest('input, select, textarea, dialog') || !hasShortcuts.peek()) return;
      const index = ['1', '2', '3'].indexOf(event.key);
      if (index >= 0) go(href(VIEWS[index]![0]));
      else if (event.key === '/') document.querySelector<HTMLElement>('[data-filter]')?.focus();
      else if (event.key === 'r' && link.peek().phase !== 'live') reconnectNow();
      else if (event.key === 'b') document.querySelector<HTMLElement>('table.board')?.focus();
      else if (event.key === '?') isHelping.value = true;
      else return;
      event.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
  const state = corner.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.querySelector<HTMLElement>('a, button, input, [tabindex="0"]')?.focus(); }}>To the content</a>
      <header class="bar">
        <a class="brand" href={href('prices')} aria-label="Zonewire">
          <svg width="22" height="22" viewBox="0 0 24 24" aria-hidden="true"><path d="M2 13h4l3-9 5 16 3-10 2 3h3" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round" /></svg>
          <span>Zonewire</span>
        </a>
        <nav aria-label="Views">{VIEWS.map(([name, title]) => <a key={name} href={href(name)} aria-current={view === name ? 'page' : undefined}>{title}</a>)}</nav>
        <span class="spring" />
        <Login />
        <button type="button" class="icon" aria-label="Keys and appearance" aria-haspopup="dialog" onClick={() => { isHelping.value = true; }}>?</button>
        <a class={`state ${state.tone}`} href={href('gateway')}><i aria-hidden="true" />{state.word}{state.detail !== '' && <span class="dim">{state.detail}</span>}</a>
      </header>
      <Banner />
      {session.value.needed && <LoginForm />}
      {view === 'prices' ? <Prices /> : view === 'orders' ? <Orders /> : view === 'gateway' ? <Gateway /> : (
        <main id="main" class="lost"><section class="panel"><h1>There is nothing here</h1><p>The address names no view of this page. <a href={href('prices')}>To the prices</a></p></section></main>
      )}
      {isHelping.value && <Help onClose={() => { isHelping.value = false; }} />}
      {notice.value && <aside aria-label="Notice" class={`notice ${notice.value.isBad ? 'bad' : ''}`}>{notice.value.text}<button type="button" class="link" onClick={() => { notice.value = null; }}>Close</button></aside>}
      <p class="sr" role="status" aria-live="polite">{said.value}</p>
    </>
  );
}

function Banner() {
  const it = banner.value;
  if (!it) return null;
  return (
    <section class={`banner ${it.tone}`} aria-label="What is wrong">
      <p><b>{it.what}</b> {it.means}</p>
      <span class="spring" />
      {it.action === 'reconnect' && <button type="button" class="primary" onClick={reconnectNow}>{it.label}</button>}
      {it.action === 'details' && <a class="link" href={href('gateway')}>{it.label}</a>}
    </section>
  );
}

/** Who one is, where that matters. */
function Login() {
  const { isOn, needed, subject, expires } = session.value;
  if (!isOn || needed) return null;
  return <span class="who"><span class="dim" title={expires > 0 ? `until ${clock(expires)}` : undefined}>{subject || 'logged in'}</span><button type="button" class="link" onClick={logOut}>Log out</button></span>;
}
