//! What one principal may have: of its own account, and of its tenant's.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use zonewire_access::Principal;

use super::accounts::Account;
use super::{AGAIN_AFTER, Over, Quota, Quotas, Scope};

/// What somebody may have, and has. Held for a request, or by a connection.
pub(crate) struct Share {
    quotas: Arc<Quotas>,
    own: Arc<Account>,
    of_tenant: Option<Arc<Account>>,
    /// See `Principal::marks`.
    roles: AtomicU16,
    /// As it was at first.
    principal: Arc<Principal>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Share {
    pub(super) fn new(
        quotas: Arc<Quotas>,
        own: Arc<Account>,
        of_tenant: Option<Arc<Account>>,
        principal: Arc<Principal>,
    ) -> Self {
        Self { quotas, own, of_tenant, roles: AtomicU16::new(principal.marks()), principal }
    }

    /// Both accounts, that of the principal first.
    fn accounts(&self) -> impl Iterator<Item = (Scope, &Account)> {
        let tenant = self.of_tenant.as_ref().map(|account| (Scope::Tenant, &**account));
        std::iter::once((Scope::Principal, &*self.own)).chain(tenant)
    }

    fn roles(&self) -> u16 {
        self.roles.load(Ordering::Relaxed)
    }

    /// Counts that something is too much; `None` where it only counts.
    fn refuse(&self, scope: Scope, quota: Quota) -> Option<Scope> {
        self.quotas.refuse(scope, quota, self.principal.subject().unwrap_or_default())
    }

    /// Whether there is a limit for it.
    pub(crate) fn is_limited(&self, quota: Quota) -> bool {
        self.accounts().any(|(scope, _)| self.quotas.config.max(scope, quota, self.roles()).is_some())
    }

    /// Its principal has these roles from now on.
    pub(crate) fn has_roles_of(&self, principal: &Principal) {
        self.roles.store(principal.marks(), Ordering::Relaxed);
    }

    /// Takes some of what is limited by the second: all, or nothing.
    ///
    /// # Errors
    /// That is too much now.
    pub(crate) fn take(&self, quota: Quota, some: u64) -> Result<(), Over> {
        let (quotas, now) = (&self.quotas, self.quotas.now());
        for (scope, account) in self.accounts() {
            let Some(rate) = quotas.rate(scope, quota, self.roles()) else { continue };
            let Err(wait) = account.take(quota, some, rate, now) else { continue };
            if let Some(scope) = self.refuse(scope, quota) {
                if scope == Scope::Tenant
                    && let Some(rate) = quotas.rate(Scope::Principal, quota, self.roles())
                {
                    self.own.give_back(quota, some, rate);
                }
                return Err(Over { quota, scope, wait });
            }
        }
        Ok(())
    }

    /// Takes some of it, be it there or not; in how long it will be there.
    pub(crate) fn charge(&self, quota: Quota, some: u64) -> Duration {
        let (quotas, now) = (&self.quotas, self.quotas.now());
        let mut longest = Duration::ZERO;
        for (scope, account) in self.accounts() {
            let Some(rate) = quotas.rate(scope, quota, self.roles()) else { continue };
            // Where nothing is held back, nothing is owed.
            let wait = match quotas.config.dry_run {
                true => account.take(quota, some, rate, now).err().unwrap_or_default(),
                false => account.charge(quota, some, rate, now),
            };
            if !wait.is_zero() && self.refuse(scope, quota).is_some() {
                longest = longest.max(wait);
            }
        }
        longest
    }

    /// Has one more of what one has at once.
    fn hold(&self, quota: Quota) -> Result<(), Over> {
        let quotas = &self.quotas;
        for (scope, account) in self.accounts() {
            let max = quotas.config.max(scope, quota, self.roles());
            if account.hold(quota, max) {
                continue;
            }
            if let Some(scope) = self.refuse(scope, quota) {
                if scope == Scope::Tenant {
                    self.own.release(quota, 1);
                }
                return Err(Over { quota, scope, wait: AGAIN_AFTER });
            }
            // It is there all the same.
            account.hold(quota, None);
        }
        Ok(())
    }

    fn release(&self, quota: Quota, some: u32) {
        self.accounts().for_each(|(_, account)| account.release(quota, some));
    }

    /// Of how many connections that are behind there may be of its principal, and of its tenant, where that is
    /// limited; each with a number that no other has while this is held.
    pub(crate) fn behind_max(&self) -> impl Iterator<Item = (Scope, usize, usize)> {
        self.accounts().filter_map(|(scope, account)| {
            let max = self.quotas.config.max(scope, Quota::Behind, self.roles())?;
            Some((scope, std::ptr::from_ref(account).addr(), usize::try_from(max).unwrap_or(usize::MAX)))
        })
    }

    /// Counts that there are more; says whether one is to be closed.
    pub(crate) fn has_too_many_behind(&self, scope: Scope) -> bool {
        self.refuse(scope, Quota::Behind).is_some()
    }

    /// The place of a connection that is opened.
    ///
    /// # Errors
    /// It is one too many, now or at once.
    pub(crate) fn connect(self) -> Result<Seat, Over> {
        self.take(Quota::Connects, 1)?;
        self.hold(Quota::Connections)?;
        Ok(Seat { share: self, subscriptions: Cell::new(0) })
    }
}

/// A connection that counts for its principal and tenant, with what it has, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Seat {
    share: Share,
    subscriptions: Cell<u32>,
}

impl Seat {
    /// What its principal may have besides.
    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// Has one more subscription.
    ///
    /// # Errors
    /// It is one too many.
    pub(crate) fn subscribe(&self) -> Result<(), Over> {
        self.share.hold(Quota::Subscriptions)?;
        self.subscriptions.set(self.subscriptions.get() + 1);
        Ok(())
    }

    /// Has one subscription less. Never too much.
    pub(crate) fn unsubscribe(&self) {
        let count = self.subscriptions.get();
        if count > 0 {
            self.subscriptions.set(count - 1);
            self.share.release(Quota::Subscriptions, 1);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.share.release(Quota::Subscriptions, self.subscriptions.get());
        self.share.release(Quota::Connections, 1);
    }
}
