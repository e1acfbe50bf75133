//! What reports are made of: sums, spreads, and examples.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Deref};

use serde::Serialize;

/// Implements `+=` for a struct, field by field.
macro_rules! sums {
    ($name:ident: $($field:ident),+) => {
        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

pub(crate) use sums;

/// Adds counts, key by key.
pub(crate) fn add_counts<'a, K: Ord + Clone + 'a>(
    sum: &mut BTreeMap<K, u64>,
    counts: impl IntoIterator<Item = (&'a K, &'a u64)>,
) {
    for (key, count) in counts {
        *sum.entry(key.clone()).or_default() += count;
    }
}

/// One figure, measured several times.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    /// Of an even number of values, the mean of the middle two.
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { least, median: f64::midpoint(low, high), most })
    }
}

/// The first few cases of something; the others are only counted elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Examples<T = String>(Vec<T>);

impl<T> Examples<T> {
    const MAX: usize = 5;

    /// Whether there is room for a case.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < Self::MAX
    }

    /// Adds a case, if there is room.
    pub(crate) fn note(&mut self, case: impl FnOnce() -> T) {
        if self.has_room() {
            self.0.push(case());
        }
    }
}

impl Examples {
    /// The same cases, each with the name of what it is about.
    pub(crate) fn of(&self, name: &str) -> Self {
        Self(self.0.iter().map(|case| format!("{name}: {case}")).collect())
    }
}

impl<T> Default for Examples<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Examples<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> AddAssign for Examples<T> {
    fn add_assign(&mut self, other: Self) {
        other.0.into_iter().for_each(|case| self.note(|| case));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_several_runs_have_a_median_between_the_least_and_the_most() {
        assert_eq!(Spread::of([]), None);
        for (values, least, median, most) in [
            (vec![3.0], 3.0, 3.0, 3.0),
            (vec![4.0, 1.0], 1.0, 2.5, 4.0),
            (vec![3.0, 1.0, 2.0], 1.0, 2.0, 3.0),
            (vec![9.0, 1.0, 2.0], 1.0, 2.0, 9.0),
            (vec![9.0, 1.0, 2.0, 4.0], 1.0, 3.0, 9.0),
        ] {
            assert_eq!(Spread::of(values), Some(Spread { least, median, most }));
        }
    }
}
