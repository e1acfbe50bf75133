//! Certificates of clients: which of them is whose. That they are an authority's, and their holder's, has been
//! verified by TLS before; here a name decides, and one that is not listed is nobody's.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::access::marks;
use crate::keys::KeyNumber;
use crate::principal::{Kind, Principal, Shown, SignedWith};
use crate::rights::Right;
use crate::settings::CertificateConfig;

/// What counts of a certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The names that it bears, each with its kind, as [`CertificateConfig::name`] has them.
    pub names: Vec<String>,
    /// The first second in which it is valid, since 1970.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
    /// The number of the authorities that it was verified by: see [`Access::authorities`](crate::Access::authorities).
    pub authorities: u32,
}

/// All that are listed.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// Each as somebody whose certificate is always valid.
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
            let of_roles = certificate.roles.iter().filter_map(|role| roles.get(role)).flatten().cloned();
            let own = certificate.rights.iter().filter_map(|right| right.parse().ok());
            let rights: Vec<Right> = of_roles.chain(own).collect();
            let principal = Principal::new(
                &Shown {
                    kind: Kind::Certificate,
                    // As of an API key: the settings say who that is, and no issuer of tokens has this name.
                    issuer: "",
                    tenant: certificate.tenant.as_deref(),
                    subject: certificate.subject(),
                    credential: None,
                    issued_at: None,
                    expires_at: None,
                },
                &rights,
            );
            principal.marked(marks(marking, certificate.roles.iter().map(String::as_str)))
        });
        let names = config.iter().enumerate().map(|(place, listed)| (listed.name.clone(), place));
        Self { listed: listed.collect(), by_name: names.collect(), authorities: AtomicU32::new(1) }
    }

    /// Of a certificate with several names that are listed, the entry counts that comes first.
    pub(crate) fn find(&self, certificate: &Certificate) -> Option<Principal> {
        let place = certificate.names.iter().filter_map(|name| self.by_name.get(name)).min()?;
        let (from, until) = (certificate.not_before, certificate.not_after.saturating_add(1));
        let verified_by = SignedWith { issuer: 0, key: KeyNumber::of_authorities(certificate.authorities) };
        Some(self.listed.get(*place)?.clone().valid(from, until).signed_with(verified_by))
    }

    /// Whether the authorities that somebody's certificate was verified by are authorities still.
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
