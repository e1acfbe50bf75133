import type { Client, Status } from './client.js';
import type { End, Gap, OrderEntry, Subscription, SubscriptionStatus, ZoneEntry } from './subscription.js';

/** The view of a zone. */
export interface ZoneView<Own = unknown> {
  /** The latest price of each key; another map after a change. */
  readonly prices: ReadonlyMap<string, Extract<ZoneEntry<Own>, { type: 'price_update' }>>;
  /** The state of the subscription. */
  readonly status: SubscriptionStatus;
  /** Whether entries published at other gateways may arrive late. */
  readonly degraded: boolean;
  /** Set if the gateway refused or revoked the subscription. */
  readonly end?: End;
}

/** The view of an order. */
export interface OrderView {
  /** All updates received, in order. */
  readonly updates: readonly OrderEntry[];
  /** The newest of them. */
  readonly last?: OrderEntry;
  /** Set if updates are missing. */
  readonly gap?: Gap;
  /** The state of the subscription. */
  readonly status: SubscriptionStatus;
  /** Whether updates published at other gateways may arrive late. */
  readonly degraded: boolean;
  /** Set if the order has ended (`finished`), or the gateway refused the subscription. */
  readonly end?: End;
}

/** A view, and notifications of its changes. */
export interface Store<V> {
  /** The current view: the same object until it changes. */
  get: () => V;
  /** Calls a function after each change; returns a function that stops this. */
  subscribe: (changed: () => void) => () => void;
}

/** The connection's status as a store. */
export const statusOf = (client: Client): Store<Status> => ({
  get: () => client.status,
  subscribe: (changed) => client.on('state', changed),
});

const NOTHING = { prices: new Map(), updates: [], status: 'waiting', degraded: false } as const;

/** The view if there is nothing to follow. */
export const nothing: Store<never> = { get: () => NOTHING as never, subscribe: () => () => {} };

// Pages render at most one state per frame; hidden pages and other programs have no frames.
const nextFrame = (then: () => void) =>
  typeof requestAnimationFrame === 'function' && document.visibilityState !== 'hidden'
    ? requestAnimationFrame(then)
    : setTimeout(then, 16);

interface Shared {
  view: object;
  listeners: Set<() => void>;
  leave: () => void;
}

const all = new WeakMap<Client, Map<string, Shared>>();

const follow = (client: Client, channel: string, gone: () => void): Shared => {
  const before = client.subscriptions.get(channel) as Subscription | undefined;
  const sub = before ?? client.subscribe<string>(channel);
  const updates: OrderEntry[] = [];
  const isOrder = channel.startsWith('order:');
  let end: End | undefined;
  let gap: Gap | undefined;
  let isDue = false;
  const look = () => ({
    ...(isOrder ? { updates: [...updates], last: updates.at(-1), gap } : { prices: sub.latest() }),
    status: sub.status,
    degraded: sub.degraded,
    end,
  });
  const shared: Shared = {
    view: look(),
    listeners: new Set(),
    leave() {
      for (const one of off) one();
      if (!before) sub.close();
    },
  };
  const changed = () => {
    if (isDue) return;
    isDue = true;
    nextFrame(() => {
      isDue = false;
      shared.view = look();
      for (const listener of [...shared.listeners]) listener();
    });
  };
  const off = [
    sub.on('entry', (entry) => {
      if (isOrder) updates.push(entry as OrderEntry);
      changed();
    }),
    sub.on('gap', (one) => {
      gap = one;
      changed();
    }),
    sub.on('snapshot_end', changed),
    sub.on('status', changed),
    client.on('backend', changed),
    sub.on('end', (one) => {
      end = one;
      gone(); // a later subscriber tries again
      changed();
    }),
  ];
  return shared;
};

/**
 * A channel as a store. All its viewers share one subscription, from the first to the last of them, and are notified at
 * most once per frame. If the program itself has subscribed, its subscription is used, and not ended.
 */
export const channelOf = <V>(client: Client, channel: string): Store<V> => {
  let channels = all.get(client);
  if (!channels) all.set(client, (channels = new Map()));
  const known = channels;
  let joined: Shared | undefined; // even after it has ended
  return {
    get: () => ((joined ?? known.get(channel))?.view ?? NOTHING) as V,
    subscribe(changed) {
      let shared = known.get(channel);
      if (!shared) {
        const mine: Shared = follow(client, channel, () => known.get(channel) === mine && known.delete(channel));
        known.set(channel, (shared = mine));
      }
      const one = (joined = shared);
      one.listeners.add(changed);
      return () => {
        one.listeners.delete(changed);
        // Frameworks may unmount and remount a component within one turn.
        setTimeout(() => {
          if (one.listeners.size) return;
          one.leave();
          if (known.get(channel) === one) known.delete(channel);
        });
      };
    },
  };
};
