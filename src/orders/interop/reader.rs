//! Follows the updates that outside workers leave of the orders watched here, and appends them.
//!
//! One task owns all of it. Each order has at most one step under way (subscribe, read the log, read the
//! list, append one update), and a bounded number of orders have one at a time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::InteropStats;
use super::merge::{Heard, Merge};
use super::read::{Invalid, Read, after_gap, identity, identity_of, producer, read};
use crate::channels::WatchedOrders;
use crate::model::{ChannelName, DraftEntry, Epoch, NodeId, OrderId, Position};
use crate::storage::{
    Append, AppendAnswer, AppendBatch, Appended, OutsideEvent, OutsideOrders, Refusal,
    Result as StorageResult, SharedBackend, StorageError,
};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::seldom::{Seldom, warn_seldom};

/// The most orders with a step under way.
const STEPS_MAX: usize = 32;
/// The most updates read of a list: workers keep 50, and a worker that keeps all must not fill the memory.
const LIST_MAX: usize = 200;
/// Entries in one read of the log.
const LOG_PAGE: usize = 300;
/// The most bytes of all updates that wait to be appended. Beyond it, an update that is heard is dropped; if
/// it is in a list, it is found there again.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// How long a stopping node still appends waiting updates.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// An order that is watched, or has waiting updates.
#[derive(Debug)]
struct Watched {
    /// A client here is subscribed.
    wanted: bool,
    /// We are subscribed to its outside updates.
    followed: bool,
    /// The epoch of its log, once that has been read; `Some(None)` if the order has no log yet.
    log: Option<Option<Epoch>>,
    /// The epoch that updates were last appended in.
    last_log: Option<Epoch>,
    merge: Merge,
    /// A step is under way.
    busy: bool,
    /// It is in the queue for a step.
    queued: bool,
    timer: Option<Instant>,
    failures: u32,
    retry_at: Instant,
}

/// What to do for an order next.
enum Next {
    Step(Step),
    /// Wait until then.
    At(Instant),
    Nothing,
    Forget,
}

#[derive(Debug)]
enum Step {
    Follow,
    Unfollow,
    /// Read which updates the log has. A missing log is created if an update is to be appended.
    Open {
        creates: bool,
    },
    /// Read the list.
    Look {
        stretch: u64,
    },
    Append {
        epoch: Epoch,
        identity: Uuid,
        draft: DraftEntry,
    },
}

/// The result of a step.
enum Done {
    Followed(StorageResult<()>),
    Unfollowed(StorageResult<()>),
    Opened(StorageResult<Option<(Epoch, Vec<Uuid>)>>),
    Looked {
        begun: Instant,
        stretch: u64,
        list: StorageResult<Vec<Bytes>>,
    },
    Appended(StorageResult<AppendAnswer>),
    /// The order is executed here, and only its worker may report on it.
    HasJob,
}

pub(super) struct Reader {
    outside: Arc<dyn OutsideOrders>,
    backend: SharedBackend,
    stats: Arc<InteropStats>,
    update_bytes_max: usize,
    orders: HashMap<OrderId, Watched>,
    steps: FuturesUnordered<BoxFuture<'static, (OrderId, Done)>>,
    /// Orders that wait for a step.
    queue: VecDeque<OrderId>,
    timers: BTreeSet<(Instant, OrderId)>,
    waiting_bytes: usize,
    /// Only waiting updates are still appended.
    stopping: bool,
    of_invalid: Seldom,
    of_lost: Seldom,
    of_failures: Seldom,
}

impl Reader {
    pub(super) fn new(
        outside: Arc<dyn OutsideOrders>,
        backend: SharedBackend,
        stats: Arc<InteropStats>,
        update_bytes_max: usize,
    ) -> Self {
        Self {
            outside,
            backend,
            stats,
            update_bytes_max,
            orders: HashMap::new(),
            steps: FuturesUnordered::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            waiting_bytes: 0,
            stopping: false,
            of_invalid: Seldom::default(),
            of_lost: Seldom::default(),
            of_failures: Seldom::default(),
        }
    }

    /// Runs until `stop`, and then until nothing waits, or for some seconds if it cannot be appended.
    pub(super) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<OutsideEvent>,
        watched: Arc<WatchedOrders>,
        stop: CancellationToken,
    ) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                changes = watched.changes() => {
                    for (order, is_watched) in changes {
                        self.on_change(order, is_watched);
                    }
                }
                event = incoming.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                () = self.progress() => {}
            }
        }
        self.flush().await;
    }

    /// Waits for the first step to end or the first timer, and handles it.
    async fn progress(&mut self) {
        let timer = self.timers.first().map(|(at, _)| *at);
        let until_timer = async {
            match timer {
                Some(at) => time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((order, done)) = self.steps.next() => self.on_done(order, done),
            () = until_timer => {
                let now = Instant::now();
                while let Some((at, order)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
                    self.timers.remove(&(at, order));
                    if let Some(watched) = self.orders.get_mut(&order) {
                        watched.timer = None;
                    }
                    self.advance(order);
                }
            }
        }
    }

    /// Appends the waiting updates.
    async fn flush(&mut self) {
        self.stopping = true;
        self.change_all(|watched| {
            watched.wanted = false;
            watched.merge.settle();
        });
        let flushed = time::timeout(LAST_PATIENCE, async {
            while !self.orders.is_empty() {
                self.progress().await;
            }
        });
        if flushed.await.is_err() {
            let left: usize = self.orders.values().map(|watched| watched.merge.len()).sum();
            self.stats.lost.add(left as u64);
            warn!(updates = left, "outside updates could not be appended before the end");
        }
    }

    // What happens

    fn on_change(&mut self, order: OrderId, is_watched: bool) {
        let now = Instant::now();
        match self.orders.get_mut(&order) {
            None if !is_watched => return,
            None => {
                self.orders.insert(order, Watched::new(now));
                self.stats.followed.set(self.orders.len() as u64);
            }
            Some(watched) if is_watched && watched.wanted => {
                // Its log has begun a new epoch.
                watched.suspect(now);
            }
            Some(watched) => watched.wanted = is_watched,
        }
        self.advance(order);
    }

    fn on_event(&mut self, event: OutsideEvent) {
        match event {
            OutsideEvent::Published { order, update } => self.hear(order, &update),
            OutsideEvent::Suspect => {
                let now = Instant::now();
                info!(orders = self.orders.len(), "outside updates may have been missed, reading the lists");
                self.change_all(|watched| watched.suspect(now));
            }
        }
    }

    fn change_all(&mut self, change: impl Fn(&mut Watched)) {
        self.orders.values_mut().for_each(change);
        let orders: Vec<OrderId> = self.orders.keys().copied().collect();
        orders.into_iter().for_each(|order| self.advance(order));
    }

    fn hear(&mut self, order: OrderId, update: &[u8]) {
        let Some(watched) = self.orders.get(&order) else { return };
        let identity = identity(order, update);
        if watched.merge.knows(&identity) {
            return;
        }
        let draft = self.read(order, update);
        let room = self.waiting_bytes < WAITING_BYTES_MAX;
        let heard = self.change(order, |merge| merge.hear(identity, draft, room, Instant::now()));
        if heard == Some(Heard::Dropped) {
            self.stats.lost.add(1);
            warn_seldom!(self.of_lost, order = %order, "too many outside updates wait, letting one go");
        }
        self.advance(order);
    }

    /// Turns an update into an entry; one that cannot be is counted.
    fn read(&mut self, order: OrderId, update: &[u8]) -> Option<DraftEntry> {
        let reason = match read(order, update, self.update_bytes_max, Utc::now()) {
            Read::Update(draft) => return Some(draft),
            Read::Own => return None,
            Read::Invalid(reason) => reason,
        };
        let counter = match reason {
            Invalid::NotJson | Invalid::Unreadable(_) => &self.stats.invalid.not_json,
            Invalid::NotAnObject => &self.stats.invalid.not_an_object,
            Invalid::NoStage => &self.stats.invalid.no_stage,
            Invalid::TooLarge => &self.stats.invalid.too_large,
        };
        counter.add(1);
        warn_seldom!(self.of_invalid, order = %order, %reason, bytes = update.len(), "an outside update cannot be passed on");
        None
    }

    /// Changes the waiting updates of an order, and keeps count of their bytes.
    fn change<R>(&mut self, order: OrderId, change: impl FnOnce(&mut Merge) -> R) -> Option<R> {
        let merge = &mut self.orders.get_mut(&order)?.merge;
        let before = merge.cost();
        let result = change(merge);
        self.waiting_bytes = self.waiting_bytes + merge.cost() - before;
        Some(result)
    }

    // What is done

    /// Begins the next step of an order, or sets its timer.
    fn advance(&mut self, order: OrderId) {
        let Some(watched) = self.orders.get_mut(&order) else { return };
        if watched.busy || watched.queued {
            return;
        }
        let next = watched.next(Instant::now(), self.stopping);
        if self.steps.len() >= STEPS_MAX && matches!(next, Next::Step(_)) {
            watched.queued = true;
            self.queue.push_back(order);
            return;
        }
        let timer = match &next {
            Next::At(at) => Some(*at),
            _ => None,
        };
        if watched.timer != timer {
            if let Some(at) = std::mem::replace(&mut watched.timer, timer) {
                self.timers.remove(&(at, order));
            }
            self.timers.extend(timer.map(|at| (at, order)));
        }
        match next {
            Next::Step(mut step) => {
                watched.busy = true;
                if let Step::Look { stretch } = &mut step {
                    *stretch = watched.merge.begin_look();
                }
                let running = run_step(Arc::clone(&self.outside), Arc::clone(&self.backend), order, step);
                self.steps.push(Box::pin(async move { (order, running.await) }));
            }
            Next::Forget => {
                self.orders.remove(&order);
                self.stats.followed.set(self.orders.len() as u64);
            }
            Next::At(_) | Next::Nothing => {}
        }
    }

    fn on_done(&mut self, order: OrderId, done: Done) {
        if let Some(watched) = self.orders.get_mut(&order) {
            watched.busy = false;
            let failures = watched.failures;
            self.apply(order, done);
            if let Some(watched) = self.orders.get_mut(&order)
                && watched.failures == failures
            {
                watched.failures = 0;
            }
        }
        self.advance(order);
        while self.steps.len() < STEPS_MAX
            && let Some(next) = self.queue.pop_front()
        {
            if let Some(watched) = self.orders.get_mut(&next) {
                watched.queued = false;
            }
            self.advance(next);
        }
    }

    fn apply(&mut self, order: OrderId, done: Done) {
        let Some(watched) = self.orders.get_mut(&order) else { return };
        let now = Instant::now();
        match done {
            Done::Followed(Ok(())) => {
                watched.followed = true;
                // Updates may have been appended to the log while no client here watched the order.
                watched.suspect(now);
            }
            Done::Unfollowed(answer) => {
                watched.followed = false;
                if let Err(error) = answer {
                    debug!(order = %order, error = %error, "could not unfollow an order");
                }
            }
            Done::Opened(Ok(None)) => watched.log = Some(None),
            Done::Opened(Ok(Some((epoch, has)))) => {
                if watched.last_log.as_ref().is_some_and(|last| *last != epoch) {
                    watched.merge.log_is_new();
                }
                watched.merge.in_log(has);
                watched.last_log = Some(epoch.clone());
                watched.log = Some(Some(epoch));
            }
            Done::Looked { begun, stretch, list: Ok(list) } => self.take_list(order, begun, stretch, &list),
            Done::Looked { begun, stretch, list: Err(error @ StorageError::Corrupt { .. }) } => {
                self.stats.unreadable.add(1);
                warn_seldom!(self.of_failures, order = %order, error = %error, "the list of an order cannot be read");
                self.take_list(order, begun, stretch, &[]);
            }
            Done::Looked { list: Err(error), .. } => {
                watched.merge.look_by(now);
                self.on_failure(order, "window", &error);
            }
            Done::Appended(Ok(AppendAnswer::Done(results))) => self.on_appended(order, results.first()),
            Done::Appended(Ok(AppendAnswer::ForeignEpoch(found))) => {
                debug!(order = %order, ?found, "the log is in another epoch");
                watched.suspect(now);
            }
            Done::HasJob => {
                self.stats.refused.has_job.add(1);
                self.change(order, |merge| merge.done(false));
            }
            Done::Appended(Err(error @ StorageError::Corrupt { .. })) => {
                self.stats.lost.add(1);
                warn_seldom!(self.of_lost, order = %order, error = %error, "the log of an order cannot take an outside update");
                self.change(order, |merge| merge.done(true));
            }
            Done::Followed(Err(error)) => self.on_failure(order, "follow", &error),
            Done::Opened(Err(error)) => self.on_failure(order, "open", &error),
            Done::Appended(Err(error)) => self.on_failure(order, "append", &error),
        }
    }

    fn take_list(&mut self, order: OrderId, begun: Instant, stretch: u64, list: &[Bytes]) {
        let mut listed = Vec::with_capacity(list.len());
        for update in list {
            let identity = identity(order, update);
            let is_known = self.orders.get(&order).is_some_and(|watched| watched.merge.knows(&identity));
            let draft = if is_known { None } else { self.read(order, update) };
            listed.push((identity, draft));
        }
        if self.change(order, |merge| merge.look(listed, begun, stretch)) == Some(true) {
            self.stats.gaps.add(1);
            warn!(order = %order, "updates of an order may have left its list before they were read");
        }
    }

    fn on_appended(&mut self, order: OrderId, result: Option<&Appended>) {
        let mut lost = false;
        match result {
            Some(Appended::Applied { .. }) => self.stats.accepted.add(1),
            Some(Appended::Duplicate) => self.stats.duplicates.add(1),
            Some(Appended::Refused(Refusal::Closed)) => self.stats.refused.closed.add(1),
            Some(Appended::Refused(Refusal::StaleFence { .. })) => self.stats.refused.stale_fence.add(1),
            // A gap cannot occur: each update is the first entry of its own producer.
            Some(Appended::Gap { .. }) | None => {
                lost = true;
                self.stats.lost.add(1);
                warn!(order = %order, ?result, "the log did not take an outside update");
            }
        }
        self.change(order, |merge| merge.done(lost));
    }

    fn on_failure(&mut self, order: OrderId, op: &'static str, error: &StorageError) {
        self.stats.retries.add(1);
        let now = Instant::now();
        if let Some(watched) = self.orders.get_mut(&order) {
            watched.failures += 1;
            watched.retry_at = now + STORAGE_RETRY.wait(watched.failures);
        }
        warn_seldom!(self.of_failures, order = %order, op, error = %error, kind = error.kind(), "outside updates wait for the storage");
    }
}

impl Watched {
    fn new(now: Instant) -> Self {
        Self {
            wanted: true,
            followed: false,
            log: None,
            last_log: None,
            merge: Merge::new(now),
            busy: false,
            queued: false,
            timer: None,
            failures: 0,
            retry_at: now,
        }
    }

    /// Its log and its list are due to be read.
    fn suspect(&mut self, now: Instant) {
        self.log = None;
        self.merge.suspect(now);
    }

    fn next(&self, now: Instant, stopping: bool) -> Next {
        if !self.wanted && self.merge.is_empty() {
            let unfollow = self.followed && !stopping;
            return if unfollow { Next::Step(Step::Unfollow) } else { Next::Forget };
        }
        if now < self.retry_at {
            return Next::At(self.retry_at);
        }
        if self.wanted && !self.followed {
            return Next::Step(Step::Follow);
        }
        let Some(log) = &self.log else { return Next::Step(Step::Open { creates: false }) };
        if !stopping && self.merge.look_at().is_some_and(|at| at <= now) {
            return Next::Step(Step::Look { stretch: self.merge.stretch });
        }
        if let Some((identity, draft, is_after_gap)) = self.merge.next() {
            let Some(epoch) = log else { return Next::Step(Step::Open { creates: true }) };
            let draft = if is_after_gap { after_gap(draft) } else { draft.clone() };
            return Next::Step(Step::Append { epoch: epoch.clone(), identity, draft });
        }
        self.merge.look_at().map_or(Next::Nothing, Next::At)
    }
}

async fn run_step(
    outside: Arc<dyn OutsideOrders>,
    backend: SharedBackend,
    order: OrderId,
    step: Step,
) -> Done {
    let channel = ChannelName::order(order);
    match step {
        Step::Follow => Done::Followed(outside.follow(order).await),
        Step::Unfollow => Done::Unfollowed(outside.unfollow(order).await),
        Step::Open { creates } => Done::Opened(open(&backend, &channel, creates).await),
        Step::Look { stretch } => {
            let begun = Instant::now();
            Done::Looked { begun, stretch, list: outside.window(order, LIST_MAX).await }
        }
        Step::Append { epoch, identity, draft } => {
            // Each update is a producer of its own: nodes need not agree on numbers to append it once.
            //
            // The fence is the oldest there is: the append is refused once a worker has reported on the order
            // under a lease.
            let append = Append { seq: 1, prev: 0, draft, fence: Some(0) };
            let batch = AppendBatch { channel, epoch, producer: producer(identity), entries: vec![append] };
            match backend.job(order.into()).await {
                Ok(None) => Done::Appended(backend.append(&batch).await),
                Ok(Some(_job)) => Done::HasJob,
                Err(error) => Done::Appended(Err(error)),
            }
        }
    }
}

/// The epoch of an order's log, and the outside updates that it has. An order without a log gets one, or the
/// result is `None`.
async fn open(
    backend: &SharedBackend,
    channel: &ChannelName,
    creates: bool,
) -> StorageResult<Option<(Epoch, Vec<Uuid>)>> {
    let mut has = Vec::new();
    let mut after: Option<Position> = None;
    loop {
        let page = backend.read_after(channel, after.as_ref(), LOG_PAGE).await?;
        let Some(epoch) = page.epoch else {
            if !creates {
                return Ok(None);
            }
            // `open` also looks a producer up, which is of no use here: each update has its own.
            let nobody = NodeId(Uuid::nil());
            let log = backend.open(channel, nobody, &Epoch::random()).await?;
            if log.top == 0 {
                return Ok(Some((log.epoch, Vec::new())));
            }
            // Another node created it meanwhile.
            continue;
        };
        if after.as_ref().is_some_and(|after| after.epoch != epoch) {
            // It began a new epoch between two pages.
            after = None;
            has.clear();
            continue;
        }
        has.extend(page.entries.iter().filter_map(|entry| identity_of(entry.id.producer)));
        match page.entries.last() {
            Some(last) if last.offset < page.top => after = Some(Position { epoch, offset: last.offset }),
            _ => return Ok(Some((epoch, has))),
        }
    }
}
