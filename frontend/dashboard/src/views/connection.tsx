// One open connection: its client, its health, its channels and their progress. Changes that happen while the
// page is open are listed below, and the last state stays when the connection ends.
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { ConnectionStory, Entries, OrderView } from '../../../../docs/schema/zonewire';
import { bytes, clock, count, duration, plural, titled, words } from '../format';
import { disconnect, get, Problem } from '../gateway';
import { href } from '../route';
import { may, mine, notify, skew } from '../state';
import { changes, channelInWords, channelOf, type End, HEALTH, isSlow, lagOf, phaseInWords, some, waiting } from '../tell';
import { Dialog } from './dialogs';
import { Pages } from './pager';

const EVERY_MS = 1000;
/** The ends of logs are read only for visible channels, and less often if there are many. */
const endsEvery = (channels: number) => (channels <= 3 ? 1 : 4);
const SIZE = 10;
const SEEN_MAX = 200;

interface Seen { at: number; word: string; text: string }

async function endOf(channel: string): Promise<End | undefined> {
  const { kind, name } = channelOf(channel);
  if (kind === 'zone') {
    const { epoch, last_offset: offset } = await get<Entries>(`api/zones/${encodeURIComponent(name)}/history?limit=1`);
    return epoch === undefined || offset === undefined ? undefined : { epoch, offset };
  }
  if (kind !== 'order') return undefined;
  const { epoch, lastUpdate } = await get<OrderView>(`api/orders/${encodeURIComponent(name)}`);
  const offset = (lastUpdate as { offset?: number } | undefined)?.offset;
  return epoch === undefined || offset === undefined ? undefined : { epoch, offset };
}

export function Connection({ id }: { id: string }) {
  const told = useSignal<{ story: ConnectionStory; at: number } | null>(null);
  const endedAt = useSignal(0);
  const problem = useSignal('');
  const seen = useSignal<readonly Seen[]>([]);
  const ends = useSignal<ReadonlyMap<string, End>>(new Map());
  const page = useSignal(0);
  const shown = useRef<readonly string[]>([]);
  const isToEnd = useSignal(false);

  useEffect(() => {
    let isOver = false;
    let isAsking = false;
    let nth = 0;
    let asked: readonly string[] = [];
    let newest: ReadonlyMap<string, End> = new Map();
    [told.value, endedAt.value, seen.value, ends.value, page.value] = [null, 0, [], new Map(), 0];
    const ask = async () => {
      if (document.hidden || isAsking || endedAt.value > 0) return;
      isAsking = true;
      try {
        // Read before the connection itself, so that entries published in between do not count as lag.
        if (nth % endsEvery(shown.current.length) === 0 || shown.current.some((channel) => !asked.includes(channel))) {
          asked = shown.current;
          const found = await Promise.all(asked.map(async (channel) => [channel, await endOf(channel).catch(() => undefined)] as const));
          newest = new Map(found.filter((it): it is [string, End] => it[1] !== undefined));
        }
        nth += 1;
        const story = await get<ConnectionStory>(`ws/stats/${encodeURIComponent(id)}`);
        if (isOver) return;
        const before = told.value?.story;
        const at = Date.now();
        if (before) {
          const news = changes(before, story).map((it) => ({ at, ...it }));
          if (news.length > 0) seen.value = [...seen.value, ...news].slice(-SEEN_MAX);
        }
        ends.value = newest;
        told.value = { story, at };
        problem.value = '';
      } catch (error) {
        if (isOver) return;
        if (error instanceof Problem && error.status === 404) endedAt.value = Date.now();
        else problem.value = words(error);
      } finally {
        isAsking = false;
      }
    };
    void ask();
    const timer = setInterval(ask, EVERY_MS);
    return () => { isOver = true; clearInterval(timer); };
  }, [id]);

  const it = told.value?.story;
  const hasEnded = endedAt.value > 0;
  const list = it?.subscriptions ?? [];
  const at = Math.min(page.value, Math.max(0, Math.ceil(list.length / SIZE) - 1));
  const part = list.slice(at * SIZE, (at + 1) * SIZE);
  shown.current = part.map(({ channel }) => channel);
  return (
    <>
      <section class={`panel full ${it && isSlow(it) && !hasEnded ? 'promise degraded' : ''}`} aria-labelledby="one">
        <div class="head">
          <h1 id="one">Connection <span class="mono">{id.slice(0, 8)}</span></h1>
          {it && <span class={`chip ${hasEnded || isSlow(it) ? 'late' : ''}`}>{hasEnded ? 'ended' : it.health}</span>}
          {mine.value === id && <span class="chip">this page</span>}
          <span class="spring" />
          {it && !hasEnded && may.value?.admin && <button type="button" class="quiet danger" onClick={() => { isToEnd.value = true; }}>Disconnect…</button>}
          <a href={href('gateway', 'connections')}>All connections</a>
        </div>
        {problem.value !== '' && <p class="fault" role="alert">{problem.value}{told.value ? ` What you see is as of ${clock(told.value.at)}.` : ''}</p>}
        {it ? <Told it={it} at={told.value!.at} endedAt={endedAt.value} /> : <p class="empty">{hasEnded ? <><b>No connection of this id is open here.</b> It has ended, or another gateway has it.</> : problem.value === '' ? 'Reading …' : ''}</p>}
      </section>
      {it && (
        <section class="panel full" aria-labelledby="follows">
          <div class="head"><h2 id="follows">Subscriptions</h2><span class="spring" /><span class="dim small">{plural(list.length, 'channel')}</span></div>
          {list.length === 0 ? <p class="empty">It has subscribed to no channel.</p> : (
            <div class="scroll flat" tabIndex={0} role="region" aria-label="Channels of the connection">
              <table>
                <thead><tr><th scope="col">Channel</th><th scope="col">How far</th><th scope="col" class="n">Sent up to</th><th scope="col" class="n wide">Newest in the log</th><th scope="col" class="wide">Epoch of the log</th></tr></thead>
                <tbody>
                  {part.map((one) => {
                    const { kind, name } = channelOf(one.channel);
                    const end = ends.value.get(one.channel);
                    const lag = lagOf(one, end);
                    return (
                      <tr key={one.channel}>
                        <th scope="row">{kind === 'zone' ? <a href={href('prices', name)}>{name}</a> : kind === 'order' ? <a href={href('orders', name)}>{channelInWords(one.channel)}</a> : one.channel}</th>
                        <td>{lag !== null && lag > 0 && one.phase === 'live' ? <span class="warn">{phaseInWords(one, lag, it.waiting_messages)}</span> : phaseInWords(one, lag, it.waiting_messages)}</td>
                        <td class="n">{one.offset === undefined ? '–' : count(one.offset)}</td>
                        <td class="n wide">{end === undefined ? '–' : one.epoch !== undefined && end.epoch !== one.epoch ? 'in another epoch' : count(Math.max(end.offset, one.offset ?? 0))}</td>
                        <td class="wide mono dim">{one.epoch ?? '–'}</td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
            </div>
          )}
          <Pages page={at} size={SIZE} of={list.length} onPage={(to) => { page.value = to; }} />
        </section>
      )}
      {isToEnd.value && <Disconnect id={id} onClose={() => { isToEnd.value = false; }} />}
      {it && <section class="panel full" aria-labelledby="lived"><Lived it={it} at={told.value!.at} seen={seen.value} endedAt={endedAt.value} /></section>}
    </>
  );
}

/** The question before a connection is closed. */
function Disconnect({ id, onClose }: { id: string; onClose: () => void }) {
  const isAsking = useSignal(false);
  const problem = useSignal('');
  const act = async (comesBack: boolean) => {
    isAsking.value = true;
    problem.value = '';
    try {
      await disconnect(id, comesBack);
      notify(`Connection ${id.slice(0, 8)} is closed${comesBack ? ', and told to come back' : ''}.`);
      onClose();
    } catch (error) {
      problem.value = words(error);
    }
    isAsking.value = false;
  };
  return (
    <Dialog title={`Close connection ${id.slice(0, 8)}?`} onClose={onClose} isQuestion>
      <p>Told to reconnect, its client comes back within a few seconds, here or at another gateway, and misses nothing. Ended, it does not come back by itself; what its token allows stays as it is.</p>
      {problem.value !== '' && <p class="fault" role="alert">{problem.value}</p>}
      <div class="actions"><button type="button" class="quiet" onClick={onClose}>Leave it</button><button type="button" disabled={isAsking.value} onClick={() => void act(true)}>Have it reconnect</button><button type="button" class="primary bad" disabled={isAsking.value} onClick={() => void act(false)}>End it</button></div>
    </Dialog>
  );
}

/** The main sentence, the numbers, and the client. */
function Told({ it, at, endedAt }: { it: ConnectionStory; at: number; endedAt: number }) {
  const isStream = it.transport === 'events';
  const opened = Date.parse(it.connected_at) - skew.value;
  const who: [string, preact.ComponentChildren][] = [
    ['Client', it.subject ?? (it.rights === undefined ? 'no login is required' : 'has presented no token')],
    ['From', it.source ?? 'the proxy before the gateway does not say'],
    ['By', isStream ? 'a stream of events' : it.transport === 'websocket' ? 'a WebSocket' : it.transport],
  ];
  if (it.opened_on !== undefined) who.push(['Opened for', channelInWords(it.opened_on)]);
  if (it.token_expires_at !== undefined) who.push(['Token until', clock(Date.parse(it.token_expires_at) - skew.value)]);
  if (it.rights !== undefined) who.push(['Rights', it.rights.length === 0 ? 'none' : it.rights.join(', ')]);
  who.push(['Node', <span class="mono">{it.node.slice(0, 8)}</span>], ['Id', <span class="mono">{it.connection_id}</span>]);
  return (
    <>
      <p class="verdict">
        {endedAt > 0 ? <><b class="ended">It has ended</b>, or another gateway has it: not open here since {clock(endedAt)}. What you see is as of {clock(at)}.</> : <><b class={isSlow(it) ? 'degraded' : ''}>{HEALTH[it.health] ?? titled(it.health)}</b>{it.closing !== undefined ? ` (${it.closing})` : ''}; {waiting(it)}.{it.waited_for ? ' Channels wait until it has taken what was sent.' : ''}</>}
      </p>
      <dl class="facts four">
        <div><dt>Open for</dt><dd>{duration((endedAt > 0 ? endedAt : at) - opened)}</dd><dd class="dim">since {clock(opened)}</dd></div>
        <div><dt>{isStream ? 'Took something' : 'Heard from'}</dt><dd class={it.health === 'silent' ? 'warn' : ''}>{it.last_heard_s_ago === 0 ? 'now' : `${duration(it.last_heard_s_ago * 1000)} ago`}</dd><dd class="dim">{isStream ? 'of what waits for it' : 'heartbeats count too'}</dd></div>
        <div><dt>It has sent</dt><dd>{count(it.messages_received)}</dd><dd class="dim">{isStream ? 'a stream sends nothing' : it.messages_received === 1 ? 'message' : 'messages'}</dd></div>
        <div><dt>Waits for it</dt><dd class={it.waiting_messages > 0 ? 'warn' : ''}>{count(it.waiting_messages)}</dd><dd class="dim">{it.waiting_messages === 1 ? 'message' : 'messages'}{it.waiting_messages === 0 ? '' : `, ${bytes(it.waiting_bytes)}`}</dd></div>
      </dl>
      <dl class="parts who">{who.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
    </>
  );
}

function Lived({ it, at, seen, endedAt }: { it: ConnectionStory; at: number; seen: readonly Seen[]; endedAt: number }) {
  const page = useSignal(0);
  const ROWS = 10;
  const list: (Seen & { tone?: string })[] = [
    { at: Date.parse(it.connected_at) - skew.value, word: 'opened', text: `${it.source === undefined ? '' : `From ${it.source}, by `}${it.source === undefined ? 'By ' : ''}${it.transport === 'events' ? 'a stream of events' : 'a WebSocket'}${it.opened_on === undefined ? '' : `, for ${channelInWords(it.opened_on)}`}.` },
    ...seen,
    endedAt > 0 ? { at: endedAt, word: 'ended', text: 'It is not open here any more.', tone: 'lost' } : { at, word: 'now', text: `It follows ${it.channels.length === 0 ? 'nothing' : some(it.channels)}; ${waiting(it)}.` },
  ];
  const rows = list.map((one) => ({ ...one, tone: one.tone ?? (['behind', 'silent', 'closing', 'waited for', 'catches up'].includes(one.word) ? 'late' : '') })).reverse();
  const first = Math.min(page.value, Math.ceil(rows.length / ROWS) - 1) * ROWS;
  return (
    <>
      <div class="head"><h2 id="lived">What has happened to it</h2><span class="spring" /><span class="dim small">between these, as this page saw it</span></div>
      <ol class="happenings">{rows.slice(first, first + ROWS).map((one, i) => <li key={`${one.at} ${one.word} ${i}`} class={one.tone}><time>{clock(one.at)}</time><b>{one.word}</b><span>{one.text}</span></li>)}</ol>
      <Pages page={first / ROWS} size={ROWS} of={rows.length} onPage={(to) => { page.value = to; }} />
    </>
  );
}
