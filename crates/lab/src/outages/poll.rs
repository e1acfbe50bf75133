//! Two polls: the gateways' health, and the suite's own pace.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use zonewire::client::{BaseUrl, Http};

use super::timeline::HealthHistory;
use crate::node;

/// How often a gateway is asked for its health.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long it may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the suite checks its own pace.
const BEAT: Duration = Duration::from_millis(20);

/// Polls a gateway's health until `stop`.
pub(super) async fn health(
    base: BaseUrl,
    http: Http,
    said: Arc<Mutex<HealthHistory>>,
    stop: CancellationToken,
) {
    let mut ticks = time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let asked = Instant::now();
        let health = node::health(&base, &http, ANSWER_TIMEOUT).await;
        let came = Instant::now();
        match health {
            Ok(health) => said.lock().answered(asked, came, health.storage.state.as_str()),
            Err(_) => said.lock().unanswered += 1,
        }
    }
}

/// Measures until `stop` how late the suite itself is at most: such delays are not the gateways' fault.
pub(super) async fn pace(worst: Arc<Mutex<Duration>>, stop: CancellationToken) {
    let mut due = Instant::now() + BEAT;
    while stop.run_until_cancelled(time::sleep_until(due)).await.is_some() {
        let late = due.elapsed();
        let mut worst = worst.lock();
        *worst = late.max(*worst);
        due = Instant::now() + BEAT;
    }
}
