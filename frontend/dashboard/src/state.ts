// The state of things as signals: the connection, the gateway's storage, recent events; and the sentences about
// them. Nothing here talks to the gateway.
import { computed, signal } from '@preact/signals';
import { clock, duration, plural } from './format';

/** The state of the connection. */
export type Link =
  | { phase: 'connecting'; since: number }
  | { phase: 'live'; since: number }
  /** Lost, with the next attempt at `at`; `attempt` of `of` is the next one. */
  | { phase: 'waiting'; since: number; attempt: number; of: number; at: number; why: string }
  /** All attempts are used up. */
  | { phase: 'stopped'; since: number; of: number; why: string }
  /** The gateway said not to reconnect. */
  | { phase: 'closed'; since: number; why: string }
  | { phase: 'offline'; since: number };

/** The state of the storage, as the gateway reports it. */
export interface Storage {
  backend: string;
  state: string;
  since: number;
  scope: string;
  reason: string;
  channels: string[];
}

/** Something that happened while this page was open. */
export interface Happening {
  at: number;
  kind: 'live' | 'lost' | 'healthy' | 'degraded' | 'recovering' | 'gap' | 'late';
  text: string;
}

export const link = signal<Link>({ phase: 'connecting', since: Date.now() });
export const storage = signal<Storage | null>(null);
/** The user's session: whether the gateway requires tokens, the subject of the token, and its expiry. */
export const session = signal<{ asks: 'nobody' | 'optional' | 'required'; subject: string; expires: number }>({ asks: 'nobody', subject: '', expires: 0 });
/** Whether a token is requested: the reason, or nothing if the user wants to log in. */
export const login = signal<{ why: string } | null>(null);
/** What the user may do besides reading prices; null while unknown. */
export const may = signal<{ order: boolean; admin: boolean } | null>(null);
/** The id of this page's own connection. */
export const mine = signal('');
/** How far the gateway's clock is ahead of this one, in milliseconds. */
export const skew = signal(0);
/** Ticks once a second, for texts with counters. */
export const second = signal(Date.now());
setInterval(() => { second.value = Date.now(); }, 1000);

export const gatewayNow = () => Date.now() + skew.peek();

const HAPPENINGS_MAX = 500;
export const happenings = signal<Happening[]>([]);
export function happened(kind: Happening['kind'], text: string, at = Date.now()): void {
  happenings.value = [...happenings.value.slice(1 - HAPPENINGS_MAX), { at, kind, text }];
}

/**
 * Announcements for screen readers, one sentence at a time, some seconds apart: the newest, if there were more.
 */
export const said = signal('');
const SAY_EVERY_MS = 3000;
let saidAt = 0;
let waiting: ReturnType<typeof setTimeout> | null = null;
let next = '';
export function announce(sentence: string): void {
  next = sentence;
  if (waiting !== null) return;
  waiting = setTimeout(() => {
    waiting = null;
    saidAt = Date.now();
    said.value = next;
  }, Math.max(50, saidAt + SAY_EVERY_MS - Date.now()));
}

/** A short notice at the edge of the page about something that the user did. */
export const notice = signal<{ text: string; isBad: boolean } | null>(null);
let noticeEnds: ReturnType<typeof setTimeout>;
export function notify(text: string, isBad = false): void {
  notice.value = { text, isBad };
  announce(text);
  clearTimeout(noticeEnds);
  noticeEnds = setTimeout(() => { notice.value = null; }, 8000);
}

/** Without a valid token there is nothing to see. */
export const isShut = computed(() => session.value.asks === 'required' && session.value.subject === '');

/** Within this time before its expiry, a token's end is announced. */
const ENDS_SOON_MS = 60_000;
export const endsSoon = computed(() => {
  const { expires } = session.value;
  return expires > 0 && expires - second.value - skew.value < ENDS_SOON_MS;
});

export type Tone = 'ok' | 'warn' | 'bad' | 'wait';

/** The corner: one word, and its details. */
export const corner = computed<{ tone: Tone; word: string; detail: string }>(() => {
  const now = second.value;
  const it = link.value;
  if (isShut.value) return { tone: 'wait', word: 'Not logged in', detail: '' };
  switch (it.phase) {
    case 'connecting': return { tone: 'wait', word: 'Connecting', detail: '' };
    case 'waiting': return { tone: 'bad', word: 'Reconnecting', detail: `${it.attempt} of ${it.of}, ${inSeconds(it.at, now)}` };
    case 'stopped': return { tone: 'bad', word: 'Not connected', detail: 'stopped trying' };
    case 'closed': return { tone: 'bad', word: 'Closed', detail: '' };
    case 'offline': return { tone: 'bad', word: 'Offline', detail: duration(now - it.since) };
    case 'live': break;
  }
  const { backend = '', state = 'healthy', since = now, scope = 'all' } = storage.value ?? {};
  if (state === 'degraded') return { tone: 'warn', word: scope === 'some' ? 'Partly degraded' : 'Degraded', detail: `in memory, ${duration(now + skew.value - since)}` };
  if (state === 'recovering') return { tone: 'wait', word: 'Recovering', detail: duration(now + skew.value - since) };
  return { tone: 'ok', word: 'Live', detail: backend === 'redis' ? 'Redis' : 'memory' };
});

const inSeconds = (at: number, now: number) => (at - now < 500 ? 'now' : `in ${Math.ceil((at - now) / 1000)} s`);

export interface Banner {
  tone: Tone;
  what: string;
  means: string;
  /** A button that helps. */
  action: 'reconnect' | 'details' | 'login' | null;
  label: string;
}

/**
 * What the user should know now, if anything: what happened, since when, what it means for the data shown, what
 * to do.
 */
export const banner = computed<Banner | null>(() => {
  const now = second.value;
  const it = link.value;
  if (isShut.value) return null;
  const asOf = it.since === 0 ? 'Nothing has come yet.' : `What you see is as of ${clock(it.since)}, and is getting older.`;
  const at = it.since === 0 ? '' : ` at ${clock(it.since)}`;
  switch (it.phase) {
    case 'waiting':
      return { tone: 'bad', what: `${it.why}${at}.`, means: `${asOf} Try ${it.attempt} of ${it.of} ${it.at - now < 500 ? 'is under way' : `begins in ${Math.ceil((it.at - now) / 1000)} s`}.`, action: 'reconnect', label: 'Reconnect now' };
    case 'stopped':
      return { tone: 'bad', what: `${it.why}${at}, and ${plural(it.of, 'try', 'tries')} to connect again failed.`, means: asOf, action: 'reconnect', label: 'Reconnect now' };
    case 'closed':
      return { tone: 'bad', what: `The gateway ended the connection for good: ${it.why}.`, means: asOf, action: 'reconnect', label: 'Try anyway' };
    case 'offline':
      return { tone: 'bad', what: `This device has been offline since ${clock(it.since)}.`, means: `${asOf} The page connects by itself when the network is back.`, action: 'reconnect', label: 'Reconnect now' };
    case 'connecting': return null;
    case 'live': break;
  }
  if (endsSoon.value && !login.value) {
    const left = session.value.expires - skew.value - now;
    return { tone: 'warn', what: `Your login ends ${left < 1000 ? 'now' : `in ${duration(left)}`}.`, means: `From ${clock(session.value.expires - skew.value)} on nothing comes any more without another token.`, action: 'login', label: 'Log in again' };
  }
  const stored = storage.value;
  if (!stored || stored.state === 'healthy') return null;
  const since = clock(stored.since - skew.value);
  if (stored.state === 'recovering') {
    return { tone: 'wait', what: 'Redis is back.', means: 'What it missed is being reconciled; late entries go where they belong. Nothing accepted was lost.', action: 'details', label: 'Details' };
  }
  const whom = stored.scope === 'some' ? `A part of Redis has been away since ${since}` : `Redis has been away since ${since}`;
  const concerned = stored.scope === 'some' && stored.channels.length > 0 ? ` Concerned here: ${stored.channels.map((it) => it.replace(/^zone:/, '')).join(', ')}.` : '';
  return { tone: 'warn', what: `${whom}.`, means: `Prices of this gateway go on from its memory; those of other gateways come late. Nothing accepted is lost.${concerned}`, action: 'details', label: 'Details' };
});

// Announces each state to screen readers once.
let toldBefore = '';
export function tellState(): void {
  const it = link.peek();
  const stored = storage.peek();
  const key = `${it.phase} ${it.phase === 'live' ? `${stored?.state} ${endsSoon.peek()}` : ''}`;
  if (key === toldBefore) return;
  toldBefore = key;
  if (it.phase === 'connecting') return;
  const sentence = banner.peek();
  announce(sentence ? `${sentence.what} ${sentence.means}` : `${corner.peek().word}.`);
}
