//! Storage in Redis (or Valkey), shared between nodes.
//!
//! The log is a stream per channel, and the only truth; pub/sub merely wakes its followers. Every change is
//! one Lua script, because only a script can check the epoch and the producer's chain, then append, trim and
//! publish, all in one step. The client library never repeats a command: callers repeat appends, which the
//! producer's chain makes harmless.
//!
//! Keys, with the default prefix and the channel `zone:pjm` (the braces are literal: they keep the keys of a
//! channel on one node of a cluster):
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `zw:{zone:pjm}:log` | stream | ids `<offset>-0`; `e` entry, `t` time of the append, `b` bytes appended before it |
//! | `zw:{zone:pjm}:meta` | hash | `e` epoch, `s` top offset, `b` bytes ever appended, `p:<node>` = `<last seq> <time>`, `f` newest fencing token, `c` if it is closed; for an order also `t`, the time of its newest update; for a zone `a`, when all keys were last checked for `:ages` |
//! | `zw:{zone:pjm}:latest` | hash | key -> `<time>:<time of the append> <offset> <entry>` |
//! | `zw:{zone:pjm}:ages` | sorted set | the same keys by the time of their last append |
//! | `zw:{zone:pjm}:removed`, `:removed-ages` | hash, sorted set | the same for removals that are remembered; the removal of all keys has the key `` |
//! | `zw:r:{zone}` | hash | record key -> `<expires> <value>` |
//! | `zw:r:{zone}:keys`, `:due` | sorted sets | record keys by bytes, and by expiry |
//! | `zw:{jobs}:fixed` | hash | job -> `<queued> <length of the idempotency key, or -> <key><payload>` |
//! | `zw:{jobs}:parts` | hash | job -> `<state> <run> <token> <cancelled> <committed> <changed> <place> <error>` |
//! | `zw:{jobs}:ready`, `:delayed`, `:leases`, `:ended` | sorted sets | jobs by the time when their turn came, when they are due, when their lease ends, when they ended |
//! | `zw:{jobs}:ages` | sorted set | all jobs by place: the order in which they were queued |
//! | `zw:{jobs}:waiting`, `:delays`, `:claimed`, `:done`, `:dead` | sorted sets | the jobs of each state by place |
//! | `zw:{jobs}:keys`, `:key-ages` | hash, sorted set | idempotency key -> `<job> <fingerprint>`, and keys by the time of their use |
//! | `zw:{jobs}:meta` | hash | newest `place` and `token`, `kept_for`, when all of these keys expire (`expires`), when old jobs and keys were last removed (`tidied`) |
//! | `zw:{life}` | hash | `id` of the data; `n:<node>` = `<health probes> <time>`. In a cluster there is one on each primary, `zw:{life:<n>}` |
//! | `zw:{life}:probe`, `:log` | string, stream | trial writes of a health probe |
//!
//! Appends are published on the pub/sub channel `zw:{zone:pjm}` (`zw@2:{zone:pjm}` for database 2, because
//! pub/sub ignores databases). In a cluster they are published with SPUBLISH, so that only nodes with the
//! channel's slot handle them. Each health probe of a node is published on `zw:{life}:<node>`, to which only
//! that node is subscribed.

mod beat;
mod codec;
mod commands;
mod connect;
mod errors;
mod job_scripts;
mod jobs;
mod link;
mod log;
mod outside;
mod primaries;
mod probe;
#[cfg(any(test, feature = "probes"))]
pub(super) mod probes;
mod prove;
mod pubsub;
mod records;
mod scripts;
mod sharded;
mod slots;
mod subscriber;
mod target;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use tokio::sync::{mpsc, oneshot, watch};

pub use probe::ProbeFailure;
pub(super) use probe::probe;
pub(super) use target::Target;

use super::primary::{Concerned, Domain, DomainPart, Domains, Place, Primary};
use super::{
    Beat, LinkHealth, LogEvent, Lost, MovedJob, OpenLog, Outside, OutsideKeys, PubSubLink, Recorded,
    RedisConfig, Result, Retention, StorageBackend,
};
use crate::model::{BackendName, ChannelName, Epoch, NodeId};
use beat::{Clocks, Lives};
use codec::decode_published;
use commands::Commands;
use jobs::Claims;
use link::{Condition, Link, LinkState};
use primaries::{DomainState, Primaries, slot_of};
use scripts::Words;
use sharded::{Following, ShardedSubscribers};
use slots::SLOTS;
use subscriber::{Published, Subscriber, Subscribing};

/// Events that wait for the reader of `incoming`; when it is full, one `Suspect` replaces further events.
const INCOMING_LEN: usize = 1_024;

/// The largest integer that Lua and the scores of Redis represent exactly.
const EXACT_MAX: u64 = 1 << 53;

/// The health of two connections, one for commands and one for subscriptions.
fn health_of(commands: &LinkState, subscriber: &LinkState) -> LinkHealth {
    let lost = |state: &LinkState| match &state.condition {
        Condition::Up => None,
        Condition::Connecting => {
            Some(Lost { code: "connecting", reason: "the connection is not established yet".to_owned() })
        }
        Condition::Down(failure) => Some(Lost::from(failure)),
    };
    let of_subscriber = || {
        let Lost { code, reason } = lost(subscriber)?;
        Some(Lost { code, reason: format!("the connection for subscriptions: {reason}") })
    };
    LinkHealth {
        lost: lost(commands).or_else(of_subscriber),
        losses: commands.losses.saturating_add(subscriber.losses),
    }
}

/// [`StorageBackend`] in Redis. Its connections close when it and its driver are dropped.
///
/// While there is no connection, calls fail at once as
/// [`Unreachable`](super::StorageError::Unreachable).
#[derive(Debug)]
pub struct RedisBackend {
    commands: Arc<Commands>,
    subscriber: Following<LogMessages>,
    incoming: parking_lot::Mutex<Option<mpsc::Receiver<LogEvent>>>,
    keys: Keys,
    retention: Retention,
    /// The health of all connections together.
    health: watch::Receiver<LinkHealth>,
    /// The health by domain.
    domains: watch::Receiver<Domains>,
    /// What this node knows about the data of each server.
    lives: Lives,
    /// The last reading of each server's clock.
    clocks: Clocks,
    claims: Claims,
    /// For opening further connections.
    target: (Target, RedisConfig),
    /// Dropped with the backend, which ends the driver.
    _alive: oneshot::Sender<()>,
}

impl RedisBackend {
    /// The backend and its driver, without connecting. The driver is a future that must run for as long as
    /// the backend is used. It connects, and reconnects whenever a connection is lost, without limit. It
    /// receives published entries, detects connections that hang, and subscribes again on each new
    /// connection. It ends when the backend is dropped.
    ///
    /// # Errors
    /// Only when the configuration is not valid.
    pub fn new(
        config: &RedisConfig,
        retention: Retention,
    ) -> Result<(Self, BoxFuture<'static, ()>), ProbeFailure> {
        let target = Target::from_config(config).map_err(ProbeFailure::InvalidConfig)?;
        let keys = Keys::new(&config.prefix, &target);
        let (events, incoming) = mpsc::channel(INCOMING_LEN);
        let (alive, dropped) = oneshot::channel();
        let messages = LogMessages { publish_prefix: keys.publish_prefix.clone() };
        let begun = LinkState { condition: Condition::Connecting, losses: 0 };
        let first = health_of(&begun, &begun);
        let (of_domains, domains) = watch::channel(Domains::one(first.clone()));
        let (of_all, health) = watch::channel(first);
        let teller = Teller { of_all, of_domains };
        let owned = (target.clone(), config.clone());
        let (commands, subscriber, driver) = match target.is_cluster() {
            true => of_cluster(owned, messages, events, teller),
            false => of_one(owned, messages, events, teller),
        };
        let driver = async move {
            tokio::select! {
                () = driver => {}
                _ = dropped => {}
            }
        };
        let backend = Self {
            commands,
            subscriber,
            incoming: parking_lot::Mutex::new(Some(incoming)),
            keys,
            retention,
            health,
            domains,
            lives: Lives::default(),
            clocks: Clocks::default(),
            claims: Claims::default(),
            target: (target, config.clone()),
            _alive: alive,
        };
        Ok((backend, Box::pin(driver)))
    }

    /// Like [`new`](Self::new), but returns once connected. Published entries wait until the driver runs.
    ///
    /// # Errors
    /// If the configuration is not valid, or Redis does not accept us at once.
    pub async fn connect(
        config: &RedisConfig,
        retention: Retention,
    ) -> Result<(Self, BoxFuture<'static, ()>), ProbeFailure> {
        let (backend, mut driver) = Self::new(config, retention)?;
        let mut health = backend.link_health();
        tokio::select! {
            biased;
            () = &mut driver => return Err(ProbeFailure::Unreachable("the driver ended".to_owned())),
            failure = backend.commands.until_failed() => return Err(failure),
            failure = backend.subscriber.until_failed() => return Err(failure),
            _up = health.wait_for(LinkHealth::is_up) => {}
        }
        Ok((backend, driver))
    }

    /// The health of the connections, as the driver sees it. A closed connection is reported at once, one
    /// that hangs within 900 ms with the default settings. Ends with the driver.
    pub fn link_health(&self) -> watch::Receiver<LinkHealth> {
        self.health.clone()
    }

    /// Published batches that did not get into `incoming` because it was full, or that were unreadable. Each
    /// run of them was reported as one [`LogEvent::Suspect`].
    pub fn events_dropped(&self) -> u64 {
        self.subscriber.dropped()
    }
}

#[async_trait]
impl StorageBackend for RedisBackend {
    fn name(&self) -> BackendName {
        BackendName::Redis
    }

    async fn ping(&self) -> Result<()> {
        let domains: Vec<Domain> = self.domains.borrow().present().map(|(domain, _)| domain).collect();
        let pings = domains.into_iter().map(|domain| async move {
            let [_, key, _] = self.keys.life(&self.tag_in(domain, None));
            let args = [key.as_str(), "1", "PX", "1000"].map(Value::from).into();
            self.commands.ask::<Value>("ping", &key, "SET", args).await
        });
        try_join_all(pings).await.map(drop)
    }

    fn outside_orders(&self) -> Option<Outside> {
        Some(self.open_outside())
    }

    fn outside_keys(&self) -> Option<Arc<dyn OutsideKeys>> {
        Some(self.open_outside_keys())
    }

    fn pub_sub(&self) -> Option<PubSubLink> {
        Some(self.open_pub_sub())
    }
}

#[async_trait]
impl Primary for RedisBackend {
    fn domains(&self) -> watch::Receiver<Domains> {
        self.domains.clone()
    }

    fn domain_of(&self, place: Place<'_>) -> Domain {
        let Some(primaries) = self.commands.primaries() else { return Domain::ONLY };
        match place {
            Place::Channel(channel) => primaries.domain_of_slot(slot_of_channel(channel)),
            Place::Jobs => primaries.domain_of_slot(slot_of("jobs")),
            Place::Records(kind) => primaries.domain_of_slot(slot_of(kind.as_str())),
            Place::Leases => primaries.domain_of_slot(slot_of("lease")),
        }
    }

    async fn examine(&self, channel: &ChannelName, producer: NodeId, at: u64) -> Result<Option<OpenLog>> {
        self.open_or_find("examine", channel, producer, None, at).await
    }

    async fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Result<Option<Epoch>> {
        Self::renew_epoch(self, channel, expected, minted).await
    }

    fn channels_of(&self, domains: &[Domain]) -> Concerned {
        let Some(primaries) = self.commands.primaries() else { return Concerned::none() };
        let slots = primaries.slots();
        Concerned::new(SLOTS, |slot| domains.contains(&slots.domain(slot)), slot_of_channel)
    }

    async fn beat(&self, domain: Domain, node: NodeId) -> Result<Beat, Lost> {
        self.beat_in(domain, node).await.map_err(|error| Lost::from(&ProbeFailure::of_call(&error)))
    }

    async fn record_job(&self, job: &MovedJob) -> Result<Recorded> {
        Self::record_job(self, job).await
    }

    async fn settle_claims(&self) -> Result<()> {
        Self::settle_claims(self).await
    }
}

/// Parses what our scripts publish.
#[derive(Debug, Clone)]
struct LogMessages {
    publish_prefix: String,
}

impl Published for LogMessages {
    type Event = LogEvent;

    fn read(&self, channel: &str, content: &[u8]) -> Option<LogEvent> {
        let braced = channel.strip_prefix(self.publish_prefix.as_str())?;
        let channel = braced.strip_prefix('{')?.strip_suffix('}')?.parse().ok()?;
        Some(match decode_published(content) {
            Ok((epoch, entries)) => LogEvent::Appended { channel, epoch, entries },
            // The batch is from a newer gateway, or not from a gateway: the log has the truth.
            Err(problem) => {
                tracing::debug!(%channel, problem, "a published batch is unreadable; its log is read instead");
                LogEvent::Changed(channel)
            }
        })
    }

    fn suspect(&self) -> LogEvent {
        LogEvent::Suspect
    }
}

/// The slot of a channel's keys: the part in braces determines it.
fn slot_of_channel(channel: &ChannelName) -> u16 {
    slot_of(channel.as_str())
}

/// The connections, and the future that maintains them and reports their health until it is dropped.
type Connections = (Arc<Commands>, Following<LogMessages>, BoxFuture<'static, ()>);

/// Connections to a single server.
fn of_one(
    of: (Target, RedisConfig),
    messages: LogMessages,
    events: mpsc::Sender<LogEvent>,
    teller: Teller,
) -> Connections {
    let command_timeout = Duration::from_millis(of.1.command_timeout_ms);
    let (of_commands, of_subscriber) = (of.clone(), of);
    let make = Arc::new(move || connect::commands_client(&of_commands.0, &of_commands.1, None));
    let link = Arc::new(Link::new(make, command_timeout));
    let commands = Arc::new(Commands::One(Arc::clone(&link)));
    let make = Arc::new(move || connect::subscriber_client(&of_subscriber.0, &of_subscriber.1, None));
    let subscriber = Arc::new(Subscriber::new(
        Link::behind(commands.ahead(), make, command_timeout),
        Arc::clone(&commands),
        messages,
        Subscribing::Plain,
    ));
    let following = Following::One(Arc::clone(&subscriber));
    let driver = async move {
        tokio::select! {
            () = link.keep() => {}
            () = subscriber.run(events) => {}
            () = teller.tell_one(link.state(), subscriber.state()) => {}
        }
    };
    (commands, following, driver.boxed())
}

/// Connections to each primary of a cluster.
fn of_cluster(
    (target, config): (Target, RedisConfig),
    messages: LogMessages,
    events: mpsc::Sender<LogEvent>,
    teller: Teller,
) -> Connections {
    let primaries = Arc::new(Primaries::new(target.clone(), config.clone()));
    let commands = Arc::new(Commands::Cluster(Arc::clone(&primaries)));
    let subscribers = Arc::new(ShardedSubscribers::new(target, config, Arc::clone(&primaries), messages));
    let following = Following::Sharded(Arc::clone(&subscribers));
    let driver = async move {
        tokio::select! {
            () = primaries.run() => {}
            () = subscribers.run(events) => {}
            () = teller.tell_domains(&primaries, &subscribers) => {}
        }
    };
    (commands, following, driver.boxed())
}

/// Reports the health of connections.
struct Teller {
    of_all: watch::Sender<LinkHealth>,
    of_domains: watch::Sender<Domains>,
}

/// What was last reported of a domain.
#[derive(Debug, Default)]
struct Told {
    server: String,
    /// The losses that its connections had counted.
    counted: u64,
    losses: u64,
}

impl Teller {
    /// Combines the health of both connections to a server.
    async fn tell_one(
        self,
        mut commands: watch::Receiver<LinkState>,
        mut subscriber: watch::Receiver<LinkState>,
    ) {
        loop {
            let now = health_of(&commands.borrow_and_update(), &subscriber.borrow_and_update());
            self.say(Domains::one(now), 0);
            let changed = tokio::select! {
                changed = commands.changed() => changed,
                changed = subscriber.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Combines the health of the connections to each primary.
    async fn tell_domains(self, primaries: &Primaries, subscribers: &ShardedSubscribers<LogMessages>) {
        let (mut of_primaries, mut of_subscribers) = (primaries.changes(), subscribers.changes());
        let mut told: Vec<Told> = Vec::new();
        let mut losses_of_gone = 0;
        loop {
            of_primaries.borrow_and_update();
            of_subscribers.borrow_and_update();
            let (states, moves) = primaries.domains();
            told.resize_with(states.len().max(told.len()), Told::default);
            let mut parts = Vec::with_capacity(states.len());
            for (domain, told) in states.into_iter().zip(&mut told) {
                let Some(DomainState { server, link }) = domain else {
                    losses_of_gone += std::mem::take(told).losses;
                    parts.push(None);
                    continue;
                };
                let subscriber = match &server {
                    Some(server) => subscribers.state_of(server),
                    None => LinkState { condition: link.condition.clone(), losses: 0 },
                };
                let now = health_of(&link, &subscriber);
                let name = server.map(|server| server.to_string()).unwrap_or_default();
                if !told.server.is_empty() && told.server != name {
                    // The connection of the earlier server is lost, however quickly another server took over.
                    told.losses += 1;
                    told.counted = 0;
                }
                told.losses += now.losses.saturating_sub(told.counted);
                told.counted = now.losses;
                told.server.clone_from(&name);
                parts.push(Some(DomainPart { name, health: LinkHealth { losses: told.losses, ..now } }));
            }
            self.say(Domains { parts, moves }, losses_of_gone);
            let changed = tokio::select! {
                changed = of_primaries.changed() => changed,
                changed = of_subscribers.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Reports the health of each domain, and of all domains together, including losses of domains that are gone.
    fn say(&self, domains: Domains, losses_of_gone: u64) {
        let health = || domains.present().map(|(_, part)| &part.health);
        let lost = health().find_map(|health| health.lost.clone());
        let losses = losses_of_gone + health().map(|health| health.losses).sum::<u64>();
        replace(&self.of_domains, domains);
        if !replace(&self.of_all, LinkHealth { lost: lost.clone(), losses }) {
            return;
        }
        match lost {
            None => tracing::debug!("connected to redis"),
            Some(lost) => {
                tracing::debug!(code = lost.code, reason = lost.reason, "no connection to redis");
            }
        }
    }
}

/// Sends a value if it has changed; returns whether it has.
fn replace<T: PartialEq>(told: &watch::Sender<T>, now: T) -> bool {
    told.send_if_modified(|last| {
        let is_new = *last != now;
        *last = now;
        is_new
    })
}

/// The names of keys and pub/sub channels.
#[derive(Debug)]
struct Keys {
    prefix: String,
    /// The prefix of pub/sub channels.
    publish_prefix: String,
    /// Whether appends are published only to nodes that have the channel's slot.
    sharded: bool,
    /// The keys of the jobs role, in the order in which its scripts expect them.
    jobs: Words,
}

/// The keys of one channel.
struct ChannelKeys {
    log: String,
    meta: String,
    latest: String,
    ages: String,
    removed: String,
    removed_ages: String,
    /// The pub/sub channel.
    publish: String,
}

impl ChannelKeys {
    /// The keys, in the order in which the scripts for latest entries expect them.
    fn of_latest(self) -> Vec<String> {
        vec![self.log, self.meta, self.latest, self.ages, self.removed, self.removed_ages]
    }
}

impl Keys {
    fn new(prefix: &str, target: &Target) -> Self {
        let publish_prefix = match target.db {
            0 => format!("{prefix}:"),
            db => format!("{prefix}@{db}:"),
        };
        let mut jobs = Words::default();
        for name in job_scripts::KEYS {
            jobs.push(format_args!("{prefix}:{{jobs}}:{name}"));
        }
        Self { prefix: prefix.to_owned(), sharded: target.is_cluster(), publish_prefix, jobs }
    }

    /// The keys that a health probe writes: the hash with the data's id, and two for trial writes.
    fn life(&self, tag: &str) -> [String; 3] {
        ["", ":probe", ":log"].map(|part| format!("{}:{{{tag}}}{part}", self.prefix))
    }

    fn channel(&self, channel: &ChannelName) -> ChannelKeys {
        let prefix = &self.prefix;
        ChannelKeys {
            log: format!("{prefix}:{{{channel}}}:log"),
            meta: format!("{prefix}:{{{channel}}}:meta"),
            latest: format!("{prefix}:{{{channel}}}:latest"),
            ages: format!("{prefix}:{{{channel}}}:ages"),
            removed: format!("{prefix}:{{{channel}}}:removed"),
            removed_ages: format!("{prefix}:{{{channel}}}:removed-ages"),
            publish: format!("{}{{{channel}}}", self.publish_prefix),
        }
    }
}
