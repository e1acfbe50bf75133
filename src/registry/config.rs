//! The `[registry]` settings.

use std::time::Duration;

use super::kind::RegistryKind;
use crate::storage::REMOVED_KEPT_FOR;
use crate::support::checks::Finding;
use crate::support::settings;

/// The longest record that fits into an entry.
const RECORD_BYTES_MAX: usize = 60 << 10;

settings! {
    /// `[registry]`
    #[derive(Debug)]
    pub struct RegistryConfig in "registry" {
        /// After how many seconds a provider that nobody writes or renews expires. Default 3,600.
        pub providers_ttl_s: u64 = 3_600,
        /// The same for an active order. Default 3,600.
        pub active_orders_ttl_s: u64 = 3_600,
        /// How many records each registry may have; further ones are refused. Default 10,000.
        pub records_max: usize [1..] = 10_000,
        /// The largest record in bytes. Default 16,384.
        pub record_bytes_max: usize [64..=RECORD_BYTES_MAX] = 16 << 10,
        /// How many seconds a provider stays online after its connection closed or its node disappeared.
        /// Default 10.
        pub offline_grace_s: u64 = 10,
        /// Whether orders that this gateway executes appear in `active-orders` until they end. Default
        /// `true`.
        pub follow_orders: bool = true,
        /// Whether to read the Redis keys `socket:onlineProviders` and `socket:activeOrders` at startup.
        /// Default `false`.
        pub legacy_import: bool = false,
        /// Whether to keep these keys up to date. Default `false`.
        pub legacy_write: bool = false,
    }
}

impl RegistryConfig {
    pub(super) fn ttl(&self, kind: RegistryKind) -> Duration {
        Duration::from_secs(match kind {
            RegistryKind::Providers => self.providers_ttl_s,
            RegistryKind::ActiveOrders => self.active_orders_ttl_s,
        })
    }

    /// The settings that cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = self.check_ranges();
        // A removal must be remembered for longer than the removed record could reappear.
        let ttl_max = REMOVED_KEPT_FOR.as_secs() / 2;
        for (key, ttl) in
            [("providers_ttl_s", self.providers_ttl_s), ("active_orders_ttl_s", self.active_orders_ttl_s)]
        {
            checks.require(key, (1..=ttl_max).contains(&ttl), || {
                format!("expected 1 to {ttl_max} (half of what removals are remembered for), found {ttl}")
            });
        }
        checks.finish()
    }
}
