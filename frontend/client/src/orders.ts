/**
 * Places orders, and follows them to their end.
 *
 * @packageDocumentation
 */
import type { Client } from './client.js';
import { report } from './emitter.js';
import type { OrderEntry } from './subscription.js';
import type { OrderFailed, OrderPlaced, OrderUpdate, OrderView, Problem } from './zonewire.js';

/** The last update of an order that was executed. */
export type OrderConfirmed = { type: 'confirmed' } & OrderUpdate;

/** How an order is watched. */
export interface WatchOptions {
  /** Called with each update once, in order, the last one included. */
  onProgress?: (update: OrderEntry) => unknown;
  /** Called when updates were lost, with their number if known. */
  onGap?: (missed: number | undefined) => unknown;
  /** Stops watching; the order continues. */
  signal?: AbortSignal;
  /** Instead of the global one. */
  fetch?: typeof fetch;
}

/** How an order is placed. */
export interface PlaceOptions extends WatchOptions {
  /** Called with the order's id once it is in the queue. */
  onPlaced?: (orderId: string) => unknown;
  /** Makes repetitions harmless, for 24 hours. Default: a new UUID. Store one in order to continue after a reload. */
  idempotencyKey?: string;
  /** How long to repeat the request if there is no answer, or one that says "later". Default 30,000. */
  placeForMs?: number;
  /** How long to wait for one answer. Default 10,000. */
  answerMs?: number;
}

/** An order was not placed, failed, or could not be watched to its end. */
export class OrderError extends Error {
  constructor(
    /**
     * The gateway's code (`invalid_order`, `queue_full`, …), the order's (`cancelled`, `no_liquidity`, …), or
     * `no_answer`: it is unknown whether it was placed, so place it again with the same key; or `not_watched`: it was
     * placed, and continues.
     */
    readonly code: string,
    message: string,
    /** Further details. */
    readonly details: {
      /** Absent if the order is not known to be placed. */
      orderId?: string;
      /** The key by which it is placed once, however often it is sent. */
      idempotencyKey?: string;
      /** The gateway's refusal, with each wrong field in `errors`. */
      problem?: Problem;
      /** The order's last update, if it failed. */
      failed?: { type: 'failed' } & OrderFailed;
    } = {},
  ) {
    super(message);
    this.name = 'OrderError';
  }
}

const pause = (ms: number, signal: AbortSignal | undefined) =>
  new Promise<void>((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });

/** One request with its credential; rejects if no answer arrives in time. */
const ask = async (
  client: Client,
  path: string,
  { fetch = globalThis.fetch, signal }: WatchOptions,
  ms: number,
  init: RequestInit = {},
) => {
  signal?.throwIfAborted();
  const [address, token] = await Promise.all([client.address(), client.token()]);
  const patience = new AbortController();
  const stop = () => patience.abort(signal?.reason ?? new Error('no answer in time'));
  const timer = setTimeout(stop, ms);
  signal?.addEventListener('abort', stop);
  try {
    const answer = await fetch(address + path, {
      ...init,
      headers: { ...init.headers, ...(token && { authorization: `Bearer ${token}` }) },
      signal: patience.signal,
    });
    // An intermediary may answer with something other than JSON.
    return { answer, body: await answer.json().catch(() => ({})) };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
};

/**
 * Follows an order to its end.
 *
 * @returns its last update
 * @throws OrderError if it failed, or could not be followed. If the client has given up, this waits for
 * `client.reconnect()`.
 */
export const watchOrder = async (client: Client, orderId: string, options: WatchOptions = {}): Promise<OrderConfirmed> => {
  const { onProgress, onGap, signal } = options;
  signal?.throwIfAborted();
  const channel = `order:${orderId.toLowerCase()}` as const;
  const shared = client.subscriptions.get(channel) as ReturnType<Client['order']> | undefined;
  const sub = shared ?? client.order(orderId);
  const off: (() => void)[] = [];
  let stop = () => {};
  try {
    const last = await new Promise<OrderEntry | { code?: string; message?: string }>((resolve, reject) => {
      stop = () => reject(signal!.reason);
      signal?.addEventListener('abort', stop);
      off.push(
        sub.on('entry', (update) => {
          if (update.type === 'confirmed' || update.type === 'failed') resolve(update);
          return onProgress?.(update);
        }),
        sub.on('gap', ({ missed }) => onGap?.(missed)),
        sub.on('end', resolve),
      );
    });
    let end = 'offset' in last ? last : undefined;
    if (!end && 'code' in last && last.code === 'finished') {
      // It ended earlier, and the stored updates do not say how.
      const { answer, body } = await ask(client, `/api/orders/${orderId}`, options, 10_000);
      if (answer.ok) end = (body as OrderView).lastUpdate as OrderEntry | undefined;
    }
    if (end?.type === 'confirmed') return end;
    if (end?.type === 'failed') throw new OrderError(end.error.code, end.error.message, { orderId, failed: end });
    const { code, message } = last as { code?: string; message?: string };
    throw new OrderError('not_watched', message ?? code ?? 'the subscription was closed', { orderId });
  } finally {
    signal?.removeEventListener('abort', stop);
    for (const one of off) one();
    if (!shared) sub.close();
  }
};

/**
 * Places an order once, however often it has to be sent, and follows it to its end.
 *
 * @returns its last update
 * @throws OrderError if it was refused, failed, or could not be followed
 */
export const placeOrder = async (client: Client, order: object, options: PlaceOptions = {}): Promise<OrderConfirmed> => {
  const { onPlaced, signal, idempotencyKey = crypto.randomUUID(), placeForMs = 30_000, answerMs = 10_000 } = options;
  const deadline = Date.now() + placeForMs;
  const init = {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': idempotencyKey },
    body: JSON.stringify(order),
  };
  const refused = (problem: Problem, text = '') =>
    new OrderError(problem.code ?? `status_${problem.status}`, problem.detail ?? text, { problem, idempotencyKey });
  let mayBePlaced = false;
  let orderId: string | undefined;
  for (let waitMs = 250; ; waitMs = Math.min(2 * waitMs, 4_000)) {
    let problem: Problem;
    try {
      const { answer, body } = await ask(client, '/api/orders/execute', options, answerMs, init);
      if (answer.ok) {
        orderId = (body as OrderPlaced).orderId;
        break;
      }
      mayBePlaced ||= answer.status >= 500 && answer.status !== 503; // answers of intermediaries count too
      problem = { status: answer.status, ...(body as Problem) };
      waitMs = Math.max(waitMs, 1_000 * (Number(answer.headers.get('retry-after')) || 0));
      if (answer.status !== 429 && answer.status < 500)
        throw refused(problem, answer.statusText);
    } catch (error) {
      if (error instanceof OrderError || signal?.aborted) throw error;
      mayBePlaced = true;
      problem = { code: 'no_answer', detail: String((error as Error)?.message ?? error) };
    }
    if (Date.now() + waitMs > deadline)
      throw mayBePlaced ? refused({ ...problem, code: 'no_answer' }) : refused(problem);
    await pause(waitMs, signal);
  }
  try {
    onPlaced?.(orderId);
  } catch (error) {
    report(error);
  }
  return watchOrder(client, orderId, options);
};
