//! A subscriber that comes back where it stopped, and checks that nothing is missing or double.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use super::client::{Came, Client, offset, position};

/// What a subscriber has had of a zone, over all its connections.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) zone: String,
    pub(crate) epoch: String,
    /// The last offset had.
    pub(crate) last: u64,
    /// Every price since the start, in order.
    pub(crate) seen: Vec<Value>,
    pub(crate) connections: usize,
}

impl Follower {
    /// Begins after a position, as `subscribed` told it.
    pub(crate) fn after(zone: &str, position: &str) -> Self {
        let (epoch, offset) = position.rsplit_once(':').unwrap();
        let (zone, epoch, last) = (zone.to_owned(), epoch.to_owned(), offset.parse().unwrap());
        Self { zone, epoch, last, seen: Vec::new(), connections: 0 }
    }

    /// Reads to the offset `until`; leaves and comes back after as many messages as `cuts` draws, to
    /// one of the gateways.
    pub(crate) async fn read(&mut self, bases: &[String], until: u64, cuts: &mut Cuts) {
        self.read_while(bases, |follower| follower.last < until, cuts).await;
    }

    /// Reads to a price with this key.
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
                    other => panic!("{other:?} after {}", self.last),
                }
            }
            // Half of them without a word, as on a lost network.
            if cuts.below(2) == 0 {
                client.close().await;
            }
        }
    }

    /// Connects after the last position; the gateway must have all that follows.
    pub(crate) async fn resume(&mut self, base: &str) -> Client {
        let Self { zone, epoch, last, .. } = self;
        let mut client = Client::connect(&format!("{base}/ws/market/{zone}?since={epoch}:{last}")).await;
        self.connections += 1;
        let subscribed = loop {
            let message = client.next().await;
            match message["type"].as_str() {
                Some("connection_established" | "backend_state") => {}
                // It is subscribed as soon as the storage answers.
                Some("error") => assert_eq!(message["code"], "storage_unavailable", "{message}"),
                _ => break message,
            }
        };
        assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
        assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&true.into(), &0.into()), "{subscribed}");
        // What began its life since is called by its own name from here on, whichever that is.
        let (told, born) = (position(&subscribed), epoch.strip_prefix("u."));
        let is_same =
            [Some(epoch.as_str()), born].into_iter().flatten().any(|epoch| told == format!("{epoch}:{last}"));
        assert!(
            is_same || (born.is_some() && *last == 0 && offset(&subscribed) == 0),
            "{epoch}:{last}, {told}"
        );
        *epoch = subscribed["epoch"].as_str().unwrap().to_owned();
        client
    }

    /// Takes a message; false when the gateway says that this reader was too slow.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let message: Value = serde_json::from_str(text).unwrap();
        match message["type"].as_str() {
            Some("price_update") => {
                // In a view of the log, what was had is left out.
                let follows = offset(&message) == self.last + 1;
                let skips = self.epoch.starts_with("v.") && offset(&message) > self.last;
                assert!(follows || skips, "after {} of {}: {message}", self.last, self.epoch);
                self.last = offset(&message);
                self.seen.push(message);
            }
            Some("resync") => {
                assert_eq!(
                    (&message["recovered"], message["old_epoch"].as_str()),
                    (&true.into(), Some(self.epoch.as_str())),
                    "{message}"
                );
                message["epoch"].as_str().unwrap().clone_into(&mut self.epoch);
                self.last = offset(&message);
            }
            Some("heartbeat" | "backend_state") => {}
            Some("closing") => {
                assert_eq!(message["code"], 4001, "{message}");
                return false;
            }
            _ => panic!("{message}"),
        }
        true
    }
}

/// When a reader leaves: after up to so many messages, drawn by a seed.
#[derive(Debug)]
pub(crate) struct Cuts {
    random: StdRng,
    most: Option<usize>,
}

impl Cuts {
    pub(crate) fn seeded(seed: u64, most: usize) -> Self {
        Self { random: StdRng::seed_from_u64(seed), most: Some(most) }
    }

    /// It stays.
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
