// The log's entries of one key, read in pages from the newest backwards, as far as a chart needs.
import { levelOf, type Price } from './board';
import type { Entries, Entry } from '../../../docs/schema/zonewire';
import { get, Problem } from './gateway';
import { Series } from './series';

type Page = Entries & { entries: (Entry & { offset: number; key?: string; timestamp: string })[] };

const PAGE = 1000;
/** How many pages are read for one chart at most: by default the log has 10,000 entries. */
const PAGES_MAX = 12;
/** How many pages are read for the sparklines of a board. */
const SPARK_PAGES_MAX = 4;
/** Recently read pages also serve the other keys of their zone. */
const FRESH_MS = 60_000;
const CACHE_MAX = 48;
const cache = new Map<string, { at: number; page: Promise<Page> }>();

function read(zone: string, query: string, isKept: boolean): Promise<Page> {
  const path = `api/zones/${encodeURIComponent(zone)}/history?${query}`;
  const held = cache.get(path);
  if (isKept && held && Date.now() - held.at < FRESH_MS) return held.page;
  const page = get<Page>(path);
  if (isKept) {
    cache.set(path, { at: Date.now(), page });
    page.catch(() => cache.delete(path));
    while (cache.size > CACHE_MAX) cache.delete(cache.keys().next().value!);
  }
  return page;
}

/** The newest entries of a zone, oldest first: back to a time, but at most a few pages. */
export async function newest(zone: string, since: number): Promise<Page['entries']> {
  let { entries, epoch, first_offset: kept = 0 } = await read(zone, `limit=${PAGE}`, false);
  for (let pages = 1; pages < SPARK_PAGES_MAX; pages += 1) {
    const oldest = entries[0];
    if (!oldest || epoch === undefined || Date.parse(oldest.timestamp) <= since || oldest.offset <= kept) break;
    const after = Math.max(kept - 1, oldest.offset - 1 - PAGE);
    const page = await read(zone, `limit=${oldest.offset - 1 - after}&after=${encodeURIComponent(`${epoch}:${after}`)}`, true);
    if (page.entries.length === 0) break;
    entries = [...page.entries, ...entries];
  }
  return entries;
}

/** The history of a key, which grows as pages are read. */
export class History {
  readonly series = new Series(20_000);
  /** Since when it is complete. */
  from = Infinity;
  /** Whether the log has no more. */
  isAll = false;
  isReading = false;
  problem = '';
  private epoch = '';
  private next = 0;
  private first = 0;
  private pages = 0;
  private isOver = false;

  constructor(readonly zone: string, readonly key: string, private readonly changed: () => void) {}

  stop(): void { this.isOver = true; }

  /** Reads until it reaches back to a time. */
  async reach(since: number): Promise<void> {
    if (this.isReading || this.isAll || this.isOver || this.from <= since) return;
    this.isReading = true;
    this.problem = '';
    try {
      while (!this.isOver && !this.isAll && this.from > since && this.pages < PAGES_MAX) await this.page();
      if (this.pages >= PAGES_MAX) this.isAll = true;
    } catch (error) {
      this.problem = error instanceof Problem ? error.message : String(error);
      this.isAll = true;
    }
    this.isReading = false;
    this.changed();
  }

  private async page(): Promise<void> {
    const after = Math.max(this.first - 1, this.next - 1 - PAGE);
    const query = this.epoch === '' ? `limit=${PAGE}` : `limit=${Math.max(1, this.next - 1 - after)}&after=${encodeURIComponent(`${this.epoch}:${after}`)}`;
    const page = await read(this.zone, query, this.epoch !== '');
    this.pages += 1;
    // A page ends when its entries reach a MiB. Reading after a position then omits the newest entries.
    let last = page.entries.at(-1)?.offset ?? 0;
    while (this.epoch !== '' && last > 0 && last < this.next - 1 && this.pages < PAGES_MAX) {
      const rest = await read(this.zone, `limit=${this.next - 1 - last}&after=${encodeURIComponent(`${this.epoch}:${last}`)}`, true);
      this.pages += 1;
      if (rest.entries.length === 0) break;
      this.put(rest.entries);
      last = rest.entries.at(-1)!.offset;
    }
    const oldest = page.entries[0];
    if (!oldest || page.epoch === undefined) {
      this.isAll = true;
      return;
    }
    this.epoch = page.epoch;
    this.first = page.first_offset ?? oldest.offset;
    this.next = oldest.offset;
    this.put(page.entries);
    this.from = Math.min(this.from, Date.parse(oldest.timestamp));
    this.isAll = this.next <= this.first;
    this.changed();
  }

  private put(entries: Page['entries']): void {
    for (const entry of entries) {
      const level = entry.key === this.key && entry.type === 'price_update' ? levelOf(entry as Price) : null;
      if (level !== null) this.series.push(Date.parse(entry.timestamp), level);
    }
  }
}
