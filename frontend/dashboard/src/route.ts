// The address of a view: `#/prices/pjm,ercot?key=pjm/WESTERN%20HUB`. All of it is behind the hash, so the
// gateway serves one page, below any path, and a link leads back to the same view.
import { computed, signal } from '@preact/signals';

export interface Route {
  /** `prices`, `events`, `orders`, `registries` or `gateway`. */
  view: string;
  /** The part of the view: zones, a market, an order, a registry, a section of the gateway's view. */
  rest: string;
  query: URLSearchParams;
}

const hash = signal(location.hash);
addEventListener('hashchange', () => { hash.value = location.hash; });

export const route = computed<Route>(() => {
  const [path = '', query = ''] = split(hash.value.replace(/^#\/?/, ''), '?');
  const [view = '', rest = ''] = split(path, '/');
  return { view: view || 'prices', rest: decode(rest), query: new URLSearchParams(query) };
});

function split(text: string, by: string): [string, string] {
  const at = text.indexOf(by);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + by.length)];
}

// A link that was cut off should still show something.
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A link to a view. */
export function href(view: string, rest = '', query: Record<string, string | undefined> = {}): string {
  const path = rest === '' ? '' : `/${encodeURIComponent(rest).replace(/%2[CF]/g, decodeURIComponent)}`;
  const parts = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const text = new URLSearchParams(parts as [string, string][]).toString().replaceAll('+', '%20');
  return `#/${view}${path}${text === '' ? '' : `?${text}`}`;
}

/** Goes to an address, with an entry in the browser's history. */
export function go(to: string): void {
  location.hash = to;
}

/** Changes the address of the same view, without an entry in the history. */
export function replace(to: string): void {
  history.replaceState(null, '', to);
  hash.value = location.hash;
}
