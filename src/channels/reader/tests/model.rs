//! A log that is appended to, trimmed, reconciled and lost; an actor that reports about it; and a reader
//! that runs whenever the schedule lets it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::iter;

use proptest::prelude::*;

use super::*;
use crate::channels::live::Live;

/// What happens next.
#[derive(Debug, Clone)]
enum Act {
    /// Entries are appended.
    Append { producer: u128, count: u64 },
    /// The oldest entries leave the log.
    Trim { count: usize },
    /// The actor sends what it has not sent yet, in batches of this size.
    Tell { batch: usize },
    /// Messages on their way arrive.
    Arrive { count: usize },
    /// The reader does part of a turn.
    Work { limit: usize },
    /// The log continues after the base, with the entries after it in another order, among foreign ones.
    Reconcile { tail: u64, foreign: u64, late: bool },
    /// The log is gone; perhaps so is all knowledge of it.
    Lose { is_forgotten: bool },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1..3u128, 1..5u64).prop_map(|(producer, count)| Act::Append { producer, count }),
        1 => (0..6usize).prop_map(|count| Act::Trim { count }),
        3 => (1..4usize).prop_map(|batch| Act::Tell { batch }),
        4 => (1..4usize).prop_map(|count| Act::Arrive { count }),
        5 => (1..6usize).prop_map(|limit| Act::Work { limit }),
        1 => (0..6u64, 0..4u64, any::<bool>())
            .prop_map(|(tail, foreign, late)| Act::Reconcile { tail, foreign, late }),
        1 => any::<bool>().prop_map(|is_forgotten| Act::Lose { is_forgotten }),
    ];
    proptest::collection::vec(act, 1..80)
}

/// One epoch of the log.
#[derive(Debug, Clone)]
struct EpochLog {
    epoch: Epoch,
    /// Offsets count from 1.
    entries: Vec<Entry>,
    /// The oldest offset in the log.
    first: u64,
    next: Option<EpochTransition>,
    is_forgotten: bool,
}

impl EpochLog {
    fn top(&self) -> u64 {
        self.entries.len() as u64
    }

    fn after(&self, offset: u64) -> &[Entry] {
        self.entries.get(usize::try_from(offset.max(self.first - 1)).unwrap()..).unwrap_or_default()
    }
}

/// The channel as its actor and the storage know it.
#[derive(Debug)]
struct Channel {
    epoch_logs: Vec<EpochLog>,
    seqs: HashMap<u128, u64>,
    /// The actor has sent everything up to this offset of the last epoch.
    told: u64,
    late_to: u64,
    on_its_way: VecDeque<Live>,
}

impl Channel {
    fn new() -> Self {
        let epoch_log =
            EpochLog { epoch: epoch("e0"), entries: vec![], first: 1, next: None, is_forgotten: false };
        Self {
            epoch_logs: vec![epoch_log],
            seqs: HashMap::new(),
            told: 0,
            late_to: 0,
            on_its_way: VecDeque::new(),
        }
    }

    fn epoch_log(&mut self) -> &mut EpochLog {
        self.epoch_logs.last_mut().unwrap()
    }

    fn append(&mut self, producer: u128, count: u64) {
        for _ in 0..count {
            let seq = self.seqs.entry(producer).or_insert(0);
            *seq += 1;
            let seq = *seq;
            let offset = self.epoch_log().top() + 1;
            self.epoch_log().entries.push(entry(offset, producer, seq));
        }
    }

    fn tell(&mut self, size: usize) {
        let (told, late_to) = (self.told, self.late_to);
        let epoch_log = self.epoch_log().clone();
        let new = epoch_log.after(told);
        let late = |entry: &Entry| entry.offset <= late_to;
        for run in new.chunk_by(|a, b| late(a) == late(b)).flat_map(|run| run.chunks(size)) {
            let batch = LiveBatch::encode(&channel(), &epoch_log.epoch, Lane::Every, late(&run[0]), run);
            self.on_its_way.push_back(Live::Batch(Arc::new(batch)));
        }
        if new.is_empty() && told < epoch_log.top() {
            let skipped =
                Live::Skipped { channel: channel(), epoch: epoch_log.epoch.clone(), offset: epoch_log.top() };
            self.on_its_way.push_back(skipped);
        }
        self.told = epoch_log.top();
    }

    fn move_on(&mut self, epoch_log: EpochLog, transition: EpochTransition) {
        self.tell(3);
        let ended = self.epoch_log();
        let from = Position { epoch: ended.epoch.clone(), offset: ended.top() };
        ended.next = Some(transition.clone());
        self.told = transition.to.offset;
        self.late_to = transition.late_to;
        self.epoch_logs.push(epoch_log);
        self.on_its_way.push_back(Live::Moved(Arc::new(moved(from, transition))));
    }

    fn reconcile(&mut self, tail: u64, foreign: u64, late: bool) {
        let name = epoch(&format!("e{}", self.epoch_logs.len()));
        let old = self.epoch_log().clone();
        let base = old.top().saturating_sub(tail).max(old.first - 1);
        let mut epoch_log = EpochLog { epoch: name.clone(), next: None, ..old.clone() };
        epoch_log.entries.truncate(usize::try_from(base).unwrap());
        let mut had = VersionVector::default();
        let again = old.after(base);
        again.iter().for_each(|entry| had.add(entry.id.producer, entry.id.seq));
        // Foreign entries first, then one producer after the other: a different order than before.
        let mut behind: Vec<EntryId> = Vec::new();
        for _ in 0..foreign {
            let seq = self.seqs.entry(3).or_insert(0);
            *seq += 1;
            behind.push(EntryId { producer: node(3), seq: *seq });
        }
        for producer in [2, 1, 3] {
            // The entries of one producer stay in order.
            let ids = again.iter().map(|entry| entry.id).filter(|id| id.producer == node(producer));
            let place = if producer == 3 { 0 } else { behind.len() };
            behind.splice(place..place, ids);
        }
        for id in behind {
            epoch_log.entries.push(Entry { id, ..entry(epoch_log.top() + 1, 1, 0) });
        }
        let late_to = if late { epoch_log.top() } else { 0 };
        let to = Position { epoch: name, offset: base };
        self.move_on(epoch_log, EpochTransition { late_to, had, ..EpochTransition::whole(to) });
    }

    fn lose(&mut self, is_forgotten: bool) {
        let name = epoch(&format!("e{}", self.epoch_logs.len()));
        let epoch_log =
            EpochLog { epoch: name.clone(), entries: vec![], first: 1, next: None, is_forgotten: false };
        let to = Position { epoch: name, offset: 0 };
        self.move_on(epoch_log, EpochTransition::unknown(to));
        if is_forgotten {
            self.epoch_logs.iter_mut().rev().skip(1).for_each(|epoch_log| epoch_log.is_forgotten = true);
        }
    }

    fn read(&self, after: &Position, limit: usize) -> Page {
        let known = self
            .epoch_logs
            .iter()
            .find(|epoch_log| epoch_log.epoch == after.epoch && !epoch_log.is_forgotten);
        let epoch_log = known.unwrap_or(self.epoch_logs.last().unwrap());
        let entries = if known.is_some() { epoch_log.after(after.offset) } else { &[] };
        Page {
            epoch: Some(epoch_log.epoch.clone()),
            top: epoch_log.top(),
            first: epoch_log.first,
            out_of_reach: 0,
            is_final: false,
            is_copy: false,
            closed: false,
            entries: entries.iter().take(limit).cloned().collect(),
            next: epoch_log.next.clone(),
        }
    }
}

/// A client, and what it was told.
#[derive(Debug, Default)]
struct Client {
    reader: Reader,
    works: bool,
    page: Option<EncodedPage>,
    /// Since it was last told that something may be missing.
    got: BTreeSet<(NodeId, u64)>,
    ever: BTreeSet<(NodeId, u64)>,
    newest: HashMap<NodeId, u64>,
    offset: Option<Position>,
    gaps: usize,
}

impl Client {
    fn act(&mut self, steps: Steps) {
        for step in steps {
            match step {
                Step::Send { batch, runs, .. } => {
                    assert!(!runs.is_empty());
                    for index in runs.into_iter().flatten() {
                        self.get(&batch.epoch, batch.first + index as u64, batch.id(index).unwrap());
                    }
                }
                Step::Resync { old, to, recovered, gap, .. } => {
                    assert!(old != to.epoch || !recovered, "says nothing");
                    assert_eq!(recovered, gap == Some(0));
                    if !recovered {
                        self.gaps += 1;
                        self.got.clear();
                        self.newest.clear();
                    }
                }
                Step::CatchUp => {
                    assert!(!self.works, "it is being brought up to date already");
                    self.works = true;
                    self.page = None;
                }
                Step::Suspect => {}
                Step::Finished | Step::SnapshotEnd { .. } => panic!("nothing ends here"),
            }
        }
    }

    fn get(&mut self, epoch: &Epoch, offset: u64, id: EntryId) {
        if let Some(last) = &self.offset
            && last.epoch == *epoch
        {
            assert!(last.offset < offset, "{offset} after {last}");
        }
        self.offset = Some(Position { epoch: epoch.clone(), offset });
        assert!(self.got.insert((id.producer, id.seq)), "{id} came twice");
        self.ever.insert((id.producer, id.seq));
        let newest = self.newest.insert(id.producer, id.seq);
        assert!(newest.is_none_or(|newest| newest < id.seq), "{id} came after {newest:?}");
    }

    fn hear(&mut self, live: Live, is_behind: bool) {
        let steps = match live {
            Live::Batch(batch) if !batch.is_late && self.reader.is_next(std::slice::from_ref(&batch)) => {
                self.reader.took(batch.last());
                let runs = iter::once(0..batch.len()).collect();
                [Step::Send { runs, batch, way: Way::Live }].into()
            }
            Live::Batch(batch) => self.reader.on_batch(&batch, Room { is_behind, ..ROOM }),
            Live::Moved(moved) => self.reader.on_moved(&moved),
            Live::Skipped { epoch, offset, .. } => self.reader.on_skipped(&epoch, offset),
        };
        self.act(steps);
    }

    fn work(&mut self, log: &Channel, limit: usize) {
        if !self.works {
            return;
        }
        let Some(page) = &self.page else {
            match self.reader.turn() {
                Turn::Done(steps) => {
                    self.works = false;
                    self.act(steps);
                }
                Turn::Send(steps) => self.act(steps),
                Turn::Read(_) if limit == 1 => self.reader.on_no_page(),
                Turn::ReadLatest(_) => panic!("nobody asked for it"),
                Turn::Read(Wanted { after, late_to, .. }) => {
                    let page = log.read(&after.expect("its log has an epoch"), limit);
                    self.page = Some(EncodedPage::encode(&channel(), page, late_to));
                }
            }
            return;
        };
        let (steps, then) = self.reader.on_page(page);
        if then != Then::Page {
            self.page = None;
        }
        self.act(steps);
    }
}

fn run(before: Vec<Act>, start_at: Option<u64>, after: Vec<Act>) {
    let mut log = Channel::new();
    let mut client = Client::default();
    let mut before_it = BTreeSet::new();
    let acts = before.into_iter().map(Some).chain([None]).chain(after.into_iter().map(Some));
    for (index, act) in acts.enumerate() {
        match act {
            Some(Act::Append { producer, count }) => log.append(producer, count),
            Some(Act::Trim { count }) => {
                let epoch_log = log.epoch_log();
                epoch_log.first = (epoch_log.first + count as u64).min(epoch_log.top() + 1);
            }
            Some(Act::Tell { batch }) => log.tell(batch),
            Some(Act::Arrive { count }) => {
                for live in log.on_its_way.drain(..count.min(log.on_its_way.len())) {
                    client.hear(live, index % 3 == 0);
                }
            }
            Some(Act::Work { limit }) => client.work(&log, limit),
            Some(Act::Reconcile { tail, foreign, late }) => log.reconcile(tail, foreign, late),
            Some(Act::Lose { is_forgotten }) => log.lose(is_forgotten),
            None => {
                let joined = Position { epoch: log.epoch_log().epoch.clone(), offset: log.told };
                let had = Position { offset: start_at.unwrap_or(0), ..joined.clone() };
                let at = match start_at {
                    None => StartingPoint::next(joined),
                    Some(_) => StartingPoint::in_log(joined, Some(&had), &log.read(&had, 1)),
                };
                let earlier = log.epoch_log().entries.iter().filter(|entry| entry.offset <= at.offset);
                before_it.extend(earlier.map(|entry| (entry.id.producer, entry.id.seq)));
                client.reader.begin(&at);
                client.works = true;
            }
        }
    }
    log.tell(2);
    log.on_its_way.drain(..).for_each(|live| client.hear(live, false));
    let mut turns = 0;
    while client.works {
        client.work(&log, 3);
        turns += 1;
        assert!(turns < 1_000, "it is never up to date: {client:?}");
    }
    let epoch_log = log.epoch_log();
    let end = Position { epoch: epoch_log.epoch.clone(), offset: epoch_log.top() };
    assert!(client.reader.is_live() && client.reader.position() == Some(end), "{client:?}");
    for entry in epoch_log.after(0) {
        let id = (entry.id.producer, entry.id.seq);
        let came = client.ever.contains(&id);
        assert!(came || before_it.contains(&id), "{id:?} is kept, and it never came");
    }
}

proptest! {
    /// Whatever happens to the log, and whenever the reader gets to run.
    #[test]
    fn all_comes_once_and_in_order_or_is_told(
        before in proptest::collection::vec((1..3u128, 1..5u64), 0..4),
        start_at in proptest::option::of(0..12u64),
        after in acts(),
    ) {
        let append = |(producer, count)| [Act::Append { producer, count }, Act::Tell { batch: 3 }];
        run(before.into_iter().flat_map(append).collect(), start_at, after);
    }
}
