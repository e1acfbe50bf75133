//! External workers, over HTTP: they claim, report and end orders call by call.

mod claiming;
mod reporting;

use std::time::Duration;

use tokio::time::Instant;

use super::config::LEASE_MAX;
use super::desk::{Desk, Orders};
use super::run::RunError;
use crate::model::OrderId;
use crate::storage::Held;

pub use claiming::Claimed;

/// What every call about a job must name.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The order.
    pub order: OrderId,
    /// The token that the claim returned.
    pub token: u64,
}

impl Orders {
    /// Renews a worker's lease, counted from now.
    ///
    /// # Errors
    /// The lease is lost, or the order was cancelled: then the worker ends it with
    /// [`give_up`](Self::give_up).
    pub async fn extend(&self, ticket: Ticket, lease_ms: Option<u64>) -> Result<(), RunError> {
        let (asked, lease) = (Instant::now(), self.lease(lease_ms));
        let held = self.desk().parts.backend.extend(ticket.order.into(), ticket.token, lease).await?;
        match held {
            Held::Yes => {
                self.desk().note_lease(ticket.order, ticket.token, asked + lease);
                Ok(())
            }
            Held::Cancelled => Err(RunError::Cancelled),
            Held::Lost => Err(RunError::LeaseLost),
        }
    }

    fn lease(&self, asked_ms: Option<u64>) -> Duration {
        let asked = asked_ms.map_or(self.config().lease(), Duration::from_millis);
        asked.clamp(Duration::from_secs(1), LEASE_MAX)
    }
}

impl Desk {
    fn note_lease(&self, order: OrderId, token: u64, until: Instant) {
        let mut leases = self.leases.lock();
        let held = leases.get(&order).filter(|(held, _)| *held == token).map(|(_, until)| *until);
        leases.insert(order, (token, held.map_or(until, |held| held.max(until))), 0);
    }

    /// Whether a lease certainly holds, by this process's own clock.
    fn is_held(&self, order: OrderId, token: u64, now: Instant) -> bool {
        self.leases.lock().get(&order).is_some_and(|(held, until)| *held == token && now < *until)
    }
}
