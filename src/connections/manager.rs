//! The handle to all shards: admits, hands over, lists, disconnects and counts connections.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};
use tracing::warn;
use uuid::Uuid;

use super::behind::{Behind, BehindCounts};
use super::config::ConnectionsConfig;
use super::limits::{Admission, Limit, Limits};
use super::shard::{Arriving, Command, Opening};
use super::stats::{ShardStats, Totals};
use super::{ConnectionInfo, ConnectionStory, Guest};
use crate::model::Zone;
use crate::protocol::CloseCode;

/// How long a shard may take to answer about its connections.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The handle to all connections of this node. Cheap to clone.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    shards: Vec<ShardHandle>,
    limits: Arc<Limits>,
    behind: Arc<Behind>,
}

/// The handle to one shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) stats: Arc<ShardStats>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The limits hold the addresses of clients.
        f.debug_struct("Manager").field("shards", &self.0.shards.len()).finish_non_exhaustive()
    }
}

impl ShardHandle {
    /// Counts a task of the shard's thread until it ends.
    pub(crate) fn counted<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.stats.served.track_future(task)
    }

    /// Hands over a connection; for a WebSocket, after its upgrade response was sent. `guest` is `None` if
    /// authentication is off. Returns false if the shard has ended.
    pub(crate) async fn adopt(
        &self,
        arriving: Arriving,
        opening: Opening,
        guest: Option<Guest>,
        admission: Admission,
    ) -> bool {
        self.commands.send(Command::Adopt { arriving, opening, guest, admission }).await.is_ok()
    }

    /// The shard's answer to a command; `None` if the shard has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Like [`ask`](Self::ask), but also `None` if the answer does not come in time.
    async fn ask_until<T>(
        &self,
        deadline: Instant,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        time::timeout_at(deadline, self.ask(command)).await.ok().flatten()
    }
}

/// Which connections to list: the first ones in the order of their ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// The most to list.
    pub(crate) max: usize,
    /// Only those after this one.
    pub(crate) after: Option<Uuid>,
    /// Only subscribers of this zone.
    pub(crate) zone: Option<Zone>,
}

/// What `/ws/stats` reports about connections.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) totals: Totals,
    pub(crate) connections: Vec<ConnectionInfo>,
    /// More follow after this one.
    pub(crate) next: Option<Uuid>,
    /// Open TCP connections, including WebSockets.
    pub(crate) tcp: usize,
    /// Lagging connections, if they are bounded.
    pub(crate) behind: BehindCounts,
    /// Shards that did not answer in time; their connections are in the totals only.
    pub(crate) silent_shards: usize,
}

impl Manager {
    pub(super) fn new(shards: Vec<ShardHandle>, config: ConnectionsConfig, behind: Arc<Behind>) -> Self {
        let limits = Limits::new(config);
        Self(Arc::new(Inner { shards, limits: Arc::new(limits), behind }))
    }

    /// The shard of a thread, by its index.
    pub(crate) fn shard(&self, index: usize) -> &ShardHandle {
        &self.0.shards[index]
    }

    /// Tasks of the threads that serve connections. They stay on their thread, so no runtime's metrics
    /// count them.
    pub(crate) fn tasks(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.stats.tasks.len() + shard.stats.served.len()).sum()
    }

    /// Admits connections.
    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.0.limits
    }

    /// Closes a connection with a code; returns whether it was found.
    pub async fn disconnect(&self, id: Uuid, code: CloseCode) -> bool {
        for shard in &self.0.shards {
            if shard.ask(|answer| Command::Disconnect { id, code, answer }).await == Some(true) {
                return true;
            }
        }
        false
    }

    /// Up to `max` connections, as they are now.
    pub async fn list(&self, max: usize) -> Vec<ConnectionInfo> {
        self.stats(Some(Listing { max, ..Listing::default() })).await.connections
    }

    /// Everything known about a connection; `None` if there is none with this id, or its shard does not
    /// answer in time.
    pub(crate) async fn story(&self, id: Uuid) -> Option<ConnectionStory> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        for shard in &self.0.shards {
            let asked = shard.ask_until(deadline, |answer| Command::Look { id, answer });
            if let Some(Some(story)) = asked.await {
                return Some(*story);
            }
        }
        None
    }

    /// Which of these connections are not open on this node. If a shard does not answer in time, none.
    pub(crate) async fn closed(&self, connections: Vec<Uuid>) -> Vec<Uuid> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let (asked, mut open) = (Arc::new(HashSet::from_iter(connections)), HashSet::new());
        for shard in &self.0.shards {
            let among = |answer| Command::Among { asked: Arc::clone(&asked), answer };
            let Some(here) = shard.ask_until(deadline, among).await else { return Vec::new() };
            open.extend(here);
        }
        asked.iter().filter(|id| !open.contains(*id)).copied().collect()
    }

    /// Subscribers by zone. A shard that has ended counts as none. Has no timeout: the caller sets one, by
    /// dropping the future.
    pub(crate) async fn by_zone(&self) -> BTreeMap<String, u64> {
        let mut by_zone = BTreeMap::new();
        for shard in &self.0.shards {
            let asked = shard.ask(|answer| Command::ByZone { answer }).await;
            for (channel, count) in asked.unwrap_or_default() {
                *by_zone.entry(channel.subject().to_owned()).or_default() += count as u64;
            }
        }
        by_zone
    }

    /// Counters of all shards; with `list`, also what only the shards themselves know, and the listed
    /// connections.
    pub(crate) async fn stats(&self, list: Option<Listing>) -> Overview {
        let mut overview = Overview {
            totals: self.totals(),
            connections: Vec::new(),
            next: None,
            tcp: self.0.limits.tcp(),
            behind: self.0.behind.counts(),
            silent_shards: 0,
        };
        let refused = Limit::ALL.map(|limit| (limit.as_str().to_owned(), self.0.limits.refused(limit)));
        overview.totals.connections.refused_by_limit = refused.into();
        let Some(list) = list else { return overview };
        let deadline = Instant::now() + ANSWER_WITHIN;
        let inspect = |answer| Command::Inspect { listing: list.clone(), answer };
        let asked = self.0.shards.iter().map(|shard| shard.ask_until(deadline, inspect));
        let mut has_more = false;
        for inspection in join_all(asked).await {
            let Some(inspection) = inspection else {
                overview.silent_shards += 1;
                continue;
            };
            let totals = &mut overview.totals.connections;
            totals.longest_open_s = totals.longest_open_s.max(inspection.longest_open.as_secs());
            for (channel, count) in inspection.by_zone {
                *totals.by_zone.entry(channel.subject().to_owned()).or_default() += count;
            }
            has_more |= inspection.has_more;
            overview.connections.extend(inspection.connections);
        }
        let listed = &mut overview.connections;
        listed.sort_unstable_by_key(|connection| connection.connection_id);
        has_more |= listed.len() > list.max;
        listed.truncate(list.max);
        overview.next = listed.last().filter(|_| has_more).map(|last| last.connection_id);
        overview
    }

    /// Counters of all shards together.
    pub(crate) fn totals(&self) -> Totals {
        Totals::sum(self.0.shards.iter().map(|shard| shard.stats.as_ref()))
    }

    /// Asks every shard to close its connections over a time, and then to end. Does not wait for a shard
    /// that accepts no commands.
    pub(crate) async fn drain(&self, window: Duration) {
        let commanded = self.0.shards.iter().enumerate().map(async |(shard, handle)| {
            let sending = handle.commands.send(Command::Drain { window });
            // If nobody receives the command, the shard has ended already.
            if time::timeout(ANSWER_WITHIN, sending).await.is_err() {
                warn!(shard, "a shard accepts no commands, so it was not asked to close its connections");
            }
        });
        join_all(commanded).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_answer_is_counted_and_not_waited_for() {
        let shard = || {
            let (commands, queue) = mpsc::channel(1);
            (ShardHandle { commands, stats: Arc::default() }, queue)
        };
        let ((stuck, _never_read), (ended, queue)) = (shard(), shard());
        drop(queue);
        let manager = {
            let config = ConnectionsConfig::default();
            let behind = Behind::new(&config);
            Manager::new(vec![stuck, ended], config, behind)
        };
        let begun = Instant::now();
        let overview = manager.stats(Some(Listing { max: 10, ..Listing::default() })).await;
        assert_eq!((overview.silent_shards, begun.elapsed()), (2, ANSWER_WITHIN));
        assert!(overview.connections.is_empty() && overview.totals.connections.by_zone.is_empty());
        // Without a list, shards are not asked.
        assert_eq!(manager.stats(None).await.silent_shards, 0);
        assert_eq!(manager.story(Uuid::new_v4()).await, None);

        // The queue is full by now, and draining does not wait for it.
        let begun = Instant::now();
        manager.drain(Duration::from_secs(60)).await;
        assert_eq!(begun.elapsed(), ANSWER_WITHIN);
    }
}
