/**
 * Places orders, and follows them to their end.
 *
 * @packageDocumentation
 */
import type { Client } from './client.js';
import { report } from './emitter.js';
import type { OrderEntry } from './subscription.js';
import type { OrderFailed, OrderPlaced, OrderUpdate, OrderView, Problem } from './zonewire.js';

/** The last update of an order that was carried out. */
export type OrderConfirmed = { type: 'confirmed' } & OrderUpdate;

/** How an order is watched. */
export interface WatchOptions {
  /** Each update, in order and once; the last one, too. */
  onProgress?: (update: OrderEntry) => unknown;
  /** Updates that should have come are gone: how many, where that is known. */
  onGap?: (missed: number | undefined) => unknown;
  /** Stops watching; the order goes on. */
  signal?: AbortSignal;
  /** Instead of the global one. */
  fetch?: typeof fetch;
}

/** How an order is placed. */
export interface PlaceOptions extends WatchOptions {
  /** It is in the queue, under this id. */
  onPlaced?: (orderId: string) => unknown;
  /** What makes repetitions harmless, for 24 hours. Default: a new UUID. Keep one to go on after a reload. */
  idempotencyKey?: string;
  /** How long it is sent again where there is no answer, or one that says "later". Default 30,000. */
  placeForMs?: number;
  /** How long one answer is waited for. Default 10,000. */
  answerMs?: number;
}

/** An order that was not placed, that failed, or that could not be watched to its end. */
export class OrderError extends Error {
  constructor(
    /**
     * Of the gateway (`invalid_order`, `queue_full`, …), of the order (`cancelled`, `no_liquidity`, …), or `no_answer`:
     * nobody knows whether it was placed, so place it again with the same key; or `not_watched`: it goes on.
     */
    readonly code: string,
    message: string,
    /** What else is known of it. */
    readonly details: {
      /** Absent where it is not known to be placed. */
      orderId?: string;
      /** By which it is placed once, however often it is sent. */
      idempotencyKey?: string;
      /** What the gateway refused, with each wrong field in `errors`. */
      problem?: Problem;
      /** How it failed. */
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

/** One request with what it needs; rejects where no answer came in time. */
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
    // What stands between may answer with something else than JSON.
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
 * @throws OrderError where it failed, or could not be followed; while the connection is lost for good, it waits for
 * `client.reconnect()`
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
      // It ended before, and what is kept of it does not say how.
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
 * Places an order, once, however often it has to be sent, and follows it to its end.
 *
 * @returns its last update
 * @throws OrderError where it was refused, failed, or could not be followed
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
      mayBePlaced ||= answer.status >= 500 && answer.status !== 503; // of what stands between, too
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
