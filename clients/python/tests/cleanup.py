"""Clean-up after a test."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from zonewire import Client

clients: list[Client[Any]] = []
undo: list[Callable[[], Awaitable[object] | object]] = []


async def clean_up() -> None:
    for client in clients:
        client.close()
    for client in clients:
        await client.wait_closed()
    clients.clear()
    while undo:
        outcome = undo.pop()()
        if isinstance(outcome, Awaitable):
            await outcome
    for _ in range(5):  # for cancelled tasks
        await asyncio.sleep(0)
