/** Reports what a handler throws, or its promise is rejected with; no other handler is affected. */
export const report = (error: unknown): void => {
  const { reportError = console.error } = globalThis as { reportError?: (error: unknown) => void };
  reportError(error);
};

/** A source of events; `E` has the arguments of each event. */
export interface Emitter<E extends Record<keyof E, unknown[]>> {
  /**
   * Calls `handler` at each event of that name, in the order in which handlers were added. One that throws is
   * reported (`reportError`, or the console) and counts as called.
   *
   * @returns a function that removes the handler
   */
  on<T extends keyof E>(type: T, handler: (...what: E[T]) => unknown): () => void;
}

/** An emitter, and the function that emits an event. */
export const emitter = <E extends Record<keyof E, unknown[]>>(): Emitter<E> & {
  emit<T extends keyof E>(type: T, ...what: E[T]): void;
} => {
  // Lists are replaced, so that handlers may be added and removed while a list is traversed.
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
