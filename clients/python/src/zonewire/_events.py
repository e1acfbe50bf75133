"""Who is told of what happens."""

import inspect
import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

logger = logging.getLogger("zonewire")

A = ParamSpec("A")


def call(handler: Callable[A, object], *args: A.args, **kwargs: A.kwargs) -> None:
    """Calls somebody else's function: whatever it raises is logged, and harms nobody else."""
    try:
        outcome = handler(*args, **kwargs)
    except Exception:
        logger.exception("a handler failed")
        return
    if inspect.iscoroutine(outcome):
        outcome.close()
        logger.error("a handler is a plain function; what it gave to await is not run: %r", handler)


class Event(Generic[A]):
    """Something that happens again and again, and those who are told of it."""

    def __init__(self) -> None:
        self._handlers: list[list[Callable[A, object]]] = []

    def add(self, handler: Callable[A, object]) -> Callable[[], None]:
        """Has a function be called each time, in the order in which they were added; gives what takes it away."""
        if inspect.iscoroutinefunction(handler):
            # Nothing would hold it back from running many times at once, nor in which order.
            raise TypeError("a handler is a plain function: use `async for` to await things")
        one = [handler]
        self._handlers.append(one)

        def remove() -> None:
            self._handlers = [other for other in self._handlers if other is not one]

        return remove

    def tell(self, *args: A.args, **kwargs: A.kwargs) -> None:
        """Calls all, but those that were taken away meanwhile."""
        for one in self._handlers:
            if any(other is one for other in self._handlers):
                call(one[0], *args, **kwargs)
