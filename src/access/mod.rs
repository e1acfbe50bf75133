//! Authentication and authorization: keeps the state of the crate `zonewire-access` current. Keys are
//! fetched here, and revocations distributed between nodes; nobody who asks `may` waits for either.

mod fetch;
mod key_refresh;
mod quotas;
mod revoking;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;
use zonewire_access::Access;
pub(crate) use zonewire_access::{
    Action, Certificate, Denied, Kind, Owner, Principal, Refused, Resource, Standing, may,
};
pub use zonewire_access::{AuthConfig, CertificateConfig, IssuerConfig, Mode};

pub use self::quotas::{Allowances, LimitsConfig, RoleAllowances};
pub(crate) use self::quotas::{Over, Quota, Quotas, Scope, Seat, Share};
use crate::model::NodeId;
use crate::storage::SharedBackend;
use crate::support::counter::Counter;
use revoking::Revocations;
pub(crate) use revoking::{Named, RevokeError};

/// The authentication state that all entrances share.
pub(crate) struct Gate {
    access: Access,
    quotas: Arc<Quotas>,
    node: NodeId,
    backend: SharedBackend,
    revocations: Revocations,
    /// Changes whenever the rights of admitted clients may have changed.
    news: watch::Sender<u64>,
    /// One counter for each reason, in the order of [`Refused::ALL`].
    refused: [Counter; Refused::ALL.len()],
    accepted: Counter,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("access", &self.access).finish_non_exhaustive()
    }
}

/// The condition of authentication, for health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GateHealth {
    /// Whether this node knows all revocations of all nodes.
    pub(crate) knows_revocations: bool,
    /// Sources of keys that currently fail, and why.
    pub(crate) problems: Vec<(String, String)>,
}

/// Gives access to the methods of [`Access`] that need no counting and no distribution to other nodes. A
/// method of `Gate` with the same name as one of `Access` shadows it to add these. If it were removed, its
/// callers would still compile, but would bypass them.
impl Deref for Gate {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Gate {
    /// Reads all sources of keys, and the revocations, once; [`run`](Self::run) keeps them up to date.
    ///
    /// # Errors
    /// A setting or a file is invalid; in words.
    pub(crate) async fn open(
        config: &AuthConfig,
        limits: &LimitsConfig,
        node: NodeId,
        backend: SharedBackend,
    ) -> Result<Arc<Self>, String> {
        let access = Access::new(config.clone()).map_err(|wrong| {
            let wrong = wrong.into_iter().map(|(key, problem)| format!("auth.{key}: {problem}"));
            wrong.collect::<Vec<_>>().join("; ")
        })?;
        let gate = Arc::new(Self {
            access: access.marking(limits.roles.keys().cloned()),
            quotas: Quotas::new(limits.clone()),
            node,
            backend,
            revocations: Revocations::default(),
            news: watch::Sender::new(0),
            refused: Default::default(),
            accepted: Counter::default(),
        });
        if gate.is_on() {
            gate.read_files().await?;
            gate.look_for_revocations().await;
        }
        Ok(gate)
    }

    /// A gate with authentication off.
    #[cfg(test)]
    pub(crate) async fn off() -> Arc<Self> {
        Self::in_memory(&AuthConfig::default()).await
    }

    /// A gate whose revocations are in memory.
    #[cfg(test)]
    pub(crate) async fn in_memory(config: &AuthConfig) -> Arc<Self> {
        use crate::storage::{MemoryBackend, MemoryConfig, Retention};
        let (store, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        let opened = Self::open(config, &LimitsConfig::default(), NodeId::random(), Arc::new(store)).await;
        opened.unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// The principal of a token or an API key. Answers from memory.
    ///
    /// # Errors
    /// The credential is invalid.
    pub(crate) fn authenticate(&self, shown: &str) -> Result<Arc<Principal>, Refused> {
        let answer = self.access.authenticate(shown);
        match &answer {
            Ok(_) => self.accepted.add(1),
            Err(refused) => self.count_refused(*refused),
        }
        answer
    }

    fn count_refused(&self, refused: Refused) {
        if let Some(place) = Refused::ALL.iter().position(|known| known.as_str() == refused.as_str()) {
            self.refused[place].add(1);
        }
    }

    /// The principal of a verified certificate, if it is listed.
    pub(crate) fn certified(&self, certificate: &Certificate) -> Option<Arc<Principal>> {
        self.access.certified(certificate).map(Arc::new)
    }

    /// Whether a client that showed a certificate when it connected may still be served.
    ///
    /// # Errors
    /// The certificate is no longer valid.
    pub(crate) fn still_certified(&self, principal: &Principal) -> Result<(), Refused> {
        self.access.still_certified(principal).inspect_err(|refused| self.count_refused(*refused))
    }

    /// Records that an authority was removed, so that clients with certificates are checked again. Returns
    /// the new generation.
    pub(crate) fn withdraw_authorities(&self) -> u32 {
        let number = self.access.withdraw_authorities();
        self.has_news();
        number
    }

    /// The limits of a principal; `None` if it has none.
    pub(crate) fn share(&self, principal: &Principal) -> Option<Share> {
        self.quotas.share(principal)
    }

    /// The counters of the limits.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Changes whenever admitted clients have to be checked again.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn has_news(&self) {
        self.news.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// How many credentials were accepted since the start, and how many were refused, by reason.
    pub(crate) fn counts(&self) -> (u64, Vec<(&'static str, u64)>) {
        let refused = Refused::ALL.iter().zip(&self.refused);
        (self.accepted.get(), refused.map(|(reason, count)| (reason.as_str(), count.get())).collect())
    }

    /// The condition of authentication.
    pub(crate) fn health(&self) -> GateHealth {
        let sources = self.access.sources().into_iter();
        GateHealth {
            knows_revocations: self.knows_revocations(),
            problems: sources.filter_map(|source| Some((source.place, source.problem?))).collect(),
        }
    }
}

/// Now, in seconds since 1970.
pub(crate) fn now_s() -> i64 {
    chrono::Utc::now().timestamp()
}
