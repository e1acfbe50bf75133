//! Small tools that any room may use.

pub(crate) mod backoff;
pub(crate) mod cgroup;
pub(crate) mod chance;
pub(crate) mod checks;
pub(crate) mod counter;
pub(crate) mod fault;
pub(crate) mod machine;
#[cfg(test)]
pub(crate) mod mutant;
pub(crate) mod panics;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probing;
pub(crate) mod rate;
pub(crate) mod recent;
pub(crate) mod seldom;
mod settings;
pub(crate) mod telemetry;

pub(crate) use settings::settings;
pub(crate) use zonewire_protocol::json;
