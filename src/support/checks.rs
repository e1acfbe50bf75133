//! Collects everything that a room finds wrong in its settings, not only the first fault.

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
    /// Begins with a section, such as `http` or `storage.redis`.
    pub(crate) fn of(section: &'static str) -> Self {
        Self { section, found: Vec::new() }
    }

    /// Records the problem unless the value is valid.
    pub(crate) fn require(&mut self, key: &str, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Finding { key: format!("{}.{key}", self.section), problem: problem() });
        }
    }

    /// Requires at least 1, for bounds that would let nothing through if they were 0.
    pub(crate) fn at_least_1<T: PartialEq + From<u8>>(&mut self, key: &str, value: T) {
        self.require(key, value != T::from(0), || "expected 1 or more, found 0".to_owned());
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
        checks.at_least_1("a", 0_u64);
        checks.at_least_1("b", 1_usize);
        checks.require("c", false, || "wrong".to_owned());
        let keys: Vec<String> = checks.finish().into_iter().map(|finding| finding.key).collect();
        assert_eq!(keys, ["http.a", "http.c"]);
    }
}
