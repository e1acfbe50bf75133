//! Collects everything that a room finds wrong in its settings, not only the first fault.

use std::fmt::{Debug, Display};
use std::ops::{Bound, RangeBounds};

/// A setting whose value has the right type but is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The full key, such as `http.listen`.
    pub(crate) key: String,
    /// What is wrong and what would be right, as a fragment of a sentence. Contains no secrets.
    pub(crate) problem: String,
}

/// Collects findings about the keys of one section.
#[derive(Debug)]
pub(crate) struct Checks {
    section: &'static str,
    found: Vec<Finding>,
}

impl Checks {
    /// No findings yet, for a section such as `http` or `storage.redis`.
    pub(crate) fn of(section: &'static str) -> Self {
        Self { section, found: Vec::new() }
    }

    /// Records the problem unless the value is valid.
    pub(crate) fn require(&mut self, key: &str, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Finding { key: format!("{}.{key}", self.section), problem: problem() });
        }
    }

    /// Requires a value within a range.
    pub(crate) fn in_range<T: PartialOrd + Display + Debug>(
        &mut self,
        key: &str,
        range: impl RangeBounds<T>,
        value: T,
    ) {
        self.require(key, range.contains(&value), || {
            let expected = match (range.start_bound(), range.end_bound()) {
                (Bound::Included(least), Bound::Included(most)) => format!("{least} to {most}"),
                (Bound::Included(least), Bound::Unbounded) => format!("{least} or more"),
                (Bound::Unbounded, Bound::Included(most)) => format!("at most {most}"),
                bounds => format!("a value within {bounds:?}"),
            };
            format!("expected {expected}, found {value}")
        });
    }

    /// Adds the findings of another section.
    pub(crate) fn add(&mut self, other: Self) {
        self.found.extend(other.found);
    }

    /// Everything that was found.
    pub(crate) fn finish(self) -> Vec<Finding> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_noted_with_its_full_key() {
        let mut checks = Checks::of("http");
        checks.in_range("a", 1.., 0_u64);
        checks.in_range("b", 1.., 1_usize);
        checks.require("c", false, || "wrong".to_owned());
        checks.in_range("d", 0.0..=1.0, f64::NAN);
        checks.in_range("e", ..=4, 5);
        let found: Vec<String> =
            checks.finish().iter().map(|found| format!("{}: {}", found.key, found.problem)).collect();
        let expected = [
            "http.a: expected 1 or more, found 0",
            "http.c: wrong",
            "http.d: expected 0 to 1, found NaN",
            "http.e: expected at most 4, found 5",
        ];
        assert_eq!(found, expected);
    }
}
