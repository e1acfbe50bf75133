use std::sync::atomic::AtomicU64;

use super::*;

/// Runs seeds on both cores, and answers the faults of the first that fail.
fn run_all(seeds: std::ops::Range<u64>, max: usize) -> Vec<(u64, Vec<String>)> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let stats = Mutex::new((0usize, 0usize, 0u64, 0usize, 0u128));
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
                    let outcome = run(&Plan::of(seed), false);
                    let mut stats = stats.lock();
                    stats.0 += outcome.accepted;
                    stats.1 += outcome.refused;
                    stats.2 += outcome.resumed;
                    stats.3 += outcome.gaps.len();
                    stats.4 = stats.4.max(outcome.settled_ms);
                    if !outcome.faults.is_empty() {
                        failed.lock().push((seed, outcome.faults));
                    }
                }
            });
        }
    });
    println!("accepted, refused, resumed, gaps, slowest: {:?}", stats.lock());
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
    let failed = run_all(0..env("ZONEWIRE_SIM_SEEDS").unwrap_or(10_000), 10);
    let how = "ZONEWIRE_SIM_SEED=<seed> cargo test --lib simulation -- --nocapture";
    assert!(failed.is_empty(), "{failed:#?}\nto see one alone: {how}");
}
