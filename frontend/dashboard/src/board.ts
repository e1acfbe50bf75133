// The data of the board: the latest price of each key of the followed zones. The client library decides which
// price that is; here are its numbers, and what a row needs. All of it is plain data, updated once per frame;
// only coarse facts (columns, counts) are signals.
import { signal } from '@preact/signals';
import type { PriceUpdate } from '../../../docs/schema/zonewire';
import { decimalsOf } from './format';
import { ask } from './frames';
import { Series } from './series';

/** The numbers that a price may have, in column order. */
export const FIELDS = ['price', 'bid', 'ask', 'energy', 'congestion', 'loss'] as const;
export type Field = (typeof FIELDS)[number];

/** A price as it arrives, with the publisher's own fields. */
export type Price = PriceUpdate & { simulated?: unknown };

export const SPARK_MS = 5 * 60_000;

export class Row {
  entry: Price | null = null;
  /** The publisher's time. */
  at = 0;
  /** The price, or the middle of the quote. */
  level: number | null = null;
  /** The change from the previous price; null if there was none. */
  change: number | null = null;
  /** The usual interval between its prices, in milliseconds; 0 if unknown. */
  interval = 0;
  /** Counts updates, so that drawing code notices them. */
  version = 0;
  /** The levels of the two newest prices received, and the time of the newest. */
  came: number | null = null;
  before: number | null = null;
  cameAt = 0;
  readonly spark = new Series(200, 2000);
  readonly name: string;
  /** The sort key: numbers within it sort by value. */
  readonly order: string;

  constructor(readonly zone: string, readonly key: string) {
    this.name = nameOf(zone, key);
    this.order = key.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(8, '0'));
  }

  value(field: Field): number | null {
    const value = this.entry?.[field];
    return typeof value === 'number' ? value : null;
  }

  get isSimulated(): boolean { return this.entry?.simulated === true; }
  get isLate(): boolean { return this.entry?.late === true; }

  /** Whether it is older than expected. */
  isStale(now: number): boolean {
    return this.interval > 0 && now - this.at > Math.max(10_000, 3.5 * this.interval);
  }
}

export const nameOf = (zone: string, key: string) => `${zone}/${key}`;

type Latest = () => ReadonlyMap<string, Price>;

class Zone {
  rows = new Map<string, Row>();
  latest: Latest = () => new Map();
  isDue = true;
  decimals: Record<Field, number> = { price: 2, bid: 2, ask: 2, energy: 2, congestion: 2, loss: 2 };

  row(name: string, key: string): Row {
    let row = this.rows.get(key);
    if (!row) this.rows.set(key, (row = new Row(name, key)));
    return row;
  }
}

export class Board {
  private readonly zones = new Map<string, Zone>();
  /** Which columns have values. */
  readonly columns = signal<Field[]>(['price']);
  readonly keys = signal(0);
  readonly isSimulated = signal(false);
  /** Counts the rows that appeared or disappeared. */
  version = 0;
  /** Called with each price in the order of arrival. */
  readonly listeners = new Set<(row: Row, at: number, level: number) => void>();

  /** Follows a zone; `latest` has its prices. */
  follow(name: string, latest: Latest): void {
    const zone = new Zone();
    zone.latest = latest;
    this.zones.set(name, zone);
  }

  drop(name: string): void {
    this.zones.delete(name);
    this.recount();
  }

  row(zone: string, key: string): Row | undefined {
    return this.zones.get(zone)?.rows.get(key);
  }

  firstKey(zone: string): string | undefined {
    const keys = this.zones.get(zone)?.rows.keys();
    let first: string | undefined;
    for (const key of keys ?? []) if (first === undefined || key < first) first = key;
    return first;
  }

  *rows(): Iterable<Row> {
    for (const zone of this.zones.values()) yield* zone.rows.values();
  }

  decimals(zone: string, field: Field): number {
    return this.zones.get(zone)?.decimals[field] ?? 2;
  }

  /** Something has arrived, or the zone has started over: its table is read in the next frame. */
  due(name: string): void {
    const zone = this.zones.get(name);
    if (zone) zone.isDue = true;
    ask();
  }

  /** Takes a price as it arrives, also a late one, which is sorted in by time. */
  take(name: string, entry: Price): void {
    const zone = this.zones.get(name);
    const level = levelOf(entry);
    if (!zone || level === null) return;
    const row = zone.row(name, entry.key);
    const at = Date.parse(entry.timestamp);
    if (entry.late !== true || at >= row.cameAt) {
      if (row.came !== null && entry.snapshot !== true && at > row.cameAt) {
        const gap = at - row.cameAt;
        row.interval = row.interval === 0 ? gap : row.interval + 0.2 * (gap - row.interval);
      }
      // A snapshot repeats what is known.
      if (row.came !== null && (entry.snapshot !== true || at > row.cameAt)) row.before = row.came;
      row.came = level;
      row.cameAt = at;
    }
    row.spark.push(at, level);
    for (const listener of this.listeners) listener(row, at, level);
    zone.isDue = true;
    ask();
  }

  /** Updates the rows from the tables, once per frame. */
  sync(): void {
    for (const [name, zone] of this.zones) {
      if (!zone.isDue) continue;
      zone.isDue = false;
      const latest = zone.latest();
      let isOther = false;
      for (const [key, entry] of latest) {
        const row = zone.row(name, key);
        if (row.entry === entry) continue;
        isOther ||= row.entry === null;
        this.fill(zone, row, entry);
      }
      if (zone.rows.size > latest.size) {
        isOther = true;
        for (const key of zone.rows.keys()) if (!latest.has(key)) zone.rows.delete(key);
      }
      if (isOther) this.recount();
    }
  }

  private fill(zone: Zone, row: Row, entry: Price): void {
    row.entry = entry;
    row.at = Date.parse(entry.timestamp);
    row.level = levelOf(entry);
    row.change = row.before === null || row.level === null ? null : row.level - row.before;
    for (const field of FIELDS) {
      const value = row.value(field);
      if (value === null) continue;
      const columns = this.columns.peek();
      if (!columns.includes(field)) this.columns.value = FIELDS.filter((it) => it === field || columns.includes(it));
      zone.decimals[field] = Math.max(zone.decimals[field], decimalsOf(value));
    }
    if (row.isSimulated) this.isSimulated.value = true;
    row.version += 1;
  }

  /** Takes prices of the log, which are older than those shown, for the sparklines and the changes. */
  backfill(name: string, entries: Iterable<{ type: string; key?: string; timestamp: string }>): void {
    const zone = this.zones.get(name);
    const previous = new Map<Row, { level: number; at: number }>();
    for (const entry of entries) {
      const row = entry.type === 'price_update' ? zone?.rows.get(entry.key ?? '') : undefined;
      const level = levelOf(entry as Partial<Price>);
      if (!row || level === null) continue;
      const at = Date.parse(entry.timestamp);
      row.spark.push(at, level);
      const before = previous.get(row);
      if (before && at > before.at) row.interval ||= at - before.at;
      if (before && at === row.at && row.before === null) {
        row.before = before.level;
        row.change = level - before.level;
        row.version += 1;
      }
      previous.set(row, { level, at });
    }
    ask();
  }

  private recount(): void {
    this.version += 1;
    let keys = 0;
    for (const zone of this.zones.values()) keys += zone.rows.size;
    this.keys.value = keys;
    if (keys === 0) {
      this.columns.value = ['price'];
      this.isSimulated.value = false;
    }
    ask();
  }
}

export function levelOf(entry: Partial<Price>): number | null {
  if (typeof entry.price === 'number') return entry.price;
  const { bid, ask: offer } = entry;
  return typeof bid === 'number' && typeof offer === 'number' ? (bid + offer) / 2 : null;
}

export const board = new Board();
