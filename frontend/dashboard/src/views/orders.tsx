// Orders: the list in pages, and the story of one.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { OrderView } from '../../../../docs/schema/zonewire';
import { age, clock, titled, words } from '../format';
import { follow, inWords, list, one, type Page } from '../orders';
import { go, href, route } from '../route';
import { link, second } from '../state';
import { Pager } from './pager';
import { StoryView } from './story';
import { Ticket } from './ticket';
import './orders.css';

const STATUSES = ['', 'pending', 'routing', 'building', 'submitted', 'confirmed', 'failed'];
/** How often the first page is read again while it is shown. */
const AGAIN_MS = 3000;

export function Orders() {
  const { rest } = route.value;
  return (
    <main class="orders" id="main">
      <List selected={rest} />
      <div class="side">
        {rest !== '' && <One key={rest} orderId={rest} />}
        <Ticket hub="" />
      </div>
    </main>
  );
}

function List({ selected }: { selected: string }) {
  const status = route.value.query.get('status') ?? '';
  const page = useSignal<Page<OrderView> | null>(null);
  const problem = useSignal('');
  /** The cursors of the previous pages. */
  const trail = useSignal<string[]>([]);
  const after = trail.value.at(-1) ?? '';
  const isLive = link.value.phase === 'live';

  useEffect(() => {
    let isOver = false;
    const read = async () => {
      if (document.hidden || !isLive) return;
      try {
        const read = await list(status, after);
        if (isOver) return;
        page.value = read;
        problem.value = '';
      } catch (error) {
        if (!isOver) problem.value = words(error);
      }
    };
    void read();
    const timer = setInterval(read, AGAIN_MS);
    return () => { isOver = true; clearInterval(timer); };
  }, [status, after, isLive]);

  const shown = page.value;
  const now = second.value;
  return (
    <section class="panel listpanel" aria-labelledby="orders">
      <div class="head">
        <h1 id="orders">Orders</h1>
        {shown?.degraded && <span class="chip late">Only those that this gateway knows</span>}
        <span class="spring" />
        <label class="inline">Status <select value={status} onChange={(event) => { trail.value = []; page.value = null; go(href('orders', selected, { status: event.currentTarget.value })); }}>{STATUSES.map((it) => <option key={it} value={it}>{it === '' ? 'all' : it}</option>)}</select></label>
      </div>
      {problem.value !== '' && <p class="fault" role="alert">{problem.value}</p>}
      {shown === null ? <p class="empty">{problem.value === '' ? 'Reading orders …' : ''}</p> : shown.items.length === 0 && trail.value.length === 0 ? (
        <p class="empty"><b>{status === '' ? 'No orders yet.' : `No order is ${status}.`}</b> {status === '' ? 'Place one in the ticket; its steps appear here.' : ''}</p>
      ) : (
        <div class="scroll flat" tabIndex={0} role="region" aria-label="List of orders">
          <table>
            <thead><tr><th scope="col">Order</th><th scope="col">What</th><th scope="col">Status</th><th scope="col" class="n wide">Attempt</th><th scope="col" class="n">Last step</th></tr></thead>
            <tbody>
              {shown.items.map((it) => (
                <tr key={it.orderId} class={it.orderId === selected ? 'sel' : ''}>
                  <th scope="row"><a href={href('orders', it.orderId, { status })} class="mono" aria-current={it.orderId === selected ? 'true' : undefined}>{it.orderId.slice(0, 8)}</a></th>
                  <td class="what">{inWords(it.order)}</td>
                  <td><Status status={it.status} progress={it.progress} /></td>
                  <td class="n wide">{it.attempt} of {it.maxAttempts}</td>
                  <td class="n" title={it.updatedAt ?? it.createdAt}>{it.updatedAt ?? it.createdAt ? `${age(Math.max(0, now - Date.parse((it.updatedAt ?? it.createdAt)!)))} ago` : '–'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Pager hasBefore={trail.value.length > 0} next={shown?.next ?? null} onFirst={() => { trail.value = []; }} onBefore={() => { trail.value = trail.value.slice(0, -1); }} onNext={(next) => { trail.value = [...trail.value, next]; }} page={trail.value.length + 1} />
    </section>
  );
}

export function Status({ status, progress }: { status: string; progress: number }) {
  const tone = status === 'failed' ? 'down' : status === 'confirmed' ? 'up' : '';
  const sign = status === 'failed' ? '✕ ' : status === 'confirmed' ? '✓ ' : '';
  return <span class={`status ${tone}`}>{sign}{titled(status)}{tone === '' && status !== 'pending' ? <span class="dim"> {progress} %</span> : null}</span>;
}

function One({ orderId }: { orderId: string }) {
  const followed = useSignal<ReturnType<typeof follow> | null>(null);
  const seen = useSignal<OrderView | null>(null);
  const problem = useSignal('');
  useEffect(() => {
    const it = follow(orderId);
    followed.value = it;
    one(orderId).then((view) => { seen.value = view; }, (error: unknown) => { problem.value = words(error); });
    return () => it.stop();
  }, [orderId]);
  const story = followed.value?.story.value;
  const view = seen.value;
  return (
    <section class="panel" aria-labelledby="one">
      <div class="head"><h2 id="one">Order <span class="mono">{orderId.slice(0, 8)}</span></h2><span class="spring" /><a class="quiet" href={href('orders')}>Close</a></div>
      {view && <dl class="parts wrap">
        {Object.entries(view.order ?? {}).filter(([name]) => name !== 'metadata').map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{typeof value === 'object' ? JSON.stringify(value) : String(value)}</dd></div>)}
        {view.createdAt && <div><dt>placed</dt><dd>{clock(Date.parse(view.createdAt))}</dd></div>}
      </dl>}
      {problem.value !== '' && <p class="fault">{problem.value}</p>}
      {story && (story.updates.length > 0 || view) && <StoryView story={story} isShort={false} />}
      <p class="dim small mono">{orderId}</p>
    </section>
  );
}
