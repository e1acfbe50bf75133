//! What keeps the gateway serving while Redis is away, and reconciles both afterwards.
//!
//! [`failover`] decides when Redis counts as lost and when it counts as back. [`switching`] is the
//! [`StorageBackend`](super::StorageBackend) in front of Redis and memory that executes these decisions,
//! channel by channel. Entries that are accepted meanwhile wait in the [`journal`] until Redis has them and,
//! if that is configured, on disk in the [`spool`].

pub(super) mod failover;
pub(super) mod journal;
pub(super) mod spool;
pub(super) mod switching;
