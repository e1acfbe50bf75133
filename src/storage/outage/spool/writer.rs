//! The spool's thread: it writes what is requested, and retries when the disk fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};

use super::store::{Change, Index, LineKey, Store, StoreError};
use super::{
    Answer, Depth, Opened, Request, Settled, Shared, SpoolError, SpoolFsync, SpoolOpenError, SpoolOptions,
};
use crate::storage::disk::{self, Retried};
use crate::support::fault;

/// How many bytes of entries one transaction takes; the request that exceeds this is still included.
const TRANSACTION_BYTES: u64 = 4 << 20;

/// Opens the store, reports the result, and serves until the spool is closed.
pub(super) fn run(
    dir: PathBuf,
    options: SpoolOptions,
    inbox: mpsc::Receiver<Request>,
    opened: oneshot::Sender<Opened>,
) {
    let timer = disk::timer().map_err(|cause| SpoolOpenError::Unusable { dir: dir.clone(), cause });
    let found = timer.and_then(|timer| Ok((timer, Store::open(&dir, options.fsync)?)));
    let (timer, (store, index, formers)) = match found {
        Ok(found) => found,
        Err(error) => {
            let _gone = opened.send(Err(error));
            return;
        }
    };
    let shared = Arc::<Shared>::default();
    let disk = Retried::new(store, Arc::clone(&shared.health));
    let mut writer = Writer { dir, options, disk, index, inbox, shared: Arc::clone(&shared) };
    writer.show_depth();
    if opened.send(Ok((Arc::clone(&shared), formers))).is_err() {
        return;
    }
    let done = timer.block_on(writer.serve());
    writer.inbox.close();
    // Closes the file before anybody is told, so that it can be opened again.
    writer.disk.close();
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
    disk: Retried<Store>,
    index: Index,
    inbox: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
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
                    self.process(None);
                    return None;
                }
                Work::Retry => {
                    self.reopen();
                    None
                }
                // This also processes requests that have come meanwhile.
                Work::Settled => self.process(None),
                Work::Request(request) => self.process(Some(request)),
            };
            if close.is_some() {
                return close;
            }
        }
    }

    async fn next(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let retry_at = self.disk.retry_at();
        tokio::select! {
            biased;
            () = time::sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => Work::Retry,
            request = self.inbox.recv() => request.map_or(Work::End, Work::Request),
            () = shared.wake.notified() => Work::Settled,
        }
    }

    /// Processes requests that have come together, and writes them.
    fn process(&mut self, request: Option<Request>) -> Option<oneshot::Sender<()>> {
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
        if self.disk.files().is_none() {
            return tell(answer, Err(SpoolError::Failed { reason: self.shared.health.fault() }));
        }
        let bytes = Index::cost(&line, &entries);
        if self.index.bytes.saturating_add(bytes) > self.options.bytes {
            return tell(answer, Err(SpoolError::Full));
        }
        group.bytes += bytes;
        let seqs = entries.iter().map(|append| append.seq).collect();
        self.index.append(line.clone(), entries, &mut group.changes);
        group.written.push((line, seqs, answer));
    }

    /// Processes what no longer needs to be on disk. While the disk fails, it stays in `settled`.
    fn settle(&mut self, group: &mut Group) {
        if self.disk.files().is_none() {
            return;
        }
        let Settled { acked, forgotten } = std::mem::take(&mut *self.shared.settled.lock());
        for (line, seq) in acked {
            self.index.acknowledged(&line, seq, &mut group.changes);
            group.settled.acknowledged(line, seq);
        }
        for (line, seqs) in forgotten {
            self.index.forget(&line, &seqs, &mut group.changes);
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
        match self.disk.attempt(write) {
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

    /// Notes that the disk failed, and schedules the next attempt.
    fn fail(&mut self, reason: &str) {
        if let Some(untold) = self.disk.fail(reason) {
            let refused = if self.options.is_required { "refused" } else { "kept in memory only" };
            tracing::error!(
                reason,
                untold,
                "the spool's disk fails; while Redis is away, entries are {refused} until it works"
            );
        }
    }

    /// Tests whether the disk works again. What is on it is kept, except entries that were refused meanwhile.
    fn reopen(&mut self) {
        let opened = self.shared.health.watch(|| Ok(try_again(&self.dir, self.options.fsync)));
        match opened.unwrap_or_else(|_panicked| Err(disk::GAVE_UP.to_owned())) {
            Ok((store, index)) => {
                self.index = index;
                let tries = self.disk.reopened(store);
                self.show_depth();
                self.shared.wake.notify_one();
                tracing::info!(tries, "the spool's disk works again");
            }
            Err(reason) => self.fail(&reason),
        }
    }

    fn show_depth(&self) {
        let Index { entries, bytes, .. } = self.index;
        let file_bytes = self.disk.files().map_or(0, Store::file_bytes);
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
