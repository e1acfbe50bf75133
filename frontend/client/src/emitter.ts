/** Whatever a handler throws, or a promise of its is rejected with, is reported and harms nobody else. */
export const report = (error: unknown): void => {
  const { reportError = console.error } = globalThis as { reportError?: (error: unknown) => void };
  reportError(error);
};

/** Something that tells of events; `E` has what comes with each. */
export interface Emitter<E extends Record<keyof E, unknown[]>> {
  /**
   * Calls `handler` at each event of that name, in the order in which handlers were added. One that throws is
   * reported (`reportError`, or the console) and counts as called.
   *
   * @returns what takes the handler away again
   */
  on<T extends keyof E>(type: T, handler: (...what: E[T]) => unknown): () => void;
}

/** An emitter, and the function that makes it tell. */
export const emitter = <E extends Record<keyof E, unknown[]>>(): Emitter<E> & {
  emit<T extends keyof E>(type: T, ...what: E[T]): void;
} => {
  // Lists are replaced, so that who goes through one may add and take away.
  const handlers: { [T in keyof E]?: { handler(...what: E[T]): unknown }[] } = {};
  return {
    on(type, handler) {
      const one = { handler };
      handlers[type] = [...(handlers[type] ?? []), one];
      return () => void (handlers[type] = handlers[type]!.filter((other) => other !== one));
    },
    emit(type, ...what) {
      for (const one of handlers[type] ?? [])
        if (handlers[type]!.includes(one))
          try {
            // A handler may be async.
            (one.handler(...what) as Promise<unknown> | undefined)?.catch?.(report);
          } catch (error) {
            report(error);
          }
    },
  };
};
