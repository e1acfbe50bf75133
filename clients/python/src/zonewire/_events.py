"""Events and their handlers."""

import inspect
import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

logger = logging.getLogger("zonewire")

A = ParamSpec("A")


def call(handler: Callable[A, object], *args: A.args, **kwargs: A.kwargs) -> None:
    """Calls a handler; what it raises is logged, and affects no other handler."""
    try:
        outcome = handler(*args, **kwargs)
    except Exception:
        logger.exception("a handler failed")
        return
    if inspect.iscoroutine(outcome):
        outcome.close()
        logger.error("a handler must be a plain function; the awaitable that it returned is not run: %r", handler)


class Event(Generic[A]):
    """An event, and its handlers."""

    def __init__(self) -> None:
        self._handlers: list[list[Callable[A, object]]] = []

    def add(self, handler: Callable[A, object]) -> Callable[[], None]:
        """Adds a handler; handlers are called in the order of addition. Returns a function that removes it."""
        if inspect.iscoroutinefunction(handler):
            # Nothing would prevent it from running many times concurrently, and in any order.
            raise TypeError("a handler must be a plain function: use `async for` to await things")
        one = [handler]
        self._handlers.append(one)

        def remove() -> None:
            self._handlers = [other for other in self._handlers if other is not one]

        return remove

    def tell(self, *args: A.args, **kwargs: A.kwargs) -> None:
        """Calls all handlers except those removed meanwhile."""
        for one in self._handlers:
            if any(other is one for other in self._handlers):
                call(one[0], *args, **kwargs)
