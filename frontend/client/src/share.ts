import type { Client, Status } from './client.js';
import type { End, Gap, OrderEntry, Subscription, SubscriptionStatus, ZoneEntry } from './subscription.js';

/** What is shown of a zone. */
export interface ZoneView<Own = unknown> {
  /** The latest price of each key; another map when something changed. */
  readonly prices: ReadonlyMap<string, Extract<ZoneEntry<Own>, { type: 'price_update' }>>;
  /** How the subscription stands. */
  readonly status: SubscriptionStatus;
  /** What is published at other gateways may come late. */
  readonly degraded: boolean;
  /** The gateway refused it or took it away. */
  readonly end?: End;
}

/** What is shown of an order. */
export interface OrderView {
  /** All updates that came, in order. */
  readonly updates: readonly OrderEntry[];
  /** The newest of them. */
  readonly last?: OrderEntry;
  /** Updates that should have come are gone. */
  readonly gap?: Gap;
  /** How the subscription stands. */
  readonly status: SubscriptionStatus;
  /** What is published at other gateways may come late. */
  readonly degraded: boolean;
  /** It has ended: the order has (`finished`), or the gateway refused it. */
  readonly end?: End;
}

/** Something that is shown, and told of when it has changed. */
export interface Store<V> {
  /** What is shown now: the same as before until it has changed. */
  get: () => V;
  /** Calls at each change, until what it gives is called. */
  subscribe: (changed: () => void) => () => void;
}

/** The connection's status as a store. */
export const statusOf = (client: Client): Store<Status> => ({
  get: () => client.status,
  subscribe: (changed) => client.on('state', changed),
});

const NOTHING = { prices: new Map(), updates: [], status: 'waiting', degraded: false } as const;

/** What is shown where there is nothing to follow. */
export const nothing: Store<never> = { get: () => NOTHING as never, subscribe: () => () => {} };

// Pages show at most one state a frame; hidden ones and other programs have no frames.
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
      gone(); // who comes later tries anew
      changed();
    }),
  ];
  return shared;
};

/**
 * A channel as a store. All who show it share one subscription, from the first of them to the last, and are told at most
 * once a frame. Where the program has subscribed by itself, that subscription is used, and left as it is.
 */
export const channelOf = <V>(client: Client, channel: string): Store<V> => {
  let channels = all.get(client);
  if (!channels) all.set(client, (channels = new Map()));
  const known = channels;
  let joined: Shared | undefined; // also when it has ended
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
        // Frameworks take a part of a page away and put it there again within the same turn.
        setTimeout(() => {
          if (one.listeners.size) return;
          one.leave();
          if (known.get(channel) === one) known.delete(channel);
        });
      };
    },
  };
};
