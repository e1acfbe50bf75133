//! Appends writes in the background.

use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::core::Core;
use super::handle::{Book, Registry};
use super::kind::RegistryKind;
use crate::support::backoff::STORAGE_RETRY;
use crate::support::counter::observe;
use crate::support::seldom::Seldom;

/// Records in one request to the channel.
const AT_ONCE: usize = 500;

/// Writes that have waited for this long are reported.
pub(super) const LAGS_AFTER: Duration = Duration::from_secs(5);

impl Registry {
    /// Appends the writes to a registry until `stop`, and then what still waits, unless an append fails.
    pub(super) async fn append_behind(self, kind: RegistryKind, stop: CancellationToken) {
        let book = self.book(kind);
        let (mut failures, mut is_lagging, mut lagging) = (0, false, Seldom::default());
        let mut rested_at = Instant::now();
        loop {
            if Instant::now() < rested_at && book.core.read().behind() > 0 {
                tokio::select! {
                    () = time::sleep_until(rested_at) => {}
                    () = book.awaited.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
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
            let published = self.0.parts.channels.publish(&kind.channel(), drafts).await;
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
                rested_at = Instant::now() + kind.rests();
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
        until_appended(self.book(kind), |core| !core.is_behind(key)).await;
    }

    /// Waits until nothing waits to be appended.
    pub(crate) async fn flushed(&self) {
        for kind in RegistryKind::ALL {
            until_appended(self.book(kind), |core| core.behind() == 0).await;
        }
    }
}

/// Waits until `is_so` holds, and lets the task that appends skip its rests meanwhile.
async fn until_appended(book: &Book, is_so: impl Fn(&Core) -> bool) {
    loop {
        let appended = book.appended.notified();
        if is_so(&book.core.read()) {
            return;
        }
        book.awaited.notify_waiters();
        appended.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::channels::Channels;
    use crate::fleet::{Fleet, FleetParts};
    use crate::model::{Lane, NodeId};
    use crate::registry::{Condition, RegistryConfig, RegistryParts};
    use crate::storage::{self, StorageChoice, StorageConfig};

    async fn registry() -> Registry {
        let (config, node) =
            (StorageConfig { backend: StorageChoice::Memory, ..Default::default() }, NodeId::random());
        let opened = storage::open(&config, node, Arc::new(|_| Lane::Latest)).await.unwrap();
        let (backend, leaving) = (opened.backend, CancellationToken::new());
        let channels = Channels::without_shards(Arc::clone(&backend), node);
        let (storage, executor) = (opened.status_reader, "paper".into());
        let fleet =
            Fleet::new(FleetParts { node, backend: Arc::clone(&backend), storage, executor, leaving });
        Registry::new(RegistryParts {
            channels,
            backend,
            node,
            fleet,
            config: RegistryConfig::default(),
            place: 0,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_order_that_is_written_often_the_last_is_appended_and_nobody_who_waits_is_late() {
        let (registry, kind, stop) = (registry().await, RegistryKind::ActiveOrders, CancellationToken::new());
        let mut writing = JoinSet::new();
        writing.spawn(registry.clone().append_behind(kind, stop.clone()));
        let put = |state: u32| {
            let json = format!(r#"{{"state":"{state}"}}"#);
            registry.put(kind, Some("7"), &json, &Condition::None).unwrap();
        };
        let appended = || registry.book(kind).stats.appended.get();
        put(0);
        time::sleep(Duration::from_millis(1)).await;
        assert_eq!(appended(), 1, "the first one goes at once");
        for state in 1..=10 {
            put(state);
            time::sleep(kind.rests() / 20).await;
        }
        assert_eq!(appended(), 1);
        time::sleep(kind.rests()).await;
        assert_eq!(appended(), 2);
        put(11);
        let asked = Instant::now();
        registry.is_in_log(kind, "7").await;
        assert!(asked.elapsed() < kind.rests() / 2 && appended() == 3);
        stop.cancel();
        while writing.join_next().await.is_some() {}
    }
}
