//! Reading orders: one with all that is known of it, lists, dead letters, counts.

use super::desk::Orders;
use super::view::{self, Listed, OrderView};
use crate::access::Owner;
use crate::model::{ChannelName, Entry, JobId, OrderId};
use crate::protocol::DeadLetter;
use crate::storage::{JobCounts, JobState, JobView, Result as StorageResult, StorageError};

/// The most orders that are read for one page of a list: with a filter that few orders match, a page may be
/// short and still have a next page.
const SCANNED_MAX: usize = 1_000;

/// The most orders that are examined for a list of one owner: more than the storage keeps, so that such a
/// list ends where the owner's orders end.
const LOOKED_AT_MAX: usize = 200_000;

/// Jobs read at once for a list that is filtered, or whose updates are read.
const SCAN_PAGE: usize = 100;

/// A page of a list ends before its orders take more bytes than this; it has at least one order.
const LIST_BYTES_MAX: usize = 1 << 20;

impl Orders {
    /// How many jobs there are in each state, on all nodes.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn counts(&self) -> StorageResult<JobCounts> {
        self.desk().parts.backend.job_counts().await
    }

    /// All that is known of an order; `None` if it is unknown on every node.
    ///
    /// # Errors
    /// The storage did not answer; or it is away, and this node does not know the order.
    pub async fn get(&self, order: OrderId) -> StorageResult<Option<OrderView>> {
        let channel = ChannelName::order(order);
        if self.desk().parts.backend.is_degraded_for(&channel) {
            return self.get_from_here(order).await.map(Some);
        }
        let found = tokio::try_join!(
            self.desk().parts.backend.job(order.into()),
            self.desk().newest(order),
            self.desk().parts.channels.read_after(&channel, None, usize::MAX),
        );
        let (job, newest, mut page) = match found {
            // The storage went away meanwhile.
            Err(StorageError::Unknown { .. }) => return self.get_from_here(order).await.map(Some),
            found => found?,
        };
        if newest.as_ref().is_some_and(|newest| newest.offset > page.top) {
            // It was appended between the two reads; the newest update must be among the updates.
            page = self.desk().parts.channels.read_after(&channel, None, usize::MAX).await?;
        }
        if job.is_none() && newest.is_none() {
            // The storage may have gone away meanwhile, so that only this node answered.
            let is_degraded = self.desk().parts.backend.is_degraded_for(&channel);
            return if is_degraded { Err(StorageError::Unknown { op: "order" }) } else { Ok(None) };
        }
        Ok(Some(view::whole(order, job, newest, page, self.desk())))
    }

    /// What this node knows of an order by itself.
    async fn get_from_here(&self, order: OrderId) -> StorageResult<OrderView> {
        let (job, newest) =
            tokio::join!(self.desk().parts.backend.job(order.into()), self.desk().newest(order));
        let (job, newest) = (unless_unknown(job)?, newest?);
        if job.is_none() && newest.is_none() {
            return Err(StorageError::Unknown { op: "order" });
        }
        // Read last: reading a channel creates its log on this node, which must not happen for arbitrary
        // names.
        let channel = ChannelName::order(order);
        let page = self.desk().parts.channels.read_after(&channel, None, usize::MAX).await?;
        let view = view::whole(order, job, newest, page, self.desk());
        Ok(OrderView { degraded: self.desk().parts.backend.is_degraded_for(&channel), ..view })
    }

    /// Orders, the newest first: those queued before `before`, with a status (`pending`, or the type of the
    /// newest update) or with any, at most `limit`. Also the order from which the next page goes on, if there
    /// may be one. `None` if `before` is unknown, or not known any more. While the storage is away, these are
    /// the orders that this node knows by itself.
    ///
    /// With an `owner`, only that owner's: nothing reveals other orders, not even where a page ends.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn list(
        &self,
        status: Option<&str>,
        before: Option<OrderId>,
        limit: usize,
        owner: Option<Owner>,
    ) -> StorageResult<Option<Listed<OrderView>>> {
        // A job that cannot have the status is not read further.
        let is_candidate = |job: &JobView| status.is_none_or(|status| may_be(job, status));
        let show = |job: &JobView, newest: Option<Entry>| {
            let summary = view::summary(job.id.into(), Some(job), newest.as_ref(), self.desk());
            status.is_none_or(|status| summary.status == status).then_some(summary)
        };
        self.page(None, before, limit, owner, is_candidate, show).await
    }

    /// Orders whose attempts all failed, the newest first; with an `owner`, only that owner's. `None` if
    /// `before` is unknown.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn dead_letters(
        &self,
        before: Option<OrderId>,
        limit: usize,
        owner: Option<Owner>,
    ) -> StorageResult<Option<Listed<DeadLetter>>> {
        let show = |job: &JobView, _newest| Some(view::dead_letter(job, self.desk()));
        self.page(Some(JobState::Dead), before, limit, owner, |_| true, show).await
    }

    /// A page of a list of the orders whose jobs are in `state`, or of all. `show` returns what the list shows of a
    /// candidate, if anything; the newest update is read for it only where `state` is `None`.
    async fn page<T>(
        &self,
        state: Option<JobState>,
        before: Option<OrderId>,
        limit: usize,
        owner: Option<Owner>,
        is_candidate: impl Fn(&JobView) -> bool,
        show: impl Fn(&JobView, Option<Entry>) -> Option<T>,
    ) -> StorageResult<Option<Listed<T>>> {
        let was_degraded = self.desk().parts.backend.is_degraded();
        let degraded = || was_degraded || self.desk().parts.backend.is_degraded();
        // A list may take hundreds of calls to the storage, so only a few are built at once.
        let _place = self.desk().lists.acquire().await;
        let mut found = Vec::new();
        let mut cursor = before.map(JobId::from);
        if !self.knows(cursor, owner).await? {
            return Ok(None);
        }
        let (mut scanned, mut looked_at, mut bytes) = (0, 0, 0);
        // The last order that may be named, from which the next page goes on.
        let mut last = cursor;
        // Without a filter, one more than is shown says whether there are more.
        let at_once = if state.is_some() && owner.is_none() { limit + 1 } else { SCAN_PAGE };
        while scanned < SCANNED_MAX && looked_at < LOOKED_AT_MAX {
            let mut page = self.desk().parts.backend.list_jobs(state, cursor, at_once).await?;
            let full = page.len() == at_once;
            cursor = page.last().map(|job| job.id);
            looked_at += page.len();
            // Other owners' orders are not read further, and do not count: a list of one owner ends where its
            // orders end.
            page.retain(|job| is_of(job, owner));
            scanned += page.len();
            // The calls share one connection, so they are sent together.
            let newest = page.iter().map(|job| {
                let is_read = state.is_none() && is_candidate(job);
                async move { if is_read { self.desk().newest(job.id.into()).await } else { Ok(None) } }
            });
            let newest = futures_util::future::try_join_all(newest).await?;
            for (job, newest) in page.into_iter().zip(newest) {
                let before_this = last.replace(job.id);
                let Some(shown) = is_candidate(&job).then(|| show(&job, newest)).flatten() else { continue };
                bytes += job.payload.len();
                if found.len() == limit || (bytes > LIST_BYTES_MAX && !found.is_empty()) {
                    let next = before_this.map(OrderId::from);
                    return Ok(Some(Listed { found, next, degraded: degraded() }));
                }
                found.push(shown);
            }
            if !full {
                return Ok(Some(Listed { found, next: None, degraded: degraded() }));
            }
            // Whether an owner has more dead letters may take the whole list to find out: the next page does.
            if state.is_some() && found.len() == limit {
                break;
            }
        }
        Ok(Some(Listed { found, next: last.map(OrderId::from), degraded: degraded() }))
    }

    async fn knows(&self, job: Option<JobId>, owner: Option<Owner>) -> StorageResult<bool> {
        match job {
            Some(job) => Ok(self.desk().parts.backend.job(job).await?.is_some_and(|job| is_of(&job, owner))),
            None => Ok(true),
        }
    }

    /// Whether an order has any update, from whatever source.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn is_told_of(&self, order: OrderId) -> StorageResult<bool> {
        Ok(self.desk().newest(order).await?.is_some())
    }
}

/// Whether an order is the owner's; true for every order if `owner` is `None`.
fn is_of(job: &JobView, owner: Option<Owner>) -> bool {
    owner.is_none_or(|owner| owner.owns(job.id.0))
}

/// Whether an order may have a status, judged by its job only. A job lags behind its order's updates if a
/// run broke off.
fn may_be(job: &JobView, status: &str) -> bool {
    match (job.state, status) {
        (JobState::Dead, status) => status == "failed",
        (JobState::Done, status) => matches!(status, "confirmed" | "failed"),
        (JobState::Waiting | JobState::Delayed | JobState::Claimed, _) => true,
    }
}

/// Treats `Unknown` as absent: the storage may know the order, but this node does not.
fn unless_unknown<T>(found: StorageResult<Option<T>>) -> StorageResult<Option<T>> {
    match found {
        Err(StorageError::Unknown { .. }) => Ok(None),
        found => found,
    }
}
