//! What the kind of a channel decides: one row for each kind, one column for each decision.
//!
//! The rooms read a column here and ask for no kind. A kind that is added is one more row, and a room
//! that treats kinds differently in something new adds a column.

use std::time::Duration;

use zonewire_protocol::{ChannelKind, ChannelName, ErrorCode, EventType, Lane};

/// What all channels of one kind have in common. See the module.
#[derive(Debug)]
pub(crate) struct ChannelPolicy {
    // What is published
    /// The lane of each; `None` where `channels.lanes` and `channels.default_lane` say.
    pub(crate) lane: Option<Lane>,
    /// How many requests to publish one append to the log may hold. 1 where the log may refuse one for good
    /// (for its lease, or because the log has ended), which must not be a link in another one's chain.
    pub(crate) requests_per_append: usize,
    /// Whether each is known by its name: it has a record, `channels.zones_max` bounds how many there are,
    /// and statistics show each.
    pub(crate) is_listed: bool,
    /// Whether `channels.keys_per_zone_max` bounds its keys.
    pub(crate) keys_are_bounded: bool,

    // The actor of a channel
    /// Whether the actor stays for `channels.idle_after_s` after the last use of a channel that was
    /// published to. Else it goes a second after that: such channels are many, and each is short.
    pub(crate) lingers: bool,
    /// Whether one that a publisher began counts among those that subscribers may begin. One that a
    /// subscriber began does in any case.
    pub(crate) counts_when_published: bool,
    /// Whether there are so few of them that no bound need hold.
    pub(crate) are_few: bool,

    // Those who follow it
    /// Whether readers want all of it: one who names no position begins with the oldest entry that is kept,
    /// and not with what comes next; and a gateway that begins a copy of the log takes all of it.
    pub(crate) is_wanted_whole: bool,
    /// Whether a reader may ask for a snapshot, the latest entry of each key, in place of what it would miss.
    pub(crate) has_snapshots: bool,
    /// What a subscriber is told for whom there is no room, where there are so many channels already.
    pub(crate) no_room: fn(usize) -> (ErrorCode, String),
    /// Whether the log at level `debug` has a line for each delivery to subscribers.
    pub(crate) logs_deliveries: bool,
    /// What a message has besides the data of its entry and the header of its frame, in bytes, roughly from
    /// above: so much room is made for it.
    pub(crate) envelope_bytes: usize,

    // What the storage keeps
    /// Which settings say how much of the log is kept.
    pub(crate) retention: RetentionOf,
    /// Whether entries, and latest entries with them, go all at once when the newest has the age. Else each
    /// goes when it has that itself, and the latest entry of a key after `storage.retention.key_age_s`.
    pub(crate) goes_together: bool,
    /// Whether entries of any kind replace each other as the latest of their key. Else only those of the same
    /// kind do: a trade is no newer price.
    pub(crate) kinds_share_keys: bool,
    /// Whether the latest entry is the one with the highest offset in any case. Else one that waited at its
    /// gateway (`late`) is compared by time, since others may have been appended after it was accepted.
    pub(crate) latest_by_offset: bool,
    /// Whether it has so few keys that all latest entries are read at once.
    pub(crate) has_few_keys: bool,
    /// Whether the memory storage bounds how many of them it keeps, the oldest going first. Those that are
    /// [listed](Self::is_listed) are bounded before they come there.
    pub(crate) is_bounded_in_memory: bool,

    // An outage of the storage
    /// What is let go first of what waits for the storage.
    pub(crate) waiting: Waiting,
    /// How long a gateway remembers what it knows of the log after its last use, where nobody needs it: it
    /// may have to be put back.
    pub(crate) remembered_for: Duration,
}

/// Which settings say how much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetentionOf {
    /// `entries` and `age_s` of `[storage.retention]`.
    Channels,
    /// `updates` and `age_s` of `[storage.retention.orders]`.
    Orders,
}

/// How what waits for the storage is bounded, besides by the room that there is for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// By age (`storage.journal.age_s`). On the lane *latest* entries that a newer one of their key
    /// replaced go before, where there is no room: so an entry that is not there need not be missed.
    Aged,
    /// By count (`storage.retention.orders.updates` of each): the oldest go, the next one says that they are
    /// missed, and age does not matter.
    Counted,
}

/// `zone:<zone>`: the prices of a market area. Few, and each lasts.
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
    has_few_keys: false,
    is_bounded_in_memory: false,
    waiting: Waiting::Aged,
    remembered_for: Duration::from_secs(3_600),
};

/// `order:<uuid>`: the updates of an order. Many, and each is short and ends.
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
    // Its name is there twice.
    envelope_bytes: 256,
    retention: RetentionOf::Orders,
    goes_together: true,
    kinds_share_keys: true,
    latest_by_offset: true,
    has_few_keys: true,
    is_bounded_in_memory: true,
    waiting: Waiting::Counted,
    remembered_for: Duration::from_secs(300),
};

/// `event:<type>` of types of which the newest event says all: tickers, candles and books. What of these
/// replaces nothing, as a delta of a book, has no key, and is never replaced.
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
    // All are of one kind.
    kinds_share_keys: true,
    latest_by_offset: false,
    has_few_keys: false,
    is_bounded_in_memory: false,
    waiting: Waiting::Aged,
    remembered_for: Duration::from_secs(3_600),
};

/// `event:<type>` of types of which each event counts: trades, and how exchanges are reached.
static EACH_EVENT: ChannelPolicy = ChannelPolicy { lane: Some(Lane::Every), ..LATEST_EVENTS };

impl ChannelPolicy {
    /// The row of a channel. It reads the name: what needs it often keeps it.
    pub(crate) fn of(channel: &ChannelName) -> &'static Self {
        match channel.kind() {
            ChannelKind::Zone => &ZONE,
            ChannelKind::Order => &ORDER,
            ChannelKind::Event => match channel.as_event() {
                Some((EventType::Ticker | EventType::Orderbook | EventType::Candle, _)) => &LATEST_EVENTS,
                _ => &EACH_EVENT,
            },
        }
    }
}
