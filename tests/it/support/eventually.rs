//! Waiting for what must come about, instead of sleeping and hoping.

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until `look` finds something, and fails the test when that takes too long. With tokio's
/// time paused it takes no time at all.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    zonewire_kit::eventually(what, PATIENCE, look).await.unwrap()
}
