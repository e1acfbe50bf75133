//! Compares the executors of the nodes that share a storage. An order is executed only by workers with the
//! executor it was placed for, so if nodes differ, some orders may never be claimed.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{self, MissedTickBehavior};
use tracing::{info, warn};

use super::Fleet;

/// How often the nodes are read, whether or not anybody asks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Fleet {
    /// Keeps the list of nodes, for metrics, and the comparison of executors current. Never ends.
    pub(crate) async fn keep_up(self) {
        let mut tick = time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let listed = self.listed().await;
            // While the other nodes are unknown, the last result stays.
            if let Ok(found) = &listed.found {
                let kinds = found.others.iter().map(|node| node.executor.as_str());
                self.compare(kinds);
            }
        }
    }

    fn compare<'a>(&self, kinds: impl Iterator<Item = &'a str>) {
        let own = &*self.0.parts.executor;
        let others: BTreeSet<String> = kinds.filter(|kind| *kind != own).map(str::to_owned).collect();
        let before = std::mem::replace(&mut *self.0.other_executors.lock(), others.clone());
        if others.is_empty() && !before.is_empty() {
            info!(executor = own, "all nodes have the same executor again");
        } else if others != before {
            let others: Vec<String> = others.into_iter().collect();
            warn!(
                executor = own,
                others = others.join(", "),
                "nodes with other executors share this storage: an order is executed only by workers of the \
                 kind of the node that it was placed at"
            );
        }
    }

    /// The kinds of executors of other nodes, where they differ from this node's, as of the last reading.
    pub(crate) fn other_executors(&self) -> Vec<String> {
        self.0.other_executors.lock().iter().cloned().collect()
    }
}
