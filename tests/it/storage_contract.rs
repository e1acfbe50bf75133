//! The contract of every backend: each sentence in the docs of the storage traits is a test.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time;
use zonewire::model::{ChannelName, DraftEntry, Entry, EntryKind, Epoch, Marks, NodeId, OrderId, Position};
use zonewire::storage::{
    Append, AppendAnswer, Appended, LATEST_BYTES_MAX, LatestOf, LatestPage, LatestQuery, LogEvent, LogState,
    MemoryBackend, MemoryConfig, Page, PageLimit, Record, RecordKind, Retention, SharedBackend,
    StorageBackend, StorageError,
};

use crate::support::eventually::{eventually, until};
use crate::support::redis::Admin;
use crate::support::stores::{
    Fresh, Log, Make, Producer, SECOND, also_while_redis_is_away, channel, done, for_every_backend, link,
    offsets, price, producer_of,
};

for_every_backend!(
    offsets_count_from_1_without_holes_in_one_order_for_all,
    a_repeated_append_does_nothing,
    an_entry_after_a_missing_one_is_a_gap_and_is_not_applied,
    a_chain_with_dropped_entries_is_applied,
    the_entries_of_a_batch_that_fit_the_chain_are_applied_consecutively,
    an_empty_batch_does_nothing,
    an_append_never_creates_an_epoch,
    a_log_is_begun_once_with_its_first_entries,
    an_append_in_another_epoch_does_nothing,
    reading_the_state_creates_nothing,
    the_state_is_that_of_the_asking_producer,
    following_creates_nothing,
    an_entry_is_read_as_it_was_appended,
    each_page_continues_where_the_previous_one_ended,
    reading_removes_nothing,
    a_position_at_or_beyond_the_top_reads_nothing,
    the_oldest_are_dropped_when_there_are_too_many,
    the_oldest_are_dropped_when_they_have_too_many_bytes,
    the_oldest_are_dropped_when_they_are_too_old,
    entries_expire_even_if_newer_ones_remain,
    the_latest_of_each_key_is_what_was_appended_last,
    an_unknown_kind_is_stored_unchanged_and_replaces_no_price,
    the_latest_entry_outlives_its_log_entry,
    latest_entries_are_paged_by_key,
    pages_of_latest_entries_include_the_position_of_the_log_and_offsets,
    a_page_of_the_latest_is_bounded_in_bytes,
    a_removal_replaces_the_latest_entry_of_its_keys_as_a_price_would,
    a_late_entry_is_compared_with_the_removal_of_its_key,
    the_last_entry_of_each_key_is_the_same_as_in_memory,
    a_key_that_nobody_updates_expires,
    channels_do_not_see_each_other,
    entries_of_followed_channels_are_announced,
    there_is_one_receiver,
    an_append_dropped_midway_is_applied_completely_or_not_at_all,
    concurrent_producers_yield_one_order_without_holes,
    the_chain_rule_agrees_with_the_model,
    entries_appended_by_several_under_one_producer_are_stored_once_in_order,
    a_record_reads_back_as_it_was_written,
    a_put_replaces_the_whole_value,
    a_record_expires,
    a_put_restarts_the_time_to_live,
    deleting_says_whether_there_was_one,
    records_are_listed_by_key_in_pages,
    expired_records_are_not_listed,
    a_lease_has_one_holder_until_it_expires_or_is_released,
    a_renewed_lease_keeps_its_fencing_token,
    fencing_tokens_always_grow,
    of_many_contenders_for_a_lease_one_gets_it,
    a_ping_is_answered,
);

// A forked node assigns its own sequences, without holes; if a log exists, its epoch has another name from
// there on.
also_while_redis_is_away!(
    a_repeated_append_does_nothing,
    an_entry_after_a_missing_one_is_a_gap_and_is_not_applied,
    an_empty_batch_does_nothing,
    an_append_in_another_epoch_does_nothing,
    an_entry_is_read_as_it_was_appended,
    each_page_continues_where_the_previous_one_ended,
    reading_removes_nothing,
    a_position_at_or_beyond_the_top_reads_nothing,
    the_oldest_are_dropped_when_there_are_too_many,
    the_oldest_are_dropped_when_they_have_too_many_bytes,
    the_latest_of_each_key_is_what_was_appended_last,
    the_latest_entry_outlives_its_log_entry,
    latest_entries_are_paged_by_key,
    a_page_of_the_latest_is_bounded_in_bytes,
    a_removal_replaces_the_latest_entry_of_its_keys_as_a_price_would,
    a_key_that_nobody_updates_expires,
    a_put_replaces_the_whole_value,
    a_record_expires,
    deleting_says_whether_there_was_one,
    records_are_listed_by_key_in_pages,
    a_node_without_redis_grants_no_lease,
    a_ping_is_answered,
);

/// The latest entry of each key, by key.
async fn latest(store: &SharedBackend) -> Vec<Entry> {
    let page = store.latest(&channel(), None, 1_000).await.unwrap();
    assert_eq!(page.next, None);
    page.entries
}

async fn offsets_count_from_1_without_holes_in_one_order_for_all(Fresh { stores, store }: Fresh) {
    let (a, b) = (Producer::new(&store).await, Producer::new(&stores.open().await).await);
    a.fill(1..=50).await;
    b.fill(1..=1).await;
    a.fill(51..=60).await;
    let page = a.read(0, 100).await;
    assert_eq!(offsets(&page.entries), (1..=61).collect::<Vec<_>>());
    assert_eq!((page.top, page.first, page.epoch.as_ref()), (61, 1, Some(&a.epoch)));
    assert_eq!((page.entries[50].id.producer, page.entries[60].id.seq), (b.id, 60));
    assert_eq!(b.read(0, 100).await, page);
}

async fn a_repeated_append_does_nothing(Log { store, producer, .. }: Log) {
    producer.fill(1..=3).await;
    let before = producer.read(0, 10).await;
    let again = done(store.append(&producer.chain(1..=3)).await.unwrap());
    assert_eq!(again, [Appended::Duplicate; 3]);
    let half = done(store.append(&producer.chain(3..=4)).await.unwrap());
    assert_eq!(half, [Appended::Duplicate, Appended::Applied { offset: 4 }]);
    assert_eq!(producer.read(0, 3).await.entries, before.entries);
}

async fn an_entry_after_a_missing_one_is_a_gap_and_is_not_applied(Log { producer, .. }: Log) {
    assert_eq!(producer.append(vec![link(1, 2)]).await, [Appended::Gap { last: 0 }]);
    producer.fill(1..=2).await;
    let results = producer.append(vec![link(5, 6), link(6, 7)]).await;
    assert_eq!(results, [Appended::Gap { last: 2 }; 2]);
    assert_eq!(producer.read(0, 10).await.top, 2);
}

async fn a_chain_with_dropped_entries_is_applied(Log { producer, .. }: Log) {
    producer.fill(1..=2).await;
    // 3 and 4 were dropped, and 5 took over the `prev` of 3; 9 refers to an entry before the newest applied
    // one.
    let results = producer.append(vec![link(2, 5), link(4, 9)]).await;
    assert_eq!(results, [Appended::Applied { offset: 3 }, Appended::Applied { offset: 4 }]);
    assert_eq!(producer.append(vec![link(2, 4)]).await, [Appended::Duplicate]);
}

async fn the_entries_of_a_batch_that_fit_the_chain_are_applied_consecutively(Log { producer, .. }: Log) {
    let results = producer.append(vec![link(0, 1), link(3, 4), link(1, 5), link(5, 6)]).await;
    let applied = |offset| Appended::Applied { offset };
    assert_eq!(results, [applied(1), Appended::Gap { last: 1 }, applied(2), applied(3)]);
    let seqs: Vec<u64> = producer.read(0, 10).await.entries.iter().map(|entry| entry.id.seq).collect();
    assert_eq!(seqs, [1, 5, 6]);
}

async fn an_empty_batch_does_nothing(Log { producer, .. }: Log) {
    assert_eq!(producer.append(vec![]).await, []);
    assert_eq!(producer.read(0, 10).await.top, 0);
}

async fn an_append_never_creates_an_epoch(Fresh { store, .. }: Fresh) {
    let producer = Producer {
        store: Arc::clone(&store),
        channel: channel(),
        epoch: Epoch::random(),
        id: NodeId::random(),
    };
    let answer = store.append(&producer.chain(1..=2)).await.unwrap();
    assert_eq!(answer, AppendAnswer::ForeignEpoch(None));
    assert_eq!(store.state(&channel(), producer.id).await.unwrap().epoch, None);
}

async fn a_log_is_begun_once_with_its_first_entries(Fresh { stores, store }: Fresh) {
    let other = stores.open().await;
    let (id, other_id) = (producer_of(&store), producer_of(&other));
    for channel in [channel(), ChannelName::order(OrderId::random())] {
        let first = Producer { store: Arc::clone(&store), channel, epoch: Epoch::random(), id };
        let begun = done(store.begin(&first.chain(1..=3)).await.unwrap());
        assert_eq!(begun, [1, 2, 3].map(|offset| Appended::Applied { offset }));
        first.fill(4..=4).await;
        let second = Producer { epoch: Epoch::random(), id: other_id, ..first.clone() };
        let refused = other.begin(&second.chain(1..=1)).await.unwrap();
        assert_eq!(refused, AppendAnswer::ForeignEpoch(Some(first.epoch.clone())));
        assert_eq!(offsets(&first.read(0, 10).await.entries), [1, 2, 3, 4]);
    }
    // Nor where there is nothing in it yet.
    let channel = ChannelName::order(OrderId::random());
    let epoch = store.open(&channel, id, &Epoch::random()).await.unwrap().epoch;
    let opened = Producer { store: Arc::clone(&store), channel, epoch, id };
    let late = Producer { epoch: Epoch::random(), ..opened.clone() };
    let refused = store.begin(&late.chain(1..=1)).await.unwrap();
    assert_eq!(refused, AppendAnswer::ForeignEpoch(Some(opened.epoch.clone())));
    opened.fill(1..=1).await;
}

async fn an_append_in_another_epoch_does_nothing(Log { store, producer, .. }: Log) {
    producer.fill(1..=1).await;
    let stranger = Producer { epoch: Epoch::random(), ..producer.clone() };
    let answer = store.append(&stranger.chain(2..=3)).await.unwrap();
    assert_eq!(answer, AppendAnswer::ForeignEpoch(Some(producer.epoch.clone())));
    assert_eq!(producer.read(0, 10).await.top, 1);
}

async fn reading_the_state_creates_nothing(Fresh { store, .. }: Fresh) {
    for _ in 0..2 {
        let state = store.state(&channel(), NodeId::random()).await.unwrap();
        assert_eq!(state, LogState { epoch: None, top: 0, last_seq: 0 });
        let page = store.read_after(&channel(), None, 10).await.unwrap();
        let Page { epoch, top, first, closed, entries, next, .. } = page;
        assert_eq!((epoch, top, first, closed, entries, next), (None, 0, 1, false, vec![], None));
        assert_eq!(latest(&store).await, []);
    }
}

async fn the_state_is_that_of_the_asking_producer(Fresh { store, .. }: Fresh) {
    let (a, b) = (Producer::new(&store).await, Producer::new(&store).await);
    a.fill(1..=3).await;
    b.append(vec![link(0, 40)]).await;
    let seen_by = async |id| store.state(&channel(), id).await.unwrap();
    let state = |last_seq| LogState { epoch: Some(a.epoch.clone()), top: 4, last_seq };
    assert_eq!(seen_by(a.id).await, state(3));
    assert_eq!(seen_by(b.id).await, state(40));
    assert_eq!(seen_by(NodeId::random()).await, state(0));
}

async fn following_creates_nothing(Fresh { stores, store }: Fresh) {
    let (id, other) = (producer_of(&store), stores.open().await);
    for name in [channel(), ChannelName::order(OrderId::random())] {
        store.follow(&name).await.unwrap();
        for _ in 0..2 {
            assert_eq!(store.find(&name, id).await.unwrap(), None);
        }
        assert_eq!(store.state(&name, id).await.unwrap(), LogState { epoch: None, top: 0, last_seq: 0 });
        let page = store.read_after(&name, None, 10).await.unwrap();
        assert_eq!((page.epoch, page.top, page.first), (None, 0, 1));
        store.unfollow(&name).await.unwrap();
        assert_eq!(other.find(&name, producer_of(&other)).await.unwrap(), None);
        // Once somebody begins it, others find the same log.
        let minted = Epoch::random();
        assert_eq!(other.open(&name, producer_of(&other), &minted).await.unwrap().epoch, minted);
        assert_eq!(store.find(&name, id).await.unwrap().map(|log| (log.epoch, log.top)), Some((minted, 0)));
    }
}

async fn an_entry_is_read_as_it_was_appended(Log { store, producer, .. }: Log) {
    let drafts = [
        price(0, None, "{}"),
        price(-1, Some(""), "{\"p\":1}"),
        price(1_700_000_000_123, Some("a b\n\"ü"), "{\"s\":\"ü \\n 1 2 3\"}"),
        price(8_000_000_000_000, Some("k"), &format!("{{\"x\":\"{}\"}}", "y".repeat(60_000))),
    ];
    let entries = drafts.iter().cloned().zip(1..).map(|(draft, seq)| next(seq, draft));
    producer.append(entries.collect()).await;
    let read: Vec<_> = producer.read(0, 10).await.entries.into_iter().map(|entry| entry.draft).collect();
    assert_eq!(read, drafts);
    let latest: Vec<_> = latest(&store).await.into_iter().map(|entry| entry.draft).collect();
    assert_eq!(latest, drafts[1..]);
}

async fn each_page_continues_where_the_previous_one_ended(Log { producer, .. }: Log) {
    producer.fill(1..=7).await;
    let mut seen = vec![];
    loop {
        let page = producer.read(seen.last().copied().unwrap_or(0), 3).await;
        assert!(page.entries.len() <= 3 && page.top == 7 && page.first == 1);
        seen.extend(offsets(&page.entries));
        if page.entries.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(producer.read(0, usize::MAX).await.entries.len(), 7);
    assert_eq!(producer.read(0, 0).await.entries, []);
}

async fn reading_removes_nothing(Log { producer, .. }: Log) {
    producer.fill(1..=3).await;
    assert_eq!(producer.read(1, 10).await, producer.read(1, 10).await);
    assert_eq!(producer.read(0, 10).await.entries.len(), 3);
}

async fn a_position_at_or_beyond_the_top_reads_nothing(Log { producer, .. }: Log) {
    producer.fill(1..=3).await;
    for offset in [3, 4, 1 << 53, u64::MAX] {
        let page = producer.read(offset, 10).await;
        assert_eq!((page.entries.len(), page.top, page.first), (0, 3, 1), "after {offset}");
    }
}

async fn the_oldest_are_dropped_when_there_are_too_many(make: Make) {
    let retention = Retention { entries: 5, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = Producer::new(&store).await;
    for (from, to) in [(1, 3), (4, 6), (7, 7), (8, 57)] {
        producer.fill(from..=to).await;
        let page = producer.read(0, 100).await;
        let first = to.saturating_sub(4).max(1);
        assert_eq!((page.first, page.top), (first, to));
        assert_eq!(offsets(&page.entries), (first..=to).collect::<Vec<_>>());
    }
    assert_eq!(offsets(&producer.read(55, 100).await.entries), [56, 57], "positions stay meaningful");
}

async fn the_oldest_are_dropped_when_they_have_too_many_bytes(make: Make) {
    let retention = Retention { bytes: 10_000, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = Producer::new(&store).await;
    let data = format!("{{\"x\":\"{}\"}}", "y".repeat(1_000));
    for seq in 1..=40 {
        producer.append(vec![next(seq, price(0, None, &data))]).await;
    }
    let page = producer.read(0, 100).await;
    let bytes: usize = page.entries.iter().map(|entry| entry.draft.data.len()).sum();
    assert!(bytes <= 10_000 && page.entries.len() >= 7, "{bytes} bytes in {}", page.entries.len());
    assert_eq!((page.top, page.first), (40, 41 - page.entries.len() as u64));
    assert_eq!(offsets(&page.entries), (page.first..=40).collect::<Vec<_>>());
}

async fn the_oldest_are_dropped_when_they_are_too_old(make: Make) {
    let retention = Retention { age_s: 1, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = Producer::new(&store).await;
    producer.fill(1..=3).await;
    let page = eventually("entries go by age", async || {
        Some(producer.read(0, 10).await).filter(|page| page.entries.is_empty())
    })
    .await;
    assert_eq!((page.epoch.as_ref(), page.top, page.first), (Some(&producer.epoch), 3, 4));
    assert_eq!(store.state(&channel(), producer.id).await.unwrap().last_seq, 3, "the producer stays known");
    // A stalled machine may need a second between the two; then the next round shows it.
    let mut seq = 3;
    until("a new entry is kept", async || {
        seq += 1;
        producer.fill(seq..=seq).await;
        offsets(&producer.read(seq - 1, 10).await.entries).eq(&[seq])
    })
    .await;
}

async fn entries_expire_even_if_newer_ones_remain(make: Make) {
    let retention = Retention { age_s: 1, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = Producer::new(&store).await;
    producer.fill(1..=20).await;
    let mut seq = 20;
    let page = eventually("the oldest go while newer ones come", async || {
        seq += 1;
        producer.fill(seq..=seq).await;
        Some(producer.read(0, 1_000).await).filter(|page| page.first > 20)
    })
    .await;
    assert_eq!(offsets(&page.entries), (page.first..=page.top).collect::<Vec<_>>());
    assert!(!page.entries.is_empty());
}

async fn the_latest_of_each_key_is_what_was_appended_last(Log { store, producer, .. }: Log) {
    let late = |time_ms, key| {
        let draft = price(time_ms, Some(key), "{}");
        DraftEntry { marks: Marks { late: true, ..draft.marks }, ..draft }
    };
    const FAR_AHEAD: i64 = 7_226_582_400_000;
    let drafts = [
        price(100, Some("a"), "{\"n\":1}"),
        price(100, Some("b"), "{\"n\":2}"),
        price(50, Some("a"), "{\"n\":3}"),
        price(500, None, "{\"keyless\":1}"),
        late(100, "b"),
        price(-5, Some("c"), "{\"n\":6}"),
        // For entries of one gateway its own order decides, whatever the times are.
        late(-6, "c"),
        price(FAR_AHEAD, Some("d"), "{}"),
        price(100, Some("d"), "{}"),
    ];
    for (draft, seq) in drafts.into_iter().zip(1..) {
        producer.append(vec![next(seq, draft)]).await;
    }
    assert_eq!(offsets(&latest(&store).await), [3, 5, 7, 9]);
}

async fn an_unknown_kind_is_stored_unchanged_and_replaces_no_price(Log { store, producer, .. }: Log) {
    let kind = |name| EntryKind::named(name, false).unwrap();
    let drafts = [
        price(100, Some("a"), "{\"n\":1}"),
        DraftEntry { kind: kind("quote"), ..price(200, Some("a"), "{\"n\":2}") },
        DraftEntry { kind: kind("trade"), ..price(200, Some("a"), "{\"n\":3}") },
        DraftEntry { kind: kind("quote"), ..price(300, Some("a"), "{\"n\":4}") },
    ];
    for (draft, seq) in drafts.iter().cloned().zip(1..) {
        producer.append(vec![next(seq, draft)]).await;
    }
    let read: Vec<DraftEntry> =
        producer.read(0, 10).await.entries.into_iter().map(|entry| entry.draft).collect();
    assert_eq!(read, drafts);
    assert_eq!(offsets(&latest(&store).await), [1, 4, 3], "by key, then by kind");
}

async fn the_latest_entry_outlives_its_log_entry(make: Make) {
    let retention = Retention { entries: 2, age_s: 1, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = Producer::new(&store).await;
    producer.append(vec![Append { seq: 1, prev: 0, draft: price(1, Some("old"), "{}"), fence: None }]).await;
    producer.fill(2..=4).await;
    assert!(producer.read(0, 10).await.first >= 3);
    assert_eq!(offsets(&latest(&store).await), [4, 1], "by key");
    until("the log empties", async || producer.read(0, 10).await.entries.is_empty()).await;
    assert_eq!(offsets(&latest(&store).await), [4, 1], "by key");
}

/// An entry that follows the previous one.
fn next(seq: u64, draft: DraftEntry) -> Append {
    Append { seq, prev: seq - 1, draft, fence: None }
}

/// Prices for these keys in turn, beginning with this sequence.
fn of_keys(from: u64, keys: &[&str]) -> Vec<Append> {
    keys.iter().zip(from..).map(|(key, seq)| next(seq, price(5, Some(key), "{}"))).collect()
}

async fn names(store: &SharedBackend) -> Vec<String> {
    store.keys(&channel()).await.unwrap().iter().map(ToString::to_string).collect()
}

async fn latest_entries_are_paged_by_key(Log { store, producer, .. }: Log) {
    assert_eq!(store.keys(&channel()).await.unwrap(), []);
    producer.append(of_keys(1, &["e", "d", "c", "b", "a", "\u{e9}"])).await;
    assert_eq!(names(&store).await, ["a", "b", "c", "d", "e", "\u{e9}"]);
    let page = async |after: Option<&str>, limit| {
        let page = store.latest(&channel(), after, limit).await.unwrap();
        (offsets(&page.entries), page.next)
    };
    assert_eq!(page(None, 2).await, (vec![5, 4], Some("b".to_owned())));
    // Entries that change between two pages do not appear twice.
    producer.append(of_keys(7, &["a", "d"])).await;
    assert_eq!(page(Some("b"), 2).await, (vec![3, 8], Some("d".to_owned())));
    assert_eq!(page(Some("d"), 2).await, (vec![1, 6], None));
    assert_eq!(page(Some("bb"), 1).await, (vec![3], Some("c".to_owned())), "a key that does not exist");
    assert_eq!(page(Some("\u{e9}"), 1).await, (vec![], None));
    assert_eq!(page(None, 6).await, (vec![7, 4, 3, 8, 1, 6], None));
}

async fn pages_of_latest_entries_include_the_position_of_the_log_and_offsets(Fresh { store, .. }: Fresh) {
    let channel = channel();
    let page = async |after: Option<&str>, entries, bytes| {
        let limit = PageLimit { entries, bytes };
        store.latest_within(&channel, LatestQuery { after, limit, of: LatestOf::Keys }).await.unwrap()
    };
    assert_eq!(page(None, 5, 1 << 20).await, LatestPage::default(), "there is no log");
    let producer = Producer::new(&store).await;
    assert_eq!(
        (page(None, 5, 1 << 20).await.epoch, page(None, 5, 1 << 20).await.top),
        (Some(producer.epoch.clone()), 0)
    );
    producer.append(of_keys(1, &["c", "b", "a", "b"])).await;
    let first = page(None, 2, 1 << 20).await;
    assert_eq!((first.epoch.as_ref(), first.top, first.is_copy), (Some(&producer.epoch), 4, false));
    assert_eq!((first.places, first.next.as_deref()), (vec![3, 4], Some("b")));
    producer.append(of_keys(5, &["d"])).await;
    let second = page(Some("b"), 2, 1 << 20).await;
    assert_eq!((second.top, second.places, second.next), (5, vec![1, 5], None));
    let small = page(None, 5, 1).await;
    assert_eq!((small.places, small.next.as_deref()), (vec![3], Some("a")), "one entry in any case");
    let past = page(Some("x"), 5, 1 << 20).await;
    assert_eq!((past.epoch.as_ref(), past.top, past.entries.len()), (Some(&producer.epoch), 5, 0));
}

async fn a_page_of_the_latest_is_bounded_in_bytes(Log { store, producer, .. }: Log) {
    let data = format!("{{\"x\":\"{}\"}}", "y".repeat(60_000));
    for seq in 1..=40 {
        let draft = price(5, Some(&format!("{seq:02}")), &data);
        producer.append(vec![next(seq, draft)]).await;
    }
    let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = store.latest(&channel(), after.as_deref(), 1_000).await.unwrap();
        let bytes: usize = page.entries.iter().map(|entry| entry.draft.data.len()).sum();
        assert!(bytes <= LATEST_BYTES_MAX && !page.entries.is_empty(), "{bytes}");
        seen.extend(offsets(&page.entries));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), ((1..=40).collect(), 3));
}

async fn a_removal_replaces_the_latest_entry_of_its_keys_as_a_price_would(Log { store, producer, .. }: Log) {
    let append = async |seq, kind, time_ms, key: Option<&str>, late| {
        let marks = Marks { late, ..Marks::default() };
        let draft = DraftEntry { kind, marks, ..price(time_ms, key, "{}") };
        let appended = producer.append(vec![next(seq, draft)]).await;
        assert_eq!(appended, [Appended::Applied { offset: seq }]);
    };
    producer.append(of_keys(1, &["a", "b", "c"])).await;
    append(4, EntryKind::KeyRemoved, 1, Some("b"), false).await;
    assert_eq!(names(&store).await, ["a", "c"], "regardless of its time");
    append(5, EntryKind::KeyRemoved, 9, Some("none"), false).await;
    append(6, EntryKind::KeyRemoved, 4, Some("a"), true).await;
    assert_eq!(names(&store).await, ["c"], "for one gateway its own order decides");
    append(7, EntryKind::PriceUpdate, 3, Some("a"), true).await;
    append(8, EntryKind::PriceUpdate, 5, Some("b"), false).await;
    assert_eq!(names(&store).await, ["a", "b", "c"]);
    append(9, EntryKind::ZoneRemoved, 4, None, true).await;
    assert_eq!((names(&store).await.len(), latest(&store).await), (0, vec![]));
    append(10, EntryKind::PriceUpdate, 1, Some("a"), false).await;
    assert_eq!(offsets(&latest(&store).await), [10], "a price creates the key again");
    append(11, EntryKind::ZoneRemoved, 1, None, false).await;
    assert_eq!((names(&store).await.len(), latest(&store).await), (0, vec![]));
    append(12, EntryKind::PriceUpdate, 1, Some("a"), true).await;
    assert_eq!(offsets(&latest(&store).await), [12]);
    assert_eq!(producer.read(0, 20).await.entries.len(), 12, "the log keeps what it has");
}

async fn a_late_entry_is_compared_with_the_removal_of_its_key(Fresh { store, .. }: Fresh) {
    let own = Producer::new(&store).await;
    // Its id is the smaller one, so at equal times the other producer's entries are newer.
    let other = Producer { id: NodeId("0".repeat(32).parse().unwrap()), ..own.clone() };
    let append = async |producer: &Producer, seq, kind, time_ms, key: Option<&str>| {
        let marks = Marks { late: true, ..Marks::default() };
        let draft = DraftEntry { kind, marks, ..price(time_ms, key, "{}") };
        producer.append(vec![next(seq, draft)]).await;
    };
    let all = async || {
        let limit = PageLimit { entries: 10, bytes: LATEST_BYTES_MAX };
        let page = store
            .latest_within(&channel(), LatestQuery { after: None, limit, of: LatestOf::RemovedToo })
            .await
            .unwrap();
        let entries = page.entries.iter().zip(page.places);
        let name = |entry: &Entry| {
            format!("{}{}", entry.draft.key.as_deref().unwrap_or("*"), entry.draft.time.timestamp_millis())
        };
        entries.map(|(entry, place)| (name(entry), entry.draft.kind.as_str().to_owned(), place)).collect()
    };
    let is = |name: &str, kind: &str, place| (name.to_owned(), kind.to_owned(), place);
    let none: Vec<(String, String, u64)> = Vec::new();
    assert_eq!(all().await, none);
    // An unknown key is removed.
    append(&own, 1, EntryKind::KeyRemoved, 10, Some("a")).await;
    append(&other, 1, EntryKind::PriceUpdate, 9, Some("a")).await;
    assert_eq!((names(&store).await.len(), all().await), (0, vec![is("a10", "key_removed", 1)]));
    append(&other, 2, EntryKind::PriceUpdate, 10, Some("a")).await;
    assert_eq!(names(&store).await.len(), 0, "at equal times the id decides");
    append(&own, 2, EntryKind::PriceUpdate, 3, Some("a")).await;
    assert_eq!(all().await, [is("a3", "price_update", 4)], "for one gateway its own order decides");
    append(&other, 3, EntryKind::KeyRemoved, 3, Some("a")).await;
    append(&other, 4, EntryKind::PriceUpdate, 20, Some("b")).await;
    append(&own, 3, EntryKind::ZoneRemoved, 15, None).await;
    assert_eq!(all().await, [is("*15", "zone_removed", 7), is("b20", "price_update", 6)]);
    append(&other, 5, EntryKind::PriceUpdate, 14, Some("c")).await;
    append(&other, 6, EntryKind::PriceUpdate, 16, Some("d")).await;
    append(&own, 4, EntryKind::PriceUpdate, 1, Some("e")).await;
    assert_eq!(names(&store).await, ["b", "d", "e"]);
    append(&other, 7, EntryKind::ZoneRemoved, 14, None).await;
    assert_eq!(names(&store).await.len(), 0, "its own earlier entries, and older ones of the other");
    append(&other, 8, EntryKind::KeyRemoved, 16, Some("d")).await;
    assert_eq!(all().await, [is("*15", "zone_removed", 7), is("d16", "key_removed", 12)]);
    append(&own, 5, EntryKind::PriceUpdate, 15, Some("d")).await;
    append(&own, 6, EntryKind::PriceUpdate, 2, Some("f")).await;
    assert_eq!(names(&store).await, ["f"]);
}

/// Appends at random by two producers: prices and removals of a few keys, some late. Returns the last entry
/// of each key, and the keys.
async fn append_at_random(
    store: &SharedBackend,
    channel: &ChannelName,
    seed: u64,
) -> (LatestPage, Vec<Arc<str>>) {
    const STEPS: u64 = 40;
    let mut rng = StdRng::seed_from_u64(seed);
    let own = Producer::on(store, channel.clone()).await;
    let ids = ["1", "2"].map(|digit| digit.repeat(32).parse::<NodeId>().unwrap());
    let mut seqs = [0; 2];
    for _ in 0..STEPS {
        let who = rng.random_range(0..2);
        seqs[who] += 1;
        let (seq, key) = (seqs[who], ["a", "b", "c"][rng.random_range(0..3)]);
        let (kind, key) = match rng.random_range(0..10) {
            0 => (EntryKind::ZoneRemoved, None),
            1..=3 => (EntryKind::KeyRemoved, Some(key)),
            4 => (EntryKind::named("quote", false).unwrap(), Some(key)),
            _ => (EntryKind::PriceUpdate, Some(key)),
        };
        let marks = Marks { late: rng.random_range(0..4) > 0, ..Marks::default() };
        let draft = DraftEntry { kind, marks, ..price(rng.random_range(0..12), key, "{}") };
        let producer = Producer { id: ids[who], ..own.clone() };
        producer.append(vec![next(seq, draft)]).await;
    }
    let limit = PageLimit { entries: 100, bytes: LATEST_BYTES_MAX };
    let page = store
        .latest_within(channel, LatestQuery { after: None, limit, of: LatestOf::RemovedToo })
        .await
        .unwrap();
    (LatestPage { epoch: None, ..page }, store.keys(channel).await.unwrap())
}

async fn the_last_entry_of_each_key_is_the_same_as_in_memory(Fresh { store, .. }: Fresh) {
    let (memory, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
    let memory: SharedBackend = Arc::new(memory);
    for seed in 0..60 {
        let channel = format!("zone:random-{seed}").parse().unwrap();
        let found = append_at_random(&store, &channel, seed).await;
        assert_eq!(found, append_at_random(&memory, &channel, seed).await, "seed {seed}");
        let latest = store.latest(&channel, None, 100).await.unwrap().entries;
        let is_removal = |kind: &EntryKind| matches!(kind, EntryKind::KeyRemoved | EntryKind::ZoneRemoved);
        let (_, not_removed): (Vec<Entry>, Vec<Entry>) =
            found.0.entries.into_iter().partition(|entry| is_removal(&entry.draft.kind));
        assert_eq!(latest, not_removed, "seed {seed}");
    }
}

async fn a_key_that_nobody_updates_expires(make: Make) {
    let retention = Retention { key_age_s: 1, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = Producer::new(&store).await;
    producer.append(of_keys(1, &["old", "used"])).await;
    let mut seq = 2;
    until("the old key goes while the other is used", async || {
        seq += 1;
        producer.append(of_keys(seq, &["used"])).await;
        names(&store).await == ["used"] && offsets(&latest(&store).await) == [seq]
    })
    .await;
    until("the other goes when nobody uses it", async || names(&store).await.is_empty()).await;
    assert_eq!(latest(&store).await, []);
}

async fn channels_do_not_see_each_other(Fresh { store, .. }: Fresh) {
    let a = Producer::on(&store, "zone:a".parse().unwrap()).await;
    let b = Producer::on(&store, "zone:a:log".parse().unwrap()).await;
    a.fill(1..=3).await;
    assert_ne!(a.epoch, b.epoch);
    assert_eq!((b.read(0, 10).await.top, a.read(0, 10).await.top), (0, 3));
    let latest = store.latest(&b.channel, None, 10).await.unwrap();
    assert_eq!(latest, LatestPage { epoch: Some(b.epoch.clone()), ..LatestPage::default() });
}

async fn entries_of_followed_channels_are_announced(Fresh { stores, store }: Fresh) {
    let Some(mut incoming) = store.take_incoming() else { return };
    let other = stores.open().await;
    let (own, foreign) = (Producer::new(&store).await, Producer::new(&other).await);
    own.fill(1..=1).await;
    store.follow(&channel()).await.unwrap();
    store.follow(&channel()).await.unwrap();
    foreign.fill(1..=50).await;
    own.fill(2..=2).await;
    let mut told = vec![];
    while told.len() < 51 {
        match time::timeout(10 * SECOND, incoming.recv()).await.unwrap().unwrap() {
            LogEvent::Appended { channel: named, epoch, entries } => {
                assert_eq!((named, &epoch), (channel(), &own.epoch));
                told.extend(entries);
            }
            LogEvent::Changed(_) | LogEvent::Suspect => panic!("nothing was missed"),
        }
    }
    assert_eq!(told, own.read(1, 100).await.entries, "each once, as in the log");

    store.unfollow(&channel()).await.unwrap();
    store.unfollow(&channel()).await.unwrap();
    foreign.fill(51..=51).await;
    // This announcement comes after any that the unfollowed channel would have made.
    let marker = Producer::on(&other, "zone:marker".parse().unwrap()).await;
    store.follow(&marker.channel).await.unwrap();
    marker.fill(1..=1).await;
    let next = time::timeout(10 * SECOND, incoming.recv()).await.unwrap().unwrap();
    assert!(matches!(next, LogEvent::Appended { channel, .. } if channel == marker.channel));
}

async fn there_is_one_receiver(Fresh { store, .. }: Fresh) {
    let _first = store.take_incoming();
    assert!(store.take_incoming().is_none());
}

async fn an_append_dropped_midway_is_applied_completely_or_not_at_all(Log { store, producer, .. }: Log) {
    let mut seq = 0;
    for round in 0..60u64 {
        let batch = producer.chain(seq + 1..=seq + 5);
        let limit = Duration::from_micros(round * 20);
        let _dropped = time::timeout(limit, store.append(&batch)).await;
        // Whatever happened, repeating it is safe.
        done(store.append(&batch).await.unwrap());
        seq += 5;
        assert_eq!(store.state(&channel(), producer.id).await.unwrap().top, seq, "round {round}");
    }
    let seqs: Vec<u64> = producer.read(0, 1_000).await.entries.iter().map(|entry| entry.id.seq).collect();
    assert_eq!(seqs, (1..=300).collect::<Vec<_>>());
}

/// Collects `count` entries from announcements and the log, in the order in which a subscriber would get
/// them.
async fn deliver(store: &SharedBackend, count: u64) -> Vec<Entry> {
    let mut delivered: Vec<Entry> = vec![];
    let mut incoming = store.take_incoming();
    let mut read_log = true;
    while (delivered.len() as u64) < count {
        if read_log {
            let after = delivered.last().map(|last| last.offset);
            let epoch = store.state(&channel(), NodeId::random()).await.ok().and_then(|state| state.epoch);
            let after = after.zip(epoch).map(|(offset, epoch)| Position { epoch, offset });
            match store.read_after(&channel(), after.as_ref(), 300).await {
                Ok(page) => {
                    read_log = page.entries.len() == 300;
                    delivered.extend(page.entries);
                }
                Err(_) => time::sleep(Duration::from_millis(20)).await,
            }
            continue;
        }
        let Some(incoming) = &mut incoming else {
            time::sleep(Duration::from_millis(1)).await;
            read_log = true;
            continue;
        };
        match time::timeout(10 * SECOND, incoming.recv()).await.expect("told, or suspect").unwrap() {
            LogEvent::Changed(_) | LogEvent::Suspect => read_log = true,
            LogEvent::Appended { entries, .. } => {
                for entry in entries {
                    let next = delivered.len() as u64 + 1;
                    if entry.offset == next {
                        delivered.push(entry);
                    } else if entry.offset > next {
                        // This is correct only if a possible gap is reported next; then the log is read.
                        assert_suspect(incoming).await;
                        read_log = true;
                        break;
                    }
                }
            }
        }
    }
    delivered
}

/// Checks that a gap in announcements is followed by a report of a possible gap.
async fn assert_suspect(incoming: &mut tokio::sync::mpsc::Receiver<LogEvent>) {
    loop {
        let event = time::timeout(10 * SECOND, incoming.recv()).await.expect("a hole is told as suspect");
        if matches!(event.unwrap(), LogEvent::Suspect) {
            return;
        }
    }
}

/// Appends a chain in small batches, repeating whatever was not acknowledged.
async fn append_all(producer: Producer, count: u64) {
    let mut seq = 0;
    while seq < count {
        let until = (seq + 1 + seq % 7).min(count);
        let batch = producer.chain(seq + 1..=until);
        match producer.store.append(&batch).await {
            Ok(answer) => {
                let results = done(answer);
                assert!(!results.iter().any(|result| matches!(result, Appended::Gap { .. })), "{results:?}");
                seq = until;
            }
            Err(_) => time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn concurrent_producers_yield_one_order_without_holes(Fresh { stores, store }: Fresh) {
    const EACH: u64 = 1_500;
    if stores.switches {
        // Cut off, each node forks; `redis_nodes` tests what is promised then.
        return;
    }
    let other = stores.open().await;
    let (a, b) = (Producer::new(&store).await, Producer::new(&other).await);
    store.follow(&channel()).await.unwrap();
    other.follow(&channel()).await.unwrap();
    let (a_id, b_id) = (a.id, b.id);
    let cut = async {
        let Some(server) = &stores.server else { return };
        for kind in ["pubsub", "normal", "pubsub", "pubsub", "normal"] {
            time::sleep(Duration::from_millis(60)).await;
            server.admin(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
    };
    let ((), (), (), at_a, at_b) = tokio::join!(
        append_all(a, EACH),
        append_all(b, EACH),
        cut,
        deliver(&store, 2 * EACH),
        deliver(&other, 2 * EACH)
    );
    assert_eq!(at_a, at_b, "all see the same order");
    assert_eq!(offsets(&at_a), (1..=2 * EACH).collect::<Vec<_>>());
    for id in [a_id, b_id] {
        let seqs = at_a.iter().filter(|entry| entry.id.producer == id).map(|entry| entry.id.seq);
        assert_eq!(seqs.collect::<Vec<_>>(), (1..=EACH).collect::<Vec<_>>(), "each once, in its order");
    }
    let page = eventually("the log is read after the last cut", async || {
        store.read_after(&channel(), None, 10_000).await.ok()
    })
    .await;
    assert_eq!(page.entries, at_a);
}

/// A log in a few lines.
#[derive(Default)]
struct Model {
    seqs: Vec<(usize, u64)>,
    last: HashMap<usize, u64>,
}

impl Model {
    fn append(&mut self, producer: usize, links: &[(u64, u64)]) -> Vec<Appended> {
        let results = links.iter().map(|&(prev, seq)| {
            let last = self.last.entry(producer).or_default();
            if *last >= seq {
                Appended::Duplicate
            } else if prev > *last {
                Appended::Gap { last: *last }
            } else {
                *last = seq;
                self.seqs.push((producer, seq));
                Appended::Applied { offset: self.seqs.len() as u64 }
            }
        });
        results.collect()
    }
}

type Step = (usize, Vec<(u64, u64)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let link = (0u64..8, 1u64..5).prop_map(|(prev, ahead)| (prev, prev + ahead));
    let batch = proptest::collection::vec(link, 0..6).prop_map(|mut links| {
        links.sort_by_key(|(_, seq)| *seq);
        links.dedup_by_key(|(_, seq)| *seq);
        links
    });
    proptest::collection::vec((0usize..3, batch), 1..16)
}

async fn the_chain_rule_agrees_with_the_model(Fresh { store, .. }: Fresh) {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for case in 0..40 {
        let plan = steps().new_tree(&mut runner).unwrap().current();
        let channel = format!("zone:case-{case}").parse().unwrap();
        let template = Producer::on(&store, channel).await;
        let producers: Vec<_> =
            (0..3).map(|_| Producer { id: NodeId::random(), ..template.clone() }).collect();
        let mut model = Model::default();
        for (who, links) in &plan {
            let entries = links.iter().map(|&(prev, seq)| link(prev, seq)).collect();
            let results = producers[*who].append(entries).await;
            assert_eq!(results, model.append(*who, links), "case {case}: {plan:?}");
        }
        let entries = template.read(0, 1_000).await.entries;
        let seqs: Vec<_> = entries
            .iter()
            .map(|entry| (producers.iter().position(|p| p.id == entry.id.producer).unwrap(), entry.id.seq))
            .collect();
        assert_eq!(seqs, model.seqs, "case {case}: {plan:?}");
    }
}

async fn entries_appended_by_several_under_one_producer_are_stored_once_in_order(
    Fresh { stores, store }: Fresh,
) {
    let whose = NodeId::random();
    let of = async |store: &SharedBackend| Producer { id: whose, ..Producer::new(store).await };
    let (a, b) = (of(&store).await, of(&stores.open().await).await);
    let (own, since) = (Producer::new(&store).await, |prev| vec![link(prev, 4), link(4, 6)]);
    assert_eq!(
        a.append(vec![link(0, 2), link(2, 4)]).await,
        [1, 2].map(|offset| Appended::Applied { offset })
    );
    own.fill(1..=1).await;
    // Another writer that knows the log's newest sequence, and one that does not.
    assert_eq!(b.append(since(2)).await, [Appended::Duplicate, Appended::Applied { offset: 4 }]);
    assert_eq!(b.append(vec![link(0, 7)]).await, [Appended::Applied { offset: 5 }]);
    // The first writer was away meanwhile, and has more.
    let late = a.append(vec![link(4, 6), link(6, 7), link(7, 8)]).await;
    assert_eq!(late, [Appended::Duplicate, Appended::Duplicate, Appended::Applied { offset: 6 }]);
    assert_eq!(store.state(&channel(), whose).await.unwrap().last_seq, 8);
    own.fill(2..=2).await;
    let entries = a.read(0, 10).await.entries;
    let seqs = entries.iter().filter(|entry| entry.id.producer == whose).map(|entry| entry.id.seq);
    assert_eq!(seqs.collect::<Vec<_>>(), [2, 4, 6, 7, 8]);
    assert_eq!(offsets(&entries), (1..=7).collect::<Vec<_>>());
}

const HOUR: Duration = Duration::from_secs(3_600);

async fn put(store: &dyn StorageBackend, key: &str, value: &[u8], ttl: Duration) {
    store.put(RecordKind::Zone, key, Bytes::copy_from_slice(value), ttl).await.unwrap();
}

async fn get(store: &dyn StorageBackend, key: &str) -> Option<Bytes> {
    store.get(RecordKind::Zone, key).await.unwrap()
}

async fn a_record_reads_back_as_it_was_written(Fresh { stores, store }: Fresh) {
    let other = stores.open().await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    for (key, value) in [("a", b"".as_slice()), ("b c\nü", &all_bytes), ("", b"1 2 3")] {
        put(&*store, key, value, HOUR).await;
        assert_eq!(get(&*other, key).await.as_deref(), Some(value));
    }
    assert_eq!(get(&*store, "unknown").await, None);
}

async fn a_put_replaces_the_whole_value(Fresh { store, .. }: Fresh) {
    put(&*store, "a", b"long value", HOUR).await;
    put(&*store, "a", b"short", HOUR).await;
    assert_eq!(get(&*store, "a").await.as_deref(), Some(b"short".as_slice()));
    assert_eq!(store.list(RecordKind::Zone, None, 10).await.unwrap().len(), 1);
}

async fn a_record_expires(Fresh { store, .. }: Fresh) {
    put(&*store, "stays", b"1", HOUR).await;
    put(&*store, "goes", b"1", 2 * SECOND).await;
    assert!(get(&*store, "goes").await.is_some());
    until("the record goes", async || get(&*store, "goes").await.is_none()).await;
    assert!(!store.delete(RecordKind::Zone, "goes").await.unwrap());
    assert!(get(&*store, "stays").await.is_some());
}

async fn a_put_restarts_the_time_to_live(Fresh { store, .. }: Fresh) {
    put(&*store, "shorter", b"1", HOUR).await;
    put(&*store, "longer", b"1", Duration::from_millis(200)).await;
    put(&*store, "shorter", b"1", Duration::from_millis(300)).await;
    put(&*store, "longer", b"1", HOUR).await;
    until("the shorter one goes", async || get(&*store, "shorter").await.is_none()).await;
    assert!(get(&*store, "longer").await.is_some());
}

async fn deleting_says_whether_there_was_one(Fresh { store, .. }: Fresh) {
    put(&*store, "a", b"1", HOUR).await;
    assert!(store.delete(RecordKind::Zone, "a").await.unwrap());
    assert!(!store.delete(RecordKind::Zone, "a").await.unwrap());
    assert_eq!(get(&*store, "a").await, None);
    assert_eq!(store.list(RecordKind::Zone, None, 10).await.unwrap(), []);
}

async fn records_are_listed_by_key_in_pages(Fresh { store, .. }: Fresh) {
    for key in ["b", "a", "B", "ab", "ü", "a:1"] {
        put(&*store, key, key.as_bytes(), HOUR).await;
    }
    let mut listed: Vec<Record> = vec![];
    loop {
        let after = listed.last().map(|record| record.key.clone());
        let page = store.list(RecordKind::Zone, after.as_deref(), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 4);
        listed.extend(page);
    }
    assert!(listed.iter().all(|record| record.value == record.key.as_bytes()));
    let keys: Vec<_> = listed.iter().map(|record| record.key.as_str()).collect();
    assert_eq!(keys, ["B", "a", "a:1", "ab", "b", "ü"]);
    assert_eq!(store.list(RecordKind::Zone, None, 0).await.unwrap(), []);
}

async fn expired_records_are_not_listed(Fresh { store, .. }: Fresh) {
    for n in 0..250 {
        put(&*store, &format!("goes-{n:03}"), b"1", Duration::from_millis(300)).await;
    }
    put(&*store, "stays", b"1", HOUR).await;
    let listed = eventually("only what lives is listed", async || {
        let page = store.list(RecordKind::Zone, None, 100).await.unwrap();
        Some(page).filter(|page| page.len() == 1)
    })
    .await;
    assert_eq!(listed[0].key, "stays");
}

async fn hold(store: &dyn StorageBackend, key: &str, holder: &str, ttl: Duration) -> Option<u64> {
    store.hold(key, holder, ttl).await.unwrap()
}

async fn a_lease_has_one_holder_until_it_expires_or_is_released(Fresh { stores, store }: Fresh) {
    let other = stores.open().await;
    let first = hold(&*store, "feed", "a b", HOUR).await.unwrap();
    assert_eq!(hold(&*other, "feed", "b", HOUR).await, None);
    // Releasing has no effect for anyone but the holder.
    other.let_go("feed", "b").await.unwrap();
    assert_eq!(hold(&*other, "feed", "b", HOUR).await, None);
    assert!(hold(&*other, "other", "b", HOUR).await.is_some(), "another key is another lease");
    store.let_go("feed", "a b").await.unwrap();
    store.let_go("feed", "a b").await.unwrap();
    let second = hold(&*other, "feed", "b", Duration::from_millis(300)).await.unwrap();
    assert!(second > first);
    let third = eventually("it runs out", async || hold(&*store, "feed", "a b", HOUR).await).await;
    assert!(third > second);
    // Leases are not listed as records.
    assert_eq!(store.list(RecordKind::Zone, None, 10).await.unwrap(), []);
}

async fn a_renewed_lease_keeps_its_fencing_token(Fresh { stores, store }: Fresh) {
    let other = stores.open().await;
    let first = hold(&*store, "feed", "a", Duration::from_millis(700)).await.unwrap();
    assert_eq!(hold(&*store, "feed", "a", HOUR).await, Some(first));
    // Beyond the time of the first call, without a call in between.
    let until = time::Instant::now() + SECOND;
    while time::Instant::now() < until {
        assert_eq!(hold(&*other, "feed", "b", HOUR).await, None);
        time::sleep(Duration::from_millis(50)).await;
    }
    // A shorter time replaces the remaining one.
    assert_eq!(hold(&*store, "feed", "a", Duration::from_millis(100)).await, Some(first));
    eventually("it runs out", async || hold(&*other, "feed", "b", HOUR).await).await;
}

async fn fencing_tokens_always_grow(Fresh { store, .. }: Fresh) {
    let mut last = 0;
    for (n, key) in ["a", "b", "a", "c", "b"].into_iter().enumerate() {
        let ttl = if n % 2 == 0 { HOUR } else { Duration::from_millis(1) };
        let taken = async || hold(&*store, key, &format!("holder {n}"), ttl).await;
        let fence = eventually("it can be taken", taken).await;
        assert!(fence > last, "{fence} after {last}");
        last = fence;
        if n % 2 == 0 {
            store.let_go(key, &format!("holder {n}")).await.unwrap();
        }
    }
    // The same holder, as a new hold.
    let again = hold(&*store, "a", "holder 0", HOUR).await.unwrap();
    assert!(again > last);
}

async fn of_many_contenders_for_a_lease_one_gets_it(Fresh { stores, store }: Fresh) {
    let other = stores.open().await;
    let holders: Vec<String> = (0..20).map(|n| format!("holder {n}")).collect();
    let tries = holders.iter().enumerate().map(|(n, holder)| {
        let store = if n % 2 == 0 { &store } else { &other };
        hold(&**store, "feed", holder, HOUR)
    });
    let got = futures_util::future::join_all(tries).await;
    assert_eq!(got.iter().flatten().count(), 1, "{got:?}");
}

async fn a_node_without_redis_grants_no_lease(Fresh { store, .. }: Fresh) {
    for holder in ["a", "b"] {
        let error = store.hold("feed", holder, HOUR).await.unwrap_err();
        assert!(matches!(error, StorageError::Unknown { .. }), "{error}");
        assert!(store.let_go("feed", holder).await.is_err());
    }
}

async fn a_ping_is_answered(Fresh { store, .. }: Fresh) {
    store.ping().await.unwrap();
}
