//! Distributes what others published: live events go to this node's own logs, durable events of other
//! processes to the [`intake`](super::intake).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Shared;
use super::envelope::{Envelope, Mark, Publisher, SEQUENCES};
use super::inbound::{Clock, missed, of_gateway, of_other};
use super::intake::Foreign;
use super::sequences::Came;
use crate::channels::Channels;
use crate::model::{ChannelName, DraftEntry, EventType, NodeId};
use crate::storage::PubSubEvent;
use crate::support::counter::observe;
use crate::support::seldom::Seldom;

/// How many messages are processed in one step.
const TOGETHER: usize = 256;

/// What is to be appended to the log of one type.
#[derive(Debug, Default)]
struct Batch {
    drafts: Vec<DraftEntry>,
    /// How many of the drafts are events.
    events: u64,
    /// When gateways accepted the events, as far as the envelopes say.
    accepted_at: Vec<DateTime<Utc>>,
}

type Batches = [Batch; EventType::ALL.len()];

pub(super) struct Receiver {
    shared: Arc<Shared>,
    channels: Channels,
    intake: mpsc::Sender<Foreign>,
    of_invalid: Seldom,
    of_others: Seldom,
    of_missed: Seldom,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, channels: Channels, intake: mpsc::Sender<Foreign>) -> Self {
        let [of_invalid, of_others, of_missed] = std::array::from_fn(|_| Seldom::default());
        Self { shared, channels, intake, of_invalid, of_others, of_missed }
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, mut incoming: mpsc::Receiver<PubSubEvent>, stop: CancellationToken) {
        let mut heard = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                count = incoming.recv_many(&mut heard, TOGETHER) => if count == 0 { return },
            }
            let mut batches = Batches::default();
            for event in heard.drain(..) {
                match event {
                    PubSubEvent::Heard { channel, message } => self.hear(&channel, &message, &mut batches),
                    PubSubEvent::Suspect => self.suspect(&mut batches),
                }
            }
            let taken = EventType::ALL.into_iter().zip(batches);
            let taken = taken.filter(|(_, batch)| !batch.drafts.is_empty());
            join_all(taken.map(|(event, batch)| self.take(event, batch))).await;
        }
    }

    /// Appends events to their log.
    async fn take(&self, event: EventType, Batch { drafts, events, accepted_at }: Batch) {
        let counts = &self.shared.counts;
        self.shared.exchanges.count(&drafts);
        match self.channels.take_in(&ChannelName::event(event), drafts).await {
            Ok(()) => {
                counts.received.add_many(event, events);
                let now = Utc::now();
                for accepted_at in accepted_at {
                    // If this clock is behind the other one, the lag counts as zero, not as negative.
                    observe(&counts.lag, (now - accepted_at).to_std().unwrap_or_default());
                }
            }
            Err(error) => {
                let left = events.saturating_sub(error.accepted() as u64);
                counts.not_taken.add_many(event, left);
                debug!(event = event.as_str(), left, error = %error, "received events were not appended");
            }
        }
    }

    /// Messages may have been missed. Gateways' numbers will show how many of theirs; for other processes,
    /// followers are notified that some may be missing.
    fn suspect(&mut self, batches: &mut Batches) {
        self.shared.counts.gaps.add(1);
        for event in EventType::ALL {
            let is_heard = self.shared.subscriptions.of(event).is_subscribed;
            if is_heard && !self.shared.config.is_durable(event) {
                batches[event as usize].drafts.push(missed(None, Utc::now()));
            }
        }
    }

    fn hear(&mut self, channel: &str, message: &[u8], batches: &mut Batches) {
        let shared = Arc::clone(&self.shared);
        let Some(name) = channel.strip_prefix(shared.config.prefix.as_str()) else { return };
        if name == SEQUENCES {
            return self.hear_sequences(message, batches);
        }
        let Ok(event) = name.parse::<EventType>() else { return };
        if let Err(what) = self.hear_event(event, message, &mut batches[event as usize]) {
            shared.counts.invalid.add(event);
            if let Some(untold) = self.of_invalid.may_tell(Instant::now()) {
                warn!(channel, what, untold, "a message from another process is not an event");
            }
        }
    }

    fn hear_event(&mut self, event: EventType, message: &[u8], batch: &mut Batch) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let (counts, is_durable) = (&shared.counts, shared.config.is_durable(event));
        if message.len() > shared.message_bytes_max {
            return Err(format!("it has {} bytes, more than http.line_bytes_max", message.len()));
        }
        let envelope = Envelope::read(message)?;
        if !envelope.is_of(event.as_str()) {
            return Err("its `type` is that of another channel".to_owned());
        }
        let ahead_max = self.channels.config().ahead_max(&ChannelName::event(event));
        let clock = Clock { now: Utc::now(), ahead_max };
        match envelope.publisher() {
            Publisher::Gateway(source, _) if source == shared.node => counts.own.add(event),
            Publisher::Gateway(source, mark) => match mark.sequence {
                None if is_durable => counts.left_alone.add(event),
                Some(number) if !is_durable && self.follows(source, event, number, batch) => {
                    batch.drafts.push(of_gateway(event, &envelope, clock)?);
                    batch.events += 1;
                    batch.accepted_at.extend(Mark::accepted_at(&mark));
                }
                Some(_) if !is_durable => counts.stale.add(event),
                _ => self.other_delivery(source, event),
            },
            Publisher::Other => {
                let draft = of_other(event, is_durable, &envelope, clock)?;
                if !is_durable {
                    batch.drafts.push(draft);
                    batch.events += 1;
                } else if self.intake.try_send(Foreign { event, draft }).is_err() {
                    counts.intake_full.add(event);
                }
            }
        }
        Ok(())
    }

    /// Whether a gateway's event comes in order. Events missing before it are reported.
    fn follows(&mut self, source: NodeId, event: EventType, number: u64, batch: &mut Batch) -> bool {
        let came = self.shared.sequences.lock().event(source, event, number, Instant::now());
        let Came::After(count) = came else { return false };
        self.tell_missed(source, event, count, batch);
        true
    }

    fn tell_missed(&mut self, source: NodeId, event: EventType, count: u64, batch: &mut Batch) {
        if count == 0 {
            return;
        }
        self.shared.counts.missed.add_many(event, count);
        batch.drafts.push(missed(Some((source, count)), Utc::now()));
        if let Some(untold) = self.of_missed.may_tell(Instant::now()) {
            warn!(event = event.as_str(), source = %source, count, untold, "live events of another gateway did not arrive");
        }
    }

    fn hear_sequences(&mut self, message: &[u8], batches: &mut Batches) {
        let Ok(envelope) = Envelope::read(message) else { return };
        let Publisher::Gateway(source, _) = envelope.publisher() else { return };
        if source == self.shared.node {
            return;
        }
        for (event, number) in envelope.sequences() {
            if !self.shared.config.is_durable(event) {
                let count = self.shared.sequences.lock().stands_at(source, event, number, Instant::now());
                self.tell_missed(source, event, count, &mut batches[event as usize]);
            }
        }
    }

    fn other_delivery(&mut self, source: NodeId, event: EventType) {
        self.shared.counts.other_delivery.add(event);
        if let Some(untold) = self.of_others.may_tell(Instant::now()) {
            warn!(
                event = event.as_str(), source = %source, untold,
                "bridge.durable differs from another gateway's: its events of this type are dropped here"
            );
        }
    }
}
