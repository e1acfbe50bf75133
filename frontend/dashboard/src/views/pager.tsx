// Paging: through a list that the gateway returns in pages, and through a local one.
import { count } from '../format';
import './pager.css';

export function Pager({ hasBefore, next, page, onFirst, onBefore, onNext }: { hasBefore: boolean; next: string | null; page: number; onFirst: () => void; onBefore: () => void; onNext: (next: string) => void }) {
  if (!hasBefore && next === null) return null;
  return (
    <nav class="pager" aria-label="Pages">
      <button type="button" class="quiet" disabled={!hasBefore} onClick={onFirst}>First</button>
      <button type="button" class="quiet" disabled={!hasBefore} onClick={onBefore}>Back</button>
      <span class="dim">page {page}</span>
      <button type="button" class="quiet" disabled={next === null} onClick={() => next !== null && onNext(next)}>Next</button>
    </nav>
  );
}

export function Pages({ page, size, of, onPage }: { page: number; size: number; of: number; onPage: (page: number) => void }) {
  const last = Math.max(0, Math.ceil(of / size) - 1);
  if (last === 0) return null;
  return (
    <nav class="pager" aria-label="Pages">
      <button type="button" class="quiet" disabled={page === 0} onClick={() => onPage(page - 1)}>Back</button>
      <span class="dim">{count(page * size + 1)} to {count(Math.min(of, (page + 1) * size))} of {count(of)}</span>
      <button type="button" class="quiet" disabled={page >= last} onClick={() => onPage(page + 1)}>Next</button>
    </nav>
  );
}
