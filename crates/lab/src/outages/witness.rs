//! What one subscriber saw, and what is wrong with it. No I/O, so that it can be tested with subscribers that
//! lose, double and reorder entries, and with gateways that say what is untrue.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::logs::Log;
use crate::figures::{Examples, sums};

/// This many consecutive prices share a key, which is never used again. So on the lane `latest` the newest
/// price of each key has no later one that hides its loss.
pub(super) const KEY_RUN: u64 = 5;

/// The number of the `n`th price's key.
pub(super) fn key_run(n: u64) -> u64 {
    (n - 1) / KEY_RUN
}

/// A kind of channel: which of its entries must arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Lane {
    /// The updates of an order: each.
    Orders,
    /// Prices on the lane `every`: each.
    Every,
    /// Prices on the lane `latest`: the newest of each key, or a newer one.
    Latest,
    /// Events of a durable type: each.
    Events,
    /// Events of a live type, of which each gateway has a log of its own: the newest of each key, as on
    /// `latest`; or `missed` says how many did not come.
    Live,
    /// Trades of the exchange that the gateways have a feed from: each.
    Trades,
}

impl Lane {
    pub(super) const ALL: [Self; 6] =
        [Self::Orders, Self::Every, Self::Latest, Self::Events, Self::Live, Self::Trades];

    /// Its entries, for people.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Orders => "order updates",
            Self::Every => "prices (every)",
            Self::Latest => "prices (latest)",
            Self::Events => "durable events",
            Self::Live => "live events",
            Self::Trades => "trades of the exchange",
        }
    }
}

/// One entry that was posted. A producer's `n`th is at index `n - 1`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Post {
    /// Just before the request was sent.
    pub(super) sent: Instant,
    /// When the gateway accepted it; `None` if it refused, or did not answer.
    pub(super) accepted: Option<Instant>,
}

/// What one subscriber of one channel saw, over all of its connections. It does as the protocol says of
/// clients: from a statement (`subscribed` or `resync`) with `"recovered":false` until one with
/// `"recovered":true`, it drops each entry whose id has come before. Unlike a client it remembers all ids, to
/// find repetitions that no client should have to drop.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// It subscribed under load without a position: it must receive what was sent after its first
    /// `subscribed`.
    begins_late: bool,
    subscribed_at: Option<Instant>,
    /// By the node that the entries were posted at.
    arrivals: BTreeMap<usize, Arrivals>,
    producers: Vec<Producer>,
    /// The ids of all entries that came, with the time of each one's first arrival.
    pub(super) first_seen: HashMap<Id, Instant>,
    /// The newest statement had `"recovered":false`.
    may_come_again: bool,
    /// The times at which it was told that entries are missing.
    gaps: Vec<Gap>,
    counted: Counted,
    /// The newest statements, for people.
    statements: VecDeque<Heard>,
    /// The node that it is connected to, and the position that it gave there.
    node: usize,
    since: Option<String>,
    /// The node that sent the newest `subscribed`.
    subscribed_at_node: Option<usize>,
    /// Entries with `missedBefore`: the node that they were posted at, and their number.
    pub(super) missed_before: BTreeSet<(usize, u64)>,
    moved: u64,
    resumed: u64,
    doubled: u64,
    again: u64,
    late: u64,
    /// Entries that came twice or behind a later one, in words.
    pub(super) odd: Examples,
}

/// The content of a `subscribed` or `resync`: from where on entries follow, and whether some are missing.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) at: Instant,
    /// It was `subscribed`.
    pub(super) is_subscribed: bool,
    pub(super) recovered: bool,
    pub(super) gap: Option<u64>,
    /// The position `<epoch>:<offset>`; the entries after it follow.
    pub(super) position: String,
}

/// A statement, and the connection that it came on.
#[derive(Debug)]
struct Heard {
    statement: Statement,
    node: usize,
    /// The position that the client gave, for a `subscribed`.
    since: Option<String>,
}

impl Heard {
    fn describe(&self, from: Instant) -> String {
        let Statement { at, is_subscribed, recovered, gap, position } = &self.statement;
        let (sign, apart) = if *at < from { ('-', from - *at) } else { ('+', *at - from) };
        let what = match (is_subscribed, &self.since) {
            (true, Some(since)) => format!("subscribed since {since}"),
            (true, None) => "subscribed".to_owned(),
            (false, _) => "resync".to_owned(),
        };
        let gap = gap.filter(|_| !recovered).map(|gap| format!(", gap {gap}")).unwrap_or_default();
        format!(
            "{sign}{} ms at gateway {}: {what} to {position}, recovered {recovered}{gap}",
            apart.as_millis(),
            self.node
        )
    }
}

fn describe<'a>(statements: impl Iterator<Item = &'a Heard>, from: Instant) -> String {
    statements.map(|heard| heard.describe(from)).collect::<Vec<_>>().join("; ")
}

/// How many statements are remembered for people.
const STATEMENTS_MAX: usize = 1_000;

/// How many statements there were: in all, with `"recovered":false`, and of the latter those without a number.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    statements: u64,
    gaps: u64,
    unnumbered: u64,
}

/// Checks that numbers rise.
///
/// Between two statements they must, and also across `"recovered":true`. With `"recovered":false` they may
/// start again from below. If that statement has no number of missing entries, they may do so once more, with
/// some later statement: what was out of reach may then come behind what could be reached.
#[derive(Debug, Default)]
struct Rising {
    highest: u64,
    at: Counted,
    restarts: u64,
}

impl Rising {
    /// Takes a number that comes after these statements; returns the higher number that came before it, if
    /// that is an error.
    fn next(&mut self, number: u64, now: Counted) -> Option<u64> {
        if now.gaps > self.at.gaps {
            self.highest = 0;
        }
        let is_first_after_a_statement = now.statements > self.at.statements;
        if number < self.highest && is_first_after_a_statement && self.restarts < now.unnumbered {
            self.restarts = now.unnumbered;
            self.highest = 0;
        }
        self.at = now;
        if number < self.highest {
            return Some(self.highest);
        }
        self.highest = number;
        None
    }
}

/// The arrivals of one node's entries, in order.
#[derive(Debug, Default)]
struct Arrivals {
    in_order: Vec<Arrival>,
    first: HashMap<u64, Instant>,
    /// By number, as far as they came.
    ids: HashMap<u64, Id>,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    n: u64,
    /// A later entry of the same producer had come before.
    is_reordered: bool,
    /// How many statements had come before.
    after: Counted,
}

/// A producer of entries, as their ids name it.
#[derive(Debug)]
struct Producer {
    name: String,
    order: Rising,
}

/// The producer's index in the list, and the entry's sequence number.
type Id = (usize, u64);

/// The subscriber was told that entries are missing here.
#[derive(Debug, Clone, Copy)]
struct Gap {
    at: Instant,
    /// How many; `None` if nobody knows.
    missing: Option<u64>,
}

/// What is wrong with what one subscriber saw, or all of them together.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Judged {
    /// Deliveries that are owed: accepted entries (on `latest`, the newest of each key), times subscribers.
    pub(super) expected: u64,
    /// Of these, those that came.
    pub(super) delivered: u64,
    /// Of these, those that did not come, though the log has them or their loss was not announced.
    pub(super) lost: u64,
    /// Of these, those that did not come, and whose loss was announced.
    pub(super) told: u64,
    /// How often a subscriber that had moved to another gateway was told its position there.
    pub(super) moved: u64,
    /// Of these, how often nothing was missing there.
    pub(super) resumed: u64,
    /// How often it was told that entries are missing, or may be.
    pub(super) gaps: u64,
    /// Entries that were said to be gone for good, but are in the log or came later.
    pub(super) falsely_gone: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    /// Repetitions after a statement that allows them.
    pub(super) again: u64,
    /// Entries that came though no answer had accepted them.
    pub(super) unaccepted: u64,
    /// Entries marked as late.
    pub(super) late: u64,
    /// Subscribers that were never subscribed.
    pub(super) left_out: u64,
    /// Lost entries: where they were posted, and their number.
    #[serde(skip)]
    pub(super) examples: Examples<(usize, u64)>,
    /// Untrue statements.
    #[serde(skip)]
    pub(super) false_statements: Examples,
    /// Entries that came behind a later one of their gateway, but of another producer.
    #[serde(skip)]
    pub(super) odd: Examples,
}

sums!(Judged: expected, delivered, lost, told, moved, resumed, gaps, falsely_gone, doubled, reordered, again,
    unaccepted, late, left_out, examples, false_statements, odd);

/// How many statements are quoted with an error, besides the one before it where that is not among them.
const STORY_MAX: usize = 6;

impl Witness {
    /// For a subscriber that subscribes under load without a position.
    pub(super) fn of_latecomer() -> Self {
        Self { begins_late: true, ..Self::default() }
    }

    /// A connection to this node was opened; `since` is the position that the client gives there.
    pub(super) fn connected(&mut self, node: usize, since: Option<String>) {
        (self.node, self.since) = (node, since);
    }

    /// `subscribed` or `resync` came.
    pub(super) fn placed(&mut self, statement: Statement) {
        self.counted.statements += 1;
        self.may_come_again = !statement.recovered;
        if !statement.recovered {
            self.counted.gaps += 1;
            self.counted.unnumbered += u64::from(statement.gap.is_none());
            self.gaps.push(Gap { at: statement.at, missing: statement.gap });
        }
        if statement.is_subscribed {
            self.subscribed_at.get_or_insert(statement.at);
            if self.subscribed_at_node.replace(self.node).is_some_and(|before| before != self.node) {
                self.moved += 1;
                self.resumed += u64::from(statement.recovered);
            }
        }
        let since = if statement.is_subscribed { self.since.clone() } else { None };
        self.statements.push_back(Heard { statement, node: self.node, since });
        if self.statements.len() > STATEMENTS_MAX {
            self.statements.pop_front();
        }
    }

    /// An entry came: its id, the node that it was posted at, and its number there.
    pub(super) fn entry(&mut self, at: Instant, id: &str, by: usize, n: u64, is_late: bool) {
        let (producer, seq) = self.parse(id);
        if let Some(first) = self.first_seen.get(&(producer, seq)).copied() {
            if self.may_come_again {
                self.again += 1;
            } else {
                self.note_odd(first, at, &format!("{id} twice"));
                self.doubled += 1;
            }
            return;
        }
        self.first_seen.insert((producer, seq), at);
        let after = self.counted;
        // Each number is posted once: a second entry with it is a double, whatever its id.
        if let Some(first) = self.arrivals.entry(by).or_default().first.get(&n).copied() {
            self.note_odd(first, at, &format!("{n} of gateway {by} a second time, as {id}"));
            self.doubled += 1;
            return;
        }
        let behind = self.producers[producer].order.next(seq, after);
        if let Some(highest) = behind {
            self.note_odd(at, at, &format!("{id} behind {highest}"));
        }
        let arrivals = self.arrivals.entry(by).or_default();
        arrivals.first.insert(n, at);
        arrivals.ids.insert(n, (producer, seq));
        arrivals.in_order.push(Arrival { n, is_reordered: behind.is_some(), after });
        self.late += u64::from(is_late);
    }

    /// An entry with `missedBefore` came.
    pub(super) fn missed_before(&mut self, by: usize, n: u64) {
        self.missed_before.insert((by, n));
    }

    /// `missed` came: so many events of another gateway did not come, or an unknown number. Neither the
    /// position nor what may come again changes with it.
    pub(super) fn missed(&mut self, at: Instant, missing: Option<u64>) {
        self.gaps.push(Gap { at, missing });
    }

    /// When it was last told that entries are missing.
    pub(super) fn told_at(&self) -> Option<Instant> {
        self.gaps.last().map(|gap| gap.at)
    }

    /// Notes an odd arrival; `first` is when the entry had come before.
    fn note_odd(&mut self, first: Instant, at: Instant, what: &str) {
        if !self.odd.has_room() {
            return;
        }
        let (after, count) = ((at - first).as_millis(), self.statements.len());
        let story = self.last_statements(first, count);
        self.odd.note(|| format!("{what}, {after} ms after the first ({story})"));
    }

    /// The statement before some moment, and those that followed.
    pub(super) fn story(&self, around: Instant) -> String {
        describe(self.statements.iter().skip(self.before(around)).take(1 + STORY_MAX), around)
    }

    /// The statement before `from`, and the last ones of the first `end`.
    fn last_statements(&self, from: Instant, end: usize) -> String {
        let (before, last) = (self.before(from), end.saturating_sub(STORY_MAX));
        let numbers = (before < last).then_some(before).into_iter().chain(last..end);
        describe(numbers.filter_map(|number| self.statements.get(number)), from)
    }

    /// The index of the last statement before some moment.
    fn before(&self, around: Instant) -> usize {
        self.statements.iter().rposition(|heard| heard.statement.at <= around).unwrap_or(0)
    }

    /// Whether a node's `n`th entry came.
    pub(super) fn has(&self, by: usize, n: u64) -> bool {
        self.arrivals.get(&by).is_some_and(|arrivals| arrivals.first.contains_key(&n))
    }

    /// The id of a node's `n`th entry, if it came.
    pub(super) fn id_of(&self, by: usize, n: u64) -> Option<String> {
        let (producer, seq) = self.arrivals.get(&by)?.ids.get(&n)?;
        Some(format!("{}-{seq}", self.producers[*producer].name))
    }

    /// For each accepted entry of a node that came, or whose key had a newer entry come: when that was, and
    /// how long after the entry was sent.
    pub(super) fn delays(
        &self,
        lane: Lane,
        by: usize,
        posts: &[Post],
    ) -> impl Iterator<Item = (Instant, Duration)> {
        let arrivals = self.arrivals.get(&by);
        let accepted = (1..).zip(posts).filter(|(_, post)| post.accepted.is_some());
        accepted.filter_map(move |(n, post)| {
            let first = &arrivals?.first;
            let came = stands_for(lane, n).filter_map(|n| first.get(&n)).min()?;
            Some((*came, came.saturating_duration_since(post.sent)))
        })
    }

    /// When the last of the entries came that had been accepted by some moment; `posted` is what was posted at
    /// each node.
    pub(super) fn caught_up(&self, posted: &[(usize, &[Post])], by_then: Instant) -> Option<Instant> {
        let arrivals = posted.iter().filter_map(|(by, posts)| Some((self.arrivals.get(by)?, posts)));
        let came = arrivals.flat_map(|(arrivals, posts)| {
            let is_accepted = move |post: &Post| post.accepted.is_some_and(|at| at <= by_then);
            let accepted = (1..).zip(*posts).filter(move |(_, post)| is_accepted(post));
            accepted.filter_map(move |(n, _)| arrivals.first.get(&n).copied())
        });
        came.max()
    }

    /// What is wrong by now: `posted` is what was posted at each node, `log` the log at the end, if it is
    /// known.
    pub(super) fn judge(&self, lane: Lane, posted: &[(usize, &[Post])], log: Option<&Log>) -> Judged {
        let mut judged = Judged {
            doubled: self.doubled,
            again: self.again,
            late: self.late,
            moved: self.moved,
            resumed: self.resumed,
            gaps: self.gaps.len() as u64,
            left_out: u64::from(self.subscribed_at.is_none()),
            ..Judged::default()
        };
        // When each was sent, at which node, and its number.
        let mut missing: Vec<(Instant, usize, u64)> = Vec::new();
        for (by, posts) in posted {
            let nothing = Arrivals::default();
            let arrivals = self.arrivals.get(by).unwrap_or(&nothing);
            for n in wanted(lane, posts) {
                let Some(post) = post(posts, n).filter(|post| self.is_owed(post)) else { continue };
                judged.expected += 1;
                match came(lane, arrivals, n) {
                    true => judged.delivered += 1,
                    false => missing.push((post.sent, *by, n)),
                }
            }
            let mut order = Rising::default();
            for arrival in &arrivals.in_order {
                // An entry that may have come at any time is judged only by its producer's order.
                if post(posts, arrival.n).and_then(|post| post.accepted).is_none() {
                    judged.unaccepted += 1;
                    judged.reordered += u64::from(arrival.is_reordered);
                    continue;
                }
                let behind = order.next(arrival.n, arrival.after);
                judged.reordered += u64::from(arrival.is_reordered || behind.is_some());
                if let Some(highest) = behind.filter(|_| !arrival.is_reordered) {
                    let came = arrivals.first.get(&arrival.n).copied();
                    let story = came.map(|came| self.last_statements(came, self.before(came) + 1));
                    let story = story.unwrap_or_default();
                    judged.odd.note(|| format!("{} of gateway {by} behind {highest} ({story})", arrival.n));
                }
            }
        }
        missing.sort_unstable_by_key(|(sent, ..)| *sent);
        self.excuse(missing, log, &mut judged);
        if let Some(log) = log {
            self.find_falsely_gone(lane, posted, log, &mut judged);
        }
        judged
    }

    fn is_owed(&self, post: &Post) -> bool {
        !self.begins_late || self.subscribed_at.is_some_and(|subscribed| post.sent >= subscribed)
    }

    /// Tells losses that were announced from those that were not: each gap excuses as many entries as it
    /// says, among those that had been sent by then and that the log does not have.
    fn excuse(&self, missing: Vec<(Instant, usize, u64)>, log: Option<&Log>, judged: &mut Judged) {
        let mut left: Vec<Gap> = self.gaps.clone();
        for (sent, by, n) in missing {
            let is_in_log = log.is_some_and(|log| log.has(by, n));
            let gap = left.iter_mut().find(|gap| gap.at > sent && gap.missing != Some(0) && !is_in_log);
            match gap {
                Some(gap) => {
                    gap.missing = gap.missing.map(|missing| missing - 1);
                    judged.told += 1;
                }
                None => {
                    judged.lost += 1;
                    judged.examples.note(|| (by, n));
                }
            }
        }
    }

    /// An entry that a number says is gone must have been sent by then, be in no log, and not come later.
    /// Each entry is counted by one statement only.
    fn find_falsely_gone(&self, lane: Lane, posted: &[(usize, &[Post])], log: &Log, judged: &mut Judged) {
        let mut gone: Vec<(Instant, Option<Instant>)> = Vec::new();
        for (by, posts) in posted {
            let first = self.arrivals.get(by).map(|arrivals| &arrivals.first);
            let no_log_has = (1..).zip(*posts).filter(|(n, _)| !log.has(*by, *n));
            gone.extend(
                no_log_has.map(|(n, post)| (post.sent, first.and_then(|first| first.get(&n).copied()))),
            );
        }
        gone.sort_unstable_by_key(|(sent, _)| *sent);
        for gap in &self.gaps {
            let Some(said) = gap.missing else { continue };
            let mut found = 0;
            gone.retain(|(sent, came)| {
                // A missed entry never came; one that is gone from a log may have come before.
                let may_be_gone = came.is_none_or(|came| came < gap.at && lane != Lane::Live);
                let is_it = found < said && *sent < gap.at && may_be_gone;
                found += u64::from(is_it);
                !is_it
            });
            if found < said {
                judged.falsely_gone += said - found;
                judged.false_statements.note(|| {
                    format!("{said} said to be gone, of which {found} are ({})", self.story(gap.at))
                });
            }
        }
    }

    /// `<producer>-<sequence>`; an id of another form counts as a producer of its own.
    fn parse(&mut self, id: &str) -> Id {
        let (name, seq) = match id.rsplit_once('-').map(|(name, seq)| (name, seq.parse())) {
            Some((name, Ok(seq))) => (name, seq),
            _ => (id, 0),
        };
        let known = self.producers.iter().position(|producer| producer.name == name);
        let place = known.unwrap_or_else(|| {
            self.producers.push(Producer { name: name.to_owned(), order: Rising::default() });
            self.producers.len() - 1
        });
        (place, seq)
    }
}

impl Judged {
    /// Whether every owed entry has come, or its loss was announced.
    pub(super) fn is_complete(&self) -> bool {
        self.lost == 0
    }
}

/// The `n`th, counting from 1.
fn post(posts: &[Post], n: u64) -> Option<&Post> {
    posts.get(usize::try_from(n).ok()?.checked_sub(1)?)
}

/// The numbers that must come.
pub(super) fn wanted(lane: Lane, posts: &[Post]) -> Vec<u64> {
    let accepted = (1..).zip(posts).filter(|(_, post)| post.accepted.is_some()).map(|(n, _)| n);
    match lane {
        Lane::Orders | Lane::Every | Lane::Events | Lane::Trades => accepted.collect(),
        Lane::Latest | Lane::Live => {
            let newest: BTreeMap<u64, u64> = accepted.map(|n| (key_run(n), n)).collect();
            newest.into_values().collect()
        }
    }
}

/// The numbers of the entries that say at least as much as the `n`th.
fn stands_for(lane: Lane, n: u64) -> RangeInclusive<u64> {
    match lane {
        Lane::Orders | Lane::Every | Lane::Events | Lane::Trades => n..=n,
        Lane::Latest | Lane::Live => n..=(key_run(n) + 1) * KEY_RUN,
    }
}

/// Whether the `n`th has come, or an entry that takes its place.
fn came(lane: Lane, arrivals: &Arrivals, n: u64) -> bool {
    stands_for(lane, n).any(|n| arrivals.first.contains_key(&n))
}

#[cfg(test)]
pub(super) mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    pub(in crate::outages) const COUNT: u64 = 40;

    pub(in crate::outages) fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Now, and `COUNT` accepted posts from then on, one each 10 ms.
    pub(in crate::outages) fn posts() -> (Instant, Vec<Post>) {
        let start = Instant::now();
        let post = |n| Post { sent: ms(start, n * 10), accepted: Some(ms(start, n * 10 + 1)) };
        (start, (1..=COUNT).map(post).collect())
    }

    /// A subscriber that saw these numbers on one connection, each 2 ms after its post.
    fn saw(start: Instant, numbers: impl IntoIterator<Item = u64>) -> Witness {
        let mut witness = Witness::default();
        witness.connected(0, None);
        witness.placed(subscribed(start, true, Some(0)));
        see(&mut witness, start, numbers);
        witness
    }

    /// These come, each 2 ms after its post.
    fn see(witness: &mut Witness, start: Instant, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            witness.entry(ms(start, n * 10 + 2), &format!("a-{n}"), 0, n, false);
        }
    }

    fn subscribed(at: Instant, recovered: bool, gap: Option<u64>) -> Statement {
        Statement { at, is_subscribed: true, recovered, gap, position: "e:0".to_owned() }
    }

    fn resync(at: Instant, recovered: bool, gap: Option<u64>) -> Statement {
        Statement { is_subscribed: false, ..subscribed(at, recovered, gap) }
    }

    /// A log with these entries of the first gateway.
    fn log(numbers: impl IntoIterator<Item = u64>) -> Log {
        let mut log = Log::default();
        numbers.into_iter().for_each(|n| log.entry(&format!("a-{n}"), 0, n, false));
        log
    }

    /// What is wrong with it, as (lost, told, doubled, reordered).
    fn wrong(witness: &Witness, lane: Lane, posts: &[Post]) -> (u64, u64, u64, u64) {
        let judged = witness.judge(lane, &[(0, posts)], None);
        assert_eq!(judged.expected, judged.delivered + judged.lost + judged.told);
        (judged.lost, judged.told, judged.doubled, judged.reordered)
    }

    #[test]
    fn a_good_subscriber_is_found_good_on_every_lane() {
        let (start, posts) = posts();
        for lane in Lane::ALL {
            assert_eq!(wrong(&saw(start, 1..=COUNT), lane, &posts), (0, 0, 0, 0));
        }
        let judged = saw(start, 1..=COUNT).judge(Lane::Orders, &[(0, &posts)], None);
        assert_eq!((judged.expected, judged.delivered), (COUNT, COUNT));
    }

    #[test]
    fn losing_doubling_and_reordering_are_found_wherever_they_are() {
        let (start, posts) = posts();
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let at = random.random_range(0..COUNT as usize);
            let good: Vec<u64> = (1..=COUNT).collect();

            let mut losing = good.clone();
            let lost = losing.remove(at);
            let witness = saw(start, losing);
            assert_eq!(wrong(&witness, Lane::Orders, &posts), (1, 0, 0, 0), "seed {seed}");
            let examples = witness.judge(Lane::Every, &[(0, &posts)], None).examples;
            assert_eq!(*examples, [(0, lost)], "seed {seed}");

            let mut doubling = good.clone();
            doubling.insert(random.random_range(at + 1..=COUNT as usize), at as u64 + 1);
            assert_eq!(wrong(&saw(start, doubling), Lane::Orders, &posts), (0, 0, 1, 0), "seed {seed}");

            let mut reordering = good.clone();
            let at = random.random_range(0..COUNT as usize - 1);
            reordering.swap(at, at + 1);
            assert_eq!(wrong(&saw(start, reordering), Lane::Orders, &posts), (0, 0, 0, 1), "seed {seed}");
        }
        assert_eq!(wrong(&saw(start, []), Lane::Orders, &posts), (COUNT, 0, 0, 0));
    }

    #[test]
    fn what_was_said_to_be_missed_is_told_and_no_more_of_it() {
        let (start, posts) = posts();
        // Two entries of a key, the newest and the one before: the number counts both.
        let without = || saw(start, (1..=COUNT).filter(|n| ![9, 10].contains(n)));
        let judge = |witness: &Witness| {
            let judged = witness.judge(Lane::Live, &[(0, &posts)], Some(&Log::default()));
            (judged.lost, judged.told, judged.falsely_gone)
        };
        assert_eq!(judge(&without()), (1, 0, 0));
        let said = |number| {
            let mut witness = without();
            witness.missed(ms(start, 300), number);
            witness
        };
        assert_eq!(judge(&said(Some(2))), (0, 1, 0));
        assert_eq!(judge(&said(None)), (0, 1, 0));
        assert_eq!(judge(&said(Some(3))), (0, 1, 1), "all but two came");
        // One of them comes nevertheless.
        let mut witness = said(Some(2));
        witness.entry(ms(start, 400), "a-9", 0, 9, true);
        assert_eq!(judge(&witness).2, 1);
        // An entry sent after the gap was announced is not excused.
        let mut witness = without();
        witness.missed(ms(start, 20), Some(2));
        assert_eq!(judge(&witness), (1, 0, 2));
    }

    #[test]
    fn the_same_number_under_another_id_is_doubled() {
        let (start, posts) = posts();
        let mut witness = saw(start, 1..=COUNT);
        witness.entry(start, "a-41", 0, 7, false);
        witness.entry(start, "b-1", 0, 8, false);
        assert_eq!(wrong(&witness, Lane::Orders, &posts), (0, 0, 2, 0));
    }

    #[test]
    fn a_later_sequence_with_an_earlier_number_is_reordered() {
        let (start, posts) = posts();
        let mut witness = Witness::default();
        witness.connected(0, None);
        for (seq, n) in [(1, 1), (2, 3), (3, 2), (4, 4)] {
            witness.entry(start, &format!("a-{seq}"), 0, n, false);
        }
        assert_eq!(wrong(&witness, Lane::Orders, &posts[..4]), (0, 0, 0, 1));
    }

    #[test]
    fn delays_are_measured_of_each_entry_or_what_took_its_place() {
        let (start, posts) = posts();
        let longest = |witness: &Witness, lane| witness.delays(lane, 0, &posts).map(|(_, delay)| delay).max();
        let mut witness = saw(start, (1..=COUNT).filter(|n| *n != 3));
        assert_eq!(longest(&witness, Lane::Every), Some(Duration::from_millis(2)));
        // The fourth came 12 ms after the third was sent.
        assert_eq!(longest(&witness, Lane::Latest), Some(Duration::from_millis(12)));
        witness.entry(ms(start, 530), "a-41", 0, 3, true);
        assert_eq!(longest(&witness, Lane::Every), Some(Duration::from_millis(500)));
        assert_eq!(witness.delays(Lane::Every, 1, &posts).count(), 0);
    }

    #[test]
    fn what_was_not_accepted_is_not_lost_and_may_come_once() {
        let (start, mut posts) = posts();
        posts[4].accepted = None;
        posts[9].accepted = None;
        let mut witness = saw(start, (1..=COUNT).filter(|n| *n != 5));
        let judged = witness.judge(Lane::Orders, &[(0, &posts)], None);
        assert_eq!((judged.expected, judged.lost, judged.unaccepted), (COUNT - 2, 0, 1));
        // Behind later ones it is out of its producer's order only if its sequence number says so.
        witness.entry(start, "a-41", 0, 5, true);
        assert_eq!(wrong(&witness, Lane::Orders, &posts), (0, 0, 0, 0));
        assert_eq!(witness.judge(Lane::Orders, &[(0, &posts)], None).late, 1);
        witness.entry(start, "a-42", 0, 5, true);
        assert_eq!(wrong(&witness, Lane::Orders, &posts), (0, 0, 1, 0));
    }

    #[test]
    fn a_gap_excuses_what_it_says_and_only_what_was_sent_before() {
        let (start, posts) = posts();
        let told = |gap: Option<u64>, at: u64| {
            let mut witness = saw(start, (1..=COUNT).filter(|n| !(10..14).contains(n)));
            witness.placed(resync(ms(start, at), false, gap));
            wrong(&witness, Lane::Orders, &posts)
        };
        assert_eq!(told(None, 145), (0, 4, 0, 0));
        assert_eq!(told(Some(4), 145), (0, 4, 0, 0));
        assert_eq!(told(Some(3), 145), (1, 3, 0, 0));
        assert_eq!(told(None, 115), (2, 2, 0, 0));
        assert_eq!(told(None, 5), (4, 0, 0, 0));
        let mut witness = saw(start, (1..=COUNT).filter(|n| *n != 10));
        witness.placed(resync(ms(start, 145), true, None));
        assert_eq!(wrong(&witness, Lane::Orders, &posts), (1, 0, 0, 0), "recovered excuses nothing");
    }

    #[test]
    fn on_latest_the_newest_of_each_key_must_come() {
        let (start, mut posts) = posts();
        // Of each key only its last price.
        let last_of_each = (1..=COUNT).filter(|n| n % KEY_RUN == 0);
        assert_eq!(wrong(&saw(start, last_of_each), Lane::Latest, &posts), (0, 0, 0, 0));
        let without_one = (1..=COUNT).filter(|n| *n != 2 * KEY_RUN);
        assert_eq!(wrong(&saw(start, without_one.clone()), Lane::Latest, &posts), (1, 0, 0, 0));
        // It is not owed if it was not accepted; the one before it is.
        posts[2 * KEY_RUN as usize - 1].accepted = None;
        assert_eq!(wrong(&saw(start, without_one), Lane::Latest, &posts), (0, 0, 0, 0));
        let without_two = (1..=COUNT).filter(|n| !(2 * KEY_RUN - 1..=2 * KEY_RUN).contains(n));
        assert_eq!(wrong(&saw(start, without_two), Lane::Latest, &posts), (1, 0, 0, 0));
        // A newer one takes its place, accepted or not.
        let without_the_accepted = (1..=COUNT).filter(|n| *n != 2 * KEY_RUN - 1);
        assert_eq!(wrong(&saw(start, without_the_accepted), Lane::Latest, &posts), (0, 0, 0, 0));
    }

    #[test]
    fn what_was_had_may_come_again_from_recovered_false_until_recovered_true() {
        let (start, posts) = posts();
        // On a connection to another gateway, and on the same one.
        for is_subscribed in [true, false] {
            let back = |recovered, gap| {
                let mut witness = saw(start, 1..=20);
                if is_subscribed {
                    witness.connected(1, Some("e:20".to_owned()));
                }
                witness.placed(Statement { is_subscribed, ..resync(ms(start, 205), recovered, gap) });
                see(&mut witness, start, 15..=COUNT);
                witness.judge(Lane::Orders, &[(0, &posts)], None)
            };
            for gap in [None, Some(3)] {
                let judged = back(false, gap);
                assert_eq!((judged.lost, judged.doubled, judged.reordered, judged.again), (0, 0, 0, 6));
            }
            let judged = back(true, Some(0));
            assert_eq!((judged.lost, judged.doubled, judged.again), (0, 6, 0));
        }
        // The statement ends it, not the arrival of new entries.
        let mut witness = saw(start, 1..=20);
        witness.placed(resync(ms(start, 205), false, None));
        see(&mut witness, start, 18..=21);
        see(&mut witness, start, [21]);
        witness.placed(resync(ms(start, 215), true, Some(0)));
        see(&mut witness, start, [3].into_iter().chain(22..=COUNT));
        let judged = witness.judge(Lane::Orders, &[(0, &posts)], None);
        assert_eq!((judged.again, judged.doubled, judged.reordered), (4, 1, 0));
    }

    #[test]
    fn an_entry_is_doubled_whichever_connection_it_was_had_on() {
        let (start, posts) = posts();
        // The client connects to B, then A, and back to B with the position that A gave.
        let mut witness = saw(start, 1..=3);
        for (node, from) in [(1, 4), (0, 6)] {
            witness.connected(node, Some(format!("e:{}", from - 1)));
            witness.placed(subscribed(ms(start, from * 10), true, Some(0)));
            see(&mut witness, start, from..from + 2);
        }
        assert_eq!(wrong(&witness, Lane::Orders, &posts[..7]), (0, 0, 0, 0));
        see(&mut witness, start, [3]);
        assert_eq!(wrong(&witness, Lane::Orders, &posts[..7]), (0, 0, 1, 0));
        assert!(witness.odd[0].ends_with("gateway 0: subscribed since e:5 to e:0, recovered true)"));
        let judged = witness.judge(Lane::Orders, &[(0, &posts[..7])], None);
        assert_eq!((judged.moved, judged.resumed, judged.gaps), (2, 2, 0));
    }

    #[test]
    fn order_begins_anew_after_recovered_false_and_after_nothing_else() {
        let (start, posts) = posts();
        // 4 to 6 came before 1 to 3, with these statements between them.
        let back = |statements: &[(bool, Option<u64>)], behind: &[u64]| {
            let mut witness = saw(start, 4..=6);
            for (recovered, gap) in statements {
                witness.placed(resync(ms(start, 65), *recovered, *gap));
            }
            see(&mut witness, start, behind.iter().copied());
            wrong(&witness, Lane::Orders, &posts[..6])
        };
        assert_eq!(back(&[(false, None)], &[1, 2, 3]), (0, 0, 0, 0));
        assert_eq!(back(&[(false, Some(0))], &[1, 2, 3]), (0, 0, 0, 0));
        assert_eq!(back(&[(false, None)], &[1, 3, 2]), (0, 0, 0, 1));
        assert_eq!(back(&[], &[1, 2, 3]), (0, 0, 0, 3));
        assert_eq!(back(&[(true, Some(0))], &[1, 2, 3]), (0, 0, 0, 3));
        assert_eq!(back(&[(false, None), (true, Some(0))], &[1, 2, 3]), (0, 0, 0, 0));
    }

    #[test]
    fn what_was_out_of_reach_may_come_behind_once() {
        let (start, posts) = posts();
        let late = |gap: Option<u64>, first: &[u64], then: &[u64], more: &[u64]| {
            let mut witness = Witness::default();
            witness.connected(1, None);
            witness.placed(subscribed(start, false, gap));
            see(&mut witness, start, first.iter().copied());
            witness.placed(resync(ms(start, 500), true, Some(0)));
            see(&mut witness, start, then.iter().copied());
            witness.placed(resync(ms(start, 600), true, Some(0)));
            see(&mut witness, start, more.iter().copied());
            wrong(&witness, Lane::Orders, &posts[..7]).3
        };
        assert_eq!(late(None, &[4], &[1, 2, 3, 5], &[6, 7]), 0);
        assert_eq!(late(None, &[4], &[5], &[1, 2, 3, 6, 7]), 0);
        assert_eq!(late(None, &[4], &[2, 3, 5], &[1, 6, 7]), 1, "twice");
        assert_eq!(late(None, &[4], &[5, 1, 2, 3], &[6, 7]), 3, "not with the statement");
        assert_eq!(late(Some(3), &[4], &[1, 2, 3, 5], &[6, 7]), 3, "a number says that they are gone");
    }

    #[test]
    fn what_the_log_keeps_must_have_come_whatever_was_said() {
        let (start, posts) = posts();
        for gap in [None, Some(3)] {
            // The missing entries were posted elsewhere, and were out of reach.
            let mut witness = Witness::default();
            witness.connected(1, None);
            witness.placed(subscribed(ms(start, 35), false, gap));
            see(&mut witness, start, 4..=COUNT);
            let judge = |witness: &Witness, log: &Log| {
                let judged = witness.judge(Lane::Orders, &[(0, &posts)], Some(log));
                (judged.lost, judged.told, judged.falsely_gone)
            };
            let false_statements = gap.unwrap_or(0);
            assert_eq!(judge(&witness, &log(1..=COUNT)), (3, 0, false_statements));
            assert_eq!(judge(&witness, &log(4..=COUNT)), (0, 3, 0));
            assert_eq!(judge(&witness, &log(3..=COUNT)), (1, 2, false_statements.min(1)));
            // They come in the end.
            witness.placed(resync(ms(start, 600), true, Some(0)));
            for n in 1..=3 {
                witness.entry(ms(start, 601), &format!("a-{n}"), 0, n, true);
            }
            assert_eq!(judge(&witness, &log(1..=COUNT)), (0, 0, false_statements));
            assert_eq!(
                judge(&witness, &log(4..=COUNT)),
                (0, 0, false_statements),
                "they came after the statement"
            );
            assert_eq!(wrong(&witness, Lane::Orders, &posts).3, if gap.is_none() { 0 } else { 3 });
        }
    }

    #[test]
    fn what_is_gone_is_gone_once() {
        let (start, posts) = posts();
        let told = |gaps: &[u64]| {
            let mut witness = saw(start, 5..=COUNT);
            gaps.iter().for_each(|gap| witness.placed(resync(ms(start, 500), false, Some(*gap))));
            let judged = witness.judge(Lane::Orders, &[(0, &posts)], Some(&log(5..=COUNT)));
            (judged.lost, judged.told, judged.falsely_gone, judged.false_statements.len())
        };
        assert_eq!(told(&[4]), (0, 4, 0, 0));
        assert_eq!(told(&[3, 1]), (0, 4, 0, 0));
        assert_eq!(told(&[3]), (1, 3, 0, 0));
        assert_eq!(told(&[4, 4]), (0, 4, 4, 1));
        assert_eq!(told(&[5]), (0, 4, 1, 1));
        // The statement cannot mean entries that were sent after it.
        let mut witness = saw(start, 5..=COUNT);
        witness.placed(resync(ms(start, 25), false, Some(4)));
        let judged = witness.judge(Lane::Orders, &[(0, &posts)], Some(&log(5..=COUNT)));
        assert_eq!((judged.lost, judged.told, judged.falsely_gone), (2, 2, 2));
    }

    #[test]
    fn a_latecomer_of_a_zone_is_owed_what_comes_next() {
        let (start, posts) = posts();
        let late = |numbers: std::ops::RangeInclusive<u64>| {
            let mut witness = Witness::of_latecomer();
            witness.connected(0, None);
            witness.placed(subscribed(ms(start, 105), true, Some(0)));
            see(&mut witness, start, numbers);
            let judged = witness.judge(Lane::Every, &[(0, &posts)], None);
            (judged.expected, judged.lost, judged.left_out)
        };
        assert_eq!(late(11..=COUNT), (COUNT - 10, 0, 0));
        assert_eq!(late(10..=COUNT), (COUNT - 10, 0, 0), "it was on its way");
        assert_eq!(late(12..=COUNT), (COUNT - 10, 1, 0));
        let judged = Witness::of_latecomer().judge(Lane::Every, &[(0, &posts)], None);
        assert_eq!((judged.expected, judged.left_out), (0, 1));
    }

    #[test]
    fn producers_are_judged_apart() {
        let (start, posts) = posts();
        let mut witness = Witness::default();
        witness.connected(0, None);
        for n in 1..=COUNT {
            witness.entry(start, &format!("a-b-{}", n + 100), 0, n, false);
            witness.entry(start, &format!("b-{n}"), 1, n, false);
        }
        let judged = witness.judge(Lane::Every, &[(0, &posts), (1, &posts)], None);
        assert_eq!((judged.delivered, judged.doubled, judged.reordered), (2 * COUNT, 0, 0));
    }

    #[test]
    fn it_is_caught_up_with_the_last_of_what_was_accepted_before() {
        let (start, posts) = posts();
        let witness = saw(start, 1..=COUNT);
        assert_eq!(witness.caught_up(&[(0, &posts)], ms(start, 105)), Some(ms(start, 102)));
    }

    #[test]
    fn the_judgements_of_many_add_up() {
        let (start, posts) = posts();
        let mut sum = Judged::default();
        for _ in 0..3 {
            sum += saw(start, 3..=COUNT).judge(Lane::Orders, &[(0, &posts)], None);
        }
        assert_eq!((sum.expected, sum.lost, sum.examples.len()), (3 * COUNT, 6, 5));
        assert!(!sum.is_complete());
    }
}
