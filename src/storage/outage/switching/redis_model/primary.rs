//! What a node asks of the server, each call with its own fate on the way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{self, Instant};

use super::link::{Execute, InFlight, Link};
use super::{ModelServer, ServerState, Trace};
use crate::model::{BackendName, ChannelName, Epoch, JobId, NodeId, Position};
use crate::storage::primary::{Beat, Domain, Domains, Place, Primary};
use crate::storage::{
    AppendAnswer, AppendBatch, Cancelling, Ending, Enqueued, Held, JobBounds, JobCounts, JobState, JobView,
    Jobs, LatestPage, LatestQuery, Log, LogEvent, Lost, MemoryBackend, MovedJob, NewJob, OpenLog, Page,
    PageLimit, Record, RecordKind, Recorded, Records, Result, StorageBackend, StorageError,
};

/// After this a call is given up.
const CALL_LIMIT: Duration = Duration::from_millis(900);

/// [`Primary`] of one node.
#[derive(Debug)]
pub(super) struct ModelRedis {
    server: ModelServer,
    link: Arc<Link>,
    incoming: Mutex<Option<mpsc::Receiver<LogEvent>>>,
    known: Mutex<Known>,
}

/// What a node knows of the id of the data.
#[derive(Debug, Default)]
struct Known {
    data_id: u64,
    acknowledged: u64,
    sent: u64,
}

fn unreachable(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "the connection is down".into() }
}

impl ModelRedis {
    pub(super) fn new(server: ModelServer, link: Arc<Link>, incoming: mpsc::Receiver<LogEvent>) -> Self {
        Self { server, link, incoming: Mutex::new(Some(incoming)), known: Mutex::default() }
    }

    async fn call<R: fmt::Debug + Send + 'static>(
        &self,
        op: &'static str,
        writes: bool,
        act: impl FnOnce(&mut ServerState, &Link) -> R + Send + 'static,
    ) -> Result<R> {
        if self.link.crashed.load(Ordering::Acquire) {
            return std::future::pending().await;
        }
        let (answer, answered) = oneshot::channel::<(Instant, Result<R>)>();
        let fate = self.server.0.state.lock().fate();
        let name = self.link.name;
        let lost = {
            let mut state = self.link.state.lock();
            let Some(connection) = &mut state.connection else {
                drop(state);
                self.server.say(|| format!("n{name} {op}: no connection"));
                return Err(unreachable(op));
            };
            let arrives = connection.last_arrival.max(Instant::now() + fate.there);
            connection.last_arrival = arrives;
            let (server, link) = (self.server.clone(), Arc::clone(&self.link));
            let execute: Execute = Box::new(move || {
                if !fate.is_executed {
                    return;
                }
                let mut state = server.0.state.lock();
                let result = if writes && state.refuses_writes {
                    Err(StorageError::Refused { op, cause: "OOM".into() })
                } else {
                    Ok(act(&mut state, &link))
                };
                let is_silent = state.is_silent && op != "beat";
                state.unanswered += u64::from(is_silent);
                let loses_answer = if is_silent { Some(true) } else { fate.loses_answer };
                let is_usual = |result: &Result<R>| format!("{result:?}").contains("Same");
                if state.trace != Trace::Off && (op != "beat" || !is_usual(&result)) {
                    state.say(|| format!("n{name} {op} executed: {result:?} {loses_answer:?}"));
                }
                match loses_answer {
                    None => {
                        // The caller may have given up.
                        let _waits = answer.send((Instant::now() + fate.back, result));
                    }
                    Some(false) => {}
                    Some(true) => std::mem::forget(answer),
                }
            });
            if connection.commands.send(InFlight { arrives, execute }).is_err() {
                return Err(unreachable(op));
            }
            connection.lost.clone()
        };
        let answer = async {
            match answered.await {
                Ok((at, result)) => {
                    time::sleep_until(at).await;
                    result
                }
                Err(_) => Err(unreachable(op)),
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = lost.cancelled() => {
                if self.link.crashed.load(Ordering::Acquire) {
                    return std::future::pending().await;
                }
                Err(unreachable(op))
            }
            () = time::sleep(CALL_LIMIT) => Err(StorageError::Deadline { op, limit: CALL_LIMIT }),
        }
    }

    /// A call about a log, of which what has grown too old goes first.
    async fn call_about<R: fmt::Debug + Send + 'static>(
        &self,
        channel: &ChannelName,
        op: &'static str,
        writes: bool,
        act: impl FnOnce(&mut ServerState, &ChannelName) -> R + Send + 'static,
    ) -> Result<R> {
        let channel = channel.clone();
        self.call(op, writes, move |state, _| {
            state.expire(&channel);
            act(state, &channel)
        })
        .await
    }

    /// A call that the server's memory answers.
    async fn ask<R: fmt::Debug + Send + 'static>(
        &self,
        op: &'static str,
        writes: bool,
        act: impl FnOnce(&MemoryBackend) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.call(op, writes, move |state, _| act(&state.data.memory)).await?
    }
}

/// A future of the memory backend, which never waits.
fn now<R>(future: impl Future<Output = Result<R>>) -> Result<R> {
    use futures_util::FutureExt as _;
    future.now_or_never().expect("memory answers at once")
}

#[async_trait]
impl Primary for ModelRedis {
    fn domains(&self) -> watch::Receiver<Domains> {
        self.link.domains.subscribe()
    }

    async fn beat(&self, _domain: Domain, node: NodeId) -> Result<Beat, Lost> {
        let (known, acknowledged, number) = {
            let mut known = self.known.lock();
            known.sent = known.sent.max(known.acknowledged) + 1;
            (known.data_id, known.acknowledged, known.sent)
        };
        let (beat, data_id, held) = self
            .call("beat", true, move |state, link| {
                *state.beats.entry(link.name).or_default() += 1;
                if state.data.data_id == 0 {
                    state.data.data_id = state.rng.random();
                }
                let held = state.data.counters.get(&node).copied().unwrap_or(0);
                let beat = match known {
                    0 => Beat::First,
                    known if known != state.data.data_id => Beat::Other,
                    _ if held < acknowledged => Beat::Older,
                    _ => Beat::Same,
                };
                let held = if beat == Beat::Older { held } else { held.max(number) };
                state.data.counters.insert(node, held);
                (beat, state.data.data_id, held)
            })
            .await
            .map_err(|error| Lost { code: "unreachable", reason: error.to_string() })?;
        let mut known = self.known.lock();
        (known.data_id, known.acknowledged) = (data_id, held);
        Ok(beat)
    }

    async fn examine(&self, channel: &ChannelName, producer: NodeId, at: u64) -> Result<Option<OpenLog>> {
        self.call_about(channel, "examine", false, move |state, channel| {
            state.data.memory.examine(channel, producer, at)
        })
        .await
    }

    async fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Result<Option<Epoch>> {
        let (expected, minted) = (expected.clone(), minted.clone());
        self.call_about(channel, "renew", true, move |state, channel| {
            let held = state.data.memory.renew_epoch(channel, &expected, &minted);
            state.renewed += u64::from(held.as_ref() == Some(&minted));
            held
        })
        .await
    }

    fn domain_of(&self, place: Place<'_>) -> Domain {
        match place {
            Place::Channel(_) => Domain::new(self.link.channels_in.load(Ordering::Relaxed)),
            Place::Jobs | Place::Records(_) | Place::Leases => Domain::ONLY,
        }
    }

    async fn record_job(&self, job: &MovedJob) -> Result<Recorded> {
        let job = job.clone();
        self.call("record_job", true, move |state, _| {
            let MovedJob { view, idempotency, bounds, .. } = &job;
            let (payload, kind) = (view.payload.clone(), view.kind.clone());
            let new = NewJob { id: view.id, payload, kind, idempotency: idempotency.clone() };
            now(state.data.memory.enqueue(&new, bounds))?;
            state.recorded.push(job);
            Ok(Recorded::Yes)
        })
        .await?
    }
}

#[async_trait]
impl Log for ModelRedis {
    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.call_about(channel, "find", false, move |state, channel| {
            now(state.data.memory.find(channel, producer))
        })
        .await?
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        let minted = minted.clone();
        self.call_about(channel, "open", true, move |state, channel| state.open(channel, producer, &minted))
            .await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let (batch, name) = (batch.clone(), self.link.name);
        self.call_about(&batch.channel.clone(), "append", true, move |state, _| {
            let answer = state.append(&batch);
            let chain = || batch.entries.iter().map(|append| (append.prev, append.seq)).collect::<Vec<_>>();
            state.say(|| format!("n{name} append {} {} {:?}", batch.channel, batch.epoch, chain()));
            answer
        })
        .await
    }

    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let (batch, name) = (batch.clone(), self.link.name);
        self.call_about(&batch.channel.clone(), "begin", true, move |state, channel| {
            let OpenLog { epoch, .. } = state.open(channel, batch.producer, &batch.epoch);
            let answer = state.append(&batch);
            state.say(|| format!("n{name} begin {channel} {} in {epoch}", batch.epoch));
            answer
        })
        .await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        let after = after.cloned();
        self.call_about(channel, "read", false, move |state, channel| {
            let page = state.data.memory.read_now_within(channel, after.as_ref(), limit);
            Page { is_final: false, ..page }
        })
        .await
    }

    async fn latest_within(&self, channel: &ChannelName, query: LatestQuery<'_>) -> Result<LatestPage> {
        let LatestQuery { after, limit, of } = query;
        let after = after.map(str::to_owned);
        self.call_about(channel, "latest", false, move |state, channel| {
            state.data.memory.latest_now(channel, LatestQuery { after: after.as_deref(), limit, of })
        })
        .await
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        self.call_about(channel, "keys", false, |state, channel| now(state.data.memory.keys(channel))).await?
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        {
            let mut state = self.link.state.lock();
            // One that was asked for and not waited for may never have been executed.
            let Some(subscriber) = &state.subscriber else { return Err(unreachable("follow")) };
            if subscriber.subscribed.contains(channel) {
                return Ok(());
            }
            // It is subscribed to by whichever connection is made, from here on.
            state.followed.insert(channel.clone());
        }
        let followed = channel.clone();
        let answer = self
            .call("follow", false, move |server, link| {
                if server.laws.others_prove_following && server.is_heard_elsewhere(link, &followed) {
                    return Ok(());
                }
                let mut state = link.state.lock();
                let Some(subscriber) = &mut state.subscriber else { return Err(unreachable("follow")) };
                subscriber.subscribed.insert(followed);
                Ok(())
            })
            .await
            .and_then(|followed| followed);
        if answer.is_err() {
            self.link.state.lock().followed.remove(channel);
        }
        answer
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        let mut state = self.link.state.lock();
        state.followed.remove(channel);
        if let Some(subscriber) = &mut state.subscriber {
            subscriber.subscribed.remove(channel);
        }
        Ok(())
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.incoming.lock().take()
    }
}

#[async_trait]
impl Records for ModelRedis {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let key = key.to_owned();
        self.ask("put", true, move |memory| now(memory.put(kind, &key, value, ttl))).await
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        let key = key.to_owned();
        self.ask("get", false, move |memory| now(memory.get(kind, &key))).await
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.ask("delete", true, move |memory| now(memory.delete(kind, &key))).await
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        let after = after.map(str::to_owned);
        self.ask("list", false, move |memory| now(memory.list(kind, after.as_deref(), limit))).await
    }

    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        let (key, holder) = (key.to_owned(), holder.to_owned());
        self.ask("hold", true, move |memory| now(memory.hold(&key, &holder, ttl))).await
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        let (key, holder) = (key.to_owned(), holder.to_owned());
        self.ask("let_go", true, move |memory| now(memory.let_go(&key, &holder))).await
    }
}

#[async_trait]
impl Jobs for ModelRedis {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        let (job, bounds) = (job.clone(), *bounds);
        self.ask("enqueue", true, move |memory| now(memory.enqueue(&job, &bounds))).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<JobView>> {
        let kind = kind.to_owned();
        self.ask("claim", true, move |memory| now(memory.claim(&kind, limit, lease))).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.ask("extend", true, move |memory| now(memory.extend(id, token, lease))).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.ask("commit", true, move |memory| now(memory.commit(id, token, lease))).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        let ending = ending.clone();
        self.ask("finish", true, move |memory| now(memory.finish(id, token, &ending))).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.ask("cancel", true, move |memory| now(memory.cancel(id))).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.ask("job", false, move |memory| now(memory.job(id))).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.ask("list_jobs", false, move |memory| now(memory.list_jobs(state, before, limit))).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.ask("settle_dead", true, move |memory| now(memory.settle_dead(id))).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.ask("job_counts", false, |memory| now(memory.job_counts())).await
    }
}

#[async_trait]
impl StorageBackend for ModelRedis {
    fn name(&self) -> BackendName {
        BackendName::Redis
    }

    async fn ping(&self) -> Result<()> {
        self.call("ping", false, |_, _| ()).await
    }
}
