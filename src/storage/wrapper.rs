//! Wrappers around a storage: a wrapper decides where each call goes, and implements only what it does
//! differently.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    AppendAnswer, AppendBatch, Cancelling, Ending, Enqueued, Held, JobBounds, JobCounts, JobState, JobView,
    Jobs, LatestPage, LatestQuery, Log, LogEvent, LogState, NewJob, OpenLog, Page, PageLimit, Place, Record,
    RecordKind, Records, Result, SharedBackend,
};
use crate::model::{ChannelName, Epoch, JobId, NodeId, Position};

/// Decides where calls go. Every implementor gets all roles.
pub trait Wrapper: fmt::Debug + Send + Sync {
    /// A storage, and what has to be held during a call to it.
    type Target<'a>: Deref<Target = SharedBackend> + Send
    where
        Self: 'a;

    /// The storage to which a call about `place` goes.
    fn target<'a>(&'a self, place: Place<'_>) -> impl Future<Output = Self::Target<'a>> + Send;

    /// See [`Log::take_incoming`].
    fn incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        None
    }
}

/// Implements a role: each call goes to the target for its place.
macro_rules! forward {
    (
        $role:ident { $($itself:tt)* }
        $($place:expr => { $($call:ident($($argument:ident: $type:ty),*) -> $answer:ty;)* })*
    ) => {
        #[async_trait]
        impl<T: Wrapper> $role for T {
            $($(async fn $call(&self, $($argument: $type),*) -> $answer {
                self.target($place).await.$call($($argument),*).await
            })*)*

            $($itself)*
        }
    };
}

forward! {
    Log {
        fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
            self.incoming()
        }
    }
    Place::Channel(channel) => {
        state(channel: &ChannelName, producer: NodeId) -> Result<LogState>;
        find(channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>>;
        open(channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog>;
        read_within(channel: &ChannelName, after: Option<&Position>, limit: PageLimit) -> Result<Page>;
        fork_for_readers(channel: &ChannelName) -> ();
        latest_within(channel: &ChannelName, query: LatestQuery<'_>) -> Result<LatestPage>;
        keys(channel: &ChannelName) -> Result<Vec<Arc<str>>>;
        follow(channel: &ChannelName) -> Result<()>;
        unfollow(channel: &ChannelName) -> Result<()>;
    }
    Place::Channel(&batch.channel) => {
        append(batch: &AppendBatch) -> Result<AppendAnswer>;
        begin(batch: &AppendBatch) -> Result<AppendAnswer>;
    }
}

forward! {
    Records {}
    Place::Records(kind) => {
        put(kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()>;
        get(kind: RecordKind, key: &str) -> Result<Option<Bytes>>;
        delete(kind: RecordKind, key: &str) -> Result<bool>;
        list(kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>>;
    }
    Place::Leases => {
        hold(key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>>;
        let_go(key: &str, holder: &str) -> Result<()>;
    }
}

forward! {
    Jobs {}
    Place::Jobs => {
        enqueue(job: &NewJob, bounds: &JobBounds) -> Result<Enqueued>;
        enqueue_here(job: &NewJob, bounds: &JobBounds) -> Result<Enqueued>;
        claim(kind: &str, limit: usize, lease: Duration) -> Result<Vec<JobView>>;
        extend(id: JobId, token: u64, lease: Duration) -> Result<Held>;
        commit(id: JobId, token: u64, lease: Duration) -> Result<Held>;
        finish(id: JobId, token: u64, ending: &Ending) -> Result<Held>;
        cancel(id: JobId) -> Result<Cancelling>;
        job(id: JobId) -> Result<Option<JobView>>;
        list_jobs(state: Option<JobState>, before: Option<JobId>, limit: usize) -> Result<Vec<JobView>>;
        settle_dead(id: JobId) -> Result<bool>;
        job_counts() -> Result<JobCounts>;
    }
}
