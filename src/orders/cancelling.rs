//! Cancelling an order, which is possible until it is submitted.
//!
//! The job is marked. If no worker has claimed it, the next claim ends the order. A worker that has it learns
//! of the mark when it extends its lease or reports: at once on this node, within a third of the lease on
//! others. Past its point of no return (`Jobs::commit`) a job cannot be cancelled any more.

use tracing::info;

use super::desk::{Desk, Orders};
use super::run::{Run, RunError};
use crate::model::OrderId;
use crate::storage::{Cancelling, Result as StorageResult};

impl Orders {
    /// Asks for an order to be ended before it is submitted.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn cancel(&self, order: OrderId) -> StorageResult<Cancelling> {
        let asked = self.desk().parts.backend.cancel(order.into()).await?;
        if asked == Cancelling::Asked {
            info!(%order, "order asked to be cancelled");
            self.desk().cancels.send_replace(());
            self.desk().queued.notify_waiters();
        }
        Ok(asked)
    }
}

impl Desk {
    /// Ends an order that was cancelled in time.
    pub(super) async fn end_cancelled(&self, run: &mut Run) -> Result<(), RunError> {
        self.end(run, "cancelled", "the order was cancelled", false).await
    }
}
