//! What clients and operators ask of orders.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::config::{OrdersConfig, WhenDegraded};
use super::interop::OrderMirror;
use super::request::{InvalidOrder, OrderRequest};
use super::schema::OrderSchema;
use super::stats::OrderStats;
use super::view::{self, Listed, OrderView, Shows, is_of_a_worker};
use crate::channels::{Channels, PublishError};
use crate::model::{ChannelName, DraftEntry, Entry, EntryKind, JobId, OrderId};
use crate::protocol::{DeadLetter, OrderUpdate, Standing};
use crate::storage::{
    Cancelling, Enqueued, Idempotency, JobCounts, JobKind, JobState, JobView, NewJob,
    Result as StorageResult, SharedBackend, StorageError,
};
use crate::support::recent::Recent;

/// Orders of which one page of a list is made up, at the most: with a filter that few match, a page
/// may be short and still have a next one.
const SCANNED_MAX: usize = 1_000;

/// Jobs read at once for a list.
const SCAN_PAGE: usize = 100;

/// A page of a list ends before its orders come to more bytes than this; one is in it in any case.
const LIST_BYTES_MAX: usize = 1 << 20;

/// Orders of which is remembered that outside updates were taken for want of a job.
const JOBLESS_MAX: usize = 20_000;

/// Lists that are made at once.
const LISTS_AT_ONCE: usize = 2;

/// Leases of workers outside that are remembered.
const LEASES_MAX: usize = 20_000;

/// All orders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders(Arc<Desk>);

/// What orders need.
#[derive(Debug)]
pub struct OrdersParts {
    /// Where jobs are.
    pub backend: SharedBackend,
    /// Where updates go.
    pub channels: Channels,
    /// The settings.
    pub config: OrdersConfig,
    /// Where outside consumers look for updates.
    pub mirror: OrderMirror,
    /// Which workers carry out what is placed here, and what workers here carry out.
    pub kind: JobKind,
    /// What orders look like.
    pub schema: OrderSchema,
}

/// What all parts of this room share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) backend: SharedBackend,
    pub(super) channels: Channels,
    pub(super) config: OrdersConfig,
    pub(super) stats: OrderStats,
    pub(super) mirror: OrderMirror,
    /// Of the orders that are placed and claimed here.
    pub(super) kind: JobKind,
    pub(super) schema: OrderSchema,
    /// The kinds that other nodes have.
    pub(super) other_executors: Mutex<BTreeSet<String>>,
    /// Something was queued by this process.
    pub(super) queued: Notify,
    /// Changes whenever somebody asks this process to cancel an order.
    pub(super) cancels: watch::Sender<()>,
    /// Orders that had no job when somebody outside told of them: an order is placed under a name that
    /// nobody knew before, so they never get one.
    pub(super) jobless: Mutex<Recent<OrderId, ()>>,
    /// The leases of workers outside, as this process may rely on them: their tokens, and until when.
    /// Looked at where the storage cannot be asked.
    pub(super) leases: Mutex<Recent<OrderId, (u64, Instant)>>,
    /// Orders of which a worker outside is telling; bounded by the requests under way.
    pub(super) settling: Mutex<HashSet<OrderId>>,
    /// Places for lists that are being made.
    pub(super) lists: Semaphore,
    /// Claims and reports that must not be broken off with the requests that they came in.
    pub(super) tasks: TaskTracker,
    /// Where they run: requests' own threads end before the storage does.
    pub(super) runtime: Handle,
}

/// An order that was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its name.
    pub order: OrderId,
    /// The same request was placed before, and this is what it became.
    pub repeated: bool,
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The idempotency key was used for another order.
    #[error("this idempotency key was used for another order; use a new key for a new order")]
    Conflict,
    /// There are as many unfinished orders as may be.
    #[error("there are {max} orders under way already; try again in a moment")]
    Full {
        /// The bound.
        max: usize,
    },
    /// The storage did not answer: the order may have been placed all the same.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[from] StorageError),
}

/// Why a dead letter was not placed again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// It is no dead letter, or not any more.
    #[error("this order is no dead letter, or was placed again before")]
    Unknown,
    /// It may have been carried out.
    #[error(
        "this order was submitted before it failed: find out what became of it, and if it was not carried \
         out, place it again with force (`?force=true`, on the command line `--force`)"
    )]
    MayBeSubmitted,
    /// It could not be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Why outside updates were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The order has a job: its worker tells of it.
    #[error("this order is carried out by a worker, who alone may tell of it")]
    HasJob,
    /// The order has had its last update.
    #[error("the order has ended")]
    Ended,
    /// An update may not follow on the one before it. Nothing was accepted.
    #[error("{problem}")]
    Invalid {
        /// Which one, counting from 0.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// The channel did not take them.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The storage did not answer.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[from] StorageError),
}

impl Desk {
    /// Appends updates of an order, under a lease or without one.
    pub(super) async fn append(
        &self,
        order: OrderId,
        drafts: Vec<DraftEntry>,
        fence: Option<u64>,
    ) -> Result<(), PublishError> {
        let kinds: Vec<EntryKind> = drafts.iter().map(|draft| draft.kind.clone()).collect();
        let published = self.channels.publish_under(&ChannelName::order(order), drafts, fence).await;
        let accepted = published.as_ref().map_or_else(PublishError::accepted, |()| kinds.len());
        for kind in kinds.iter().take(accepted) {
            // A line for each order would cost as much as half of all else that is done for it.
            match kind {
                EntryKind::Failed => info!(%order, kind = kind.as_str(), "order ended"),
                kind if kind.is_terminal() => debug!(%order, kind = kind.as_str(), "order ended"),
                kind => debug!(%order, kind = kind.as_str(), "order update published"),
            }
        }
        self.stats.updates.add(accepted as u64);
        // What could not be confirmed may have been appended all the same.
        if accepted > 0 || matches!(published, Err(PublishError::Unavailable { .. })) {
            self.mirror.appended(order);
        }
        if matches!(published, Err(PublishError::Refused { .. })) {
            self.stats.updates_refused.add(1);
        }
        published
    }

    /// The newest update of an order, also where it is no longer kept in the log.
    pub(super) async fn newest(&self, order: OrderId) -> StorageResult<Option<Entry>> {
        Ok(self.channels.latest(&ChannelName::order(order), None, 1).await?.entries.pop())
    }
}

impl Orders {
    /// No order yet, but for those in the storage. Must be called in a runtime; what must not be
    /// broken off runs there.
    pub fn new(parts: OrdersParts) -> Self {
        let OrdersParts { backend, channels, config, mirror, kind, schema } = parts;
        let stats = OrderStats::default();
        Self(Arc::new(Desk {
            backend,
            channels,
            config,
            stats,
            mirror,
            kind,
            schema,
            other_executors: Mutex::default(),
            queued: Notify::new(),
            cancels: watch::Sender::new(()),
            jobless: Mutex::new(Recent::new(JOBLESS_MAX, usize::MAX)),
            leases: Mutex::new(Recent::new(LEASES_MAX, usize::MAX)),
            settling: Mutex::default(),
            lists: Semaphore::new(LISTS_AT_ONCE),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }))
    }

    /// Waits for the claims and reports that are under way; none must come any more.
    pub(crate) async fn settled(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.0
    }

    /// The settings.
    pub fn config(&self) -> &OrdersConfig {
        &self.0.config
    }

    /// The counters of this node.
    pub fn stats(&self) -> &OrderStats {
        &self.0.stats
    }

    /// How many jobs there are in each state, on all nodes.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn counts(&self) -> StorageResult<JobCounts> {
        self.0.backend.job_counts().await
    }

    /// Reads an order as clients send it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(&self, text: &str) -> Result<OrderRequest, InvalidOrder> {
        self.0.schema.read(text)
    }

    fn shows(&self) -> Shows {
        Shows { attempts_max: self.0.config.attempts_max, swaps: self.0.schema.is_swap() }
    }

    /// Queues an order. With an idempotency key, the same key and the same request give the same
    /// order for as long as keys are kept.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn place(&self, request: &OrderRequest, key: Option<&str>) -> Result<Placed, PlaceError> {
        let payload = Bytes::copy_from_slice(request.as_json().get().as_bytes());
        let (order, is_retry) = (OrderId::random(), request.retry_of().is_some());
        let idempotency = key.map(|key| Idempotency {
            // Names of our own must not meet a client's.
            key: if is_retry { key.to_owned() } else { format!("client:{key}") },
            fingerprint: request.fingerprint(),
        });
        let kind = Some(JobKind::clone(&self.0.kind));
        let job = NewJob { id: order.into(), payload, kind, idempotency };
        let bounds = self.0.config.bounds();
        // A dead letter is everybody's: another node may be asked to place it again too.
        let may_keep = self.0.config.when_degraded == WhenDegraded::Accept && !is_retry;
        let queued = match may_keep {
            true => self.0.backend.enqueue_here(&job, &bounds).await,
            false => self.0.backend.enqueue(&job, &bounds).await,
        };
        match queued? {
            Enqueued::Queued => {
                self.0.stats.placed.add(1);
                debug!(%order, retry_of = request.retry_of().map(tracing::field::display), "order placed");
                self.0.queued.notify_waiters();
                Ok(Placed { order, repeated: false })
            }
            Enqueued::Repeated(job) => {
                self.0.stats.repeated.add(1);
                Ok(Placed { order: job.into(), repeated: true })
            }
            Enqueued::Conflict => Err(PlaceError::Conflict),
            Enqueued::Full => {
                self.0.stats.refused_full.add(1);
                Err(PlaceError::Full { max: self.0.config.queue_max })
            }
        }
    }

    /// All that is known of an order; `None` when nothing is, anywhere.
    ///
    /// # Errors
    /// The storage did not answer; or it is away, and this node knows nothing of the order.
    pub async fn get(&self, order: OrderId) -> StorageResult<Option<OrderView>> {
        let channel = ChannelName::order(order);
        if self.0.backend.is_degraded_for(&channel) {
            return self.get_from_here(order).await.map(Some);
        }
        let found = tokio::try_join!(
            self.0.backend.job(order.into()),
            self.0.newest(order),
            self.0.channels.read_after(&channel, None, usize::MAX),
        );
        let (job, newest, mut page) = match found {
            // It went while it was asked.
            Err(StorageError::Unknown { .. }) => return self.get_from_here(order).await.map(Some),
            found => found?,
        };
        if newest.as_ref().is_some_and(|newest| newest.offset > page.top) {
            // It came between the two answers, and what is said of the order is to be among its updates.
            page = self.0.channels.read_after(&channel, None, usize::MAX).await?;
        }
        if job.is_none() && newest.is_none() {
            // The storage may have gone meanwhile, and what answered is this node alone.
            let is_degraded = self.0.backend.is_degraded_for(&channel);
            return if is_degraded { Err(StorageError::Unknown { op: "order" }) } else { Ok(None) };
        }
        Ok(Some(view::whole(order, job, newest, page, self.shows())))
    }

    /// What this node knows of an order by itself.
    async fn get_from_here(&self, order: OrderId) -> StorageResult<OrderView> {
        let (job, newest) = tokio::join!(self.0.backend.job(order.into()), self.0.newest(order));
        let (job, newest) = (unless_unknown(job)?, newest?);
        if job.is_none() && newest.is_none() {
            return Err(StorageError::Unknown { op: "order" });
        }
        // Asked for last: a channel that is read begins a life here, which is not for any name.
        let channel = ChannelName::order(order);
        let page = self.0.channels.read_after(&channel, None, usize::MAX).await?;
        let view = view::whole(order, job, newest, page, self.shows());
        Ok(OrderView { degraded: self.0.backend.is_degraded_for(&channel), ..view })
    }

    /// Orders, the newest first: those queued before `before`, with a status (`pending`, or the type
    /// of the newest update) or with any, `limit` at the most. Also, the order to go on from, where
    /// there may be more. `None` when `before` is not known (any more). While the storage is away, the
    /// orders that this node knows by itself.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn list(
        &self,
        status: Option<&str>,
        before: Option<OrderId>,
        limit: usize,
    ) -> StorageResult<Option<Listed<OrderView>>> {
        let was_degraded = self.0.backend.is_degraded();
        let degraded = || was_degraded || self.0.backend.is_degraded();
        // A list may take hundreds of calls of the storage; others wait.
        let _place = self.0.lists.acquire().await;
        let mut found = Vec::new();
        let mut cursor = before.map(JobId::from);
        if !self.knows(cursor).await? {
            return Ok(None);
        }
        let (mut scanned, mut bytes) = (0, 0);
        while scanned < SCANNED_MAX {
            let page = self.0.backend.list_jobs(None, cursor, SCAN_PAGE).await?;
            let full = page.len() == SCAN_PAGE;
            scanned += page.len();
            // One after the other on one connection: they go out together. A job that cannot have the
            // status is not looked into.
            let newest = page.iter().map(|job| {
                let is_out = status.is_some_and(|status| !may_be(job, status));
                async move { if is_out { Ok(None) } else { self.0.newest(job.id.into()).await } }
            });
            let newest = futures_util::future::try_join_all(newest).await?;
            for (job, newest) in page.into_iter().zip(newest) {
                let before_this = cursor.replace(job.id);
                if status.is_some_and(|status| !may_be(&job, status)) {
                    continue;
                }
                let summary = view::summary(&job, newest.as_ref(), self.shows());
                if status.is_none_or(|status| summary.status == status) {
                    bytes += job.payload.len();
                    if found.len() == limit || (bytes > LIST_BYTES_MAX && !found.is_empty()) {
                        let next = before_this.map(OrderId::from);
                        return Ok(Some(Listed { found, next, degraded: degraded() }));
                    }
                    found.push(summary);
                }
            }
            if !full {
                return Ok(Some(Listed { found, next: None, degraded: degraded() }));
            }
        }
        Ok(Some(Listed { found, next: cursor.map(OrderId::from), degraded: degraded() }))
    }

    async fn knows(&self, job: Option<JobId>) -> StorageResult<bool> {
        match job {
            Some(job) => Ok(self.0.backend.job(job).await?.is_some()),
            None => Ok(true),
        }
    }

    /// Whether anything was told of an order, by whomever.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn is_told_of(&self, order: OrderId) -> StorageResult<bool> {
        Ok(self.0.newest(order).await?.is_some())
    }

    /// Asks for an order to be ended before it is submitted.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn cancel(&self, order: OrderId) -> StorageResult<Cancelling> {
        let asked = self.0.backend.cancel(order.into()).await?;
        if asked == Cancelling::Asked {
            info!(%order, "order asked to be cancelled");
            self.0.cancels.send_replace(());
            self.0.queued.notify_waiters();
        }
        Ok(asked)
    }

    /// Appends updates of an order that is carried out by nobody here.
    ///
    /// While the storage is away, so are those of an order of which no job is known here: what nobody
    /// can claim meanwhile is not told of by a worker, except by one that had it before, whose updates
    /// say so.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub async fn add_updates(&self, order: OrderId, updates: Vec<OrderUpdate>) -> Result<usize, UpdateError> {
        let (job, newest) = tokio::join!(self.0.backend.job(order.into()), self.0.newest(order));
        let newest = newest?;
        match job {
            Ok(Some(_)) => return Err(UpdateError::HasJob),
            Ok(None) => self.0.jobless.lock().insert(order, (), 0),
            Err(StorageError::Unknown { .. }) if self.0.jobless.lock().get(&order).is_some() => {}
            Err(StorageError::Unknown { .. }) if !newest.as_ref().is_some_and(is_of_a_worker) => {
                self.0.stats.updates_unchecked.add(updates.len() as u64);
            }
            Err(error) => return Err(error.into()),
        }
        let mut standing = newest.as_ref().map(Standing::of);
        if standing.as_ref().is_some_and(|standing| standing.kind.is_terminal()) {
            return Err(UpdateError::Ended);
        }
        let count = updates.len();
        let mut drafts = Vec::with_capacity(count);
        if standing.is_none()
            && let Some(first) = updates.first()
            && first.standing.attempt != 1
        {
            let problem = format!("the first `attempt` is 1; {} was given", first.standing.attempt);
            return Err(UpdateError::Invalid { index: 0, problem });
        }
        // All are looked at before any is appended: a fault leaves nothing half done.
        for (index, OrderUpdate { standing: next, draft }) in updates.into_iter().enumerate() {
            let allowed =
                standing.as_ref().map_or(Ok(()), |standing| standing.allows(&next, standing.attempt + 1));
            allowed.map_err(|problem| UpdateError::Invalid { index, problem })?;
            standing = Some(next);
            drafts.push(draft);
        }
        self.0.append(order, drafts, None).await?;
        Ok(count)
    }

    /// Orders that were tried in vain, the newest first; `None` when `before` is not known.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn dead_letters(
        &self,
        before: Option<OrderId>,
        limit: usize,
    ) -> StorageResult<Option<Listed<DeadLetter>>> {
        let was_degraded = self.0.backend.is_degraded();
        if !self.knows(before.map(JobId::from)).await? {
            return Ok(None);
        }
        // Of a list there may be much that is read only to be left out.
        let _place = self.0.lists.acquire().await;
        let mut jobs = self.0.backend.list_jobs(Some(JobState::Dead), before.map(JobId::from), limit).await?;
        let (count, mut bytes) = (jobs.len(), 0);
        let fits = |job: &&JobView| {
            bytes += job.payload.len();
            bytes <= LIST_BYTES_MAX
        };
        jobs.truncate(jobs.iter().take_while(fits).count().max(1));
        let is_last = count < limit && jobs.len() == count;
        let next = jobs.last().filter(|_| !is_last).map(|job| job.id.into());
        let found = jobs.iter().map(|job| view::dead_letter(job, self.shows())).collect();
        Ok(Some(Listed { found, next, degraded: was_degraded || self.0.backend.is_degraded() }))
    }

    /// Places a dead letter's order again, as a new order: the old one has ended, and stays so. Asking
    /// twice at once gives one new order. One that may have been submitted is placed again only with
    /// `force`: somebody has to find out first what became of it.
    ///
    /// # Errors
    /// See [`RetryError`].
    pub async fn retry_dead_letter(&self, order: OrderId, force: bool) -> Result<Placed, RetryError> {
        let job: Option<JobView> = self.0.backend.job(order.into()).await.map_err(PlaceError::from)?;
        let job = job.filter(|job| job.state == JobState::Dead).ok_or(RetryError::Unknown)?;
        let request: OrderRequest =
            serde_json::from_slice(&job.payload).map_err(|_error| RetryError::Unknown)?;
        if job.committed && !force {
            return Err(RetryError::MayBeSubmitted);
        }
        let placed = self.place(&request.as_retry_of(order), Some(&format!("dead-letter:{order}"))).await?;
        self.0.backend.settle_dead(order.into()).await.map_err(PlaceError::from)?;
        Ok(placed)
    }
}

/// Whether an order may have a status, by its job alone. A job is behind its order's updates where a run
/// was broken off.
fn may_be(job: &JobView, status: &str) -> bool {
    match (job.state, status) {
        (JobState::Dead, status) => status == "failed",
        (JobState::Done, status) => matches!(status, "confirmed" | "failed"),
        (JobState::Waiting | JobState::Delayed | JobState::Claimed, _) => true,
    }
}

/// What is not known here may be there all the same.
fn unless_unknown<T>(found: StorageResult<Option<T>>) -> StorageResult<Option<T>> {
    match found {
        Err(StorageError::Unknown { .. }) => Ok(None),
        found => found,
    }
}
