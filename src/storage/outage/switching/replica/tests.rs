use super::fork::SEGMENTS_MAX;
use super::*;
use crate::model::{DraftEntry, EntryId};
use crate::storage::{MemoryConfig, Retention};

/// A followed replica on a node of two, in step with a log that ends at `top`.
struct Bench {
    name: ChannelName,
    memory: MemoryBackend,
    node: NodeId,
    other: NodeId,
    log: Epoch,
    replica: Replica,
}

impl Bench {
    fn in_step(top: u64) -> Self {
        let (memory, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        let name: ChannelName = "zone:a".parse().unwrap();
        let (node, log) = (NodeId::random(), Epoch::random());
        let mut replica = Replica::new(name.clone(), node, memory.clone(), Instant::now());
        replica.follow();
        replica.opened(&OpenLog {
            epoch: log.clone(),
            top,
            last_seq: 0,
            producers: Vec::new(),
            anchor: None,
        });
        Self { name, memory, node, other: NodeId::random(), log, replica }
    }

    fn told(&mut self, entries: &[Entry]) {
        self.replica.mirror(entries);
    }

    fn acknowledged(&mut self, seq: u64, offset: u64) {
        let batch = AppendBatch {
            channel: self.name.clone(),
            epoch: self.log.clone(),
            producer: self.node,
            entries: vec![Append { seq, prev: seq - 1, draft: draft(), fence: None }],
        };
        let results = [Appended::Applied { offset }];
        self.replica.acknowledged(&batch, &results);
    }

    /// The log is gone, and another one is in its place.
    fn replaced(&mut self) {
        let to = Reconciled {
            epoch: Epoch::random(),
            base: 0,
            top: 4,
            acked: self.replica.newest,
            producers: Vec::new(),
            anchor: None,
            read: Vec::new(),
            kept: Vec::new(),
            skips: false,
        };
        self.replica.reconcile(to);
    }

    /// Entries that wait for one before them.
    fn waiting(&self) -> usize {
        self.replica.log.seen().unwrap().waiting.len()
    }

    /// What a reader at this offset of the log that is gone has had of both nodes, this one first.
    fn had_at(&self, offset: u64) -> Option<(u64, u64)> {
        let position = Position { epoch: self.log.clone(), offset };
        let transition = self.replica.transition_after(&position)?;
        let of = |node| {
            transition.had.iter().find(|(producer, _)| *producer == node).map_or(0, |(_, run)| run.newest)
        };
        Some((of(self.node), of(self.other)))
    }
}

fn draft() -> DraftEntry {
    DraftEntry::price(0, "{}")
}

fn entry(offset: u64, producer: NodeId, seq: u64) -> Entry {
    Entry { offset, id: EntryId { producer, seq }, draft: draft() }
}

#[tokio::test]
async fn what_a_reader_has_had_is_known_also_before_the_end_of_a_log_that_is_gone() {
    let mut bench = Bench::in_step(10);
    let (own, other) = (bench.node, bench.other);
    bench.told(&[entry(11, other, 1), entry(12, own, 1), entry(13, other, 2), entry(14, own, 2)]);
    bench.replaced();
    assert_eq!(bench.had_at(14), Some((2, 2)));
    assert_eq!(bench.had_at(13), Some((1, 2)));
    assert_eq!(bench.had_at(12), Some((1, 1)));
    assert_eq!(bench.had_at(11), Some((0, 1)));
    assert_eq!(bench.had_at(10), Some((0, 0)));
    assert_eq!(bench.had_at(9), None, "what was before it followed is not known");
    assert_eq!(bench.had_at(15), None);
}

#[tokio::test]
async fn what_waits_for_another_entry_when_the_log_goes_has_not_been_had() {
    let mut bench = Bench::in_step(10);
    let own = bench.node;
    bench.told(&[entry(11, own, 1)]);
    // The log has 12 from elsewhere, which has not come yet.
    bench.acknowledged(2, 13);
    bench.replaced();
    assert_eq!(bench.had_at(11), Some((1, 0)));
}

#[tokio::test]
async fn what_comes_while_the_log_is_opened_is_kept() {
    let mut bench = Bench::in_step(10);
    let other = bench.other;
    let name: ChannelName = "zone:b".parse().unwrap();
    let mut replica = Replica::new(name.clone(), bench.node, bench.memory.clone(), Instant::now());
    replica.follow();
    replica.hear(&bench.log, &[entry(10, other, 1), entry(11, other, 2)]);
    replica.hear(&bench.log, &[entry(13, other, 4)]);
    let open =
        OpenLog { epoch: bench.log.clone(), top: 10, last_seq: 0, producers: vec![(other, 1)], anchor: None };
    replica.opened(&open);
    assert_eq!(bench.memory.top(&name), Some(11));
    assert_eq!(replica.hole(), Some(11), "13 waits for 12");
    bench.replica = replica;
    bench.name = name;
    bench.told(&[entry(12, other, 3)]);
    assert_eq!((bench.memory.top(&bench.name), bench.replica.hole()), (Some(13), None));
}

#[tokio::test]
async fn another_entry_at_an_offset_that_was_seen_is_noticed() {
    let mut bench = Bench::in_step(10);
    let (own, other) = (bench.node, bench.other);
    let seen = [entry(11, other, 1), entry(12, own, 1)];
    bench.told(&seen);
    let mut contradicts = |entries: &[Entry]| bench.replica.contradicts(entries);
    assert!(!contradicts(&seen) && !contradicts(&seen[..1]) && !contradicts(&[entry(13, other, 2)]));
    assert!(contradicts(&[entry(12, other, 2), entry(13, other, 3)]));
    assert!(bench.replica.is_contradicted());
    bench.replaced();
    assert!(!bench.replica.is_contradicted(), "the next epoch begins anew");
}

#[tokio::test]
async fn entries_that_wait_for_one_before_them_are_bounded_and_read_instead() {
    let mut bench = Bench::in_step(10);
    let other = bench.other;
    let many: Vec<Entry> = (1..=REORDER_MAX as u64 + 2).map(|n| entry(10 + n, other, n)).collect();
    let (missing, waiting) = many.split_at(1);
    for entry in &waiting[..REORDER_MAX] {
        bench.told(std::slice::from_ref(entry));
    }
    assert_eq!(bench.waiting(), REORDER_MAX);
    bench.told(&waiting[REORDER_MAX..]);
    assert_eq!(bench.waiting(), 0, "one more, and none waits");
    assert_eq!(bench.replica.hole(), Some(10), "what is missing is to be read");
    bench.told(missing);
    bench.told(waiting);
    assert_eq!(bench.memory.top(&bench.name), Some(10 + many.len() as u64));
}

#[tokio::test]
async fn a_log_is_set_back_when_the_entry_that_was_seen_last_is_not_there() {
    let mut bench = Bench::in_step(10);
    let (own, other) = (bench.node, bench.other);
    let found = |top, last_seq, anchor: Option<(u64, NodeId, u64)>| OpenLog {
        epoch: bench.log.clone(),
        top,
        last_seq,
        producers: Vec::new(),
        anchor: anchor.map(|(offset, producer, seq)| Anchor { offset, id: EntryId { producer, seq } }),
    };
    bench.replica.log.seen_mut().unwrap().acked = 1;
    let known = bench.replica.known();
    assert!(
        !bench.replica.is_set_back(&found(10, 0, None), &known),
        "of this node nothing is kept that it lacks"
    );
    assert!(bench.replica.is_set_back(&found(9, 1, None), &known));
    bench.replica.mirror(&[entry(11, own, 1), entry(12, other, 7)]);
    let known = bench.replica.known();
    assert_eq!(known.at(), 12);
    let is_set_back = |found: &OpenLog| bench.replica.is_set_back(found, &known);
    assert!(!is_set_back(&found(12, 1, Some((12, other, 7)))));
    assert!(is_set_back(&found(30, 1, Some((12, other, 8)))), "another entry is in its place");
    assert!(is_set_back(&found(11, 1, Some((11, own, 1)))), "it ends before");
    assert!(!is_set_back(&found(9_000, 1, Some((9_000, other, 900)))), "the entry is not kept any more");
    for at in [9_000, 12] {
        assert!(is_set_back(&found(9_000, 0, Some((at, other, 7)))), "an own one should be known yet");
    }
    bench.replica.retransmit.clear();
    for at in [9_000, 12] {
        assert!(
            !bench.replica.is_set_back(&found(9_000, 0, Some((at, other, 7))), &known),
            "it forgets the silent"
        );
    }
    assert!(!bench.replica.is_set_back(&found(10, 0, None), &Known::default()), "nothing is known of it");
}

#[tokio::test]
async fn of_a_fork_with_many_holes_the_beginning_and_the_newest_segments_are_kept() {
    let mut bench = Bench::in_step(10);
    let own = bench.node;
    bench.told(&[entry(11, own, 1)]);
    let now = Instant::now();
    bench.replica.begin_fork(Some(2), now);
    for seq in (2..).step_by(2).take(SEGMENTS_MAX + 20) {
        let append = Append { seq, prev: seq - 1, draft: draft(), fence: None };
        bench.replica.append_here(append);
    }
    assert_eq!(bench.replica.fork().map(|fork| fork.before.len()), Some(SEGMENTS_MAX));
    bench.replaced();
    assert_eq!(bench.had_at(11), Some((1, 0)), "what was had where the fork began is known");
}

#[tokio::test]
async fn positions_that_no_gateway_tells_lead_nowhere() {
    let bench = Bench::in_step(10);
    let log = &bench.log;
    let after = |text: String, offset| {
        let position = Position { epoch: text.parse().unwrap(), offset };
        bench.replica.transition_after(&position).map(|transition| transition.to.offset)
    };
    assert_eq!(after(format!("v.{log}.p.{log}.3-5-7"), 8), Some(3));
    assert_eq!(after("v.x.p.0.0-0-0".to_owned(), 0), Some(0), "nothing of any log was had");
    let far = u64::MAX;
    for (text, offset) in [
        (format!("v.x.p.0.{far}-{far}-{far}"), 0),
        ("v.x.p.0.9-9-9".to_owned(), 0),
        (format!("v.{log}.p.{log}.99-99-99"), 0),
        (format!("v.{log}.o.{log}.1-2"), 4),
        (format!("v.{log}.o.{log}"), 4),
        (format!("f.{log}.{far}.{}.{far}.{far}", bench.node), 1 << 53),
    ] {
        assert_eq!(after(text.clone(), offset), None, "{text}");
    }
}
