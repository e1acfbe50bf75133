//! Looking, over and over: at the gateways' health, and at the suite's own pace.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use zonewire::client::Http;

use super::timeline::Said;
use zonewire::client::BaseUrl;

/// How often a gateway is asked how it is.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long it may take to say so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the suite looks at its own pace.
const BEAT: Duration = Duration::from_millis(20);

/// Asks a gateway how it is until `stop`.
pub(super) async fn health(base: BaseUrl, http: Http, said: Arc<Mutex<Said>>, stop: CancellationToken) {
    let mut ticks = time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let url = base.endpoint("ws/health");
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let asked = Instant::now();
        let state = state(&http, &url).await;
        let came = Instant::now();
        match state {
            Some(state) => said.lock().answered(asked, came, &state),
            None => said.lock().failed(),
        }
    }
}

async fn state(http: &Http, url: &str) -> Option<String> {
    let response = http.get(url).timeout(ANSWER_TIMEOUT).send().await.ok()?;
    let health: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    Some(health.get("state")?.as_str()?.to_owned())
}

/// Measures how late the suite itself is at the most, until `stop`: what it cannot keep up with is
/// not the gateways' doing.
pub(super) async fn pace(worst: Arc<Mutex<Duration>>, stop: CancellationToken) {
    loop {
        let due = Instant::now() + BEAT;
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep_until(due) => {}
        }
        let late = due.elapsed();
        let mut worst = worst.lock();
        *worst = late.max(*worst);
    }
}
