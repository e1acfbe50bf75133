// One key's price over time, from the log and live. Where there is no data there is no line, and a text says
// so.
import { useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { board, FIELDS, type Row } from '../board';
import { age, clock, duration, fixed, signed } from '../format';
import { ask, onFrame } from '../frames';
import { History } from '../history';
import type { Series } from '../series';
import { gatewayNow, link, second } from '../state';
import { theme } from '../theme';
import { RANGES } from '../ranges';
import './chart.css';

const POINTS_MAX = 4000;
/** Possible steps between the times below the chart. */
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];

interface Shown {
  data: [number[], (number | null)[]];
  holes: [number, number][];
  low: number;
  high: number;
  first: number | null;
  last: number | null;
}

/**
 * The points of a range, with gaps where there is no data. If there are very many, each step shows its lowest
 * and highest.
 */
function cut(series: Series, from: number, to: number): Shown {
  const hole = series.holeMs();
  const shown: Shown = { data: [[], []], holes: [], low: Infinity, high: -Infinity, first: null, last: null };
  const start = Math.max(0, series.after(from) - 1);
  const end = series.after(to);
  const [times, levels] = shown.data;
  const step = Math.max(1, Math.ceil((2 * (end - start)) / POINTS_MAX));
  const put = (i: number) => {
    times.push(series.times[i]! / 1000);
    levels.push(series.values[i]!);
  };
  let i = start;
  while (i < end) {
    const at = series.times[i]!;
    const before = i > start ? series.times[i - 1]! : null;
    if (before !== null && at - before > hole) {
      shown.holes.push([before, at]);
      times.push((before + 1) / 1000);
      levels.push(null);
    }
    // As many points as fit into one step, but not beyond a hole.
    let stop = i + 1;
    while (stop < Math.min(end, i + step) && series.times[stop]! - series.times[stop - 1]! <= hole) stop += 1;
    let [low, high] = [i, i];
    for (let j = i; j < stop; j += 1) {
      if (series.values[j]! < series.values[low]!) low = j;
      if (series.values[j]! > series.values[high]!) high = j;
    }
    for (const j of [...new Set([low, high].sort((a, b) => a - b))]) put(j);
    if (series.times[stop - 1]! >= from) {
      shown.low = Math.min(shown.low, series.values[low]!);
      shown.high = Math.max(shown.high, series.values[high]!);
    }
    i = stop;
  }
  if (end > start) {
    shown.first = series.values[start]!;
    shown.last = series.values[end - 1]!;
    const tail = series.times[end - 1]!;
    if (to - tail > hole) shown.holes.push([tail, to]);
    // A price holds until the next one; the line extends to now.
    else if (to > tail) {
      times.push(to / 1000);
      levels.push(shown.last);
    }
  }
  return shown;
}

function colours(): Record<string, string> {
  const probe = document.createElement('i');
  document.body.append(probe);
  const of = (name: string) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const found = { line: of('--accent'), dim: of('--dim'), grid: of('--line'), hole: of('--hole'), ink: of('--ink'), panel: of('--panel') };
  probe.remove();
  return found;
}

function faded(colour: string, part: number): string {
  return colour.replace('rgb(', 'rgba(').replace(')', `, ${part})`);
}

export function Chart({ zone, keyName, range, onRange }: { zone: string; keyName: string; range: string; onRange: (range: string) => void }) {
  const place = useRef<HTMLDivElement>(null);
  const summary = useSignal('Chart');
  const cursor = useSignal<{ at: number; level: number } | null>(null);
  const note = useSignal('');
  const span = useRef(RANGES[range]?.[1] ?? 900_000);
  const history = useRef<History>(null);
  const plot = useRef<uPlot>(null);
  const shown = useRef<Shown>({ data: [[], []], holes: [], low: 0, high: 0, first: null, last: null });

  useEffect(() => {
    let isDue = true;
    const read = new History(zone, keyName, () => { isDue = true; ask(); });
    history.current = read;
    const row = board.row(zone, keyName);
    if (row) {
      const { times, values, length } = row.spark;
      for (let i = 0; i < length; i += 1) read.series.push(times[i]!, values[i]!);
    }
    void read.reach(gatewayNow() - span.current);
    let drawnAt = 0;
    const listener = (it: Row, at: number, level: number) => {
      if (it.zone !== zone || it.key !== keyName) return;
      read.series.push(at, level);
      isDue = true;
    };
    board.listeners.add(listener);
    const stop = onFrame(() => {
      const now = gatewayNow();
      // Without new prices the line moves once a second, or by a pixel if that takes longer.
      if (!isDue && now - drawnAt < Math.max(1000, Number.isFinite(span.current) ? span.current / (place.current?.clientWidth || 1000) : 0)) return;
      isDue = false;
      drawnAt = now;
      const it = board.row(zone, keyName);
      const to = Math.max(now, it?.at ?? 0);
      const kept = read.series.length > 0 ? read.series.times[0]! : now - 60_000;
      // A range that the log does not cover is not drawn as empty.
      const wanted = Number.isFinite(span.current) ? to - span.current : 0;
      const from = Math.max(wanted, read.isAll || wanted === 0 ? Math.min(kept, to - 60_000) : 0);
      const part = cut(read.series, from, to);
      shown.current = part;
      const digits = board.decimals(zone, 'price');
      note.value = read.problem !== '' ? `Older prices could not be read: ${read.problem}.` : read.isReading ? 'Reading older prices …' : read.isAll && kept > wanted ? `The log keeps this key from ${clock(kept)}.` : '';
      const holes = part.holes.filter(([, end]) => end > from).map(([begin, end]) => `no data between ${clock(Math.max(begin, from))} and ${end >= to ? 'now' : clock(end)}`);
      summary.value = part.last === null
        ? `No price of ${keyName} in this range.`
        : `Price of ${keyName}, ${RANGES[range]?.[0] ?? range}: now ${fixed(part.last, digits)}, lowest ${fixed(part.low, digits)}, highest ${fixed(part.high, digits)}${holes.length > 0 ? `; ${holes.slice(-3).join('; ')}` : ''}.`;
      const chart = plot.current;
      if (!chart) return;
      chart.setData(part.data, false);
      const pad = Math.max((part.high - part.low) * 0.08, Math.abs(part.high) * 1e-4, 10 ** -digits);
      chart.batch(() => {
        chart.setScale('x', { min: from / 1000, max: to / 1000 });
        if (part.low <= part.high) chart.setScale('y', { min: part.low - pad, max: part.high + pad });
        chart.redraw(false, true);
      });
    });
    return () => { board.listeners.delete(listener); stop(); read.stop(); };
  }, [zone, keyName]);

  useEffect(() => {
    span.current = RANGES[range]?.[1] ?? 900_000;
    void history.current?.reach(gatewayNow() - span.current);
    ask();
  }, [range, zone, keyName]);

  const make = () => {
    plot.current?.destroy();
    const box = place.current!;
    const tone = colours();
    // Like the small type of the page, which is larger on large screens.
    const type = 0.8 * Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
    const font = `${type}px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: tone.dim!, font, grid: { stroke: tone.grid!, width: 1 }, ticks: { show: false } };
    const size = () => ({ width: Math.max(120, box.clientWidth), height: Math.max(120, box.clientHeight) });
    plot.current = new uPlot({
      ...size(),
      padding: [8, 14, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 7, fill: tone.line!, stroke: tone.panel! }, drag: { x: false, y: false } },
      scales: { x: { time: true, auto: false }, y: { auto: false, range: (_, low, high) => [low ?? 0, high ?? 1] } },
      axes: [
        { ...axis, grid: { show: false }, size: 2.4 * type, space: 7 * type, incrs: STEPS_S, values: (_, splits, __, ___, step) => splits.map((at) => (step < 60 ? clock(at * 1000) : clock(at * 1000).slice(0, -3))) },
        { ...axis, size: 5.2 * type, gap: 6, space: 3.4 * type, values: (_, splits) => splits.map((value) => fixed(value, decimalsFor(splits))) },
      ],
      series: [{}, { stroke: tone.line!, width: 1.8, fill: faded(tone.line!, 0.08), fillTo: (u) => u.scales.y!.min!, paths: uPlot.paths.stepped!({ align: 1 }), points: { show: false }, spanGaps: false }],
      hooks: {
        drawAxes: [(u) => {
          const paint = u.ctx;
          const { left, top, width, height } = u.bbox;
          const scale = uPlot.pxRatio;
          paint.save();
          for (const [begin, end] of shown.current.holes) {
            const from = Math.max(left, u.valToPos(begin / 1000, 'x', true));
            const to = Math.min(left + width, u.valToPos(end / 1000, 'x', true));
            if (to <= from) continue;
            paint.fillStyle = tone.hole!;
            paint.fillRect(from, top, to - from, height);
            paint.font = `${type * scale}px ${getComputedStyle(document.body).fontFamily}`;
            if (to - from > 5 * type * scale) {
              paint.fillStyle = tone.dim!;
              paint.textAlign = 'center';
              paint.fillText('no data', (from + to) / 2, top + height - 8 * scale);
            }
          }
          paint.restore();
        }],
        draw: [(u) => {
          const [times, levels] = shown.current.data;
          const last = levels.length - 1;
          if (last < 0 || levels[last] === null) return;
          const paint = u.ctx;
          paint.save();
          paint.fillStyle = tone.line!;
          paint.beginPath();
          paint.arc(u.valToPos(times[last]!, 'x', true), u.valToPos(levels[last]!, 'y', true), 3.5 * uPlot.pxRatio, 0, 7);
          paint.fill();
          paint.restore();
        }],
        setCursor: [(u) => {
          const at = u.cursor.idx;
          const level = at === null || at === undefined ? null : u.data[1]![at];
          cursor.value = at === null || at === undefined || level === null || level === undefined ? null : { at: u.data[0]![at]! * 1000, level };
        }],
      },
    }, shown.current.data, box);
    ask();
  };
  useEffect(() => {
    make();
    const box = place.current!;
    const room = new ResizeObserver(() => {
      plot.current?.setSize({ width: Math.max(120, box.clientWidth), height: Math.max(120, box.clientHeight) });
      ask();
    });
    room.observe(box);
    return () => { room.disconnect(); plot.current?.destroy(); plot.current = null; };
  }, []);
  useSignalEffect(() => {
    theme.value;
    requestAnimationFrame(() => { if (place.current) make(); });
  });
  useEffect(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const again = () => make();
    dark.addEventListener('change', again);
    return () => dark.removeEventListener('change', again);
  }, []);

  // With the keyboard the cursor moves from point to point.
  const onKey = (event: KeyboardEvent) => {
    const by = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    const chart = plot.current;
    if (by === 0 || !chart) return;
    event.preventDefault();
    const [times, levels] = shown.current.data;
    let at = chart.cursor.idx ?? times.length - 1;
    do at += by; while (at > 0 && at < times.length - 1 && levels[at] === null);
    at = Math.max(0, Math.min(times.length - 1, at));
    if (times[at] === undefined) return;
    chart.setCursor({ left: chart.valToPos(times[at]!, 'x'), top: 10 });
  };

  return (
    <>
      <Figure zone={zone} keyName={keyName} cursor={cursor.value} />
      <div class="ranges">
      <div class="seg" role="group" aria-label="Range">
        {Object.entries(RANGES).map(([name, [title]]) => (
          <button type="button" key={name} aria-pressed={name === range} onClick={() => onRange(name)}>{title}</button>
        ))}
      </div>
      <span class="dim">{note.value}</span>
      </div>
      <div class="plot" id="chart" tabIndex={0} role="img" aria-label={summary.value} onKeyDown={onKey} ref={place} />
      {cursor.value && <p class="sr" role="status">{clock(cursor.value.at)}: {fixed(cursor.value.level, board.decimals(zone, 'price'))}</p>}
    </>
  );
}

function decimalsFor(splits: number[]): number {
  const step = Math.abs((splits[1] ?? 1) - (splits[0] ?? 0));
  return Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) + 1e-9)));
}

/** The price in large digits, its change, and its other fields. */
function Figure({ zone, keyName, cursor }: { zone: string; keyName: string; cursor: { at: number; level: number } | null }) {
  const version = useSignal(-1);
  useEffect(() => onFrame(() => { version.value = board.row(zone, keyName)?.version ?? -1; }), [zone, keyName]);
  version.value;
  const now = second.value && gatewayNow();
  const row = board.row(zone, keyName);
  if (!row) return <p class="big"><span>–</span><small class="dim">no price</small></p>;
  const digits = board.decimals(zone, 'price');
  const isStale = row.isStale(now) || link.value.phase !== 'live';
  const way = (row.change ?? 0) > 0 ? 'up' : (row.change ?? 0) < 0 ? 'down' : 'dim';
  const before = row.level !== null && row.change !== null ? row.level - row.change : 0;
  const percent = before !== 0 && row.change !== null ? ` (${fixed(Math.abs((100 * row.change) / before), 1)} %)` : '';
  const others = FIELDS.filter((field) => field !== 'price' && row.value(field) !== null);
  return (
    <>
      <p class={isStale ? 'big stale' : 'big'}>
        <span>{fixed(cursor ? cursor.level : row.level, digits)}</span>
        {cursor ? <small class="dim">at {clock(cursor.at)}</small> : (
          <>
            <small class={way}>{signed(row.change, digits)}{percent}</small>
            {isStale ? <small class="chip late">stale {duration(now - row.at)}</small> : <small class="dim">{now - row.at < 0 ? `for ${clock(row.at)}` : `${clock(row.at)}${now - row.at < 1500 ? '' : `, ${age(now - row.at)} ago`}`}</small>}
            {row.isLate && <small class="chip late">came late</small>}
          </>
        )}
      </p>
      {others.length > 0 && (
        <dl class="parts">
          {others.map((field) => <div key={field}><dt>{field[0]!.toUpperCase() + field.slice(1)}</dt><dd>{fixed(row.value(field), board.decimals(zone, field))}</dd></div>)}
        </dl>
      )}
    </>
  );
}
