//! Events that this node accepted and has yet to publish.

use std::collections::VecDeque;

use chrono::Utc;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::config::BridgeConfig;
use super::envelope::OwnEvent;
use super::stats::Counts;
use crate::model::{DraftEntry, EntryKind, EventType};

/// How many events may wait; beyond that the oldest are dropped, since newer ones are worth more to
/// listeners.
pub(super) const EVENTS_MAX: usize = 16_384;

/// The bound of their bytes.
pub(super) const BYTES_MAX: usize = 32 << 20;

/// Events that wait to be published, in the order in which they were accepted.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<OwnEvent>,
    bytes: usize,
    /// By type, the number of the newest live event that was put in.
    last_in: [u64; EventType::ALL.len()],
    /// By type, the number of the newest live event that was taken out or dropped.
    last_out: [u64; EventType::ALL.len()],
}

impl Outbox {
    /// Puts in the events that are to be published. Live events are numbered here, before any can be dropped,
    /// so that listeners notice the drop.
    pub(super) fn put(&self, config: &BridgeConfig, counts: &Counts, entries: &[DraftEntry]) {
        let accepted_at = Utc::now();
        let mut state = self.state.lock();
        for draft in entries {
            let EntryKind::Event(event) = draft.kind else { continue };
            if !config.publishes(event) {
                continue;
            }
            let sequence = (!config.is_durable(event)).then(|| {
                state.last_in[event as usize] += 1;
                state.last_in[event as usize]
            });
            let (time, payload) = (draft.time, draft.data.clone());
            state.bytes += payload.len();
            state.events.push_back(OwnEvent { event, sequence, time, accepted_at, payload });
            while state.events.len() > EVENTS_MAX || state.bytes > BYTES_MAX {
                let Some(oldest) = state.pop() else { break };
                counts.queue_full.add(oldest.event);
            }
        }
        drop(state);
        self.notify.notify_one();
    }

    /// Waits until there is an event.
    pub(super) async fn until_filled(&self) {
        loop {
            let notified = self.notify.notified();
            if !self.state.lock().events.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Takes out the oldest events, at most `most`.
    pub(super) fn take(&self, most: usize) -> Vec<OwnEvent> {
        let mut state = self.state.lock();
        std::iter::from_fn(|| state.pop()).take(most).collect()
    }

    /// By type, the number of the newest live event that was taken out or dropped.
    pub(super) fn sequences(&self) -> [u64; EventType::ALL.len()] {
        self.state.lock().last_out
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().events.len()
    }
}

impl State {
    fn pop(&mut self) -> Option<OwnEvent> {
        let event = self.events.pop_front()?;
        self.bytes -= event.payload.len();
        if let Some(sequence) = event.sequence {
            self.last_out[event.event as usize] = sequence;
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bridge::BridgedType;
    use crate::model::Marks;

    fn draft(event: EventType, bytes: usize) -> DraftEntry {
        DraftEntry {
            time: Utc::now(),
            kind: EntryKind::Event(event),
            key: None,
            data: Bytes::from(vec![b'x'; bytes]),
            marks: Marks::default(),
        }
    }

    #[test]
    fn past_the_bound_the_oldest_events_are_dropped_with_their_numbers() {
        let (outbox, config, counts) = (Outbox::default(), BridgeConfig::default(), Counts::default());
        let ticker = draft(EventType::Ticker, 10);
        outbox.put(&config, &counts, &vec![ticker; EVENTS_MAX + 3]);
        assert_eq!((outbox.len(), counts.queue_full.get(EventType::Ticker)), (EVENTS_MAX, 3));
        let first = outbox.take(1).remove(0);
        assert_eq!((first.sequence, outbox.sequences()[EventType::Ticker as usize]), (Some(4), 4));
        outbox.put(&config, &counts, &[draft(EventType::Ticker, BYTES_MAX - 1)]);
        assert_eq!(outbox.len(), 1, "the others leave no room for it");
        let large = outbox.take(9).remove(0);
        assert_eq!(large.sequence, Some(EVENTS_MAX as u64 + 4));
    }

    #[test]
    fn durable_events_have_no_number_and_unpublished_types_do_not_wait() {
        let (outbox, counts) = (Outbox::default(), Counts::default());
        let config = BridgeConfig { publish: vec![BridgedType::Trade], ..BridgeConfig::default() };
        outbox.put(&config, &counts, &[draft(EventType::Ticker, 1), draft(EventType::Trade, 1)]);
        let taken = outbox.take(9);
        assert_eq!(
            taken.iter().map(|own| (own.event, own.sequence)).collect::<Vec<_>>(),
            [(EventType::Trade, None)]
        );
        assert_eq!(outbox.sequences(), [0; EventType::ALL.len()]);
    }
}
