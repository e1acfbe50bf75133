"""A connection to a gateway that is restored whenever it is lost."""

import asyncio
import inspect
import json
import logging
import random as _random
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from ssl import SSLContext
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, cast, overload
from urllib.parse import urlsplit, urlunsplit

from . import wire
from ._events import Event, logger
from ._http import Answer, request
from ._socket import websocket
from ._status import ATTEMPTS_MAX, ConnectionFailed, Status, delay_s, describe, is_final
from ._subscription import IDS_MAX, Message, Subscription, ZoneSubscription
from ._table import seconds
from ._types import Closed, Dial, EventEntry, EventType, OrderEntry, P, Refused, RegistryEntry, Socket, State

STABLE_S = 5.0  # after this long, a connection's loss starts with the first attempt again
SENDS_MAX = 1_024  # messages that may wait for the socket, in addition to one per subscription

S = TypeVar("S", bound=Subscription[Any])
Own = TypeVar("Own")
OwnPrice = TypeVar("OwnPrice", bound=wire.PriceUpdate | wire.DecimalPriceUpdate)

Url: TypeAlias = str | Sequence[str] | Callable[[], str | Awaitable[str]]
"""The gateways: an address (`https://host`, `wss://host/base`); several addresses, which successive attempts use in
turn; or a function that is called for each attempt."""

Token: TypeAlias = str | Callable[[], str | None | Awaitable[str | None]] | None
"""The credential: a token, or a function that is called for each attempt and each renewal; None for anonymous
access."""


def _address(url: str) -> str:
    """The HTTP address, without a trailing slash."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an address: {url}")
    if "@" in parts.netloc:
        raise ValueError("an address must not contain a user: use a token")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _refuse(constant: str) -> None:
    raise ValueError(f"not a number of JSON: {constant}")


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


class Client(Generic[P]):
    """A connection to a gateway that is restored whenever it is lost; made by `connect`.

    As an async context manager it is closed at the end.
    """

    def __init__(
        self,
        url: Url,
        token: Token,
        decimals: bool,
        ssl: SSLContext | None,
        connect_timeout_s: float,
        slow_retry_s: float | None,
        text: Callable[[Status], str],
        random: Callable[[], float],
        dial: Dial | None,
    ) -> None:
        self._urls = url if callable(url) else [_address(one) for one in ([url] if isinstance(url, str) else url)]
        if not self._urls:
            raise ValueError("there is no address")
        self._attempts = self._requests_made = 0  # each uses the next address
        self._token = token
        self._decimals = decimals
        self._decode = json.JSONDecoder(parse_float=Decimal if decimals else None, parse_constant=_refuse).decode
        self._ssl = ssl
        self._connect_timeout_s = connect_timeout_s
        self._slow_retry_s = slow_retry_s
        self._text = text
        self._random = random
        self._dial = dial or websocket(ssl)
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, Subscription[Any]] = {}
        self._status = Status("closed")
        self._backend: wire.ConnectionEstablished | wire.BackendStateMessage | None = None
        self._base: str | None = None  # of the connected gateway
        self._socket: Socket | None = None
        self._is_open = False  # the gateway has greeted
        self._will_retry = False  # after it has failed
        self._run = 0  # number of the attempt; events of earlier ones are ignored
        self._attempt = 0
        self._opened_at = 0.0
        self._heard_at = self._loop.time()
        self._is_quiet = False  # nothing has arrived since the heartbeat request
        self._interval_s = 0.0
        self._ahead_s: float | None = None  # how far this clock is ahead of the gateway's
        self._closing: tuple[int, str, float] | None = None  # code, reason, when to reconnect
        self._timer: asyncio.TimerHandle | None = None
        self._requests = 0
        self._renewal: int | None = None
        self._sends: asyncio.Queue[str] = asyncio.Queue()
        self._ours: list[asyncio.Task[None]] = []  # tasks of this connection
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed: Event[Status] = Event()
        self._backend_changed: Event[wire.ConnectionEstablished | wire.BackendStateMessage] = Event()
        self._error: Event[str, str] = Event()
        self._message: Event[wire.ServerMessage] = Event()
        self._open()

    # What it reports

    @property
    def status(self) -> Status:
        """The state of the connection."""
        return self._status

    @property
    def backend(self) -> wire.ConnectionEstablished | wire.BackendStateMessage | None:
        """The state of the gateway's storage, as last reported."""
        return self._backend

    @property
    def subscriptions(self) -> Mapping[str, Subscription[Any]]:
        """The current subscriptions, by channel."""
        return MappingProxyType(self._held)

    def on_state(self, handler: Callable[[Status], object]) -> Callable[[], None]:
        """Calls a handler once for each change of `status`.

        Returns:
            A function that removes the handler, as for all `on_` methods.
        """
        return self._changed.add(handler)

    def on_backend(
        self, handler: Callable[[wire.ConnectionEstablished | wire.BackendStateMessage], object]
    ) -> Callable[[], None]:
        """Calls a handler with the state of the gateway's storage: once connected to a gateway, and when it
        changes."""
        return self._backend_changed.add(handler)

    def on_error(self, handler: Callable[[str, str], object]) -> Callable[[], None]:
        """Calls a handler with the code and message of an error after which the connection continues.

        The code is as in the protocol, or `token_unavailable` if the provider returned none for a renewal.
        """
        return self._error.add(handler)

    def on_message(self, handler: Callable[[wire.ServerMessage], object]) -> Callable[[], None]:
        """Calls a handler with every message of the gateway, before it is processed."""
        return self._message.add(handler)

    def silent_s(self) -> float:
        """For how many seconds nothing has arrived from the gateway."""
        return self._loop.time() - self._heard_at

    def age_s(self, entry: Mapping[str, Any]) -> float:
        """How old an entry is by the gateway's clock, in seconds; this machine's clock may be wrong."""
        now = time.time() if self._ahead_s is None else self._loop.time() - self._ahead_s
        return now - seconds(entry["timestamp"])

    # What can be requested

    @overload
    def zone(
        self,
        zone: str,
        *,
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> ZoneSubscription[P]: ...

    @overload
    def zone(
        self,
        zone: str,
        *,
        price: type[OwnPrice],
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> ZoneSubscription[OwnPrice]: ...

    def zone(
        self,
        zone: str,
        *,
        price: Any = None,
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> ZoneSubscription[Any]:
        """Follows a zone. This and `order` may be called at any time, even without a connection.

        Args:
            zone: the zone's name.
            price: a subclass of `PriceUpdate` (or `DecimalPriceUpdate`) with the fields that the zone's publisher
                adds; for type checkers only.
            since: resumes from a stored position; `latest()` then has only the entries after it.
            snapshot: begins with the latest entry of each key, also in place of entries that are gone. Default:
                true, and with `since` false.
            ids_max: how many ids of entries are remembered, to recognize repeated entries when the gateway cannot.
                The default, 10,000, is the size of a log and takes about 1.5 MB; 0 if only `latest()` matters.

        Raises:
            ValueError: the zone is subscribed to already (see `subscriptions`).
            RuntimeError: the client is closed.
        """
        return self._hold(ZoneSubscription(self, f"zone:{zone}", since, snapshot, ids_max))

    def order(
        self, order_id: str, *, since: wire.Position | str | None = None, ids_max: int = IDS_MAX
    ) -> Subscription[OrderEntry]:
        """Follows an order from its first update; the subscription ends some seconds after the last one."""
        return self._hold(Subscription[OrderEntry](self, f"order:{order_id.lower()}", since, False, ids_max))

    def event(
        self,
        type: EventType,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        interval: str | None = None,
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> Subscription[EventEntry]:
        """Follows events of a type, or only those of an exchange, a symbol, or an interval of candles.

        The gateway sends only these; offsets skip all others, which is not a gap. Otherwise as `zone`.
        """
        names = [exchange] if type.startswith("exchange:") else [exchange, symbol]
        if type == "candle":
            names.append(interval)
        pattern = ":" + ":".join(name or "*" for name in names) if any(names) else ""
        return self._hold(Subscription[EventEntry](self, f"event:{type}{pattern}", since, snapshot, ids_max))

    def registry(
        self,
        name: Literal["providers", "active-orders"],
        *,
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> Subscription[RegistryEntry]:
        """Follows a registry; with a snapshot, which is the default, its current records come first."""
        return self._hold(Subscription[RegistryEntry](self, f"registry:{name}", since, snapshot, ids_max))

    @overload
    def subscribe(
        self,
        channel: str,
        *,
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> Subscription[wire.Entry]: ...

    @overload
    def subscribe(
        self,
        channel: str,
        *,
        entry: type[Own],
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> Subscription[Own]: ...

    def subscribe(
        self,
        channel: str,
        *,
        entry: Any = None,
        since: wire.Position | str | None = None,
        snapshot: bool | None = None,
        ids_max: int = IDS_MAX,
    ) -> Subscription[Any]:
        """Follows a channel by its name, for example of a kind that only a newer gateway has.

        `entry` is the type of its entries, for type checkers only; otherwise as `zone`.
        """
        name = channel.lower() if channel.startswith("order:") else channel  # the form that gateways use
        return self._hold(Subscription(self, name, since, snapshot, ids_max))

    def send(self, message: wire.ClientMessage | Mapping[str, Any]) -> bool:
        """Sends a message now. False if there is no connection: messages are not stored for later."""
        if not self._is_open:
            return False
        if self._sends.qsize() >= SENDS_MAX + len(self._held):
            self._lose(1006, "the gateway accepts nothing")
            return False
        self._sends.put_nowait(json.dumps(message))
        return True

    async def opened(self) -> None:
        """Waits until there is a connection.

        Raises:
            ConnectionFailed: the client has given up, or is closed.
        """
        changed: asyncio.Future[None] = self._loop.create_future()
        remove = self.on_state(lambda _: None if changed.done() else changed.set_result(None))
        try:
            while not self._is_open:
                if self._status.state == "closed" or self._failure():
                    raise ConnectionFailed(self._status)
                await changed
                changed = self._loop.create_future()
        finally:
            remove()

    def reconnect(self) -> None:
        """Reconnects at once, with a full set of attempts: for the user's "Reconnect now"."""
        if self._status.state != "closed":
            self._attempt = 0
            self._open()

    def close(self) -> None:
        """Ends all subscriptions and the connection permanently. `wait_closed` waits for completion."""
        if self._status.state == "closed":
            return
        for one in list(self._held.values()):
            one._end(None, None)
        self._leave()
        self._attempt = 0
        self._say("closed", code=1000)

    async def wait_closed(self) -> None:
        """Waits until everything is closed: at most two seconds, whatever the gateway does."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._base or ''} {self._status.state}>"

    # For requests over HTTP

    async def address(self) -> str:
        """The HTTP address, without a trailing slash; of the connected gateway, if any."""
        if self._is_open and self._base:
            return self._base
        self._requests_made += 1
        return await self._address(self._requests_made)

    async def _address(self, turn: int) -> str:
        if callable(self._urls):
            url = self._urls()
            return _address(await url if inspect.isawaitable(url) else url)
        return self._urls[(turn - 1) % len(self._urls)]

    async def token(self) -> str | None:
        """A fresh token from the provider."""
        token = self._token() if callable(self._token) else self._token
        token = (await token if inspect.isawaitable(token) else token) or None
        if token and not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ValueError("the token has characters that are invalid in a header")
        return token

    async def _ask(
        self,
        base: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        on_sending: Callable[[], None] = lambda: None,
    ) -> Answer:
        if token := await self.token():
            headers = {**headers, "Authorization": f"Bearer {token}"}
        return await request(base, method, path, headers=headers, body=body, ssl=self._ssl, on_sending=on_sending)

    # What subscriptions need

    def _request(self, kind: str, channel: str, more: Message) -> int | None:
        self._requests += 1
        message = {"type": kind, "id": self._requests, "channels": [channel], **more}
        return self._requests if self.send(message) else None

    def _later(self, seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, then)

    def _is_degraded(self, channel: str) -> bool:
        backend = cast(Message | None, self._backend)
        if backend is None or backend["state"] == "healthy":
            return False
        if backend.get("scope") != "some" or backend.get("more_channels"):
            return True
        return channel in backend.get("channels", [])

    def _failure(self) -> Status | None:
        return self._status if self._status.state == "failed" and not self._will_retry else None

    def _gone(self, channel: str) -> None:
        self._held.pop(channel, None)

    def _hold(self, one: S) -> S:
        if self._status.state == "closed":
            raise RuntimeError("the client is closed")
        if one.channel in self._held:
            raise ValueError(f"{one.channel} is subscribed to already")
        self._held[one.channel] = one
        one._begin()
        return one

    # The connection

    def _say(
        self,
        state: State,
        code: int | None = None,
        reason: str | None = None,
        retry_in_s: float | None = None,
    ) -> None:
        attempt = 0 if state == "open" else self._attempt
        status = Status(state, attempt, ATTEMPTS_MAX, code, reason, retry_in_s)
        try:
            message = self._text(status)
        except Exception:
            logger.exception("the text of a status failed")
            message = describe(status)
        self._status = Status(state, attempt, ATTEMPTS_MAX, code, reason, retry_in_s, message)
        level = logging.WARNING if state in ("waiting", "failed") else logging.INFO
        logger.log(level, "%s", self._status.in_full())
        self._changed.tell(self._status)

    def _tell_error(self, code: str, message: str) -> None:
        logger.warning("%s: %s", code, message)
        self._error.tell(code, message)

    def _arm(self, seconds: float, then: Callable[[], None], is_deadline: bool = False) -> None:
        """Sets the only timer. A deadline that is overdue, as after the loop was blocked, is extended by a second
        so that messages that have arrived meanwhile are processed first."""
        if self._timer:
            self._timer.cancel()
        due = self._loop.time() + seconds

        def ring() -> None:
            if is_deadline and self._loop.time() - due >= 1:
                self._arm(1, then)
            else:
                then()

        self._timer = self._loop.call_later(seconds, ring)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _leave(self) -> bool:
        """Abandons the socket and its tasks. False if a handler has started a new attempt meanwhile."""
        self._run += 1
        run = self._run
        socket, self._socket = self._socket, None
        ours, self._ours = self._ours, []
        self._closing = self._renewal = None
        self._is_open = self._will_retry = False
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for task in ours:
            task.cancel()
        if socket:
            self._spawn(socket.close())
        for one in list(self._held.values()):
            one._lost()
        return run == self._run

    def _lose(self, code: int, reason: str, *, after_s: float = 0, final: bool = False) -> None:
        told_code, told_reason, told_s = self._closing or (code, reason, 0.0)
        if code in (1005, 1006):
            code, reason = told_code, told_reason
        if self._is_open and self._loop.time() - self._opened_at >= STABLE_S:
            self._attempt = 0
        if not self._leave():
            return
        if final or (is_final(code) and not (code == 4501 and callable(self._token))):
            self._fail(code, reason)
        elif self._attempt < ATTEMPTS_MAX:
            self._attempt += 1
            wait_s = told_s or max(after_s, delay_s(self._attempt, self._random))
            self._arm(wait_s, self._open)
            self._say("waiting", code, reason, wait_s)
        else:
            if self._slow_retry_s is not None:
                self._will_retry = True
                self._arm(told_s or max(after_s, self._slow_retry_s + self._random()), self._open)
            self._fail(code, reason)

    def _fail(self, code: int, reason: str) -> None:
        self._say("failed", code, reason)
        for one in list(self._held.values()):
            one._rouse()

    def _open(self) -> None:
        if not self._leave():
            return
        run = self._run
        self._arm(self._connect_timeout_s, lambda: self._lose(1006, "timed out"), True)
        self._say("connecting")
        if run == self._run:
            self._ours = [self._spawn(self._connect())]

    async def _connect(self) -> None:
        """Makes one attempt, and runs the resulting connection to its end."""
        run = self._run
        try:
            self._attempts += 1
            base = await self._address(self._attempts)
            token = await self.token()
            socket = await self._dial(f"ws{base.removeprefix('http')}/ws", token)
        except Refused as answer:
            status = answer.status
            if run != self._run:
                return
            if status == 401:
                self._lose(4501, answer.reason or "unauthorized")
            else:
                reason = f"HTTP {status} {answer.reason}".strip()
                refused = 400 <= status < 500 and status != 429
                self._lose(1006, reason, after_s=answer.retry_after_s or 0, final=refused)
            return
        except Exception as error:
            if run == self._run:
                self._lose(1006, _why(error))
            return
        if run != self._run:  # the address or token function has reconnected or closed the client
            self._spawn(socket.close())
            return
        self._base = base
        self._socket = socket
        self._sends = asyncio.Queue()
        self._ours.append(self._spawn(self._write(socket, self._sends)))
        try:
            while self._socket is socket:
                text = await socket.recv()
                if self._socket is socket:
                    self._receive(text)
        except Closed as closed:
            if self._socket is socket:
                self._lose(closed.code, closed.reason)
        except Exception as error:
            if self._socket is socket:
                self._lose(1006, _why(error))

    async def _write(self, socket: Socket, sends: asyncio.Queue[str]) -> None:
        try:
            while True:
                await socket.send(await sends.get())
        except Exception as error:
            # The reading task notices the end too, with its code.
            logger.debug("cannot send: %s", _why(error))

    def _receive(self, text: str) -> None:
        self._heard_at = self._loop.time()
        self._is_quiet = False
        try:
            message = self._decode(text)
        except (ValueError, RecursionError):
            self._lose(1006, "not JSON")
            return
        run = self._run
        try:
            if self._decimals:
                _exact(message)
            self._take(message)
        except (LookupError, TypeError, ValueError, AttributeError):
            logger.exception("the gateway sent a message outside the protocol")
            if run == self._run:
                self._lose(1006, "not of this protocol")

    def _watch(self) -> None:
        """Checks for silence by the clock, since a blocked loop runs timers late."""
        left_s = 2 * self._interval_s - self.silent_s()
        if left_s > 0:
            self._arm(left_s, self._watch)
        else:
            self._is_quiet = True
            self.send({"type": "heartbeat"})
            self._arm(
                self._interval_s / 2,
                lambda: self._lose(1006, "silence") if self._is_quiet else self._watch(),
                True,
            )

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                token = await self.token()
        except Exception as error:
            self._tell_error("token_unavailable", _why(error))
            return
        if token:
            self._requests += 1
            self._renewal = self._requests
            self.send({"type": "auth", "id": self._renewal, "token": token})

    def _take(self, message: Message) -> None:
        run = self._run
        self._message.tell(cast(wire.ServerMessage, message))
        if run != self._run:
            return
        kind, request = message["type"], message.get("id")
        if kind in ("connection_established", "heartbeat"):
            ahead_s = self._heard_at - seconds(message["timestamp"])
            is_nearer = self._ahead_s is None or not self._is_open or ahead_s < self._ahead_s
            self._ahead_s = ahead_s if is_nearer else self._ahead_s
        if kind == "connection_established":
            self._greet(message)
        elif kind == "backend_state":
            self._backend = cast(wire.BackendStateMessage, message)
            self._backend_changed.tell(self._backend)
        elif kind == "closing":
            after_s = max(0, message.get("retry_after_ms") or 0) / 1000
            self._closing = int(message["code"]), str(message.get("reason", "")), after_s
        elif kind == "heartbeat":
            for one in self._held.values():
                one._forget(seconds(message["timestamp"]))
        elif kind == "token_expiring":
            if callable(self._token):
                self._ours.append(self._spawn(self._renew()))
        elif kind == "error":
            asked = next((one for one in self._held.values() if one._asks(request)), None)
            if asked:
                asked._take(message)
            elif request is None or request == self._renewal:
                self._tell_error(message["code"], message.get("message", ""))
        elif (of := self._held.get(message.get("channel", ""))) is not None:
            of._take(message)

    def _greet(self, message: Message) -> None:
        if message.get("authentication") == "required" and not message.get("subject"):
            self._lose(4501, "unauthorized")
            return
        run = self._run
        self._backend = cast(wire.ConnectionEstablished, message)
        self._opened_at = self._heard_at
        self._interval_s = message["heartbeat_interval_ms"] / 1000
        self._is_open = True
        self._watch()
        for one in list(self._held.values()):
            one._begin()
        self._say("open")
        if run == self._run:
            self._backend_changed.tell(self._backend)


def _exact(message: Message) -> None:
    """In prices every number becomes a Decimal, even without a fraction; an order's progress does not."""
    if message["type"] == "price_update":
        for field in wire.PRICEUPDATE_DECIMALS:
            if type(message.get(field)) is int:
                message[field] = Decimal(message[field])
    elif isinstance(message.get("progress"), Decimal):
        message["progress"] = float(message["progress"])


@overload
def connect(
    url: Url,
    *,
    token: Token = None,
    decimals: Literal[False] = False,
    ssl: SSLContext | None = None,
    connect_timeout_s: float = 10,
    slow_retry_s: float | None = None,
    text: Callable[[Status], str] = describe,
    random: Callable[[], float] = _random.random,
    dial: Dial | None = None,
) -> Client: ...


@overload
def connect(
    url: Url,
    *,
    token: Token = None,
    decimals: Literal[True],
    ssl: SSLContext | None = None,
    connect_timeout_s: float = 10,
    slow_retry_s: float | None = None,
    text: Callable[[Status], str] = describe,
    random: Callable[[], float] = _random.random,
    dial: Dial | None = None,
) -> Client[wire.DecimalPriceUpdate]: ...


def connect(
    url: Url,
    *,
    token: Token = None,
    decimals: bool = False,
    ssl: SSLContext | None = None,
    connect_timeout_s: float = 10,
    slow_retry_s: float | None = None,
    text: Callable[[Status], str] = describe,
    random: Callable[[], float] = _random.random,
    dial: Dial | None = None,
) -> Client[Any]:
    """Connects to a gateway, and keeps the connection up. Needs a running loop, and returns at once.

    Args:
        url: the gateway's address (`https://host`, `wss://host/base`); several addresses, which successive attempts
            use in turn; or a function, async or not, that is called for each attempt.
        token: the credential. A function, async or not, is called for each attempt and each renewal.
        decimals: numbers with a fraction, and all named numbers of prices, become `decimal.Decimal`, which keeps
            the publisher's digits. Otherwise they are `float`.
        ssl: the certificates to trust and to show over TLS, if not the default ones.
        connect_timeout_s: how long an attempt may take, from the address and token to the gateway's greeting.
        slow_retry_s: after the last attempt, try again this often, indefinitely; 60 is a good value. Default:
            never.
        text: makes the sentence for the user, instead of `describe`.
        random: a number from 0 to 1.
        dial: opens sockets, for tests and for other transports.

    Raises:
        ValueError: the address is invalid.
        RuntimeError: there is no running loop.
    """
    return Client(url, token, decimals, ssl, connect_timeout_s, slow_retry_s, text, random, dial)
