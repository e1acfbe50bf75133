//! Takes providers offline whose connection has closed or whose node is gone.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use super::clock::short_of;
use super::handle::{Condition, Registry, RegistryError, Written};
use super::kind::RegistryKind;
use super::record::Body;
use crate::model::BackendState;

/// How often to check which connections are open and which nodes exist.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The patch that takes a provider offline.
const OFFLINE: &str = r#"{"status":"offline"}"#;

/// The registry whose records can be bound to connections.
const KIND: RegistryKind = RegistryKind::Providers;

/// The connections of this node.
#[async_trait]
pub(crate) trait OpenConnections: fmt::Debug + Send + Sync {
    /// Those of `connections` that are closed or never existed here. A connection whose state is
    /// unknown is left out.
    async fn closed(&self, connections: Vec<Uuid>) -> Vec<Uuid>;
}

/// By key of a record, the connection of this node that it is bound to.
pub(super) type Bindings = Mutex<HashMap<Arc<str>, Uuid>>;

/// A task of registries, with its name. Runs until it is stopped.
pub(crate) type RegistryPart = (&'static str, BoxFuture<'static, ()>);

impl Registry {
    /// The tasks of registries. `stop`, to be cancelled when nothing writes any more, ends those that append.
    pub(crate) fn work(
        &self,
        connections: Arc<dyn OpenConnections>,
        stop: &CancellationToken,
    ) -> Vec<RegistryPart> {
        let [providers, orders] = RegistryKind::ALL;
        let mut parts: Vec<RegistryPart> = vec![
            ("registry of providers", Box::pin(self.clone().keep(providers))),
            ("registry of active orders", Box::pin(self.clone().keep(orders))),
            ("writing of providers", Box::pin(self.clone().append_behind(providers, stop.clone()))),
            ("writing of active orders", Box::pin(self.clone().append_behind(orders, stop.clone()))),
            ("presence of providers", Box::pin(self.clone().watch_connections(connections))),
        ];
        if let Some(legacy) = self.clone().exchange_legacy() {
            parts.push(("Redis keys of registries", legacy));
        }
        parts
    }

    /// Binds a provider to a connection of this node, which must be open: when it closes, the provider goes
    /// offline. Also renews the record.
    ///
    /// # Errors
    /// The provider does not exist.
    pub(crate) fn bind(&self, key: &str, connection: Uuid) -> Result<Written, RegistryError> {
        let me = short_of(self.0.parts.node);
        let bound = self.change(KIND, key, &Condition::None, |held| {
            Ok((Body { key: Arc::clone(&held.key), json: held.json.clone() }, Some(me)))
        })?;
        self.0.bindings.lock().insert(Arc::clone(&bound.record.key), connection);
        Ok(bound)
    }

    async fn watch_connections(self, connections: Arc<dyn OpenConnections>) {
        let grace = Duration::from_secs(self.config().offline_grace_s);
        let (mut closed, mut gone) = (HashMap::new(), HashMap::new());
        let mut tick = time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look_at_connections(&*connections, &mut closed, grace).await;
            self.look_at_nodes(&mut gone, grace).await;
        }
    }

    /// Takes providers offline whose connection to this node has been closed for the grace period.
    async fn look_at_connections(
        &self,
        connections: &dyn OpenConnections,
        closed: &mut HashMap<Uuid, Instant>,
        grace: Duration,
    ) {
        let me = short_of(self.0.parts.node);
        // A record that was removed, or bound to a connection elsewhere meanwhile, is no longer bound here.
        let bound: HashMap<Arc<str>, Uuid> = {
            let core = self.book(KIND).core.read();
            let mut bindings = self.0.bindings.lock();
            bindings.retain(|key, _| core.table.get(key).is_some_and(|record| record.bound_to == Some(me)));
            bindings.clone()
        };
        if bound.is_empty() {
            closed.clear();
            return;
        }
        let all: BTreeSet<Uuid> = bound.values().copied().collect();
        let now_closed = connections.closed(all.into_iter().collect()).await;
        let now = Instant::now();
        let before = std::mem::take(closed);
        *closed = now_closed.into_iter().map(|id| (id, before.get(&id).copied().unwrap_or(now))).collect();
        for (key, connection) in bound {
            if closed.get(&connection).is_some_and(|since| now.duration_since(*since) >= grace) {
                self.go_offline(&key, me);
                self.0.bindings.lock().remove(&key);
            }
        }
    }

    /// Takes providers offline whose node has been missing for the grace period.
    async fn look_at_nodes(&self, gone: &mut HashMap<u64, Instant>, grace: Duration) {
        let me = short_of(self.0.parts.node);
        let nodes: Vec<u64> = self.book(KIND).core.read().table.bound().keys().copied().collect();
        let others: Vec<u64> = nodes.into_iter().filter(|node| *node != me).collect();
        // The list of nodes is unknown while the storage is away, and incomplete for a moment after that.
        let is_known = !others.is_empty() && self.state(KIND) == BackendState::Healthy;
        let there = if is_known { self.0.parts.fleet.others().await } else { None };
        let Some(there) = there else { return gone.clear() };
        let there: BTreeSet<u64> = there.into_iter().map(short_of).collect();
        let now = Instant::now();
        let before = std::mem::take(gone);
        let missing = others.into_iter().filter(|node| !there.contains(node));
        *gone = missing.map(|node| (node, before.get(&node).copied().unwrap_or(now))).collect();
        let due = gone.iter().filter(|(_, since)| now.duration_since(**since) >= grace.max(LOOK_EVERY));
        for (node, _) in due {
            let keys = self.book(KIND).core.read().table.bound().get(node).cloned().unwrap_or_default();
            keys.iter().for_each(|key| self.go_offline(key, *node));
        }
    }

    /// Takes a provider offline, unless it is bound to another node by now.
    fn go_offline(&self, key: &str, node: u64) {
        let max = usize::MAX;
        let offline = self.change(KIND, key, &Condition::None, |held| {
            if held.bound_to != Some(node) {
                return Err(RegistryError::Unknown);
            }
            Ok((Body::patched(KIND, held, OFFLINE, max)?, None))
        });
        match offline {
            Ok(_) => self.book(KIND).stats.went_offline.add(1),
            Err(error) => debug!(key, error = %error, "a provider could not be taken offline"),
        }
    }
}
