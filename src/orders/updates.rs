//! Updates of orders: appending them, reading the newest one, and accepting those of orders that nobody here
//! executes.

use std::fmt;

use tracing::{debug, info};

use super::desk::{Desk, Orders};
use super::view::run_of;
use crate::channels::{First, PublishError, UpdateTerms};
use crate::model::{ChannelName, DraftEntry, Entry, EntryKind, OrderId};
use crate::protocol::{OrderUpdate, Standing};
use crate::storage::{Result as StorageResult, StorageError};

/// Why outside updates were not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The order has a job: only its worker may report on it.
    #[error("this order is executed by a worker, and only that worker may report on it")]
    HasJob,
    /// The order has had its last update.
    #[error("the order has ended")]
    Ended,
    /// An update may not follow the one before it. No update was accepted.
    #[error("{problem}")]
    Invalid {
        /// Which update, counting from 0.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// The channel did not accept the updates.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The storage did not answer.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[from] StorageError),
}

/// Is notified of the progress of the orders that workers execute under leases of this gateway.
pub trait OrderWatch: fmt::Debug + Send + Sync {
    /// These updates, at least one, are in the order's channel. Must not wait.
    fn told(&self, order: OrderId, updates: &[DraftEntry]);
}

impl Desk {
    /// Appends updates of an order, under a lease or without one.
    pub(super) async fn append(
        &self,
        order: OrderId,
        drafts: Vec<DraftEntry>,
        fence: Option<u64>,
        first: First,
    ) -> Result<(), PublishError> {
        let kinds: Vec<EntryKind> = drafts.iter().map(|draft| draft.kind.clone()).collect();
        let channel = ChannelName::order(order);
        let watched =
            self.parts.watch.as_ref().filter(|_| fence.is_some()).map(|watch| (watch, drafts.clone()));
        // Boxed, since each `async fn` between here and an executor would copy the future.
        let terms = UpdateTerms { fence, first };
        let published = Box::pin(self.parts.channels.publish_updates(&channel, drafts, terms)).await;
        let accepted = published.as_ref().map_or_else(PublishError::accepted, |()| kinds.len());
        for kind in kinds.iter().take(accepted) {
            // A log line for each order would cost half as much as the rest of its processing.
            match kind {
                EntryKind::Failed => info!(%order, kind = kind.as_str(), "order ended"),
                kind if kind.is_terminal() => debug!(%order, kind = kind.as_str(), "order ended"),
                kind => debug!(%order, kind = kind.as_str(), "order update published"),
            }
        }
        if let Some((watch, drafts)) = watched
            && accepted > 0
        {
            watch.told(order, &drafts[..accepted]);
        }
        self.stats.updates.add(accepted as u64);
        // An update that could not be confirmed may have been appended nevertheless.
        if accepted > 0 || matches!(published, Err(PublishError::Unavailable { .. })) {
            self.parts.mirror.appended(order);
        }
        if matches!(published, Err(PublishError::Refused { .. })) {
            self.stats.updates_refused.add(1);
        }
        published
    }

    /// The newest update of an order, even if its log does not hold it any more.
    pub(super) async fn newest(&self, order: OrderId) -> StorageResult<Option<Entry>> {
        Ok(self.parts.channels.latest(&ChannelName::order(order), None, 1).await?.entries.pop())
    }
}

/// Whether `next` may be an order's next update after the one in `standing`, or its first one if there is
/// none. `anew` is the attempt that may begin; see [`Standing::allows`].
pub(super) fn may_follow(standing: Option<&Standing>, next: &Standing, anew: u32) -> Result<(), String> {
    match standing {
        Some(standing) => standing.allows(next, anew),
        None if next.attempt == anew => Ok(()),
        None => Err(format!("the first `attempt` is {anew}; {} was given", next.attempt)),
    }
}

impl Orders {
    /// Appends updates of an order that nobody here executes.
    ///
    /// While the storage is away, this includes an order whose job is not known here: nobody can claim such a
    /// job meanwhile, so only a worker that claimed it before the outage can report on it. That worker's
    /// updates name their run, so an order is refused if its newest update names one.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub async fn add_updates(&self, order: OrderId, updates: Vec<OrderUpdate>) -> Result<usize, UpdateError> {
        let (job, newest) =
            tokio::join!(self.desk().parts.backend.job(order.into()), self.desk().newest(order));
        let newest = newest?;
        match job {
            Ok(Some(_)) => return Err(UpdateError::HasJob),
            Ok(None) => self.desk().jobless.lock().insert(order, (), 0),
            Err(StorageError::Unknown { .. }) if self.desk().jobless.lock().get(&order).is_some() => {}
            Err(StorageError::Unknown { .. }) if newest.as_ref().and_then(run_of).is_none() => {
                self.desk().stats.updates_unchecked.add(updates.len() as u64);
            }
            Err(error) => return Err(error.into()),
        }
        let first = if newest.is_none() { First::Likely } else { First::No };
        let mut standing = newest.as_ref().map(Standing::of);
        if standing.as_ref().is_some_and(|standing| standing.kind.is_terminal()) {
            return Err(UpdateError::Ended);
        }
        let count = updates.len();
        let mut drafts = Vec::with_capacity(count);
        // All are checked before any is appended: a fault leaves nothing half done.
        for (index, OrderUpdate { standing: next, draft }) in updates.into_iter().enumerate() {
            let anew = standing.as_ref().map_or(1, |standing| standing.attempt + 1);
            may_follow(standing.as_ref(), &next, anew)
                .map_err(|problem| UpdateError::Invalid { index, problem })?;
            standing = Some(next);
            drafts.push(draft);
        }
        self.desk().append(order, drafts, None, first).await?;
        Ok(count)
    }
}
