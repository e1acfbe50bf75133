// An order book, built from a snapshot and the changes after it. This file knows neither a gateway nor
// a page.
import type { Digits, Orderbook } from '../../../docs/schema/zonewire';

/** A price, and the size offered there, with the digits that arrived. */
export interface Level { price: number; size: number; priceText: string; sizeText: string }

/** The result of a change: `old` was known already, `hole` does not follow the last change. */
export type Taken = 'whole' | 'applied' | 'old' | 'hole';

const LEVELS_MAX = 5000;

/** Levels sorted from best to worst. */
class Side {
  levels: Level[] = [];
  constructor(private readonly sign: 1 | -1) {}

  set([priceGiven, sizeGiven]: readonly [Digits, Digits]): void {
    const [price, size] = [Number(priceGiven), Number(sizeGiven)];
    const { levels, sign } = this;
    let [from, to] = [0, levels.length];
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (sign * levels[middle]!.price < sign * price) from = middle + 1;
      else to = middle;
    }
    const isThere = levels[from]?.price === price;
    if (size === 0) {
      if (isThere) levels.splice(from, 1);
      return;
    }
    levels.splice(from, isThere ? 1 : 0, { price, size, priceText: String(priceGiven), sizeText: String(sizeGiven) });
    // Drop the worst.
    if (levels.length > LEVELS_MAX) levels.pop();
  }
}

export class Book {
  private readonly sides = { bids: new Side(-1), asks: new Side(1) };
  /** The number of the last change; null without a book. */
  sequence: number | null = null;

  get bids(): readonly Level[] { return this.sides.bids.levels; }
  get asks(): readonly Level[] { return this.sides.asks.levels; }

  take({ kind, bids, asks, sequence, previousSequence }: Orderbook): Taken {
    const isWhole = kind === 'snapshot';
    if (!isWhole) {
      if (this.sequence === null) return 'hole';
      if (sequence <= this.sequence) return 'old';
      if (previousSequence !== this.sequence) return 'hole';
    } else {
      this.sides.bids.levels = [];
      this.sides.asks.levels = [];
    }
    for (const level of bids) this.sides.bids.set(level);
    for (const level of asks) this.sides.asks.set(level);
    this.sequence = sequence;
    return isWhole ? 'whole' : 'applied';
  }
}

/** The parts of an entry that `BookReader` needs. */
export interface BookEntry { offset: number; timestamp: string; snapshot?: boolean; late?: boolean; data: Orderbook }

/**
 * How many changes may wait for missing ones; beyond that they are dropped, and the book starts over
 * with the next snapshot.
 */
const PENDING_MAX = 2000;

/**
 * Maintains a book from the entries of a channel, and reads the log for entries before its first
 * snapshot.
 */
export class BookReader {
  readonly book = new Book();
  /** When the book was last complete and current. */
  at = 0;
  /** Whether changes before the newest one are missing, so that the book is as of `at`. */
  isBehind = false;
  /** Counts changes, so that drawing code notices them. */
  version = 0;
  private offset = 0;
  private pending: BookEntry[] = [];
  private fills = 0;
  /** Whether a whole book has arrived since the channel started over. */
  private hasCome = true;

  /** `read` returns the log's entries of this book after a position, oldest first, up to an offset. */
  constructor(private readonly read: (epoch: string, after: number, upTo: number) => Promise<BookEntry[]>, private readonly changed: () => void) {}

  take(entry: BookEntry): void {
    const { data, late } = entry;
    if (data.kind === 'snapshot') {
      if (late === true && this.book.sequence !== null && data.sequence < this.book.sequence) return;
      this.apply(entry);
      this.hasCome = true;
      this.follow();
    } else if (this.pending.length > 0 || this.apply(entry) === 'hole') {
      if (this.book.sequence !== null && data.sequence <= this.book.sequence) return;
      if (this.pending.length >= PENDING_MAX) this.pending = [];
      this.pending.push(entry);
      this.isBehind = this.book.sequence !== null;
      this.follow();
    }
    this.version += 1;
    this.changed();
  }

  /** The channel starts over: the present book may be from another epoch. */
  begin(): void {
    this.hasCome = false;
    this.pending = [];
    this.fills += 1;
  }

  /**
   * The snapshot is complete, as of a position: reads the log's entries between the book and that
   * position.
   */
  async snapshotEnd(epoch: string, offset: number): Promise<void> {
    if (this.book.sequence === null) return;
    if (!this.hasCome) {
      // The log has no whole book any more; the present one stays, with its time.
      this.isBehind = true;
      this.version += 1;
      this.changed();
      return;
    }
    if (this.offset >= offset) return;
    this.fills += 1;
    const mine = this.fills;
    const between = await this.read(epoch, this.offset, offset);
    if (mine !== this.fills) return;
    for (const entry of between) if (entry.data.kind === 'snapshot' ? entry.offset > this.offset : true) this.apply(entry);
    this.follow();
    this.version += 1;
    this.changed();
  }

  private apply(entry: BookEntry): Taken {
    const taken = this.book.take(entry.data);
    if (taken === 'whole' || taken === 'applied') {
      this.at = Date.parse(entry.timestamp);
      this.offset = entry.offset;
      this.isBehind = false;
    }
    return taken;
  }

  /** Applies waiting changes that follow now. */
  private follow(): void {
    const waiting = this.pending;
    this.pending = [];
    let from = 0;
    for (; from < waiting.length; from += 1) if (this.apply(waiting[from]!) === 'hole') break;
    this.pending = waiting.slice(from);
    if (this.pending.length > 0) this.isBehind = this.book.sequence !== null;
  }
}
