use proptest::prelude::*;

use super::*;

const BEAT_MS: u64 = 200;

fn lost(code: &'static str) -> Lost {
    Lost { code, reason: "a test".to_owned() }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A state machine, and a clock that is moved by hand.
struct Driven {
    failover: Failover,
    now: Instant,
}

impl Driven {
    fn new(first: First) -> Self {
        let now = Instant::now();
        Self { failover: Failover::new(Limits::default(), first, now), now }
    }

    /// Redis does not serve, and its connections are up.
    fn connected(why: Lost) -> Self {
        let mut driven = Self::new(First::Memory(why));
        assert_eq!(driven.on(Signal::LinkUp), Step::Stay);
        driven
    }

    fn on(&mut self, signal: Signal) -> Step {
        self.failover.on(signal, self.now)
    }

    fn after(&mut self, wait_ms: u64, signal: Signal) -> Step {
        self.now += ms(wait_ms);
        self.on(signal)
    }

    fn state(&self) -> BackendState {
        self.failover.state()
    }

    /// Reports good probes and every tick until a recovery starts; returns how long that took.
    fn until_recovery(&mut self) -> Duration {
        let begun = self.now;
        let mut beat = self.now;
        loop {
            let tick = self.failover.next_tick().filter(|tick| *tick < beat);
            self.now = tick.unwrap_or(beat).max(self.now);
            let signal = if tick.is_some() { Signal::Tick } else { Signal::BeatOk };
            if tick.is_none() {
                beat += ms(BEAT_MS);
            }
            if self.on(signal) == Step::StartRecovery {
                return self.now - begun;
            }
            assert!(self.now - begun < ms(10_000), "it never recovers: {:?}", self.failover);
        }
    }

    fn recover(&mut self) -> Duration {
        let took = self.until_recovery();
        assert_eq!(self.on(Signal::Reconciled), Step::Recovered);
        took
    }
}

#[test]
fn degrades_at_once_on_each_kind_of_loss() {
    for signal in [Signal::BeatFailed(lost("a")), Signal::LinkDown(lost("a"))] {
        let mut driven = Driven::new(First::Redis);
        assert_eq!((driven.state(), driven.failover.reason()), (BackendState::Healthy, None));
        assert_eq!(driven.after(5, signal), Step::Degrade);
        assert_eq!(driven.state(), BackendState::Degraded);
        assert_eq!(driven.failover.reason(), Some(&lost("a")));
        assert_eq!(driven.failover.since(), driven.now);
    }
}

#[test]
fn the_newest_reason_is_reported_and_since_stays() {
    let mut driven = Driven::new(First::Redis);
    assert_eq!(driven.on(Signal::LinkDown(lost("unreachable"))), Step::Degrade);
    let since = driven.failover.since();
    assert_eq!(driven.after(50, Signal::BeatFailed(lost("loading"))), Step::Stay);
    assert_eq!((driven.failover.reason().unwrap().code, driven.failover.since()), ("loading", since));
}

#[test]
fn does_not_recover_before_the_dwell_time_and_two_good_beats() {
    let mut driven = Driven::connected(lost("unreachable"));
    assert_eq!(driven.failover.next_tick(), None);
    assert_eq!(driven.on(Signal::BeatOk), Step::Stay);
    // One probe is not enough, however old.
    assert_eq!(driven.after(1_000, Signal::Tick), Step::Stay);
    assert_eq!(driven.failover.next_tick(), None);
    assert_eq!(driven.on(Signal::BeatOk), Step::StartRecovery, "two, and the dwell time is long over");

    let mut driven = Driven::connected(lost("unreachable"));
    assert_eq!(driven.on(Signal::BeatOk), Step::Stay);
    assert_eq!(driven.after(200, Signal::BeatOk), Step::Stay);
    assert_eq!(driven.failover.next_tick(), Some(driven.now + ms(100)));
    assert_eq!(driven.after(99, Signal::Tick), Step::Stay);
    assert_eq!(driven.after(1, Signal::Tick), Step::StartRecovery);
    assert_eq!(driven.state(), BackendState::Recovering);
    assert_eq!(driven.failover.reason(), Some(&lost("unreachable")), "the reason of the outage");
    assert_eq!(driven.after(10, Signal::Reconciled), Step::Recovered);
    assert_eq!((driven.state(), driven.failover.since()), (BackendState::Healthy, driven.now));
    assert_eq!(driven.failover.reason(), None);
}

#[test]
fn a_failure_between_good_beats_restarts_the_count() {
    let mut driven = Driven::connected(lost("a"));
    assert_eq!(driven.on(Signal::BeatOk), Step::Stay);
    assert_eq!(driven.after(200, Signal::BeatFailed(lost("b"))), Step::Stay);
    assert_eq!(driven.after(200, Signal::BeatOk), Step::Stay);
    assert_eq!(driven.after(200, Signal::BeatOk), Step::Stay);
    assert_eq!(driven.after(100, Signal::Tick), Step::StartRecovery);
}

#[test]
fn beats_prove_nothing_while_a_connection_is_away() {
    let mut driven = Driven::new(First::Redis);
    assert_eq!(driven.on(Signal::LinkDown(lost("a"))), Step::Degrade);
    for _ in 0..10 {
        assert_eq!(driven.after(200, Signal::BeatOk), Step::Stay);
    }
    assert_eq!(driven.on(Signal::LinkUp), Step::Stay);
    assert_eq!(driven.until_recovery(), ms(300));
}

#[test]
fn a_loss_during_a_recovery_aborts_it() {
    for signal in [Signal::BeatFailed(lost("b")), Signal::LinkDown(lost("b"))] {
        let mut driven = Driven::connected(lost("a"));
        driven.until_recovery();
        assert_eq!(driven.after(1, signal), Step::AbortRecovery);
        assert_eq!(driven.state(), BackendState::Degraded);
        assert_eq!(driven.failover.reason(), Some(&lost("b")));
        assert_eq!(driven.on(Signal::Reconciled), Step::Stay, "too late");
        assert_eq!(driven.state(), BackendState::Degraded);
        assert_eq!(driven.on(Signal::LinkUp), Step::Stay);
        assert_eq!(driven.until_recovery(), ms(600), "a recovery that does not hold is a relapse");
    }
}

#[test]
fn lost_data_are_reconciled_without_leaving_redis() {
    let mut driven = Driven::new(First::Redis);
    assert_eq!(driven.on(Signal::DataLost(lost("older"))), Step::Reconcile);
    assert_eq!(driven.state(), BackendState::Recovering);
    assert_eq!(driven.after(5, Signal::DataLost(lost("other"))), Step::Reconcile, "from the beginning");
    assert_eq!(driven.failover.reason(), Some(&lost("other")));
    assert_eq!(driven.on(Signal::BeatOk), Step::Stay);
    assert_eq!(driven.on(Signal::Reconciled), Step::Recovered);
}

#[test]
fn lost_data_while_degraded_count_as_a_good_beat() {
    let mut driven = Driven::connected(lost("a"));
    assert_eq!(driven.on(Signal::DataLost(lost("other"))), Step::Stay);
    assert_eq!(driven.after(300, Signal::BeatOk), Step::StartRecovery);
}

#[test]
fn standalone_is_healthy_until_a_redis_appears() {
    let mut driven = Driven::new(First::Standalone);
    for signal in
        [Signal::LinkDown(lost("unreachable")), Signal::BeatFailed(lost("unreachable")), Signal::Tick]
    {
        assert_eq!(driven.after(1_000, signal), Step::Stay);
        assert_eq!((driven.state(), driven.failover.reason()), (BackendState::Healthy, None));
        assert!(driven.failover.is_standalone());
    }
    assert_eq!(driven.on(Signal::LinkUp), Step::Stay);
    assert_eq!(driven.until_recovery(), ms(300));
    assert_eq!((driven.state(), driven.failover.is_standalone()), (BackendState::Recovering, false));
    assert_eq!(driven.on(Signal::LinkDown(lost("b"))), Step::AbortRecovery);
    assert_eq!(driven.state(), BackendState::Degraded, "Redis has been seen, so losing it counts");
}

#[test]
fn relapses_double_the_dwell_time_and_a_quiet_minute_resets_it() {
    let mut driven = Driven::new(First::Redis);
    let relapse = |driven: &mut Driven, after_ms| {
        assert_eq!(driven.after(after_ms, Signal::BeatFailed(lost("a"))), Step::Degrade);
        driven.recover()
    };
    assert_eq!(relapse(&mut driven, 10), ms(300), "the first loss is no relapse");
    for expected in [600, 1_200, 2_000, 2_000] {
        assert_eq!(relapse(&mut driven, 10), ms(expected));
    }
    assert_eq!(relapse(&mut driven, 59_999), ms(2_000));
    assert_eq!(relapse(&mut driven, 60_000), ms(300));
}

#[test]
fn a_redis_that_comes_and_goes_moves_it_at_most_once_in_each_dwell_time() {
    let mut driven = Driven::new(First::Redis);
    let mut moves = 0;
    // Ten probes a second, the last of which fails.
    for n in 0..600 {
        let step = if n % 10 == 9 {
            driven.after(100, Signal::BeatFailed(lost("a")))
        } else {
            driven.after(100, Signal::BeatOk)
        };
        if step == Step::StartRecovery {
            moves += 1;
            assert_eq!(driven.on(Signal::Reconciled), Step::Recovered);
        }
    }
    // 0.3 and 0.6 s fit between two failures, 1.2 s does not.
    assert_eq!(moves, 2);
}

fn signals() -> impl Strategy<Value = Vec<(u64, Signal)>> {
    let signal = prop_oneof![
        6 => Just(Signal::BeatOk),
        2 => Just(Signal::BeatFailed(lost("beat"))),
        1 => Just(Signal::LinkDown(lost("link"))),
        2 => Just(Signal::LinkUp),
        1 => Just(Signal::DataLost(lost("data"))),
        3 => Just(Signal::Reconciled),
        3 => Just(Signal::Tick),
    ];
    let wait = prop_oneof![3 => 0..10u64, 6 => 50..400u64, 1 => 1_000..70_000u64];
    proptest::collection::vec((wait, signal), 0..200)
}

fn first() -> impl Strategy<Value = First> {
    prop_oneof![Just(First::Redis), Just(First::Memory(lost("first"))), Just(First::Standalone)]
}

/// What must hold for any sequence, implemented independently of the machine.
#[derive(Default)]
struct Witness {
    link_down: bool,
    /// When the first good probe since the last loss came, and how many there were.
    run: Option<(Instant, u32)>,
    /// There was a loss, and no recovery has succeeded since.
    outstanding: bool,
    recovery_started: Option<Instant>,
}

impl Witness {
    fn check(&mut self, driven: &mut Driven, signal: &Signal) {
        let (before, since, was_standalone) =
            (driven.state(), driven.failover.since(), driven.failover.is_standalone());
        let step = driven.on(signal.clone());
        let (now, after) = (driven.now, driven.state());
        match signal {
            Signal::LinkDown(_) | Signal::BeatFailed(_) => {
                self.link_down |= matches!(signal, Signal::LinkDown(_));
                self.outstanding |= !was_standalone;
                self.run = None;
            }
            Signal::DataLost(_) | Signal::BeatOk => {
                self.outstanding |=
                    before == BackendState::Healthy && !was_standalone && *signal != Signal::BeatOk;
                if !self.link_down {
                    let (begun, beats) = self.run.unwrap_or((now, 0));
                    self.run = Some((begun, beats + 1));
                }
            }
            Signal::LinkUp => self.link_down = false,
            Signal::Reconciled | Signal::Tick => {}
        }
        use BackendState::{Degraded, Healthy, Recovering};
        let allowed = match step {
            Step::Stay => before == after,
            Step::Degrade => (before, after) == (Healthy, Degraded),
            Step::StartRecovery => {
                (before, after) == (Degraded, Recovering) || (was_standalone && after == Recovering)
            }
            Step::AbortRecovery => (before, after) == (Recovering, Degraded),
            Step::Recovered => (before, after) == (Recovering, Healthy) && *signal == Signal::Reconciled,
            Step::Reconcile => before != Degraded && after == Recovering,
        };
        assert!(allowed, "{step:?} from {before:?} to {after:?}");
        assert_eq!(driven.failover.since(), if before == after { since } else { now });
        assert_eq!(driven.failover.reason().is_some(), after != Healthy);
        match step {
            Step::StartRecovery => {
                let (begun, beats) = self.run.expect("good beats");
                assert!(beats >= 2 && now - begun >= ms(300), "{beats} in {:?}", now - begun);
                assert!(self.recovery_started.is_none_or(|last| now - last >= ms(300)), "no flapping");
                self.recovery_started = Some(now);
            }
            Step::Recovered => self.outstanding = false,
            _ => {}
        }
        assert!(!(after == Healthy && self.outstanding), "healthy with a loss outstanding");
        assert!(!(after != Degraded && self.link_down && !driven.failover.is_standalone()), "a link is down");
    }
}

proptest! {
    #[test]
    fn any_sequence_keeps_its_promises(first in first(), signals in signals()) {
        let mut driven = Driven::new(first.clone());
        let mut witness = Witness { link_down: first != First::Redis, ..Witness::default() };
        // If memory serves first, nothing earlier makes that healthy.
        witness.outstanding = matches!(first, First::Memory(_));
        for (wait, signal) in &signals {
            driven.now += ms(*wait);
            witness.check(&mut driven, signal);
        }
        // From any state, good probes lead to a recovery, and a recovery to health.
        witness.check(&mut driven, &Signal::LinkUp);
        let mut beats = 0;
        while driven.state() == BackendState::Degraded || driven.failover.is_standalone() {
            driven.now += ms(BEAT_MS);
            witness.check(&mut driven, &Signal::BeatOk);
            beats += 1;
            prop_assert!(beats <= 12, "{:?}", driven.failover);
        }
        witness.check(&mut driven, &Signal::Reconciled);
        prop_assert_eq!(driven.state(), BackendState::Healthy);
        prop_assert_eq!(driven.failover.next_tick(), None);
    }

    #[test]
    fn a_requested_tick_has_the_announced_effect(first in first(), signals in signals()) {
        let mut driven = Driven::new(first);
        for (wait, signal) in signals {
            driven.now += ms(wait);
            let _step = driven.on(signal);
            if let Some(tick) = driven.failover.next_tick().filter(|tick| *tick > driven.now) {
                let mut copy = Driven { failover: driven.failover.clone(), now: tick };
                prop_assert_eq!(copy.on(Signal::Tick), Step::StartRecovery);
            }
        }
    }
}

#[test]
fn a_recovery_counts_from_the_beginning_of_its_outage() {
    let mut driven = Driven::new(First::Redis);
    // A loss of data is detected hours later, while Redis serves.
    assert_eq!(driven.after(18_000_000, Signal::DataLost(lost("data_lost"))), Step::Reconcile);
    let found = driven.now;
    assert_eq!(driven.failover.lost_at(), found);
    assert_eq!(driven.after(100, Signal::DataLost(lost("data_older"))), Step::Reconcile);
    assert_eq!(driven.failover.lost_at(), found, "the recovery continues");
    assert_eq!(driven.after(100, Signal::Reconciled), Step::Recovered);
    assert_eq!(driven.after(5_000, Signal::LinkDown(lost("unreachable"))), Step::Degrade);
    assert_eq!(driven.failover.lost_at(), driven.now);
    let mut standalone = Driven::new(First::Standalone);
    standalone.now += ms(3_600_000);
    assert_eq!(standalone.on(Signal::LinkUp), Step::Stay);
    standalone.until_recovery();
    assert_eq!(standalone.failover.lost_at(), standalone.now);
}
