//! The handle to all shards: admits, adopts, lists, disconnects, counts.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use uuid::Uuid;

use super::config::ConnectionsConfig;
use super::shard::{Command, Opening};
use super::stats::{ConnectionInfo, ConnectionTotals, ShardStats};
use crate::protocol::CloseCode;
use crate::support::counter::Counter;

/// How long a shard is waited for when it is asked about its connections.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The handle to all connections of this node. Cheap to clone.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    shards: Vec<ShardHandle>,
    limits: Arc<Limits>,
}

/// One shard, as others hold it.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) stats: Arc<ShardStats>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("shards", &self.0.shards.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardHandle").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Limits {
    config: ConnectionsConfig,
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    refused_full: Counter,
    refused_address: Counter,
}

/// Counts a TCP connection of an address for as long as it is held.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    limits: Arc<Limits>,
    address: IpAddr,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut by_address = self.limits.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Counts a WebSocket connection for as long as it is held, and its address with it.
#[derive(Debug)]
pub(crate) struct Admission {
    address: Arc<AddressPermit>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.address.limits.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What `/ws/stats` tells of connections.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) totals: ConnectionTotals,
    pub(crate) by_channel: BTreeMap<String, usize>,
    pub(crate) longest_open: Duration,
    pub(crate) connections: Vec<ConnectionInfo>,
    pub(crate) refused_full: u64,
    pub(crate) refused_address: u64,
    /// Shards that did not answer in time; their connections are only in the totals.
    pub(crate) silent_shards: usize,
}

impl Manager {
    pub(super) fn new(shards: Vec<ShardHandle>, config: ConnectionsConfig) -> Self {
        let limits = Limits {
            config,
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            refused_full: Counter::default(),
            refused_address: Counter::default(),
        };
        Self(Arc::new(Inner { shards, limits: Arc::new(limits) }))
    }

    /// The shard of a thread, by its index.
    pub(crate) fn shard(&self, index: usize) -> &ShardHandle {
        &self.0.shards[index]
    }

    /// Counts a TCP connection against its address; `None` when it has as many as it may have.
    pub(crate) fn admit_address(&self, address: IpAddr) -> Option<AddressPermit> {
        let limits = &self.0.limits;
        let address = address.to_canonical();
        let config = &limits.config;
        let max =
            if address.is_loopback() { config.per_loopback_address_max } else { config.per_address_max };
        let mut by_address = limits.by_address.lock();
        let count = by_address.entry(address).or_insert(0);
        if *count >= max {
            limits.refused_address.add(1);
            return None;
        }
        *count += 1;
        drop(by_address);
        Some(AddressPermit { limits: Arc::clone(limits), address })
    }

    /// Counts a WebSocket connection; `None` when there are as many as may be.
    pub(crate) fn admit(&self, address: Arc<AddressPermit>) -> Option<Admission> {
        let limits = &self.0.limits;
        if limits.open.fetch_add(1, Ordering::AcqRel) >= limits.config.max {
            limits.open.fetch_sub(1, Ordering::AcqRel);
            limits.refused_full.add(1);
            return None;
        }
        Some(Admission { address })
    }

    /// Closes a connection with a code; says whether there is one of this id.
    pub async fn disconnect(&self, id: Uuid, code: CloseCode) -> bool {
        for shard in &self.0.shards {
            let (answer, answered) = oneshot::channel();
            let sent = shard.commands.send(Command::Disconnect { id, code, answer }).await.is_ok();
            if sent && answered.await.unwrap_or(false) {
                return true;
            }
        }
        false
    }

    /// Up to `max` connections, as they are now.
    pub async fn list(&self, max: usize) -> Vec<ConnectionInfo> {
        self.stats(max).await.connections
    }

    /// Counters of all shards, and up to `list` connections.
    pub(crate) async fn stats(&self, list: usize) -> Overview {
        let mut overview = Overview {
            totals: self.totals(),
            by_channel: BTreeMap::new(),
            longest_open: Duration::ZERO,
            connections: Vec::new(),
            refused_full: self.0.limits.refused_full.get(),
            refused_address: self.0.limits.refused_address.get(),
            silent_shards: 0,
        };
        let deadline = time::Instant::now() + ANSWER_WITHIN;
        let mut answers = Vec::new();
        for shard in &self.0.shards {
            let (answer, answered) = oneshot::channel();
            let asked =
                time::timeout_at(deadline, shard.commands.send(Command::Inspect { list, answer })).await;
            answers.push(asked.is_ok_and(|sent| sent.is_ok()).then_some(answered));
        }
        for answered in answers {
            let inspection = match answered {
                Some(answered) => time::timeout_at(deadline, answered).await.ok().and_then(Result::ok),
                None => None,
            };
            let Some(inspection) = inspection else {
                overview.silent_shards += 1;
                continue;
            };
            overview.longest_open = overview.longest_open.max(inspection.longest_open);
            for (channel, count) in inspection.by_channel {
                *overview.by_channel.entry(channel).or_default() += count;
            }
            let room = list - overview.connections.len();
            overview.connections.extend(inspection.connections.into_iter().take(room));
        }
        overview
    }

    /// Counters of all shards together.
    pub(crate) fn totals(&self) -> ConnectionTotals {
        ConnectionTotals::sum(self.0.shards.iter().map(|shard| shard.stats.as_ref()))
    }

    /// Tells every shard to close its connections over a time, and then to end.
    pub(crate) async fn drain(&self, window: Duration) {
        for shard in &self.0.shards {
            if shard.commands.send(Command::Drain { window }).await.is_err() {
                // It has ended already.
            }
        }
    }
}

impl ShardHandle {
    /// Hands over a socket, once the response that upgrades it has been sent.
    pub(crate) async fn adopt(&self, upgrade: OnUpgrade, opening: Opening, admission: Admission) -> bool {
        self.commands.send(Command::Adopt { upgrade, opening, admission }).await.is_ok()
    }
}
