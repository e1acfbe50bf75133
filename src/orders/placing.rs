//! Placing an order, and placing a dead letter again.

use bytes::Bytes;
use tracing::debug;

use super::config::WhenDegraded;
use super::desk::Orders;
use super::request::{InvalidOrder, OrderRequest};
use crate::access::Owner;
use crate::model::OrderId;
use crate::storage::{Enqueued, Idempotency, JobKind, JobState, JobView, NewJob, StorageError};

/// An order that was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The order's id.
    pub order: OrderId,
    /// Whether the same request was placed before, as this order.
    pub repeated: bool,
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The idempotency key was used for another order.
    #[error("this idempotency key was used for another order; use a new key for a new order")]
    Conflict,
    /// The queue has as many unfinished orders as it may have.
    #[error("there are {max} orders under way already; try again in a moment")]
    Full {
        /// The bound.
        max: usize,
    },
    /// The storage did not answer: the order may have been placed nevertheless.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[from] StorageError),
}

/// Why a dead letter was not placed again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// It is not a dead letter, or was placed again already.
    #[error("this order is no dead letter, or was placed again before")]
    Unknown,
    /// It may have been executed.
    #[error(
        "this order was submitted before it failed: find out what became of it, and if it was not carried \
         out, place it again with force (`?force=true`, on the command line `--force`)"
    )]
    MayBeSubmitted,
    /// It could not be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl Orders {
    /// Reads an order as clients send it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(&self, text: &str) -> Result<OrderRequest, InvalidOrder> {
        self.desk().parts.schema.read(text)
    }

    /// Queues an order for its owner, if it has one. With an idempotency key, the same request with the same
    /// key and owner gives the same order for as long as keys are kept.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub async fn place(
        &self,
        request: &OrderRequest,
        key: Option<&str>,
        owner: Option<Owner>,
    ) -> Result<Placed, PlaceError> {
        let payload = Bytes::copy_from_slice(request.as_json().get().as_bytes());
        let (random, is_retry) = (OrderId::random(), request.retry_of().is_some());
        let order = owner.map_or(random, |owner| OrderId(owner.name(random.0)));
        let idempotency = key.map(|key| Idempotency {
            // Keys of the gateway, of an owner and of other clients must not collide.
            key: match owner {
                _ if is_retry => key.to_owned(),
                Some(owner) => format!("of:{owner}:{key}"),
                None => format!("client:{key}"),
            },
            fingerprint: request.fingerprint(),
        });
        let kind = Some(JobKind::clone(&self.desk().parts.kind));
        let job = NewJob { id: order.into(), payload, kind, idempotency };
        let bounds = self.desk().parts.config.bounds();
        // Any node may be asked to place a dead letter again, so the new order must be where all nodes
        // see it.
        let may_keep = self.desk().parts.config.when_degraded == WhenDegraded::Accept && !is_retry;
        let queued = match may_keep {
            true => self.desk().parts.backend.enqueue_here(&job, &bounds).await,
            false => self.desk().parts.backend.enqueue(&job, &bounds).await,
        };
        match queued? {
            Enqueued::Queued => {
                self.desk().stats.placed.add(1);
                debug!(%order, retry_of = request.retry_of().map(tracing::field::display), "order placed");
                self.desk().queued.notify_waiters();
                Ok(Placed { order, repeated: false })
            }
            Enqueued::Repeated(job) => {
                self.desk().stats.repeated.add(1);
                Ok(Placed { order: job.into(), repeated: true })
            }
            Enqueued::Conflict => Err(PlaceError::Conflict),
            Enqueued::Full => {
                self.desk().stats.refused_full.add(1);
                Err(PlaceError::Full { max: self.desk().parts.config.queue_max })
            }
        }
    }

    /// Places a dead letter's order again, as a new order of the same owner; the old order stays ended. Two
    /// requests at once give one new order. An order that may have been submitted is placed again only with
    /// `force`: somebody has to find out first what became of it.
    ///
    /// # Errors
    /// See [`RetryError`].
    pub async fn retry_dead_letter(&self, order: OrderId, force: bool) -> Result<Placed, RetryError> {
        let job: Option<JobView> =
            self.desk().parts.backend.job(order.into()).await.map_err(PlaceError::from)?;
        let job = job.filter(|job| job.state == JobState::Dead).ok_or(RetryError::Unknown)?;
        let request: OrderRequest =
            serde_json::from_slice(&job.payload).map_err(|_error| RetryError::Unknown)?;
        if job.committed && !force {
            return Err(RetryError::MayBeSubmitted);
        }
        let (key, owner) = (format!("dead-letter:{order}"), Owner::of_order(order.0));
        let placed = self.place(&request.as_retry_of(order), Some(&key), owner).await?;
        self.desk().parts.backend.settle_dead(order.into()).await.map_err(PlaceError::from)?;
        Ok(placed)
    }
}
