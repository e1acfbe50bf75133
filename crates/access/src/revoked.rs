//! Revocations: what is no longer valid although it has not expired.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::principal::{Principal, credential_hash, subject_hash};

/// The most revocations that can be in effect.
pub const REVOCATIONS_MAX: usize = 100_000;

/// The kind of what is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// One token, by its `jti`, or one API key, by its name.
    Credential,
    /// Everything issued to a subject up to the time of the revocation.
    Subject,
}

/// A revocation, as it is stored and distributed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What is revoked.
    pub what: Revoked,
    /// The `jti`, the name of the key, or the subject.
    pub name: String,
    /// When it was made, in seconds since 1970: what is issued to the subject later is valid.
    pub at: i64,
    /// Until when it is needed, in seconds since 1970.
    pub until: i64,
}

impl Revocation {
    /// Its key in the storage: the kind, `c` or `s`, and a digest of the name in 16 hexadecimal digits.
    pub fn key(&self) -> String {
        match self.what {
            Revoked::Credential => format!("c{:016x}", credential_hash(&self.name)),
            Revoked::Subject => format!("s{:016x}", subject_hash(&self.name)),
        }
    }
}

/// All revocations in effect.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    /// By credential: until when it is needed.
    credentials: HashMap<u64, i64>,
    /// By subject: the time up to which its credentials are revoked, and until when that is needed.
    subjects: HashMap<u64, (i64, i64)>,
}

impl Revocations {
    pub(crate) fn len(&self) -> usize {
        self.credentials.len() + self.subjects.len()
    }

    /// Adds a revocation; returns whether it was new. `None` if there is no room.
    pub(crate) fn add(&mut self, revocation: &Revocation) -> Option<bool> {
        let Revocation { what, name, at, until } = revocation;
        let is_full = self.len() >= REVOCATIONS_MAX;
        match what {
            Revoked::Credential => {
                let hash = credential_hash(name);
                if is_full && !self.credentials.contains_key(&hash) {
                    return None;
                }
                let held = self.credentials.insert(hash, *until);
                if let Some(held) = held.filter(|held| held > until) {
                    self.credentials.insert(hash, held);
                }
                Some(held.is_none())
            }
            Revoked::Subject => {
                let hash = subject_hash(name);
                let held = self.subjects.get(&hash).copied();
                if is_full && held.is_none() {
                    return None;
                }
                let (held_at, held_until) = held.unwrap_or((i64::MIN, i64::MIN));
                self.subjects.insert(hash, (held_at.max(*at), held_until.max(*until)));
                Some(held.is_none() || *at > held_at)
            }
        }
    }

    /// Until when a revocation is needed.
    pub(crate) fn until(&self, what: Revoked, name: &str) -> Option<i64> {
        match what {
            Revoked::Credential => self.credentials.get(&credential_hash(name)).copied(),
            Revoked::Subject => self.subjects.get(&subject_hash(name)).map(|(_, until)| *until),
        }
    }

    /// Removes the revocations of what has expired by itself.
    pub(crate) fn forget(&mut self, now: i64) {
        self.credentials.retain(|_, until| *until > now);
        self.subjects.retain(|_, (_, until)| *until > now);
    }

    pub(crate) fn hold(&self, principal: &Principal) -> bool {
        let credential = principal.credential();
        (credential != 0 && self.credentials.contains_key(&credential))
            || (!self.subjects.is_empty()
                && self
                    .subjects
                    .get(&principal.subject_hash())
                    .is_some_and(|(at, _)| principal.is_authenticated() && principal.issued_at() <= *at))
    }
}
