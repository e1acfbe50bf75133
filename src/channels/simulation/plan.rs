//! What happens in a schedule, and when: drawn from its seed before it begins.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::ChannelName;
use crate::storage::model::{Faults, Laws};
use crate::support::mutant::Mutant;

/// What happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Disconnect { node: usize, later_ms: Option<u64> },
    Connect { node: usize },
    Stop,
    GoOn,
    RefuseWrites(bool),
    Save,
    Kill { loses: bool, later_ms: Option<u64> },
    ConnectAll,
    Flush,
    Faults(Faults),
    Crash { node: usize },
    StartNode { node: usize },
}

/// A schedule.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) channels: Vec<ChannelName>,
    pub(super) clients: usize,
    /// Of these, so many stay where they are.
    pub(super) steady_clients: usize,
    pub(super) journal_entries: usize,
    pub(super) starts_degraded: bool,
    pub(super) ordering_deadline_ms: u64,
    pub(super) batch: usize,
    pub(super) pause_ms: u64,
    pub(super) fences: bool,
    pub(super) faults: Faults,
    pub(super) laws: Laws,
    pub(super) mutant: Option<Mutant>,
    pub(super) acts: Vec<(u64, Act)>,
    pub(super) ends_ms: u64,
    /// The server loses data, or nodes crash.
    pub(super) loses: bool,
}

fn later(rng: &mut StdRng) -> Option<u64> {
    rng.random_bool(0.5).then(|| if rng.random_bool(0.5) { 0 } else { rng.random_range(1..1_500) })
}

impl Plan {
    /// The schedule of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let nodes = rng.random_range(1..4usize);
        let names = ["zone:lat", "zone:all", "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11"];
        let mut channels: Vec<ChannelName> =
            names.iter().filter(|_| rng.random_bool(0.5)).map(|name| name.parse().unwrap()).collect();
        if channels.is_empty() {
            channels.push(names[rng.random_range(0..3)].parse().unwrap());
        }
        let ends_ms: u64 = rng.random_range(1_200..4_000);
        let is_lossy = rng.random_bool(0.4);
        let faults = if is_lossy { Self::some_faults(rng) } else { Faults::default() };
        let loses = rng.random_bool(0.4);
        let crashes = loses && rng.random_bool(0.3);
        let mut acts = Vec::new();
        let mut next_node = nodes;
        for _ in 0..rng.random_range(1..6) {
            let at: u64 = rng.random_range(300..ends_ms);
            let until = at
                + if rng.random_bool(0.5) { rng.random_range(20..300) } else { rng.random_range(300..2_500) };
            let node = rng.random_range(0..nodes);
            match rng.random_range(0..9) {
                0..=2 => {
                    acts.push((at, Act::Disconnect { node, later_ms: later(rng) }));
                    acts.push((until, Act::Connect { node }));
                }
                3 => acts.extend([(at, Act::Stop), (until, Act::GoOn)]),
                4 => acts.extend([(at, Act::RefuseWrites(true)), (until, Act::RefuseWrites(false))]),
                5 => {
                    let faults = Self::some_faults(rng);
                    acts.extend([(at, Act::Faults(faults)), (until, Act::Faults(Faults::default()))]);
                }
                6 if loses => acts.push((at, Act::Flush)),
                7 if crashes => {
                    acts.extend([(at, Act::Crash { node }), (until, Act::StartNode { node: next_node })]);
                    next_node += 1;
                }
                _ => {
                    acts.push((at.saturating_sub(rng.random_range(10..900)), Act::Save));
                    acts.push((at, Act::Kill { loses, later_ms: later(rng) }));
                    acts.push((until, Act::ConnectAll));
                }
            }
        }
        acts.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            nodes,
            channels,
            clients: rng.random_range(2..6),
            steady_clients: 2,
            journal_entries: if rng.random_bool(0.2) { rng.random_range(3..40) } else { 100_000 },
            starts_degraded: rng.random_bool(0.1),
            ordering_deadline_ms: 250,
            batch: [2, 10, 50][rng.random_range(0..3)],
            pause_ms: [100, 250, 500][rng.random_range(0..3)],
            fences: rng.random_bool(0.3),
            faults,
            laws: Laws::default(),
            mutant: None,
            acts,
            ends_ms,
            loses,
        }
    }

    fn some_faults(rng: &mut StdRng) -> Faults {
        let mut some = |max: u32| if rng.random_bool(0.5) { rng.random_range(1..max) } else { 0 };
        Faults {
            slow: some(60),
            request_lost: some(60),
            answer_lost: some(60),
            answer_hangs: some(30),
            event_lost: some(60),
        }
    }
}
