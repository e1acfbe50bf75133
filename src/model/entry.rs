//! One message in a channel.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A gateway process. Random at every start, so that a restarted node is another producer.
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
        write!(f, "{}", self.0.simple())
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
    /// The node that accepted the entry.
    pub producer: NodeId,
    /// That node's sequence in the channel; counts from 1, may have holes, never goes back.
    pub seq: u64,
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

/// What an entry says; the `type` of the message that carries it to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// `price_update`: a price in a zone.
    PriceUpdate,
    /// `routing`: an order's venue is being chosen.
    Routing,
    /// `building`: an order's transaction is being made.
    Building,
    /// `submitted`: an order's transaction is on its way.
    Submitted,
    /// `confirmed`: an order was carried out. The last update of its order.
    Confirmed,
    /// `failed`: an order was not carried out, and will not be. The last update of its order.
    Failed,
}

impl EntryKind {
    /// The `type` on the wire and in storage.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PriceUpdate => "price_update",
            Self::Routing => "routing",
            Self::Building => "building",
            Self::Submitted => "submitted",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
        }
    }

    /// Nothing follows it in its channel: a log that holds it is closed.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Confirmed | Self::Failed)
    }
}

impl FromStr for EntryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "price_update" => Ok(Self::PriceUpdate),
            "routing" => Ok(Self::Routing),
            "building" => Ok(Self::Building),
            "submitted" => Ok(Self::Submitted),
            "confirmed" => Ok(Self::Confirmed),
            "failed" => Ok(Self::Failed),
            _ => Err("unknown entry type".to_owned()),
        }
    }
}

/// What became of an entry on its way into the log; readers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// It waited at its gateway while the log was away.
    pub late: bool,
    /// Entries of its producer before it were let go, and no log has them.
    pub missed_before: bool,
}

/// An entry that no log has yet: what a publisher hands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftEntry {
    /// The entry's own time, in milliseconds precision; not when it arrived.
    pub time: DateTime<Utc>,
    /// What it says.
    pub kind: EntryKind,
    /// What it replaces: a newer entry of the same key makes this one obsolete on the *latest* lane.
    pub key: Option<Arc<str>>,
    /// A compact JSON object (no white space outside strings, so no line breaks).
    pub data: Bytes,
    /// Publishers leave them as they are by default.
    pub marks: Marks,
}

impl DraftEntry {
    /// What this entry costs in a queue or a log, in bytes; an estimate from above.
    pub fn cost(&self) -> usize {
        self.data.len() + self.key.as_ref().map_or(0, |key| key.len()) + size_of::<Entry>()
    }
}

/// One message in a channel. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log, counting from 1 in each epoch without holes.
    pub offset: u64,
    /// Who accepted it, and as which of theirs.
    pub id: EntryId,
    /// Time, type, key and content, as the publisher gave them.
    pub draft: DraftEntry,
}
