//! Several nodes go through seeded outages, restarts and clocks an hour apart, over a model of the log. In
//! the end all nodes hold the same records: of each key the accepted write with the greatest version.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::clock::Version;
use super::core::Core;
use super::kind::RegistryKind;
use super::query::Query;
use super::record::{Body, Change};
use super::table::Outcome;

const KIND: RegistryKind = RegistryKind::Providers;
const HOUR_MS: i64 = 3_600_000;
const STEPS: usize = 120;

/// The log: everything that was appended, and the latest entry of each key with its producer, as a storage
/// keeps it.
#[derive(Default)]
struct Log {
    entries: Vec<Change>,
    latest: HashMap<Arc<str>, (Change, u64)>,
}

impl Log {
    /// Chooses the latest entry as storages do: of one producer by order, of several by the times of entries
    /// and then by producer.
    fn append(&mut self, change: Change, by: u64) {
        let held = self.latest.get(&change.key);
        let rank = |change: &Change, by| (change.draft().time, by);
        if held.is_none_or(|(held, of)| *of == by || rank(held, *of) < rank(&change, by)) {
            self.latest.insert(Arc::clone(&change.key), (change.clone(), by));
        }
        self.entries.push(change);
    }
}

struct Node {
    core: Core,
    clock_off_ms: i64,
    is_away: bool,
    /// What it appended while the log was away.
    journal: Vec<Change>,
    /// How many of the log's entries it has received.
    heard: usize,
}

struct World {
    rng: StdRng,
    now: Instant,
    wall_ms: i64,
    log: Log,
    nodes: Vec<Node>,
    /// Writes that were accepted.
    accepted: Vec<Change>,
    ttl: Duration,
}

impl World {
    fn new(seed: u64, ttl: Duration) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: Instant::now(),
            wall_ms: 1_700_000_000_000,
            log: Log::default(),
            nodes: Vec::new(),
            accepted: Vec::new(),
            ttl,
        };
        for _ in 0..3 {
            let node = world.born();
            world.nodes.push(node);
        }
        world
    }

    fn born(&mut self) -> Node {
        let me = self.rng.random();
        Node {
            core: Core::new(KIND, me, self.ttl),
            clock_off_ms: self.rng.random_range(-HOUR_MS..=HOUR_MS),
            is_away: false,
            journal: Vec::new(),
            heard: self.log.entries.len(),
        }
    }

    fn write(&mut self, at: usize) {
        let key = format!("{}", self.rng.random_range(0..6));
        let wall = u64::try_from(self.wall_ms + self.nodes[at].clock_off_ms).unwrap();
        let (is_removal, n, now) = (self.rng.random_bool(0.3), self.rng.random::<u32>(), self.now);
        let core = &mut self.nodes[at].core;
        if is_removal {
            if core.remove(&key, wall, now).is_none() {
                return;
            }
        } else {
            let json = Bytes::from(format!(r#"{{"userId":{key},"n":{n}}}"#));
            core.write(Body { key: key.as_str().into(), json }, None, wall, now);
        }
        self.accepted.extend(core.table.change(&key.as_str().into()));
    }

    fn flush(&mut self, at: usize) {
        let max = self.rng.random_range(1..5);
        let node = &mut self.nodes[at];
        let changes = node.core.take(max);
        // An append that fails is tried again.
        let count = if self.rng.random_bool(0.2) { changes.len() / 2 } else { changes.len() };
        node.core.appended(count);
        for change in changes.into_iter().take(count) {
            if node.is_away { node.journal.push(change) } else { self.log.append(change, node.core.me) }
        }
    }

    fn hear(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_away {
            return;
        }
        let to = self.rng.random_range(node.heard..=self.log.entries.len());
        for change in &self.log.entries[node.heard..to] {
            node.core.hear(change.clone(), self.now);
        }
        node.heard = to;
    }

    fn compare(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let before = node.core.table.versions();
        let latest = self.log.latest.iter();
        let stored: HashMap<Arc<str>, Version> =
            latest.map(|(key, (change, _))| (Arc::clone(key), change.version)).collect();
        for (change, _) in self.log.latest.values() {
            node.core.hear(change.clone(), self.now);
        }
        node.core.compare(&before, &stored, self.now);
    }

    /// The log is back for a node: it sends its journal, part of which may have been dropped, and then
    /// compares.
    fn come_back(&mut self, at: usize) {
        self.nodes[at].is_away = false;
        for change in std::mem::take(&mut self.nodes[at].journal) {
            if self.rng.random_bool(0.8) {
                let by = self.nodes[at].core.me;
                self.log.append(change, by);
            }
        }
        self.compare(at);
    }

    /// A node ends, and with it what only it knew; another one takes its place.
    fn restart(&mut self, at: usize) {
        let dead = self.nodes[at].core.me;
        let entries = &self.log.entries;
        let is_in_log = |change: &Change| {
            entries.iter().any(|entry| entry.key == change.key && entry.version == change.version)
        };
        self.accepted.retain(|change| change.version.node != dead || is_in_log(change));
        self.nodes[at] = self.born();
        self.compare(at);
    }

    fn step(&mut self) {
        let at = self.rng.random_range(0..self.nodes.len());
        let ms = self.rng.random_range(0..500);
        self.now += Duration::from_millis(ms);
        self.wall_ms += i64::try_from(ms).unwrap();
        match self.rng.random_range(0..100) {
            0..40 => self.write(at),
            40..60 => self.flush(at),
            60..80 => self.hear(at),
            80..85 if self.nodes[at].is_away => self.come_back(at),
            80..85 => self.nodes[at].is_away = true,
            85..90 if !self.nodes[at].is_away => self.compare(at),
            90..92 => self.restart(at),
            92..95 => {
                let (of_others, now) = (!self.nodes[at].is_away, self.now);
                self.nodes[at].core.expire(of_others, now);
            }
            _ => {}
        }
    }

    /// Everything works again, long enough for the holders of other nodes' writes to append them.
    fn heal(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_away {
                self.come_back(at);
            }
        }
        for _ in 0..4 {
            for at in 0..self.nodes.len() {
                while self.nodes[at].core.behind() > 0 {
                    self.flush(at);
                }
            }
            for at in 0..self.nodes.len() {
                while self.nodes[at].heard < self.log.entries.len() {
                    self.hear(at);
                }
                self.compare(at);
            }
        }
    }

    /// The live records as each node has them, and as a node would that starts now.
    fn views(&mut self) -> Vec<BTreeMap<String, String>> {
        let mut late = self.born();
        for (change, _) in self.log.latest.values() {
            late.core.hear(change.clone(), self.now);
        }
        let of = |core: &Core| {
            core.table.records().map(|record| (record.key.to_string(), record.version.to_string())).collect()
        };
        self.nodes.iter().map(|node| of(&node.core)).chain([of(&late.core)]).collect()
    }
}

fn newest(world: &World) -> BTreeMap<String, Version> {
    let mut newest: BTreeMap<String, Version> = BTreeMap::new();
    for change in &world.accepted {
        let version = newest.entry(change.key.to_string()).or_insert(change.version);
        *version = (*version).max(change.version);
    }
    newest
}

#[test]
fn all_nodes_converge_on_the_write_with_the_greatest_version() {
    for seed in 0..400 {
        let mut world = World::new(seed, Duration::from_secs(86_400));
        (0..STEPS).for_each(|_| world.step());
        world.heal();
        let expected: BTreeMap<String, String> = newest(&world)
            .into_iter()
            .filter(|(_, version)| !version.is_removal())
            .map(|(key, version)| (key, version.to_string()))
            .collect();
        for view in world.views() {
            assert_eq!(view, expected, "seed {seed}");
        }
    }
}

#[test]
fn with_expiry_nodes_converge_and_no_older_record_returns() {
    for seed in 1_000..1_400 {
        let mut world = World::new(seed, Duration::from_secs(8));
        (0..STEPS).for_each(|_| world.step());
        world.heal();
        let (newest, views) = (newest(&world), world.views());
        for view in &views {
            assert_eq!(*view, views[0], "seed {seed}");
            for (key, version) in view {
                assert_eq!(*version, newest[key].to_string(), "seed {seed}");
            }
        }
    }
}

fn body(json: &str) -> Body {
    Body::read(KIND, json, None, 1_000).unwrap()
}

#[test]
fn a_renewal_wins_over_a_concurrent_expiry() {
    let (ttl, start) = (Duration::from_secs(10), Instant::now());
    let (mut one, mut other) = (Core::new(KIND, 1, ttl), Core::new(KIND, 2, ttl));
    one.write(body(r#"{"userId":1}"#), None, 5_000, start);
    let written = one.take(9).remove(0);
    one.appended(1);
    assert_eq!(other.hear(written.clone(), start), Outcome::Newer);
    // The other node renews it by a clock that is far behind, and the first node does not know.
    other.write(body(r#"{"userId":1,"n":2}"#), None, 0, start + ttl / 2);
    assert_eq!(one.expire(true, start + ttl), 1);
    let (expired, renewed) = (one.take(9).remove(0), other.take(9).remove(0));
    one.appended(1);
    other.appended(1);
    assert_eq!(expired.version, written.version.removal());
    assert_eq!(one.hear(renewed.clone(), start + ttl), Outcome::Newer);
    assert_eq!(other.hear(expired, start + ttl), Outcome::Older);
    assert_eq!(other.behind(), 1, "it appends the winning record again");
    assert_eq!((one.table.get("1").unwrap().version, one.table.len()), (renewed.version, 1));
    // Another node's record does not expire while it is unknown whether it was renewed.
    assert_eq!((one.expire(false, start + 4 * ttl), one.expire(true, start + 4 * ttl)), (0, 1));
}

#[test]
fn a_key_waits_once_and_keeps_its_turn() {
    let start = Instant::now();
    let mut core = Core::new(KIND, 1, Duration::from_secs(10));
    for n in 0..10 {
        core.write(body(&format!(r#"{{"userId":{},"n":{n}}}"#, n % 2)), None, 0, start);
    }
    assert_eq!(core.behind(), 2);
    let changes = core.take(9);
    let texts: Vec<&str> = changes.iter().map(|change| change.record.as_ref().unwrap().text()).collect();
    assert_eq!(texts, [r#"{"userId":0,"n":8}"#, r#"{"userId":1,"n":9}"#]);
    core.write(body(r#"{"userId":2}"#), None, 0, start);
    core.appended(1);
    assert!(core.is_behind("1") && core.is_behind("2") && !core.is_behind("0"));
    let keys: Vec<Arc<str>> = core.take(9).into_iter().map(|change| change.key).collect();
    assert_eq!(keys, ["1".into(), "2".into()]);
}

#[test]
fn records_are_listed_by_their_fields_sorted_and_in_pages() {
    let mut core = Core::new(KIND, 1, Duration::from_secs(10));
    for json in [
        r#"{"userId":1,"status":"online","rating":4.5,"paymentMethods":["card","cash"]}"#,
        r#"{"userId":2,"status":"online","rating":10}"#,
        r#"{"userId":3,"status":"away","rating":9,"paymentMethods":["cash"]}"#,
        r#"{"userId":"x","status":"online"}"#,
    ] {
        core.write(body(json), None, 0, Instant::now());
    }
    let keys = |query: &Query| {
        let listing = query.of(&core.table);
        let keys: Vec<String> = listing.records.iter().map(|record| record.key.to_string()).collect();
        (keys.join(" "), listing.total, listing.next)
    };
    let filter = |field: &str, value: &str| vec![(field.to_owned(), value.to_owned())];
    let all = Query { limit: 9, ..Query::default() };
    for (field, value, found) in [
        ("userId", "1", "1"),
        ("status", "online", "1 2 x"),
        ("paymentMethods", "cash", "1 3"),
        ("rating", "10", "2"),
        ("rating", "11", ""),
        ("nothing", "", ""),
    ] {
        assert_eq!(keys(&Query { filter: filter(field, value), ..all.clone() }).0, found, "{field}={value}");
    }
    let first = keys(&Query { limit: 3, ..Query::default() });
    assert_eq!(first, ("1 2 3".to_owned(), 4, Some("3".to_owned())));
    assert_eq!(keys(&Query { after: first.2, ..all.clone() }), ("x".to_owned(), 4, None));
    for (is_descending, whole) in [(false, "1 3 2 x"), (true, "2 3 1 x")] {
        let mut query = Query { sort: Some(("rating".to_owned(), is_descending)), limit: 1, ..all.clone() };
        let mut found = Vec::new();
        loop {
            let (keys, _, next) = keys(&query);
            found.push(keys);
            query.after = next;
            assert!(query.is_readable());
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(found.join(" "), whole);
    }
    let strange = Query { sort: Some(("rating".to_owned(), false)), after: Some("3".to_owned()), ..all };
    assert!(!strange.is_readable());
}
