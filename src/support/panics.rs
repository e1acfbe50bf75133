//! What becomes of a panic.
//!
//! One request or one connection can do without the others, so a panic there ends it alone
//! ([`contain`]). Everything else is vital: without it the gateway would go on with a part that is
//! silent, behind a health that is green. There a panic ends the gateway ([`Vital`]), and whoever
//! supervises it starts it anew.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::counter::Counter;

/// Runs something of which one client alone has need; answers `None` if it panicked, which is counted.
/// The panic itself is in the log already. Dropped while it waits, it drops the task.
///
/// Not an `async fn`: that would keep the task twice, and there is one for each connection.
pub(crate) fn contain<F: Future>(task: F, panics: &Counter) -> impl Future<Output = Option<F::Output>> {
    // What the task shared with others is behind cells and locks, which are free again after this.
    AssertUnwindSafe(task).catch_unwind().map(|ended| {
        if ended.is_err() {
            panics.add(1);
        }
        ended.ok()
    })
}

/// The same for what does not wait.
pub(crate) fn contain_now<T>(work: impl FnOnce() -> T, panics: &Counter) -> Option<T> {
    let ended = std::panic::catch_unwind(AssertUnwindSafe(work)).ok();
    if ended.is_none() {
        panics.add(1);
    }
    ended
}

/// Knows whether a part that the gateway cannot do without has panicked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vital(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    failed: CancellationToken,
    first: OnceLock<&'static str>,
}

impl Vital {
    /// Runs a part of the gateway; a panic in it is the gateway's end.
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

    /// A part has ended that should not have.
    pub(crate) fn fail(&self, part: &'static str) {
        error!(part, "a part of the gateway ended by itself, which is a bug; the gateway ends too");
        let _first = self.0.first.set(part);
        self.0.failed.cancel();
    }

    /// Waits until a part has failed; says which was the first.
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
