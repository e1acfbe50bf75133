//! Which faults come when, decided by a seed alone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::faults::Fault;

/// Faults last this long, in milliseconds.
const HOLD_MS: std::ops::RangeInclusive<u64> = 100..=10_000;
/// The pause between two faults.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 200..=8_000;

/// One fault of a random run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    /// How long all is well before it.
    pub(super) pause: Duration,
    pub(super) fault: Fault,
}

/// The faults of a run of this length. The same seed, length and faults give the same plan.
pub(super) fn plan(seed: u64, length: Duration, faults: &[Fault]) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut planned, mut at) = (Vec::new(), Duration::ZERO);
    while !faults.is_empty() {
        let pause = Duration::from_millis(random.random_range(PAUSE_MS));
        let hold = Duration::from_millis(random.random_range(HOLD_MS));
        let fault = Fault { hold, ..faults[random.random_range(0..faults.len())] };
        at += pause + hold;
        if at > length {
            break;
        }
        planned.push(Planned { pause, fault });
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outages::faults::FAULTS;

    #[test]
    fn a_plan_is_made_of_its_seed_alone() {
        let faults: Vec<Fault> = FAULTS.iter().copied().filter(Fault::is_for_random).collect();
        let planned_by = |seed| -> Vec<(Duration, &str, Duration)> {
            let plan = plan(seed, Duration::from_secs(600), &faults);
            plan.iter().map(|step| (step.pause, step.fault.name, step.fault.hold)).collect()
        };
        assert_eq!(planned_by(7), planned_by(7));
        assert_ne!(planned_by(7), planned_by(8));
        let total: Duration = planned_by(7).iter().map(|(pause, _, hold)| *pause + *hold).sum();
        assert!(total <= Duration::from_secs(600) && total > Duration::from_secs(500), "{total:?}");
        assert!(plan(7, Duration::from_secs(600), &[]).is_empty());
    }
}
