//! Waiting for a condition instead of sleeping.

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `look` finds something, and fails the test if that takes too long. With tokio's time paused it
/// takes no real time.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    zonewire_kit::eventually(what, PATIENCE, look).await.unwrap()
}

/// Polls until this is so, and fails the test if that takes too long.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    eventually(what, async || is_so().await.then_some(())).await;
}
