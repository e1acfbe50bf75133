//! What other rooms tell the registries: which connections are open, and the progress of orders.

use async_trait::async_trait;
use uuid::Uuid;

use crate::connections::Manager;
use crate::model::{DraftEntry, OrderId};
use crate::orders::OrderWatch;
use crate::registry::{OpenConnections, Registry};

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
