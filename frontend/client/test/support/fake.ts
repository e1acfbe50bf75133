// A clock that goes when it is told to, and a gateway in the same process that does what a test says and remembers
// what it got.

import type { Client, ClientOptions, Clock, Page, SocketLike, Status } from 'zonewire';
import { connect } from 'zonewire';

/** Lets everything happen that waits for nothing but its turn. */
export const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

export class FakeClock implements Clock {
  #now = Date.parse('2026-11-21T03:40:47.000Z');
  #timers = new Map<number, { due: number; then: () => void }>();
  #last = 0;
  #aheadMs = 0;

  now = () => this.#now + this.#aheadMs;
  setTimeout = (then: () => void, ms: number) => {
    this.#timers.set(++this.#last, { due: this.#now + ms, then });
    return this.#last;
  };
  clearTimeout = (timer: number) => void this.#timers.delete(timer);
  get pending() {
    return this.#timers.size;
  }

  /** Time goes on, and timers run when they are due. */
  async advance(ms: number) {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const [next] = [...this.#timers].filter(([, { due }]) => due <= end).sort(([a, x], [b, y]) => x.due - y.due || a - b);
      if (!next) break;
      this.#timers.delete(next[0]);
      this.#now = Math.max(this.#now, next[1].due);
      next[1].then();
      await settle();
    }
    this.#now = end;
  }

  /** Somebody sets the clock, which timers do not go by. */
  set(ms: number) {
    this.#aheadMs += ms;
  }

  /** Time goes on and nothing runs, as while a machine sleeps; timers are overdue then. */
  sleep(ms: number) {
    this.#now += ms;
  }
}

export class FakeSocket implements SocketLike {
  readyState = 0;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: { message: string }) => void) | null = null;
  readonly sent: any[] = [];
  closedWith: number | undefined;

  constructor(
    readonly gateway: FakeGateway,
    readonly url: string,
    readonly protocols: string[],
  ) {
    gateway.sockets.push(this);
  }

  send(text: string) {
    if (this.readyState !== 1) throw new Error('not open');
    const message = JSON.parse(text);
    this.sent.push(message);
    // Like any other answer it comes when the client has done what it does.
    this.#unanswered.push(message);
    queueMicrotask(() => this.#answer());
  }
  #unanswered: object[] = [];
  #answer() {
    for (let message; (message = this.#unanswered.shift()); ) this.gateway.answer?.(message, this);
  }
  close(code?: number) {
    this.closedWith = code;
    this.readyState = 3;
  }

  greet(more: object = {}) {
    this.readyState = 1;
    this.say({
      type: 'connection_established', connection_id: 'c', storage_backend: 'in-memory', state: 'healthy',
      heartbeat_interval_ms: 30_000, protocol: 1, timestamp: new Date(this.gateway.clock.now()).toISOString(), ...more,
    });
  }
  say(message: object) {
    this.onmessage?.({ data: JSON.stringify(message) });
    this.#answer();
  }
  /** The connection ends from the other side. */
  drop(code = 1006, reason = '') {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
  of(type: string) {
    return this.sent.filter((message) => message.type === type);
  }
}

/** What the gateway says of channels is in the hands of the test, but for what each test would say alike. */
export class FakeGateway {
  readonly sockets: FakeSocket[] = [];
  answer: ((message: any, socket: FakeSocket) => void) | undefined;

  constructor(readonly clock = new FakeClock()) {}

  get socket() {
    return this.sockets.at(-1)!;
  }
  get WebSocket() {
    const gateway = this;
    return class {
      constructor(url: string, protocols: string[]) {
        return new FakeSocket(gateway, url, protocols);
      }
    } as unknown as ClientOptions['WebSocket'];
  }

  /** Answers each `subscribe` as a log would that has nothing more. */
  subscribes(more: object = {}) {
    this.answer = (message, socket) => {
      if (message.type === 'subscribe')
        for (const channel of message.channels) {
          const since = message.since?.[channel];
          const offset = since?.offset ?? 0;
          socket.say({ type: 'subscribed', id: message.id, channel, epoch: since?.epoch ?? 'e1', offset, top: offset, recovered: true, gap: 0, ...more });
        }
      if (message.type === 'unsubscribe')
        for (const channel of message.channels) socket.say({ type: 'unsubscribed', id: message.id, channel });
      if (message.type === 'heartbeat') socket.say({ type: 'heartbeat_ack', id: message.id });
    };
  }
}

/** A page whose events a test makes. */
export class FakePage implements Page {
  #listeners: [string, (event: never) => void][] = [];
  navigator = { onLine: true };
  document = { visibilityState: 'visible' };

  addEventListener(type: string, listener: (event: never) => void) {
    this.#listeners.push([type, listener]);
  }
  removeEventListener(type: string, listener: (event: never) => void) {
    this.#listeners = this.#listeners.filter(([of, one]) => of !== type || one !== listener);
  }
  get listeners() {
    return this.#listeners.length;
  }
  fire(type: string, more: object = {}) {
    for (const [of, listener] of this.#listeners) if (of === type) listener({ type, ...more } as never);
  }
  goOffline() {
    this.navigator.onLine = false;
    this.fire('offline');
  }
  goOnline() {
    this.navigator.onLine = true;
    this.fire('online');
  }
}

/** A client at a fake gateway, and everything that it said. */
export const setUp = (options: ClientOptions = {}, url: Parameters<typeof connect>[0] = 'https://gateway.test') => {
  const gateway = new FakeGateway();
  const page = new FakePage();
  const client = connect(url, { WebSocket: gateway.WebSocket, clock: gateway.clock, random: () => 0.5, page, ...options });
  const states: Status[] = [client.status];
  client.on('state', (status) => states.push(status));
  return { gateway, clock: gateway.clock, page, client, states, said: () => states.map(({ state }) => state) };
};

/** The entry of a zone with this offset. */
export const price = (offset: number, more: object = {}) => ({
  type: 'price_update', channel: 'zone:pjm', offset, id: `g1-${offset}`,
  timestamp: '2026-11-21T03:40:47.388Z', key: 'WESTERN HUB', price: offset, ...more,
});

/** All that a subscription tells, in order. */
export const listen = (sub: ReturnType<Client['zone']>) => {
  const heard: any[] = [];
  sub.on('entry', (entry) => heard.push(entry.offset));
  sub.on('gap', (gap) => heard.push(gap));
  sub.on('end', (end) => heard.push(end));
  return heard;
};
