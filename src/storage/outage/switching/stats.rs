//! The state and the counters of the switching storage.

use std::sync::Weak;

use tokio::time::Instant;
use zonewire_protocol::stats::{LineCounts, Live as _, OutageView};

use super::{Core, until};
use crate::model::ChannelName;
use crate::storage::disk::DiskState;
use crate::storage::outage::journal::{JournalCounts, JournalDepth};
use crate::storage::outage::spool::Spool;
use crate::storage::primary::Place;
use crate::storage::status::Toll;
use crate::support::counter::Counter;

/// What becomes of channels that continue without Redis, counted.
pub(super) type SwitchingStats = LineCounts<Counter>;

/// The health of the journal's copy on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpoolHealth {
    /// `working`, `failed`, `stalled` or `closed`.
    pub(crate) state: &'static str,
    /// What is wrong with it.
    pub(crate) reason: Option<String>,
}

impl From<DiskState> for SpoolHealth {
    fn from(disk: DiskState) -> Self {
        let state = disk.as_str();
        let reason = match disk {
            DiskState::Working | DiskState::Closed => None,
            DiskState::Failed(reason) => Some(reason),
            DiskState::Stalled(since) => Some(format!("the disk has not answered for {} s", since.as_secs())),
        };
        Self { state, reason }
    }
}

/// A channel that cannot be reconciled, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetAside {
    pub(crate) channel: ChannelName,
    pub(crate) reason: String,
}

/// The most channels that are set aside and reported by name.
const SET_ASIDE_NAMED: usize = 20;

/// Reads the state and the counters. Cheap to clone; all counts are 0 where memory is configured.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutageReader(pub(super) Weak<Core>);

impl OutageReader {
    /// Returns once the primary has all that was accepted here, or once the rest cannot be sent now and would
    /// survive this process. Used at shutdown, which bounds the wait.
    pub(crate) async fn until_sent(&self) {
        let Some(core) = self.0.upgrade() else { return };
        let (mut modes, mut domains) = (core.breaker.watch(), core.breaker.primary.domains());
        loop {
            // A failure domain whose connections are up again is about to serve.
            let is_up = domains.borrow_and_update().are_up();
            let (is_standalone, is_away) = {
                let modes = modes.borrow_and_update();
                (modes.is_standalone(), !(modes.is_any_primary() || is_up))
            };
            let is_done = || is_standalone || ((is_away || core.has_sent_all()) && !core.would_lose());
            let is_open = tokio::select! {
                biased;
                () = until(&core.replicas.in_order, is_done) => return,
                changed = modes.changed() => changed.is_ok(),
                changed = domains.changed() => changed.is_ok(),
            };
            if !is_open {
                return;
            }
        }
    }

    /// The health of the journal's copy on disk; `None` where there is none.
    pub(crate) fn spool(&self) -> Option<SpoolHealth> {
        self.0.upgrade()?.backlog.spool.as_ref().map(|spool| spool.state().into())
    }

    /// Up to `SET_ASIDE_NAMED` of the channels that are set aside, and the reason of each.
    pub(crate) fn set_aside(&self) -> Vec<SetAside> {
        let Some(core) = self.0.upgrade() else { return Vec::new() };
        let state = core.replicas.lock();
        let some = state.queue.all_set_aside().take(SET_ASIDE_NAMED);
        some.map(|(channel, reason)| SetAside { channel: channel.clone(), reason: reason.clone() }).collect()
    }

    /// What outages have cost since the start.
    pub(crate) fn toll(&self) -> Toll {
        self.0.upgrade().map(|core| core.toll()).unwrap_or_default()
    }

    /// The present state; how long the storage was in each state is not known here.
    pub(crate) fn view(&self) -> OutageView {
        let Some(core) = self.0.upgrade() else {
            return OutageView { spool: "off".to_owned(), ..OutageView::default() };
        };
        let jobs_waiting = core.jobs.waiting();
        let on_disk = core.backlog.on_disk();
        let state = core.replicas.lock();
        let JournalDepth { entries, bytes, oldest } = state.journal.depth();
        let JournalCounts { thinned, refused_full, aged, order_overflow } = state.journal.counts();
        let forked = state.replicas.values().filter(|replica| replica.is_forked()).count();
        let since = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let spool = core.backlog.spool.as_ref().map(Spool::status);
        let health = spool.as_ref().map(|spool| SpoolHealth::from(spool.state.clone()));
        OutageView {
            channels_alone: if core.breaker.is_standalone() { 0 } else { forked },
            channels_waiting: state.queue.len(),
            channels_set_aside: state.queue.all_set_aside().len(),
            journal_entries: entries,
            journal_bytes: bytes,
            journal_oldest_ms: oldest.map(since),
            journal_thinned: thinned,
            journal_aged: aged,
            journal_order_overflow: order_overflow,
            journal_refused_full: refused_full,
            journal_in_memory_only: entries.saturating_sub(on_disk),
            spool: health.as_ref().map_or("off", |health| health.state).to_owned(),
            spool_reason: health.and_then(|health| health.reason),
            spool_entries: spool.as_ref().map_or(0, |spool| spool.entries),
            spool_bytes: spool.as_ref().map_or(0, |spool| spool.bytes),
            spool_full: spool.as_ref().map_or(0, |spool| spool.full),
            spool_slow: spool.as_ref().map_or(0, |spool| spool.slow),
            spool_failed: spool.as_ref().map_or(0, |spool| spool.failed),
            lines: core.replicas.stats.read(),
            jobs_waiting,
            jobs: core.jobs.stats.read(),
            records_let_go: core.records.waiting.let_go.get(),
            ..OutageView::default()
        }
    }
}

impl Core {
    /// What outages have cost since the start.
    pub(super) fn toll(&self) -> Toll {
        let JournalCounts { thinned, refused_full, aged, order_overflow } =
            self.replicas.lock().journal.counts();
        let LineCounts { replayed, put_back, superseded, lost_logs, .. } = &self.replicas.stats;
        Toll {
            replayed: replayed.get(),
            put_back: put_back.get(),
            let_go: thinned + aged + order_overflow + superseded.get(),
            refused: refused_full,
            logs_lost: lost_logs.get(),
        }
    }

    /// Whether something that was accepted would be lost if this process ended now.
    fn would_lose(&self) -> bool {
        let waiting = self.replicas.lock().journal.depth().entries;
        waiting > self.backlog.on_disk() || !self.jobs.are_recorded()
    }

    /// Whether the primary has all that can be sent now; what belongs to a failure domain that is away does
    /// not count.
    fn has_sent_all(&self) -> bool {
        let breaker = &self.breaker;
        let can_be_sent = |place: Place<'_>| breaker.serves_soon(breaker.domain_at(place));
        let is_sent = {
            let state = self.replicas.lock();
            // What the log lost may have to be put back.
            let is_awaited = state.queue.all_awaited().any(|name| can_be_sent(Place::Channel(name)));
            let is_due = |channel: &ChannelName| {
                !state.journal.is_empty(channel) && can_be_sent(Place::Channel(channel))
            };
            let is_stuck = || !breaker.modes().is_all_primary() && !state.queue.all().any(is_due);
            !is_awaited && (state.journal.depth().entries == 0 || is_stuck())
        };
        is_sent
            && (self.jobs.are_recorded() || !can_be_sent(Place::Jobs))
            && self.records.waiting.is_empty(|kind| can_be_sent(Place::Records(kind)))
    }
}
