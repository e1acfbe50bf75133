//! What every backend promises about jobs: each sentence in the docs of the trait is a test.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time;
use zonewire::model::JobId;
use zonewire::storage::{
    Attempt, Cancelling, Ending, Enqueued, Held, Idempotency, JOBS_PER_CALL_MAX, JobBounds, JobCounts,
    JobState, JobView, NewJob, StorageBackend,
};

use crate::support::eventually::{eventually, until};
use crate::support::stores::{Fresh, SECOND, for_every_backend};

for_every_backend!(
    a_job_is_claimed_as_it_was_queued,
    jobs_are_claimed_in_the_order_in_which_they_were_queued,
    a_claim_takes_no_more_than_its_limit,
    no_call_claims_or_lists_more_than_a_thousand,
    many_claimers_at_once_never_get_the_same_job,
    tokens_grow_from_claim_to_claim,
    a_job_is_claimed_again_only_after_its_lease_has_expired,
    extending_prolongs_a_lease,
    an_expired_lease_is_valid_until_another_worker_claims_the_job,
    calls_with_an_old_token_have_no_effect,
    after_the_end_of_a_run_its_token_is_lost,
    a_retry_is_claimed_again_after_its_delay,
    a_retry_is_queued_by_the_time_at_which_it_is_due,
    jobs_whose_worker_died_are_claimed_before_waiting_ones,
    a_dead_letter_is_listed_until_it_is_settled,
    a_cancelled_waiting_job_is_claimed_before_all_others,
    a_cancelled_delayed_job_is_claimed_at_once,
    the_worker_of_a_job_learns_that_it_was_cancelled,
    a_cancelled_job_that_is_claimed_again_is_marked,
    a_job_past_its_point_of_no_return_cannot_be_cancelled,
    a_cancelled_job_cannot_pass_its_point_of_no_return,
    an_ended_or_unknown_job_cannot_be_cancelled,
    a_full_queue_refuses_and_stores_nothing,
    a_repeated_request_gets_its_job_even_if_the_queue_is_full,
    a_key_used_for_another_request_is_a_conflict,
    the_same_id_is_queued_once,
    a_key_is_forgotten_after_its_time,
    lists_go_from_the_newest_in_pages,
    lists_show_one_state,
    jobs_are_counted_by_state,
    the_oldest_finished_jobs_are_dropped_beyond_the_bound,
    unfinished_jobs_are_never_dropped,
    finished_jobs_are_dropped_after_their_time,
    a_call_dropped_midway_takes_effect_completely_or_not_at_all,
    leases_of_any_length_are_accepted,
    a_job_of_a_kind_is_for_workers_of_that_kind,
    the_end_of_a_run_determines_the_next_attempt,
);

const LEASE: Duration = Duration::from_secs(60);
/// Short enough to wait for, and long enough for the calls before its end even if the machine stalls for a
/// while.
const SHORT: Duration = Duration::from_secs(4);
const BOUNDS: JobBounds =
    JobBounds { unfinished: 1_000, kept: 2_000, kept_for: Duration::from_secs(24 * 3_600) };

pub(crate) fn job(payload: &str) -> NewJob {
    let id = JobId(uuid::Uuid::new_v4());
    NewJob { id, payload: Bytes::copy_from_slice(payload.as_bytes()), kind: None, idempotency: None }
}

pub(crate) fn keyed(key: &str, fingerprint: &str) -> NewJob {
    let idempotency = Idempotency { key: key.to_owned(), fingerprint: fingerprint.to_owned() };
    NewJob { idempotency: Some(idempotency), ..job("keyed") }
}

async fn enqueue(store: &dyn StorageBackend, job: &NewJob) -> Enqueued {
    store.enqueue(job, &BOUNDS).await.unwrap()
}

/// Lets time pass by the storage's clock. There is nothing to poll for: the test is that the passing of time
/// alone changes nothing.
async fn pass(millis: u64) {
    time::sleep(Duration::from_millis(millis)).await;
}

/// Queues jobs with these payloads.
async fn queue(store: &dyn StorageBackend, payloads: &[&str]) -> Vec<JobId> {
    let mut ids = vec![];
    for payload in payloads {
        let job = job(payload);
        assert_eq!(enqueue(store, &job).await, Enqueued::Queued);
        ids.push(job.id);
    }
    ids
}

async fn claim(store: &dyn StorageBackend, limit: usize) -> Vec<JobView> {
    store.claim("paper", limit, LEASE).await.unwrap()
}

/// Claims the next job; there must be one.
async fn next(store: &dyn StorageBackend, lease: Duration) -> JobView {
    store.claim("paper", 1, lease).await.unwrap().pop().expect("a job")
}

/// Waits until a job can be claimed, and claims it.
async fn next_eventually(store: &dyn StorageBackend) -> JobView {
    eventually("a job can be claimed", async || store.claim("paper", 1, LEASE).await.unwrap().pop()).await
}

async fn finish(store: &dyn StorageBackend, job: &JobView, ending: Ending) -> Held {
    store.finish(job.id, job.token, &ending).await.unwrap()
}

fn retry(after: Duration) -> Ending {
    Ending::Retry { after, attempt: None }
}

fn dead() -> Ending {
    Ending::Dead { error: "no venue\nanswered".to_owned() }
}

async fn view(store: &dyn StorageBackend, id: JobId) -> JobView {
    store.job(id).await.unwrap().expect("a known job")
}

async fn cancel(store: &dyn StorageBackend, id: JobId) -> Cancelling {
    store.cancel(id).await.unwrap()
}

async fn counts(store: &dyn StorageBackend) -> JobCounts {
    store.job_counts().await.unwrap()
}

async fn listed(store: &dyn StorageBackend, state: Option<JobState>) -> Vec<JobId> {
    let jobs = store.list_jobs(state, None, 1_000).await.unwrap();
    jobs.into_iter().map(|job| job.id).collect()
}

fn payloads(jobs: &[JobView]) -> Vec<&str> {
    jobs.iter().map(|job| std::str::from_utf8(&job.payload).unwrap()).collect()
}

async fn a_job_is_claimed_as_it_was_queued(Fresh { stores, store }: Fresh) {
    let before = chrono::Utc::now() - SECOND;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let odd = [Bytes::new(), Bytes::from_static(b" 1 - \n2"), all_bytes.into(), vec![b'x'; 60_000].into()];
    for (n, payload) in odd.into_iter().enumerate() {
        let mut job = NewJob { payload, ..job("") };
        if n % 2 == 0 {
            job.idempotency =
                Some(Idempotency { key: format!(" {n} \nü"), fingerprint: " a b ".to_owned() });
        }
        assert_eq!(enqueue(&*store, &job).await, Enqueued::Queued);
        let waiting = view(&*store, job.id).await;
        assert_eq!((waiting.state, waiting.run, waiting.token), (JobState::Waiting, 0, 0));
        let claimed = next(&*stores.open().await, LEASE).await;
        assert_eq!((claimed.id, &claimed.payload, claimed.run), (job.id, &job.payload, 1));
        assert!(!claimed.cancelled && !claimed.committed && claimed.token > 0);
        assert!(claimed.enqueued_at > before && claimed.enqueued_at < chrono::Utc::now() + SECOND);
        let running = view(&*store, job.id).await;
        assert_eq!((running.state, running.run, running.token), (JobState::Claimed, 1, claimed.token));
        assert_eq!((running.payload, running.enqueued_at), (job.payload, claimed.enqueued_at));
        assert!(running.changed_at >= running.enqueued_at);
    }
    assert_eq!(store.job(job("").id).await.unwrap(), None);
}

async fn jobs_are_claimed_in_the_order_in_which_they_were_queued(Fresh { store, .. }: Fresh) {
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    queue(&*store, &names).await;
    let mut claimed = vec![];
    while let [job] = claim(&*store, 1).await.as_slice() {
        claimed.push(job.clone());
    }
    assert_eq!(payloads(&claimed), names);
}

async fn a_claim_takes_no_more_than_its_limit(Fresh { store, .. }: Fresh) {
    queue(&*store, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(claim(&*store, 0).await, []);
    assert_eq!(payloads(&claim(&*store, 2).await), ["a", "b"]);
    assert_eq!(payloads(&claim(&*store, usize::MAX).await), ["c", "d", "e"]);
    assert_eq!(claim(&*store, 10).await, []);
}

async fn no_call_claims_or_lists_more_than_a_thousand(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { unfinished: 2_000, ..BOUNDS };
    for _ in 0..1_001 {
        assert_eq!(store.enqueue(&job(""), &bounds).await.unwrap(), Enqueued::Queued);
    }
    assert_eq!(store.list_jobs(None, None, usize::MAX).await.unwrap().len(), JOBS_PER_CALL_MAX);
    assert_eq!(claim(&*store, usize::MAX).await.len(), JOBS_PER_CALL_MAX);
    assert_eq!(claim(&*store, usize::MAX).await.len(), 1);
}

async fn many_claimers_at_once_never_get_the_same_job(Fresh { stores, store }: Fresh) {
    let mut queued = HashSet::new();
    for n in 0..300 {
        queued.extend(queue(&*store, &[&n.to_string()]).await);
    }
    let mut claimers = JoinSet::new();
    for n in 1..=8 {
        let store = stores.open().await;
        claimers.spawn(async move {
            let mut mine = vec![];
            loop {
                let jobs = claim(&*store, n % 3 + 1).await;
                if jobs.is_empty() {
                    return mine;
                }
                mine.extend(jobs);
            }
        });
    }
    let claimed: Vec<JobView> = claimers.join_all().await.concat();
    let ids: HashSet<JobId> = claimed.iter().map(|job| job.id).collect();
    let tokens: HashSet<u64> = claimed.iter().map(|job| job.token).collect();
    assert_eq!((claimed.len(), ids, tokens.len()), (300, queued, 300));
}

async fn tokens_grow_from_claim_to_claim(Fresh { stores, store }: Fresh) {
    let other = stores.open().await;
    let mut last = 0;
    for round in 0..20 {
        queue(&*store, &["a", "b", "c"]).await;
        let from = if round % 2 == 0 { &store } else { &other };
        for job in claim(&**from, 3).await {
            assert!(job.token > last, "{} after {last}", job.token);
            last = job.token;
            finish(&**from, &job, Ending::Done).await;
        }
    }
    let micros = u64::try_from(chrono::Utc::now().timestamp_micros()).unwrap();
    assert!(last > micros - 3_600_000_000, "also over data that are lost: tokens follow the clock");
}

async fn a_job_is_claimed_again_only_after_its_lease_has_expired(Fresh { store, .. }: Fresh) {
    queue(&*store, &["a"]).await;
    let begun = time::Instant::now();
    let first = next(&*store, SHORT).await;
    assert_eq!(claim(&*store, 1).await, []);
    let second = next_eventually(&*store).await;
    assert!(begun.elapsed() >= SHORT);
    assert_eq!((second.id, second.run), (first.id, 2));
    assert!(second.token > first.token);
}

async fn extending_prolongs_a_lease(Fresh { store, .. }: Fresh) {
    let ids = queue(&*store, &["a", "b"]).await;
    let kept = next(&*store, SHORT).await;
    let left = next(&*store, SHORT).await;
    assert_eq!(store.extend(kept.id, kept.token, LEASE).await.unwrap(), Held::Yes);
    let anew = next_eventually(&*store).await;
    assert_eq!((kept.id, left.id, anew.id), (ids[0], ids[1], ids[1]), "the other one stays");
    assert_eq!(claim(&*store, 2).await, []);
    let view = view(&*store, kept.id).await;
    assert_eq!((view.state, view.token, view.run), (JobState::Claimed, kept.token, 1));
    // Extending never shortens a lease.
    assert_eq!(store.extend(kept.id, kept.token, Duration::ZERO).await.unwrap(), Held::Yes);
    pass(20).await;
    assert_eq!(claim(&*store, 1).await, []);
}

async fn an_expired_lease_is_valid_until_another_worker_claims_the_job(Fresh { store, .. }: Fresh) {
    queue(&*store, &["a", "b"]).await;
    let [a, b] = store.claim("paper", 2, Duration::ZERO).await.unwrap().try_into().unwrap();
    assert_eq!(store.extend(b.id, b.token, LEASE).await.unwrap(), Held::Yes);
    pass(20).await;
    assert_eq!(store.extend(a.id, a.token, Duration::ZERO).await.unwrap(), Held::Yes);
    pass(20).await;
    assert_eq!(store.commit(a.id, a.token, Duration::ZERO).await.unwrap(), Held::Yes);
    pass(20).await;
    assert_eq!(finish(&*store, &a, Ending::Done).await, Held::Yes);
    assert_eq!(claim(&*store, 1).await, []);
}

async fn calls_with_an_old_token_have_no_effect(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let old = next(&*store, Duration::ZERO).await;
    let new = next_eventually(&*store).await;
    let before = view(&*store, id).await;
    for token in [old.token, 0, new.token + 1, u64::MAX] {
        let held = [
            store.extend(id, token, LEASE).await.unwrap(),
            store.commit(id, token, LEASE).await.unwrap(),
            store.finish(id, token, &Ending::Done).await.unwrap(),
            store.finish(id, token, &dead()).await.unwrap(),
            store.finish(id, token, &retry(Duration::ZERO)).await.unwrap(),
        ];
        assert_eq!(held, [Held::Lost; 5], "token {token}");
    }
    assert_eq!(view(&*store, id).await, before);
    assert_eq!(finish(&*store, &new, Ending::Done).await, Held::Yes);
}

async fn after_the_end_of_a_run_its_token_is_lost(Fresh { store, .. }: Fresh) {
    for ending in [Ending::Done, dead(), retry(LEASE)] {
        queue(&*store, &["a"]).await;
        let job = next(&*store, LEASE).await;
        assert_eq!(finish(&*store, &job, ending.clone()).await, Held::Yes);
        let after = view(&*store, job.id).await;
        assert_eq!(finish(&*store, &job, ending).await, Held::Lost, "a repetition");
        assert_eq!(store.extend(job.id, job.token, LEASE).await.unwrap(), Held::Lost);
        assert_eq!(store.commit(job.id, job.token, LEASE).await.unwrap(), Held::Lost);
        assert_eq!(view(&*store, job.id).await, after);
    }
    let unknown = job("");
    assert_eq!(store.finish(unknown.id, 1, &Ending::Done).await.unwrap(), Held::Lost);
}

async fn a_retry_is_claimed_again_after_its_delay(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let first = next(&*store, LEASE).await;
    assert_eq!(store.commit(id, first.token, LEASE).await.unwrap(), Held::Yes);
    let begun = time::Instant::now();
    assert_eq!(finish(&*store, &first, retry(SHORT)).await, Held::Yes);
    let delayed = view(&*store, id).await;
    assert_eq!((delayed.state, delayed.run, delayed.token), (JobState::Delayed, 1, first.token));
    assert_eq!(claim(&*store, 1).await, []);
    let second = next_eventually(&*store).await;
    assert!(begun.elapsed() >= SHORT);
    assert_eq!((second.id, second.run, second.committed), (id, 2, true));
    assert_eq!(second.enqueued_at, first.enqueued_at);
    // A job that is due counts as waiting even if nobody claims it.
    finish(&*store, &second, retry(Duration::ZERO)).await;
    assert_eq!(view(&*store, id).await.state, JobState::Waiting);
    assert_eq!(listed(&*store, Some(JobState::Waiting)).await, [id]);
    assert_eq!(counts(&*store).await, JobCounts { waiting: 1, ..JobCounts::default() });
}

async fn a_retry_is_queued_by_the_time_at_which_it_is_due(Fresh { store, .. }: Fresh) {
    queue(&*store, &["first"]).await;
    let first = next(&*store, LEASE).await;
    queue(&*store, &["before"]).await;
    finish(&*store, &first, retry(Duration::from_millis(50))).await;
    pass(100).await;
    queue(&*store, &["after"]).await;
    assert_eq!(payloads(&claim(&*store, 10).await), ["before", "first", "after"]);
}

async fn jobs_whose_worker_died_are_claimed_before_waiting_ones(Fresh { store, .. }: Fresh) {
    queue(&*store, &["a", "b", "c"]).await;
    let died = store.claim("paper", 2, Duration::from_millis(20)).await.unwrap();
    assert_eq!(payloads(&died), ["a", "b"]);
    pass(60).await;
    queue(&*store, &["d"]).await;
    let again = claim(&*store, 3).await;
    assert_eq!(payloads(&again)[2], "c");
    assert_eq!(again.iter().map(|job| job.run).collect::<Vec<_>>(), [2, 2, 1]);
}

async fn a_dead_letter_is_listed_until_it_is_settled(Fresh { store, .. }: Fresh) {
    let ids = queue(&*store, &["a", "b", "c"]).await;
    for job in claim(&*store, 2).await {
        assert_eq!(finish(&*store, &job, dead()).await, Held::Yes);
    }
    assert_eq!(listed(&*store, Some(JobState::Dead)).await, [ids[1], ids[0]]);
    let letter = view(&*store, ids[0]).await;
    assert_eq!((letter.state, letter.error.as_deref()), (JobState::Dead, Some("no venue\nanswered")));
    assert_eq!(claim(&*store, 1).await.len(), 1, "only the third can be claimed");
    assert!(store.settle_dead(ids[0]).await.unwrap());
    assert!(!store.settle_dead(ids[0]).await.unwrap());
    assert!(!store.settle_dead(ids[2]).await.unwrap(), "it runs");
    assert!(!store.settle_dead(job("").id).await.unwrap());
    assert_eq!(listed(&*store, Some(JobState::Dead)).await, [ids[1]]);
    let settled = view(&*store, ids[0]).await;
    assert_eq!((settled.state, settled.error, settled.run), (JobState::Done, None, 1));
    assert_eq!(counts(&*store).await, JobCounts { claimed: 1, done: 1, dead: 1, ..JobCounts::default() });
}

async fn a_cancelled_waiting_job_is_claimed_before_all_others(Fresh { store, .. }: Fresh) {
    let ids = queue(&*store, &["a", "b", "c", "d", "e"]).await;
    store.claim("paper", 1, Duration::from_millis(20)).await.unwrap();
    pass(60).await;
    for id in [ids[3], ids[2], ids[3]] {
        assert_eq!(cancel(&*store, id).await, Cancelling::Asked, "asking again is answered the same");
    }
    let cancelled = view(&*store, ids[3]).await;
    assert_eq!((cancelled.state, cancelled.cancelled), (JobState::Waiting, true));
    let claimed = claim(&*store, 10).await;
    assert_eq!(payloads(&claimed), ["d", "c", "a", "b", "e"]);
    let flags: Vec<bool> = claimed.iter().map(|job| job.cancelled).collect();
    assert_eq!(flags, [true, true, false, false, false]);
}

async fn a_cancelled_delayed_job_is_claimed_at_once(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let first = next(&*store, LEASE).await;
    finish(&*store, &first, retry(LEASE)).await;
    assert_eq!(claim(&*store, 1).await, []);
    assert_eq!(cancel(&*store, id).await, Cancelling::Asked);
    assert_eq!(counts(&*store).await, JobCounts { waiting: 1, ..JobCounts::default() });
    let second = next(&*store, LEASE).await;
    assert!(second.cancelled && second.run == 2);
    assert_eq!(finish(&*store, &second, Ending::Done).await, Held::Yes);
    assert!(view(&*store, id).await.cancelled);
}

async fn the_worker_of_a_job_learns_that_it_was_cancelled(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let job = next(&*store, LEASE).await;
    assert_eq!(store.extend(id, job.token, LEASE).await.unwrap(), Held::Yes);
    assert_eq!(cancel(&*store, id).await, Cancelling::Asked);
    assert_eq!(cancel(&*store, id).await, Cancelling::Asked);
    assert_eq!(view(&*store, id).await.state, JobState::Claimed);
    assert_eq!(store.extend(id, job.token, LEASE).await.unwrap(), Held::Cancelled);
    let before = view(&*store, id).await;
    assert_eq!(finish(&*store, &job, retry(Duration::ZERO)).await, Held::Cancelled);
    assert_eq!(view(&*store, id).await, before, "and nothing is done");
    assert_eq!(finish(&*store, &job, dead()).await, Held::Yes);
    assert_eq!(view(&*store, id).await.state, JobState::Dead);
}

async fn a_cancelled_job_that_is_claimed_again_is_marked(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let first = next(&*store, Duration::ZERO).await;
    assert_eq!(cancel(&*store, id).await, Cancelling::Asked);
    let second = next_eventually(&*store).await;
    assert!(!first.cancelled && second.cancelled);
    assert_eq!(finish(&*store, &second, Ending::Done).await, Held::Yes);
}

async fn a_job_past_its_point_of_no_return_cannot_be_cancelled(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let job = next(&*store, Duration::ZERO).await;
    assert_eq!(store.commit(id, job.token, LEASE).await.unwrap(), Held::Yes);
    assert_eq!(store.commit(id, job.token, LEASE).await.unwrap(), Held::Yes);
    pass(20).await;
    assert_eq!(claim(&*store, 1).await, [], "it extends the lease");
    assert_eq!(cancel(&*store, id).await, Cancelling::TooLate);
    let committed = view(&*store, id).await;
    assert!(committed.committed && !committed.cancelled);
    // Nor between this run and the next.
    finish(&*store, &job, retry(LEASE)).await;
    assert_eq!(cancel(&*store, id).await, Cancelling::TooLate);
    assert_eq!(view(&*store, id).await.state, JobState::Delayed);
}

async fn a_cancelled_job_cannot_pass_its_point_of_no_return(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let job = next(&*store, LEASE).await;
    assert_eq!(cancel(&*store, id).await, Cancelling::Asked);
    assert_eq!(store.commit(id, job.token, LEASE).await.unwrap(), Held::Cancelled);
    assert!(!view(&*store, id).await.committed);
}

async fn an_ended_or_unknown_job_cannot_be_cancelled(Fresh { store, .. }: Fresh) {
    let ids = queue(&*store, &["a", "b"]).await;
    let jobs = claim(&*store, 2).await;
    finish(&*store, &jobs[0], Ending::Done).await;
    finish(&*store, &jobs[1], dead()).await;
    for id in ids {
        assert_eq!(cancel(&*store, id).await, Cancelling::Ended);
        assert!(!view(&*store, id).await.cancelled);
    }
    assert_eq!(cancel(&*store, job("").id).await, Cancelling::Unknown);
}

async fn a_full_queue_refuses_and_stores_nothing(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { unfinished: 3, ..BOUNDS };
    for _ in 0..3 {
        assert_eq!(store.enqueue(&job("x"), &bounds).await.unwrap(), Enqueued::Queued);
    }
    // One job is claimed and one is delayed: they count too.
    let claimed = claim(&*store, 2).await;
    finish(&*store, &claimed[0], retry(LEASE)).await;
    let refused = keyed("key", "same");
    assert_eq!(store.enqueue(&refused, &bounds).await.unwrap(), Enqueued::Full);
    assert_eq!(store.job(refused.id).await.unwrap(), None);
    assert_eq!(listed(&*store, None).await.len(), 3);
    finish(&*store, &claimed[1], Ending::Done).await;
    assert_eq!(store.enqueue(&refused, &bounds).await.unwrap(), Enqueued::Queued, "its key was not used");
}

async fn a_repeated_request_gets_its_job_even_if_the_queue_is_full(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { unfinished: 1, ..BOUNDS };
    let first = keyed("key", "same");
    assert_eq!(store.enqueue(&first, &bounds).await.unwrap(), Enqueued::Queued);
    assert_eq!(store.enqueue(&job("x"), &bounds).await.unwrap(), Enqueued::Full);
    let again = keyed("key", "same");
    assert_eq!(store.enqueue(&again, &bounds).await.unwrap(), Enqueued::Repeated(first.id));
    assert_eq!(store.job(again.id).await.unwrap(), None);
    // Also when the job has ended.
    let claimed = next(&*store, LEASE).await;
    finish(&*store, &claimed, Ending::Done).await;
    assert_eq!(store.enqueue(&again, &bounds).await.unwrap(), Enqueued::Repeated(first.id));
}

async fn a_key_used_for_another_request_is_a_conflict(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { unfinished: 1, ..BOUNDS };
    assert_eq!(store.enqueue(&keyed("key", "one"), &bounds).await.unwrap(), Enqueued::Queued);
    let other = keyed("key", "another");
    assert_eq!(store.enqueue(&other, &bounds).await.unwrap(), Enqueued::Conflict, "also when it is full");
    assert_eq!(store.job(other.id).await.unwrap(), None);
    assert_eq!(enqueue(&*store, &keyed("key ", "one")).await, Enqueued::Queued, "another key");
}

async fn the_same_id_is_queued_once(Fresh { store, .. }: Fresh) {
    let job = job("a");
    assert_eq!(enqueue(&*store, &job).await, Enqueued::Queued);
    assert_eq!(enqueue(&*store, &job).await, Enqueued::Repeated(job.id));
    let claimed = next(&*store, LEASE).await;
    assert_eq!(enqueue(&*store, &job).await, Enqueued::Repeated(job.id));
    finish(&*store, &claimed, Ending::Done).await;
    assert_eq!(enqueue(&*store, &job).await, Enqueued::Repeated(job.id));
    assert_eq!((claim(&*store, 1).await, listed(&*store, None).await), (vec![], vec![job.id]));
}

async fn a_key_is_forgotten_after_its_time(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { kept_for: SECOND, ..BOUNDS };
    let first = keyed("key", "same");
    assert_eq!(store.enqueue(&first, &bounds).await.unwrap(), Enqueued::Queued);
    let second = eventually("the key is free again", async || {
        let again = keyed("key", "same");
        match store.enqueue(&again, &bounds).await.unwrap() {
            Enqueued::Repeated(id) => assert_eq!(id, first.id),
            queued => {
                assert_eq!(queued, Enqueued::Queued);
                return Some(again);
            }
        }
        None
    })
    .await;
    assert_eq!(listed(&*store, None).await, [second.id, first.id], "unfinished jobs stay");
    assert_eq!(
        store.enqueue(&keyed("key", "same"), &BOUNDS).await.unwrap(),
        Enqueued::Repeated(second.id),
        "the key leads to the newer one"
    );
}

async fn lists_go_from_the_newest_in_pages(Fresh { store, .. }: Fresh) {
    let mut ids = queue(&*store, &["a", "b", "c", "d", "e", "f", "g"]).await;
    ids.reverse();
    // A job's state does not affect its position in the list.
    let claimed = claim(&*store, 3).await;
    finish(&*store, &claimed[0], dead()).await;
    finish(&*store, &claimed[2], retry(LEASE)).await;
    let mut seen: Vec<JobId> = vec![];
    loop {
        let page = store.list_jobs(None, seen.last().copied(), 3).await.unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|job| job.id));
        for job in page {
            assert_eq!(view(&*store, job.id).await, job, "as `job` shows it");
        }
    }
    assert_eq!(seen, ids);
    assert_eq!(store.list_jobs(None, None, 0).await.unwrap(), []);
    let from_the_newest = store.list_jobs(None, Some(job("").id), usize::MAX).await.unwrap();
    assert_eq!(from_the_newest.len(), 7, "an unknown cursor starts from the beginning");
}

async fn lists_show_one_state(Fresh { store, .. }: Fresh) {
    let ids = queue(&*store, &["a", "b", "c", "d", "e", "f"]).await;
    let claimed = claim(&*store, 5).await;
    finish(&*store, &claimed[0], Ending::Done).await;
    finish(&*store, &claimed[1], dead()).await;
    finish(&*store, &claimed[2], retry(LEASE)).await;
    finish(&*store, &claimed[4], Ending::Done).await;
    let expected = [
        (JobState::Waiting, vec![ids[5]]),
        (JobState::Delayed, vec![ids[2]]),
        (JobState::Claimed, vec![ids[3]]),
        (JobState::Done, vec![ids[4], ids[0]]),
        (JobState::Dead, vec![ids[1]]),
    ];
    for (state, of_state) in expected {
        assert_eq!(listed(&*store, Some(state)).await, of_state, "{state:?}");
        for id in of_state {
            assert_eq!(view(&*store, id).await.state, state);
        }
    }
    // A page may start after a job that is in another state by now.
    let done = store.list_jobs(Some(JobState::Done), Some(ids[3]), 10).await.unwrap();
    assert_eq!(done.iter().map(|job| job.id).collect::<Vec<_>>(), [ids[0]]);
}

async fn jobs_are_counted_by_state(Fresh { store, .. }: Fresh) {
    assert_eq!(counts(&*store).await, JobCounts::default());
    queue(&*store, &["a"; 15]).await;
    let claimed = claim(&*store, 14).await;
    for (n, job) in claimed.iter().enumerate() {
        match n {
            0..2 => finish(&*store, job, retry(LEASE)).await,
            2..6 => finish(&*store, job, Ending::Done).await,
            6..11 => finish(&*store, job, dead()).await,
            _ => Held::Yes,
        };
    }
    let expected = JobCounts { waiting: 1, delayed: 2, claimed: 3, done: 4, dead: 5 };
    assert_eq!(counts(&*store).await, expected);
}

async fn the_oldest_finished_jobs_are_dropped_beyond_the_bound(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { kept: 4, ..BOUNDS };
    let first = keyed("key", "same");
    let mut ids = vec![first.id];
    assert_eq!(store.enqueue(&first, &bounds).await.unwrap(), Enqueued::Queued);
    ids.extend(queue(&*store, &["b", "c"]).await);
    let claimed = claim(&*store, 3).await;
    // The second job ends first: the age of a finished job counts from its end.
    finish(&*store, &claimed[1], dead()).await;
    finish(&*store, &claimed[0], Ending::Done).await;
    for known in [vec![0, 1, 2, 3], vec![0, 2, 3, 4], vec![2, 3, 4, 5], vec![2, 3, 4, 5, 6]] {
        let job = job("x");
        ids.push(job.id);
        assert_eq!(store.enqueue(&job, &bounds).await.unwrap(), Enqueued::Queued);
        let mut expected: Vec<JobId> = known.iter().map(|n: &usize| ids[*n]).collect();
        expected.reverse();
        assert_eq!(listed(&*store, None).await, expected, "{known:?}");
    }
    assert_eq!(store.job(first.id).await.unwrap(), None);
    assert_eq!(counts(&*store).await, JobCounts { waiting: 4, claimed: 1, ..JobCounts::default() });
    assert_eq!(enqueue(&*store, &keyed("key", "other")).await, Enqueued::Queued, "its key went with it");
}

async fn unfinished_jobs_are_never_dropped(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { kept: 0, kept_for: Duration::ZERO, ..BOUNDS };
    for _ in 0..10 {
        assert_eq!(store.enqueue(&job("x"), &bounds).await.unwrap(), Enqueued::Queued);
    }
    assert_eq!(claim(&*store, 100).await.len(), 10);
}

async fn finished_jobs_are_dropped_after_their_time(Fresh { store, .. }: Fresh) {
    let bounds = JobBounds { kept_for: SECOND, ..BOUNDS };
    let mut ids = vec![];
    for _ in 0..4 {
        let job = job("x");
        assert_eq!(store.enqueue(&job, &bounds).await.unwrap(), Enqueued::Queued);
        ids.push(job.id);
    }
    let claimed = claim(&*store, 3).await;
    let begun = time::Instant::now();
    finish(&*store, &claimed[0], Ending::Done).await;
    finish(&*store, &claimed[1], dead()).await;
    let known = listed(&*store, None).await.len();
    assert!(known == 4 || begun.elapsed() >= SECOND);
    until("finished jobs go", async || listed(&*store, None).await.len() == 2).await;
    assert!(begun.elapsed() >= SECOND);
    assert_eq!((store.job(ids[0]).await.unwrap(), store.job(ids[1]).await.unwrap()), (None, None));
    assert_eq!(counts(&*store).await, JobCounts { waiting: 1, claimed: 1, ..JobCounts::default() });
    assert_eq!(cancel(&*store, ids[0]).await, Cancelling::Unknown);
}

async fn a_call_dropped_midway_takes_effect_completely_or_not_at_all(Fresh { store, .. }: Fresh) {
    for round in 0..40u64 {
        let limit = Duration::from_micros(round * 30);
        let job = job("x");
        let _dropped = time::timeout(limit, store.enqueue(&job, &BOUNDS)).await;
        let again = enqueue(&*store, &job).await;
        assert!([Enqueued::Queued, Enqueued::Repeated(job.id)].contains(&again), "{again:?}");
        assert_eq!(counts(&*store).await.waiting, 1, "round {round}");
        let _dropped = time::timeout(limit, store.claim("paper", 1, Duration::from_millis(1))).await;
        let claimed = next_eventually(&*store).await;
        assert_eq!(claimed.id, job.id);
        assert_eq!(claimed.run, view(&*store, job.id).await.run);
        let _dropped = time::timeout(limit, finish(&*store, &claimed, Ending::Done)).await;
        finish(&*store, &claimed, Ending::Done).await;
        let expected = JobCounts { done: round + 1, ..JobCounts::default() };
        assert_eq!(counts(&*store).await, expected, "round {round}");
    }
}

async fn leases_of_any_length_are_accepted(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let claimed = store.claim("paper", 5, Duration::ZERO).await.unwrap();
    assert_eq!(claimed.len(), 1, "a job is claimed once by one call");
    let token = claimed[0].token;
    assert_eq!(store.extend(id, token, Duration::MAX).await.unwrap(), Held::Yes);
    assert_eq!(claim(&*store, 1).await, []);
    assert_eq!(store.finish(id, token, &retry(Duration::MAX)).await.unwrap(), Held::Yes);
    assert_eq!(claim(&*store, 1).await, []);
    let forever = JobBounds { unfinished: usize::MAX, kept: usize::MAX, kept_for: Duration::MAX };
    assert_eq!(store.enqueue(&job("x"), &forever).await.unwrap(), Enqueued::Queued);
    assert_eq!(listed(&*store, None).await.len(), 2);
}

async fn a_job_of_a_kind_is_for_workers_of_that_kind(Fresh { store, .. }: Fresh) {
    let of = |kind: Option<&str>, payload: &str| NewJob { kind: kind.map(Into::into), ..job(payload) };
    let mut ids = vec![];
    // Many jobs of another kind are queued before them.
    for n in 0..600 {
        let new = of(Some("a"), &n.to_string());
        assert_eq!(enqueue(&*store, &new).await, Enqueued::Queued);
        ids.push(new.id);
    }
    for (kind, payload) in [(Some("b"), "b1"), (None, "any"), (Some("b"), "b2"), (Some("b"), "b3")] {
        enqueue(&*store, &of(kind, payload)).await;
    }
    let as_b = async |limit, lease| store.claim("b", limit, lease).await.unwrap();
    assert_eq!(payloads(&as_b(2, Duration::ZERO).await), ["b1", "any"]);
    pass(20).await;
    // Other workers also skip jobs of dead workers and cancelled jobs of another kind.
    assert_eq!(store.claim("c", 10, LEASE).await.unwrap().len(), 1, "the one that is anybody's");
    assert_eq!(cancel(&*store, ids[0]).await, Cancelling::Asked);
    assert_eq!(payloads(&as_b(10, LEASE).await), ["b1", "b2", "b3"]);
    assert_eq!(as_b(10, LEASE).await, []);
    let first = store.claim("a", 1, LEASE).await.unwrap().remove(0);
    assert_eq!((first.id, first.cancelled, first.kind.as_deref()), (ids[0], true, Some("a")));
    assert_eq!(view(&*store, ids[1]).await.kind.as_deref(), Some("a"));
    // A job keeps its kind when it is retried.
    let second = store.claim("a", 1, LEASE).await.unwrap().remove(0);
    assert_eq!(finish(&*store, &second, retry(Duration::ZERO)).await, Held::Yes);
    assert_eq!(as_b(10, LEASE).await, []);
    assert_eq!(store.claim("a", 600, LEASE).await.unwrap().len(), 599);
}

async fn the_end_of_a_run_determines_the_next_attempt(Fresh { store, .. }: Fresh) {
    let id = queue(&*store, &["a"]).await[0];
    let attempt = |number, said_by| Attempt { number, said_by };
    let again = |attempt| Ending::Retry { after: Duration::ZERO, attempt };
    // (the run, the attempt in the job when it is claimed, the ending of the run)
    for (run, said, ending) in [
        (1, attempt(0, 0), again(None)),
        (2, attempt(0, 0), again(Some(2))),
        (3, attempt(2, 2), again(None)),
        (4, attempt(2, 2), again(Some(3))),
        (5, attempt(3, 4), Ending::Done),
    ] {
        let job = next_eventually(&*store).await;
        assert_eq!((job.run, job.attempt), (run, said));
        assert_eq!(view(&*store, id).await.attempt, said, "claiming changes nothing");
        assert_eq!(store.commit(id, job.token, LEASE).await.unwrap(), Held::Yes);
        assert_eq!(finish(&*store, &job, ending).await, Held::Yes);
    }
    assert_eq!(view(&*store, id).await.attempt, attempt(3, 4));
}
