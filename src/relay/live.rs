//! Carries live messages from pub/sub to pub/sub, at most once each. Gateways number their events and
//! announce their newest numbers. Both are carried, so the relay counts what did not arrive, and gateways at
//! the target notify their subscribers of it, as for events of the bridge.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Shared, note_failure};
use crate::bridge::relayed::{Carried, CarriedSequences, LeftOut, carry, carry_sequences};
use crate::bridge::{Came, SEQUENCES, Sequences};
use crate::model::EventType;
use crate::storage::{Outgoing, PubSubEvent};
use crate::support::seldom::{Seldom, warn_seldom};

/// How many messages are carried in one step.
const TOGETHER: usize = 256;

pub(super) struct Live {
    shared: Arc<Shared>,
    sequences: Sequences,
    /// By type, whether it is subscribed to.
    follows: [bool; EventType::ALL.len()],
    /// Whether the announcements of gateways' newest numbers are subscribed to.
    follows_sequences: bool,
    of_invalid: Seldom,
    of_missed: Seldom,
    of_failures: Seldom,
}

impl Live {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let [of_invalid, of_missed, of_failures] = std::array::from_fn(|_| Seldom::default());
        let sequences = Sequences::default();
        Self {
            shared,
            sequences,
            follows: Default::default(),
            follows_sequences: false,
            of_invalid,
            of_missed,
            of_failures,
        }
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        // Events of durable types on pub/sub come from foreign programs, and gateways append those to the log.
        let is_live = |event: &EventType| !self.shared.from.bridge.is_durable(*event);
        let types: Vec<EventType> = self.shared.types.iter().copied().filter(is_live).collect();
        let incoming = self.shared.from.pubsub.take_incoming();
        let Some(mut incoming) = incoming.filter(|_| !types.is_empty()) else { return };
        let mut leases = self.shared.leases.watch();
        let mut heard = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                count = incoming.recv_many(&mut heard, TOGETHER) => if count == 0 { return },
                // The channel cannot close: `self` has its sender.
                _tried = leases.changed() => self.subscribe(&types).await,
            }
            if !heard.is_empty() {
                self.carry(&mut heard).await;
            }
        }
    }

    /// Subscribes to what this process is to carry. What fails is tried again at the next renewal of the
    /// leases.
    async fn subscribe(&mut self, types: &[EventType]) {
        let shared = Arc::clone(&self.shared);
        let (from, prefix) = (&shared.from.pubsub, &shared.from.bridge.prefix);
        let follow = async |channel: String, is_wanted| {
            if is_wanted { from.follow(&channel).await } else { from.unfollow(&channel).await }
        };
        for event in types.iter().copied() {
            let (held, follows) = (shared.leases.of(event), self.follows[event as usize]);
            let is_wanted = held.is_ours() || (follows && !held.is_anothers);
            if is_wanted == follows {
                continue;
            }
            if let Err(error) = follow(format!("{prefix}{event}"), is_wanted).await {
                return note_failure(&shared, &mut self.of_failures, event, &error);
            }
            self.follows[event as usize] = is_wanted;
            self.sequences.begin_anew(event);
            self.sequences.follow(event, is_wanted);
        }
        let is_wanted = self.follows.contains(&true);
        if is_wanted == self.follows_sequences {
            return;
        }
        match follow(format!("{prefix}{SEQUENCES}"), is_wanted).await {
            Ok(()) => self.follows_sequences = is_wanted,
            Err(error) => note_failure(&shared, &mut self.of_failures, types[0], &error),
        }
    }

    /// Publishes received messages at the target.
    async fn carry(&mut self, heard: &mut Vec<PubSubEvent>) {
        let shared = Arc::clone(&self.shared);
        let (mut events, mut messages) = (Vec::new(), Vec::new());
        for received in heard.drain(..) {
            let PubSubEvent::Heard { channel, message } = received else {
                shared.counts.gaps.add(1);
                continue;
            };
            let Some(name) = channel.strip_prefix(shared.from.bridge.prefix.as_str()) else { continue };
            let (event, message) = if name == SEQUENCES {
                (None, self.hear_sequences(&message))
            } else {
                let Ok(event) = name.parse::<EventType>() else { continue };
                (Some(event), self.hear(event, &message))
            };
            let Some(message) = message else { continue };
            events.push(event);
            messages.push(Outgoing { channel: format!("{}{name}", shared.to.bridge.prefix).into(), message });
        }
        let answers = if shared.to.pubsub.health().publishes {
            shared.to.pubsub.publish(&messages).await
        } else {
            Vec::new()
        };
        let mut answers = answers.into_iter();
        for event in events {
            let answer = answers.next();
            let Some(event) = event else { continue };
            match answer {
                Some(Ok(())) => shared.counts.live_carried.of(event).add(1),
                Some(Err(error)) => {
                    shared.counts.live_unpublished.of(event).add(1);
                    note_failure(&shared, &mut self.of_failures, event, &error);
                }
                // The target is away, and an event of ten seconds ago would be worthless once it is back.
                None => shared.counts.live_unpublished.of(event).add(1),
            }
        }
    }

    /// The message to publish for an event.
    fn hear(&mut self, event: EventType, message: &[u8]) -> Option<bytes::Bytes> {
        let shared = Arc::clone(&self.shared);
        let counts = &shared.counts;
        let held = shared.leases.of(event);
        if held.is_anothers {
            return None;
        }
        let carried = if message.len() > shared.from.message_bytes_max {
            let max = shared.from.message_bytes_max;
            Err(LeftOut::Invalid(format!(
                "it has {} bytes, more than http.line_bytes_max ({max})",
                message.len()
            )))
        } else {
            carry(event, message, shared.way())
        };
        match carried {
            Ok(Carried { message, numbered }) => {
                if let Some((source, number)) = numbered {
                    match self.sequences.event(source, event, number, Instant::now()) {
                        Came::Stale => {
                            counts.live_stale.of(event).add(1);
                            return None;
                        }
                        Came::After(missing) => self.note_missed(event, missing),
                    }
                }
                if !held.is_ours() {
                    // No relay is known to carry the type: the target is away.
                    counts.live_unpublished.of(event).add(1);
                    return None;
                }
                return Some(message);
            }
            Err(LeftOut::Passed) => counts.live_passed.of(event).add(1),
            Err(LeftOut::ByLog) => counts.live_by_log.of(event).add(1),
            Err(LeftOut::Invalid(what)) => {
                counts.live_invalid.of(event).add(1);
                warn_seldom!(self.of_invalid, event = event.as_str(), what, "a message is not an event");
            }
        }
        None
    }

    /// The message to publish for a gateway's newest numbers.
    fn hear_sequences(&mut self, message: &[u8]) -> Option<bytes::Bytes> {
        let shared = Arc::clone(&self.shared);
        if message.len() > shared.from.message_bytes_max {
            return None;
        }
        let is_carried = |event: EventType| self.follows[event as usize] && shared.leases.of(event).is_ours();
        let CarriedSequences { message, source, sequences } =
            match carry_sequences(message, is_carried, shared.way()) {
                Ok(carried) => carried,
                Err(why) => {
                    debug!(?why, "a gateway's newest numbers are not carried");
                    return None;
                }
            };
        for (event, number) in &sequences {
            let missing = self.sequences.stands_at(source, *event, *number, Instant::now());
            self.note_missed(*event, missing);
        }
        (!sequences.is_empty()).then_some(message)
    }

    fn note_missed(&mut self, event: EventType, missing: u64) {
        if missing == 0 {
            return;
        }
        self.shared.counts.live_missed.of(event).add(missing);
        warn_seldom!(self.of_missed, event = event.as_str(), count = missing, "live events did not arrive");
    }
}
