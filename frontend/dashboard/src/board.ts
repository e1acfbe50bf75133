// What the board shows: the latest price of each key of the zones that are followed. Which price that is, the
// client library says; here are the numbers of it, and what a line needs. It is plain data, brought up to date
// once a frame; only what is coarse (columns, counts) is a signal.
import { signal } from '@preact/signals';
import type { PriceUpdate } from '../../../docs/schema/zonewire';
import { decimalsOf } from './format';
import { ask } from './frames';
import { Series } from './series';

/** The numbers that a price may have, in the order of their columns. */
export const FIELDS = ['price', 'bid', 'ask', 'energy', 'congestion', 'loss'] as const;
export type Field = (typeof FIELDS)[number];

/** A price as it comes, with what its publisher adds. */
export type Price = PriceUpdate & { simulated?: unknown };

export const SPARK_MS = 5 * 60_000;

export class Row {
  entry: Price | null = null;
  /** What its publisher says of when. */
  at = 0;
  /** The price, or the middle of the quote. */
  level: number | null = null;
  /** Against the price before; null where there was none. */
  change: number | null = null;
  /** How long its prices usually are apart, in milliseconds; 0 where that is not known. */
  interval = 0;
  /** Counts what was taken, so that who draws sees what has changed. */
  version = 0;
  /** The levels of the two newest prices that came, and when the newest was. */
  came: number | null = null;
  before: number | null = null;
  cameAt = 0;
  readonly spark = new Series(200, 2000);
  readonly name: string;
  /** What it is sorted by: numbers within it by their value. */
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

  /** Whether it is older than it should be. */
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
  /** Which columns have something to show. */
  readonly columns = signal<Field[]>(['price']);
  readonly keys = signal(0);
  readonly isSimulated = signal(false);
  /** Rows came or went. */
  version = 0;
  /** Told of each price that comes, in its order. */
  readonly listeners = new Set<(row: Row, at: number, level: number) => void>();

  /** A zone is followed; `latest` has its prices. */
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

  /** Something has come, or the zone has begun anew: its table is read in the next frame. */
  due(name: string): void {
    const zone = this.zones.get(name);
    if (zone) zone.isDue = true;
    ask();
  }

  /** A price as it comes: also one that is late, which goes where it belongs in time. */
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
      // A snapshot says again what is known.
      if (row.came !== null && (entry.snapshot !== true || at > row.cameAt)) row.before = row.came;
      row.came = level;
      row.cameAt = at;
    }
    row.spark.push(at, level);
    for (const listener of this.listeners) listener(row, at, level);
    zone.isDue = true;
    ask();
  }

  /** Brings the rows up to date with the tables; once a frame. */
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

  /** Prices of the log, which are older than what is shown: for the small lines, and for the changes. */
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
