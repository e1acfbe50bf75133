//! Drives feeds: asks for prices when they are due, and publishes them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::replay::{Replay, ReplayError, ReplayOptions, ReplayPrice};
use super::{FeedPrice, Pace, Pacer, ReplayConfig, Simulated, SimulatedConfig};
use crate::channels::{Channels, PublishError};
use crate::model::{ChannelName, DraftEntry};
use crate::protocol::{InvalidPayload, parse_price};
use crate::support::backoff::STORAGE_RETRY;

/// How many prices are read ahead from a file.
const READ_AHEAD: usize = 256;

/// Publishes the simulated prices until dropped. Prices that are not accepted are dropped and logged: newer
/// ones will follow.
pub(crate) async fn run_simulated(config: SimulatedConfig, channels: Channels) {
    let mut feed = Simulated::new(config.seed).only(&config.zones);
    let mut ticks = time::interval(Duration::from_millis(config.interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut batch: BTreeMap<ChannelName, Vec<DraftEntry>> = BTreeMap::new();
        for price in feed.next_batch(Utc::now()) {
            let channel = ChannelName::zone(&price.zone);
            let draft = match read(&price, &channels) {
                Ok(draft) => draft,
                Err(error) => {
                    warn!(zone = %price.zone, error = %error, "the simulation yielded an invalid price");
                    continue;
                }
            };
            batch.entry(channel).or_default().push(draft);
        }
        for (channel, drafts) in batch {
            if let Err(error) = channels.publish(&channel, drafts).await {
                warn!(channel = %channel, error = %error, "simulated prices were not accepted");
            }
        }
    }
}

/// Publishes a file's prices once, in order, and waits while the storage accepts none. Prices beyond the
/// limit of keys or zones are left out, which is logged once per zone.
pub(crate) async fn run_replay(config: ReplayConfig, channels: Channels) {
    let Some(file) = config.file.clone() else { return };
    let options = ReplayOptions::from(&config);
    let (sender, prices) = mpsc::channel(READ_AHEAD);
    let path = Arc::new(file);
    let reading = Arc::clone(&path);
    // Reading blocks; the bounded queue makes it wait for publishing.
    let skips = config.skip_invalid;
    let reader = spawn_blocking(move || -> Result<u64, String> {
        let mut invalid = Invalid { skips, count: 0 };
        for price in Replay::open(&reading, options).map_err(|error| error.to_string())? {
            match price {
                // The prices before a bad line are in the queue, and are published.
                Err(error @ ReplayError::Line { .. }) => invalid.line(error.to_string())?,
                Err(error) => return Err(error.to_string()),
                Ok(price) => {
                    if sender.blocking_send(price).is_err() {
                        break;
                    }
                }
            }
        }
        Ok(invalid.count)
    });
    let pace = if config.flat_out { Pace::FlatOut } else { Pace::Times(config.speed) };
    let invalid = Invalid { skips, count: 0 };
    let mut replaying = Replaying { channels, published: 0, left_out: 0, invalid, logged: HashSet::new() };
    let sent = replaying.send(prices, pace).await;
    let read = reader.await.unwrap_or_else(|error| Err(error.to_string()));
    let Replaying { published, mut left_out, invalid, .. } = replaying;
    left_out += invalid.count + read.as_ref().copied().unwrap_or_default();
    match sent.and(read) {
        Ok(_) => info!(file = %path.display(), published, left_out, "replayed a file"),
        Err(error) => warn!(file = %path.display(), published, left_out, error, "stopped replaying a file"),
    }
}

/// Handles lines that are not prices.
struct Invalid {
    /// Whether to skip them, instead of ending the replay.
    skips: bool,
    count: u64,
}

impl Invalid {
    /// How many are logged; further ones are only counted.
    const LOGGED_MAX: u64 = 20;

    fn line(&mut self, problem: String) -> Result<(), String> {
        if !self.skips {
            return Err(problem);
        }
        self.count += 1;
        if self.count <= Self::LOGGED_MAX {
            warn!(problem, "skipped a line of a replayed file");
        }
        Ok(())
    }
}

/// A file that is being published.
struct Replaying {
    channels: Channels,
    published: u64,
    /// Prices that would be refused again at any later attempt.
    left_out: u64,
    /// Prices that no gateway would accept.
    invalid: Invalid,
    /// The zones for which it was logged that prices are left out.
    logged: HashSet<ChannelName>,
}

impl Replaying {
    /// Publishes prices as they arrive, each when it is due.
    async fn send(&mut self, mut prices: mpsc::Receiver<ReplayPrice>, pace: Pace) -> Result<(), String> {
        let (begun, mut pacer) = (Instant::now(), Pacer::new(pace));
        while let Some(price) = prices.recv().await {
            let due = begun.checked_add(pacer.due(price.time)).ok_or_else(|| {
                format!("line {}: the file's times are too far apart for feeds.replay.speed", price.line)
            })?;
            time::sleep_until(due).await;
            let channel = ChannelName::zone(&price.price.zone);
            match read(&price.price, &self.channels) {
                Ok(draft) => self.publish(&channel, draft, price.line).await?,
                Err(error) => self.invalid.line(format!("line {}: {error}", price.line))?,
            }
        }
        Ok(())
    }

    /// Publishes one price; tries again while the storage accepts nothing.
    async fn publish(&mut self, channel: &ChannelName, draft: DraftEntry, line: u64) -> Result<(), String> {
        let mut failures = 0;
        while let Err(error) = self.channels.publish(channel, vec![draft.clone()]).await {
            match &error {
                PublishError::Unavailable { .. } => {
                    if failures == 0 {
                        warn!(%channel, line, %error, "a replayed price was not accepted; trying again");
                    }
                    failures += 1;
                    STORAGE_RETRY.pause(failures).await;
                }
                PublishError::TooManyKeys { .. } | PublishError::TooManyZones { .. } => {
                    self.left_out += 1;
                    if self.logged.insert(channel.clone()) {
                        warn!(%channel, line, %error, "leaving out prices of a replayed file");
                    }
                    return Ok(());
                }
                PublishError::Refused { .. }
                | PublishError::Gap { .. }
                | PublishError::NotFirst
                | PublishError::ShuttingDown { .. } => {
                    return Err(format!("line {line}: {error}"));
                }
            }
        }
        self.published += 1;
        Ok(())
    }
}

fn read(price: &FeedPrice, channels: &Channels) -> Result<DraftEntry, InvalidPayload> {
    let ahead_max = channels.config().ahead_max(&ChannelName::zone(&price.zone));
    parse_price(&price.json, Utc::now(), ahead_max)
}
