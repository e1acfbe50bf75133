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
    /// What a node says about itself; the key is the node's name.
    Node,
    /// A token, a key or a subject that is no longer valid.
    Revocation,
    /// A number that grows with each revocation, and the number that each node has reached; the key is the
    /// node's name. Declared after `Revocation` because what waits for Redis is written in this order.
    RevokedUpTo,
    /// What relays between fleets store: under `fleet`, this fleet's name; by fleet and type, how far that
    /// log has been carried into this fleet.
    Relay,
}

impl RecordKind {
    /// The kind's part of a stored key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Node => "node",
            Self::Revocation => "revocation",
            Self::RevokedUpTo => "revoked_up_to",
            Self::Relay => "relay",
        }
    }

    /// Whether records of this kind describe only the present moment: they are worthless when late, and on a
    /// node that other nodes cannot reach.
    pub(super) fn is_ephemeral(self) -> bool {
        matches!(self, Self::Node)
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
/// Promises: a put replaces the whole value and restarts its time to live; an expired record is neither
/// returned nor listed; kinds are separate name spaces. Each call is atomic. Not promised: one consistent
/// view over the pages of a list while others write.
///
/// While the shared storage is away, this node answers by itself, and its changes wait. The exception is what
/// nodes say about themselves ([`RecordKind::Node`]): nobody could read it in time, so each call about it
/// fails with [`StorageError::Unknown`](super::StorageError::Unknown), and nothing waits.
#[async_trait]
pub trait Records: fmt::Debug + Send + Sync {
    /// Stores a value for `ttl` (at least one millisecond).
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()>;

    /// The value, if there is one.
    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>>;

    /// Removes a value; returns whether there was one.
    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool>;

    /// The records of a kind with keys after `after`, in ascending byte order of keys; at most `limit`.
    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>>;

    /// Acquires the lease of a key, or renews it; `None` while another holder has it. It lasts for `ttl` (at
    /// least one millisecond) from some moment during the call: a holder that counts from before the call, by
    /// a monotonic clock, never holds it longer than the storage says.
    ///
    /// Returns the lease's fencing token. It stays the same for as long as the same holder renews in time.
    /// Each time the lease is acquired, by any holder, the token is greater than all earlier tokens of any
    /// key, also after the lease expired or was released. A holder is identified by its name, so each holder
    /// needs a name that no other has, nor an earlier holder in the same process.
    ///
    /// Only the shared storage grants leases: while it is away, the call fails with
    /// [`StorageError::Unknown`](super::StorageError::Unknown). Leases that were granted before stay valid. A
    /// shared storage that lost its data does not know who holds which lease: it may grant a lease that
    /// somebody still holds, with a greater token unless its clock went back.
    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>>;

    /// Releases a lease at once, if `holder` has it. Repeating the call is harmless. It fails when
    /// [`hold`](Self::hold) does; the lease then expires.
    async fn let_go(&self, key: &str, holder: &str) -> Result<()>;
}
