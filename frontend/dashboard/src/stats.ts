// Reads the gateway's statistics once a second while somebody looks, and computes rates from two readings. Nothing
// is requested while the tab is hidden.
import { signal } from '@preact/signals';
import type { ConnectionInfo, StateSpell } from '../../../docs/schema/zonewire';
import { get, Problem } from './gateway';

/** The parts of `outage` that are used here. */
type Totals = Record<'switches' | 'channels_set_aside' | 'journal_entries' | 'journal_bytes' | 'journal_thinned' | 'journal_refused_full' | 'journal_aged' | 'journal_order_overflow' | 'journal_in_memory_only' | 'replayed' | 'superseded' | 'records_let_go', number>;

/** `/ws/stats`, as far as this page uses it. */
export interface Stats {
  node: string;
  version: string;
  uptime_s: number;
  timestamp: string;
  storage_backend: string;
  state: string;
  since: string;
  scope: string;
  reason_code: string;
  reason: string | null;
  primaries: number;
  primaries_away: number;
  memory: { bytes: number; bytes_max: number; latest_bytes: number; evicted_entries: number; evicted_latest: number; disk: string };
  outage: Totals & { seconds_in_state: Record<string, number>; journal_oldest_ms?: number; spool: string; spool_reason?: string };
  connections: {
    open: number;
    total: number;
    total_disconnections: number;
    by_zone: Record<string, number>;
    closed_by_reason: Record<string, number>;
    refused_by_limit: Record<string, number>;
    average_duration_s: number;
    longest_open_s: number;
    durations: { up_to_s: number; connections: number }[];
  };
  messages: {
    sent: number;
    received: number;
    bytes_received: number;
    errors: number;
    error_rate_percent: number;
    errors_by_code: Record<string, number>;
    conflated: number;
    dropped_by_reason: Record<string, number>;
    gaps_told: number;
    replayed: number;
    snapshots: number;
  };
  channels: Record<string, number> & { entries_skipped_by_reason: Record<string, number> };
  orders: { placed: number; confirmed: number; failed: number; dead: number; executor: string; other_executors: string[]; jobs: Record<'waiting' | 'delayed' | 'claimed' | 'done' | 'dead', number> | null };
  interop: Record<string, number>;
  http: Record<string, number> & { requests_refused_by_reason: Record<string, number> };
  /** Newest first; older gateways have none. */
  storage_history?: StateSpell[];
  connection_list: ConnectionInfo[];
  connections_next?: string;
  silent_shards: number;
}

/** The rates of one second; null if nothing was read. */
export interface Second {
  at: number;
  sent: number;
  received: number;
  errors: number;
  refused: number;
  opened: number;
  closed: number;
  accepted: number;
  open: number;
}

const KEPT = 600;
const EVERY_MS = 1000;
export const stats = signal<Stats | null>(null);
export const seconds = signal<readonly Second[]>([]);
export const statsProblem = signal('');
let watchers = 0;
let timer: ReturnType<typeof setTimeout> | null = null;
let before: { at: number; stats: Stats } | null = null;

/** Reads until the returned function is called. */
export function watchStats(): () => void {
  watchers += 1;
  if (timer === null) void pull();
  return () => { watchers -= 1; };
}

async function pull(): Promise<void> {
  clearTimeout(timer ?? undefined);
  timer = setTimeout(() => {
    timer = null;
    if (watchers > 0) void pull();
  }, EVERY_MS);
  if (document.hidden || isAsking) return;
  isAsking = true;
  try {
    const asked = listing;
    const { zone = '', after = '', size = 0 } = asked?.wanted() ?? {};
    const now = await get<Stats>(`ws/stats?${new URLSearchParams({ connections: `${size}`, ...(zone === '' ? {} : { zone }), ...(after === '' ? {} : { after }) })}`);
    take(now);
    if (asked !== null && asked === listing) asked.take(now);
    statsProblem.value = '';
  } catch (error) {
    before = null;
    statsProblem.value = error instanceof Problem && error.status === 403 ? 'Your token does not let you see how the gateway is doing.' : `The gateway’s statistics cannot be read: ${error instanceof Error ? error.message : String(error)}`;
  }
  isAsking = false;
  // A user who turned a page should not wait a second for it.
  if (isDue) {
    isDue = false;
    void pull();
  }
}
let isAsking = false;
let isDue = false;

/** A page of the open connections, ordered by id: of one zone or of all, after one of them. */
export interface Listed { zone: string; after: string; size: number }
let listing: { wanted: () => Listed; take: (it: Stats) => void } | null = null;

/** Makes each reading include connections, until the returned function is called. */
export function listConnections(wanted: () => Listed, take: (it: Stats) => void): () => void {
  const mine = { wanted, take };
  listing = mine;
  if (isAsking) isDue = true;
  else if (watchers > 0) void pull();
  return () => { if (listing === mine) listing = null; };
}

const sum = (counts: Record<string, number>) => Object.values(counts).reduce((all, it) => all + it, 0);
export const refusals = (it: Stats) => sum(it.connections.refused_by_limit) + sum(it.http.requests_refused_by_reason);

function take(now: Stats): void {
  const at = Date.parse(now.timestamp);
  const was = before?.stats;
  // Turning a page causes an immediate reading, which does not count as a second.
  if (was && was.node === now.node && at - before!.at < EVERY_MS / 2) {
    stats.value = now;
    return;
  }
  // Another process counts from 0 again.
  if (was && was.node === now.node && now.uptime_s >= was.uptime_s && at > before!.at) {
    const per = 1000 / (at - before!.at);
    const rate = (of: (it: Stats) => number) => Math.max(0, (of(now) - of(was)) * per);
    const second: Second = {
      at,
      sent: rate((it) => it.messages.sent),
      received: rate((it) => it.messages.received),
      errors: rate((it) => it.messages.errors),
      refused: rate(refusals),
      opened: rate((it) => it.connections.total),
      closed: rate((it) => it.connections.total_disconnections),
      accepted: rate((it) => it.channels.entries_accepted ?? 0),
      open: now.connections.open,
    };
    seconds.value = [...seconds.value.slice(1 - KEPT), second];
  }
  before = { at, stats: now };
  stats.value = now;
}

/** Accepted entries that will never be in the log, by reason; all should be 0. */
export function lost(it: Stats): [string, number][] {
  const { outage, channels, interop } = it;
  const of = (value: number | undefined) => value ?? 0;
  return [
    ['waited too long for Redis', of(outage.journal_aged)],
    ['beyond those kept of an order', of(outage.journal_order_overflow)],
    ['refused by the log when Redis was back', of(outage.superseded)],
    ['left the log before this gateway saw them', of(channels.entries_missed)],
    ['of outside workers, let go', of(interop.lost)],
    ['records let go', of(outage.records_let_go)],
  ];
}
