//! Which storage serves, and in what state it is: reported alike in health, stats, metrics and messages.

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
    /// The state of the storage.
    pub enum BackendState {
        /// As configured.
        Healthy = "healthy",
        /// Redis is configured or required, but does not serve.
        Degraded = "degraded",
        /// Redis is back, and the node is reconciling with it.
        Recovering = "recovering",
    }
}
