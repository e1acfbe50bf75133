//! The folder's thread: it writes what is requested, and retries when the disk fails.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};

use super::load::{all, collect, current, load, tidy};
use super::rows::{FORM, Place, json};
use super::store::{Aside, Change, Overlay, Store, StoreError};
use super::{FolderError, Found, Health, Opened, Opening, Planned, Request, Then};
use crate::model::ChannelName;
use crate::storage::Fsync;
use crate::storage::disk::{self, Retried};
use crate::storage::memory::Shared;
use crate::support::fault;

/// How many bytes of changes one transaction takes; the request that exceeds this is still included.
const TRANSACTION_BYTES: usize = 4 << 20;

/// How many bytes of changes may wait for a checkpoint; more cause an early one.
const OVERLAY_BYTES: usize = 16 << 20;

/// How often dropped entries are deleted from the rows, and how often there is a checkpoint if no setting
/// says so.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// The process that used the folder last, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    form: u32,
    /// The boot id of the machine; empty if the system has none.
    boot: String,
    /// The inode of the file with the rows: a copy has another one.
    file: u64,
    /// Whether everything was on disk before it was answered (`fsync = "always"`).
    always: bool,
    /// Whether the folder was closed, so that everything that was answered is on disk.
    closed: bool,
}

/// Opens the files, reads them into memory, reports the result, and serves until the folder is closed.
pub(super) fn run(opening: Opening, inbox: mpsc::Receiver<Request>, opened: oneshot::Sender<Opened>) {
    let dir = opening.dir.clone();
    let timer = disk::timer().map_err(|cause| FolderError::Unusable { dir, cause });
    let (timer, (mut writer, found)) =
        match timer.and_then(|timer| Ok((timer, Writer::open(opening, inbox)?))) {
            Ok(found) => found,
            Err(error) => {
                let _gone = opened.send(Err(error));
                return;
            }
        };
    if opened.send(Ok((Arc::clone(&writer.memory), Arc::clone(&writer.health), found))).is_err() {
        return;
    }
    let done = timer.block_on(writer.serve());
    writer.inbox.close();
    writer.end();
    writer.health.disk.closed();
    drop(writer);
    if let Some(done) = done {
        let _gone = done.send(());
    }
}

struct Writer {
    dir: PathBuf,
    fsync: Fsync,
    /// How long a change may wait for a checkpoint.
    checkpoint_within: Duration,
    disk: Retried<Store>,
    memory: Arc<Shared>,
    health: Arc<Health>,
    inbox: mpsc::Receiver<Request>,
    /// A request that has to wait for the writes before it.
    held: Option<Request>,
    overlay: Overlay,
    /// Rows that may be on disk although they were refused.
    suspects: BTreeSet<Vec<u8>>,
    /// The files were replaced, so the rows on disk are not the earlier ones.
    is_new: bool,
    tidied_at: Instant,
    checkpoint_at: Option<Instant>,
}

/// Requests that are written together.
#[derive(Default)]
struct Group {
    channels: HashSet<ChannelName>,
    changes: Vec<Change>,
    bytes: usize,
    thens: Vec<Then>,
    close: Option<oneshot::Sender<()>>,
}

enum Work {
    Request(Request),
    Due,
    End,
}

impl Writer {
    fn open(opening: Opening, inbox: mpsc::Receiver<Request>) -> Result<(Self, Found), FolderError> {
        let Opening { dir, retention, config } = opening;
        let fsync = config.fsync;
        let checkpoint_within = match fsync {
            Fsync::Interval => Duration::from_millis(config.fsync_interval_ms),
            Fsync::Always | Fsync::Never => TIDY_EVERY,
        };
        let broken = |error: StoreError| FolderError::Unusable {
            dir: dir.clone(),
            cause: std::io::Error::other(error.to_string()),
        };
        let (mut store, aside) = Store::open(&dir, fsync)?;
        let possible_loss = possible_loss(&store, &aside, &dir).map_err(broken)??;
        let loaded = load(&store, retention, &config, possible_loss).map_err(broken)?;
        let (memory, mut found, changes, bytes) = loaded;
        store.compact(bytes).map_err(broken)?;
        let mut overlay = Overlay::default();
        changes.into_iter().for_each(|change| overlay.take(change));
        overlay.take(use_of(&store, fsync, false));
        if possible_loss.is_some() {
            // The rows must have the new epochs and tokens before anybody uses them.
            all(&memory).into_iter().for_each(|change| overlay.take(change));
        }
        store.checkpoint(&overlay).map_err(broken)?;
        let health = Arc::<Health>::default();
        health.set_aside.add(aside.len() as u64);
        found.aside = aside.iter().map(told).collect();
        let writer = Self {
            dir,
            fsync,
            checkpoint_within,
            disk: Retried::new(store, Arc::clone(&health.disk)),
            memory,
            health,
            inbox,
            held: None,
            overlay: Overlay::default(),
            suspects: BTreeSet::new(),
            is_new: false,
            tidied_at: Instant::now(),
            checkpoint_at: None,
        };
        writer.show_size();
        Ok((writer, found))
    }

    /// Returns whom to tell that the folder is closed.
    async fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            let close = match self.next().await {
                Work::End => return None,
                Work::Due => {
                    self.do_what_is_due();
                    None
                }
                Work::Request(request) => self.process(request),
            };
            if close.is_some() {
                return close;
            }
            if self.overlay.bytes >= OVERLAY_BYTES {
                self.checkpoint();
            }
        }
    }

    async fn next(&mut self) -> Work {
        if let Some(held) = self.held.take() {
            return Work::Request(held);
        }
        let tidy_at = self.tidied_at + TIDY_EVERY;
        let due = self.disk.retry_at().or(self.checkpoint_at).map_or(tidy_at, |at| at.min(tidy_at));
        tokio::select! {
            biased;
            () = time::sleep_until(due) => Work::Due,
            request = self.inbox.recv() => request.map_or(Work::End, Work::Request),
        }
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.disk.retry_at().is_some_and(|at| now >= at) {
            self.reopen();
        }
        if now >= self.tidied_at + TIDY_EVERY {
            self.tidied_at = now;
            let mut changes = tidy(&self.memory);
            changes.extend(collect(&self.memory));
            self.write_behind(changes);
        }
        if self.checkpoint_at.is_some_and(|at| now >= at) {
            self.checkpoint();
        }
    }

    /// Executes plans that have come together, and writes their changes.
    fn process(&mut self, request: Request) -> Option<oneshot::Sender<()>> {
        let mut group = Group::default();
        let mut next = Some(request);
        while let Some(request) = next.take() {
            match request {
                Request::Close(done) => {
                    group.close = Some(done);
                    break;
                }
                Request::Do(Some(ref channel), _) if group.channels.contains(channel) => {
                    self.held = Some(request);
                    break;
                }
                Request::Do(channel, plan) => {
                    fault::point(|| format!("folder {}", channel.as_ref().map_or("", ChannelName::as_str)));
                    if let Some(Planned { changes, then }) = plan(&self.memory) {
                        group.channels.extend(channel);
                        group.bytes += changes.iter().map(Change::bytes).sum::<usize>();
                        group.changes.extend(changes);
                        group.thens.push(then);
                    }
                }
            }
            if group.bytes < TRANSACTION_BYTES {
                next = self.inbox.try_recv().ok();
            }
        }
        let close = group.close.take();
        self.write(group);
        close
    }

    fn write(&mut self, group: Group) {
        let Group { changes, thens, .. } = group;
        if thens.is_empty() {
            return;
        }
        match self.append(&changes) {
            Ok(()) => {
                self.health.commits.add(1);
                changes.into_iter().for_each(|change| self.overlay.take(change));
                self.begin_to_wait();
                thens.into_iter().for_each(|then| then(&self.memory, Ok(())));
            }
            Err(reason) => {
                self.suspect(&changes);
                // Later changes are undone first.
                thens.into_iter().rev().for_each(|then| {
                    then(&self.memory, Err(format!("the disk fails: {reason}")));
                });
            }
        }
    }

    /// Writes changes that nobody waits for.
    fn write_behind(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        match self.append(&changes) {
            Ok(()) => {
                changes.into_iter().for_each(|change| self.overlay.take(change));
                self.begin_to_wait();
            }
            Err(_told) => self.suspect(&changes),
        }
        self.show_size();
    }

    fn append(&mut self, changes: &[Change]) -> Result<(), String> {
        if self.disk.files().is_none() {
            return Err(self.health.disk.fault());
        }
        self.disk.attempt(|store| store.append(changes)).map_err(|error| {
            let reason = error.to_string();
            self.fail(&reason);
            reason
        })
    }

    /// These rows may or may not be on disk. When the disk works again, they are set to what memory says.
    fn suspect(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(key, _) | Change::Delete(key) => {
                    self.suspects.insert(key.clone());
                }
                // A dropped channel stays dropped.
                Change::DropIncarnation(_) => self.overlay.take(change.clone()),
            }
        }
    }

    fn begin_to_wait(&mut self) {
        self.checkpoint_at.get_or_insert_with(|| Instant::now() + self.checkpoint_within);
    }

    fn checkpoint(&mut self) {
        self.checkpoint_at = None;
        if self.disk.files().is_none() || self.overlay.is_empty() {
            return;
        }
        let overlay = std::mem::take(&mut self.overlay);
        match self.disk.attempt(|store| store.checkpoint(&overlay)) {
            Ok(()) => self.show_size(),
            Err(error) => {
                self.overlay = overlay;
                self.fail(&error.to_string());
            }
        }
    }

    /// Notes that the disk failed, and schedules the next attempt.
    fn fail(&mut self, reason: &str) {
        if let Some(untold) = self.disk.fail(reason) {
            tracing::error!(
                reason,
                untold,
                "the memory's disk fails; whatever is published or ordered is refused until it works"
            );
        }
    }

    /// Tests whether the disk works again, and corrects what is on it.
    fn reopen(&mut self) {
        // `put_right` takes `self`, so this is a handle of its own.
        let health = Arc::clone(&self.health);
        let opened = health.disk.watch(|| Ok(self.put_right()));
        match opened.unwrap_or_else(|_panicked| Err(disk::GAVE_UP.to_owned())) {
            Ok(store) => {
                (self.overlay, self.is_new) = (Overlay::default(), false);
                self.suspects.clear();
                let tries = self.disk.reopened(store);
                self.show_size();
                tracing::info!(tries, "the memory's disk works again");
            }
            Err(reason) => self.fail(&reason),
        }
    }

    fn put_right(&mut self) -> Result<Store, String> {
        let (mut store, aside) = Store::open(&self.dir, self.fsync).map_err(|error| match error {
            FolderError::Unusable { cause, .. } => cause.to_string(),
            error => error.to_string(),
        })?;
        for aside in &aside {
            self.health.set_aside.add(1);
            tracing::error!(what = told(aside), "everything in memory is written to a new file");
        }
        // Memory still has everything that the files lost.
        self.is_new |= !aside.is_empty();
        store.probe().map_err(|error| error.to_string())?;
        let now: Vec<Change> = match self.is_new {
            true => all(&self.memory),
            false => self.suspects.iter().filter_map(|key| current(&self.memory, key)).collect(),
        };
        let mut overlay = std::mem::take(&mut self.overlay);
        now.into_iter().for_each(|change| overlay.take(change));
        overlay.take(use_of(&store, self.fsync, false));
        let written = store.checkpoint(&overlay);
        self.overlay = overlay;
        written.map_err(|error| error.to_string())?;
        Ok(store)
    }

    /// Writes everything to disk, and closes the files.
    fn end(&mut self) {
        self.write_behind(collect(&self.memory));
        if let Some(store) = self.disk.files() {
            self.overlay.take(use_of(store, self.fsync, true));
        }
        self.checkpoint();
        self.disk.close();
    }

    fn show_size(&self) {
        self.health.file_bytes.set(self.disk.files().map_or(0, Store::file_bytes));
    }
}

fn told(Aside { file, problem }: &Aside) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    format!("an unreadable file was put aside as {name} ({problem})")
}

fn use_of(store: &Store, fsync: Fsync, closed: bool) -> Change {
    let always = fsync == Fsync::Always;
    let used = Use { form: FORM, boot: boot(), file: store.file_number(), always, closed };
    Change::set(&Place::Use, Some(json(&used)))
}

/// The boot id of the machine; empty if the system has none.
fn boot() -> String {
    let told = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    told.map(|told| told.trim().to_owned()).unwrap_or_default()
}

/// Why something that was answered may be missing from the rows; `None` if nothing can be.
fn possible_loss(
    store: &Store,
    aside: &[Aside],
    dir: &Path,
) -> Result<Result<Option<&'static str>, FolderError>, StoreError> {
    let row = store.row(&Place::Use)?;
    let form =
        row.as_ref().and_then(|row| serde_json::from_slice::<serde_json::Value>(row).ok()?["form"].as_u64());
    let used = row.and_then(|row| serde_json::from_slice::<Use>(&row).ok());
    if let Some(form) = form.and_then(|form| u32::try_from(form).ok())
        && form > FORM
    {
        return Ok(Err(FolderError::Newer { dir: dir.to_owned(), form }));
    }
    if !aside.is_empty() {
        return Ok(Ok(Some("not all of its files could be read")));
    }
    let Some(Use { boot: before, file, always, closed, .. }) = used else {
        return Ok(Ok(store.has_rows()?.then_some("it is not known who wrote it")));
    };
    let is_copy = file != store.file_number();
    let has_crashed = !always && !closed && (before.is_empty() || before != boot());
    let why = match (is_copy, has_crashed) {
        (true, _) => Some("it is a copy, which may be older"),
        (false, true) => Some("the machine stopped before the newest changes were on disk"),
        (false, false) => None,
    };
    Ok(Ok(why))
}
