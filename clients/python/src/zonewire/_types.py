"""Types that are not of the wire."""

from typing import TYPE_CHECKING, Literal, NotRequired, Protocol, TypeAlias, TypedDict

from . import wire

if TYPE_CHECKING:  # checkers bring these along; at run time defaults of type variables need Python 3.13
    from typing_extensions import TypeVar

    P = TypeVar("P", bound=wire.PriceUpdate | wire.DecimalPriceUpdate, default=wire.PriceUpdate)
    E = TypeVar("E", default=wire.Entry)
else:
    from typing import TypeVar

    P = TypeVar("P")
    E = TypeVar("E")

ZoneEntry: TypeAlias = wire.PriceUpdate | wire.KeyRemoved | wire.ZoneRemoved | wire.Skipped
"""What comes in the channel of a zone."""

OrderEntry: TypeAlias = wire.OrderUpdate | wire.OrderFailed | wire.Skipped
"""What comes in the channel of an order; the last one is `confirmed` or `failed`."""

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
"""What an event is about."""

EventEntry: TypeAlias = (
    wire.TickerEvent
    | wire.TradeEvent
    | wire.OrderbookEvent
    | wire.CandleEvent
    | wire.ExchangeEvent
    | wire.Missed
    | wire.Skipped
)
"""What comes in a channel of events, or in a view of one; `missed` says that some of other processes did not come."""

RegistryEntry: TypeAlias = wire.RecordUpdate | wire.KeyRemoved | wire.Skipped
"""What comes in the channel of a registry; of two entries of a key the one with the greater `version` counts."""

State: TypeAlias = Literal["connecting", "open", "waiting", "failed", "closed"]
"""How a connection is.

`connecting`: asking for address and token, and opening a socket. `open`: the gateway has greeted. `waiting`: for
the next attempt. `failed`: given up, until `reconnect()` (or the next slow retry). `closed`: by `close()`, for good.
"""

SubscriptionStatus: TypeAlias = Literal["waiting", "catching_up", "live", "ended"]
"""How a subscription is.

`waiting`: not subscribed on this connection (yet). `catching_up`: what the log has, or a snapshot, is on its way.
`live`: entries come as they are published. `ended`: nothing comes any more.
"""


class Gap(TypedDict):
    """Entries that a reader should have had and has not."""

    type: Literal["gap"]
    channel: str
    missed: NotRequired[int]
    """How many are gone for good; absent where that cannot be known, or where some of them may come, marked `late`."""
    snapshot: bool
    """The latest entry of each key comes in their place."""
    reason: Literal["log", "reader"]
    """`log`: the gateway has them no more, or not now. `reader`: a loop was slower than they came (`queue_max`)."""


class Socket(Protocol):
    """What is used of a WebSocket; one task reads at a time, and one writes."""

    async def recv(self) -> str:
        """The next message.

        Raises:
            Closed: there is none any more.
        """
        ...

    async def send(self, text: str) -> None:
        """Sends a message; raises what it likes where it cannot."""

    async def close(self) -> None:
        """Closes it with 1000, within seconds whatever the other side does, and raises nothing."""


class Dial(Protocol):
    """Opens a WebSocket."""

    async def __call__(self, url: str, token: str | None) -> Socket:
        """Connects to `url` (`ws:` or `wss:`), with a token to show.

        Raises:
            Refused: there was an answer, and it was no WebSocket.
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
    """An HTTP answer in the place of a WebSocket."""

    def __init__(self, status: int, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
