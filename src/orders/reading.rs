//! Reading orders: one with all that is known of it, lists, dead letters, counts.

use super::desk::Orders;
use super::view::{self, Listed, OrderView, Shows};
use crate::access::Owner;
use crate::model::{ChannelName, JobId, OrderId};
use crate::protocol::DeadLetter;
use crate::storage::{JobCounts, JobState, JobView, Result as StorageResult, StorageError};

/// Orders of which one page of a list is made up, at the most: with a filter that few match, a page
/// may be short and still have a next one.
const SCANNED_MAX: usize = 1_000;

/// The same of orders of all owners that are passed over for one's own: more than are kept, so that a list
/// of few among many ends where they do.
const LOOKED_AT_MAX: usize = 200_000;

/// Jobs read at once for a list.
const SCAN_PAGE: usize = 100;

/// A page of a list ends before its orders come to more bytes than this; one is in it in any case.
const LIST_BYTES_MAX: usize = 1 << 20;

impl Orders {
    fn shows(&self) -> Shows {
        Shows { attempts_max: self.desk().config.attempts_max, swaps: self.desk().schema.is_swap() }
    }

    /// How many jobs there are in each state, on all nodes.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn counts(&self) -> StorageResult<JobCounts> {
        self.desk().backend.job_counts().await
    }

    /// All that is known of an order; `None` when nothing is, anywhere.
    ///
    /// # Errors
    /// The storage did not answer; or it is away, and this node knows nothing of the order.
    pub async fn get(&self, order: OrderId) -> StorageResult<Option<OrderView>> {
        let channel = ChannelName::order(order);
        if self.desk().backend.is_degraded_for(&channel) {
            return self.get_from_here(order).await.map(Some);
        }
        let found = tokio::try_join!(
            self.desk().backend.job(order.into()),
            self.desk().newest(order),
            self.desk().channels.read_after(&channel, None, usize::MAX),
        );
        let (job, newest, mut page) = match found {
            // It went while it was asked.
            Err(StorageError::Unknown { .. }) => return self.get_from_here(order).await.map(Some),
            found => found?,
        };
        if newest.as_ref().is_some_and(|newest| newest.offset > page.top) {
            // It came between the two answers, and what is said of the order is to be among its updates.
            page = self.desk().channels.read_after(&channel, None, usize::MAX).await?;
        }
        if job.is_none() && newest.is_none() {
            // The storage may have gone meanwhile, and what answered is this node alone.
            let is_degraded = self.desk().backend.is_degraded_for(&channel);
            return if is_degraded { Err(StorageError::Unknown { op: "order" }) } else { Ok(None) };
        }
        Ok(Some(view::whole(order, job, newest, page, self.shows())))
    }

    /// What this node knows of an order by itself.
    async fn get_from_here(&self, order: OrderId) -> StorageResult<OrderView> {
        let (job, newest) = tokio::join!(self.desk().backend.job(order.into()), self.desk().newest(order));
        let (job, newest) = (unless_unknown(job)?, newest?);
        if job.is_none() && newest.is_none() {
            return Err(StorageError::Unknown { op: "order" });
        }
        // Asked for last: a channel that is read begins a life here, which is not for any name.
        let channel = ChannelName::order(order);
        let page = self.desk().channels.read_after(&channel, None, usize::MAX).await?;
        let view = view::whole(order, job, newest, page, self.shows());
        Ok(OrderView { degraded: self.desk().backend.is_degraded_for(&channel), ..view })
    }

    /// Orders, the newest first: those queued before `before`, with a status (`pending`, or the type
    /// of the newest update) or with any, `limit` at the most. Also, the order to go on from, where
    /// there may be more. `None` when `before` is not known (any more). While the storage is away, the
    /// orders that this node knows by itself.
    ///
    /// With an `owner` those of that one alone: nothing tells of others, not even where a page ends.
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
        let was_degraded = self.desk().backend.is_degraded();
        let degraded = || was_degraded || self.desk().backend.is_degraded();
        // A list may take hundreds of calls of the storage; others wait.
        let _place = self.desk().lists.acquire().await;
        let mut found = Vec::new();
        let mut cursor = before.map(JobId::from);
        if !self.knows(cursor, owner).await? {
            return Ok(None);
        }
        let is_listed = |job: &JobView| is_of(job, owner);
        let (mut scanned, mut bytes) = (0, 0);
        // The last one that may be named, from where the next page goes on.
        let mut last = cursor;
        let mut looked_at = 0;
        while scanned < SCANNED_MAX && looked_at < LOOKED_AT_MAX {
            let mut page = self.desk().backend.list_jobs(None, cursor, SCAN_PAGE).await?;
            let full = page.len() == SCAN_PAGE;
            cursor = page.last().map(|job| job.id);
            looked_at += page.len();
            page.retain(is_listed);
            // Others' are not looked into, and do not count: an owner's list ends where its orders do.
            scanned += page.len();
            // One after the other on one connection: they go out together. A job that cannot have the
            // status is not looked into.
            let newest = page.iter().map(|job| {
                let is_out = status.is_some_and(|status| !may_be(job, status));
                async move { if is_out { Ok(None) } else { self.desk().newest(job.id.into()).await } }
            });
            let newest = futures_util::future::try_join_all(newest).await?;
            for (job, newest) in page.into_iter().zip(newest) {
                let before_this = last.replace(job.id);
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
        Ok(Some(Listed { found, next: last.map(OrderId::from), degraded: degraded() }))
    }

    async fn knows(&self, job: Option<JobId>, owner: Option<Owner>) -> StorageResult<bool> {
        match job {
            Some(job) => Ok(self.desk().backend.job(job).await?.is_some_and(|job| is_of(&job, owner))),
            None => Ok(true),
        }
    }

    /// Whether anything was told of an order, by whomever.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn is_told_of(&self, order: OrderId) -> StorageResult<bool> {
        Ok(self.desk().newest(order).await?.is_some())
    }

    /// Orders that were tried in vain, the newest first, with an `owner` those of that one alone; `None`
    /// when `before` is not known.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn dead_letters(
        &self,
        before: Option<OrderId>,
        limit: usize,
        owner: Option<Owner>,
    ) -> StorageResult<Option<Listed<DeadLetter>>> {
        let was_degraded = self.desk().backend.is_degraded();
        let degraded = || was_degraded || self.desk().backend.is_degraded();
        let mut cursor = before.map(JobId::from);
        if !self.knows(cursor, owner).await? {
            return Ok(None);
        }
        // Of a list there may be much that is read only to be left out.
        let _place = self.desk().lists.acquire().await;
        let (mut found, mut bytes, mut last, mut looked_at) = (Vec::new(), 0, before, 0);
        while looked_at < LOOKED_AT_MAX {
            let page = self.desk().backend.list_jobs(Some(JobState::Dead), cursor, limit).await?;
            let is_last = page.len() < limit;
            looked_at += page.len();
            cursor = page.last().map(|job| job.id);
            for job in page.iter().filter(|job| is_of(job, owner)) {
                bytes += job.payload.len();
                if found.len() == limit || (bytes > LIST_BYTES_MAX && !found.is_empty()) {
                    return Ok(Some(Listed { found, next: last, degraded: degraded() }));
                }
                last = Some(job.id.into());
                found.push(view::dead_letter(job, self.shows()));
            }
            if is_last {
                return Ok(Some(Listed { found, next: None, degraded: degraded() }));
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(Some(Listed { found, next: last, degraded: degraded() }))
    }
}

/// Whether an order is an owner's; each is where none is given.
fn is_of(job: &JobView, owner: Option<Owner>) -> bool {
    owner.is_none_or(|owner| owner.owns(job.id.0))
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
