//! Faults in a configuration, described so that they can be corrected at once.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `http.listen`; empty if the fault has none (an unreadable file).
    pub key: String,
    /// Where the value came from: a file, an environment variable, a flag, or `default`.
    pub origin: String,
    /// What is wrong and what would be right. Contains no secrets.
    pub problem: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn new(key: impl Into<String>, origin: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), origin: origin.into(), problem: problem.into(), hint: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (plain(&self.key).as_str(), plain(&self.origin).as_str()) {
            ("", "") => {}
            ("", origin) => write!(f, "{origin}: ")?,
            (key, origin) => write!(f, "{key} ({origin}): ")?,
        }
        f.write_str(&self.problem)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

/// Names of variables and keys may contain anything; control characters are replaced, so that a fault stays
/// on one line.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// All faults, one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "the configuration has {count} fault{}:", if count == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}
