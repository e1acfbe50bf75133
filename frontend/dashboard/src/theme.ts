// Light, dark, or as the system has it; and whether single keys do something. Both are kept in this browser.
import { effect, signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';

/** What was kept, where that is allowed: a page without storage works as well. */
export function kept(name: string): string | null {
  try {
    return localStorage.getItem(`zonewire.${name}`);
  } catch {
    return null;
  }
}

export function keep(name: string, value: string): void {
  try {
    localStorage.setItem(`zonewire.${name}`, value);
  } catch {
    // It is as it was at the next visit.
  }
}

const first = kept('theme');
export const theme = signal<Theme>(first === 'light' || first === 'dark' ? first : 'system');
export const hasShortcuts = signal(kept('shortcuts') !== 'off');

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  keep('theme', theme.value);
});
effect(() => keep('shortcuts', hasShortcuts.value ? 'on' : 'off'));
