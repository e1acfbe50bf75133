import { emitter, report, type Emitter } from './emitter.js';
import {
  hold,
  type EntryOf,
  type Held,
  type OrderEntry,
  type SubscribeOptions,
  type Subscription,
  type ZoneEntry,
} from './subscription.js';
import type * as wire from './zonewire.js';

/**
 * `connecting`: asking for address and token, and opening a socket. `open`: the gateway has greeted. `waiting`: for the
 * next attempt. `offline`: for the network; this costs no attempts. `failed`: given up, until `reconnect()`.
 * `closed`: by `close()`, for good.
 */
export type State = 'connecting' | 'open' | 'waiting' | 'offline' | 'failed' | 'closed';

/** How the connection is. */
export interface Status {
  /** What it is doing. */
  readonly state: State;
  /** The close code of the connection before, as in the protocol; 1006 where it broke; the status of HTTP where `refusal` learned one. */
  readonly code?: number;
  /** Why, in a word of the protocol or for people. */
  readonly reason?: string;
  /** Which attempt in a row this is, or waits to be; 0 while all is well. */
  readonly attempt: number;
  /** After how many in a row it gives up. */
  readonly attemptsMax: number;
  /** How long it waits for the next attempt, in milliseconds. */
  readonly retryInMs?: number;
  /** A sentence for the user. */
  readonly message: string;
}

/** Something that went wrong and ended nothing. */
export interface ClientError {
  /** As in the protocol; `token_unavailable` where the provider gave none for a renewal. */
  code: string;
  /** For people. */
  message: string;
}

/** What a client tells of. */
export interface ClientEvents {
  /** Once for each change. */
  state: [status: Status];
  /** The storage of the gateway serves in another way. */
  backend: [backend: Backend];
  /** Something went wrong that belongs to no subscription, and ended nothing. */
  error: [error: ClientError];
  /** Every message of the gateway, before anything else is done with it. */
  message: [message: wire.ServerMessage];
}

/** How the storage of the gateway serves; the rest is known once it has changed. */
export type Backend = Pick<wire.BackendStateMessage, 'state' | 'storage_backend'> & Partial<wire.BackendStateMessage>;

/** What of a WebSocket is used: that of browsers, and of the package `ws`. */
export interface SocketLike {
  /** 1 while it is open. */
  readyState: number;
  /** Called with each message, whose `data` is a text. */
  onmessage: ((event: never) => void) | null;
  /** Called at its end, with `code` and `reason`. */
  onclose: ((event: never) => void) | null;
  /** Called before `onclose` where something went wrong; its `message`, where there is one, becomes the reason. */
  onerror: ((event: never) => void) | null;
  /** Sends a text. */
  send(text: string): void;
  /** Closes it. */
  close(code?: number): void;
}

/** Why no WebSocket came about, as far as a question over HTTP tells; made by `refusal` of `zonewire/refusal`. */
export interface Refusal {
  /** The status, where the gateway said it; else 1006. */
  code: number;
  /** In the gateway's words, or for people. */
  reason: string;
  /** When to come back, in milliseconds; absent where nobody said it. */
  retry_after_ms?: number;
}

/** Time, in milliseconds. Its functions are called on their own, as the global ones are. */
export interface Clock {
  /** Since 1970. */
  readonly now: () => number;
  /** Calls a function later; gives the timer. */
  readonly setTimeout: (then: () => void, ms: number) => unknown;
  /** Takes a timer back. */
  readonly clearTimeout: (timer: any) => void;
}

/** The page: where its events are heard, as of a browser's `window`. */
export interface Page {
  /** As of `window`. */
  addEventListener?(type: string, listener: (event: never) => void, capture: boolean): void;
  /** As of `window`. */
  removeEventListener?(type: string, listener: (event: never) => void, capture: boolean): void;
  /** False says that there is no network. */
  readonly navigator?: { readonly onLine?: boolean };
  /** `hidden` where nobody sees it. */
  readonly document?: { readonly visibilityState?: string };
}

/** How a client connects. */
export interface ClientOptions {
  /** Says who this is. A function is asked at each attempt and for each renewal; none (null, '') is nobody. */
  token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** Instead of the global one; Node needs the package `ws` before version 22. */
  WebSocket?: new (url: string, protocols: string[]) => SocketLike;
  /** Asked after an attempt without a WebSocket, since browsers do not tell why: `refusal` of `zonewire/refusal`. */
  refusal?: (address: string) => Promise<Refusal | undefined>;
  /** Instead of the global one, for tests. */
  clock?: Clock;
  /** A number from 0 to 1, instead of `Math.random`. */
  random?: () => number;
  /** Whose events are heeded; `null`: nobody's. Default: the page that this runs in. */
  page?: Page | null;
  /** How long an attempt may take, address and token included, until the gateway has greeted. Default 10,000. */
  connectTimeoutMs?: number;
  /** After the last attempt one more so often, for ever. Default: none; 60,000 is a good one. */
  slowRetryMs?: number;
  /** The sentence for the user, in place of `describe`. */
  text?: (status: Omit<Status, 'message'>) => string;
}

/** A connection to a gateway, kept up; made by {@link connect}. */
export interface Client extends Emitter<ClientEvents> {
  /** How the connection is now. */
  readonly status: Status;
  /** How the storage of the gateway serves, as it said last. */
  readonly backend: Backend | undefined;
  /** What is subscribed to now, by channel. */
  readonly subscriptions: ReadonlyMap<string, Subscription<never>>;
  /** Follows a zone; `Own` are the fields that its publisher adds to each price. */
  zone<Own = unknown>(zone: string, options?: SubscribeOptions): Subscription<ZoneEntry<Own>>;
  /** Follows an order, from its first update on. */
  order(orderId: string, options?: SubscribeOptions): Subscription<OrderEntry>;
  /**
   * Follows a channel by its name. It may be called at any time, also while there is no connection.
   *
   * @throws where the channel is subscribed to already: it is then in `subscriptions`
   */
  subscribe<C extends string>(channel: C, options?: SubscribeOptions): Subscription<EntryOf<C>>;
  /** Connects anew at once, with all attempts before it: the user's "Reconnect now". */
  reconnect(): void;
  /** Sends a message now. False where there is no connection: nothing is kept for later. */
  send(message: wire.ClientMessage | { type: string }): boolean;
  /** How long nothing was heard from the gateway, in milliseconds. */
  silentMs(): number;
  /** How old an entry is by the gateway's clock, in milliseconds. */
  ageMs(entry: { timestamp?: string }): number;
  /** The address over HTTP, without a slash at its end. */
  address(): Promise<string>;
  /** The token, asked for anew. */
  token(): Promise<string | undefined>;
  /** Ends all subscriptions and the connection, for good. */
  close(): void;
}

const ATTEMPTS_MAX = 5;
const STABLE_MS = 5_000; // a connection that held so long gives back all attempts
const OFFLINE_MS = 60_000; // `offline` is a hint: so often it is tried all the same
const PROBE_MS = 5_000;
const RENEW_MS = 5_000; // so often a renewal that failed is tried again, until the token expires
const EVENTS = 'online offline pagehide pageshow freeze resume visibilitychange'.split(' ');

const why = (error: unknown) => String((error as Error)?.message ?? error);

/** How long to wait before an attempt, counting from 1: 1, 2, 4, 8, 16 s, and up to 1 s at random. */
export const delayMs = (attempt: number, random: () => number): number =>
  1_000 * 2 ** (attempt - 1) + Math.round(random() * 1_000);

/** Whether a close code, or the status of a refused upgrade, says not to come back. */
export const isFinal = (code: number): boolean =>
  [1000, 1002, 1003, 1007, 1009].includes(code) || (code > 4499 && code < 5000) || (code > 399 && code < 500 && code !== 429);

/** The sentence for the user, in English. */
export const describe = ({ state, attempt, attemptsMax, retryInMs = 0, code }: Omit<Status, 'message'>): string =>
  ({
    connecting: attempt ? `Reconnecting (${attempt} of ${attemptsMax})…` : 'Connecting…',
    open: 'Connected.',
    waiting: attempt
      ? `Connection lost. Next try in ${Math.ceil(retryInMs / 1_000)} s (${attempt} of ${attemptsMax}).`
      : 'Paused.',
    offline: 'You are offline.',
    failed: code === 4501 ? 'Sign in again to reconnect.' : 'Connection lost. Reconnect to try again.',
    closed: 'Disconnected.',
  })[state];

/**
 * Connects to a gateway, and keeps the connection up.
 *
 * @param url - the gateway's address (`https://host`, `wss://host/base`), or a function that is asked for it at each
 * attempt. Default: where the page came from.
 * @throws where the address has not the right form, or there is no WebSocket
 */
export const connect = (url: string | (() => string | Promise<string>) = '/', options: ClientOptions = {}): Client => {
  const {
    WebSocket = (globalThis as { WebSocket?: ClientOptions['WebSocket'] }).WebSocket,
    random = Math.random,
    page = globalThis as unknown as Page,
    connectTimeoutMs = 10_000,
    slowRetryMs,
    text = describe,
  } = options;
  const { now, setTimeout, clearTimeout }: Clock = options.clock ?? {
    now: Date.now,
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
  };
  if (!WebSocket) throw new Error('no WebSocket here: give one as options.WebSocket');

  const { on, emit } = emitter<ClientEvents>();
  const held = new Map<string, Held>();
  let status: Status = { state: 'closed', attempt: 0, attemptsMax: ATTEMPTS_MAX, message: '' };
  let backend: Backend | undefined;
  let socket: SocketLike | undefined;
  let isOpen = false; // the gateway has greeted
  let run = 0; // which attempt; what belongs to another one is not heeded
  let attempt = 0;
  let isCounted = false; // the attempt may be given back
  let isTold = false; // the gateway said how long to wait
  let openedAt = 0;
  let heardAt = now();
  let isQuiet = false; // nothing was heard since it was asked
  let intervalMs = 0;
  let skewMs = 0; // how far this clock is ahead of the gateway's
  let closing: Refusal | undefined;
  let timer: unknown;
  let renewing: unknown;
  let expiresAt = 0; // the token, by the gateway's clock
  let requests = 0;
  let renewal: number | undefined;

  const full = (base: string) => {
    const { href } = new URL(base, (globalThis as { location?: { href: string } }).location?.href);
    if (!/^(ws|http)s?:/.test(href)) throw new Error(`not an address: ${base}`);
    return href.replace(/\/*([?#].*)?$/, '');
  };
  const address = async () => full(typeof url === 'function' ? await url() : url).replace(/^ws/, 'http');
  const token = async () => (typeof options.token === 'function' ? await options.token() : options.token) || undefined;
  if (typeof url !== 'function') full(url);

  const say = (state: State, more?: Partial<Status>) => {
    const next = { state, attempt, attemptsMax: ATTEMPTS_MAX, ...more };
    emit('state', (status = { ...next, message: text(next) }));
  };

  /** One timer is enough. A deadline that is overdue, as after sleep, gives a second to what has come meanwhile. */
  const arm = (ms: number, then: () => void, isDeadline?: boolean) => {
    clearTimeout(timer);
    const due = now() + ms;
    timer = setTimeout(() => (isDeadline && now() - due >= 1_000 ? arm(1_000, then) : then()), ms);
  };

  const send = (message: object) => {
    const isSent = isOpen && socket!.readyState === 1;
    if (isSent) socket!.send(JSON.stringify(message));
    return isSent;
  };

  /** Leaves the socket, if there is one, and whatever it may still bring. False: a handler has begun anew meanwhile. */
  const leave = () => {
    const old = socket;
    const mine = ++run;
    socket = closing = undefined;
    isOpen = false;
    clearTimeout(timer);
    clearTimeout(renewing);
    old?.close(1000);
    for (const one of held.values()) one.lost();
    return mine === run;
  };

  const isOffline = () => page?.navigator?.onLine === false;

  /** Gives back the attempt that was waited for or made in vain. */
  const uncount = () => {
    if (isCounted) attempt--;
    isCounted = false;
  };

  const waitForNetwork = (code?: number, reason?: string) => {
    uncount();
    isTold = false;
    arm(OFFLINE_MS, open);
    say('offline', { code, reason });
  };

  const lose = (code: number, reason: string) => {
    const told = closing;
    const retryMs = told?.retry_after_ms;
    if (told && (code === 1005 || code === 1006)) ({ code, reason } = told);
    if (isOpen && now() - openedAt >= STABLE_MS) attempt = 0;
    if (!leave()) return;
    isTold = false;
    if (isFinal(code) && !(code === 4501 && typeof options.token === 'function')) say('failed', { code, reason });
    else if (isOffline() && !retryMs) waitForNetwork(code, reason);
    else if (attempt < ATTEMPTS_MAX) {
      attempt++;
      isCounted = true;
      isTold = !!retryMs;
      const retryInMs = retryMs || delayMs(attempt, random);
      arm(retryInMs, () => (isOffline() ? waitForNetwork(code, reason) : open()));
      say('waiting', { code, reason, retryInMs });
    } else {
      isCounted = false;
      if (slowRetryMs) arm(retryMs || slowRetryMs + random() * 1_000, open);
      say('failed', { code, reason });
    }
  };

  const open = async () => {
    if (!leave()) return;
    const mine = run;
    arm(connectTimeoutMs, () => lose(1006, 'timed out'), true);
    say('connecting');
    try {
      const base = await address();
      const secret = mine === run && (await token());
      if (mine !== run) return;
      if (secret && !/^[\w!#$%&'*+.^`|~-]+$/.test(secret))
        throw new Error('the token has characters that no header takes');
      const next = new WebSocket(`ws${base.slice(4)}/ws`, ['zonewire.v1', ...(secret ? [`bearer.${secret}`] : [])]);
      let problem = '';
      socket = next;
      next.onerror = ({ message }: { message?: string }) => (problem = message ?? '');
      next.onclose = async ({ code, reason }: { code: number; reason: string }) => {
        if (mine !== run) return;
        const refusal = !isOpen && code === 1006 && options.refusal && (await options.refusal(base).catch(report));
        if (mine !== run) return;
        if (refusal) closing = refusal;
        lose(code, reason || problem);
      };
      next.onmessage = ({ data }: { data: string }) => {
        if (mine !== run) return;
        heardAt = now();
        isQuiet = false;
        let message;
        try {
          message = JSON.parse(data);
        } catch {
          return lose(1006, 'not JSON');
        }
        take(message);
      };
    } catch (error) {
      if (mine === run) lose(1006, why(error));
    }
  };

  /** Silence is measured by the clock, since timers of hidden pages come when they come. */
  const watch = () => {
    const leftMs = 2 * intervalMs - silentMs();
    // More than all is left where somebody has set the clock back.
    if (leftMs > 0 && leftMs <= 2 * intervalMs) arm(leftMs, watch);
    else probe(intervalMs / 2);
  };

  const probe = (ms: number) => {
    isQuiet = true;
    send({ type: 'heartbeat' });
    arm(ms, () => (isQuiet ? lose(1006, 'silence') : watch()), true);
  };

  const renew = async () => {
    const mine = run;
    try {
      const secret = await token();
      if (mine === run && secret) send({ type: 'auth', id: (renewal = ++requests), token: secret });
    } catch (error) {
      if (mine === run) notRenewed({ code: 'token_unavailable', message: why(error) });
    }
  };

  const notRenewed = (error: ClientError & { retry_after_ms?: number }) => {
    const again = error.retry_after_ms;
    if (now() - skewMs < expiresAt) renewing = setTimeout(renew, again ?? RENEW_MS);
    if (!again) emit('error', error);
  };

  const take = (message: wire.ServerMessage & { channel?: string; id?: unknown; timestamp?: string }) => {
    const mine = run;
    emit('message', message);
    if (mine !== run) return;
    const { type, channel, id } = message;
    // Most messages are entries.
    if ('offset' in message) return void held.get(channel!)?.take(message);
    if (type === 'connection_established' || type === 'heartbeat')
      skewMs = Math.min(isOpen ? skewMs : Infinity, heardAt - Date.parse(message.timestamp));
    if (type === 'connection_established') {
      if (message.authentication === 'required' && !message.subject) return lose(4501, 'unauthorized');
      backend = message;
      openedAt = heardAt;
      intervalMs = message.heartbeat_interval_ms;
      isOpen = true;
      isCounted = false;
      watch();
      for (const one of held.values()) one.begin();
      say('open', { attempt: 0 });
      emit('backend', message);
    } else if (type === 'backend_state') emit('backend', (backend = message));
    else if (type === 'closing') closing = message;
    else if (type === 'heartbeat') for (const one of held.values()) one.forget(heardAt);
    else if (type === 'token_expiring') {
      expiresAt = Date.parse(message.expires_at);
      renew();
    }
    else if (type === 'error') {
      const of = [...held.values()].find((one) => one.asks(id));
      if (of) of.take(message);
      else if (id === undefined) emit('error', message);
      else if (id === renewal) notRenewed(message);
    } else if (channel) held.get(channel)?.take(message);
  };

  const silentMs = () => now() - heardAt;

  const heed = ({ type, persisted }: { type: string; persisted?: boolean }) => {
    const { state } = status;
    if (type === 'visibilitychange' && page!.document?.visibilityState === 'hidden') return;
    if (type === 'freeze' || type === 'pagehide') {
      // A page that sleeps has no use for a socket. The timer runs when it wakes, whether or not an event says so.
      if (socket && (type === 'freeze' || persisted)) {
        uncount();
        if (!leave()) return;
        isTold = false;
        arm(1_000, open);
        say('waiting', { reason: 'asleep', retryInMs: 1_000 });
      }
    } else if (isOpen) probe(PROBE_MS);
    else if (!isTold && (state === 'waiting' || (state === 'offline' && type !== 'offline'))) {
      if (type === 'offline') waitForNetwork(status.code, status.reason);
      else {
        uncount();
        open();
      }
    }
  };
  for (const type of EVENTS) page?.addEventListener?.(type, heed, true);

  const subscribe = (name: string, wanted: SubscribeOptions = {}) => {
    const channel = name.startsWith('order:') ? name.toLowerCase() : name;
    if (status.state === 'closed') throw new Error('the client is closed');
    if (held.has(channel)) throw new Error(`${channel} is subscribed to already`);
    const one = hold(channel, wanted, {
      request(type, of, more) {
        const id = ++requests;
        return send({ type, id, channels: [of], ...more }) ? id : undefined;
      },
      isDegraded: (of) =>
        !!backend &&
        backend.state !== 'healthy' &&
        (backend.scope !== 'some' || !!backend.more_channels || !!backend.channels?.includes(of)),
      gone: () => held.delete(channel),
    });
    held.set(channel, one);
    one.begin();
    return one.api as never;
  };

  open();

  return {
    on,
    subscribe,
    zone: (zone, wanted) => subscribe(`zone:${zone}`, wanted),
    order: (orderId, wanted) => subscribe(`order:${orderId}`, wanted),
    send,
    silentMs,
    ageMs: ({ timestamp }) => now() - skewMs - Date.parse(timestamp!),
    address,
    token,
    get status() {
      return status;
    },
    get subscriptions() {
      return new Map([...held].map(([channel, { api }]) => [channel, api]));
    },
    get backend() {
      return backend;
    },
    reconnect() {
      if (status.state === 'closed') return;
      attempt = 0;
      isCounted = false;
      open();
    },
    close() {
      if (status.state === 'closed') return;
      for (const type of EVENTS) page?.removeEventListener?.(type, heed, true);
      for (const one of [...held.values()]) one.end({});
      leave();
      attempt = 0;
      say('closed', { code: 1000 });
    },
  };
};
