//! The settings of channels.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ChannelName, ChannelPolicy, Lane, Zone};
use crate::support::checks::Finding;
use crate::support::settings;

settings! {
    /// `[channels]`
    #[derive(Debug)]
    pub struct ChannelsConfig in "channels" {
        /// The lane of zones that are not in `lanes`: `latest` or `every`. Default `latest`.
        pub default_lane: Lane = Lane::Latest,
        /// Zones in all; publishing to a further one is refused. Subscribers may ask for twice as many, and
        /// for as many orders without a publication. Limited to a share of the memory: 20 KiB each, a 32nd in
        /// all. Default 10,000.
        pub zones_max: usize [1..] = 10_000,
        /// Memory for pages of logs that wait for readers or are cached for others, in bytes. Beyond it,
        /// readers that catch up get pages of 16 KiB. A 16th of the memory, if that is less. Default
        /// 134,217,728 (128 MiB).
        pub replay_bytes_max: usize [1..] = 128 << 20,
        /// The most keys of a zone, or of a type of events. Default 10,000.
        pub keys_per_zone_max: usize [1..] = 10_000,
        /// The most views of events (`event:ticker:binance:*`) that clients may follow at once; a view counts
        /// once, however many follow it. Default 10,000.
        pub views_max: usize [1..] = 10_000,
        /// How far in the future the time of a price may be, in seconds; a price further ahead is refused.
        /// Day-ahead prices need two days. Default 172,800.
        pub ahead_max_s: u64 = 172_800,
        /// Entries of a channel that may wait for the storage; when it is full, publishers wait. Default
        /// 4,096.
        pub publish_queue_entries: usize [1..] = 4_096,
        /// The most entries in one append to the storage. Default 50.
        pub append_batch_entries: usize [1..] = 50,
        /// How long a failing append is repeated before its publisher gets 503, in milliseconds. 0 answers at
        /// once. Default 2,000.
        pub publish_patience_ms: u64 = 2_000,
        /// How long to wait for a missing offset before the log is read, in milliseconds. 0 reads at once.
        /// Default 20.
        pub hole_timeout_ms: u64 = 20,
        /// After how long without subscribers and publishers a channel's actor ends, in seconds. Default 60.
        pub idle_after_s: u64 [1..] = 60,
        /// `[channels.lanes]`: the lane of each zone that differs from `default_lane`.
        pub lanes: BTreeMap<Zone, Lane>,
        /// `[channels.zone_ahead_max_s]`: `ahead_max_s` of each zone that needs another one, such as a zone
        /// of forward prices.
        pub zone_ahead_max_s: BTreeMap<Zone, u64>,
    }
}

impl ChannelsConfig {
    /// The lane of a channel.
    pub fn lane(&self, channel: &ChannelName) -> Lane {
        let configured = || {
            let zone: Option<Zone> = channel.subject().parse().ok();
            zone.and_then(|zone| self.lanes.get(&zone).copied()).unwrap_or(self.default_lane)
        };
        ChannelPolicy::of(channel).lane.unwrap_or_else(configured)
    }

    /// How far in the future the time of an entry of a channel may be.
    pub fn ahead_max(&self, channel: &ChannelName) -> Duration {
        let is_zone = ChannelPolicy::of(channel).is_listed;
        let zone: Option<Zone> = channel.subject().parse().ok().filter(|_| is_zone);
        let of_zone = zone.and_then(|zone| self.zone_ahead_max_s.get(&zone).copied());
        Duration::from_secs(of_zone.unwrap_or(self.ahead_max_s))
    }

    /// The invalid settings.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = self.check_ranges();
        checks.require(
            "append_batch_entries",
            self.append_batch_entries <= self.publish_queue_entries,
            || {
                format!(
                    "expected at most channels.publish_queue_entries ({}), found {}",
                    self.publish_queue_entries, self.append_batch_entries
                )
            },
        );
        checks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_its_own_lane_or_the_default() {
        let mut config = ChannelsConfig::default();
        config.lanes.insert("trades".parse().unwrap(), Lane::Every);
        assert_eq!(config.lane(&"zone:trades".parse().unwrap()), Lane::Every);
        assert_eq!(config.lane(&"zone:pjm".parse().unwrap()), Lane::Latest);
    }
}
