// Loads parts of the page when they are first opened.
import { signal } from '@preact/signals';
import type { ComponentChildren, ComponentType } from 'preact';

/**
 * A component that is loaded when first shown; `meanwhile` is shown instead if that is impossible.
 */
export function lazy<P>(load: () => Promise<ComponentType<P>>, meanwhile: (problem: ComponentChildren) => ComponentChildren): ComponentType<P> {
  const found = signal<ComponentType<P> | null>(null);
  const isAway = signal(false);
  let isAsked = false;
  return (props: P) => {
    if (!isAsked) {
      isAsked = true;
      load().then((view) => { found.value = view; }, () => { isAway.value = true; });
    }
    const View = found.value as ComponentType<object> | null;
    if (View) return <View {...(props as object)} />;
    return <>{meanwhile(isAway.value && <p class="fault" role="alert">This part of the page could not be read: the gateway is away, or has a newer page by now. <button type="button" class="link" onClick={() => location.reload()}>Load the page again</button></p>)}</>;
  };
}
