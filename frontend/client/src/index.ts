/**
 * Prices and orders of a Zonewire gateway, through any number of lost connections.
 *
 * @packageDocumentation
 */
export { connect, delayMs, describe, isFinal } from './client.js';
export type {
  Backend,
  Client,
  ClientError,
  ClientEvents,
  ClientOptions,
  Clock,
  Page,
  Refusal,
  SocketLike,
  State,
  Status,
} from './client.js';
export type { Emitter } from './emitter.js';
export type {
  Channels,
  End,
  EntryOf,
  EventEntry,
  EventType,
  Gap,
  OrderEntry,
  RegistryEntry,
  SubscribeOptions,
  Subscription,
  SubscriptionError,
  SubscriptionEvents,
  SubscriptionStatus,
  ZoneEntry,
} from './subscription.js';
export type * from './zonewire.js';
