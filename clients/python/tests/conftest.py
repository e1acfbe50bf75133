"""Runs async tests, and checks that they leave nothing running."""

import asyncio
import inspect
from typing import Any

import pytest

from cleanup import clean_up
from loops import VirtualLoop

LIMIT_S = 1_800


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.function
    if not inspect.iscoroutinefunction(test):
        return None
    args = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    factory: Any = getattr(test, "loop", None) or getattr(pyfuncitem.module, "LOOP", None)
    # With virtual time, waiting in vain is an error at once.
    limit_s = None if factory is VirtualLoop else LIMIT_S * getattr(factory, "times", 1)

    async def run() -> None:
        try:
            await asyncio.wait_for(test(**args), limit_s)
        finally:
            await clean_up()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left running: {left}"

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
    return True
