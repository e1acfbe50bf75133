// The board: a table whose head is rendered by Preact and whose rows are drawn by hand, once per
// frame.
import { useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { board, type Field } from '../board';
import { ask, onFrame } from '../frames';
import { gatewayNow, link } from '../state';
import { type Sort, TableBody } from '../table-body';
import { theme } from '../theme';
import { count, plural } from '../format';

const TITLES: Record<string, [string, string]> = {
  key: ['Key', ''],
  zone: ['Zone', ''],
  price: ['Price', 'The latest price; where there is only a quote, the middle of it'],
  change: ['Change', 'Against the price before'],
  bid: ['Bid', ''],
  ask: ['Ask', ''],
  energy: ['Energy', 'The energy part of the price'],
  congestion: ['Congestion', 'The congestion part of the price'],
  loss: ['Loss', 'The part of the price for losses'],
  age: ['Age', 'Since the time that its publisher gave it'],
};

export interface BoardTableProps {
  zones: readonly string[];
  filter: string;
  sort: Sort;
  selected: string;
  pins: ReadonlySet<string>;
  onSort: (by: string) => void;
  onSelect: (name: string) => void;
  onPin: (name: string) => void;
}

export function BoardTable(props: BoardTableProps) {
  const frame = useRef<HTMLDivElement>(null);
  const body = useRef<HTMLTableSectionElement>(null);
  const drawn = useRef<TableBody>(null);
  const shown = useSignal(0);
  const columns = board.columns.value;
  const isLive = link.value.phase === 'live';
  const wanted = { sort: props.sort, filter: props.filter, pins: props.pins, selected: props.selected, columns, showsZones: props.zones.length > 1, isLive };
  const latest = useRef(props);
  latest.current = props;

  useEffect(() => {
    const table = new TableBody(board, body.current!, frame.current!);
    table.wanted = wanted;
    drawn.current = table;
    const stop = onFrame((now) => {
      table.draw(now, gatewayNow());
      shown.value = table.rows.length;
    });
    const room = new ResizeObserver(() => { table.readColours(); ask(); });
    room.observe(frame.current!);
    return () => { stop(); room.disconnect(); };
  }, []);
  useEffect(() => {
    drawn.current!.wanted = wanted;
    ask();
  });
  useSignalEffect(() => {
    theme.value;
    // After the attribute has changed the tokens' values.
    requestAnimationFrame(() => { drawn.current?.readColours(); ask(); });
  });

  const move = (by: number) => {
    const rows = drawn.current!.rows;
    if (rows.length === 0) return;
    const at = rows.findIndex((row) => row.name === latest.current.selected);
    const next = Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by));
    drawn.current!.reveal(next);
    props.onSelect(rows[next]!.name);
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(frame.current!.clientHeight / drawn.current!.rowHeight) - 2);
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
    const step = steps[event.key];
    if (step !== undefined) move(step);
    else if ((event.key === ' ' || event.key === 'p') && props.selected !== '') props.onPin(props.selected);
    else if (event.key === 'Enter') document.getElementById('chart')?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const onClick = (event: MouseEvent) => {
    const line = (event.target as Element).closest('tr[aria-rowindex]');
    if (!line) return;
    const row = drawn.current!.rows[Number(line.getAttribute('aria-rowindex')) - 2];
    if (row) props.onSelect(row.name);
  };

  const head = (by: string, className: string) => {
    const [title, help] = TITLES[by]!;
    const isBy = props.sort.by === by;
    return (
      <th scope="col" class={className} aria-sort={isBy ? (props.sort.isDown ? 'descending' : 'ascending') : undefined} key={by}>
        <button type="button" class="sort" title={help} onClick={() => props.onSort(by)}>
          {title}<i aria-hidden="true">{isBy ? (props.sort.isDown ? '↓' : '↑') : ''}</i>
        </button>
      </th>
    );
  };
  const numbers = columns.flatMap((field: Field) => (field === 'price' ? [head('price', 'n price'), head('change', 'n change')] : [head(field, 'n wide')]));
  const span = columns.length + 4 + (wanted.showsZones ? 1 : 0);
  return (
    <>
      <div class="scroll" ref={frame} onScroll={ask}>
        <table role="grid" class="board" aria-label="Prices" aria-rowcount={shown.value + 1} tabIndex={0} onKeyDown={onKey} onClick={onClick}>
          <thead>
            <tr aria-rowindex={1}>
              {head('key', 'key')}
              {wanted.showsZones && head('zone', 'zone wide')}
              {numbers}
              <th scope="col" class="wide sparkcell">Last 5 min</th>
              {head('age', 'n age')}
            </tr>
          </thead>
          <tbody ref={body} />
          {shown.value === 0 && (
            <tbody class="none"><tr><td colSpan={span}>{board.keys.value === 0 ? (isLive ? 'No prices yet: they appear as they are published.' : 'Waiting for the gateway.') : `None of ${plural(board.keys.value, 'key')} fits “${props.filter}”.`}</td></tr></tbody>
          )}
        </table>
      </div>
      <p class="foot">
        <span>{shown.value === board.keys.value ? plural(shown.value, 'key') : `${count(shown.value)} of ${plural(board.keys.value, 'key')}`}</span>
        <span class="keys wide">↑ ↓ choose · Space pins · / filters · Enter to the chart</span>
      </p>
    </>
  );
}
