//! What keeps the gateway serving while Redis is away, and brings the two together afterwards.
//!
//! [`failover`] decides when Redis counts as lost and when it counts as back. [`switching`] is the
//! [`StorageBackend`](super::StorageBackend) in front of Redis and memory that carries the decision out, channel
//! by channel. What is accepted meanwhile waits in the [`journal`] until Redis has it, and, where that is
//! configured, on disk in the [`spool`].

pub(super) mod failover;
pub(super) mod journal;
pub(super) mod spool;
pub(super) mod switching;
