use proptest::prelude::*;

use super::*;
use crate::model::DraftEntry;

const ORDER: &str = "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";

fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

/// The next entry in an unbroken chain.
fn entry(seq: u64, key: Option<&str>, time_ms: i64) -> Append {
    let draft = DraftEntry { key: key.map(Arc::from), ..DraftEntry::price(time_ms, vec![b'x'; 10]) };
    Append { seq, prev: seq - 1, draft, fence: None }
}

fn bounds(entries: usize) -> JournalBounds {
    JournalBounds { bytes: usize::MAX, entries, age: Duration::from_secs(60), order_updates: 3 }
}

/// The log refuses the oldest entry.
fn drop_front(journal: &mut Journal, channel: &ChannelName, now: Instant) -> Option<Pending> {
    let first = journal.after(channel, 0, 1).first()?.seq;
    journal.refused(channel, first, now)
}

fn seqs(journal: &Journal, channel: &ChannelName) -> Vec<(u64, u64)> {
    journal.pending(channel).map(|pending| (pending.append.prev, pending.append.seq)).collect()
}

#[tokio::test(start_paused = true)]
async fn entries_wait_in_order_until_the_log_has_them() {
    let (mut journal, pjm, now) = (Journal::new(bounds(10)), channel("zone:pjm"), Instant::now());
    for seq in 1..=4 {
        assert_eq!(journal.push(&pjm, Lane::Every, &[entry(seq, Some("a"), 0)], now), Ok(vec![]));
    }
    assert_eq!(journal.after(&pjm, 0, 2), [entry(1, Some("a"), 0), entry(2, Some("a"), 0)]);
    assert_eq!(journal.depth().oldest, Some(now));
    assert_eq!((journal.acknowledged(&pjm, 3), journal.acknowledged(&pjm, 3)), (3, 0));
    assert_eq!((seqs(&journal, &pjm), journal.is_empty(&pjm)), (vec![(3, 4)], false));
    assert_eq!(journal.acknowledged(&pjm, 9), 1);
    assert_eq!((journal.depth(), journal.channels().count()), (JournalDepth::default(), 0));
    assert!(journal.lines.is_empty(), "nothing is kept of a channel that is done");
}

#[tokio::test(start_paused = true)]
async fn only_obsolete_prices_are_dropped_for_want_of_room_oldest_first() {
    let (mut journal, now) = (Journal::new(bounds(4)), Instant::now());
    let (pjm, spp) = (channel("zone:pjm"), channel("zone:spp"));
    let mut push = |name: &ChannelName, lane, seq, key| journal.push(name, lane, &[entry(seq, key, 0)], now);
    assert_eq!(push(&pjm, Lane::Latest, 1, Some("a")), Ok(vec![]));
    assert_eq!(push(&spp, Lane::Latest, 1, Some("a")), Ok(vec![]));
    assert_eq!(push(&pjm, Lane::Latest, 2, Some("a")), Ok(vec![]));
    assert_eq!(push(&spp, Lane::Latest, 2, Some("a")), Ok(vec![]));
    assert_eq!(push(&pjm, Lane::Latest, 3, None), Ok(vec![Gone { channel: pjm.clone(), seq: 1 }]));
    // The journal is full, and only one entry is obsolete.
    assert_eq!(push(&pjm, Lane::Latest, 4, None), Ok(vec![Gone { channel: spp.clone(), seq: 1 }]));
    assert_eq!(push(&pjm, Lane::Latest, 5, None), Err(JournalFull));
    assert_eq!(push(&pjm, Lane::Every, 5, Some("a")), Err(JournalFull));
    // A newer price takes the place of the one it replaces; several can at once.
    assert_eq!(push(&pjm, Lane::Latest, 5, Some("a")), Ok(vec![Gone { channel: pjm.clone(), seq: 2 }]));
    let two = [entry(6, Some("a"), 0), entry(7, Some("a"), 0)];
    assert_eq!(journal.push(&pjm, Lane::Latest, &two, now).unwrap().len(), 2);
    assert_eq!(seqs(&journal, &pjm), [(0, 3), (3, 4), (4, 7)]);
    assert_eq!(seqs(&journal, &spp), [(0, 2)]);
    // A late price replaces nothing.
    assert_eq!(journal.push(&pjm, Lane::Latest, &[entry(8, Some("a"), -1)], now), Err(JournalFull));
    let expected = JournalCounts { thinned: 5, refused_full: 3, ..JournalCounts::default() };
    assert_eq!(journal.counts(), expected);
}

#[tokio::test(start_paused = true)]
async fn reserved_room_is_exclusive_and_nothing_is_dropped_before_it_is_used() {
    let (mut journal, pjm, now) = (Journal::new(bounds(2)), channel("zone:pjm"), Instant::now());
    journal.push(&pjm, Lane::Latest, &[entry(1, Some("a"), 0), entry(2, Some("b"), 0)], now).unwrap();
    let next = [entry(3, Some("a"), 0)];
    let room = journal.reserve(&pjm, Lane::Latest, &next).unwrap();
    assert_eq!(seqs(&journal, &pjm), [(0, 1), (1, 2)]);
    assert_eq!(journal.reserve(&pjm, Lane::Latest, &next), Err(JournalFull), "one replaces `a`");
    journal.release(room);
    let room = journal.reserve(&pjm, Lane::Latest, &next).unwrap();
    let gone = journal.commit(room, &pjm, Lane::Latest, &next, now);
    assert_eq!(gone, [Gone { channel: pjm.clone(), seq: 1 }]);
    assert_eq!(seqs(&journal, &pjm), [(0, 2), (2, 3)]);
    journal.acknowledged(&pjm, 3);
    assert!(journal.lines.is_empty() && journal.reserved == Size::default());
}

#[tokio::test(start_paused = true)]
async fn entries_that_the_log_would_not_keep_are_dropped_and_the_next_is_marked() {
    let (mut journal, pjm, order) = (Journal::new(bounds(10)), channel("zone:pjm"), channel(ORDER));
    let start = Instant::now();
    let minute = Duration::from_secs(60);
    let left = |journal: &Journal, channel: &ChannelName| -> Vec<(u64, u64, bool)> {
        let pending = journal.pending(channel).map(|pending| &pending.append);
        pending.map(|append| (append.prev, append.seq, append.draft.marks.missed_before)).collect()
    };
    journal.push(&pjm, Lane::Every, &[entry(1, None, 0), entry(2, None, 0)], start).unwrap();
    journal.push(&pjm, Lane::Every, &[entry(3, None, 0)], start + minute / 2).unwrap();
    journal.push(&order, Lane::Every, &[entry(1, None, 0)], start).unwrap();
    assert_eq!(journal.expire(start + minute - Duration::from_millis(1)), []);
    assert_eq!(journal.expire(start + minute).len(), 2);
    assert_eq!(left(&journal, &pjm), [(0, 3, true)]);
    assert_eq!(journal.expire(start + minute * 2).len(), 1);
    assert!(journal.is_empty(&pjm) && !journal.is_empty(&order), "orders do not expire here");
    journal.push(&pjm, Lane::Every, &[entry(4, None, 0)], start + minute * 2).unwrap();
    assert_eq!(left(&journal, &pjm), [(0, 4, true)]);
    assert_eq!(journal.counts().aged, 3);

    let gone =
        journal.push(&order, Lane::Every, &[2, 3, 4, 5].map(|seq| entry(seq, None, 0)), start).unwrap();
    assert_eq!(gone.iter().map(|gone| gone.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(left(&journal, &order), [(0, 3, true), (3, 4, false), (4, 5, false)]);
    assert_eq!(journal.counts().order_overflow, 2);
}

#[tokio::test(start_paused = true)]
async fn a_later_successor_takes_the_place_of_a_refused_entry() {
    let (mut journal, pjm, start) = (Journal::new(bounds(10)), channel("zone:pjm"), Instant::now());
    journal.push(&pjm, Lane::Every, &[entry(5, None, 0), entry(6, None, 0)], start).unwrap();
    assert_eq!(drop_front(&mut journal, &pjm, start).unwrap().append.seq, 5);
    assert_eq!(seqs(&journal, &pjm), [(4, 6)]);
    drop_front(&mut journal, &pjm, start);
    journal.push(&pjm, Lane::Every, &[entry(7, None, 0)], start).unwrap();
    assert_eq!(seqs(&journal, &pjm), [(4, 7)]);
    // A legacy without a successor is forgotten when no log remembers the producer.
    drop_front(&mut journal, &pjm, start);
    journal.expire(start + EPOCH_KEPT_FOR + Duration::from_secs(60));
    assert!(journal.lines.is_empty() && journal.emptied.is_empty());
    assert_eq!(drop_front(&mut journal, &pjm, start), None);
}

#[test]
fn the_bounds_are_the_configured_ones() {
    let config = JournalConfig { bytes: 1, entries: 2, age_s: 3, ..JournalConfig::default() };
    let orders = OrderRetention { updates: 4, age_s: 5 };
    let expected = JournalBounds { bytes: 1, entries: 2, age: Duration::from_secs(3), order_updates: 4 };
    assert_eq!(JournalBounds::of(&config, &orders), expected);
}

#[derive(Debug, Clone)]
enum Step {
    Push { line: usize, count: usize, key: Option<u8>, time_ms: i64 },
    Hold { line: usize, key: Option<u8>, uses: bool },
    Acknowledge { line: usize, part: u64 },
    Refused { line: usize },
    Expire,
    Wait { s: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || proptest::option::of(0..3u8);
    let step = prop_oneof![
        6 => (0..4usize, 1..4usize, key(), -2..3i64)
            .prop_map(|(line, count, key, time_ms)| Step::Push { line, count, key, time_ms }),
        2 => (0..4usize, key(), any::<bool>()).prop_map(|(line, key, uses)| Step::Hold { line, key, uses }),
        2 => (0..4usize, 0..5u64).prop_map(|(line, part)| Step::Acknowledge { line, part }),
        1 => (0..4usize).prop_map(|line| Step::Refused { line }),
        1 => Just(Step::Expire),
        1 => (0..40u64).prop_map(|s| Step::Wait { s }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Drives a journal and keeps independent accounts.
struct Account {
    journal: Journal,
    names: Vec<(ChannelName, Lane)>,
    next_seq: Vec<u64>,
    acked: Vec<u64>,
    /// Accepted entries that are not accounted for yet, by channel and sequence.
    accepted: BTreeMap<(usize, u64), Append>,
    now: Instant,
}

impl Account {
    fn new(entries: usize, bytes: usize) -> Self {
        let names = [
            (channel("zone:a"), Lane::Latest),
            (channel("zone:b"), Lane::Latest),
            (channel("zone:c"), Lane::Every),
            (channel(ORDER), Lane::Every),
        ];
        let journal = Journal::new(JournalBounds { bytes, ..bounds(entries) });
        let now = Instant::now();
        let (names, next_seq, acked) = (names.to_vec(), vec![1; 4], vec![0; 4]);
        Self { journal, names, next_seq, acked, accepted: BTreeMap::new(), now }
    }

    fn appends(&self, line: usize, count: usize, key: Option<u8>, time_ms: i64) -> Vec<Append> {
        let key = key.map(|key| key.to_string());
        (0..count as u64).map(|n| entry(self.next_seq[line] + n, key.as_deref(), time_ms)).collect()
    }

    fn took(&mut self, line: usize, appends: Vec<Append>, gone: &[Gone]) {
        self.next_seq[line] += appends.len() as u64;
        self.accepted.extend(appends.into_iter().map(|append| ((line, append.seq), append)));
        self.gone(gone);
    }

    /// Only prices with a newer price of their key were thinned, and of orders only the oldest were dropped.
    fn gone(&mut self, gone: &[Gone]) {
        let mut went = Vec::new();
        for Gone { channel, seq } in gone {
            let line = self.names.iter().position(|(name, _)| name == channel).unwrap();
            went.push((
                line,
                self.accepted.remove(&(line, *seq)).expect("it was accepted, and is gone once"),
            ));
        }
        for (line, append) in went.iter().filter(|(line, _)| *line != 3) {
            assert_eq!(self.names[*line].1, Lane::Latest);
            let newer = self.journal.pending(&self.names[*line].0).any(|held| {
                held.append.draft.key == append.draft.key
                    && held.append.seq > append.seq
                    && held.append.draft.time >= append.draft.time
            });
            assert!(append.draft.key.is_some() && newer, "{append:?} was the newest of its key");
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push { line, count, key, time_ms } => {
                let (name, lane) = self.names[line].clone();
                let appends = self.appends(line, count, key, time_ms);
                let before = self.journal.depth();
                match self.journal.push(&name, lane, &appends, self.now) {
                    Ok(gone) => self.took(line, appends, &gone),
                    Err(JournalFull) => assert_eq!(self.journal.depth(), before),
                }
            }
            Step::Hold { line, key, uses } => {
                // Something else happens between reserving and using.
                let (name, lane) = self.names[line].clone();
                let appends = self.appends(line, 1, key, 0);
                let Ok(room) = self.journal.reserve(&name, lane, &appends) else { return };
                self.step(Step::Push { line: (line + 1) % 4, count: 2, key, time_ms: 1 });
                self.step(Step::Acknowledge { line, part: 1 });
                if uses {
                    let gone = self.journal.commit(room, &name, lane, &appends, self.now);
                    self.took(line, appends, &gone);
                } else {
                    self.journal.release(room);
                }
            }
            Step::Acknowledge { line, part } => {
                let held: Vec<u64> =
                    self.journal.pending(&self.names[line].0).map(|p| p.append.seq).collect();
                let Some(seq) = held.get(held.len() * part as usize / 5).copied() else { return };
                let count = self.journal.acknowledged(&self.names[line].0, seq);
                assert_eq!(count, held.iter().filter(|held| **held <= seq).count());
                self.acked[line] = seq;
                self.accepted.retain(|(of, held), _| *of != line || *held > seq);
            }
            Step::Refused { line } => {
                if let Some(dropped) = drop_front(&mut self.journal, &self.names[line].0, self.now) {
                    self.accepted.remove(&(line, dropped.append.seq)).unwrap();
                }
            }
            Step::Expire => {
                for Gone { channel, seq } in self.journal.expire(self.now) {
                    let line = self.names.iter().position(|(name, _)| *name == channel).unwrap();
                    assert_ne!(line, 3, "updates of orders do not expire");
                    self.accepted.remove(&(line, seq)).unwrap();
                }
            }
            Step::Wait { s } => self.now += Duration::from_secs(s),
        }
        self.check();
    }

    fn check(&self) {
        let (mut entries, mut bytes, mut oldest) = (0, 0, None);
        for (line, (name, _)) in self.names.iter().enumerate() {
            let mut before = self.acked[line];
            for held in self.journal.pending(name) {
                assert!(held.append.prev <= before && before < held.append.seq, "{held:?} after {before}");
                before = held.append.seq;
                let pushed = &self.accepted[&(line, before)];
                let unmarked = DraftEntry { marks: pushed.draft.marks, ..held.append.draft.clone() };
                assert_eq!((&unmarked, held.append.fence), (&pushed.draft, pushed.fence));
                entries += 1;
                bytes += cost(&held.append);
                oldest = oldest.into_iter().chain([held.at]).min();
            }
        }
        assert_eq!(entries, self.accepted.len(), "nothing is lost and nothing is made up");
        assert_eq!(self.journal.depth(), JournalDepth { entries, bytes, oldest });
        let bounds = &self.journal.bounds;
        assert!(entries <= bounds.entries && bytes <= bounds.bytes);
        assert!(self.journal.pending(&self.names[3].0).count() <= bounds.order_updates);
        let obsolete: Vec<_> = self.journal.lines.values().flat_map(|line| line.entries.values()).collect();
        let obsolete = obsolete.into_iter().filter(|held| held.is_obsolete).count();
        assert_eq!((self.journal.obsolete.len(), self.journal.obsolete_size.entries), (obsolete, obsolete));
    }
}

proptest! {
    #[test]
    fn the_chain_stays_whole_and_nothing_accepted_is_lost(
        steps in steps(), entries in 4..12usize, kilobytes in 1..6usize,
    ) {
        let mut account = Account::new(entries, kilobytes << 10);
        for step in steps {
            account.step(step);
        }
    }
}
