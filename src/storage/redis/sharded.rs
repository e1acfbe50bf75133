//! Subscriptions in a cluster: the node with a channel's slot delivers what is published on the channel.
//!
//! Each primary has its own [`Subscriber`], so that one that is dead or hangs affects only its own channels,
//! and an answer proves something about the node that gave it. When a slot moves, the old server ends the
//! subscriptions with a message that fred does not pass on. So the map of slots is looked up continuously;
//! channels that moved are subscribed again at the new place, and reported as suspect.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::types::cluster::ClusterRouting;
use fred::types::config::Server;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time;

use super::commands::Commands;
use super::connect;
use super::errors::storage_error;
use super::link::{Condition, Link, LinkState, Members, keep_telling, until_one_failed};
use super::primaries::Primaries;
use super::subscriber::{Published, Subscriber, Subscribing};
use super::target::Target;
use crate::storage::{ProbeFailure, RedisConfig, StorageError};

/// How often subscribing to missing channels is retried.
const COMPLETE_EVERY: Duration = Duration::from_millis(500);

/// The followed channels: on one server, or in a cluster.
#[derive(Debug)]
pub(super) enum Following<P: Published> {
    One(Arc<Subscriber<P>>),
    Sharded(Arc<ShardedSubscribers<P>>),
}

impl<P: Published> Following<P> {
    pub(super) fn dropped(&self) -> u64 {
        match self {
            Self::One(subscriber) => subscriber.dropped(),
            Self::Sharded(subscribers) => subscribers.dropped(),
        }
    }

    /// Waits until an attempt to connect has failed.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        match self {
            Self::One(subscriber) => subscriber.until_failed().await,
            Self::Sharded(subscribers) => subscribers.until_failed().await,
        }
    }

    pub(super) async fn follow(&self, name: String) -> Result<(), StorageError> {
        match self {
            Self::One(subscriber) => subscriber.follow(name).await,
            Self::Sharded(subscribers) => subscribers.follow(name).await,
        }
    }

    /// A message of this node to itself was sent on this channel: see [`Subscriber::expect`].
    pub(super) fn expect(&self, name: &str) {
        match self {
            Self::One(subscriber) => subscriber.expect(name),
            Self::Sharded(subscribers) => {
                let owner = subscribers.map.lock().owner(name);
                owner.into_iter().for_each(|owner| owner.expect(name));
            }
        }
    }

    pub(super) async fn unfollow(&self, name: String) -> Result<(), StorageError> {
        match self {
            Self::One(subscriber) => subscriber.unfollow(name).await,
            Self::Sharded(subscribers) => subscribers.unfollow(name).await,
        }
    }
}

/// A [`Subscriber`] for each primary of a cluster.
pub(super) struct ShardedSubscribers<P: Published> {
    target: Target,
    config: RedisConfig,
    primaries: Arc<Primaries>,
    published: P,
    command_timeout: Duration,
    map: Mutex<Map<P>>,
    /// Notified by subscribers, and when no node has a slot.
    moved: Arc<Notify>,
    running: Members<Arc<Subscriber<P>>>,
    /// Drops counted by subscribers that are gone.
    dropped: AtomicU64,
    /// Counts changes of connections.
    changes: watch::Sender<u64>,
}

struct Map<P: Published> {
    routing: Option<ClusterRouting>,
    members: HashMap<Server, Member<P>>,
    /// All followed channels, on whatever server.
    followed: HashSet<String>,
}

struct Member<P: Published> {
    subscriber: Arc<Subscriber<P>>,
    /// Dropped with the member, which ends its subscriber.
    _alive: oneshot::Sender<()>,
}

impl<P: Published> fmt::Debug for ShardedSubscribers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.map.lock().members.keys().map(ToString::to_string).collect();
        f.debug_struct("ShardedSubscribers").field("servers", &servers).finish_non_exhaustive()
    }
}

impl<P: Published> ShardedSubscribers<P> {
    /// Has no connections until it runs.
    pub(super) fn new(target: Target, config: RedisConfig, primaries: Arc<Primaries>, published: P) -> Self {
        let command_timeout = Duration::from_millis(config.command_timeout_ms);
        let map = Map { routing: None, members: HashMap::new(), followed: HashSet::new() };
        Self {
            target,
            config,
            primaries,
            published,
            command_timeout,
            map: Mutex::new(map),
            moved: Arc::new(Notify::new()),
            running: Members::default(),
            dropped: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }
    }

    fn dropped(&self) -> u64 {
        let now: u64 = self.map.lock().members.values().map(|member| member.subscriber.dropped()).sum();
        self.dropped.load(Ordering::Relaxed) + now
    }

    async fn follow(&self, name: String) -> Result<(), StorageError> {
        let is_first = self.map.lock().followed.insert(name.clone());
        let mut answer = self.follow_at_owner(&name).await;
        if matches!(&answer, Err(Refused::Moved)) {
            self.primaries.look().await;
            self.route();
            answer = self.follow_at_owner(&name).await;
        }
        let error = match answer {
            Ok(()) => return Ok(()),
            Err(Refused::Moved) => {
                self.moved.notify_one();
                let error = Error::new(ErrorKind::Cluster, "CLUSTERDOWN no node has the channel's slot now");
                storage_error("follow", self.command_timeout, &error)
            }
            Err(Refused::By(error)) => error,
        };
        if is_first {
            let mut map = self.map.lock();
            // Another caller may have followed it successfully meanwhile.
            if !map.members.values().any(|member| member.subscriber.is_following(&name)) {
                map.followed.remove(&name);
            }
        }
        Err(error)
    }

    async fn follow_at_owner(&self, name: &str) -> Result<(), Refused> {
        let subscriber = self.map.lock().owner(name).ok_or(Refused::Moved)?;
        match subscriber.follow(name.to_owned()).await {
            Err(StorageError::Refused { cause, .. }) if cause.to_string().starts_with("MOVED") => {
                Err(Refused::Moved)
            }
            answer => answer.map_err(Refused::By),
        }
    }

    async fn unfollow(&self, name: String) -> Result<(), StorageError> {
        let followers: Vec<_> = {
            let mut map = self.map.lock();
            map.followed.remove(&name);
            let all = map.members.values().map(|member| &member.subscriber);
            all.filter(|subscriber| subscriber.is_following(&name)).cloned().collect()
        };
        for subscriber in followers {
            subscriber.unfollow(name.clone()).await?;
        }
        Ok(())
    }

    /// Runs a subscriber for each primary, and moves subscriptions with their slots. Runs until it is
    /// dropped.
    pub(super) async fn run(&self, events: mpsc::Sender<P::Event>) {
        let keep_routing = async {
            let mut changes = self.primaries.changes();
            loop {
                changes.borrow_and_update();
                self.route();
                tokio::select! {
                    // The sender is in `primaries`, so this does not fail.
                    _changed = changes.changed() => {}
                    () = self.moved.notified() => self.primaries.look_soon(),
                    () = time::sleep(COMPLETE_EVERY) => {}
                }
            }
        };
        tokio::select! {
            () = keep_routing => {}
            () = self.running.run(|subscriber| self.run_one(subscriber, events.clone())) => {}
        }
    }

    async fn run_one(&self, subscriber: Arc<Subscriber<P>>, events: mpsc::Sender<P::Event>) {
        tokio::select! {
            () = subscriber.run(events) => {}
            () = keep_telling(subscriber.state(), || self.tell()) => {}
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Counts changes of connections.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until an attempt to connect to one of the servers has failed.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        let states = || {
            let map = self.map.lock();
            map.members.values().map(|member| member.subscriber.state().borrow().clone()).collect()
        };
        until_one_failed(self.changes(), states).await
    }

    /// The state of the connection to a server.
    pub(super) fn state_of(&self, server: &Server) -> LinkState {
        let map = self.map.lock();
        let member = map.members.get(server);
        let connecting = LinkState { condition: Condition::Connecting, losses: 0 };
        member.map_or(connecting, |member| member.subscriber.state().borrow().clone())
    }

    /// Applies the present map of slots.
    fn route(&self) {
        let Some(routing) = self.primaries.routing() else { return };
        let mut map = self.map.lock();
        let has_changed = map.routing.as_ref().is_none_or(|last| last.slots() != routing.slots());
        if has_changed {
            let primaries = routing.unique_primary_nodes();
            map.routing = Some(routing);
            for server in &primaries {
                if !map.members.contains_key(server) {
                    map.members.insert(server.clone(), self.member(server.clone()));
                }
            }
            map.reroute();
            let gone: Vec<Server> =
                map.members.keys().filter(|server| !primaries.contains(server)).cloned().collect();
            for server in gone {
                if let Some(member) = map.members.remove(&server) {
                    self.dropped.fetch_add(member.subscriber.dropped(), Ordering::Relaxed);
                }
            }
        }
        map.members.values().for_each(|member| member.subscriber.complete());
        drop(map);
        if has_changed {
            self.tell();
        }
    }

    fn member(&self, server: Server) -> Member<P> {
        let (target, config) = (self.target.clone(), self.config.clone());
        let ahead = self.primaries.state_of(&server);
        let link = Link::behind(
            ahead,
            Arc::new(move || connect::subscriber_client(&target, &config, Some(server.clone()))),
            self.command_timeout,
        );
        let subscriber = Arc::new(Subscriber::new(
            link,
            Arc::new(Commands::Cluster(Arc::clone(&self.primaries))),
            self.published.clone(),
            Subscribing::Sharded { moved: Arc::clone(&self.moved) },
        ));
        Member { subscriber: Arc::clone(&subscriber), _alive: self.running.add(subscriber) }
    }
}

/// Why a channel could not be followed.
enum Refused {
    /// The node does not have it, or no node is known to.
    Moved,
    By(StorageError),
}

impl<P: Published> Map<P> {
    fn owner(&self, name: &str) -> Option<Arc<Subscriber<P>>> {
        let server = self.routing.as_ref()?.get_server(ClusterRouting::hash_key(name.as_bytes()))?;
        Some(Arc::clone(&self.members.get(server)?.subscriber))
    }

    /// Moves followed channels to the servers that now have their slots. Channels without an owner stay where
    /// they are.
    fn reroute(&mut self) {
        let mut adopted: HashMap<&Server, Vec<String>> = HashMap::new();
        let Some(routing) = &self.routing else { return };
        for name in &self.followed {
            let Some(owner) = routing.get_server(ClusterRouting::hash_key(name.as_bytes())) else { continue };
            for (server, member) in &self.members {
                match (server == owner, member.subscriber.is_following(name)) {
                    (true, false) => adopted.entry(owner).or_default().push(name.clone()),
                    (false, true) => member.subscriber.leave(name),
                    _ => {}
                }
            }
        }
        for (server, names) in adopted {
            if let Some(member) = self.members.get(server) {
                member.subscriber.adopt(names);
            }
        }
    }
}
