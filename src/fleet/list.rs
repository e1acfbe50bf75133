//! Reads the records of other nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use zonewire_protocol::stats::FleetNode;

use super::{Fleet, NODES_MAX, RECORD_BYTES_MAX};
use crate::model::{BackendName, NodeId};
use crate::storage::{Record, RecordKind, StorageError};

/// How long a list serves everybody who asks.
pub(super) const KEPT: Duration = Duration::from_millis(500);

/// How many records are read at once: at most 2 MiB.
const PAGE: usize = 128;

/// A list, and when it was requested.
#[derive(Debug)]
pub(super) struct Listed {
    asked_at: Instant,
    /// The nodes, or why none are known, for people.
    pub(super) found: Result<Found, String>,
}

/// The nodes other than this one.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Ordered by name, at most [`NODES_MAX`].
    pub(super) others: Vec<FleetNode>,
    /// Whether there are more.
    pub(super) has_more: bool,
    /// The names of nodes whose records this version cannot read.
    pub(super) unreadable: Vec<String>,
}

impl Fleet {
    /// The other nodes, as requested after this call or at most [`KEPT`] before it.
    pub(super) async fn listed(&self) -> Arc<Listed> {
        let asked_at = Instant::now();
        let known = || self.0.newest.lock().clone();
        if let Some(listed) = known().filter(|listed| listed.asked_at.elapsed() < KEPT) {
            return listed;
        }
        let _one_at_a_time = self.0.listing.lock().await;
        // However long the reading took, its result is recent enough for everybody who waited for it.
        if let Some(listed) =
            known().filter(|listed| listed.asked_at >= asked_at || listed.asked_at.elapsed() < KEPT)
        {
            return listed;
        }
        let asked_at = Instant::now();
        let listed = Arc::new(Listed { asked_at, found: self.read().await });
        *self.0.newest.lock() = Some(Arc::clone(&listed));
        listed
    }

    /// The ids of all other nodes; `None` if they are unknown or incomplete, as for a moment after an outage
    /// of Redis.
    pub(crate) async fn others(&self) -> Option<Vec<NodeId>> {
        let listed = self.listed().await;
        let found = listed.found.as_ref().ok().filter(|found| !found.has_more && !self.was_away_lately())?;
        // A node whose record cannot be read exists nevertheless.
        let names = found.others.iter().map(|node| &node.node).chain(&found.unreadable);
        Some(names.filter_map(|name| name.parse().ok()).collect())
    }

    async fn read(&self) -> Result<Found, String> {
        let storage = self.0.parts.storage.get();
        if self.is_by_itself() {
            return Err("memory is the storage: other nodes, if there are any, have their own".to_owned());
        }
        let unknown = |why| format!("{why}: other nodes are unknown here");
        if storage.backend == BackendName::InMemory {
            return Err(unknown(storage.reason_for_clients()));
        }
        match self.read_all().await {
            Ok(found) => {
                self.0.counts.lists.add(1);
                self.0.counts.unreadable.add(found.unreadable.len() as u64);
                Ok(found)
            }
            Err(error) => {
                debug!(
                    error = error.with_causes(),
                    "the records of other nodes cannot be read at the moment"
                );
                self.0.counts.lists_failed.add(1);
                Err(unknown(match error {
                    StorageError::Unknown { .. } => "Redis is away",
                    StorageError::Deadline { .. } => "Redis does not answer in time",
                    _ => "Redis does not serve",
                }))
            }
        }
    }

    async fn read_all(&self) -> Result<Found, StorageError> {
        let own = self.0.parts.node.to_string();
        let (mut found, mut after) = (Found::default(), None::<String>);
        loop {
            let page = self.0.parts.backend.list(RecordKind::Node, after.as_deref(), PAGE).await?;
            after = page.last().filter(|_| page.len() == PAGE).map(|record| record.key.clone());
            for record in page.into_iter().filter(|record| record.key != own) {
                if found.others.len() + found.unreadable.len() == NODES_MAX {
                    found.has_more = true;
                    return Ok(found);
                }
                match read_record(record) {
                    Ok(node) => found.others.push(node),
                    Err(name) => found.unreadable.push(name),
                }
            }
            if after.is_none() {
                return Ok(found);
            }
        }
    }
}

/// A node's record, or only its name if the record cannot be read.
fn read_record(Record { key, value }: Record) -> Result<FleetNode, String> {
    if value.len() > RECORD_BYTES_MAX {
        debug!(node = key, bytes = value.len(), "the record of a node is too long");
        return Err(key);
    }
    match serde_json::from_slice::<FleetNode>(&value) {
        Ok(node) => Ok(FleetNode { node: key, here: false, ..node }),
        Err(error) => {
            debug!(node = key, error = %error, "the record of a node is not readable");
            Err(key)
        }
    }
}
