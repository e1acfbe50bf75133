"""An in-process gateway that a test controls, and that records what it receives."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cleanup import clients
from loops import VirtualLoop

from zonewire import Client, Closed, Status, Subscription, connect

Message = dict[str, Any]

BEGAN = datetime(2026, 11, 21, 3, 40, 47, tzinfo=UTC).timestamp()


async def settle() -> None:
    """Runs everything that is ready."""
    for _ in range(12):
        await asyncio.sleep(0)


async def advance(seconds: float) -> None:
    """Lets time pass, and timers run when they are due."""
    await settle()
    await asyncio.sleep(seconds)
    await settle()


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


def at(seconds: float = 0) -> str:
    """The time this many seconds from now, by a clock that the gateway and the test share."""
    time = datetime.fromtimestamp(BEGAN + asyncio.get_running_loop().time() + seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class FakeSocket:
    def __init__(self, gateway: "FakeGateway", url: str, token: str | None) -> None:
        self.gateway, self.url, self.token = gateway, url, token
        self.sent: list[Message] = []
        self.is_closed = False
        self.takes = True  # whether it accepts messages
        self._received: asyncio.Queue[str | Closed] = asyncio.Queue()

    # The client's side

    async def recv(self) -> str:
        item = await self._received.get()
        if isinstance(item, Closed):
            raise item
        return item

    async def send(self, text: str) -> None:
        if not self.takes:
            await asyncio.get_running_loop().create_future()
        message = json.loads(text)
        self.sent.append(message)
        if self.gateway.answer:
            self.gateway.answer(message, self)

    async def close(self) -> None:
        self.is_closed = True

    # The test's side

    def put(self, text: str) -> None:
        self._received.put_nowait(text)

    async def say(self, *messages: Message) -> None:
        for message in messages:
            self.put(json.dumps(message))
        await settle()

    async def greet(self, **more: Any) -> None:
        await self.say(
            {
                "type": "connection_established",
                "connection_id": "c",
                "storage_backend": "in-memory",
                "state": "healthy",
                "heartbeat_interval_ms": 30_000,
                "protocol": 1,
                "timestamp": at(),
                **more,
            }
        )

    async def drop(self, code: int = 1006, reason: str = "") -> None:
        """The other side ends the connection."""
        self._received.put_nowait(Closed(code, reason))
        await settle()

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.sent if message["type"] == kind]


class FakeGateway:
    """The test decides its messages about channels, except for those that are the same in every test."""

    def __init__(self) -> None:
        self.sockets: list[FakeSocket] = []
        self.answer: Callable[[Message, FakeSocket], None] | None = None
        self.dials: list[BaseException | None] = []
        """The results of the next attempts: no answer at all (None), or an error."""

    @property
    def socket(self) -> FakeSocket:
        return self.sockets[-1]

    async def dial(self, url: str, token: str | None) -> FakeSocket:
        if self.dials:
            outcome = self.dials.pop(0)
            if outcome:
                raise outcome
            await asyncio.get_running_loop().create_future()
        self.sockets.append(FakeSocket(self, url, token))
        return self.socket

    def subscribes(self, **more: Any) -> None:
        """Answers each `subscribe` like a log without further entries."""

        def answer(message: Message, socket: FakeSocket) -> None:
            kind = message["type"]
            if kind == "heartbeat":
                socket.put(json.dumps({"type": "heartbeat_ack", "timestamp": at()}))
            for channel in message.get("channels", []):
                told = {"type": kind + "d", "id": message["id"], "channel": channel}
                if kind == "subscribe":
                    since = message.get("since", {}).get(channel, {"epoch": "e1", "offset": 0})
                    told |= {**since, "top": since["offset"], "recovered": True, "gap": 0, **more}
                socket.put(json.dumps(told))

        self.answer = answer


class SetUp:
    """A client of a fake gateway, and everything that it reported."""

    def __init__(self, url: Any = "https://gateway.test", **options: Any) -> None:
        self.gateway = FakeGateway()
        self.client: Client = connect(url, **{"dial": self.gateway.dial, "random": lambda: 0.5, **options})
        clients.append(self.client)
        self.states: list[Status] = [self.client.status]
        self.client.on_state(self.states.append)

    @property
    def said(self) -> list[str]:
        return [status.state for status in self.states]

    @property
    def socket(self) -> FakeSocket:
        return self.gateway.socket


async def greeted(**options: Any) -> SetUp:
    it = SetUp(**options)
    await settle()
    await it.socket.greet()
    return it


async def subscribed(socket: FakeSocket, **more: Any) -> None:
    """Answers the newest `subscribe`."""
    await settle()
    request = socket.of("subscribe")[-1]
    told = {"epoch": "e1", "offset": 0, "top": 0, "recovered": True, "gap": 0}
    told |= {key: value for key, value in more.items() if value is not None}
    for gone in (key for key, value in more.items() if value is None):
        told.pop(gone, None)
    await socket.say({"type": "subscribed", "id": request["id"], "channel": request["channels"][0], **told})


def price(offset: int, **more: Any) -> Message:
    """The entry of a zone with this offset; fields that are None are left out."""
    entry = {
        "type": "price_update",
        "channel": "zone:pjm",
        "offset": offset,
        "id": f"g1-{offset}",
        "timestamp": "2026-11-21T03:40:47.388Z",
        "key": "WESTERN HUB",
        "price": offset,
        **more,
    }
    return {key: value for key, value in entry.items() if value is not None}


def listen(sub: Subscription[Any]) -> list[Any]:
    """Everything that a subscription reports, in order: offsets, gaps, and its end."""
    heard: list[Any] = []
    sub.on_entry(lambda entry, _: heard.append(entry["offset"]))
    sub.on_gap(heard.append)
    sub.on_end(lambda code, message: heard.append((code, message)))
    return heard


def kinds(heard: list[Any]) -> list[Any]:
    """The same, with only the word `gap` for each gap."""
    return [one["type"] if isinstance(one, dict) else one for one in heard]
