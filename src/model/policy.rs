//! What the kind of a channel decides: one row per kind, one column per decision.
//!
//! The rooms read a column here and never ask for a kind. A new kind is a new row, and a new difference
//! between kinds is a new column.

use std::time::Duration;

use zonewire_protocol::{ChannelKind, ChannelName, ErrorCode, EventType, Lane};

/// What all channels of one kind have in common. See the module.
#[derive(Debug)]
pub(crate) struct ChannelPolicy {
    // Publishing
    /// The lane; `None` if `channels.lanes` and `channels.default_lane` decide.
    pub(crate) lane: Option<Lane>,
    /// How many requests to publish one append may combine. 1 if the log may refuse an entry for good
    /// (because of its fencing token, or because the log has ended): in an append, each entry names the one
    /// before it (`prev`), so a refused entry would break the chain for the requests after it.
    pub(crate) requests_per_append: usize,
    /// Whether channels are listed by name: each has a record, `channels.zones_max` bounds their number,
    /// and statistics show each.
    pub(crate) is_listed: bool,
    /// Whether `channels.keys_per_zone_max` bounds its keys.
    pub(crate) keys_are_bounded: bool,

    // The actor of a channel
    /// Whether the actor of a published channel stays for `channels.idle_after_s` after its last use.
    /// Otherwise it ends a second after that, because such channels are many and short-lived.
    pub(crate) lingers: bool,
    /// Whether a channel begun by a publisher counts against the bound on those that subscribers may begin.
    /// One begun by a subscriber always does.
    pub(crate) counts_when_published: bool,
    /// Whether there are so few channels that no bound is needed.
    pub(crate) are_few: bool,

    // Subscribers
    /// Whether readers want the whole log: without a position they begin with the oldest entry in it, and
    /// not with the next one; and a gateway that begins a local replica reads all of the log.
    pub(crate) is_wanted_whole: bool,
    /// Whether a reader may ask for a snapshot in place of what it would miss.
    pub(crate) has_snapshots: bool,
    /// The error for a subscriber if there are too many channels.
    pub(crate) no_room: fn(usize) -> (ErrorCode, String),
    /// Whether each delivery to subscribers is logged at level `debug`.
    pub(crate) logs_deliveries: bool,
    /// An upper estimate, in bytes, of what a message has in addition to its entry's data and its frame's
    /// header. Used to size buffers.
    pub(crate) envelope_bytes: usize,

    // Retention
    /// Which settings determine how much of the log is kept.
    pub(crate) retention: RetentionOf,
    /// Whether entries, and latest entries with them, expire together when the newest reaches the age.
    /// Otherwise each expires by its own age, and the latest entry of a key after
    /// `storage.retention.key_age_s`.
    pub(crate) goes_together: bool,
    /// Whether entries of any kind replace each other as the latest of their key. Otherwise only those of
    /// the same kind do: a trade is not a newer price.
    pub(crate) kinds_share_keys: bool,
    /// Whether the latest entry is always the one with the highest offset. Otherwise one that waited at its
    /// gateway (`late`) is compared by time, because others may have been appended after it was accepted.
    pub(crate) latest_by_offset: bool,
    /// Whether all entries are compared by time, as late ones are. Their times must come from a clock that
    /// grows with each write, on any node.
    pub(crate) latest_by_time: bool,
    /// Whether it has so few keys that all latest entries are read at once.
    pub(crate) has_few_keys: bool,
    /// Whether the memory storage bounds the number of these channels, evicting the oldest.
    /// [Listed](Self::is_listed) channels are bounded before they get there.
    pub(crate) is_bounded_in_memory: bool,

    // Outages of the storage
    /// What bounds the entries that wait for the storage, and so decides which of them are dropped first.
    pub(crate) wait_limit: WaitLimit,
    /// How long a gateway keeps its local replica after the last use if nobody needs it, because lost
    /// entries may have to be appended again.
    pub(crate) remembered_for: Duration,
}

/// Which settings determine how much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetentionOf {
    /// `entries` and `age_s` of `[storage.retention]`.
    Channels,
    /// `updates` and `age_s` of `[storage.retention.orders]`.
    Orders,
}

/// What bounds the entries that wait for the storage, in addition to the bounds of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitLimit {
    /// Their age (`storage.journal.age_s`). When the journal is full, entries on lane *latest* that a newer
    /// one of their key replaced are dropped earlier, so a missing entry need not be a loss.
    Age,
    /// Their number (`storage.retention.orders.updates` of each order): the oldest are dropped, the next
    /// one is marked, and age does not matter.
    Count,
}

/// `zone:<zone>`: the prices of a market area. Few and long-lived.
static ZONE: ChannelPolicy = ChannelPolicy {
    lane: None,
    requests_per_append: usize::MAX,
    is_listed: true,
    keys_are_bounded: true,
    lingers: true,
    counts_when_published: true,
    are_few: false,
    is_wanted_whole: false,
    has_snapshots: true,
    no_room: |max| {
        let message = format!("there are {max} channels already; try one of GET /api/zones");
        (ErrorCode::TooManyZones, message)
    },
    logs_deliveries: false,
    envelope_bytes: 160,
    retention: RetentionOf::Channels,
    goes_together: false,
    kinds_share_keys: false,
    latest_by_offset: false,
    latest_by_time: false,
    has_few_keys: false,
    is_bounded_in_memory: false,
    wait_limit: WaitLimit::Age,
    remembered_for: Duration::from_secs(3_600),
};

/// `order:<uuid>`: the updates of an order. Many and short-lived; each ends.
static ORDER: ChannelPolicy = ChannelPolicy {
    lane: Some(Lane::Every),
    requests_per_append: 1,
    is_listed: false,
    keys_are_bounded: false,
    lingers: false,
    counts_when_published: false,
    are_few: false,
    is_wanted_whole: true,
    has_snapshots: false,
    no_room: |max| {
        let message = format!("{max} orders are watched already; ask for this one again later");
        (ErrorCode::TooManyOrders, message)
    },
    logs_deliveries: true,
    // The order's id is in the message twice.
    envelope_bytes: 256,
    retention: RetentionOf::Orders,
    goes_together: true,
    kinds_share_keys: true,
    latest_by_offset: true,
    latest_by_time: false,
    has_few_keys: true,
    is_bounded_in_memory: true,
    wait_limit: WaitLimit::Count,
    remembered_for: Duration::from_secs(300),
};

/// `event:<type>` for types whose newest event is enough: tickers, candles and books. Events that replace
/// nothing, such as deltas of a book, have no key and are never replaced.
static LATEST_EVENTS: ChannelPolicy = ChannelPolicy {
    lane: Some(Lane::Latest),
    requests_per_append: usize::MAX,
    is_listed: false,
    keys_are_bounded: true,
    lingers: true,
    counts_when_published: false,
    are_few: true,
    is_wanted_whole: false,
    has_snapshots: true,
    no_room: |max| {
        let message = format!("{max} views of events are followed already (channels.views_max)");
        (ErrorCode::TooManyViews, message)
    },
    logs_deliveries: false,
    envelope_bytes: 192,
    retention: RetentionOf::Channels,
    goes_together: false,
    // All entries are of one kind.
    kinds_share_keys: true,
    latest_by_offset: false,
    latest_by_time: false,
    has_few_keys: false,
    is_bounded_in_memory: false,
    wait_limit: WaitLimit::Age,
    remembered_for: Duration::from_secs(3_600),
};

/// `event:<type>` for types of which each event counts: trades, and connections to exchanges.
static EACH_EVENT: ChannelPolicy = ChannelPolicy { lane: Some(Lane::Every), ..LATEST_EVENTS };

/// `registry:providers`, `registry:active-orders`: records. Two channels, which are permanent. What is not
/// stated here is as for types whose newest event is enough.
static REGISTRY: ChannelPolicy = ChannelPolicy {
    // The registry bounds them itself.
    keys_are_bounded: false,
    counts_when_published: true,
    no_room: |max| (ErrorCode::TooManyZones, format!("there are {max} channels already")),
    // A removal replaces the record of its key.
    kinds_share_keys: true,
    latest_by_time: true,
    ..LATEST_EVENTS
};

impl ChannelPolicy {
    /// The row of a channel. Parses the name, so frequent callers keep the result.
    pub(crate) fn of(channel: &ChannelName) -> &'static Self {
        match channel.kind() {
            ChannelKind::Zone => &ZONE,
            ChannelKind::Order => &ORDER,
            ChannelKind::Event => match channel.as_event() {
                Some((EventType::Ticker | EventType::Orderbook | EventType::Candle, _)) => &LATEST_EVENTS,
                _ => &EACH_EVENT,
            },
            ChannelKind::Registry => &REGISTRY,
        }
    }
}
