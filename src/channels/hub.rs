//! All channels of this node: finds or starts the actor of each, and passes it what the storage reports.

mod removal;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::accepted::TellAccepted;
use super::actor::{Actor, Command, Common, Ids, Link, Notification, Request, Suspicion};
use super::config::ChannelsConfig;
use super::error::{JoinError, PublishError};
use super::keys::Keys;
use super::live::Delivery;
use super::pages::{EncodedLatest, EncodedPage, Pages};
use super::reader::{Asked, Start, StartingPoint, Wanted, WantedLatest};
use super::watched::{FollowedEvents, WatchedOrders};
use super::{ChannelStats, PageStats};
use crate::model::{
    ChannelKind, ChannelName, ChannelPolicy, DraftEntry, EntryKind, EventType, NodeId, Position, Zone,
};
use crate::storage::{
    EPOCH_KEPT_FOR, LATEST_BYTES_MAX, LatestOf, LatestPage, LatestQuery, LogEvent, Page, PageLimit,
    RecordKind, Result as StorageResult, SharedBackend, StorageError, is_fork, log_of_fork,
};
use crate::support::chance::Hashing;
use crate::support::panics::Vital;

/// The most notifications that wait for one channel; with more, the log is read instead.
const NOTIFICATIONS_MAX: usize = 256;

/// The most commands that wait for one channel. Publishers are limited by entries before they send one.
const COMMANDS_MAX: usize = 1_024;

/// The TTL of a zone's record, long enough to outlive its log.
const ZONE_RECORD_TTL: Duration = EPOCH_KEPT_FOR.saturating_mul(2);

/// How many times a page of latest entries is read if Redis comes and goes meanwhile.
const LOOKS_MAX: usize = 4;

/// Zones read from the storage in one call.
const ZONE_PAGE: usize = 1_000;

/// About how many bytes the entries of one answer of history may have. One entry is returned in any case.
const HISTORY_BYTES_MAX: usize = 1 << 20;

/// How drafts are appended.
#[derive(Debug)]
struct Terms {
    /// The lease's fencing token.
    fence: Option<u64>,
    /// Whether a publisher of this node sent them.
    is_own: bool,
    /// The drafts' own ids.
    ids: Option<Ids>,
    first: First,
}

impl Terms {
    const USUAL: Self = Self { fence: None, is_own: true, ids: None, first: First::No };
}

/// How updates of an order are appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpdateTerms {
    /// The fencing token of the lease under which they are published.
    pub(crate) fence: Option<u64>,
    /// Whether they are the order's first updates.
    pub(crate) first: First,
}

/// Whether drafts are the first entries of their log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The log has begun, or the caller does not know.
    No,
    /// As far as the caller knows, the log has no epoch yet. If that is wrong, one storage call is wasted.
    Likely,
    /// As `Likely`, but if the log has entries already, none of the drafts is appended
    /// ([`PublishError::NotFirst`]).
    Only,
}

/// The most that a page for a reader contains.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSizes {
    /// Entries of a log.
    pub(crate) entries: usize,
    /// Keys with their latest entries.
    pub(crate) keys: usize,
}

/// All channels of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Channels(Arc<Hub>);

#[derive(Debug)]
struct Hub {
    common: Arc<Common>,
    actors: Mutex<Actors>,
    zones: Zones,
    tracker: TaskTracker,
    runtime: Handle,
    vital: Vital,
}

/// The channels that have an actor.
#[derive(Debug, Default)]
struct Actors {
    queues: HashMap<ChannelName, ActorQueues, Hashing>,
    /// For each kind, how many channels count against the bound on those that subscribers may begin.
    counted: HashMap<ChannelKind, usize>,
}

impl Actors {
    /// How many channels of this one's kind count.
    fn counted(&mut self, channel: &ChannelName) -> &mut usize {
        self.counted.entry(channel.kind()).or_default()
    }

    /// The queues of an actor that still accepts commands.
    fn open(&self, channel: &ChannelName) -> Option<ActorQueues> {
        self.queues.get(channel).filter(|queues| !queues.commands.is_closed()).cloned()
    }

    fn insert(&mut self, channel: &ChannelName, queues: ActorQueues) {
        *self.counted(channel) += usize::from(queues.counts);
        if let Some(before) = self.queues.insert(channel.clone(), queues) {
            *self.counted(channel) -= usize::from(before.counts);
        }
    }

    /// Removes an actor that has ended.
    fn remove_closed(&mut self, channel: &ChannelName) {
        if self.queues.get(channel).is_some_and(|queues| queues.commands.is_closed())
            && let Some(removed) = self.queues.remove(channel)
        {
            *self.counted(channel) -= usize::from(removed.counts);
        }
    }
}

/// Who needs the actor of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Publisher,
    Subscriber,
}

impl Command {
    fn need(&self) -> Need {
        match self {
            Self::Publish(_) => Need::Publisher,
            Self::Join { .. } | Self::Leave { .. } => Need::Subscriber,
        }
    }
}

/// The queues of one actor.
#[derive(Debug, Clone)]
struct ActorQueues {
    commands: mpsc::Sender<Command>,
    notifications: mpsc::Sender<Notification>,
    suspicion: Arc<Suspicion>,
    /// Permits for entries that wait for the storage.
    places: Arc<Semaphore>,
    /// `None` until they have been read from the storage.
    keys: Arc<Mutex<Option<Keys>>>,
    /// Whether it counts against the bound on channels that subscribers may begin: a subscriber asked for
    /// it before anything was published to it here, or its kind always counts.
    counts: bool,
}

/// What channels need to start.
#[derive(Debug)]
pub(crate) struct ChannelsParts {
    pub(crate) backend: SharedBackend,
    pub(crate) node: NodeId,
    pub(crate) config: ChannelsConfig,
    /// The queues of the shards.
    pub(crate) shards: Vec<mpsc::Sender<Delivery>>,
    /// Runs the actors.
    pub(crate) runtime: Handle,
    /// Notified if an actor panics.
    pub(crate) vital: Vital,
    /// Notified of what this node accepted.
    pub(crate) accepted: Option<Arc<dyn TellAccepted>>,
}

#[cfg(test)]
impl Channels {
    /// A node's channels with the default settings, which no shard follows.
    pub(crate) fn without_shards(backend: SharedBackend, node: NodeId) -> Self {
        let parts = ChannelsParts {
            backend,
            node,
            config: ChannelsConfig::default(),
            shards: Vec::new(),
            runtime: Handle::current(),
            vital: Vital::default(),
            accepted: None,
        };
        Self::new(parts, TaskTracker::new(), CancellationToken::new())
    }
}

impl Channels {
    /// Without any channel. `stop` makes the actors end once nothing waits; `tracker` tracks them.
    pub(crate) fn new(parts: ChannelsParts, tracker: TaskTracker, stop: CancellationToken) -> Self {
        let ChannelsParts { backend, node, config, shards, runtime, vital, accepted } = parts;
        let common = Common {
            pages: Pages::new(Arc::clone(&backend), config.replay_bytes_max),
            backend,
            node,
            config,
            stats: ChannelStats::default(),
            shards,
            seq_floor: AtomicU64::new(0),
            unknown_logged: Mutex::default(),
            orders: Arc::default(),
            accepted,
            events: FollowedEvents::default(),
            views: AtomicUsize::default(),
            stop,
        };
        let tidying = common.stop.clone().run_until_cancelled_owned(common.pages.tidying()).map(|_| ());
        tracker.spawn_on(vital.guard("pages", tidying), &runtime);
        let hub = Hub {
            common: Arc::new(common),
            actors: Mutex::default(),
            zones: Mutex::default(),
            tracker,
            runtime,
            vital,
        };
        Self(Arc::new(hub))
    }

    /// Passes the storage's events to the actors, until the storage is gone.
    pub(crate) async fn pass_on(self, mut incoming: mpsc::Receiver<LogEvent>) {
        while let Some(event) = incoming.recv().await {
            match event {
                LogEvent::Appended { channel, epoch, entries } => {
                    let Some(queues) = self.0.actors.lock().queues.get(&channel).cloned() else { continue };
                    if entries.iter().any(|entry| entry.draft.kind == EntryKind::ZoneRemoved) {
                        // Another node may have removed the zone, so its record is written again with its
                        // next price.
                        self.0.zones.lock().remove(&channel);
                    }
                    if queues.notifications.try_send(Notification { epoch, entries }).is_err() {
                        self.0.common.stats.echoes_dropped.add(1);
                        queues.suspicion.raise();
                    }
                }
                LogEvent::Changed(channel) => self.suspect(&channel),
                LogEvent::Suspect => {
                    let actors = self.0.actors.lock();
                    actors.queues.values().for_each(|queues| queues.suspicion.raise());
                }
            }
        }
    }

    /// Appends drafts to a channel, in order, and answers when the log has them all. Waits while the
    /// channel's queue is full. If the caller is dropped while it waits, the drafts may or may not be
    /// accepted.
    ///
    /// # Errors
    /// See [`PublishError`]; it says how many were accepted nevertheless.
    pub async fn publish(&self, channel: &ChannelName, drafts: Vec<DraftEntry>) -> Result<(), PublishError> {
        self.admit(channel, drafts, Terms::USUAL).await
    }

    /// Appends what another process published. It is not reported to [`TellAccepted`], because other nodes
    /// receive it from that process themselves.
    pub(crate) async fn take_in(
        &self,
        channel: &ChannelName,
        drafts: Vec<DraftEntry>,
    ) -> Result<(), PublishError> {
        self.admit(channel, drafts, Terms { is_own: false, ..Terms::USUAL }).await
    }

    /// Appends drafts that have their own ids: those of one producer, in ascending order, each with the id
    /// that must precede it in the log. However many nodes append an entry, and however often, the log has it
    /// once, and never after a later one of its producer. Only the log itself accepts such entries, never a
    /// fork, and each call tries once: the caller retries.
    ///
    /// # Errors
    /// See [`PublishError`]. Entries that were not accepted may be in the log nevertheless.
    pub(crate) async fn publish_as(
        &self,
        channel: &ChannelName,
        producer: NodeId,
        drafts: Vec<(DraftEntry, Link)>,
    ) -> Result<(), PublishError> {
        let (drafts, links) = drafts.into_iter().unzip();
        let ids = Some(Ids { producer, links });
        self.admit(channel, drafts, Terms { ids, ..Terms::USUAL }).await
    }

    /// Appends the updates of an order. The drafts of one request stay together. Never refused because of the
    /// number of subscribers. Under a lease, whose fencing token the log checks, they are never abandoned: this
    /// waits until the storage has answered, and each update is in the log once, or refused.
    ///
    /// # Errors
    /// See [`PublishError`]. An update that the log refused, and those after it in `drafts`, are not tried
    /// again.
    pub(crate) async fn publish_updates(
        &self,
        channel: &ChannelName,
        drafts: Vec<DraftEntry>,
        UpdateTerms { fence, first }: UpdateTerms,
    ) -> Result<(), PublishError> {
        self.admit(channel, drafts, Terms { fence, first, ..Terms::USUAL }).await
    }

    #[cfg(test)]
    pub(super) async fn publish_under(
        &self,
        channel: &ChannelName,
        drafts: Vec<DraftEntry>,
        fence: Option<u64>,
    ) -> Result<(), PublishError> {
        self.publish_updates(channel, drafts, UpdateTerms { fence, first: First::No }).await
    }

    async fn admit(
        &self,
        channel: &ChannelName,
        drafts: Vec<DraftEntry>,
        terms: Terms,
    ) -> Result<(), PublishError> {
        if drafts.is_empty() {
            return Ok(());
        }
        let policy = ChannelPolicy::of(channel);
        if policy.is_listed {
            // If nobody here follows the zone, its record may have been removed elsewhere.
            let is_followed = self.0.actors.lock().open(channel).is_some();
            self.admit_zone(channel, is_followed).await?;
        }
        // Not bounded by the number of channels, which subscribers could use up; `admit_zone` bounds the
        // zones.
        let queues = self.queues(channel, Need::Publisher);
        if policy.keys_are_bounded {
            self.admit_keys(channel, &queues, &drafts).await?;
        }
        self.hand_over(channel, queues, drafts, terms).await
    }

    /// Appends drafts that were admitted.
    async fn hand_over(
        &self,
        channel: &ChannelName,
        queues: ActorQueues,
        drafts: Vec<DraftEntry>,
        Terms { fence, is_own, ids, first }: Terms,
    ) -> Result<(), PublishError> {
        let config = &self.0.common.config;
        let stopping = || PublishError::ShuttingDown { accepted: 0 };
        // A request larger than the whole queue takes all permits, and so waits until nothing else is queued.
        let places = drafts.len().min(config.publish_queue_entries);
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&queues.places).acquire_many_owned(places).await.map_err(|_closed| stopping())?;
        let (answer, answered) = oneshot::channel();
        let (begins, is_only_first) = (first != First::No, first == First::Only);
        let request = Request {
            drafts,
            fence,
            is_own,
            ids,
            begins,
            is_only_first,
            accepted: 0,
            answer,
            _places: permit,
        };
        self.send(channel, queues, Command::Publish(request)).await.map_err(|_stopped| stopping())?;
        answered.await.unwrap_or_else(|_dropped| Err(stopping()))
    }

    /// Makes a shard follow a channel: after the answer, it gets all entries after the position in it; for a
    /// view, those that match. Joining again is harmless.
    pub(crate) async fn join(&self, channel: &ChannelName, shard: usize) -> Result<Position, JoinError> {
        let log = channel.log();
        let queues = self.queues_if_room(&log).map_err(JoinError::TooManyChannels)?;
        let (answer, answered) = oneshot::channel();
        let join = Command::Join { channel: channel.clone(), shard, answer };
        self.send(&log, queues, join).await.map_err(|_stopped| JoinError::ShuttingDown)?;
        answered.await.unwrap_or(Err(JoinError::ShuttingDown))
    }

    /// Makes a shard stop following a channel. Entries on their way may still arrive.
    pub(crate) async fn leave(&self, channel: &ChannelName, shard: usize) {
        let queues = self.0.actors.lock().queues.get(&channel.log()).cloned();
        // If the actor has ended there is nothing to leave; its successor does not know this shard.
        if let Some(queues) = queues
            && queues.commands.send(Command::Leave { channel: channel.clone(), shard }).await.is_err()
        {
            debug!(channel = %channel, shard, "left a channel whose actor had just ended");
        }
    }

    /// Makes the channel read its log, because what a reader found there does not fit what it received live.
    pub(crate) fn suspect(&self, channel: &ChannelName) {
        let log = channel.log();
        self.0.common.pages.forget(&log);
        if let Some(queues) = self.0.actors.lock().queues.get(&log) {
            queues.suspicion.raise();
        }
    }

    /// Where the entries begin for a client that joined the channel at this position.
    pub(crate) async fn starting_point(
        &self,
        channel: &ChannelName,
        joined: Position,
        Asked { start, snapshot }: &Asked,
        sizes: PageSizes,
    ) -> Result<StartingPoint, Arc<StorageError>> {
        let is_new = !start.is_in_log();
        if is_new && !snapshot {
            return Ok(StartingPoint::next(joined));
        }
        if !is_new {
            let found = self.in_log(channel, joined.clone(), start, sizes.entries).await?;
            if found.is_resumed || !snapshot {
                return Ok(StartingPoint { wants_snapshot: *snapshot, ..found });
            }
        }
        let page = self.latest_page(channel, &WantedLatest::default(), sizes.keys).await?;
        Ok(StartingPoint::of_snapshot(joined, &page, is_new))
    }

    /// The starting point of a client that depends on the content of the log.
    async fn in_log(
        &self,
        channel: &ChannelName,
        joined: Position,
        start: &Start,
        page_entries: usize,
    ) -> Result<StartingPoint, Arc<StorageError>> {
        // The first page that is read to find out is also the first one to be sent.
        let mut wanted =
            Wanted { after: start.had().cloned(), late_to: 0, seen: Some(joined.clone()), is_owed: false };
        // If the reader has to come back for something, its own reads make the channel fork once it has
        // begun.
        let pages = &self.0.common.pages;
        let mut page = pages.get(channel, &wanted, page_entries).await?;
        // A fork has only a part of its log, so a client without a position begins before the log's first entry:
        // that is where its reader returns for the part that is out of reach.
        if wanted.after.is_none()
            && page.head.out_of_reach > 0
            && let Some(log) = page.head.epoch.as_ref().and_then(log_of_fork)
        {
            wanted.after = Some(Position { epoch: log, offset: 0 });
            page = pages.get(channel, &wanted, page_entries).await?;
        }
        Ok(StartingPoint::in_log(joined, wanted.after.as_ref(), &page.head))
    }

    /// A page of the log for a reader, of at most `entries` entries. It may have been read for another
    /// reader a moment ago.
    pub(crate) async fn page(
        &self,
        channel: &ChannelName,
        wanted: &Wanted,
        entries: usize,
    ) -> Result<Arc<EncodedPage>, Arc<StorageError>> {
        let page = self.0.common.pages.get(channel, wanted, entries).await?;
        let Page { epoch, first, out_of_reach, is_copy, next, .. } = &page.head;
        let after = wanted.after.as_ref().map_or(0, |after| after.offset);
        let leaves_a_hole = after < *out_of_reach && after + 1 < *first;
        let is_waited_for = leaves_a_hole || (wanted.is_owed && *is_copy);
        if !is_waited_for || next.is_some() || epoch.as_ref().is_none_or(is_fork) {
            return Ok(page);
        }
        // A reader that continues past unreachable entries has to come back for them. The end of a fork sends
        // it back, so the channel forks.
        self.0.common.backend.fork_for_readers(&channel.log()).await;
        self.0.common.pages.get(channel, wanted, entries).await
    }

    /// Latest entries for a reader, of at most `entries` keys. They may have been read for another reader a
    /// moment ago.
    pub(crate) async fn latest_page(
        &self,
        channel: &ChannelName,
        wanted: &WantedLatest,
        entries: usize,
    ) -> Result<Arc<EncodedLatest>, Arc<StorageError>> {
        for _ in 0..LOOKS_MAX {
            let page = self.0.common.pages.get_latest(channel, wanted, entries).await?;
            if !page.is_copy || page.epoch.as_ref().is_none_or(is_fork) {
                return Ok(page);
            }
            // A reader that gets only a part has to come back for the rest. The end of a fork sends it back,
            // so the channel forks.
            self.0.common.backend.fork_for_readers(&channel.log()).await;
        }
        let cause = "the log became reachable and unreachable at each attempt to read it".into();
        Err(Arc::new(StorageError::Unreachable { op: "latest", cause }))
    }

    /// Bytes of all pages that wait for readers or are cached.
    pub(crate) fn page_bytes(&self) -> usize {
        self.0.common.pages.bytes()
    }

    /// Entries of the log after a position, or from the oldest on: at most `limit`, or fewer if they reach
    /// [`HISTORY_BYTES_MAX`].
    pub(crate) async fn read_after(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: usize,
    ) -> StorageResult<Page> {
        let limit = PageLimit { entries: limit, bytes: HISTORY_BYTES_MAX };
        let _place = self.0.common.pages.place_to_read().await;
        self.0.common.backend.read_within(channel, after, limit).await
    }

    /// The newest sequence of a producer in the log of a channel; 0 if there is none.
    pub(crate) async fn newest_of(&self, channel: &ChannelName, producer: NodeId) -> StorageResult<u64> {
        Ok(self.0.common.backend.state(channel, producer).await?.last_seq)
    }

    /// The newest `limit` entries of the log, or half as many, a quarter and so on if they would exceed
    /// [`HISTORY_BYTES_MAX`].
    pub(crate) async fn newest(&self, channel: &ChannelName, mut limit: usize) -> StorageResult<Page> {
        let state = self.0.common.backend.state(channel, self.0.common.node).await?;
        loop {
            let offset = state.top.saturating_sub(limit as u64);
            let after = state.epoch.clone().map(|epoch| Position { epoch, offset });
            let page = self.read_after(channel, after.as_ref(), limit).await?;
            let last = page.entries.last().map_or(page.top, |last| last.offset);
            if last >= state.top.min(page.top) || page.entries.len() >= limit {
                return Ok(page);
            }
            limit = (limit / 2).min(page.entries.len()).max(1);
        }
    }

    /// The latest entry of each key, page by page.
    pub(crate) async fn latest(
        &self,
        channel: &ChannelName,
        after: Option<&str>,
        limit: usize,
    ) -> StorageResult<LatestPage> {
        let _place = self.0.common.pages.place_to_read().await;
        self.0.common.backend.latest(channel, after, limit).await
    }

    /// The latest entries and the remembered removals, page by page.
    pub(crate) async fn latest_and_removed(
        &self,
        channel: &ChannelName,
        after: Option<&str>,
        limit: usize,
    ) -> StorageResult<LatestPage> {
        let _place = self.0.common.pages.place_to_read().await;
        let limit = PageLimit { entries: limit, bytes: LATEST_BYTES_MAX };
        self.0
            .common
            .backend
            .latest_within(channel, LatestQuery { after, limit, of: LatestOf::RemovedToo })
            .await
    }

    /// Counts the zones that the storage remembers from before this start.
    pub(crate) async fn recall_zones(&self) -> StorageResult<()> {
        let zones = self.zones().await?;
        let now = tokio::time::Instant::now();
        let mut known = self.0.zones.lock();
        for zone in &zones {
            known.entry(ChannelName::zone(zone)).or_insert(now);
        }
        Ok(())
    }

    /// All zones that have been published to and are remembered, in order.
    pub(crate) async fn zones(&self) -> StorageResult<Vec<Zone>> {
        let mut zones: Vec<Zone> = Vec::new();
        loop {
            let after = zones.last().map(Zone::as_str);
            let page = self.0.common.backend.list(RecordKind::Zone, after, ZONE_PAGE).await?;
            let full = page.len() == ZONE_PAGE;
            zones.extend(page.into_iter().filter_map(|record| record.key.parse::<Zone>().ok()));
            if !full {
                return Ok(zones);
            }
        }
    }

    /// Whether what is known about a channel comes from this node alone, while the shared storage is away.
    pub(crate) fn is_degraded(&self, channel: &ChannelName) -> bool {
        self.0.common.backend.is_degraded_for(&channel.log())
    }

    pub(crate) fn config(&self) -> &ChannelsConfig {
        &self.0.common.config
    }

    pub(crate) fn stats(&self) -> &ChannelStats {
        &self.0.common.stats
    }

    pub(crate) fn page_stats(&self) -> &PageStats {
        self.0.common.pages.stats()
    }

    /// The orders that somebody on this node follows.
    pub(crate) fn watched_orders(&self) -> &Arc<WatchedOrders> {
        &self.0.common.orders
    }

    /// The types of events of which somebody on this node follows the channel or a view; updated with each
    /// change.
    pub(crate) fn followed_events(&self) -> watch::Receiver<BTreeSet<EventType>> {
        self.0.common.events.watch()
    }

    /// How many views of events somebody on this node follows.
    pub(crate) fn views(&self) -> usize {
        self.0.common.views.load(Ordering::Relaxed)
    }

    /// How many channels have an actor, without those of registries, which every node always follows.
    pub(crate) fn active(&self) -> usize {
        let actors = self.0.actors.lock();
        actors.queues.keys().filter(|channel| channel.kind() != ChannelKind::Registry).count()
    }

    /// Admits a zone that is published to, unless there are too many. Its record is written again if it may
    /// be gone, and from time to time.
    async fn admit_zone(&self, channel: &ChannelName, is_followed: bool) -> Result<(), PublishError> {
        let now = tokio::time::Instant::now();
        let max = self.0.common.config.zones_max;
        let place = {
            let mut zones = self.0.zones.lock();
            let recorded = zones.get(channel);
            let is_young = |at: &tokio::time::Instant| now.duration_since(*at) < ZONE_RECORD_TTL / 4;
            if is_followed && recorded.is_some_and(is_young) {
                return Ok(());
            }
            if recorded.is_none() && zones.len() >= max {
                zones.retain(|_, recorded| now.duration_since(*recorded) < ZONE_RECORD_TTL);
                if zones.len() >= max {
                    return Err(PublishError::TooManyZones { max });
                }
            }
            // A new zone counts from here on, because others may arrive while it is being recorded.
            let before = zones.insert(channel.clone(), now);
            ZonePlace { zones: &self.0.zones, channel, at: now, before, is_kept: false }
        };
        let put =
            self.0.common.backend.put(RecordKind::Zone, channel.subject(), Bytes::new(), ZONE_RECORD_TTL);
        match put.await {
            Ok(()) => place.keep(),
            // If the storage is away, the append that follows reports it; the record is written next time.
            Err(error) => warn!(channel = %channel, error = %error, "could not record a zone"),
        }
        Ok(())
    }

    async fn admit_keys(
        &self,
        channel: &ChannelName,
        queues: &ActorQueues,
        drafts: &[DraftEntry],
    ) -> Result<(), PublishError> {
        let max = self.0.common.config.keys_per_zone_max;
        loop {
            let refused = match queues.keys.lock().as_mut() {
                None => None,
                Some(keys) => match keys.admit(drafts, max) {
                    Ok(()) => return Ok(()),
                    Err(index) => Some((index, keys.is_fresh(tokio::time::Instant::now()))),
                },
            };
            let too_many = |index| PublishError::TooManyKeys { max, index };
            if let Some((index, true)) = refused {
                return Err(too_many(index));
            }
            // The keys are not known yet, or some may have expired since, or been removed elsewhere.
            match (self.0.common.backend.keys(channel).await, refused) {
                (Ok(known), _) => {
                    let known = known.into_iter().filter(|key| is_of_a_price(key));
                    *queues.keys.lock() = Some(Keys::new(known, tokio::time::Instant::now()));
                }
                (Err(_), Some((index, _))) => return Err(too_many(index)),
                // As in `admit_zone`: if the storage is still away, the append reports that.
                (Err(error), None) => {
                    warn!(channel = %channel, error = %error, "could not read the keys of a zone");
                    return Ok(());
                }
            }
        }
    }

    /// The queues of a channel's actor, which is started if necessary.
    fn queues(&self, channel: &ChannelName, need: Need) -> ActorQueues {
        let mut actors = self.0.actors.lock();
        actors.open(channel).unwrap_or_else(|| self.start(&mut actors, channel, need))
    }

    /// Like [`queues`](Self::queues), for a new subscriber; or how many channels of its kind there are, if
    /// these are too many.
    fn queues_if_room(&self, channel: &ChannelName) -> Result<ActorQueues, usize> {
        let mut actors = self.0.actors.lock();
        if let Some(queues) = actors.open(channel) {
            return Ok(queues);
        }
        let count = *actors.counted(channel);
        // An actor that has just ended, but is still in the map, makes room for its successor.
        let is_bounded = !ChannelPolicy::of(channel).are_few;
        if is_bounded && count >= self.joined_max() && !actors.queues.contains_key(channel) {
            return Err(count);
        }
        Ok(self.start(&mut actors, channel, Need::Subscriber))
    }

    /// The most channels of one kind that subscribers may begin: twice as many as zones, because subscribers
    /// may ask for zones that nobody publishes to.
    fn joined_max(&self) -> usize {
        self.0.common.config.zones_max.saturating_mul(2)
    }

    fn start(&self, actors: &mut Actors, channel: &ChannelName, need: Need) -> ActorQueues {
        let hub = &self.0;
        let (commands, commands_rx) = mpsc::channel(COMMANDS_MAX);
        let (notifications, notifications_rx) = mpsc::channel(NOTIFICATIONS_MAX);
        let suspicion = Arc::new(Suspicion::default());
        let actor = Actor::new(
            Arc::clone(&hub.common),
            channel.clone(),
            commands_rx,
            notifications_rx,
            Arc::clone(&suspicion),
        );
        let (channels, name) = (self.clone(), channel.clone());
        let acting = async move {
            let left_over = actor.run().await;
            channels.ended(&name, left_over).await;
        };
        hub.tracker.spawn_on(hub.vital.guard("channel", acting), &hub.runtime);
        let places = Arc::new(Semaphore::new(hub.common.config.publish_queue_entries));
        let counts = ChannelPolicy::of(channel).counts_when_published || need == Need::Subscriber;
        let queues = ActorQueues { commands, notifications, suspicion, places, keys: Arc::default(), counts };
        actors.insert(channel, queues.clone());
        queues
    }

    /// Called when an actor has ended: late commands go to the next one, unless the node stops.
    async fn ended(self, channel: &ChannelName, mut left_over: mpsc::Receiver<Command>) {
        left_over.close();
        self.0.common.pages.forget(channel);
        self.0.actors.lock().remove_closed(channel);
        while let Some(command) = left_over.recv().await {
            if self.0.common.stop.is_cancelled() {
                continue;
            }
            // A late leave is dropped, because the shard may have joined the successor by then. A shard
            // that gets a message about a channel that it does not follow leaves it.
            if !matches!(command, Command::Leave { .. })
                && Box::pin(self.send(channel, self.queues(channel, command.need()), command)).await.is_err()
            {
                return;
            }
        }
    }

    /// Passes a command to the channel's actor, or to its successor if it has just ended.
    async fn send(
        &self,
        channel: &ChannelName,
        mut queues: ActorQueues,
        command: Command,
    ) -> Result<(), Stopped> {
        loop {
            if self.0.common.stop.is_cancelled() {
                return Err(Stopped);
            }
            if let Ok(place) = queues.commands.reserve().await {
                place.send(command);
                return Ok(());
            }
            queues = self.queues(channel, command.need());
        }
    }
}

/// Whether a latest entry with this name is a price; other kinds append the kind to the key.
fn is_of_a_price(key: &str) -> bool {
    !key.contains('\0')
}

/// The node is stopping, so there are no more actors.
#[derive(Debug)]
struct Stopped;
/// When each zone was last recorded.
type Zones = Mutex<HashMap<ChannelName, tokio::time::Instant>>;

/// Counts a zone that is being recorded; undone on drop, unless kept.
struct ZonePlace<'a> {
    zones: &'a Zones,
    channel: &'a ChannelName,
    at: tokio::time::Instant,
    before: Option<tokio::time::Instant>,
    is_kept: bool,
}

impl ZonePlace<'_> {
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for ZonePlace<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let mut zones = self.zones.lock();
        // If another publisher has recorded the zone since, that record stays.
        if zones.get(self.channel) == Some(&self.at) {
            match self.before {
                Some(before) => zones.insert(self.channel.clone(), before),
                None => zones.remove(self.channel),
            };
        }
    }
}
