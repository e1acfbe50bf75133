"""Event loops with a time of their own, since the loop's clock is the client's only clock."""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any


class _Selector(selectors.DefaultSelector):
    wait: Callable[[Any, float | None], float | None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(self.wait(super().select, timeout))


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time jumps to the next timer whenever there is nothing left to do."""

    def __init__(self) -> None:
        self.now = 1_000.0
        selector = _Selector()
        super().__init__(selector)
        selector.wait = self._wait

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets time pass while nothing runs, as when the loop is blocked; timers are overdue then."""
        self.now += seconds

    def _wait(self, select: Any, timeout: float | None) -> float:
        if not select(0):
            if timeout is None:
                raise RuntimeError("nothing will happen any more")
            self.now += timeout
        return 0


class FastLoop(asyncio.SelectorEventLoop):
    """Its time runs faster by a factor, so that waits of seconds take milliseconds."""

    times = 1.0

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.wait = lambda _, timeout: None if timeout is None else timeout / self.times

    def time(self) -> float:
        return time.monotonic() * self.times


def fast(times: float) -> type[FastLoop]:
    return type("FastLoop", (FastLoop,), {"times": times})


def on(loop: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[Any], Any]:
    """Runs a test on such a loop."""

    def mark(test: Any) -> Any:
        test.loop = loop
        return test

    return mark
