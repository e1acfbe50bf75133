// The tape of trades in order of arrival: the newest lines, in a ring. Plain data that is drawn once
// per frame.
import type { TradeEvent } from '../../../docs/schema/zonewire';

export interface Line {
  at: number;
  /** A trade; without one the line says what is missing here. */
  trade?: { name: string; price: string; size: string; side: string; isLate: boolean; isSimulated: boolean };
  text?: string;
}

/** How many lines are stored and shown. */
export const KEPT = 200;

export class Tape {
  private readonly ring: Line[] = [];
  /** How many lines there have been in all. */
  count = 0;
  /** The greatest number of decimals of prices and of sizes so far. */
  decimals = { price: 0, size: 0 };

  push(line: Line): void {
    this.ring[this.count % KEPT] = line;
    this.count += 1;
  }

  trade({ data, timestamp, late }: TradeEvent): void {
    const [price, size] = [String(data.price), String(data.size)];
    this.decimals.price = Math.max(this.decimals.price, decimalsIn(price));
    this.decimals.size = Math.max(this.decimals.size, decimalsIn(size));
    this.push({ at: Date.parse(timestamp), trade: { name: `${data.exchange}/${data.symbol}`, price, size, side: data.side ?? '', isLate: late === true, isSimulated: (data as { simulated?: unknown }).simulated === true } });
  }

  /** Line number `n`, from 0; only the newest ones are stored. */
  line(n: number): Line { return this.ring[n % KEPT]!; }
}

/** How many decimals a text needs: those written, where trailing zeros count up to two. */
export function decimalsIn(text: string): number {
  if (/e/i.test(text)) return 8;
  const [, decimals = ''] = text.split('.');
  return Math.min(10, Math.max(Math.min(2, decimals.length), decimals.replace(/0+$/, '').length));
}
