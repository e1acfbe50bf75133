// Follows a registry while it is shown.
import { ask } from './frames';
import { listen, type Listening } from './listen';
import { Records, type Told } from './records';

/** Follows a registry, `providers` or `active-orders`, whose records are called `what`. */
export function followRegistry(name: string, what: string): { records: Records; listening: Listening } {
  const records = new Records();
  const listening = listen(`registry:${name}`, what, {
    entry: (entry) => { records.take(entry as unknown as Told); ask(); },
    begin: () => records.begin(),
    whole: (_, isAll) => { records.end(isAll); ask(); },
  }, { idsMax: 0 });
  return { records, listening };
}
