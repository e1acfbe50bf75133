//! A principal's share: its limits, on its own account and its tenant's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use zonewire_access::Principal;

use super::accounts::Account;
use super::{AGAIN_AFTER, Limits, Over, Quota, Scope};

/// A tracked principal, with its accounts: one for all of its connections and requests.
#[derive(Debug)]
pub(super) struct Holder {
    limits: Arc<Limits>,
    own: Arc<Account>,
    /// Its tenant, and the tenant's account.
    tenant: Option<(u64, Arc<Account>)>,
    /// Its subject, for the log.
    name: Box<str>,
}

impl Holder {
    pub(super) fn new(
        limits: Arc<Limits>,
        own: Arc<Account>,
        tenant: Option<(u64, Arc<Account>)>,
        principal: &Principal,
    ) -> Self {
        Self { limits, own, tenant, name: principal.subject().unwrap_or_default().into() }
    }

    /// Whether its tenant is still that of the principal: the file of API keys may since have given the key
    /// another one.
    pub(super) fn is_of_tenant_of(&self, principal: &Principal) -> bool {
        self.tenant.as_ref().map(|(tenant, _)| *tenant) == principal.tenant()
    }

    pub(super) fn own(&self) -> &Arc<Account> {
        &self.own
    }
}

impl AsRef<Account> for Holder {
    fn as_ref(&self) -> &Account {
        &self.own
    }
}

/// The share of a principal, held by a request or a connection. Small, because each idle connection has
/// one.
pub(crate) struct Share {
    of: Arc<Holder>,
    /// Subscriptions of the connection that holds it; see [`Seat`].
    subscriptions: AtomicU32,
    /// The marks of the principal; see `Principal::marks`.
    roles: AtomicU16,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Share {
    pub(super) fn new(of: Arc<Holder>, principal: &Principal) -> Self {
        Self { of, subscriptions: AtomicU32::new(0), roles: AtomicU16::new(principal.marks()) }
    }

    fn limits(&self) -> &Limits {
        &self.of.limits
    }

    /// The principal's account, then the tenant's.
    fn accounts(&self) -> impl Iterator<Item = (Scope, &Account)> {
        let tenant = self.of.tenant.as_ref().map(|(_, account)| (Scope::Tenant, &**account));
        std::iter::once((Scope::Principal, &*self.of.own)).chain(tenant)
    }

    fn roles(&self) -> u16 {
        self.roles.load(Ordering::Relaxed)
    }

    /// Counts that a limit was reached; `None` if limits are only counted.
    fn refuse(&self, scope: Scope, quota: Quota) -> Option<Scope> {
        self.limits().refuse(scope, quota, &self.of.name)
    }

    /// Whether the quota is limited.
    pub(crate) fn is_limited(&self, quota: Quota) -> bool {
        self.accounts().any(|(scope, _)| self.limits().config.max(scope, quota, self.roles()).is_some())
    }

    /// Takes over the current roles of its principal.
    pub(crate) fn has_roles_of(&self, principal: &Principal) {
        self.roles.store(principal.marks(), Ordering::Relaxed);
    }

    /// Takes from a quota per second: everything, or nothing.
    ///
    /// # Errors
    /// Too little is left.
    pub(crate) fn take(&self, quota: Quota, some: u64) -> Result<(), Over> {
        let (limits, now) = (self.limits(), self.limits().now());
        for (scope, account) in self.accounts() {
            let Some(rate) = limits.rate(scope, quota, self.roles()) else { continue };
            let Err(wait) = account.take(quota, some, rate, now) else { continue };
            if let Some(scope) = self.refuse(scope, quota) {
                if scope == Scope::Tenant
                    && let Some(rate) = limits.rate(Scope::Principal, quota, self.roles())
                {
                    self.of.own.give_back(quota, some, rate);
                }
                return Err(Over { quota, scope, wait });
            }
        }
        Ok(())
    }

    /// Takes from a quota per second even if too little is left; returns how long until the debt is repaid.
    pub(crate) fn charge(&self, quota: Quota, some: u64) -> Duration {
        let (limits, now) = (self.limits(), self.limits().now());
        let mut longest = Duration::ZERO;
        for (scope, account) in self.accounts() {
            let Some(rate) = limits.rate(scope, quota, self.roles()) else { continue };
            // A dry run delays nothing, so it must not accumulate debt.
            let wait = match limits.config.dry_run {
                true => account.take(quota, some, rate, now).err().unwrap_or_default(),
                false => account.charge(quota, some, rate, now),
            };
            if !wait.is_zero() && self.refuse(scope, quota).is_some() {
                longest = longest.max(wait);
            }
        }
        longest
    }

    /// Adds one to a quota on a number.
    fn hold(&self, quota: Quota) -> Result<(), Over> {
        let limits = self.limits();
        for (scope, account) in self.accounts() {
            let max = limits.config.max(scope, quota, self.roles());
            if account.hold(quota, max) {
                continue;
            }
            if let Some(scope) = self.refuse(scope, quota) {
                if scope == Scope::Tenant {
                    self.of.own.release(quota, 1);
                }
                return Err(Over { quota, scope, wait: AGAIN_AFTER });
            }
            // A dry run counts it although the limit is exceeded.
            account.hold(quota, None);
        }
        Ok(())
    }

    fn release(&self, quota: Quota, some: u32) {
        self.accounts().for_each(|(_, account)| account.release(quota, some));
    }

    /// How many connections of the principal, and of its tenant, may lag, where that is limited; each with
    /// a number that identifies the account while it exists.
    pub(crate) fn behind_max(&self) -> impl Iterator<Item = (Scope, usize, usize)> {
        self.accounts().filter_map(|(scope, account)| {
            let max = self.limits().config.max(scope, Quota::Behind, self.roles())?;
            Some((scope, std::ptr::from_ref(account).addr(), usize::try_from(max).unwrap_or(usize::MAX)))
        })
    }

    /// Counts that too many connections lag; returns whether one must be closed, never so in a dry run.
    pub(crate) fn has_too_many_behind(&self, scope: Scope) -> bool {
        self.refuse(scope, Quota::Behind).is_some()
    }

    /// Counts a connection that is being opened.
    ///
    /// # Errors
    /// There are too many, or they are opened too fast.
    pub(crate) fn connect(self) -> Result<Seat, Over> {
        self.take(Quota::Connects, 1)?;
        self.hold(Quota::Connections)?;
        Ok(Seat(self))
    }
}

/// Counts a connection and its subscriptions on its principal and tenant until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Share);

impl Seat {
    /// Its principal's share, to count other quotas on.
    pub(crate) fn share(&self) -> &Share {
        &self.0
    }

    /// Counts one more subscription.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn subscribe(&self) -> Result<(), Over> {
        self.0.hold(Quota::Subscriptions)?;
        self.0.subscriptions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Counts one subscription less, if there are any.
    pub(crate) fn unsubscribe(&self) {
        let one_less = |count: u32| count.checked_sub(1);
        if self.0.subscriptions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            self.0.release(Quota::Subscriptions, 1);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.release(Quota::Subscriptions, self.0.subscriptions.load(Ordering::Relaxed));
        self.0.release(Quota::Connections, 1);
    }
}
