//! What can be configured about feeds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::simulated::ZONES;
use crate::model::Zone;
use crate::support::checks::{Checks, Finding};

/// `[feeds]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedsConfig {
    /// `[feeds.simulated]`
    pub simulated: SimulatedConfig,
    /// `[feeds.replay]`
    pub replay: ReplayConfig,
}

/// `[feeds.simulated]`: made-up prices of the North American power markets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulatedConfig {
    /// Whether it runs. Default false; `zonewire demo` turns it on.
    pub enabled: bool,
    /// The same seed gives the same prices. Default 1.
    pub seed: u64,
    /// How often every hub gets a price, in milliseconds. Each step is five minutes of the
    /// simulated market. Default 1,000.
    pub interval_ms: u64,
    /// Which of pjm, ercot, caiso, miso, nyiso, isone, spp. Empty: all. Default all.
    pub zones: Vec<Zone>,
}

impl Default for SimulatedConfig {
    fn default() -> Self {
        Self { enabled: false, seed: 1, interval_ms: 1_000, zones: Vec::new() }
    }
}

/// `[feeds.replay]`: prices from a CSV or NDJSON file, once, from its beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// The file. Unset: this feed does not run.
    pub file: Option<PathBuf>,
    /// How many times faster than in the file, from 0.001 to 1,000,000. Default 1.
    pub speed: f64,
    /// As fast as it goes, whatever the times say. Default false.
    pub flat_out: bool,
    /// The zone of all prices, instead of a column.
    pub zone: Option<Zone>,
    /// The column that names the zone. Unset: found by its name.
    pub zone_column: Option<String>,
    /// The hub, node or symbol of all prices, instead of a column.
    pub key: Option<String>,
    /// The column that names the hub, node or symbol. Unset: found by its name.
    pub key_column: Option<String>,
    /// The column that holds the price. Unset: found by its name.
    pub price_column: Option<String>,
    /// The column that holds the time. Unset: found by its name.
    pub time_column: Option<String>,
    /// `[feeds.replay.rename]`: columns that get another name, as `old = "new"`.
    pub rename: BTreeMap<String, String>,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            file: None,
            speed: 1.0,
            flat_out: false,
            zone: None,
            zone_column: None,
            key: None,
            key_column: None,
            price_column: None,
            time_column: None,
            rename: BTreeMap::new(),
        }
    }
}

impl FeedsConfig {
    /// What cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut simulated = Checks::of("feeds.simulated");
        simulated.at_least_1("interval_ms", self.simulated.interval_ms);
        for zone in &self.simulated.zones {
            simulated.require("zones", ZONES.contains(&zone.as_str()), || {
                format!("expected some of {}; found {zone}", ZONES.join(", "))
            });
        }
        let mut replay = Checks::of("feeds.replay");
        let ReplayConfig { speed, zone, zone_column, key, key_column, .. } = &self.replay;
        replay.require("speed", is_speed(*speed), || format!("expected {SPEED_EXPECTED}, found {speed}"));
        replay.require("zone_column", zone.is_none() || zone_column.is_none(), || {
            "feeds.replay.zone names the zone of all prices: set one of the two".to_owned()
        });
        replay.require("key_column", key.is_none() || key_column.is_none(), || {
            "feeds.replay.key names the key of all prices: set one of the two".to_owned()
        });
        let mut found = simulated.finish();
        found.extend(replay.finish());
        found
    }
}

/// What a speed must be.
pub(crate) const SPEED_EXPECTED: &str = "a number from 0.001 to 1,000,000";

/// Whether time can run at this speed: slower, a feed would seem to stand still; faster, it is flat out.
pub(crate) fn is_speed(speed: f64) -> bool {
    (0.001..=1_000_000.0).contains(&speed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_at_which_nothing_would_ever_come_is_refused() {
        for (speed, good) in [
            (1.0, true),
            (0.001, true),
            (1e6, true),
            (0.000_999, false),
            (1e-12, false),
            (0.0, false),
            (-1.0, false),
            (1_000_001.0, false),
            (f64::INFINITY, false),
            (f64::NAN, false),
        ] {
            let mut feeds = FeedsConfig::default();
            feeds.replay.speed = speed;
            let found: Vec<String> =
                feeds.check().into_iter().map(|found| format!("{}: {}", found.key, found.problem)).collect();
            let expected = format!("feeds.replay.speed: expected {SPEED_EXPECTED}, found {speed}");
            assert_eq!(found, if good { vec![] } else { vec![expected] });
        }
    }
}
