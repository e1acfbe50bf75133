//! Who comes in, and what that one may do: the crate `zonewire-access`, kept up to date. Keys are fetched
//! here, and revocations passed on between nodes; whoever asks `may` waits for neither.

mod fetch;
mod keeper;
mod quotas;
mod revoking;

use std::fmt;
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

/// What every door has: who somebody is, and what has become of it.
pub(crate) struct Gate {
    access: Access,
    quotas: Arc<Quotas>,
    node: NodeId,
    backend: SharedBackend,
    revocations: Revocations,
    /// Changes whenever somebody who was let in may have other rights now, or none.
    news: watch::Sender<u64>,
    /// By place in [`Refused::ALL`].
    refused: [Counter; Refused::ALL.len()],
    accepted: Counter,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("access", &self.access).finish_non_exhaustive()
    }
}

/// How authentication does, for health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GateHealth {
    /// Whether all revocations of all nodes are known here.
    pub(crate) knows_revocations: bool,
    /// Places that give no keys at the moment, and why.
    pub(crate) problems: Vec<(String, String)>,
}

impl Gate {
    /// Reads the files of keys. Addresses are asked by [`run`](Self::run).
    ///
    /// # Errors
    /// A setting or a file cannot be used; in words.
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

    /// One at which nobody is asked.
    #[cfg(test)]
    pub(crate) async fn off() -> Arc<Self> {
        use crate::storage::{MemoryBackend, MemoryConfig, Retention};
        let (store, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        let opened =
            Self::open(&AuthConfig::default(), &LimitsConfig::default(), NodeId::random(), Arc::new(store))
                .await;
        opened.unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Whether anybody is asked who they are.
    pub(crate) fn is_on(&self) -> bool {
        self.access.is_on()
    }

    /// Whether there is something that may be done without showing anything.
    pub(crate) fn is_optional(&self) -> bool {
        self.access.is_optional()
    }

    /// The settings.
    pub(crate) fn config(&self) -> &AuthConfig {
        self.access.config()
    }

    /// Who has shown nothing; or everybody, where nobody is asked.
    pub(crate) fn nobody(&self) -> Arc<Principal> {
        self.access.nobody()
    }

    /// Who shows a token or a key. Answers at once.
    ///
    /// # Errors
    /// It does not hold.
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

    /// Whose a certificate is that was verified, if it is listed.
    pub(crate) fn certified(&self, certificate: &Certificate) -> Option<Arc<Principal>> {
        self.access.certified(certificate).map(Arc::new)
    }

    /// Whether somebody who has shown a certificate at the beginning of a connection may still come in.
    ///
    /// # Errors
    /// It does not hold any more.
    pub(crate) fn still_certified(&self, principal: &Principal) -> Result<(), Refused> {
        self.access.still_certified(principal).inspect_err(|refused| self.count_refused(*refused))
    }

    /// Which authorities certificates are verified by now.
    pub(crate) fn authorities(&self) -> u32 {
        self.access.authorities()
    }

    /// One of them is none any more: who came with a certificate is looked at again. The number of those that
    /// there are from here on.
    pub(crate) fn withdraw_authorities(&self) -> u32 {
        let number = self.access.withdraw_authorities();
        self.has_news();
        number
    }

    /// How much somebody may have; `None` where that is not limited.
    pub(crate) fn share(&self, principal: &Principal) -> Option<Share> {
        self.quotas.share(principal)
    }

    /// What limits have refused.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// What has become of somebody who was let in.
    pub(crate) fn standing(&self, principal: &Principal) -> Standing {
        self.access.standing(principal)
    }

    /// Tells whenever somebody who was let in is to be looked at again.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn has_news(&self) {
        self.news.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Tokens and keys that held, and by reason those that did not, since the start.
    pub(crate) fn counts(&self) -> (u64, Vec<(&'static str, u64)>) {
        let refused = Refused::ALL.iter().zip(&self.refused);
        (self.accepted.get(), refused.map(|(reason, count)| (reason.as_str(), count.get())).collect())
    }

    /// How many revocations are known.
    pub(crate) fn revocations(&self) -> usize {
        self.access.revocations()
    }

    /// How it does.
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
