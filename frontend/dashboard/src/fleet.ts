// The nodes of the fleet, as the queried gateway lists them.
import { get } from './gateway';

export interface FleetNode {
  node: string;
  /** Whether this is the queried gateway. */
  here: boolean;
  version: string;
  state: string;
  started_at: string;
  /** When it last wrote its record. */
  told_at: string;
  connections: number;
  /** The zones with the most subscribers. */
  zones: { zone: string; connections: number }[];
  zones_left_out: number;
  /** How long the newest entries took from the log to the sockets. */
  lag_ms: { p50: number | null; p99: number | null };
}

/** `/ws/stats?scope=fleet` */
export interface Fleet {
  scope: string;
  /** `this_one` if the others are unknown. */
  nodes_known: string;
  note?: string;
  nodes: FleetNode[];
  totals: { nodes: number; connections: number };
}

/** Null if the gateway's version knows only itself. */
export async function fleet(): Promise<Fleet | null> {
  const told = await get<Partial<Fleet>>('ws/stats?scope=fleet&connections=0');
  return told.scope === 'fleet' && Array.isArray(told.nodes) ? (told as Fleet) : null;
}
