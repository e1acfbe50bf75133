"""Types that are not wire types."""

from typing import TYPE_CHECKING, Literal, NotRequired, Protocol, TypeAlias, TypedDict

from . import wire

if TYPE_CHECKING:  # type checkers include these; at run time, defaults of type variables need Python 3.13
    from typing_extensions import TypeVar

    P = TypeVar("P", bound=wire.PriceUpdate | wire.DecimalPriceUpdate, default=wire.PriceUpdate)
    E = TypeVar("E", default=wire.Entry)
else:
    from typing import TypeVar

    P = TypeVar("P")
    E = TypeVar("E")

ZoneEntry: TypeAlias = wire.PriceUpdate | wire.KeyRemoved | wire.ZoneRemoved | wire.Skipped
"""An entry of a zone's channel."""

OrderEntry: TypeAlias = wire.OrderUpdate | wire.OrderFailed | wire.Skipped
"""An entry of an order's channel; the last one is `confirmed` or `failed`."""

EventType: TypeAlias = Literal[
    "ticker",
    "trade",
    "orderbook",
    "candle",
    "exchange:connected",
    "exchange:disconnected",
    "exchange:reconnecting",
    "exchange:error",
]
"""The subject of an event."""

EventEntry: TypeAlias = (
    wire.TickerEvent
    | wire.TradeEvent
    | wire.OrderbookEvent
    | wire.CandleEvent
    | wire.ExchangeEvent
    | wire.Missed
    | wire.Skipped
)
"""An entry of a channel of events, or of a view; `missed` says that events of other processes did not arrive."""

RegistryEntry: TypeAlias = wire.RecordUpdate | wire.KeyRemoved | wire.Skipped
"""An entry of a registry's channel; of two entries of a key the one with the greater `version` counts."""

State: TypeAlias = Literal["connecting", "open", "waiting", "failed", "closed"]
"""The state of a connection.

`connecting`: getting address and token, and opening a socket. `open`: the gateway has greeted. `waiting`: for the
next attempt. `failed`: given up, until `reconnect()` (or the next slow retry). `closed`: permanently, by `close()`.
"""

SubscriptionStatus: TypeAlias = Literal["waiting", "catching_up", "live", "ended"]
"""The state of a subscription.

`waiting`: not (yet) subscribed on this connection. `catching_up`: entries of the log, or a snapshot, are on their
way. `live`: entries arrive as they are published. `ended`: nothing arrives any more.
"""


class Gap(TypedDict):
    """Entries that a reader should have received and has not."""

    type: Literal["gap"]
    channel: str
    missed: NotRequired[int]
    """How many are lost; absent if that is unknown, or if some of them may still arrive, marked `late`."""
    snapshot: bool
    """Whether the latest entry of each key follows in their place."""
    reason: Literal["log", "reader"]
    """`log`: the gateway has them no longer, or not now. `reader`: a loop was too slow (`queue_max`)."""


class Socket(Protocol):
    """The part of a WebSocket that is used; one task reads at a time, and one writes."""

    async def recv(self) -> str:
        """The next message.

        Raises:
            Closed: the socket is closed.
        """
        ...

    async def send(self, text: str) -> None:
        """Sends a message; may raise anything if it cannot."""

    async def close(self) -> None:
        """Closes the socket with 1000, within seconds whatever the other side does, and never raises."""


class Dial(Protocol):
    """Opens a WebSocket."""

    async def __call__(self, url: str, token: str | None) -> Socket:
        """Connects to `url` (`ws:` or `wss:`), with a token to show.

        Raises:
            Refused: the answer was not a WebSocket upgrade.
            OSError: there was no answer.
        """
        ...


class Closed(Exception):
    """A WebSocket is closed."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refused(Exception):
    """An HTTP answer instead of a WebSocket."""

    def __init__(self, status: int, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
