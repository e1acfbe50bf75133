//! Sources of prices and events other than publishers: exchanges, a simulation, and files.
//!
//! A feed only yields; its driver decides when to ask and where the prices go.

/// Reads and writes a type in settings as text, in the form of its `FromStr` and `Display`.
macro_rules! text_in_settings {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FeedPrice {
    /// The zone that it belongs to.
    pub(crate) zone: Zone,
    /// The body to POST to `/api/zones/{zone}/prices`: a compact JSON object.
    pub(crate) json: String,
}
