// Orders that failed every attempt, and the way to retry them: one by one, with a question if that may do harm.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { DeadLetter } from '../../../../docs/schema/zonewire';
import { clock, plural, words } from '../format';
import { Problem } from '../gateway';
import { deadLetters, inWords, type Page, retry } from '../orders';
import { go, href } from '../route';
import { link, notify } from '../state';
import { Dialog } from './dialogs';
import { Pager } from './pager';

const AGAIN_MS = 5000;

export function DeadLetters() {
  const page = useSignal<Page<DeadLetter> | null>(null);
  const problem = useSignal('');
  const trail = useSignal<string[]>([]);
  const asked = useSignal<DeadLetter | null>(null);
  const isBusy = useSignal('');
  const after = trail.value.at(-1) ?? '';
  const isLive = link.value.phase === 'live';
  const read = async () => {
    if (document.hidden) return;
    try {
      page.value = await deadLetters(after);
      problem.value = '';
    } catch (error) {
      problem.value = words(error);
    }
  };
  useEffect(() => {
    if (!isLive) return undefined;
    void read();
    const timer = setInterval(read, AGAIN_MS);
    return () => clearInterval(timer);
  }, [after, isLive]);

  const again = async (letter: DeadLetter, isForced: boolean) => {
    isBusy.value = letter.orderId;
    try {
      const placed = await retry(letter.orderId, isForced);
      notify(`Placed again as order ${placed.orderId.slice(0, 8)}.`);
      asked.value = null;
      go(href('orders', placed.orderId));
    } catch (error) {
      if (error instanceof Problem && error.code === 'may_be_submitted') asked.value = letter;
      else notify(words(error), true);
    }
    isBusy.value = '';
    void read();
  };
  const ask = (letter: DeadLetter) => {
    if (letter.submitted) asked.value = letter;
    else void again(letter, false);
  };

  const shown = page.value;
  return (
    <section class="panel full" aria-labelledby="dead">
      <div class="head"><h1 id="dead">Dead letters</h1><span class="spring" />{shown?.degraded && <span class="chip late">Only those that this gateway knows</span>}</div>
      <p class="dim">Orders that ended because every try failed. Placing one again makes a new order; the old one stays ended.</p>
      {problem.value !== '' && <p class="fault" role="alert">{problem.value}</p>}
      {shown === null ? <p class="empty">{problem.value === '' ? 'Reading …' : ''}</p> : shown.items.length === 0 ? <p class="empty"><b>None.</b> Every order that was tried ended otherwise.</p> : (
        <div class="scroll flat" tabIndex={0} role="region" aria-label="List of dead letters">
          <table>
            <thead><tr><th scope="col">Order</th><th scope="col">What</th><th scope="col">Why</th><th scope="col" class="n wide">Runs</th><th scope="col" class="n wide">Given up</th><th scope="col"><span class="sr">Actions</span></th></tr></thead>
            <tbody>
              {shown.items.map((it) => (
                <tr key={it.orderId}>
                  <th scope="row"><a class="mono" href={href('orders', it.orderId)}>{it.orderId.slice(0, 8)}</a></th>
                  <td class="what">{inWords(it.order)}</td>
                  <td class="what">{it.error}{it.submitted && <span class="chip late">may have been executed</span>}</td>
                  <td class="n wide">{it.runs}</td>
                  <td class="n wide">{clock(Date.parse(it.failedAt))}</td>
                  <td class="act"><button type="button" class="quiet danger" disabled={isBusy.value === it.orderId} onClick={() => ask(it)}>Place again{it.submitted ? '…' : ''}</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Pager hasBefore={trail.value.length > 0} next={shown?.next ?? null} page={trail.value.length + 1} onFirst={() => { trail.value = []; }} onBefore={() => { trail.value = trail.value.slice(0, -1); }} onNext={(next) => { trail.value = [...trail.value, next]; }} />
      {asked.value && (
        <Dialog title="It may have been executed already" isQuestion onClose={() => { asked.value = null; }}>
          <p>{inWords(asked.value.order)}, taken up {plural(asked.value.runs, 'time')}: the order was submitted before it was given up. Find out first what became of it. Placing it again may execute it twice.</p>
          <div class="actions"><button type="button" class="quiet" onClick={() => { asked.value = null; }}>Leave it</button><button type="button" class="primary bad" disabled={isBusy.value !== ''} onClick={() => asked.value && void again(asked.value, true)}>Place it anyway</button></div>
        </Dialog>
      )}
    </section>
  );
}
