//! Which storage serves, and how well: said the same in health, stats, metrics and on the wire.

use crate::open::words;

words! {
    /// Which storage serves, as clients see it.
    pub enum BackendName {
        /// The log is in Redis (or Valkey) and shared between nodes.
        Redis = "redis",
        /// The log is in this process.
        InMemory = "in-memory",
    }
}

words! {
    /// How well it serves.
    pub enum BackendState {
        /// As configured.
        Healthy = "healthy",
        /// Redis is configured or required, and does not serve.
        Degraded = "degraded",
        /// Redis is back; what was missed is being put in order.
        Recovering = "recovering",
    }
}
