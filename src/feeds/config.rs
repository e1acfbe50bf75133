//! The `[feeds]` settings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exchanges::{self, ExchangeConfig};
use super::replay::Delimiter;
use super::replay::time::{TimeFormat, TimeZone};
use super::simulated::ZONES;
use crate::model::Zone;
use crate::support::checks::{Checks, Finding};
use crate::support::settings;

/// `[feeds]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedsConfig {
    /// `[feeds.simulated]`
    pub simulated: SimulatedConfig,
    /// `[feeds.replay]`
    pub replay: ReplayConfig,
    /// `[[feeds.exchanges]]`
    pub exchanges: Vec<ExchangeConfig>,
}

settings! {
    /// `[feeds.simulated]`: simulated prices of the North American power markets.
    #[derive(Debug)]
    pub struct SimulatedConfig in "feeds.simulated" {
        /// Whether the simulation runs. Default false; `zonewire demo` turns it on.
        pub enabled: bool = false,
        /// The same seed gives the same prices. Default 1.
        pub seed: u64 = 1,
        /// How often every hub gets a price, in milliseconds. Each step is five minutes of the
        /// simulated market. Default 1,000.
        pub interval_ms: u64 [1..] = 1_000,
        /// Which of pjm, ercot, caiso, miso, nyiso, isone, spp. Empty: all. Default all.
        pub zones: Vec<Zone>,
        /// Symbols, as BASE-QUOTE, of the simulated exchange `simulated`, each with a book and trades.
        /// Default none; `zonewire demo` has BTC-USDT.
        pub symbols: Vec<String>,
    }

    /// `[feeds.replay]`: prices from a CSV or NDJSON file, published once, from its beginning.
    #[derive(Debug)]
    pub struct ReplayConfig {
        /// The file. Unset: nothing is replayed.
        pub file: Option<PathBuf>,
        /// How many times faster than the file's times to replay, from 0.001 to 1,000,000. Default 1.
        pub speed: f64 = 1.0,
        /// Replay as fast as possible, ignoring the times. Default false.
        pub flat_out: bool = false,
        /// The zone of all prices, instead of a column.
        pub zone: Option<Zone>,
        /// The column that names the zone. Unset: found by its name.
        pub zone_column: Option<String>,
        /// The hub, node or symbol of all prices, instead of a column.
        pub key: Option<String>,
        /// The columns that name the hub, node or symbol, joined with `/`. Empty: one found by its name.
        pub key_columns: Vec<String>,
        /// The column that holds the price. Unset: found by its name; if there is none, bid and ask serve
        /// instead.
        pub price_column: Option<String>,
        /// The column that holds the bid. Unset: the one of that name.
        pub bid_column: Option<String>,
        /// The column that holds the ask. Unset: the one of that name.
        pub ask_column: Option<String>,
        /// The column that holds the time. Unset: found by its name.
        pub time_column: Option<String>,
        /// The format of the times, as for `strptime`. Unset: RFC 3339, numbers since 1970, and similar
        /// forms.
        pub time_format: Option<TimeFormat>,
        /// The time zone of times that do not state their own. Default UTC.
        pub time_zone: TimeZone,
        /// The delimiter of the columns of a CSV file. Unset: a comma.
        pub delimiter: Option<Delimiter>,
        /// Publish prices with the current time instead of the file's. Default false.
        pub now: bool = false,
        /// Count and skip invalid lines instead of ending the replay. Default false.
        pub skip_invalid: bool = false,
        /// `[feeds.replay.rename]`: new names of columns, as `old = "new"`.
        pub rename: BTreeMap<String, String>,
    }
}

impl FeedsConfig {
    /// Removes from addresses the parts that may contain a key.
    pub(crate) fn mask(&mut self) {
        self.exchanges.iter_mut().for_each(ExchangeConfig::mask);
    }

    /// The settings that cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut simulated = self.simulated.check_ranges();
        for zone in &self.simulated.zones {
            simulated.require("zones", ZONES.contains(&zone.as_str()), || {
                format!("expected some of {}; found {zone}", ZONES.join(", "))
            });
        }
        let mut replay = Checks::of("feeds.replay");
        let ReplayConfig { speed, flat_out, zone, zone_column, key, key_columns, now, file, .. } =
            &self.replay;
        replay.require("speed", is_speed(*speed), || format!("expected {SPEED_EXPECTED}, found {speed}"));
        replay.require("zone_column", zone.is_none() || zone_column.is_none(), || {
            "feeds.replay.zone names the zone of all prices: set one of the two".to_owned()
        });
        replay.require("key_columns", key.is_none() || key_columns.is_empty(), || {
            "feeds.replay.key names the key of all prices: set one of the two".to_owned()
        });
        replay.require("now", !(*now && *flat_out), || {
            "the spacing of the file is lost with feeds.replay.flat_out: set one of the two".to_owned()
        });
        let opened = file.as_ref().map_or(Ok(()), |file| is_readable(file));
        replay.require("file", opened.is_ok(), || {
            let problem = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
            format!("it cannot be read: {problem}")
        });
        for symbol in &self.simulated.symbols {
            simulated.require("symbols", exchanges::is_pair(symbol), || {
                format!("expected BASE-QUOTE such as BTC-USDT; found {symbol:?}")
            });
        }
        simulated.add(replay);
        let mut found = simulated.finish();
        found.extend(exchanges::check(&self.exchanges));
        found
    }
}

/// Whether the file exists and can be read. Its contents are only checked when it is replayed.
fn is_readable(file: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(file)?;
    match (metadata.is_dir(), metadata.is_file()) {
        (true, _) => Err(io::ErrorKind::IsADirectory.into()),
        (_, true) => File::open(file).map(drop),
        // Opening a pipe might block until it has a writer.
        _ => Ok(()),
    }
}

/// What a speed must be.
pub(crate) const SPEED_EXPECTED: &str = "a number from 0.001 to 1,000,000";

/// Whether this is a usable speed: slower, a feed would seem to stand still; faster is what `flat_out` is
/// for.
pub(crate) fn is_speed(speed: f64) -> bool {
    (0.001..=1_000_000.0).contains(&speed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_near_zero_is_refused() {
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
