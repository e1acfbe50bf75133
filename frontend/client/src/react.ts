/**
 * Hooks for React.
 *
 * @packageDocumentation
 */
import { useMemo, useSyncExternalStore } from 'react';

import type { Client, Status } from './client.js';
import { channelOf, nothing, statusOf, type OrderView, type Store, type ZoneView } from './share.js';

export type { OrderView, ZoneView } from './share.js';

const useStore = <V>(make: () => Store<V>, client: Client, name: string | null | undefined): V => {
  const store = useMemo(make, [client, name]);
  return useSyncExternalStore(store.subscribe, store.get, store.get);
};

/** The state of the connection. */
export const useStatus = (client: Client): Status => useStore(() => statusOf(client), client, '');

/** A zone while the component is mounted; null for none. Rendered at most once per frame. */
export const useZone = <Own = unknown>(client: Client, zone: string | null | undefined): ZoneView<Own> =>
  useStore<ZoneView<Own>>(() => (zone ? channelOf(client, `zone:${zone}`) : nothing), client, zone);

/** An order with its updates while the component is mounted; null for none. */
export const useOrder = (client: Client, orderId: string | null | undefined): OrderView =>
  useStore<OrderView>(() => (orderId ? channelOf(client, `order:${orderId.toLowerCase()}`) : nothing), client, orderId);
