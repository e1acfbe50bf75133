// Registries: online providers and active orders, as they change.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { age, clock, count, plural } from '../format';
import { onFrame } from '../frames';
import type { RegistryRecord } from '../records';
import { followRegistry } from '../registry';
import { href, route } from '../route';
import { link, second, skew, storage } from '../state';
import type { Listening } from '../listen';
import { Pages } from './pager';
import './registries.css';

interface Kind { name: string; title: string; one: string; what: string; empty: string; first: string[]; columns: [string, string][] }

const PROVIDERS: Kind = { name: 'providers', title: 'Providers', one: 'provider', what: 'providers', empty: 'No provider is registered.', first: ['status'], columns: [['location', 'Where'], ['rating', 'Rating']] };
const ORDERS: Kind = { name: 'active-orders', title: 'Active orders', one: 'active order', what: 'active orders', empty: 'No order is under way.', first: ['state', 'status'], columns: [['userId', 'User'], ['providerId', 'Provider']] };
const KINDS = [PROVIDERS, ORDERS];

export function Registries() {
  const { rest } = route.value;
  const kind = KINDS.find((it) => it.name === rest) ?? PROVIDERS;
  return (
    <main id="main" class="registries">
      <nav class="seg" aria-label="Registries">{KINDS.map((it) => <a key={it.name} href={href('registries', it.name)} aria-current={it === kind ? 'page' : undefined}>{it.title}</a>)}</nav>
      <Registry key={kind.name} kind={kind} />
    </main>
  );
}

const SIZE = 50;

function Registry({ kind }: { kind: Kind }) {
  const wanted = useSignal('');
  const page = useSignal(0);
  const held = useSignal<ReturnType<typeof followRegistry> | null>(null);
  /** Counts changes, once per frame. */
  const version = useSignal(0);
  useEffect(() => {
    const it = (held.value = followRegistry(kind.name, kind.what));
    const stop = onFrame(() => { version.value = it.records.version; });
    return () => { stop(); it.listening.stop(); };
  }, []);
  version.value;
  const it = held.value;
  const now = second.value + skew.value;
  const all = it?.records.list() ?? [];
  const text = wanted.value.trim().toLowerCase();
  const found = text === '' ? all : all.filter((one) => one.text.includes(text));
  const at = Math.min(page.value, Math.max(0, Math.ceil(found.length / SIZE) - 1));
  const shown = found.slice(at * SIZE, (at + 1) * SIZE);
  const refused = it?.listening.refused.value ?? '';
  const columns = kind.columns.filter(([field]) => shown.some(({ record }) => record[field] !== undefined));
  const known = new Set([...kind.first, 'userId', 'orderId', 'lastSeen', 'updatedAt', ...columns.map(([field]) => field)]);
  return (
    <section class="panel" aria-labelledby="registry">
      <div class="head">
        <h1 id="registry">{kind.title}</h1><span class="spring" />
        <input type="search" data-filter class="filter" placeholder="Filter records" aria-label={`Filter ${kind.what} by any text in their records`} value={wanted.value} onInput={(event) => { wanted.value = event.currentTarget.value; page.value = 0; }} />
      </div>
      {it && <AsOf listening={it.listening} what={kind.what} />}
      {refused !== '' ? <p class="fault">{refused}</p> : all.length === 0 ? (
        <p class="empty">{it?.listening.isLive.value ? <><b>{kind.empty}</b> Records appear here as soon as they are written.</> : link.value.phase === 'live' ? 'Reading records …' : 'Waiting for the gateway.'}</p>
      ) : found.length === 0 ? <p class="empty">Nothing in {plural(all.length, 'record')} fits “{wanted.value}”.</p> : (
        <div class="scroll flat" tabIndex={0} role="region" aria-label={`List of ${kind.what}`}>
          <table>
            <thead><tr><th scope="col">{kind === ORDERS ? 'Order' : 'Provider'}</th><th scope="col">{kind === ORDERS ? 'State' : 'Status'}</th>{columns.map(([field, title]) => <th key={field} scope="col" class="wide">{title}</th>)}<th scope="col" class="wide">Besides</th><th scope="col" class="n">Written</th></tr></thead>
            <tbody>{shown.map((one) => (
              <tr key={one.key}>
                <th scope="row" class="what mono">{kind === ORDERS && one.key.length === 36 ? <span title={one.key}>{one.key.slice(0, 8)}</span> : one.key}</th>
                <td><Status word={inWords(kind.first.map((field) => one.record[field]).find((value) => value !== undefined))} /></td>
                {columns.map(([field]) => <td key={field} class="wide what">{inWords(one.record[field])}</td>)}
                <td class="wide what dim">{besides(one, known)}</td>
                <td class="n dim" title={clock(one.at - skew.value)}>{age(Math.max(0, now - one.at))}</td>
              </tr>
            ))}</tbody>
          </table>
        </div>
      )}
      <Pages page={at} size={SIZE} of={found.length} onPage={(to) => { page.value = to; }} />
      {all.length > 0 && <p class="foot"><span>{text === '' ? plural(all.length, kind.one) : `${count(found.length)} of ${plural(all.length, kind.one)}`}{it!.records.skipped > 0 ? `; ${plural(it!.records.skipped, 'record')} cannot be shown by this gateway` : ''}</span></p>}
    </section>
  );
}

/** Says if the data are not current, or incomplete. */
function AsOf({ listening, what }: { listening: Listening; what: string }) {
  const it = link.value;
  if (it.phase !== 'live') return it.since === 0 ? null : <p class="asof"><span class="chip late">Not live</span> as of {clock(it.since)}</p>;
  const stored = storage.value;
  if (!stored || stored.state === 'healthy' || !listening.isDegraded()) return null;
  return stored.state === 'degraded'
    ? <p class="asof"><span class="chip late">Degraded</span> since {clock(stored.since - skew.value)}: what other gateways write of {what} is not known here until Redis is back.</p>
    : <p class="asof"><span class="chip late">Recovering</span> What other gateways wrote of {what} is being read.</p>;
}

function Status({ word }: { word: string }) {
  const tone = word === 'online' || word === 'confirmed' ? 'up' : word === 'offline' ? 'dim' : word === 'failed' ? 'down' : '';
  return <span class={`status ${tone}`}>{tone === 'up' ? '● ' : tone === 'dim' ? '○ ' : tone === 'down' ? '✕ ' : ''}{word === '' ? '–' : word}</span>;
}

const LONG = 120;
const cut = (text: string) => (text.length > LONG ? `${text.slice(0, LONG)}…` : text);
function inWords(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (Array.isArray(value) && value.every((it) => typeof it !== 'object')) return cut(value.join(', '));
  return cut(typeof value === 'object' ? JSON.stringify(value) : String(value));
}

/** A few of the fields without a column. */
function besides({ record }: RegistryRecord, known: ReadonlySet<string>): string {
  return cut(Object.entries(record).filter(([name]) => !known.has(name)).slice(0, 6).map(([name, value]) => `${name}: ${inWords(value)}`).join(' · '));
}
