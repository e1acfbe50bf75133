//! What one subscriber saw, and what is wrong with it. No I/O, so that it can be tested with
//! subscribers that lose, double and reorder.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// So many prices in a row share a key; then it is never used again. So on the lane `latest` each key
/// has a newest price that nothing later hides the loss of.
pub(super) const KEY_RUN: u64 = 5;

/// The key's number of the `n`th price.
pub(super) fn key_run(n: u64) -> u64 {
    (n - 1) / KEY_RUN
}

/// What must arrive of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// The updates of an order: each.
    Order,
    /// Prices on the lane `every`: each.
    Every,
    /// Prices on the lane `latest`: the newest of each key, or a newer one.
    Latest,
}

impl Lane {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Order => "orders",
            Self::Every => "every",
            Self::Latest => "latest",
        }
    }
}

/// One entry that was posted. The `n`th of a producer stands at `n - 1`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Post {
    /// Just before the request went out.
    pub(super) sent: Instant,
    /// When the gateway said that it has it; none when it refused, or did not answer.
    pub(super) accepted: Option<Instant>,
}

/// What one subscriber of one channel saw, over all of its connections.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// By the node that the entries were posted at.
    arrivals: BTreeMap<usize, Arrivals>,
    producers: Vec<Producer>,
    /// Ids seen on any connection.
    had: HashSet<Id>,
    /// Ids seen on this one.
    here: HashSet<Id>,
    /// This connection was told that it cannot go on where the one before ended: it may get again
    /// what that one had.
    may_come_again: bool,
    gaps: Vec<Gap>,
    connections: u64,
    doubled: u64,
    again: u64,
    late: u64,
    /// The first few that came twice or behind a later one, in words.
    odd: Vec<String>,
}

/// What came of one node's entries, in order of arrival.
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
}

/// Who wrote entries, as their ids say.
#[derive(Debug)]
struct Producer {
    name: String,
    highest: u64,
}

/// The producer's place in the list, and its sequence.
type Id = (usize, u64);

/// The subscriber was told that entries are missing here.
#[derive(Debug, Clone, Copy)]
struct Gap {
    at: Instant,
    /// How many; none when nobody knows.
    missing: Option<u64>,
}

/// What is wrong with what a subscriber saw, or all of them together.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Judged {
    /// Deliveries that are owed: accepted entries (on `latest`, the newest of each key), times
    /// subscribers.
    pub(super) expected: u64,
    /// Of these, those that came.
    pub(super) delivered: u64,
    /// Of these, those that did not, and nobody said so.
    pub(super) lost: u64,
    /// Of these, those that did not, and the subscriber was told that entries are missing.
    pub(super) told: u64,
    /// How often it was told that.
    pub(super) gaps: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    /// Had on an earlier connection, and sent again after being told that they may be.
    pub(super) again: u64,
    /// Came though nobody said that they were accepted.
    pub(super) unaccepted: u64,
    /// Were marked as late.
    pub(super) late: u64,
    /// The last arrival of what had been accepted before some moment.
    #[serde(skip)]
    pub(super) caught_up: Option<Instant>,
    /// The first few that were lost: where they were posted, and their number.
    #[serde(skip)]
    pub(super) examples: Vec<(usize, u64)>,
}

/// How many lost entries are named.
const EXAMPLES_MAX: usize = 5;

impl Witness {
    /// A connection came about.
    pub(super) fn connected(&mut self) {
        self.connections += 1;
        self.here.clear();
        self.may_come_again = false;
    }

    /// `subscribed` or `resync` came; `recovered` and `gap` are what it said.
    pub(super) fn placed(&mut self, at: Instant, is_subscribed: bool, recovered: bool, gap: Option<u64>) {
        if recovered {
            return;
        }
        self.gaps.push(Gap { at, missing: gap });
        // The position was of another log: what is kept comes again, on a connection that has had
        // nothing yet.
        if is_subscribed && gap.is_none() && self.connections > 1 && self.here.is_empty() {
            self.may_come_again = true;
            for producer in &mut self.producers {
                producer.highest = 0;
            }
        }
    }

    /// An entry came: its id, the node that it was posted at, and its number there.
    pub(super) fn entry(&mut self, at: Instant, id: &str, by: usize, n: u64, is_late: bool) {
        let (producer, seq) = self.parse(id);
        if !self.here.insert((producer, seq)) {
            self.note_odd(|| format!("{id} twice"));
            self.doubled += 1;
            return;
        }
        if !self.had.insert((producer, seq)) {
            if self.may_come_again {
                self.again += 1;
            } else {
                self.note_odd(|| format!("{id} twice, on two connections"));
                self.doubled += 1;
            }
            return;
        }
        let arrivals = self.arrivals.entry(by).or_default();
        // Each number is posted once: two entries of it are one too many, whatever their ids.
        if arrivals.first.contains_key(&n) {
            self.note_odd(|| format!("{n} of gateway {by} a second time, as {id}"));
            self.doubled += 1;
            return;
        }
        arrivals.first.insert(n, at);
        arrivals.ids.insert(n, (producer, seq));
        let highest = &mut self.producers[producer].highest;
        let is_reordered = seq < *highest;
        arrivals.in_order.push(Arrival { n, is_reordered });
        if is_reordered {
            let highest = *highest;
            self.note_odd(|| format!("{id} behind {highest}"));
        } else {
            *highest = seq;
        }
        self.late += u64::from(is_late);
    }

    fn note_odd(&mut self, what: impl FnOnce() -> String) {
        if self.odd.len() < EXAMPLES_MAX {
            self.odd.push(what());
        }
    }

    /// The first few that came twice or behind a later one.
    pub(super) fn odd(&self) -> &[String] {
        &self.odd
    }

    /// The id of a node's `n`th entry, if it came.
    pub(super) fn id_of(&self, by: usize, n: u64) -> Option<String> {
        let (producer, seq) = self.arrivals.get(&by)?.ids.get(&n)?;
        Some(format!("{}-{seq}", self.producers[*producer].name))
    }

    /// Of each accepted entry of a node that came, or had a newer one of its key come: when it came, and
    /// how long after it was sent.
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

    /// What is wrong by now: `posted` is what was posted by each node that did. `before` is the
    /// moment that `caught_up` is about.
    pub(super) fn judge(&self, lane: Lane, posted: &[(usize, &[Post])], before: Option<Instant>) -> Judged {
        let mut judged = Judged {
            doubled: self.doubled,
            again: self.again,
            late: self.late,
            gaps: self.gaps.len() as u64,
            ..Judged::default()
        };
        // When each was sent, where, its number.
        let mut missing: Vec<(Instant, usize, u64)> = Vec::new();
        for (by, posts) in posted {
            let nothing = Arrivals::default();
            let arrivals = self.arrivals.get(by).unwrap_or(&nothing);
            let accepted = |n: u64| post(posts, n).and_then(|post| post.accepted);
            let wanted = wanted(lane, posts);
            judged.expected += wanted.len() as u64;
            for n in wanted {
                match came(lane, arrivals, n) {
                    true => judged.delivered += 1,
                    false => missing.extend(post(posts, n).map(|post| (post.sent, *by, n))),
                }
            }
            let mut highest = 0;
            for arrival in &arrivals.in_order {
                match accepted(arrival.n) {
                    Some(at) => {
                        judged.reordered += u64::from(arrival.is_reordered || arrival.n < highest);
                        highest = highest.max(arrival.n);
                        if before.is_some_and(|before| at <= before) {
                            judged.caught_up = judged.caught_up.max(arrivals.first.get(&arrival.n).copied());
                        }
                    }
                    // What may have come at any time is judged by its producer's order alone.
                    None => {
                        judged.unaccepted += 1;
                        judged.reordered += u64::from(arrival.is_reordered);
                    }
                }
            }
        }
        missing.sort_unstable_by_key(|(sent, ..)| *sent);
        self.excuse(missing, &mut judged);
        judged
    }

    /// Tells what the subscriber was told is missing from what is lost: each gap excuses as many
    /// entries as it says, of those that had been sent by then.
    fn excuse(&self, missing: Vec<(Instant, usize, u64)>, judged: &mut Judged) {
        let mut left: Vec<Gap> = self.gaps.clone();
        for (sent, by, n) in missing {
            let gap = left.iter_mut().find(|gap| gap.at > sent && gap.missing != Some(0));
            match gap {
                Some(gap) => {
                    gap.missing = gap.missing.map(|missing| missing - 1);
                    judged.told += 1;
                }
                None => {
                    judged.lost += 1;
                    if judged.examples.len() < EXAMPLES_MAX {
                        judged.examples.push((by, n));
                    }
                }
            }
        }
    }

    /// `<producer>-<sequence>`; what has another form counts as a producer of its own.
    fn parse(&mut self, id: &str) -> Id {
        let (name, seq) = match id.rsplit_once('-').map(|(name, seq)| (name, seq.parse())) {
            Some((name, Ok(seq))) => (name, seq),
            _ => (id, 0),
        };
        let known = self.producers.iter().position(|producer| producer.name == name);
        let place = known.unwrap_or_else(|| {
            self.producers.push(Producer { name: name.to_owned(), highest: 0 });
            self.producers.len() - 1
        });
        (place, seq)
    }
}

impl Judged {
    /// Adds another subscriber's.
    pub(super) fn add(&mut self, other: &Self) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.told += other.told;
        self.gaps += other.gaps;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.again += other.again;
        self.unaccepted += other.unaccepted;
        self.late += other.late;
        self.caught_up = self.caught_up.max(other.caught_up);
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room));
    }

    /// Whether all has come that must, or was told to be missing.
    pub(super) fn is_complete(&self) -> bool {
        self.lost == 0
    }
}

/// The `n`th, counting from 1.
fn post(posts: &[Post], n: u64) -> Option<&Post> {
    posts.get(usize::try_from(n).ok()?.checked_sub(1)?)
}

/// The numbers that must come.
fn wanted(lane: Lane, posts: &[Post]) -> Vec<u64> {
    let accepted = (1..).zip(posts).filter(|(_, post)| post.accepted.is_some()).map(|(n, _)| n);
    match lane {
        Lane::Order | Lane::Every => accepted.collect(),
        Lane::Latest => {
            let newest: BTreeMap<u64, u64> = accepted.map(|n| (key_run(n), n)).collect();
            newest.into_values().collect()
        }
    }
}

/// The numbers of what says at least as much as the `n`th.
fn stands_for(lane: Lane, n: u64) -> RangeInclusive<u64> {
    match lane {
        Lane::Order | Lane::Every => n..=n,
        Lane::Latest => n..=(key_run(n) + 1) * KEY_RUN,
    }
}

/// Whether the `n`th has come, or what takes its place.
fn came(lane: Lane, arrivals: &Arrivals, n: u64) -> bool {
    stands_for(lane, n).any(|n| arrivals.first.contains_key(&n))
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const COUNT: u64 = 40;

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// `COUNT` accepted posts, one each 10 ms.
    fn posts(start: Instant) -> Vec<Post> {
        let post = |n| Post { sent: ms(start, n * 10), accepted: Some(ms(start, n * 10 + 1)) };
        (1..=COUNT).map(post).collect()
    }

    /// A subscriber that saw these numbers on one connection, each at 2 ms after its post.
    fn saw(start: Instant, numbers: impl IntoIterator<Item = u64>) -> Witness {
        let mut witness = Witness::default();
        witness.connected();
        witness.placed(start, true, true, Some(0));
        for n in numbers {
            witness.entry(ms(start, n * 10 + 2), &format!("a-{n}"), 0, n, false);
        }
        witness
    }

    /// What is wrong with it, as (lost, told, doubled, reordered).
    fn wrong(witness: &Witness, lane: Lane, posts: &[Post]) -> (u64, u64, u64, u64) {
        let judged = witness.judge(lane, &[(0, posts)], None);
        assert_eq!(judged.expected, judged.delivered + judged.lost + judged.told);
        (judged.lost, judged.told, judged.doubled, judged.reordered)
    }

    #[test]
    fn a_good_subscriber_is_found_good_on_every_lane() {
        let start = Instant::now();
        for lane in [Lane::Order, Lane::Every, Lane::Latest] {
            assert_eq!(wrong(&saw(start, 1..=COUNT), lane, &posts(start)), (0, 0, 0, 0));
        }
        let judged = saw(start, 1..=COUNT).judge(Lane::Order, &[(0, &posts(start))], None);
        assert_eq!((judged.expected, judged.delivered), (COUNT, COUNT));
    }

    #[test]
    fn losing_doubling_and_reordering_are_found_wherever_they_are() {
        let start = Instant::now();
        let posts = posts(start);
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let at = random.random_range(0..COUNT as usize);
            let good: Vec<u64> = (1..=COUNT).collect();

            let mut losing = good.clone();
            let lost = losing.remove(at);
            let witness = saw(start, losing);
            assert_eq!(wrong(&witness, Lane::Order, &posts), (1, 0, 0, 0), "seed {seed}");
            let examples = witness.judge(Lane::Every, &[(0, &posts)], None).examples;
            assert_eq!(examples, [(0, lost)], "seed {seed}");

            let mut doubling = good.clone();
            doubling.insert(random.random_range(at + 1..=COUNT as usize), at as u64 + 1);
            assert_eq!(wrong(&saw(start, doubling), Lane::Order, &posts), (0, 0, 1, 0), "seed {seed}");

            let mut reordering = good.clone();
            let at = random.random_range(0..COUNT as usize - 1);
            reordering.swap(at, at + 1);
            assert_eq!(wrong(&saw(start, reordering), Lane::Order, &posts), (0, 0, 0, 1), "seed {seed}");
        }
        assert_eq!(wrong(&saw(start, []), Lane::Order, &posts), (COUNT, 0, 0, 0));
    }

    #[test]
    fn the_same_number_under_another_id_is_doubled() {
        let start = Instant::now();
        let mut witness = saw(start, 1..=COUNT);
        witness.entry(start, "a-41", 0, 7, false);
        witness.entry(start, "b-1", 0, 8, false);
        assert_eq!(wrong(&witness, Lane::Order, &posts(start)), (0, 0, 2, 0));
    }

    #[test]
    fn a_later_sequence_with_an_earlier_number_is_reordered() {
        let start = Instant::now();
        let mut witness = Witness::default();
        witness.connected();
        for (seq, n) in [(1, 1), (2, 3), (3, 2), (4, 4)] {
            witness.entry(start, &format!("a-{seq}"), 0, n, false);
        }
        assert_eq!(wrong(&witness, Lane::Order, &posts(start)[..4]), (0, 0, 0, 1));
    }

    #[test]
    fn delays_are_measured_of_each_entry_or_what_took_its_place() {
        let start = Instant::now();
        let posts = posts(start);
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
        let start = Instant::now();
        let mut posts = posts(start);
        posts[4].accepted = None;
        posts[9].accepted = None;
        let mut witness = saw(start, (1..=COUNT).filter(|n| *n != 5));
        let judged = witness.judge(Lane::Order, &[(0, &posts)], None);
        assert_eq!((judged.expected, judged.lost, judged.unaccepted), (COUNT - 2, 0, 1));
        // Behind later ones it is out of its producer's order only if its sequence says so.
        witness.entry(start, "a-41", 0, 5, true);
        assert_eq!(wrong(&witness, Lane::Order, &posts), (0, 0, 0, 0));
        assert_eq!(witness.judge(Lane::Order, &[(0, &posts)], None).late, 1);
        witness.entry(start, "a-42", 0, 5, true);
        assert_eq!(wrong(&witness, Lane::Order, &posts), (0, 0, 1, 0));
    }

    #[test]
    fn a_gap_excuses_what_it_says_and_only_what_was_sent_before() {
        let start = Instant::now();
        let posts = posts(start);
        let told = |gap: Option<u64>, at: u64| {
            let mut witness = saw(start, (1..=COUNT).filter(|n| !(10..14).contains(n)));
            witness.placed(ms(start, at), false, false, gap);
            wrong(&witness, Lane::Order, &posts)
        };
        assert_eq!(told(None, 145), (0, 4, 0, 0));
        assert_eq!(told(Some(4), 145), (0, 4, 0, 0));
        assert_eq!(told(Some(3), 145), (1, 3, 0, 0));
        assert_eq!(told(None, 115), (2, 2, 0, 0));
        assert_eq!(told(None, 5), (4, 0, 0, 0));
        let mut witness = saw(start, (1..=COUNT).filter(|n| *n != 10));
        witness.placed(ms(start, 145), false, true, None);
        assert_eq!(wrong(&witness, Lane::Order, &posts), (1, 0, 0, 0), "recovered excuses nothing");
    }

    #[test]
    fn on_latest_the_newest_of_each_key_must_come() {
        let start = Instant::now();
        let mut posts = posts(start);
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
    fn a_new_connection_may_get_again_what_it_had_only_if_it_is_told() {
        let start = Instant::now();
        let posts = posts(start);
        let back = |recovered, gap| {
            let mut witness = saw(start, 1..=20);
            witness.connected();
            witness.placed(ms(start, 205), true, recovered, gap);
            for n in 15..=COUNT {
                witness.entry(ms(start, n * 10 + 2), &format!("a-{n}"), 0, n, false);
            }
            witness.judge(Lane::Order, &[(0, &posts)], None)
        };
        let judged = back(false, None);
        assert_eq!((judged.lost, judged.doubled, judged.reordered, judged.again), (0, 0, 0, 6));
        let judged = back(true, Some(0));
        assert_eq!((judged.lost, judged.doubled, judged.again), (0, 6, 0));
        // On one connection nothing may come twice, whatever is said.
        let mut witness = saw(start, 1..=COUNT);
        witness.placed(ms(start, 500), false, false, None);
        witness.entry(ms(start, 501), "a-40", 0, 40, false);
        assert_eq!(wrong(&witness, Lane::Order, &posts), (0, 0, 1, 0));
    }

    #[test]
    fn producers_are_judged_apart() {
        let start = Instant::now();
        let posts = posts(start);
        let mut witness = Witness::default();
        witness.connected();
        for n in 1..=COUNT {
            witness.entry(start, &format!("a-b-{}", n + 100), 0, n, false);
            witness.entry(start, &format!("b-{n}"), 1, n, false);
        }
        let judged = witness.judge(Lane::Every, &[(0, &posts), (1, &posts)], None);
        assert_eq!((judged.delivered, judged.doubled, judged.reordered), (2 * COUNT, 0, 0));
    }

    #[test]
    fn it_is_caught_up_with_the_last_of_what_was_accepted_before() {
        let start = Instant::now();
        let posts = posts(start);
        let judged = saw(start, 1..=COUNT).judge(Lane::Order, &[(0, &posts)], Some(ms(start, 105)));
        assert_eq!(judged.caught_up, Some(ms(start, 102)));
    }

    #[test]
    fn the_judgements_of_many_add_up() {
        let start = Instant::now();
        let posts = posts(start);
        let mut sum = Judged::default();
        for _ in 0..3 {
            sum.add(&saw(start, 3..=COUNT).judge(Lane::Order, &[(0, &posts)], None));
        }
        assert_eq!((sum.expected, sum.lost, sum.examples.len()), (3 * COUNT, 6, 5));
        assert!(!sum.is_complete());
    }
}
