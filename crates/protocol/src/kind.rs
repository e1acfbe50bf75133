//! Identities of entries, and their kinds.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::event::EventType;

/// A gateway process. Random at every start, so a restarted node is a new producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub Uuid);

impl NodeId {
    /// A new identity for this process.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_simple(), f)
    }
}

impl FromStr for NodeId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Identity of an entry, fixed when it is accepted and the same in every epoch and on every node.
/// Written `<node>-<sequence>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// The node that accepted the entry; for an entry with an id of its own, the source that it names.
    pub producer: NodeId,
    /// That node's sequence number in the channel; starts at 1, may have gaps, never goes back.
    pub seq: u64,
}

impl EntryId {
    /// The id of an entry whose stored form does not even tell who accepted it. No producer has this id.
    pub const UNREADABLE: Self = Self { producer: NodeId(Uuid::nil()), seq: 0 };

    /// Whether the id names a producer.
    pub fn is_known(&self) -> bool {
        *self != Self::UNREADABLE
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.producer, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('-').and_then(|(producer, seq)| {
            Some(Self { producer: producer.parse().ok()?, seq: seq.parse().ok()? })
        });
        parsed.ok_or_else(|| "not an entry id: expected `<node>-<sequence>`".to_owned())
    }
}

/// What kind of entry it is; the `type` of the message that carries it to clients. The set is open: during
/// a rolling upgrade, a log may hold entries of kinds that only newer gateways know. Such an entry keeps
/// its offset everywhere, and clients are told that it was skipped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// `price_update`: a price in a zone.
    PriceUpdate,
    /// `key_removed`: a key of a zone no longer has a price, or a key of a registry no longer has a record.
    KeyRemoved,
    /// `zone_removed`: no key of a zone has a price any longer.
    ZoneRemoved,
    /// `record_update`: a record of a registry.
    RecordUpdate,
    /// `routing`: an order's venue is being chosen.
    Routing,
    /// `building`: an order's transaction is being built.
    Building,
    /// `submitted`: an order's transaction was sent.
    Submitted,
    /// `confirmed`: an order was executed. The last update of its order.
    Confirmed,
    /// `failed`: an order was not executed and will not be. The last update of its order.
    Failed,
    /// An event; the kind has the name of the event's type.
    Event(EventType),
    /// `missed`: some events of other processes did not arrive. Only in channels of live types.
    Missed,
    /// An entry that this build cannot show.
    Unknown(Arc<UnknownKind>),
}

/// What is known about an entry that this build cannot show.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownKind {
    /// The type in storage; `None` if not even that could be read.
    pub name: Option<Box<str>>,
    /// Whether it is the last entry of its channel.
    pub is_terminal: bool,
    /// Why it cannot be shown.
    pub why: WhyUnknown,
}

/// Why an entry cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyUnknown {
    /// This build does not know its type; everything else could be read.
    Kind,
    /// The stored form could not be read, or not all of it; the text says why, for people.
    Form(&'static str),
}

impl WhyUnknown {
    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "unknown_kind",
            Self::Form(_) => "unreadable",
        }
    }
}

impl EntryKind {
    /// The longest name of a kind, in bytes.
    const NAME_LEN_MAX: usize = 32;

    /// The kind with this name. `is_terminal` applies if this build does not know the kind. `None` if the
    /// text cannot be the name of a kind: 1 to 32 of `a-z 0-9 _ :`, starting with a letter.
    pub fn named(name: &str, is_terminal: bool) -> Option<Self> {
        if let Ok(known) = name.parse() {
            return Some(known);
        }
        let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b':');
        let is_name = name.len() <= Self::NAME_LEN_MAX
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.as_bytes().iter().all(is_plain);
        let unknown = || UnknownKind { name: Some(name.into()), is_terminal, why: WhyUnknown::Kind };
        is_name.then(|| Self::Unknown(Arc::new(unknown())))
    }

    /// The kind of an entry that could be read only this far.
    pub fn unreadable(kind: Option<&Self>, is_terminal: bool, what: &'static str) -> Self {
        let unknown = UnknownKind {
            name: kind.map(|kind| kind.as_str().into()),
            is_terminal: is_terminal || kind.is_some_and(Self::is_terminal),
            why: WhyUnknown::Form(what),
        };
        Self::Unknown(Arc::new(unknown))
    }

    /// What is known about the kind, if entries of it cannot be shown.
    pub fn unknown(&self) -> Option<&UnknownKind> {
        match self {
            Self::Unknown(unknown) => Some(unknown),
            _ => None,
        }
    }

    /// The `type` in storage, and on the wire if this build knows the kind. `unreadable` for an entry whose
    /// type could not be read.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown(unknown) => unknown.name.as_deref().unwrap_or("unreadable"),
            Self::PriceUpdate => "price_update",
            Self::KeyRemoved => "key_removed",
            Self::ZoneRemoved => "zone_removed",
            Self::RecordUpdate => "record_update",
            Self::Routing => "routing",
            Self::Building => "building",
            Self::Submitted => "submitted",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Event(event) => event.as_str(),
            Self::Missed => "missed",
        }
    }

    /// Whether it ends its channel: a log with such an entry is closed.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Confirmed | Self::Failed => true,
            Self::Unknown(unknown) => unknown.is_terminal,
            Self::PriceUpdate
            | Self::KeyRemoved
            | Self::ZoneRemoved
            | Self::RecordUpdate
            | Self::Routing
            | Self::Building
            | Self::Submitted
            | Self::Event(_)
            | Self::Missed => false,
        }
    }

    /// Whether this is a stage of an order, as opposed to kinds of zones, registries and events.
    pub fn is_stage(&self) -> bool {
        matches!(self, Self::Routing | Self::Building | Self::Submitted | Self::Confirmed | Self::Failed)
    }
}

/// Only the kinds that this build knows, by name.
impl FromStr for EntryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "price_update" => Ok(Self::PriceUpdate),
            "missed" => Ok(Self::Missed),
            "key_removed" => Ok(Self::KeyRemoved),
            "zone_removed" => Ok(Self::ZoneRemoved),
            "record_update" => Ok(Self::RecordUpdate),
            "routing" => Ok(Self::Routing),
            "building" => Ok(Self::Building),
            "submitted" => Ok(Self::Submitted),
            "confirmed" => Ok(Self::Confirmed),
            "failed" => Ok(Self::Failed),
            _ => text.parse().map(Self::Event).map_err(|_unknown| "unknown entry type".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_open_by_name_and_a_known_one_says_itself_whether_it_is_terminal() {
        assert_eq!(EntryKind::named("failed", false), Some(EntryKind::Failed));
        assert!(EntryKind::Failed.is_terminal());
        let (open, end) =
            (EntryKind::named("news:local", false).unwrap(), EntryKind::named("expired_1", true).unwrap());
        assert_eq!((open.as_str(), open.is_terminal()), ("news:local", false));
        assert_eq!((end.as_str(), end.is_terminal()), ("expired_1", true));
        for event in EventType::ALL {
            assert_eq!(EntryKind::named(event.as_str(), false), Some(EntryKind::Event(event)));
        }
        let too_long = "a".repeat(33);
        for text in ["", "Ticker", "1st", "a b", "a\"", "ä", ":a", too_long.as_str()] {
            assert_eq!(EntryKind::named(text, false), None, "{text:?}");
        }
    }
}
