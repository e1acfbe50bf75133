//! What was posted, seen and said in a session, and the judgement of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::faults::Fault;
use super::load::{Channel, Posted};
use super::logs::{JudgedLog, Log};
use super::mirror::{Key, Mirrored};
use super::outcome::{Outcome, Tally, ms};
use super::registries::Course;
use super::timeline::{Down, HealthHistory};
use super::watch::Seen;
use super::witness::{Judged, Lane, Post, Witness};
use crate::figures::add_counts;

/// How many of the faulty entries are named.
const EXAMPLES_MAX: usize = 10;
/// How many of one subscriber.
const EXAMPLES_EACH: usize = 2;

/// What a session collects for the judgement.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) channels: Vec<Channel>,
    /// By producer: the channel's index, the node, and the posts.
    pub(super) posted: Vec<(usize, usize, Arc<Mutex<Posted>>)>,
    pub(super) seen: Vec<Subscriber>,
    /// Subscribers that begin with snapshots.
    pub(super) mirrors: Vec<Subscriber>,
    /// By channel, its log at the end; `None` until it is read, or if it cannot be.
    pub(super) logs: Vec<Option<Log>>,
    pub(super) course: Course,
    /// By node.
    pub(super) health: Vec<Arc<Mutex<HealthHistory>>>,
    /// How late the suite itself was at most.
    pub(super) pace: Arc<Mutex<Duration>>,
    /// When everything was up.
    pub(super) start: Instant,
}

/// A subscriber whose deliveries are judged.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The channel's index.
    pub(super) place: usize,
    /// The gateway where it stays; `None` for a subscriber that moves.
    pub(super) stays_at: Option<usize>,
    pub(super) seen: Arc<Mutex<Seen>>,
}

impl Subscriber {
    fn name(&self) -> String {
        match self.stays_at {
            Some(node) => format!("a subscriber of gateway {node}"),
            None => "a subscriber that moves".to_owned(),
        }
    }
}

/// The moments of a session.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) begun: Instant,
    pub(super) back: Instant,
    pub(super) end: Instant,
    /// By node.
    pub(super) downs: Vec<Vec<Down>>,
    /// The beginnings of faults, in order of time.
    pub(super) marks: Vec<(Instant, String)>,
}

impl Times {
    /// A moment in the form that people look for: after the beginning of a fault, and by the clock.
    fn describe(&self, at: Instant) -> String {
        let clock = (Utc::now() - at.elapsed()).format("%T%.3f");
        let after = self.marks.iter().rev().find(|(begun, _)| *begun <= at);
        match after.or(self.marks.first()) {
            Some((begun, what)) if *begun <= at => {
                format!("{} ms after {what} began, at {clock}", (at - *begun).as_millis())
            }
            Some((begun, what)) => {
                format!("{} ms before {what} began, at {clock}", (*begun - at).as_millis())
            }
            None => format!("at {clock}"),
        }
    }
}

impl Record {
    /// What is wrong by now, by lane.
    pub(super) fn judge_lanes(&self) -> BTreeMap<Lane, Judged> {
        let mut lanes: BTreeMap<Lane, Judged> = Lane::ALL.map(|lane| (lane, Judged::default())).into();
        for (subscriber, judged) in self.judge_each() {
            *lanes.entry(self.channels[subscriber.place].lane).or_default() += judged;
        }
        lanes
    }

    /// What the subscribers that begin with snapshots know by now.
    pub(super) fn judge_mirrors(&self) -> Mirrored {
        let (posts, mut judged) = (self.posts(), Mirrored::default());
        for Subscriber { place, seen, .. } in &self.mirrors {
            if let Some(mirror) = &seen.lock().mirror {
                let of_it = mirror.judge(&as_slices(&posts[*place]), &self.removed(*place));
                let examples = of_it.examples.of(self.channels[*place].name.as_str());
                judged += Mirrored { examples, ..of_it };
            }
        }
        judged
    }

    /// The keys of a channel that were removed, and whether each removal is certain.
    fn removed(&self, place: usize) -> BTreeMap<Key, bool> {
        let of_it = self.posted.iter().filter(|(of, ..)| *of == place);
        let each = of_it.flat_map(|(_, node, posted)| {
            let removed = posted.lock().removed.clone();
            removed.into_iter().map(|(run, is_certain)| ((*node, run), is_certain))
        });
        each.collect()
    }

    /// The posts to each channel, by node.
    pub(super) fn posts(&self) -> Vec<Vec<(usize, Vec<Post>)>> {
        let mut posts = vec![Vec::new(); self.channels.len()];
        for (place, node, posted) in &self.posted {
            posts[*place].push((*node, posted.lock().posts.clone()));
        }
        posts
    }

    /// What is wrong by now with what each subscriber saw.
    fn judge_each(&self) -> Vec<(&Subscriber, Judged)> {
        let posts = self.posts();
        let judge = |of: &Subscriber| self.judge_one(of.place, &of.seen.lock().witness, &posts);
        self.seen.iter().map(|subscriber| (subscriber, judge(subscriber))).collect()
    }

    /// What is wrong with what one subscriber of a channel saw.
    pub(super) fn judge_one(
        &self,
        place: usize,
        witness: &Witness,
        posts: &[Vec<(usize, Vec<Post>)>],
    ) -> Judged {
        let lane = self.channels[place].lane;
        let mut posts = as_slices(&posts[place]);
        // Of a gateway that was killed, others may have received only some live events, without being told.
        posts.retain(|(by, _)| lane != Lane::Live || !self.course.killed.contains(by));
        witness.judge(lane, &posts, self.log_of(place))
    }

    /// When the last of the entries that had been accepted by some moment came to a subscriber that stays: how
    /// soon one that moves gets what it missed depends on its moves. Live events are not sent later, and a feed
    /// asks the exchange again for its trades: neither counts.
    fn caught_up(&self, by_then: Instant) -> Option<Instant> {
        let posts = self.posts();
        let counts = |of: &&Subscriber| {
            let lane = self.channels[of.place].lane;
            of.stays_at.is_some() && !matches!(lane, Lane::Live | Lane::Trades)
        };
        let came = |of: &Subscriber| of.seen.lock().witness.caught_up(&as_slices(&posts[of.place]), by_then);
        self.seen.iter().filter(counts).filter_map(came).max()
    }

    /// Whether each subscriber that stays has had so many trades that are owed to it and were made after `since`.
    pub(super) fn have_trades_come(&self, since: Instant, count: usize) -> bool {
        let mut trades = self.posted.iter().filter(|(place, ..)| self.channels[*place].lane == Lane::Trades);
        trades.all(|(place, by, posted)| {
            let is_owed = |post: &Post| post.accepted.is_some() && post.sent >= since;
            let numbered = (1..).zip(posted.lock().posts.clone());
            let owed: Vec<u64> = numbered.filter(|(_, post)| is_owed(post)).map(|(n, _)| n).collect();
            let mut of_it = self.seen.iter().filter(|of| of.place == *place && of.stays_at.is_some());
            of_it.all(|subscriber| {
                let seen = subscriber.seen.lock();
                owed.iter().filter(|n| seen.witness.has(*by, **n)).count() >= count
            })
        })
    }

    fn log_of(&self, place: usize) -> Option<&Log> {
        self.logs.get(place)?.as_ref()
    }

    /// What is wrong with the logs of a lane; a log that was not read is not judged here.
    fn judge_logs(&self, lane: Lane) -> JudgedLog {
        let (posts, mut judged) = (self.posts(), JudgedLog::default());
        for (place, channel) in self.channels.iter().enumerate() {
            let Some(log) = self.log_of(place).filter(|_| channel.lane == lane) else { continue };
            let (mut told_at, mut said_missed) = (None, BTreeSet::new());
            for subscriber in self.seen.iter().filter(|subscriber| subscriber.place == place) {
                let seen = subscriber.seen.lock();
                told_at = told_at.max(seen.witness.told_at());
                said_missed.extend(&seen.witness.missed_before);
            }
            let found = log.judge(&as_slices(&posts[place]), told_at, &said_missed);
            judged += JudgedLog { odd: found.odd.of(channel.name.as_str()), ..found };
        }
        judged
    }

    /// The whole outcome of these faults, except for new subscribers and memory, which the caller adds.
    pub(super) fn judge(&self, faults: &[Fault], times: &Times, recovered: bool) -> Outcome {
        let judged = self.judge_lanes();
        let reached: Vec<usize> =
            (0..self.health.len()).filter(|node| faults.iter().any(|fault| fault.reaches(*node))).collect();
        let after = |from: Instant, at: Instant| ms(at.saturating_duration_since(from));
        let noticed = reached.iter().map(|node| self.health[*node].lock().noticed_after(times.begun));
        let noticed = noticed.collect::<Option<Vec<_>>>().and_then(|noticed| noticed.into_iter().max());
        let stayed =
            |subscriber: &&Subscriber| subscriber.stays_at.is_some_and(|node| reached.contains(&node));
        let told = self.seen.iter().filter(stayed).filter_map(|subscriber| {
            let seen = subscriber.seen.lock();
            seen.states.iter().find(|(at, state)| *at >= times.begun && state != "healthy").map(|(at, _)| *at)
        });
        let healthy_at = self.health.iter().filter_map(|said| said.lock().recovered_after(times.begun)).max();
        let worst = |of: &dyn Fn(usize, &HealthHistory) -> Duration| {
            let each = self.health.iter().enumerate().map(|(node, said)| of(node, &said.lock()));
            each.max().map_or(0.0, ms)
        };
        let running =
            (0..self.health.len()).filter(|node| !faults.iter().any(|fault| fault.stops_node(*node)));
        let mut outcome = Outcome {
            faults: faults.len() as u64,
            tallies: judged.into_iter().map(|(lane, judged)| (lane, self.tally(lane, judged))).collect(),
            later_trades_ms: self.later(faults, times, &[Lane::Trades]),
            later_latest_ms: self.later(faults, times, &[Lane::Latest]),
            later_every_ms: self.later(faults, times, &[Lane::Every, Lane::Orders]),
            noticed_ms: noticed.map(|at| after(times.begun, at)),
            socket_told_ms: told.max().map(|at| after(times.begun, at)),
            recovered,
            recovered_ms: healthy_at.map(|at| after(times.back, at)),
            caught_up_ms: self.caught_up(times.back).map(|at| after(times.back, at)),
            falsely_healthy_ms: worst(&|node, said| said.falsely_healthy(&times.downs[node])),
            falsely_degraded_ms: worst(&|_, said| {
                said.falsely_degraded(self.start, times.begun, times.back, times.end)
            }),
            health_unanswered: running.map(|node| self.health[node].lock().unanswered).sum(),
            subscribers: (self.seen.len() + self.mirrors.len()) as u64,
            snapshots: self.judge_mirrors(),
            logs_unread: self.channels.len().saturating_sub(self.logs.iter().flatten().count()) as u64,
            suite_late_ms: ms(*self.pace.lock()),
            lost_examples: self.lost_examples(times),
            odd_examples: self.odd_examples(),
            false_examples: self.false_examples(),
            ..Outcome::default()
        };
        self.count_cuts(faults, &mut outcome);
        outcome
    }

    fn tally(&self, lane: Lane, judged: Judged) -> Tally {
        // A live type has no shared log.
        let log = if lane == Lane::Live { JudgedLog::default() } else { self.judge_logs(lane) };
        let mut tally = Tally { judged, log, ..Tally::default() };
        for (_, _, posted) in self.posted.iter().filter(|(place, ..)| self.channels[*place].lane == lane) {
            let posted = posted.lock();
            tally.posted += posted.posts.len() as u64;
            tally.accepted += posted.posts.iter().filter(|post| post.accepted.is_some()).count() as u64;
            add_counts(&mut tally.refused, &posted.refused);
        }
        tally
    }

    /// How much longer than usual, in milliseconds, an entry of these lanes took at most to a subscriber of
    /// the gateway that accepted it. Usual is the median before the fault. Gateways that are frozen are left
    /// out.
    fn later(&self, faults: &[Fault], times: &Times, lanes: &[Lane]) -> Option<f64> {
        let (mut usual, mut worst) = (Vec::new(), None);
        for Subscriber { place, stays_at, seen } in &self.seen {
            let (lane, Some(node)) = (self.channels[*place].lane, stays_at) else { continue };
            if !lanes.contains(&lane) || faults.iter().any(|fault| fault.stops_node(*node)) {
                continue;
            }
            let own = self.posted.iter().filter(|(posted_to, by, _)| (posted_to, by) == (place, node));
            for (.., posted) in own {
                for (came, delay) in seen.lock().witness.delays(lane, *node, &posted.lock().posts) {
                    match came < times.begun {
                        true => usual.push(delay),
                        false => worst = worst.max(Some(delay)),
                    }
                }
            }
        }
        usual.sort_unstable();
        let usual = usual.get(usual.len() / 2).copied().unwrap_or_default();
        worst.map(|worst| ms(worst.saturating_sub(usual)))
    }

    fn count_cuts(&self, faults: &[Fault], outcome: &mut Outcome) {
        for subscriber in self.seen.iter().chain(&self.mirrors) {
            let seen = subscriber.seen.lock();
            add_counts(&mut outcome.errors, &seen.errors);
            for ((node, why), count) in &seen.cuts {
                if faults.iter().any(|fault| fault.cuts_sockets_of(*node)) {
                    outcome.cut_by_the_fault += count;
                    continue;
                }
                outcome.sockets_cut += count;
                *outcome.cuts.entry(why.clone()).or_default() += count;
            }
        }
    }

    /// Some of the lost entries, for people who look for the reason.
    fn lost_examples(&self, times: &Times) -> Vec<String> {
        let (posts, mut examples) = (self.posts(), Vec::new());
        for (subscriber, judged) in self.judge_each() {
            let place = subscriber.place;
            for &(by, n) in judged.examples.iter().take(EXAMPLES_EACH) {
                if examples.len() == EXAMPLES_MAX {
                    return examples;
                }
                let post = posts[place]
                    .iter()
                    .find(|(node, _)| *node == by)
                    .and_then(|(_, posts)| posts.get(usize::try_from(n).ok()?.checked_sub(1)?));
                let Some(Post { sent, accepted: Some(accepted) }) = post else { continue };
                // The id is known if the entry came to another subscriber.
                let others = self.seen.iter().filter(|other| other.place == place);
                let mut ids = others.filter_map(|other| other.seen.lock().witness.id_of(by, n));
                let id = ids.next().unwrap_or_else(|| "which came to nobody".to_owned());
                let whether = match self.log_of(place) {
                    Some(log) if log.has(by, n) => "is in the log",
                    Some(_) => "is in no log",
                    None => "is in a log that could not be read",
                };
                examples.push(format!(
                    "{}: number {n} of gateway {by} ({id}), accepted {}, {whether} and did not come to {} ({})",
                    self.channels[place].name,
                    times.describe(*accepted),
                    subscriber.name(),
                    subscriber.seen.lock().witness.story(*sent)
                ));
            }
        }
        examples
    }

    /// Some of the untrue statements of gateways or logs.
    fn false_examples(&self) -> Vec<String> {
        let mut examples = Vec::new();
        for (subscriber, judged) in self.judge_each() {
            let (name, whom) = (&self.channels[subscriber.place].name, subscriber.name());
            examples.extend(judged.false_statements.iter().map(|what| format!("{name}: {what}, to {whom}")));
        }
        let with_logs = Lane::ALL.into_iter().filter(|lane| *lane != Lane::Live);
        with_logs.for_each(|lane| examples.extend_from_slice(&self.judge_logs(lane).odd));
        examples.truncate(EXAMPLES_MAX);
        examples
    }

    /// Some of the entries that came twice, or behind a later one.
    pub(super) fn odd_examples(&self) -> Vec<String> {
        let odd = self.judge_each().into_iter().flat_map(|(subscriber, judged)| {
            let (name, whom) = (&self.channels[subscriber.place].name, subscriber.name());
            let say = |what: &String| format!("{name}: {what}, at {whom}");
            let seen = subscriber.seen.lock();
            seen.witness.odd.iter().chain(judged.odd.iter()).take(EXAMPLES_EACH).map(say).collect::<Vec<_>>()
        });
        odd.take(EXAMPLES_MAX).collect()
    }
}

fn as_slices(posts: &[(usize, Vec<Post>)]) -> Vec<(usize, &[Post])> {
    posts.iter().map(|(by, posts)| (*by, &posts[..])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session with one channel, posted to at one gateway.
    fn record(start: Instant, channel: Channel, posted: Arc<Mutex<Posted>>, seen: Vec<Subscriber>) -> Record {
        Record {
            channels: vec![channel],
            posted: vec![(0, 0, posted)],
            seen,
            mirrors: Vec::new(),
            logs: Vec::new(),
            course: Course::default(),
            health: Vec::new(),
            pace: Arc::default(),
            start,
        }
    }

    #[test]
    fn moments_are_told_from_what_began_before_them() {
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let marks = vec![(after(100), "1/2 cut".to_owned()), (after(300), "2/2 frozen".to_owned())];
        let times = Times { begun, back: begun, end: begun, downs: Vec::new(), marks };
        for (ms, said) in [
            (20, "80 ms before 1/2 cut began, at "),
            (120, "20 ms after 1/2 cut began, at "),
            (300, "0 ms after 2/2 frozen began, at "),
        ] {
            let moment = times.describe(after(ms));
            assert!(moment.starts_with(said), "{moment}");
        }
    }

    #[test]
    fn trades_have_come_when_each_who_stays_had_as_many_that_are_owed() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let posted = Arc::<Mutex<Posted>>::default();
        // Nobody asked for the first one; the second one is from before.
        for (sent, is_owed) in [(150, false), (50, true), (200, true), (300, true)] {
            let accepted = is_owed.then(|| after(sent + 10));
            posted.lock().posts.push(Post { sent: after(sent), accepted });
        }
        let of = |stays_at| Subscriber { place: 0, stays_at, seen: Arc::default() };
        // What comes to one that moves is not waited for.
        let seen = vec![of(Some(0)), of(Some(1)), of(None)];
        let record = record(start, Channel::feed(1).unwrap(), posted, seen);
        let come = |to: usize, n| {
            record.seen[to].seen.lock().witness.entry(after(400), &format!("a-{n}"), 0, n, false);
            [1, 2].map(|count| record.have_trades_come(after(100), count))
        };
        for (to, n) in [(0, 1), (0, 2), (1, 1), (1, 2), (0, 3)] {
            assert_eq!(come(to, n), [false, false]);
        }
        assert_eq!(come(1, 4), [true, false]);
        assert_eq!(come(1, 3), [true, false]);
        assert_eq!(come(0, 4), [true, true]);
    }

    #[test]
    fn what_is_later_than_usual_is_measured_at_the_gateway_that_took_it() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let channel = Channel::zone("later".parse().unwrap(), Lane::Latest, 2);
        let (seen, posted) = (Arc::<Mutex<Seen>>::default(), Arc::<Mutex<Posted>>::default());
        // Each took 2 ms, except the one after the fault, which took 70.
        for (n, (sent, took)) in (1..).zip([(0, 2), (10, 2), (20, 2), (110, 70)]) {
            let post = Post { sent: after(sent), accepted: Some(after(sent + 1)) };
            posted.lock().posts.push(post);
            seen.lock().witness.entry(after(sent + took), &format!("a-{n}"), 0, n, false);
        }
        let moving = Arc::<Mutex<Seen>>::default();
        moving.lock().witness.entry(after(900), "a-4", 0, 4, false);
        // A subscriber at the other gateway does not matter, nor one that moves.
        let seen = [(Some(0), seen), (Some(1), Arc::default()), (None, moving)];
        let seen = seen.map(|(stays_at, seen)| Subscriber { place: 0, stays_at, seen });
        let record = record(start, channel, posted, seen.into());
        let times =
            Times { begun: after(100), back: start, end: start, downs: Vec::new(), marks: Vec::new() };
        assert_eq!(record.later(&[], &times, &[Lane::Latest]), Some(68.0));
        assert_eq!(record.later(&[], &times, &[Lane::Every]), None);
    }
}
