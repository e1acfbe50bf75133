//! The result of one fault, and which promises it shows to be broken.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::kept::JudgedLog;
use super::mirror::Mirrored;
use super::registries::JudgedRecords;
use super::witness::Judged;

/// The result of one run of a fault. Times are in milliseconds.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Outcome {
    pub(super) fault: String,
    pub(super) about: String,
    /// The number of this run of the fault, counting from 1.
    pub(super) run: u32,
    /// How many faults; more than one in a random run.
    pub(super) faults: u64,
    pub(super) held_s: f64,
    pub(super) orders: Tally,
    pub(super) every: Tally,
    pub(super) latest: Tally,
    /// Events of a durable type.
    pub(super) events: Tally,
    /// Events of a live type; `told` are those whose loss was announced.
    pub(super) live: Tally,
    /// Trades of the exchange that the gateways have a feed from; `accepted` are those made once there was a
    /// feed.
    pub(super) trades: Tally,
    /// Whether hardly any of the trades that the exchange made since Redis served again reached some gateway's
    /// subscriber.
    pub(super) trades_stopped: bool,
    /// The findings on records.
    pub(super) records: JudgedRecords,
    /// From when Redis served again until all gateways had the same records, of those that are not written
    /// any more; `None` if they never had.
    pub(super) equal_ms: Option<f64>,
    /// From when the gateway that had the feed was killed until another one had it.
    pub(super) taken_over_ms: Option<f64>,
    /// The fencing tokens of the gateways that had the feed, in order; of a fault that kills the first one.
    pub(super) fences: Vec<u64>,
    /// How much later than before the fault a trade came to a subscriber of the first gateway, at most.
    pub(super) later_trades_ms: Option<f64>,
    /// How much later than before the fault an entry came to a subscriber of the gateway that accepted it, at
    /// most.
    pub(super) later_latest_ms: Option<f64>,
    pub(super) later_every_ms: Option<f64>,
    /// From the fault until the last gateway that it reached reported it in `/ws/health`.
    pub(super) noticed_ms: Option<f64>,
    /// From the fault until the last socket that got a `backend_state` got it.
    pub(super) socket_told_ms: Option<f64>,
    /// All gateways were healthy in the end.
    pub(super) recovered: bool,
    /// From when Redis served again until they were; `None` if they never were anything else.
    pub(super) recovered_ms: Option<f64>,
    /// From the same moment until every entry accepted by then had come to all subscribers.
    pub(super) caught_up_ms: Option<f64>,
    /// The longest time that a gateway wrongly said that it is healthy.
    pub(super) falsely_healthy_ms: f64,
    /// The same, that it is not.
    pub(super) falsely_degraded_ms: f64,
    pub(super) health_unanswered: u64,
    pub(super) subscribers: u64,
    /// Sockets that ended unintentionally.
    pub(super) sockets_cut: u64,
    /// Sockets of a gateway that was killed.
    pub(super) cut_by_the_fault: u64,
    /// Why those of `sockets_cut` ended.
    pub(super) cuts: BTreeMap<String, u64>,
    /// `error` messages to subscribers.
    pub(super) errors: BTreeMap<String, u64>,
    /// Memory of the gateway that grew most.
    pub(super) memory_before_bytes: Option<u64>,
    pub(super) memory_after_bytes: Option<u64>,
    /// How late the suite itself was at most: times are too long by at most this much.
    pub(super) suite_late_ms: f64,
    /// Some of the lost entries, in words.
    pub(super) lost_examples: Vec<String>,
    /// Some of the entries that came twice, or behind a later one of the same producer.
    pub(super) odd_examples: Vec<String>,
    /// Some of the untrue statements, or of the omitted ones.
    pub(super) false_examples: Vec<String>,
    /// Channels whose logs could not be read at the end.
    pub(super) logs_unread: u64,
    /// What new subscribers of all orders were told at the end, each at another gateway than the order's own.
    pub(super) read_anew: Judged,
    /// What subscribers that begin with snapshots knew at the end.
    pub(super) snapshots: Mirrored,
    /// Broken promises, except those on times.
    pub(super) broken: Vec<String>,
}

/// The findings on one kind of entry.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Tally {
    pub(super) posted: u64,
    /// Posts answered with 2xx.
    pub(super) accepted: u64,
    /// Refusals by code; `no_answer` is a request that was not answered.
    pub(super) refused: BTreeMap<String, u64>,
    /// Deliveries to all subscribers together.
    #[serde(flatten)]
    pub(super) judged: Judged,
    /// What is wrong with the logs at the end.
    pub(super) log: JudgedLog,
}

impl Tally {
    pub(super) fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Entries that were wrongly said to be gone or missed.
    pub(super) fn false_words(&self) -> u64 {
        self.judged.falsely_gone + self.log.falsely_missed
    }
}

/// Milliseconds, to a tenth.
pub(super) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// How much a gateway may have grown in the end, besides the memory of the entries that it holds.
const GROWTH_BYTES: u64 = 16 * 1024 * 1024;
/// The memory that an accepted entry may take.
const ENTRY_BYTES: u64 = 1024;

impl Outcome {
    /// The tally of each kind of entry.
    pub(super) fn tallies(&self) -> [&Tally; 6] {
        [&self.orders, &self.every, &self.latest, &self.events, &self.live, &self.trades]
    }

    /// Fills in the broken promises; those on times are checked by [`Limits`].
    pub(super) fn find_broken(&mut self) {
        let mut broken = self.broken_records();
        let kinds = [
            ("order updates", &self.orders),
            ("prices (every)", &self.every),
            ("prices (latest)", &self.latest),
            ("durable events", &self.events),
            ("live events", &self.live),
            ("trades of the exchange", &self.trades),
        ];
        for (name, tally) in kinds {
            let Judged { lost, doubled, reordered, falsely_gone, .. } = tally.judged;
            let log = &tally.log;
            let wrong = [
                ("lost", lost),
                ("doubled", doubled),
                ("reordered", reordered),
                ("said to be gone that are not", falsely_gone),
                ("that say missedBefore and missed nothing", log.falsely_missed),
                ("in no log, and nobody said so", log.unsaid),
                ("doubled in the log", log.doubled),
                ("reordered in the log", log.reordered),
            ];
            for (what, count) in wrong {
                if count > 0 {
                    broken.push(format!("{count} {name} {what}"));
                }
            }
            // A run that measured nothing proves nothing.
            if tally.posted > 0 && tally.accepted == 0 {
                broken.push(format!("no {name} accepted"));
            }
        }
        if self.trades_stopped {
            broken.push("the exchange's trades do not come any more".to_owned());
        }
        let Judged { lost, doubled, reordered, .. } = self.read_anew;
        for (what, count) in [("missing", lost), ("doubled", doubled), ("reordered", reordered)] {
            if count > 0 {
                broken.push(format!("{count} order updates {what} for new subscribers"));
            }
        }
        let Mirrored { stale, left_in_part, counted, subscribers, .. } = &self.snapshots;
        let wrong = [
            ("keys not up to date behind a snapshot", *stale),
            ("subscribers left in the middle of a snapshot", *left_in_part),
            ("messages that must not be with snapshots", counted.odd),
        ];
        for (what, count) in wrong.into_iter().filter(|(_, count)| *count > 0) {
            broken.push(format!("{count} {what}"));
        }
        if *subscribers > 0 && counted.whole == 0 {
            broken.push("no whole snapshot".to_owned());
        }
        let left_out: u64 = kinds.iter().map(|(_, tally)| tally.judged.left_out).sum();
        if left_out > 0 {
            broken.push(format!("{left_out} subscribers were never subscribed"));
        }
        if self.logs_unread > 0 {
            broken.push(format!("the logs of {} channels could not be read", self.logs_unread));
        }
        if self.sockets_cut > 0 {
            broken.push(format!("{} sockets cut", self.sockets_cut));
        }
        if !self.recovered {
            broken.push("not healthy again".to_owned());
        }
        if let (Some(before), Some(after)) = (self.memory_before_bytes, self.memory_after_bytes) {
            let entries: u64 = kinds.iter().map(|(_, tally)| tally.accepted).sum();
            let accepted = entries + self.records.written;
            let grown = after.saturating_sub(before);
            if grown > GROWTH_BYTES + accepted * ENTRY_BYTES {
                broken.push(format!("a gateway has grown by {} MiB", grown / (1024 * 1024)));
            }
        }
        self.broken = broken;
    }

    /// What is wrong with records, and with the owner of the feed.
    fn broken_records(&self) -> Vec<String> {
        let JudgedRecords { written, refused, unequal, lost, came_back, .. } = self.records;
        let wrong = [
            ("records not the same at all gateways", unequal),
            ("records lost", lost),
            ("records came back that were removed", came_back),
        ];
        let mut broken: Vec<String> = wrong
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        if written == 0 && refused > 0 {
            broken.push("no records accepted".to_owned());
        }
        if self.taken_over_ms.is_some() && self.fences.last() <= self.fences.first() {
            broken.push("nobody said with a greater fence that it has the feed".to_owned());
        }
        broken
    }
}

/// How long things may take, in the median of the runs of a fault; `None` if nothing is promised.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// Until the fault is noticed.
    pub(super) notice: Option<Duration>,
    /// Added to the time that a price on `latest` takes to this gateway's own subscribers.
    pub(super) later_latest: Option<Duration>,
    /// The same on `every`, and for orders.
    pub(super) later_every: Option<Duration>,
    /// Until every accepted entry has come to the subscribers of the other gateways, or its loss was
    /// announced.
    pub(super) catch_up: Option<Duration>,
    /// How long a gateway without Redis may say that it is healthy.
    pub(super) untrue: Option<Duration>,
    /// Until another gateway has the feed of a killed one.
    pub(super) take_over: Option<Duration>,
    /// Until all gateways have the same records.
    pub(super) equal: Option<Duration>,
}

/// The longest time between two polls of the health, with their answers.
const POLL_MS: f64 = 100.0;

impl Limits {
    /// The limits that were exceeded. What may be due to the suite's own slowness is not blamed on the
    /// gateways.
    pub(super) fn exceeded(&self, runs: &[&Outcome]) -> Vec<String> {
        type Figure = (&'static str, Option<Duration>, f64, fn(&Outcome) -> Option<f64>);
        let figures: [Figure; 7] = [
            ("noticed after", self.notice, POLL_MS, |run| run.noticed_ms),
            ("prices (latest) later by", self.later_latest, 0.0, |run| run.later_latest_ms),
            ("prices (every) and orders later by", self.later_every, 0.0, |run| run.later_every_ms),
            ("caught up after", self.catch_up, 0.0, |run| run.caught_up_ms),
            ("feed taken over after", self.take_over, POLL_MS, |run| run.taken_over_ms),
            ("the same records after", self.equal, POLL_MS, |run| run.equal_ms),
            ("untruly healthy for", self.untrue, POLL_MS, |run| Some(run.falsely_healthy_ms)),
        ];
        let mut exceeded = Vec::new();
        for (what, limit, slack, of) in figures {
            let Some(limit) = limit.map(ms) else { continue };
            let own = |run: &Outcome| of(run).map(|figure| figure - slack - 2.0 * run.suite_late_ms);
            let taken = Spread::of(runs.iter().filter_map(|run| of(run)));
            if let (Some(own), Some(taken)) = (Spread::of(runs.iter().filter_map(|run| own(run))), taken)
                && own.median > limit
            {
                exceeded.push(format!("{what} {:.0} ms instead of {limit:.0}", taken.median));
            }
        }
        exceeded
    }
}

/// One figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    /// Of an even number of runs, the mean of the middle two.
    pub(super) median: f64,
    pub(super) worst: f64,
}

impl Spread {
    /// `None` if there are no figures.
    pub(super) fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let worst = *figures.last()?;
        let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), worst })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::outages) fn good() -> Outcome {
        let judged = Judged { expected: 27, delivered: 27, ..Judged::default() };
        let tally = Tally { posted: 10, accepted: 9, judged, ..Tally::default() };
        Outcome {
            fault: "cut".to_owned(),
            run: 1,
            orders: tally.clone(),
            every: tally.clone(),
            latest: tally,
            recovered: true,
            noticed_ms: Some(40.0),
            ..Outcome::default()
        }
    }

    fn broken(change: impl FnOnce(&mut Outcome)) -> Vec<String> {
        let mut outcome = good();
        change(&mut outcome);
        outcome.find_broken();
        outcome.broken
    }

    #[test]
    fn promises_that_do_not_hold_are_named() {
        assert_eq!(broken(|_| {}), [""; 0]);
        assert_eq!(broken(|outcome| outcome.orders.judged.lost = 3), ["3 order updates lost"]);
        let stopped = broken(|outcome| outcome.trades_stopped = true);
        assert_eq!(stopped, ["the exchange's trades do not come any more"]);
        assert_eq!(broken(|outcome| outcome.every.judged.doubled = 1), ["1 prices (every) doubled"]);
        assert_eq!(broken(|outcome| outcome.latest.judged.reordered = 2), ["2 prices (latest) reordered"]);
        let gone = broken(|outcome| outcome.orders.judged.falsely_gone = 3);
        assert_eq!(gone, ["3 order updates said to be gone that are not"]);
        let missed = broken(|outcome| outcome.every.log.falsely_missed = 1);
        assert_eq!(missed, ["1 prices (every) that say missedBefore and missed nothing"]);
        let unsaid = broken(|outcome| outcome.latest.log.unsaid = 2);
        assert_eq!(unsaid, ["2 prices (latest) in no log, and nobody said so"]);
        assert_eq!(broken(|outcome| outcome.orders.log.doubled = 1), ["1 order updates doubled in the log"]);
        assert_eq!(
            broken(|outcome| outcome.orders.log.reordered = 1),
            ["1 order updates reordered in the log"]
        );
        let stale = broken(|outcome| {
            outcome.snapshots.subscribers = 2;
            (outcome.snapshots.stale, outcome.snapshots.left_in_part) = (3, 1);
            outcome.snapshots.counted.odd = 4;
        });
        let [keys, left, odd] =
            ["3 keys not up to date", "1 subscribers left in", "4 messages that must not"];
        assert!(
            stale[0].starts_with(keys) && stale[1].starts_with(left) && stale[2].starts_with(odd),
            "{stale:?}"
        );
        assert_eq!(stale[3], "no whole snapshot");
        let records = broken(|outcome| {
            (outcome.records.unequal, outcome.records.lost, outcome.records.came_back) = (1, 2, 3);
        });
        assert_eq!(
            records,
            [
                "1 records not the same at all gateways",
                "2 records lost",
                "3 records came back that were removed"
            ]
        );
        let untold = broken(|outcome| {
            (outcome.taken_over_ms, outcome.fences) = (Some(4_000.0), vec![7]);
        });
        assert_eq!(untold, ["nobody said with a greater fence that it has the feed"]);
        let told = broken(|outcome| {
            (outcome.taken_over_ms, outcome.fences) = (Some(4_000.0), vec![7, 7, 9]);
        });
        assert_eq!(told, [""; 0]);
        let doubled = broken(|outcome| {
            (outcome.trades.judged.doubled, outcome.trades.log.doubled) = (2, 1);
        });
        assert_eq!(
            doubled,
            ["2 trades of the exchange doubled", "1 trades of the exchange doubled in the log"]
        );
        assert_eq!(broken(|outcome| outcome.trades.judged.lost = 1), ["1 trades of the exchange lost"]);
        let unread = broken(|outcome| outcome.logs_unread = 2);
        assert_eq!(unread, ["the logs of 2 channels could not be read"]);
        let left_out = broken(|outcome| outcome.every.judged.left_out = 1);
        assert_eq!(left_out, ["1 subscribers were never subscribed"]);
        assert_eq!(broken(|outcome| outcome.sockets_cut = 1), ["1 sockets cut"]);
        assert_eq!(broken(|outcome| outcome.recovered = false), ["not healthy again"]);
        assert_eq!(broken(|outcome| outcome.orders.accepted = 0), ["no order updates accepted"]);
        let told = broken(|outcome| {
            outcome.orders.judged.told = 5;
            outcome.orders.judged.again = 5;
            outcome.orders.log.missing = 5;
            outcome.orders.log.outgrown = 5;
        });
        assert_eq!(told, [""; 0], "what is told is no broken promise");
    }

    #[test]
    fn a_gateway_may_grow_by_what_it_keeps() {
        let grown = |mib: u64| {
            broken(|outcome| {
                outcome.latest.accepted = 10 * 1024;
                outcome.memory_before_bytes = Some(1 << 20);
                outcome.memory_after_bytes = Some((1 + mib) << 20);
            })
        };
        assert_eq!(grown(26), [""; 0]);
        assert_eq!(grown(28), ["a gateway has grown by 28 MiB"]);
    }

    fn exceeded(limits: Limits, noticed: &[f64], suite_late_ms: f64) -> Vec<String> {
        let run = |noticed_ms: &f64| Outcome { noticed_ms: Some(*noticed_ms), suite_late_ms, ..good() };
        let runs: Vec<Outcome> = noticed.iter().map(run).collect();
        limits.exceeded(&runs.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_median_of_the_runs_is_what_counts() {
        let limits = Limits { notice: Some(Duration::from_millis(50)), ..Limits::default() };
        assert_eq!(exceeded(limits, &[20.0, 900.0, 30.0], 0.0), [""; 0]);
        let late = ["noticed after 400 ms instead of 50"];
        assert_eq!(exceeded(limits, &[400.0], 0.0), late);
        assert_eq!(exceeded(limits, &[20.0, 400.0, 500.0], 0.0), late);
        assert_eq!(exceeded(Limits::default(), &[400.0], 0.0), [""; 0]);
        let slow_itself = exceeded(limits, &[400.0], 130.0);
        assert_eq!(slow_itself, [""; 0], "the suite does not blame its own slowness on the gateways");
    }

    #[test]
    fn each_figure_has_its_limit() {
        let limit = Some(Duration::from_millis(10));
        let limits = Limits {
            notice: limit,
            later_latest: limit,
            later_every: limit,
            catch_up: limit,
            untrue: limit,
            take_over: limit,
            equal: limit,
        };
        let slow = Outcome {
            noticed_ms: Some(200.0),
            later_latest_ms: Some(20.0),
            later_every_ms: Some(20.0),
            caught_up_ms: Some(20.0),
            falsely_healthy_ms: 200.0,
            taken_over_ms: Some(200.0),
            equal_ms: Some(200.0),
            ..good()
        };
        assert_eq!(limits.exceeded(&[&slow]).len(), 7);
        assert_eq!(Limits::default().exceeded(&[&slow]), [""; 0]);
    }

    #[test]
    fn figures_of_several_runs_have_a_median_and_a_worst() {
        let spread = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), Some(Spread { median: 3.0, worst: 3.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, worst: 9.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0, 4.0]), Some(Spread { median: 3.0, worst: 9.0 }));
    }
}
