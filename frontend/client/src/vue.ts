/**
 * Composables for Vue.
 *
 * @packageDocumentation
 */
import { shallowRef, toValue, watch, type MaybeRefOrGetter, type ShallowRef } from 'vue';

import type { Client, Status } from './client.js';
import { channelOf, nothing, statusOf, type OrderView, type Store, type ZoneView } from './share.js';

export type { OrderView, ZoneView } from './share.js';

const useStore = <V>(storeOf: () => Store<V>): Readonly<ShallowRef<V>> => {
  const view = shallowRef<V>(storeOf().get());
  watch(
    storeOf,
    (store, _, onCleanup) => {
      const look = () => void (view.value = store.get());
      onCleanup(store.subscribe(look));
      look();
    },
    { immediate: true },
  );
  return view;
};

/** The state of the connection. */
export const useStatus = (client: Client): Readonly<ShallowRef<Status>> => {
  const store = statusOf(client);
  return useStore(() => store);
};

/** A zone while the scope is active; null for none. Changes at most once per frame. */
export const useZone = <Own = unknown>(
  client: Client,
  zone: MaybeRefOrGetter<string | null | undefined>,
): Readonly<ShallowRef<ZoneView<Own>>> =>
  useStore<ZoneView<Own>>(() => {
    const name = toValue(zone);
    return name ? channelOf(client, `zone:${name}`) : nothing;
  });

/** An order with its updates while the scope is active; null for none. */
export const useOrder = (
  client: Client,
  orderId: MaybeRefOrGetter<string | null | undefined>,
): Readonly<ShallowRef<OrderView>> =>
  useStore<OrderView>(() => {
    const id = toValue(orderId);
    return id ? channelOf(client, `order:${id.toLowerCase()}`) : nothing;
  });
