//! What rooms report to others that do not know them: open connections, and the progress of orders.

use async_trait::async_trait;
use uuid::Uuid;
use zonewire_protocol::stats::Timing;

use crate::connections::Manager;
use crate::fleet::OpenSockets;
use crate::model::{DraftEntry, OrderId};
use crate::orders::OrderWatch;
use crate::registry::{OpenConnections, Registry};

/// For this node's record in the fleet.
#[async_trait]
impl OpenSockets for Manager {
    fn totals(&self) -> (u64, Timing) {
        let totals = Self::totals(self);
        (totals.connections.open, totals.messages.counts.delivery_duration)
    }

    async fn by_zone(&self) -> Vec<(String, u64)> {
        Self::by_zone(self).await.into_iter().collect()
    }
}

#[async_trait]
impl OpenConnections for Manager {
    async fn closed(&self, connections: Vec<Uuid>) -> Vec<Uuid> {
        Self::closed(self, connections).await
    }
}

/// Orders that are executed here are active orders.
impl OrderWatch for Registry {
    fn told(&self, order: OrderId, updates: &[DraftEntry]) {
        if let Some(newest) = updates.last() {
            self.follow_order(order, newest);
        }
    }
}
