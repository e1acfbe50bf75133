// The only file that talks to the gateway: through the client library for streams, and through fetch for the
// rest. It writes what it receives into the state and the board.
import { signal } from '@preact/signals';
import { connect, isFinal, type Status, type Subscription, type ZoneEntry } from 'zonewire';
import type { ConnectionEstablished, HealthView, Problem as Told, ZoneList } from '../../../docs/schema/zonewire';
import { board, type Price, SPARK_MS } from './board';
import { clock, plural } from './format';
import { newest } from './history';
import type { Update } from './orders';
import { gatewayNow, happened, link, login, may, mine, session, skew, storage } from './state';

/** Where this page is served, below whatever path: all of the gateway is beside it. A copy that is served elsewhere
 * names its gateway in its head, which lists that origin in `http.origins`. */
const named = document.querySelector<HTMLMetaElement>('meta[name="zonewire-gateway"]')?.content;
const base = new URL(named ? named.replace(/\/*$/, '/') : '.', document.baseURI).href;

// The token, which stays in this tab and is never part of an address.
const TOKEN = 'zonewire.token';
let token: string | null = null;
try {
  token = sessionStorage.getItem(TOKEN);
} catch {
  // Without storage the token must be entered at each visit.
}

export function logIn(given: string): void {
  try {
    sessionStorage.setItem(TOKEN, given);
    location.reload();
  } catch {
    login.value = { why: 'This browser lets the page keep nothing, so it cannot log in.' };
  }
}

export function logOut(): void {
  sessionStorage.removeItem(TOKEN);
  location.reload();
}

/** Without another token nothing more is possible. */
function unauthorized(): void {
  const { expires, subject } = session.peek();
  if (login.peek() && subject === '') return;
  const hasExpired = expires > 0 && gatewayNow() > expires - 1000;
  const why = token === null ? '' : hasExpired ? `Your token expired at ${clock(expires - skew.peek())}.` : subject !== '' ? 'Your token is no longer accepted.' : 'The token that this tab has is not accepted.';
  session.value = { asks: 'required', subject: '', expires: 0 };
  may.value = { order: false, admin: false };
  login.value = { why };
}

/** Finds out what the token permits besides prices, by asking the gateway. */
async function learnRights(): Promise<void> {
  const isAllowed = (path: string) => get(path).then(() => true, (error: unknown) => !(error instanceof Problem && error.status === 403));
  const [order, admin] = await Promise.all([isAllowed('api/orders/schema'), isAllowed('ws/stats?connections=0')]);
  if (session.peek().subject !== '') may.value = { order, admin };
}

// A page without a token learns from the greeting whether it needs one.
if (token === null) may.value = { order: true, admin: true };

const client = connect(base, { ...(token === null ? {} : { token }) });
export const reconnectNow = () => client.reconnect();
/** Follows a channel, for views that are opened now and then. */
export const { subscribe } = client;

// The connection

let lostAt = 0;

/** The reason why a connection ended, in words. */
function why({ code = 1006, reason = '' }: Status): string {
  const words: Record<number, string> = {
    4000: 'The gateway is shutting down',
    4001: 'This page read more slowly than prices came',
    4002: 'The gateway heard nothing from this page for too long',
    4004: 'This address connects or asks too often',
    4005: 'The gateway has no room for more connections',
    4006: 'The token has expired, or its key was withdrawn',
    4007: 'The gateway is fetching the keys of the token’s issuer',
    4501: 'The token is not accepted',
  };
  if (words[code]) return words[code];
  if (code === 1006) return reason === 'silence' ? 'The gateway went silent' : 'The connection was lost';
  return `The connection ended (${code}${reason === '' ? '' : ` ${reason}`})`;
}

function heed(status: Status): void {
  const before = link.peek();
  const { state, attempt, attemptsMax, retryInMs = 0, code = 1006 } = status;
  if (before.phase === 'live' && state !== 'open') {
    lostAt = Date.now();
    if (state !== 'connecting') happened('lost', `${why(status)}.`);
  }
  if (state === 'open') {
    link.value = { phase: 'live', since: Date.now() };
    happened('live', lostAt === 0 ? 'The page is connected.' : 'The page is connected again.');
    void readZones();
  } else if (state === 'connecting') {
    if (before.phase === 'waiting') link.value = { ...before, at: Date.now() };
    else if (before.phase !== 'connecting') link.value = { phase: 'connecting', since: lostAt };
  } else if (state === 'waiting') {
    if (code === 4006) unauthorized();
    link.value = { phase: 'waiting', since: lostAt, attempt, of: attemptsMax, at: Date.now() + retryInMs, why: why(status) };
  } else if (state === 'offline') {
    link.value = { phase: 'offline', since: before.phase === 'offline' ? before.since : lostAt || Date.now() };
  } else if (state === 'failed') {
    if (code === 4501) unauthorized();
    link.value = isFinal(code) ? { phase: 'closed', since: lostAt, why: why(status) } : { phase: 'stopped', since: lostAt, of: attemptsMax, why: why(status) };
  }
}

// The gateway's storage

function serves(state: string, backend: string, since: number, more: { scope?: string; reason?: string; channels?: string[] } = {}): void {
  const before = storage.peek();
  storage.value = { state, backend, since, scope: more.scope ?? 'all', reason: more.reason ?? '', channels: more.channels ?? [] };
  if (before?.state === state) return;
  const sentences: Record<string, string> = {
    healthy: before === null ? `Served from ${backend === 'redis' ? 'Redis' : 'memory'}.` : 'All is in order again.',
    degraded: more.reason ? `${more.reason}; memory serves.` : 'Redis is away; memory serves.',
    recovering: 'Redis is back; what it missed is being reconciled.',
  };
  if (state === 'healthy' || state === 'degraded' || state === 'recovering') {
    happened(state, sentences[state]!, before === null ? Date.now() : Math.min(Date.now(), since - skew.value || Date.now()));
  }
}

async function askSince(): Promise<void> {
  try {
    const { state, storage_backend: backend, since, scope, reason } = await get<HealthView>('health');
    if (state !== storage.peek()?.state) return;
    serves(state, backend, Date.parse(since), { scope, reason: reason ?? '', channels: storage.peek()?.channels ?? [] });
  } catch {
    // The next change will show it.
  }
}

// Zones

export const zones = signal<readonly string[]>([]);
export const zonesProblem = signal('');
/** Zones on the board that cannot be shown, and why. */
export const refused = signal<ReadonlyMap<string, string>>(new Map());
const ZONES_EVERY_MS = 15_000;

async function readZones(): Promise<void> {
  try {
    const { zones: found } = await get<ZoneList>('api/zones');
    const names = found.map((it) => it.zone);
    if (names.join() !== zones.peek().join()) zones.value = names;
    zonesProblem.value = '';
  } catch (error) {
    zonesProblem.value = error instanceof Problem && error.status === 403 ? 'Your token does not let you list zones: name one in the address, as in #/prices/pjm.' : '';
  }
}

const followed = new Map<string, Subscription<ZoneEntry>>();
const lateNow = new Map<string, number>();

/** Follows these zones and no others. */
export function watchZones(wanted: readonly string[]): void {
  for (const [zone, subscription] of followed) {
    if (wanted.includes(zone)) continue;
    subscription.close();
    followed.delete(zone);
    board.drop(zone);
  }
  refused.value = new Map();
  for (const zone of wanted) if (!followed.has(zone)) follow(zone);
}

function follow(zone: string): void {
  const subscription = client.zone<{ simulated?: unknown }>(zone);
  followed.set(zone, subscription);
  board.follow(zone, () => subscription.latest() as ReadonlyMap<string, Price>);
  let isFilled = false;
  subscription.on('entry', (entry) => {
    if (entry.type === 'price_update') board.take(zone, entry as Price);
    else board.due(zone);
    if ('late' in entry && entry.late === true && !('snapshot' in entry && entry.snapshot)) late(zone);
  });
  subscription.on('snapshot_end', () => board.due(zone));
  subscription.on('gap', ({ missed, snapshot, reason }) => {
    // Entries that the gateway cannot reach at the moment arrive late; a gap before the first snapshot is not a
    // loss.
    if (reason === 'log' && missed !== undefined && missed > 0) happened('gap', `${plural(missed, 'entry', 'entries')} of ${zone} ${missed === 1 ? 'is' : 'are'} no longer kept${snapshot ? '; the latest price of each key came instead' : ''}.`);
  });
  subscription.on('status', (status) => {
    if (status !== 'live' || isFilled) return;
    isFilled = true;
    board.due(zone);
    board.sync();
    // Only sparklines and changes depend on it.
    newest(zone, Date.now() + skew.peek() - SPARK_MS).then((entries) => board.backfill(zone, entries), () => { isFilled = false; });
  });
  subscription.on('end', ({ code, message }) => {
    if (code === undefined) return;
    followed.delete(zone);
    board.drop(zone);
    const why = code !== 'forbidden' ? `${zone} cannot be shown: ${message ?? code}.` : session.peek().subject === '' ? `${zone} is shown to those who log in.` : `Your token does not let you see ${zone}.`;
    refused.value = new Map(refused.peek()).set(zone, why);
  });
}

/** Late entries arrive in bursts: report one line per burst. */
function late(zone: string): void {
  if (lateNow.size === 0) {
    setTimeout(() => {
      for (const [name, count] of lateNow) happened('late', `${plural(count, 'entry', 'entries')} of ${name} came late, and ${count === 1 ? 'is' : 'are'} where ${count === 1 ? 'it belongs' : 'they belong'} in time.`);
      lateNow.clear();
    }, 2000);
  }
  lateNow.set(zone, (lateNow.get(zone) ?? 0) + 1);
}

// Orders

export interface OrderEars {
  update: (update: Update) => void;
  gap: (missed: number) => void;
  problem: (text: string) => void;
}

export function followOrder(orderId: string, ears: OrderEars): () => void {
  let subscription: Subscription<never>;
  try {
    subscription = client.order(orderId) as Subscription<never>;
  } catch (error) {
    ears.problem(error instanceof Error ? error.message : String(error));
    return () => undefined;
  }
  subscription.on('entry', (entry) => ears.update(entry as unknown as Update));
  subscription.on('gap', ({ missed }) => { if (missed !== undefined) ears.gap(missed); });
  subscription.on('end', ({ code, message }) => {
    if (code === 'forbidden') ears.problem('Your token does not let you follow this order.');
    else if (code !== undefined && code !== 'finished') ears.problem(message ?? code);
  });
  return () => subscription.close();
}

// Over HTTP

/** An answer that is an error, in the gateway's words. */
export class Problem extends Error {
  constructor(readonly status: number, readonly code: string, message: string, readonly errors: { field: string; message: string }[] = []) {
    super(message);
  }
}

const WITHIN_MS = 15_000;

async function ask<T>(method: string, path: string, body?: string, headers: Record<string, string> = {}): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(new URL(path, base), {
      method,
      headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...(token === null ? {} : { authorization: `Bearer ${token}` }) },
      ...(body === undefined ? {} : { body }),
      cache: 'no-store',
      signal: AbortSignal.timeout(WITHIN_MS),
    });
  } catch (error) {
    throw new Problem(0, 'unreachable', error instanceof DOMException && error.name === 'TimeoutError' ? 'The gateway did not answer in time.' : 'The gateway cannot be reached.');
  }
  if (answer.status === 204 || (answer.ok && !answer.headers.get('content-type')?.includes('json'))) return undefined as T;
  const json = (await answer.json().catch(() => null)) as unknown;
  if (answer.ok) return json as T;
  const told = (json ?? {}) as Partial<Told> & { errors?: { field: string; message: string }[] };
  if (answer.status === 401 && session.peek().asks !== 'optional') unauthorized();
  throw new Problem(answer.status, told.code ?? '', answer.status === 403 && told.code === 'forbidden' ? `Your token does not allow this${told.detail ? `: ${told.detail}` : ''}.` : sentence(told.detail ?? `The gateway answered ${answer.status}.`), told.errors ?? []);
}

function sentence(text: string): string {
  const first = text[0] === undefined ? '' : text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

export const get = <T>(path: string) => ask<T>('GET', path);
export const post = <T>(path: string, body?: string, headers?: Record<string, string>) => ask<T>('POST', path, body, headers);
export const remove = (zone: string, key: string) => ask<void>('DELETE', `api/zones/${encodeURIComponent(zone)}/keys/${encodeURIComponent(key)}`);

/** Closes a connection permanently, or so that its client reconnects. */
export const disconnect = (id: string, comesBack: boolean) => ask<void>('DELETE', `ws/stats/${encodeURIComponent(id)}${comesBack ? '?reconnect=true' : ''}`);

/** The first message of each connection identifies the user. */
function greeted({ authentication, subject = '', token_expires_at: expires, connection_id: id = '' }: Partial<ConnectionEstablished>): void {
  mine.value = id;
  const asks = authentication === 'required' ? 'required' : authentication === 'optional' ? 'optional' : 'nobody';
  session.value = { asks, subject, expires: expires === undefined ? 0 : Date.parse(expires) };
  login.value = null;
  if (subject !== '') void learnRights();
  else may.value = { order: asks === 'nobody', admin: asks === 'nobody' };
}

export function start(): void {
  client.on('state', heed);
  heed(client.status);
  client.on('backend', (it) => {
    skew.value = Date.now() - client.ageMs({ timestamp: new Date().toISOString() }) - Date.now();
    const since = it.since === undefined ? Date.now() + skew.value : Date.parse(it.since);
    if (!('since' in it)) greeted(it as Partial<ConnectionEstablished>);
    serves(it.state, it.storage_backend, since, it as { scope?: string; reason?: string; channels?: string[] });
    if (it.since === undefined && it.state !== 'healthy') void askSince();
  });
  setInterval(() => { if (link.peek().phase === 'live' && !document.hidden) void readZones(); }, ZONES_EVERY_MS);
}
