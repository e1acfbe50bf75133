// An order book, as its last snapshot and what follows on it make it. It knows no gateway and no page.
import type { Digits, Orderbook } from '../../../docs/schema/zonewire';

/** A price, and how much is offered there; with the digits that came. */
export interface Level { price: number; size: number; priceText: string; sizeText: string }

/** What became of a change: `old` was had before, `hole` does not follow on what is here. */
export type Taken = 'whole' | 'applied' | 'old' | 'hole';

const LEVELS_MAX = 5000;

/** Levels in the order of how good they are, the best first. */
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
    // The worst go.
    if (levels.length > LEVELS_MAX) levels.pop();
  }
}

export class Book {
  private readonly sides = { bids: new Side(-1), asks: new Side(1) };
  /** Of the last change in it; null where there is no book. */
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

/** What `BookReader` needs to know of an entry. */
export interface BookEntry { offset: number; timestamp: string; snapshot?: boolean; late?: boolean; data: Orderbook }

/** Changes that wait for those before them; past it they go, and the next snapshot begins anew. */
const PENDING_MAX = 2000;

/** Keeps a book by what a channel tells of it, with a view of the log for what lies behind its first snapshot. */
export class BookReader {
  readonly book = new Book();
  /** When it was last as the exchange has it. */
  at = 0;
  /** Something before the newest change is missing: what is here is of `at`. */
  isBehind = false;
  /** Counts changes, so that who draws sees them. */
  version = 0;
  private offset = 0;
  private pending: BookEntry[] = [];
  private fills = 0;
  /** Since the channel began anew a whole book has come. */
  private hasCome = true;

  /** `read` gives what the log has of this book behind a position, oldest first, up to an offset. */
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

  /** The channel begins anew: what is here may be of another life of the log. */
  begin(): void {
    this.hasCome = false;
    this.pending = [];
    this.fills += 1;
  }

  /** The snapshot has come, as the log was at a position: what the log has between the book and that is read. */
  async snapshotEnd(epoch: string, offset: number): Promise<void> {
    if (this.book.sequence === null) return;
    if (!this.hasCome) {
      // The log has no book any more; the one that is here stays, and says of when it is.
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

  /** What waited and follows now is taken. */
  private follow(): void {
    const waiting = this.pending;
    this.pending = [];
    let from = 0;
    for (; from < waiting.length; from += 1) if (this.apply(waiting[from]!) === 'hole') break;
    this.pending = waiting.slice(from);
    if (this.pending.length > 0) this.isBehind = this.book.sequence !== null;
  }
}
