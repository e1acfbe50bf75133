//! Registries: online providers, and active orders. Their records are held in memory by every node, by key.
//!
//! A registry is a channel (`registry:providers`, `registry:active-orders`): a log of whole records and of
//! removals, each with a version from its record's hybrid logical clock. Of two entries of a key the greater
//! version wins, whatever their order in the log, so all nodes converge. All reads are served from memory.
//! A write is visible at once, and is appended in the background.
//!
//! - `core`, with its `table`, the versions of `clock` and `record`, decides and performs no I/O; `tests`
//!   takes several nodes through seeded outages.
//! - `handle` is the interface for others; `query` describes a list.
//! - `follow` applies what the log delivers, compares memory with the log after outages, and lets records
//!   expire; `writing` appends.
//! - `presence` takes providers offline whose connection or node is gone.
//! - `legacy` reads and writes the Redis keys of programs that keep a whole registry in one key.

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
pub(crate) use self::presence::OpenConnections;
pub use self::query::{Listing, Query};
pub use self::record::{InvalidRecord, Record};

/// The counters of one registry.
pub(crate) type RegistryStats = RegistryCounts<Counter>;
