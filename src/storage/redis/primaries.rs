//! The primaries of a cluster: which slots each has, and a connection for commands to each.
//!
//! fred's client for clusters is not used: its single task serves all primaries, and while it waits for a
//! dead one, commands to the others wait too. Here a primary that is dead or hangs affects only its own
//! channels.
//!
//! All primaries that answer are asked continuously which server has which slot, and the majority is
//! believed, because a primary that was cut off for a while does not know yet that it was replaced.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::cluster::ClusterRouting;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{self, Instant};

use super::commands::{Priority, send, send_on};
use super::connect::{self, once};
use super::link::{Condition, Link, LinkState, Members, connect_client, keep_telling, until_one_failed};
use super::slots::{Owner, SLOTS, Slots};
use super::target::Target;
use crate::storage::primary::Domain;
use crate::storage::{ProbeFailure, RedisConfig};

/// How often the map of slots is looked up. A slot that moves away and back in between is not noticed, but
/// moving one takes longer.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same until the map is known.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause between look-ups on demand, and between attempts of a command while the cluster reorganizes.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

pub(super) struct Primaries {
    target: Target,
    config: RedisConfig,
    pub(super) command_timeout: Duration,
    map: Mutex<Map>,
    /// Counts changes of the map and of connections.
    changes: watch::Sender<u64>,
    /// A slot was not where it was expected.
    moved: Notify,
    kept: Members<Arc<Link<Client>>>,
}

#[derive(Default)]
struct Map {
    routing: Option<ClusterRouting>,
    slots: Slots,
    /// By domain.
    held: Vec<Option<Held>>,
    /// How often a slot went to another domain.
    moves: u64,
    /// Why the map of slots is unknown.
    failure: Option<ProbeFailure>,
}

/// A server that has a domain.
struct Held {
    server: Server,
    link: Arc<Link<Client>>,
    /// Dropped with this, which ends the connection.
    _alive: oneshot::Sender<()>,
}

/// The state of a domain.
pub(super) struct DomainState {
    /// `None` if no server has its slots.
    pub(super) server: Option<Server>,
    pub(super) link: LinkState,
}

/// Where to send a command next.
enum Route {
    Owner,
    Moved(Arc<Link<Client>>),
    Ask(Arc<Link<Client>>),
}

/// A cluster's answer to a command that it did not execute, and that may succeed elsewhere or later.
enum Redirection {
    Moved(Option<(String, u16)>),
    Ask(Option<(String, u16)>),
    TryAgain,
}

impl Redirection {
    fn of(error: &Error) -> Option<Self> {
        let mut words = error.details().split_whitespace();
        let word = words.next()?;
        let to = |mut words: std::str::SplitWhitespace<'_>| {
            let (host, port) = words.nth(1)?.rsplit_once(':')?;
            // Without a host, it is the server that answered, whose name is not known here.
            (!host.is_empty()).then_some(())?;
            Some((host.to_owned(), port.parse().ok()?))
        };
        match word {
            "MOVED" => Some(Self::Moved(to(words))),
            "ASK" => Some(Self::Ask(to(words))),
            "TRYAGAIN" => Some(Self::TryAgain),
            _ => None,
        }
    }
}

impl fmt::Debug for Primaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.servers().iter().map(ToString::to_string).collect();
        f.debug_struct("Primaries").field("servers", &servers).finish_non_exhaustive()
    }
}

/// The slot of a key.
pub(super) fn slot_of(key: &str) -> u16 {
    ClusterRouting::hash_key(key.as_bytes())
}

impl Primaries {
    /// Has no connections until it runs.
    pub(super) fn new(target: Target, config: RedisConfig) -> Self {
        Self {
            command_timeout: Duration::from_millis(config.command_timeout_ms),
            target,
            config,
            map: Mutex::default(),
            changes: watch::Sender::new(0),
            moved: Notify::new(),
            kept: Members::default(),
        }
    }

    // The map

    /// The domain of a slot at present.
    pub(super) fn domain_of_slot(&self, slot: u16) -> Domain {
        self.map.lock().slots.domain(slot)
    }

    /// The domain of each slot at present.
    pub(super) fn slots(&self) -> Slots {
        self.map.lock().slots.clone()
    }

    /// The map of slots on which most primaries agree; `None` until it is known.
    pub(super) fn routing(&self) -> Option<ClusterRouting> {
        self.map.lock().routing.clone()
    }

    /// All servers that have slots, connected ones first.
    pub(super) fn servers(&self) -> Vec<Server> {
        let map = self.map.lock();
        let mut held: Vec<&Held> = map.held.iter().flatten().collect();
        held.sort_by_key(|held| held.link.state().borrow().condition != Condition::Up);
        held.into_iter().map(|held| held.server.clone()).collect()
    }

    /// The domains, `None` for those that have no slots any more, and how often a slot went to another domain.
    pub(super) fn domains(&self) -> (Vec<Option<DomainState>>, u64) {
        let map = self.map.lock();
        if map.routing.is_none() {
            let condition = map.failure.clone().map_or(Condition::Connecting, Condition::Down);
            let link = LinkState { condition, losses: 0 };
            return (vec![Some(DomainState { server: None, link })], 0);
        }
        let domains = map.slots.owners().iter().enumerate().map(|(at, owner)| {
            let held = map.held.get(at).and_then(Option::as_ref);
            match (owner, held) {
                (None, _) => None,
                (Some(Owner::Server(_)), Some(held)) => Some(DomainState {
                    server: Some(held.server.clone()),
                    link: held.link.state().borrow().clone(),
                }),
                (Some(_), _) => {
                    let nobody = ProbeFailure::Unreachable("no server has its slots".to_owned());
                    let link = LinkState { condition: Condition::Down(nobody), losses: 0 };
                    Some(DomainState { server: None, link })
                }
            }
        });
        (domains.collect(), map.moves)
    }

    /// Counts changes of the map and of connections.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Requests a look-up of the map soon.
    pub(super) fn look_soon(&self) {
        self.moved.notify_one();
    }

    /// Waits until some primary has failed, and returns why.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        let states = || self.domains().0.into_iter().flatten().map(|domain| domain.link).collect();
        until_one_failed(self.changes(), states).await
    }

    pub(super) async fn until_some_up(&self) {
        let mut changes = self.changes();
        while self.up().is_empty() {
            // The sender is in `self`, so this does not fail. Changes since the subscription count as unseen.
            let _gone = changes.changed().await;
        }
    }

    /// The client for one server; `None` if it is not a primary.
    pub(super) fn client_of(&self, server: &Server) -> Option<Result<WithOptions<Client>, Error>> {
        let map = self.map.lock();
        let held = map.held.iter().flatten().find(|held| held.server == *server);
        held.map(|held| held.link.client())
    }

    /// The state of the connection to one server; `None` if it is not a primary.
    pub(super) fn state_of(&self, server: &Server) -> Option<watch::Receiver<LinkState>> {
        let map = self.map.lock();
        map.held.iter().flatten().find(|held| held.server == *server).map(|held| held.link.state())
    }

    fn owner(&self, key: &str) -> Result<Arc<Link<Client>>, Error> {
        let map = self.map.lock();
        let domain = map.slots.domain(slot_of(key));
        match map.held.get(domain.index()).and_then(Option::as_ref) {
            Some(held) => Ok(Arc::clone(&held.link)),
            None if map.routing.is_none() => {
                let why = match &map.failure {
                    Some(failure) => format!("not connected: {failure}"),
                    None => "not connected yet".to_owned(),
                };
                Err(Error::new(ErrorKind::Canceled, why))
            }
            None => Err(Error::new(ErrorKind::Cluster, "CLUSTERDOWN no server has the key's slot now")),
        }
    }

    fn link_to(&self, to: Option<(String, u16)>) -> Option<Arc<Link<Client>>> {
        let (host, port) = to?;
        let map = self.map.lock();
        let held =
            map.held.iter().flatten().find(|held| *held.server.host == *host && held.server.port == port);
        held.map(|held| Arc::clone(&held.link))
    }

    // Commands

    /// See [`Commands::call`](super::commands::Commands::call).
    pub(super) async fn call<R: FromValue>(
        &self,
        priority: Priority,
        key: &str,
        command: &'static str,
        args: Vec<Value>,
    ) -> Result<R, Error> {
        let sending = self.follow_redirections(priority, key, command, args);
        let answer = time::timeout(self.command_timeout, sending).await;
        answer.unwrap_or_else(|_elapsed| Err(Error::new(ErrorKind::Timeout, "Request timed out.")))
    }

    async fn follow_redirections<R: FromValue>(
        &self,
        priority: Priority,
        key: &str,
        command: &'static str,
        args: Vec<Value>,
    ) -> Result<R, Error> {
        let mut route = Route::Owner;
        let begun = Instant::now();
        loop {
            let answer = match &route {
                Route::Owner => {
                    let link = self.owner(key)?;
                    // The server may have got its first slots only now.
                    link.until_tried().await;
                    send_on(&link, priority, command, args.clone()).await
                }
                Route::Moved(link) => {
                    link.until_tried().await;
                    send_on(link, priority, command, args.clone()).await
                }
                Route::Ask(link) => {
                    link.until_tried().await;
                    send_asking(&link.client()?, command, args.clone()).await
                }
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let (next, is_moved) = match Redirection::of(&error) {
                None => return Err(error),
                Some(Redirection::Moved(to)) => {
                    self.look_soon();
                    // After two redirections in a row, the servers' maps are not up to date yet.
                    let link = if matches!(route, Route::Moved(_)) { None } else { self.link_to(to) };
                    (link.map(Route::Moved), true)
                }
                Some(Redirection::Ask(to)) => (self.link_to(to).map(Route::Ask), false),
                Some(Redirection::TryAgain) => (None, false),
            };
            route = match next {
                Some(next) => next,
                None => {
                    if begun.elapsed() + LOOK_AGAIN_AFTER >= self.command_timeout {
                        return Err(error);
                    }
                    if !is_moved {
                        self.look_soon();
                    }
                    time::sleep(LOOK_AGAIN_AFTER).await;
                    Route::Owner
                }
            };
        }
    }

    // Looking up the map

    /// Keeps a connection to each primary, and the map up to date. Runs until it is dropped.
    pub(super) async fn run(&self) {
        let keep_looking = async {
            loop {
                self.look().await;
                let is_known = self.map.lock().routing.is_some();
                tokio::select! {
                    () = time::sleep(if is_known { LOOK_EVERY } else { FIRST_LOOK_EVERY }) => {}
                    () = self.moved.notified() => time::sleep(LOOK_AGAIN_AFTER).await,
                }
            }
        };
        tokio::select! {
            () = keep_looking => {}
            () = self.kept.run(|link| self.keep(link)) => {}
        }
    }

    async fn keep(&self, link: Arc<Link<Client>>) {
        tokio::select! {
            () = link.keep() => {}
            () = keep_telling(link.state(), || self.changed()) => {}
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn up(&self) -> Vec<(Server, WithOptions<Client>)> {
        let map = self.map.lock();
        let up =
            map.held.iter().flatten().filter(|held| held.link.state().borrow().condition == Condition::Up);
        up.filter_map(|held| Some((held.server.clone(), held.link.client().ok()?))).collect()
    }

    /// Asks which server has which slot, and applies the answer.
    pub(super) async fn look(&self) {
        let up = self.up();
        let found = if up.is_empty() {
            let mut strangers = self.target.servers();
            strangers.extend(self.servers());
            let asked = strangers.into_iter().map(|server| self.ask_stranger(server)).collect();
            agreed(asked, 1).await
        } else {
            let most = up.len() / 2 + 1;
            let asked = up.into_iter().map(|(server, client)| -> BoxFuture<'_, _> {
                Box::pin(async move { ask(&client, &server).await })
            });
            agreed(asked.collect(), most).await
        };
        match found {
            Ok(routing) => self.route(routing),
            Err(error) => {
                tracing::debug!(%error, "no node says which server has which slot");
                let mut map = self.map.lock();
                if map.routing.is_none() {
                    map.failure = Some(ProbeFailure::of(&error));
                    drop(map);
                    self.changed();
                }
            }
        }
    }

    /// Asks a server to which there is no connection.
    fn ask_stranger(&self, server: Server) -> BoxFuture<'_, Result<ClusterRouting, Error>> {
        Box::pin(async move {
            let client = connect::commands_client(&self.target, &self.config, Some(server.clone()))?;
            let _task = connect_client(&client).await?;
            ask(&once(&client, self.command_timeout), &server).await
        })
    }

    fn route(&self, routing: ClusterRouting) {
        let mut map = self.map.lock();
        if map.routing.as_ref().is_some_and(|last| last.slots() == routing.slots()) {
            return;
        }
        let mut servers: Vec<Option<Server>> = vec![None; SLOTS];
        for range in routing.slots() {
            for slot in range.start..=range.end {
                if let Some(server) = servers.get_mut(usize::from(slot)) {
                    *server = Some(range.primary.clone());
                }
            }
        }
        let has_moved = map.slots.update(&servers);
        map.moves += u64::from(has_moved);
        let owners = map.slots.owners().to_vec();
        map.held.resize_with(owners.len(), || None);
        for (at, owner) in owners.into_iter().enumerate() {
            let Some(Owner::Server(server)) = owner else {
                map.held[at] = None;
                continue;
            };
            if map.held[at].as_ref().is_none_or(|held| held.server != server) {
                map.held[at] = Some(self.hold(server));
            }
        }
        let primaries: Vec<String> = map.held.iter().flatten().map(|held| held.server.to_string()).collect();
        tracing::info!(
            count = primaries.len(),
            primaries = primaries.join(" "),
            "these servers have the slots of the cluster"
        );
        map.routing = Some(routing);
        drop(map);
        self.changed();
    }

    fn hold(&self, server: Server) -> Held {
        let (target, config, to) = (self.target.clone(), self.config.clone(), server.clone());
        let make = Arc::new(move || connect::commands_client(&target, &config, Some(to.clone())));
        let link = Arc::new(Link::new(make, self.command_timeout));
        Held { server, link: Arc::clone(&link), _alive: self.kept.add(link) }
    }
}

/// Sends a command about a key that is being moved to this server.
async fn send_asking<R: FromValue>(
    client: &WithOptions<Client>,
    command: &'static str,
    args: Vec<Value>,
) -> Result<R, Error> {
    // Commands of a pipeline are not separated by others on the same connection.
    let both = client.pipeline();
    let asking = CustomCommand::new_static("ASKING", ClusterHash::Random, false);
    both.custom::<(), Value>(asking, Vec::new()).await?;
    both.custom::<(), Value>(CustomCommand::new_static(command, ClusterHash::FirstKey, false), args).await?;
    both.last().await
}

/// Asks one server for its map.
async fn ask(client: &WithOptions<Client>, server: &Server) -> Result<ClusterRouting, Error> {
    let slots: Value = send(client, "CLUSTER", vec![Value::from("SLOTS")]).await?;
    ClusterRouting::from_cluster_slots(slots, server.host.clone())
}

/// The map on which at least `enough` servers agree; otherwise the most frequent one.
async fn agreed(
    asked: Vec<BoxFuture<'_, Result<ClusterRouting, Error>>>,
    enough: usize,
) -> Result<ClusterRouting, Error> {
    let mut answers: FuturesUnordered<_> = asked.into_iter().collect();
    let mut failed = Error::new(ErrorKind::Cluster, "nobody can be asked");
    let mut said: Vec<(ClusterRouting, usize)> = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(routing) => {
                let at = match said.iter().position(|(other, _)| other.slots() == routing.slots()) {
                    Some(at) => at,
                    None => {
                        said.push((routing, 0));
                        said.len() - 1
                    }
                };
                said[at].1 += 1;
                if said[at].1 >= enough {
                    return Ok(said.swap_remove(at).0);
                }
            }
            Err(error) => failed = error,
        }
    }
    said.into_iter().max_by_key(|(_, count)| *count).map(|(routing, _)| routing).ok_or(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_name_the_server() {
        let of = |text: &'static str| Redirection::of(&Error::new(ErrorKind::Cluster, text));
        assert!(
            matches!(of("MOVED 3999 127.0.0.1:6381"), Some(Redirection::Moved(Some((host, 6381)))) if host == "127.0.0.1")
        );
        assert!(
            matches!(of("MOVED 3999 ::1:6381"), Some(Redirection::Moved(Some((host, 6381)))) if host == "::1")
        );
        assert!(matches!(of("MOVED 3999 :6381"), Some(Redirection::Moved(None))));
        assert!(matches!(of("ASK 3999 b:7"), Some(Redirection::Ask(Some((host, 7)))) if host == "b"));
        assert!(matches!(
            of("TRYAGAIN Multiple keys request during rehashing of slot"),
            Some(Redirection::TryAgain)
        ));
        assert!(of("CLUSTERDOWN Hash slot not served").is_none());
        assert!(of("").is_none());
    }
}
