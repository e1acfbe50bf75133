//! The spool's thread: it writes what is requested, and retries when the disk fails.

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

/// How many bytes of entries one transaction takes; the request that exceeds this is still included.
const TRANSACTION_BYTES: u64 = 4 << 20;

/// The pauses between attempts on a disk that failed. Each attempt reads the whole file.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(500),
    max: Duration::from_secs(8),
    jitter: Duration::from_millis(250),
};

/// Opens the store, reports the result, and serves until the spool is closed.
pub(super) fn run(
    dir: PathBuf,
    options: SpoolOptions,
    inbox: mpsc::Receiver<Request>,
    opened: oneshot::Sender<Opened>,
) {
    // Only for its timer: while this thread writes, it has nothing else to do.
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
    // Closes the file before anybody is told, so that it can be opened again.
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
    /// Consecutive attempts that failed.
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

/// The next task of the thread.
enum Work {
    Request(Request),
    Settled,
    /// Retry a disk that failed.
    Retry,
    End,
}

impl Writer {
    /// Returns whom to tell that the spool is closed.
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
                // This also processes requests that have come meanwhile.
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

    /// Processes requests that have come together, and writes them.
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
        // Includes what was settled before the request was made, and nothing that was settled because of it.
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

    /// Processes what no longer needs to be on disk. While the disk fails, it stays in `settled`.
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
                    // Some of these entries may be on disk.
                    self.undo(line, seqs);
                    tell(answer, Err(SpoolError::Failed { reason: reason.clone() }));
                }
            }
        }
    }

    /// Removes entries whose caller was not told that they were written.
    fn undo(&self, line: LineKey, seqs: Vec<u64>) {
        self.shared.settled.lock().forgotten.push((line, seqs));
        self.shared.wake.notify_one();
    }

    /// Accesses the disk, and lets the duration be seen meanwhile.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = self.store.as_mut().and_then(|store| self.shared.health.watch(|| act(store)));
        done.unwrap_or_else(|| Err(StoreError::Corrupted(GAVE_UP.to_owned())))
    }

    /// Notes that the disk failed, and schedules the next attempt.
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
                "the spool's disk fails; while Redis is away, entries are {refused} until it works"
            );
        }
    }

    /// Closes the file.
    fn let_go(&mut self) {
        let store = self.store.take();
        let _panic = catch_unwind(AssertUnwindSafe(|| drop(store)));
    }

    /// Tests whether the disk works again. What is on it is kept, except entries that were refused meanwhile.
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

/// Opens the file, and verifies that there is room for more.
fn try_again(dir: &Path, fsync: SpoolFsync) -> Result<(Store, Index), String> {
    let (store, index, _known) = Store::open(dir, fsync).map_err(|error| match error {
        SpoolOpenError::Unusable { cause, .. } => cause.to_string(),
        SpoolOpenError::Unreadable { problem, .. } => problem,
        SpoolOpenError::InUse { .. } => "another process has its file".to_owned(),
    })?;
    store.probe().map_err(|error| error.to_string())?;
    Ok((store, index))
}

/// Answers a caller. One that no longer waits needs no answer.
fn tell(answer: Answer, result: Result<(), SpoolError>) {
    let _gone = answer.send(result);
}
