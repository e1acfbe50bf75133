//! Limits on authenticated clients: on each principal, and on all principals of a tenant together.
//! Anonymous clients are limited by address, in `connections`.
//!
//! Nothing here waits. The only lock is on looking up an account: once for each connection, and for each
//! request that is counted.

mod accounts;
mod config;
mod share;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;
use zonewire_access::Principal;
use zonewire_protocol::stats::LimitsView;

use crate::support::counter::Counter;
use crate::support::rate::Rate;
use crate::support::seldom::Seldom;
use accounts::{Account, Accounts};
pub use config::{Allowances, LimitsConfig, RoleAllowances};
use share::Holder;
pub(crate) use share::{Seat, Share};

/// What is limited: first the quotas per second, then those on a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    /// Opening connections.
    Connects,
    /// Messages over WebSockets.
    Messages,
    /// Entries that are published.
    Publishes,
    /// Orders that are placed.
    Orders,
    /// Bytes that are sent over connections.
    BytesOut,
    /// Connections.
    Connections,
    /// Subscriptions on all connections together.
    Subscriptions,
    /// Connections that lag, because their clients read more slowly than entries arrive.
    Behind,
}

impl Quota {
    pub(crate) const ALL: [Self; 8] = [
        Self::Connects,
        Self::Messages,
        Self::Publishes,
        Self::Orders,
        Self::BytesOut,
        Self::Connections,
        Self::Subscriptions,
        Self::Behind,
    ];

    /// How many of them are per second.
    const RATES: usize = 5;

    /// The last part of the setting's key.
    fn setting(self) -> &'static str {
        match self {
            Self::Connects => "connects_per_s",
            Self::Messages => "messages_per_s",
            Self::Publishes => "publishes_per_s",
            Self::Orders => "orders_per_s",
            Self::BytesOut => "bytes_out_per_s",
            Self::Connections => "connections_max",
            Self::Subscriptions => "subscriptions_max",
            Self::Behind => "behind_max",
        }
    }
}

/// What a limit applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// A subject within its issuer and tenant, or an API key.
    Principal,
    /// All principals of a tenant together.
    Tenant,
}

impl Scope {
    const ALL: [Self; 2] = [Self::Principal, Self::Tenant];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Tenant => "tenant",
        }
    }
}

/// A limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) quota: Quota,
    pub(crate) scope: Scope,
    /// How long until it may succeed, if nobody else uses the quota before; for a quota on a number, when
    /// to try again.
    pub(crate) wait: Duration,
}

/// The text for the client that is refused.
impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.scope {
            Scope::Principal => "this token's subject, or this API key,",
            Scope::Tenant => "the tenant",
        };
        let what = match self.quota {
            Quota::Connects => "connects more often than allowed; keep connections open, and try again later",
            Quota::Messages => "sends more messages than allowed; send fewer",
            Quota::Publishes => "publishes more entries than allowed; nothing of this was published",
            Quota::Orders => "places more orders than allowed; this one was not placed",
            Quota::BytesOut => "is sent more bytes than allowed",
            Quota::Connections => "has as many connections as allowed; close one first",
            Quota::Subscriptions => "has as many subscriptions as allowed; unsubscribe from one first",
            Quota::Behind => "has as many lagging connections as allowed",
        };
        write!(f, "{whose} {what}")
    }
}

impl Over {
    /// After how many milliseconds to try again.
    pub(crate) fn wait_ms(&self) -> u64 {
        u64::try_from(self.wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
    }
}

/// When to try again for a quota on a number, which depends on when others release some.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The limits, and the current use.
#[derive(Debug)]
pub(crate) struct Quotas {
    limits: Arc<Limits>,
    is_on: bool,
    principals: Accounts<Holder>,
    tenants: Accounts<Account>,
}

/// The limits, and how often they were reached.
#[derive(Debug)]
struct Limits {
    config: LimitsConfig,
    began: Instant,
    /// By scope, then by quota.
    refused: [[(Counter, Mutex<Seldom>); Quota::ALL.len()]; 2],
}

impl Quotas {
    pub(super) fn new(config: LimitsConfig) -> Arc<Self> {
        let (principals, tenants) = (Accounts::default(), Accounts::default());
        Arc::new(Self { is_on: config.is_any(), limits: Arc::new(Limits::new(config)), principals, tenants })
    }

    /// The share of a principal; `None` if nothing is limited, or the principal is anonymous.
    pub(super) fn share(&self, principal: &Principal) -> Option<Share> {
        let account = principal.account().filter(|_| self.is_on)?;
        let now = self.limits.now();
        let holder = |own| {
            let tenant = principal.tenant();
            let tenant = tenant.map(|tenant| (tenant, self.tenants.get(tenant, now, |account| account)));
            Arc::new(Holder::new(Arc::clone(&self.limits), own, tenant, principal))
        };
        let known = self.principals.get(account, now, holder);
        let holder = if known.is_of_tenant_of(principal) { known } else { holder(Arc::clone(known.own())) };
        Some(Share::new(holder, principal))
    }

    /// Whether what would be refused is only counted.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.limits.config.dry_run
    }

    /// Whether the number of lagging connections is limited.
    pub(crate) fn bounds_behind(&self) -> bool {
        self.limits.config.is_any_of(Quota::Behind)
    }

    /// What was refused since the start, and how many principals and tenants are tracked.
    pub(crate) fn view(&self) -> LimitsView {
        let mut view = LimitsView {
            principals: self.principals.count(),
            tenants: self.tenants.count(),
            ..LimitsView::default()
        };
        if !self.is_on {
            return view;
        }
        let counts = if self.limits.config.dry_run { &mut view.dry_run } else { &mut view.refused };
        for scope in Scope::ALL {
            for (quota, (count, _)) in Quota::ALL.into_iter().zip(&self.limits.refused[scope as usize]) {
                counts.insert(format!("{}.{}", scope.as_str(), quota.setting()), count.get());
            }
        }
        view
    }
}

impl Limits {
    fn new(config: LimitsConfig) -> Self {
        let refused = Scope::ALL.map(|_| Quota::ALL.map(|_| (Counter::default(), Mutex::default())));
        Self { config, began: Instant::now(), refused }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn rate(&self, scope: Scope, quota: Quota, roles: u16) -> Option<Rate> {
        let per_s = self.config.max(scope, quota, roles)?;
        Some(Rate { per_s, burst: u64::from(per_s) * u64::from(self.config.burst_s.max(1)) })
    }

    /// Counts that a limit was reached, and logs it now and then. `None` if limits are only counted.
    fn refuse(&self, scope: Scope, quota: Quota, subject: &str) -> Option<Scope> {
        let (counter, line) = &self.refused[scope as usize][quota as usize];
        counter.add(1);
        let dry_run = self.config.dry_run;
        if let Some(untold) = line.lock().may_tell(Instant::now()) {
            let setting = format!("limits.{}.{}", scope.as_str(), quota.setting());
            warn!(times = untold + 1, setting, subject, dry_run, "a limit was reached");
        }
        (!dry_run).then_some(scope)
    }
}
