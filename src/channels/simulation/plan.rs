//! What happens in a schedule, and when: drawn from its seed before it begins.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::{ChannelKind, ChannelName};
use crate::storage::redis_model::{Ages, Faults, Laws, Which};
use crate::support::mutant::Mutant;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Disconnect {
        node: usize,
        which: Which,
        later_ms: Option<u64>,
    },
    Connect {
        node: usize,
    },
    Stop,
    GoOn,
    RefuseWrites(bool),
    Save,
    Kill {
        loses: bool,
        later_ms: Option<u64>,
    },
    ConnectAll,
    Flush,
    /// The server goes back to a saved state, and no connection breaks.
    Rollback,
    Faults(Faults),
    Crash {
        node: usize,
    },
    StartNode {
        node: usize,
    },
}

/// Somebody publishes and removes keys at any node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anywhere {
    /// In addition to publishers at one node each.
    BesidesOthers,
    /// Instead of others, so that it may remove all keys.
    Only,
}

/// A schedule.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) channels: Vec<ChannelName>,
    pub(super) clients: usize,
    /// How many additional clients begin with snapshots, of zones only.
    pub(super) snapshot_clients: usize,
    pub(super) publishes_anywhere: Option<Anywhere>,
    /// How many of the other clients stay connected.
    pub(super) steady_clients: usize,
    pub(super) journal_entries: usize,
    pub(super) starts_degraded: bool,
    pub(super) ordering_deadline_ms: u64,
    pub(super) batch: usize,
    pub(super) pause_ms: u64,
    /// Nothing is published before this time.
    pub(super) born_ms: u64,
    /// How long clients that come and go stay, at most, and how long they are away.
    pub(super) stay_ms: u64,
    pub(super) away_ms: Range<u64>,
    /// After how long an unused channel ends.
    pub(super) idle_after_s: u64,
    /// When clients come.
    pub(super) comes_ms: Range<u64>,
    /// How many updates of an order are kept while the server is away.
    pub(super) order_updates: usize,
    /// Whether one node at a time writes an order, under a lease.
    pub(super) fences: bool,
    /// When the order gets its last update.
    pub(super) order_ends_ms: Option<u64>,
    pub(super) faults: Faults,
    pub(super) laws: Laws,
    pub(super) mutant: Option<Mutant>,
    pub(super) ages: Ages,
    /// Nobody publishes between these times.
    pub(super) quiet_ms: Option<(u64, u64)>,
    /// This node has all the readers, and publishes nothing.
    pub(super) readers_on: Option<usize>,
    pub(super) acts: Vec<(u64, Act)>,
    pub(super) ends_ms: u64,
    /// How many producers have appended to each channel in the days before.
    pub(super) producers_before: usize,
    /// Whether the server loses data, or nodes crash.
    pub(super) loses: bool,
}

impl Plan {
    /// The schedule of a seed. Most are short, with one or a few faults and the recovery from them, because
    /// many short ones find more than a few long ones; some are long nevertheless.
    pub(super) fn of(seed: u64) -> Self {
        let is_long = StdRng::seed_from_u64(!seed).random_bool(0.01);
        Self::with_length(seed, is_long)
    }

    /// A long schedule.
    pub(super) fn long(seed: u64) -> Self {
        Self::with_length(seed, true)
    }

    fn with_length(seed: u64, is_long: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        // Makes what follows independent of the length.
        let _length: f64 = rng.random();
        let nodes = [1, 2, 2, 2, 3][rng.random_range(0..5)];
        let mut names = ["zone:lat", "zone:all", "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11"];
        names.shuffle(rng);
        let count = [1, 1, 1, 1, 1, 2, 2, 3][rng.random_range(0..8)];
        let channels = names.iter().take(count).map(|name| name.parse().unwrap()).collect();
        let ends_ms: u64 =
            if is_long { rng.random_range(1_500..4_000) } else { rng.random_range(400..1_100) };
        let is_lossy = rng.random_bool(0.3);
        let faults = if is_lossy { Self::some_faults(rng) } else { Faults::default() };
        let loses = rng.random_bool(0.5);
        let crashes = loses && rng.random_bool(0.3);
        let fences = rng.random_bool(0.5);
        let mut acts = Vec::new();
        let mut next_node = nodes;
        for _ in 0..if is_long { rng.random_range(2..7) } else { rng.random_range(1..4) } {
            let at: u64 = rng.random_range(100..ends_ms);
            let lasts = match rng.random_range(0..10) {
                0..=5 => rng.random_range(20..200),
                6..=8 => rng.random_range(200..700),
                _ => rng.random_range(700..2_500),
            };
            let until = at + lasts;
            let node = rng.random_range(0..nodes);
            match rng.random_range(0..11) {
                0..=2 => {
                    acts.push((at, Act::Disconnect { node, which: Which::Both, later_ms: Self::later(rng) }));
                    acts.push((until, Act::Connect { node }));
                }
                3 => acts.extend([(at, Act::Stop), (until, Act::GoOn)]),
                4 => acts.extend([(at, Act::RefuseWrites(true)), (until, Act::RefuseWrites(false))]),
                5 => {
                    let faults = Self::some_faults(rng);
                    acts.extend([(at, Act::Faults(faults)), (until, Act::Faults(Faults::default()))]);
                }
                6 if loses => acts.push((at, Act::Flush)),
                // With several appending nodes, the lost offsets are filled before anybody notices.
                7 if loses && nodes == 1 && !crashes => {
                    acts.push((at.saturating_sub(rng.random_range(10..300)), Act::Save));
                    acts.push((at, Act::Rollback));
                }
                8 if crashes => {
                    acts.extend([(at, Act::Crash { node }), (until, Act::StartNode { node: next_node })]);
                    next_node += 1;
                }
                _ => {
                    acts.push((at.saturating_sub(rng.random_range(10..400)), Act::Save));
                    // A node that knows nothing of a log cannot see that it was set back.
                    acts.push((at, Act::Kill { loses: loses && !crashes, later_ms: Self::later(rng) }));
                    acts.push((until, Act::ConnectAll));
                }
            }
        }
        // Drawn from a separate generator, so that the draws above stay the same.
        let mut more = StdRng::seed_from_u64(seed ^ 0x0f0f_f0f0);
        let producers_before =
            if more.random_bool(0.3) { [3, 13, 16, 30][more.random_range(0..4)] } else { 0 };
        if more.random_bool(0.3) {
            let which = if more.random_bool(0.5) { Which::Commands } else { Which::Subscriber };
            let (at, node) = (more.random_range(50..ends_ms), more.random_range(0..nodes));
            acts.push((at, Act::Disconnect { node, which, later_ms: Self::later(&mut more) }));
            acts.push((at + more.random_range(20..700), Act::Connect { node }));
        }
        // Late and moving readers, and connections that break again during recovery.
        let mut of_moving = StdRng::seed_from_u64(seed.rotate_left(17) ^ 0x30e5);
        if of_moving.random_bool(0.25) {
            let (mut at, node) = (of_moving.random_range(50..ends_ms), of_moving.random_range(0..nodes));
            for _ in 0..of_moving.random_range(2..4) {
                acts.push((
                    at,
                    Act::Disconnect { node, which: Which::Both, later_ms: Self::later(&mut of_moving) },
                ));
                at += of_moving.random_range(50..600);
                acts.push((at, Act::Connect { node }));
                // Recovery begins about 300 ms later.
                at += of_moving.random_range(20..700);
            }
        }
        let comes_ms = if of_moving.random_bool(0.3) { ends_ms } else { 300 };
        let order_updates = if of_moving.random_bool(0.15) { of_moving.random_range(2..6) } else { 10_000 };
        acts.sort_by_key(|(at, _)| *at);
        // Drawn separately too. Some logs never begin.
        let mut of_birth = StdRng::seed_from_u64(seed.rotate_left(32) ^ 0xb1);
        let born_ms = if of_birth.random_bool(0.15) { of_birth.random_range(0..1_300) } else { 0 };
        let mut plan = Self {
            seed,
            born_ms,
            nodes,
            channels,
            clients: rng.random_range(2..4),
            snapshot_clients: 0,
            publishes_anywhere: None,
            steady_clients: 1,
            journal_entries: if rng.random_bool(0.25) { rng.random_range(3..20) } else { 100_000 },
            starts_degraded: rng.random_bool(0.1),
            ordering_deadline_ms: 250,
            batch: [2, 10, 50][rng.random_range(0..3)],
            pause_ms: [200, 400, 600][rng.random_range(0..3)],
            stay_ms: if is_long { 2_500 } else { 700 },
            away_ms: 0..if is_long { 1_500 } else { 300 },
            idle_after_s: 60,
            comes_ms: 0..comes_ms,
            order_updates,
            fences,
            // The replacement of a crashed node continues its order.
            order_ends_ms: (fences && !crashes && rng.random_bool(0.5))
                .then(|| rng.random_range(100..ends_ms + 200)),
            faults,
            laws: Laws::default(),
            mutant: None,
            ages: Ages::default(),
            quiet_ms: None,
            readers_on: None,
            acts,
            ends_ms,
            producers_before,
            loses,
        };
        if StdRng::seed_from_u64(seed.rotate_left(41) ^ 0xa9e).random_bool(0.04) {
            plan.grows_old();
        }
        plan
    }

    /// Entries expire, and so do logs to which nobody publishes for long.
    pub(super) fn grows_old(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x01d);
        let from = rng.random_range(0..self.ends_ms);
        let lasts =
            if rng.random_bool(0.5) { rng.random_range(500..3_000) } else { rng.random_range(4_200..6_000) };
        self.ages = Ages::SHORT;
        // Lost entries that would expire before they can be appended again are owed to nobody.
        self.acts.retain(|(_, act)| !matches!(act, Act::Flush | Act::Rollback));
        for (_, act) in &mut self.acts {
            if let Act::Kill { loses, .. } = act {
                *loses = false;
            }
        }
        self.quiet_ms = Some((from, from + lasts));
        self.ends_ms = self.ends_ms.max(from + lasts + rng.random_range(100..800));
    }

    /// One node misses the last entries because it lost only the connection that receives them.
    pub(super) fn ends_deaf(&mut self) {
        self.nodes = self.nodes.max(2);
        self.faults = Faults::default();
        let deaf = Act::Disconnect { node: 0, which: Which::Subscriber, later_ms: None };
        self.acts = vec![(self.ends_ms - 400, deaf)];
        (self.ages, self.pause_ms) = (Ages::default(), 200);
        self.quiet_ms = Some((self.ends_ms - 100, self.ends_ms + 1_000));
    }

    /// The log is set back while the readers' node does not look, or looks slowly; the node that wrote the lost
    /// entries is gone, and another one writes other entries at their offsets. Only the readers' node can tell.
    pub(super) fn goes_back_unseen(&mut self) {
        self.goes_back(self.seed % 4);
    }

    pub(super) fn goes_back_while_readers_are_away(&mut self) {
        self.goes_back(0);
    }

    pub(super) fn goes_back_while_put_in_order(&mut self) {
        self.goes_back(3);
    }

    fn goes_back(&mut self, way: u64) {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x0bac);
        self.has_wanderers();
        self.channels = vec!["zone:all".parse().unwrap()];
        (self.nodes, self.readers_on, self.pause_ms, self.born_ms) = (2, Some(0), 200, 0);
        (self.faults, self.starts_degraded, self.ages) = (Faults::default(), false, Ages::default());
        let slow = Act::Faults(Faults { slow: 300, ..Faults::default() });
        let breaks = Act::Disconnect { node: 0, which: Which::Both, later_ms: None };
        let is_late = rng.random_bool(0.5);
        let lost_at = 500 + rng.random_range(0..200);
        // Late readers have seen nothing of the log that they find.
        self.comes_ms = if is_late { 430..lost_at } else { 0..300 };
        self.quiet_ms = is_late.then_some((420, lost_at));
        let (lost_at, connects_at) = match way {
            0 => {
                // They are away longer than the channel's actor lives.
                (self.idle_after_s, self.away_ms) = (1, 2_500..3_000);
                (self.comes_ms, self.quiet_ms) = (0..300, Some((420, 1_800)));
                self.acts = vec![(1_800, breaks), (2_400, Act::Connect { node: 0 })];
                (1_800, 2_400)
            }
            1 => {
                let connects_at = lost_at + rng.random_range(200..900);
                self.acts = vec![(lost_at, breaks), (connects_at, Act::Connect { node: 0 })];
                (lost_at, connects_at)
            }
            2 => {
                self.acts = vec![(lost_at - 50, slow)];
                (lost_at, lost_at + rng.random_range(200..900))
            }
            _ => {
                // The readers' node is still reconciling the channel when the log is set back.
                let connects_at = lost_at + 20;
                let lost_again_at = connects_at + rng.random_range(250..900);
                self.acts = vec![(lost_at, breaks), (connects_at, Act::Connect { node: 0 })];
                let slow = Faults { slow: 300, event_slow: 1_000, ..Faults::default() };
                self.acts.push((connects_at + 250, Act::Faults(slow)));
                self.quiet_ms = Some((lost_at, lost_again_at));
                (lost_again_at, lost_again_at + 700)
            }
        };
        self.acts.extend([(300, Act::Save), (lost_at, Act::Crash { node: 1 }), (lost_at, Act::Rollback)]);
        self.acts.push((lost_at, Act::StartNode { node: 2 }));
        self.acts.sort_by_key(|(at, _)| *at);
        self.ends_ms = connects_at + 800;
        self.loses = true;
    }

    /// Everything happens once more afterwards.
    pub(super) fn happens_twice(&mut self) {
        let later_ms = self.ends_ms + 700;
        let again: Vec<(u64, Act)> = self.acts.iter().map(|(at, act)| (at + later_ms, *act)).collect();
        // Each node starts once.
        self.acts.extend(again.into_iter().filter(|(_, act)| !matches!(act, Act::StartNode { .. })));
        self.acts.sort_by_key(|(at, _)| *at);
        self.ends_ms += later_ms;
    }

    /// Clients come and go before anything is published, on at least two nodes.
    pub(super) fn has_many_before_birth(&mut self) {
        self.born_ms = 300;
        self.has_wanderers();
    }

    /// More clients, none of which stays, on at least two nodes.
    pub(super) fn has_wanderers(&mut self) {
        (self.nodes, self.clients, self.steady_clients) = (self.nodes.max(2), 5, 0);
        (self.stay_ms, self.away_ms) = (300, 0..100);
        self.channels.truncate(1);
        self.without_crashes();
    }

    /// Zones only; clients that begin with snapshots, and one that stays.
    pub(super) fn has_snapshots(&mut self) {
        (self.clients, self.snapshot_clients) = (1, 3);
        self.channels.retain(|channel| channel.kind() == ChannelKind::Zone);
        if self.channels.is_empty() {
            self.channels.push("zone:all".parse().unwrap());
        }
    }

    /// Events only, with clients that follow views, some of which begin with snapshots.
    pub(super) fn has_views(&mut self) {
        (self.clients, self.snapshot_clients) = (5, 3);
        let name = if self.seed.is_multiple_of(2) { "event:trade" } else { "event:ticker" };
        self.channels = vec![name.parse().unwrap()];
    }

    /// Zones with snapshots, where somebody publishes and removes keys at any node.
    pub(super) fn has_removals(&mut self) {
        self.has_snapshots();
        let is_only = self.seed.is_multiple_of(2);
        self.publishes_anywhere = Some(if is_only { Anywhere::Only } else { Anywhere::BesidesOthers });
    }

    fn without_crashes(&mut self) {
        self.acts.retain(|(_, act)| !matches!(act, Act::Crash { .. } | Act::StartNode { .. }));
    }

    fn later(rng: &mut StdRng) -> Option<u64> {
        rng.random_bool(0.5).then(|| if rng.random_bool(0.5) { 0 } else { rng.random_range(1..700) })
    }

    fn some_faults(rng: &mut StdRng) -> Faults {
        let mut some = |max: u32| if rng.random_bool(0.5) { rng.random_range(1..max) } else { 0 };
        Faults {
            slow: some(100),
            request_lost: some(100),
            answer_lost: some(100),
            answer_hangs: some(40),
            event_lost: some(100),
            event_slow: 0,
        }
    }
}
