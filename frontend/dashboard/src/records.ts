// The records of a registry, built from the entries of its channel: of two entries of a key the greater version wins.
export interface RegistryRecord {
  key: string;
  version: string;
  /** When it was written. */
  at: number;
  record: Readonly<Record<string, unknown>>;
  /** The text that a filter searches. */
  text: string;
}

/** The parts of a registry's entry that are used here. */
export interface Told { type: string; key?: string; version?: string; timestamp: string; record?: Record<string, unknown> }

/** How many removals are remembered, as in gateways. */
const REMOVALS_MAX = 9000;

export class Records {
  private readonly held = new Map<string, RegistryRecord>();
  private readonly removed = new Map<string, string>();
  private begun: Set<string> | null = null;
  /** Sorted by key: numbers within keys by value. */
  private sorted: RegistryRecord[] = [];
  /** Counts changes. */
  version = 0;
  /** Entries that the gateway's build cannot show. */
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

  /** The channel starts over. */
  begin(): void { this.begun = new Set(); }

  /** Records that were not in the snapshot no longer exist, unless the gateway does not know all. */
  end(isAll: boolean): void {
    for (const held of isAll && this.begun ? [this.held, this.removed] : []) {
      for (const key of held.keys()) if (!this.begun!.has(key)) held.delete(key);
    }
    this.begun = null;
    this.sorted = this.sorted.filter(({ key }) => this.held.has(key));
    this.version += 1;
  }

  list(): readonly RegistryRecord[] { return this.sorted; }

  /** The index of a key, or where it would be inserted. */
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
