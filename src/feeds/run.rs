//! Drives feeds: asks them when prices are due, and publishes what they give.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::replay::{Replay, ReplayOptions};
use super::{FeedPrice, Pace, Pacer, ReplayConfig, Simulated, SimulatedConfig};
use crate::channels::Channels;
use crate::model::{ChannelName, DraftEntry};
use crate::protocol::parse_price;

/// Prices read ahead from a file.
const READ_AHEAD: usize = 256;

/// Between tries while the storage takes nothing.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Publishes the simulated prices until it is dropped. Prices that the storage does not take are
/// let go and logged: the next ones are on their way.
pub(crate) async fn run_simulated(config: SimulatedConfig, channels: Channels) {
    let mut feed = Simulated::new(config.seed, Duration::from_millis(config.interval_ms)).only(&config.zones);
    let mut ticks = time::interval(feed.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut batch: Vec<(ChannelName, Vec<DraftEntry>)> = Vec::new();
        for price in feed.next_batch(Utc::now()) {
            let channel = ChannelName::zone(&price.zone);
            let Some(draft) = read(&price) else { continue };
            match batch.last_mut() {
                Some((last, drafts)) if *last == channel => drafts.push(draft),
                _ => batch.push((channel, vec![draft])),
            }
        }
        for (channel, drafts) in batch {
            if let Err(error) = channels.publish(&channel, drafts).await {
                warn!(channel = %channel, error = %error, "simulated prices were not taken");
            }
        }
    }
}

/// Publishes a file's prices once, in order; waits for the storage where it takes none.
pub(crate) async fn run_replay(config: ReplayConfig, channels: Channels) {
    let Some(file) = config.file.clone() else { return };
    let pace = if config.flat_out { Pace::FlatOut } else { Pace::Times(config.speed) };
    let options = ReplayOptions::from(&config);
    let (sender, mut prices) = mpsc::channel(READ_AHEAD);
    let path = Arc::new(file);
    let reading = Arc::clone(&path);
    // Reading blocks; the bounded queue makes it wait for the publishing.
    let reader = spawn_blocking(move || -> Result<(), String> {
        for price in Replay::open(&reading, options).map_err(|error| error.to_string())? {
            if sender.blocking_send(price.map_err(|error| error.to_string())?).is_err() {
                break;
            }
        }
        Ok(())
    });
    let (begun, mut pacer, mut published) = (Instant::now(), Pacer::new(pace), 0u64);
    while let Some(price) = prices.recv().await {
        time::sleep_until(begun + pacer.due(price.time)).await;
        let Some(draft) = read(&price.price) else { continue };
        let channel = ChannelName::zone(&price.price.zone);
        while let Err(error) = channels.publish(&channel, vec![draft.clone()]).await {
            warn!(channel = %channel, line = price.line, error = %error, "a replayed price was not taken yet");
            time::sleep(RETRY_EVERY).await;
        }
        published += 1;
    }
    match reader.await {
        Ok(Ok(())) => info!(file = %path.display(), published, "replayed a file"),
        Ok(Err(error)) => warn!(file = %path.display(), published, error, "stopped replaying a file"),
        Err(error) => warn!(file = %path.display(), published, error = %error, "stopped replaying a file"),
    }
}

fn read(price: &FeedPrice) -> Option<DraftEntry> {
    parse_price(&price.json, Utc::now())
        .inspect_err(|error| warn!(zone = %price.zone, error = %error, "a feed gave what is not a price"))
        .ok()
}
