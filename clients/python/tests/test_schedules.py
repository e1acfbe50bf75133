"""Seeded schedules of failures: whatever is cut and whenever, nothing is lost, doubled or misreported.

ZONEWIRE_CLIENT_SCHEDULES=1000  how many; default 50
ZONEWIRE_CLIENT_SEED=17         that one alone
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from loops import fast, on
from real import NO_REDIS, Gateway, Proxy, Redis, follow, needs_gateway, needs_redis, pause, until

from zonewire import PriceUpdate

SCHEDULES = int(os.environ.get("ZONEWIRE_CLIENT_SCHEDULES", "50"))
ONLY = int(os.environ.get("ZONEWIRE_CLIENT_SEED", "0"))
AT_ONCE = 8


class Numbered(PriceUpdate):
    n: int
    seed: int


class Schedule:
    """One zone, one client, and what happens between them."""

    def __init__(self, seed: int, worker: int, gateways: list[Gateway], publishers: list[Gateway]) -> None:
        self.seed, self.gateways, self.publishers = seed, gateways, publishers
        self.draw = random.Random(seed)
        self.zone = f"{self.draw.choice(['every', 'latest'])}{worker}"
        self.last = 0
        self.had: list[int] = []
        self.looped: list[int] = []
        self.others: list[Any] = []  # of the previous schedule, from which a snapshot may date
        self.offsets: list[Any] = []
        self.gaps: list[Any] = []
        self.is_late = False
        self.trace: deque[str] = deque(maxlen=100)

    async def run(self) -> None:
        draw = self.draw
        self.proxies = [await Proxy.started(partial(getattr, gateway, "port")) for gateway in self.gateways]
        self.client = client = follow(
            lambda: draw.choice(self.proxies).url, random=draw.random, connect_timeout_s=100
        )
        # As a user would.
        client.on_state(lambda status: client.reconnect() if status.state == "failed" else None)
        client.on_message(lambda message: self.trace.append(json.dumps(message)))
        client.on_state(lambda status: self.trace.append(f"{time.time()} {status}"))
        try:
            await self.follow()
        except BaseException:
            print(f"{self.what()}: the last that was heard", *self.trace, sep="\n", file=sys.stderr)
            raise
        finally:
            client.close()
            for proxy in self.proxies:
                proxy.close()

    def what(self) -> str:
        return f"seed {self.seed}, zone {self.zone}"

    async def follow(self) -> None:
        client, draw = self.client, self.draw
        snapshot = draw.random() < 0.5
        self.sub = sub = client.zone(self.zone, price=Numbered, snapshot=snapshot)
        sub.on_gap(self.gaps.append)
        sub.on_entry(self.take)
        self.entries = sub.entries()
        self.reading = asyncio.ensure_future(self.read())
        await until(lambda: sub.status == "live", lambda: f"{self.what()}: {client.status}")
        for _ in range(20 + draw.randrange(20)):
            await draw.choice(self.acts)(self)
        for proxy in self.proxies:
            proxy.heal()
            proxy.cut()  # a stalled connection would stay so
        await self.publish(1)
        await until(
            lambda: len(self.had) >= self.last and self.last in self.had and sub.status == "live",
            lambda: f"{self.what()}: {self.last} in {self.had}: {client.status}",
        )
        await self.check(snapshot)

    async def check(self, snapshot: bool) -> None:
        every = list(range(1, self.last + 1))
        assert self.others == [], self.what()
        assert sorted(self.had) == every, self.what()
        if not self.is_late:
            assert self.had == every, f"{self.what()}: in order"
        assert self.gaps == [], self.what()
        assert len(set(self.offsets)) == len(self.offsets), f"{self.what()}: no position twice"
        latest = (await self.gateways[0].get(f"/api/zones/{self.zone}/latest"))["entries"]
        shown = {key: entry["n"] for key, entry in self.sub.latest().items()}
        keys = {entry["key"] for entry in latest} if snapshot else set(shown)
        assert shown == {entry["key"]: entry["n"] for entry in latest if entry["key"] in keys}, self.what()
        self.sub.close()
        await self.reading
        assert self.looped == self.had, f"{self.what()}: a loop has the same"

    def is_ours(self, entry: Any) -> bool:
        return (entry["type"], entry.get("snapshot"), entry.get("seed")) == ("price_update", None, self.seed)

    def take(self, entry: Any, position: Any) -> None:
        if self.is_ours(entry):
            self.had.append(entry["n"])
            self.offsets.append((position["epoch"], entry["offset"]))
            self.is_late = self.is_late or entry.get("late", False)
        elif not entry.get("snapshot") and self.last:
            self.others.append(entry)

    async def read(self) -> None:
        async for entry in self.entries:
            if self.is_ours(entry):
                self.looped.append(entry["n"])  # type: ignore[typeddict-item]

    # What may happen

    async def publish(self, count: int = 0) -> None:
        prices = []
        for _ in range(count or 1 + self.draw.randrange(20)):
            self.last += 1
            key = f"k{self.draw.randrange(5)}"
            prices.append({"key": key, "price": self.last, "n": self.last, "seed": self.seed})
        await self.draw.choice(self.publishers).publish(self.zone, *prices)

    async def cut(self) -> None:
        self.draw.choice(self.proxies).cut()

    async def break_off(self) -> None:
        self.draw.choice(self.proxies).bytes_left = self.draw.randrange(3_000)

    async def refuse(self) -> None:
        self.draw.choice(self.proxies).refuses = 1 + self.draw.randrange(3)

    async def stall(self) -> None:
        self.draw.choice(self.proxies).stall()

    async def heal(self) -> None:
        self.draw.choice(self.proxies).heal()

    async def reconnect(self) -> None:
        self.client.reconnect()

    async def leave_the_loop(self) -> None:
        """Leaves the loop and enters it again."""
        self.reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.reading
        self.reading = asyncio.ensure_future(self.read())

    async def wait(self) -> None:
        await pause(self.draw.randrange(40) / 1000)

    acts: list[Callable[["Schedule"], Awaitable[None]]] = [
        *[publish] * 12,
        *[cut] * 3,
        *[break_off] * 3,
        *[refuse] * 2,
        stall,
        *[heal] * 2,
        *[reconnect] * 2,
        *[leave_the_loop] * 2,
        *[wait] * 5,
    ]


async def run(first: int, last: int, with_kills: bool = False) -> None:
    """Runs schedules, several at once, with gateways on one Redis, or with one in memory."""
    args = [arg for n in range(AT_ONCE) for arg in ("--set", f"channels.lanes.every{n}=every")]
    # On a busy machine a slow append must not count as an outage, in which gateways would report what they
    # cannot know.
    args += ["--set", "storage.redis.ordering_deadline_ms=5000"]
    if NO_REDIS:
        gateways = [await Gateway.started("serve", "--storage", "memory", *args)]
    else:
        redis = await Redis.started()
        args += ["--storage", "redis", "--redis-url", redis.url]
        gateways = [await Gateway.started("serve", *args) for _ in range(2)]
    publishers = gateways[:1] if with_kills else gateways
    seeds = iter(range(first, last + 1))

    async def work(worker: int) -> None:
        for seed in seeds:
            await Schedule(seed, worker, gateways, publishers).run()

    async def kill() -> None:
        while True:
            await gateways[1].kill()
            await gateways[1].start()
            await pause(0.2)

    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(work(worker)) for worker in range(AT_ONCE)]
        if with_kills:
            killing = tasks.create_task(kill())
            await asyncio.wait(workers)
            killing.cancel()


@needs_gateway
@on(fast(100))
async def test_schedules_of_losses() -> None:
    await run(ONLY or 1, ONLY or SCHEDULES)


# Prices published at the killed gateway may or may not have been accepted, so they are published at the other
# one.
@needs_redis
@on(fast(100))
async def test_a_third_of_them_while_a_gateway_is_killed_and_started_again() -> None:
    await run(ONLY or 1, ONLY or -(-SCHEDULES // 3), with_kills=True)
