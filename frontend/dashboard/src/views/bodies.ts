// Rows that are drawn by hand, once per frame: those of the tape, of a book and of markets. Only what is
// visible is written, and only if it changed.
import type { Level } from '../book';
import { age, clock, fixed } from '../format';
import { ask } from '../frames';
import { decimalsIn, KEPT, type Line, type Tape } from '../tape';
import type { MarketRow } from '../events';

const MARK = { buy: '▲ Buy', sell: '▼ Sell' } as Record<string, string>;

function cell(row: HTMLTableRowElement, name: string, kind: 'td' | 'th' = 'td'): HTMLElement {
  const made = document.createElement(kind);
  made.className = name;
  if (kind === 'th') made.setAttribute('scope', 'row');
  row.append(made);
  return made;
}

function write(into: HTMLElement, text: string): void {
  if (into.textContent !== text) into.textContent = text;
}

/** The newest line is the first one; a line that goes is written anew for one that comes. While nobody scrolls, only
 * the lines in sight are there, above `rest`, which is as high as the others would be. */
export class TapeBody {
  private drawn = 0;
  private most = 0;
  private decimals = '';
  // Measured when they change: measuring while drawing would lay out the page twice.
  private rowHeight = 0;
  private height = 0;
  private isScrolled = false;
  constructor(private readonly body: HTMLTableSectionElement, private readonly rest: HTMLElement, private readonly frame: HTMLElement, private readonly tape: Tape, private readonly hasNames: boolean) {}

  /** The visible size has changed, or the user scrolls. */
  look(): void {
    this.rowHeight = this.body.rows[0]?.offsetHeight ?? 0;
    this.height = this.frame.clientHeight;
    this.isScrolled = this.frame.scrollTop > 0;
    ask();
  }

  /** Draws the lines before number `upTo`, all stored ones if paused; then they stay as drawn. */
  draw(upTo: number, isStill: boolean): void {
    const isAll = isStill || this.isScrolled || this.rowHeight === 0;
    const most = isAll ? KEPT : Math.min(KEPT, Math.ceil(this.height / this.rowHeight));
    const { price, size } = this.tape.decimals;
    // Once more decimals are needed, all lines get them.
    const isOther = most !== this.most || (!this.hasNames && `${price} ${size}` !== this.decimals && upTo !== this.drawn);
    if (upTo === this.drawn && !isOther) return;
    this.decimals = `${price} ${size}`;
    this.most = most;
    const { rows } = this.body;
    const first = Math.max(0, upTo - most, this.tape.count - KEPT);
    if (isOther) {
      while (rows.length < upTo - first) this.body.append(this.make());
      while (rows.length > upTo - first) rows[rows.length - 1]!.remove();
      for (let i = 0; i < rows.length; i += 1) this.fill(rows[i]!, this.tape.line(upTo - 1 - i));
    } else {
      for (let n = Math.max(this.drawn, first); n < upTo; n += 1) {
        const row = rows.length < most ? this.make() : rows[rows.length - 1]!;
        this.fill(row, this.tape.line(n));
        this.body.prepend(row);
      }
    }
    this.drawn = upTo;
    const hidden = `${(Math.min(upTo, KEPT) - rows.length) * this.rowHeight}px`;
    if (this.rest.style.height !== hidden) this.rest.style.height = hidden;
  }

  private make(): HTMLTableRowElement {
    const row = document.createElement('tr');
    cell(row, 'when');
    if (this.hasNames) cell(row, 'name');
    for (const name of this.hasNames ? ['n price', 'n size'] : ['side', 'n price', 'n size']) cell(row, name);
    return row;
  }

  private fill(row: HTMLTableRowElement, { at, trade, text = '' }: Line): void {
    const cells = [...row.cells];
    const isHole = trade === undefined;
    row.className = isHole ? 'missing' : trade.side === 'buy' ? 'up' : trade.side === 'sell' ? 'down' : '';
    write(cells[0]!, clock(at));
    // A gap is described across the line.
    cells[1]!.setAttribute('colspan', isHole ? `${cells.length - 1}` : '1');
    for (const other of cells.slice(2)) other.hidden = isHole;
    if (isHole) {
      write(cells[1]!, text);
      return;
    }
    const mark = MARK[trade.side] ?? '–';
    if (this.hasNames) {
      // Each market has its own decimals.
      const [name, price, size] = [trade.name.replace(/^([^/]*)\/(.*)/, '$2 $1'), fixed(Number(trade.price), decimalsIn(trade.price)), fixed(Number(trade.size), decimalsIn(trade.size))];
      [name, `${mark[0]} ${price}`, size].forEach((word, i) => write(cells[i + 1]!, word));
      cells[1]!.title = name;
    } else [mark, fixed(Number(trade.price), this.tape.decimals.price), fixed(Number(trade.size), this.tape.decimals.size)].forEach((word, i) => write(cells[i + 1]!, word));
    if (trade.isLate) {
      const chip = document.createElement('span');
      [chip.className, chip.textContent] = ['chip late', 'late'];
      cells[0]!.append(chip);
      this.body.parentElement!.classList.add('haslate');
    }
  }
}

/** Both sides of a book, side by side, best first. */
export class BookBody {
  private readonly lines: HTMLElement[][] = [];
  private decimals = { price: 0, size: 0 };
  constructor(body: HTMLTableSectionElement, readonly depth: number) {
    for (let i = 0; i < depth; i += 1) {
      const row = document.createElement('tr');
      this.lines.push(['n size bid', 'n price up', 'n price down', 'n size ask'].map((name) => cell(row, name)));
      body.append(row);
    }
  }

  draw(bids: readonly Level[], asks: readonly Level[]): void {
    const shown = [...bids.slice(0, this.depth), ...asks.slice(0, this.depth)];
    for (const { priceText, sizeText } of shown) {
      this.decimals.price = Math.max(this.decimals.price, decimalsIn(priceText));
      this.decimals.size = Math.max(this.decimals.size, decimalsIn(sizeText));
    }
    const most = shown.reduce((top, { size }) => Math.max(top, size), 0);
    this.lines.forEach(([bidSize, bid, ask, askSize], i) => {
      this.level(bid!, bidSize!, bids[i], most);
      this.level(ask!, askSize!, asks[i], most);
    });
  }

  private level(price: HTMLElement, size: HTMLElement, level: Level | undefined, most: number): void {
    write(price, level ? fixed(level.price, this.decimals.price) : '');
    write(size, level ? fixed(level.size, this.decimals.size) : '');
    const part = level && most > 0 ? `${Math.max(2, Math.round((100 * level.size) / most))}%` : '0%';
    if (size.style.getPropertyValue('--part') !== part) size.style.setProperty('--part', part);
  }
}

/** How many markets are shown; if there are more, only those that match the filter. */
export const SHOWN = 200;

export class MarketsBody {
  private readonly lines = new Map<string, { row: HTMLTableRowElement; cells: HTMLElement[]; link: HTMLAnchorElement; version: number }>();
  private order = '';
  private list: MarketRow[] = [];
  /** How many match the filter. */
  found = 0;
  constructor(private readonly body: HTMLTableSectionElement, private readonly link: (row: MarketRow) => string) {}

  /** `version` tells whether the set of markets has changed. */
  draw(rows: ReadonlyMap<string, MarketRow>, version: number, filter: string, selected: string, now: number): void {
    const order = `${version} ${filter}`;
    if (order !== this.order) {
      this.order = order;
      const wanted = filter.trim().toLowerCase();
      const fitting = [...rows.values()].filter((it) => wanted === '' || it.name.toLowerCase().includes(wanted)).sort((a, b) => (a.name < b.name ? -1 : 1));
      this.found = fitting.length;
      this.list = fitting.slice(0, SHOWN);
      const kept = new Set(this.list.map((it) => it.name));
      for (const [name, { row }] of this.lines) {
        if (kept.has(name)) continue;
        row.remove();
        this.lines.delete(name);
      }
      this.body.append(...this.list.map((it) => this.line(it).row));
    }
    for (const it of this.list) this.fill(it, selected, now);
  }

  private line(it: MarketRow): { row: HTMLTableRowElement; cells: HTMLElement[]; link: HTMLAnchorElement; version: number } {
    let line = this.lines.get(it.name);
    if (line) return line;
    const row = document.createElement('tr');
    const head = cell(row, 'name', 'th');
    const link = document.createElement('a');
    link.href = this.link(it);
    const where = document.createElement('small');
    [link.textContent, where.textContent, where.className] = [it.symbol, it.exchange, 'dim'];
    head.append(link, where);
    const cells = ['n price', 'n change', 'n more', 'n more', 'n age'].map((name) => cell(row, name));
    this.lines.set(it.name, (line = { row, cells, link, version: -1 }));
    return line;
  }

  private fill(it: MarketRow, selected: string, now: number): void {
    const line = this.line(it);
    const [last, change, bid, offer, old] = line.cells;
    const isSelected = it.name === selected;
    if (line.row.classList.contains('sel') !== isSelected) {
      line.row.classList.toggle('sel', isSelected);
      if (isSelected) line.link.setAttribute('aria-current', 'true');
      else line.link.removeAttribute('aria-current');
    }
    if (it.ticker) write(old!, age(Math.max(0, now - it.at)));
    if (line.version === it.version) return;
    line.version = it.version;
    const number = (given: unknown) => (given === undefined ? '–' : fixed(Number(given), it.decimals));
    write(last!, number(it.last ?? undefined));
    const by = it.change;
    write(change!, by === null ? '–' : `${by > 0 ? '▲ ' : by < 0 ? '▼ ' : '= '}${fixed(Math.abs(by), 2)} %`);
    change!.className = `n change ${by === null || by === 0 ? '' : by > 0 ? 'up' : 'down'}`;
    write(bid!, number(it.ticker?.bid));
    write(offer!, number(it.ticker?.ask));
    if (!it.ticker) write(old!, '–');
  }
}
