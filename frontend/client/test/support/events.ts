// Streams of events that do what a test says, and what was asked for; in the same process.

import type { ClientOptions } from 'zonewire';
import { connect } from 'zonewire';
import { events } from 'zonewire/sse';
import { FakeClock, FakePage, settle } from './fake.js';

const encoder = new TextEncoder();

/** A request for a stream, and its answer once the test gives one. */
export class FakeStream {
  readonly path: string;
  readonly query: Record<string, string>;
  readonly headers: Record<string, string>;
  isGone = false;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #answer!: (answer: Response) => void;
  #fail!: (reason: Error) => void;
  readonly answer = new Promise<Response>((resolve, reject) => {
    this.#answer = resolve;
    this.#fail = reject;
  });

  constructor(readonly clock: FakeClock, url: string, { headers, signal }: RequestInit) {
    const { pathname, searchParams } = new URL(url);
    this.path = pathname;
    this.query = Object.fromEntries(searchParams);
    this.headers = headers as Record<string, string>;
    signal!.addEventListener('abort', () => {
      this.isGone = true;
      const reason = new DOMException('This operation was aborted', 'AbortError');
      this.#fail(reason);
      this.#controller?.error(reason);
    });
  }

  /** The head of the answer, without an event. */
  begin() {
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.#controller = controller) });
    this.#answer(new Response(body, { headers: { 'content-type': 'text/event-stream' } }));
  }
  greet(more: object = {}) {
    this.begin();
    this.say({
      type: 'connection_established', connection_id: 'c', storage_backend: 'in-memory', state: 'healthy', heartbeat_interval_ms: 30_000,
      protocol: 1, timestamp: new Date(this.clock.now()).toISOString(), ...more,
    });
  }
  say(message: object, id?: string) {
    this.bytes(`${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(message)}\n\n`);
  }
  bytes(text: string | Uint8Array) {
    if (!this.isGone) this.#controller.enqueue(typeof text === 'string' ? encoder.encode(text) : text);
  }
  /** `subscribed`, of a log that has nothing more. */
  subscribed(channel: string, id: string, more: object = {}) {
    const place = id.split(',')[this.query.channels!.split(',').indexOf(channel)]!;
    const [epoch, offset] = [place.slice(0, place.lastIndexOf(':')), Number(place.slice(place.lastIndexOf(':') + 1))];
    this.say({ type: 'subscribed', channel, epoch, offset, top: offset, recovered: true, gap: 0, ...more }, id);
  }
  end() {
    this.#controller.close();
  }
  drop(reason = 'the network went away') {
    if (this.#controller) this.#controller.error(new TypeError(reason));
    else this.#fail(new TypeError(reason));
  }
  refuse(status: number, problem?: object, headers: Record<string, string> = {}) {
    const kind = problem ? 'application/problem+json' : 'text/html';
    this.#answer(new Response(problem ? JSON.stringify(problem) : '<h1>no</h1>', { status, headers: { 'content-type': kind, ...headers } }));
  }
}

export class FakeEvents {
  readonly streams: FakeStream[] = [];

  constructor(readonly clock = new FakeClock()) {}

  get stream() {
    return this.streams.at(-1)!;
  }
  readonly fetch = ((url: string, init: RequestInit) => {
    const stream = new FakeStream(this.clock, url, init);
    this.streams.push(stream);
    return stream.answer;
  }) as unknown as typeof globalThis.fetch;
}

/** A client that reads events only, and everything that its gateway is asked. */
export const setUpEvents = async (options: ClientOptions = {}) => {
  const gateway = new FakeEvents();
  const page = new FakePage();
  const client = connect('https://gateway.test/base', {
    WebSocket: events({ fetch: gateway.fetch }), clock: gateway.clock, random: () => 0.5, page, ...options,
  });
  const states: string[] = [];
  client.on('state', ({ state }) => states.push(state));
  await settle();
  return { gateway, clock: gateway.clock, page, client, states };
};
