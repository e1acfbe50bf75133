import type { KeyRemoved, PriceUpdate, ZoneRemoved } from './zonewire.js';

/** An entry of the table: a price, or a removal, which has no key if it removes all keys. */
export type Keyed = { type: string; key?: string; snapshot?: boolean } & (PriceUpdate | KeyRemoved | ZoneRemoved);

const DAY_MS = 86_400_000;

/** Whether a late entry is newer nevertheless. */
const isNewer = (entry: Keyed, held: Keyed | undefined): boolean => {
  if (!held) return true;
  const [by, number] = entry.id.split('-') as [string, string];
  const [heldBy, heldNumber] = held.id.split('-') as [string, string];
  if (by === heldBy) return +number >= +heldNumber;
  return entry.timestamp > held.timestamp || (entry.timestamp === held.timestamp && by > heldBy);
};

/**
 * The last entry of each key, by the protocol's rule; removals are remembered, so that a late price
 * does not restore its key.
 */
export const table = () => {
  const last = new Map<string, Keyed>(); // a removal of all keys, `zone_removed`, is at ''
  let prices: Map<string, PriceUpdate> | undefined; // made on request
  return {
    take(entry: Keyed): void {
      const key = entry.key ?? '';
      prices = undefined;
      if (!entry.snapshot) {
        const { late } = entry;
        if (!key) for (const [other, held] of last) if (!late || isNewer(entry, held)) last.delete(other);
        if (late && !isNewer(entry, last.get(key) ?? last.get(''))) return;
      }
      last.set(key, entry);
    },

    /** Removes all keys but these. */
    keep(keys: Set<string>): void {
      for (const key of last.keys()) if (!keys.has(key)) last.delete(key);
      prices = undefined;
    },

    /** Forgets removals after a day, as gateways do. */
    forget(now: number): void {
      for (const [key, { type, timestamp }] of last)
        if (type !== 'price_update' && now - Date.parse(timestamp) > DAY_MS) last.delete(key);
    },

    prices(): ReadonlyMap<string, PriceUpdate> {
      if (!prices) {
        prices = new Map();
        for (const [key, entry] of last) if (entry.type === 'price_update') prices.set(key, entry as PriceUpdate);
      }
      return prices;
    },
  };
};
