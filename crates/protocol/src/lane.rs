//! What happens to a client that reads too slowly.

use serde::{Deserialize, Serialize};

/// What happens to a client that reads too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub enum Lane {
    /// A newer entry replaces the waiting one with the same key. For prices, tickers, book snapshots.
    #[default]
    Latest,
    /// Nothing is replaced; a reader that falls too far behind is closed with a code that says
    /// "reconnect and resume". For trades and orders.
    Every,
}
