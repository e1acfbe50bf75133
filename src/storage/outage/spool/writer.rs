//! The spool's thread: writes what is asked for, and tries a disk that fails until it works.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};

use super::store::{Change, Index, LineKey, Op, Store, StoreError};
use super::{
    Answer, Depth, Opened, Request, Settled, Shared, SpoolError, SpoolFsync, SpoolOpenError, SpoolOptions,
};
use crate::storage::disk::GAVE_UP;
use crate::support::backoff::Backoff;
use crate::support::fault;
use crate::support::seldom::Seldom;

/// What one transaction takes, in bytes, apart from the request that passes it.
const TRANSACTION_BYTES: u64 = 4 << 20;

/// Between tries of a disk that failed. Each reads all that is on it.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(500),
    max: Duration::from_secs(8),
    jitter: Duration::from_millis(250),
};

/// Opens the store, says how that went, and serves until it is closed.
pub(super) fn run(
    dir: PathBuf,
    options: SpoolOptions,
    inbox: mpsc::Receiver<Request>,
    opened: oneshot::Sender<Opened>,
) {
    // Only for its timer: this thread has nothing else to do while it writes.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let _gone = opened.send(Err(SpoolOpenError::Unusable { dir, cause }));
            return;
        }
    };
    let (store, index, formers) = match Store::open(&dir, options.fsync) {
        Ok(found) => found,
        Err(error) => {
            let _gone = opened.send(Err(error));
            return;
        }
    };
    let shared = Arc::<Shared>::default();
    let mut writer = Writer {
        dir,
        options,
        store: Some(store),
        index,
        inbox,
        shared: Arc::clone(&shared),
        failures: 0,
        retry_at: Instant::now(),
        of_failures: Seldom::default(),
    };
    writer.show_depth();
    if opened.send(Ok((Arc::clone(&shared), formers))).is_err() {
        return;
    }
    let done = runtime.block_on(writer.serve());
    writer.inbox.close();
    // Before anyone is told, so that the file can be opened anew.
    writer.let_go();
    shared.health.closed();
    drop(writer);
    if let Some(done) = done {
        let _gone = done.send(());
    }
}

#[derive(Debug)]
struct Writer {
    dir: PathBuf,
    options: SpoolOptions,
    /// `None` while the disk fails.
    store: Option<Store>,
    index: Index,
    inbox: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
    /// Tries of the disk that failed in a row.
    failures: u32,
    retry_at: Instant,
    of_failures: Seldom,
}

/// Requests that are written together.
#[derive(Debug, Default)]
struct Group {
    changes: Vec<Change>,
    written: Vec<(LineKey, Vec<u64>, Answer)>,
    settled: Settled,
    bytes: u64,
    close: Option<oneshot::Sender<()>>,
}

/// What the thread has to do next.
enum Work {
    Request(Request),
    Settled,
    /// A disk that failed is to be tried anew.
    Retry,
    End,
}

impl Writer {
    /// Answers whom to tell that it is closed.
    async fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            let close = match self.next().await {
                Work::End => {
                    self.turn(None);
                    return None;
                }
                Work::Retry => {
                    self.reopen();
                    None
                }
                // It takes whatever else has come.
                Work::Settled => self.turn(None),
                Work::Request(request) => self.turn(Some(request)),
            };
            if close.is_some() {
                return close;
            }
        }
    }

    async fn next(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            () = time::sleep_until(self.retry_at), if self.store.is_none() => Work::Retry,
            request = self.inbox.recv() => request.map_or(Work::End, Work::Request),
            () = shared.wake.notified() => Work::Settled,
        }
    }

    /// Takes what has come together, and writes it.
    fn turn(&mut self, request: Option<Request>) -> Option<oneshot::Sender<()>> {
        let mut group = Group::default();
        match request {
            Some(request) => self.take(request, &mut group),
            None => self.settle(&mut group),
        }
        while group.close.is_none()
            && group.bytes < TRANSACTION_BYTES
            && let Ok(request) = self.inbox.try_recv()
        {
            self.take(request, &mut group);
        }
        let close = group.close.take();
        self.write(group);
        close
    }

    fn take(&mut self, request: Request, group: &mut Group) {
        // What was settled before the request was made, and nothing that was settled because of it.
        self.settle(group);
        let (line, entries, answer) = match request {
            Request::Append(line, entries, answer) => (line, entries, answer),
            #[cfg(test)]
            Request::Close(done) => {
                group.close = Some(done);
                return;
            }
        };
        fault::point(|| format!("spool {}", line.1));
        if answer.is_closed() {
            return;
        }
        if self.store.is_none() {
            return tell(answer, Err(SpoolError::Failed { reason: self.shared.health.fault() }));
        }
        let bytes = Index::cost(&line, &entries);
        if self.index.bytes.saturating_add(bytes) > self.options.bytes {
            return tell(answer, Err(SpoolError::Full));
        }
        group.bytes += bytes;
        let seqs = entries.iter().map(|append| append.seq).collect();
        self.index.apply(Op::Append { line: line.clone(), entries }, &mut group.changes);
        group.written.push((line, seqs, answer));
    }

    /// Takes what need not be on disk any more. While the disk fails it stays where it is.
    fn settle(&mut self, group: &mut Group) {
        if self.store.is_none() {
            return;
        }
        let Settled { acked, forgotten } = std::mem::take(&mut *self.shared.settled.lock());
        for (line, seq) in acked {
            self.index.apply(Op::Acknowledged { line: line.clone(), seq }, &mut group.changes);
            group.settled.acknowledged(line, seq);
        }
        for (line, seqs) in forgotten {
            self.index.apply(Op::Forget { line: line.clone(), seqs: seqs.clone() }, &mut group.changes);
            group.settled.forgotten.push((line, seqs));
        }
    }

    fn write(&mut self, group: Group) {
        let Group { changes, written, settled, .. } = group;
        if changes.is_empty() && written.is_empty() {
            return;
        }
        let is_empty = self.index.is_empty();
        let write = |store: &mut Store| -> Result<bool, StoreError> {
            if changes.is_empty() {
                return Ok(false);
            }
            store.write(&changes)?;
            if is_empty {
                store.compact()?;
            }
            Ok(true)
        };
        match self.attempt(write) {
            Ok(has_written) => {
                self.shared.commits.add(u64::from(has_written));
                self.show_depth();
                for (line, seqs, answer) in written {
                    if answer.send(Ok(())).is_err() {
                        self.undo(line, seqs);
                    }
                }
            }
            Err(error) => {
                let reason = error.to_string();
                self.fail(&reason);
                {
                    let mut held = self.shared.settled.lock();
                    settled.acked.into_iter().for_each(|(line, seq)| held.acknowledged(line, seq));
                    held.forgotten.extend(settled.forgotten);
                }
                for (line, seqs, answer) in written {
                    // Some of it may be on disk.
                    self.undo(line, seqs);
                    tell(answer, Err(SpoolError::Failed { reason: reason.clone() }));
                }
            }
        }
    }

    /// Nobody was told that these were written, so they were not.
    fn undo(&self, line: LineKey, seqs: Vec<u64>) {
        self.shared.settled.lock().forgotten.push((line, seqs));
        self.shared.wake.notify_one();
    }

    /// Does something with the disk; how long that takes shows.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = self.store.as_mut().and_then(|store| self.shared.health.watch(|| act(store)));
        done.unwrap_or_else(|| Err(StoreError::Corrupted(GAVE_UP.to_owned())))
    }

    /// The disk failed: it is tried anew after a while.
    fn fail(&mut self, reason: &str) {
        self.let_go();
        self.failures += 1;
        self.retry_at = Instant::now() + RETRY.wait(self.failures);
        self.shared.health.set_fault(Some(reason));
        if let Some(untold) = self.of_failures.may_tell(Instant::now()) {
            let refused = if self.options.is_required { "refused" } else { "kept in memory only" };
            tracing::error!(
                reason,
                untold,
                "the spool's disk fails: what would be accepted while Redis is away is {refused} until it works"
            );
        }
    }

    /// Closes the file.
    fn let_go(&mut self) {
        let store = self.store.take();
        let _panic = catch_unwind(AssertUnwindSafe(|| drop(store)));
    }

    /// Tries whether the disk works again. What is on it counts; what was refused meanwhile goes.
    fn reopen(&mut self) {
        let opened = self.shared.health.watch(|| try_again(&self.dir, self.options.fsync));
        match opened.unwrap_or_else(|| Err(GAVE_UP.to_owned())) {
            Ok((store, index)) => {
                (self.store, self.index) = (Some(store), index);
                let tries = std::mem::take(&mut self.failures);
                self.shared.health.set_fault(None);
                self.show_depth();
                self.shared.wake.notify_one();
                tracing::info!(tries, "the spool's disk works again");
            }
            Err(reason) => self.fail(&reason),
        }
    }

    fn show_depth(&self) {
        let Index { entries, bytes, .. } = self.index;
        let file_bytes = self.store.as_ref().map_or(0, Store::file_bytes);
        *self.shared.depth.lock() = Depth { entries, bytes, file_bytes };
    }
}

/// Opens the file, and makes sure that there is room for more.
fn try_again(dir: &Path, fsync: SpoolFsync) -> Result<(Store, Index), String> {
    let (store, index, _known) = Store::open(dir, fsync).map_err(|error| match error {
        SpoolOpenError::Unusable { cause, .. } => cause.to_string(),
        SpoolOpenError::Unreadable { problem, .. } => problem,
        SpoolOpenError::InUse { .. } => "another process has its file".to_owned(),
    })?;
    store.probe().map_err(|error| error.to_string())?;
    Ok((store, index))
}

/// Who does not wait any more needs no answer.
fn tell(answer: Answer, result: Result<(), SpoolError>) {
    let _gone = answer.send(result);
}
