//! Counts the events of each exchange that this node accepted or received.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::envelope::data_of;
use crate::model::{DraftEntry, EntryKind, EventType};

/// How many exchanges are counted separately; events of further ones are counted together.
const EXCHANGES_MAX: usize = 256;

/// The name under which those are counted together; no exchange can have it.
const OTHERS: &str = "*";

/// Events by exchange and type.
#[derive(Debug, Default)]
pub(super) struct Exchanges(Mutex<BTreeMap<String, [u64; EventType::ALL.len()]>>);

impl Exchanges {
    pub(super) fn count(&self, entries: &[DraftEntry]) {
        let mut counts = self.0.lock();
        for draft in entries {
            let EntryKind::Event(event) = draft.kind else { continue };
            let Some(exchange) = exchange_of(draft) else { continue };
            let exchange =
                if counts.len() < EXCHANGES_MAX || counts.contains_key(exchange) { exchange } else { OTHERS };
            match counts.get_mut(exchange) {
                Some(of_types) => of_types[event as usize] += 1,
                None => {
                    let mut of_types = [0; EventType::ALL.len()];
                    of_types[event as usize] = 1;
                    counts.insert(exchange.to_owned(), of_types);
                }
            }
        }
    }

    /// The counts that are not zero, by exchange and type.
    pub(super) fn read(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let of_types = |counts: &[u64; EventType::ALL.len()]| {
            let counts = EventType::ALL.into_iter().zip(*counts).filter(|(_, count)| *count > 0);
            counts.map(|(event, count)| (event.as_str().to_owned(), count)).collect()
        };
        self.0.lock().iter().map(|(exchange, counts)| (exchange.clone(), of_types(counts))).collect()
    }
}

/// The exchange of an event: the first segment of its key, and the first field of its payload.
fn exchange_of(draft: &DraftEntry) -> Option<&str> {
    if let Some(key) = &draft.key {
        return key.split(':').next();
    }
    data_of(&draft.data)?.strip_prefix(r#"{"exchange":""#)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::Utc;

    use super::*;
    use crate::protocol::parse_event;

    fn parsed(event: EventType, text: &str) -> DraftEntry {
        parse_event(event, text, Utc::now(), Duration::MAX).unwrap()
    }

    #[test]
    fn events_without_a_key_are_counted_by_exchange_too() {
        let exchanges = Exchanges::default();
        let delta = r#"{"symbol":"A-B","exchange":"kraken","kind":"delta","sequence":2,"previousSequence":1,"bids":[],"asks":[]}"#;
        let delta = parsed(EventType::Orderbook, delta);
        assert_eq!(delta.key, None);
        let ticker = parsed(EventType::Ticker, r#"{"exchange":"x","symbol":"A-B","price":1}"#);
        exchanges.count(&[delta, ticker.clone(), ticker]);
        let read = exchanges.read();
        assert_eq!(read["kraken"], BTreeMap::from([("orderbook".to_owned(), 1)]));
        assert_eq!(read["x"], BTreeMap::from([("ticker".to_owned(), 2)]));
    }

    #[test]
    fn past_the_bound_exchanges_are_counted_together() {
        let exchanges = Exchanges::default();
        for n in 0..EXCHANGES_MAX + 5 {
            let text = format!(r#"{{"exchange":"x{n}","reason":"r"}}"#);
            exchanges.count(&[parsed(EventType::ExchangeConnected, &text)]);
        }
        let read = exchanges.read();
        assert_eq!((read.len(), read[OTHERS]["exchange:connected"]), (EXCHANGES_MAX + 1, 5));
    }
}
