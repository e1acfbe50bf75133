//! What can be configured about registries.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::RegistryKind;
use crate::storage::REMOVED_KEPT_FOR;
use crate::support::checks::{Checks, Finding};

/// The longest record that an entry has room for.
const RECORD_BYTES_MAX: usize = 60 << 10;

/// `[registry]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// How long a provider stays that nobody writes or renews, in seconds. Default 3,600.
    pub providers_ttl_s: u64,
    /// The same of an active order. Default 3,600.
    pub active_orders_ttl_s: u64,
    /// Records of each registry; one more is refused. Default 10,000.
    pub records_max: usize,
    /// Bytes of a record. Default 16,384.
    pub record_bytes_max: usize,
    /// How long a provider stays online after its connection has closed, or its node has gone, in seconds.
    /// Default 10.
    pub offline_grace_s: u64,
    /// Whether orders that this gateway carries out are in `active-orders` while they are under way. Default
    /// `true`.
    pub follow_orders: bool,
    /// Whether the Redis keys `socket:onlineProviders` and `socket:activeOrders` are read at the start. Default
    /// `false`.
    pub legacy_import: bool,
    /// Whether these keys are kept written. Default `false`.
    pub legacy_write: bool,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            providers_ttl_s: 3_600,
            active_orders_ttl_s: 3_600,
            records_max: 10_000,
            record_bytes_max: 16 << 10,
            offline_grace_s: 10,
            follow_orders: true,
            legacy_import: false,
            legacy_write: false,
        }
    }
}

impl RegistryConfig {
    pub(super) fn ttl(&self, kind: RegistryKind) -> Duration {
        Duration::from_secs(match kind {
            RegistryKind::Providers => self.providers_ttl_s,
            RegistryKind::ActiveOrders => self.active_orders_ttl_s,
        })
    }

    /// What cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = Checks::of("registry");
        // A removal must be remembered for longer than what it removed could come again.
        let ttl_max = REMOVED_KEPT_FOR.as_secs() / 2;
        for (key, ttl) in
            [("providers_ttl_s", self.providers_ttl_s), ("active_orders_ttl_s", self.active_orders_ttl_s)]
        {
            checks.require(key, (1..=ttl_max).contains(&ttl), || {
                format!("expected 1 to {ttl_max} (half of what removals are remembered for), found {ttl}")
            });
        }
        checks.at_least_1("records_max", self.records_max);
        let bytes = self.record_bytes_max;
        checks.require("record_bytes_max", (64..=RECORD_BYTES_MAX).contains(&bytes), || {
            format!("expected 64 to {RECORD_BYTES_MAX}, found {bytes}")
        });
        checks.finish()
    }
}
