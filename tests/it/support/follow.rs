//! A subscriber that resumes where it stopped, and checks that nothing is missing or doubled.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use zonewire_protocol::{CloseCode, EntryKind, ErrorCode, Position, ServerMessage};

use super::client::{Came, Client, raw, read};

/// What a subscriber has received of a zone, over all its connections.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) zone: String,
    /// The position of the last entry received.
    pub(crate) position: Position,
    /// Every price since the start, in order.
    pub(crate) seen: Vec<Value>,
    pub(crate) connections: usize,
}

impl Follower {
    /// Starts after a position, as in `subscribed`.
    pub(crate) fn after(zone: &str, position: &str) -> Self {
        let (zone, position) = (zone.to_owned(), position.parse().unwrap());
        Self { zone, position, seen: Vec::new(), connections: 0 }
    }

    /// Reads up to the offset `until`. Leaves and reconnects to one of the gateways after as many messages as
    /// `cuts` says.
    pub(crate) async fn read(&mut self, bases: &[String], until: u64, cuts: &mut Cuts) {
        self.read_while(bases, |follower| follower.position.offset < until, cuts).await;
    }

    /// Reads up to a price with this key.
    pub(crate) async fn read_to(&mut self, bases: &[String], key: &str, cuts: &mut Cuts) {
        self.read_while(bases, |follower| follower.seen.last().is_none_or(|price| price["key"] != key), cuts)
            .await;
    }

    async fn read_while(&mut self, bases: &[String], more: impl Fn(&Self) -> bool, cuts: &mut Cuts) {
        while more(self) {
            let base = &bases[cuts.below(bases.len())];
            let mut client = self.resume(base).await;
            let mut left = cuts.next();
            while left > 0 && more(self) {
                match client.came().await {
                    Came::Text(text) => {
                        if !self.take(&text) {
                            break;
                        }
                        left -= 1;
                    }
                    Came::Ping => {}
                    other => panic!("{other:?} after {}", self.position),
                }
            }
            // Half of them without closing, as on a lost network.
            if cuts.below(2) == 0 {
                client.close().await;
            }
        }
    }

    /// Connects with the last position; the gateway must have everything after it.
    pub(crate) async fn resume(&mut self, base: &str) -> Client {
        let Self { zone, position, .. } = self;
        let mut client = Client::connect(&format!("{base}/ws/market/{zone}?since={position}")).await;
        self.connections += 1;
        let subscribed = loop {
            match read(&client.next_text().await) {
                ServerMessage::ConnectionEstablished(_) | ServerMessage::BackendState(_) => {}
                // The client is subscribed as soon as the storage answers.
                ServerMessage::Error(error) if error.code.is(ErrorCode::StorageUnavailable) => {}
                ServerMessage::Subscribed(subscribed) => break subscribed,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((subscribed.recovered, subscribed.gap), (true, Some(0)), "{subscribed:?}");
        // If the log began since, its epoch is the one announced by the earlier position.
        let (before, now) = (position.epoch.as_str(), subscribed.epoch.as_str());
        let born = before.strip_prefix("u.");
        let is_same = subscribed.offset == position.offset && (now == before || Some(now) == born);
        let is_new = born.is_some() && (position.offset, subscribed.offset) == (0, 0);
        assert!(is_same || is_new, "{position}, {subscribed:?}");
        position.epoch = subscribed.epoch;
        client
    }

    /// Processes a message; false if the gateway says that this reader was too slow.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let Position { epoch, offset: last } = &mut self.position;
        match read(text) {
            ServerMessage::Entry(entry) if *entry.kind == *EntryKind::PriceUpdate.as_str() => {
                // With a version vector, entries that the reader has had are left out.
                let skips = epoch.as_str().starts_with("v.") && entry.offset > *last;
                assert!(entry.offset == *last + 1 || skips, "after {last} of {epoch}: {text}");
                *last = entry.offset;
                self.seen.push(raw(text));
            }
            ServerMessage::Resync(resync) => {
                assert_eq!((resync.recovered, &resync.old_epoch), (true, &*epoch), "{text}");
                (*epoch, *last) = (resync.epoch, resync.offset);
            }
            ServerMessage::Heartbeat(_) | ServerMessage::BackendState(_) => {}
            ServerMessage::Closing(closing) => {
                assert!(closing.reason.is(CloseCode::SlowConsumer), "{text}");
                return false;
            }
            _ => panic!("{text}"),
        }
        true
    }
}

/// When a reader leaves: after a random number of messages up to a maximum.
#[derive(Debug)]
pub(crate) struct Cuts {
    random: StdRng,
    most: Option<usize>,
}

impl Cuts {
    pub(crate) fn seeded(seed: u64, most: usize) -> Self {
        Self { random: StdRng::seed_from_u64(seed), most: Some(most) }
    }

    /// Never leaves.
    pub(crate) fn none() -> Self {
        Self { random: StdRng::seed_from_u64(0), most: None }
    }

    pub(crate) fn next(&mut self) -> usize {
        self.most.map_or(usize::MAX, |most| self.random.random_range(1..=most))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }
}
