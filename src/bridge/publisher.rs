//! Publishes the events that this node accepted, and announces the newest number of each type.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Shared;
use super::envelope::{self, OwnEvent, SEQUENCES};
use crate::model::EventType;
use crate::storage::{Outgoing, PubSub};
use crate::support::seldom::Seldom;

/// How many events are published at once.
const TOGETHER: usize = 256;

/// How often the newest numbers are announced if they have changed. Within this time other gateways know what
/// they missed.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// After how many ticks they are announced if they have not changed: for those who have just subscribed.
const ANNOUNCE_AFTER: u32 = 5;

/// How long waiting events are still published when the node stops.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Publisher {
    shared: Arc<Shared>,
    pubsub: Arc<dyn PubSub>,
    /// By type: the pub/sub channel.
    channels: [Arc<str>; EventType::ALL.len()],
    of_sequences: Arc<str>,
    announced: [u64; EventType::ALL.len()],
    /// Ticks since the last announcement.
    silent_for: u32,
    of_failures: Seldom,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, pubsub: Arc<dyn PubSub>) -> Self {
        Self {
            channels: EventType::ALL.map(|event| shared.channel(event.as_str()).into()),
            of_sequences: shared.channel(SEQUENCES).into(),
            shared,
            pubsub,
            announced: [0; EventType::ALL.len()],
            silent_for: ANNOUNCE_AFTER,
            of_failures: Seldom::default(),
        }
    }

    /// Runs until `stop`, then until nothing waits, or for one more second.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut tick = time::interval(ANNOUNCE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = stop.cancelled() => break,
                () = shared.outbox.until_filled() => self.publish().await,
                _ = tick.tick() => self.announce().await,
            }
        }
        let deadline = Instant::now() + LAST_PATIENCE;
        while self.shared.outbox.len() > 0 && Instant::now() < deadline {
            self.publish().await;
        }
        self.silent_for = ANNOUNCE_AFTER;
        self.announce().await;
    }

    /// Publishes the oldest waiting events. Events that cannot be published now are dropped: later they would
    /// be stale.
    async fn publish(&mut self) {
        let counts = &self.shared.counts;
        let events = self.shared.outbox.take(TOGETHER);
        if !self.pubsub.health().publishes {
            events.iter().for_each(|own| counts.redis_away.add(own.event));
            return;
        }
        let (node, channels) = (self.shared.node, &self.channels);
        let written = events.iter().filter_map(|own| {
            let channel = Arc::clone(&channels[own.event as usize]);
            Some((own, Outgoing { channel, message: envelope::write(node, own)? }))
        });
        let (events, messages): (Vec<&OwnEvent>, Vec<Outgoing>) = written.unzip();
        let answers = self.pubsub.publish(&messages).await;
        let mut failed = None;
        for (own, answer) in events.iter().zip(answers) {
            match answer {
                Ok(()) => counts.published.add(own.event),
                Err(error) => {
                    counts.not_answered.add(own.event);
                    failed = Some(error);
                }
            }
        }
        let Some(error) = failed else { return };
        counts.errors.add(1);
        if let Some(untold) = self.of_failures.may_tell(Instant::now()) {
            warn!(error = %error, untold, "events may not have been published to other processes");
        }
    }

    /// Announces the newest numbers if they have changed, or were not announced for some time.
    async fn announce(&mut self) {
        let sequences = self.shared.outbox.sequences();
        self.silent_for = self.silent_for.saturating_add(1);
        let is_due = sequences != self.announced || self.silent_for >= ANNOUNCE_AFTER;
        if !is_due || !self.pubsub.health().publishes {
            return;
        }
        let config = &self.shared.config;
        let live =
            EventType::ALL.into_iter().filter(|event| config.publishes(*event) && !config.is_durable(*event));
        let live = live.map(|event| (event, sequences[event as usize]));
        let message = envelope::write_sequences(self.shared.node, live, Utc::now());
        let message = Outgoing { channel: Arc::clone(&self.of_sequences), message };
        if self.pubsub.publish(&[message]).await.iter().all(Result::is_ok) {
            (self.announced, self.silent_for) = (sequences, 0);
        }
    }
}
