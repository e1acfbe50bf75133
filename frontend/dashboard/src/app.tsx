// The frame around the views: the bar, the state in its corner, the banner, and announcements for screen
// readers.
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';
import { clock } from './format';
import { logOut, reconnectNow } from './gateway';
import { go, href, route } from './route';
import { banner, corner, isShut, link, login, may, notice, said, session, skew } from './state';
import { board } from './board';
import { hasShortcuts } from './theme';
import { lazy } from './views/lazy';
import { Prices } from './views/prices';

const inMain = (problem: ComponentChildren) => <main id="main" class="lost">{problem}</main>;
const alone = (problem: ComponentChildren) => problem;
const Gateway = lazy(() => import('./views/gateway').then((it) => it.Gateway), inMain);
const Events = lazy(() => import('./views/events').then((it) => it.Events), inMain);
const Registries = lazy(() => import('./views/registries').then((it) => it.Registries), inMain);
const Orders = lazy(() => import('./views/orders').then((it) => it.Orders), inMain);
const Help = lazy(() => import('./views/dialogs').then((it) => it.Help), alone);
const LoginForm = lazy(() => import('./views/dialogs').then((it) => it.LoginForm), alone);

/** Views, and who may see them. */
const VIEWS: [string, string, 'order' | 'admin' | null][] = [['prices', 'Prices', null], ['events', 'Events', null], ['orders', 'Orders', 'order'], ['registries', 'Registries', null], ['gateway', 'Gateway', 'admin']];
const viewsOf = (rights: typeof may.value) => VIEWS.filter(([, , right]) => right === null || rights?.[right]);

export function App() {
  const { view } = route.value;
  const views = viewsOf(may.value);
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
      const to = viewsOf(may.peek())[Number(event.key) - 1];
      if (to) go(href(to[0]));
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
        <nav aria-label="Views">{views.map(([name, title]) => <a key={name} href={href(name)} aria-current={view === name ? 'page' : undefined}>{title}</a>)}</nav>
        <span class="spring" />
        <Login />
        <button type="button" class="icon" aria-label="Keys and appearance" aria-haspopup="dialog" onClick={() => { isHelping.value = true; }}>?</button>
        <State tone={state.tone} href={may.value?.admin ? href('gateway') : undefined}><i aria-hidden="true" />{state.word}{state.detail !== '' && <span class="dim">{state.detail}</span>}</State>
      </header>
      <Banner />
      {isShut.value && board.keys.value === 0 ? <main id="main" class="alone"><LoginForm isAlone={true} /></main> : <>{login.value && <LoginForm isAlone={false} />}<View view={view} /></>}
      {isHelping.value && <Help onClose={() => { isHelping.value = false; }} />}
      {notice.value && <aside aria-label="Notice" class={`notice ${notice.value.isBad ? 'bad' : ''}`}>{notice.value.text}<button type="button" class="link" onClick={() => { notice.value = null; }}>Close</button></aside>}
      <p class="sr" role="status" aria-live="polite">{said.value}</p>
    </>
  );
}

function State({ tone, href, children }: { tone: string; href: string | undefined; children: ComponentChildren }) {
  return href === undefined ? <span class={`state ${tone}`}>{children}</span> : <a class={`state ${tone}`} href={href}>{children}</a>;
}

function View({ view }: { view: string }) {
  const known = VIEWS.find(([name]) => name === view);
  const right = known?.[2] ?? null;
  if (!known) return <Alone title="There is nothing here">The address names no view of this page.</Alone>;
  if (right !== null && may.value === null) return <main id="main" class="lost"><p class="dim">Asking what your token allows …</p></main>;
  if (right !== null && !may.value![right]) return <Alone title={known[1]}>{session.value.subject === '' ? 'This needs a login.' : right === 'order' ? 'Your token does not let you see or place orders.' : 'Your token does not let you see how the gateway is doing.'}</Alone>;
  return view === 'prices' ? <Prices /> : view === 'events' ? <Events /> : view === 'orders' ? <Orders /> : view === 'registries' ? <Registries /> : <Gateway />;
}

function Alone({ title, children }: { title: string; children: ComponentChildren }) {
  return <main id="main" class="lost"><section class="panel"><h1>{title}</h1><p>{children} <a href={href('prices')}>To the prices</a></p></section></main>;
}

function Banner() {
  const it = banner.value;
  if (!it) return null;
  return (
    <section class={`banner ${it.tone}`} aria-label="What is wrong">
      <p><b>{it.what}</b> {it.means}</p>
      <span class="spring" />
      {it.action === 'reconnect' && <button type="button" class="primary" onClick={reconnectNow}>{it.label}</button>}
      {it.action === 'details' && may.value?.admin && <a class="link" href={href('gateway')}>{it.label}</a>}
      {it.action === 'login' && <button type="button" class="link" onClick={askForToken}>{it.label}</button>}
    </section>
  );
}

/** The user, if the gateway has authentication. */
function Login() {
  const { asks, subject, expires } = session.value;
  if (asks === 'nobody' || isShut.value) return null;
  if (subject === '') return <span class="who"><button type="button" class="link" onClick={askForToken}>Log in</button></span>;
  return <span class="who"><span class="dim" title={expires > 0 ? `until ${clock(expires - skew.value)}` : undefined}>{subject}</span><button type="button" class="link" onClick={logOut}>Log out</button></span>;
}

function askForToken(): void {
  login.value = { why: '' };
}
