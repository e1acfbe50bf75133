// Draws the visible rows of the board into a few table rows that are reused: thousands of keys cost as much as
// forty. Only changes are written, and a key that moves takes its table row along.
import { type Board, type Field, FIELDS, type Row, SPARK_MS } from './board';
import { age, fixed, signed } from './format';
import { ask } from './frames';

export type Sort = { by: string; isDown: boolean };

export interface Wanted {
  sort: Sort;
  filter: string;
  pins: ReadonlySet<string>;
  selected: string;
  columns: readonly Field[];
  showsZones: boolean;
  isLive: boolean;
}

/**
 * While prices move, rows are re-sorted once a second and not under the pointer; while keys are added, now and
 * then.
 */
const SORT_EVERY_MS = 1000;
const GROW_EVERY_MS = 250;
const SPARE = 6;
/** A price that has changed is marked for so long, and faintly for as long again. It ends in frames that are drawn
 * anyway: an animation would have the browser draw sixty times a second for as long as prices come. */
const FLASH_MS = 250;
/** A price that changes continually is not marked in the same way again before this. */
const FLASH_EVERY_MS = 1000;
/** How many sparklines are drawn per frame; the others follow in the next frames. */
const SPARKS_A_FRAME = 4;

/** What is on the screen of a row: a cell is written only if its text differs. */
class Line {
  readonly tr = document.createElement('tr');
  readonly cells = new Map<string, HTMLElement>();
  readonly texts = new Map<string, string>();
  row: Row | null = null;
  version = -1;
  /** When its price changed; 0 if that is no longer marked. */
  flashed = 0;
  flash = '';
  /** The previous mark: when, and in which direction. */
  marked = 0;
  way = '';
  /** The time of the price that is shown. */
  at = 0;
  sparkOf = '';
  /** Sparklines move to the left at different times. */
  readonly phase = 4000 * Math.random();
}

export class TableBody {
  private lines: Line[] = [];
  private shown: Row[] = [];
  private sortedAt = 0;
  private sortedFor = '';
  private boardVersion = -1;
  private layout = '';
  private active = '';
  private sparksLeft = 0;
  private fading: ReturnType<typeof setTimeout> | null = null;
  private readonly above = spacer();
  private readonly below = spacer();
  private readonly isStill = matchMedia('(prefers-reduced-motion: reduce)');
  private colours = { up: '', down: '', dim: '' };
  /** The size of a sparkline in CSS pixels; 0 if it must be measured. */
  private sparkSize: [width: number, height: number] = [0, 0];
  rowHeight = 32;
  wanted!: Wanted;

  constructor(private readonly board: Board, readonly body: HTMLTableSectionElement, readonly frame: HTMLElement) {
    body.append(this.above, this.below);
    this.readColours();
  }

  get rows(): readonly Row[] { return this.shown; }

  readColours(): void {
    const style = getComputedStyle(this.frame);
    const of = (name: string) => style.getPropertyValue(name).trim();
    // A token may be light-dark(…), which only a real property resolves.
    const probe = document.createElement('i');
    this.frame.append(probe);
    const resolved = (name: string) => { probe.style.color = of(name); return getComputedStyle(probe).color; };
    this.colours = { up: resolved('--up'), down: resolved('--down'), dim: resolved('--dim') };
    probe.remove();
    this.rowHeight = Number.parseFloat(getComputedStyle(this.frame).getPropertyValue('--row-px')) || this.rowHeight;
    this.sparkSize = [0, 0];
    for (const line of this.lines) [line.version, line.sparkOf] = [-1, ''];
  }

  draw(now: number, gatewayNow: number): void {
    this.board.sync();
    this.order(now);
    this.lay();
    const { scrollTop, clientHeight } = this.frame;
    const head = (this.body.parentElement as HTMLTableElement).tHead?.offsetHeight ?? 0;
    const count = this.shown.length;
    const first = Math.max(0, Math.min(count, Math.floor(scrollTop / this.rowHeight) - SPARE));
    const last = Math.min(count, Math.ceil((scrollTop + clientHeight - head) / this.rowHeight) + SPARE);
    this.size(last - first);
    // Measured before anything is written, and stored: measuring in between would lay out the table for each row.
    if (this.sparkSize[0] === 0 && this.lines[0]) {
      const canvas = this.lines[0].cells.get('canvas')!;
      this.sparkSize = [canvas.clientWidth, canvas.clientHeight];
    }
    setHeight(this.above, first * this.rowHeight);
    setHeight(this.below, (count - last) * this.rowHeight);
    let active = '';
    this.sparksLeft = SPARKS_A_FRAME;
    this.place(first, last);
    let isFlashing = false;
    for (let i = first; i < last; i += 1) {
      const row = this.shown[i]!;
      const line = this.lines[i - first]!;
      if (row.name === this.wanted.selected) active = `row-${i}`;
      this.drawLine(line, row, i, now, gatewayNow);
      isFlashing ||= line.flashed > 0;
    }
    if (this.sparksLeft < 0) ask();
    if (isFlashing && this.fading === null) this.fading = setTimeout(() => { this.fading = null; ask(); }, FLASH_MS);
    if (active === this.active) return;
    this.active = active;
    const table = this.body.parentElement!;
    if (active === '') table.removeAttribute('aria-activedescendant');
    else table.setAttribute('aria-activedescendant', active);
  }

  /** Scrolls a row into view. */
  reveal(index: number): void {
    const head = (this.body.parentElement as HTMLTableElement).tHead?.offsetHeight ?? 0;
    const top = index * this.rowHeight;
    const room = this.frame.clientHeight - head;
    if (top < this.frame.scrollTop) this.frame.scrollTop = top;
    else if (top + this.rowHeight > this.frame.scrollTop + room) this.frame.scrollTop = top + this.rowHeight - room;
  }

  private order(now: number): void {
    const { sort, filter, pins } = this.wanted;
    const isAsked = `${sort.by} ${sort.isDown} ${filter} ${[...pins].join()}`;
    const isLiveSort = sort.by !== 'key' && sort.by !== 'zone';
    const sinceMs = now - this.sortedAt;
    const isDue = isAsked !== this.sortedFor || (isLiveSort && sinceMs >= SORT_EVERY_MS) || (this.boardVersion !== this.board.version && (sinceMs >= GROW_EVERY_MS || this.shown.length < 500));
    if (!isDue) return;
    // The same rows as before are nearly sorted, which makes sorting cheap.
    const isSame = isAsked === this.sortedFor && this.boardVersion === this.board.version;
    this.sortedFor = isAsked;
    this.sortedAt = now;
    this.boardVersion = this.board.version;
    const shown = isSame ? this.shown : this.fitting(filter);
    const sign = sort.isDown ? -1 : 1;
    const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
    const byName = (a: Row, b: Row) => compare(a.order, b.order) || compare(a.zone, b.zone);
    const hasPins = pins.size > 0;
    const value = valueOf(sort.by);
    shown.sort((a, b) => {
      const pinned = hasPins ? Number(pins.has(b.name)) - Number(pins.has(a.name)) : 0;
      if (pinned !== 0) return pinned;
      if (sort.by === 'key') return sign * byName(a, b);
      if (sort.by === 'zone') return sign * compare(a.zone, b.zone) || byName(a, b);
      const [x, y] = [value(a), value(b)];
      // Rows without a number come last, in either direction.
      if (x === null || y === null) return x === y ? byName(a, b) : x === null ? 1 : -1;
      return sign * (x - y) || byName(a, b);
    });
    this.shown = shown;
  }

  private fitting(filter: string): Row[] {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (name: string) => words.every((word) => name.includes(word));
    return [...this.board.rows()].filter((row) => words.length === 0 || fits(row.name.toLowerCase()));
  }

  /** Creates the cells of other columns. */
  private lay(): void {
    const { columns, showsZones } = this.wanted;
    const layout = `${columns.join()} ${showsZones}`;
    if (layout === this.layout) return;
    this.layout = layout;
    for (const line of this.lines) line.tr.remove();
    this.lines = [];
    this.sparkSize = [0, 0];
  }

  private size(count: number): void {
    while (this.lines.length < count) {
      const line = this.make();
      this.lines.push(line);
      this.below.before(line.tr);
    }
    while (this.lines.length > count) this.lines.pop()!.tr.remove();
  }

  /**
   * Gives each row the table row that shows it already, and the others the remaining ones; then puts these in
   * order.
   */
  private place(first: number, last: number): void {
    const free = new Map<Row | null, Line[]>();
    for (const line of this.lines) {
      const same = free.get(line.row);
      if (same) same.push(line);
      else free.set(line.row, [line]);
    }
    const placed: (Line | undefined)[] = [];
    for (let i = first; i < last; i += 1) {
      const row = this.shown[i]!;
      placed.push(free.get(row)?.pop());
    }
    const left = [...free.values()].flat();
    this.lines = placed.map((line) => line ?? left.pop()!);
    let here = this.above.nextElementSibling;
    for (const { tr } of this.lines) {
      if (tr === here) {
        here = here.nextElementSibling;
        continue;
      }
      // A row that moved down will be met again below: it is taken out, and those after it stay.
      if (here && here !== this.below && here.nextElementSibling === tr) {
        this.below.before(here);
        here = tr.nextElementSibling;
      } else {
        this.body.insertBefore(tr, here);
      }
    }
  }

  private make(): Line {
    const line = new Line();
    const { columns, showsZones } = this.wanted;
    const cell = (name: string, kind: 'th' | 'td', className: string) => {
      const element = document.createElement(kind);
      if (kind === 'th') (element as HTMLTableCellElement).scope = 'row';
      element.className = className;
      line.cells.set(name, element);
      line.tr.append(element);
      return element;
    };
    cell('key', 'th', 'key');
    if (showsZones) cell('zone', 'td', 'zone wide');
    for (const field of FIELDS) {
      if (!columns.includes(field)) continue;
      cell(field, 'td', field === 'price' ? 'n price' : 'n wide');
      if (field === 'price') cell('change', 'td', 'n change');
    }
    const spark = document.createElement('canvas');
    cell('spark', 'td', 'sparkcell wide').append(spark);
    line.cells.set('canvas', spark);
    cell('age', 'td', 'n age');
    return line;
  }

  private drawLine(line: Line, row: Row, index: number, now: number, gatewayNow: number): void {
    const { pins, selected, columns, showsZones, isLive } = this.wanted;
    const { tr } = line;
    const isOther = line.row !== row;
    if (isOther) {
      line.row = row;
      line.version = -1;
      this.write(line, 'key', row.key);
      line.cells.get('key')!.title = row.key;
      if (showsZones) this.write(line, 'zone', row.zone);
      [line.flashed, line.marked] = [0, 0];
    }
    const state = `${index + 2} ${row.name === selected} ${pins.has(row.name)}`;
    if (line.texts.get('state') !== state) {
      line.texts.set('state', state);
      tr.id = `row-${index}`;
      tr.ariaRowIndex = String(index + 2);
      tr.ariaSelected = String(row.name === selected);
      tr.classList.toggle('pinned', pins.has(row.name));
    }
    if (line.version !== row.version) {
      const isNew = line.version >= 0;
      line.version = row.version;
      const way = row.change === null || row.change === 0 ? '' : row.change > 0 ? 'up' : 'down';
      for (const field of columns) {
        const digits = this.board.decimals(row.zone, field);
        const value = field === 'price' ? row.level : row.value(field);
        this.write(line, field, fixed(value, digits));
        if (field === 'price') this.write(line, 'change', signed(row.change, digits));
      }
      const change = line.cells.get('change')!;
      if (!change.classList.contains(way || 'same')) change.className = `n change ${way || 'same'}`;
      // A price from the log is better known, but has not changed now.
      if (isNew && row.at > line.at && way !== '' && (now - line.marked > FLASH_EVERY_MS || way !== line.way) && !this.isStill.matches) [line.flashed, line.marked, line.way] = [now, now, way];
      line.at = row.at;
    }
    const isStale = row.isStale(gatewayNow) || !isLive;
    if (isStale || now - line.flashed >= 2 * FLASH_MS) line.flashed = 0;
    const flash = line.flashed === 0 ? '' : `${line.way === 'up' ? 'rose' : 'fell'}${now - line.flashed >= FLASH_MS ? ' faint' : ''}`;
    if (line.flash !== flash) {
      line.flash = flash;
      line.cells.get('price')!.className = flash === '' ? 'n price' : `n price ${flash}`;
    }
    const told = age(gatewayNow - row.at);
    this.write(line, 'age', isStale && told !== 'now' ? `stale ${told}` : told);
    if (tr.classList.contains('stale') !== isStale) tr.classList.toggle('stale', isStale);
    this.spark(line, row, gatewayNow, `${row.name} ${row.version} ${Math.floor((gatewayNow + line.phase) / 4000)}`, isOther);
  }

  private write(line: Line, name: string, text: string): void {
    if (line.texts.get(name) === text) return;
    line.texts.set(name, text);
    const cell = line.cells.get(name)!;
    // The text of a cell stays the same node.
    if (cell.firstChild) (cell.firstChild as Text).data = text;
    else cell.append(text);
  }

  /** Draws the last minutes as a line, with gaps where nothing was. */
  private spark(line: Line, row: Row, now: number, sparkOf: string, isOther: boolean): void {
    // A new point, or a visible step to the left.
    if (line.sparkOf === sparkOf) return;
    const canvas = line.cells.get('canvas') as HTMLCanvasElement;
    const [width, height] = this.sparkSize;
    if (width === 0) return;
    this.sparksLeft -= 1;
    if (this.sparksLeft < 0) {
      // Do not show the line of another key meanwhile.
      if (isOther) canvas.getContext('2d')!.clearRect(0, 0, canvas.width, canvas.height);
      return;
    }
    line.sparkOf = sparkOf;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale)) [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    const paint = canvas.getContext('2d')!;
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);
    const { times, values, length } = row.spark;
    const from = now - SPARK_MS;
    const start = Math.max(0, row.spark.after(from) - 1);
    let [low, high] = [Infinity, -Infinity];
    for (let i = start; i < length; i += 1) {
      low = Math.min(low, values[i]!);
      high = Math.max(high, values[i]!);
    }
    if (low === Infinity) return;
    const flat = high - low < 1e-9;
    const x = (at: number) => Math.max(0, ((at - from) / SPARK_MS) * (width - 2));
    const y = (value: number) => (flat ? height / 2 : 2 + (1 - (value - low) / (high - low)) * (height - 4));
    const hole = Math.min(row.spark.holeMs(), SPARK_MS);
    paint.lineWidth = 1.4;
    paint.lineJoin = 'round';
    paint.strokeStyle = this.colours.dim;
    paint.beginPath();
    for (let i = start; i < length; i += 1) {
      const at = times[i]!;
      if (i > start && at - times[i - 1]! <= hole) paint.lineTo(x(at), y(values[i]!));
      else paint.moveTo(x(at), y(values[i]!));
    }
    paint.stroke();
    const last = length - 1;
    if (now - times[last]! > hole) {
      paint.setLineDash([2, 3]);
      paint.beginPath();
      paint.moveTo(x(times[last]!), y(values[last]!));
      paint.lineTo(width - 2, y(values[last]!));
      paint.stroke();
      paint.setLineDash([]);
    }
    paint.fillStyle = (row.change ?? 0) > 0 ? this.colours.up : (row.change ?? 0) < 0 ? this.colours.down : this.colours.dim;
    paint.beginPath();
    paint.arc(x(times[last]!), y(values[last]!), 1.8, 0, 7);
    paint.fill();
  }
}

function valueOf(by: string): (row: Row) => number | null {
  if (by === 'change') return (row) => row.change;
  if (by === 'age') return (row) => -row.at;
  if (by === 'price') return (row) => row.level;
  return (row) => row.value(by as Field);
}

function spacer(): HTMLTableRowElement {
  const row = document.createElement('tr');
  row.className = 'spacer';
  row.setAttribute('role', 'presentation');
  row.ariaHidden = 'true';
  return row;
}

function setHeight(row: HTMLElement, height: number): void {
  const text = `${height}px`;
  if (row.style.height === text) return;
  row.style.height = text;
  row.hidden = height === 0;
}
