// Light, dark, or the system's choice; and whether single keys are shortcuts. Both are stored in this
// browser.
import { effect, signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';

/** A stored value, if storage is permitted: the page also works without. */
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
    // Without storage the default applies at the next visit.
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
