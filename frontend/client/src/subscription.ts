import { emitter, type Emitter } from './emitter.js';
import { table, type Keyed } from './table.js';
import type * as wire from './zonewire.js';

/** An entry of a zone's channel; `Own` are the fields that its publisher adds to each price. */
export type ZoneEntry<Own = unknown> = Extract<
  | ({ type: 'price_update' } & wire.PriceUpdate & Own)
  | Exclude<wire.Entry, { type: 'price_update' }>,
  { type: 'price_update' | 'key_removed' | 'zone_removed' | 'skipped' }
>;

/** An entry of an order's channel: an update, the last of which is `confirmed` or `failed`. */
export type OrderEntry = Exclude<
  wire.Entry,
  { type: 'price_update' | 'key_removed' | 'zone_removed' | 'record_update' | 'missed' | EventType }
>;

/** The subject of an event. */
export type EventType =
  | 'ticker'
  | 'trade'
  | 'orderbook'
  | 'candle'
  | 'exchange:connected'
  | 'exchange:disconnected'
  | 'exchange:reconnecting'
  | 'exchange:error';

/** An entry of a channel of events, or of a view; `missed` says that events of other processes did not arrive. */
export type EventEntry<T extends EventType = EventType> = Extract<wire.Entry, { type: T | 'missed' | 'skipped' }>;

/**
 * An entry of a registry's channel: a record or its removal; of two entries of a key the greater `version` counts.
 */
export type RegistryEntry<Own = Record<string, unknown>> =
  | ({ type: 'record_update' } & Omit<wire.RecordUpdate, 'record'> & { record: Own })
  | Extract<wire.Entry, { type: 'key_removed' | 'skipped' }>;

/** The entries of a channel, by the kind in its name. Declare further kinds here to add them. */
export interface Channels {
  /** `zone:<zone>` */
  zone: ZoneEntry;
  /** `order:<uuid>` */
  order: OrderEntry;
  /** `event:<type>`, followed by a pattern for a view */
  event: EventEntry;
  /** `registry:providers`, `registry:active-orders` */
  registry: RegistryEntry;
}

/** The entries of a channel, by its name. */
export type EntryOf<C extends string> = C extends `${infer Kind}:${string}`
  ? Kind extends keyof Channels
    ? Channels[Kind]
    : wire.Entry
  : wire.Entry;

/** Entries that a reader should have received and has not. */
export interface Gap {
  /** Distinguishes gaps from entries. */
  type: 'gap';
  /** The channel. */
  channel: string;
  /** How many are lost; absent if that is unknown, or if some of them may still arrive, marked `late`. */
  missed?: number;
  /** Whether the latest entry of each key follows in their place. */
  snapshot: boolean;
  /** `log`: the gateway has them no longer, or not now. `reader`: a loop was too slow (`queueMax`). */
  reason: 'log' | 'reader';
}

/**
 * `waiting`: not (yet) subscribed on this connection. `catching_up`: entries of the log, or a snapshot, are on their
 * way. `live`: entries arrive as they are published. `ended`: nothing arrives any more.
 */
export type SubscriptionStatus = 'waiting' | 'catching_up' | 'live' | 'ended';

/** Why a subscription ended: without a code if it was closed here, otherwise with the gateway's code and message. */
export interface End {
  /** As in the protocol; absent if it was closed here. */
  code?: wire.ErrorCode | wire.EndCode | (string & {});
  /** For people. */
  message?: string;
}

/** Thrown by loops when the gateway refused or revoked the subscription. */
export interface SubscriptionError extends Error {
  /** As in the protocol, such as `invalid_channel` or `forbidden`. */
  readonly code: string;
}

/** The events of a subscription. */
export interface SubscriptionEvents<E> {
  /** An entry, and the position after it, from which the channel can be resumed. */
  entry: [entry: E, position: wire.Position];
  /** Entries are missing. */
  gap: [gap: Gap];
  /** Once for each change. */
  status: [status: SubscriptionStatus];
  /** The gateway's raw message, as in the next two; with `snapshot` the channel starts over, until `snapshot_end`. */
  subscribed: [message: wire.Subscribed];
  /** The channel continues in another epoch of its log. */
  resync: [message: wire.Resync];
  /** The snapshot is complete. */
  snapshot_end: [message: wire.SnapshotEnd];
  /** An error after which the subscription remains and is retried. */
  error: [message: wire.ErrorMessage];
  /** Nothing arrives any more. */
  end: [end: End];
}

/** How a channel is subscribed to. */
export interface SubscribeOptions {
  /** Resumes from a stored position; `latest()` then has only the entries after it. */
  since?: wire.Position | string;
  /**
   * Begins with the latest entry of each key, also in place of entries that are gone. Default: true, and with `since`
   * false.
   */
  snapshot?: boolean;
  /** Ends the subscription. */
  signal?: AbortSignal;
  /**
   * How many entries may wait for a slow loop; beyond that the oldest are dropped, which the loop sees as a gap.
   * Default 10,000.
   */
  queueMax?: number;
  /**
   * How many ids of entries are remembered, to recognize repeated entries when the gateway cannot. The default, 10,000,
   * is the size of a log and takes about a megabyte; 0 if only `latest()` matters.
   */
  idsMax?: number;
}

/**
 * The entries of one channel, each once and in order, over any number of connections.
 *
 * `for await` yields the entries after the loop began, and the gaps between them. It ends with the subscription, and
 * throws a `SubscriptionError` if the gateway refused it. Leaving the loop does not end the subscription.
 */
export interface Subscription<E = wire.Entry> extends Emitter<SubscriptionEvents<E>>, AsyncIterable<E | Gap> {
  /** Its name, such as `zone:pjm`. */
  readonly channel: string;
  /** The state of the subscription. */
  readonly status: SubscriptionStatus;
  /** The position after the last entry that all handlers have received. */
  readonly position: wire.Position | string | undefined;
  /** Whether the channel's storage is degraded: entries published at other gateways may arrive late. */
  readonly degraded: boolean;
  /** The latest price of each key. The same map is returned until something changes. */
  latest(): ReadonlyMap<string, Extract<E, { type: 'price_update' }>>;
  /** Ends the subscription. */
  close(): void;
}

/** What a subscription needs of its connection. */
export interface Link {
  /** Sends if connected, and returns the id of the request. */
  request(type: 'subscribe' | 'unsubscribe', channel: string, more?: object): number | undefined;
  /** Whether the storage of the channel is degraded. */
  isDegraded(channel: string): boolean;
  /** The subscription has ended. */
  gone(): unknown;
}

/** A subscription, and what its connection calls. */
export interface Held {
  /** The user's interface. */
  api: Subscription<never>;
  /** A connection is established. */
  begin(): void;
  /** The connection is lost. */
  lost(): void;
  /** A message about its channel, or an answer to its request. */
  take(message: wire.ServerMessage): void;
  /** Time has passed: removals may be forgotten. */
  forget(now: number): void;
  /** Ends it. */
  end(end: End): void;
  /** Whether this is the id of the unanswered request. */
  asks(id: unknown): boolean;
}

const KEYED = ['price_update', 'key_removed', 'zone_removed'];

/** Makes a subscription with the user's options. */
export const hold = (channel: string, options: SubscribeOptions, link: Link): Held => {
  const { since, snapshot = !since, signal, queueMax = 10_000, idsMax = 10_000 } = options;
  const { on, emit } = emitter<SubscriptionEvents<wire.Entry>>();
  const last = table();
  let ids: string[] = []; // of received entries, in a ring; searched only while entries may arrive again
  let oldest = 0;
  let known: Set<string> | undefined; // the same ids as a set, while entries may arrive again
  const readers = new Set<(item?: wire.Entry | Gap) => void>();
  let position = since;
  let request: number | undefined;
  let isHere = false; // subscribed on this connection
  let begun: Set<string> | undefined; // keys received so far in the current snapshot
  let isBehind = false;
  let status: SubscriptionStatus = 'waiting';
  let ended: End | undefined;

  const read = (item?: wire.Entry | Gap) => readers.forEach((reader) => reader(item));

  const say = (next: SubscriptionStatus) => {
    if (next !== status) emit('status', (status = next));
  };

  const gap = (missed?: number | null, snapshot = false) => {
    const gap: Gap = { type: 'gap', channel, missed: missed ?? undefined, snapshot, reason: 'log' };
    read(gap);
    emit('gap', gap);
  };

  const enter = (entry: Keyed & wire.Entry) => {
    const { id, offset, snapshot } = entry;
    const after = snapshot ? (position as wire.Position) : { epoch: (position as wire.Position).epoch, offset };
    if (!known?.has(id)) {
      if (id && idsMax) {
        known?.delete(ids[oldest]!);
        known?.add(id);
        ids[oldest] = id;
        oldest = (oldest + 1) % idsMax;
      }
      if (entry.missedBefore && !snapshot) gap();
      if (KEYED.includes(entry.type)) {
        last.take(entry);
        begun?.add(entry.key ?? '');
      }
      read(entry);
      emit('entry', entry, after);
    }
    position = after; // only now: all handlers have received everything before it
  };

  const begin = () => {
    request = link.request('subscribe', channel, { since: position && { [channel]: position }, snapshot });
  };

  const end = (end: End) => {
    if (ended) return;
    ended = end;
    request = undefined;
    isHere = false;
    signal?.removeEventListener('abort', close);
    link.gone();
    say('ended');
    read();
    emit('end', end);
  };

  const close = () => {
    if (request) link.request('unsubscribe', channel);
    end({});
  };

  signal?.throwIfAborted();
  signal?.addEventListener('abort', close);

  return {
    begin,
    end,
    lost() {
      request = undefined;
      isHere = false;
        say('waiting');
    },
    forget: last.forget,
    asks: (id) => request !== undefined && id === request,
    take(message) {
      const { type } = message;
      if (type === 'error') {
        if (!message.temporary) return end(message);
        emit('error', message);
      } else if (type === 'subscribed') {
        if (message.id !== request) return;
        isHere = true;
        isBehind = message.top !== message.offset;
        if (!message.snapshot) begun = undefined;
      } else if (!isHere) return; // of an earlier subscription
      if (type === 'unsubscribed') {
        if (message.code) end(message);
      } else if (type === 'subscribed' || type === 'resync' || type === 'snapshot_end') {
        const { epoch, offset, recovered } = message;
        position = { epoch, offset };
        known = recovered ? undefined : (known ?? new Set(ids));
        if (type === 'snapshot_end') {
          if (recovered && begun) last.keep(begun);
          begun = undefined;
        } else {
          // If a snapshot is cut short and another follows, no more is missing than before.
          if (!recovered && !(begun && message.snapshot)) gap(message.gap, message.snapshot);
          if (message.snapshot) {
            begun = new Set();
            ids = [];
            oldest = 0;
            known?.clear();
          }
        }
        emit(type as 'resync', message as wire.Resync);
      } else if (type === 'caught_up') isBehind = false;
      else if ('offset' in message) enter(message as Keyed & wire.Entry);
      if (isHere) say(begun || isBehind ? 'catching_up' : 'live');
    },
    api: {
      on: on as never,
      channel,
      close,
      latest: last.prices as never,
      get status() {
        return status;
      },
      get position() {
        return position;
      },
      get degraded() {
        return link.isDegraded(channel);
      },
      async *[Symbol.asyncIterator]() {
        const queue: (wire.Entry | Gap)[] = [];
        let missed = 0;
        let wake = () => {};
        const reader = (item?: wire.Entry | Gap) => {
          if (item && queue.push(item) > queueMax) {
            const first = queue.shift()!;
            missed += first.type === 'gap' ? (first.missed ?? 1) : 1;
          }
          wake();
        };
        readers.add(reader);
        try {
          for (;;) {
            if (missed) {
              const gap: Gap = { type: 'gap', channel, missed, snapshot: false, reason: 'reader' };
              missed = 0;
              yield gap as never;
            } else if (queue[0]) yield queue.shift() as never;
            else if (ended) {
              const { code, message } = ended;
              if (code && code !== 'finished') throw Object.assign(new Error(message ?? code), { code });
              return;
            } else await new Promise<void>((resolve) => (wake = resolve));
          }
        } finally {
          readers.delete(reader);
        }
      },
    },
  };
};
