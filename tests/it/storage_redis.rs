//! Failures that only Redis has: connections that are cut or hang, lost data, readers that do not keep up.

use std::time::Duration;

use tokio::time;
use zonewire::model::{ChannelName, DraftEntry, EntryKind, Epoch, JobId, OrderId};
use zonewire::storage::{
    Append, AppendAnswer, Appended, Attempt, Ending, Enqueued, Held, Idempotency, JobBounds, JobState,
    JobView, LATEST_BYTES_MAX, LatestOf, LatestQuery, LogEvent, NewJob, PageLimit, RedisConfig, Retention,
    SharedBackend, StorageError,
};
use zonewire_kit::redis::DURABLE;

use crate::jobs_contract::job;
use crate::support::eventually::{eventually, until};
use crate::support::redis::{Admin, Configured, redis};
use crate::support::stores::{
    Producer, SECOND, Stores, channel, connect, connected, done, next_event, offsets, price, until_suspect,
};

async fn stores() -> Option<Stores> {
    Stores::redis(Retention::default()).await
}

async fn one() -> Option<(Stores, SharedBackend)> {
    let stores = stores().await?;
    let store = stores.open().await;
    Some((stores, store))
}

/// The same with a log that has one entry, and its producer.
async fn with_one_entry() -> Option<(Stores, SharedBackend, Producer)> {
    let (stores, store) = one().await?;
    let producer = Producer::new(&store).await;
    producer.fill(1..=1).await;
    Some((stores, store, producer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_subscription_is_restored_and_a_possible_gap_reported() {
    let Some(stores) = stores().await else { return };
    let server = stores.server();
    let (store, other) = (stores.open().await, stores.open().await);
    let mut incoming = store.take_incoming().unwrap();
    store.follow(&channel()).await.unwrap();
    let producer = Producer::new(&other).await;
    for round in 0..5 {
        assert_eq!(server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, "1");
        until_suspect(&mut incoming).await;
        let subscribers = server
            .admin(&["EVAL", "return redis.call('PUBSUB','NUMSUB',ARGV[1])[2]", "0", "zw:{zone:pjm}"])
            .await;
        assert_eq!(subscribers, "1", "subscribed before the possible gap is reported");
        producer.fill(2 * round + 1..=2 * round + 2).await;
        let LogEvent::Appended { entries, .. } = next_event(&mut incoming).await else {
            panic!("nothing was missed")
        };
        assert_eq!(offsets(&entries), [2 * round + 1, 2 * round + 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_without_subscriptions_reports_no_gap() {
    let Some((stores, store)) = one().await else { return };
    let mut incoming = store.take_incoming().unwrap();
    // A connection without subscriptions counts as a normal one.
    stores.server().admin(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    eventually("follow works again", async || store.follow(&channel()).await.ok()).await;
    eventually("so does ping", async || store.ping().await.ok()).await;
    let producer = Producer::new(&store).await;
    producer.fill(1..=1).await;
    loop {
        // The reconnect may be noticed after the follow, and is then reported, which is harmless.
        if let LogEvent::Appended { entries, .. } = next_event(&mut incoming).await {
            assert_eq!(offsets(&entries), [1]);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_data_are_reported_as_a_missing_epoch_and_repetitions_as_duplicates() {
    let Some((stores, store)) = one().await else { return };
    let mut producer = Producer::new(&store).await;
    producer.fill(1..=2).await;
    let again = done(store.append(&producer.chain(1..=2)).await.unwrap());
    assert_eq!(again, [Appended::Duplicate; 2]);
    // Causes no reconnect: only the answer shows it.
    stores.server().admin(&["FLUSHALL"]).await;
    let answer = store.append(&producer.chain(3..=3)).await.unwrap();
    assert_eq!(answer, AppendAnswer::ForeignEpoch(None));
    assert_eq!(producer.read(0, 10).await.epoch, None);
    let next = Epoch::random();
    assert_eq!(store.open(&channel(), producer.id, &next).await.unwrap().epoch, next);
    producer.epoch = next;
    producer.fill(1..=3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_empty_server_is_used_again() {
    let Some(mut stores) = stores().await else { return };
    let store = stores.open().await;
    let mut incoming = store.take_incoming().unwrap();
    store.follow(&channel()).await.unwrap();
    let producer = Producer::new(&store).await;
    producer.fill(1..=1).await;
    stores.server.as_mut().unwrap().kill().await.unwrap();
    let error = eventually("a dead server is noticed", async || store.ping().await.err()).await;
    assert!(error.is_outage(), "{error:?}");
    let error = store.append(&producer.chain(2..=2)).await.unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. } | StorageError::Deadline { .. }), "{error:?}");
    assert!(store.follow(&"zone:other".parse().unwrap()).await.is_err());
    stores.server.as_mut().unwrap().restart().await.unwrap();
    until_suspect(&mut incoming).await;
    eventually("the backend serves again", async || store.ping().await.ok()).await;
    let answer = store.append(&producer.chain(2..=2)).await.unwrap();
    assert_eq!(answer, AppendAnswer::ForeignEpoch(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_server_is_an_outage_and_used_again_later() {
    let Some(stores) = stores().await else { return };
    let server = stores.server();
    let store = stores.open().await;
    store.follow(&channel()).await.unwrap();
    let producer = Producer::new(&store).await;
    producer.fill(1..=1).await;
    server.freeze().unwrap();
    let batch = producer.chain(2..=3);
    let error = time::timeout(2 * SECOND, store.append(&batch)).await.expect("bounded").unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    // Once the hang is noticed, calls fail at once; until then, at their deadline.
    eventually("calls do not wait any more", async || {
        let begun = time::Instant::now();
        let error = store.ping().await.err()?;
        let at_once = begun.elapsed() < Duration::from_millis(100);
        (at_once && matches!(error, StorageError::Unreachable { .. })).then_some(())
    })
    .await;
    server.thaw().unwrap();
    // Whether the other connection is also found to hang, and a possible gap reported, is a matter of
    // milliseconds; if not, it has missed nothing.
    eventually("the backend serves again", async || store.ping().await.ok()).await;
    // The append that timed out may have been applied later; repeating it is safe either way.
    done(store.append(&batch).await.unwrap());
    assert_eq!(offsets(&producer.read(0, 10).await.entries), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_under_a_flood_of_calls_is_noticed() {
    let Some(stores) = stores().await else { return };
    let server = stores.server();
    let store = stores.open().await;
    let producer = Producer::new(&store).await;
    producer.fill(1..=1).await;
    server.freeze().unwrap();
    // More than the buffers of a connection hold, so that not even a write succeeds.
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, mut batch) = (store.clone(), producer.chain(2..=51));
        for append in &mut batch.entries {
            append.draft.data = vec![b'x'; 60_000].into();
        }
        flood.spawn(async move { store.append(&batch).await });
    }
    for answer in flood.join_all().await {
        assert!(answer.unwrap_err().is_outage());
    }
    eventually("calls do not wait any more", async || {
        let begun = time::Instant::now();
        store.ping().await.err()?;
        (begun.elapsed() < Duration::from_millis(100)).then_some(())
    })
    .await;
    server.thaw().unwrap();
    eventually("the backend serves again", async || store.ping().await.ok()).await;
    producer.append(vec![crate::support::stores::link(1, 52)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_keep_up_learns_of_a_possible_gap_once() {
    const APPENDS: u64 = 3_000;
    let Some(stores) = stores().await else { return };
    let store = stores.open_redis().await;
    let dropped = async |at_least| {
        until("events are dropped", async || store.events_dropped() >= at_least).await;
    };
    let mut incoming = zonewire::storage::Log::take_incoming(&store).unwrap();
    zonewire::storage::Log::follow(&store, &channel()).await.unwrap();
    let producer = Producer::new(&stores.open().await).await;
    for seq in 1..=APPENDS {
        producer.fill(seq..=seq).await;
    }
    dropped(APPENDS - 1_024).await;
    let mut told = 0;
    while let LogEvent::Appended { entries, .. } = next_event(&mut incoming).await {
        told += 1;
        assert_eq!(offsets(&entries), [told], "announcements are in order");
    }
    assert_eq!(told + store.events_dropped(), APPENDS, "nothing is lost uncounted");
    producer.fill(APPENDS + 1..=APPENDS + 1).await;
    let LogEvent::Appended { entries, .. } = next_event(&mut incoming).await else {
        panic!("it kept up this time")
    };
    assert_eq!(offsets(&entries), [APPENDS + 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_appended_right_after_a_follow_is_announced() {
    let Some(stores) = stores().await else { return };
    let (store, other) = (stores.open().await, stores.open().await);
    let mut incoming = store.take_incoming().unwrap();
    for n in 0..200 {
        let producer = Producer::on(&other, format!("zone:n{n}").parse().unwrap()).await;
        store.follow(&producer.channel).await.unwrap();
        producer.fill(1..=1).await;
        let LogEvent::Appended { channel, .. } = next_event(&mut incoming).await else {
            panic!("nothing was missed")
        };
        assert_eq!(channel, producer.channel);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_bytes_on_a_channel_cause_only_that_channel_to_be_read() {
    let Some((stores, store)) = one().await else { return };
    let mut incoming = store.take_incoming().unwrap();
    store.follow(&channel()).await.unwrap();
    stores.server().admin(&["PUBLISH", "zw:{zone:pjm}", "hello"]).await;
    let event = next_event(&mut incoming).await;
    assert!(matches!(&event, LogEvent::Changed(changed) if *changed == channel()), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_entry_keeps_its_offset_and_affects_no_other() {
    let Some((stores, store, producer)) = with_one_entry().await else { return };
    let server = stores.server();
    server
        .admin(&[
            "XADD",
            "zw:{zone:pjm}:log",
            "2-0",
            "e",
            "2 of a newer form",
            "t",
            "9999999999999",
            "b",
            "0",
        ])
        .await;
    server.admin(&["HSET", "zw:{zone:pjm}:meta", "s", "2"]).await;
    server.admin(&["HSET", "zw:{zone:pjm}:latest", "j", "garbage"]).await;
    producer.fill(2..=3).await;
    let page = producer.read(0, 10).await;
    assert_eq!(offsets(&page.entries), [1, 2, 3, 4]);
    let unknown: Vec<u64> =
        page.entries.iter().filter_map(|entry| entry.draft.kind.unknown().map(|_| entry.offset)).collect();
    assert_eq!(unknown, [2]);
    let latest = store.latest(&channel(), None, 10).await.unwrap().entries;
    let known: Vec<u64> = latest
        .iter()
        .filter(|entry| entry.draft.kind.unknown().is_none())
        .map(|entry| entry.offset)
        .collect();
    assert_eq!((latest.len(), known), (2, vec![4]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_stored_bytes_are_corrupt_but_no_outage() {
    let Some((stores, store, producer)) = with_one_entry().await else { return };
    let server = stores.server();
    server.admin(&["DEL", "zw:{zone:pjm}:log"]).await;
    server.admin(&["SET", "zw:{zone:pjm}:log", "x"]).await;
    let error = store.append(&producer.chain(2..=2)).await.unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }) && !error.is_outage(), "{error:?}");
    assert_eq!(store.state(&channel(), producer.id).await.unwrap().last_seq, 1, "nothing was half applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_without_applying_half() {
    let Some((stores, store, producer)) = with_one_entry().await else { return };
    let server = stores.server();
    server.admin(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let error = store.append(&producer.chain(2..=50)).await.unwrap_err();
    assert!(matches!(error, StorageError::Refused { .. }) && error.is_outage(), "{error:?}");
    server.admin(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let state = store.state(&channel(), producer.id).await.unwrap();
    assert_eq!((state.top, state.last_seq), (1, 1));
    producer.fill(2..=50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_expires_by_itself() {
    let Some((stores, store, _producer)) = with_one_entry().await else { return };
    let kind = zonewire::storage::RecordKind::Zone;
    store.put(kind, "pjm", "1".into(), Duration::from_secs(60)).await.unwrap();
    store.ping().await.unwrap();
    jobs_in_every_state(&store).await;
    let server = stores.server();
    let forever = "local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do \
                   if redis.call('PTTL', key) < 0 then n = n + 1 end end return n";
    assert_eq!(server.admin(&["DBSIZE"]).await, "23");
    assert_eq!(server.admin(&["EVAL", forever, "0"]).await, "0");
    let ttl = async |key: &str| -> u64 { server.admin(&["TTL", key]).await.parse().unwrap() };
    assert!((5_390..=5_400).contains(&ttl("zw:{zone:pjm}:log").await), "the age of entries, and half of it");
    assert!(ttl("zw:{zone:pjm}:meta").await > 24 * 3_600, "longer than the log by a day");
    assert!(ttl("zw:{zone:pjm}:latest").await > 24 * 3_600);
    assert!(ttl("zw:{zone:pjm}:ages").await > 24 * 3_600);

    let order = Producer::on(&store, ChannelName::order(OrderId::random())).await;
    order.fill(1..=1).await;
    assert_eq!(server.admin(&["EVAL", forever, "0"]).await, "0");
    let of_order = ttl(&format!("zw:{{{}}}:log", order.channel)).await;
    assert!((350..=360).contains(&of_order), "the age of updates, and a minute");
    assert!(ttl(&format!("zw:{{{}}}:meta", order.channel)).await > 24 * 3_600, "the order's end stays known");
}

/// One job in each state, and an idempotency key.
async fn jobs_in_every_state(store: &SharedBackend) -> Vec<JobId> {
    let bounds = JobBounds { unfinished: 10, kept: 20, kept_for: Duration::from_secs(3_600) };
    let mut ids = vec![];
    for n in 0..5 {
        let idempotency = Some(Idempotency { key: format!("key {n}"), fingerprint: "same".to_owned() });
        let job =
            NewJob { id: OrderId::random().into(), payload: vec![0, n, 255].into(), kind: None, idempotency };
        assert_eq!(store.enqueue(&job, &bounds).await.unwrap(), Enqueued::Queued);
        ids.push(job.id);
    }
    let endings = [
        Ending::Done,
        Ending::Dead { error: "in vain".to_owned() },
        Ending::Retry { after: Duration::from_secs(3_600), attempt: None },
    ];
    let claimed = store.claim("paper", 4, 3_600 * SECOND).await.unwrap();
    for (job, ending) in claimed.iter().zip(endings) {
        assert_eq!(store.finish(job.id, job.token, &ending).await.unwrap(), Held::Yes);
    }
    ids
}

async fn all_jobs(store: &SharedBackend) -> Vec<JobView> {
    store.list_jobs(None, None, 100).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_jobs_expire_together_a_week_after_their_last_use() {
    let Some((stores, store)) = one().await else { return };
    assert_eq!(store.claim("paper", 1, SECOND).await.unwrap(), []);
    let server = stores.server();
    assert_eq!(server.admin(&["DBSIZE"]).await, "0", "claiming creates no keys");
    jobs_in_every_state(&store).await;
    let expires = "local first, last for _, key in ipairs(redis.call('KEYS', '*')) do \
                   local at = redis.call('PEXPIRETIME', key) \
                   first = math.min(first or at, at) last = math.max(last or at, at) end \
                   return string.format('%.0f %.0f', first, last)";
    let expires = async || -> i64 {
        let answer = server.admin(&["EVAL", expires, "0"]).await;
        let (first, last) = answer.split_once(' ').unwrap();
        assert_eq!(first, last, "all at the same moment");
        first.parse().unwrap()
    };
    let (now, day) = (chrono::Utc::now().timestamp_millis(), 24 * 3_600_000);
    assert!((now + 7 * day - 60_000..=now + 7 * day + 60_000).contains(&expires().await));
    // As if they had been used last two days ago.
    let long_ago = ((now + 5 * day) * 1_000).to_string();
    server.admin(&["HSET", "zw:{jobs}:meta", "expires", &long_ago]).await;
    store.claim("paper", 0, SECOND).await.unwrap();
    store.job_counts().await.unwrap();
    assert!(expires().await >= now + 7 * day - 60_000, "even if a worker only asks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_and_ends_of_orders_survive_a_restart_of_the_server() {
    let Some(mut server) = redis(&DURABLE).await else { return };
    let (store, _drivers) = connected(&server.config(), &Retention::default()).await;
    let ids = jobs_in_every_state(&store).await;
    let before = all_jobs(&store).await;
    let producer = Producer::on(&store, ChannelName::order(ids[0].into())).await;
    let mut end = crate::support::stores::link(0, 1);
    (end.draft.kind, end.fence) = (EntryKind::Failed, Some(5));
    producer.append(vec![end]).await;
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    eventually("the backend serves again", async || store.ping().await.ok()).await;
    assert_eq!(all_jobs(&store).await, before);
    assert!(producer.read(0, 10).await.closed);
    let running = before.iter().find(|job| job.state == JobState::Claimed).unwrap();
    assert_eq!(store.extend(running.id, running.token, SECOND).await.unwrap(), Held::Yes);
    let next = store.claim("paper", 1, SECOND).await.unwrap().pop().expect("the waiting one");
    assert!(next.token > running.token, "tokens grow over a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_grow_even_if_the_server_lost_its_data() {
    let Some((stores, store)) = one().await else { return };
    jobs_in_every_state(&store).await;
    let newest = all_jobs(&store).await.iter().map(|job| job.token).max().unwrap();
    stores.server().admin(&["FLUSHALL"]).await;
    assert_eq!(all_jobs(&store).await, []);
    jobs_in_every_state(&store).await;
    assert!(all_jobs(&store).await.iter().all(|job| job.token == 0 || job.token > newest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_accepts_no_job_but_still_ends_its_jobs() {
    let Some((stores, store)) = one().await else { return };
    jobs_in_every_state(&store).await;
    let before = all_jobs(&store).await;
    let running = before.iter().find(|job| job.state == JobState::Claimed).unwrap();
    let server = stores.server();
    server.admin(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let bounds = JobBounds { unfinished: 10, kept: 20, kept_for: Duration::from_secs(3_600) };
    let job = job("x");
    let error = store.enqueue(&job, &bounds).await.unwrap_err();
    assert!(matches!(error, StorageError::Refused { .. }) && error.is_outage(), "{error:?}");
    assert_eq!(all_jobs(&store).await, before, "nothing was applied by half");
    assert_eq!(store.extend(running.id, running.token, SECOND).await.unwrap(), Held::Yes);
    assert_eq!(store.claim("paper", 1, SECOND).await.unwrap().len(), 1);
    assert_eq!(store.finish(running.id, running.token, &Ending::Done).await.unwrap(), Held::Yes);
    server.admin(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(store.enqueue(&job, &bounds).await.unwrap(), Enqueued::Queued);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partly_evicted_jobs_do_not_block_others() {
    for key in job_keys() {
        let Some(stores) = stores().await else { return };
        let store = stores.open().await;
        jobs_in_every_state(&store).await;
        let server = stores.server();
        server.admin(&["DEL", &key]).await;
        let bounds = JobBounds { unfinished: 100, kept: 0, kept_for: Duration::ZERO };
        let job = job("x");
        assert_eq!(store.enqueue(&job, &bounds).await.unwrap(), Enqueued::Queued, "without {key}");
        all_jobs(&store).await;
        let claimed = store.claim("paper", 10, 3_600 * SECOND).await.unwrap();
        assert!(claimed.iter().any(|claimed| claimed.id == job.id), "without {key}");
        for job in claimed {
            assert_eq!(store.finish(job.id, job.token, &Ending::Done).await.unwrap(), Held::Yes);
        }
        store.job_counts().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_shared_with_a_build_that_knows_neither_attempts_nor_kinds() {
    let Some((stores, store)) = one().await else { return };
    let server = stores.server();
    let parts = job_keys().into_iter().find(|key| key.ends_with(":parts")).unwrap();
    let bounds = JobBounds { unfinished: 10, kept: 20, kept_for: Duration::from_secs(3_600) };
    let job = NewJob { kind: Some("one".into()), ..job("x") };
    assert_eq!(store.enqueue(&job, &bounds).await.unwrap(), Enqueued::Queued);
    let id = job.id.to_string();
    let kept = async || server.admin(&["HGET", &parts, &id]).await;
    // That build takes everything after the `@` for the error, and preserves it.
    let written = kept().await;
    let old = written.strip_suffix("@0 0 one").unwrap_or_else(|| panic!("{written}")).to_owned();
    server.admin(&["HSET", &parts, &id, &old]).await;
    let claimed = store.claim("another", 1, 3_600 * SECOND).await.unwrap().pop().expect("it is anybody's");
    assert_eq!((claimed.attempt, claimed.kind), (Attempt::default(), None));
    let again = Ending::Retry { after: Duration::ZERO, attempt: Some(2) };
    assert_eq!(store.finish(job.id, claimed.token, &again).await.unwrap(), Held::Yes);
    assert!(kept().await.ends_with(" @2 1 "), "{}", kept().await);
    // Of a dead letter it reads only the error.
    let claimed = store.claim("another", 1, 3_600 * SECOND).await.unwrap().pop().unwrap();
    assert_eq!(claimed.attempt, Attempt { number: 2, said_by: 1 });
    let dead = Ending::Dead { error: "in vain".to_owned() };
    assert_eq!(store.finish(job.id, claimed.token, &dead).await.unwrap(), Held::Yes);
    assert!(kept().await.ends_with(" in vain") && !kept().await.contains('@'), "{}", kept().await);
}

fn job_keys() -> Vec<String> {
    let names = [
        "fixed", "parts", "keys", "key-ages", "ready", "delayed", "leases", "ended", "ages", "meta",
        "waiting", "delays", "claimed", "done", "dead",
    ];
    names.iter().map(|name| format!("zw:{{jobs}}:{name}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_stored_job_is_corrupt_but_no_outage() {
    let Some((stores, store)) = one().await else { return };
    let ids = jobs_in_every_state(&store).await;
    let server = stores.server();
    server.admin(&["HSET", "zw:{jobs}:fixed", &ids[0].to_string(), "99999999999999999999 - x"]).await;
    let error = store.job(ids[0]).await.unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }) && !error.is_outage(), "{error:?}");
    assert!(store.job(ids[1]).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_long_silent_are_forgotten() {
    let Some((stores, store, producer)) = with_one_entry().await else { return };
    let server = stores.server();
    for n in 0..40 {
        server.admin(&["HSET", "zw:{zone:pjm}:meta", &format!("p:{n:032x}"), "7 1000"]).await;
    }
    Producer::new(&store).await.fill(1..=1).await;
    let fields = server.admin(&["HLEN", "zw:{zone:pjm}:meta"]).await;
    assert_eq!(fields, "6", "epoch, top, bytes, when all keys were looked at, two producers");
    assert_eq!(store.state(&channel(), producer.id).await.unwrap().last_seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_do_not_hear_each_other() {
    let Some(stores) = stores().await else { return };
    let config = RedisConfig { db: Some(3), ..stores.server().config() };
    let (other, driver) = connect(&config, &Retention::default()).await;
    stores.spawn(driver);
    let other: SharedBackend = std::sync::Arc::new(other);
    let store = stores.open().await;
    let mut incoming = store.take_incoming().unwrap();
    store.follow(&channel()).await.unwrap();
    let (here, there) = (Producer::new(&store).await, Producer::new(&other).await);
    assert_ne!(here.epoch, there.epoch);
    there.fill(1..=2).await;
    here.fill(1..=1).await;
    let LogEvent::Appended { epoch, .. } = next_event(&mut incoming).await else {
        panic!("nothing was missed")
    };
    assert_eq!(epoch, here.epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscribe_is_reported_and_others_continue() {
    let Some(server) = redis(&[]).await else { return };
    let allow = ["ACL", "SETUSER", "gate", "on", ">word", "~*", "+@all", "resetchannels", "&zw:{zone:pjm}*"];
    assert_eq!(server.admin(&allow).await, "OK");
    let config =
        RedisConfig { username: Some("gate".into()), password: Some("word".into()), ..server.config() };
    let (store, _drivers) = connected(&config, &Retention::default()).await;
    let mut incoming = store.take_incoming().unwrap();
    // Another node is subscribed to it, which must not be taken for this one's subscription.
    let (other, _others) = connected(&server.config(), &Retention::default()).await;
    let forbidden = "zone:forbidden".parse().unwrap();
    other.follow(&forbidden).await.unwrap();
    let error = store.follow(&forbidden).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    eventually("another can be followed", async || store.follow(&channel()).await.ok()).await;
    let producer = Producer::new(&store).await;
    // Entries appended while the connection is being made again are only reported as a possible gap.
    let mut told = Err(());
    for seq in 1..=20 {
        producer.fill(seq..=seq).await;
        let appended = async {
            loop {
                if let LogEvent::Appended { entries, .. } = next_event(&mut incoming).await {
                    return offsets(&entries);
                }
            }
        };
        told = time::timeout(SECOND, appended).await.map_err(|_elapsed| ());
        if let Ok(offsets) = &told {
            assert_eq!(offsets[..], [seq]);
            break;
        }
    }
    assert!(told.is_ok(), "nothing was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_are_sent_again_after_the_server_forgot_them() {
    let Some((stores, _store, producer)) = with_one_entry().await else { return };
    stores.server().admin(&["SCRIPT", "FLUSH"]).await;
    producer.fill(2..=2).await;
    assert_eq!(producer.read(0, 10).await.top, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_close_and_the_driver_ends_with_the_backend() {
    let Some(server) = redis(&[]).await else { return };
    let (store, mut drivers) = connected(&server.config(), &Retention::default()).await;
    store.follow(&channel()).await.unwrap();
    drop(store);
    time::timeout(10 * SECOND, drivers.join_next()).await.expect("the driver ends").unwrap().unwrap();
    until("the connections close", async || {
        let clients = server.admin(&["CLIENT", "LIST"]).await;
        clients.lines().count() == 1
    })
    .await;
}

/// An older gateway writes the latest entry of a key without its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_written_by_older_gateways_age_from_when_they_are_noticed() {
    let Some(server) = redis(&[]).await else { return };
    let retention = Retention { key_age_s: 1, ..Retention::default() };
    let (store, _drivers) = connected(&server.config(), &retention).await;
    let producer = Producer::new(&store).await;
    producer.fill(1..=1).await;
    let written = server.admin(&["HGET", "zw:{zone:pjm}:latest", "k"]).await;
    let (times, rest) = written.split_once(' ').unwrap();
    let (time, _appended) = times.split_once(':').unwrap();
    let of_before = format!("{time} {rest}");
    let keys = async || -> Vec<String> {
        store.keys(&channel()).await.unwrap().iter().map(ToString::to_string).collect()
    };
    for key in ["k", "other"] {
        server.admin(&["HSET", "zw:{zone:pjm}:latest", key, &of_before]).await;
    }
    assert_eq!(keys().await, ["k", "other"], "they count at once");
    let page = store.latest(&channel(), None, 10).await.unwrap();
    assert_eq!(offsets(&page.entries), [1, 1]);
    let noticed = time::Instant::now();
    let mut seq = 1;
    until("the one that nobody updates goes", async || {
        seq += 1;
        producer.fill(seq..=seq).await;
        keys().await == ["k"]
    })
    .await;
    assert!(noticed.elapsed() >= Duration::from_secs(1), "{:?}", noticed.elapsed());
}

/// Older gateways do not know remembered removals: what they read contains none, and what they write leaves
/// removals unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_are_stored_where_older_gateways_do_not_look() {
    let Some(stores) = stores().await else { return };
    let server = stores.server();
    let store = stores.open().await;
    let producer = Producer::new(&store).await;
    let append = async |seq, kind, key| {
        let draft = DraftEntry { kind, ..price(seq as i64, key, "{}") };
        producer.append(vec![Append { seq, prev: seq - 1, draft, fence: None }]).await;
    };
    append(1, EntryKind::PriceUpdate, Some("k")).await;
    let of_before = server.admin(&["HGET", "zw:{zone:pjm}:latest", "k"]).await;
    append(2, EntryKind::ZoneRemoved, None).await;
    append(3, EntryKind::KeyRemoved, Some("k")).await;
    for what in ["latest", "ages"] {
        let key = format!("zw:{{zone:pjm}}:{what}");
        assert_eq!(server.admin(&["EXISTS", &key]).await, "0", "{what}");
    }
    assert_eq!(server.admin(&["HLEN", "zw:{zone:pjm}:removed"]).await, "2");
    assert_eq!(server.admin(&["ZCARD", "zw:{zone:pjm}:removed-ages"]).await, "2");
    let all = async || {
        let limit = PageLimit { entries: 10, bytes: LATEST_BYTES_MAX };
        let page = store
            .latest_within(&channel(), LatestQuery { after: None, limit, of: LatestOf::RemovedToo })
            .await
            .unwrap();
        offsets(&page.entries)
    };
    assert_eq!(all().await, [2, 3]);
    // An older gateway publishes the key.
    server.admin(&["HSET", "zw:{zone:pjm}:latest", "k", &of_before]).await;
    assert_eq!((all().await, store.keys(&channel()).await.unwrap().len()), (vec![2, 1], 1), "each key once");
    append(4, EntryKind::PriceUpdate, Some("k")).await;
    assert_eq!(all().await, [2, 4]);
    assert_eq!(server.admin(&["HLEN", "zw:{zone:pjm}:removed"]).await, "1");
    // Removals are deleted with the log.
    server.admin(&["DEL", "zw:{zone:pjm}:meta"]).await;
    Producer::new(&store).await;
    assert_eq!(server.admin(&["EXISTS", "zw:{zone:pjm}:removed", "zw:{zone:pjm}:removed-ages"]).await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_log_has_a_new_epoch_and_keeps_its_entries() {
    let Some(server) = redis(&[]).await else { return };
    let (redis, driver) = connect(&server.config(), &Retention::default()).await;
    let mut drivers = tokio::task::JoinSet::new();
    drivers.spawn(driver);
    let redis = std::sync::Arc::new(redis);
    let store: SharedBackend = redis.clone();
    let (known, producer) = (Epoch::random(), Producer::new(&store).await);
    producer.fill(1..=3).await;
    let renew = async |expected: &Epoch, minted: &Epoch| {
        redis.renew_epoch(&channel(), expected, minted).await.unwrap()
    };
    assert_eq!(renew(&known, &Epoch::random()).await, Some(producer.epoch.clone()), "not what was expected");
    assert_eq!(renew(&producer.epoch, &known).await, Some(known.clone()));
    assert_eq!(renew(&producer.epoch, &Epoch::random()).await, Some(known.clone()));
    let log = store.open(&channel(), producer.id, &Epoch::random()).await.unwrap();
    assert_eq!((log.epoch, log.top, log.last_seq), (known, 3, 3));
    assert_eq!(log.producers, [(producer.id, 3)]);
    let none = redis.renew_epoch(&"zone:none".parse().unwrap(), &producer.epoch, &Epoch::random()).await;
    assert_eq!(none.unwrap(), None);
}
