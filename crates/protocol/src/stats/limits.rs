//! Counters of the limits of principals and tenants.

use std::collections::BTreeMap;

use super::table::counts;

counts! {
    /// What the limits of principals and tenants, and of connections that lag, refused.
    pub struct LimitsView {
        /// Requests refused, connections closed and deliveries held back, by setting:
        /// `principal.orders_per_s` for `limits.principal.orders_per_s`, and so on. Absent if nothing is
        /// limited.
        refused: BTreeMap<String, u64> = counter("limited", by limit),
        /// What would have been refused without `limits.dry_run`.
        dry_run: BTreeMap<String, u64> = counter("limited_dry_run", by limit),
        /// Principals whose use is tracked; beyond 65,536, further ones share one allowance.
        principals: usize = gauge("limits_principals"),
        /// Tenants whose use is tracked; beyond 65,536, further ones share one allowance.
        tenants: usize = gauge("limits_tenants"),
        /// Connections that have lagged for a second or more, if their number is limited.
        behind: usize = gauge("connections_behind"),
    }
}
