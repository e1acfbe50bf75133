//! What the switching backend requires of the storage that it prefers: a [`StorageBackend`] that may go away
//! and come back, as a whole or in parts.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{MovedJob, OpenLog, RecordKind, Recorded, Result, StorageBackend};
use crate::model::{ChannelName, Epoch, NodeId};

/// Why a storage does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// A stable word for health, metrics and clients.
    pub code: &'static str,
    /// For people. Holds no secrets.
    pub reason: String,
}

/// The health of the connections to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHealth {
    /// Why calls cannot be made now. `None`: the connections for commands and for subscriptions are up, and
    /// every followed channel is subscribed and confirmed.
    pub lost: Option<Lost>,
    /// How often an established connection was lost. This also reveals a loss that was repaired before
    /// anybody looked.
    pub losses: u64,
}

impl LinkHealth {
    /// Whether calls can be made.
    pub fn is_up(&self) -> bool {
        self.lost.is_none()
    }
}

/// What an answered health probe says about the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The data are the same, and still have what this node's probes wrote.
    Same,
    /// This node had not probed these data before.
    First,
    /// The data are older than before: restored from a copy, or a lagging replica took over.
    Older,
    /// The data are different: flushed, expired, or on another server.
    Other,
}

impl Beat {
    /// The reason to report if data were lost.
    pub fn lost(self) -> Option<Lost> {
        let (code, reason) = match self {
            Self::Same | Self::First => return None,
            Self::Older => ("data_older", "Redis answers with data that are older than before"),
            Self::Other => ("data_lost", "Redis answers without the data that it had"),
        };
        Some(Lost { code, reason: reason.to_owned() })
    }
}

/// A failure domain: a part of a storage that fails and recovers as a unit. It is the whole storage, or one
/// primary of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::storage) struct Domain(u16);

impl Domain {
    /// The only domain of a storage without parts.
    pub(in crate::storage) const ONLY: Self = Self(0);

    pub(in crate::storage) fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its index in lists by domain.
    pub(in crate::storage) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a call is about; each belongs to one domain.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The log of a channel.
    Channel(&'a ChannelName),
    /// All jobs.
    Jobs,
    /// All records of a kind.
    Records(RecordKind),
    /// All leases.
    Leases,
}

/// The domains of a storage, and the health of the connections to each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Domains {
    /// By domain, at least one. `None`: nothing belongs to the domain any more.
    pub(in crate::storage) parts: Vec<Option<DomainPart>>,
    /// How often something moved from one domain to another.
    pub(in crate::storage) moves: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct DomainPart {
    /// The domain's server, for log lines. Empty if there is only one, and until it is known.
    pub(in crate::storage) name: String,
    pub(in crate::storage) health: LinkHealth,
}

impl Domains {
    /// For a storage with one domain.
    pub(in crate::storage) fn one(health: LinkHealth) -> Self {
        Self { parts: vec![Some(DomainPart { name: String::new(), health })], moves: 0 }
    }

    pub(in crate::storage) fn part(&self, domain: Domain) -> Option<&DomainPart> {
        self.parts.get(domain.index())?.as_ref()
    }

    /// The domains that something belongs to.
    pub(in crate::storage) fn present(&self) -> impl Iterator<Item = (Domain, &DomainPart)> {
        (0..).map(Domain::new).zip(&self.parts).filter_map(|(domain, part)| Some((domain, part.as_ref()?)))
    }

    /// Whether the connections to all of them are up.
    pub(in crate::storage) fn are_up(&self) -> bool {
        self.present().all(|(_, part)| part.health.is_up())
    }
}

/// A storage that nodes share, and that may go away and come back.
#[async_trait]
pub(in crate::storage) trait Primary: StorageBackend {
    /// The domains, and their changes.
    fn domains(&self) -> watch::Receiver<Domains>;

    /// The domain that something belongs to now. Cheap.
    fn domain_of(&self, _place: Place<'_>) -> Domain {
        Domain::ONLY
    }

    /// Probes a domain: proves that it answers and accepts writes, and detects whether it lost data. Each loss
    /// is reported once.
    ///
    /// # Errors
    /// The domain cannot be reached, does not answer in time, or accepts no writes; the error says which.
    async fn beat(&self, domain: Domain, node: NodeId) -> Result<Beat, Lost>;

    /// The state of a channel's log, as `producer` sees it; `None` if it has no epoch. Creates nothing. The
    /// anchor is the entry at the offset `at` or, if that is not kept, the newest one.
    async fn examine(&self, channel: &ChannelName, producer: NodeId, at: u64) -> Result<Option<OpenLog>>;

    /// Replaces the epoch of a channel's log if it is `expected`, and keeps everything else: entries keep their
    /// offsets, producers their sequences. Returns the epoch in force afterwards, if there is one. Called for a
    /// log that was set back, because positions of its old epoch may name entries that it no longer has.
    async fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Result<Option<Epoch>>;

    /// The channels that belong to these domains at present.
    fn channels_of(&self, _domains: &[Domain]) -> Concerned {
        Concerned::none()
    }

    /// Records a job that a node kept while this storage was away: from here on it is a job like any other.
    /// Repeating the call changes nothing. It is never refused for want of room in the queue, because the job
    /// was accepted.
    async fn record_job(&self, job: &MovedJob) -> Result<Recorded>;

    /// Releases jobs that this process claimed in calls whose answers were lost, if there are any. This
    /// process' next claim does so too.
    async fn settle_claims(&self) -> Result<()> {
        Ok(())
    }
}

/// A set of channels: those in certain slots.
#[derive(Clone)]
pub struct Concerned {
    /// A bit for each slot.
    slots: Arc<[u64]>,
    slot_of: fn(&ChannelName) -> u16,
}

impl Concerned {
    pub(in crate::storage) fn none() -> Self {
        Self { slots: Arc::new([]), slot_of: |_| 0 }
    }

    /// The channels in those of `count` slots for which `is_concerned` returns true.
    pub(in crate::storage) fn new(
        count: usize,
        is_concerned: impl Fn(u16) -> bool,
        slot_of: fn(&ChannelName) -> u16,
    ) -> Self {
        let mut slots = vec![0_u64; count.div_ceil(64)];
        for slot in 0..u16::try_from(count).unwrap_or(u16::MAX) {
            if is_concerned(slot) {
                slots[usize::from(slot / 64)] |= 1 << (slot % 64);
            }
        }
        Self { slots: slots.into(), slot_of }
    }

    #[cfg(test)]
    pub(crate) fn all() -> Self {
        Self::new(64, |_| true, |_| 0)
    }

    /// Whether a channel is in the set.
    pub fn has(&self, channel: &ChannelName) -> bool {
        let slot = (self.slot_of)(channel);
        self.slots.get(usize::from(slot / 64)).is_some_and(|bits| bits & (1 << (slot % 64)) != 0)
    }
}

impl PartialEq for Concerned {
    fn eq(&self, other: &Self) -> bool {
        self.slots == other.slots
    }
}

impl Eq for Concerned {}

impl fmt::Debug for Concerned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots: u32 = self.slots.iter().map(|bits| bits.count_ones()).sum();
        f.debug_struct("Concerned").field("slots", &slots).finish_non_exhaustive()
    }
}
