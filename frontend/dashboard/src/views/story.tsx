// The story of an order: the stages as a bar, and each update as a line.
import { useSignal } from '@preact/signals';
import { clock, plural, titled, words } from '../format';
import { cancel, ENDS, STAGES, type Story, type Update } from '../orders';
import { notify } from '../state';
import { href } from '../route';
import './story.css';

export function StoryView({ story, isShort }: { story: Story; isShort: boolean }) {
  const isAsking = useSignal(false);
  const { orderId, updates, status } = story;
  const newest = updates.find((it) => ENDS.has(it.type)) ?? updates.at(-1);
  const hasFailed = status === 'failed';
  const reached = hasFailed ? furthest(updates) : STAGES.indexOf(status as (typeof STAGES)[number]);
  const progress = hasFailed ? (updates.filter((it) => it.type !== 'failed').at(-1)?.progress ?? 0) : (newest?.progress ?? 0);
  const isOver = ENDS.has(status);
  const canCancel = !isOver && reached < STAGES.indexOf('submitted');
  const stop = async () => {
    isAsking.value = true;
    try {
      await cancel(orderId);
      notify('The order is cancelled: it ends as failed, and was not submitted.');
    } catch (error) {
      notify(words(error), true);
    }
    isAsking.value = false;
  };
  return (
    <div class={`story ${status}`}>
      <div class="line">
        {isShort && <a href={href('orders', orderId)} class="mono">{orderId.slice(0, 8)}</a>}
        <b class={hasFailed ? 'down' : status === 'confirmed' ? 'up' : ''}>{titled(status)}</b>
        <span class="dim">{newest?.attempt !== undefined ? `attempt ${newest.attempt} of ${newest.maxAttempts ?? '?'}` : ''}</span>
        <span class="spring" />
        {canCancel && <button type="button" class="quiet" disabled={isAsking.value} onClick={stop}>Cancel order</button>}
      </div>
      <ol class="stages">
        {STAGES.map((stage, i) => {
          const at = updates.filter((it) => it.type === stage).at(-1);
          const state = hasFailed && i === reached ? 'broke' : i < reached || status === 'confirmed' ? 'done' : i === reached ? 'now' : '';
          return <li key={stage} class={state} aria-current={state === 'now' ? 'step' : undefined}><span>{titled(stage)}</span><small>{state === 'broke' ? 'ended here' : at ? short(at) : ' '}</small></li>;
        })}
      </ol>
      <div class={`meter ${status}`} role="progressbar" aria-label="Progress of the order" aria-valuenow={progress} aria-valuemin={0} aria-valuemax={100} ref={(bar) => { (bar?.firstElementChild as HTMLElement | null)?.style.setProperty('width', `${progress}%`); }}><i /></div>
      {hasFailed && newest && <p class="fault">{newest.error ? `${newest.error.message} (${newest.error.code})` : newest.message}. {newest.deadLetter !== undefined ? <a href={href('gateway', 'dead-letters')}>It can be placed again.</a> : null}</p>}
      {isShort && !hasFailed && <p class="dim small">{newest?.message ?? 'In the queue, waiting for a worker.'}{newest?.late === true ? ' (came late)' : ''}</p>}
      {story.problem !== '' && <p class="fault">{story.problem}</p>}
      {!isShort && <Updates story={story} />}
    </div>
  );
}

function Updates({ story }: { story: Story }) {
  return (
    <>
      {story.gap > 0 && <p class="dim">{plural(story.gap, 'earlier update is', 'earlier updates are')} no longer kept.</p>}
      <div class="scroll flat" tabIndex={0} role="region" aria-label="Updates">
        <table>
          <thead><tr><th scope="col">Time</th><th scope="col">Stage</th><th scope="col" class="n">%</th><th scope="col">What</th><th scope="col" class="n wide">Attempt</th><th scope="col" class="wide">By</th></tr></thead>
          <tbody>
            {story.updates.map((it) => (
              <tr key={it.id ?? `${it.offset}`}>
                <td class="mono">{clock(Date.parse(it.timestamp))}</td>
                <th scope="row">{titled(it.type)}{it.late === true && <span class="chip late">late</span>}{it.missedBefore === true && <span class="chip late">some before are missing</span>}</th>
                <td class="n">{it.progress ?? '–'}</td>
                <td class="what">{it.message}{it.error ? ` ${it.error.message} (${it.error.code})` : ''}{typeof it.txHash === 'string' ? <span class="mono dim"> {it.txHash.slice(0, 12)}…</span> : null}</td>
                <td class="n wide">{it.attempt ?? '–'}{it.maxAttempts ? ` of ${it.maxAttempts}` : ''}</td>
                <td class="wide">{it.executor === 'paper' ? <span class="chip sim" title="The built-in worker trades on paper">simulated</span> : (it.executor ?? '–')}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function furthest(updates: Update[]): number {
  return Math.max(0, ...updates.map((it) => STAGES.indexOf(it.type as (typeof STAGES)[number])));
}

function short(update: Update): string {
  if (update.type === 'routing') return typeof update.chosenDex === 'string' ? `${update.quotesFetched as number} quotes, ${update.chosenDex}` : clock(Date.parse(update.timestamp));
  return clock(Date.parse(update.timestamp));
}
