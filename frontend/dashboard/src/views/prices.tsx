// For traders: the board, the chart of one key, the ticket.
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { board, nameOf } from '../board';
import { clock } from '../format';
import { refused, watchZones, zones as known, zonesProblem } from '../gateway';
import { go, href, replace, route } from '../route';
import { link, may, second, skew, storage } from '../state';
import { keep, kept } from '../theme';
import { RANGES } from '../ranges';
import type { Sort } from '../table-body';
import { BoardTable } from './board-table';
import { lazy } from './lazy';

const Zones = lazy(() => import('./dialogs').then((it) => it.Zones), (problem) => problem);
// The board is rendered first, and loads what it draws with; then the chart.
const Chart = lazy(() => import('./chart').then((it) => it.Chart), (problem) => <div class="plot">{problem}</div>);
// For users who may place orders.
const Ticket = lazy(() => import('./ticket').then((it) => it.Ticket), (problem) => <section class="panel ticket" aria-label="Order">{problem}</section>);
const Remove = lazy(() => import('./dialogs').then((it) => it.Remove), (problem) => problem);

/** A few zones are shown side by side; many are chosen from a list. */
const SIDE_BY_SIDE = 8;
const ZONES_MAX = 32;

export function Prices() {
  const { rest, query } = route.value;
  const all = known.value;
  const chosen = rest.split(',').filter(Boolean).slice(0, ZONES_MAX);
  const sort = sortOf(query.get('sort') ?? 'key');
  const filter = query.get('q') ?? '';
  const selected = query.get('key') ?? '';
  const range = query.get('range') ?? '15m';
  const pins = useSignal<ReadonlySet<string>>(new Set(JSON.parse(kept('pins') ?? '[]') as string[]));
  const isChoosing = useSignal(false);
  const zoneBar = useRef<HTMLDivElement>(null);
  board.keys.value;

  const to = (changes: Record<string, string | undefined>, zones = chosen) =>
    href('prices', zones.join(','), { key: selected, q: filter, sort: query.get('sort') ?? undefined, range: range === '15m' ? undefined : range, ...changes });

  // Without a zone in the address, the first one.
  useEffect(() => {
    const last = kept('zones')?.split(',').filter((it) => all.includes(it)) ?? [];
    if (rest === '' && all.length > 0) replace(to({}, last.length > 0 ? last : [all[0]!]));
  }, [rest, all]);
  useEffect(() => {
    watchZones(chosen);
    if (chosen.length > 0) keep('zones', chosen.join(','));
  }, [chosen.join()]);
  useEffect(() => () => watchZones([]), []);
  // On a small screen the zones continue beside it.
  useEffect(() => {
    const bar = zoneBar.current!;
    const shown = bar.querySelector<HTMLElement>('[aria-pressed="true"]');
    if (shown) bar.scrollLeft = shown.offsetLeft - bar.offsetLeft - 40;
  }, [chosen.join(), all]);

  const choose = (zone: string) => {
    const isOn = chosen.includes(zone);
    const next = isOn ? chosen.filter((it) => it !== zone) : [...chosen, zone];
    if (next.length > 0) go(to({ key: isOn && selected.startsWith(`${zone}/`) ? undefined : selected }, next));
  };
  const pin = (name: string) => {
    const next = new Set(pins.value);
    if (!next.delete(name)) next.add(name);
    pins.value = next;
    keep('pins', JSON.stringify([...next].slice(-200)));
  };

  // The row that the chart shows: the selected one, or the first.
  const first = chosen.map((zone) => [zone, board.firstKey(zone)] as const).find(([, key]) => key !== undefined);
  const name = selected !== '' ? selected : first ? nameOf(first[0], first[1]!) : '';
  const at = name.indexOf('/');
  const [zone, key] = [name.slice(0, at), name.slice(at + 1)];
  const isShort = all.length <= SIDE_BY_SIDE;

  return (
    <main class={may.value?.order ? 'trader' : 'trader reader'} id="main">
      <section class="panel boardpanel" aria-labelledby="board">
        <div class="head">
          <h1 id="board">Prices</h1>
          {board.isSimulated.value && <span class="chip sim" title="Simulated by a gateway: they come from no market">Simulated</span>}
          <div class="seg zones" role="group" aria-label="Zones" ref={zoneBar}>
            {(isShort ? all : chosen).map((it) => (
              <button type="button" key={it} aria-pressed={chosen.includes(it)} title={chosen.includes(it) ? `Leave ${it} out` : `Show ${it}`} onClick={(event) => (event.shiftKey || event.ctrlKey || event.metaKey || chosen.includes(it) ? choose(it) : go(to({ key: undefined }, [it])))}>{it}</button>
            ))}
            {all.length > 1 && <button type="button" class="add" aria-haspopup="dialog" onClick={() => { isChoosing.value = true; }}>Several…</button>}
            {isChoosing.value && <Zones all={all} chosen={chosen} onToggle={choose} onClose={() => { isChoosing.value = false; }} />}
          </div>
          <span class="spring" />
          <input type="search" data-filter class="filter" placeholder="Filter keys" aria-label="Filter keys" value={filter} onInput={(event) => replace(to({ q: event.currentTarget.value }))} onKeyDown={(event) => { if (event.key === 'Escape') { replace(to({ q: '' })); event.currentTarget.blur(); } }} />
        </div>
        <AsOf />
        {zonesProblem.value !== '' && <p class="fault">{zonesProblem.value}</p>}
        {chosen.map((it) => refused.value.get(it)).filter(Boolean).map((why) => <p class="fault" key={why}>{why}</p>)}
        {chosen.length > 0 && chosen.every((it) => refused.value.has(it)) ? null : all.length === 0 && zonesProblem.value === '' && link.value.phase === 'live' && rest === ''
          ? <p class="empty"><b>No zone has prices yet.</b> They appear here as soon as somebody publishes: <code>zonewire publish pjm --key 'WESTERN HUB' --price 41.20</code></p>
          : <BoardTable zones={chosen} filter={filter} sort={sort} selected={name} pins={pins.value} onSort={(by) => replace(to({ sort: sort.by === by && !sort.isDown ? `-${by}` : by }))} onSelect={(it) => replace(to({ key: it }))} onPin={pin} />}
      </section>
      <section class="panel chartpanel" aria-labelledby="key">
        {name === '' ? <><h2 id="key">Chart</h2><p class="empty">Choose a key to see its price over time.</p></> : (
          <>
            <div class="head">
              <h2 id="key">{key}</h2><span class="chip">{zone}</span>
              {board.row(zone, key)?.isSimulated && <span class="chip sim">Simulated</span>}
              <span class="spring" />
              <button type="button" class="quiet" aria-pressed={pins.value.has(name)} onClick={() => pin(name)}>{pins.value.has(name) ? 'Pinned' : 'Pin'}</button>
              {may.value?.admin && <More zone={zone} keyName={key} />}
            </div>
            <Chart key={name} zone={zone} keyName={key} range={range in RANGES ? range : '15m'} onRange={(it) => replace(to({ range: it === '15m' ? undefined : it }))} />
          </>
        )}
      </section>
      {may.value?.order && <Ticket hub={key} />}
    </main>
  );
}

function sortOf(text: string): Sort {
  return text.startsWith('-') ? { by: text.slice(1), isDown: true } : { by: text, isDown: false };
}

/** Above the board, if its data are not current. */
function AsOf() {
  const it = link.value;
  second.value;
  if (it.phase === 'live') {
    const stored = storage.value;
    if (stored?.state !== 'degraded') return null;
    return <p class="asof"><span class="chip late">This gateway’s prices only</span> since {clock(stored.since - skew.value)}</p>;
  }
  return board.keys.value === 0 ? null : <p class="asof"><span class="chip late">Not live</span> as of {clock(it.since)}</p>;
}

/** Actions that affect everybody stand apart, and ask first. */
function More({ zone, keyName }: { zone: string; keyName: string }) {
  const isOpen = useSignal(false);
  return (
    <>
      <button type="button" class="quiet danger" aria-haspopup="dialog" onClick={() => { isOpen.value = true; }}>Remove…</button>
      {isOpen.value && <Remove zone={zone} keyName={keyName} onClose={() => { isOpen.value = false; }} />}
    </>
  );
}
