//! How many events of each type every gateway has published, and which of them did not arrive.
//!
//! Gateways number the live events of each type that they publish, and announce their newest numbers now and
//! then. That is how this node knows how many it missed. Other processes do not number theirs.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{EventType, NodeId};

/// How many gateways are remembered; beyond that, the one that has been silent for longest is forgotten.
const SOURCES_MAX: usize = 1_024;

/// When `SOURCES_MAX` is reached, all gateways are forgotten that have been silent for so long: they would
/// have announced their numbers every few seconds.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// An event's place in the order of its gateway's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The next event, or the first that is known of its gateway; this many before it are missing.
    After(u64),
    /// The event had been reported missing, and arrives too late.
    Stale,
}

/// What is known here of one gateway's events of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The newest number; `None` until the first event that matters.
    pub(super) newest: Option<u64>,
    pub(super) received: u64,
    pub(super) missed: u64,
}

#[derive(Debug)]
struct Source {
    heard_at: Instant,
    types: [Known; EventType::ALL.len()],
}

/// All gateways that were heard of.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    sources: HashMap<NodeId, Source>,
    /// By type, whether missing events matter.
    follows: [bool; EventType::ALL.len()],
}

impl Sequences {
    /// Records that an event with this number arrived.
    pub(crate) fn event(&mut self, source: NodeId, event: EventType, number: u64, now: Instant) -> Came {
        let known = &mut self.source(source, now).types[event as usize];
        let missed = match known.newest {
            Some(newest) if number <= newest => return Came::Stale,
            Some(newest) => number - newest - 1,
            None => 0,
        };
        known.newest = Some(number);
        known.received += 1;
        known.missed += missed;
        Came::After(missed)
    }

    /// Records a gateway's newest number, and returns how many events this shows to be missing.
    pub(crate) fn stands_at(&mut self, source: NodeId, event: EventType, number: u64, now: Instant) -> u64 {
        let follows = self.follows[event as usize];
        let known = &mut self.source(source, now).types[event as usize];
        if !follows {
            return 0;
        }
        let missed = known.newest.map_or(0, |newest| number.saturating_sub(newest));
        known.newest = Some(known.newest.unwrap_or(number).max(number));
        known.missed += missed;
        missed
    }

    /// Sets whether events of a type are received. While they are not, announced numbers do not show events
    /// to be missed.
    pub(crate) fn follow(&mut self, event: EventType, follows: bool) {
        self.follows[event as usize] = follows;
    }

    /// Forgets the numbers of a type: what was published until now does not count as missed.
    pub(crate) fn begin_anew(&mut self, event: EventType) {
        self.sources.values_mut().for_each(|source| source.types[event as usize].newest = None);
    }

    /// What is known of each gateway, ordered by node id.
    pub(super) fn known(&self) -> Vec<(NodeId, [Known; EventType::ALL.len()])> {
        let mut known: Vec<_> = self.sources.iter().map(|(id, source)| (*id, source.types)).collect();
        known.sort_unstable_by_key(|(id, _)| *id);
        known
    }

    fn source(&mut self, id: NodeId, now: Instant) -> &mut Source {
        if !self.sources.contains_key(&id) && self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, source| now.duration_since(source.heard_at) < FORGOTTEN_AFTER);
            let oldest = self.sources.iter().min_by_key(|(_, source)| source.heard_at).map(|(id, _)| *id);
            if let Some(oldest) = oldest.filter(|_| self.sources.len() >= SOURCES_MAX) {
                self.sources.remove(&oldest);
            }
        }
        let new = || Source { heard_at: now, types: Default::default() };
        let source = self.sources.entry(id).or_insert_with(new);
        source.heard_at = now;
        source
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const TICKER: EventType = EventType::Ticker;

    fn followed() -> Sequences {
        let mut sequences = Sequences::default();
        sequences.follow(TICKER, true);
        sequences
    }

    #[test]
    fn a_missing_event_is_counted_once_whatever_revealed_it() {
        let (mut sequences, source, now) = (followed(), NodeId::random(), Instant::now());
        assert_eq!(
            sequences.event(source, TICKER, 5, now),
            Came::After(0),
            "events before the first one do not matter"
        );
        assert_eq!(sequences.event(source, TICKER, 6, now), Came::After(0));
        assert_eq!(sequences.event(source, TICKER, 9, now), Came::After(2));
        assert_eq!(sequences.stands_at(source, TICKER, 9, now), 0);
        assert_eq!(sequences.stands_at(source, TICKER, 12, now), 3);
        assert_eq!(sequences.event(source, TICKER, 11, now), Came::Stale, "it was reported missing");
        assert_eq!(sequences.event(source, TICKER, 13, now), Came::After(0));
        let [(_, known)] = sequences.known()[..] else { panic!("one gateway was heard of") };
        assert_eq!(known[TICKER as usize], Known { newest: Some(13), received: 4, missed: 5 });
        assert_eq!(known[EventType::Trade as usize], Known::default());
    }

    #[test]
    fn events_of_a_type_that_nobody_follows_are_not_missed() {
        let (mut sequences, source, now) = (followed(), NodeId::random(), Instant::now());
        sequences.event(source, TICKER, 1, now);
        sequences.follow(TICKER, false);
        sequences.begin_anew(TICKER);
        assert_eq!(sequences.stands_at(source, TICKER, 50, now), 0);
        sequences.begin_anew(TICKER);
        sequences.follow(TICKER, true);
        assert_eq!(sequences.event(source, TICKER, 61, now), Came::After(0));
        assert_eq!(sequences.event(source, TICKER, 63, now), Came::After(1));
    }

    #[test]
    fn a_gateway_that_said_how_far_it_is_cannot_lose_its_first_events_unnoticed() {
        let (mut sequences, source, now) = (followed(), NodeId::random(), Instant::now());
        assert_eq!(sequences.stands_at(source, TICKER, 0, now), 0);
        assert_eq!(sequences.event(source, TICKER, 4, now), Came::After(3));
    }

    #[test]
    fn those_silent_for_longest_are_forgotten_first() {
        let (mut sequences, start) = (followed(), Instant::now());
        let first = NodeId::random();
        sequences.event(first, TICKER, 1, start);
        for n in 0..SOURCES_MAX {
            sequences.event(NodeId::random(), TICKER, 1, start + Duration::from_millis(1 + n as u64));
        }
        assert_eq!(sequences.known().len(), SOURCES_MAX);
        assert!(sequences.known().iter().all(|(id, _)| *id != first));
    }

    /// Three gateways publish over a pub/sub that loses stretches of messages but keeps each gateway's
    /// messages in order. Whatever is lost, in the end each event has arrived or was reported missing, and
    /// never both.
    #[test]
    fn over_a_lossy_pub_sub_each_event_comes_or_is_said_to_be_missing() {
        for seed in 0..2_000 {
            let mut chance = StdRng::seed_from_u64(seed);
            let (mut sequences, now) = (followed(), Instant::now());
            let gateways: [NodeId; 3] = std::array::from_fn(|_| NodeId::random());
            let (mut published, mut came, mut missed) = ([0_u64; 3], [0_u64; 3], [0_u64; 3]);
            // All gateways are heard of at first.
            for source in gateways {
                sequences.stands_at(source, TICKER, 0, now);
            }
            let mut is_away = false;
            for _ in 0..chance.random_range(1..200) {
                if chance.random_bool(0.1) {
                    is_away = !is_away;
                }
                let which = chance.random_range(0..3);
                let arrives = !is_away && chance.random_bool(0.9);
                if chance.random_bool(0.2) {
                    if arrives {
                        missed[which] += sequences.stands_at(gateways[which], TICKER, published[which], now);
                    }
                    continue;
                }
                published[which] += 1;
                if !arrives {
                    continue;
                }
                match sequences.event(gateways[which], TICKER, published[which], now) {
                    Came::After(before) => {
                        came[which] += 1;
                        missed[which] += before;
                    }
                    Came::Stale => panic!("seed {seed}: nothing arrives out of order"),
                }
            }
            for (which, source) in gateways.into_iter().enumerate() {
                missed[which] += sequences.stands_at(source, TICKER, published[which], now);
                assert_eq!(came[which] + missed[which], published[which], "seed {seed}");
            }
        }
    }
}
