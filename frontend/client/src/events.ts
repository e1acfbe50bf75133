/**
 * Follows events of markets and exchanges, or a view of them.
 *
 * @packageDocumentation
 */
import type { Client } from './client.js';
import type { EventEntry, EventType, SubscribeOptions, Subscription } from './subscription.js';

export type { EventEntry, EventType } from './subscription.js';

/** A selection of events; an absent field matches anything. The gateway sends no others. */
export interface EventFilter {
  /** Of this exchange. */
  exchange?: string;
  /** Of this symbol; `exchange:*` have none. */
  symbol?: string;
  /** Of this length; only candles have one. */
  interval?: string;
}

/** The channel of a type of events, or of a view of them. */
export const eventChannel = <T extends EventType>(type: T, { exchange, symbol, interval }: EventFilter = {}): `event:${T}${string}` => {
  const names = type.startsWith('exchange:') ? [exchange] : type === 'candle' ? [exchange, symbol, interval] : [exchange, symbol];
  return names.some(Boolean) ? `event:${type}:${names.map((name) => name || '*').join(':')}` : `event:${type}`;
};

/**
 * Follows events, or those of an exchange, a symbol, an interval. It begins with the latest event of each key, unless
 * `snapshot` is false. Offsets of a view skip events that it does not show, which is not a gap.
 *
 * @throws if the channel is subscribed to already; see `client.subscriptions`
 */
export const event = <T extends EventType>(
  client: Client,
  type: T,
  filter?: EventFilter,
  options?: SubscribeOptions,
): Subscription<EventEntry<T>> => client.subscribe(eventChannel(type, filter), options) as never;
