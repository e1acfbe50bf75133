//! How a run's updates come into the log. What it reports on its way is told while it goes on, and what it reports
//! while that is under way goes together with the next.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::desk::Desk;
use crate::channels::PublishError;
use crate::model::{DraftEntry, OrderId};

/// So many updates wait at the most; whoever has one more waits.
const WAITING_MAX: usize = 16;

/// The updates of one run, in order.
#[derive(Debug)]
pub(super) struct Telling {
    desk: Arc<Desk>,
    order: OrderId,
    /// The token of the claim, which is the fence of what is told under it.
    token: u64,
    state: Mutex<State>,
    /// Nothing is under way any more.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    waiting: Vec<DraftEntry>,
    is_under_way: bool,
    /// As far as is known, nobody has told anything of the order yet.
    is_first: bool,
    /// Why what was told last was not taken; what waited behind it is gone too.
    failed: Option<PublishError>,
}

impl Telling {
    pub(super) fn new(desk: Arc<Desk>, order: OrderId, token: u64, is_first: bool) -> Arc<Self> {
        let state = State { waiting: Vec::new(), is_under_way: false, is_first, failed: None };
        Arc::new(Self { desk, order, token, state: Mutex::new(state), ended: Notify::new() })
    }

    /// Tells an update soon. Waits only where many wait already.
    ///
    /// # Errors
    /// One before it was not taken; that is said once.
    pub(super) async fn tell_soon(self: &Arc<Self>, draft: DraftEntry) -> Result<(), PublishError> {
        {
            let mut state = self.state.lock();
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            if state.waiting.len() < WAITING_MAX {
                state.waiting.push(draft);
                self.set_out(&mut state);
                return Ok(());
            }
        }
        self.tell(draft).await
    }

    /// Tells an update, behind all that were to be told soon. Waits until the log has it.
    ///
    /// # Errors
    /// It, or one before it, was not taken.
    pub(super) async fn tell(self: &Arc<Self>, draft: DraftEntry) -> Result<(), PublishError> {
        let alone = {
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
        match alone {
            Some((draft, is_first)) => {
                self.desk.append(self.order, vec![draft], Some(self.token), is_first).await
            }
            None => self.settled().await,
        }
    }

    /// Waits until nothing is under way.
    ///
    /// # Errors
    /// Something was not taken; that is said once.
    pub(super) async fn settled(&self) -> Result<(), PublishError> {
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

    fn set_out(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_under_way, true) {
            // The run may be dropped at any moment, and what it has reported is told all the same.
            self.desk.tasks.spawn_on(Arc::clone(self).go(), &self.desk.runtime);
        }
    }

    async fn go(self: Arc<Self>) {
        loop {
            let (drafts, is_first) = {
                let mut state = self.state.lock();
                let drafts = std::mem::take(&mut state.waiting);
                if drafts.is_empty() {
                    state.is_under_way = false;
                    break;
                }
                (drafts, std::mem::take(&mut state.is_first))
            };
            if let Err(failed) = self.desk.append(self.order, drafts, Some(self.token), is_first).await {
                let mut state = self.state.lock();
                state.failed = Some(failed);
                state.waiting.clear();
            }
        }
        self.ended.notify_waiters();
    }
}
