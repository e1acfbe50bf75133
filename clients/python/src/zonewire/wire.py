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
    """The answer to what was published, and to updates: how many were accepted."""

    accepted: int
    """So many."""


RequestId: TypeAlias = str | float
"""What a client calls a request, of at most 128 bytes as JSON; it comes back as it was written."""


class Answer(TypedDict):
    """The answer to a request that asked for nothing else."""

    type: Literal["heartbeat_ack", "pong"]
    id: NotRequired[RequestId]
    """The `id` of the request, when it had one."""
    timestamp: str
    """When it was sent."""


Token: TypeAlias = str
"""Who one is: a token, or an API key. It is never printed."""


class Auth(TypedDict):
    """Shows who one is, or shows it anew before the token that was shown expires."""

    type: Literal["auth"]
    id: NotRequired[RequestId]
    """Comes back in the answer."""
    token: Token
    """The token."""


class Authenticated(TypedDict):
    """Who one is, to the gateway."""

    type: Literal["authenticated"]
    expires_at: NotRequired[str]
    """When it expires; absent where it does not."""
    id: NotRequired[RequestId]
    """The `id` of the request, when it had one."""
    subject: str
    """The subject of the token, or of the key."""
    timestamp: str
    """When it was sent."""


Authentication: TypeAlias = Literal["required", "optional"]
"""Whether the gateway asks who one is."""


class AuthenticationView(TypedDict):
    """How a gateway's knowledge of tokens does."""

    keys: str
    """`fresh`, or `stale` where a place of keys fails; the log says which."""
    revocations: str
    """`known`, or `unknown` where there may be revocations that this node has not heard of."""


BackendName: TypeAlias = Literal["redis", "in-memory"]
"""Which storage serves, as clients see it."""


BackendState: TypeAlias = Literal["healthy", "degraded", "recovering"]
"""How well it serves."""


ChannelName: TypeAlias = str
"""The name of a channel: `zone:<zone>`, `order:<uuid>`, `registry:providers`, `registry:active-orders`, or
`event:<type>`, with a pattern behind it for those of its events that match.
"""


Scope: TypeAlias = Literal["all", "some"]
"""Which channels a state of the storage is about."""


class BackendStateMessage(TypedDict):
    """The storage changed how it serves."""

    type: Literal["backend_state"]
    channels: NotRequired[list[ChannelName]]
    """With `some`: those of this connection's subscriptions that are, as far as they find room."""
    more_channels: NotRequired[int]
    """How many more there are."""
    reason: NotRequired[str]
    """Why, for people; absent when healthy."""
    scope: Scope | str
    """Which channels are concerned: `all`, or `some`."""
    since: str
    """Since when."""
    state: BackendState | str
    """How well it serves."""
    storage_backend: BackendName | str
    """Which storage serves."""
    timestamp: str
    """When it was sent."""


class Bare(TypedDict):
    """A request for nothing but an answer."""

    type: Literal["heartbeat", "heartbeat_ack", "ping"]
    id: NotRequired[RequestId]
    """Comes back in the answer."""


class SourceCounts(TypedDict):
    """What a gateway published of a live type, and what came of it."""

    missed: int
    """Those that did not come, of those that this node listened to."""
    published: int
    """The number of its newest event that is known here: it has published so many since its start."""
    received: int
    """Those that came, since this node began to listen."""


class BridgeSource(TypedDict):
    """A gateway that was heard of."""

    source: str
    """Its node."""
    types: dict[str, SourceCounts]
    """By type."""


SubscriptionMode: TypeAlias = Literal["interest", "always", "never"]
"""When a type of events of other processes is subscribed to."""


class BridgeSubscription(TypedDict):
    """A type of events."""

    active: bool
    """It is."""
    channel: str
    """The pub/sub channel."""
    delivery: str
    """`live` or `durable`."""
    due: bool
    """It is to be subscribed to at the moment. A durable type is by one gateway only, which takes events
    of other processes in; the others have them from the log.
    """
    missed: int
    """Live events of other gateways that did not come."""
    mode: SubscriptionMode | str
    """When it is subscribed to."""
    published: int
    """Events published."""
    publishes: bool
    """What this node accepts of it is published."""
    received: int
    """Events of others heard and taken."""
    subscribes: bool
    """The configuration lets it be subscribed to."""
    type: str
    """Its name."""
    wanted_here: bool
    """Somebody on this node follows it."""


class BridgeSubscriptions(TypedDict):
    """What this node publishes to other gateways and processes, what it hears of them, and what came of
    which.
    """

    enabled: bool
    """Whether events are exchanged at all."""
    sources: list[BridgeSource]
    """The gateways that were heard of."""
    takes_in: bool
    """This node is the one that takes durable events of other processes in."""
    types: list[BridgeSubscription]
    """All types."""


class Timing(TypedDict):
    """How long something took, each time since the start."""

    buckets: list[int]
    """How many times it took longer than the bucket before says, and at the most as long as this one says:
    50, 100, 250 and 500 µs, 1, 2.5, 5, 10, 25, 50, 100 and 250 ms, 1 and 5 s, or longer.
    """
    sum_us: int
    """All of them together, in microseconds."""


class BridgeView(TypedDict):
    """The exchange of events with other gateways and processes by Redis pub/sub. Each map is by type of
    events.
    """

    active_subscriptions: int
    """Of these, those that are."""
    connected: int
    """Whether both connections of the bridge are there, or, where it is off, the storage's: 1, or 0."""
    errors: int
    """Connections of the bridge that were lost, and calls that failed."""
    gaps: int
    """Times that messages of other processes may have been missed."""
    intake_full: dict[str, int]
    """Durable events of other processes let go, since too many waited for the log."""
    invalid: dict[str, int]
    """Messages that are no events: no envelope, no event of the type, or too large."""
    lag: Timing
    """How long after their acceptance by another gateway live events were in this one's log. The clocks of
    the two count.
    """
    lease_lost: dict[str, int]
    """Durable events of other processes that this gateway had heard when another one began to take them
    in.
    """
    left_alone: dict[str, int]
    """Durable events of other gateways, which come by the log."""
    missed: dict[str, int]
    """Live events of other gateways that did not come."""
    not_answered: dict[str, int]
    """Events that may not have been published, since Redis did not answer. They are not sent again."""
    not_taken: dict[str, int]
    """Live events heard that this gateway's own log did not take."""
    other_delivery: dict[str, int]
    """Events of gateways that have another setting `bridge.durable`, which were let go."""
    own: dict[str, int]
    """This gateway's own events, as it hears them itself."""
    published: dict[str, int]
    """Events published, by type."""
    published_events: int
    """Events published to other gateways and processes."""
    queue_full: dict[str, int]
    """Events not published, since newer ones left no room for them in the queue."""
    received: dict[str, int]
    """Events heard and taken, by type."""
    received_events: int
    """Events of other gateways and processes that were heard and taken."""
    redis_away: dict[str, int]
    """Events not published, since Redis was away."""
    stale: dict[str, int]
    """Live events that came after they were said to be missing, and were let go."""
    subscriptions: int
    """Types of events that are to be subscribed to at the moment."""
    taken_in: dict[str, int]
    """Durable events of other processes that this gateway put into the log."""
    taken_in_before: dict[str, int]
    """Durable events of other processes that were in the log, by their own ids."""
    takes_in: int
    """Whether this gateway is the one that takes durable events of other processes in: 1, or 0."""
    waiting: int
    """Accepted events that wait to be published."""


Digits: TypeAlias = float | str
"""A decimal as its publisher wrote it: a number, or a text that is one."""


class Candle(TypedDict):
    """What a candle says."""

    close: Digits
    """The last price."""
    closed: bool
    """Nothing more is expected."""
    correction: NotRequired[bool]
    """It takes the place of one that was closed."""
    exchange: str
    """The exchange."""
    high: Digits
    """The highest."""
    interval: str
    """How long it is, such as `1m`."""
    low: Digits
    """The lowest."""
    open: Digits
    """The first price."""
    openTime: Digits
    """When it begins."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""
    volume: Digits
    """How much was traded."""


class CandleEvent(TypedDict):
    """A candle."""

    type: Literal["candle"]
    channel: ChannelName
    """The channel: that of the type, or the view of it that was subscribed to."""
    data: Candle
    """What its publisher gave."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch. Of a view those of others are left out."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


class CaughtUp(TypedDict):
    """All that the log had when the subscription was made has been sent. Comes where that was something."""

    type: Literal["caught_up"]
    channel: ChannelName
    """The channel."""
    timestamp: str
    """When it was sent."""


class ChannelSetAside(TypedDict):
    """A channel that cannot be put in order."""

    channel: ChannelName
    """The channel."""
    reason: str
    """Why."""


class RefusedEntries(TypedDict):
    """Updates of orders that the log takes neither now nor later."""

    order_ended: int
    """Updates that came after the end of their order."""
    stale_lease: int
    """Updates of orders that were written under a lease that was lost."""


class SkippedEntries(TypedDict):
    """Entries that this build cannot show."""

    unknown_kind: int
    """Entries of followed channels whose kind a newer build knows, and this one does not."""
    unreadable: int
    """Entries whose stored form is another one, or damaged: also data that is no JSON object, as somebody
    else may write it to the same Redis.
    """


class ChannelsView(TypedDict):
    """Channels, and their entries."""

    active: int
    """Channels in use."""
    append_duration: Timing
    """How long appends took that the storage answered; of up to 50 entries each."""
    appends: int
    """Appends sent to the storage."""
    echoes_dropped: int
    """Storage events let go because a channel was busy; the log was read instead."""
    entries_accepted: int
    """Entries that the log took."""
    entries_delivered: int
    """Entries handed to shards, in order."""
    entries_missed: int
    """Entries that left the log before this node saw them."""
    entries_refused_by_reason: RefusedEntries
    """Updates of orders that the log refused for good."""
    entries_skipped_by_reason: SkippedEntries
    """Entries of followed channels that this build cannot show."""
    entries_unavailable: int
    """Entries refused for want of storage."""
    epoch_changes: int
    """Times that a log began a new life."""
    followed_events: int
    """Types of events of which somebody follows all, or a view."""
    holes_repaired: int
    """Times that the log was read for missing entries."""
    storage_retries: int
    """Storage calls (appends and reads) that failed and were repeated."""
    views: int
    """Views of events that somebody follows."""


class ClaimRequest(TypedDict):
    """What a worker asks for."""

    leaseMs: NotRequired[int]
    """For how long it holds them without a sign of life. Default `orders.lease_s`."""
    limit: NotRequired[int]
    """How many jobs at the most. Default 1."""
    waitMs: NotRequired[int]
    """How long it waits where there is nothing to do. Default 0."""
    worker: str
    """Its name; stands in the `executor` field of the updates."""


Epoch: TypeAlias = str
"""One life of the log of a channel. Opaque."""


class Position(TypedDict):
    """A place in a channel: just after the entry with this offset. Offset 0 is before the first entry."""

    epoch: Epoch
    """The life of the log that `offset` belongs to."""
    offset: int
    """The offset of the last entry had; entries count from 1. Below 2^53."""


Since: TypeAlias = Position | str
"""Where to resume a channel, as a client wrote it: each is judged on its own, so that one that is wrong
does not spoil the others.
"""


class Subscribe(TypedDict):
    """A request for the entries of channels. Names are as the client wrote them: each is judged on its
    own.
    """

    type: Literal["subscribe"]
    channels: list[str]
    """Names of channels."""
    id: NotRequired[RequestId]
    """Comes back in the answers."""
    since: NotRequired[dict[str, Since | None]]
    """Where to resume, by channel name; channels without an entry start with what comes next."""
    snapshot: NotRequired[bool]
    """The latest entry of each key is wanted first, of zones that are not resumed."""


class Unsubscribe(TypedDict):
    """A request for no more entries of channels."""

    type: Literal["unsubscribe"]
    channels: list[str]
    """Names of channels."""
    id: NotRequired[RequestId]
    """Comes back in the answers."""


RawEntry: TypeAlias = dict[str, Any]
"""A price or an event as its publisher wrote it."""


class Publish(TypedDict):
    """Entries to be published to a channel. They are read as over HTTP."""

    type: Literal["publish"]
    channel: str
    """The name of a zone's channel, or of one of events."""
    entries: list[RawEntry]
    """Prices, or events; `events` is as good a name for them."""
    id: NotRequired[RequestId]
    """Comes back in the answer."""


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
    """The close code that follows."""
    reason: CloseCode | str
    """Its reason."""
    retry_after_ms: NotRequired[int]
    """When to come back, in milliseconds from now; absent when one should not."""
    timestamp: str
    """When it was sent."""


class SettingView(TypedDict):
    """A setting."""

    key: str
    """Its key, such as `http.listen`."""
    origin: NotRequired[str]
    """Where it came from: `default`, a file, an environment variable, a flag, or what made it less; absent
    where that is not known.
    """
    value: Any
    """Its value; null where it is not set."""


class ConfigView(TypedDict):
    """The settings that are in effect, secrets masked."""

    file: NotRequired[str]
    """The file that was read, if there was one."""
    settings: list[SettingView]
    """One after the other, by section."""
    warning: NotRequired[str]
    """What holds up and may still be a mistake."""


OrderId: TypeAlias = str
"""An order, named by a UUID (RFC 9562). Written in its hyphenated lower-case form."""


class Connection(TypedDict):
    """First message of a connection that was opened on an order."""

    type: Literal["connection"]
    authentication: NotRequired[Authentication | str]
    """Whether the gateway asks who one is; absent where it does not."""
    connection_id: str
    """Names this connection in `/ws/stats` and in logs."""
    heartbeat_interval_ms: int
    """How often `heartbeat` comes, in milliseconds."""
    message: str
    """For people."""
    orderId: OrderId
    """The order of `/ws/orders/{orderId}`."""
    protocol: int
    """Version of this protocol."""
    state: BackendState | str
    """How well it serves."""
    storage_backend: BackendName | str
    """Which storage serves."""
    subject: NotRequired[str]
    """The subject of the token that came with the request."""
    timestamp: str
    """When it was sent."""
    token_expires_at: NotRequired[str]
    """When that token expires."""


class ConnectionEstablished(TypedDict):
    """First message of every connection that was not opened on an order."""

    type: Literal["connection_established"]
    authentication: NotRequired[Authentication | str]
    """Whether the gateway asks who one is; absent where it does not."""
    connection_id: str
    """Names this connection in `/ws/stats` and in logs."""
    heartbeat_interval_ms: int
    """How often `heartbeat` comes, in milliseconds."""
    market_zone: NotRequired[str]
    """The zone of `/ws/market/{zone}`; absent on `/ws`."""
    message: str
    """For people."""
    protocol: int
    """Version of this protocol."""
    state: BackendState | str
    """How well it serves."""
    storage_backend: BackendName | str
    """Which storage serves."""
    subject: NotRequired[str]
    """The subject of the token that came with the request."""
    timestamp: str
    """When it was sent."""
    token_expires_at: NotRequired[str]
    """When that token expires."""


ConnectionHealth: TypeAlias = Literal["healthy", "behind", "silent", "closing"]
"""How well a connection does."""


TransportKind: TypeAlias = Literal["websocket", "events"]
"""How the client of a connection is reached."""


class ConnectionInfo(TypedDict):
    """An open connection."""

    channels: list[str]
    """What it is subscribed to."""
    connected_s: int
    """How long it has been open, in seconds."""
    connection_id: str
    """As said in `connection_established`."""
    health: ConnectionHealth | str
    """How well it does."""
    last_heard_s_ago: int
    """When anything was last heard from it, in seconds before now; of a stream of events, for how long it
    has taken nothing of what waits for it.
    """
    messages_received: int
    """Text messages that it sent."""
    subject: NotRequired[str]
    """Who its client is, where that was shown."""
    transport: TransportKind | str
    """How its client is reached."""
    waiting_bytes: int
    """Their bytes."""
    waiting_messages: int
    """Messages that wait for it."""


SubscriptionPhase: TypeAlias = Literal["catching_up", "live", "finished"]
"""How far a subscription has come."""


class SubscriptionInfo(TypedDict):
    """A subscription of a connection."""

    channel: str
    """To what."""
    epoch: NotRequired[Epoch]
    """The life of the log that it reads; absent until it has begun."""
    offset: NotRequired[int]
    """The newest offset of it that was sent, or had before."""
    phase: SubscriptionPhase | str
    """How far it has come."""


class ConnectionStory(TypedDict):
    """`GET /ws/stats/{connection}`: all that is known of an open connection."""

    channels: list[str]
    """What it is subscribed to."""
    closing: NotRequired[str]
    """The reason of the close code, where its close is under way."""
    connected_at: str
    """When it was opened."""
    connected_s: int
    """How long it has been open, in seconds."""
    connection_id: str
    """As said in `connection_established`."""
    health: ConnectionHealth | str
    """How well it does."""
    last_heard_s_ago: int
    """When anything was last heard from it, in seconds before now; of a stream of events, for how long it
    has taken nothing of what waits for it.
    """
    messages_received: int
    """Text messages that it sent."""
    node: str
    """Which process has it."""
    opened_on: NotRequired[str]
    """The channel of the order that it was opened on, with which it ends."""
    rights: NotRequired[list[str]]
    """The rights of its client; absent where nobody is asked."""
    source: NotRequired[str]
    """The address that it comes from, or the network of that; absent where a proxy does not say."""
    subject: NotRequired[str]
    """Who its client is, where that was shown."""
    subscriptions: list[SubscriptionInfo]
    """What it is subscribed to, and how far that has come."""
    token_expires_at: NotRequired[str]
    """When what its client has shown expires."""
    transport: TransportKind | str
    """How its client is reached."""
    waited_for: bool
    """Channels wait for it, since it reads more slowly than they go."""
    waiting_bytes: int
    """Their bytes."""
    waiting_messages: int
    """Messages that wait for it."""


class DurationBucket(TypedDict):
    """Ended connections that lasted longer than the bucket before, and at the most this."""

    connections: int
    """So many."""
    up_to_s: int
    """In seconds."""


class ConnectionsView(TypedDict):
    """WebSockets."""

    average_duration_s: float
    """How long ended ones lasted, in seconds."""
    by_zone: dict[str, int]
    """Open ones by zone."""
    closed_by_reason: dict[str, int]
    """WebSockets that have ended, by the reason of the close code."""
    durations: list[DurationBucket]
    """Ended ones by how long they lasted."""
    event_streams: int
    """Of these, streams of events."""
    longest_open_s: int
    """For how long the one that is open longest has been so, in seconds."""
    open: int
    """Open WebSockets, and streams of events."""
    refused_by_limit: dict[str, int]
    """Connections refused by a limit: `full` (`connections.max`), `tcp` (`connections.tcp_max`), `address`
    (`connections.per_address_max`), `rate` (`connections.connects_per_s`).
    """
    total: int
    """WebSockets opened."""
    total_disconnections: int
    """WebSockets that have ended."""


class DeadLetter(TypedDict):
    """An order that was tried in vain."""

    createdAt: str
    """When it was placed."""
    error: str
    """What went wrong last."""
    failedAt: str
    """When it was given up."""
    order: NotRequired[dict[str, Any]]
    """What was ordered."""
    orderId: OrderId
    """Its name."""
    runs: int
    """How many times a worker took it up."""
    submitted: bool
    """It may have been carried out all the same."""


class DeadLetterList(TypedDict):
    """`GET /api/orders/dead-letters`."""

    deadLetters: list[DeadLetter]
    """The orders that were tried in vain, the newest first."""
    degraded: NotRequired[bool]
    """Redis is away, and these are the ones that this node knows by itself."""
    next: OrderId | None
    """Where the next page begins; null when this is the last one."""


class DeliveryLag(TypedDict):
    """How long entries took, in milliseconds, as well as the buckets of the histogram tell; null where
    there were none.
    """

    p50: float | None
    """Half of them took no longer."""
    p99: float | None
    """99 of 100 took no longer."""


class DroppedMessages(TypedDict):
    """Waiting messages that were never sent."""

    connection_ended: int
    """Messages that waited when a connection ended for another reason."""
    slow_consumer: int
    """Messages that waited for a reader which was closed as too slow."""


EndCode: TypeAlias = Literal["finished", "forbidden"]
"""Why the gateway ended a subscription by itself."""


class PriceUpdate(TypedDict):
    """A price. The publisher's own fields follow those of the envelope."""

    type: Literal["price_update"]
    ask: NotRequired[float | None]
    """What sellers ask for."""
    bid: NotRequired[float | None]
    """What buyers offer."""
    channel: ChannelName
    """The channel."""
    congestion: NotRequired[float | None]
    """A part of the price."""
    energy: NotRequired[float | None]
    """A part of the price."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    key: str
    """What within the zone it is of."""
    late: NotRequired[bool]
    """It comes after its time."""
    loss: NotRequired[float | None]
    """A part of the price."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    price: NotRequired[float | None]
    """The price; absent of a quote, which has `bid` and `ask`."""
    quantity: NotRequired[float | None]
    """How much."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


class DecimalPriceUpdate(TypedDict):
    """As `PriceUpdate`, with the numbers of `PRICEUPDATE_DECIMALS` as they were written."""

    type: Literal["price_update"]
    ask: NotRequired[Decimal | None]
    """What sellers ask for."""
    bid: NotRequired[Decimal | None]
    """What buyers offer."""
    channel: ChannelName
    """The channel."""
    congestion: NotRequired[Decimal | None]
    """A part of the price."""
    energy: NotRequired[Decimal | None]
    """A part of the price."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    key: str
    """What within the zone it is of."""
    late: NotRequired[bool]
    """It comes after its time."""
    loss: NotRequired[Decimal | None]
    """A part of the price."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    price: NotRequired[Decimal | None]
    """The price; absent of a quote, which has `bid` and `ask`."""
    quantity: NotRequired[Decimal | None]
    """How much."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


PRICEUPDATE_DECIMALS = ("ask", "bid", "congestion", "energy", "loss", "price", "quantity")


class KeyRemoved(TypedDict):
    """A key that was removed."""

    type: Literal["key_removed"]
    channel: ChannelName
    """The channel."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    key: str
    """The key."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""
    version: NotRequired[str]
    """In a registry: of two entries of a key the one with the greater version counts, as texts are
    compared.
    """


class ZoneRemoved(TypedDict):
    """A zone that was removed."""

    type: Literal["zone_removed"]
    channel: ChannelName
    """The channel."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


class RecordUpdate(TypedDict):
    """A record of a registry, which takes the place of the one before it of its key."""

    type: Literal["record_update"]
    channel: ChannelName
    """The channel."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    key: str
    """Its `userId` or `orderId` as a text."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    record: dict[str, Any]
    """The record, as it was written."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """When it was written, by the clock of the gateway that wrote it, or a faster one that it heard of."""
    version: str
    """Of two entries of a key the one with the greater version counts, as texts are compared."""


class OrderUpdate(TypedDict):
    """An update of an order. What its worker told besides follows."""

    type: Literal["routing", "building", "submitted", "confirmed"]
    attempt: NotRequired[int]
    """Which try it is, counting from 1."""
    channel: ChannelName
    """The channel."""
    dex: NotRequired[str]
    """Where it was, or is to be, carried out."""
    executor: NotRequired[str]
    """Who carries it out."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    maxAttempts: NotRequired[int]
    """How many there are."""
    message: NotRequired[str]
    """For people."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    orderId: OrderId
    """The order whose channel it is."""
    progress: float
    """How far it is, 0 to 100."""
    run: NotRequired[int]
    """How many times a worker took the order up."""
    timestamp: str
    """Its own time, to the millisecond."""
    txHash: NotRequired[str]
    """The transaction."""


class Failure(TypedDict):
    """Why an order failed."""

    code: str
    """A word such as `no_liquidity`."""
    message: str
    """For people."""


class OrderFailed(TypedDict):
    """The end of an order that was not carried out."""

    type: Literal["failed"]
    attempt: NotRequired[int]
    """Which try it is, counting from 1."""
    channel: ChannelName
    """The channel."""
    dex: NotRequired[str]
    """Where it was, or is to be, carried out."""
    error: Failure
    """Why."""
    executor: NotRequired[str]
    """Who carries it out."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    maxAttempts: NotRequired[int]
    """How many there are."""
    message: NotRequired[str]
    """For people."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    orderId: OrderId
    """The order whose channel it is."""
    progress: float
    """How far it is, 0 to 100."""
    run: NotRequired[int]
    """How many times a worker took the order up."""
    timestamp: str
    """Its own time, to the millisecond."""
    txHash: NotRequired[str]
    """The transaction."""


class Ticker(TypedDict):
    """What a ticker says: a `price`, or a `bid` and an `ask`."""

    ask: NotRequired[Digits]
    """The best ask."""
    askSize: NotRequired[Digits]
    """How much is asked there."""
    bid: NotRequired[Digits]
    """The best bid."""
    bidSize: NotRequired[Digits]
    """How much is bid there."""
    exchange: str
    """The exchange."""
    high: NotRequired[Digits]
    """The highest."""
    low: NotRequired[Digits]
    """The lowest."""
    open: NotRequired[Digits]
    """The first price of the day."""
    price: NotRequired[Digits]
    """The last price."""
    quoteVolume: NotRequired[Digits]
    """For how much."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""
    volume: NotRequired[Digits]
    """How much was traded."""


class TickerEvent(TypedDict):
    """A ticker."""

    type: Literal["ticker"]
    channel: ChannelName
    """The channel: that of the type, or the view of it that was subscribed to."""
    data: Ticker
    """What its publisher gave."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch. Of a view those of others are left out."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


class Trade(TypedDict):
    """What a trade says."""

    exchange: str
    """The exchange."""
    price: Digits
    """The price."""
    side: NotRequired[str]
    """`buy` or `sell`: the taker's."""
    size: Digits
    """How much."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""
    tradeId: NotRequired[Digits]
    """What the exchange calls it."""


class TradeEvent(TypedDict):
    """A trade."""

    type: Literal["trade"]
    channel: ChannelName
    """The channel: that of the type, or the view of it that was subscribed to."""
    data: Trade
    """What its publisher gave."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch. Of a view those of others are left out."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


class Orderbook(TypedDict):
    """A whole book, or what has changed in it: a size of 0 takes a level away."""

    asks: list[list[Digits]]
    """Price and size of each level."""
    bids: list[list[Digits]]
    """Price and size of each level."""
    exchange: str
    """The exchange."""
    kind: str
    """`snapshot` or `delta`."""
    previousSequence: NotRequired[int]
    """Of a delta, the `sequence` that it follows on."""
    sequence: int
    """Counts the changes of the book."""
    symbol: str
    """The symbol, such as `BTC-USDT`."""


class OrderbookEvent(TypedDict):
    """A book, or what has changed in one."""

    type: Literal["orderbook"]
    channel: ChannelName
    """The channel: that of the type, or the view of it that was subscribed to."""
    data: Orderbook
    """What its publisher gave."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch. Of a view those of others are left out."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


class Exchange(TypedDict):
    """How an exchange is reached."""

    attempt: NotRequired[int]
    """Of `exchange:reconnecting`, which try it is."""
    code: NotRequired[str]
    """Of `exchange:error`, what sort of error."""
    delayMs: NotRequired[int]
    """Of `exchange:reconnecting`, in how many milliseconds."""
    exchange: str
    """The exchange."""
    reason: NotRequired[str]
    """Why, for people."""


class ExchangeEvent(TypedDict):
    """How an exchange is reached."""

    type: Literal["exchange:connected", "exchange:disconnected", "exchange:reconnecting", "exchange:error"]
    channel: ChannelName
    """The channel: that of the type, or the view of it that was subscribed to."""
    data: Exchange
    """What its publisher gave."""
    id: str
    """Names it for good, in every epoch and on every gateway."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log; counts from 1 in each epoch. Of a view those of others are left out."""
    snapshot: NotRequired[bool]
    """It is the latest one of its key, sent because a client begins."""
    timestamp: str
    """Its own time, to the millisecond."""


class Skipped(TypedDict):
    """What is known of an entry that the gateway cannot show."""

    type: Literal["skipped"]
    channel: ChannelName
    """The channel."""
    id: NotRequired[str]
    """Absent where it could not be read."""
    kind: NotRequired[str]
    """Its own type, where that is known."""
    late: NotRequired[bool]
    """It comes after its time."""
    missedBefore: NotRequired[bool]
    """Entries of its gateway before it are gone."""
    offset: int
    """Its place in the log."""
    orderId: NotRequired[OrderId]
    """The order whose channel it is."""
    reason: str
    """`unknown_kind` or `unreadable`."""
    terminal: NotRequired[bool]
    """Nothing follows it."""
    timestamp: NotRequired[str]
    """Absent where it could not be read."""


class MissedEvents(TypedDict):
    """What is missing; without fields, programs that do not number their events may have published some."""

    count: NotRequired[int]
    """How many they are."""
    source: NotRequired[str]
    """The gateway whose events they are."""


class Missed(TypedDict):
    """Events of other processes that did not come, in the channel of a live type."""

    type: Literal["missed"]
    channel: ChannelName
    """The channel."""
    data: MissedEvents
    """What is missing."""
    id: str
    """Names it for good."""
    offset: int
    """Its place in the log; counts from 1 in each epoch."""
    timestamp: str
    """When that was noticed."""


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
"""An entry of a channel. Others may be added: receivers count the offset of those that they do not know."""


class Entries(TypedDict):
    """`GET /api/zones/{zone}/latest` and `/history`: entries as their messages, with what they belong to."""

    channel: ChannelName
    """The channel."""
    entries: list[Entry]
    """In their order."""
    epoch: NotRequired[Epoch]
    """The life of the log that the offsets belong to; of `/history`."""
    first_offset: NotRequired[int]
    """The oldest offset that the log keeps; of `/history`."""
    last_offset: NotRequired[int]
    """The newest one; of `/history`."""
    next: NotRequired[str]
    """Where the next page begins, if there may be one; of `/latest`."""


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
    """Something that the client asked for was not done. The connection goes on."""

    type: Literal["error"]
    accepted: NotRequired[int]
    """Of a `publish`, how many of its entries, from the front, are in the log."""
    channel: NotRequired[str]
    """The channel concerned; where that is none, as the client wrote it."""
    code: ErrorCode | str
    """Stable name of the error."""
    id: NotRequired[RequestId]
    """The `id` of the request, when it had one."""
    message: str
    """What was wrong and what would be right, for people."""
    retry_after_ms: NotRequired[int]
    """When the same request may succeed, in milliseconds from now, where that can be told."""
    temporary: bool
    """Whether the request stands, and its final answer is yet to come."""
    timestamp: str
    """When it was sent."""


class ExchangeView(TypedDict):
    """How an exchange is reached, and what came of it."""

    events: dict[str, int]
    """Events of it that this node accepted, or heard of others, since its start, by type."""
    since: NotRequired[str]
    """The time of that event."""
    state: NotRequired[str]
    """What the newest event says of how it is reached: `connected`, `disconnected` or `reconnecting`;
    absent where none is known.
    """


class ExtendRequest(TypedDict):
    """`POST /api/jobs/{jobId}/extend`."""

    leaseMs: NotRequired[int]
    """How long the lease lasts from now on. Default `orders.lease_s`."""
    token: int
    """From the claim."""


class FailRequest(TypedDict):
    """`POST /api/jobs/{jobId}/fail`."""

    error: Failure
    """What went wrong."""
    retry: NotRequired[bool]
    """Another try may succeed."""
    token: int
    """From the claim."""


class FeedView(TypedDict):
    """A feed of an exchange."""

    connected: int
    """1 while this process has the feed and is connected, else 0."""
    events: int
    """Events and prices of exchanges that were published."""
    frames: int
    """Frames that came from exchanges."""
    gaps: int
    """Times that changes of a book were missing, and a fresh snapshot was asked for."""
    kind: str
    """What it speaks."""
    lease_failures: int
    """Times that a lease could not be renewed at once."""
    leases_lost: int
    """Times that a lease was lost, and the feed stopped here."""
    malformed: int
    """Frames, rows and events of exchanges that were not of the documented shape, and were left out."""
    reason: str
    """Why it is in that state, or what is wrong with its lease; empty where all is well."""
    reconnects: int
    """Times that a connection to an exchange was lost, or did not come about."""
    refused: int
    """Subscriptions and requests that an exchange refused or did not answer."""
    requests: int
    """Requests to exchanges that ended, with an answer or without."""
    state: str
    """`standby` (another process has it, or nobody may), `connecting`, `connected` or `waiting`."""
    trades_missed: int
    """Trades that were missed, and that the exchange does not give again."""
    unpublished: int
    """Events and prices that the channels did not take."""


class FieldFault(TypedDict):
    """A field that is wrong."""

    field: str
    """Its name."""
    message: str
    """What was wrong and what would be right."""


NodeState: TypeAlias = Literal["serving", "degraded", "draining"]
"""How a node does."""


class ZoneConnections(TypedDict):
    """How many connections of a node are subscribed to a zone."""

    connections: int
    """So many."""
    zone: str
    """Its name."""


class FleetNode(TypedDict):
    """What a node tells of itself, each second."""

    connections: int
    """Open WebSockets, and streams of events."""
    executor: str
    """The kind of executor that carries out orders which are placed there."""
    here: bool
    """It is the one that answers."""
    lag_ms: DeliveryLag
    """How long entries took from the log to the kernel (`delivery_seconds`), of those in the last ten
    seconds.
    """
    node: str
    """Its name, as in its `/ws/stats`; another one after each start."""
    started_at: str
    """When it started, by its own clock."""
    state: NodeState | str
    """How it does."""
    told_at: str
    """When it told this, by its own clock."""
    version: str
    """Of its program."""
    zones: list[ZoneConnections]
    """Subscribers by zone: the 64 zones with most of them."""
    zones_left_out: int
    """Zones with subscribers besides these."""


class FleetTotals(TypedDict):
    """What the listed nodes have together."""

    connections: int
    """Open WebSockets, and streams of events."""
    nodes: int
    """How many there are."""


NodesKnown: TypeAlias = Literal["all", "this_one"]
"""Of which nodes it is known how they do."""


class FleetView(TypedDict):
    """`GET /ws/stats?scope=fleet`: the nodes that share the storage."""

    nodes: list[FleetNode]
    """Those that are there, the one that runs longest first; 1,024 at the most, the one that answers among
    them.
    """
    nodes_known: NodesKnown | str
    """Of which nodes it is known how they do."""
    note: NotRequired[str]
    """What is to be said of the list, for people; absent where that is nothing."""
    scope: str
    """`fleet`."""
    totals: FleetTotals
    """Of those that are listed."""


class TlsHealth(TypedDict):
    """How a gateway's certificate does."""

    expires_at: str
    """When it ceases to be valid."""
    files: str
    """`fresh`, or `stale` where the files hold something that cannot be used, and what they held before
    goes on; the log says why.
    """


class WebSocketView(TypedDict):
    """What WebSockets did since the start."""

    error_rate_percent: float
    """As a part of those received."""
    errors: int
    """Messages that were answered with an error."""
    messages_received: int
    """Messages from clients."""
    messages_sent: int
    """Messages to clients."""
    open: int
    """Open now."""
    total: int
    """Opened."""


class HealthView(TypedDict):
    """`GET /health`, `/ws/health` and `/health/ready`."""

    authentication: NotRequired[AuthenticationView]
    """How the gateway's knowledge of tokens does, where it asks who one is."""
    channels_set_aside: NotRequired[list[ChannelSetAside]]
    """Channels that cannot be put in order while Redis serves all others, and why: some of them."""
    connections: int
    """WebSockets that are open."""
    degraded: bool
    """Redis is configured or required, and does not serve as it should."""
    executor: str
    """The kind of executor that carries out what is placed here."""
    live: bool
    """The process works."""
    node: str
    """Which process it is; another one after each start."""
    other_executors: NotRequired[list[str]]
    """The kinds that other nodes with the same storage have: orders that are placed there are not carried
    out by workers of this kind. Absent where there are none.
    """
    primaries: int
    """Servers that share the channels among them."""
    primaries_away: int
    """Those of them that do not serve."""
    ready: bool
    """It may be sent traffic; degraded is ready."""
    reason: str
    """Why, for people; may name what the server said."""
    reason_code: str
    """Why, as a word."""
    scope: Scope | str
    """Which channels it is about."""
    since: str
    """Since when."""
    spool: NotRequired[str]
    """How the journal's copy on disk does, where there is one."""
    spool_reason: NotRequired[str]
    """What is wrong with it."""
    state: BackendState | str
    """How well."""
    status: str
    """`healthy`, `degraded`, `recovering` or `stopping`."""
    storage_backend: BackendName | str
    """Which storage serves."""
    timestamp: str
    """When this was said."""
    tls: NotRequired[TlsHealth]
    """How the gateway's own certificate does, where it speaks TLS."""
    uptime_s: int
    """Seconds since its start."""
    version: str
    """Of the program."""
    websocket: WebSocketView
    """What WebSockets did since the start."""


class Heartbeat(TypedDict):
    """Sent at the announced interval, so that a browser, which hides protocol pings, can tell a quiet
    connection from a dead one.
    """

    type: Literal["heartbeat"]
    timestamp: str
    """When it was sent."""


class TlsView(TypedDict):
    """Handshakes of TLS since the start, and the certificate."""

    certificate_left_s: int
    """How long the certificate is still valid, in seconds; below 0 once it has expired."""
    certificates_by_result: dict[str, int]
    """Handshakes in which a client showed a certificate that holds, where clients are asked who they are,
    by `result`: `listed` in `auth.certificates`, or `unlisted`, which gives no right.
    """
    failed_by_reason: dict[str, int]
    """Those that came to nothing, by reason: `plain` is plain HTTP, which is told so, `alert` a client
    that refuses, mostly since it does not trust the certificate, `no_certificate` and `certificate` one
    that shows none although it must, or one that does not hold.
    """
    handshakes: int
    """Handshakes of TLS that clients and gateway completed."""
    reloads_by_result: dict[str, int]
    """How often certificate and key were read anew, by `result`: `good`, or `failed`, where those of
    before go on.
    """
    resumed: int
    """Of these, those that went on with a session of before."""


class HttpView(TypedDict):
    """Requests, and the TCP connections that bring them."""

    accept_failures: int
    """Failed accepts, such as no open files left."""
    accepted: int
    """TCP connections accepted."""
    answer_bytes: int
    """What lists, `/latest`, `/history`, orders with their updates, and all compressed answers hold that
    their clients have not taken yet, in bytes (`http.answers_bytes_max`).
    """
    bad_requests: int
    """Connections that ended without a whole request."""
    body_bytes: int
    """What the bodies of requests hold that are being read, of all requests together, in bytes
    (`http.bodies_bytes_max`).
    """
    event_requests: int
    """Requests that post events."""
    event_requests_refused: int
    """Those with a fault."""
    events_accepted: int
    """Events accepted over HTTP."""
    key_places_stale: int
    """Places of keys (files, addresses) that at the moment give nothing that can be used; what they gave
    before goes on. Health says `"keys":"stale"` then, and the log which and why.
    """
    open: int
    """Open TCP connections, WebSockets among them."""
    panics: int
    """Panics (bugs) that ended one request; everything else goes on."""
    price_requests: int
    """Requests that post prices."""
    price_requests_refused: int
    """Those with a fault."""
    prices_accepted: int
    """Prices accepted over HTTP."""
    proxy_closed: int
    """The same, since the proxy closed it before."""
    proxy_garbage: int
    """Connections of trusted proxies that were closed since they did not begin with a header of the PROXY
    protocol (`http.proxy_protocol`), but with something else.
    """
    proxy_timeout: int
    """The same, since the header was not whole in time."""
    refused: int
    """Of these, those that a limit refused."""
    refused_unanswered: int
    """Of the refused ones, those closed without a word, since more came than `http.refusals_per_s` are
    told why.
    """
    requests_refused_by_reason: dict[str, int]
    """Requests answered with a problem, by its code, such as `unknown_host` and `origin_not_allowed`, or
    `busy`: one of the bounds of bytes leaves no room for what they brought.
    """
    revocations: int
    """Revocations that are remembered."""
    tls: NotRequired[TlsView]
    """TLS of the gateway's own; absent where it speaks none."""
    tokens_accepted: int
    """Tokens and API keys that held."""
    tokens_refused_by_reason: dict[str, int]
    """Tokens, API keys and clients' certificates that did not hold, by reason."""


class OutsideInvalid(TypedDict):
    """Outside updates that cannot be told."""

    no_stage: int
    """They name no stage of an order."""
    not_an_object: int
    """They are no object."""
    not_json: int
    """Outside updates that are no JSON."""
    too_large: int
    """They are too large."""


class OutsideRefused(TypedDict):
    """Outside updates that the log did not take."""

    closed: int
    """Outside updates that came after the last one of their order."""
    has_job: int
    """The order is carried out by the gateway's workers."""
    stale_fence: int
    """Somebody held a lease."""


class InteropCounts(TypedDict):
    """What the exchange with workers outside did since the start."""

    accepted: int
    """Outside updates that this node put into the log."""
    duplicates: int
    """Outside updates that the log had already: other nodes watch the same order."""
    followed: int
    """Orders whose outside updates are followed."""
    gaps: int
    """Times that outside updates may have been missed."""
    invalid: OutsideInvalid
    """Outside updates that cannot be told, by reason."""
    lost: int
    """Outside updates heard and let go, for want of memory or a log that takes them. The next one of the
    order is marked.
    """
    mirror_failures: int
    """Own updates, or orders with some, that could not be written for them and were given up."""
    mirrored: int
    """Own updates written for outside consumers."""
    refused: OutsideRefused
    """Outside updates that the log did not take, by reason."""
    retries: int
    """Storage calls for outside workers that failed and were repeated."""
    unreadable: int
    """Times that the list of an order was something else than a list."""


class JobOutcomeReleased(TypedDict):
    """Another worker may have it at once."""

    outcome: Literal["released"]


class JobOutcomeRetry(TypedDict):
    """It is offered again after a while."""

    outcome: Literal["retry"]
    retryInMs: int
    """After so many milliseconds."""


class JobOutcomeFailed(TypedDict):
    """The order has ended."""

    outcome: Literal["failed"]


JobOutcome: TypeAlias = JobOutcomeReleased | JobOutcomeRetry | JobOutcomeFailed
"""What became of a job that its worker did not carry out."""


class JobsView(TypedDict):
    """Jobs by state."""

    claimed: int
    """A worker has them."""
    dead: int
    """Dead letters."""
    delayed: int
    """They are tried again after a while."""
    done: int
    """Their orders have ended."""
    waiting: int
    """They wait for a worker."""


Lane: TypeAlias = Literal["latest", "every"]
"""How a reader that falls behind is treated."""


class LeaseHeld(TypedDict):
    """The job is the worker's still."""

    held: bool
    """Always true."""


class LimitsView(TypedDict):
    """What limits of principals, of tenants and of readers that are behind have refused."""

    behind: int
    """Connections that have been behind for a second or more, where that is limited."""
    dry_run: dict[str, int]
    """What would have been, but for `limits.dry_run`."""
    principals: int
    """Principals whose use of limits is remembered; past 65,536 others share one allowance."""
    refused: dict[str, int]
    """What was refused, closed or held back, by the setting that did: `principal.orders_per_s` for
    `limits.principal.orders_per_s`, and so on. Absent where nothing is limited.
    """
    tenants: int
    """The same of tenants."""


class Live(TypedDict):
    """`GET /health/live`."""

    status: str
    """`live`."""


class MemoryUsage(TypedDict):
    """How full this process' own logs are."""

    bytes: int
    """What the entries in this process cost, the latest ones of keys included, in bytes."""
    bytes_max: int
    """The bound of that."""
    disk: str
    """What memory keeps on disk (`storage.memory.data_dir`): `off`, `working`, `failed`, `stalled` or
    `closed`.
    """
    disk_bytes: int
    """The length of its files; room inside is used again."""
    disk_commits: int
    """Transactions that it wrote for somebody who waited: with `fsync = "always"` as many fsyncs."""
    disk_reason: NotRequired[str]
    """What is wrong with it; absent while nothing is."""
    disk_refused: int
    """What was refused because the disk did not take it, or not in time; each try counted."""
    disk_set_aside: int
    """Its files that could not be read and were put aside, since the start of the process."""
    evicted_entries: int
    """Entries of logs that went because the bound was passed; readers who ask for them are told of the
    gap.
    """
    evicted_latest: int
    """Latest entries of keys that did."""
    latest_bytes: int
    """Of these bytes, what the latest entries of keys cost."""


class MessagesView(TypedDict):
    """What crossed WebSockets."""

    bytes_received: int
    """Bytes from clients."""
    conflated: int
    """Waiting messages that a newer one replaced."""
    delivery_duration: Timing
    """From when the log had taken entries of this node, or they were heard from another one, until a shard
    had handed them to the kernel for all its subscribers; one observation for each batch of a channel
    and each shard. What waits for a reader that is behind is not in it.
    """
    dropped_by_reason: DroppedMessages
    """Waiting messages that were never sent, by reason."""
    error_rate_percent: float
    """In percent of those received."""
    errors: int
    """Messages answered with `error`."""
    errors_by_code: dict[str, int]
    """Messages answered with `error`, by its code."""
    gaps_told: int
    """Times that a client was told of missing entries."""
    mailbox_wait: Timing
    """How long entries waited in a shard's mailbox; one observation for each batch of a channel and each
    shard. Those in the first bucket were taken as good as at once.
    """
    paced: int
    """Times that a channel waited for readers far behind."""
    panics: int
    """Panics (bugs) that ended one connection; everything else goes on."""
    published: int
    """Entries that clients published over their WebSockets."""
    received: int
    """Text messages from clients."""
    replay_bytes: int
    """Bytes of these pages that wait for clients, or are kept for 2 s for others; past
    `channels.replay_bytes_max` pages are small.
    """
    replay_duration: Timing
    """From when a client began to be brought up to date until it was."""
    replay_reads: int
    """Pages of logs, and of latest entries for snapshots, read for clients: what many want at about the
    same time is read once.
    """
    replay_reads_shared: int
    """Times that a reader was given a page that was read for another one."""
    replayed: int
    """Entries sent from the log."""
    replays: int
    """Pages of the log that clients who catch up were given."""
    sent: int
    """Messages whose last byte was handed to the kernel."""
    snapshot_entries: int
    """Entries sent so."""
    snapshots: int
    """Times that a client was sent the latest entry of each key, or began to be."""


class NodesView(TypedDict):
    """What a node knows of those that share its storage."""

    lists: int
    """Times that it read what others tell."""
    lists_failed: int
    """Times that it could not."""
    nodes_by_state: dict[str, int]
    """Nodes with this storage by their state, this one among them, as they were listed last; while Redis
    is away, and with memory as the storage, this one alone.
    """
    told: int
    """Times that this node told others of itself."""
    unreadable: int
    """Records of nodes that could not be read, each time that they were listed."""
    untold: int
    """Times that it could not, as while Redis is away; it tells again a second later."""


class Previous(TypedDict):
    """How far a run came."""

    attempt: int
    """Which try it was."""
    progress: int
    """0 to 100."""
    status: str
    """The type of its newest update."""


class OfferedJob(TypedDict):
    """A job that a worker may carry out."""

    attempt: int
    """Which try this is."""
    jobId: OrderId
    """Its name."""
    leaseMs: int
    """How long it is the worker's without a sign of life."""
    maxAttempts: int
    """How many there are."""
    order: dict[str, Any]
    """What was ordered."""
    orderId: OrderId
    """The order's; the same."""
    previous: Previous | None
    """How far the run before came; null when nothing was told yet."""
    run: int
    """How many times it has been claimed, this time included."""
    token: int
    """Must come with each call about this job."""


class Offer(TypedDict):
    """The answer to a claim."""

    jobs: list[OfferedJob]
    """Empty when there was nothing to do."""


class OrderCancelling(TypedDict):
    """The answer to `POST /api/orders/{orderId}/cancel`: it is asked for."""

    orderId: OrderId
    """The order."""
    status: str
    """`cancelling`."""
    success: bool
    """Always true."""


class OrderView(TypedDict):
    """What is known of an order."""

    attempt: int
    """Which try it is at."""
    cancelRequested: bool
    """Somebody asked for it to be cancelled."""
    createdAt: NotRequired[str]
    """When it was placed."""
    degraded: NotRequired[bool]
    """While Redis is away: what this node knows by itself, which may be behind. Absent otherwise."""
    epoch: NotRequired[Epoch]
    """The life of the log that the updates' offsets belong to; absent in lists."""
    gap: NotRequired[int | None]
    """How many updates came before those that are still kept; absent in lists."""
    jobId: NotRequired[OrderId]
    """The name of the job that carries it out; absent when there is none here."""
    lastUpdate: NotRequired[Entry]
    """The newest update, also where it is no longer among `updates`; absent in lists."""
    maxAttempts: int
    """How many there are."""
    order: NotRequired[dict[str, Any]]
    """What was ordered; absent when it was not placed here."""
    orderId: OrderId
    """Its name."""
    progress: int
    """0 to 100."""
    run: int
    """How many times a worker took it up."""
    status: str
    """`pending`, or the type of the newest update."""
    updatedAt: NotRequired[str]
    """When something last happened to it."""
    updates: NotRequired[list[Entry]]
    """All that are kept, in order, as sockets get them; absent in lists."""


class OrderList(TypedDict):
    """`GET /api/orders`: the newest first."""

    degraded: NotRequired[bool]
    """Redis is away, and these are the ones that this node knows by itself."""
    next: OrderId | None
    """Where the next page begins; null when this is the last one."""
    orders: list[OrderView]
    """The orders."""


class OrderPlaced(TypedDict):
    """The answer to an order: it is in the queue."""

    jobId: OrderId
    """The job that carries it out."""
    orderId: OrderId
    """Its name."""
    retryOf: NotRequired[OrderId]
    """The order that was tried in vain, and that this one is in place of."""
    status: str
    """How it stands."""
    success: bool
    """Always true."""
    wsUrl: str
    """Where its stream is."""


OrderStatus: TypeAlias = Literal["pending", "routing", "building", "submitted", "confirmed", "failed"]
"""How an order stands, and the type of its updates but for `pending`."""


class OrdersView(TypedDict):
    """What this node did with orders, and how many there are on all nodes."""

    claims_under_way: int
    """Requests of workers outside that ask for orders, or wait for some, at the moment."""
    confirmed: int
    """Orders that were carried out here."""
    dead: int
    """Orders that became dead letters."""
    executor: str
    """The kind of executor that carries out what is placed here."""
    failed: int
    """Orders that failed here."""
    given_back: int
    """Runs that were given back, which uses up no attempt: at a stop, by a worker's `release`, or because
    nobody took what was claimed.
    """
    jobs: JobsView | None
    """Jobs on all nodes; while the storage is degraded those that this node knows. Null when the storage
    did not say in time.
    """
    leases_lost: int
    """Runs that stopped because their order had become somebody else's."""
    other_executors: list[str]
    """The kinds that other nodes with the same storage have."""
    panics: int
    """Panics (bugs) that ended one try of an order; everything else goes on."""
    placed: int
    """Orders queued by this node."""
    refused_full: int
    """Orders refused because the queue was full."""
    repeated: int
    """Requests that repeated an idempotency key."""
    retried: int
    """Runs that ended with another try to come."""
    runs: int
    """Jobs claimed through this node."""
    storage_failures: int
    """Storage calls about jobs that failed; each was repeated, or told."""
    updates: int
    """Updates of orders accepted."""
    updates_refused: int
    """Updates that came too late: of a stale worker, or after the end."""
    updates_unchecked: int
    """Outside updates taken in an outage, while nobody could say whether their order has a job."""


class OutageView(TypedDict):
    """How long the storage was in each state, what waits for Redis, and what became of channels that went
    on without it.
    """

    channels_alone: int
    """Channels that go on without Redis now."""
    channels_set_aside: int
    """Of these, those that cannot be put in order while Redis serves all others (a key of theirs holds
    something else, say): health names them and why, they go on without Redis, and are tried again every
    10 s.
    """
    channels_waiting: int
    """Channels to be put in order with Redis, those included."""
    forks: int
    """Times that a channel went on alone."""
    forks_late: int
    """Of these, because an append was late while Redis served."""
    job_retries: int
    """Times that recording one failed, and was tried again."""
    jobs_recorded: int
    """Of these, those that Redis has had since."""
    jobs_taken: int
    """Jobs that this node took on without Redis."""
    jobs_waiting: int
    """Jobs of this node that Redis does not have yet."""
    journal_aged: int
    """Entries of zones that waited too long."""
    journal_bytes: int
    """What they cost, in bytes."""
    journal_entries: int
    """Accepted entries that wait for Redis."""
    journal_in_memory_only: int
    """Of the entries in the journal, those that would be lost with the process: there is no spool, or they
    are not in it.
    """
    journal_oldest_ms: NotRequired[int]
    """How long the oldest of them has waited, in milliseconds; absent when none waits."""
    journal_order_overflow: int
    """Updates of orders beyond those that are kept of each."""
    journal_refused_full: int
    """Entries refused, because the journal was full."""
    journal_thinned: int
    """Accepted entries that the log will not have, since a newer price of the key took their place for
    want of room.
    """
    key_conflicts: int
    """Of these jobs, those whose idempotency key led to another job in Redis."""
    lost_logs: int
    """Logs that had lost what they acknowledged."""
    put_back: int
    """Entries put back into logs that had lost them."""
    records_let_go: int
    """Small records (that a zone exists, say) that waited for Redis and were one too many."""
    redis_round_trip: Timing
    """How long Redis took to answer a beat: a script that writes, five times a second, to each primary."""
    rejoin_retries: int
    """Times that this was tried again."""
    rejoins: int
    """Times that a channel came back in step with Redis."""
    replayed: int
    """Entries sent to the log when Redis was back."""
    seconds_in_state: dict[str, float]
    """Time spent in each state of the storage, in seconds."""
    spool: str
    """The journal's copy on disk: `off`, `working`, `failed`, `stalled` or `closed`."""
    spool_bytes: int
    """What they cost, in bytes."""
    spool_entries: int
    """Entries in the journal's copy on disk, also those of former lives of this gateway."""
    spool_failed: int
    """Entries that it could not write: the disk is full or fails."""
    spool_full: int
    """Entries that the spool had no room for, each try counted."""
    spool_reason: NotRequired[str]
    """What is wrong with it; absent while nothing is."""
    spool_slow: int
    """Entries that it did not take in time: the disk hangs."""
    superseded: int
    """Accepted entries that the log refused when it was back: the order had ended, or was somebody else's."""
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
"""What was wrong with a request. Stable: clients may match on it."""


class Problem(TypedDict):
    """A refused request: what was wrong, and what would be right. Where something else than a gateway has
    answered, most of it may be missing.
    """

    accepted: NotRequired[int]
    """How many prices or updates were accepted all the same."""
    channel: NotRequired[str]
    """The channel that is at fault, as the client named it, of several."""
    code: NotRequired[ProblemCode | str]
    """Programs may match on it."""
    detail: NotRequired[str]
    """For people."""
    errors: NotRequired[list[FieldFault]]
    """Each wrong field."""
    index: NotRequired[int]
    """The element of the array with the first fault, counting from 0."""
    line: NotRequired[int]
    """The line of the first fault, counting from 1."""
    retry_after_ms: NotRequired[int]
    """When the same may succeed, in milliseconds from now, where that can be told; `Retry-After` says it
    in whole seconds.
    """
    status: NotRequired[int]
    """The status."""
    title: NotRequired[str]
    """The status in words."""
    type: NotRequired[str]
    """`about:blank`: the code says which problem it is."""


class Published(TypedDict):
    """All that was to be published is in the log."""

    type: Literal["published"]
    accepted: int
    """How many entries."""
    channel: ChannelName
    """The channel."""
    id: NotRequired[RequestId]
    """The `id` of the request, when it had one."""
    timestamp: str
    """When it was sent."""


class RecordList(TypedDict):
    """`GET /api/providers` and `/api/active-orders`."""

    next: NotRequired[str]
    """There are more: repeat with `after=` this."""
    records: list[dict[str, Any]]
    """The records, as they were written."""
    state: BackendState | str
    """Whether what other gateways wrote is known: it is where this is `healthy`."""
    total: int
    """How many records fit the filter."""
    versions: list[str]
    """The version of each, for `If-Match`."""


class RecordsSet(TypedDict):
    """`PUT /api/providers` and `DELETE /api/providers`, and the same of `/api/active-orders`."""

    before: int
    """How many there were."""
    records: int
    """How many records there are now."""


class RedisMetrics(TypedDict):
    """What is counted of the bridge, which exchanges events with other gateways and processes; all is 0
    where it is off.
    """

    activeSubscriptions: int
    """Of these, those that are."""
    connected: bool
    """Redis is connected: by the bridge, where it is on, else by the storage."""
    errors: int
    """Connections of the bridge lost, and calls that failed."""
    publishedEvents: int
    """Events published."""
    receivedEvents: int
    """Events of others heard and taken."""
    subscriptions: int
    """Types that are to be subscribed to at the moment."""


class RedisView(TypedDict):
    """`GET /health/redis`."""

    link: str
    """How the storage's Redis is: `up` (also while channels are put in order), `partial` (some primaries
    of a cluster are away), `down` or `not_configured`.
    """
    metrics: RedisMetrics
    """What is counted of the bridge."""
    primaries: int
    """Servers that share the channels among them."""
    primaries_away: int
    """Those of them that do not serve."""
    reason: str
    """Why, for people; may name what the server said."""
    reason_code: str
    """Why, as a word."""
    scope: Scope | str
    """Which channels it is about."""
    serving: bool
    """Redis serves."""
    since: str
    """Since when."""
    state: BackendState | str
    """How well."""
    status: str
    """`healthy` (also where no Redis is configured), `degraded` (some primaries of a cluster are away, or
    a connection of the bridge is) or `unhealthy`.
    """
    storage_backend: BackendName | str
    """Which storage serves."""


class RegistryView(TypedDict):
    """How a registry does on one node."""

    append_failures: int
    """Times that the log did not take them; each was tried again."""
    appended: int
    """Records and removals appended to the log; several writings of a record may be one."""
    behind_duration: Timing
    """How long what was written waited for the log."""
    compared: int
    """Times that what is held here was compared with the log."""
    expired: int
    """Records whose time had run out, as this node found first."""
    imported: int
    """Records taken from the Redis keys of other programs."""
    is_lagging: bool
    """That is 5 seconds or longer."""
    mirror_failures: int
    """Times that these keys could not be written."""
    orders_left_out: int
    """Orders under way here that the registry had no room for."""
    records: int
    """Records."""
    removals: int
    """Removals that are remembered, so that nothing older brings them back."""
    removed: int
    """Records removed here."""
    state: str
    """`healthy`; `degraded` while Redis is away, and what other nodes write is not known here;
    `recovering` until it was compared with the log after that.
    """
    superseded: int
    """Entries of the log that lost to a newer writing of their record."""
    unreadable: int
    """Entries of the log that are no records."""
    waiting: int
    """Records that were written here and are not in the log yet."""
    waiting_for_ms: int | None
    """How long the first of them has waited, in milliseconds; null where none waits."""
    went_offline: int
    """Providers taken offline, since their connection or their node was gone."""
    written: int
    """Records written here, renewals included."""


class RegistriesView(TypedDict):
    """How the registries of a node do."""

    active_orders: RegistryView
    """Orders that are under way."""
    providers: RegistryView
    """Online providers."""


class RegistryStatus(TypedDict):
    """`GET /api/registry`."""

    active_orders: RegistryView
    """Orders that are under way."""
    node: str
    """The node that says so."""
    providers: RegistryView
    """Online providers."""


class RegistrySynced(TypedDict):
    """What the Redis key of a registry held."""

    found: int
    """Records in the key."""
    invalid: int
    """Those of them that are no records."""
    registry: str
    """`providers` or `active-orders`."""
    taken: int
    """Those of them that were taken."""


class RegistrySync(TypedDict):
    """`POST /api/registry/sync`."""

    synced: list[RegistrySynced]
    """Of each registry, what its Redis key held."""


class ReleaseRequest(TypedDict):
    """`POST /api/jobs/{jobId}/release`."""

    token: int
    """From the claim."""


class ReportAccepted(TypedDict):
    """A report was taken."""

    accepted: bool
    """Always true."""


class Resync(TypedDict):
    """The log behind a subscription changed its epoch, or entries are missing from it. Entries follow from
    just after `offset` of `epoch`.
    """

    type: Literal["resync"]
    channel: ChannelName
    """The channel."""
    epoch: Epoch
    """The epoch from here on; the same as before when only a gap is said."""
    gap: NotRequired[int]
    """How many entries are missing; absent when that cannot be known."""
    offset: int
    """Entries follow from the next offset on."""
    old_epoch: Epoch
    """The epoch up to here."""
    recovered: bool
    """Whether nothing is missing."""
    snapshot: NotRequired[bool]
    """The latest entry of each key comes first, in place of what is missing."""
    timestamp: str
    """When it was sent."""


class Revoke(TypedDict):
    """What is to be no longer valid: one of these."""

    jti: NotRequired[str]
    """A token, by its `jti`."""
    key: NotRequired[str]
    """An API key, by its name."""
    subject: NotRequired[str]
    """All that was issued to a subject until now."""


class RevokedOn(TypedDict):
    """Where a revocation holds, as far as that is known."""

    degraded: bool
    """The storage that nodes share is away: what other nodes there are is not known, and they hear of it
    when it is back.
    """
    holds_on: list[str]
    """The nodes that have confirmed it, the one that was asked first."""
    unconfirmed_on: list[str]
    """Nodes that are there and have not confirmed it in time."""


class Subscribed(TypedDict):
    """A channel's entries follow, from just after `offset`."""

    type: Literal["subscribed"]
    channel: ChannelName
    """The channel."""
    epoch: Epoch
    """The life of the log that offsets belong to from here on."""
    gap: NotRequired[int]
    """How many entries after the position asked for are no longer kept; absent when that cannot be known,
    because the epoch is another.
    """
    id: NotRequired[RequestId]
    """The `id` of the request, when it had one."""
    message: NotRequired[str]
    """How the order stands, for people; only in the channel of an order."""
    offset: int
    """Entries follow from the next offset on."""
    orderId: NotRequired[OrderId]
    """The order whose channel it is."""
    recovered: bool
    """Whether nothing is missing between the position asked for and `offset`. Where none was asked for:
    true in a zone; in an order, whether all its updates are still kept.
    """
    snapshot: NotRequired[bool]
    """The latest entry of each key comes first."""
    timestamp: str
    """When it was sent."""
    top: NotRequired[int]
    """The newest offset when the log was looked at; absent where the log goes on in another epoch, which
    `resync` says. Where it is not `offset`, what lies between comes first, and then `caught_up`.
    """


class Unsubscribed(TypedDict):
    """No more entries of this channel follow."""

    type: Literal["unsubscribed"]
    channel: ChannelName
    """The channel."""
    code: NotRequired[EndCode | str]
    """Why, where the gateway ended it by itself; absent in the answer to `unsubscribe`."""
    id: NotRequired[RequestId]
    """The `id` of the request, when it had one."""
    timestamp: str
    """When it was sent."""


class SnapshotEnd(TypedDict):
    """The latest entry of each key has come, as they were at `offset` of `epoch`. Entries follow from just
    after that.
    """

    type: Literal["snapshot_end"]
    channel: ChannelName
    """The channel."""
    epoch: Epoch
    """The epoch from here on."""
    offset: int
    """Entries follow from the next offset on."""
    recovered: bool
    """Whether they are all: else some could not be reached, and another snapshot comes when they can."""
    timestamp: str
    """When it was sent."""


class TokenExpiring(TypedDict):
    """The token that was shown expires soon."""

    type: Literal["token_expiring"]
    expires_at: str
    """When. The connection is closed then, unless another token was shown."""
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
"""A message from the gateway. Field order is part of the snapshot in `tests/fixtures/protocol`."""


class SetSubscription(TypedDict):
    """What an operator says of a type of events, until the process ends."""

    mode: SubscriptionMode
    """When it is subscribed to from now on."""
    type: str
    """The type, such as `ticker`."""


class StateSpell(TypedDict):
    """A state that the storage was in, or is, from when it went over into it, and what it cost meanwhile."""

    entries_late: int
    """Accepted entries that Redis was sent late, meanwhile."""
    entries_let_go: int
    """Accepted entries that the log will not have: they were too old or too many, or it refused them."""
    entries_put_back: int
    """Entries that were put back into logs which had lost them."""
    entries_refused: int
    """Entries that were refused, because the journal was full."""
    lasted_ms: int
    """How long it lasted, or has so far, in milliseconds, by a clock that nobody sets."""
    logs_lost: int
    """Logs that had lost what they acknowledged."""
    reason: str
    """Why, for people."""
    reason_code: str
    """A stable word for why, as it began."""
    scope: Scope | str
    """Whether it was about all channels, as it began."""
    since: str
    """When it began."""
    state: BackendState | str
    """Which one."""
    storage_backend: BackendName | str
    """Which backend served."""
    until: NotRequired[str]
    """When it ended; absent for the one that lasts."""


class StatsView(TypedDict):
    """`GET /ws/stats`: what was counted since the start, and how much there is of what. Fields of the
    parts come and go with what is counted; who reads takes those that are missing for nothing.
    """

    channels: ChannelsView
    """Channels, and their entries."""
    connection_list: list[ConnectionInfo]
    """Some of the open connections, in the order of their ids."""
    connections: ConnectionsView
    """WebSockets."""
    connections_next: NotRequired[str]
    """There are more connections of those that were asked for: repeat with `after=` this; absent where
    there are none.
    """
    exchanges: dict[str, ExchangeView]
    """How exchanges are reached, and what came of them, by exchange; `*` are those beyond the first 256.
    What the log says of how they are reached is left out where it cannot be read in time.
    """
    feeds: dict[str, FeedView]
    """The feeds of exchanges that this process is configured with, by the names that events call them."""
    fleet: NodesView
    """The nodes that share the storage; `?scope=fleet` lists them."""
    http: HttpView
    """Requests, and the TCP connections that bring them."""
    interop: InteropCounts
    """The exchange with workers outside that use Redis lists."""
    limits: LimitsView
    """Limits of principals and tenants."""
    memory: MemoryUsage
    """How full this process' own logs are."""
    messages: MessagesView
    """What crossed them."""
    node: str
    """Which process it is; another one after each start."""
    orders: OrdersView
    """What this node did with orders, and how many there are on all nodes."""
    outage: OutageView
    """What waits for Redis, and what became of channels that went on without it."""
    primaries: int
    """Servers that share the channels among them."""
    primaries_away: int
    """Those of them that do not serve."""
    reason: str
    """Why, for people; may name what the server said."""
    reason_code: str
    """Why, as a word."""
    redis: BridgeView
    """The exchange of events with other gateways and processes by Redis pub/sub."""
    registries: RegistriesView
    """Who is online, and which orders are under way."""
    scope: Scope | str
    """Which channels it is about."""
    silent_shards: int
    """Shards too busy to say how many connections each zone has."""
    since: str
    """Since when."""
    state: BackendState | str
    """How well."""
    storage_backend: BackendName | str
    """Which storage serves."""
    storage_history: list[StateSpell]
    """The states that the storage was in, the newest first; the first one lasts."""
    timestamp: str
    """When this was said."""
    uptime_s: int
    """Seconds since its start."""
    version: str
    """Of the program."""


class Swap(TypedDict):
    """`POST /api/orders/execute` where `orders.schema` is `swap`: one token for another. Numbers keep the
    digits that they are written with.
    """

    amount: float
    """How much of `tokenIn`; greater than 0."""
    metadata: NotRequired[dict[str, Any]]
    """Goes with the order."""
    slippage: NotRequired[float]
    """Per cent by which the price may be worse than quoted, 0 to 100. Default 0.5."""
    tokenIn: str
    """What is given, such as `SOL`."""
    tokenOut: str
    """What is wanted for it, such as `USDC`."""


Zone: TypeAlias = str
"""The name of a zone."""


class ZoneView(TypedDict):
    """A zone that has been published to."""

    channel: ChannelName
    """Its channel."""
    lane: Lane
    """How it treats readers that fall behind."""
    stream: str
    """The path of its WebSocket."""
    zone: str
    """Its name."""


class ZoneList(TypedDict):
    """`GET /api/zones`."""

    zones: list[ZoneView]
    """In order of name."""
