//! The requests to the folder, each as a plan that the thread executes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::rows::{ChannelRow, Clock, Place, encode_entry, encode_producer, encode_record};
use super::store::Change;
use super::{Folder, Planned, Reply};
use crate::model::{ChannelName, Epoch, NodeId};
use crate::storage::memory::job_table::{JobTable, Now, Touched};
use crate::storage::memory::{Shared, StoredRecord};
use crate::storage::{AGE_MAX, AppendAnswer, AppendBatch, Appended, Bounds, OpenLog, RecordKind, Result};

/// How many fencing tokens are reserved on disk at a time, so that most need no write.
pub(super) const FENCES_AT_ONCE: u64 = 1_000;

impl Folder {
    pub(in crate::storage::memory) async fn open_log(
        &self,
        channel: &ChannelName,
        producer: NodeId,
        minted: &Epoch,
    ) -> Result<OpenLog> {
        // Most calls find an open log.
        if let Some(known) = self.memory.examine(channel, producer, u64::MAX) {
            return Ok(known);
        }
        let (name, minted) = (channel.clone(), minted.clone());
        let plan = move |memory: &Shared, reply: Reply<OpenLog>| {
            if let Some(known) = memory.examine(&name, producer, u64::MAX) {
                reply.tell(known);
                return None;
            }
            let clock = Clock::read();
            let incarnation = memory.state.lock().keep.as_ref().map_or(0, |keep| keep.last_incarnation) + 1;
            let row = ChannelRow {
                name: name.as_str().to_owned(),
                epoch: minted.clone(),
                top: 0,
                first: 1,
                fence: 0,
                closed: false,
                touched_us: clock.wall_us,
            };
            // Another channel that begins in the same transaction must get another number.
            memory.state.lock().keep.get_or_insert_default().last_incarnation = incarnation;
            let changes = vec![Change::set(&Place::Channel(incarnation), Some(row.encode()))];
            reply.once_written(changes, move |memory| {
                memory.state.lock().begin_as(&name, &minted, memory, incarnation);
                OpenLog::begun_as(minted)
            })
        };
        self.ask("open", Some(channel), plan).await
    }

    pub(in crate::storage::memory) async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let (channel, batch) = (&batch.channel, batch.clone());
        self.ask("append", Some(channel), move |memory, reply| plan_append(memory, batch, reply)).await
    }

    pub(in crate::storage::memory) async fn put_record(
        &self,
        kind: RecordKind,
        key: &str,
        value: Bytes,
        ttl: Duration,
    ) -> Result<()> {
        let key = key.to_owned();
        let plan = move |_memory: &Shared, reply: Reply<()>| {
            let clock = Clock::read();
            let expires = clock.at + ttl.min(AGE_MAX);
            let row = encode_record(&value, clock.us(expires), clock.wall_us);
            let changes = vec![Change::set(&Place::Record(kind, key.clone()), Some(row))];
            reply.once_written(changes, move |memory| {
                let record = StoredRecord { value, expires };
                memory.state.lock().records.insert((kind.as_str(), key), record);
            })
        };
        self.ask("put", None, plan).await
    }

    pub(in crate::storage::memory) async fn delete_record(
        &self,
        kind: RecordKind,
        key: &str,
    ) -> Result<bool> {
        let key = key.to_owned();
        let plan = move |_memory: &Shared, reply: Reply<bool>| {
            let changes = vec![Change::set(&Place::Record(kind, key.clone()), None)];
            reply.once_written(changes, move |memory| {
                let removed = memory.state.lock().records.remove(&(kind.as_str(), key));
                removed.is_some_and(|record| record.expires > Instant::now())
            })
        };
        self.ask("delete", None, plan).await
    }

    /// Reserves fencing tokens on disk, so that no later process gives out the same ones again.
    pub(in crate::storage::memory) async fn have_fences(&self) -> Result<()> {
        let has_some = |memory: &Shared| {
            let state = memory.state.lock();
            // As many as there may be callers between this check and the lease.
            let wanted = state.last_fence + FENCES_AT_ONCE / 2;
            state.keep.as_ref().is_some_and(|keep| wanted <= keep.fences)
        };
        if has_some(&self.memory) {
            return Ok(());
        }
        let plan = move |memory: &Shared, reply: Reply<()>| {
            if has_some(memory) {
                reply.tell(());
                return None;
            }
            let until = memory.state.lock().last_fence + FENCES_AT_ONCE;
            let changes = vec![Change::set(&Place::Fences, Some(until.to_string().into_bytes()))];
            reply.once_written(changes, move |memory| {
                memory.state.lock().keep.get_or_insert_default().fences = until;
            })
        };
        self.ask("hold", None, plan).await
    }

    /// Changes the jobs. Only this thread changes them, so it does so at once, and undoes the change if it
    /// cannot be written.
    pub(in crate::storage::memory) async fn with_jobs<T: Send + 'static>(
        &self,
        op: &'static str,
        act: impl FnOnce(&mut JobTable, Now) -> T + Send + 'static,
    ) -> Result<T> {
        let plan = move |memory: &Shared, reply: Reply<T>| {
            let mut jobs = memory.jobs.lock();
            let before = jobs.table_row();
            let answer = act(&mut jobs, Now::read());
            let changes = changes_of_jobs(&mut jobs, &before);
            let Some((changes, touched)) = changes else {
                reply.tell(answer);
                return None;
            };
            Some(Planned {
                changes,
                then: Box::new(move |memory, written| match written {
                    Ok(()) => reply.tell(answer),
                    Err(why) => {
                        memory.jobs.lock().restore(touched);
                        reply.refuse(why);
                    }
                }),
            })
        };
        self.ask(op, None, plan).await
    }

    /// Reads the jobs between changes. Changes that are due by time alone are made, and need not be written
    /// first.
    pub(in crate::storage::memory) async fn looking_at_jobs<T: Send + 'static>(
        &self,
        op: &'static str,
        look: impl FnOnce(&mut JobTable, Now) -> T + Send + 'static,
    ) -> Result<T> {
        let plan = move |memory: &Shared, reply: Reply<T>| {
            reply.tell(look(&mut memory.jobs.lock(), Now::read()));
            None
        };
        self.ask(op, None, plan).await
    }
}

/// The changes of jobs, and the jobs as they were before; `before` is the row of the table before the change.
pub(super) fn changes_of_jobs(jobs: &mut JobTable, before: &[u8]) -> Option<(Vec<Change>, Touched)> {
    let touched = jobs.take_touched();
    let row = jobs.table_row();
    if touched.is_empty() && row == before {
        return None;
    }
    let clock = Clock::read();
    let mut changes: Vec<Change> =
        touched.keys().map(|id| Change::set(&Place::Job(*id), jobs.row(*id, &clock))).collect();
    if row != before {
        changes.push(Change::set(&Place::Jobs, Some(row)));
    }
    Some((changes, touched))
}

fn plan_append(memory: &Shared, batch: AppendBatch, reply: Reply<AppendAnswer>) -> Option<Planned> {
    let clock = Clock::read();
    let mut guard = memory.state.lock();
    let state = &mut *guard;
    let Some(channel) = state.channels.get_mut(&batch.channel) else {
        reply.tell(AppendAnswer::ForeignEpoch(None));
        return None;
    };
    if channel.epoch != batch.epoch {
        reply.tell(AppendAnswer::ForeignEpoch(Some(channel.epoch.clone())));
        return None;
    }
    // Entries that have already expired must not come back because of this append.
    state.total_bytes -= channel.trim(&Bounds::of(&memory.retention, &batch.channel), clock.at);
    let results = channel.judge(&batch);
    let incarnation = channel.incarnation();
    let mut row = ChannelRow { touched_us: clock.wall_us, ..ChannelRow::of(&batch.channel, channel, &clock) };
    drop(guard);
    let (mut changes, mut last) = (Vec::with_capacity(results.len() + 2), None);
    for (append, result) in batch.entries.iter().zip(&results) {
        let Appended::Applied { offset } = *result else { continue };
        row.top = offset;
        row.fence = append.fence.unwrap_or(row.fence);
        row.closed = append.draft.kind.is_terminal();
        last = Some(append.seq);
        let content = encode_entry(&append.at(batch.producer, offset), clock.wall_us);
        changes.push(Change::set(&Place::Entry(incarnation, offset), Some(content)));
    }
    let Some(last) = last else {
        reply.tell(AppendAnswer::Done(results));
        return None;
    };
    let producer = Place::Producer(incarnation, batch.producer);
    changes.push(Change::set(&producer, Some(encode_producer(last, clock.wall_us))));
    changes.push(Change::set(&Place::Channel(incarnation), Some(row.encode())));
    reply.once_written(changes, move |memory| {
        let mut state = memory.state.lock();
        let done = state.change(&batch.channel, memory, |channel| channel.append(&batch, clock.at));
        // `None`: there were too many orders, and this one was dropped meanwhile.
        done.map_or(AppendAnswer::ForeignEpoch(None), AppendAnswer::Done)
    })
}
