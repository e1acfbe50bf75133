//! Which executors the nodes have that share a storage: an order is carried out by workers of the kind
//! that it was placed for, so a fleet in which they differ has orders that nobody takes.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::desk::Orders;
use crate::model::NodeId;
use crate::storage::{RecordKind, Result as StorageResult};

/// How often a node says which executor it has, and looks at what others say.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// After how long without a word a node is taken for gone.
const GONE_AFTER: Duration = Duration::from_secs(20);

/// Nodes that are looked at.
const NODES_MAX: usize = 1_000;

impl Orders {
    /// Says which executor this node has, and keeps up with which ones others have, until `stop`.
    pub(crate) async fn compare_executors(self, node: NodeId, stop: CancellationToken) {
        let key = node.to_string();
        loop {
            if let Err(error) = self.compare(&key).await {
                debug!(error = %error, "which executors other nodes have cannot be found out at the moment");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = time::sleep(SAY_EVERY) => {}
            }
        }
        // A node that comes back with another executor is not two nodes.
        let _gone_by_itself = self.desk().backend.delete(RecordKind::Executor, &key).await;
    }

    async fn compare(&self, key: &str) -> StorageResult<()> {
        let desk = self.desk();
        let kind = Bytes::copy_from_slice(desk.kind.as_bytes());
        desk.backend.put(RecordKind::Executor, key, kind, GONE_AFTER).await?;
        let said = desk.backend.list(RecordKind::Executor, None, NODES_MAX).await?;
        let kinds = said.into_iter().map(|record| String::from_utf8_lossy(&record.value).into_owned());
        let others: BTreeSet<String> = kinds.filter(|kind| **kind != *desk.kind).collect();
        let before = std::mem::replace(&mut *desk.other_executors.lock(), others.clone());
        if others.is_empty() && !before.is_empty() {
            info!(executor = &*desk.kind, "all nodes have the same executor again");
        } else if others != before {
            let others: Vec<String> = others.into_iter().collect();
            warn!(
                executor = &*desk.kind,
                others = others.join(", "),
                "nodes with other executors share this storage: an order is carried out only by workers of the \
                 kind of the node that it was placed at"
            );
        }
        Ok(())
    }

    /// The kind of executor that carries out what is placed here.
    pub fn executor(&self) -> &str {
        &self.desk().kind
    }

    /// The other kinds that nodes with the same storage have, as they were found last.
    pub fn other_executors(&self) -> Vec<String> {
        self.desk().other_executors.lock().iter().cloned().collect()
    }
}
