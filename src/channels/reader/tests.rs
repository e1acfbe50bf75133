//! One step at a time; `model` takes readers through many schedules.

mod model;

use std::ops::{Range, RangeInclusive};

use uuid::Uuid;

use super::*;
use crate::model::{ChannelName, DraftEntry, Entry, EntryId, EntryKind, Lane, NodeId};
use crate::storage::LatestPage;

const ROOM: Room = Room { hold_entries_max: 8, piece_bytes: 4_000, is_behind: false };

fn channel() -> ChannelName {
    "zone:pjm".parse().unwrap()
}

fn epoch(name: &str) -> Epoch {
    name.parse().unwrap()
}

fn at(name: &str, offset: u64) -> Position {
    Position { epoch: epoch(name), offset }
}

fn node(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

fn entry(offset: u64, producer: u128, seq: u64) -> Entry {
    Entry { offset, id: EntryId { producer: node(producer), seq }, draft: DraftEntry::price(0, "{}") }
}

/// Entries of producer 1 whose sequences equal their offsets.
fn own(offsets: RangeInclusive<u64>) -> Vec<Entry> {
    offsets.map(|offset| entry(offset, 1, offset)).collect()
}

fn batch_of(name: &str, late: bool, entries: &[Entry]) -> Arc<LiveBatch> {
    Arc::new(LiveBatch::encode(&channel(), &epoch(name), Lane::Every, late, entries))
}

fn batch(offsets: RangeInclusive<u64>) -> Arc<LiveBatch> {
    batch_of("e", false, &own(offsets))
}

fn page(name: &str, top: u64, first: u64, entries: Vec<Entry>) -> Page {
    Page {
        epoch: Some(epoch(name)),
        top,
        first,
        out_of_reach: 0,
        is_final: false,
        is_copy: false,
        closed: false,
        entries,
        next: None,
    }
}

fn encoded(page: &Page) -> EncodedPage {
    EncodedPage::encode(&channel(), page.clone(), 0)
}

fn transition(to: Position, had: &[(u128, u64)]) -> EpochTransition {
    let mut all = VersionVector::default();
    had.iter().for_each(|(producer, seq)| all.add(node(*producer), *seq));
    EpochTransition { had: all, ..EpochTransition::whole(to) }
}

fn moved(from: Position, transition: EpochTransition) -> Moved {
    Moved { channel: channel(), from, transition }
}

/// A reader that is live after this offset of epoch `e`.
fn live_at(offset: u64) -> Reader {
    let mut reader = Reader::default();
    reader.begin(&StartingPoint::next(at("e", offset)));
    assert!(matches!(reader.turn(), Turn::Done(steps) if steps.is_empty()));
    assert!(reader.is_live());
    reader
}

/// Steps in short: the offsets that are sent, and the messages.
fn short(steps: &[Step]) -> Vec<String> {
    let offsets = |batch: &LiveBatch, run: &Range<usize>| {
        format!("{}-{}", batch.first + run.start as u64, batch.first + run.end as u64 - 1)
    };
    steps
        .iter()
        .map(|step| match step {
            Step::Send { batch, runs, way } => {
                let runs: Vec<_> = runs.iter().map(|run| offsets(batch, run)).collect();
                format!("{way:?} {}", runs.join(" "))
            }
            Step::Resync { to, snapshot: true, .. } => format!("{to} snapshot"),
            Step::Resync { to, recovered, gap, .. } => {
                let kind = if to.epoch.as_str().starts_with("v.") { "vector" } else { to.epoch.as_str() };
                format!("{kind}:{} {recovered} {gap:?}", to.offset)
            }
            Step::SnapshotEnd { at, is_whole } => format!("{at} end {is_whole}"),
            Step::Finished => "finished".to_owned(),
            Step::CatchUp => "catch up".to_owned(),
            Step::Suspect => "suspect".to_owned(),
        })
        .collect()
}

#[test]
fn a_client_begins_where_it_was_or_where_something_is_kept() {
    let had = |offset| Some(at("e", offset));
    for (had, page, expected) in [
        // epoch, offset, gap
        (had(4), page("e", 9, 1, vec![]), ("e", 4, Some(0))),
        (had(4), page("e", 9, 5, vec![]), ("e", 4, Some(0))),
        (had(4), page("e", 9, 7, vec![]), ("e", 6, Some(2))),
        (had(9), page("e", 9, 10, vec![]), ("e", 9, Some(0))),
        // Never assigned in this state of the log: it was set back to before them.
        (had(10), page("e", 9, 3, vec![]), ("v.e.d0", 2, None)),
        (had(4), page("f", 9, 3, vec![]), ("v.f.d0", 2, None)),
        (had(4), Page { is_final: true, ..page("f", 9, 3, vec![]) }, ("f", 2, None)),
        (had(u64::MAX), page("f", 0, 1, vec![]), ("v.f.d0", 0, None)),
        // Nobody knows whether it is gone.
        (
            had(4),
            Page { out_of_reach: 6, is_copy: true, ..page("e", 9, 7, vec![]) },
            ("v.e.p.e.4-6-6", 6, None),
        ),
        (
            None,
            Page { out_of_reach: 6, is_copy: true, ..page("e", 9, 7, vec![]) },
            ("v.e.p.e.0-6-6", 6, None),
        ),
        (had(4), Page { epoch: None, ..page("f", 0, 1, vec![]) }, ("v.joined.d0", 0, None)),
        (None, page("e", 9, 1, vec![]), ("e", 0, Some(0))),
        (None, page("e", 9, 7, vec![]), ("e", 6, Some(6))),
        (None, Page { epoch: None, ..page("f", 0, 1, vec![]) }, ("joined", 0, Some(0))),
    ] {
        let found = StartingPoint::in_log(at("joined", 3), had.as_ref(), &page);
        assert_eq!((found.epoch.as_str(), found.offset, found.gap), expected, "{had:?} {page:?}");
        assert_eq!(found.is_recovered(), expected.2 == Some(0));
        assert!(!found.is_finished());
    }
    let closed = Page { closed: true, ..page("e", 9, 1, vec![]) };
    assert!(StartingPoint::in_log(at("e", 9), had(9).as_ref(), &closed).is_finished());
    assert!(!StartingPoint::in_log(at("e", 9), had(8).as_ref(), &closed).is_finished());
    assert_eq!(StartingPoint::next(at("e", 7)).offset, 7);
}

#[test]
fn what_is_next_is_sent_as_it_comes() {
    let mut reader = live_at(3);
    assert!(reader.is_next(&[batch(4..=5), batch(6..=6)]));
    assert!(!reader.is_next(&[batch(5..=6)]) && !reader.is_next(&[batch_of("f", false, &own(4..=6))]));
    reader.took(6);
    assert_eq!(short(&reader.on_batch(&batch(5..=8), ROOM)), ["Live 7-8"], "what overlaps is left out");
    assert_eq!(short(&reader.on_batch(&batch(5..=8), ROOM)), [""; 0]);
    assert_eq!(short(&reader.on_batch(&batch_of("f", false, &own(9..=9)), ROOM)), [""; 0], "another epoch");
    let mut last = own(9..=10);
    last[1].draft.kind = EntryKind::Confirmed;
    assert_eq!(short(&reader.on_batch(&batch_of("e", false, &last), ROOM)), ["Live 9-10", "finished"]);
    reader.end();
    assert_eq!(short(&reader.on_batch(&batch(11..=11), ROOM)), [""; 0]);
    assert!(reader.has_ended() && !reader.is_next(&[batch(11..=11)]));
}

#[test]
fn a_gap_is_told_before_what_follows_it() {
    let mut reader = live_at(3);
    assert_eq!(short(&reader.on_batch(&batch(6..=7), ROOM)), ["catch up"]);
    assert_eq!(short(&reader.on_batch(&batch(8..=8), ROOM)), [""; 0], "held");
    let Turn::Read(wanted) = reader.turn() else { panic!("the log is read first") };
    assert_eq!(wanted.after, Some(at("e", 3)));
    let page = page("e", 7, 6, own(6..=7));
    let (steps, then) = reader.on_page(&encoded(&page));
    assert_eq!((short(&steps), then), (vec!["e:5 false Some(2)".into(), "Piece 6-7".into()], Then::Page));
    let (steps, then) = reader.on_page(&encoded(&page));
    assert_eq!((steps.len(), then), (0, Then::Turn));
    let Turn::Done(steps) = reader.turn() else { panic!("what was held is all") };
    assert_eq!(short(&steps), ["Piece 8-8"]);
    assert!(reader.is_live());
}

#[test]
fn what_went_unseen_is_told_though_nothing_follows() {
    let mut reader = live_at(3);
    assert_eq!(short(&reader.on_skipped(&epoch("e"), 3)), [""; 0], "it had these");
    assert_eq!(short(&reader.on_skipped(&epoch("f"), 9)), [""; 0]);
    assert!(reader.is_live());
    assert_eq!(short(&reader.on_skipped(&epoch("e"), 5)), ["catch up"]);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let (steps, then) = reader.on_page(&encoded(&page("e", 5, 6, vec![])));
    assert_eq!((short(&steps), then), (vec!["e:5 false Some(2)".into()], Then::Turn));
    assert!(matches!(reader.turn(), Turn::Done(steps) if steps.is_empty()));
}

#[test]
fn what_was_had_is_left_out_until_the_last_of_it_has_come() {
    let mut reader = live_at(6);
    let steps = reader.on_moved(&moved(at("e", 6), transition(at("f", 4), &[(1, 6)])));
    assert_eq!(short(&steps), ["vector:4 true Some(0)"]);
    let entries = [entry(5, 2, 1), entry(6, 1, 5), entry(7, 2, 2), entry(8, 2, 3)];
    assert!(!reader.is_next(&[batch_of("f", false, &entries)]), "it filters");
    assert!(reader.is_next(&[batch_of("f", false, &entries[..1])]), "nothing of it can have been had");
    assert_eq!(short(&reader.on_batch(&batch_of("f", false, &entries), ROOM)), ["Live 5-5 7-8"]);
    let entries = [entry(9, 2, 4), entry(10, 1, 6), entry(11, 1, 7)];
    let steps = reader.on_batch(&batch_of("f", false, &entries), ROOM);
    assert_eq!(short(&steps), ["Live 9-9", "f:10 true Some(0)", "Live 11-11"]);
    assert!(reader.is_next(&[batch_of("f", false, &[entry(12, 1, 8)])]));
}

#[test]
fn an_epoch_transition_applies_only_at_the_end_of_its_epoch() {
    let mut reader = live_at(4);
    let to = transition(at("f", 6), &[]);
    assert_eq!(short(&reader.on_moved(&moved(at("other", 4), to.clone()))), [""; 0]);
    assert_eq!(short(&reader.on_moved(&moved(at("e", 6), to.clone()))), ["catch up"]);
    reader.on_batch(&batch_of("f", false, &own(7..=7)), ROOM);
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.after == Some(at("e", 4))));
    let page = Page { next: Some(to), ..page("e", 6, 1, own(5..=6)) };
    assert_eq!(short(&reader.on_page(&encoded(&page)).0), ["Piece 5-6"]);
    let (steps, then) = reader.on_page(&encoded(&page));
    assert_eq!((short(&steps), then), (vec!["f:6 true Some(0)".into()], Then::Turn));
    let Turn::Done(steps) = reader.turn() else { panic!("what was held is all") };
    assert_eq!(short(&steps), ["Piece 7-7"]);
}

#[test]
fn a_log_that_nobody_knows_the_way_to_is_told_as_a_loss() {
    let mut reader = live_at(4);
    reader.on_skipped(&epoch("e"), 5);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let none = Page { epoch: None, ..page("f", 0, 1, vec![]) };
    let (steps, then) = reader.on_page(&encoded(&none));
    assert_eq!((short(&steps), then), (vec!["suspect".into()], Then::Pause));
    assert!(matches!(reader.turn(), Turn::Read(_)), "it has not looked yet");
    let (steps, then) = reader.on_page(&encoded(&page("f", 9, 3, vec![])));
    assert_eq!((short(&steps), then), (vec!["vector:2 false None".into(), "suspect".into()], Then::Turn));
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.after == Some(at("f", 2))));
}

#[test]
fn a_reader_ahead_of_the_log_waits_for_it() {
    let mut reader = live_at(4);
    reader.on_skipped(&epoch("e"), 5);
    // Too much to hold, so it must be read from the log.
    (6..=20).for_each(|offset| assert!(reader.on_batch(&batch(offset..=offset), ROOM).is_empty()));
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let behind = page("e", 5, 1, own(5..=5));
    assert_eq!(short(&reader.on_page(&encoded(&behind)).0), ["Piece 5-5"]);
    let (steps, then) = reader.on_page(&encoded(&behind));
    assert_eq!((short(&steps), then), (vec!["suspect".into()], Then::Pause));
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.after == Some(at("e", 5))));
    let (steps, _) = reader.on_page(&encoded(&page("e", 20, 1, own(6..=17))));
    assert_eq!(short(&steps), ["Piece 6-17"]);
    let Turn::Send(steps) = reader.turn() else { panic!("more is held") };
    assert_eq!(short(&steps), ["Piece 18-18"]);
    assert_eq!(
        short(&match reader.turn() {
            Turn::Send(steps) => steps,
            turn => panic!("{turn:?}"),
        }),
        ["Piece 19-19"]
    );
    assert!(matches!(reader.turn(), Turn::Done(steps) if short(&steps) == ["Piece 20-20"]));
}

#[test]
fn pieces_are_late_as_a_whole() {
    let mut reader = live_at(4);
    let late = EpochTransition { late_to: 7, ..transition(at("f", 4), &[]) };
    reader.on_moved(&moved(at("e", 4), late));
    let behind = Room { is_behind: true, ..ROOM };
    assert_eq!(short(&reader.on_batch(&batch_of("f", true, &own(5..=5)), ROOM)), ["Piece 5-5"]);
    assert_eq!(short(&reader.on_batch(&batch_of("f", true, &own(6..=7)), behind)), ["catch up"]);
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.late_to == 7));
    let page = EncodedPage::encode(&channel(), page("f", 12, 1, own(6..=12)), 7);
    let mut sent = Vec::new();
    while let (steps, Then::Page) = reader.on_page(&page) {
        sent.extend(short(&steps));
        let Step::Send { batch, .. } = &steps[0] else { panic!("{steps:?}") };
        assert_eq!(batch.is_late, batch.last() <= 7);
    }
    assert_eq!(sent, ["Piece 6-7", "Piece 8-12"]);
}

#[test]
fn a_closed_log_is_finished_once_it_was_sent() {
    let mut reader = live_at(4);
    reader.on_skipped(&epoch("e"), 6);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let page = Page { closed: true, ..page("e", 6, 1, own(5..=6)) };
    assert_eq!(short(&reader.on_page(&encoded(&page)).0), ["Piece 5-6"]);
    let (steps, then) = reader.on_page(&encoded(&page));
    assert_eq!((short(&steps), then), (vec!["finished".into()], Then::Turn));
}

fn no_log() -> Page {
    Page { epoch: None, ..page("e", 0, 1, vec![]) }
}

/// A reader that came before the log began, which will start with epoch `e` here.
fn unborn_reader() -> Reader {
    let mut reader = Reader::default();
    reader.begin(&StartingPoint::in_log(at("u.e", 0), None, &no_log()));
    assert!(matches!(reader.turn(), Turn::Done(steps) if steps.is_empty()));
    assert!(reader.is_live() && reader.is_unborn());
    reader
}

#[test]
fn a_log_that_begins_here_is_gone_on_with_without_a_word() {
    let mut reader = unborn_reader();
    assert!(reader.is_next(&[batch(1..=2)]));
    reader.took(2);
    assert!(!reader.is_unborn());
    assert_eq!(short(&reader.on_batch(&batch(3..=3), ROOM)), ["Live 3-3"]);
    // Read again from there, the epoch is the log's own.
    assert_eq!(short(&reader.on_batch(&batch(6..=6), ROOM)), ["catch up"]);
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.after == Some(at("e", 3))));
}

#[test]
fn of_a_log_that_begins_elsewhere_nothing_was_had() {
    let mut reader = unborn_reader();
    let steps = reader.on_moved(&moved(at("e", 0), transition(at("x", 0), &[])));
    assert_eq!(short(&steps), ["x:0 true Some(0)"]);
    assert_eq!(short(&reader.on_batch(&batch_of("x", false, &own(1..=1)), ROOM)), ["Live 1-1"]);

    // The same for a reader that is not live when it learns of that.
    let mut reader = unborn_reader();
    assert_eq!(short(&reader.on_batch(&batch(2..=2), ROOM)), ["catch up"]);
    assert!(reader.on_moved(&moved(at("e", 0), transition(at("x", 0), &[]))).is_empty());
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.after.is_none()));
    let page = page("x", 7, 5, own(5..=7));
    let (steps, then) = reader.on_page(&encoded(&page));
    assert_eq!(short(&steps), ["x:0 true Some(0)", "x:4 false Some(4)", "Piece 5-7"]);
    assert_eq!(then, Then::Page);
}

#[test]
fn a_log_that_is_gone_leaves_its_readers_before_the_next_one() {
    for (offset, whole) in [(0, true), (3, false)] {
        let mut reader = live_at(offset);
        assert_eq!(short(&reader.on_batch(&batch(9..=9), ROOM)), ["catch up"]);
        assert!(matches!(reader.turn(), Turn::Read(_)));
        let (steps, then) = reader.on_page(&encoded(&no_log()));
        assert_eq!((short(&steps), then), (vec!["suspect".into()], Then::Pause));
        let next =
            if whole { EpochTransition::whole(at("u.f", 0)) } else { EpochTransition::unknown(at("u.f", 0)) };
        assert!(reader.on_moved(&moved(at("e", offset), next)).is_empty());
        assert!(matches!(reader.turn(), Turn::Read(_)));
        let (steps, then) = reader.on_page(&encoded(&no_log()));
        let gap = whole.then_some(0);
        let told = if whole { "u.f:0" } else { "u.f.d:0" };
        assert_eq!((short(&steps), then), (vec![format!("{told} {whole} {gap:?}")], Then::Turn));
        assert!(matches!(reader.turn(), Turn::Done(_)));
        assert!(reader.is_next(&[batch_of("f", false, &own(1..=1))]));
    }
}

/// The fork of node 1 after offset 6 of epoch `e`, before which the node had appended up to sequence 2.
fn fork_of_e() -> String {
    format!("f.e.6.{}.2.6", node(1))
}

/// A reader that wanted all of `e` when only what follows offset 4 could be read; it is now in the fork.
fn owed_reader() -> Reader {
    let kept = vec![entry(5, 2, 5), entry(6, 1, 2)];
    let next = Some(EpochTransition::whole(at(&fork_of_e(), 6)));
    let page = Page { out_of_reach: 4, next, ..page("e", 6, 5, kept) };
    let mut reader = Reader::default();
    let begun = StartingPoint::in_log(at(&fork_of_e(), 7), None, &page);
    assert_eq!((begun.offset, begun.gap, begun.is_owed()), (4, None, true));
    reader.begin(&begun);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let (steps, then) = reader.on_page(&encoded(&page));
    assert_eq!((short(&steps), then), (vec!["Piece 5-6".into()], Then::Page));
    let (steps, _) = reader.on_page(&encoded(&page));
    let told = format!("{}.{}-2-2.p.e.0-4-6:6 true Some(0)", fork_of_e(), node(1));
    assert_eq!(short(&steps), [told]);
    reader
}

#[test]
fn what_was_out_of_reach_comes_once_the_log_can_be_read_and_nothing_else_again() {
    let mut reader = owed_reader();
    let fork = fork_of_e();
    let (steps, _) = reader.on_page(&encoded(&page(&fork, 8, 5, vec![entry(7, 1, 3), entry(8, 1, 4)])));
    assert_eq!(short(&steps), ["Piece 7-8"]);
    assert!(matches!(reader.turn(), Turn::Done(_)));
    assert_eq!(short(&reader.on_batch(&batch_of(&fork, false, &[entry(9, 1, 5)]), ROOM)), ["Live 9-9"]);
    let steps = reader.on_moved(&moved(at(&fork, 9), transition(at("e", 6), &[(1, 5)])));
    assert_eq!(short(&steps), ["vector:0 true Some(0)", "catch up"]);
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.late_to >= 4));
    // Some of what it is owed is from the node whose fork it was in.
    let log = [(1, 1), (2, 3), (1, 2), (2, 4), (2, 5), (1, 2), (1, 3), (2, 6), (1, 4), (1, 5), (1, 6)];
    let log = (1..).zip(log).map(|(offset, (producer, seq))| entry(offset, producer, seq)).collect();
    let (steps, _) = reader.on_page(&encoded(&page("e", 11, 1, log)));
    assert_eq!(short(&steps), ["Piece 1-4 8-8", "e:10 true Some(0)", "Piece 11-11"]);
}

#[test]
fn what_is_owed_of_a_log_that_is_lost_is_told_as_a_loss() {
    let mut reader = owed_reader();
    let steps = reader.on_moved(&moved(at(&fork_of_e(), 6), transition(at("x", 0), &[(1, 5), (2, 9)])));
    assert!(steps.is_empty(), "it was not live");
    let page_of_fork =
        Page { next: Some(transition(at("x", 0), &[(1, 5), (2, 9)])), ..page(&fork_of_e(), 6, 7, vec![]) };
    let (steps, _) = reader.on_page(&encoded(&page_of_fork));
    assert_eq!(short(&steps), ["vector:0 false None"]);
    let (steps, _) = reader.on_page(&encoded(&page("x", 2, 1, vec![entry(1, 1, 5), entry(2, 2, 9)])));
    assert_eq!(short(&steps), ["Piece 1-2"], "nothing is left out that it may never have had");
}

#[test]
fn what_can_be_reached_again_before_there_was_a_fork_is_gone_back_for() {
    let page_of_mirror = Page { out_of_reach: 4, is_copy: true, ..page("e", 6, 5, own(5..=6)) };
    let mut reader = Reader::default();
    reader.begin(&StartingPoint::in_log(at("e", 6), None, &page_of_mirror));
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let (steps, _) = reader.on_page(&encoded(&page_of_mirror));
    assert_eq!(short(&steps), ["Piece 5-6"]);
    assert_eq!(reader.on_page(&encoded(&page_of_mirror)).1, Then::Pause, "it is not up to date");
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let (steps, then) = reader.on_page(&encoded(&page("e", 6, 1, vec![])));
    assert_eq!((short(&steps), then), (vec!["vector:0 true Some(0)".into()], Then::Turn));
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.after == Some(at("e", 0))));
    let (steps, _) = reader.on_page(&encoded(&page("e", 6, 1, own(1..=6))));
    assert_eq!(short(&steps), ["Piece 1-4", "e:6 true Some(0)"]);
}

#[test]
fn an_order_has_not_ended_for_a_reader_that_is_owed_some_of_it() {
    let mut reader = owed_reader();
    let fork = fork_of_e();
    let closed = Page { closed: true, ..page(&fork, 7, 5, vec![entry(7, 1, 3)]) };
    assert_eq!(short(&reader.on_page(&encoded(&closed)).0), ["Piece 7-7"]);
    assert_eq!((short(&reader.on_page(&encoded(&closed)).0), reader.is_live()), (vec![], false));
    assert!(matches!(reader.turn(), Turn::Done(_)));
    // The last update may also arrive as an ordinary live batch.
    let mut confirmed = entry(8, 1, 4);
    confirmed.draft.kind = EntryKind::Confirmed;
    let last = batch_of(&fork, false, &[confirmed]);
    assert!(last.is_last_of_log);
    assert!(!reader.is_next(&[Arc::clone(&last)]));
    assert_eq!(short(&reader.on_batch(&last, ROOM)), ["Live 8-8"]);
    let steps = reader.on_moved(&moved(at(&fork, 8), transition(at("e", 6), &[(1, 4)])));
    assert_eq!(short(&steps), ["vector:0 true Some(0)", "catch up"]);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let log = [(1, 1), (2, 3), (2, 4), (1, 2), (2, 5), (1, 2), (1, 3), (1, 4)];
    let log = (1..).zip(log).map(|(offset, (producer, seq))| entry(offset, producer, seq)).collect();
    let page = Page { closed: true, ..page("e", 8, 1, log) };
    assert_eq!(short(&reader.on_page(&encoded(&page)).0), ["Piece 1-4", "e:8 true Some(0)"]);
    assert_eq!(short(&reader.on_page(&encoded(&page)).0), ["finished"], "now it has");
}

#[test]
fn what_a_fork_no_longer_has_is_not_taken_for_had() {
    let mut reader = owed_reader();
    let fork = fork_of_e();
    // Two of the node's entries left the local replica before they were read.
    let (steps, _) = reader.on_page(&encoded(&page(&fork, 9, 9, vec![entry(9, 1, 5)])));
    let told = format!("{fork}.{}-4-4.p.e.0-4-6.d0:8 false None", node(1));
    assert_eq!(short(&steps), [told.as_str(), "Piece 9-9"]);
}

#[test]
fn a_reader_that_is_ahead_of_a_copy_goes_back_to_where_it_was() {
    let copy = Page { is_copy: true, ..page("e", 2, 1, vec![]) };
    let begun = StartingPoint::in_log(at("e", 2), Some(&at("e", 3)), &copy);
    assert_eq!((begun.epoch.as_str(), begun.offset, begun.gap), ("v.e.p.e.3-3-3", 2, None));
    let mut reader = Reader::default();
    reader.begin(&begun);
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.is_owed));
    assert_eq!(reader.on_page(&encoded(&copy)).1, Then::Pause);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    // The log can be reached again.
    let (steps, then) = reader.on_page(&encoded(&page("e", 4, 1, own(3..=4))));
    assert_eq!((short(&steps), then), (vec!["e:3 true Some(0)".into()], Then::Turn));
    assert!(matches!(reader.turn(), Turn::Done(_)));
    assert_eq!(short(&reader.on_batch(&batch(3..=4), ROOM)), ["Live 4-4"]);
}

/// Latest entries of producer 1, by offset, each of its own key; `next` is the last key looked at if more
/// follow.
fn latest(name: &str, top: u64, offsets: &[u64], next: Option<&str>) -> EncodedLatest {
    let entries = offsets.iter().map(|offset| entry(*offset, 1, *offset)).collect();
    let page = LatestPage {
        entries,
        places: offsets.to_vec(),
        next: next.map(str::to_owned),
        epoch: Some(epoch(name)),
        top,
        is_copy: false,
    };
    EncodedLatest::encode(&channel(), page)
}

fn copy_of(mut page: EncodedLatest) -> EncodedLatest {
    page.is_copy = true;
    page
}

/// A reader that begins with a snapshot of `e`, whose log ends at offset 9.
fn taking_reader() -> Reader {
    let mut reader = Reader::default();
    let first = latest("e", 9, &[4, 8], Some("b"));
    let begun = StartingPoint::of_snapshot(at("e", 9), &first, true);
    assert_eq!((begun.epoch.as_str(), begun.offset, begun.gap), ("v.e.s", 9, Some(0)));
    reader.begin(&begun);
    assert_eq!(wanted_latest(&mut reader), (None, Some(at("e", 9))));
    assert_eq!(short(&reader.on_latest(&first).0), ["Latest 4-5"], "the offsets of a snapshot mean nothing");
    reader
}

fn wanted_latest(reader: &mut Reader) -> (Option<String>, Option<Position>) {
    match reader.turn() {
        Turn::ReadLatest(WantedLatest { after, at_least }) => (after, at_least),
        turn => panic!("{turn:?}"),
    }
}

#[test]
fn a_snapshot_comes_page_by_page_and_what_is_newer_comes_behind_it() {
    let mut reader = taking_reader();
    assert_eq!(short(&reader.on_batch(&batch(10..=11), ROOM)), [""; 0], "held");
    assert_eq!(wanted_latest(&mut reader).0.as_deref(), Some("b"));
    // 11 has arrived live, and 12 will.
    let (steps, then) = reader.on_latest(&latest("e", 12, &[2, 11, 3, 12, 9], None));
    let Step::Send { runs, way: Way::Latest, .. } = &steps[0] else { panic!("{steps:?}") };
    assert_eq!(runs.as_slice(), [0..1, 2..3, 4..5]);
    assert_eq!((short(&steps[1..]), then), (vec!["e:9 end true".into()], Then::Turn));
    assert!(matches!(reader.turn(), Turn::Done(steps) if short(&steps) == ["Piece 10-11"]));
    assert!(reader.is_next(&[batch(12..=12)]));
}

#[test]
fn a_snapshot_begins_anew_where_the_log_is_another_one() {
    let mut reader = taking_reader();
    let (steps, then) = reader.on_latest(&latest("f", 3, &[1], None));
    assert_eq!((short(&steps), then), (vec![], Then::Turn), "from its first key on");
    assert_eq!(wanted_latest(&mut reader).0, None);
    let (steps, _) = reader.on_latest(&latest("f", 4, &[1, 2], None));
    assert_eq!(short(&steps), ["v.f.s:4 snapshot", "Latest 1-2", "f:4 end true"]);
    // Live entries are of the old epoch until the channel gets there too.
    assert!(matches!(reader.turn(), Turn::Read(wanted) if wanted.after == Some(at("f", 4))));
}

#[test]
fn a_log_that_is_older_than_a_snapshot_is_not_believed() {
    let mut reader = taking_reader();
    let (steps, then) = reader.on_latest(&latest("e", 8, &[2], None));
    assert_eq!((short(&steps), then), (vec!["suspect".into()], Then::Pause));
    assert_eq!(wanted_latest(&mut reader).0.as_deref(), Some("b"), "it goes on where it was");
}

#[test]
fn a_snapshot_of_a_log_that_does_not_exist_is_empty() {
    let none = || EncodedLatest::encode(&channel(), LatestPage::default());
    let mut reader = Reader::default();
    let begun = StartingPoint::of_snapshot(at("u.e", 0), &none(), true);
    assert_eq!((begun.epoch.as_str(), begun.offset, begun.gap), ("u.e.s", 0, Some(0)));
    reader.begin(&begun);
    assert_eq!(wanted_latest(&mut reader), (None, None));
    assert_eq!(short(&reader.on_latest(&none()).0), ["u.e:0 end true"]);
    assert!(matches!(reader.turn(), Turn::Done(_)) && reader.is_unborn());
    // If there was a log, the channel has to find out first that it is gone.
    let mut reader = taking_reader();
    assert_eq!(reader.on_latest(&none()).1, Then::Turn);
    assert_eq!(
        (short(&reader.on_latest(&none()).0), reader.on_latest(&none()).1),
        (vec!["suspect".into()], Then::Pause)
    );
    reader.on_moved(&moved(at("e", 9), EpochTransition::unknown(at("u.f", 0))));
    assert_eq!(short(&reader.on_latest(&none()).0), ["u.f.s:0 snapshot", "u.f:0 end true"]);
}

#[test]
fn a_snapshot_of_a_log_that_the_channel_knows_nothing_of_is_not_taken_again_from_what_was_kept() {
    let mut reader = Reader::default();
    let page_of_e = latest("e", 1, &[1], None);
    reader.begin(&StartingPoint::of_snapshot(at("u.f", 0), &page_of_e, true));
    assert!(matches!(reader.turn(), Turn::ReadLatest(_)));
    assert_eq!(short(&reader.on_latest(&page_of_e).0), ["Latest 1-1", "e:1 end true"]);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let (steps, then) = reader.on_page(&encoded(&Page { epoch: None, ..page("e", 0, 1, vec![]) }));
    assert_eq!((short(&steps), then), (vec!["suspect".into()], Then::Turn));
    assert_eq!(wanted_latest(&mut reader).0, None);
}

#[test]
fn what_could_be_reached_of_a_snapshot_is_followed_by_a_whole_one() {
    let fork = fork_of_e();
    let mut reader = Reader::default();
    let part = copy_of(latest(&fork, 7, &[5, 7], None));
    let begun = StartingPoint::of_snapshot(at(&fork, 7), &part, true);
    assert_eq!((begun.epoch.as_str(), begun.gap), (format!("{fork}.s").as_str(), None));
    reader.begin(&begun);
    assert!(matches!(reader.turn(), Turn::ReadLatest(_)));
    assert_eq!(short(&reader.on_latest(&part).0), ["Latest 5-6".to_owned(), format!("{fork}.s:7 end false")]);
    assert!(matches!(reader.turn(), Turn::Done(_)));
    assert_eq!(short(&reader.on_batch(&batch_of(&fork, false, &own(8..=8)), ROOM)), ["Live 8-8"]);
    let steps = reader.on_moved(&moved(at(&fork, 8), transition(at("e", 6), &[(1, 8)])));
    assert_eq!(short(&steps), ["catch up"], "where it begins is to be found");
    assert_eq!(wanted_latest(&mut reader), (None, Some(at("e", 6))));
    let (steps, _) = reader.on_latest(&latest("e", 12, &[3, 12], None));
    assert_eq!(short(&steps), ["v.e.s:12 snapshot", "Latest 3-4", "e:12 end true"]);
}

#[test]
fn what_is_gone_is_made_up_for_by_a_snapshot_where_one_is_wanted() {
    let mut reader = taking_reader();
    reader.on_latest(&latest("e", 9, &[9], None));
    assert!(matches!(reader.turn(), Turn::Done(_)));
    assert_eq!(short(&reader.on_batch(&batch(14..=14), ROOM)), ["catch up"]);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let (steps, then) = reader.on_page(&encoded(&page("e", 14, 13, own(13..=14))));
    assert_eq!((short(&steps), then), (vec![], Then::Turn));
    assert_eq!(wanted_latest(&mut reader), (None, Some(at("e", 14))), "what was read before is of no use");
    let (steps, _) = reader.on_latest(&latest("e", 15, &[9, 15], None));
    assert_eq!(short(&steps), ["v.e.s:15 snapshot", "Latest 9-10", "e:15 end true"]);
    // The same if the log between them is unknown.
    assert_eq!(short(&reader.on_skipped(&epoch("e"), 16)), [""; 0]);
    assert!(matches!(reader.turn(), Turn::Read(_)));
    let (steps, then) = reader.on_page(&encoded(&page("f", 9, 3, vec![])));
    assert_eq!((short(&steps), then), (vec!["suspect".into()], Then::Turn));
    assert_eq!(short(&reader.on_latest(&latest("f", 9, &[9], None)).0)[0], "v.f.s:9 snapshot");
}

#[test]
fn a_position_is_resumed_where_nothing_is_missing_or_it_comes_by_itself() {
    let copy = Page { out_of_reach: 6, is_copy: true, ..page("e", 9, 7, vec![]) };
    for (had, page, is_resumed) in [
        ("e:4", page("e", 9, 5, vec![]), true),
        ("e:4", page("e", 9, 7, vec![]), false),
        ("e:4", page("f", 9, 3, vec![]), false),
        ("e:4", Page { is_final: true, ..page("f", 9, 1, vec![]) }, false),
        ("e:4", copy.clone(), true),
        // The position is ahead of the local replica.
        ("e:12", copy, true),
        // If it is unknown what was had, nothing need be missing.
        ("v.e.d0:4", page("v.e.d0", 4, 5, vec![]), true),
        // It has only a part of a snapshot.
        ("v.e.s:4", page("v.e.s", 4, 5, vec![]), false),
    ] {
        let had: Position = had.parse().unwrap();
        let found = StartingPoint::in_log(at("e", 9), Some(&had), &page);
        assert_eq!(found.is_resumed, is_resumed, "{had} {page:?}");
        assert!(!found.snapshot);
    }
}
