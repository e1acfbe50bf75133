//! Follows the channels of registries, and compares them with memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{debug, info};

use super::clock::Version;
use super::handle::Registry;
use super::kind::RegistryKind;
use super::record::Change;
use super::table::Outcome;
use crate::channels::{Delivery, Live, LiveBatch};
use crate::protocol::{Frame, first_frame};
use crate::storage::{Result as StorageResult, StorageError};
use crate::support::backoff::STORAGE_RETRY;

/// How often to check whether a comparison is due.
const TICK: Duration = Duration::from_millis(100);

/// How often memory is compared with the log without a particular cause.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// How soon the comparison is repeated if the log lacked something that its writer may still append.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// After a comparison, the next one waits for this many times the duration of that one.
const PAUSE_TIMES: u32 = 10;

/// Keys in one page of the log's latest entries.
const PAGE: usize = 1_000;

impl Registry {
    /// Applies what the channels deliver. Waits for nothing else, so that it holds back no channel.
    pub(crate) async fn hear_all(self, mut deliveries: mpsc::Receiver<Delivery>) {
        while let Some(delivery) = deliveries.recv().await {
            let Some(kind) = RegistryKind::of_channel(delivery.live.channel()) else { continue };
            let book = self.book(kind);
            match &delivery.live {
                Live::Batch(batch) => {
                    let changes = changes_of(batch);
                    book.stats.unreadable.add((batch.len() - changes.len()) as u64);
                    let (now, mut has_older) = (Instant::now(), false);
                    let mut core = book.core.write();
                    for change in changes {
                        has_older |= core.hear(change, now) == Outcome::Older;
                    }
                    let waits = core.behind() > 0;
                    drop(core);
                    if has_older {
                        book.compare_due.notify_one();
                    }
                    book.notify_changed(waits);
                }
                // The entries in between are in the log, or their writers still have them.
                Live::Moved(_) | Live::Skipped { .. } => book.compare_due.notify_one(),
            }
        }
    }

    /// Follows a registry, compares it with its log when there is cause, and lets records expire.
    pub(super) async fn keep(self, kind: RegistryKind) {
        let book = Arc::clone(self.book(kind));
        let mut failures = 0;
        while let Err(error) = self.0.parts.channels.join(&kind.channel(), self.0.parts.place).await {
            failures += 1;
            debug!(registry = %kind, error = %error, "cannot follow a registry yet");
            STORAGE_RETRY.pause(failures).await;
        }
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut due, mut soonest, mut was_degraded) = (Instant::now(), Instant::now(), false);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = book.compare_due.notified() => due = due.min(soonest.max(Instant::now() + AGAIN_AFTER)),
            }
            let is_degraded = self.0.parts.channels.is_degraded(&kind.channel());
            if was_degraded && !is_degraded {
                book.is_compared.store(false, Ordering::Release);
                due = Instant::now();
            }
            was_degraded = is_degraded;
            let now = Instant::now();
            if now >= due {
                let compared = self.compare(kind, !is_degraded).await;
                // Even if there is a cause each second, most of the time remains for other work.
                let pause = now.elapsed().saturating_mul(PAUSE_TIMES);
                soonest = now + AGAIN_AFTER.max(pause);
                due = if matches!(compared, Ok(false)) { now + COMPARE_EVERY } else { soonest };
                if let Err(error) = compared {
                    debug!(registry = %kind, error = %error, "cannot compare a registry with its log");
                }
            }
            self.expire(kind, !is_degraded && book.is_compared.load(Ordering::Acquire));
        }
    }

    fn expire(&self, kind: RegistryKind, of_others: bool) {
        let book = self.book(kind);
        let now = Instant::now();
        if book.core.read().table.expired(now).is_empty() {
            return;
        }
        let expired = book.core.write().expire(of_others, now);
        if expired > 0 {
            book.stats.expired.add(expired);
            book.notify_changed(true);
        }
    }

    /// Applies what the log has, and queues what it lacks. Returns true if another comparison is due soon.
    /// While the log is away, only this node's local replica is read.
    async fn compare(&self, kind: RegistryKind, is_whole: bool) -> StorageResult<bool> {
        let book = self.book(kind);
        let before = book.core.read().table.versions();
        let stored = self.stored(kind).await?;
        let now = Instant::now();
        let mut core = book.core.write();
        let versions: HashMap<Arc<str>, Version> =
            stored.iter().map(|change| (Arc::clone(&change.key), change.version)).collect();
        let found = stored.len();
        for change in stored {
            core.hear(change, now);
        }
        let again = is_whole && core.compare(&before, &versions, now);
        let (records, waits) = (core.table.len(), core.behind() > 0);
        drop(core);
        book.stats.compared.add(1);
        book.notify_changed(waits);
        if is_whole && !book.is_compared.swap(true, Ordering::AcqRel) {
            info!(registry = %kind, records, found, "a registry agrees with its log");
        }
        Ok(again)
    }

    /// The latest entries in the log, including removals.
    async fn stored(&self, kind: RegistryKind) -> StorageResult<Vec<Change>> {
        let channel = kind.channel();
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.0.parts.channels.latest_and_removed(&channel, after.as_deref(), PAGE).await?;
            let entries = page.entries.iter();
            all.extend(
                entries.filter_map(|entry| Change::read(entry.draft.kind.as_str(), &entry.draft.data)),
            );
            match page.next {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                Some(_) => {
                    return Err(StorageError::Unreachable {
                        op: "latest",
                        cause: "a page points to itself".into(),
                    });
                }
                None => return Ok(all),
            }
        }
    }
}

/// The changes in a batch of entries.
fn changes_of(batch: &LiveBatch) -> Vec<Change> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
    }
    let frames = (0..batch.len()).map(|index| batch.frame(index));
    let read = frames.filter_map(|frame| {
        let (Frame::Text(json), _) = first_frame(&frame)? else { return None };
        let Kind { kind } = serde_json::from_slice(json).ok()?;
        Change::read(kind, json)
    });
    read.collect()
}
