//! Registries: who is online, and which orders are under way. Records by key that all nodes hold in memory.
//!
//! A registry is a channel (`registry:providers`, `registry:active-orders`): a log of whole records and of
//! removals, each with a version of its record's hybrid logical clock. Of two entries of a key the greater version counts,
//! whatever their order in the log, so that all nodes come to hold the same. Reads are from memory alone. A write
//! is there at once, and is appended behind.
//!
//! - `core`, with its `table`, the versions of `clock` and `record`, decides and does nothing; `tests` has several go through
//!   seeded outages.
//! - `handle` is how others hold it; `query` is how lists are asked for.
//! - `follow` takes what the log tells, compares with it after outages, and lets records expire; `writing`
//!   appends.
//! - `presence` takes providers offline whose connection, or whose node, is gone.
//! - `legacy` reads and writes the Redis keys of programs that keep a whole registry in one.

mod clock;
mod config;
mod core;
mod follow;
mod handle;
mod kind;
mod legacy;
mod presence;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod query;
mod record;
mod table;
#[cfg(test)]
mod tests;
mod writing;

use zonewire_protocol::stats::RegistryCounts;

use crate::support::counter::Counter;

pub use self::clock::Version;
pub use self::config::RegistryConfig;
pub(crate) use self::handle::RegistryParts;
pub use self::handle::{Condition, Registry, RegistryError, Written};
pub use self::kind::RegistryKind;
pub use self::legacy::SyncError;
pub(crate) use self::presence::{OpenConnections, RegistryWork};
pub use self::query::{Listing, Query};
pub use self::record::{InvalidRecord, Record};

/// What is counted of one registry.
pub(crate) type RegistryStats = RegistryCounts<Counter>;
