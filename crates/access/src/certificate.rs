//! Client certificates: which names belong to whom. TLS has verified before that an authority issued the
//! certificate and that the client holds its key. Here a listed name determines the principal; a
//! certificate without one gives no rights.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::access::marks;
use crate::keys::KeyNumber;
use crate::principal::{Kind, Principal, Shown, SignedWith};
use crate::rights::{Right, granted};
use crate::settings::CertificateConfig;

/// The relevant parts of a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The names in it, each with its kind, as in [`CertificateConfig::name`].
    pub names: Vec<String>,
    /// The first second in which it is valid, in seconds since 1970.
    pub not_before: i64,
    /// The last second in which it is valid.
    pub not_after: i64,
    /// The generation of the authorities that verified it: see
    /// [`Access::authorities`](crate::Access::authorities).
    pub authorities: u32,
}

/// All listed certificates.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The principal of each, valid forever.
    listed: Vec<Principal>,
    by_name: HashMap<String, usize>,
    authorities: AtomicU32,
}

impl Certificates {
    pub(crate) fn of(
        config: &[CertificateConfig],
        roles: &BTreeMap<String, Vec<Right>>,
        marking: &[String],
    ) -> Self {
        let listed = config.iter().map(|certificate| {
            let principal = Principal::new(
                &Shown {
                    kind: Kind::Certificate,
                    // As for API keys: the settings name the subject, and issuers of tokens cannot have
                    // this name.
                    issuer: "",
                    tenant: certificate.tenant.as_deref(),
                    subject: certificate.subject(),
                    credential: None,
                    issued_at: None,
                    expires_at: None,
                },
                granted(roles, &certificate.roles, &certificate.rights),
            );
            principal.marked(marks(marking, &certificate.roles))
        });
        let names = config.iter().enumerate().map(|(place, listed)| (listed.name.clone(), place));
        Self { listed: listed.collect(), by_name: names.collect(), authorities: AtomicU32::new(1) }
    }

    /// If several names of the certificate are listed, the first entry in the settings counts.
    pub(crate) fn find(&self, certificate: &Certificate) -> Option<Principal> {
        let place = certificate.names.iter().filter_map(|name| self.by_name.get(name)).min()?;
        let (from, until) = (certificate.not_before, certificate.not_after.saturating_add(1));
        let verified_by = SignedWith { issuer: 0, key: KeyNumber::of_authorities(certificate.authorities) };
        Some(self.listed.get(*place)?.clone().valid(from, until).signed_with(verified_by))
    }

    /// Whether the authorities that verified the principal's certificate are still the current ones.
    pub(crate) fn holds(&self, principal: &Principal) -> bool {
        principal.key().key == KeyNumber::of_authorities(self.authorities())
    }

    pub(crate) fn authorities(&self) -> u32 {
        self.authorities.load(Ordering::Acquire)
    }

    pub(crate) fn withdraw_authorities(&self) -> u32 {
        self.authorities.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    pub(crate) fn has_subject(&self, subject: &str) -> bool {
        self.listed.iter().any(|listed| listed.subject() == Some(subject))
    }
}
