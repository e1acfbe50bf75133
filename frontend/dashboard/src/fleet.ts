// The nodes of the fleet, as the gateway that is asked knows them.
import { get } from './gateway';

export interface FleetNode {
  node: string;
  /** It is the one that was asked. */
  here: boolean;
  version: string;
  state: string;
  started_at: string;
  /** When it last told of itself. */
  told_at: string;
  connections: number;
  /** Those with the most subscribers. */
  zones: { zone: string; connections: number }[];
  zones_left_out: number;
  /** How long the newest entries took from the log to the sockets. */
  lag_ms: { p50: number | null; p99: number | null };
}

/** `/ws/stats?scope=fleet` */
export interface Fleet {
  scope: string;
  /** `this_one` where it cannot be known which others there are. */
  nodes_known: string;
  note?: string;
  nodes: FleetNode[];
  totals: { nodes: number; connections: number };
}

/** Null where the gateway is of a version that tells of itself alone. */
export async function fleet(): Promise<Fleet | null> {
  const told = await get<Partial<Fleet>>('ws/stats?scope=fleet&connections=0');
  return told.scope === 'fleet' && Array.isArray(told.nodes) ? (told as Fleet) : null;
}
