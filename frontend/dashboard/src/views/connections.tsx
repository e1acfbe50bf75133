// The gateway's connections: by zone, by duration, and one by one, page by page.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { ConnectionInfo } from '../../../../docs/schema/zonewire';
import { bytes, clock, count, duration, plural } from '../format';
import { go, href, replace, route } from '../route';
import { mine } from '../state';
import { listConnections, type Stats } from '../stats';
import { before, begins, isSlow, some } from '../tell';
import { Pager, Pages } from './pager';

/** How many are on a page. */
const SIZE = 25;
/** How many are searched per second for slow ones. */
const PART = 1000;

export function Connections({ stats }: { stats: Stats }) {
  return (
    <>
      <Zones by={stats.connections.by_zone} />
      <Durations stats={stats} />
      <OneByOne key={route.value.query.get('zone') ?? ''} stats={stats} />
    </>
  );
}

function Zones({ by }: { by: Record<string, number> }) {
  const page = useSignal(0);
  const list = Object.entries(by).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const most = list[0]?.[1] ?? 0;
  const SHOWN = 10;
  const at = Math.min(page.value, Math.max(0, Math.ceil(list.length / SHOWN) - 1));
  return (
    <section class="panel wide2" aria-labelledby="byzone">
      <div class="head"><h1 id="byzone">Connections by zone</h1></div>
      {list.length === 0 ? <p class="empty">Nobody is subscribed to a zone.</p> : (
        <table>
          <thead><tr><th scope="col">Zone</th><th scope="col" class="n">Connections</th><th scope="col" class="bars"><span class="sr">Share</span></th></tr></thead>
          <tbody>{list.slice(at * SHOWN, (at + 1) * SHOWN).map(([zone, value]) => <tr key={zone}><th scope="row"><a href={href('prices', zone)}>{zone}</a></th><td class="n"><a href={href('gateway', 'connections', { zone })} aria-label={`${plural(value, 'connection')} of ${zone}, one by one`}>{count(value)}</a></td><td class="bars"><Bar part={value / most} /></td></tr>)}</tbody>
        </table>
      )}
      <Pages page={at} size={SHOWN} of={list.length} onPage={(to) => { page.value = to; }} />
    </section>
  );
}

function Bar({ part }: { part: number }) {
  return <svg class="hbar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect width={part > 0 ? Math.max(1, 100 * part) : 0} height={6} /></svg>;
}

function Durations({ stats }: { stats: Stats }) {
  const { durations, average_duration_s: average, longest_open_s: longest, total_disconnections: ended } = stats.connections;
  const longer = Math.max(0, ended - durations.reduce((all, it) => all + it.connections, 0));
  const rows: [string, number][] = [...durations.map((it): [string, number] => [`up to ${duration(it.up_to_s * 1000)}`, it.connections]), ['longer', longer]];
  const most = Math.max(1, ...rows.map(([, value]) => value));
  return (
    <section class="panel wide2" aria-labelledby="durations">
      <div class="head"><h2 id="durations">How long connections last</h2><span class="spring" /><span class="dim small">those that ended</span></div>
      <table>
        <thead><tr><th scope="col">Lasted</th><th scope="col" class="n">Connections</th><th scope="col" class="bars"><span class="sr">Share</span></th></tr></thead>
        <tbody>{rows.map(([title, value]) => <tr key={title}><th scope="row">{title}</th><td class="n">{count(value)}</td><td class="bars"><Bar part={value / most} /></td></tr>)}</tbody>
      </table>
      <p class="foot"><span>On average {duration(average * 1000)}; the oldest that is open {duration(longest * 1000)}</span></p>
    </section>
  );
}

function OneByOne({ stats }: { stats: Stats }) {
  const { query } = route.value;
  const [zone, wanted, isSlowOnly] = [query.get('zone') ?? '', query.get('id') ?? '', query.get('show') === 'slow'];
  const start = wanted === '' ? '' : before(wanted);
  // The cursors of the previous pages.
  const trail = useSignal<readonly string[]>([]);
  const read = useSignal<{ list: ConnectionInfo[]; next: string | null } | null>(null);
  const search = useSignal<{ found: ConnectionInfo[]; seen: number; at: number; isWhole: boolean } | null>(null);
  const page = useSignal(0);
  // An id entered with Enter before its page was read.
  const entered = useSignal('');
  const after = trail.value.at(-1) ?? start ?? '';

  // Reads one page, once a second.
  useEffect(() => {
    if (isSlowOnly || start === null) return undefined;
    read.value = null;
    return listConnections(() => ({ zone, after, size: SIZE }), (it) => { read.value = { list: it.connection_list, next: it.connections_next ?? null }; });
  }, [zone, after, isSlowOnly, start === null]);
  // The gateway does not say which connections are slow: all of them are searched, a part each second, again and
  // again.
  useEffect(() => {
    if (!isSlowOnly) return undefined;
    search.value = null;
    let [last, seen, found]: [string, number, ConnectionInfo[]] = ['', 0, []];
    return listConnections(() => ({ zone, after: last, size: PART }), (it) => {
      found.push(...it.connection_list.filter(isSlow));
      seen += it.connection_list.length;
      const isWhole = it.connections_next === undefined;
      if (isWhole || !search.value?.isWhole) search.value = { found: [...found].sort((a, b) => b.waiting_bytes - a.waiting_bytes), seen, at: Date.now(), isWhole };
      last = it.connections_next ?? '';
      if (isWhole) [seen, found] = [0, []];
    });
  }, [zone, isSlowOnly]);

  const to = (changes: Record<string, string | undefined>) => {
    [trail.value, page.value] = [[], 0];
    replace(href('gateway', 'connections', { zone, id: wanted, show: isSlowOnly ? 'slow' : undefined, ...changes }));
  };
  const slow = search.value?.found ?? [];
  const at = Math.min(page.value, Math.max(0, Math.ceil(slow.length / SIZE) - 1));
  const listed = start === null ? [] : (read.value?.list ?? []).filter((it) => wanted === '' || begins(it.connection_id, wanted));
  const only = listed.length === 1 ? listed[0]!.connection_id : '';
  const openOnly = () => go(href('gateway', `connections/${only}`));
  useEffect(() => {
    if (only !== '' && wanted !== '' && entered.value === wanted) openOnly();
  }, [only]);
  const shown = isSlowOnly ? slow.slice(at * SIZE, (at + 1) * SIZE) : listed;
  // After the last one with this prefix there are no more.
  const next = read.value !== null && listed.length === read.value.list.length ? read.value.next : null;
  const isReading = isSlowOnly ? search.value === null : start !== null && read.value === null;
  const open = zone === '' ? stats.connections.open : (stats.connections.by_zone[zone] ?? 0);
  const hasClients = shown.some((it) => it.subject !== undefined);
  const empty = isReading ? 'Reading …' : isSlowOnly ? 'Every client keeps up.' : wanted !== '' ? 'No open connection has an id that begins so.' : trail.value.length > 0 ? 'There are no more.' : zone === '' ? 'Nobody is connected.' : `Nobody follows ${zone}.`;
  return (
    <section class="panel full" aria-labelledby="each">
      <div class="head">
        <h2 id="each">One by one</h2>
        <div class="seg" role="group" aria-label="Which connections">
          <button type="button" aria-pressed={!isSlowOnly} onClick={() => to({ show: undefined })}>All</button>
          <button type="button" aria-pressed={isSlowOnly} onClick={() => to({ show: 'slow', id: undefined })}>Slow or silent</button>
        </div>
        {zone !== '' && <span class="chip">of {zone} <button type="button" class="link" aria-label={`Of all zones, not only of ${zone}`} onClick={() => to({ zone: undefined })}>all zones</button></span>}
        <span class="spring" />
        {!isSlowOnly && <input type="search" data-filter class="filter" placeholder="Connection id" aria-label="Look for a connection by how its id begins" value={wanted} onInput={(event) => to({ id: event.currentTarget.value.trim() })} onKeyDown={(event) => { if (event.key === 'Enter') { if (only !== '') openOnly(); else entered.value = wanted; } }} />}
      </div>
      {shown.length === 0 ? <p class="empty">{empty}</p> : (
        <div class="scroll flat" tabIndex={0} role="region" aria-label="Connections">
          <table>
            <thead><tr><th scope="col">Connection</th>{hasClients && <th scope="col" class="wide">Client</th>}<th scope="col">How it does</th><th scope="col" class="wide">Follows</th><th scope="col" class="n wide">Open for</th><th scope="col" class="n wide">Heard</th><th scope="col" class="n wide">It has sent</th><th scope="col" class="n">Waits for it</th></tr></thead>
            <tbody>
              {shown.map((it) => (
                <tr key={it.connection_id}>
                  <th scope="row"><a class="mono" href={href('gateway', `connections/${it.connection_id}`)}>{it.connection_id.slice(0, 8)}</a>{mine.value === it.connection_id && <span class="chip">this page</span>}{it.transport === 'events' && <span class="chip wide" title="A stream of events, not a WebSocket">events</span>}</th>
                  {hasClients && <td class="wide what">{it.subject ?? '–'}</td>}
                  <td>{isSlow(it) ? <span class="chip late">{it.health}</span> : it.health}</td>
                  <td class="wide what">{it.channels.length === 0 ? 'nothing' : some(it.channels)}</td>
                  <td class="n wide">{duration(it.connected_s * 1000)}</td>
                  <td class="n wide">{duration(it.last_heard_s_ago * 1000)} ago</td>
                  <td class="n wide">{plural(it.messages_received, 'message')}</td>
                  <td class="n">{it.waiting_messages === 0 ? '–' : `${count(it.waiting_messages)}, ${bytes(it.waiting_bytes)}`}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {isSlowOnly
        ? <Pages page={at} size={SIZE} of={slow.length} onPage={(to) => { page.value = to; }} />
        : <Pager hasBefore={trail.value.length > 0} next={next} page={trail.value.length + 1} onFirst={() => { trail.value = []; }} onBefore={() => { trail.value = trail.value.slice(0, -1); }} onNext={(last) => { trail.value = [...trail.value, last]; }} />}
      <p class="foot"><span>{plural(open, 'connection is', 'connections are')} open{zone === '' ? '' : ` that follow ${zone}`}, at this gateway; in the order of their ids.{isSlowOnly && search.value ? ` ${search.value.isWhole ? `Looked through ${count(search.value.seen)} of them until ${clock(search.value.at)}.` : `${count(search.value.seen)} looked through so far …`}` : ''}</span></p>
    </section>
  );
}
