/**
 * Server-sent events in place of a WebSocket, for networks that block WebSockets.
 *
 * @packageDocumentation
 */
import type { ClientOptions, Clock, SocketLike } from './client.js';
import type * as wire from './zonewire.js';

type Socket = NonNullable<ClientOptions['WebSocket']>;
type Ended = { code: number; reason: string };
type Message = { type: string; channel?: string } & Record<string, unknown>;

/** How events are read. */
export interface EventsOptions {
  /** Instead of the global one; the body of its answer must be a stream. */
  fetch?: typeof globalThis.fetch;
}

/** How a WebSocket is tried before events are. */
export interface FallbackOptions extends EventsOptions {
  /** Instead of the global one; Node needs the package `ws` before version 22. */
  WebSocket?: Socket;
  /** How long to wait for a silent WebSocket before events are tried too. Default 3,000. */
  afterMs?: number;
  /** Instead of the global one, for tests. */
  clock?: Clock;
}

/** For how long no WebSocket is tried after events worked and no WebSocket did. */
const BLOCKED_MS = 600_000;

/** The socket's error codes, where HTTP answers have another name for them. */
const CODES: Record<string, string> = {
  invalid_name: 'invalid_channel',
  invalid_query: 'too_many_subscriptions',
  unauthorized: 'forbidden',
  unknown_order: 'forbidden',
};

/** A followed channel. */
interface Wanted {
  /** Whether the request for it is unanswered. */
  isAsked: boolean;
  id: unknown;
  /** The position; '' if unknown. */
  since: string;
  snapshot: boolean;
  epoch?: string;
}

/**
 * A client's socket made of server-sent events. It requests a stream of the subscribed channels; when these change, it
 * requests another stream, which continues where the previous one stopped.
 */
class EventSocket implements SocketLike {
  readyState = 0;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly #url: string;
  readonly #fetch: typeof globalThis.fetch;
  readonly #wanted = new Map<string, Wanted>();
  #token: string | undefined;
  #renewal: { id: unknown; before: string | undefined } | undefined;
  /** Requests whose answer is a new stream: they ask whether the current one is alive. */
  #probes: Message[] = [];
  #state: unknown;
  #stream = new AbortController();
  #isDue = false;

  constructor(url: string, protocols: string[], fetch: typeof globalThis.fetch) {
    this.#url = url.replace(/^ws(.*)ws$/, 'http$1sse');
    this.#fetch = fetch;
    this.#token = protocols.find((name) => name.startsWith('bearer.'))?.slice(7);
    this.#open();
  }

  send(text: string) {
    const { type, id, channels = [], since, snapshot, token } = JSON.parse(text);
    for (const channel of channels as string[])
      if (type === 'subscribe') {
        const from = since?.[channel] ?? '';
        const place = from.epoch ? `${from.epoch}:${from.offset}` : from;
        this.#wanted.set(channel, { isAsked: true, id, since: place, snapshot: !!snapshot });
      } else {
        this.#wanted.delete(channel);
        this.#say({ type: 'unsubscribed', id, channel });
      }
    if (type === 'heartbeat' || type === 'ping') this.#probes.push({ type: type === 'ping' ? 'pong' : 'heartbeat_ack', id });
    else if (type === 'auth') {
      this.#renewal = { id, before: this.#token };
      this.#token = token;
    } else if (!channels[0]) return;
    this.#open();
  }

  close() {
    this.readyState = 3;
    this.#stream.abort();
  }

  #end(code: number, reason: string) {
    if (this.readyState === 3) return;
    this.close();
    this.onclose?.({ code, reason } as never);
  }

  #say(message: Message, data = JSON.stringify(message)) {
    if (this.readyState !== 3) this.onmessage?.({ data } as never);
  }

  /** Requests a stream of the wanted channels that replaces the current one; once for all changes within one turn. */
  #open() {
    this.#stream.abort();
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      if (this.readyState === 3) return;
      const { signal } = (this.#stream = new AbortController());
      this.#read(signal).catch((error) => {
        if (!signal.aborted) this.#end(1006, String(error?.message ?? error));
      });
    });
  }

  async #read(signal: AbortSignal) {
    const channels = [...this.#wanted.keys()];
    const all = [...this.#wanted.values()];
    const params = new URLSearchParams({ channels: channels.join() });
    if (all.some(({ snapshot }) => snapshot)) params.set('snapshot', all.map(({ snapshot }) => +snapshot).join());
    const headers: Record<string, string> = { accept: 'text/event-stream' };
    if (all.some(({ since }) => since)) headers['last-event-id'] = all.map(({ since }) => since).join();
    if (this.#token) headers.authorization = `Bearer ${this.#token}`;
    const fetch = this.#fetch;
    const answer = await fetch(this.#url + (channels[0] ? `?${params}` : ''), { headers, signal, cache: 'no-store' });
    const kind = answer.headers.get('content-type') ?? '';
    if (answer.status !== 200 || !kind.startsWith('text/event-stream')) {
      const problem: wire.Problem = kind.includes('problem+json') ? await answer.json() : {};
      if (!signal.aborted) this.#refused(answer, problem);
      return;
    }

    const reader = answer.body!.getReader();
    const decoder = new TextDecoder();
    let [rest, data, id] = ['', '', ''];
    let closing: Message | undefined;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop()!;
      for (const line of lines) {
        const [, name, text] = /^([^:]*):? ?([^]*)$/.exec(line)!;
        if (name === 'data') data += `${text}\n`;
        else if (name === 'id') id = text!;
        if (line) continue;
        // Updated before any handler runs: a handler may request another stream, which must continue after this event.
        if (id !== 'final') id.split(',').forEach((since, place) => since && all[place] && (all[place].since = since));
        const whole = data.slice(0, -1);
        const message = whole && this.#take(whole, !!channels[0]);
        if (message && message.type === 'closing') closing = message;
        data = id = '';
        if (signal.aborted) return;
      }
    }
    this.#end((closing?.code as number) ?? 1006, (closing?.reason as string) ?? 'the stream ended');
  }

  #take(data: string, hasChannels: boolean) {
    const message = JSON.parse(data) as Message;
    const { type, channel, timestamp } = message;
    const one = this.#wanted.get(channel!);
    if (type === 'connection_established') {
      const isFirst = !this.readyState;
      const isTold = this.#state === message.state;
      this.readyState = 1;
      this.#state = message.state;
      const renewal = this.#renewal;
      this.#renewal = undefined;
      const { storage_backend, state, subject, token_expires_at: expires_at } = message;
      if (isFirst) this.#say(message, data);
      else if (!isTold) this.#say({ type: 'backend_state', storage_backend, state, since: timestamp, scope: 'all', timestamp });
      if (renewal) this.#say({ type: 'authenticated', id: renewal.id, subject, expires_at, timestamp });
      for (const probe of this.#probes.splice(0)) this.#say({ ...probe, timestamp });
    } else if (type === 'subscribed' && one) {
      const { isAsked, id, epoch: old_epoch } = one;
      one.isAsked = false;
      one.epoch = message.epoch as string;
      if (isAsked) this.#say({ ...message, id });
      else if (!message.recovered || message.snapshot || one.epoch !== old_epoch) this.#say({ ...message, type: 'resync', old_epoch });
    } else if (type === 'error' && one) this.#lose(channel!, one, message);
    else if (type === 'closing' && hasChannels && !this.#wanted.size) this.#open();
    else {
      if (one && message.epoch) one.epoch = message.epoch as string;
      if (type === 'unsubscribed') this.#wanted.delete(channel!);
      if (type === 'backend_state') this.#state = message.state;
      this.#say(message, data);
    }
    return message;
  }

  /** The gateway has no subscription to a channel, or not yet. */
  #lose(channel: string, { isAsked, id }: Wanted, error: Message) {
    const { code, timestamp, temporary } = error;
    if (!temporary) this.#wanted.delete(channel);
    if (isAsked) this.#say({ ...error, id });
    else if (!temporary) this.#say({ type: 'unsubscribed', channel, code, timestamp });
  }

  #refused({ status, headers }: Response, { code = '', detail: message = `HTTP ${status}`, channel = '' }: wire.Problem) {
    const one = this.#wanted.get(channel);
    if (one) {
      this.#lose(channel, one, { type: 'error', code: CODES[code] ?? code, temporary: false, message, channel });
      return this.#open();
    }
    const error = { type: 'error', code: status === 401 ? 'invalid_token' : code, temporary: false, message };
    const renewal = this.#renewal;
    if (status === 401 && renewal) {
      this.#renewal = undefined;
      this.#token = renewal.before;
      this.#say({ ...error, id: renewal.id });
      return this.#open();
    }
    const after = Number(headers.get('retry-after')) * 1_000;
    if (code && (status === 429 || status === 503)) {
      const number = status === 429 ? 4004 : code === 'shutting_down' ? 4000 : 4005;
      this.#say({ type: 'closing', code: number, reason: code, retry_after_ms: after });
      return this.#end(number, code);
    }
    // An intermediary may have answered too; the gateway itself would repeat its answer to the same request.
    const isFinal = code && status < 500;
    if (isFinal) this.#say(error);
    this.#end(isFinal ? (status === 401 || status === 403 ? 4501 : 4502) : 1006, message);
  }
}

/** A client's socket that is a WebSocket or a stream of events, whichever speaks first. */
class FallbackSocket implements SocketLike {
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly #tried = new Set<SocketLike>();
  #chosen: SocketLike | undefined;
  #isClosed = false;

  constructor(first: () => SocketLike, then: (() => SocketLike) | undefined, afterMs: number, clock: Clock, chosen: (isFirst: boolean) => void) {
    const { setTimeout, clearTimeout } = clock;
    let ended: Ended | undefined;
    const begin = (make: () => SocketLike, isFirst: boolean) => {
      const socket = make();
      this.#tried.add(socket);
      socket.onmessage = (event) => {
        if (!this.#chosen) {
          clearTimeout(timer as never);
          this.#chosen = socket;
          chosen(isFirst);
          for (const other of this.#tried) if (other !== socket) other.close();
        }
        if (socket === this.#chosen) this.onmessage?.(event);
      };
      socket.onerror = (event) => isFirst && this.onerror?.(event);
      socket.onclose = (event) => {
        this.#tried.delete(socket);
        if (this.#isClosed || (this.#chosen && socket !== this.#chosen)) return;
        if (this.#chosen) return this.onclose?.(event);
        // The failure of the first one says more.
        ended = isFirst || !ended ? (event as Ended) : ended;
        if (then) more();
        else if (!this.#tried.size) this.onclose?.(ended as never);
      };
    };
    const more = () => {
      clearTimeout(timer as never);
      const make = then;
      then = undefined;
      if (make && !this.#isClosed) begin(make, false);
    };
    const timer = then && setTimeout(more, afterMs);
    begin(first, true);
  }

  get readyState() {
    return this.#isClosed ? 3 : (this.#chosen?.readyState ?? 0);
  }
  send(text: string) {
    this.#chosen?.send(text);
  }
  close(code?: number) {
    this.#isClosed = true;
    for (const socket of this.#tried) socket.close(code);
  }
}

/**
 * Events in place of a WebSocket: `connect(url, { WebSocket: events() })`. A client can do everything that it can over a
 * WebSocket, except for sending.
 */
export const events = ({ fetch = globalThis.fetch }: EventsOptions = {}): Socket =>
  class {
    constructor(url: string, protocols: string[]) {
      return new EventSocket(url, protocols, fetch);
    }
  } as Socket;

/**
 * A WebSocket, or events if only they get through: `connect(url, { WebSocket: fallback() })`. After that, a client that
 * reconnects uses events at once, for ten minutes.
 *
 * @throws if there is no WebSocket
 */
export const fallback = (options: FallbackOptions = {}): Socket => {
  const {
    WebSocket = (globalThis as { WebSocket?: Socket }).WebSocket,
    fetch = globalThis.fetch,
    afterMs = 3_000,
    clock = { now: Date.now, setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout },
  } = options;
  if (!WebSocket) throw new Error('no WebSocket here: give one as options.WebSocket');
  const byWebSocket = (url: string, protocols: string[]) => new WebSocket(url, protocols);
  let blockedUntil = 0;
  return class {
    constructor(url: string, protocols: string[]) {
      const isBlocked = clock.now() < blockedUntil;
      const both = [() => byWebSocket(url, protocols), () => new EventSocket(url, protocols, fetch)];
      // After a block, events go first; the second kind is tried if the first one fails.
      const [first, then] = isBlocked ? both.reverse() : both;
      return new FallbackSocket(first!, then, afterMs, clock, (isFirst) => {
        blockedUntil = isFirst === isBlocked ? clock.now() + BLOCKED_MS : 0;
      });
    }
  } as Socket;
};
