// The points of one key over time, sorted, in few bytes. Late points are sorted in; beyond the limit the
// oldest quarter is dropped.

export class Series {
  times = new Float64Array(16);
  values = new Float64Array(16);
  length = 0;

  /**
   * At most `limit` points. A point within `spacingMs` of the one before the newest replaces the newest.
   */
  constructor(private readonly limit: number, private readonly spacingMs = 0) {}

  push(at: number, value: number): void {
    const last = this.length - 1;
    if (last >= 0 && at < this.times[last]!) return this.insert(at, value);
    if (last >= 1 && at - this.times[last - 1]! < this.spacingMs) {
      this.times[last] = at;
      this.values[last] = value;
      return;
    }
    this.room();
    this.times[this.length] = at;
    this.values[this.length] = value;
    this.length += 1;
  }

  private insert(at: number, value: number): void {
    const place = this.after(at);
    const before = place - 1;
    if (before >= 0 && this.times[before] === at) {
      this.values[before] = value;
      return;
    }
    if (before >= 0 && at - this.times[before]! < this.spacingMs / 2) return;
    const had = this.length;
    this.room();
    // Making room may have dropped earlier points.
    const shifted = place - (had - this.length);
    if (shifted < 0) return;
    this.times.copyWithin(shifted + 1, shifted, this.length);
    this.values.copyWithin(shifted + 1, shifted, this.length);
    this.times[shifted] = at;
    this.values[shifted] = value;
    this.length += 1;
  }

  /** The index of the first point after a time. */
  after(at: number): number {
    let [low, high] = [0, this.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle]! <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private room(): void {
    if (this.length >= this.limit) {
      const gone = Math.ceil(this.limit / 4);
      this.times.copyWithin(0, gone, this.length);
      this.values.copyWithin(0, gone, this.length);
      this.length -= gone;
    } else if (this.length === this.times.length) {
      this.times = grown(this.times, this.limit);
      this.values = grown(this.values, this.limit);
    }
  }

  /** A pause longer than this counts as a hole: several times the usual interval of this key. */
  holeMs(): number {
    const count = Math.min(this.length - 1, 200);
    if (count < 3) return Infinity;
    const gaps: number[] = [];
    for (let i = this.length - count; i < this.length; i += 1) gaps.push(this.times[i]! - this.times[i - 1]!);
    gaps.sort((a, b) => a - b);
    return Math.max(5000, 5 * gaps[count >> 1]!);
  }
}

function grown(array: Float64Array, limit: number): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(Math.min(limit, array.length * 2));
  larger.set(array);
  return larger;
}
