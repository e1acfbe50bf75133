//! Who has a feed: of several processes on one storage exactly one, by a lease.
//!
//! The holder renews it every second, and publishes only while it lasts by its own monotonic clock, counted from
//! before each call. While the shared storage is away nobody can renew it or take it: the holder goes on until it
//! runs out, and stops then; when the storage is back, who had it last is let first, so that what it knows of the
//! last trades is not lost, and what it accepted meanwhile gets into the log before anybody else looks there.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{self, Duration, Instant};
use tracing::{info, warn};

use crate::model::NodeId;
use crate::storage::SharedBackend;

/// How long a lease lasts. A process that is gone is replaced after this time at the latest, and a look.
const LASTS: Duration = Duration::from_secs(4);

const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How often those who wait look.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How much longer those wait who did not have it before an outage.
const SETTLE: Duration = Duration::from_secs(2);

/// How long letting it go may take at the end.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

/// Why a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Another process has it.
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
    /// When it ends, and its fence; `None` while it is not held here.
    held: Mutex<Option<(Instant, u64)>>,
}

impl Lease {
    pub(super) fn new(backend: SharedBackend, feed: &str, node: NodeId) -> Arc<Self> {
        let (key, holder) = (format!("feed:{feed}"), node.to_string());
        Arc::new(Self { backend, key, holder, held: Mutex::new(None) })
    }

    /// Whether it lasts.
    pub(super) fn is_held(&self) -> bool {
        self.held.lock().is_some_and(|(until, _)| Instant::now() < until)
    }

    /// Waits until it is held; says the fence.
    pub(super) async fn take(&self) -> u64 {
        let was_here = self.held.lock().take().is_some();
        let (mut was_away, mut back, mut is_told) = (false, None, false);
        loop {
            let asked = Instant::now();
            if self.backend.is_degraded() {
                (was_away, back) = (true, None);
                if !std::mem::replace(&mut is_told, true) {
                    warn!(
                        lease = self.key,
                        "nobody is granted a feed while the shared storage is away; waiting"
                    );
                }
            } else if !was_away || was_here || asked >= *back.get_or_insert(asked) + SETTLE {
                match self.backend.hold(&self.key, &self.holder, LASTS).await {
                    Ok(Some(fence)) => {
                        *self.held.lock() = Some((asked + LASTS, fence));
                        info!(lease = self.key, fence, "this process has the feed");
                        return fence;
                    }
                    Ok(None) if !std::mem::replace(&mut is_told, true) => {
                        info!(lease = self.key, "another process has the feed; waiting");
                    }
                    Ok(None) => {}
                    Err(error) => {
                        was_away = true;
                        warn!(lease = self.key, error = error.with_causes(), "cannot ask for a feed yet");
                    }
                }
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Renews it until it is lost. When it cannot be renewed, `shaky` is told for how long it lasts, once each
    /// time; and `None` when it was renewed after that.
    pub(super) async fn keep(&self, shaky: impl Fn(Option<Duration>)) -> Lost {
        let mut is_told = false;
        loop {
            let Some((until, fence)) = *self.held.lock() else { return Lost::RanOut };
            time::sleep_until(until.min(Instant::now() + RENEW_EVERY)).await;
            let asked = Instant::now();
            let renewed = time::timeout_at(until, self.backend.hold(&self.key, &self.holder, LASTS)).await;
            match renewed {
                _ if Instant::now() >= until => return Lost::RanOut,
                Ok(Ok(Some(same))) if same == fence => {
                    *self.held.lock() = Some((asked + LASTS, fence));
                    if std::mem::take(&mut is_told) {
                        shaky(None);
                    }
                }
                // In between it was somebody else's, or nobody's.
                Ok(Ok(_)) => return Lost::Taken,
                Ok(Err(_)) | Err(_) => {
                    if !std::mem::replace(&mut is_told, true) {
                        shaky(Some(until.saturating_duration_since(Instant::now())));
                    }
                }
            }
        }
    }

    /// Lets others have it at once, where it is held here.
    pub(super) async fn let_go(&self) {
        if self.held.lock().take().is_some() {
            let gone = time::timeout(LET_GO_WITHIN, self.backend.let_go(&self.key, &self.holder)).await;
            if !matches!(gone, Ok(Ok(()))) {
                info!(lease = self.key, "the lease of the feed could not be let go; it runs out");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryBackend, MemoryConfig, Retention};

    #[tokio::test(start_paused = true)]
    async fn another_has_it_within_five_seconds_after_the_holder_is_gone() {
        let backend: SharedBackend =
            Arc::new(MemoryBackend::new(Retention::default(), MemoryConfig::default()).0);
        let of = || Lease::new(Arc::clone(&backend), "binance", NodeId::random());
        let (first, second) = (of(), of());
        let fence = first.take().await;
        assert!(first.is_held());
        let waiting = second.take();
        let mut waiting = std::pin::pin!(waiting);
        // For as long as the first one is there the second one waits.
        tokio::select! {
            _ = &mut waiting => panic!("there are two holders"),
            _ = first.keep(|_| ()) => panic!("it was lost"),
            () = time::sleep(Duration::from_secs(60)) => {}
        }
        let gone = Instant::now();
        let next = waiting.await;
        assert!(next > fence && gone.elapsed() < Duration::from_secs(5), "{:?}", gone.elapsed());
        assert!(!first.is_held() && second.is_held());
        // Who comes back finds it taken.
        assert_eq!(first.keep(|_| ()).await, Lost::RanOut);
        second.let_go().await;
        let begun = Instant::now();
        first.take().await;
        assert!(begun.elapsed() < Duration::from_secs(1), "it was let go");
    }
}
