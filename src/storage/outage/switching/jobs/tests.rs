use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::redis_model::{Ages, Faults, Laws, ModelServer, Setup, Trace, Which};
use super::*;
use crate::model::{BackendName, BackendState, DraftEntry, Epoch, Lane, NodeId};
use crate::storage::Lost;
use crate::storage::outage::spool::Former;
use crate::storage::primary::{Domain, DomainPart, Domains, LinkHealth};
use crate::storage::{
    Append, AppendAnswer, AppendBatch, Idempotency, Log, RecordKind, Records, StorageBackend,
};

const BOUNDS: JobBounds = JobBounds { unfinished: 100, kept: 1_000, kept_for: Duration::from_secs(3_600) };
const LEASE: Duration = Duration::from_secs(60);

/// A node on a model of Redis.
struct Node {
    server: ModelServer,
    store: Arc<Switching>,
    _driver: JoinSet<()>,
}

impl Node {
    async fn new() -> Self {
        Self::on(false, Vec::new(), None).await
    }

    /// A primary of which one domain has the jobs, and the other the channels.
    async fn of_two_domains() -> Self {
        let health = LinkHealth { lost: None, losses: 0 };
        let part = |name: &str| Some(DomainPart { name: name.to_owned(), health: health.clone() });
        let domains = Domains { parts: vec![part("jobs"), part("channels")], moves: 0 };
        let node = Self::on(false, Vec::new(), Some(domains)).await;
        node.server.set_channels_in(0, 1);
        node
    }

    async fn on(starts_degraded: bool, formers: Vec<Former>, domains: Option<Domains>) -> Self {
        let server = ModelServer::new(1, Faults::default(), Laws::default(), Ages::default(), Trace::Off);
        let setup = Setup {
            journal_entries: 1_000_000,
            order_updates: 50,
            starts_degraded,
            ordering_deadline: Duration::from_millis(50),
        };
        let lanes = Arc::new(|_: &ChannelName| Lane::Every);
        let started = server.start_after(formers, 0, NodeId::random(), setup, lanes);
        if let Some(domains) = domains {
            server.change_domains(0, |present| *present = domains);
        }
        let mut running = JoinSet::new();
        running.spawn(started.driver);
        // It notices what changes once it has begun.
        time::sleep(Duration::from_millis(1)).await;
        Self { server, store: started.inside.0, _driver: running }
    }

    /// Sets why the connections to a domain are lost; `None`: they are not.
    fn set_lost(&self, domain: usize, lost: Option<Lost>) {
        self.server.change_domains(0, |domains| {
            if let Some(part) = &mut domains.parts[domain] {
                part.health.losses += u64::from(lost.is_some());
                part.health.lost = lost;
            }
        });
    }

    fn state(&self) -> BackendState {
        self.store.core.breaker.modes().0[0].as_ref().unwrap().state
    }

    async fn until(&self, is_degraded: bool) {
        until(|| self.store.is_degraded() == is_degraded).await;
    }

    /// The primary goes away.
    async fn go(&self) {
        self.server.disconnect(0, Which::Both, None);
        self.until(true).await;
    }

    /// The primary comes back, and answers.
    async fn come_back(&self) {
        self.server.set_silent(false);
        self.server.connect(0);
        self.until(false).await;
    }

    async fn place(&self, job: &NewJob) -> Result<Enqueued> {
        self.store.enqueue_here(job, &BOUNDS).await
    }

    /// What has come to the primary, in order.
    fn recorded(&self) -> Vec<JobId> {
        self.server.recorded().iter().map(|job| job.view.id).collect()
    }
}

/// Time is stopped, so this takes none.
async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if is_so() {
            return;
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not come about");
}

fn job(n: u128, key: Option<&str>) -> NewJob {
    let idempotency = key.map(|key| Idempotency { key: key.to_owned(), fingerprint: "same".to_owned() });
    NewJob { id: JobId(Uuid::from_u128(n)), payload: Bytes::new(), kind: None, idempotency }
}

fn is_away<R>(answer: &Result<R>) -> bool {
    matches!(answer, Err(StorageError::Unreachable { .. }))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_until_others_have_sent_what_they_told() {
    let node = Node::new().await;
    node.place(&job(1, None)).await.unwrap();
    assert_eq!(
        node.store.claim("paper", 1, Duration::ZERO).await.unwrap().len(),
        1,
        "at a start nobody waits"
    );
    node.go().await;
    node.come_back().await;
    let back = Instant::now();
    let mut claimed = Vec::new();
    while claimed.is_empty() {
        time::sleep(Duration::from_millis(1)).await;
        claimed = node.store.claim("paper", 1, LEASE).await.unwrap();
    }
    let waited = back.elapsed();
    assert!(waited >= CLAIMS_WAIT - Duration::from_millis(5), "{waited:?}");
    assert!(waited <= CLAIMS_WAIT + Duration::from_millis(5), "{waited:?}");
    assert_eq!(claimed[0].run, 2);
}

#[tokio::test(start_paused = true)]
async fn a_job_on_its_way_is_nobodys_until_it_has_arrived() {
    let node = Node::new().await;
    node.go().await;
    node.place(&job(1, Some("key"))).await.unwrap();
    node.server.set_silent(true);
    node.server.connect(0);
    until(|| node.recorded().len() == 1).await;
    // It may be there, and anybody may have it.
    node.go().await;
    assert_eq!(node.store.claim("paper", 1, LEASE).await.unwrap(), []);
    assert!(is_away(&node.store.cancel(job(1, None).id).await));
    assert_eq!(node.store.job(job(1, None).id).await.unwrap().unwrap().state, JobState::Waiting);
    assert_eq!(node.place(&job(2, Some("key"))).await.unwrap(), Enqueued::Repeated(job(1, None).id));
    assert_eq!(node.store.list_jobs(None, None, 9).await.unwrap().len(), 1);
    node.come_back().await;
    until(|| node.store.core.jobs.are_recorded()).await;
    assert_eq!(node.recorded(), [job(1, None).id; 2], "and is sent again");
    assert_eq!(node.store.cancel(job(1, None).id).await.unwrap(), Cancelling::Asked);
    assert_eq!(node.server.memory().job_counts().await.unwrap().waiting, 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_primary_may_have_is_not_kept_besides() {
    let node = Node::new().await;
    node.server.set_silent(true);
    let first = job(1, Some("key"));
    let (asked, ()) = tokio::join!(node.place(&first), async {
        until(|| node.server.unanswered() == 1).await;
        node.go().await;
    });
    assert!(is_away(&asked), "{asked:?}");
    assert_eq!(node.store.claim("paper", 1, LEASE).await.unwrap(), []);
    let again = node.place(&job(2, Some("key"))).await;
    assert!(is_away(&again), "whether the order is there nobody knows: {again:?}");
    assert_eq!(node.place(&job(3, Some("another"))).await.unwrap(), Enqueued::Queued);
    node.come_back().await;
    assert_eq!(node.place(&job(2, Some("key"))).await.unwrap(), Enqueued::Repeated(job(1, None).id));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_does_not_make_the_right_repetition_unknown() {
    let node = Node::new().await;
    node.place(&job(1, Some("key"))).await.unwrap();
    let other = |n| {
        let mut other = job(n, Some("key"));
        other.idempotency.as_mut().unwrap().fingerprint = "another order".into();
        other
    };
    assert_eq!(node.place(&other(2)).await.unwrap(), Enqueued::Conflict);
    node.go().await;
    assert_eq!(node.place(&job(3, Some("key"))).await.unwrap(), Enqueued::Repeated(job(1, None).id));
    assert_eq!(node.place(&other(4)).await.unwrap(), Enqueued::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_forgets_the_key_and_keys_end_with_their_time() {
    let node = Node::new().await;
    let none = JobBounds { unfinished: 0, ..BOUNDS };
    assert_eq!(node.store.enqueue(&job(1, Some("full")), &none).await.unwrap(), Enqueued::Full);
    node.place(&job(2, Some("old"))).await.unwrap();
    node.go().await;
    assert_eq!(node.place(&job(1, Some("full"))).await.unwrap(), Enqueued::Queued);
    assert_eq!(node.place(&job(3, Some("old"))).await.unwrap(), Enqueued::Repeated(job(2, None).id));
    time::sleep(BOUNDS.kept_for).await;
    assert_eq!(node.place(&job(3, Some("old"))).await.unwrap(), Enqueued::Queued);
}

#[tokio::test(start_paused = true)]
async fn recovering_lasts_until_the_primary_has_all_jobs() {
    let node = Node::new().await;
    node.go().await;
    for n in 1..=100 {
        node.place(&job(n, None)).await.unwrap();
    }
    let claimed = node.store.claim("paper", 50, LEASE).await.unwrap();
    node.server.set_silent(true);
    node.server.connect(0);
    until(|| node.state() == BackendState::Recovering).await;
    // A call about a job that is on its way waits for it, and is told so in the end.
    until(|| !node.recorded().is_empty()).await;
    let moving = node.recorded()[0];
    let token = claimed.iter().find(|job| job.id == moving).map(|job| job.token).unwrap();
    assert!(is_away(&node.store.extend(moving, token, LEASE).await));
    assert_eq!(node.state(), BackendState::Recovering);
    node.go().await;
    node.come_back().await;
    until(|| node.state() == BackendState::Healthy).await;
    assert!(node.store.core.jobs.are_recorded());
    let mut recorded = node.recorded();
    recorded.sort_unstable();
    recorded.dedup();
    assert_eq!(recorded.len(), 100);
    let of_first = node.server.recorded().into_iter().find(|job| job.view.id == moving).unwrap();
    assert_eq!((of_first.view.state, of_first.view.token), (JobState::Claimed, token));
}

// A primary of several domains

fn lost() -> Lost {
    Lost { code: "unreachable", reason: "sent away".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn orders_are_begun_only_while_what_is_told_of_them_can_be_read() {
    let node = Node::of_two_domains().await;
    let store = &node.store;
    for n in 1..=3 {
        node.place(&job(n, None)).await.unwrap();
    }
    let held = store.claim("paper", 1, LEASE).await.unwrap().remove(0);
    node.set_lost(1, Some(lost()));
    node.until(true).await;
    assert!(store.is_degraded_for(&ChannelName::order(held.id.into())));
    assert_eq!(store.name(), BackendName::Redis, "it serves all else");
    assert!(store.claim("paper", 10, LEASE).await.unwrap().is_empty());
    assert_eq!(store.extend(held.id, held.token, LEASE).await.unwrap(), Held::Yes);
    assert!(is_away(&store.commit(held.id, held.token, LEASE).await));
    // The queue itself serves.
    assert_eq!(node.place(&job(4, None)).await.unwrap(), Enqueued::Queued);
    assert!(node.server.memory().job(job(4, None).id).await.unwrap().is_some());
    node.set_lost(1, None);
    node.until(false).await;
    assert!(
        store.claim("paper", 10, LEASE).await.unwrap().is_empty(),
        "what others told is on its way to the log"
    );
    time::sleep(CLAIMS_WAIT).await;
    assert_eq!(store.claim("paper", 10, LEASE).await.unwrap().len(), 3);
    assert_eq!(store.commit(held.id, held.token, LEASE).await.unwrap(), Held::Yes);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_went_on_alone_is_put_in_order_where_it_is_now() {
    let node = Node::of_two_domains().await;
    let (store, core) = (&node.store, &node.store.core);
    let channel: ChannelName = "zone:pjm".parse().unwrap();
    let batch = |epoch: &Epoch, seq: u64| AppendBatch {
        channel: channel.clone(),
        epoch: epoch.clone(),
        producer: core.replicas.node,
        entries: vec![append(seq, 0)],
    };
    let log = store.open(&channel, core.replicas.node, &Epoch::random()).await.unwrap().epoch;
    store.follow(&channel).await.unwrap();
    assert!(matches!(store.append(&batch(&log, 1)).await.unwrap(), AppendAnswer::Done(_)));
    node.set_lost(1, Some(lost()));
    node.until(true).await;
    let AppendAnswer::ForeignEpoch(Some(fork)) = store.append(&batch(&log, 2)).await.unwrap() else {
        panic!("it continues in an epoch of its own");
    };
    assert!(matches!(store.append(&batch(&fork, 2)).await.unwrap(), AppendAnswer::Done(_)));
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.server.memory().last_seq(&channel, core.replicas.node), 1);
    // The other primary is given the slots of the one that is away.
    node.server.set_channels_in(0, 0);
    node.server.change_domains(0, |domains| {
        domains.parts[1] = None;
        domains.moves += 1;
    });
    node.until(false).await;
    until(|| core.replicas.lock().queue.len() == 0).await;
    assert_eq!(node.server.memory().last_seq(&channel, core.replicas.node), 2, "what was accepted is there");
    assert!(!core.replicas.lock().replicas[&channel].is_forked());
    // One that comes anew serves at once.
    node.server.set_channels_in(0, 2);
    let new = DomainPart { name: "new".to_owned(), health: LinkHealth { lost: None, losses: 0 } };
    node.server.change_domains(0, |domains| domains.parts.push(Some(new)));
    assert!(matches!(store.append(&batch(&log, 3)).await.unwrap(), AppendAnswer::Done(_)));
    assert_eq!(core.replicas.stats.forks.get(), 1);
    assert!(!store.is_degraded());
}

// What earlier processes of the gateway left

fn append(seq: u64, at_ms: i64) -> Append {
    Append { seq, prev: seq - 1, draft: DraftEntry::price(at_ms, "{}"), fence: None }
}

#[tokio::test(start_paused = true)]
async fn what_former_lives_accepted_comes_before_what_this_one_accepts() {
    let name: ChannelName = "zone:a".parse().unwrap();
    let (oldest, older) = (NodeId::random(), NodeId::random());
    let left = |producer, start, at_ms| {
        let entries = vec![append(1, at_ms), append(2, at_ms + 1)];
        Former { producer, channel: name.clone(), start, entries }
    };
    // The clock of the one before was ahead.
    let node = Node::on(true, vec![left(oldest, 1, 50), left(older, 2, 20)], None).await;
    let (store, own) = (&node.store, node.store.core.replicas.node);
    let opened = store.open(&name, own, &Epoch::random()).await.unwrap();
    let batch = AppendBatch {
        channel: name.clone(),
        epoch: opened.epoch,
        producer: own,
        entries: vec![append(1, 30)],
    };
    assert!(matches!(store.append(&batch).await.unwrap(), AppendAnswer::Done(_)));
    // Long enough ago to be sent at once.
    time::sleep(Duration::from_secs(1)).await;
    node.come_back().await;
    until(|| store.core.is_in_order(Domain::ONLY)).await;
    let page = node.server.memory().read_now(&name, None, 100);
    let ids: Vec<(NodeId, u64)> =
        page.entries.iter().map(|entry| (entry.id.producer, entry.id.seq)).collect();
    assert_eq!(ids, [(oldest, 1), (oldest, 2), (older, 1), (older, 2), (own, 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_until_the_primary_has_what_would_be_lost() {
    let node = Node::new().await;
    let reader = node.store.reader();
    reader.until_sent().await;
    node.go().await;
    node.place(&job(1, None)).await.unwrap();
    time::timeout(Duration::from_secs(60), reader.until_sent()).await.unwrap_err();
    assert_eq!(reader.view().jobs_waiting, 1, "it is away");
    // Its connection stands again, and it does not serve yet.
    node.server.connect(0);
    assert!(node.store.is_degraded());
    time::timeout(Duration::from_secs(5), reader.until_sent()).await.unwrap();
    assert_eq!(reader.view().jobs_waiting, 0);
    assert_eq!(node.recorded(), [job(1, None).id]);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_also_for_a_primary_that_goes_once_more() {
    let node = Node::new().await;
    let reader = node.store.reader();
    node.go().await;
    node.place(&job(1, None)).await.unwrap();
    node.server.set_silent(true);
    node.server.connect(0);
    until(|| !node.recorded().is_empty()).await;
    let ended = async { time::timeout(Duration::from_secs(60), reader.until_sent()).await.unwrap() };
    let goes = async {
        time::sleep(Duration::from_millis(10)).await;
        node.go().await;
        assert_eq!(reader.view().jobs_waiting, 1);
        node.server.set_silent(false);
        node.server.connect(0);
    };
    tokio::join!(ended, goes);
    assert_eq!(reader.view().jobs_waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_does_not_overtake_one_that_waits() {
    let node = Node::new().await;
    let ttl = Duration::from_secs(60);
    let put = async |value: &'static str| {
        node.store.put(RecordKind::Zone, "zone", Bytes::from(value), ttl).await.unwrap();
    };
    node.go().await;
    put("older").await;
    // What is written is not answered, so that it waits for longer.
    node.server.set_silent(true);
    node.server.connect(0);
    node.until(false).await;
    put("newer").await;
    node.go().await;
    node.come_back().await;
    until(|| node.store.core.records.waiting.is_empty(|_| true)).await;
    let kept = node.server.memory().get(RecordKind::Zone, "zone").await.unwrap();
    assert_eq!(kept, Some(Bytes::from("newer")));
}

#[tokio::test(start_paused = true)]
async fn what_nodes_tell_of_themselves_does_not_wait_for_the_primary() {
    let (node, kind, ttl) = (Node::new().await, RecordKind::Node, Duration::from_secs(60));
    let store = &node.store;
    node.go().await;
    let unknown = |answer: Result<()>| matches!(answer, Err(StorageError::Unknown { .. }));
    assert!(unknown(store.put(kind, "a", Bytes::from("late"), ttl).await));
    assert!(unknown(store.get(kind, "a").await.map(|_| ())));
    assert!(unknown(store.list(kind, None, 10).await.map(|_| ())), "others may have told more");
    assert!(unknown(store.delete(kind, "a").await.map(|_| ())));
    assert!(store.core.records.waiting.is_empty(|_| true));
    node.come_back().await;
    store.put(kind, "a", Bytes::from("now"), ttl).await.unwrap();
    assert_eq!(store.list(kind, None, 10).await.unwrap().len(), 1);
    assert!(
        store.core.replicas.memory.list(kind, None, 10).await.unwrap().is_empty(),
        "nor is it kept here besides"
    );
}

#[tokio::test(start_paused = true)]
async fn an_append_is_late_by_what_is_usual() {
    let node = Node::new().await;
    let core = &node.store.core;
    let deadline = core.appender.deadline;
    assert_eq!(core.appender.late_after(), deadline);
    (0..60).for_each(|_| core.appender.note_append_time(2 * deadline));
    assert!(
        core.appender.late_after() > 7 * deadline && core.appender.late_after() <= 8 * deadline,
        "{:?}",
        core.appender.late_after()
    );
    (0..60).for_each(|_| core.appender.note_append_time(deadline / 10));
    assert_eq!(core.appender.late_after(), deadline, "a storage that is fast again is waited for no longer");
}

#[tokio::test(start_paused = true)]
async fn of_too_many_channels_those_that_rest_are_forgotten_soon() {
    let node = Node::new().await;
    let core = &node.store.core;
    let add = |count: usize| {
        for n in 0..count {
            let name: ChannelName = format!("zone:{n}").parse().unwrap();
            core.replicas.lock().replica(&name).used = Instant::now();
        }
    };
    add(100_000);
    time::sleep(Duration::from_secs(25)).await;
    assert_eq!(core.replicas.lock().replicas.len(), 100_000, "as many as that are remembered for an hour");
    add(100_001);
    core.replicas.lock().replicas.get_mut(&"zone:7".parse().unwrap()).unwrap().follow();
    time::sleep(Duration::from_secs(25)).await;
    let left: Vec<String> = core.replicas.lock().replicas.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["zone:7"], "it is in use");
}

#[tokio::test(start_paused = true)]
async fn following_what_nobody_publishes_to_leaves_nothing_behind() {
    let node = Node::new().await;
    let (store, own) = (&node.store, node.store.core.replicas.node);
    let names: Vec<ChannelName> =
        (0..100).map(|n| if n % 2 == 0 { format!("zone:n{n}").parse().unwrap() } else { order(n) }).collect();
    let follow_all = async || {
        for name in &names {
            store.follow(name).await.unwrap();
            store.find(name, own).await.unwrap();
        }
    };
    let unfollow_all = async || {
        for name in &names {
            store.unfollow(name).await.unwrap();
        }
    };
    let is_clean = || {
        let core = &store.core;
        let kept = names.iter().filter(|name| core.replicas.memory.mirrored(name).is_some()).count();
        let made = names.iter().filter(|name| node.server.memory().mirrored(name).is_some()).count();
        let state = core.replicas.lock();
        (state.replicas.len(), state.queue.len(), kept, made) == (0, 0, 0, 0)
    };
    follow_all().await;
    unfollow_all().await;
    assert!(is_clean(), "while it serves");
    follow_all().await;
    node.go().await;
    unfollow_all().await;
    assert!(is_clean(), "left in an outage");
    follow_all().await;
    node.come_back().await;
    until(|| store.core.is_in_order(Domain::ONLY)).await;
    unfollow_all().await;
    assert!(is_clean(), "that came in an outage");
}

fn order(n: u128) -> ChannelName {
    ChannelName::order(crate::model::OrderId(Uuid::from_u128(n)))
}
