// The records of a registry, as what its channel tells makes them: of two of a key the one with the greater version counts.
export interface RegistryRecord {
  key: string;
  version: string;
  /** When it was written. */
  at: number;
  record: Readonly<Record<string, unknown>>;
  /** What a filter looks through. */
  text: string;
}

/** What a channel of a registry tells, as far as it is read here. */
export interface Told { type: string; key?: string; version?: string; timestamp: string; record?: Record<string, unknown> }

/** So many removals are remembered, as the gateways do. */
const REMOVALS_MAX = 9000;

export class Records {
  private readonly held = new Map<string, RegistryRecord>();
  private readonly removed = new Map<string, string>();
  private begun: Set<string> | null = null;
  /** By their keys: numbers within them by their value. */
  private sorted: RegistryRecord[] = [];
  /** Counts changes. */
  version = 0;
  /** Entries that this build of the gateway cannot show. */
  skipped = 0;

  get size(): number { return this.held.size; }

  take({ type, key, version = '', timestamp, record }: Told): void {
    if (type === 'skipped') this.skipped += 1;
    if (key === undefined) return;
    this.begun?.add(key);
    const known = this.held.get(key)?.version ?? this.removed.get(key);
    if (known !== undefined && version < known) return;
    this.version += 1;
    this.removed.delete(key);
    if (type === 'record_update' && record) {
      const one = { key, version, at: Date.parse(timestamp), record, text: `${key} ${JSON.stringify(record)}`.toLowerCase() };
      this.sorted.splice(this.placeOf(key), this.held.has(key) ? 1 : 0, one);
      this.held.set(key, one);
    } else if (type === 'key_removed') {
      if (this.held.delete(key)) this.sorted.splice(this.placeOf(key), 1);
      this.removed.set(key, version);
      if (this.removed.size > REMOVALS_MAX) this.removed.delete(this.removed.keys().next().value!);
    }
  }

  /** It begins anew. */
  begin(): void { this.begun = new Set(); }

  /** What did not come is no longer there, unless the gateway does not know all. */
  end(isAll: boolean): void {
    for (const held of isAll && this.begun ? [this.held, this.removed] : []) {
      for (const key of held.keys()) if (!this.begun!.has(key)) held.delete(key);
    }
    this.begun = null;
    this.sorted = this.sorted.filter(({ key }) => this.held.has(key));
    this.version += 1;
  }

  list(): readonly RegistryRecord[] { return this.sorted; }

  /** Where a key is among them, or belongs. */
  private placeOf(key: string): number {
    const { sorted } = this;
    let [from, to] = [0, sorted.length];
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (compare(sorted[middle]!.key, key) < 0) from = middle + 1;
      else to = middle;
    }
    return from;
  }
}

const { compare: roughly } = new Intl.Collator('en', { numeric: true });
const compare = (a: string, b: string) => roughly(a, b) || Number(a > b) - Number(a < b);
