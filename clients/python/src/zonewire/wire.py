"""What a Zonewire gateway and its clients exchange; the protocol says what it means.

Made by ``scripts/make_wire.py`` of the gateway's own schema: do not change it by hand. At run time all of
these are dictionaries, just as they were sent; fields, types of messages and codes that are not here may come
from a newer gateway, and fields that a publisher or a worker has added are there too.
"""

from decimal import Decimal
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "Accepted",
    "Answer",
    "Auth",
    "Authenticated",
    "Authentication",
    "AuthenticationView",
    "BackendName",
    "BackendState",
    "BackendStateMessage",
    "Bare",
    "BridgeSource",
    "BridgeSubscription",
    "BridgeSubscriptions",
    "BridgeView",
    "Candle",
    "CandleEvent",
    "CaughtUp",
    "ChannelName",
    "ChannelSetAside",
    "ChannelsView",
    "ClaimRequest",
    "ClientMessage",
    "CloseCode",
    "Closing",
    "ConfigView",
    "Connection",
    "ConnectionEstablished",
    "ConnectionHealth",
    "ConnectionInfo",
    "ConnectionStory",
    "ConnectionsView",
    "DeadLetter",
    "DeadLetterList",
    "DecimalPriceUpdate",
    "DeliveryLag",
    "Digits",
    "DroppedMessages",
    "DurationBucket",
    "EndCode",
    "Entries",
    "Entry",
    "Epoch",
    "ErrorCode",
    "ErrorMessage",
    "Exchange",
    "ExchangeEvent",
    "ExchangeView",
    "ExtendRequest",
    "FailRequest",
    "Failure",
    "FeedView",
    "FieldFault",
    "FleetNode",
    "FleetTotals",
    "FleetView",
    "HealthView",
    "Heartbeat",
    "HttpView",
    "InteropCounts",
    "JobOutcome",
    "JobOutcomeFailed",
    "JobOutcomeReleased",
    "JobOutcomeRetry",
    "JobsView",
    "KeyRemoved",
    "Lane",
    "LeaseHeld",
    "LimitsView",
    "Live",
    "MemoryUsage",
    "MessagesView",
    "Missed",
    "MissedEvents",
    "NodeState",
    "NodesKnown",
    "NodesView",
    "Offer",
    "OfferedJob",
    "OrderCancelling",
    "OrderFailed",
    "OrderId",
    "OrderList",
    "OrderPlaced",
    "OrderStatus",
    "OrderUpdate",
    "OrderView",
    "Orderbook",
    "OrderbookEvent",
    "OrdersView",
    "OutageView",
    "OutsideInvalid",
    "OutsideRefused",
    "PRICEUPDATE_DECIMALS",
    "Position",
    "Previous",
    "PriceUpdate",
    "Problem",
    "ProblemCode",
    "Publish",
    "Published",
    "RawEntry",
    "RecordList",
    "RecordUpdate",
    "RecordsSet",
    "RedisMetrics",
    "RedisView",
    "RefusedEntries",
    "RegistriesView",
    "RegistryStatus",
    "RegistrySync",
    "RegistrySynced",
    "RegistryView",
    "ReleaseRequest",
    "ReportAccepted",
    "RequestId",
    "Resync",
    "Revoke",
    "RevokedOn",
    "Scope",
    "ServerMessage",
    "SetSubscription",
    "SettingView",
    "Since",
    "Skipped",
    "SkippedEntries",
    "SnapshotEnd",
    "SourceCounts",
    "StateSpell",
    "StatsView",
    "Subscribe",
    "Subscribed",
    "SubscriptionInfo",
    "SubscriptionMode",
    "SubscriptionPhase",
    "Swap",
    "Ticker",
    "TickerEvent",
    "Timing",
    "TlsHealth",
    "TlsView",
    "Token",
    "TokenExpiring",
    "Trade",
    "TradeEvent",
    "TransportKind",
    "Unsubscribe",
    "Unsubscribed",
    "WebSocketView",
    "Zone",
    "ZoneConnections",
    "ZoneList",
    "ZoneRemoved",
    "ZoneView",
]


class Accepted(TypedDict):
    """The answer to publishing and to updates."""

    accepted: int
    """How many entries or updates were accepted."""


RequestId: TypeAlias = str | float
"""A client's name for a request, at most 128 bytes of JSON; the gateway returns it as it was written."""


class Answer(TypedDict):
    """The answer to a request without content."""

    type: Literal["heartbeat_ack", "pong"]
    id: NotRequired[RequestId]
    """The `id` of the request, if it had one."""
    timestamp: str
    """When it was sent."""


Token: TypeAlias = str
"""A credential: a token or an API key. Never printed."""


class Auth(TypedDict):
    """Authenticates the client, or replaces its token before that expires."""

    type: Literal["auth"]
    id: NotRequired[RequestId]
    """The gateway repeats it in its answer."""
    token: Token
    """The token."""


class Authenticated(TypedDict):
    """The gateway accepted the client's token."""

    type: Literal["authenticated"]
    expires_at: NotRequired[str]
    """When the token expires; absent if it does not."""
    id: NotRequired[RequestId]
    """The `id` of the request, if it had one."""
    subject: str
    """The subject of the token, or of the API key."""
    timestamp: str
    """When it was sent."""


Authentication: TypeAlias = Literal["required", "optional"]
"""Whether clients need a token."""


class AuthenticationView(TypedDict):
    """The state of what a gateway needs to verify tokens."""

    keys: str
    """`fresh`, or `stale` if a source of keys fails; the log says which."""
    revocations: str
    """`known`, or `unknown` if there may be revocations that have not reached this node."""


BackendName: TypeAlias = Literal["redis", "in-memory"]
"""Which storage serves, as clients see it."""


BackendState: TypeAlias = Literal["healthy", "degraded", "recovering"]
"""The state of the storage."""


ChannelName: TypeAlias = str
"""The name of a channel: `zone:<zone>`, `order:<uuid>`, `registry:providers`, `registry:active-orders`, or
`event:<type>`, optionally followed by a pattern that selects some of its events.
"""


Scope: TypeAlias = Literal["all", "some"]
"""Which channels a state of the storage affects."""


class BackendStateMessage(TypedDict):
    """The state of the storage changed."""

    type: Literal["backend_state"]
    channels: NotRequired[list[ChannelName]]
    """If `scope` is `some`: the affected channels among this connection's subscriptions, as far as they
    fit.
    """
    more_channels: NotRequired[int]
    """How many more of its subscriptions are affected."""
    reason: NotRequired[str]
    """Why, for people; absent when healthy."""
    scope: Scope | str
    """Which channels are affected: `all` or `some`."""
    since: str
    """When this state began."""
    state: BackendState | str
    """The state of the storage."""
    storage_backend: BackendName | str
    """Which storage serves."""
    timestamp: str
    """When it was sent."""


class Bare(TypedDict):
    """A message without content, such as `ping`."""

    type: Literal["heartbeat", "heartbeat_ack", "ping"]
    id: NotRequired[RequestId]
    """The gateway repeats it in its answer."""


class SourceCounts(TypedDict):
    """Counters of one gateway's events of a live type."""

    missed: int
    """Those that did not arrive although this node was subscribed."""
    published: int
    """The number of its newest event that is known here, which counts its events since its start."""
    received: int
    """Those that arrived, since this node subscribed."""


class BridgeSource(TypedDict):
    """A gateway from which events were received."""

    source: str
    """The id of its node."""
    types: dict[str, SourceCounts]
    """Counters by type of events."""


SubscriptionMode: TypeAlias = Literal["interest", "always", "never"]
"""When the gateway subscribes to a type of events of other processes."""


class BridgeSubscription(TypedDict):
    """How a type of events is exchanged."""

    active: bool
    """Whether it is subscribed to."""
    channel: str
    """Its pub/sub channel."""
    delivery: str
    """`live` or `durable`."""
    due: bool
    """Whether it should be subscribed to at the moment. For a durable type that is one gateway only, which
    appends events of other processes to the log; the others read them there.
    """
    missed: int
    """Live events of other gateways that did not arrive."""
    mode: SubscriptionMode | str
    """When it is subscribed to."""
    published: int
    """Events published."""
    publishes: bool
    """Whether events accepted by this node are published."""
    received: int
    """Events of others received and accepted."""
    subscribes: bool
    """Whether the configuration permits subscribing to it."""
    type: str
    """The type's name."""
    wanted_here: bool
    """Whether somebody on this node follows it."""


class BridgeSubscriptions(TypedDict):
    """What this node exchanges with other gateways and processes, with counters."""

    enabled: bool
    """Whether the bridge is on."""
    sources: list[BridgeSource]
    """The gateways from which events were received."""
    takes_in: bool
    """Whether this node is the one that appends durable events of other processes to the log."""
    types: list[BridgeSubscription]
    """All types of events."""


class Timing(TypedDict):
    """A histogram of durations since the start."""

    buckets: list[int]
    """How many took longer than the previous bucket's bound and at most as long as this one's: 50, 100,
    250 and 500 µs, 1, 2.5, 5, 10, 25, 50, 100 and 250 ms, 1 and 5 s, or longer.
    """
    sum_us: int
    """The sum of all durations, in microseconds."""


class BridgeView(TypedDict):
    """The exchange of events with other gateways and processes over Redis pub/sub. Each map is by type of
    events.
    """

    active_subscriptions: int
    """Those of them that are subscribed to."""
    connected: int
    """1 if both connections of the bridge are up, or, where the bridge is off, that of the storage;
    otherwise 0.
    """
    errors: int
    """Lost connections of the bridge, and calls that failed."""
    gaps: int
    """Times that messages of other processes may have been missed."""
    intake_full: dict[str, int]
    """Durable events of other processes dropped because too many waited for the log."""
    invalid: dict[str, int]
    """Messages that are not valid events: no envelope, wrong fields for the type, or too large."""
    lag: Timing
    """Time from acceptance of live events by another gateway until they were in this one's log, as far as
    the clocks of the two agree.
    """
    lease_lost: dict[str, int]
    """Durable events of other processes that this gateway had received when another one took over the
    lease to append them.
    """
    left_alone: dict[str, int]
    """Durable events of other gateways, ignored because they come through the log."""
    missed: dict[str, int]
    """Live events of other gateways that did not arrive."""
    not_answered: dict[str, int]
    """Events that may not have been published because Redis did not answer. They are not sent again."""
    not_taken: dict[str, int]
    """Live events received that this gateway's own log did not accept."""
    other_delivery: dict[str, int]
    """Events dropped because their gateway has a different setting `bridge.durable`."""
    own: dict[str, int]
    """This gateway's own events, which it receives too."""
    published: dict[str, int]
    """Events published, by type."""
    published_events: int
    """Events published to other gateways and processes."""
    queue_full: dict[str, int]
    """Events not published because newer ones took their room in the queue."""
    received: dict[str, int]
    """Events received and accepted, by type."""
    received_events: int
    """Events of other gateways and processes that were received and accepted."""
    redis_away: dict[str, int]
    """Events not published because Redis was away."""
    stale: dict[str, int]
    """Live events dropped because they arrived after they had been reported missing."""
    subscriptions: int
    """Types of events that should be subscribed to at the moment."""
    taken_in: dict[str, int]
    """Durable events of other processes that this gateway appended to the log."""
    taken_in_before: dict[str, int]
    """Durable events of other processes that were in the log already, by their ids."""
    takes_in: int
    """1 if this gateway is the one that appends durable events of other processes to the log; otherwise 0."""
    waiting: int
    """Accepted events that wait to be published."""


Digits: TypeAlias = float | str
"""A decimal in the form in which its publisher wrote it: a number, or a text that contains one."""


class Candle(TypedDict):
    """The data of a candle."""

    close: Digits
    """The last price."""
    closed: bool
    """Whether the interval is over."""
    correction: NotRequired[bool]
    """Whether it corrects a candle that was already closed."""
    exchange: str
    """The exchange."""
    high: Digits
    """The highest price."""
    interval: str
    """The length of the interval, such as `1m`."""
    low: Digits
    """The lowest price."""
    open: Digits
    """The first price."""
    openTime: Digits
    """The start of the interval."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""
    volume: Digits
    """The quantity traded."""


class CandleEvent(TypedDict):
    """A candle."""

    type: Literal["candle"]
    channel: ChannelName
    """The channel: of the type, or the view that was subscribed to."""
    data: Candle
    """The fields that the publisher gave."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch. Offsets that a view does not show are left out."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


class CaughtUp(TypedDict):
    """Everything that the log had when the subscription was made has been sent. Not sent if there was
    nothing.
    """

    type: Literal["caught_up"]
    channel: ChannelName
    """The channel."""
    timestamp: str
    """When it was sent."""


class ChannelSetAside(TypedDict):
    """A channel for which reconciling fails."""

    channel: ChannelName
    """The channel."""
    reason: str
    """Why."""


class RefusedEntries(TypedDict):
    """Updates of orders that the log refuses for good."""

    order_ended: int
    """Updates after the last one of their order."""
    stale_lease: int
    """Updates of orders that were written under a lost lease."""


class SkippedEntries(TypedDict):
    """Entries that this build cannot show."""

    unknown_kind: int
    """Entries of followed channels whose kind only a newer build knows."""
    unreadable: int
    """Entries whose stored form is different or damaged, including data that is not a JSON object, which
    other programs may have written to the same Redis.
    """


class ChannelsView(TypedDict):
    """Channels, and their entries."""

    active: int
    """Channels in use."""
    append_duration: Timing
    """Duration of the appends that the storage answered, each of up to 50 entries."""
    appends: int
    """Appends sent to the storage."""
    echoes_dropped: int
    """Storage events dropped because their channel was busy; the log was read instead."""
    entries_accepted: int
    """Entries accepted by the log."""
    entries_delivered: int
    """Entries handed to shards, in order."""
    entries_missed: int
    """Entries that left the log before this node saw them."""
    entries_refused_by_reason: RefusedEntries
    """Updates of orders that the log refused for good."""
    entries_skipped_by_reason: SkippedEntries
    """Entries of followed channels that this build cannot show."""
    entries_unavailable: int
    """Entries refused because the storage was unavailable."""
    epoch_changes: int
    """Times that a log changed its epoch."""
    followed_events: int
    """Types of events of which somebody follows the channel or a view."""
    holes_repaired: int
    """Times that the log was read because entries were missing."""
    storage_retries: int
    """Storage calls (appends and reads) that failed and were repeated."""
    views: int
    """Views of events that somebody follows."""


class ClaimRequest(TypedDict):
    """A request for jobs by a worker."""

    leaseMs: NotRequired[int]
    """How long the lease of each job lasts unless it is extended. Default `orders.lease_s`."""
    limit: NotRequired[int]
    """The most jobs to claim. Default 1."""
    waitMs: NotRequired[int]
    """How long to wait if there are no jobs. Default 0."""
    worker: str
    """The worker's name, which appears in the `executor` field of updates."""


Epoch: TypeAlias = str
"""One incarnation of the log of a channel. Opaque."""


class Position(TypedDict):
    """A point in a channel: just after the entry with this offset. Offset 0 is before the first entry."""

    epoch: Epoch
    """The epoch that `offset` belongs to."""
    offset: int
    """The offset of the last entry that was received; entries count from 1. Below 2^53."""


Since: TypeAlias = Position | str
"""Where to resume a channel, as the client wrote it. Each position is checked separately, so an invalid
one does not affect other channels.
"""


class Subscribe(TypedDict):
    """A request to follow channels. Names are as the client wrote them; each is checked separately."""

    type: Literal["subscribe"]
    channels: list[str]
    """Names of channels."""
    id: NotRequired[RequestId]
    """The gateway repeats it in its answers."""
    since: NotRequired[dict[str, Since | None]]
    """Where to resume, by channel name; other channels start with the next entry."""
    snapshot: NotRequired[bool]
    """Whether zones that are not resumed start with the latest entry of each key."""


class Unsubscribe(TypedDict):
    """A request to stop following channels."""

    type: Literal["unsubscribe"]
    channels: list[str]
    """Names of channels."""
    id: NotRequired[RequestId]
    """The gateway repeats it in its answers."""


RawEntry: TypeAlias = dict[str, Any]
"""A price or an event as its publisher wrote it."""


class Publish(TypedDict):
    """Entries to publish to a channel. They are parsed as over HTTP."""

    type: Literal["publish"]
    channel: str
    """The channel of a zone or of a type of events."""
    entries: list[RawEntry]
    """Prices or events. On the wire, `events` is accepted as a name for this field too."""
    id: NotRequired[RequestId]
    """The gateway repeats it in its answer."""


ClientMessage: TypeAlias = Subscribe | Unsubscribe | Bare | Auth | Publish
"""A message from a client. Unknown fields are ignored."""


CloseCode: TypeAlias = Literal[
    "normal",
    "protocol_error",
    "unsupported_data",
    "abnormal",
    "invalid_utf8",
    "message_too_big",
    "shutting_down",
    "slow_consumer",
    "heartbeat_timeout",
    "moved",
    "rate_limited",
    "too_many_connections",
    "token_expired",
    "keys_awaited",
    "disconnected",
    "unauthorized",
    "bad_request",
]
"""Close codes (RFC 6455, section 7.4). 1000 to 1015 mean what the RFC says; 4000 to 4499 say "reconnect
and resume"; 4500 to 4999 say "do not reconnect".
"""


class Closing(TypedDict):
    """The gateway is about to close this connection."""

    type: Literal["closing"]
    code: int
    """The code of the close frame that follows."""
    reason: CloseCode | str
    """The reason that belongs to the code."""
    retry_after_ms: NotRequired[int]
    """After how many milliseconds to reconnect; absent if the client should not."""
    timestamp: str
    """When it was sent."""


class SettingView(TypedDict):
    """One setting."""

    key: str
    """The key, such as `http.listen`."""
    origin: NotRequired[str]
    """Where the value came from: `default`, a file, an environment variable, a flag, or what reduced it;
    absent if that is unknown.
    """
    value: Any
    """Its value; null if it is not set."""


class ConfigView(TypedDict):
    """The settings in effect, with secrets masked."""

    file: NotRequired[str]
    """The configuration file, if one was read."""
    settings: list[SettingView]
    """The settings, by section."""
    warning: NotRequired[str]
    """A setting that is valid but may be a mistake."""


OrderId: TypeAlias = str
"""An order's id: a UUID (RFC 9562), written hyphenated in lower case."""


class Connection(TypedDict):
    """The first message on a connection that was opened on an order."""

    type: Literal["connection"]
    authentication: NotRequired[Authentication | str]
    """Whether clients need a token; absent if authentication is off."""
    connection_id: str
    """Identifies this connection in `/ws/stats` and in logs."""
    heartbeat_interval_ms: int
    """The interval between `heartbeat` messages, in milliseconds."""
    message: str
    """A greeting for people."""
    orderId: OrderId
    """The order of `/ws/orders/{orderId}`."""
    protocol: int
    """The version of this protocol."""
    state: BackendState | str
    """The state of the storage."""
    storage_backend: BackendName | str
    """Which storage serves."""
    subject: NotRequired[str]
    """The subject of the token that came with the request."""
    timestamp: str
    """When it was sent."""
    token_expires_at: NotRequired[str]
    """When that token expires."""


class ConnectionEstablished(TypedDict):
    """The first message on every connection that was not opened on an order."""

    type: Literal["connection_established"]
    authentication: NotRequired[Authentication | str]
    """Whether clients need a token; absent if authentication is off."""
    connection_id: str
    """Identifies this connection in `/ws/stats` and in logs."""
    heartbeat_interval_ms: int
    """The interval between `heartbeat` messages, in milliseconds."""
    market_zone: NotRequired[str]
    """The zone of `/ws/market/{zone}`; absent on `/ws`."""
    message: str
    """A greeting for people."""
    protocol: int
    """The version of this protocol."""
    state: BackendState | str
    """The state of the storage."""
    storage_backend: BackendName | str
    """Which storage serves."""
    subject: NotRequired[str]
    """The subject of the token that came with the request."""
    timestamp: str
    """When it was sent."""
    token_expires_at: NotRequired[str]
    """When that token expires."""


ConnectionHealth: TypeAlias = Literal["healthy", "behind", "silent", "closing"]
"""The condition of a connection."""


TransportKind: TypeAlias = Literal["websocket", "events"]
"""How a client is connected."""


class ConnectionInfo(TypedDict):
    """An open connection."""

    channels: list[str]
    """The channels that it is subscribed to."""
    connected_s: int
    """How long it has been open, in seconds."""
    connection_id: str
    """The id that `connection_established` names."""
    health: ConnectionHealth | str
    """The condition of the connection."""
    last_heard_s_ago: int
    """Seconds since anything was received from it; for an event stream, how long it has accepted nothing
    of what waits for it.
    """
    messages_received: int
    """Text messages that it sent."""
    subject: NotRequired[str]
    """The authenticated subject of its client, if there is one."""
    transport: TransportKind | str
    """How its client is connected."""
    waiting_bytes: int
    """Bytes of the messages that wait for it."""
    waiting_messages: int
    """Messages that wait for it."""


SubscriptionPhase: TypeAlias = Literal["catching_up", "live", "finished"]
"""The progress of a subscription."""


class SubscriptionInfo(TypedDict):
    """A subscription of a connection."""

    channel: str
    """The channel."""
    epoch: NotRequired[Epoch]
    """The epoch that it reads; absent until it has started."""
    offset: NotRequired[int]
    """The newest offset that it was sent or had already."""
    phase: SubscriptionPhase | str
    """The progress of the subscription."""


class ConnectionStory(TypedDict):
    """`GET /ws/stats/{connection}`: everything known about an open connection."""

    channels: list[str]
    """The channels that it is subscribed to."""
    closing: NotRequired[str]
    """The reason of the close code, if it is being closed."""
    connected_at: str
    """When it was opened."""
    connected_s: int
    """How long it has been open, in seconds."""
    connection_id: str
    """The id that `connection_established` names."""
    health: ConnectionHealth | str
    """The condition of the connection."""
    last_heard_s_ago: int
    """Seconds since anything was received from it; for an event stream, how long it has accepted nothing
    of what waits for it.
    """
    messages_received: int
    """Text messages that it sent."""
    node: str
    """The node that serves it."""
    opened_on: NotRequired[str]
    """The channel of the order that it was opened on; it ends with that order."""
    rights: NotRequired[list[str]]
    """The rights of its client; absent if authentication is off."""
    source: NotRequired[str]
    """The client's address, or its network; absent if a proxy does not pass it on."""
    subject: NotRequired[str]
    """The authenticated subject of its client, if there is one."""
    subscriptions: list[SubscriptionInfo]
    """Its subscriptions and their progress."""
    token_expires_at: NotRequired[str]
    """When its client's token expires."""
    transport: TransportKind | str
    """How its client is connected."""
    waited_for: bool
    """Whether channels slow down for it, because it reads too slowly."""
    waiting_bytes: int
    """Bytes of the messages that wait for it."""
    waiting_messages: int
    """Messages that wait for it."""


class DurationBucket(TypedDict):
    """Ended connections that lasted longer than the previous bucket's bound, and at most this long."""

    connections: int
    """How many connections."""
    up_to_s: int
    """The bucket's bound, in seconds."""


class ConnectionsView(TypedDict):
    """WebSockets."""

    average_duration_s: float
    """Average duration of ended WebSockets, in seconds."""
    by_zone: dict[str, int]
    """Open WebSockets by zone."""
    closed_by_reason: dict[str, int]
    """WebSockets that have ended, by the reason of the close code."""
    durations: list[DurationBucket]
    """Ended WebSockets by duration."""
    event_streams: int
    """Open event streams."""
    longest_open_s: int
    """Age of the oldest open WebSocket, in seconds."""
    open: int
    """Open WebSockets and event streams."""
    refused_by_limit: dict[str, int]
    """Connections refused by a limit: `full` (`connections.max`), `tcp` (`connections.tcp_max`), `address`
    (`connections.per_address_max`), `rate` (`connections.connects_per_s`).
    """
    total: int
    """WebSockets opened."""
    total_disconnections: int
    """WebSockets that have ended."""


class DeadLetter(TypedDict):
    """An order whose attempts all failed."""

    createdAt: str
    """When it was placed."""
    error: str
    """The error of the last attempt."""
    failedAt: str
    """When its last attempt failed."""
    order: NotRequired[dict[str, Any]]
    """The order as it was placed."""
    orderId: OrderId
    """The order's id."""
    runs: int
    """How many times a worker has claimed the order."""
    submitted: bool
    """Whether it may have been executed after all."""


class DeadLetterList(TypedDict):
    """`GET /api/orders/dead-letters`."""

    deadLetters: list[DeadLetter]
    """The orders that were tried in vain, the newest first."""
    degraded: NotRequired[bool]
    """Redis is away, and the list has only the orders that this node knows by itself."""
    next: OrderId | None
    """Where the next page begins; null when this is the last one."""


class DeliveryLag(TypedDict):
    """Delivery times in milliseconds, as exactly as the buckets of the histogram permit; null if there
    were no entries.
    """

    p50: float | None
    """Half of the entries took no longer."""
    p99: float | None
    """99 of 100 entries took no longer."""


class DroppedMessages(TypedDict):
    """Waiting messages that were never sent."""

    connection_ended: int
    """Messages that waited when a connection ended for another reason."""
    slow_consumer: int
    """Messages that waited for a client whose connection was closed because it read too slowly."""


EndCode: TypeAlias = Literal["finished", "forbidden"]
"""Why the gateway ended a subscription by itself."""


class PriceUpdate(TypedDict):
    """A price. The publisher's own fields follow those described here."""

    type: Literal["price_update"]
    ask: NotRequired[float | None]
    """The lowest price that a seller asks."""
    bid: NotRequired[float | None]
    """The highest price that a buyer offers."""
    channel: ChannelName
    """The channel."""
    congestion: NotRequired[float | None]
    """The congestion component of the price."""
    energy: NotRequired[float | None]
    """The energy component of the price."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    key: str
    """What in the zone the price is for, such as a trading hub."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    loss: NotRequired[float | None]
    """The loss component of the price."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    price: NotRequired[float | None]
    """The price; absent in a quote, which has `bid` and `ask`."""
    quantity: NotRequired[float | None]
    """The quantity."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


class DecimalPriceUpdate(TypedDict):
    """As `PriceUpdate`, with the numbers of `PRICEUPDATE_DECIMALS` as they were written."""

    type: Literal["price_update"]
    ask: NotRequired[Decimal | None]
    """The lowest price that a seller asks."""
    bid: NotRequired[Decimal | None]
    """The highest price that a buyer offers."""
    channel: ChannelName
    """The channel."""
    congestion: NotRequired[Decimal | None]
    """The congestion component of the price."""
    energy: NotRequired[Decimal | None]
    """The energy component of the price."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    key: str
    """What in the zone the price is for, such as a trading hub."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    loss: NotRequired[Decimal | None]
    """The loss component of the price."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    price: NotRequired[Decimal | None]
    """The price; absent in a quote, which has `bid` and `ask`."""
    quantity: NotRequired[Decimal | None]
    """The quantity."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


PRICEUPDATE_DECIMALS = ("ask", "bid", "congestion", "energy", "loss", "price", "quantity")


class KeyRemoved(TypedDict):
    """A key that was removed."""

    type: Literal["key_removed"]
    channel: ChannelName
    """The channel."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    key: str
    """The key."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""
    version: NotRequired[str]
    """In a registry only: of two entries of a key, the one with the greater version counts. Versions
    compare as text.
    """


class ZoneRemoved(TypedDict):
    """A zone that was removed."""

    type: Literal["zone_removed"]
    channel: ChannelName
    """The channel."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


class RecordUpdate(TypedDict):
    """A record of a registry, which replaces the previous one of its key."""

    type: Literal["record_update"]
    channel: ChannelName
    """The channel."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    key: str
    """The record's `userId` or `orderId`, as text."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    record: dict[str, Any]
    """The record, as it was written."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """When it was written, by the clock of the gateway that wrote it, or by a faster clock that this
    gateway has seen.
    """
    version: str
    """Of two entries of a key, the one with the greater version counts. Versions compare as text."""


class OrderUpdate(TypedDict):
    """An update of an order. Other fields that its worker gave follow those described here."""

    type: Literal["routing", "building", "submitted", "confirmed"]
    attempt: NotRequired[int]
    """The number of the attempt, from 1."""
    channel: ChannelName
    """The channel."""
    dex: NotRequired[str]
    """The exchange that was chosen for it."""
    executor: NotRequired[str]
    """The worker or executor that executes the order, or executed it."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    maxAttempts: NotRequired[int]
    """The most attempts that the order may have."""
    message: NotRequired[str]
    """A message for people."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    orderId: OrderId
    """The order whose channel it is."""
    progress: float
    """How far it is, 0 to 100."""
    run: NotRequired[int]
    """How many times a worker has claimed the order."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""
    txHash: NotRequired[str]
    """The hash of the transaction."""


class Failure(TypedDict):
    """Why an order failed."""

    code: str
    """A short code such as `no_liquidity`."""
    message: str
    """What went wrong, for people."""


class OrderFailed(TypedDict):
    """The last update of an order that was not executed."""

    type: Literal["failed"]
    attempt: NotRequired[int]
    """The number of the attempt, from 1."""
    channel: ChannelName
    """The channel."""
    dex: NotRequired[str]
    """The exchange that was chosen for it."""
    error: Failure
    """The reason."""
    executor: NotRequired[str]
    """The worker or executor that executes the order, or executed it."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    maxAttempts: NotRequired[int]
    """The most attempts that the order may have."""
    message: NotRequired[str]
    """A message for people."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    orderId: OrderId
    """The order whose channel it is."""
    progress: float
    """How far it is, 0 to 100."""
    run: NotRequired[int]
    """How many times a worker has claimed the order."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""
    txHash: NotRequired[str]
    """The hash of the transaction."""


class Ticker(TypedDict):
    """The data of a ticker: a `price`, or a `bid` and an `ask`."""

    ask: NotRequired[Digits]
    """The best ask."""
    askSize: NotRequired[Digits]
    """The size of the best ask."""
    bid: NotRequired[Digits]
    """The best bid."""
    bidSize: NotRequired[Digits]
    """The size of the best bid."""
    exchange: str
    """The exchange."""
    high: NotRequired[Digits]
    """The highest price of the period."""
    low: NotRequired[Digits]
    """The lowest price of the period."""
    open: NotRequired[Digits]
    """The first price of the period."""
    price: NotRequired[Digits]
    """The last price."""
    quoteVolume: NotRequired[Digits]
    """The turnover of the period."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""
    volume: NotRequired[Digits]
    """The quantity traded in the period."""


class TickerEvent(TypedDict):
    """A ticker."""

    type: Literal["ticker"]
    channel: ChannelName
    """The channel: of the type, or the view that was subscribed to."""
    data: Ticker
    """The fields that the publisher gave."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch. Offsets that a view does not show are left out."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


class Trade(TypedDict):
    """The data of a trade."""

    exchange: str
    """The exchange."""
    price: Digits
    """The price."""
    side: NotRequired[str]
    """The side of the taker: `buy` or `sell`."""
    size: Digits
    """The quantity."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""
    tradeId: NotRequired[Digits]
    """The exchange's id of the trade."""


class TradeEvent(TypedDict):
    """A trade."""

    type: Literal["trade"]
    channel: ChannelName
    """The channel: of the type, or the view that was subscribed to."""
    data: Trade
    """The fields that the publisher gave."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch. Offsets that a view does not show are left out."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


class Orderbook(TypedDict):
    """The data of a whole order book, or of changes to it: a level of size 0 is removed."""

    asks: list[list[Digits]]
    """Price and size of each level."""
    bids: list[list[Digits]]
    """Price and size of each level."""
    exchange: str
    """The exchange."""
    kind: str
    """`snapshot` or `delta`."""
    previousSequence: NotRequired[int]
    """In a delta: the `sequence` that it builds on."""
    sequence: int
    """Counts the changes of the book."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""


class OrderbookEvent(TypedDict):
    """An order book, or its changes."""

    type: Literal["orderbook"]
    channel: ChannelName
    """The channel: of the type, or the view that was subscribed to."""
    data: Orderbook
    """The fields that the publisher gave."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch. Offsets that a view does not show are left out."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


class Exchange(TypedDict):
    """The data of a change in the connection to an exchange."""

    attempt: NotRequired[int]
    """Only in `exchange:reconnecting`: the number of the attempt."""
    code: NotRequired[str]
    """Only in `exchange:error`: the kind of error."""
    delayMs: NotRequired[int]
    """Only in `exchange:reconnecting`: the delay before the attempt, in milliseconds."""
    exchange: str
    """The exchange."""
    reason: NotRequired[str]
    """The reason, for people."""


class ExchangeEvent(TypedDict):
    """A change in the connection to an exchange."""

    type: Literal["exchange:connected", "exchange:disconnected", "exchange:reconnecting", "exchange:error"]
    channel: ChannelName
    """The channel: of the type, or the view that was subscribed to."""
    data: Exchange
    """The fields that the publisher gave."""
    id: str
    """Identifies the entry, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch. Offsets that a view does not show are left out."""
    snapshot: NotRequired[bool]
    """The entry is part of a snapshot: the latest one of its key."""
    timestamp: str
    """The time of the entry itself, to the millisecond."""


class Skipped(TypedDict):
    """What is known about an entry that the gateway cannot show."""

    type: Literal["skipped"]
    channel: ChannelName
    """The channel."""
    id: NotRequired[str]
    """Absent if it could not be read."""
    kind: NotRequired[str]
    """The entry's own type, if that is known."""
    late: NotRequired[bool]
    """The entry waited at its gateway, or arrives after entries that were accepted later."""
    missedBefore: NotRequired[bool]
    """Earlier entries of the same gateway were dropped and are in no log."""
    offset: int
    """Its offset in the log."""
    orderId: NotRequired[OrderId]
    """The order whose channel it is."""
    reason: str
    """`unknown_kind` or `unreadable`."""
    terminal: NotRequired[bool]
    """Whether this is the last entry of its channel."""
    timestamp: NotRequired[str]
    """Absent if it could not be read."""


class MissedEvents(TypedDict):
    """What is missing. Without fields: programs that do not number their events may have published some."""

    count: NotRequired[int]
    """How many events are missing."""
    source: NotRequired[str]
    """The gateway that published the missing events."""


class Missed(TypedDict):
    """Reports, in the channel of a live type, that events of other processes did not arrive."""

    type: Literal["missed"]
    channel: ChannelName
    """The channel."""
    data: MissedEvents
    """What is missing."""
    id: str
    """Identifies the entry."""
    offset: int
    """Its offset in the log, counted from 1 in each epoch."""
    timestamp: str
    """When the gateway noticed."""


Entry: TypeAlias = (
    PriceUpdate
    | KeyRemoved
    | ZoneRemoved
    | RecordUpdate
    | OrderUpdate
    | OrderFailed
    | TickerEvent
    | TradeEvent
    | OrderbookEvent
    | CandleEvent
    | ExchangeEvent
    | Skipped
    | Missed
)
"""An entry of a channel. Types may be added: receivers still count the offsets of those that they do not
know.
"""


class Entries(TypedDict):
    """`GET /api/zones/{zone}/latest` and `/history`: entries in the form of messages."""

    channel: ChannelName
    """The channel."""
    entries: list[Entry]
    """The entries in order."""
    epoch: NotRequired[Epoch]
    """The epoch of the offsets; only in `/history`."""
    first_offset: NotRequired[int]
    """The oldest offset in the log; only in `/history`."""
    last_offset: NotRequired[int]
    """The newest offset in the log; only in `/history`."""
    next: NotRequired[str]
    """Where the next page begins, if there may be one; only in `/latest`."""


ErrorCode: TypeAlias = Literal[
    "invalid_json",
    "invalid_message",
    "unknown_type",
    "invalid_channel",
    "not_subscribed",
    "superseded",
    "invalid_position",
    "too_many_subscriptions",
    "too_many_zones",
    "too_many_orders",
    "too_many_views",
    "invalid_entry",
    "too_many_keys",
    "not_published",
    "storage_unavailable",
    "invalid_token",
    "keys_awaited",
    "forbidden",
]
"""Why something that a client asked for was not done."""


class ErrorMessage(TypedDict):
    """Something that the client asked for was not done. The connection stays open."""

    type: Literal["error"]
    accepted: NotRequired[int]
    """For `publish`: how many entries, from the first one on, are in the log."""
    channel: NotRequired[str]
    """The affected channel; if its name is invalid, as the client wrote it."""
    code: ErrorCode | str
    """The stable code of the error."""
    id: NotRequired[RequestId]
    """The `id` of the request, if it had one."""
    message: str
    """What was wrong and what would be right, for people."""
    retry_after_ms: NotRequired[int]
    """After how many milliseconds the same request may succeed, if known."""
    temporary: bool
    """Whether the request stays in effect and its final answer is still to come."""
    timestamp: str
    """When it was sent."""


class ExchangeView(TypedDict):
    """The connection to an exchange, and what it brought."""

    events: dict[str, int]
    """Events of the exchange since this node's start, accepted here or received from others, by type."""
    since: NotRequired[str]
    """The time of that event."""
    state: NotRequired[str]
    """What the newest event says about the connection: `connected`, `disconnected` or `reconnecting`;
    absent if there is none.
    """


class ExtendRequest(TypedDict):
    """`POST /api/jobs/{jobId}/extend`."""

    leaseMs: NotRequired[int]
    """How long the lease lasts from now on. Default `orders.lease_s`."""
    token: int
    """The token of the claim."""


class FailRequest(TypedDict):
    """`POST /api/jobs/{jobId}/fail`."""

    error: Failure
    """What went wrong."""
    retry: NotRequired[bool]
    """Whether another attempt may succeed."""
    token: int
    """The token of the claim."""


class FeedView(TypedDict):
    """A feed of an exchange."""

    connected: int
    """1 while this process runs the feed and is connected, otherwise 0."""
    events: int
    """Events and prices of exchanges that were published."""
    frames: int
    """Frames received from exchanges."""
    gaps: int
    """Times that changes of a book were missing, and a new snapshot was requested."""
    kind: str
    """The adapter that the feed uses."""
    lease_failures: int
    """Times that a lease could not be renewed at the first try."""
    leases_lost: int
    """Times that a lease was lost, and the feed stopped here."""
    malformed: int
    """Frames, rows and events of exchanges that did not have the documented form and were ignored."""
    reason: str
    """Why it is in that state, or what is wrong with its lease; empty if all is well."""
    reconnects: int
    """Times that a connection to an exchange was lost or could not be made."""
    refused: int
    """Subscriptions and requests that an exchange refused or did not answer."""
    requests: int
    """Requests to exchanges that ended, with an answer or without."""
    state: str
    """`standby` (another process has the lease, or none can get it), `connecting`, `connected` or
    `waiting`.
    """
    trades_missed: int
    """Trades that were missed, and that the exchange does not repeat."""
    unpublished: int
    """Events and prices that their channels did not accept."""


class FieldFault(TypedDict):
    """A field that is wrong."""

    field: str
    """The name of the field."""
    message: str
    """What was wrong and what would be right."""


NodeState: TypeAlias = Literal["serving", "degraded", "draining"]
"""The state of a node."""


class ZoneConnections(TypedDict):
    """How many connections of a node are subscribed to a zone."""

    connections: int
    """How many."""
    zone: str
    """The zone's name."""


class FleetNode(TypedDict):
    """What a node publishes about itself, once a second."""

    connections: int
    """Open WebSockets and event streams."""
    executor: str
    """The kind of executor that executes orders placed there."""
    here: bool
    """Whether it is the node that answers."""
    lag_ms: DeliveryLag
    """Delivery time, from the log to the kernel (`delivery_seconds`), of entries of the last ten seconds."""
    node: str
    """Its id, as in its `/ws/stats`; new at each start."""
    started_at: str
    """When it started, by its own clock."""
    state: NodeState | str
    """Its state."""
    told_at: str
    """When it published this, by its own clock."""
    version: str
    """The version of its program."""
    zones: list[ZoneConnections]
    """Subscribers by zone: the 64 zones with the most."""
    zones_left_out: int
    """How many more zones have subscribers."""


class FleetTotals(TypedDict):
    """Totals of the listed nodes."""

    connections: int
    """Open WebSockets and event streams."""
    nodes: int
    """How many nodes."""


NodesKnown: TypeAlias = Literal["all", "this_one"]
"""Which nodes an answer covers."""


class FleetView(TypedDict):
    """`GET /ws/stats?scope=fleet`: the nodes that share the storage."""

    nodes: list[FleetNode]
    """The nodes, longest running first; at most 1,024, always including the one that answers."""
    nodes_known: NodesKnown | str
    """Which nodes this answer covers."""
    note: NotRequired[str]
    """A note on the list, for people; absent if there is none."""
    scope: str
    """`fleet`."""
    totals: FleetTotals
    """Totals of the listed nodes."""


class TlsHealth(TypedDict):
    """The state of the gateway's certificate."""

    expires_at: str
    """When the certificate expires."""
    files: str
    """`fresh`, or `stale` if the files now hold something unusable, so that their previous contents stay
    in effect; the log says why.
    """


class WebSocketView(TypedDict):
    """Counters of WebSockets since the start."""

    error_rate_percent: float
    """That number, in percent of the messages received."""
    errors: int
    """Messages that were answered with an error."""
    messages_received: int
    """Messages from clients."""
    messages_sent: int
    """Messages to clients."""
    open: int
    """WebSockets open now."""
    total: int
    """WebSockets opened."""


class HealthView(TypedDict):
    """`GET /health`, `/ws/health` and `/health/ready`."""

    authentication: NotRequired[AuthenticationView]
    """The state of what the gateway needs to verify tokens; absent if authentication is off."""
    channels_set_aside: NotRequired[list[ChannelSetAside]]
    """Some of the channels for which reconciling fails while Redis serves all others, and why."""
    connections: int
    """WebSockets that are open."""
    degraded: bool
    """Whether Redis is configured or required and does not serve as it should."""
    executor: str
    """The kind of executor that executes orders placed here."""
    live: bool
    """Whether the process works."""
    node: str
    """The id of the process, new at each start."""
    other_executors: NotRequired[list[str]]
    """The kinds that other nodes on the same storage have: their workers do not execute orders placed
    here. Absent if there are none.
    """
    primaries: int
    """How many servers share the channels."""
    primaries_away: int
    """How many of them are away."""
    ready: bool
    """Whether it may be sent traffic; a degraded gateway is ready."""
    reason: str
    """The reason, for people; may quote the server."""
    reason_code: str
    """The reason, as a stable code."""
    scope: Scope | str
    """Which channels are affected."""
    since: str
    """When this state began."""
    spool: NotRequired[str]
    """The state of the journal's write-ahead log on disk, if there is one."""
    spool_reason: NotRequired[str]
    """What is wrong with that log."""
    state: BackendState | str
    """The state of the storage."""
    status: str
    """`healthy`, `degraded`, `recovering` or `stopping`."""
    storage_backend: BackendName | str
    """Which storage serves."""
    timestamp: str
    """When this answer was made."""
    tls: NotRequired[TlsHealth]
    """The state of the gateway's own certificate; absent if it does not speak TLS."""
    uptime_s: int
    """Seconds since its start."""
    version: str
    """The version of the program."""
    websocket: WebSocketView
    """Counters of WebSockets since the start."""


class Heartbeat(TypedDict):
    """Sent at the announced interval. Browsers hide protocol pings from pages; this lets a page tell a
    quiet connection from a dead one.
    """

    type: Literal["heartbeat"]
    timestamp: str
    """When it was sent."""


class TlsView(TypedDict):
    """TLS handshakes since the start, and the certificate."""

    certificate_left_s: int
    """Seconds until the certificate expires; negative once it has expired."""
    certificates_by_result: dict[str, int]
    """Handshakes in which a client showed a valid certificate, if client certificates are requested, by
    `result`: `listed` in `auth.certificates`, or `unlisted`, which gives no rights.
    """
    failed_by_reason: dict[str, int]
    """Failed TLS handshakes, by reason: `plain` is plain HTTP, which is answered with an explanation;
    `alert` is a client that refuses, mostly because it does not trust the certificate; `no_certificate`
    and `certificate` are clients that show no certificate although they must, or an invalid one.
    """
    handshakes: int
    """Completed TLS handshakes."""
    reloads_by_result: dict[str, int]
    """Times that the certificate and key were reloaded, by `result`: `good`, or `failed`, after which the
    previous ones stay in effect.
    """
    resumed: int
    """Those that resumed an earlier session."""


class HttpView(TypedDict):
    """HTTP requests, and TCP connections."""

    accept_failures: int
    """Failed accepts, for example because no file descriptors were left."""
    accepted: int
    """TCP connections accepted."""
    answer_bytes: int
    """Memory for lists, `/latest`, `/history`, orders with their updates, and all compressed answers that
    clients have not read yet, in bytes (`http.answers_bytes_max`).
    """
    bad_requests: int
    """Connections that ended without a complete request."""
    body_bytes: int
    """Memory for request bodies that are being read, all requests together, in bytes
    (`http.bodies_bytes_max`).
    """
    event_requests: int
    """Requests that post events."""
    event_requests_refused: int
    """Requests that post events and had a fault."""
    events_accepted: int
    """Events accepted over HTTP."""
    key_places_stale: int
    """Sources of keys (files, addresses) that currently yield nothing usable; their previous contents stay
    in effect. Health reports `"keys":"stale"`, and the log says which source and why.
    """
    open: int
    """Open TCP connections, including WebSockets."""
    panics: int
    """Panics (bugs) that ended one request; everything else continued."""
    price_requests: int
    """Requests that post prices."""
    price_requests_refused: int
    """Requests that post prices and had a fault."""
    prices_accepted: int
    """Prices accepted over HTTP."""
    proxy_closed: int
    """Connections of trusted proxies that the proxy closed before the header was complete."""
    proxy_garbage: int
    """Connections of trusted proxies that were closed because they did not begin with a valid PROXY
    protocol header (`http.proxy_protocol`).
    """
    proxy_timeout: int
    """Connections of trusted proxies that were closed because the header was incomplete when time ran out."""
    refused: int
    """Accepted connections that a limit refused."""
    refused_unanswered: int
    """Refused connections that were closed without an answer, because more came than the
    `http.refusals_per_s` that are told why.
    """
    requests_refused_by_reason: dict[str, int]
    """Requests answered with a problem, by its code, such as `unknown_host`, `origin_not_allowed`, or
    `busy`: the request or its answer would exceed one of the bounds on bytes.
    """
    revocations: int
    """Revocations in effect."""
    tls: NotRequired[TlsView]
    """The gateway's own TLS; absent if it has none."""
    tokens_accepted: int
    """Valid tokens and API keys."""
    tokens_refused_by_reason: dict[str, int]
    """Invalid tokens, API keys and client certificates, by reason."""


class OutsideInvalid(TypedDict):
    """Outside updates that are invalid."""

    no_stage: int
    """Outside updates that name no stage of an order."""
    not_an_object: int
    """Outside updates that are not objects."""
    not_json: int
    """Outside updates that are not JSON."""
    too_large: int
    """Outside updates that are too large."""


class OutsideRefused(TypedDict):
    """Outside updates that the log refused."""

    closed: int
    """Outside updates that came after the last one of their order."""
    has_job: int
    """Outside updates refused because the gateway's workers execute the order."""
    stale_fence: int
    """Outside updates refused because a worker held the lease of the order."""


class InteropCounts(TypedDict):
    """The exchange with outside workers, since the start."""

    accepted: int
    """Outside updates that this node put into the log."""
    duplicates: int
    """Outside updates that the log already had, because other nodes follow the same order."""
    followed: int
    """Orders whose outside updates are followed."""
    gaps: int
    """Times that outside updates may have been missed."""
    invalid: OutsideInvalid
    """Outside updates that are invalid, by reason."""
    lost: int
    """Outside updates dropped after they were received, for lack of memory or because the log did not
    accept them. The next one of the order is marked.
    """
    mirror_failures: int
    """Updates, or orders with some, that could not be written for outside consumers and were given up."""
    mirrored: int
    """Own updates written for outside consumers."""
    refused: OutsideRefused
    """Outside updates that the log refused, by reason."""
    retries: int
    """Storage calls for outside workers that failed and were repeated."""
    unreadable: int
    """Times that the Redis key of an order's updates did not hold a list."""


class JobOutcomeReleased(TypedDict):
    """The job is offered to workers again at once."""

    outcome: Literal["released"]


class JobOutcomeRetry(TypedDict):
    """The job is offered again after a delay."""

    outcome: Literal["retry"]
    retryInMs: int
    """The delay in milliseconds."""


class JobOutcomeFailed(TypedDict):
    """The order has ended."""

    outcome: Literal["failed"]


JobOutcome: TypeAlias = JobOutcomeReleased | JobOutcomeRetry | JobOutcomeFailed
"""What happened to a job that its worker did not complete."""


class JobsView(TypedDict):
    """Jobs by state."""

    claimed: int
    """Jobs that a worker has."""
    dead: int
    """Dead letters."""
    delayed: int
    """Jobs that wait for their next attempt."""
    done: int
    """Jobs whose orders have ended."""
    waiting: int
    """Jobs that wait for a worker."""


Lane: TypeAlias = Literal["latest", "every"]
"""What happens to a client that reads too slowly."""


class LeaseHeld(TypedDict):
    """The worker still holds the lease of the job."""

    held: bool
    """Always true."""


class LimitsView(TypedDict):
    """What the limits of principals and tenants, and of connections that lag, refused."""

    behind: int
    """Connections that have lagged for a second or more, if their number is limited."""
    dry_run: dict[str, int]
    """What would have been refused without `limits.dry_run`."""
    principals: int
    """Principals whose use is tracked; beyond 65,536, further ones share one allowance."""
    refused: dict[str, int]
    """Requests refused, connections closed and deliveries held back, by setting: `principal.orders_per_s`
    for `limits.principal.orders_per_s`, and so on. Absent if nothing is limited.
    """
    tenants: int
    """Tenants whose use is tracked; beyond 65,536, further ones share one allowance."""


class Live(TypedDict):
    """`GET /health/live`."""

    status: str
    """`live`."""


class MemoryUsage(TypedDict):
    """The memory that this process' own logs take."""

    bytes: int
    """Bytes of the channels in this process: their entries, the latest entry of each key, and what a
    channel takes by itself.
    """
    bytes_max: int
    """The bound on these bytes."""
    disk: str
    """The state of the memory storage's files (`storage.memory.data_dir`): `off`, `working`, `failed`,
    `stalled` or `closed`.
    """
    disk_bytes: int
    """The size of the files; free space inside is reused."""
    disk_commits: int
    """Transactions written for callers that waited: with `fsync = "always"`, as many fsyncs."""
    disk_reason: NotRequired[str]
    """What is wrong with them; absent if nothing is."""
    disk_refused: int
    """Requests refused because the disk did not take the data, or not in time; each try counts."""
    disk_set_aside: int
    """Files that could not be read and were set aside, since the start of the process."""
    evicted_entries: int
    """Entries of logs that were evicted because of the bound; readers who ask for them are told of the
    gap.
    """
    evicted_latest: int
    """Latest entries of keys that were evicted because of the bound."""
    latest_bytes: int
    """The part of these bytes that latest entries take."""


class MessagesView(TypedDict):
    """Messages over WebSockets."""

    bytes_received: int
    """Bytes from clients."""
    conflated: int
    """Waiting messages that were replaced by a newer one."""
    delivery_duration: Timing
    """Time from when the log had accepted entries of this node, or they were received from another one,
    until a shard had handed them to the kernel for all its subscribers; one observation for each batch
    of a channel and each shard. Time in the outbox of a slow reader does not count.
    """
    dropped_by_reason: DroppedMessages
    """Waiting messages that were never sent, by reason."""
    error_rate_percent: float
    """Messages answered with `error`, in percent of those received."""
    errors: int
    """Messages answered with `error`."""
    errors_by_code: dict[str, int]
    """Messages answered with `error`, by its code."""
    gaps_told: int
    """Times that a client was told of missing entries."""
    mailbox_wait: Timing
    """Time that entries waited in a shard's mailbox; one observation for each batch of a channel and each
    shard. The first bucket means practically no wait.
    """
    paced: int
    """Times that a channel waited for readers that lagged far behind."""
    panics: int
    """Panics (bugs) that ended one connection; everything else continued."""
    published: int
    """Entries that clients published over their WebSockets."""
    received: int
    """Text messages from clients."""
    replay_bytes: int
    """Bytes of these pages that wait for clients, or are cached for 2 s for others; beyond
    `channels.replay_bytes_max` pages are small.
    """
    replay_duration: Timing
    """Time from when a client began to catch up until it had."""
    replay_reads: int
    """Pages of logs, and of latest entries for snapshots, read for clients. A page that several clients
    need at about the same time is read once.
    """
    replay_reads_shared: int
    """Times that a reader got a page that was read for another one."""
    replayed: int
    """Entries sent from the log."""
    replays: int
    """Pages of the log sent to clients that catch up."""
    sent: int
    """Messages whose last byte was handed to the kernel."""
    snapshot_entries: int
    """Entries sent in snapshots."""
    snapshots: int
    """Snapshots that clients were sent, or that were begun."""


class NodesView(TypedDict):
    """What a node knows about those that share its storage."""

    lists: int
    """Times that this node read the records of others."""
    lists_failed: int
    """Times that reading them failed."""
    nodes_by_state: dict[str, int]
    """Nodes on this storage by state, this one included, as last listed; only this one while Redis is
    away, and if the storage is memory.
    """
    told: int
    """Times that this node published its own record."""
    unreadable: int
    """Records of nodes that could not be read, counted at each listing."""
    untold: int
    """Times that publishing it failed, as while Redis is away; it is tried again a second later."""


class Previous(TypedDict):
    """How far a run came."""

    attempt: int
    """The number of the attempt, from 1."""
    progress: int
    """How far it was, 0 to 100."""
    status: str
    """The type of its newest update."""


class OfferedJob(TypedDict):
    """A job for a worker to execute."""

    attempt: int
    """The number of this attempt, from 1."""
    jobId: OrderId
    """The job's id."""
    leaseMs: int
    """How long the lease lasts unless it is extended."""
    maxAttempts: int
    """The most attempts that the order may have."""
    order: dict[str, Any]
    """The order as it was placed."""
    orderId: OrderId
    """The order's id; the same UUID."""
    previous: Previous | None
    """How far the previous run came; null if it has not reported anything."""
    run: int
    """How many times it has been claimed, this time included."""
    token: int
    """The fencing token, to be sent with each call about this job."""


class Offer(TypedDict):
    """The answer to a claim."""

    jobs: list[OfferedJob]
    """The claimed jobs; empty if there are none."""


class OrderCancelling(TypedDict):
    """The answer to `POST /api/orders/{orderId}/cancel`: cancelling was requested."""

    orderId: OrderId
    """The order."""
    status: str
    """`cancelling`."""
    success: bool
    """Always true."""


class OrderView(TypedDict):
    """What is known about an order."""

    attempt: int
    """The number of the current attempt, from 1."""
    cancelRequested: bool
    """Whether somebody asked for it to be cancelled."""
    createdAt: NotRequired[str]
    """When it was placed."""
    degraded: NotRequired[bool]
    """True while Redis is away: the answer is what this node knows by itself, which may be out of date.
    Absent otherwise.
    """
    epoch: NotRequired[Epoch]
    """The epoch of the updates' offsets; absent in lists."""
    gap: NotRequired[int | None]
    """How many earlier updates the log no longer has; absent in lists."""
    jobId: NotRequired[OrderId]
    """The id of the job that executes it; absent if the gateway has none for it."""
    lastUpdate: NotRequired[Entry]
    """The newest update, even if it is no longer among `updates`; absent in lists."""
    maxAttempts: int
    """The most attempts that the order may have."""
    order: NotRequired[dict[str, Any]]
    """The order as it was placed; absent if it was not placed here."""
    orderId: OrderId
    """The order's id."""
    progress: int
    """How far it is, 0 to 100."""
    run: int
    """How many times a worker has claimed the order."""
    status: str
    """`pending`, or the type of the newest update."""
    updatedAt: NotRequired[str]
    """When its state last changed."""
    updates: NotRequired[list[Entry]]
    """All updates that the log still has, in order and in the form of messages; absent in lists."""


class OrderList(TypedDict):
    """`GET /api/orders`: the newest first."""

    degraded: NotRequired[bool]
    """Redis is away, and the list has only the orders that this node knows by itself."""
    next: OrderId | None
    """Where the next page begins; null when this is the last one."""
    orders: list[OrderView]
    """The orders."""


class OrderPlaced(TypedDict):
    """The answer to an accepted order, which is now in the queue."""

    jobId: OrderId
    """The job that executes it."""
    orderId: OrderId
    """The order's id."""
    retryOf: NotRequired[OrderId]
    """The order that this one retries, whose attempts all failed."""
    status: str
    """The state of the order."""
    success: bool
    """Always true."""
    wsUrl: str
    """The address of the order's WebSocket."""


OrderStatus: TypeAlias = Literal["pending", "routing", "building", "submitted", "confirmed", "failed"]
"""The state of an order; except for `pending`, also the type of its newest update."""


class OrdersView(TypedDict):
    """What this node did with orders, and how many there are on all nodes."""

    claims_under_way: int
    """Claim requests of outside workers in progress, including those that wait for jobs."""
    confirmed: int
    """Orders confirmed here."""
    dead: int
    """Orders that became dead letters."""
    executor: str
    """The kind of executor that executes orders placed here."""
    failed: int
    """Orders that failed here."""
    given_back: int
    """Runs that were given back, which does not count as an attempt: when the worker stopped, on its
    `release`, or because nobody took the claimed job.
    """
    jobs: JobsView | None
    """Jobs on all nodes; while the storage is degraded, those that this node knows. Null if the storage
    did not answer in time.
    """
    leases_lost: int
    """Runs that stopped because another worker had the order."""
    other_executors: list[str]
    """The kinds that other nodes on the same storage have."""
    panics: int
    """Panics (bugs) that ended one attempt of an order; everything else continued."""
    placed: int
    """Orders queued by this node."""
    refused_full: int
    """Orders refused because the queue was full."""
    repeated: int
    """Repeated requests, by idempotency key."""
    retried: int
    """Runs that ended with another attempt to come."""
    runs: int
    """Jobs claimed through this node."""
    storage_failures: int
    """Storage calls about jobs that failed; each was repeated or reported."""
    updates: int
    """Updates of orders accepted."""
    updates_refused: int
    """Updates that came too late: from a worker that had lost its lease, or after the order's end."""
    updates_unchecked: int
    """Outside updates accepted in an outage, when nobody could say whether their order has a job."""


class OutageView(TypedDict):
    """How long the storage was in each state, what waits for Redis, and how channels fared without it."""

    channels_alone: int
    """Channels that currently continue without Redis, each in a fork."""
    channels_set_aside: int
    """Channels for which reconciling fails while Redis serves all others, for example because their key
    holds something else. Health lists them with the reason; they continue without Redis and are tried
    again every 10 s.
    """
    channels_waiting: int
    """Channels to be reconciled with Redis, including those."""
    forks: int
    """Times that a channel began a fork, to continue without Redis."""
    forks_late: int
    """Forks that began because an append was late while Redis served."""
    job_retries: int
    """Times that recording one failed and was tried again."""
    jobs_recorded: int
    """Those of them that Redis has received since."""
    jobs_taken: int
    """Jobs that this node accepted without Redis."""
    jobs_waiting: int
    """Jobs of this node that Redis does not have yet."""
    journal_aged: int
    """Entries of zones dropped because they waited too long."""
    journal_bytes: int
    """Their bytes."""
    journal_entries: int
    """Accepted entries that wait for Redis."""
    journal_in_memory_only: int
    """Entries in the journal that would be lost with the process, because there is no spool or they are
    not in it.
    """
    journal_oldest_ms: NotRequired[int]
    """How long the oldest of them has waited, in milliseconds; absent if none waits."""
    journal_order_overflow: int
    """Updates dropped because their order had more than may wait."""
    journal_refused_full: int
    """Entries refused, because the journal was full."""
    journal_thinned: int
    """Accepted entries that the log will not have, because a newer price of their key replaced them when
    the journal was full.
    """
    key_conflicts: int
    """Jobs accepted without Redis whose idempotency key belonged to another job in Redis."""
    lost_logs: int
    """Logs that had lost acknowledged entries."""
    put_back: int
    """Entries appended again to logs that had lost them."""
    records_let_go: int
    """Small records, such as that a zone exists, dropped because too many waited for Redis."""
    redis_round_trip: Timing
    """The round trip of a health probe: a script that writes, five times a second, to each primary."""
    rejoin_retries: int
    """Times that reconciling a channel failed and was tried again."""
    rejoins: int
    """Times that a channel was reconciled with Redis."""
    replayed: int
    """Entries sent to the log when Redis was back."""
    seconds_in_state: dict[str, float]
    """Time spent in each state of the storage, in seconds."""
    spool: str
    """The state of the spool, the journal's write-ahead log on disk: `off`, `working`, `failed`, `stalled`
    or `closed`.
    """
    spool_bytes: int
    """Their bytes."""
    spool_entries: int
    """Entries in the spool, including those of earlier processes of this gateway."""
    spool_failed: int
    """Entries that could not be written: the disk is full or fails."""
    spool_full: int
    """Entries that the spool had no room for; each try counts."""
    spool_reason: NotRequired[str]
    """What is wrong with it; absent if nothing is."""
    spool_slow: int
    """Entries that the disk did not write in time."""
    superseded: int
    """Accepted entries that the log refused when it was back: the order had ended, or belonged to another
    worker.
    """
    switches: int
    """Changes of the storage's state."""


ProblemCode: TypeAlias = Literal[
    "invalid_json",
    "invalid_utf8",
    "broken_body",
    "invalid_name",
    "invalid_position",
    "invalid_order_id",
    "invalid_idempotency_key",
    "invalid_status",
    "invalid_limit",
    "invalid_query",
    "invalid_header",
    "invalid_host",
    "tls_required",
    "invalid_target",
    "invalid_websocket_key",
    "not_upgradable",
    "unauthorized",
    "origin_not_allowed",
    "forbidden",
    "not_found",
    "unknown_order",
    "unknown_dead_letter",
    "unknown_event_type",
    "unknown_key",
    "unknown_zone",
    "unknown_record",
    "unknown_connection",
    "no_gateway",
    "method_not_allowed",
    "body_timeout",
    "idempotency_conflict",
    "too_late",
    "already_ended",
    "has_job",
    "no_job",
    "may_be_submitted",
    "lease_lost",
    "cancelled",
    "not_external",
    "record_exists",
    "foreign_epoch",
    "precondition_failed",
    "body_too_large",
    "line_too_large",
    "price_too_large",
    "event_too_large",
    "record_too_large",
    "update_too_large",
    "unsupported_media_type",
    "unsupported_content_encoding",
    "unknown_host",
    "invalid_order",
    "invalid_update",
    "invalid_request",
    "invalid_price",
    "invalid_event",
    "invalid_key",
    "invalid_record",
    "reserved_field",
    "duplicate_field",
    "invalid_timestamp",
    "too_many_zones",
    "too_many_keys",
    "too_many_records",
    "upgrade_required",
    "unsupported_version",
    "too_many_connections_from_address",
    "too_many_connections_of_subject",
    "connecting_too_often",
    "rate_limited",
    "internal",
    "corrupt",
    "not_implemented",
    "storage_unavailable",
    "busy",
    "shutting_down",
    "too_many_connections",
    "queue_full",
    "registry_behind",
    "storage_degraded",
    "unknown_while_degraded",
    "no_worker",
    "keys_awaited",
]
"""Why a request was refused. Stable: clients may match on it."""


class Problem(TypedDict):
    """A refused request: what was wrong, and what would be right. Most fields may be missing if the answer
    comes from something other than a gateway.
    """

    accepted: NotRequired[int]
    """How many prices or updates were accepted despite the problem."""
    channel: NotRequired[str]
    """If the request names several channels, the faulty one, as the client wrote it."""
    code: NotRequired[ProblemCode | str]
    """A stable code; programs may match on it."""
    detail: NotRequired[str]
    """The problem in words, for people."""
    errors: NotRequired[list[FieldFault]]
    """Each wrong field."""
    index: NotRequired[int]
    """The index of the first faulty array element, counted from 0."""
    line: NotRequired[int]
    """The line with the first fault, counted from 1."""
    retry_after_ms: NotRequired[int]
    """After how many milliseconds the same request may succeed, if known; `Retry-After` gives it in whole
    seconds.
    """
    status: NotRequired[int]
    """The HTTP status."""
    title: NotRequired[str]
    """The HTTP status in words."""
    type: NotRequired[str]
    """`about:blank`: the code identifies the problem."""


class Published(TypedDict):
    """Everything that was to be published is in the log."""

    type: Literal["published"]
    accepted: int
    """How many entries were published."""
    channel: ChannelName
    """The channel."""
    id: NotRequired[RequestId]
    """The `id` of the request, if it had one."""
    timestamp: str
    """When it was sent."""


class RecordList(TypedDict):
    """`GET /api/providers` and `/api/active-orders`."""

    next: NotRequired[str]
    """If present, there are more: repeat the request with `after=` this."""
    records: list[dict[str, Any]]
    """The records, as they were written."""
    state: BackendState | str
    """`healthy` if records written at other gateways are known here."""
    total: int
    """How many records match the filter."""
    versions: list[str]
    """The version of each, for `If-Match`."""


class RecordsSet(TypedDict):
    """`PUT` and `DELETE` of `/api/providers` and of `/api/active-orders`."""

    before: int
    """How many there were before."""
    records: int
    """How many records there are now."""


class RedisMetrics(TypedDict):
    """Counters of the bridge, which exchanges events with other gateways and processes; all are 0 if it is
    off.
    """

    activeSubscriptions: int
    """Those of them that are."""
    connected: bool
    """Whether Redis is connected: for the bridge, or, if that is off, for the storage."""
    errors: int
    """Lost connections and failed calls of the bridge."""
    publishedEvents: int
    """Events published."""
    receivedEvents: int
    """Events of others received and accepted."""
    subscriptions: int
    """Types that should be subscribed to at the moment."""


class RedisView(TypedDict):
    """`GET /health/redis`."""

    link: str
    """The state of the storage's Redis: `up` (also while the gateway reconciles with it), `partial` (some
    primaries of a cluster are away), `down` or `not_configured`.
    """
    metrics: RedisMetrics
    """Counters of the bridge."""
    primaries: int
    """How many servers share the channels."""
    primaries_away: int
    """How many of them are away."""
    reason: str
    """The reason, for people; may quote the server."""
    reason_code: str
    """The reason, as a stable code."""
    scope: Scope | str
    """Which channels are affected."""
    serving: bool
    """Whether Redis serves."""
    since: str
    """When this state began."""
    state: BackendState | str
    """The state of the storage."""
    status: str
    """`healthy` (also if no Redis is configured), `degraded` (some primaries of a cluster are away, or a
    connection of the bridge is) or `unhealthy`.
    """
    storage_backend: BackendName | str
    """Which storage serves."""


class RegistryView(TypedDict):
    """A registry on one node."""

    append_failures: int
    """Failed appends; each was tried again."""
    appended: int
    """Records and removals appended to the log; several writes of a record may be combined."""
    behind_duration: Timing
    """How long written records waited for the log."""
    compared: int
    """Times that the records here were compared with the log."""
    expired: int
    """Expired records that this node noticed first."""
    imported: int
    """Records taken from the Redis keys of other programs."""
    is_lagging: bool
    """Whether it has waited for 5 seconds or longer."""
    mirror_failures: int
    """Times that writing these keys failed."""
    orders_left_out: int
    """Orders in progress here that the registry had no room for."""
    records: int
    """Records."""
    removals: int
    """Removals that are remembered, so that older records do not come back."""
    removed: int
    """Records removed here."""
    state: str
    """`healthy`; `degraded` while Redis is away and what other nodes write is unknown here; `recovering`
    after that, until the records were compared with the log.
    """
    superseded: int
    """Entries of the log that were older than the known version of their record."""
    unreadable: int
    """Entries of the log that are not records."""
    waiting: int
    """Records written here that are not in the log yet."""
    waiting_for_ms: int | None
    """How long the first of them has waited, in milliseconds; null if none waits."""
    went_offline: int
    """Providers taken offline because their connection or their node was gone."""
    written: int
    """Records written here, renewals included."""


class RegistriesView(TypedDict):
    """The registries of a node."""

    active_orders: RegistryView
    """Orders in progress."""
    providers: RegistryView
    """Online providers."""


class RegistryStatus(TypedDict):
    """`GET /api/registry`."""

    active_orders: RegistryView
    """Orders in progress."""
    node: str
    """The node that answers."""
    providers: RegistryView
    """Online providers."""


class RegistrySynced(TypedDict):
    """What the Redis key of a registry held."""

    found: int
    """Records in the key."""
    invalid: int
    """How many of them are not valid records."""
    registry: str
    """`providers` or `active-orders`."""
    taken: int
    """How many of them were applied."""


class RegistrySync(TypedDict):
    """`POST /api/registry/sync`."""

    synced: list[RegistrySynced]
    """For each registry, what its Redis key held."""


class ReleaseRequest(TypedDict):
    """`POST /api/jobs/{jobId}/release`."""

    token: int
    """The token of the claim."""


class ReportAccepted(TypedDict):
    """The report was accepted."""

    accepted: bool
    """Always true."""


class Resync(TypedDict):
    """The log of a subscription changed its epoch, or entries are missing. Entries of `epoch` follow,
    starting after `offset`.
    """

    type: Literal["resync"]
    channel: ChannelName
    """The channel."""
    epoch: Epoch
    """The epoch from here on; unchanged if the message only reports a gap."""
    gap: NotRequired[int]
    """How many entries are missing; absent if that is unknown."""
    offset: int
    """The next entry has a greater offset than this."""
    old_epoch: Epoch
    """The epoch before this message."""
    recovered: bool
    """Whether nothing is missing."""
    snapshot: NotRequired[bool]
    """A snapshot comes first, in place of what is missing: the latest entry of each key."""
    timestamp: str
    """When it was sent."""


class Revoke(TypedDict):
    """What to revoke: exactly one of these fields."""

    jti: NotRequired[str]
    """The `jti` of a token."""
    key: NotRequired[str]
    """The name of an API key."""
    subject: NotRequired[str]
    """A subject: everything issued to it until now."""


class RevokedOn(TypedDict):
    """Where a revocation is known to be in effect."""

    degraded: bool
    """Whether the shared storage is away: then other nodes are unknown, and learn of the revocation when
    the storage is back.
    """
    holds_on: list[str]
    """The nodes that have confirmed it, beginning with the one that was asked."""
    unconfirmed_on: list[str]
    """The nodes that have not confirmed it in time."""


class Subscribed(TypedDict):
    """Entries of a channel follow, starting after `offset`."""

    type: Literal["subscribed"]
    channel: ChannelName
    """The channel."""
    epoch: Epoch
    """The epoch of the offsets from here on."""
    gap: NotRequired[int]
    """How many entries after the requested position the log no longer has; absent if that is unknown
    because the epoch is another one.
    """
    id: NotRequired[RequestId]
    """The `id` of the request, if it had one."""
    message: NotRequired[str]
    """The state of the order, for people; only in the channel of an order."""
    offset: int
    """The next entry has a greater offset than this."""
    orderId: NotRequired[OrderId]
    """The order whose channel it is."""
    recovered: bool
    """Whether nothing is missing between the requested position and `offset`. Without a requested
    position: true for a zone; for an order, whether the log still has all its updates.
    """
    snapshot: NotRequired[bool]
    """A snapshot comes first: the latest entry of each key."""
    timestamp: str
    """When it was sent."""
    top: NotRequired[int]
    """The newest offset when the gateway looked at the log; absent if the log continues in another epoch,
    which `resync` announces. If it differs from `offset`, the entries in between come first, and then
    `caught_up`.
    """


class Unsubscribed(TypedDict):
    """No more entries of this channel follow."""

    type: Literal["unsubscribed"]
    channel: ChannelName
    """The channel."""
    code: NotRequired[EndCode | str]
    """Why the gateway ended the subscription; absent in the answer to `unsubscribe`."""
    id: NotRequired[RequestId]
    """The `id` of the request, if it had one."""
    timestamp: str
    """When it was sent."""


class SnapshotEnd(TypedDict):
    """The snapshot is complete: the latest entries of the keys as of `offset` in `epoch`. Entries follow,
    starting after that offset.
    """

    type: Literal["snapshot_end"]
    channel: ChannelName
    """The channel."""
    epoch: Epoch
    """The epoch from here on."""
    offset: int
    """The next entry has a greater offset than this."""
    recovered: bool
    """Whether the snapshot has all keys. Otherwise some entries could not be reached, and another snapshot
    follows when they can.
    """
    timestamp: str
    """When it was sent."""


class TokenExpiring(TypedDict):
    """The client's token expires soon."""

    type: Literal["token_expiring"]
    expires_at: str
    """When it expires. The connection is closed then, unless the client has sent another token."""
    timestamp: str
    """When it was sent."""


ServerMessage: TypeAlias = (
    ConnectionEstablished
    | Connection
    | Subscribed
    | CaughtUp
    | Unsubscribed
    | Resync
    | SnapshotEnd
    | Heartbeat
    | Answer
    | BackendStateMessage
    | ErrorMessage
    | Closing
    | Authenticated
    | TokenExpiring
    | Published
    | Entry
)
"""A message from the gateway. The order of the fields is checked by the snapshots in
`tests/fixtures/protocol`.
"""


class SetSubscription(TypedDict):
    """An operator's choice for a type of events, in effect until the process ends."""

    mode: SubscriptionMode
    """When to subscribe to it from now on."""
    type: str
    """The type, such as `ticker`."""


class StateSpell(TypedDict):
    """A state of the storage, from when it began, and what happened meanwhile."""

    entries_late: int
    """Accepted entries that reached Redis late meanwhile."""
    entries_let_go: int
    """Accepted entries that the log will not have: they were too old or too many, or it refused them."""
    entries_put_back: int
    """Entries appended again to logs that had lost them."""
    entries_refused: int
    """Entries refused because the journal was full."""
    lasted_ms: int
    """How long it has lasted, in milliseconds of a monotonic clock."""
    logs_lost: int
    """Logs that had lost acknowledged entries."""
    reason: str
    """The reason, for people."""
    reason_code: str
    """The reason when it began, as a stable code."""
    scope: Scope | str
    """Whether it affected all channels when it began."""
    since: str
    """When it began."""
    state: BackendState | str
    """The state."""
    storage_backend: BackendName | str
    """The storage that served."""
    until: NotRequired[str]
    """When it ended; absent for the current one."""


class StatsView(TypedDict):
    """`GET /ws/stats`: counters since the start, and current sizes. Fields may be added and removed with
    the gateway's version; readers treat missing ones as empty.
    """

    channels: ChannelsView
    """Channels, and their entries."""
    connection_list: list[ConnectionInfo]
    """Some of the open connections, in the order of their ids."""
    connections: ConnectionsView
    """WebSockets."""
    connections_next: NotRequired[str]
    """If present, more connections match the request: repeat it with `after=` this."""
    exchanges: dict[str, ExchangeView]
    """The connections to exchanges and what they brought, by exchange; `*` stands for those beyond the
    first 256. The state of a connection is absent if it could not be read from the log in time.
    """
    feeds: dict[str, FeedView]
    """The feeds of exchanges configured in this process, by the exchange's name in events."""
    fleet: NodesView
    """The nodes that share the storage; `?scope=fleet` lists them."""
    http: HttpView
    """Requests, and the TCP connections that bring them."""
    interop: InteropCounts
    """The exchange with outside workers over Redis lists."""
    limits: LimitsView
    """Limits of principals and tenants."""
    memory: MemoryUsage
    """The memory that this process' own logs take."""
    messages: MessagesView
    """Messages over WebSockets."""
    node: str
    """The id of the process, new at each start."""
    orders: OrdersView
    """What this node did with orders, and how many there are on all nodes."""
    outage: OutageView
    """What waits for Redis, and how channels fared without it."""
    primaries: int
    """How many servers share the channels."""
    primaries_away: int
    """How many of them are away."""
    reason: str
    """The reason, for people; may quote the server."""
    reason_code: str
    """The reason, as a stable code."""
    redis: BridgeView
    """The exchange of events with other gateways and processes over Redis pub/sub."""
    registries: RegistriesView
    """Registries: providers online, and orders in progress."""
    scope: Scope | str
    """Which channels are affected."""
    silent_shards: int
    """Shards too busy to report their connections per zone."""
    since: str
    """When this state began."""
    state: BackendState | str
    """The state of the storage."""
    storage_backend: BackendName | str
    """Which storage serves."""
    storage_history: list[StateSpell]
    """The states of the storage, newest first; the first one is the current one."""
    timestamp: str
    """When this answer was made."""
    uptime_s: int
    """Seconds since its start."""
    version: str
    """The version of the program."""


class Swap(TypedDict):
    """`POST /api/orders/execute` if `orders.schema` is `swap`: an exchange of one token for another.
    Numbers keep the digits with which they are written.
    """

    amount: float
    """How much of `tokenIn` to sell; greater than 0."""
    metadata: NotRequired[dict[str, Any]]
    """Any object; stored with the order."""
    slippage: NotRequired[float]
    """By how many percent the price may be worse than quoted, 0 to 100. Default 0.5."""
    tokenIn: str
    """The token to sell, such as `SOL`."""
    tokenOut: str
    """The token to buy, such as `USDC`."""


Zone: TypeAlias = str
"""The name of a zone."""


class ZoneView(TypedDict):
    """A zone that has been published to."""

    channel: ChannelName
    """Its channel."""
    lane: Lane
    """What happens to clients that read it too slowly."""
    stream: str
    """The path of its WebSocket."""
    zone: str
    """Its name."""


class ZoneList(TypedDict):
    """`GET /api/zones`."""

    zones: list[ZoneView]
    """The zones, ordered by name."""
