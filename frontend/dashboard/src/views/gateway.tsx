// For operators: the promise first, then what the gateway does, then its connections.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { bytes, clock, count, duration, plural, short } from '../format';
import { href, route } from '../route';
import { happenings, second, skew, type Happening } from '../state';
import { lost, refusals, seconds, stats, statsProblem, watchStats, type Second, type Stats } from '../stats';
import { spellInWords } from '../tell';
import { Connection } from './connection';
import { Connections } from './connections';
import { DeadLetters } from './dead-letters';
import { Nodes } from './nodes';
import { Pages } from './pager';
import { Rate } from './rate';
import { Settings } from './settings';
import './gateway.css';

const PARTS: [string, string][] = [['', 'Overview'], ['nodes', 'Nodes'], ['connections', 'Connections'], ['dead-letters', 'Dead letters'], ['settings', 'Settings']];

export function Gateway() {
  const { rest } = route.value;
  const [part = '', one = ''] = rest.split('/');
  useEffect(watchStats, []);
  const it = stats.value;
  const dead = it?.orders.jobs?.dead ?? 0;
  return (
    <main class="op" id="main">
      <div class="full sub">
        <nav class="seg" aria-label="Of the gateway">
          {PARTS.map(([name, title]) => <a key={name} href={href('gateway', name)} aria-current={part === name ? (one === '' ? 'page' : 'true') : undefined}>{title}{name === 'dead-letters' && dead > 0 ? <span class="badge">{count(dead)}</span> : null}</a>)}
        </nav>
        <span class="spring" />
        {it && <span class="dim small">node <span class="mono">{it.node.slice(0, 8)}</span>, version {it.version}, up {duration(it.uptime_s * 1000)}</span>}
      </div>
      {statsProblem.value !== '' && <p class="fault full" role="alert">{statsProblem.value}{it ? ` What you see is as of ${clock(Date.parse(it.timestamp) - skew.value)}.` : ''}</p>}
      {part === 'dead-letters' ? <DeadLetters /> : part === 'settings' ? <Settings /> : part === 'nodes' ? <Nodes /> : part === 'connections' && one !== '' ? <Connection key={one} id={one} /> : !it ? <section class="panel full"><h1>Gateway</h1><p class="empty">{statsProblem.value === '' ? 'Reading statistics …' : ''}</p></section> : part === 'connections' ? <Connections stats={it} /> : <Overview it={it} />}
    </main>
  );
}

function Overview({ it }: { it: Stats }) {
  const last = seconds.value.at(-1);
  const { connections, messages, outage, memory } = it;
  const refused = refusals(it);
  const dropped = messages.dropped_by_reason.slow_consumer ?? 0;
  const cut = connections.closed_by_reason.slow_consumer ?? 0;
  return (
    <>
      <Promise it={it} />
      <Figure title="Connections" value={count(connections.open)} under={`${count(connections.total)} since the start, ${count(sum(connections.refused_by_limit))} refused`} />
      <Figure title="Messages sent" value={last ? `${short(last.sent)}/s` : '–'} under={`${short(messages.sent)} in all, ${short(messages.received)} received`} />
      <Figure title="Slow readers" value={count(cut)} under={`cut off since the start; ${short(messages.conflated)} prices thinned, ${count(dropped)} unsent`} tone={cut > 0 ? 'warn' : ''} />
      <Figure title="Errors" value={`${messages.error_rate_percent.toFixed(2)} %`} under={`${plural(messages.errors, 'message')} answered with an error`} tone={messages.error_rate_percent >= 1 ? 'warn' : ''} />
      <section class="panel full" aria-labelledby="rates">
        <div class="head"><h2 id="rates">Rates</h2><span class="spring" /><span class="dim small">the last 10 minutes that this page was looked at</span></div>
        <div class="rates">
          <Rate title="Messages sent a second" of={(at: Second) => at.sent} />
          <Rate title="Prices and updates accepted a second" of={(at: Second) => at.accepted} />
          <Rate title="Errors a second" of={(at: Second) => at.errors} tone="bad" />
          <Rate title="Refusals a second" of={(at: Second) => at.refused} tone="bad" />
        </div>
      </section>
      <section class="panel wide2" aria-labelledby="happened"><Happenings it={it} /></section>
      <section class="panel wide2" aria-labelledby="counts">
        <div class="head"><h2 id="counts">Worth a look</h2><span class="spring" /><span class="dim small">since the start</span></div>
        <Counts rows={[
          ['Requests refused', refused - sum(connections.refused_by_limit), it.http.requests_refused_by_reason],
          ['Connections refused', sum(connections.refused_by_limit), connections.refused_by_limit],
          ['Errors told to clients', messages.errors, messages.errors_by_code],
          ['Connections closed', connections.total_disconnections, connections.closed_by_reason],
          ['Times that clients were told of a gap', messages.gaps_told, {}],
          ['Orders that failed', it.orders.failed, {}],
          ['Entries that this build cannot show', sum(it.channels.entries_skipped_by_reason), it.channels.entries_skipped_by_reason],
        ]} />
        <p class="foot"><span>Memory of logs: {bytes(memory.bytes)} of {bytes(memory.bytes_max)}{memory.evicted_entries > 0 ? `; ${plural(memory.evicted_entries, 'entry', 'entries')} went for want of room` : ''}</span></p>
        <p class="foot"><span>Orders: {it.orders.jobs ? `${count(it.orders.jobs.waiting + it.orders.jobs.delayed)} wait, ${count(it.orders.jobs.claimed)} are executed` : 'the storage does not say'}, by {it.orders.executor}{it.orders.executor === 'paper' ? ' (simulated)' : ''}</span></p>
      </section>
      {outage.channels_set_aside! > 0 && <p class="fault full">{plural(outage.channels_set_aside!, 'channel')} cannot be reconciled with Redis, and {outage.channels_set_aside === 1 ? 'goes' : 'go'} on without it: <a href="health">health says which and why</a>.</p>}
    </>
  );
}

const STATES: [string, string][] = [['healthy', 'h'], ['degraded', 'd'], ['recovering', 'r']];

/** Whether nothing accepted was lost. */
function Promise({ it }: { it: Stats }) {
  const now = second.value + skew.value;
  const { outage } = it;
  const losses = lost(it);
  const gone = losses.reduce((all, [, value]) => all + value, 0);
  const waits = outage.journal_entries ?? 0;
  const isOnDisk = it.memory.disk !== 'off';
  const isRedis = it.storage_backend === 'redis' || it.state !== 'healthy';
  const spent = outage.seconds_in_state;
  const since = Date.parse(it.since);
  const says: Record<string, string> = {
    healthy: isRedis ? 'Redis has everything.' : `No Redis is used: everything is in the memory of this process, ${isOnDisk ? 'and on its disk' : 'and ends with it'}.`,
    degraded: it.reason_code === 'disk' ? 'The disk accepts no writes: what is published is refused, and what is stored can be read.' : it.scope === 'some' ? `A part of Redis is away (${it.primaries_away} of ${it.primaries} primaries); its zones and orders go on from memory.` : 'Redis is away; this gateway goes on from memory.',
    recovering: 'Redis is back; what it missed is being reconciled.',
  };
  return (
    <section class={`panel full promise ${it.state}`} aria-labelledby="promise">
      <div class="head"><h1 id="promise">Nothing accepted is lost</h1><span class="spring" /><span class={`chip ${gone > 0 ? 'late' : ''}`}>{gone === 0 ? '0 lost' : `${count(gone)} lost`}</span></div>
      <p class="verdict"><b class={it.state}>{it.state[0]!.toUpperCase() + it.state.slice(1)}</b> for {duration(now - since)}, since {clock(since - skew.value)}. {says[it.state] ?? ''}{it.reason !== null && it.state !== 'healthy' ? <span class="dim"> Why: {it.reason}, code {it.reason_code}.</span> : null}</p>
      <Timeline it={it} />
      <dl class="facts">
        <div><dt>Waiting for Redis</dt><dd>{count(waits)}</dd><dd class="dim">{waits > 0 ? `${bytes(outage.journal_bytes ?? 0)} in the journal` : 'the journal is empty'}</dd></div>
        <div><dt>The oldest waits</dt><dd>{outage.journal_oldest_ms === undefined ? '–' : duration(outage.journal_oldest_ms)}</dd><dd class="dim">{outage.spool !== 'off' ? `spool ${outage.spool}${outage.spool_reason ? `: ${outage.spool_reason}` : ''}` : outage.journal_in_memory_only > 0 ? `${count(outage.journal_in_memory_only)} only in memory` : 'of what Redis has not yet'}</dd></div>
        <div><dt>Told late</dt><dd>{count(outage.replayed ?? 0)}</dd><dd class="dim">sent to Redis when it was back</dd></div>
        <div><dt>Refused</dt><dd class={outage.journal_refused_full ? 'warn' : ''}>{count(outage.journal_refused_full ?? 0)}</dd><dd class="dim">not accepted, the journal was full</dd></div>
        <div><dt>Lost</dt><dd class={gone > 0 ? 'warn' : ''}>{count(gone)}</dd><dd class="dim">{gone === 0 ? `${count(outage.journal_thinned ?? 0)} thinned to newer prices` : losses.filter(([, value]) => value > 0).map(([why, value]) => `${count(value)} ${why}`).join(', ')}</dd></div>
      </dl>
      <p class="legend">{STATES.map(([state, name]) => <span key={state}><i class={name} aria-hidden="true" />{state[0]!.toUpperCase() + state.slice(1)} {duration((spent[state] ?? 0) * 1000)}</span>)}<span class="spring" /><span>since this gateway started; it changed {plural(outage.switches ?? 0, 'time')}</span></p>
    </section>
  );
}

/** Whether this concerns the page and its data, not the gateway's storage. */
const isOfPage = ({ kind }: Happening) => kind === 'live' || kind === 'lost' || kind === 'gap' || kind === 'late';

/** The states that the gateway remembers, and when this page was disconnected, to scale. */
function Timeline({ it: { storage_history: history } }: { it: Stats }) {
  const now = second.value;
  const states = history?.map(({ state, since, reason }) => ({ kind: state, at: Date.parse(since) - skew.value, why: state === 'healthy' ? '' : reason }));
  const seen = happenings.value.filter((it) => it.kind === 'lost' || it.kind === 'live' || (!states && !isOfPage(it)));
  const list: { kind: string; at: number; why?: string }[] = [...(states ?? []), ...seen].sort((a, b) => a.at - b.at);
  const from = Math.max(list[0]?.at ?? now, now - 3_600_000);
  const span = Math.max(60_000, now - from);
  const parts: { kind: string; begin: number; end: number; why: string }[] = [];
  let [state, isLost, kind, begin, why, because] = ['healthy', false, '', from, '', ''];
  for (const it of list) {
    if (it.kind === 'lost' || it.kind === 'live') isLost = it.kind === 'lost';
    else [state, because] = [it.kind, it.why ?? ''];
    const next = isLost ? 'lost' : state;
    if (next === kind) continue;
    if (kind !== '' && it.at > begin) parts.push({ kind, begin, end: it.at, why });
    [kind, begin, why] = [next, it.at, isLost ? '' : because];
  }
  if (kind !== '') parts.push({ kind, begin, end: now, why });
  const shown = parts.filter((it) => it.end > from);
  const inWords = (it: (typeof parts)[number]) => `${it.kind === 'lost' ? 'not connected' : it.kind} from ${clock(it.begin)} to ${it.end === now ? 'now' : clock(it.end)}${it.why === '' ? '' : `, ${it.why}`}`;
  const told = shown.filter((it) => it.kind !== 'healthy').map(inWords);
  return (
    <>
      <svg class="timeline" viewBox="0 0 1000 28" preserveAspectRatio="none" role="img" aria-label={`Since ${clock(from)}: ${told.length === 0 ? 'healthy' : told.join('; ')}`}>
        {shown.map((it) => {
          const x = (1000 * Math.max(0, it.begin - (now - span))) / span;
          return <rect key={it.begin} class={it.kind[0]} x={x} y={0} width={Math.max(2, (1000 * (it.end - Math.max(it.begin, now - span))) / span)} height={28}><title>{inWords(it)}</title></rect>;
        })}
      </svg>
      <p class="scale dim"><span>{clock(now - span)}</span><span>{states ? 'as the gateway remembers it' : 'as this page saw it'}</span><span>now</span></p>
    </>
  );
}

const NAMES: Record<string, string> = { live: 'connected', lost: 'disconnected', healthy: 'healthy', degraded: 'degraded', recovering: 'recovering', gap: 'gap', late: 'late' };

/** The gateway's memory of its storage, and what else this page saw. */
function Happenings({ it: { storage_history: history, outage } }: { it: Stats }) {
  const page = useSignal(0);
  const spells = (history ?? []).map((it) => ({ at: Date.parse(it.since) - skew.value, kind: it.state, text: spellInWords(it, outage.journal_entries ?? 0) }));
  const seen = happenings.value.filter((it) => !history || isOfPage(it));
  const list = [...spells, ...seen].sort((a, b) => b.at - a.at);
  const SIZE = 8;
  const at = Math.min(page.value, Math.max(0, Math.ceil(list.length / SIZE) - 1));
  const shown = list.slice(at * SIZE, (at + 1) * SIZE);
  return (
    <>
      <div class="head"><h2 id="happened">What happened</h2><span class="spring" /><span class="dim small">{history ? 'the storage as the gateway remembers it, the rest as this page saw it' : 'as this page saw it'}</span></div>
      {list.length === 0 ? <p class="empty">Nothing yet.</p> : (
        <ol class="happenings">{shown.map((it, i) => <li key={`${it.at} ${i}`} class={it.kind}><time>{clock(it.at)}</time><b>{NAMES[it.kind] ?? it.kind}</b><span>{it.text}</span></li>)}</ol>
      )}
      <Pages page={at} size={SIZE} of={list.length} onPage={(to) => { page.value = to; }} />
    </>
  );
}

const sum = (counts: Record<string, number>) => Object.values(counts).reduce((all, it) => all + it, 0);

function Figure({ title, value, under, tone = '' }: { title: string; value: string; under: string; tone?: string }) {
  return <section class="panel kpi"><h2>{title}</h2><b class={tone}>{value}</b><span>{under}</span></section>;
}

function Counts({ rows }: { rows: [string, number, Record<string, number>][] }) {
  return (
    <table class="counts">
      <thead class="sr"><tr><th scope="col">What</th><th scope="col">How many</th></tr></thead>
      <tbody>
        {rows.map(([title, value, by]) => {
          const most = Object.entries(by).filter(([, it]) => it > 0).sort((a, b) => b[1] - a[1]).slice(0, 3);
          return <tr key={title}><th scope="row">{title}{most.length > 0 && <small class="dim">{most.map(([name, it]) => `${name} ${count(it)}`).join(', ')}</small>}</th><td class="n">{count(value)}</td></tr>;
        })}
      </tbody>
    </table>
  );
}
