//! A bounded cache that evicts its oldest entries.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// The newest values by key: at most `len_max` of them, with a total cost of at most `cost_max`.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    len_max: usize,
    cost_max: usize,
    cost: usize,
    /// Grows with each insertion.
    last: u64,
    values: HashMap<K, Cached<V>>,
    by_age: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Cached<V> {
    nth: u64,
    cost: usize,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    pub(crate) fn new(len_max: usize, cost_max: usize) -> Self {
        let (values, by_age) = (HashMap::new(), BTreeMap::new());
        Self { len_max, cost_max, cost: 0, last: 0, values, by_age }
    }

    /// Inserts a value as the newest, replacing the one under the key.
    pub(crate) fn insert(&mut self, key: K, value: V, cost: usize) {
        self.remove(&key);
        self.last += 1;
        self.cost += cost;
        self.by_age.insert(self.last, key.clone());
        self.values.insert(key, Cached { nth: self.last, cost, value });
        while (self.values.len() > self.len_max || self.cost > self.cost_max)
            && let Some((_, oldest)) = self.by_age.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key).map(|cached| &cached.value)
    }

    /// The value under a key, to be changed in place; its age and its cost stay the same.
    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.values.get_mut(key).map(|cached| &mut cached.value)
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(Cached { nth, cost, .. }) = self.values.remove(key) {
            self.by_age.remove(&nth);
            self.cost -= cost;
        }
    }

    /// All values, in no particular order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.values().map(|cached| &cached.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_by_number_and_by_cost() {
        let mut recent = Recent::new(3, 10);
        for n in 1..=4 {
            recent.insert(n, n * 10, 1);
        }
        assert_eq!((recent.get(&1), recent.get(&2)), (None, Some(&20)));
        recent.insert(2, 21, 7);
        assert_eq!((recent.get(&2), recent.get(&3), recent.cost), (Some(&21), Some(&30), 9));
        recent.insert(5, 50, 2);
        assert_eq!((recent.get(&3), recent.cost), (None, 10), "2 was inserted after 3");
        recent.insert(6, 60, 11);
        assert_eq!((recent.values().count(), recent.cost, recent.by_age.len()), (0, 0, 0));
    }
}
