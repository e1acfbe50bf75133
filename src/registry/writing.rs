//! Appends writes in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::handle::Registry;
use super::kind::RegistryKind;
use crate::support::backoff::STORAGE_RETRY;
use crate::support::counter::observe;
use crate::support::seldom::Seldom;

/// Records in one request to the channel.
const AT_ONCE: usize = 500;

/// Writes that have waited for so long are reported.
pub(super) const LAGS_AFTER: Duration = Duration::from_secs(5);

impl Registry {
    /// Appends the writes to a registry until `stop`; the channels take care of what is queued then.
    pub(super) async fn append_behind(self, kind: RegistryKind, stop: CancellationToken) {
        let book = self.book(kind);
        let (mut failures, mut is_lagging, mut lagging) = (0, false, Seldom::default());
        loop {
            let changes = book.core.write().take(AT_ONCE);
            if changes.is_empty() {
                if is_lagging {
                    is_lagging = false;
                    info!(registry = %kind, "all writes are in the log again");
                }
                tokio::select! {
                    () = book.written.notified() => continue,
                    () = stop.cancelled() => return,
                }
            }
            let since = book.core.read().behind_since();
            let drafts = changes.iter().map(super::record::Change::draft).collect();
            let published = self.channels().publish(&kind.channel(), drafts).await;
            let appended = match &published {
                Ok(()) => changes.len(),
                Err(error) => error.accepted(),
            };
            book.core.write().appended(appended);
            book.stats.appended.add(appended as u64);
            if let Some(since) = since {
                observe(&book.stats.behind_duration, since.elapsed());
            }
            book.appended.notify_waiters();
            let Err(error) = published else {
                failures = 0;
                continue;
            };
            failures += 1;
            book.stats.append_failures.add(1);
            let now = Instant::now();
            if since.is_some_and(|since| now.duration_since(since) >= LAGS_AFTER)
                && let Some(untold) = lagging.may_tell(now)
            {
                is_lagging = true;
                let waiting = book.core.read().behind();
                warn!(registry = %kind, waiting, error = %error, untold, "writes are not in the log yet");
            }
            let pausing = time::sleep(STORAGE_RETRY.wait(failures));
            if stop.run_until_cancelled(pausing).await.is_none() {
                return;
            }
        }
    }

    /// Waits until all writes to a key so far are in the log, or in the journal for it.
    pub async fn is_in_log(&self, kind: RegistryKind, key: &str) {
        let book = Arc::clone(self.book(kind));
        loop {
            let appended = book.appended.notified();
            if !book.core.read().is_behind(key) {
                return;
            }
            appended.await;
        }
    }

    /// Waits until nothing waits to be appended.
    pub(crate) async fn flushed(&self) {
        for kind in RegistryKind::ALL {
            let book = self.book(kind);
            loop {
                let appended = book.appended.notified();
                if book.core.read().behind() == 0 {
                    break;
                }
                appended.await;
            }
        }
    }
}
