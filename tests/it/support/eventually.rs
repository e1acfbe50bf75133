//! Waiting for a condition instead of sleeping.

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `look` finds something, and fails the test if that takes too long. With tokio's time paused it
/// takes no real time.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    zonewire_kit::eventually(what, PATIENCE, look).await.unwrap()
}
