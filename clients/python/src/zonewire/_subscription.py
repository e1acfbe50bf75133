"""The entries of one channel."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, cast
from weakref import WeakSet

from . import wire
from ._events import Event
from ._status import ConnectionFailed, Status
from ._table import Table
from ._types import E, Gap, P, SubscriptionStatus

Message = dict[str, Any]

KEYED = ("price_update", "key_removed", "zone_removed")

QUEUE_MAX = 10_000
IDS_MAX = 10_000


class SubscriptionError(Exception):
    """The gateway refused or revoked a subscription."""

    def __init__(self, channel: str, code: str, message: str | None) -> None:
        super().__init__(f"{channel}: {message or code}")
        self.channel = channel
        self.code = code
        """As in the protocol, such as `invalid_channel` or `forbidden`."""


class Link(Protocol):
    """What a subscription needs of its connection."""

    def _request(self, kind: str, channel: str, more: Message) -> int | None:
        """Sends if connected, and returns the id of the request."""

    def _later(self, seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls a function after a delay."""
        ...

    def _is_degraded(self, channel: str) -> bool:
        """Whether the storage of the channel is degraded."""
        ...

    def _failure(self) -> Status | None:
        """The status with which the client gave up, if it did."""

    def _gone(self, channel: str) -> None:
        """The subscription has ended."""


class Entries(Generic[E]):
    """The entries of a channel from now on, and the gaps between them, for `async for`.

    It ends with its subscription. Reentering a loop with the same `Entries` continues where the loop was left, and
    cancelling a wait loses nothing. Only one task may wait at a time.

    Raises:
        SubscriptionError: the gateway refused or revoked the subscription.
        ConnectionFailed: the client has given up. The subscription remains: enter the loop again after
            `client.reconnect()`, and nothing is missed.
    """

    def __init__(self, subscription: "Subscription[E]", queue_max: int) -> None:
        self._subscription = subscription
        self._queue: deque[tuple[E | Gap, wire.Position | str | None]] = deque()
        self._queue_max = queue_max
        self._missed = 0
        self._wake: asyncio.Future[None] | None = None
        self.position = subscription.position
        """The position after the last item of the loop: store it in order to resume from here (`since`)."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | Gap:
        while True:
            if self._missed:
                missed, self._missed = self._missed, 0
                return {
                    "type": "gap",
                    "channel": self._subscription.channel,
                    "missed": missed,
                    "snapshot": False,
                    "reason": "reader",
                }
            if self._queue:
                item, self.position = self._queue.popleft()
                return item
            self._subscription._raise_if_over()
            if self._wake:
                raise RuntimeError("another task waits for these entries")
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def _put(self, item: E | Gap, position: wire.Position | str | None) -> None:
        self._queue.append((item, position))
        if len(self._queue) > self._queue_max:
            first = cast(Message, self._queue.popleft()[0])
            self._missed += first.get("missed", 1) if first["type"] == "gap" else 1
        self._rouse()

    def _rouse(self) -> None:
        if self._wake and not self._wake.done():
            self._wake.set_result(None)


class Subscription(Generic[E]):
    """The entries of one channel, each once and in order, over any number of connections.

    Made by `client.zone`, `client.order` or `client.subscribe`. `async for` yields entries from when the loop began
    (see `Entries`); leaving the loop does not end the subscription. Handlers are called in the order of events,
    must not block, and may raise, which is logged.

    As a context manager it is closed at the end.
    """

    def __init__(
        self, link: Link, channel: str, since: wire.Position | str | None, snapshot: bool | None, ids_max: int
    ) -> None:
        self.channel = channel
        """The channel's name."""
        self._link = link
        self._position: wire.Position | str | None = since
        self._wants_snapshot = since is None if snapshot is None else snapshot
        self._status: SubscriptionStatus = "waiting"
        self._table: Table[Any] = Table()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._ids_max = ids_max
        self._readers: WeakSet[Entries[E]] = WeakSet()
        self._request: int | None = None
        self._is_here = False  # subscribed on this connection
        self._may_repeat = False  # received entries may arrive again
        self._begun: set[str] | None = None  # keys received so far in the current snapshot
        self._is_behind = False
        self._ended: tuple[str | None, str | None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._entry: Event[E, wire.Position] = Event()
        self._gap: Event[Gap] = Event()
        self._changed: Event[SubscriptionStatus] = Event()
        self._message: Event[wire.Subscribed | wire.Resync | wire.SnapshotEnd | wire.CaughtUp] = Event()
        self._error: Event[wire.ErrorMessage] = Event()
        self._end_of: Event[str | None, str | None] = Event()

    # What it reports

    @property
    def status(self) -> SubscriptionStatus:
        """The state of the subscription."""
        return self._status

    @property
    def position(self) -> wire.Position | str | None:
        """The position after the last entry that all handlers have received. Loops have their own `position`."""
        return self._position

    @property
    def degraded(self) -> bool:
        """Whether the channel's storage is degraded: entries published at other gateways may arrive late."""
        return self._link._is_degraded(self.channel)

    def on_entry(self, handler: Callable[[E, wire.Position], object]) -> Callable[[], None]:
        """Calls a handler with each entry, and the position after it, from which the channel can be resumed.

        Returns:
            A function that removes the handler, as for all `on_` methods.
        """
        return self._entry.add(handler)

    def on_gap(self, handler: Callable[[Gap], object]) -> Callable[[], None]:
        """Calls a handler when entries are missing."""
        return self._gap.add(handler)

    def on_status(self, handler: Callable[[SubscriptionStatus], object]) -> Callable[[], None]:
        """Calls a handler for each change of `status`."""
        return self._changed.add(handler)

    def on_message(
        self, handler: Callable[[wire.Subscribed | wire.Resync | wire.SnapshotEnd | wire.CaughtUp], object]
    ) -> Callable[[], None]:
        """Calls a handler with the raw messages about the channel, for programs that maintain their own table.

        With `snapshot` the channel starts over, until `snapshot_end`.
        """
        return self._message.add(handler)

    def on_error(self, handler: Callable[[wire.ErrorMessage], object]) -> Callable[[], None]:
        """Calls a handler for an error after which the subscription remains and is retried."""
        return self._error.add(handler)

    def on_end(self, handler: Callable[[str | None, str | None], object]) -> Callable[[], None]:
        """Calls a handler at the end, with the gateway's code and message; without a code if it was closed here."""
        return self._end_of.add(handler)

    def entries(self, *, queue_max: int = QUEUE_MAX) -> Entries[E]:
        """The entries from now on, for `async for`.

        Args:
            queue_max: how many items may wait for a slow loop. Beyond that the oldest are dropped, which the loop
                sees as a gap.
        """
        reader = Entries(self, queue_max)
        self._readers.add(reader)
        return reader

    def __aiter__(self) -> Entries[E]:
        return self.entries()

    def close(self) -> None:
        """Ends the subscription."""
        if self._request is not None:
            self._link._request("unsubscribe", self.channel, {})
        self._end(None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.channel} {self._status}>"

    # What the connection calls

    def _raise_if_over(self) -> None:
        if self._ended:
            code, message = self._ended
            if code and code != "finished":
                raise SubscriptionError(self.channel, code, message)
            raise StopAsyncIteration
        if failure := self._link._failure():
            raise ConnectionFailed(failure)

    def _rouse(self) -> None:
        for reader in list(self._readers):
            reader._rouse()

    def _begin(self) -> None:
        more: Message = {"snapshot": self._wants_snapshot}
        if self._position is not None:
            more["since"] = {self.channel: self._position}
        self._request = self._link._request("subscribe", self.channel, more)

    def _lost(self) -> None:
        self._request = None
        self._is_here = False
        self._stop_waiting()
        self._say("waiting")

    def _forget(self, now: float) -> None:
        self._table.forget(now)

    def _asks(self, request: object) -> bool:
        return self._request is not None and request == self._request

    def _end(self, code: str | None, message: str | None) -> None:
        if self._ended:
            return
        self._ended = code, message
        self._request = None
        self._is_here = False
        self._stop_waiting()
        self._link._gone(self.channel)
        self._say("ended")
        self._rouse()
        self._end_of.tell(code, message)

    def _stop_waiting(self) -> None:
        if self._again:
            self._again.cancel()
            self._again = None

    def _say(self, status: SubscriptionStatus) -> None:
        if status != self._status:
            self._status = status
            self._changed.tell(status)

    def _read(self, item: E | Gap, position: wire.Position | str | None) -> None:
        for reader in list(self._readers):
            reader._put(item, position)

    def _miss(self, missed: int | None = None, snapshot: bool = False) -> None:
        gap: Gap = {"type": "gap", "channel": self.channel, "snapshot": snapshot, "reason": "log"}
        if missed is not None:
            gap["missed"] = missed
        self._read(gap, self._position)
        self._gap.tell(gap)

    def _take(self, message: Message) -> None:
        """Processes a message about this channel."""
        kind = message["type"]
        if kind == "error":
            self._take_error(message)
            return
        if kind == "subscribed":
            if message.get("id") != self._request:
                return
            self._is_here = True
            self._is_behind = message.get("top") != message["offset"]
            if not message.get("snapshot"):
                self._begun = None
        elif not self._is_here:
            return  # of an earlier subscription
        if kind == "unsubscribed":
            if "code" in message:
                self._end(message["code"], message.get("message"))
        elif kind in ("subscribed", "resync", "snapshot_end"):
            self._move(kind, message)
        elif kind == "caught_up":
            self._is_behind = False
            self._message.tell(cast(wire.CaughtUp, message))
        elif "offset" in message:
            self._enter(message)
        if self._is_here:
            self._say("live" if self._begun is None and not self._is_behind else "catching_up")

    def _take_error(self, message: Message) -> None:
        if not message.get("temporary"):
            self._request = None
            retry_after_ms = message.get("retry_after_ms")
            if not retry_after_ms:
                self._end(message["code"], message.get("message"))
                return
            self._again = self._link._later(retry_after_ms / 1000, self._begin)
        self._error.tell(cast(wire.ErrorMessage, message))

    def _move(self, kind: str, message: Message) -> None:
        """The channel continues at another position."""
        recovered, snapshot = message["recovered"], bool(message.get("snapshot"))
        self._position = {"epoch": message["epoch"], "offset": message["offset"]}
        self._may_repeat = not recovered
        if kind == "snapshot_end":
            if recovered and self._begun is not None:
                self._table.keep(self._begun)
            self._begun = None
        else:
            # If a snapshot is cut short and another follows, no more is missing than before.
            if not recovered and not (self._begun is not None and snapshot):
                self._miss(message.get("gap"), snapshot)
            if snapshot:
                self._begun = set()
                self._ids.clear()
        self._message.tell(cast(wire.Resync, message))

    def _enter(self, entry: Message) -> None:
        snapshot = entry.get("snapshot")
        place = cast(wire.Position, self._position)
        after: wire.Position = place if snapshot else {"epoch": place["epoch"], "offset": entry["offset"]}
        name = entry.get("id")
        if not (self._may_repeat and name in self._ids):
            if name is not None:
                self._ids[name] = None
                if len(self._ids) > self._ids_max:
                    self._ids.popitem(last=False)
            if entry.get("missedBefore") and not snapshot:
                self._miss()
            if entry["type"] in KEYED:
                self._table.take(entry)
                if self._begun is not None:
                    self._begun.add(entry.get("key", ""))
            item = cast(E, entry)
            self._read(item, after)
            self._entry.tell(item, after)
        self._position = after  # only now: all handlers have received everything before it


class ZoneSubscription(Subscription[P | wire.KeyRemoved | wire.ZoneRemoved | wire.Skipped], Generic[P]):
    """The entries of a zone, and the latest price of each of its keys."""

    def latest(self) -> Mapping[str, P]:
        """The latest price of each key. The same mapping is returned until something changes.

        With a snapshot, as by default, it is complete once `status` was `live`, and stays so: later entries are
        merged, late ones and removals included. Without a connection it keeps its last contents.
        """
        return self._table.prices()
