//! What is counted of limits of principals and tenants.

use std::collections::BTreeMap;

use super::table::counts;

counts! {
    /// What limits of principals, of tenants and of readers that are behind have refused.
    pub struct LimitsView {
        /// What was refused, closed or held back, by the setting that did: `principal.orders_per_s` for
        /// `limits.principal.orders_per_s`, and so on. Absent where nothing is limited.
        refused: BTreeMap<String, u64> = counter("limited", by limit),
        /// What would have been, but for `limits.dry_run`.
        dry_run: BTreeMap<String, u64> = counter("limited_dry_run", by limit),
        /// Principals whose use of limits is remembered; past 65,536 others share one allowance.
        principals: usize = gauge("limits_principals"),
        /// The same of tenants.
        tenants: usize = gauge("limits_tenants"),
        /// Connections that have been behind for a second or more, where that is limited.
        behind: usize = gauge("connections_behind"),
    }
}
