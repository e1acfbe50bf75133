//! A cache of verified tokens. When a client shows a token again, from another tab or after reconnecting,
//! its signature is not checked again, which would cost more than everything else.

use std::collections::HashMap;
use std::sync::Arc;

use crate::crypto::sha256_of;
use crate::principal::Principal;

/// Identifies a token: enough of its SHA-256 that nobody can find another token with the same.
pub(crate) type Digest = [u8; 16];

/// The digest of a token.
pub(crate) fn digest(token: &str) -> Digest {
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = sha256_of(&[token.as_bytes()]);
    digest
}

/// The principals of verified tokens. Bounded: there are two generations, and when the newer is full, the
/// older is dropped.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The most tokens of one generation.
    max: usize,
    newer: HashMap<Digest, Arc<Principal>>,
    older: HashMap<Digest, Arc<Principal>>,
}

impl Verified {
    /// An empty cache of at most `max` tokens.
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

    /// Removes a token that is no longer valid.
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
