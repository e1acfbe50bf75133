//! What can be configured about outside workers.

use serde::{Deserialize, Serialize};

/// `[interop]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InteropConfig {
    /// Whether updates of orders are exchanged with workers that use the Redis list
    /// `order:<id>:updates` and the pub/sub channel `order:<id>`. Default false.
    pub order_channels: bool,
}
