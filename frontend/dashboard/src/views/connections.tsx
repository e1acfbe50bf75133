// Whom the gateway serves: by zone, by how long, and one by one as far as it tells.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { bytes, clock, count, duration, plural, words } from '../format';
import { href, replace, route } from '../route';
import { skew } from '../state';
import { connections, type Connection, type Stats } from '../stats';
import { Pages } from './pager';

/** So many are asked for at once; all of them, where somebody says so. */
const SOME = 500;
const ALL = 10_000;
const AGAIN_MS = 5000;
const SIZE = 15;
const SLOW = new Set(['behind', 'silent', 'closing']);

export function Connections({ stats }: { stats: Stats }) {
  return (
    <>
      <Zones by={stats.connections.by_zone} />
      <Durations stats={stats} />
      <OneByOne open={stats.connections.open} />
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
          <tbody>{list.slice(at * SHOWN, (at + 1) * SHOWN).map(([zone, value]) => <tr key={zone}><th scope="row"><a href={href('prices', zone)}>{zone}</a></th><td class="n">{count(value)}</td><td class="bars"><Bar part={value / most} /></td></tr>)}</tbody>
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

function OneByOne({ open }: { open: number }) {
  const wanted = route.value.query.get('id') ?? '';
  const isSlow = route.value.query.get('show') !== 'all';
  const limit = useSignal(SOME);
  const page = useSignal(0);
  const read = useSignal<{ list: Connection[]; at: number } | null>(null);
  const problem = useSignal('');
  useEffect(() => {
    let isOver = false;
    const ask = async () => {
      if (document.hidden) return;
      try {
        const it = await connections(limit.value);
        if (!isOver) read.value = it;
        problem.value = '';
      } catch (error) {
        problem.value = words(error);
      }
    };
    void ask();
    // All of them are asked for once, when somebody says so.
    const timer = limit.value === SOME ? setInterval(ask, AGAIN_MS) : null;
    return () => { isOver = true; if (timer !== null) clearInterval(timer); };
  }, [limit.value]);
  const list = read.value?.list ?? [];
  const slow = list.filter((it) => SLOW.has(it.health)).sort((a, b) => b.waiting_bytes - a.waiting_bytes);
  const found = list.filter((it) => wanted !== '' && it.connection_id.startsWith(wanted.toLowerCase()));
  const shown = wanted !== '' ? found : isSlow ? slow : list;
  const at = Math.min(page.value, Math.max(0, Math.ceil(shown.length / SIZE) - 1));
  const to = (changes: Record<string, string | undefined>) => { page.value = 0; replace(href('gateway', 'connections', { id: wanted, show: isSlow ? undefined : 'all', ...changes })); };
  const isPart = open > list.length && list.length >= limit.value;
  return (
    <section class="panel full" aria-labelledby="each">
      <div class="head">
        <h2 id="each">One by one</h2>
        <div class="seg" role="group" aria-label="Which connections">
          <button type="button" aria-pressed={isSlow} onClick={() => to({ show: undefined })}>Slow or silent ({count(slow.length)})</button>
          <button type="button" aria-pressed={!isSlow} onClick={() => to({ show: 'all' })}>All</button>
        </div>
        <span class="spring" />
        <input type="search" data-filter class="filter" placeholder="Connection id" aria-label="Look for a connection by its id" value={wanted} onInput={(event) => to({ id: event.currentTarget.value.trim() })} />
      </div>
      {problem.value !== '' && <p class="fault" role="alert">{problem.value}</p>}
      {shown.length === 0 ? <p class="empty">{read.value === null ? 'Reading …' : wanted !== '' ? `No connection${isPart ? ' among those that were read' : ''} has an id that begins so.` : isSlow ? 'Everybody reads as fast as is written.' : 'Nobody is connected.'}</p> : (
        <div class="scroll flat" tabIndex={0} role="region" aria-label="Connections">
          <table>
            <thead><tr><th scope="col">Connection</th><th scope="col">How it does</th><th scope="col" class="wide">Follows</th><th scope="col" class="n">Open for</th><th scope="col" class="n">Heard</th><th scope="col" class="n wide">Sent us</th><th scope="col" class="n">Waits for it</th></tr></thead>
            <tbody>
              {shown.slice(at * SIZE, (at + 1) * SIZE).map((it) => (
                <tr key={it.connection_id}>
                  <th scope="row"><a class="mono" href={href('gateway', 'connections', { id: it.connection_id })}>{it.connection_id.slice(0, 8)}</a></th>
                  <td>{SLOW.has(it.health) ? <span class="chip late">{it.health}</span> : it.health}</td>
                  <td class="wide what">{it.channels.length === 0 ? 'nothing' : it.channels.slice(0, 4).map((name) => name.replace(/^zone:/, '')).join(', ')}{it.channels.length > 4 ? ` and ${count(it.channels.length - 4)} more` : ''}</td>
                  <td class="n">{duration(it.connected_s * 1000)}</td>
                  <td class="n">{duration(it.last_heard_s_ago * 1000)} ago</td>
                  <td class="n wide">{plural(it.messages_received, 'message')}</td>
                  <td class="n">{it.waiting_messages === 0 ? '–' : `${count(it.waiting_messages)}, ${bytes(it.waiting_bytes)}`}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {wanted !== '' && found.length === 1 && <Told it={found[0]!} at={read.value!.at} />}
      <Pages page={at} size={SIZE} of={shown.length} onPage={(next) => { page.value = next; }} />
      <p class="foot"><span>{isPart ? `Of the ${count(list.length)} that were read; ${count(open)} are open.` : `${plural(list.length, 'connection is', 'connections are')} open.`}{limit.value !== SOME && read.value ? ` As of ${clock(read.value.at - skew.value)}.` : ''}</span>{isPart && limit.value === SOME ? <button type="button" class="link" onClick={() => { limit.value = ALL; }}>Read up to {count(ALL)}, once</button> : limit.value !== SOME ? <button type="button" class="link" onClick={() => { limit.value = SOME; }}>Go on with {count(SOME)}</button> : null}</p>
    </section>
  );
}

/** What the gateway tells of one connection. */
function Told({ it, at }: { it: Connection; at: number }) {
  const opened = at - it.connected_s * 1000 - skew.value;
  return (
    <ol class="happenings">
      <li><time>{clock(opened)}</time><b>opened</b><span class="mono">{it.connection_id}</span></li>
      <li><time>{clock(at - it.last_heard_s_ago * 1000 - skew.value)}</time><b>heard from</b><span>{plural(it.messages_received, 'message')} in all</span></li>
      <li class={SLOW.has(it.health) ? 'degraded' : ''}><time>{clock(at - skew.value)}</time><b>{it.health}</b><span>{it.waiting_messages === 0 ? 'nothing waits for it' : `${plural(it.waiting_messages, 'message waits', 'messages wait')} for it, ${bytes(it.waiting_bytes)}`}; follows {it.channels.join(', ') || 'nothing'}</span></li>
    </ol>
  );
}
