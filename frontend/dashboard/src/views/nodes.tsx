// The nodes of the fleet: the state of each, and its connections.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { age, clock, count, duration, fixed, plural, words } from '../format';
import { fleet, type Fleet, type FleetNode } from '../fleet';
import { link, second, skew, storage } from '../state';
import { Pages } from './pager';

const AGAIN_MS = 2000;
const SIZE = 25;

export function Nodes() {
  const told = useSignal<Fleet | null | undefined>(undefined);
  const problem = useSignal('');
  const wanted = useSignal('');
  const page = useSignal(0);
  const isLive = link.value.phase === 'live';
  useEffect(() => {
    if (!isLive) return undefined;
    let isOver = false;
    let timer: ReturnType<typeof setTimeout>;
    const read = async () => {
      if (!document.hidden) {
        try {
          const now = await fleet();
          if (isOver) return;
          told.value = now;
          problem.value = '';
        } catch (error) {
          problem.value = `The nodes cannot be read: ${words(error)}`;
        }
      }
      // The next request follows the previous answer, so a slow gateway is not asked twice.
      if (!isOver) timer = setTimeout(read, AGAIN_MS);
    };
    void read();
    return () => { isOver = true; clearTimeout(timer); };
  }, [isLive]);
  const it = told.value;
  const isAway = storage.value?.state !== 'healthy';
  const list = (it?.nodes ?? []).filter((node) => node.node.includes(wanted.value.trim().toLowerCase()) || node.zones.some(({ zone }) => zone.toLowerCase().includes(wanted.value.trim().toLowerCase())));
  const at = Math.min(page.value, Math.max(0, Math.ceil(list.length / SIZE) - 1));
  return (
    <section class="panel full" aria-labelledby="nodes">
      <div class="head">
        <h1 id="nodes">Nodes</h1><span class="spring" />
        {it && it.nodes.length > 1 && <input type="search" data-filter class="filter" placeholder="Filter nodes" aria-label="Filter nodes by their name or a zone" value={wanted.value} onInput={(event) => { wanted.value = event.currentTarget.value; page.value = 0; }} />}
      </div>
      {problem.value !== '' && <p class="fault" role="alert">{problem.value}</p>}
      {it && (it.nodes_known === 'this_one' || it.note !== undefined) && <p class={isAway ? 'asof' : 'dim'}>{it.nodes_known === 'this_one' && <span class={`chip ${isAway ? 'late' : ''}`}>This node only</span>} {it.note ?? 'Which other nodes there are is not known now.'}</p>}
      {it === undefined ? <p class="empty">{problem.value === '' ? 'Asking for the nodes …' : ''}</p> : it === null ? <p class="empty">This gateway shows only itself: its version does not know of other nodes.</p> : list.length === 0 ? <p class="empty">No node matches.</p> : (
        <div class="scroll flat" tabIndex={0} role="region" aria-label="List of nodes">
          <table class="nodes">
            <thead><tr><th scope="col">Node</th><th scope="col">State</th><th scope="col" class="n">Connections</th><th scope="col" class="wide">Zones with most subscribers</th><th scope="col" class="n wide" title="How long entries took from the log to the socket: half of them no longer">Lag p50</th><th scope="col" class="n" title="How long entries took from the log to the socket: 99 of 100 no longer">Lag p99</th><th scope="col" class="n wide">Up</th><th scope="col" class="wide">Version</th><th scope="col" class="n wide">Told</th></tr></thead>
            <tbody>{list.slice(at * SIZE, (at + 1) * SIZE).map((node) => <Line key={node.node} node={node} />)}</tbody>
          </table>
        </div>
      )}
      <Pages page={at} size={SIZE} of={list.length} onPage={(to) => { page.value = to; }} />
      {it && <p class="foot"><span>{plural(it.totals.connections, 'connection')} at {plural(it.totals.nodes, 'node')}</span></p>}
    </section>
  );
}

const STATES: Record<string, [string, string]> = {
  serving: ['', 'all is well'],
  degraded: ['late', 'it cannot reach Redis and goes on from memory, or its disk accepts no writes'],
  draining: ['late', 'it accepts no more connections, and is about to stop'],
};

const ZONES_SHOWN = 4;

function Line({ node: it }: { node: FleetNode }) {
  const now = second.value + skew.value;
  const [tone, means] = STATES[it.state] ?? ['', ''];
  const ms = (value: number | null) => (value === null ? '–' : value < 1000 ? `${fixed(value, value < 10 ? 1 : 0)} ms` : duration(value));
  const zones = it.zones.slice(0, ZONES_SHOWN).map(({ zone, connections }) => `${zone} ${count(connections)}`).join(', ');
  const others = it.zones_left_out + Math.max(0, it.zones.length - ZONES_SHOWN);
  return (
    <tr>
      <th scope="row"><span class="mono" title={it.node}>{it.node.slice(0, 8)}</span>{it.here && <span class="chip">this one</span>}</th>
      <td title={means}>{tone === '' ? it.state : <span class={`chip ${tone}`}>{it.state}</span>}</td>
      <td class="n">{count(it.connections)}</td>
      <td class="wide what">{zones === '' ? '–' : zones}{others > 0 ? <span class="dim"> and {count(others)} more</span> : null}</td>
      <td class="n wide">{ms(it.lag_ms.p50)}</td>
      <td class="n">{ms(it.lag_ms.p99)}</td>
      <td class="n wide" title={clock(Date.parse(it.started_at) - skew.value)}>{duration(now - Date.parse(it.started_at))}</td>
      <td class="wide">{it.version}</td>
      <td class="n wide">{it.here ? 'now' : `${age(Math.max(0, now - Date.parse(it.told_at)))} ago`}</td>
    </tr>
  );
}
