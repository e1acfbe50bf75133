// The gateway's settings, as it reports them: the gateway itself masks secrets.
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { ConfigView, SettingView } from '../../../../docs/schema/zonewire';
import { count, words } from '../format';
import { get } from '../gateway';
import { link } from '../state';
import { Pages } from './pager';

const SIZE = 25;

export function Settings() {
  const config = useSignal<ConfigView | null>(null);
  const problem = useSignal('');
  const wanted = useSignal('');
  const changed = useSignal(false);
  const page = useSignal(0);
  const isLive = link.value.phase === 'live';
  useEffect(() => {
    // They change only when the gateway restarts, and the page reconnects then.
    if (isLive) get<ConfigView>('api/config').then((read) => { config.value = read; problem.value = ''; }, (error: unknown) => { problem.value = words(error); });
  }, [isLive]);

  const it = config.value;
  const list = (it?.settings ?? []).filter(({ key, origin }) => key.includes(wanted.value.trim().toLowerCase()) && !(changed.value && (origin ?? 'default') === 'default'));
  const at = Math.min(page.value, Math.max(0, Math.ceil(list.length / SIZE) - 1));
  return (
    <section class="panel full" aria-labelledby="settings">
      <div class="head"><h1 id="settings">Settings</h1><span class="spring" />
        <label><input type="checkbox" checked={changed.value} onChange={(event) => { changed.value = event.currentTarget.checked; page.value = 0; }} /> Only what is no default</label>
        <input type="search" data-filter class="filter" placeholder="Filter settings" aria-label="Filter settings by their key" value={wanted.value} onInput={(event) => { wanted.value = event.currentTarget.value; page.value = 0; }} />
      </div>
      {problem.value !== '' && <p class="fault" role="alert">{problem.value}</p>}
      {it?.warning !== undefined && <p class="fault">{it.warning}</p>}
      {it === null ? <p class="empty">{problem.value === '' ? 'Reading …' : ''}</p> : (
        <>
          <p class="dim">As they are in force, {count(it.settings.length)} in all{it.file !== undefined && <>; the file is <span class="mono">{it.file}</span></>}. What is secret is masked.</p>
          {list.length === 0 ? <p class="empty">No setting matches.</p> : (
            <div class="scroll flat" tabIndex={0} role="region" aria-label="List of settings">
              <table>
                <thead><tr><th scope="col">Setting</th><th scope="col">Value</th><th scope="col">From</th></tr></thead>
                <tbody>{list.slice(at * SIZE, (at + 1) * SIZE).map((one) => <tr key={one.key}><th scope="row" class="mono">{one.key}</th><td class="what mono">{shown(one)}</td><td class="what">{one.origin ?? '–'}</td></tr>)}</tbody>
              </table>
            </div>
          )}
          <Pages page={at} size={SIZE} of={list.length} onPage={(to) => { page.value = to; }} />
        </>
      )}
    </section>
  );
}

const shown = ({ value }: SettingView) => (value === null ? 'not set' : typeof value === 'string' ? value : JSON.stringify(value));
