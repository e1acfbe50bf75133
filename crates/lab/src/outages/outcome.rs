//! The result of one fault, and which promises it shows to be broken.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::logs::JudgedLog;
use super::mirror::Mirrored;
use super::registries::JudgedRecords;
use super::witness::{Judged, Lane};
use crate::figures::Spread;

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
    /// By kind of entry. Of live events, `told` are those whose loss was announced; of trades, `accepted` are
    /// those made once there was a feed.
    #[serde(flatten)]
    pub(super) tallies: BTreeMap<Lane, Tally>,
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
    /// From the same moment until every entry accepted by then had come to all subscribers that stay at a
    /// gateway; live events and trades do not count.
    pub(super) caught_up_ms: Option<f64>,
    /// The longest time that a gateway wrongly said that it is healthy.
    pub(super) falsely_healthy_ms: f64,
    /// How long in all, for the worst gateway, it wrongly said that it is not healthy.
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
    pub(super) fn false_statements(&self) -> u64 {
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

/// Broken promises, in words.
struct Broken(Vec<String>);

impl Broken {
    fn any(&mut self, count: u64, what: &str) {
        self.when(count > 0, &format!("{count} {what}"));
    }

    fn when(&mut self, is_broken: bool, what: &str) {
        if is_broken {
            self.0.push(what.to_owned());
        }
    }
}

impl Outcome {
    /// Fills in the broken promises; those on times are checked by [`Limit`].
    pub(super) fn find_broken(&mut self) {
        let mut broken = Broken(Vec::new());
        let JudgedRecords { written, refused, unequal, lost, came_back, .. } = self.records;
        broken.any(unequal, "records not the same at all gateways");
        broken.any(lost, "records lost");
        broken.any(came_back, "records came back that were removed");
        broken.when(written == 0 && refused > 0, "no records accepted");
        let is_announced = self.taken_over_ms.is_none() || self.fences.last() > self.fences.first();
        broken.when(!is_announced, "nobody said with a greater fence that it has the feed");
        for (lane, Tally { posted, accepted, judged, log, .. }) in &self.tallies {
            for (count, what) in [
                (judged.lost, "lost"),
                (judged.doubled, "doubled"),
                (judged.reordered, "reordered"),
                (judged.falsely_gone, "said to be gone that are not"),
                (log.falsely_missed, "that say missedBefore and missed nothing"),
                (log.unsaid, "in no log, and nobody said so"),
                (log.doubled, "doubled in the log"),
                (log.reordered, "reordered in the log"),
            ] {
                broken.any(count, &format!("{} {what}", lane.about()));
            }
            // A run that measured nothing proves nothing.
            broken.when(*posted > 0 && *accepted == 0, &format!("no {} accepted", lane.about()));
        }
        broken.when(self.trades_stopped, "the exchange's trades do not come any more");
        let Judged { lost, doubled, reordered, .. } = self.read_anew;
        for (count, what) in [(lost, "missing"), (doubled, "doubled"), (reordered, "reordered")] {
            broken.any(count, &format!("order updates {what} for new subscribers"));
        }
        let Mirrored { stale, left_in_part, counted, subscribers, .. } = self.snapshots;
        broken.any(stale, "keys not up to date behind a snapshot");
        broken.any(left_in_part, "subscribers left in the middle of a snapshot");
        broken.any(counted.odd, "messages that must not be with snapshots");
        broken.when(subscribers > 0 && counted.whole == 0, "no whole snapshot");
        let sum = |of: fn(&Tally) -> u64| self.tallies.values().map(of).sum::<u64>();
        broken.any(sum(|tally| tally.judged.left_out), "subscribers were never subscribed");
        let unread = self.logs_unread;
        broken.when(unread > 0, &format!("the logs of {unread} channels could not be read"));
        broken.any(self.sockets_cut, "sockets cut");
        broken.when(!self.recovered, "not healthy again");
        if let (Some(before), Some(after)) = (self.memory_before_bytes, self.memory_after_bytes) {
            let (accepted, grown) = (sum(|tally| tally.accepted) + written, after.saturating_sub(before));
            let is_too_much = grown > GROWTH_BYTES + accepted * ENTRY_BYTES;
            broken.when(is_too_much, &format!("a gateway has grown by {} MiB", grown / (1024 * 1024)));
        }
        self.broken = broken.0;
    }
}

/// The longest time between two polls of the health, with their answers.
pub(super) const POLL_MS: f64 = 100.0;

/// How long something may take, in the median of the runs of a fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) what: &'static str,
    /// `None` if nothing is promised.
    pub(super) most: Option<Duration>,
    /// By how much the figure may be too long for the way in which it is measured.
    pub(super) slack_ms: f64,
    pub(super) of: fn(&Outcome) -> Option<f64>,
}

impl Limit {
    /// What took too long, if it did. What may be due to the suite's own slowness is not blamed on the
    /// gateways.
    pub(super) fn exceeded(&self, runs: &[&Outcome]) -> Option<String> {
        let most = ms(self.most?);
        let own = |run: &&Outcome| Some((self.of)(run)? - self.slack_ms - 2.0 * run.suite_late_ms);
        let taken = Spread::of(runs.iter().filter_map(|run| (self.of)(run)))?;
        let is_exceeded = Spread::of(runs.iter().filter_map(own))?.median > most;
        is_exceeded.then(|| format!("{} {:.0} ms instead of {most:.0}", self.what, taken.median))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::outages::faults::find;

    pub(in crate::outages) fn good() -> Outcome {
        let judged = Judged { expected: 27, delivered: 27, ..Judged::default() };
        let tally = Tally { posted: 10, accepted: 9, judged, ..Tally::default() };
        Outcome {
            fault: "cut".to_owned(),
            run: 1,
            tallies: [Lane::Orders, Lane::Every, Lane::Latest].map(|lane| (lane, tally.clone())).into(),
            recovered: true,
            noticed_ms: Some(40.0),
            ..Outcome::default()
        }
    }

    impl Outcome {
        pub(in crate::outages) fn of(&mut self, lane: Lane) -> &mut Tally {
            self.tallies.entry(lane).or_default()
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
        use Lane::{Every, Latest, Orders, Trades};
        type Case = (fn(&mut Outcome), &'static [&'static str]);
        let cases: &[Case] = &[
            (|_| {}, &[]),
            (|run| run.of(Orders).judged.lost = 3, &["3 order updates lost"]),
            (|run| run.trades_stopped = true, &["the exchange's trades do not come any more"]),
            (|run| run.of(Every).judged.doubled = 1, &["1 prices (every) doubled"]),
            (|run| run.of(Latest).judged.reordered = 2, &["2 prices (latest) reordered"]),
            (|run| run.of(Orders).judged.falsely_gone = 3, &["3 order updates said to be gone that are not"]),
            (
                |run| run.of(Every).log.falsely_missed = 1,
                &["1 prices (every) that say missedBefore and missed nothing"],
            ),
            (|run| run.of(Latest).log.unsaid = 2, &["2 prices (latest) in no log, and nobody said so"]),
            (|run| run.of(Orders).log.doubled = 1, &["1 order updates doubled in the log"]),
            (|run| run.of(Orders).log.reordered = 1, &["1 order updates reordered in the log"]),
            (
                |run| {
                    run.snapshots.subscribers = 2;
                    (run.snapshots.stale, run.snapshots.left_in_part) = (3, 1);
                    run.snapshots.counted.odd = 4;
                },
                &[
                    "3 keys not up to date behind a snapshot",
                    "1 subscribers left in the middle of a snapshot",
                    "4 messages that must not be with snapshots",
                    "no whole snapshot",
                ],
            ),
            (
                |run| (run.records.unequal, run.records.lost, run.records.came_back) = (1, 2, 3),
                &[
                    "1 records not the same at all gateways",
                    "2 records lost",
                    "3 records came back that were removed",
                ],
            ),
            (
                |run| (run.taken_over_ms, run.fences) = (Some(4_000.0), vec![7]),
                &["nobody said with a greater fence that it has the feed"],
            ),
            (|run| (run.taken_over_ms, run.fences) = (Some(4_000.0), vec![7, 7, 9]), &[]),
            (
                |run| {
                    run.of(Trades).judged.doubled = 2;
                    run.of(Trades).log.doubled = 1;
                },
                &["2 trades of the exchange doubled", "1 trades of the exchange doubled in the log"],
            ),
            (|run| run.of(Trades).judged.lost = 1, &["1 trades of the exchange lost"]),
            (|run| run.logs_unread = 2, &["the logs of 2 channels could not be read"]),
            (|run| run.of(Every).judged.left_out = 1, &["1 subscribers were never subscribed"]),
            (|run| run.sockets_cut = 1, &["1 sockets cut"]),
            (|run| run.recovered = false, &["not healthy again"]),
            (|run| run.of(Orders).accepted = 0, &["no order updates accepted"]),
            // An announced loss breaks no promise.
            (
                |run| {
                    run.of(Orders).judged = Judged { told: 5, again: 5, ..run.of(Orders).judged.clone() };
                    run.of(Orders).log = JudgedLog { missing: 5, outgrown: 5, ..JudgedLog::default() };
                },
                &[],
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(broken(change), *expected);
        }
    }

    #[test]
    fn a_gateway_may_grow_by_what_it_keeps() {
        let grown = |mib: u64| {
            broken(|outcome| {
                outcome.of(Lane::Latest).accepted = 10 * 1024;
                outcome.memory_before_bytes = Some(1 << 20);
                outcome.memory_after_bytes = Some((1 + mib) << 20);
            })
        };
        assert_eq!(grown(26), [""; 0]);
        assert_eq!(grown(28), ["a gateway has grown by 28 MiB"]);
    }

    /// The limits of a fault, with other times.
    pub(in crate::outages) fn limits(most: impl Fn(&str) -> Option<Duration>) -> Vec<Limit> {
        let limits = find("cut").unwrap().limits(Duration::ZERO);
        limits.map(|limit| Limit { most: most(limit.what), ..limit }).into()
    }

    fn exceeded(limits: &[Limit], noticed: &[f64], suite_late_ms: f64) -> Vec<String> {
        let run = |noticed_ms: &f64| Outcome { noticed_ms: Some(*noticed_ms), suite_late_ms, ..good() };
        let runs: Vec<Outcome> = noticed.iter().map(run).collect();
        let runs: Vec<&Outcome> = runs.iter().collect();
        limits.iter().filter_map(|limit| limit.exceeded(&runs)).collect()
    }

    #[test]
    fn the_median_of_the_runs_is_what_counts() {
        let notice = limits(|what| (what == "noticed after").then_some(Duration::from_millis(50)));
        let late = "noticed after 400 ms instead of 50";
        for (noticed, suite_late_ms, expected) in [
            (&[20.0, 900.0, 30.0][..], 0.0, None),
            (&[400.0], 0.0, Some(late)),
            (&[20.0, 400.0, 500.0], 0.0, Some(late)),
            // The suite does not blame its own slowness on the gateways.
            (&[400.0], 130.0, None),
        ] {
            assert_eq!(exceeded(&notice, noticed, suite_late_ms), Vec::from_iter(expected), "{noticed:?}");
        }
        assert_eq!(exceeded(&limits(|_| None), &[400.0], 0.0), [""; 0]);
    }

    #[test]
    fn each_figure_has_its_limit() {
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
        let count = |most| limits(|_| most).iter().filter_map(|limit| limit.exceeded(&[&slow])).count();
        assert_eq!(count(Some(Duration::from_millis(10))), 7);
        assert_eq!(count(None), 0);
    }
}
