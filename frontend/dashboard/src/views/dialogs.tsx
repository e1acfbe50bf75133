// Rarely opened dialogs: help, the choice of zones, the question before a removal, and the login.
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { count, plural, words } from '../format';
import { logIn, remove } from '../gateway';
import { isShut, login, may, notify, storage } from '../state';
import { hasShortcuts, theme, type Theme } from '../theme';
import './dialogs.css';

/** A dialog that is open while mounted. Escape, and a click beside it, close it. */
export function Dialog({ title, children, onClose, isQuestion = false }: { title: string; children: ComponentChildren; onClose: () => void; isQuestion?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby="dialog" onClose={onClose} onClick={(event) => { if (event.target === dialog.current) dialog.current!.close(); }}>
      <div class="sheet">
        <div class="head"><h2 id="dialog">{title}</h2><span class="spring" />{!isQuestion && <button type="button" class="quiet" onClick={() => dialog.current!.close()}>Close</button>}</div>
        {children}
      </div>
    </dialog>
  );
}

/** All zones, to search and to select several. */
export function Zones({ all, chosen, onToggle, onClose }: { all: readonly string[]; chosen: readonly string[]; onToggle: (zone: string) => void; onClose: () => void }) {
  const text = useSignal('');
  const found = all.filter((zone) => zone.toLowerCase().includes(text.value.toLowerCase()));
  const SHOWN = 100;
  return (
    <Dialog title="Zones on the board" onClose={onClose}>
      <input type="search" placeholder={`Look for one of ${plural(all.length, 'zone')}`} aria-label="Look for a zone" value={text.value} onInput={(event) => { text.value = event.currentTarget.value; }} />
      <ul class="checks">
        {found.slice(0, SHOWN).map((zone) => (
          <li key={zone}><label class="check"><input type="checkbox" checked={chosen.includes(zone)} disabled={chosen.length === 1 && chosen[0] === zone} onChange={() => onToggle(zone)} />{zone}</label></li>
        ))}
      </ul>
      <p class="dim small">{found.length > SHOWN ? `The first ${SHOWN} of ${count(found.length)}: write more of the name.` : found.length === 0 ? 'No zone has that in its name.' : `${plural(chosen.length, 'zone is', 'zones are')} on the board.`}</p>
    </Dialog>
  );
}

export function Remove({ zone, keyName, onClose }: { zone: string; keyName: string; onClose: () => void }) {
  const isAsking = useSignal(false);
  const problem = useSignal('');
  const act = async () => {
    isAsking.value = true;
    problem.value = '';
    try {
      await remove(zone, keyName);
      notify(`${keyName} is removed from ${zone}.`);
      onClose();
    } catch (error) {
      problem.value = words(error);
    }
    isAsking.value = false;
  };
  return (
    <Dialog title={`Remove ${keyName}?`} onClose={onClose} isQuestion>
      <p>Its latest price is removed for every client on every gateway. The history keeps what was published, and a new price brings the key back.</p>
      {problem.value !== '' && <p class="fault" role="alert">{problem.value}</p>}
      <div class="actions"><button type="button" class="quiet" onClick={onClose}>Keep it</button><button type="button" class="primary bad" disabled={isAsking.value} onClick={act}>Remove the key</button></div>
    </Dialog>
  );
}

export function LoginForm({ isAlone }: { isAlone: boolean }) {
  const Title = isAlone ? 'h1' : 'h2';
  const token = useSignal('');
  const isShown = useSignal(false);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.focus(), []);
  return (
    <section class="panel login" aria-labelledby="login">
      <Title id="login">{isShut.value ? 'This gateway asks for a token' : 'Log in'}</Title>
      {login.value?.why ? <p class="fault" role="alert">{login.value.why}</p> : null}
      <p class="dim">A token of your identity provider, or an API key from whoever runs the gateway. It stays in this tab, and goes when the tab is closed.</p>
      <form onSubmit={(event) => { event.preventDefault(); if (token.value.trim() !== '') logIn(token.value.trim()); }}>
        <label><span>Token</span><input ref={input} type={(isShown.value ? 'text' : 'password') as 'password'} autocomplete="off" spellcheck={false} value={token.value} onInput={(event) => { token.value = event.currentTarget.value; }} /></label>
        <label class="check"><input type="checkbox" checked={isShown.value} onChange={() => { isShown.value = !isShown.value; }} />Show it</label>
        <button class="primary" disabled={token.value.trim() === ''}>Log in</button>
        {!isShut.value && <button type="button" class="quiet" onClick={() => { login.value = null; }}>Not now</button>}
      </form>
    </section>
  );
}

const KEYS: [string, string][] = [
  ['1 2 3 4 5', 'Views, in their order above'],
  ['/', 'Filter what is listed'],
  ['b', 'To the board'],
  ['↑ ↓ Page Home End', 'On the board: choose a key'],
  ['Space', 'On the board: pin it, or let it go'],
  ['Enter', 'On the board: to its chart'],
  ['← →', 'On the chart: from point to point'],
  ['r', 'Reconnect now'],
  ['?', 'This'],
];

export function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys and appearance" onClose={onClose}>
      <dl class="keys">{KEYS.map(([key, what]) => <div key={key}><dt>{key.split(' ').map((it) => <kbd key={it}>{it}</kbd>)}</dt><dd>{what}</dd></div>)}</dl>
      <label class="check"><input type="checkbox" checked={hasShortcuts.value} onChange={() => { hasShortcuts.value = !hasShortcuts.value; }} />Single keys do this</label>
      <div class="seg" role="group" aria-label="Appearance">
        {(['system', 'light', 'dark'] as Theme[]).map((it) => <button type="button" key={it} aria-pressed={theme.value === it} onClick={() => { theme.value = it; }}>{it === 'system' ? 'As the system' : it[0]!.toUpperCase() + it.slice(1)}</button>)}
      </div>
      <p class="dim small">{storage.value ? `Storage: ${storage.value.backend}, ${storage.value.state}. ` : ''}<a href="health">health</a> · {may.value?.admin && <><a href="ws/stats">stats</a> · </>}<a href="metrics">metrics</a> · <a href="openapi.json">OpenAPI</a> · <a href="asyncapi.json">AsyncAPI</a></p>
    </Dialog>
  );
}
