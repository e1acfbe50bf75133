use std::sync::atomic::AtomicU64;

use super::*;
use crate::support::mutant::Mutant;

/// Runs plans of seeds on both cores until this many have failed.
fn run_all(
    seeds: std::ops::Range<u64>,
    max: usize,
    change: impl Fn(&mut Plan) + Sync,
) -> Vec<(u64, Vec<String>)> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let sum = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().len() >= max {
                        return;
                    }
                    if env("ZONEWIRE_SIM_VERBOSE").is_some() {
                        eprintln!("{seed}");
                    }
                    let mut plan = Plan::of(seed);
                    change(&mut plan);
                    let outcome = run(&plan, false);
                    let mut sum = sum.lock();
                    sum.accepted += outcome.accepted;
                    sum.refused += outcome.refused;
                    sum.resumed += outcome.resumed;
                    sum.settled_ms = sum.settled_ms.max(outcome.settled_ms);
                    if !plan.loses {
                        sum.gaps.extend(outcome.gaps);
                    }
                    if !outcome.faults.is_empty() {
                        failed.lock().push((seed, outcome.faults));
                    }
                }
            });
        }
    });
    let sum = sum.into_inner();
    println!(
        "accepted {}, refused {}, resumed {}, gaps told without a loss {}, slowest to settle {} ms",
        sum.accepted,
        sum.refused,
        sum.resumed,
        sum.gaps.len(),
        sum.settled_ms
    );
    let mut failed = failed.into_inner();
    failed.sort();
    failed
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_that_was_accepted_is_lost_doubled_or_out_of_order() {
    if let Some(seed) = env("ZONEWIRE_SIM_SEED") {
        let plan = Plan::of(seed);
        let logs = tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false);
        let logs = logs.with_max_level(tracing::Level::DEBUG).with_writer(std::io::stdout).finish();
        let _logs = tracing::subscriber::set_default(logs);
        let outcome = run(&plan, true);
        println!("{plan:#?}\n{:#?}", outcome.gaps);
        assert!(outcome.faults.is_empty(), "{:#?}", outcome.faults);
        return;
    }
    let failed = run_all(0..env("ZONEWIRE_SIM_SEEDS").unwrap_or(1_500), 10, |_| {});
    let how = "ZONEWIRE_SIM_SEED=<seed> cargo test --lib simulation -- --nocapture";
    assert!(failed.is_empty(), "{failed:#?}\nto see one alone: {how}");
}

/// Each rule that is left out is noticed within a few thousand schedules.
#[test]
fn a_rule_that_is_left_out_is_noticed() {
    type Change = fn(&mut Plan);
    let rules: [(&str, Change); 4] = [
        ("own entries in flight are first in a fork", |plan| {
            plan.mutant = Some(Mutant::ForkWithoutInFlight);
        }),
        ("what the log lost is put back", |plan| plan.mutant = Some(Mutant::TailNotPutBack)),
        ("what others wrote is read", |plan| plan.mutant = Some(Mutant::RejoinWithoutReading)),
        ("what was had is filtered", |plan| plan.mutant = Some(Mutant::NothingWasHad)),
    ];
    let missed: Vec<&str> = rules
        .into_iter()
        .filter(|(rule, change)| {
            let failed = run_all(0..3_000, 1, change);
            println!("{rule}: {:?}", failed.first());
            failed.is_empty()
        })
        .map(|(rule, _)| rule)
        .collect();
    assert!(missed.is_empty(), "nothing notices that this is left out: {missed:?}");
}
