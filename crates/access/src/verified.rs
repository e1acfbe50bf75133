//! Tokens that were verified a while ago: who shows one of them again, be it from another tab or because it
//! has to come back, is known without another look at the signature, which costs more than all the rest.

use std::collections::HashMap;
use std::sync::Arc;

use crate::crypto::sha256_of;
use crate::principal::Principal;

/// A token, by so much of its SHA-256 that nobody finds another one with the same.
pub(crate) type Digest = [u8; 16];

/// The digest of a token.
pub(crate) fn digest(token: &str) -> Digest {
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = sha256_of(&[token.as_bytes()]);
    digest
}

/// Who has shown which token. Bounded: in two generations, the older of which goes when the newer is full.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The most of a generation.
    max: usize,
    newer: HashMap<Digest, Arc<Principal>>,
    older: HashMap<Digest, Arc<Principal>>,
}

impl Verified {
    /// None yet, and never more than `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max / 2, newer: HashMap::new(), older: HashMap::new() }
    }

    pub(crate) fn get(&mut self, token: &Digest) -> Option<Arc<Principal>> {
        if let Some(found) = self.newer.get(token) {
            return Some(Arc::clone(found));
        }
        let found = self.older.remove(token)?;
        self.add(*token, Arc::clone(&found));
        Some(found)
    }

    pub(crate) fn add(&mut self, token: Digest, principal: Arc<Principal>) {
        if self.max == 0 {
            return;
        }
        if self.newer.len() >= self.max {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(token, principal);
    }

    /// Forgets one that holds no more.
    pub(crate) fn remove(&mut self, token: &Digest) {
        self.newer.remove(token);
        self.older.remove(token);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_remembered_as_may_be_and_those_that_come_again_stay() {
        let principal = Principal::unchecked();
        const MAX: usize = 2_000;
        let mut verified = Verified::new(MAX);
        let often = digest("often");
        verified.add(often, Arc::clone(&principal));
        for number in 0..3 * MAX {
            verified.add(digest(&number.to_string()), Arc::clone(&principal));
            if number % 500 == 0 {
                assert!(verified.get(&often).is_some(), "{number}");
            }
            assert!(verified.len() <= MAX);
        }
        assert!(verified.get(&digest("0")).is_none());
        assert!(verified.get(&digest(&(3 * MAX - 1).to_string())).is_some());
        verified.remove(&often);
        assert!(verified.get(&often).is_none());
        let mut none = Verified::new(0);
        none.add(often, principal);
        assert!(none.get(&often).is_none());
    }
}
