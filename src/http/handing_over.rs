//! Answers with claimed jobs, on their way to workers that may be gone.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time;

use crate::connections::{Kept, Look};
use crate::orders::Claimed;

/// How long a worker's machine may take to report that the process that should receive the answer is gone.
const SAID_WITHIN: Duration = Duration::from_secs(1);

/// The claims of one connection whose worker has closed its sending side: it waits for its answer, or is
/// gone. It is gone if the answer cannot be sent, or if its machine rejects it; then the claimed jobs go back
/// to the queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct HandingOver(Arc<Mutex<Vec<(Claimed, Kept)>>>);

impl HandingOver {
    /// Holds a claim until its answer has been sent.
    pub(super) fn begin(&self, claimed: Claimed, look: &Look) {
        // Without a socket the answer cannot be sent, and dropping the claim gives the job back.
        if let Some(kept) = look.keep() {
            self.0.lock().push((claimed, kept));
        }
    }

    /// Called when the connection has ended.
    pub(super) async fn end(self, is_all_sent: bool) {
        let claims = std::mem::take(&mut *self.0.lock());
        for (claimed, kept) in claims {
            if is_all_sent && time::timeout(SAID_WITHIN, kept.is_gone()).await.is_err() {
                claimed.take();
            }
        }
    }
}
