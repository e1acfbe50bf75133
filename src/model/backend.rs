//! Which storage serves, and how well: said the same in health, stats, metrics and on the wire.

use serde::Serialize;

/// Which storage serves, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    /// The log is in Redis (or Valkey) and shared between nodes.
    Redis,
    /// The log is in this process.
    InMemory,
}

impl BackendName {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::InMemory => "in-memory",
        }
    }
}

/// How well it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    /// As configured.
    Healthy,
    /// Redis is configured or required, and does not serve.
    Degraded,
    /// Redis is back; what was missed is being put in order.
    Recovering,
}

impl BackendState {
    /// Every state, for metrics.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Recovering];

    /// The name on the wire and as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Recovering => "recovering",
        }
    }
}
