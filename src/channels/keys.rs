//! The keys of a zone, to bound their number.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::DraftEntry;

/// A draft is refused only if the keys were read this recently; otherwise they are read again, because some
/// may be gone.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The keys of a zone as the storage had them, and those that were added since.
#[derive(Debug)]
pub(super) struct Keys {
    known: HashSet<Arc<str>>,
    read: Instant,
}

impl Keys {
    pub(super) fn new(known: impl IntoIterator<Item = Arc<str>>, read: Instant) -> Self {
        Self { known: known.into_iter().collect(), read }
    }

    /// Whether the storage was read a moment ago.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.read) < READ_AGAIN_AFTER
    }

    /// Adds the drafts' keys; or none of them, and returns the index of the draft that exceeds the bound.
    pub(super) fn admit(&mut self, drafts: &[DraftEntry], max: usize) -> Result<(), usize> {
        let mut new = Vec::new();
        for (index, key) in drafts.iter().enumerate().filter_map(|(i, draft)| Some((i, draft.key.as_ref()?)))
        {
            if self.known.contains(key) {
                continue;
            }
            if self.known.len() >= max {
                for key in new {
                    self.known.remove(&key);
                }
                return Err(index);
            }
            self.known.insert(Arc::clone(key));
            new.push(Arc::clone(key));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafts(keys: &[&str]) -> Vec<DraftEntry> {
        let draft = |key: &&str| DraftEntry { key: Some((*key).into()), ..DraftEntry::price(0, "{}") };
        keys.iter().map(draft).collect()
    }

    #[test]
    fn one_key_too_many_is_named_and_nothing_of_its_request_is_kept() {
        let mut keys = Keys::new(["a".into()], Instant::now());
        assert_eq!(keys.admit(&drafts(&["a", "b"]), 3), Ok(()));
        assert_eq!(keys.admit(&drafts(&["b", "c", "c", "d"]), 3), Err(3));
        assert_eq!(keys.admit(&drafts(&["e"]), 3), Ok(()), "`c` was not kept");
        assert_eq!(keys.admit(&drafts(&["a", "b", "e"]), 3), Ok(()));
    }
}
