//! Appends a run's updates to the order's log, in order. Most reports are appended while the run continues; those that
//! arrive within a moment, or during an append, go together in the next one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{self, Instant};
use tracing::debug;

use super::desk::Desk;
use crate::channels::{First, PublishError};
use crate::model::{DraftEntry, OrderId};

/// The most updates that wait. A run that reports one more waits until the log has them all.
const WAITING_MAX: usize = 16;

/// How long a report waits for others to be appended with it. Timers have no finer steps.
const TOGETHER_WITHIN: Duration = Duration::from_millis(1);

/// How long a report waits for another one that is certain to come.
const EXPECTED_WITHIN: Duration = Duration::from_millis(10);

/// The updates of one run, in order.
#[derive(Debug)]
pub(super) struct Reports {
    desk: Arc<Desk>,
    order: OrderId,
    /// The claim's token, which is the fencing token of the updates.
    token: u64,
    state: Mutex<State>,
    /// Notified when the updates that wait are due at another time than before.
    due: Notify,
    /// Notified when no append is in progress any more.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    waiting: Vec<DraftEntry>,
    /// When those that wait are to be appended.
    due: Instant,
    is_under_way: bool,
    /// Whether the order's log has no update yet, as far as is known. It may have some of a run that the queue has
    /// forgotten: then nothing of this run is appended.
    is_first: bool,
    /// The error of the last append. Updates that waited for it were dropped, because they would leave a gap.
    failed: Option<PublishError>,
}

impl Reports {
    pub(super) fn new(desk: Arc<Desk>, order: OrderId, token: u64, is_first: bool) -> Arc<Self> {
        let due = Instant::now();
        let state = State { waiting: Vec::new(), due, is_under_way: false, is_first, failed: None };
        let (state, due, ended) = (Mutex::new(state), Notify::new(), Notify::new());
        Arc::new(Self { desk, order, token, state, due, ended })
    }

    /// Queues an update, and returns before the log has it, unless many wait already.
    ///
    /// # Errors
    /// An earlier update could not be appended; each error is returned once, and this update is dropped.
    pub(super) async fn queue(self: &Arc<Self>, draft: DraftEntry) -> Result<(), PublishError> {
        {
            let mut state = self.state.lock();
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            if state.waiting.len() < WAITING_MAX {
                if state.waiting.is_empty() {
                    state.due = Instant::now() + TOGETHER_WITHIN;
                }
                state.waiting.push(draft);
                self.start(&mut state);
                return Ok(());
            }
        }
        self.append(draft).await
    }

    /// Appends an update after all queued ones, and waits until the log has it.
    ///
    /// # Errors
    /// This update, or one before it, could not be appended.
    pub(super) async fn append(self: &Arc<Self>, draft: DraftEntry) -> Result<(), PublishError> {
        let at_once = {
            let mut state = self.state.lock();
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            if state.is_under_way {
                state.waiting.push(draft);
                None
            } else {
                Some((draft, std::mem::take(&mut state.is_first)))
            }
        };
        match at_once {
            Some((draft, is_first)) => self.append_all(vec![draft], is_first).await,
            None => self.settled().await,
        }
    }

    /// Announces that [`append`](Self::append) follows in a moment: waiting reports are appended together with it.
    pub(super) fn expect(&self) {
        self.set_due(&mut self.state.lock(), Instant::now() + EXPECTED_WITHIN);
    }

    fn set_due(&self, state: &mut State, due: Instant) {
        state.due = due;
        self.due.notify_one();
    }

    /// Appends the waiting reports at once, and waits until no append is in progress.
    ///
    /// # Errors
    /// An update could not be appended; each error is returned once.
    pub(super) async fn settled(&self) -> Result<(), PublishError> {
        self.set_due(&mut self.state.lock(), Instant::now());
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            {
                let mut state = self.state.lock();
                if !state.is_under_way {
                    return state.failed.take().map_or(Ok(()), Err);
                }
            }
            ended.await;
        }
    }

    fn start(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_under_way, true) {
            // A separate task, because the run may be dropped at any moment, and its reports are appended
            // nevertheless.
            self.desk.tasks.spawn_on(Arc::clone(self).run(), &self.desk.runtime);
        }
    }

    async fn run(self: Arc<Self>) {
        loop {
            let due = {
                let mut state = self.state.lock();
                if state.waiting.is_empty() {
                    state.is_under_way = false;
                    break;
                }
                if state.due <= Instant::now() {
                    Ok((std::mem::take(&mut state.waiting), std::mem::take(&mut state.is_first)))
                } else {
                    Err(state.due)
                }
            };
            match due {
                Ok((drafts, is_first)) => {
                    if let Err(failed) = self.append_all(drafts, is_first).await {
                        let mut state = self.state.lock();
                        state.failed = Some(failed);
                        state.waiting.clear();
                    }
                }
                Err(due) => tokio::select! {
                    () = self.due.notified() => {}
                    () = time::sleep_until(due) => {}
                },
            }
        }
        self.ended.notify_waiters();
    }

    /// Appends updates. The log of a first run's order may not have been read, so its first append requires
    /// an empty log. If the log is not empty, they are appended only if the order has no newest update.
    async fn append_all(&self, drafts: Vec<DraftEntry>, is_first: bool) -> Result<(), PublishError> {
        let (order, fence) = (self.order, Some(self.token));
        if !is_first {
            return self.desk.append(order, drafts, fence, First::No).await;
        }
        let appended = self.desk.append(order, drafts.clone(), fence, First::Only).await;
        if !matches!(appended, Err(PublishError::NotFirst)) {
            return appended;
        }
        if matches!(self.desk.newest(order).await, Ok(None)) {
            return self.desk.append(order, drafts, fence, First::No).await;
        }
        debug!(%order, "an order of which nothing was known has updates already");
        // Later reports must be refused too, should the executor ignore this error.
        self.state.lock().is_first = true;
        appended
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::model::{ChannelName, EntryKind};
    use crate::orders::OrdersParts;
    use crate::protocol::{OrderUpdate, Standing};

    fn desk() -> Arc<Desk> {
        Arc::clone(OrdersParts::in_memory("paper").desk())
    }

    fn update(kind: EntryKind, progress: u8) -> DraftEntry {
        OrderUpdate::new(Standing { kind, progress, attempt: 1 }, Utc::now(), |_| {}).draft
    }

    async fn logged(desk: &Desk, order: OrderId) -> Vec<EntryKind> {
        let page = desk.parts.channels.read_after(&ChannelName::order(order), None, 100).await.unwrap();
        page.entries.into_iter().map(|entry| entry.draft.kind).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn reports_during_an_append_are_appended_together_in_order() {
        let (desk, order) = (desk(), OrderId::random());
        let reports = Reports::new(Arc::clone(&desk), order, 7, true);
        for progress in [10, 30] {
            reports.queue(update(EntryKind::Routing, progress)).await.unwrap();
        }
        reports.append(update(EntryKind::Submitted, 75)).await.unwrap();
        let all = [EntryKind::Routing, EntryKind::Routing, EntryKind::Submitted];
        assert_eq!(logged(&desk, order).await, all, "`append` returns when the log has all of them");
        assert_eq!(desk.parts.channels.stats().appends.get(), 1);
        // More than may wait at a time.
        for _ in 0..=WAITING_MAX {
            reports.queue(update(EntryKind::Submitted, 80)).await.unwrap();
        }
        drop(reports);
        desk.tasks.close();
        desk.tasks.wait().await;
        assert_eq!(logged(&desk, order).await.len(), 4 + WAITING_MAX, "also after the run was dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_goes_with_what_is_expected_to_follow() {
        let (desk, order) = (desk(), OrderId::random());
        let reports = Reports::new(Arc::clone(&desk), order, 7, true);
        reports.queue(update(EntryKind::Building, 70)).await.unwrap();
        reports.expect();
        time::sleep(Duration::from_millis(5)).await;
        assert_eq!(logged(&desk, order).await, []);
        reports.append(update(EntryKind::Submitted, 75)).await.unwrap();
        assert_eq!(logged(&desk, order).await, [EntryKind::Building, EntryKind::Submitted]);
        assert_eq!(desk.parts.channels.stats().appends.get(), 1);
        // An expected report may be late.
        reports.queue(update(EntryKind::Submitted, 90)).await.unwrap();
        reports.expect();
        time::sleep(2 * EXPECTED_WITHIN).await;
        assert_eq!(logged(&desk, order).await.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_appended_to_an_order_whose_updates_are_not_known() {
        let (desk, order) = (desk(), OrderId::random());
        let forgotten = Reports::new(Arc::clone(&desk), order, 7, true);
        forgotten.append(update(EntryKind::Submitted, 75)).await.unwrap();
        let reports = Reports::new(Arc::clone(&desk), order, 8, true);
        reports.queue(update(EntryKind::Routing, 10)).await.unwrap();
        for _ in 0..3 {
            let refused = reports.append(update(EntryKind::Submitted, 75)).await;
            assert!(matches!(refused, Err(PublishError::NotFirst)), "{refused:?}");
        }
        assert_eq!(logged(&desk, order).await, [EntryKind::Submitted]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_returned_once_to_the_next_report() {
        let (desk, order) = (desk(), OrderId::random());
        let newer = Reports::new(Arc::clone(&desk), order, 8, true);
        newer.append(update(EntryKind::Routing, 10)).await.unwrap();
        let older = Reports::new(Arc::clone(&desk), order, 7, false);
        for _ in 0..2 {
            older.queue(update(EntryKind::Routing, 10)).await.unwrap();
        }
        let refused = older.append(update(EntryKind::Submitted, 75)).await;
        assert!(matches!(refused, Err(PublishError::Refused { accepted: 0, .. })), "{refused:?}");
        older.settled().await.unwrap();
        older.queue(update(EntryKind::Routing, 10)).await.unwrap();
        assert!(older.settled().await.is_err());
        assert_eq!(logged(&desk, order).await, [EntryKind::Routing]);
    }
}
