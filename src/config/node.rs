//! The roles of a process.

use serde::{Deserialize, Serialize};

use crate::storage::StorageChoice;
use crate::support::checks::{Checks, Finding};
use crate::support::settings;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves clients: streams, prices, orders.
    Gateway,
    /// Executes orders, unless `orders.executor` is `external`.
    Worker,
}

settings! {
    /// `[node]`
    #[derive(Debug)]
    pub struct NodeConfig {
        /// The roles of this process: `gateway`, `worker`, or both. A process that is not a gateway still
        /// answers health, stats and metrics, and does not start without Redis. Default both.
        pub roles: Vec<Role> = vec![Role::Gateway, Role::Worker],
    }
}

impl NodeConfig {
    /// Whether this process has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// What cannot be combined with this storage.
    pub(super) fn check(&self, storage: StorageChoice) -> Vec<Finding> {
        let mut checks = Checks::of("node");
        checks.require("roles", !self.roles.is_empty(), || {
            "expected gateway, worker, or both; found none".to_owned()
        });
        let alone = self.roles.len() == 1 || self.roles.windows(2).all(|two| two[0] == two[1]);
        let works = !(alone && self.has(Role::Worker) && storage == StorageChoice::Memory);
        checks.require("roles", works, || {
            "a worker alone finds orders only in Redis, and storage.backend is memory: set it to redis, \
             or add the role gateway"
                .to_owned()
        });
        checks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_alone_needs_a_storage_that_others_use_too() {
        use Role::{Gateway, Worker};
        for (roles, storage, expected) in [
            (vec![Gateway, Worker], StorageChoice::Memory, 0),
            (vec![Gateway], StorageChoice::Memory, 0),
            (vec![Worker], StorageChoice::Auto, 0),
            (vec![Worker], StorageChoice::Redis, 0),
            (vec![Worker], StorageChoice::Memory, 1),
            (vec![Worker, Worker], StorageChoice::Memory, 1),
            (vec![], StorageChoice::Redis, 1),
        ] {
            let found = NodeConfig { roles: roles.clone() }.check(storage);
            assert_eq!(found.len(), expected, "{roles:?} {storage:?}: {found:?}");
        }
    }
}
