//! Handles what the primary publishes about followed channels: updates the local replicas, and passes it on
//! to the reader of this storage's own `incoming`.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::replicas::Replicas;
use crate::storage::LogEvent;

/// Events that wait for the reader of `incoming`.
const INCOMING_LEN: usize = 1_024;

/// Passes events to the reader of `incoming`. Nothing waits for a reader that does not keep up: it gets
/// [`LogEvent::Suspect`], and reads the logs.
pub(super) struct Incoming {
    replicas: Arc<Replicas>,
    events: mpsc::Sender<LogEvent>,
    /// Notified when there was no room for an event.
    overrun: Notify,
}

impl Incoming {
    pub(super) fn new(replicas: Arc<Replicas>) -> (Self, mpsc::Receiver<LogEvent>) {
        let (events, incoming) = mpsc::channel(INCOMING_LEN);
        (Self { replicas, events, overrun: Notify::new() }, incoming)
    }

    pub(super) fn tell(&self, event: LogEvent) {
        if self.events.try_send(event).is_err() {
            self.overrun.notify_one();
        }
    }

    /// Passes on what the primary publishes. Ends when the primary does, or whoever reads `incoming`.
    pub(super) async fn pass_on(&self) {
        let Some(mut incoming) = self.replicas.breaker.primary.take_incoming() else { return };
        loop {
            let event = tokio::select! {
                biased;
                () = self.overrun.notified() => {
                    if self.events.send(LogEvent::Suspect).await.is_err() {
                        return;
                    }
                    continue;
                }
                event = incoming.recv() => event,
            };
            let Some(event) = event else { return };
            if let Some(event) = self.taken(event) {
                self.tell(event);
            }
        }
    }

    /// Updates the replica, and returns what is to be passed on.
    fn taken(&self, event: LogEvent) -> Option<LogEvent> {
        let LogEvent::Appended { channel, epoch, entries } = &event else { return Some(event) };
        if !self.replicas.breaker.has_log(channel) {
            // What came before these entries is not known: they are read when the channel is reconciled.
            return None;
        }
        let mut state = self.replicas.lock();
        let is_queued = state.is_queued(channel);
        let Some(replica) = state.replicas.get_mut(channel) else { return Some(event) };
        let is_of_log = replica.is_of(epoch);
        if is_of_log && replica.contradicts(entries) {
            state.suspect(channel);
            return None;
        }
        if replica.is_forked() || (is_of_log && is_queued) {
            // The reconciler will read these entries from the log.
            return None;
        }
        if is_of_log {
            // Entries at offsets that the replica has are skipped: they arrive again, or are others that took
            // these offsets in a log that was set back, which cannot be told apart here.
            let top = self.replicas.memory.top(channel).unwrap_or(0);
            let known = entries.iter().take_while(|entry| entry.offset <= top).count();
            replica.mirror(&entries[known..]);
            state.mind_hole(channel);
            return Some(event);
        }
        if replica.log().is_none() {
            replica.hear(epoch, entries);
            return Some(event);
        }
        state.suspect(channel);
        None
    }
}
