//! Writes our own updates to the place where outside consumers look for them.
//!
//! The updates are read from the log: only the log has their offsets, and only it shows whether an append
//! whose answer was lost took place. Callers that append just name the order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::InteropStats;
use crate::model::{ChannelName, Entry, Epoch, NodeId, OrderId, Position};
use crate::protocol::entry_json;
use crate::storage::{
    OUTSIDE_WINDOW, OutsideOrders, Page, Result as StorageResult, SharedBackend, StorageError, VersionVector,
};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::recent::Recent;
use crate::support::seldom::{Seldom, warn_seldom};

/// The most orders that wait to be written; beyond it, orders are counted and dropped. As many cursors are
/// remembered, so that no waiting order loses its own; by the time another is forgotten, its order's log has
/// expired.
const WAITING_MAX: usize = 65_536;
/// Orders written at once.
const WRITES_MAX: usize = 32;
/// Entries in one read of the log and in one write: a repeated write must still find its earlier entries in
/// the list.
const PAGE: usize = OUTSIDE_WINDOW;
/// How long a failed write is repeated, not counting outages of the storage.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same once the node stops.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long a stopping node waits for appends that are under way.
const LAST_WAIT: Duration = Duration::from_millis(100);

/// Is notified of the orders to which this node appended updates. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrderMirror(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    notify: Notify,
    stats: Arc<InteropStats>,
}

#[derive(Debug, Default)]
struct Waiting {
    orders: HashSet<OrderId>,
    closed: bool,
}

impl OrderMirror {
    /// For nodes without outside consumers.
    pub fn off() -> Self {
        Self(None)
    }

    /// This node has, or may have, appended updates of an order. All of its updates that are not yet written
    /// for outside consumers are written soon, in order, as the JSON that sockets get. Not needed for updates
    /// that came from outside. Never waits.
    pub fn appended(&self, order: OrderId) {
        let Some(shared) = &self.0 else { return };
        let mut waiting = shared.waiting.lock();
        if waiting.closed || waiting.orders.len() >= WAITING_MAX {
            shared.stats.mirror_failures.add(1);
            return;
        }
        waiting.orders.insert(order);
        drop(waiting);
        shared.notify.notify_one();
    }
}

/// How far an order's updates have been written.
#[derive(Debug, Clone, Default)]
struct Cursor {
    epoch: Option<Epoch>,
    offset: u64,
    /// Updates that were written from the log's previous epoch, and may come again in this one.
    had: VersionVector,
}

/// Writes the updates that were appended.
#[derive(Debug)]
pub(super) struct MirrorWriter {
    outside: Arc<dyn OutsideOrders>,
    backend: SharedBackend,
    node: NodeId,
    shared: Arc<Shared>,
    cursors: Recent<OrderId, Cursor>,
    /// Orders to be written, and since when.
    pending: HashMap<OrderId, Instant>,
    failures: u32,
    retry_at: Option<Instant>,
    of_failures: Seldom,
}

impl MirrorWriter {
    pub(super) fn new(
        outside: Arc<dyn OutsideOrders>,
        backend: SharedBackend,
        node: NodeId,
        stats: Arc<InteropStats>,
    ) -> (OrderMirror, Self) {
        let shared = Arc::new(Shared { waiting: Mutex::default(), notify: Notify::new(), stats });
        let writer = Self {
            outside,
            backend,
            node,
            shared: Arc::clone(&shared),
            cursors: Recent::new(WAITING_MAX, usize::MAX),
            pending: HashMap::new(),
            failures: 0,
            retry_at: None,
            of_failures: Seldom::default(),
        };
        (OrderMirror(Some(shared)), writer)
    }

    /// Runs until `stop`, and then until everything is written, or for some seconds if it cannot be.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                // While writing fails, new orders wait for the next try.
                () = self.shared.notify.notified(), if self.retry_at.is_none() => {}
                () = time::sleep_until(self.retry_at.unwrap_or_else(Instant::now)), if self.retry_at.is_some() => {}
            }
            self.write_pending(PATIENCE).await;
        }
        let deadline = Instant::now() + LAST_PATIENCE;
        loop {
            let waited = time::timeout(LAST_WAIT, self.shared.notify.notified()).await;
            self.write_pending(LAST_PATIENCE).await;
            if (waited.is_err() && self.pending.is_empty()) || Instant::now() >= deadline {
                break;
            }
        }
        let mut waiting = self.shared.waiting.lock();
        waiting.closed = true;
        let left = self.pending.len() + waiting.orders.len();
        if left > 0 {
            self.shared.stats.mirror_failures.add(left as u64);
            warn!(orders = left, "updates were not written for outside consumers before the end");
        }
    }

    /// Writes all waiting orders once.
    async fn write_pending(&mut self, patience: Duration) {
        let now = Instant::now();
        let orders = std::mem::take(&mut self.shared.waiting.lock().orders);
        for order in orders {
            if self.pending.len() >= WAITING_MAX && !self.pending.contains_key(&order) {
                self.shared.stats.mirror_failures.add(1);
                continue;
            }
            self.pending.entry(order).or_insert(now);
        }
        if self.backend.is_degraded() && !self.pending.is_empty() {
            // Outside consumers use the same Redis as the log, so neither can be reached. The time for
            // repetitions begins when Redis is back.
            self.pending.values_mut().for_each(|since| *since = now);
            self.retry_at = Some(now + STORAGE_RETRY.max);
            return;
        }
        let writer = &*self;
        let jobs: Vec<(OrderId, Cursor)> = (self.pending.keys())
            .map(|order| (*order, self.cursors.get(order).cloned().unwrap_or_default()))
            .collect();
        // An order's cursor moves even if not all of its updates could be written.
        let written: Vec<(OrderId, Cursor, StorageResult<()>)> = stream::iter(jobs)
            .map(|(order, mut cursor)| async move {
                let result = writer.write(order, &mut cursor).await;
                (order, cursor, result)
            })
            .buffer_unordered(WRITES_MAX)
            .collect()
            .await;
        let mut failed = false;
        for (order, cursor, result) in written {
            self.cursors.insert(order, cursor, 0);
            failed |= !self.is_settled(order, result, patience);
        }
        self.failures = if failed { self.failures + 1 } else { 0 };
        self.retry_at = failed.then(|| Instant::now() + STORAGE_RETRY.wait(self.failures));
    }

    /// Whether the write of an order need not be repeated: it succeeded, or is given up.
    fn is_settled(&mut self, order: OrderId, result: StorageResult<()>, patience: Duration) -> bool {
        let Err(error) = result else {
            self.pending.remove(&order);
            return true;
        };
        let now = Instant::now();
        let is_final = matches!(error, StorageError::Corrupt { .. });
        let given_up = is_final || self.pending.get(&order).is_none_or(|since| now >= *since + patience);
        if given_up {
            self.pending.remove(&order);
            self.shared.stats.mirror_failures.add(1);
        } else {
            self.shared.stats.retries.add(1);
        }
        warn_seldom!(self.of_failures, order = %order, error = %error, given_up, "updates cannot be written for outside consumers");
        given_up
    }

    /// Writes what this node appended to an order after the cursor, and advances the cursor.
    async fn write(&self, order: OrderId, cursor: &mut Cursor) -> StorageResult<()> {
        let (channel, stats) = (ChannelName::order(order), &self.shared.stats);
        loop {
            let after = cursor.epoch.clone().map(|epoch| Position { epoch, offset: cursor.offset });
            let page = self.backend.read_after(&channel, after.as_ref(), PAGE).await?;
            if after.is_some() && page.epoch != cursor.epoch {
                *cursor = Cursor { epoch: page.epoch, ..Cursor::default() };
                continue;
            }
            stats.mirror_failures.add(left_unread(&page, cursor.offset)?);
            cursor.epoch = page.epoch;
            // Stored in the cursor when the write has been answered: until then it may have to be repeated.
            let (own, had) = not_had(&page.entries, self.node, &cursor.had);
            let messages: Vec<Bytes> = own
                .into_iter()
                .map(|entry| {
                    let mut json = Vec::new();
                    entry_json(&channel, entry, false, &mut json);
                    json.into()
                })
                .collect();
            if !messages.is_empty() {
                self.outside.write(order, &messages).await?;
                stats.mirrored.add(messages.len() as u64);
            }
            let read = page.entries.last().map(|last| last.offset);
            cursor.had = had;
            cursor.offset = read.unwrap_or(cursor.offset);
            match page.next {
                Some(transition) if read.is_none_or(|read| read >= page.top) => {
                    let Position { epoch, offset } = transition.to;
                    cursor.had.merge(&transition.had);
                    (cursor.epoch, cursor.offset) = (Some(epoch), offset);
                }
                _ if read.is_none() || cursor.offset >= page.top => return Ok(()),
                _ => {}
            }
        }
    }
}

/// How many entries after an offset have left the log unread: some may have been this node's. An error if
/// they are merely out of reach and are to be read later.
fn left_unread(page: &Page, offset: u64) -> StorageResult<u64> {
    let unread = page.first.saturating_sub(offset + 1);
    match offset {
        // What came before the first entry is unknown.
        0 => Ok(0),
        _ if unread > 0 && offset < page.out_of_reach => Err(StorageError::Unknown { op: "read_after" }),
        _ => Ok(unread),
    }
}

/// This node's entries that were not written before, and the updates that may come again after them.
fn not_had<'a>(entries: &'a [Entry], node: NodeId, had: &VersionVector) -> (Vec<&'a Entry>, VersionVector) {
    let mut had = had.clone();
    let new = entries.iter().filter(|entry| !had.came(entry.offset, entry.id) && entry.id.producer == node);
    let new = new.collect();
    (new, had)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{DraftEntry, EntryId, EntryKind, Marks};

    #[test]
    fn what_is_out_of_reach_is_not_counted_as_gone() {
        let page = |first, out_of_reach| Page {
            epoch: Some(Epoch::random()),
            top: 9,
            first,
            out_of_reach,
            is_final: false,
            is_copy: false,
            closed: false,
            entries: Vec::new(),
            next: None,
        };
        let unread = |first, out_of_reach, offset| left_unread(&page(first, out_of_reach), offset).ok();
        assert_eq!((unread(7, 0, 3), unread(4, 0, 3), unread(2, 0, 3)), (Some(3), Some(0), Some(0)));
        assert_eq!(unread(7, 0, 0), Some(0), "it begins there");
        assert_eq!((unread(7, 6, 3), unread(7, 3, 3), unread(4, 3, 3)), (None, Some(3), Some(0)));
    }

    #[test]
    fn what_was_written_in_an_outage_is_not_written_again() {
        let [own, other] = [1, 2].map(|n| NodeId(Uuid::from_u128(n)));
        let entry = |offset, producer, seq| Entry {
            offset,
            id: EntryId { producer, seq },
            draft: DraftEntry {
                time: chrono::Utc::now(),
                kind: EntryKind::Routing,
                key: None,
                data: Bytes::from_static(b"{}"),
                marks: Marks::default(),
            },
        };
        let entries = [entry(1, other, 7), entry(2, own, 3), entry(3, own, 4), entry(4, own, 5)];
        let mut had = VersionVector::default();
        had.add(own, 4);
        let (new, left) = not_had(&entries[..2], own, &had);
        assert!(new.is_empty());
        assert_eq!(left, had, "the next one comes again too");
        let (new, left) = not_had(&entries[2..], own, &left);
        assert_eq!(new, [&entries[3]]);
        assert!(left.is_empty());
    }
}
