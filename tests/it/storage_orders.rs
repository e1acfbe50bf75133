//! The contract of every backend about the logs of orders: fencing tokens, the end of a log, separate bounds;
//! and opening a log in one call.

use std::time::Duration;

use tokio::time::{self, Instant};
use zonewire::model::{ChannelName, DraftEntry, Entry, EntryId, EntryKind, Epoch, NodeId, OrderId};
use zonewire::storage::{
    Anchor, Append, Appended, LogEvent, OpenLog, OrderRetention, Refusal, Retention, SharedBackend,
};

use crate::support::eventually::{eventually, until};
use crate::support::stores::{
    Fresh, Log, Make, Producer, SECOND, also_while_redis_is_away, channel, done, for_every_backend, link,
    offsets, price,
};

for_every_backend!(
    a_terminal_update_closes_the_log,
    a_repeated_terminal_update_is_a_duplicate,
    entries_after_a_terminal_update_in_a_batch_are_refused,
    a_stale_fencing_token_is_refused,
    a_worker_that_lost_its_job_cannot_end_the_order,
    a_refused_entry_does_not_change_the_chain,
    duplicates_and_gaps_take_precedence_over_refusals,
    refused_entries_are_not_announced,
    a_price_log_is_never_closed_and_checks_fencing_tokens_too,
    an_order_keeps_its_newest_updates,
    the_updates_of_an_order_expire_together,
    expired_updates_do_not_return_with_the_next_update,
    the_latest_update_of_an_order_is_the_one_with_the_highest_offset,
    zones_and_orders_have_separate_bounds,
    opening_a_log_creates_its_epoch_once,
    opening_a_log_returns_its_state,
);

also_while_redis_is_away!(
    a_repeated_terminal_update_is_a_duplicate,
    entries_after_a_terminal_update_in_a_batch_are_refused,
    duplicates_and_gaps_take_precedence_over_refusals,
    the_updates_of_an_order_expire_together,
    the_latest_update_of_an_order_is_the_one_with_the_highest_offset,
);

async fn order(store: &SharedBackend) -> Producer {
    Producer::on(store, ChannelName::order(OrderId::random())).await
}

fn update(kind: EntryKind, seq: u64) -> DraftEntry {
    DraftEntry { kind, ..price(seq as i64, Some("order"), &format!("{{\"n\":{seq}}}")) }
}

/// An update that directly follows the previous one of its producer.
fn step(seq: u64, kind: EntryKind, fence: Option<u64>) -> Append {
    Append { seq, prev: seq - 1, draft: update(kind, seq), fence }
}

fn routing(seq: u64) -> Append {
    step(seq, EntryKind::Routing, None)
}

fn confirmed(seq: u64) -> Append {
    step(seq, EntryKind::Confirmed, None)
}

fn stale(fence: u64, newest: u64) -> Appended {
    Appended::Refused(Refusal::StaleFence { fence, newest })
}

const fn applied(offset: u64) -> Appended {
    Appended::Applied { offset }
}

const CLOSED: Appended = Appended::Refused(Refusal::Closed);

async fn a_terminal_update_closes_the_log(Fresh { stores, store }: Fresh) {
    // Also a kind that only a newer build knows, which is marked as terminal.
    for kind in [EntryKind::Confirmed, EntryKind::Failed, EntryKind::named("expired", true).unwrap()] {
        let producer = order(&store).await;
        let other = Producer { id: NodeId::random(), store: stores.open().await, ..producer.clone() };
        let settling = EntryKind::named("settling", false).unwrap();
        for (seq, kind) in (1..).zip([EntryKind::Routing, settling, EntryKind::Submitted]) {
            assert_eq!(producer.append(vec![step(seq, kind, None)]).await, [applied(seq)]);
            assert!(!producer.read(0, 10).await.closed);
        }
        assert_eq!(producer.append(vec![step(4, kind.clone(), Some(9))]).await, [applied(4)]);
        assert_eq!(producer.append(vec![routing(5)]).await, [CLOSED]);
        assert_eq!(
            producer.append(vec![confirmed(5)]).await,
            [CLOSED],
            "not even by another terminal update"
        );
        assert_eq!(other.append(vec![routing(1)]).await, [CLOSED]);
        assert_eq!(other.append(vec![step(1, EntryKind::Failed, Some(10))]).await, [CLOSED]);
        let page = other.read(0, 10).await;
        assert_eq!((page.closed, page.top, page.entries.len()), (true, 4, 4));
        assert_eq!(page.entries[3].draft, update(kind, 4));
    }
}

async fn a_repeated_terminal_update_is_a_duplicate(Fresh { store, .. }: Fresh) {
    let producer = order(&store).await;
    let batch = producer.batch(vec![routing(1), step(2, EntryKind::Failed, Some(3))]);
    assert_eq!(done(store.append(&batch).await.unwrap()), [applied(1), applied(2)]);
    assert_eq!(done(store.append(&batch).await.unwrap()), [Appended::Duplicate; 2]);
    assert_eq!(producer.read(0, 10).await.top, 2);
}

async fn entries_after_a_terminal_update_in_a_batch_are_refused(Fresh { store, .. }: Fresh) {
    let producer = order(&store).await;
    let mut entries = vec![routing(1), confirmed(2), routing(3), routing(4)];
    entries.push(Append { prev: 2, ..confirmed(5) });
    let gap = Appended::Gap { last: 2 };
    assert_eq!(producer.append(entries).await, [applied(1), applied(2), CLOSED, gap, CLOSED]);
    let page = producer.read(0, 10).await;
    assert_eq!((page.top, page.closed), (2, true));
}

async fn a_stale_fencing_token_is_refused(Fresh { store, .. }: Fresh) {
    let producer = order(&store).await;
    let big = 1 << 53;
    let fences = [
        (Some(5), applied(1)),
        (Some(4), stale(4, 5)),
        (None, applied(2)),
        (Some(5), applied(3)),
        (Some(0), stale(0, 5)),
        (Some(big - 1), applied(4)),
        (Some(big - 2), stale(big - 2, big - 1)),
        (Some(big), applied(5)),
    ];
    let mut seq = 1;
    for (fence, expected) in fences {
        let result = producer.append(vec![step(seq, EntryKind::Routing, fence)]).await;
        assert_eq!(result, [expected], "{fence:?}");
        seq += u64::from(matches!(expected, Appended::Applied { .. }));
    }
    // The rule also holds within a batch.
    let fresh = order(&store).await;
    let batch = vec![step(1, EntryKind::Routing, Some(7)), step(2, EntryKind::Failed, Some(6))];
    assert_eq!(fresh.append(batch).await, [applied(1), stale(6, 7)]);
    assert!(!fresh.read(0, 10).await.closed, "a refused terminal update ends nothing");
}

async fn a_worker_that_lost_its_job_cannot_end_the_order(Fresh { stores, store }: Fresh) {
    let bounds = zonewire::storage::JobBounds { unfinished: 9, kept: 9, kept_for: 3_600 * SECOND };
    let id = OrderId::random();
    let job =
        zonewire::storage::NewJob { id: id.into(), payload: "{}".into(), kind: None, idempotency: None };
    store.enqueue(&job, &bounds).await.unwrap();
    let first = Producer::on(&store, ChannelName::order(id)).await;
    let second = Producer { id: NodeId::random(), store: stores.open().await, ..first.clone() };
    let old = store.claim("paper", 1, Duration::ZERO).await.unwrap()[0].token;
    assert_eq!(first.append(vec![step(1, EntryKind::Submitted, Some(old))]).await, [applied(1)]);
    let new = eventually("the job is claimed again", async || {
        second.store.claim("paper", 1, 60 * SECOND).await.unwrap().pop()
    })
    .await
    .token;
    // Until the second worker has appended, the first one's updates are accepted.
    assert_eq!(first.append(vec![step(2, EntryKind::Submitted, Some(old))]).await, [applied(2)]);
    assert_eq!(second.append(vec![step(1, EntryKind::Routing, Some(new))]).await, [applied(3)]);
    assert_eq!(first.append(vec![step(3, EntryKind::Confirmed, Some(old))]).await, [stale(old, new)]);
    assert_eq!(second.append(vec![step(2, EntryKind::Failed, Some(new))]).await, [applied(4)]);
    assert_eq!(first.append(vec![step(3, EntryKind::Confirmed, Some(old))]).await, [CLOSED]);
    let kinds: Vec<_> =
        first.read(0, 10).await.entries.iter().map(|entry| entry.draft.kind.clone()).collect();
    assert_eq!(
        kinds,
        [EntryKind::Submitted, EntryKind::Submitted, EntryKind::Routing, EntryKind::Failed],
        "one end"
    );
}

async fn a_refused_entry_does_not_change_the_chain(Fresh { store, .. }: Fresh) {
    let producer = order(&store).await;
    let other = Producer { id: NodeId::random(), ..producer.clone() };
    producer.append(vec![step(1, EntryKind::Routing, Some(5))]).await;
    let first = step(1, EntryKind::Routing, Some(4));
    assert_eq!(other.append(vec![first, routing(2)]).await, [stale(4, 5), Appended::Gap { last: 0 }]);
    let state = store.state(&producer.channel, other.id).await.unwrap();
    assert_eq!((state.top, state.last_seq), (1, 0));
    assert_eq!(other.append(vec![routing(1), routing(2)]).await, [applied(2), applied(3)]);
}

async fn duplicates_and_gaps_take_precedence_over_refusals(Fresh { store, .. }: Fresh) {
    let producer = order(&store).await;
    producer.append(vec![step(1, EntryKind::Routing, Some(5)), routing(2)]).await;
    assert_eq!(producer.append(vec![step(1, EntryKind::Routing, Some(4))]).await, [Appended::Duplicate]);
    assert_eq!(
        producer.append(vec![step(9, EntryKind::Routing, Some(4))]).await,
        [Appended::Gap { last: 2 }]
    );
    producer.append(vec![confirmed(3)]).await;
    assert_eq!(producer.append(vec![routing(2)]).await, [Appended::Duplicate]);
    assert_eq!(producer.append(vec![routing(9)]).await, [Appended::Gap { last: 3 }]);
    assert_eq!(producer.append(vec![step(4, EntryKind::Routing, Some(4))]).await, [CLOSED], "closed first");
}

async fn refused_entries_are_not_announced(Fresh { stores, store }: Fresh) {
    let Some(mut incoming) = store.take_incoming() else { return };
    let producer = order(&stores.open().await).await;
    store.follow(&producer.channel).await.unwrap();
    producer.append(vec![step(1, EntryKind::Routing, Some(5))]).await;
    producer.append(vec![step(2, EntryKind::Failed, Some(4))]).await;
    producer.append(vec![confirmed(2), routing(3)]).await;
    let mut told: Vec<Entry> = vec![];
    while told.len() < 2 {
        match time::timeout(10 * SECOND, incoming.recv()).await.unwrap().unwrap() {
            LogEvent::Appended { entries, .. } => told.extend(entries),
            LogEvent::Changed(_) | LogEvent::Suspect => panic!("nothing was missed"),
        }
    }
    assert_eq!(told, producer.read(0, 10).await.entries);
    assert_eq!(told[1].draft.kind, EntryKind::Confirmed);
}

async fn a_price_log_is_never_closed_and_checks_fencing_tokens_too(Log { producer, .. }: Log) {
    producer.append(vec![Append { fence: Some(2), ..link(0, 1) }]).await;
    assert_eq!(producer.append(vec![Append { fence: Some(1), ..link(1, 2) }]).await, [stale(1, 2)]);
    producer.fill(2..=3).await;
    assert!(!producer.read(0, 10).await.closed);
}

async fn an_order_keeps_its_newest_updates(Fresh { store, .. }: Fresh) {
    for count in [49, 50, 51, 60] {
        let one_by_one = order(&store).await;
        for seq in 1..=count {
            assert_eq!(one_by_one.append(vec![routing(seq)]).await, [applied(seq)]);
        }
        let at_once = order(&store).await;
        at_once.append((1..=count).map(routing).collect()).await;
        for producer in [one_by_one, at_once] {
            let page = producer.read(0, 1_000).await;
            let first = count.saturating_sub(49).max(1);
            assert_eq!((page.first, page.top), (first, count));
            assert_eq!(offsets(&page.entries), (first..=count).collect::<Vec<_>>());
        }
    }
}

async fn the_updates_of_an_order_expire_together(make: Make) {
    let orders = OrderRetention { age_s: 2, ..OrderRetention::default() };
    let retention = Retention { orders, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = order(&store).await;
    let step_of_time = Duration::from_millis(1_200);
    producer.append(vec![routing(1)]).await;
    time::sleep(step_of_time).await;
    producer.append(vec![routing(2)]).await;
    let newest = Instant::now();
    time::sleep(step_of_time).await;
    let page = producer.read(0, 10).await;
    // A machine that stalls may be too late for this; the checks below hold in any case.
    if newest.elapsed() < 2 * SECOND {
        assert_eq!((page.first, offsets(&page.entries)), (1, vec![1, 2]), "also the one that is older");
    }
    producer.append(vec![confirmed(3)]).await;
    let newest = Instant::now();
    let page = eventually("the updates go", async || {
        let page = producer.read(0, 10).await;
        if !page.entries.is_empty() {
            assert_eq!(page.entries.last().unwrap().offset, 3, "none expires without the others");
            return None;
        }
        Some(page)
    })
    .await;
    assert!(newest.elapsed() >= 2 * SECOND - Duration::from_millis(100));
    assert_eq!((page.top, page.first, page.closed), (3, 4, true), "the end is still known");
    assert_eq!(page.epoch.as_ref(), Some(&producer.epoch));
    assert_eq!(offsets(&store.latest(&producer.channel, None, 10).await.unwrap().entries), [3]);
    assert_eq!(store.state(&producer.channel, producer.id).await.unwrap().last_seq, 3);
    assert_eq!(producer.append(vec![routing(4)]).await, [CLOSED]);
}

async fn expired_updates_do_not_return_with_the_next_update(make: Make) {
    let orders = OrderRetention { age_s: 1, ..OrderRetention::default() };
    let retention = Retention { orders, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let producer = order(&store).await;
    producer.append(vec![routing(1), routing(2)]).await;
    time::sleep(SECOND + Duration::from_millis(5)).await;
    producer.append(vec![routing(3)]).await;
    let page = producer.read(0, 10).await;
    assert_eq!((page.top, page.entries.first().map_or(3, |entry| entry.offset)), (3, 3));
}

async fn the_latest_update_of_an_order_is_the_one_with_the_highest_offset(Fresh { store, .. }: Fresh) {
    let producer = order(&store).await;
    for (seq, time_ms) in [(1, 500), (2, 100), (3, -7)] {
        let draft = DraftEntry { kind: EntryKind::Routing, ..price(time_ms, Some("order"), "{}") };
        producer.append(vec![Append { draft, ..routing(seq) }]).await;
        let latest = store.latest(&producer.channel, None, 10).await.unwrap().entries;
        assert_eq!((offsets(&latest), latest[0].draft.time.timestamp_millis()), (vec![seq], time_ms));
    }
}

async fn zones_and_orders_have_separate_bounds(make: Make) {
    let orders = OrderRetention { updates: 3, age_s: 1 };
    let retention = Retention { orders, ..Retention::default() };
    let Some(Fresh { stores: _stores, store }) = make.fresh(retention).await else { return };
    let (zone, order) = (Producer::new(&store).await, order(&store).await);
    zone.fill(1..=10).await;
    order.append((1..=10).map(routing).collect()).await;
    assert!(order.read(0, 100).await.entries.len() <= 3);
    until("the order's go", async || order.read(0, 10).await.entries.is_empty()).await;
    assert_eq!(zone.read(0, 100).await.entries.len(), 10);
}

async fn opening_a_log_creates_its_epoch_once(Fresh { stores, store }: Fresh) {
    let other = stores.open().await;
    let node = NodeId::random();
    for name in [channel(), ChannelName::order(OrderId::random())] {
        let (mine, theirs) = (Epoch::random(), Epoch::random());
        let (a, b) = tokio::join!(store.open(&name, node, &mine), other.open(&name, node, &theirs));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a, b, "both get the same answer");
        assert!([mine, theirs].contains(&a.epoch) && (a.top, a.last_seq) == (0, 0));
        assert_eq!(store.open(&name, node, &Epoch::random()).await.unwrap(), a);
        assert_eq!(store.state(&name, node).await.unwrap().epoch, Some(a.epoch));
    }
}

async fn opening_a_log_returns_its_state(Fresh { store, .. }: Fresh) {
    let producer = order(&store).await;
    producer.append(vec![routing(1), Append { prev: 1, ..confirmed(40) }]).await;
    let log = |last_seq| {
        let producers = vec![(producer.id, 40)];
        let anchor = Some(Anchor { offset: 2, id: EntryId { producer: producer.id, seq: 40 } });
        OpenLog { epoch: producer.epoch.clone(), top: 2, last_seq, producers, anchor }
    };
    let open = async |id| store.open(&producer.channel, id, &Epoch::random()).await.unwrap();
    assert_eq!(open(producer.id).await, log(40));
    assert_eq!(open(NodeId::random()).await, log(0));
    assert_eq!(producer.read(0, 10).await.entries.len(), 2, "and changes nothing");
}

#[tokio::test]
async fn the_updates_expire_exactly_300_seconds_after_the_newest() {
    let stores = Make::Memory.stores(Retention::default()).await.unwrap();
    let store = stores.open().await;
    let producer = order(&store).await;
    producer.append(vec![routing(1)]).await;
    time::advance(200 * SECOND).await;
    producer.append(vec![routing(2)]).await;
    for (more, expected) in [(299, 2), (0, 2), (1, 0), (1, 0)] {
        time::advance(more * SECOND).await;
        assert_eq!(producer.read(0, 10).await.entries.len(), expected, "{more} s later");
    }
    let page = producer.read(0, 10).await;
    assert_eq!((page.first, page.top), (3, 2));
}
