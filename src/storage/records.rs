//! The records role: small values by kind and key that expire, and leases.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Result;

/// What a record is about; each kind is a name space of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RecordKind {
    /// A zone that has been published to; the key is its name.
    Zone,
    /// The executor of a node; the key is the node's name.
    Executor,
    /// A node that has the connections of providers; the key is the beginning of its name.
    Presence,
    /// A token, a key or a subject that is no longer valid.
    Revocation,
    /// A number that grows with each revocation, and how far each node has come; the key is the node's
    /// name. After revocations in the order of kinds, so that what waits for Redis is written in it.
    RevokedUpTo,
    /// What relays between fleets know: under `fleet` the name of this one, and by fleet and type how far its
    /// log was carried here.
    Relay,
}

impl RecordKind {
    /// The kind's part of a stored key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Executor => "executor",
            Self::Presence => "presence",
            Self::Revocation => "revocation",
            Self::RevokedUpTo => "revoked_up_to",
            Self::Relay => "relay",
        }
    }
}

/// A stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key within its kind.
    pub key: String,
    /// Its content.
    pub value: Bytes,
}

/// Small values by kind and key.
///
/// Promises: a put replaces the whole value and starts its time to live anew; a record whose time
/// has run out is neither got nor listed; kinds do not see each other. Each call is atomic. Not
/// promised: one consistent view over the pages of a list while others write.
#[async_trait]
pub trait Records: fmt::Debug + Send + Sync {
    /// Stores a value for `ttl` (at least one millisecond).
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()>;

    /// The value, if there is one.
    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>>;

    /// Removes a value; says whether there was one.
    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool>;

    /// The records of a kind with keys after `after`, in ascending order of key (by bytes),
    /// `limit` of them at the most.
    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>>;

    /// Takes the lease of a key, or renews it; `None` while somebody else holds it. It lasts for `ttl` (at
    /// least one millisecond) from some moment during the call: who counts from before the call, by a
    /// monotonic clock, is never later than the storage.
    ///
    /// The answer is the lease's fence. It stays the same for as long as the same holder renews in time;
    /// each time that the lease is taken, by whomever, it is greater than all those before it, of whatever
    /// key, also after the lease has run out or was let go. A holder is told by its name: let each have one
    /// that no other has, also of those that the same process had before.
    ///
    /// What nodes share decides: while it is away nobody is granted a lease, and the call fails with
    /// [`StorageError::Unknown`](super::StorageError::Unknown). What was granted before lasts on. A shared
    /// storage that lost what it had has lost who holds what: it may grant a lease that somebody holds, with
    /// a greater fence, unless its clock went back.
    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>>;

    /// Ends a lease at once, if that one holds it. Doing so twice is harmless. Fails as
    /// [`hold`](Self::hold) does; then the lease runs out.
    async fn let_go(&self, key: &str, holder: &str) -> Result<()>;
}
