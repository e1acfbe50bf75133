import { emitter, type Emitter } from './emitter.js';
import { table, type Keyed } from './table.js';
import type * as wire from './zonewire.js';

/** What comes in the channel of a zone; `Own` are the fields that its publisher adds to each price. */
export type ZoneEntry<Own = unknown> = Extract<
  | ({ type: 'price_update' } & wire.PriceUpdate & Own)
  | Exclude<wire.Entry, { type: 'price_update' }>,
  { type: 'price_update' | 'key_removed' | 'zone_removed' | 'skipped' }
>;

/** What comes in the channel of an order: its updates, the last of which is `confirmed` or `failed`. */
export type OrderEntry = Exclude<
  wire.Entry,
  { type: 'price_update' | 'key_removed' | 'zone_removed' | 'record_update' | 'missed' | EventType }
>;

/** What an event is about. */
export type EventType =
  | 'ticker'
  | 'trade'
  | 'orderbook'
  | 'candle'
  | 'exchange:connected'
  | 'exchange:disconnected'
  | 'exchange:reconnecting'
  | 'exchange:error';

/** What comes in a channel of events, or in a view of one; `missed` says that some of other processes did not come. */
export type EventEntry<T extends EventType = EventType> = Extract<wire.Entry, { type: T | 'missed' | 'skipped' }>;

/** What comes in the channel of a registry: records, and removals of them; the greater `version` of a key counts. */
export type RegistryEntry<Own = Record<string, unknown>> =
  | ({ type: 'record_update' } & Omit<wire.RecordUpdate, 'record'> & { record: Own })
  | Extract<wire.Entry, { type: 'key_removed' | 'skipped' }>;

/** Which entries come in a channel, by what its name begins with. Channels of other kinds are added by declaring them here. */
export interface Channels {
  /** `zone:<zone>` */
  zone: ZoneEntry;
  /** `order:<uuid>` */
  order: OrderEntry;
  /** `event:<type>`, with a pattern behind it for a view */
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

/** Entries that a reader should have had and has not. */
export interface Gap {
  /** What tells it from entries. */
  type: 'gap';
  /** Of which channel. */
  channel: string;
  /** How many are gone for good; absent where that cannot be known, or where some of them may come, marked `late`. */
  missed?: number;
  /** The latest entry of each key comes in their place. */
  snapshot: boolean;
  /** `log`: the gateway has them no more, or not now. `reader`: a loop was slower than they came (`queueMax`). */
  reason: 'log' | 'reader';
}

/**
 * `waiting`: not subscribed on this connection (yet). `catching_up`: what the log has, or a snapshot, is on its way.
 * `live`: entries come as they are published. `ended`: nothing comes any more.
 */
export type SubscriptionStatus = 'waiting' | 'catching_up' | 'live' | 'ended';

/** Why a subscription ended: without a code because it was closed here, else as the gateway's message says. */
export interface End {
  /** As in the protocol; absent where it was closed here. */
  code?: wire.ErrorCode | wire.EndCode | (string & {});
  /** For people. */
  message?: string;
}

/** A subscription that the gateway refused or took away, as loops throw it. */
export interface SubscriptionError extends Error {
  /** As in the protocol, such as `invalid_channel` or `forbidden`. */
  readonly code: string;
}

/** What a subscription tells of. */
export interface SubscriptionEvents<E> {
  /** An entry, and the position just after it, by which the channel can be resumed. */
  entry: [entry: E, position: wire.Position];
  /** Entries are gone. */
  gap: [gap: Gap];
  /** Once for each change. */
  status: [status: SubscriptionStatus];
  /** The gateway's message as it is, like the next two; with `snapshot` the channel begins anew, until `snapshot_end`. */
  subscribed: [message: wire.Subscribed];
  /** The channel goes on in another life of its log. */
  resync: [message: wire.Resync];
  /** The latest entry of each key has come. */
  snapshot_end: [message: wire.SnapshotEnd];
  /** The subscription stands, and is still tried for. */
  error: [message: wire.ErrorMessage];
  /** Nothing comes any more. */
  end: [end: End];
}

/** How a channel is subscribed to. */
export interface SubscribeOptions {
  /** Resumes from a position that was kept; `latest()` then has only what follows. */
  since?: wire.Position | string;
  /** Begins with the latest entry of each key, also in place of what is gone. Default: true, and with `since` false. */
  snapshot?: boolean;
  /** Ends the subscription. */
  signal?: AbortSignal;
  /** How many entries wait for a loop that is slow; the oldest go first, and the loop is told by a gap. Default 10,000. */
  queueMax?: number;
  /**
   * How many ids of entries are remembered, by which what was had before is known again when the gateway cannot say.
   * Default 10,000, which is what a log keeps, and about a megabyte; 0 where only `latest()` matters.
   */
  idsMax?: number;
}

/**
 * The entries of one channel, in order and each once, through however many connections.
 *
 * `for await` gives what comes after the loop began, gaps in their place; it ends with the subscription, and throws a
 * `SubscriptionError` where the gateway refused it. Leaving the loop leaves the subscription as it is.
 */
export interface Subscription<E = wire.Entry> extends Emitter<SubscriptionEvents<E>>, AsyncIterable<E | Gap> {
  /** Its name, such as `zone:pjm`. */
  readonly channel: string;
  /** How it stands. */
  readonly status: SubscriptionStatus;
  /** Just after the last entry that all handlers have had. */
  readonly position: wire.Position | string | undefined;
  /** The storage does not serve this channel as it should: what is published at other gateways may come late. */
  readonly degraded: boolean;
  /** The latest price of each key. The same map is given until something changes. */
  latest(): ReadonlyMap<string, Extract<E, { type: 'price_update' }>>;
  /** Ends it. */
  close(): void;
}

/** What a subscription needs of its connection. */
export interface Link {
  /** Sends where there is a connection; the id of the request. */
  request(type: 'subscribe' | 'unsubscribe', channel: string, more?: object): number | undefined;
  /** Whether the storage does not serve it as it should. */
  isDegraded(channel: string): boolean;
  /** It has ended. */
  gone(): unknown;
}

/** A subscription, and what its connection does with it. */
export interface Held {
  /** What users have of it. */
  api: Subscription<never>;
  /** A connection is there. */
  begin(): void;
  /** It is gone. */
  lost(): void;
  /** A message about its channel, or an answer to its request. */
  take(message: wire.ServerMessage): void;
  /** Time went on: removals may be forgotten. */
  forget(now: number): void;
  /** Ends it. */
  end(end: End): void;
  /** The id of the request that was not answered. */
  asks(id: unknown): boolean;
}

const KEYED = ['price_update', 'key_removed', 'zone_removed'];

/** Makes a subscription; `options` are those of the one who asked for it. */
export const hold = (channel: string, options: SubscribeOptions, link: Link): Held => {
  const { since, snapshot = !since, signal, queueMax = 10_000, idsMax = 10_000 } = options;
  const { on, emit } = emitter<SubscriptionEvents<wire.Entry>>();
  const last = table();
  let ids: string[] = []; // of what was had, in a ring: they are looked for only while something may come again
  let oldest = 0;
  let known: Set<string> | undefined; // the same, while that is so
  const readers = new Set<(item?: wire.Entry | Gap) => void>();
  let position = since;
  let request: number | undefined;
  let isHere = false; // subscribed, on this connection
  let begun: Set<string> | undefined; // keys of the snapshot that is coming
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
    position = after; // only now, so that what a handler sees was had
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
      } else if (!isHere) return; // of a subscription of before
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
          // Where a snapshot is cut short, another one takes its place, and no more is missing than before.
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
