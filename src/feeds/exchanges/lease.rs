//! Ensures by a lease that at most one of several processes on a storage runs a feed.
//!
//! The holder renews the lease every second, and publishes only until it expires by the holder's own
//! monotonic clock, counted from before each call. While the shared storage is away, nobody can renew or take
//! the lease: the holder continues until it expires, and stops then. When the storage is back, the previous
//! holder may take it first, so that its knowledge of the last trades is not lost, and what it accepted
//! meanwhile reaches the log before another process reads there.

use parking_lot::Mutex;
use tokio::time::{self, Duration, Instant};
use tracing::{info, warn};

use crate::model::NodeId;
use crate::storage::SharedBackend;

/// How long a lease lasts. A process that dies is replaced at most this long, plus [`LOOK_EVERY`], later.
const LASTS: Duration = Duration::from_secs(4);

const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How often waiting processes try to take it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How much longer than the previous holder other processes wait after an outage.
const SETTLE: Duration = Duration::from_secs(2);

/// How long releasing it at the end may take.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

/// Why a lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Another process holds it.
    Taken,
    /// It could not be renewed in time.
    RanOut,
}

impl Lost {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Taken => "the lease of the feed was lost: another process has it, or the storage lost it",
            Self::RanOut => {
                "the lease of the feed ran out while the storage was away; the feed stops here until the \
                 storage is back and somebody has the lease again"
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Lease {
    backend: SharedBackend,
    key: String,
    holder: String,
    /// When it expires, and its fencing token; `None` while this process does not hold it.
    held: Mutex<Option<(Instant, u64)>>,
}

impl Lease {
    pub(super) fn new(backend: SharedBackend, feed: &str, node: NodeId) -> Self {
        let (key, holder) = (format!("feed:{feed}"), node.to_string());
        Self { backend, key, holder, held: Mutex::new(None) }
    }

    /// Whether this process holds it now.
    pub(super) fn is_held(&self) -> bool {
        self.held.lock().is_some_and(|(until, _)| Instant::now() < until)
    }

    /// Waits until this process holds it, and returns the fencing token.
    pub(super) async fn take(&self) -> u64 {
        let was_here = self.held.lock().take().is_some();
        let (mut was_away, mut back, mut is_logged) = (false, None, false);
        loop {
            let asked = Instant::now();
            if self.backend.is_degraded() {
                (was_away, back) = (true, None);
                if !std::mem::replace(&mut is_logged, true) {
                    let lease = &self.key;
                    warn!(lease, "no feed can be taken over while the shared storage is away; waiting");
                }
            } else if !was_away || was_here || asked >= *back.get_or_insert(asked) + SETTLE {
                match self.backend.hold(&self.key, &self.holder, LASTS).await {
                    Ok(Some(fence)) => {
                        *self.held.lock() = Some((asked + LASTS, fence));
                        info!(lease = self.key, fence, "this process has the feed");
                        return fence;
                    }
                    Ok(None) if !std::mem::replace(&mut is_logged, true) => {
                        info!(lease = self.key, "another process has the feed; waiting");
                    }
                    Ok(None) => {}
                    Err(error) => {
                        was_away = true;
                        let (lease, error) = (&self.key, error.with_causes());
                        warn!(lease, error, "cannot take the lease of a feed yet; trying again");
                    }
                }
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Renews it until it is lost. When a renewal fails, `shaky` is called once with the remaining time, and
    /// with `None` after the next success.
    pub(super) async fn keep(&self, shaky: impl Fn(Option<Duration>)) -> Lost {
        let mut is_shaky = false;
        loop {
            let Some((until, fence)) = *self.held.lock() else { return Lost::RanOut };
            time::sleep_until(until.min(Instant::now() + RENEW_EVERY)).await;
            let asked = Instant::now();
            let renewed = time::timeout_at(until, self.backend.hold(&self.key, &self.holder, LASTS)).await;
            match renewed {
                _ if Instant::now() >= until => return Lost::RanOut,
                Ok(Ok(Some(same))) if same == fence => {
                    *self.held.lock() = Some((asked + LASTS, fence));
                    if std::mem::take(&mut is_shaky) {
                        shaky(None);
                    }
                }
                // Meanwhile another process held it, or nobody did.
                Ok(Ok(_)) => return Lost::Taken,
                Ok(Err(_)) | Err(_) => {
                    if !std::mem::replace(&mut is_shaky, true) {
                        shaky(Some(until.saturating_duration_since(Instant::now())));
                    }
                }
            }
        }
    }

    /// Releases it, if held, so that others can take it at once.
    pub(super) async fn let_go(&self) {
        if self.held.lock().take().is_some() {
            let gone = time::timeout(LET_GO_WITHIN, self.backend.let_go(&self.key, &self.holder)).await;
            if !matches!(gone, Ok(Ok(()))) {
                info!(lease = self.key, "the lease of the feed could not be released; it will expire");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::{MemoryBackend, MemoryConfig, Retention};

    #[tokio::test(start_paused = true)]
    async fn another_process_takes_over_within_five_seconds() {
        let backend: SharedBackend =
            Arc::new(MemoryBackend::new(Retention::default(), MemoryConfig::default()).0);
        let of = || Lease::new(Arc::clone(&backend), "binance", NodeId::random());
        let (first, second) = (of(), of());
        let fence = first.take().await;
        assert!(first.is_held());
        let waiting = second.take();
        let mut waiting = std::pin::pin!(waiting);
        // The second process waits while the first one holds the lease.
        tokio::select! {
            _ = &mut waiting => panic!("there are two holders"),
            _ = first.keep(|_| ()) => panic!("it was lost"),
            () = time::sleep(Duration::from_secs(60)) => {}
        }
        let gone = Instant::now();
        let next = waiting.await;
        assert!(next > fence && gone.elapsed() < Duration::from_secs(5), "{:?}", gone.elapsed());
        assert!(!first.is_held() && second.is_held());
        // The first process finds it taken when it comes back.
        assert_eq!(first.keep(|_| ()).await, Lost::RanOut);
        second.let_go().await;
        let begun = Instant::now();
        first.take().await;
        assert!(begun.elapsed() < Duration::from_secs(1), "it was let go");
    }
}
