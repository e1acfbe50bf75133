//! What the switching backend asks of the storage that it prefers: a [`StorageBackend`] that may go
//! away and come back, as a whole or in parts.

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

/// Whether the connections to Redis are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHealth {
    /// Why there are no calls to be made now. `None`: both connections, for commands and for
    /// subscriptions, are up, and all that is followed has been subscribed and confirmed.
    pub lost: Option<Lost>,
    /// How often a connection that was up was lost. It tells also of a loss that was made good
    /// before anybody looked.
    pub losses: u64,
}

impl LinkHealth {
    /// Whether calls can be made.
    pub fn is_up(&self) -> bool {
        self.lost.is_none()
    }
}

/// What a beat that was answered says of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// They are the same, and what this node's beats wrote is there.
    Same,
    /// This node knew nothing of them before.
    First,
    /// They are older than they were: restored, or a replica that was behind took over.
    Older,
    /// They are others: flushed, expired, or those of another server.
    Other,
}

impl Beat {
    /// What is said of Redis where data were lost.
    pub fn lost(self) -> Option<Lost> {
        let (code, reason) = match self {
            Self::Same | Self::First => return None,
            Self::Older => ("data_older", "Redis answers with data that are older than they were"),
            Self::Other => ("data_lost", "Redis answers without the data that it had"),
        };
        Some(Lost { code, reason: reason.to_owned() })
    }
}

/// A part of a storage that goes away and comes back as one: all of it, or one primary of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::storage) struct Area(u16);

impl Area {
    /// The only one, where there are no parts.
    pub(in crate::storage) const ONLY: Self = Self(0);

    pub(in crate::storage) fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its place in lists by area.
    pub(in crate::storage) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What is in an area.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) enum Place<'a> {
    Channel(&'a ChannelName),
    /// All jobs.
    Jobs,
    /// All records of a kind.
    Records(RecordKind),
    /// All leases.
    Leases,
}

/// The areas of a storage, and how the connections to each are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Areas {
    /// By area, one at least; `None`: nothing belongs to it any more.
    pub(in crate::storage) parts: Vec<Option<AreaPart>>,
    /// How often something went from one area to another.
    pub(in crate::storage) moves: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct AreaPart {
    /// Its server, for the log. Empty where there is one only, and before it is known.
    pub(in crate::storage) name: String,
    pub(in crate::storage) health: LinkHealth,
}

impl Areas {
    /// Of a storage that is one.
    pub(in crate::storage) fn one(health: LinkHealth) -> Self {
        Self { parts: vec![Some(AreaPart { name: String::new(), health })], moves: 0 }
    }

    pub(in crate::storage) fn part(&self, area: Area) -> Option<&AreaPart> {
        self.parts.get(area.index())?.as_ref()
    }

    /// Those that something belongs to.
    pub(in crate::storage) fn present(&self) -> impl Iterator<Item = (Area, &AreaPart)> {
        (0..).map(Area::new).zip(&self.parts).filter_map(|(area, part)| Some((area, part.as_ref()?)))
    }

    /// Whether the connections to all of them are up.
    pub(in crate::storage) fn are_up(&self) -> bool {
        self.present().all(|(_, part)| part.health.is_up())
    }
}

/// A storage shared with other nodes, that may go away and come back.
#[async_trait]
pub(in crate::storage) trait Primary: StorageBackend {
    /// Its areas, now and from now on.
    fn areas(&self) -> watch::Receiver<Areas>;

    /// The area that something belongs to now. Cheap.
    fn area_of(&self, _place: Place<'_>) -> Area {
        Area::ONLY
    }

    /// Proves that an area answers and takes writes, and finds whether it lost what it had. Each loss is
    /// found once.
    ///
    /// # Errors
    /// It cannot be reached, does not answer in time, or takes no writes; says which.
    async fn beat(&self, area: Area, node: NodeId) -> Result<Beat, Lost>;

    /// Where the log of a channel stands, as `producer` sees it; `None` where it has no epoch. Makes
    /// nothing. The anchor is the entry at the offset `at` or, if that is not kept, the newest one.
    async fn examine(&self, channel: &ChannelName, producer: NodeId, at: u64) -> Result<Option<OpenLog>>;

    /// Gives the log of a channel another epoch, but only if its epoch is `expected`; entries keep their
    /// offsets, and producers their sequences. Answers with the epoch in force afterwards, if there is one.
    /// For a log that was set back: positions of its epoch until then name entries that it may not have.
    async fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Result<Option<Epoch>>;

    /// Which channels belong to areas, as it is now.
    fn channels_of(&self, _areas: &[Area]) -> Concerned {
        Concerned::none()
    }

    /// Records a job that a node kept while this storage was away: from here on it is a job like any
    /// other. Repeating it does nothing. Never refused for want of a place in the queue, since the job
    /// was accepted.
    async fn record_job(&self, job: &MovedJob) -> Result<Recorded>;

    /// Lets others have the jobs of this process' claims whose answers were lost, where there may be some.
    /// The next claim of this process does so too.
    async fn settle_claims(&self) -> Result<()> {
        Ok(())
    }
}

/// Some of all channels: those in certain slots.
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

    /// The channels in those of `count` slots that are told.
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

    /// Whether a channel is one of them.
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
