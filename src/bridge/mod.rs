//! Exchanges events with other gateways, and with programs that do not know this gateway, over Redis pub/sub.
//!
//! What this node accepts it publishes in an envelope that other programs understand ([`publisher`]). It
//! receives what others publish if somebody here follows that type ([`subscriptions`], [`receiver`]). Each
//! type has one of two kinds of delivery. *Live* events are in a log of each node's own and travel to other
//! gateways over pub/sub alone: they arrive at most once, and their numbers show what did not arrive
//! ([`sequences`]). *Durable* events are in the log that gateways share: the bridge publishes them only for
//! other programs, and appends those that other programs publish ([`intake`]).

mod config;
mod envelope;
mod exchanges;
mod inbound;
mod intake;
mod outbox;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod publisher;
mod receiver;
pub(crate) mod relayed;
mod sequences;
mod stats;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{self, BoxFuture};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zonewire_protocol::stats::BridgeView;

pub(crate) use config::is_prefix;
pub use config::{BridgeConfig, BridgeRole, BridgedType};
pub(crate) use envelope::SEQUENCES;

use crate::channels::{Channels, TellAccepted};
use crate::model::{DraftEntry, EventType, NodeId};
use crate::protocol::{
    BridgeSource, BridgeSubscription, BridgeSubscriptions, SourceCounts, SubscriptionMode,
};
use crate::storage::{PubSub, PubSubHealth, PubSubLink, SharedBackend};
use exchanges::Exchanges;
use intake::Intake;
use outbox::Outbox;
use publisher::Publisher;
use receiver::Receiver;
use sequences::Known;
pub(crate) use sequences::{Came, Sequences};
use stats::Counts;
pub(crate) use stats::{ByType, counts_by_type};
use subscriptions::{Allowed, Subscriber, Subscriptions};

/// A handle to the bridge. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bridge(Arc<Shared>);

/// The state that the parts of the bridge share.
#[derive(Debug)]
struct Shared {
    config: BridgeConfig,
    node: NodeId,
    /// The largest message that is accepted.
    message_bytes_max: usize,
    /// `None` if the bridge is off, or no Redis is used.
    pubsub: Option<Arc<dyn PubSub>>,
    outbox: Outbox,
    counts: Counts,
    sequences: parking_lot::Mutex<Sequences>,
    subscriptions: Subscriptions,
    exchanges: Exchanges,
}

/// What the bridge is built from.
pub(crate) struct BridgeParts {
    pub(crate) config: BridgeConfig,
    /// The storage to which durable events of other processes are appended.
    pub(crate) backend: SharedBackend,
    /// The connections to Redis pub/sub, if the bridge is on and Redis is used.
    pub(crate) link: Option<PubSubLink>,
    pub(crate) node: NodeId,
    /// The largest message that is accepted.
    pub(crate) message_bytes_max: usize,
}

/// The tasks of the bridge, which the caller has to run.
pub(crate) struct BridgeWork {
    /// Maintains the connections. Must outlive `exchange`; does not end by itself.
    pub(crate) driver: BoxFuture<'static, ()>,
    pub(crate) exchange: Exchange,
}

/// Publishes, subscribes and receives.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    pubsub: Arc<dyn PubSub>,
    backend: SharedBackend,
}

impl Shared {
    /// The full name of a pub/sub channel, with the prefix.
    fn channel(&self, name: &str) -> String {
        format!("{}{name}", self.config.prefix)
    }

    /// The types that are to be subscribed to now.
    fn due(&self) -> Vec<EventType> {
        let allowed = |event| Allowed {
            subscribes: self.config.subscribes(event),
            is_durable: self.config.is_durable(event),
        };
        self.subscriptions.due(allowed, Instant::now())
    }

    /// The state of the connections. If the bridge is off, they are never established.
    fn health(&self) -> PubSubHealth {
        self.pubsub.as_ref().map(|pubsub| pubsub.health()).unwrap_or_default()
    }
}

impl TellAccepted for Shared {
    fn accepted(&self, entries: &[DraftEntry]) {
        self.exchanges.count(entries);
        if self.pubsub.is_some() {
            self.outbox.put(&self.config, &self.counts, entries);
        }
    }
}

impl Bridge {
    /// Creates the bridge and, if it is on and Redis is used, the work that connects it.
    pub(crate) fn new(parts: BridgeParts) -> (Self, Option<BridgeWork>) {
        let BridgeParts { config, backend, link, node, message_bytes_max } = parts;
        if config.enabled && link.is_none() {
            warn!(
                storage = backend.name().as_str(),
                "bridge.enabled has no effect: it needs Redis, which is not used"
            );
        }
        let (pubsub, driver) = link.map(|PubSubLink { role, driver }| (role, driver)).unzip();
        let shared = Arc::new(Shared {
            config,
            node,
            message_bytes_max,
            pubsub,
            outbox: Outbox::default(),
            counts: Counts::default(),
            sequences: parking_lot::Mutex::default(),
            subscriptions: Subscriptions::new(),
            exchanges: Exchanges::default(),
        });
        let work = shared.pubsub.clone().zip(driver).map(|(pubsub, driver)| {
            let Shared { config, .. } = &*shared;
            info!(prefix = config.prefix, role = ?config.role, "exchanging events with other processes");
            BridgeWork { driver, exchange: Exchange { shared: Arc::clone(&shared), pubsub, backend } }
        });
        (Self(shared), work)
    }

    /// A bridge that exchanges nothing.
    #[cfg(test)]
    pub(crate) fn off(node: NodeId) -> Self {
        let backend = Arc::new(crate::storage::MemoryBackend::new(Default::default(), Default::default()).0);
        let config = BridgeConfig::default();
        Self::new(BridgeParts { config, backend, link: None, node, message_bytes_max: 1 << 16 }).0
    }

    /// The observer of the entries that this node accepts.
    pub(crate) fn tell_accepted(&self) -> Arc<dyn TellAccepted> {
        Arc::clone(&self.0) as Arc<dyn TellAccepted>
    }

    /// Sets when a type is subscribed to from now on; false if the configuration does not include the type.
    pub(crate) fn set_mode(&self, event: EventType, mode: SubscriptionMode) -> bool {
        let is_known = self.0.pubsub.is_some() && self.0.config.subscribes(event);
        if is_known {
            info!(event = event.as_str(), mode = mode.as_str(), "subscription changed by an operator");
            self.0.subscriptions.set_mode(event, mode);
        }
        is_known
    }

    /// Whether events are exchanged at all.
    pub(crate) fn is_on(&self) -> bool {
        self.0.pubsub.is_some()
    }

    /// Whether both connections are established.
    pub(crate) fn is_connected(&self) -> bool {
        let health = self.0.health();
        health.publishes && health.hears
    }

    /// All counters and gauges.
    pub(crate) fn read(&self) -> BridgeView {
        let Shared { counts, subscriptions, outbox, .. } = &*self.0;
        let health = self.0.health();
        let is_subscribed = |event: &EventType| subscriptions.of(*event).is_subscribed;
        let active = EventType::ALL.iter().filter(|event| is_subscribed(event)).count();
        let counts = counts.read();
        BridgeView {
            connected: u64::from(health.publishes && health.hears),
            errors: counts.errors + health.losses,
            waiting: outbox.len(),
            subscriptions: self.0.due().len(),
            active_subscriptions: if health.hears { active } else { 0 },
            takes_in: u64::from(subscriptions.takes_in()),
            ..counts
        }
    }

    /// How many events of each exchange this node accepted or received, by type.
    pub(crate) fn exchanges(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.0.exchanges.read()
    }

    /// What is published and subscribed to, and what arrived from which gateway.
    pub(crate) fn subscriptions(&self) -> BridgeSubscriptions {
        let Shared { config, subscriptions, pubsub, counts, .. } = &*self.0;
        let is_on = pubsub.is_some();
        let (due, hears) = (self.0.due(), self.0.health().hears);
        let of_type = |event: EventType| {
            let wanted = subscriptions.of(event);
            BridgeSubscription {
                event: event.as_str().to_owned(),
                channel: self.0.channel(event.as_str()),
                delivery: if config.is_durable(event) { "durable" } else { "live" }.to_owned(),
                publishes: is_on && config.publishes(event),
                subscribes: is_on && config.subscribes(event),
                mode: wanted.mode.into(),
                wanted_here: wanted.is_followed,
                due: due.contains(&event),
                active: hears && wanted.is_subscribed,
                published: counts.published.get(event),
                received: counts.received.get(event),
                missed: counts.missed.get(event),
            }
        };
        let sources = self.0.sequences.lock().known();
        BridgeSubscriptions {
            enabled: is_on,
            takes_in: subscriptions.takes_in(),
            types: EventType::ALL.into_iter().map(of_type).collect(),
            sources: sources.into_iter().map(|(id, known)| source(id, &known)).collect(),
        }
    }
}

fn source(id: NodeId, known: &[Known; EventType::ALL.len()]) -> BridgeSource {
    let heard = EventType::ALL.into_iter().zip(known).filter_map(|(event, known)| {
        let counts =
            SourceCounts { published: known.newest?, received: known.received, missed: known.missed };
        Some((event.as_str().to_owned(), counts))
    });
    BridgeSource { source: id.0.as_hyphenated().to_string(), types: heard.collect() }
}

/// Records what somebody on this node follows, for as long as there are channels.
async fn note_followed(shared: &Shared, mut followed: watch::Receiver<BTreeSet<EventType>>) {
    loop {
        let wanted = followed.borrow_and_update().clone();
        for event in EventType::ALL {
            let is_followed = wanted.contains(&event);
            if shared.subscriptions.of(event).is_followed != is_followed {
                shared.subscriptions.set_followed(event, is_followed, Instant::now());
            }
        }
        if followed.changed().await.is_err() {
            future::pending::<()>().await;
        }
    }
}

impl Exchange {
    /// Ends soon after `stop`: once events in the outbox are published and those in the intake appended, or
    /// the time for that is over.
    pub(crate) async fn run(self, channels: Channels, stop: CancellationToken) {
        let Self { shared, pubsub, backend } = self;
        let role = shared.config.role;
        let publishing = async {
            if role != BridgeRole::Subscribe {
                Publisher::new(Arc::clone(&shared), Arc::clone(&pubsub)).run(stop.clone()).await;
            }
        };
        let hearing = async {
            let incoming = pubsub.take_incoming();
            let Some(incoming) = incoming.filter(|_| role != BridgeRole::Publish) else { return };
            let (intake, queue) = mpsc::channel(intake::QUEUE_LEN);
            let followed = channels.followed_events();
            let receiver = Receiver::new(Arc::clone(&shared), channels.clone(), intake);
            let intake = Intake::new(Arc::clone(&shared), backend, queue);
            let subscribing = Subscriber::new(Arc::clone(&shared), Arc::clone(&pubsub), channels).run();
            let taking = future::join(receiver.run(incoming, stop.clone()), intake.run(stop.clone()));
            tokio::select! {
                _ended = taking => {}
                () = subscribing => {}
                () = note_followed(&shared, followed) => {}
            }
        };
        tokio::join!(publishing, hearing);
    }
}
