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
  const handlers = new Set<[keyof E, (...what: never) => unknown]>();
  return {
    on(type, handler) {
      const one: [keyof E, typeof handler] = [type, handler];
      handlers.add(one);
      return () => void handlers.delete(one);
    },
    emit(type, ...what) {
      for (const one of [...handlers])
        if (one[0] === type && handlers.has(one))
          try {
            // A handler may be async.
            (one[1](...(what as never)) as Promise<unknown> | undefined)?.catch?.(report);
          } catch (error) {
            report(error);
          }
    },
  };
};
