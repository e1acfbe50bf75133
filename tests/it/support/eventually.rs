//! Waiting for what must come about, instead of sleeping and hoping.

use std::time::Duration;

use tokio::time::{self, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` finds something, and fails the test when that takes too long. With tokio's
/// time paused it takes no time at all.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        time::sleep(LOOK_EVERY).await;
    }
}
