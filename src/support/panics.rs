//! What happens when something panics.
//!
//! A panic in one request or one connection ends only that, because others do not depend on it
//! ([`contain`]). Everything else is essential: without it the gateway would continue with a silent part
//! while health reports that all is well. There, a panic ends the gateway ([`Vital`]), and its supervisor
//! restarts it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::counter::Counter;

/// Runs something that only one client depends on; returns `None` if it panicked, which is counted. The
/// panic itself has been logged. Dropping this while it waits drops the task.
///
/// Not an `async fn`, which would store the task twice, and there is one for each connection.
pub(crate) fn contain<F: Future>(task: F, panics: &Counter) -> impl Future<Output = Option<F::Output>> {
    // What the task shares with others is behind cells and locks, which are released by the panic.
    AssertUnwindSafe(task).catch_unwind().map(|ended| {
        if ended.is_err() {
            panics.add(1);
        }
        ended.ok()
    })
}

/// The same for work that does not wait.
pub(crate) fn contain_now<T>(work: impl FnOnce() -> T, panics: &Counter) -> Option<T> {
    let ended = std::panic::catch_unwind(AssertUnwindSafe(work)).ok();
    if ended.is_none() {
        panics.add(1);
    }
    ended
}

/// Records which essential part of the gateway has failed first: it panicked, or ended by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vital(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    failed: CancellationToken,
    first: OnceLock<&'static str>,
}

impl Vital {
    /// Runs a part of the gateway; a panic in it ends the gateway.
    pub(crate) fn guard<F: Future<Output = ()>>(
        &self,
        part: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + use<F> {
        let vital = self.clone();
        AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if ended.is_err() {
                vital.fail(part);
            }
        })
    }

    /// Records that a part has ended that should not have.
    pub(crate) fn fail(&self, part: &'static str) {
        error!(part, "a part of the gateway ended by itself, which is a bug; the gateway ends too");
        let _first = self.0.first.set(part);
        self.0.failed.cancel();
    }

    /// Waits until a part has failed; returns the first one.
    pub(crate) async fn failed(&self) -> &'static str {
        self.0.failed.cancelled().await;
        self.0.first.get().copied().unwrap_or("unknown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_client_has_need_of_ends_alone_and_is_counted() {
        let panics = Counter::default();
        assert_eq!(contain(async { 7 }, &panics).await, Some(7));
        assert_eq!(panics.get(), 0);
        assert_eq!(contain(async { panic!("a bug") }, &panics).await, None::<()>);
        assert_eq!(contain_now(|| panic!("another"), &panics), None::<()>);
        assert_eq!(panics.get(), 2);
    }

    #[tokio::test]
    async fn the_first_part_that_failed_is_told() {
        let vital = Vital::default();
        vital.guard("good", async {}).await;
        assert!(vital.failed().now_or_never().is_none());
        vital.guard("fan-out", async { panic!("a bug") }).await;
        vital.guard("spool", async { panic!("another") }).await;
        assert_eq!(vital.failed().await, "fan-out");
    }
}
