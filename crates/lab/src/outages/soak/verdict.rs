//! Which values must return to what they were, and how much growth is not a leak.

use super::sample::{Held, Keys, Sample, is_of};

/// Memory is not returned to the byte: allocators keep some after a peak, and registries remember removals
/// for a day (see [`BOUNDED`]). What the gateway says it keeps in its replicas of logs comes on top: the load
/// goes on to other keys and orders, and each is kept for up to a day ([`KEPT`]).
pub(super) const GROWTH_BYTES: f64 = 24.0 * MIB;
/// Subscribers move between gateways all the time, and a connection of the suite's own may be idle or not.
const SLACK: f64 = 6.0;
/// This many more elements of a kind of key are not a leak: the load continues, and adds them while a sample
/// is taken.
const ELEMENTS_SLACK: u64 = 60;
/// The longest that a new key may last: a day, plus what clocks and scripts add.
const LASTS_MAX_MS: u64 = 26 * 3_600_000;

/// Gauges that do not return by themselves, and what bounds each.
pub(super) const BOUNDED: &[(&str, &str)] = &[
    ("zonewire_uptime_seconds", "it is a clock"),
    ("process_start_time_seconds", "it does not change"),
    ("process_resident_memory_bytes", "it is judged by itself"),
    ("zonewire_memory_bytes", "`storage.memory.total_bytes` and `put_back_bytes`"),
    ("zonewire_memory_latest_bytes", "half of `storage.memory.total_bytes`"),
    ("zonewire_registry_removals", "10,000 of a registry, each for a day"),
    ("zonewire_limits_principals", "65,536"),
    ("zonewire_registry_records", "the load writes 12 and removes them again; keys say whether others stay"),
    ("zonewire_replay_bytes", "`channels.replay_bytes_max`"),
];

/// Elements of keys that do not return by themselves, and what bounds them, by the beginning and the end of
/// their kind.
const BOUNDED_KEYS: &[(&str, &str, &str)] = &[
    ("", ":log", "`storage.retention`: 500 of each, and what is trimmed later"),
    ("zone:", "", "the load goes on to other keys: one for every 5 prices, for `key_age_s`"),
    ("event:ticker:", "", "the same"),
    ("event:trade:", "", "the same"),
    ("registry:", ":removed", "10,000 of a registry, each for a day"),
    ("registry:", ":removed-ages", "10,000 of a registry, each for a day"),
];

/// What bounds the elements of a kind of key that does not return.
pub(super) fn bound_of(kind: &str) -> Option<&'static str> {
    let is_of = |(begin, end, _): &&(&str, &str, &str)| kind.starts_with(begin) && kind.ends_with(end);
    BOUNDED_KEYS.iter().find(is_of).map(|(_, _, bound)| *bound)
}

/// The most entries of a log, including entries that are trimmed later.
const LOG_MAX: u64 = 700;

/// The values that have grown, in words; empty if all are as before.
pub(super) fn left(before: &Sample, after: &Sample) -> Vec<String> {
    let mut left = Vec::new();
    let grown = |name: &str| (after.gauge(name) - before.gauge(name)) / MIB;
    // A replica has no more than its log: what Redis does not hold as well explains nothing.
    let in_redis = replicated(before, after) as f64 * ENTRY_BYTES / MIB;
    let (all, kept) = (grown(MEMORY), grown(KEPT).clamp(0.0, in_redis));
    if all - kept > GROWTH_BYTES / MIB {
        left.push(format!("{all:.1} MiB of memory more, of which replicas of logs explain {kept:.1}"));
    }
    for (name, now) in &after.gauges {
        let is_bounded = BOUNDED.iter().any(|(of, _)| is_of(name, of));
        let was = before.gauges.get(name).copied().unwrap_or(0.0);
        if !is_bounded && *now > was + SLACK.max(was / 20.0) {
            left.push(format!("{name} is {now}, and was {was}"));
        }
    }
    if after.threads > before.threads + 2 {
        left.push(format!("{} threads, and there were {}", after.threads, before.threads));
    }
    match (&before.redis, &after.redis) {
        (Some(before), Some(after)) => left.extend(keys_left(before, after)),
        _ => left.push("Redis did not say what it holds".to_owned()),
    }
    left
}

/// The most that a replica takes for an entry of the load that Redis keeps, with its channel.
const ENTRY_BYTES: f64 = 1_024.0;

/// How many more entries Redis holds than before, of the logs and keys that gateways replicate.
fn replicated(before: &Sample, after: &Sample) -> u64 {
    let (Some(before), Some(after)) = (&before.redis, &after.redis) else { return 0 };
    let is_replicated = |kind: &str| [":log", ":latest", ":removed"].iter().any(|end| kind.ends_with(end));
    let grown =
        after.kinds.iter().filter(|(kind, _)| is_replicated(kind)).map(|(kind, now)| {
            now.elements.saturating_sub(before.kinds.get(kind).map_or(0, |was| was.elements))
        });
    grown.sum()
}

/// The gauge that is judged separately.
pub(super) const MEMORY: &str = "process_resident_memory_bytes";
/// What the gateway counts of entries and channels in memory; bounded by `storage.memory.total_bytes`.
pub(super) const KEPT: &str = "zonewire_memory_bytes";
pub(super) const MIB: f64 = 1_048_576.0;

fn keys_left(before: &Held, after: &Held) -> Vec<String> {
    let mut left = Vec::new();
    if after.clients > before.clients + 2 {
        left.push(format!("{} connections to Redis, and there were {}", after.clients, before.clients));
    }
    for (kind, now) in &after.kinds {
        let none = Keys::default();
        let was = before.kinds.get(kind).unwrap_or(&none);
        if now.lasting > was.lasting {
            left.push(format!(
                "{} keys `{kind}` without an end, and there were {}",
                now.lasting, was.lasting
            ));
        }
        // Most kinds have one key, with however many elements.
        if now.count > was.count && now.longest_ms > LASTS_MAX_MS {
            left.push(format!("a key `{kind}` that lasts {} h", now.longest_ms / 3_600_000));
        }
        let is_bounded = bound_of(kind).is_some();
        if kind.ends_with(":log") && now.elements > now.count * LOG_MAX {
            left.push(format!("{} entries in {} logs `{kind}`", now.elements, now.count));
        }
        // Elements of keys that expire go with their keys.
        let have_an_end = now.lasting == 0 && now.count > was.count;
        if !is_bounded && !have_an_end && now.elements > was.elements + ELEMENTS_SLACK.max(was.elements / 20)
        {
            left.push(format!("{} elements in `{kind}`, and there were {}", now.elements, was.elements));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample(gauges: &[(&str, f64)], kinds: &[(&str, Keys)]) -> Sample {
        let kinds = kinds.iter().map(|(kind, keys)| ((*kind).to_owned(), keys.clone())).collect();
        let gauges: BTreeMap<String, f64> =
            gauges.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect();
        Sample { gauges, threads: 9, redis: Some(Held { bytes: 1, clients: 3, kinds }) }
    }

    #[test]
    fn unbounded_growth_is_named_and_bounded_growth_is_not() {
        let keys = |count, lasting, elements, longest_ms| Keys { count, elements, lasting, longest_ms };
        let before = sample(&[("a", 10.0), (MEMORY, 1e8)], &[("churn:latest", keys(3, 3, 90, 0))]);
        assert_eq!(left(&before, &before), [""; 0]);
        type Change = fn(&mut Sample);
        let cases: [(Change, &str); 14] = [
            (
                |now| key(now, "churn:latest", 3, 3, 151, 0),
                "151 elements in `churn:latest`, and there were 90",
            ),
            (|now| key(now, "zone:log", 1, 0, 701, 9), "701 entries in 1 logs `zone:log`"),
            (|now| key(now, "registry:orders:removed", 1, 0, 5_000, 9), ""),
            (|now| _ = now.gauges.insert("a".to_owned(), 17.0), "a is 17, and was 10"),
            (|now| _ = now.gauges.insert("a".to_owned(), 16.0), ""),
            (|now| _ = now.gauges.insert("zonewire_registry_removals{r=\"x\"}".to_owned(), 999.0), ""),
            (
                |now| _ = now.gauges.insert(MEMORY.to_owned(), 1.3e8),
                "28.6 MiB of memory more, of which replicas of logs explain 0.0",
            ),
            // What is kept is explained by what Redis keeps as well, and by nothing else.
            (
                |now| now.gauges.extend([(MEMORY.to_owned(), 1.3e8), (KEPT.to_owned(), 1e7)]),
                "28.6 MiB of memory more, of which replicas of logs explain 0.0",
            ),
            (
                |now| {
                    now.gauges.extend([(MEMORY.to_owned(), 1.3e8), (KEPT.to_owned(), 1e7)]);
                    key(now, "order:latest", 12_000, 0, 12_000, 86_400_000);
                },
                "",
            ),
            (|now| now.threads = 12, "12 threads, and there were 9"),
            (|now| now.redis = None, "Redis did not say what it holds"),
            (
                |now| key(now, "churn:latest", 4, 4, 90, 0),
                "4 keys `churn:latest` without an end, and there were 3",
            ),
            (|now| key(now, "order:meta", 900, 0, 9_000, 86_400_000), ""),
            (|now| key(now, "order:meta", 9, 0, 9, 100_000_000), "a key `order:meta` that lasts 27 h"),
        ];
        for (change, expected) in cases {
            let mut now = before.clone();
            change(&mut now);
            assert_eq!(left(&before, &now).join("; "), expected);
        }
    }

    fn key(sample: &mut Sample, kind: &str, count: u64, lasting: u64, elements: u64, longest_ms: u64) {
        let keys = Keys { count, elements, lasting, longest_ms };
        sample.redis.as_mut().unwrap().kinds.insert(kind.to_owned(), keys);
    }
}
