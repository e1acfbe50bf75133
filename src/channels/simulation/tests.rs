use std::sync::atomic::AtomicU64;

use super::*;
use crate::storage::model::Laws;
use crate::support::mutant::Mutant;

/// What many schedules came to.
#[derive(Debug, Default)]
struct Sum {
    failed: BTreeMap<u64, Vec<String>>,
    /// In how many schedules it happened.
    seen: BTreeMap<Kind, u64>,
    accepted: usize,
    refused: usize,
    gaps: usize,
    settled_ms: u128,
}

/// Runs plans of seeds on all cores until this many have failed.
fn run_all(seeds: std::ops::Range<u64>, max: usize, change: impl Fn(&mut Plan) + Sync) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sum.lock().failed.len() >= max {
                        return;
                    }
                    if env("ZONEWIRE_SIM_VERBOSE").is_some() {
                        eprintln!("{seed}");
                    }
                    let mut plan = Plan::of(seed);
                    change(&mut plan);
                    let outcome = run(&plan, Trace::Off);
                    let mut sum = sum.lock();
                    sum.accepted += outcome.accepted;
                    sum.refused += outcome.refused;
                    sum.settled_ms = sum.settled_ms.max(outcome.settled_ms);
                    if !plan.loses {
                        sum.gaps += outcome.gaps.len();
                    }
                    outcome.seen.iter().for_each(|kind| *sum.seen.entry(*kind).or_default() += 1);
                    if !outcome.faults.is_empty() {
                        sum.failed.insert(seed, outcome.faults);
                    }
                }
            });
        }
    });
    sum.into_inner()
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What is run without being asked for more.
const SEEDS: u64 = 10_000;

/// In so many of these schedules each of it must happen, at least; fewer, and they are no longer about
/// what they are there for.
const AT_LEAST: [(Kind, u64); 15] = [
    (Kind::Degraded, 1),
    (Kind::Fork, 1),
    (Kind::LateFork, 1),
    (Kind::Rejoin, 1),
    (Kind::Flush, 1),
    (Kind::Rollback, 1),
    (Kind::LostLog, 1),
    (Kind::OlderLog, 1),
    (Kind::PutBack, 1),
    (Kind::Crash, 1),
    (Kind::Thinning, 1),
    (Kind::Refusal, 1),
    (Kind::Resumed, 1),
    (Kind::Gap, 1),
    (Kind::Ended, 1),
];

#[test]
fn nothing_that_was_accepted_is_lost_doubled_or_out_of_order() {
    if let Some(seed) = env("ZONEWIRE_SIM_SEED") {
        let plan = Plan::of(seed);
        let logs = tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false);
        let logs = logs.with_max_level(tracing::Level::DEBUG).with_writer(std::io::stdout).finish();
        let _logs = tracing::subscriber::set_default(logs);
        let outcome = run(&plan, Trace::Print);
        println!("{plan:#?}\n{:#?}", outcome.gaps);
        assert!(outcome.faults.is_empty(), "{:#?}", outcome.faults);
        return;
    }
    let asked = env("ZONEWIRE_SIM_SEEDS");
    let from = env("ZONEWIRE_SIM_FROM").unwrap_or(0);
    let sum = run_all(from..from + asked.unwrap_or(SEEDS), 10, |_| {});
    let Sum { seen, accepted, refused, gaps, settled_ms, failed } = sum;
    println!("accepted {accepted}, refused {refused}, gaps told without a loss {gaps}");
    println!("slowest to settle {settled_ms} ms; {seen:?}");
    let how = "ZONEWIRE_SIM_SEED=<seed> cargo test --lib simulation -- --nocapture";
    assert!(failed.is_empty(), "{failed:#?}\nto see one alone: {how}");
    if asked.is_none() {
        let rare = AT_LEAST.iter().filter(|(kind, least)| seen.get(kind).is_none_or(|times| times < least));
        assert_eq!(rare.collect::<Vec<_>>(), Vec::<&(Kind, u64)>::new(), "happened too rarely: {seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_schedule_to_the_last_word() {
    let sum = |seed| run(&Plan::of(seed), Trace::Sum).sum;
    let differing: Vec<u64> = (0..60).filter(|seed| sum(*seed) != sum(*seed)).collect();
    assert_eq!(differing, [0; 0]);
}

/// Each rule that is left out is noticed by the schedules that are run by default.
#[test]
fn a_rule_that_is_left_out_is_noticed() {
    type Change = fn(&mut Plan);
    let rules: [(&str, Change); 11] = [
        ("own entries in flight are first in a fork", |plan| {
            plan.mutant = Some(Mutant::ForkWithoutInFlight);
        }),
        ("what the log lost is put back", |plan| plan.mutant = Some(Mutant::TailNotPutBack)),
        ("what others wrote is read", |plan| plan.mutant = Some(Mutant::RejoinWithoutReading)),
        ("what was had is filtered", |plan| plan.mutant = Some(Mutant::NothingWasHad)),
        ("each reader has had what it has had", |plan| plan.mutant = Some(Mutant::OneHighWaterMark)),
        ("readers are told of forks", |plan| plan.mutant = Some(Mutant::ForksNotTold)),
        ("a fork takes up readers up to its base", |plan| plan.mutant = Some(Mutant::ForkBehindReader)),
        ("the chain is whole without what was thinned", |plan| {
            plan.mutant = Some(Mutant::ThinnedWithoutPrev);
        }),
        ("the log looks at the chain", |plan| {
            plan.laws = Laws { no_chain_check: true, ..Laws::default() };
        }),
        ("the log looks at the epoch", |plan| {
            plan.laws = Laws { no_epoch_check: true, ..Laws::default() };
        }),
        ("an append makes no epoch", |plan| plan.laws = Laws { append_mints: true, ..Laws::default() }),
    ];
    let missed: Vec<&str> = rules
        .into_iter()
        .filter(|(rule, change)| {
            let failed = run_all(0..SEEDS, 1, change).failed;
            println!("{rule}: {:?}", failed.first_key_value());
            failed.is_empty()
        })
        .map(|(rule, _)| rule)
        .collect();
    assert!(missed.is_empty(), "nothing notices that this is left out: {missed:?}");
}
