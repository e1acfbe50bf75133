// Follows a channel for an open view, and says in words what cannot be shown.
import { signal, type Signal } from '@preact/signals';
import type { EntryOf, Position, SubscribeOptions, Subscription } from 'zonewire';
import { titled } from './format';
import { subscribe } from './gateway';
import { session } from './state';

export interface Ears<E> {
  entry: (entry: E) => void;
  /** The channel starts over: until `whole`, it sends what it has of each key. */
  begin?: () => void;
  /**
   * The snapshot is complete, as of this position; or incomplete, if the gateway cannot reach the
   * rest at the moment.
   */
  whole?: (at: Position, isAll: boolean) => void;
  /** Entries are missing: how many, if known. */
  gap?: (missed: number | undefined) => void;
}

export interface Listening {
  /** Why nothing arrives; empty if all is well. */
  refused: Signal<string>;
  /** Whether everything in the log has arrived. */
  isLive: Signal<boolean>;
  /** Whether entries published at other gateways may arrive late. */
  isDegraded: () => boolean;
  stop: () => void;
}

/** Follows `channel`, whose contents are called `what`, in the plural. */
export function listen<C extends string>(channel: C, what: string, ears: Ears<EntryOf<C>>, options?: SubscribeOptions): Listening {
  const refused = signal('');
  const isLive = signal(false);
  const none = { refused, isLive, isDegraded: () => false, stop: () => undefined };
  let subscription: Subscription<EntryOf<C>>;
  try {
    subscription = subscribe(channel, options);
  } catch (error) {
    refused.value = `${titled(what)} cannot be shown: ${error instanceof Error ? error.message : String(error)}.`;
    return none;
  }
  subscription.on('entry', ears.entry);
  subscription.on('subscribed', ({ snapshot }) => { if (snapshot) ears.begin?.(); });
  subscription.on('resync', ({ snapshot }) => { if (snapshot) ears.begin?.(); });
  subscription.on('snapshot_end', ({ epoch, offset, recovered }) => ears.whole?.({ epoch, offset }, recovered));
  subscription.on('gap', ({ missed, reason, snapshot }) => { if (reason === 'log' && (missed === undefined ? !snapshot : missed > 0)) ears.gap?.(missed); });
  subscription.on('status', (status) => { isLive.value = status === 'live'; });
  subscription.on('end', ({ code, message }) => {
    if (code === undefined) return;
    refused.value = code !== 'forbidden' ? `${titled(what)} cannot be shown: ${message ?? code}.` : session.peek().subject === '' ? `${titled(what)} are shown to those who log in.` : `Your token does not let you see ${what}.`;
  });
  return { refused, isLive, isDegraded: () => subscription.degraded, stop: () => subscription.close() };
}
