//! Defaults that fit the available memory.

use std::collections::BTreeMap;

use super::Config;
use crate::http::ANSWERS_BYTES_LEAST;

/// An estimate for a WebSocket: its task, its buffers, and what waits for it.
const CONNECTION_BYTES: usize = 16 << 10;

/// An estimate for an order, with its stored updates.
const ORDER_BYTES: usize = 4 << 10;

/// An estimate for a zone that is published to or followed, without its entries; twice as many zones may be
/// followed.
const ZONE_BYTES: usize = 20 << 10;

/// More than an idle process takes.
const BASE_BYTES: usize = 16 << 20;

/// A default that is limited to a share of the memory.
struct Share {
    key: &'static str,
    /// Its share, as a divisor: 4 stands for a quarter of the memory.
    of: u64,
    /// The bytes that one of its units takes.
    unit: usize,
    least: fn(&Config) -> usize,
    value: fn(&mut Config) -> &mut usize,
    /// Whether it counts in the sum of all bounds.
    counts: bool,
}

const TOTAL: &str = "storage.memory.total_bytes";
const RETENTION: &str = "storage.retention.bytes";

macro_rules! shares {
    ($($section:ident$(.$name:ident)+: 1 / $of:literal in $unit:expr, least $least:expr, $counts:expr;)+) => {
        [$(Share {
            key: concat!(stringify!($section), $(".", stringify!($name)),+),
            of: $of,
            unit: $unit,
            least: $least,
            value: |config| &mut config.$section$(.$name)+,
            counts: $counts,
        }),+]
    };
}

/// The shares. Those that count are about three quarters together; the rest is for the process itself and for
/// what is in transit. Outboxes do not count, because their size depends on how slow clients are, nor do
/// orders in the queue, which are among those that are kept. Every entry must fit into an outbox.
const SHARES: [Share; 11] = shares! {
    storage.memory.total_bytes: 1 / 4 in 1, least |_| 1 << 20, true;
    storage.journal.bytes: 1 / 8 in 1, least |_| 1 << 20, true;
    storage.memory.put_back_bytes: 1 / 16 in 1, least |_| 1 << 20, true;
    connections.max: 1 / 12 in CONNECTION_BYTES, least |_| 64, true;
    orders.queue_max: 1 / 32 in ORDER_BYTES, least |_| 64, false;
    orders.kept_max: 1 / 16 in ORDER_BYTES, least |config| config.orders.queue_max, true;
    connections.outbox_bytes_max: 1 / 256 in 1, least |config| config.http.line_bytes_max, false;
    http.answers_bytes_max: 1 / 32 in 1, least |_| ANSWERS_BYTES_LEAST, true;
    http.bodies_bytes_max: 1 / 32 in 1, least |config| config.http.bodies_bytes_least(), true;
    channels.replay_bytes_max: 1 / 16 in 1, least |_| 1 << 20, true;
    channels.zones_max: 1 / 32 in ZONE_BYTES, least |_| 64, true;
};

/// Lowers the defaults that exceed their share of this memory, and records why. Configured values are not
/// changed.
pub(super) fn fit(config: &mut Config, origins: &mut BTreeMap<String, String>, memory: u64) {
    let is_set = [TOTAL, RETENTION].map(|key| origins.contains_key(key));
    for Share { key, of, unit, least, value, .. } in SHARES {
        if origins.contains_key(key) {
            continue;
        }
        let share = usize::try_from(memory / of).unwrap_or(usize::MAX) / unit;
        let share = share.max(least(config));
        let value = value(config);
        if share < *value {
            *value = share;
            origins.insert(key.to_owned(), format!("a share of {} MiB of memory", memory >> 20));
        }
    }
    // One channel may not retain more than all of them together; the value that was set determines the other
    // one.
    let (total, retention) = (&mut config.storage.memory.total_bytes, &mut config.storage.retention.bytes);
    if *retention > *total {
        match is_set {
            [_, false] => {
                *retention = *total;
                origins.insert(RETENTION.to_owned(), format!("no more than {TOTAL}"));
            }
            [false, true] => {
                *total = *retention;
                origins.insert(TOTAL.to_owned(), format!("as much as {RETENTION}"));
            }
            [true, true] => {}
        }
    }
}

/// A warning if all bounds together exceed this memory.
pub(super) fn warning(config: &Config, memory: u64) -> Option<String> {
    let mut config = config.clone();
    let shares = SHARES.iter().filter(|share| share.counts);
    let parts: Vec<(&str, usize)> =
        shares.map(|share| (share.key, (share.value)(&mut config).saturating_mul(share.unit))).collect();
    let all = parts.iter().fold(BASE_BYTES, |all, (_, bytes)| all.saturating_add(*bytes));
    if u64::try_from(all).is_ok_and(|all| all <= memory) {
        return None;
    }
    let parts: Vec<String> = parts.iter().map(|(key, bytes)| format!("{key} {} MiB", bytes >> 20)).collect();
    let parts = parts.join(", ");
    Some(format!(
        "the bounds add up to {} MiB, but there are {} MiB of memory: {parts}; lower the configured values, or \
         leave them out for a share of the memory",
        all >> 20,
        memory >> 20
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::flag;
    use crate::config::{Loaded, Sources};

    const MIB: u64 = 1 << 20;

    fn load(memory: u64, set: &[(&str, &str)]) -> Loaded {
        let flags = set.iter().map(|(key, value)| flag("--set", key, value)).collect();
        Config::load(&Sources { memory: Some(memory), flags, ..Sources::default() }).unwrap()
    }

    #[test]
    fn where_there_is_enough_the_defaults_are_what_they_are() {
        for memory in [8 << 30, u64::MAX] {
            let loaded = load(memory, &[]);
            assert_eq!(loaded.config, Config::default());
            assert_eq!((loaded.origins.len(), loaded.warning), (0, None));
        }
    }

    #[test]
    fn each_has_its_share_of_a_small_container() {
        let loaded = load(64 * MIB, &[]);
        let Config { storage, connections, orders, .. } = &loaded.config;
        assert_eq!((orders.kept_max, orders.queue_max), (1_024, 512));
        assert_eq!((storage.memory.total_bytes, storage.retention.bytes), (16 << 20, 16 << 20));
        assert_eq!((storage.journal.bytes, storage.memory.put_back_bytes), (8 << 20, 4 << 20));
        assert_eq!((connections.max, connections.outbox_bytes_max), (341, 256 << 10));
        let Config { http, channels, .. } = &loaded.config;
        assert_eq!((http.bodies_bytes_max, http.answers_bytes_max), (2 << 20, 2 << 20));
        assert_eq!((channels.replay_bytes_max, channels.zones_max), (4 << 20, 102));
        assert_eq!(loaded.warning, None);
        assert!(
            loaded.show().contains("total_bytes = 16777216  # a share of 64 MiB of memory"),
            "{}",
            loaded.show()
        );
        let tiny = load(8 * MIB, &[]).config;
        assert_eq!((tiny.storage.memory.total_bytes, tiny.storage.retention.bytes), (2 << 20, 2 << 20));
        assert_eq!(tiny.connections.outbox_bytes_max, tiny.http.line_bytes_max);
        assert_eq!(tiny.http.bodies_bytes_max, tiny.http.body_bytes_max);
    }

    #[test]
    fn what_is_set_wins_and_is_warned_of_where_it_is_too_much() {
        let loaded = load(64 * MIB, &[("storage.memory.total_bytes", "33554432")]);
        assert_eq!(loaded.config.storage.memory.total_bytes, 32 << 20);
        let warning = loaded.warning.unwrap();
        assert!(warning.contains("add up to 79 MiB, but there are 64 MiB"), "{warning}");
        assert!(warning.contains("storage.memory.total_bytes 32 MiB"), "{warning}");
        let loaded = load(64 * MIB, &[("storage.memory.total_bytes", "4194304"), ("connections.max", "500")]);
        let Config { storage, connections, .. } = &loaded.config;
        assert_eq!((storage.retention.bytes, connections.max, loaded.warning), (4 << 20, 500, None));
        let config = load(64 * MIB, &[("storage.retention.bytes", "20971520")]).config;
        assert_eq!((config.storage.memory.total_bytes, config.storage.retention.bytes), (20 << 20, 20 << 20));
    }
}
