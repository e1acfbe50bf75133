// Market data: the markets with their tickers, the states of exchanges, and for one market its book, trades and
// candles. Plain data that is drawn once per frame; only coarse facts are signals.
import { signal } from '@preact/signals';
import type { Entries, ExchangeEvent, OrderbookEvent, Position, TickerEvent, TradeEvent } from '../../../docs/schema/zonewire';
import { eventChannel } from 'zonewire/events';
import { type BookEntry, BookReader } from './book';
import { Candles, type CandleEntry } from './candles';
import { clock, duration, plural, words } from './format';
import { ask } from './frames';
import { get, Problem } from './gateway';
import { listen, type Listening } from './listen';
import { announce, skew } from './state';
import { decimalsIn, Tape } from './tape';

/** A market: a symbol at an exchange. */
export class MarketRow {
  ticker: TickerEvent['data'] | null = null;
  at = 0;
  decimals = 0;
  isSimulated = false;
  version = 0;
  readonly name: string;
  constructor(readonly exchange: string, readonly symbol: string) { this.name = `${exchange}/${symbol}`; }

  take({ data, timestamp }: TickerEvent): void {
    this.ticker = data;
    this.at = Date.parse(timestamp);
    for (const it of [data.price, data.bid, data.ask]) if (it !== undefined) this.decimals = Math.max(this.decimals, decimalsIn(String(it)));
    this.isSimulated = (data as { simulated?: unknown }).simulated === true;
    this.version += 1;
  }

  /** The last price, or the middle of the quote. */
  get last(): number | null {
    if (!this.ticker) return null;
    const { price, bid, ask: offer } = this.ticker;
    return price !== undefined ? Number(price) : bid !== undefined && offer !== undefined ? (Number(bid) + Number(offer)) / 2 : null;
  }

  /** The change from the first price of its day, in per cent; null if unknown. */
  get change(): number | null {
    const open = Number(this.ticker?.open);
    return this.last === null || !(open > 0) ? null : (100 * (this.last - open)) / open;
  }
}

/** The state of the connection to an exchange, by its newest event. */
export interface ExchangeState {
  exchange: string;
  state: 'connected' | 'disconnected' | 'reconnecting' | '';
  /** Since when it has been connected or disconnected. */
  since: number;
  /** The time of the newest event about the state. */
  at: number;
  detail: string;
  /** The newest error. */
  error: string;
  errorAt: number;
}

/** How many markets are listed, as many as a type of events may have by default; the list says if there are more. */
export const MARKETS_MAX = 10_000;
const LATEST_PAGE = 1000;

export class Markets {
  readonly rows = new Map<string, MarketRow>();
  /** Counts new markets. */
  version = 0;
  readonly count = signal(0);
  readonly exchanges = signal<readonly ExchangeState[]>([]);
  readonly problem = signal('');
  readonly tickers: Listening;
  private readonly states: Listening[];

  constructor() {
    this.tickers = listen(eventChannel('ticker'), 'tickers', { entry: (entry) => { if (entry.type === 'ticker') this.ticker(entry); } }, { idsMax: 0 });
    this.states = (['connected', 'disconnected', 'reconnecting', 'error'] as const).map((kind) =>
      listen(eventChannel(`exchange:${kind}`), 'states of exchanges', { entry: (entry) => { if (entry.type.startsWith('exchange:')) this.exchange(kind, entry as ExchangeEvent); } }, { idsMax: 100 }));
    // Markets without tickers are known by their last trades and books.
    for (const type of ['trade', 'orderbook']) void this.learn(type);
  }

  get refused(): string { return this.states[0]!.refused.value; }
  get isDegraded(): boolean { return this.tickers.isDegraded(); }
  stop(): void { for (const it of [this.tickers, ...this.states]) it.stop(); }

  row(exchange: string, symbol: string): MarketRow | undefined {
    const name = `${exchange}/${symbol}`;
    let row = this.rows.get(name);
    if (!row && this.rows.size < MARKETS_MAX) {
      this.rows.set(name, (row = new MarketRow(exchange, symbol)));
      this.version += 1;
      this.count.value = this.rows.size;
    }
    return row;
  }

  private ticker(entry: TickerEvent): void {
    const row = this.row(entry.data.exchange, entry.data.symbol);
    if (!row || (entry.late === true && Date.parse(entry.timestamp) < row.at)) return;
    row.take(entry);
    ask();
  }

  private async learn(type: string): Promise<void> {
    try {
      const { entries } = await get<Entries>(`api/events/${type}/latest?limit=${LATEST_PAGE}`);
      for (const { data } of entries as { data?: { exchange: string; symbol: string } }[]) if (data) this.row(data.exchange, data.symbol);
      ask();
    } catch (error) {
      // Missing rights are reported where the markets would be.
      if (!(error instanceof Problem && (error.status === 401 || error.status === 403))) this.problem.value = `Markets that have no tickers are not listed: ${words(error)}`;
    }
  }

  private exchange(kind: 'connected' | 'disconnected' | 'reconnecting' | 'error', { data, timestamp, snapshot }: ExchangeEvent): void {
    const { exchange, reason = '', attempt, delayMs, code } = data;
    const at = Date.parse(timestamp);
    const before = this.exchanges.peek().find((it) => it.exchange === exchange) ?? { exchange, state: '', since: 0, at: 0, detail: '', error: '', errorAt: 0 };
    const now = { ...before };
    if (kind === 'error') {
      if (at < before.errorAt) return;
      [now.error, now.errorAt] = [`${code === undefined ? '' : `${code}: `}${reason}`, at];
    } else {
      // At equal times the later step counts.
      if (at < before.at || (at === before.at && STEPS.indexOf(kind) < STEPS.indexOf(before.state))) return;
      now.state = kind;
      // Since when it has been disconnected, not since the newest attempt.
      if (before.since === 0 || kind === 'connected' || before.state === 'connected') now.since = at;
      now.at = at;
      now.detail = kind === 'reconnecting' ? `${attempt === undefined ? '' : `try ${attempt}`}${delayMs === undefined ? '' : `, after ${duration(Math.max(1000, delayMs))}`}${reason === '' ? '' : `: ${reason}`}` : reason;
      if (snapshot !== true && kind !== before.state && kind !== 'reconnecting') announce(kind === 'connected' ? `${exchange} is connected.` : `${exchange} is disconnected: ${reason}.`);
    }
    this.exchanges.value = [...this.exchanges.peek().filter((it) => it.exchange !== exchange), now].sort((a, b) => (a.exchange < b.exchange ? -1 : 1)).slice(0, EXCHANGES_MAX);
  }
}
const STEPS = ['', 'disconnected', 'reconnecting', 'connected'];
const EXCHANGES_MAX = 256;

/** The trades of one market, or of all. */
export class Trades {
  readonly tape = new Tape();
  readonly listening = signal<Listening | null>(null);
  /** How many lines are from the log. */
  before = 0;
  private isOver = false;

  /** `came` is called with the market of each trade that arrives. */
  constructor(private readonly market: { exchange: string; symbol: string } | null, private readonly came: (exchange: string, symbol: string) => void) { void this.begin(); }

  stop(): void {
    this.isOver = true;
    this.listening.peek()?.stop();
  }

  /** Reads trades from the log first, then follows the channel. */
  private async begin(): Promise<void> {
    const { market } = this;
    const page = await get<Entries>(`api/events/trade/history?limit=${TRADES_PAGE}`).catch((error: unknown) => {
      // Missing rights are reported for the channel.
      if (!(error instanceof Problem && (error.status === 401 || error.status === 403))) this.missing('Earlier trades cannot be read');
      return null;
    });
    if (this.isOver) return;
    for (const entry of (page?.entries ?? []) as unknown as ({ type: string } & TradeEvent)[]) {
      if (entry.type !== 'trade') continue;
      const { exchange, symbol } = entry.data;
      this.came(exchange, symbol);
      if (market === null || (exchange === market.exchange && symbol === market.symbol)) this.tape.trade(entry);
    }
    const offset = page?.entries.at(-1)?.offset;
    this.before = this.tape.count;
    this.follow(page?.epoch !== undefined && offset !== undefined ? { epoch: page.epoch, offset } : undefined);
    ask();
  }

  private missing(text: string): void {
    this.tape.push({ at: Date.now(), text });
    ask();
  }

  private follow(since: Position | undefined): void {
    this.listening.value = listen(eventChannel('trade', this.market ?? {}), 'trades', {
      entry: (entry) => {
        if (entry.type === 'trade') {
          this.tape.trade(entry);
          this.came(entry.data.exchange, entry.data.symbol);
        } else if (entry.type === 'missed') this.missing(entry.data.count === undefined ? 'Trades of others may be missing here' : `${plural(entry.data.count, 'trade')} of another gateway did not come`);
        else this.missing('A trade that this gateway cannot show');
        ask();
      },
      gap: (missed) => this.missing(missed === undefined ? 'Trades may be missing here' : `Up to ${plural(missed, 'trade')} ${missed === 1 ? 'is' : 'are'} missing here`),
    }, { snapshot: false, idsMax: 2000, ...(since ? { since } : {}) });
  }
}

/** How many of the newest trades in the log are searched for those of a market. */
const TRADES_PAGE = 500;

/** How many pages of the log are read for entries before the first snapshot of a book. */
const FILL_PAGES_MAX = 10;
const FILL_PAGE = 1000;

/** The book of one market. */
export class MarketBook {
  readonly reader: BookReader;
  readonly problem = signal('');
  readonly listening: Listening;

  constructor(readonly exchange: string, readonly symbol: string) {
    this.reader = new BookReader((epoch, after, upTo) => this.between(epoch, after, upTo), ask);
    this.listening = listen(eventChannel('orderbook', { exchange, symbol }), 'order books', {
      entry: (entry) => { if (entry.type === 'orderbook') this.reader.take(entry as OrderbookEvent & BookEntry); },
      begin: () => this.reader.begin(),
      whole: ({ epoch, offset }) => {
        this.reader.snapshotEnd(epoch, offset).then(() => { this.problem.value = ''; }, (error: unknown) => { this.problem.value = `The changes since the last whole book cannot be read: ${words(error)}`; });
      },
    }, { idsMax: 0 });
  }

  stop(): void { this.listening.stop(); }

  private async between(epoch: string, after: number, upTo: number): Promise<BookEntry[]> {
    const found: BookEntry[] = [];
    for (let pages = 0; pages < FILL_PAGES_MAX && after < upTo; pages += 1) {
      const page = await get<Entries>(`api/events/orderbook/history?limit=${FILL_PAGE}&after=${encodeURIComponent(`${epoch}:${after}`)}`);
      const entries = page.entries as unknown as (BookEntry & { type: string })[];
      for (const entry of entries) if (entry.type === 'orderbook' && entry.offset <= upTo && entry.data.exchange === this.exchange && entry.data.symbol === this.symbol) found.push(entry);
      if (entries.length === 0) break;
      after = entries.at(-1)!.offset;
    }
    return found;
  }
}

/** The candles of one market, of all its intervals. */
export class MarketCandles {
  readonly candles = new Candles();
  readonly problem = signal('');
  readonly listening: Listening;

  constructor(readonly exchange: string, readonly symbol: string) {
    this.listening = listen(eventChannel('candle', { exchange, symbol }), 'candles', { entry: (entry) => { if (entry.type === 'candle') this.take(entry); } }, { idsMax: 0 });
    void this.read();
  }

  stop(): void { this.listening.stop(); }

  private take(entry: CandleEntry): void {
    this.candles.take(entry);
    ask();
  }

  /** Reads the newest candles from the log. */
  private async read(): Promise<void> {
    try {
      const { entries } = await get<Entries>('api/events/candle/history?limit=1000');
      for (const entry of entries as unknown as (CandleEntry & { type: string })[]) if (entry.type === 'candle' && entry.data.exchange === this.exchange && entry.data.symbol === this.symbol) this.candles.take(entry);
      ask();
    } catch (error) {
      this.problem.value = `Earlier candles cannot be read: ${words(error)}`;
    }
  }
}

/** The state of an exchange in a sentence. */
export function exchangeInWords({ state, since, detail }: ExchangeState): string {
  const at = clock(since - skew.peek());
  if (state === 'connected') return `connected since ${at}`;
  if (state === '') return 'nothing is known of its connection';
  return `${state === 'reconnecting' ? 'reconnecting' : 'disconnected'} since ${at}${detail === '' ? '' : `, ${detail}`}`;
}
