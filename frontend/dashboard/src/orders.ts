// Orders: placing, following, listing. The story of an order is its updates, in order.
import { type Signal, signal } from '@preact/signals';
import type { DeadLetter, DeadLetterList, OrderList, OrderView } from '../../../docs/schema/zonewire';
import { announce } from './state';
import { followOrder, get, post } from './gateway';

export interface Update {
  type: string;
  id?: string;
  offset?: number;
  timestamp: string;
  progress?: number;
  attempt?: number;
  maxAttempts?: number;
  run?: number;
  executor?: string;
  message?: string;
  error?: { code: string; message: string };
  attempts?: number;
  late?: boolean;
  missedBefore?: boolean;
  deadLetter?: unknown;
  [field: string]: unknown;
}

export const STAGES = ['routing', 'building', 'submitted', 'confirmed'] as const;
export const ENDS = new Set(['confirmed', 'failed']);

/** What is known of a followed order. */
export interface Story {
  orderId: string;
  updates: Update[];
  status: string;
  /** How many updates before the first one are missing. */
  gap: number;
  problem: string;
}

type Followed = { story: Signal<Story>; watchers: number; stop: () => void };
const followed = new Map<string, Followed>();

/** The story of an order, from its first stored update, while somebody follows it. */
export function follow(orderId: string): { story: Signal<Story>; stop: () => void } {
  let it = followed.get(orderId);
  if (!it) followed.set(orderId, (it = listen(orderId)));
  it.watchers += 1;
  let isOver = false;
  return {
    story: it.story,
    stop() {
      if (isOver) return;
      isOver = true;
      it.watchers -= 1;
      if (it.watchers > 0) return;
      it.stop();
      followed.delete(orderId);
    },
  };
}

function listen(orderId: string): Followed {
  const story = signal<Story>({ orderId, updates: [], status: 'pending', gap: 0, problem: '' });
  const stop = followOrder(orderId, {
    update(update) {
      const updates = [...story.value.updates, update];
      // A late update is sorted in by time.
      if (update.late === true) updates.sort((a, b) => Date.parse(a.timestamp) - Date.parse(b.timestamp));
      const newest = updates.find((it) => ENDS.has(it.type)) ?? updates.at(-1)!;
      if (newest.type !== story.value.status) announce(sentence(orderId, newest));
      story.value = { ...story.value, updates, status: newest.type };
    },
    gap(count) { story.value = { ...story.value, gap: story.value.gap + count }; },
    problem(text) { story.value = { ...story.value, problem: text }; },
  });
  return { story, watchers: 0, stop };
}

function sentence(orderId: string, update: Update): string {
  const which = `Order ${orderId.slice(0, 8)}`;
  if (update.type === 'failed') return `${which} failed: ${update.error?.message ?? update.message ?? ''}.`;
  return `${which} is ${update.type}${update.type === 'confirmed' ? '' : `, ${update.progress ?? 0} per cent`}.`;
}

export interface Placed { orderId: string; retryOf?: string }

/** A key per order, so that a request can be repeated if its answer was lost. */
export function newKey(): string {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return [...random].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function place(body: string, key: string): Promise<Placed> {
  return post<Placed>('api/orders/execute', body, { 'idempotency-key': key });
}

export const cancel = (orderId: string) => post<unknown>(`api/orders/${orderId}/cancel`);
export const one = (orderId: string) => get<OrderView>(`api/orders/${encodeURIComponent(orderId)}`);
export const retry = (orderId: string, isForced: boolean) => post<Placed>(`api/orders/dead-letters/${orderId}/retry${isForced ? '?force=true' : ''}`);

export interface Page<T> { items: T[]; next: string | null; degraded: boolean }

const PAGE = 25;
const query = (parts: Record<string, string>) => new URLSearchParams(Object.entries(parts).filter(([, value]) => value !== ''));

export async function list(status: string, after: string): Promise<Page<OrderView>> {
  const page = await get<OrderList>(`api/orders?${query({ limit: `${PAGE}`, status, after })}`);
  return { items: page.orders, next: page.next, degraded: page.degraded === true };
}

export async function deadLetters(after: string): Promise<Page<DeadLetter>> {
  const page = await get<DeadLetterList>(`api/orders/dead-letters?${query({ limit: `${PAGE}`, after })}`);
  return { items: page.deadLetters, next: page.next, degraded: page.degraded === true };
}

// The form of an order

export interface Schema {
  title?: string;
  description?: string;
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  enum?: unknown[];
  const?: unknown;
  format?: string;
  default?: unknown;
  minimum?: number;
  exclusiveMinimum?: number | boolean;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  examples?: unknown[];
}

let held: Promise<Schema> | null = null;

/** The JSON Schema of this gateway's orders. */
export function orderSchema(): Promise<Schema> {
  held ??= get<Schema>('api/orders/schema').catch((error: unknown) => {
    held = null;
    throw error;
  });
  return held;
}

/** An order in a few words: what is exchanged for what, or its fields. */
export function inWords(order: Record<string, unknown> | undefined): string {
  if (!order) return '';
  if (typeof order.tokenIn === 'string') return `${String(order.amount)} ${order.tokenIn} for ${String(order.tokenOut)}`;
  const { side, quantity, hub, symbol, limit } = order;
  const parts = [side, quantity, hub ?? symbol, limit === undefined ? undefined : `at ${String(limit)}`];
  const known = parts.filter((part) => part !== undefined).map(String).join(' ');
  return known || Object.entries(order).filter(([, value]) => typeof value !== 'object').slice(0, 4).map(([name, value]) => `${name} ${String(value)}`).join(', ');
}
