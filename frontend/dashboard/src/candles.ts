// Candles of one market by interval: the newest ones, one per start time.
import type { Candle } from '../../../docs/schema/zonewire';

export interface CandleEntry { timestamp: string; data: Candle }

export interface Drawn { open: number; high: number; low: number; close: number; volume: number; begins: number; isClosed: boolean; at: number }

const KEPT = 240;

/**
 * A time as publishers write it: RFC 3339, or a number since 1970 whose size determines the unit.
 */
function timeOf(given: Candle['openTime']): number {
  const value = Number(given);
  if (!Number.isFinite(value)) return Date.parse(String(given));
  for (const [below, factor] of [[1e11, 1000], [1e14, 1], [1e17, 1e-3]] as const) if (value < below) return value * factor;
  return value * 1e-6;
}

export class Candles {
  /** By interval, oldest first. */
  readonly by = new Map<string, Drawn[]>();
  version = 0;

  /** Adds or updates a candle; older versions do not replace newer ones. */
  take({ data, timestamp }: CandleEntry): void {
    const begins = timeOf(data.openTime);
    if (!Number.isFinite(begins)) return;
    const one: Drawn = { open: Number(data.open), high: Number(data.high), low: Number(data.low), close: Number(data.close), volume: Number(data.volume), begins, isClosed: data.closed, at: Date.parse(timestamp) };
    let list = this.by.get(data.interval);
    if (!list) this.by.set(data.interval, (list = []));
    let at = list.length;
    while (at > 0 && list[at - 1]!.begins >= begins) at -= 1;
    const held = list[at];
    if (held?.begins === begins) {
      if (held.at > one.at || (held.isClosed && !one.isClosed)) return;
      list[at] = one;
    } else list.splice(at, 0, one);
    if (list.length > KEPT) list.shift();
    this.version += 1;
  }

  /** The intervals, shortest first. */
  intervals(): string[] {
    return [...this.by.keys()].sort((a, b) => lengthOf(a) - lengthOf(b));
  }
}

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
export const lengthOf = (interval: string) => (Number.parseInt(interval, 10) || 1) * (UNITS[interval.slice(-1)] ?? 1e9);
