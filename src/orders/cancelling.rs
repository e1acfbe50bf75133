//! Cancelling an order, which goes until it is submitted.
//!
//! The job is marked. If nobody has it, the next claim of it ends the order. If somebody has, it learns so
//! from its lease, when that is extended or its next report is looked at; here at once, elsewhere within a
//! third of the lease. From its point of no return on (`Jobs::commit`) a job is not cancelled any more.

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
        let asked = self.desk().backend.cancel(order.into()).await?;
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
