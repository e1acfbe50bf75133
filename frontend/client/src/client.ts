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
 * `connecting`: getting address and token, and opening a socket. `open`: the gateway has greeted. `waiting`: for the
 * next attempt. `offline`: for the network; this uses up no attempts. `failed`: given up, until `reconnect()`.
 * `closed`: permanently, by `close()`.
 */
export type State = 'connecting' | 'open' | 'waiting' | 'offline' | 'failed' | 'closed';

/** The state of the connection. */
export interface Status {
  /** What the connection is doing. */
  readonly state: State;
  /**
   * The close code of the previous connection, as in the protocol; 1006 if it broke; an HTTP status if `refusal` found
   * one.
   */
  readonly code?: number;
  /** The reason: one of the protocol's words, or a text for people. */
  readonly reason?: string;
  /** The number of the current or next attempt in a row; 0 while connected. */
  readonly attempt: number;
  /** After how many attempts in a row it gives up. */
  readonly attemptsMax: number;
  /** How many milliseconds until the next attempt. */
  readonly retryInMs?: number;
  /** A sentence for the user. */
  readonly message: string;
}

/** An error after which the connection continues. */
export interface ClientError {
  /** As in the protocol; `token_unavailable` if the provider returned none for a renewal. */
  code: string;
  /** For people. */
  message: string;
}

/** The events of a client. */
export interface ClientEvents {
  /** Once for each change. */
  state: [status: Status];
  /** The state of the gateway's storage has changed. */
  backend: [backend: Backend];
  /** An error that belongs to no subscription, and after which the connection continues. */
  error: [error: ClientError];
  /** Every message of the gateway, before it is processed. */
  message: [message: wire.ServerMessage];
}

/** The state of the gateway's storage; the optional fields are known after its first change. */
export type Backend = Pick<wire.BackendStateMessage, 'state' | 'storage_backend'> & Partial<wire.BackendStateMessage>;

/** The part of a WebSocket that is used, as browsers and the package `ws` have it. */
export interface SocketLike {
  /** 1 while it is open. */
  readyState: number;
  /** Called with each message, whose `data` is a string. */
  onmessage: ((event: never) => void) | null;
  /** Called at its end, with `code` and `reason`. */
  onclose: ((event: never) => void) | null;
  /** Called before `onclose` after an error; its `message`, if any, becomes the reason. */
  onerror: ((event: never) => void) | null;
  /** Sends a text. */
  send(text: string): void;
  /** Closes it. */
  close(code?: number): void;
}

/** Why no WebSocket could be opened, as far as a request over HTTP shows; made by `refusal` of `zonewire/refusal`. */
export interface Refusal {
  /** The status, if the gateway answered; otherwise 1006. */
  code: number;
  /** In the gateway's words, or for people. */
  reason: string;
  /** When to reconnect, in milliseconds, if known. */
  retry_after_ms?: number;
}

/** Time, in milliseconds. Its functions are called without `this`, like the global ones. */
export interface Clock {
  /** Since 1970. */
  readonly now: () => number;
  /** Calls a function later; returns the timer. */
  readonly setTimeout: (then: () => void, ms: number) => unknown;
  /** Cancels a timer. */
  readonly clearTimeout: (timer: any) => void;
}

/** The source of page events, such as a browser's `window`. */
export interface Page {
  /** As of `window`. */
  addEventListener?(type: string, listener: (event: never) => void, capture: boolean): void;
  /** As of `window`. */
  removeEventListener?(type: string, listener: (event: never) => void, capture: boolean): void;
  /** False means that there is no network. */
  readonly navigator?: { readonly onLine?: boolean };
  /** `hidden` if nobody sees the page. */
  readonly document?: { readonly visibilityState?: string };
}

/** How a client connects. */
export interface ClientOptions {
  /** The credential. A function is called for each attempt and each renewal; none (null, '') means anonymous access. */
  token?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** Instead of the global one; Node needs the package `ws` before version 22. */
  WebSocket?: new (url: string, protocols: string[]) => SocketLike;
  /** Called after an attempt without a WebSocket, since browsers do not tell why: `refusal` of `zonewire/refusal`. */
  refusal?: (address: string) => Promise<Refusal | undefined>;
  /** Instead of the global one, for tests. */
  clock?: Clock;
  /** A number from 0 to 1, instead of `Math.random`. */
  random?: () => number;
  /** The page whose events are used; `null` for none. Default: the page that this runs in. */
  page?: Page | null;
  /** How long an attempt may take, from address and token to the gateway's greeting. Default 10,000. */
  connectTimeoutMs?: number;
  /** After the last attempt, try again this often, indefinitely. Default: never; 60,000 is a good value. */
  slowRetryMs?: number;
  /** Makes the sentence for the user, instead of `describe`. */
  text?: (status: Omit<Status, 'message'>) => string;
}

/** A connection to a gateway that is restored whenever it is lost; made by {@link connect}. */
export interface Client extends Emitter<ClientEvents> {
  /** The current state of the connection. */
  readonly status: Status;
  /** The state of the gateway's storage, as last reported. */
  readonly backend: Backend | undefined;
  /** The current subscriptions, by channel. */
  readonly subscriptions: ReadonlyMap<string, Subscription<never>>;
  /** Follows a zone; `Own` are the fields that its publisher adds to each price. */
  zone<Own = unknown>(zone: string, options?: SubscribeOptions): Subscription<ZoneEntry<Own>>;
  /** Follows an order from its first update. */
  order(orderId: string, options?: SubscribeOptions): Subscription<OrderEntry>;
  /**
   * Follows a channel by its name. May be called at any time, even without a connection.
   *
   * @throws if the channel is subscribed to already; see `subscriptions`
   */
  subscribe<C extends string>(channel: C, options?: SubscribeOptions): Subscription<EntryOf<C>>;
  /** Reconnects at once, with a full set of attempts: for the user's "Reconnect now". */
  reconnect(): void;
  /** Sends a message now. False if there is no connection: messages are not stored for later. */
  send(message: wire.ClientMessage | { type: string }): boolean;
  /** For how many milliseconds nothing has arrived from the gateway. */
  silentMs(): number;
  /** How old an entry is by the gateway's clock, in milliseconds. */
  ageMs(entry: { timestamp?: string }): number;
  /** The HTTP address, without a trailing slash. */
  address(): Promise<string>;
  /** A fresh token from the provider. */
  token(): Promise<string | undefined>;
  /** Ends all subscriptions and the connection permanently. */
  close(): void;
}

const ATTEMPTS_MAX = 5;
const STABLE_MS = 5_000; // after this long, a connection's loss starts with the first attempt again
const OFFLINE_MS = 60_000; // `offline` is only a hint, so an attempt is made this often
const PROBE_MS = 5_000;
const RENEW_MS = 5_000; // a failed renewal is repeated this often, until the token expires
const EVENTS = 'online offline pagehide pageshow freeze resume visibilitychange'.split(' ');

const why = (error: unknown) => String((error as Error)?.message ?? error);

/** The delay before attempt 1, 2, …: 1, 2, 4, 8, 16 s, plus a random part of up to 1 s. */
export const delayMs = (attempt: number, random: () => number): number =>
  1_000 * 2 ** (attempt - 1) + Math.round(random() * 1_000);

/** Whether a close code, or the status of a refused upgrade, says not to reconnect. */
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
 * @param url - the gateway's address (`https://host`, `wss://host/base`), or a function that is called for each attempt.
 * Default: the server that the page came from.
 * @throws if the address is invalid, or there is no WebSocket
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
  let run = 0; // number of the attempt; events of earlier ones are ignored
  let attempt = 0;
  let isCounted = false; // the attempt need not count
  let isTold = false; // the gateway said how long to wait
  let openedAt = 0;
  let heardAt = now();
  let isQuiet = false; // nothing has arrived since the heartbeat request
  let intervalMs = 0;
  let skewMs = 0; // how far this clock is ahead of the gateway's
  let closing: Refusal | undefined;
  let timer: unknown;
  let renewing: unknown;
  let expiresAt = 0; // expiry of the token by the gateway's clock
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

  /**
   * Sets the only timer. A deadline that is overdue, as after sleep, is extended by a second, so that messages are read
   * first.
   */
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

  /**
   * Abandons the socket, if any, and whatever it may still deliver. False if a handler has started a new attempt
   * meanwhile.
   */
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

  /** Does not count the attempt that was waited for or made in vain. */
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
        throw new Error('the token has characters that are invalid in a header');
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

  /** Checks for silence by the clock, since timers of hidden pages run late. */
  const watch = () => {
    const leftMs = 2 * intervalMs - silentMs();
    // It exceeds the whole interval if the clock was set back.
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
      // A sleeping page has no use for a socket. The timer runs when the page wakes, even if no event says so.
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
