use std::fs;

use bytes::Bytes;
use chrono::DateTime;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::store::{MAIN_FILE, RECENT_FILE};
use super::*;
use crate::model::{DraftEntry, EntryKind, Epoch, JobId, Marks, NodeId, OrderId};
use crate::storage::disk::{FULL, Fault, HANGS, eventually};
use crate::storage::memory::MemoryBackend;
use crate::storage::{
    Append, AppendAnswer, AppendBatch, Appended, Cancelling, Ending, Fsync, Held, Idempotency, JobBounds,
    JobState, JobView, Jobs, LatestOf, LatestPage, LatestQuery, Log, NewJob, Page, PageLimit, Record,
    RecordKind, Records,
};

const HOUR: Duration = Duration::from_secs(3600);
const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };
const ALL_LATEST: LatestQuery<'_> = LatestQuery { after: None, limit: ALL, of: LatestOf::RemovedToo };

fn config(fsync: Fsync) -> MemoryConfig {
    // If the test machine stalls for a while, that must not look like a disk that hangs.
    MemoryConfig { fsync, fsync_interval_ms: 5, deadline_ms: 30_000, ..MemoryConfig::default() }
}

fn retention() -> Retention {
    Retention { entries: 12, ..Retention::default() }
}

async fn open_as(dir: &Path, fsync: Fsync) -> (MemoryBackend, Found) {
    MemoryBackend::open(retention(), config(fsync), dir).await.unwrap()
}

async fn open(dir: &Path) -> (MemoryBackend, Found) {
    open_as(dir, Fsync::Never).await
}

/// A storage with a new folder.
async fn fresh() -> (tempfile::TempDir, MemoryBackend) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    (dir, store)
}

/// Drops a storage as the end of a process does: nothing more is written, and the files can be opened.
async fn crash(store: MemoryBackend, dir: &Path) {
    let fault = Fault::of(dir);
    fault.fail_after(Some(0));
    store.close().await;
    drop(store);
    fault.fail_after(None);
}

fn name(channel: &str) -> ChannelName {
    channel.parse().unwrap()
}

fn draft(kind: EntryKind, key: Option<&str>, n: u64, late: bool) -> DraftEntry {
    let (key, marks) = (key.map(Into::into), Marks { late, missed_before: false });
    DraftEntry { kind, key, marks, ..DraftEntry::price(n as i64, format!("{{\"n\":{n}}}")) }
}

fn new_job() -> NewJob {
    NewJob { id: JobId(uuid::Uuid::new_v4()), payload: Bytes::new(), kind: None, idempotency: None }
}

fn price(seq: u64) -> Append {
    let key = format!("k{}", seq % 3);
    Append { seq, prev: seq - 1, draft: draft(EntryKind::PriceUpdate, Some(&key), seq, false), fence: None }
}

async fn begin(store: &MemoryBackend, channel: &str, node: NodeId) -> AppendBatch {
    let channel = name(channel);
    let epoch = store.open(&channel, node, &Epoch::random()).await.unwrap().epoch;
    AppendBatch { channel, epoch, producer: node, entries: Vec::new() }
}

/// Appends so many prices to `zone:a`; returns the batch.
async fn filled(store: &MemoryBackend, count: u64) -> AppendBatch {
    let entries = (1..=count).map(price).collect();
    let batch = AppendBatch { entries, ..begin(store, "zone:a", NodeId::random()).await };
    store.append(&batch).await.unwrap();
    batch
}

fn offsets(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.offset).collect()
}

/// A log, its latest entries, and the newest sequences of its producers.
type SeenLog = (ChannelName, Page, LatestPage, Vec<(NodeId, u64)>);

/// Everything that can be read of logs and records.
#[derive(Debug, PartialEq)]
struct Seen {
    logs: Vec<SeenLog>,
    records: Vec<Record>,
}

async fn seen(store: &MemoryBackend, channels: &[ChannelName]) -> Seen {
    let mut logs = Vec::new();
    for channel in channels {
        let page = store.read_now_within(channel, None, ALL);
        let latest = store.latest_now(channel, ALL_LATEST);
        let mut producers = store.producers(channel);
        producers.sort_unstable();
        logs.push((channel.clone(), page, latest, producers));
    }
    let mut records = Vec::new();
    for kind in [RecordKind::Zone, RecordKind::Revocation] {
        records.extend(store.list(kind, None, 1_000).await.unwrap());
    }
    Seen { logs, records }
}

async fn jobs(store: &MemoryBackend) -> Vec<JobView> {
    store.list_jobs(None, None, 1_000).await.unwrap()
}

/// The same without the fields in which two equal storages differ.
fn alike(views: Vec<JobView>) -> Vec<JobView> {
    let plain = DateTime::UNIX_EPOCH;
    views.into_iter().map(|job| JobView { token: 0, enqueued_at: plain, changed_at: plain, ..job }).collect()
}

// A storage that crashes and whose disk fails, compared with one without faults

/// A step that both storages take.
#[derive(Debug, Clone)]
enum Step {
    Append(AppendBatch),
    Put(RecordKind, String, Bytes),
    Delete(RecordKind, String),
    Enqueue(NewJob),
    Claim,
    /// Uses the newest claim of this job.
    Finish(JobId, Ending),
    Commit(JobId),
    Cancel(JobId),
    Hold(String),
}

const BOUNDS: JobBounds = JobBounds { unfinished: 30, kept: 40, kept_for: HOUR };

struct Schedule {
    rng: StdRng,
    dir: tempfile::TempDir,
    kept: MemoryBackend,
    plain: MemoryBackend,
    channels: Vec<ChannelName>,
    /// By channel, its epoch and the newest sequence.
    chains: Vec<(Epoch, u64)>,
    node: NodeId,
    ids: Vec<JobId>,
    /// By job, the newest token on either.
    tokens: std::collections::HashMap<JobId, (u64, u64)>,
    token: u64,
    fence: u64,
    crashes: u32,
    repairs: u32,
}

impl Schedule {
    async fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (kept, found) = open(dir.path()).await;
        assert!(found.is_whole() && found.channels == 0, "{found}");
        let plain = MemoryBackend::new(retention(), config(Fsync::Never)).0;
        let order = ChannelName::order(OrderId::random());
        let channels = vec![name("zone:a"), name("zone:b"), name("registry:providers"), order];
        Self {
            rng: StdRng::seed_from_u64(seed),
            dir,
            kept,
            plain,
            chains: Vec::new(),
            channels,
            node: NodeId::random(),
            ids: Vec::new(),
            tokens: Default::default(),
            token: 0,
            fence: 0,
            crashes: 0,
            repairs: 0,
        }
    }

    fn pick(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    fn draft(&mut self, n: u64) -> DraftEntry {
        let key = format!("k{}", self.pick(6));
        let late = self.pick(4) == 0;
        match self.pick(20) {
            0 => draft(EntryKind::ZoneRemoved, None, n, late),
            1..=3 => draft(EntryKind::KeyRemoved, Some(&key), n, late),
            _ => draft(EntryKind::PriceUpdate, Some(&key), n / (1 + u64::from(late)), late),
        }
    }

    fn step(&mut self) -> Step {
        match self.pick(15) {
            0..=6 => {
                let at = self.pick(self.channels.len());
                let count = 1 + self.pick(5) as u64;
                let (epoch, last) = self.chains[at].clone();
                let entries = (last + 1..=last + count)
                    .map(|seq| Append { seq, prev: seq - 1, draft: self.draft(seq), fence: Some(seq) })
                    .collect();
                self.chains[at].1 += count;
                let (channel, producer) = (self.channels[at].clone(), self.node);
                Step::Append(AppendBatch { channel, epoch, producer, entries })
            }
            7 => {
                Step::Put(RecordKind::Zone, format!("z{}", self.pick(4)), format!("{}", self.pick(99)).into())
            }
            8 => Step::Delete(RecordKind::Zone, format!("z{}", self.pick(4))),
            9 | 10 => {
                let id = JobId(uuid::Uuid::new_v4());
                self.ids.push(id);
                let idempotency = (self.pick(2) == 0)
                    .then(|| Idempotency { key: format!("key {}", id.0), fingerprint: "same".to_owned() });
                let kind = (self.pick(3) == 0).then(|| "paper".into());
                Step::Enqueue(NewJob { id, payload: Bytes::from_static(b"{\"a\":\n1}"), kind, idempotency })
            }
            11 => Step::Claim,
            12 => {
                let Some(id) = self.any_claimed() else { return Step::Claim };
                let ending = match self.pick(4) {
                    0 => Ending::Retry { after: Duration::ZERO, attempt: Some(2) },
                    1 => Ending::Dead { error: "in vain".to_owned() },
                    _ => Ending::Done,
                };
                Step::Finish(id, ending)
            }
            13 => match (self.pick(2), self.any_claimed(), self.ids.last()) {
                (0, Some(id), _) => Step::Commit(id),
                (_, _, Some(id)) => Step::Cancel(*id),
                _ => Step::Claim,
            },
            _ => Step::Hold(format!("lease {}", self.pick(3))),
        }
    }

    fn any_claimed(&mut self) -> Option<JobId> {
        let mut claimed: Vec<JobId> = self.tokens.keys().copied().collect();
        claimed.sort_unstable_by_key(|id| id.0);
        if claimed.is_empty() { None } else { Some(claimed[self.pick(claimed.len())]) }
    }

    /// Takes a step on one of the two; returns whether it was accepted.
    async fn apply(&mut self, step: &Step, is_kept: bool) -> bool {
        let store = if is_kept { self.kept.clone() } else { self.plain.clone() };
        let token = |tokens: &std::collections::HashMap<JobId, (u64, u64)>, id: &JobId| {
            tokens.get(id).map_or(0, |(kept, plain)| if is_kept { *kept } else { *plain })
        };
        match step {
            Step::Append(batch) => match store.append(batch).await {
                Ok(AppendAnswer::Done(results)) => {
                    let is_fine =
                        |result: &Appended| matches!(result, Appended::Applied { .. } | Appended::Duplicate);
                    assert!(results.iter().all(is_fine), "{results:?}");
                    true
                }
                Ok(answer) => panic!("{answer:?}"),
                Err(_) => false,
            },
            Step::Put(kind, key, value) => store.put(*kind, key, value.clone(), HOUR).await.is_ok(),
            Step::Delete(kind, key) => store.delete(*kind, key).await.is_ok(),
            Step::Enqueue(job) => store.enqueue(job, &BOUNDS).await.is_ok(),
            Step::Claim => {
                let Ok(claimed) = store.claim("paper", 2, HOUR).await else { return false };
                for job in claimed {
                    let known = self.tokens.entry(job.id).or_default();
                    if is_kept {
                        assert!(job.token > self.token, "tokens only grow");
                        self.token = job.token;
                        known.0 = job.token;
                    } else {
                        known.1 = job.token;
                    }
                }
                true
            }
            Step::Finish(id, ending) => store.finish(*id, token(&self.tokens, id), ending).await.is_ok(),
            Step::Commit(id) => store.commit(*id, token(&self.tokens, id), HOUR).await.is_ok(),
            Step::Cancel(id) => store.cancel(*id).await.is_ok(),
            Step::Hold(key) => {
                if !is_kept {
                    return true;
                }
                let holder = NodeId::random().to_string();
                match store.hold(key, &holder, HOUR).await {
                    Ok(Some(fence)) => {
                        assert!(fence > self.fence, "fences only grow");
                        self.fence = fence;
                        store.let_go(key, &holder).await.unwrap();
                        true
                    }
                    Ok(None) => panic!("somebody has a lease that was released"),
                    Err(_) => false,
                }
            }
        }
    }

    async fn compare(&self, when: &str) {
        let (kept, plain) = (seen(&self.kept, &self.channels).await, seen(&self.plain, &self.channels).await);
        assert_eq!(kept, plain, "{when}");
        assert_eq!(alike(jobs(&self.kept).await), alike(jobs(&self.plain).await), "{when}");
    }

    async fn crash(&mut self) {
        self.crashes += 1;
        let fsync = [Fsync::Always, Fsync::Interval, Fsync::Never][self.pick(3)];
        let path = self.dir.path().to_owned();
        let idle = MemoryBackend::new(retention(), config(fsync)).0;
        crash(std::mem::replace(&mut self.kept, idle), &path).await;
        let (kept, found) = open_as(&path, fsync).await;
        assert!(found.is_whole(), "{found}");
        self.kept = kept;
        // A claim may have been written although its caller was not told.
        for job in jobs(&self.kept).await.into_iter().filter(|job| job.state == JobState::Claimed) {
            self.tokens.entry(job.id).or_default().0 = job.token;
            self.token = self.token.max(job.token);
        }
    }

    async fn run(&mut self, steps: usize) {
        for channel in self.channels.clone() {
            let (epoch, node) = (Epoch::random(), self.node);
            self.chains.push((epoch.clone(), 0));
            self.kept.open(&channel, node, &epoch).await.unwrap();
            self.plain.open(&channel, node, &epoch).await.unwrap();
        }
        for n in 0..steps {
            let step = self.step();
            let fault = Fault::of(self.dir.path());
            let fails = self.pick(6) == 0;
            if fails {
                let writes = self.pick(12) as u64;
                fault.fail_after(Some(writes));
            }
            let before = seen(&self.kept, &self.channels).await;
            let jobs_before = alike(jobs(&self.kept).await);
            let mut is_done = self.apply(&step, true).await;
            if fails {
                if !is_done {
                    assert_eq!(
                        seen(&self.kept, &self.channels).await,
                        before,
                        "a refused change is not there"
                    );
                    assert_eq!(alike(jobs(&self.kept).await), jobs_before);
                }
                if self.pick(2) == 0 {
                    fault.fail_after(None);
                    self.crash().await;
                    // What was in progress is either there or not: each job is checked by itself.
                    let is_of_jobs =
                        !matches!(step, Step::Append(_) | Step::Put(..) | Step::Delete(..) | Step::Hold(_));
                    is_done |= is_of_jobs && alike(jobs(&self.kept).await) != jobs_before;
                } else {
                    fault.fail_after(None);
                    self.repairs += 1;
                    eventually(async || {
                        let state = self.kept.folder().unwrap().state();
                        (state == DiskState::Working).then_some(())
                    })
                    .await;
                }
            }
            // On a busy machine the disk may also miss its deadline without a fault.
            while !is_done {
                is_done = self.apply(&step, true).await;
            }
            self.apply(&step, false).await;
            self.compare(&format!("step {n}: {step:?}")).await;
            if self.pick(15) == 0 {
                self.crash().await;
                self.compare(&format!("after a crash behind step {n}")).await;
            }
        }
    }
}

/// `ZONEWIRE_SIM_SEEDS` sets the number of schedules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_survive_crashes_and_faults_of_the_disk() {
    let seeds = std::env::var("ZONEWIRE_SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10);
    let (mut crashes, mut repairs) = (0, 0);
    for seed in 0..seeds {
        let mut schedule = Schedule::new(seed).await;
        schedule.run(60).await;
        crashes += schedule.crashes;
        repairs += schedule.repairs;
    }
    assert!(u64::from(crashes) > seeds && repairs > 0, "{crashes} crashes, {repairs} repairs");
}

// Single scenarios

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trimmed_log_takes_no_more_room_than_its_entries() {
    let (dir, store) = fresh().await;
    let batch = begin(&store, "zone:a", NodeId::random()).await;
    for seq in 1..=500 {
        store.append(&AppendBatch { entries: vec![price(seq)], ..batch.clone() }).await.unwrap();
    }
    store.close().await;
    let (files, _) = store::Store::open(dir.path(), Fsync::Never).unwrap();
    let mut entries = 0;
    files.each_row(|key, row| entries += usize::from(key[0] == b'e' && row.is_some())).unwrap();
    assert_eq!(entries, 12);
    drop(files);
    let (store, found) = open(dir.path()).await;
    assert!(found.is_whole(), "{found}");
    assert_eq!(offsets(&store.read_now_within(&batch.channel, None, ALL)), (489..=500).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_drops_what_expired_or_exceeds_the_bounds() {
    let (dir, store) = fresh().await;
    let batch = filled(&store, 10).await;
    store.put(RecordKind::Zone, "short", Bytes::from_static(b"{}"), Duration::from_millis(1)).await.unwrap();
    store.put(RecordKind::Zone, "long", Bytes::from_static(b"{}"), HOUR).await.unwrap();
    store.put(RecordKind::Node, "me", Bytes::from_static(b"{}"), HOUR).await.unwrap();
    crash(store, dir.path()).await;
    let retention = Retention { age_s: 0, ..retention() };
    let (store, _) = MemoryBackend::open(retention, config(Fsync::Never), dir.path()).await.unwrap();
    let page = store.read_now_within(&batch.channel, None, ALL);
    assert_eq!((page.entries.len(), page.top, page.first), (0, 10, 11), "its positions stay");
    assert_eq!(page.epoch.as_ref(), Some(&batch.epoch));
    assert_eq!(store.keys(&batch.channel).await.unwrap().len(), 3, "and so do the latest prices");
    let records = store.list(RecordKind::Zone, None, 10).await.unwrap();
    assert_eq!(records.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["long"]);
    assert_eq!(store.get(RecordKind::Node, "me").await.unwrap(), None, "its process is gone");
    crash(store, dir.path()).await;
    let small = MemoryConfig { total_bytes: 3_000, ..config(Fsync::Never) };
    let (store, _) = MemoryBackend::open(self::retention(), small, dir.path()).await.unwrap();
    assert!(store.usage().bytes <= 3_000, "{:?}", store.usage());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_told_that_the_folder_is_in_use() {
    let (dir, _store) = fresh().await;
    let second = MemoryBackend::open(retention(), config(Fsync::Never), dir.path()).await;
    let said = second.map(|_| ()).unwrap_err();
    assert!(matches!(said, FolderError::InUse { .. }), "{said}");
    assert!(said.to_string().contains("in use by another process"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.0.close().await;
    let (mut files, _) = store::Store::open(dir.path(), Fsync::Never).unwrap();
    let mut overlay = store::Overlay::default();
    overlay.take(Change::set(&rows::Place::Use, Some(b"{\"form\":2,\"new\":1}".to_vec())));
    files.checkpoint(&overlay).unwrap();
    drop(files);
    let second = MemoryBackend::open(retention(), config(Fsync::Never), dir.path()).await;
    assert!(matches!(second, Err(FolderError::Newer { form: 2, .. })));
}

/// A folder with ten entries of a channel, as a crash leaves it.
async fn ten(dir: &Path) -> AppendBatch {
    let (store, _) = open(dir).await;
    let batch = filled(&store, 10).await;
    store.put(RecordKind::Zone, "a", Bytes::from_static(b"{}"), HOUR).await.unwrap();
    crash(store, dir).await;
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_file_is_put_aside_and_reported() {
    for file in [MAIN_FILE, RECENT_FILE] {
        let dir = tempfile::tempdir().unwrap();
        let batch = ten(dir.path()).await;
        fs::write(dir.path().join(file), "what somebody else put here\n".repeat(500)).unwrap();
        let (store, found) = open(dir.path()).await;
        assert_eq!(found.aside.len(), 1, "{found}");
        assert!(found.renewed.is_some() && found.to_string().contains("unreadable"), "{found}");
        assert!(dir.path().join(format!("{file}.unreadable")).exists());
        assert_eq!(store.usage().disk_set_aside, 1);
        // Memory continues, and the next start finds nothing wrong.
        let page = store.read_now_within(&batch.channel, None, ALL);
        assert_ne!(page.epoch.as_ref(), Some(&batch.epoch));
        let batch = filled(&store, 1).await;
        crash(store, dir.path()).await;
        let (store, found) = open(dir.path()).await;
        assert!(found.is_whole(), "{found}");
        assert!(!store.read_now_within(&batch.channel, None, ALL).entries.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readable_part_of_damaged_files_is_restored() {
    let mut rng = StdRng::seed_from_u64(7);
    let whole = tempfile::tempdir().unwrap();
    let batch = ten(whole.path()).await;
    let mut found_some = 0;
    for round in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        for file in [MAIN_FILE, RECENT_FILE] {
            fs::copy(whole.path().join(file), dir.path().join(file)).unwrap();
        }
        let file = dir.path().join(if round % 2 == 0 { MAIN_FILE } else { RECENT_FILE });
        let mut bytes = fs::read(&file).unwrap();
        let at = rng.random_range(0..bytes.len());
        match round % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x55),
            _ => bytes[at..].fill(0),
        }
        fs::write(&file, &bytes).unwrap();
        let (store, found) = open(dir.path()).await;
        // The folder is a copy at best.
        assert!(found.renewed.is_some() || found.channels == 0, "{found}");
        let page = store.read_now_within(&batch.channel, None, ALL);
        assert_ne!(page.epoch.as_ref(), Some(&batch.epoch));
        for entry in &page.entries {
            let expected =
                batch.entries[usize::try_from(entry.offset - 1).unwrap()].at(batch.producer, entry.offset);
            assert_eq!(*entry, expected, "round {round}");
        }
        found_some += usize::from(page.entries.len() == 10);
        store.close().await;
        assert!(open(dir.path()).await.1.is_whole());
    }
    assert!(found_some > 5, "{found_some}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_continues_in_new_epochs_and_repeats_no_fencing_token() {
    let (dir, store) = fresh().await;
    let batch = filled(&store, 10).await;
    let fence = store.hold("lease", "me", HOUR).await.unwrap().unwrap();
    store.close().await;
    let copy = tempfile::tempdir().unwrap();
    for file in [MAIN_FILE, RECENT_FILE] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let (store, found) = open(copy.path()).await;
    assert_eq!(found.renewed, Some("it is a copy, which may be older"));
    let page = store.read_now_within(&batch.channel, None, ALL);
    assert_eq!(offsets(&page), (1..=10).collect::<Vec<_>>());
    assert_ne!(page.epoch.as_ref(), Some(&batch.epoch));
    let next = store.hold("lease", "another", HOUR).await.unwrap().unwrap();
    assert!(next > fence + 1_000, "the holder is gone, and {next} is a new token");
    // The original continues as it was.
    assert!(open(dir.path()).await.1.is_whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_is_reported_and_recovers_by_itself() {
    let (dir, store) = fresh().await;
    let mut batch = filled(&store, 3).await;
    let fault = Fault::of(dir.path());
    fault.begin(FULL);
    batch.entries = vec![price(4)];
    for _ in 0..3 {
        let refused = store.append(&batch).await.unwrap_err();
        assert!(matches!(refused, StorageError::NotDurable { .. }), "{refused}");
        assert!(refused.to_string().contains("must be on disk first, and the disk fails"), "{refused}");
    }
    let bounds = JobBounds { unfinished: 10, kept: 10, kept_for: HOUR };
    let new = new_job();
    assert!(store.enqueue(&new, &bounds).await.is_err());
    assert_eq!(store.job(new.id).await.unwrap(), None, "a refused change is not there");
    let usage = store.usage();
    assert_eq!((usage.disk.as_str(), usage.disk_refused), ("failed", 4), "{usage:?}");
    assert_eq!(offsets(&store.read_now_within(&batch.channel, None, ALL)), [1, 2, 3], "reading continues");
    fault.end(FULL);
    eventually(async || (store.usage().disk == "working").then_some(())).await;
    store.append(&batch).await.unwrap();
    let before = seen(&store, std::slice::from_ref(&batch.channel)).await;
    crash(store, dir.path()).await;
    let (store, found) = open(dir.path()).await;
    assert!(found.is_whole(), "{found}");
    assert_eq!(seen(&store, std::slice::from_ref(&batch.channel)).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_a_hanging_disk_no_longer_than_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let config = MemoryConfig { deadline_ms: 50, ..config(Fsync::Never) };
    let (store, _) = MemoryBackend::open(retention(), config, dir.path()).await.unwrap();
    // The machine may stall.
    let mut batch = eventually(async || {
        let epoch = store.open(&name("zone:a"), NodeId::random(), &Epoch::random()).await.ok()?.epoch;
        let producer = NodeId::random();
        Some(AppendBatch { channel: name("zone:a"), epoch, producer, entries: vec![price(1)] })
    })
    .await;
    let fault = Fault::of(dir.path());
    fault.begin(HANGS);
    assert!(matches!(
        store.append(&batch).await,
        Err(StorageError::Deadline { .. } | StorageError::NotDurable { .. })
    ));
    eventually(async || (store.usage().disk == "stalled").then_some(())).await;
    batch.entries = vec![price(1)];
    assert!(
        matches!(store.append(&batch).await, Err(StorageError::NotDurable { .. })),
        "not waited for at all"
    );
    assert_eq!(store.read_now_within(&batch.channel, None, ALL).entries.len(), 0);
    fault.end(HANGS);
    eventually(async || store.append(&batch).await.ok()).await;
    assert_eq!(
        offsets(&store.read_now_within(&batch.channel, None, ALL)),
        [1],
        "once, though it was asked twice"
    );
}

#[test]
fn times_outlast_the_process_even_if_the_clock_is_set_back() {
    let at = Instant::now();
    let (then, now) = (Clock { at, wall_us: 10_000_000 }, Clock { at: at + HOUR, wall_us: 15_000_000 });
    let second = Duration::from_secs(1);
    assert_eq!(now.moment(then.us(at + 7 * second), then.wall_us), now.at + 2 * second);
    assert_eq!(now.moment(then.us(at - 2 * second), then.wall_us), now.at - 7 * second);
    let set_back = Clock { at, wall_us: 1_000_000 };
    assert_eq!(set_back.moment(then.us(at + 7 * second), then.wall_us), at + 7 * second);
    assert_eq!(set_back.past(then.us(at + 7 * second)), at);
    assert_eq!(now.moment(i64::MIN, 0).min(at), now.moment(i64::MIN, 0), "a century at the most");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_on_a_job_and_its_token_survive_a_restart() {
    let (dir, store) = fresh().await;
    let new = new_job();
    store.enqueue(&new, &BOUNDS).await.unwrap();
    let claimed = store.claim("paper", 1, HOUR).await.unwrap().pop().unwrap();
    crash(store, dir.path()).await;
    let (store, _) = open(dir.path()).await;
    assert_eq!(store.claim("paper", 1, HOUR).await.unwrap(), [], "its holder may be elsewhere, and continue");
    assert_eq!(store.commit(new.id, claimed.token, HOUR).await.unwrap(), Held::Yes);
    assert_eq!(store.cancel(new.id).await.unwrap(), Cancelling::TooLate);
    assert_eq!(store.finish(new.id, claimed.token, &Ending::Done).await.unwrap(), Held::Yes);
}
