//! What other rooms contribute to this node's record in the fleet.

use async_trait::async_trait;
use zonewire_protocol::stats::Timing;

use crate::connections::Manager;
use crate::fleet::OpenSockets;

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
