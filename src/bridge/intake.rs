//! Appends durable events of other processes to the logs that all gateways share.
//!
//! Every gateway could receive such an event, so exactly one appends it: the holder of the lease. An event
//! that carries an id is appended once, even if the lease passes to another gateway meanwhile. Two
//! rules ensure that: all gateways append foreign events under one producer, so a holder whose chain is not
//! the log's newest is refused and reads the log again; and the first append under a new lease holds a single
//! event, after which the log refuses everything under earlier leases, by their fencing tokens. An event
//! without an id is appended at most once.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::Shared;
use super::inbound::own_id;
use crate::model::{ChannelName, DraftEntry, EntryId, Epoch, EventType, NodeId, Position, new_epoch};
use crate::storage::{
    Append, AppendAnswer, AppendBatch, Appended, PageLimit, Refusal, Result as StorageResult, SharedBackend,
    StorageError,
};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::recent::Recent;
use crate::support::seldom::Seldom;

/// How many events may wait for the log; beyond that, newer ones are dropped.
pub(super) const QUEUE_LEN: usize = 8_192;

/// The name of the lease in the storage.
const LEASE: &str = "bridge:intake";

/// How long the lease lasts, and how often a gateway renews it or tries to get it: another gateway takes over
/// within the sum of the two.
const LEASE_FOR: Duration = Duration::from_secs(4);
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// Events in one append.
const APPEND_LEN: usize = 50;

/// How many events at the end of a log are read for their ids, and so can be recognized.
const IDS_MAX: usize = 8_192;
const IDS_BYTES_MAX: usize = 4 << 20;

/// The limit of one read of a log.
const PAGE: PageLimit = PageLimit { entries: 1_000, bytes: 1 << 20 };

/// How long waiting events are still appended when the node stops.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// The namespace from which the producers of foreign events are derived, one for each type and epoch.
const CHAIN: Uuid = Uuid::from_u128(0x5f0c_52d1_9b5e_4f0e_9d0a_6b1f_52c3_7a11);

/// An event of another process.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) event: EventType,
    pub(super) draft: DraftEntry,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    fence: u64,
    until: Instant,
}

/// What is known about the log of a type.
#[derive(Debug)]
struct Chain {
    epoch: Epoch,
    /// The newest sequence of the producer of foreign events.
    last: u64,
    /// Ids of events in the log.
    ids: Recent<String, ()>,
    /// Whether the log has seen this lease's fencing token, so that no earlier holder can append.
    is_fenced: bool,
}

impl Chain {
    fn add(&mut self, id: String) {
        let cost = id.len();
        self.ids.insert(id, (), cost);
    }
}

pub(super) struct Intake {
    shared: Arc<Shared>,
    backend: SharedBackend,
    queue: mpsc::Receiver<Foreign>,
    lease: Option<Lease>,
    renew_at: Instant,
    waiting: VecDeque<Foreign>,
    chains: [Option<Chain>; EventType::ALL.len()],
    /// By type, the epoch and the newest sequence that was used in it. No sequence is used twice, even if the
    /// log lost its newest entries.
    used: [Option<(Epoch, u64)>; EventType::ALL.len()],
    /// The last batch, if the storage did not answer: the log may or may not have it.
    unanswered: Option<AppendBatch>,
    failures: u32,
    retry_at: Instant,
    of_failures: Seldom,
}

/// The producer of foreign events in one epoch of the log. Each epoch has its own, so that no entry gets an
/// id that an entry of an earlier epoch had: readers may have been sent that one.
fn producer(event: EventType, epoch: &Epoch) -> NodeId {
    NodeId(Uuid::new_v5(&CHAIN, format!("{event} {epoch}").as_bytes()))
}

impl Intake {
    pub(super) fn new(shared: Arc<Shared>, backend: SharedBackend, queue: mpsc::Receiver<Foreign>) -> Self {
        let now = Instant::now();
        Self {
            shared,
            backend,
            queue,
            lease: None,
            renew_at: now,
            waiting: VecDeque::new(),
            chains: Default::default(),
            used: Default::default(),
            unanswered: None,
            failures: 0,
            retry_at: now,
            of_failures: Seldom::default(),
        }
    }

    /// Runs until `stop`, then until nothing waits, or for two more seconds.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let is_wanted = {
            let config = &self.shared.config;
            EventType::ALL.iter().any(|event| config.subscribes(*event) && config.is_durable(*event))
        };
        if !is_wanted {
            return;
        }
        while !stop.is_cancelled() {
            let has_room = self.waiting.len() < APPEND_LEN;
            let is_due = self.lease.is_some() && !self.waiting.is_empty();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = time::sleep_until(self.renew_at) => self.renew().await,
                // Events that accumulated are appended together.
                Some(foreign) = self.queue.recv(), if has_room => self.waiting.push_back(foreign),
                () = time::sleep_until(self.retry_at), if is_due => self.append_or_retry().await,
            }
        }
        let deadline = Instant::now() + LAST_PATIENCE;
        self.take_queued();
        while !self.waiting.is_empty() && self.lease.is_some() && Instant::now() < deadline {
            time::sleep_until(self.retry_at.min(deadline)).await;
            self.append_or_retry().await;
        }
        if self.lease.is_some()
            && let Err(error) = self.backend.let_go(LEASE, &self.holder()).await
        {
            debug!(error = %error, "could not release the lease; it will expire");
        }
    }

    fn take_queued(&mut self) {
        self.waiting.extend(iter::from_fn(|| self.queue.try_recv().ok()));
    }

    fn holder(&self) -> String {
        self.shared.node.to_string()
    }

    async fn renew(&mut self) {
        let begun = Instant::now();
        self.renew_at = begun + RENEW_EVERY;
        match self.backend.hold(LEASE, &self.holder(), LEASE_FOR).await {
            Ok(Some(fence)) => {
                let is_new = self.lease.is_none_or(|lease| lease.fence != fence);
                self.lease = Some(Lease { fence, until: begun + LEASE_FOR });
                if is_new {
                    info!(fence, "appending durable events of other processes");
                    self.chains = Default::default();
                    self.shared.subscriptions.set_takes_in(true);
                }
            }
            Ok(None) => self.lose("another gateway has it"),
            // A lease that was granted is valid until it expires. After that nothing is appended, but waiting
            // events are kept: while nobody holds the lease, no other gateway receives them.
            Err(_) if self.lease.is_some_and(|lease| lease.until > Instant::now()) => {}
            Err(_) => self.lease = None,
        }
    }

    /// Gives up the lease, which another gateway holds or soon will hold. Waiting events are dropped, because
    /// the new holder receives events itself.
    fn lose(&mut self, why: &'static str) {
        self.lease = None;
        if !self.shared.subscriptions.takes_in() {
            return;
        }
        info!(why, "no longer appending durable events of other processes");
        self.shared.subscriptions.set_takes_in(false);
        self.unanswered = None;
        self.take_queued();
        for foreign in self.waiting.drain(..) {
            self.shared.counts.lease_lost.add(foreign.event);
        }
    }

    async fn append_or_retry(&mut self) {
        let Err(error) = self.append_next().await else {
            (self.failures, self.retry_at) = (0, Instant::now());
            return;
        };
        self.failures += 1;
        self.retry_at = Instant::now() + STORAGE_RETRY.wait(self.failures);
        if let Some(untold) = self.of_failures.may_tell(Instant::now()) {
            warn!(error = %error, untold, "durable events of other processes could not be appended; trying again");
        }
    }

    /// Appends the oldest waiting events, all of one type.
    async fn append_next(&mut self) -> StorageResult<()> {
        let lease = self.lease.filter(|lease| lease.until > Instant::now());
        let (Some(lease), Some(first)) = (lease, self.waiting.front()) else {
            return Err(StorageError::Unknown { op: "append" });
        };
        let event = first.event;
        let channel = ChannelName::event(event);
        if self.backend.is_degraded_for(&channel) {
            return Err(StorageError::Unknown { op: "append" });
        }
        if self.chains[event as usize].is_none() {
            let chain = self.read_chain(event, &channel).await?;
            self.chains[event as usize] = Some(chain);
        }
        let (Some(batch), ids) = self.next_batch(event, &channel, lease.fence) else { return Ok(()) };
        let count = batch.entries.len();
        let last = batch.entries.last().map_or(0, |last| last.seq);
        self.used[event as usize] = Some((batch.epoch.clone(), last));
        // Until the log answers, it is unknown whether it has the batch.
        self.unanswered = Some(batch.clone());
        let answer = self.backend.append(&batch).await;
        let results = match answer {
            Ok(AppendAnswer::Done(results)) => results,
            Ok(AppendAnswer::ForeignEpoch(_)) => Vec::new(),
            Err(error) => {
                self.chains[event as usize] = None;
                return Err(error);
            }
        };
        let applied = results.iter().take_while(|result| matches!(result, Appended::Applied { .. })).count();
        self.shared.counts.taken_in.add_many(event, applied as u64);
        self.waiting.drain(..applied);
        if let Some(Appended::Refused(Refusal::StaleFence { .. })) = results.get(applied) {
            self.lose("another gateway has appended since");
        } else if applied == count
            && let Some(chain) = &mut self.chains[event as usize]
        {
            chain.last = last;
            chain.is_fenced = true;
            ids.into_iter().for_each(|id| chain.add(id));
            self.unanswered = None;
        } else {
            // Another gateway appended, or the log has a new epoch: read the log again.
            self.chains[event as usize] = None;
            if applied > 0 {
                self.unanswered = None;
            }
        }
        Ok(())
    }

    /// The next batch to append, without events that the log has already, and the ids that it adds.
    fn next_batch(
        &mut self,
        event: EventType,
        channel: &ChannelName,
        fence: u64,
    ) -> (Option<AppendBatch>, Vec<String>) {
        let Some(chain) = &self.chains[event as usize] else { return (None, Vec::new()) };
        let most = if chain.is_fenced { APPEND_LEN } else { 1 };
        let used = self.used[event as usize].as_ref().filter(|(epoch, _)| *epoch == chain.epoch);
        let first = used.map_or(0, |(_, last)| *last).max(chain.last) + 1;
        let (mut entries, mut ids, mut place) = (Vec::new(), Vec::new(), 0);
        while entries.len() < most
            && let Some(foreign) = self.waiting.get(place).filter(|foreign| foreign.event == event)
        {
            let id = own_id(&foreign.draft);
            if id.as_ref().is_some_and(|id| chain.ids.get(id).is_some() || ids.contains(id)) {
                self.shared.counts.taken_in_before.add(event);
                self.waiting.remove(place);
                continue;
            }
            let seq = first + entries.len() as u64;
            let prev = if entries.is_empty() { chain.last } else { seq - 1 };
            entries.push(Append { seq, prev, draft: foreign.draft.clone(), fence: Some(fence) });
            ids.extend(id);
            place += 1;
        }
        let (channel, epoch) = (channel.clone(), chain.epoch.clone());
        let producer = producer(event, &epoch);
        let batch = AppendBatch { channel, epoch, producer, entries };
        ((!batch.entries.is_empty()).then_some(batch), ids)
    }

    /// Reads the end of a log: the newest sequence of foreign events, and the ids of the events there.
    async fn read_chain(&mut self, event: EventType, channel: &ChannelName) -> StorageResult<Chain> {
        let unknown = || StorageError::Unknown { op: "read_after" };
        let log = self.backend.open(channel, self.shared.node, &new_epoch()).await?;
        let state = self.backend.state(channel, producer(event, &log.epoch)).await?;
        if state.epoch.as_ref() != Some(&log.epoch) {
            return Err(unknown());
        }
        let mut chain = Chain {
            epoch: log.epoch.clone(),
            last: state.last_seq,
            ids: Recent::new(IDS_MAX, IDS_BYTES_MAX),
            is_fenced: false,
        };
        let mut found: Vec<(EntryId, Bytes)> = Vec::new();
        let mut after = Position { epoch: log.epoch, offset: state.top.saturating_sub(IDS_MAX as u64) };
        while after.offset < state.top {
            let page = self.backend.read_within(channel, Some(&after), PAGE).await?;
            if page.epoch.as_ref() != Some(&after.epoch) {
                return Err(unknown());
            }
            let Some(last) = page.entries.last().map(|last| last.offset) else { break };
            after.offset = last;
            for entry in page.entries {
                own_id(&entry.draft).into_iter().for_each(|id| chain.add(id));
                found.push((entry.id, entry.draft.data));
            }
        }
        self.settle_unanswered(event, channel, &found);
        Ok(chain)
    }

    /// Finds out, from the log's newest entries, whether the unanswered batch was applied.
    fn settle_unanswered(&mut self, event: EventType, channel: &ChannelName, found: &[(EntryId, Bytes)]) {
        let Some(unanswered) = self.unanswered.take_if(|batch| batch.channel == *channel) else { return };
        let is_in = |append: &&Append| {
            let id = EntryId { producer: unanswered.producer, seq: append.seq };
            found.iter().any(|(known, data)| *known == id && *data == append.draft.data)
        };
        // A batch is applied as a whole, and its events are the first that wait.
        let applied = unanswered.entries.iter().take_while(is_in).count();
        self.waiting.drain(..applied.min(self.waiting.len()));
        self.shared.counts.taken_in.add_many(event, applied as u64);
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;

    use super::*;
    use crate::bridge::{Bridge, BridgeConfig, BridgeParts};
    use crate::protocol::parse_event;
    use crate::storage::{Log as _, MemoryBackend};

    const TRADE: EventType = EventType::Trade;

    /// An intake that believes to hold the lease.
    fn intake(store: &MemoryBackend, fence: u64) -> Intake {
        let backend: SharedBackend = Arc::new(store.clone());
        let (bridge, _no_work) = Bridge::new(BridgeParts {
            config: BridgeConfig::default(),
            backend: Arc::clone(&backend),
            link: None,
            node: NodeId::random(),
            message_bytes_max: 1 << 16,
        });
        let (_, queue) = mpsc::channel(1);
        let mut intake = Intake::new(bridge.0, backend, queue);
        intake.lease = Some(Lease { fence, until: Instant::now() + LEASE_FOR });
        intake
    }

    fn trade(id: Option<u64>) -> DraftEntry {
        let mut text = json!({ "exchange": "x", "symbol": "A-B", "price": 1, "size": 1 });
        id.inspect(|id| text["tradeId"] = json!(id));
        parse_event(TRADE, &text.to_string(), Utc::now(), Duration::MAX).unwrap()
    }

    fn hear(intake: &mut Intake, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            intake.waiting.push_back(Foreign { event: TRADE, draft: trade(Some(id)) });
        }
    }

    async fn append_all(intake: &mut Intake) {
        while !intake.waiting.is_empty() && intake.lease.is_some() {
            intake.append_next().await.unwrap();
        }
    }

    async fn ids(store: &MemoryBackend) -> Vec<u64> {
        let page = store.read_after(&ChannelName::event(TRADE), None, 10_000).await.unwrap();
        let id = |data: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(data).unwrap()["data"]["tradeId"].as_u64()
        };
        page.entries.iter().filter_map(|entry| id(&entry.draft.data)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_lease_holder_is_noticed_and_then_fenced_off() {
        let (store, _sweeping) = MemoryBackend::new(Default::default(), Default::default());
        let (mut old, mut new) = (intake(&store, 1), intake(&store, 2));
        hear(&mut old, 1..=60);
        append_all(&mut old).await;
        // The old holder appends once more after the new one has read the log.
        let channel = ChannelName::event(TRADE);
        new.chains[TRADE as usize] = Some(new.read_chain(TRADE, &channel).await.unwrap());
        hear(&mut old, 61..=63);
        append_all(&mut old).await;
        hear(&mut new, 62..=70);
        append_all(&mut new).await;
        assert_eq!(ids(&store).await, (1..=70).collect::<Vec<_>>());
        // The old holder cannot append what it received in its last moments.
        old.shared.subscriptions.set_takes_in(true);
        hear(&mut old, 71..=80);
        append_all(&mut old).await;
        assert!(old.lease.is_none() && !old.shared.subscriptions.takes_in());
        assert_eq!(old.shared.counts.lease_lost.get(TRADE), 10);
        hear(&mut new, 69..=90);
        append_all(&mut new).await;
        assert_eq!(ids(&store).await, (1..=90).collect::<Vec<_>>());
        assert_eq!(new.shared.counts.taken_in.get(TRADE), 27);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_append_is_not_repeated() {
        let (store, _sweeping) = MemoryBackend::new(Default::default(), Default::default());
        let mut intake = intake(&store, 1);
        hear(&mut intake, [1]);
        append_all(&mut intake).await;
        hear(&mut intake, 2..=5);
        // Two of them have no id by which they could be recognized.
        for foreign in intake.waiting.iter_mut().take(2) {
            foreign.draft = trade(None);
        }
        let (batch, _) = intake.next_batch(TRADE, &ChannelName::event(TRADE), 1);
        // The batch was applied, but its answer was lost.
        store.append(batch.as_ref().unwrap()).await.unwrap();
        (intake.unanswered, intake.chains[TRADE as usize]) = (batch, None);
        hear(&mut intake, [6]);
        append_all(&mut intake).await;
        assert_eq!(ids(&store).await, [1, 4, 5, 6]);
        let page = store.read_after(&ChannelName::event(TRADE), None, 100).await.unwrap();
        assert_eq!(page.entries.len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn entries_of_two_epochs_never_have_the_same_id() {
        let (first, _sweeping) = MemoryBackend::new(Default::default(), Default::default());
        let (second, _sweeping) = MemoryBackend::new(Default::default(), Default::default());
        let mut intake = intake(&first, 1);
        hear(&mut intake, 1..=3);
        append_all(&mut intake).await;
        // The storage has lost everything.
        intake.backend = Arc::new(second.clone());
        intake.chains = Default::default();
        hear(&mut intake, 4..=6);
        append_all(&mut intake).await;
        let channel = ChannelName::event(TRADE);
        let mut named = Vec::new();
        for store in [&first, &second] {
            let page = store.read_after(&channel, None, 10).await.unwrap();
            named.extend(page.entries.iter().map(|entry| entry.id));
        }
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), 6);
    }
}
