//! Sources of prices and events other than publishers: exchanges, a simulation, and files.
//!
//! A feed only yields; its driver decides when to ask and where the prices go.

mod config;
mod exchanges;
mod pace;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
pub(crate) mod replay;
mod run;
mod simulated;

use crate::model::Zone;
use crate::protocol::RESERVED_FIELDS as RESERVED;

pub use config::{FeedsConfig, ReplayConfig, SimulatedConfig};
pub(crate) use config::{SPEED_EXPECTED, is_speed};
pub use exchanges::{ExchangeConfig, ExchangeKind, Interval, RowsConfig};
pub(crate) use exchanges::{ExchangeParts, FeedCounters, SIMULATED_EXCHANGE, run_exchange, run_market};
pub(crate) use pace::{Pace, Pacer};
pub use replay::Delimiter;
pub use replay::time::{TimeFormat, TimeZone};
pub(crate) use run::{run_replay, run_simulated};
pub(crate) use simulated::Simulated;

/// A price that a feed yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedPrice {
    /// The zone that it belongs to.
    pub(crate) zone: Zone,
    /// The body to POST to `/api/zones/{zone}/prices`: a compact JSON object.
    pub(crate) json: String,
}
