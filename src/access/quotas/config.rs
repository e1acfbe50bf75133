//! The settings of the limits on principals and tenants.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zonewire_access::MARKS_MAX;

use super::{Quota, Scope};
use crate::support::checks::Finding;
use crate::support::settings;

settings! {
    /// `[limits]`
    #[derive(Debug)]
    pub struct LimitsConfig in "limits" {
        /// Only count what would be refused or delayed, and log it. Default false.
        pub dry_run: bool = false,
        /// How many seconds' worth of a quota per second may be used at once. Default 5.
        pub burst_s: u32 [1..=3_600] = 5,
        /// The limits of a principal: a subject within its issuer and tenant, or an API key.
        pub principal: Allowances,
        /// The limits of all principals of a tenant together.
        pub tenant: Allowances,
        /// Different limits for principals with a role, by its name; with several roles, the largest number
        /// counts. At most 16 roles. Default none.
        pub roles: BTreeMap<String, RoleAllowances>,
    }
}

/// Limits of one principal or tenant. 0 is unlimited, and the default of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowances {
    /// WebSockets and event streams that it may open, per second on average.
    pub connects_per_s: u32,
    /// WebSockets and event streams that it may have open at once.
    pub connections_max: u32,
    /// Messages that it may send over its WebSockets, per second on average; each channel that it
    /// subscribes to counts as one.
    pub messages_per_s: u32,
    /// Subscriptions that it may have on all its connections together.
    pub subscriptions_max: u32,
    /// Entries that it may publish over HTTP and WebSockets, per second on average.
    pub publishes_per_s: u32,
    /// Orders that it may place, per second on average.
    pub orders_per_s: u32,
    /// Bytes that it is sent over WebSockets and event streams, per second on average.
    pub bytes_out_per_s: u32,
    /// Connections that may lag at once, because their clients read more slowly than entries arrive.
    pub behind_max: u32,
}

/// The same limits; those that are unset do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoleAllowances {
    /// See [`Allowances::connects_per_s`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connects_per_s: Option<u32>,
    /// See [`Allowances::connections_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u32>,
    /// See [`Allowances::messages_per_s`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<u32>,
    /// See [`Allowances::subscriptions_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions_max: Option<u32>,
    /// See [`Allowances::publishes_per_s`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishes_per_s: Option<u32>,
    /// See [`Allowances::orders_per_s`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orders_per_s: Option<u32>,
    /// See [`Allowances::bytes_out_per_s`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out_per_s: Option<u32>,
    /// See [`Allowances::behind_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_max: Option<u32>,
}

/// With less, heartbeats would not reach a client in time.
const BYTES_OUT_MIN: u32 = 4_096;

impl Allowances {
    fn of(&self, quota: Quota) -> u32 {
        match quota {
            Quota::Connects => self.connects_per_s,
            Quota::Connections => self.connections_max,
            Quota::Messages => self.messages_per_s,
            Quota::Subscriptions => self.subscriptions_max,
            Quota::Publishes => self.publishes_per_s,
            Quota::Orders => self.orders_per_s,
            Quota::BytesOut => self.bytes_out_per_s,
            Quota::Behind => self.behind_max,
        }
    }
}

impl RoleAllowances {
    fn of(&self, quota: Quota) -> Option<u32> {
        match quota {
            Quota::Connects => self.connects_per_s,
            Quota::Connections => self.connections_max,
            Quota::Messages => self.messages_per_s,
            Quota::Subscriptions => self.subscriptions_max,
            Quota::Publishes => self.publishes_per_s,
            Quota::Orders => self.orders_per_s,
            Quota::BytesOut => self.bytes_out_per_s,
            Quota::Behind => self.behind_max,
        }
    }
}

impl LimitsConfig {
    /// Whether anything is limited.
    pub(super) fn is_any(&self) -> bool {
        Quota::ALL.into_iter().any(|quota| self.is_any_of(quota))
    }

    /// Whether this quota is limited for anybody.
    pub(super) fn is_any_of(&self, quota: Quota) -> bool {
        self.principal.of(quota) > 0
            || self.tenant.of(quota) > 0
            || self.roles.values().any(|role| role.of(quota).is_some_and(|max| max > 0))
    }

    /// The limit on a quota; `None` if there is none. `roles` are those of the roles set here that the
    /// principal has, in the order of their names, by bit.
    pub(super) fn max(&self, scope: Scope, quota: Quota, roles: u16) -> Option<u32> {
        let max = match scope {
            Scope::Tenant => self.tenant.of(quota),
            Scope::Principal => {
                let has = |place: usize| (roles >> place) & 1 == 1;
                let set = self.roles.values().enumerate().filter(|(place, _)| has(*place));
                // 0 means unlimited, so it counts as the largest number.
                let largest =
                    set.filter_map(|(_, role)| role.of(quota)).max_by_key(|max| max.wrapping_sub(1));
                largest.unwrap_or(self.principal.of(quota))
            }
        };
        (max > 0).then_some(max)
    }

    /// The invalid settings.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = self.check_ranges();
        checks.require("roles", self.roles.len() <= MARKS_MAX, || {
            format!("expected at most {MARKS_MAX} roles, found {}", self.roles.len())
        });
        let of_roles = self.roles.iter().filter_map(|(name, role)| {
            Some((format!("roles.{name}.bytes_out_per_s"), role.bytes_out_per_s?))
        });
        let all = [
            ("principal.bytes_out_per_s".to_owned(), self.principal.bytes_out_per_s),
            ("tenant.bytes_out_per_s".to_owned(), self.tenant.bytes_out_per_s),
        ];
        for (key, bytes) in all.into_iter().chain(of_roles) {
            checks.require(&key, bytes == 0 || bytes >= BYTES_OUT_MIN, || {
                format!("expected 0 (unlimited), or at least {BYTES_OUT_MIN}, found {bytes}")
            });
        }
        checks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_its_own_numbers_and_of_several_the_largest() {
        let role = |orders_per_s| RoleAllowances { orders_per_s, ..RoleAllowances::default() };
        let config = LimitsConfig {
            principal: Allowances { orders_per_s: 5, messages_per_s: 7, ..Allowances::default() },
            tenant: Allowances { orders_per_s: 9, ..Allowances::default() },
            roles: [("a", role(Some(2))), ("b", role(Some(3))), ("c", role(Some(0))), ("d", role(None))]
                .map(|(name, role)| (name.to_owned(), role))
                .into(),
            ..LimitsConfig::default()
        };
        for (roles, expected) in
            [(0, Some(5)), (1, Some(2)), (2, Some(3)), (3, Some(3)), (7, None), (8, Some(5)), (9, Some(2))]
        {
            assert_eq!(config.max(Scope::Principal, Quota::Orders, roles), expected, "{roles}");
            assert_eq!(config.max(Scope::Tenant, Quota::Orders, roles), Some(9));
            assert_eq!(config.max(Scope::Principal, Quota::Messages, roles), Some(7));
            assert_eq!(config.max(Scope::Tenant, Quota::Messages, roles), None);
        }
        assert!(config.is_any() && config.check().is_empty());
        assert!(!LimitsConfig::default().is_any());
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let few = Allowances { bytes_out_per_s: 100, ..Allowances::default() };
        let role = RoleAllowances { bytes_out_per_s: Some(4_095), ..RoleAllowances::default() };
        let config = LimitsConfig {
            burst_s: 0,
            tenant: few,
            roles: [("a".to_owned(), role)].into(),
            ..LimitsConfig::default()
        };
        let keys: Vec<String> = config.check().into_iter().map(|finding| finding.key).collect();
        assert_eq!(
            keys,
            ["limits.burst_s", "limits.tenant.bytes_out_per_s", "limits.roles.a.bytes_out_per_s"]
        );
    }
}
