//! A failed storage call, sorted by what the caller can do about it.

use std::time::Duration;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failed storage call, sorted by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Nobody answered in time. The call may still take effect later.
    #[error("storage did not answer `{op}` within {limit:?}")]
    Deadline {
        /// The call.
        op: &'static str,
        /// How long the caller waited.
        limit: Duration,
    },
    /// The connection is down. The call may have taken effect.
    #[error("storage is unreachable for `{op}`")]
    Unreachable {
        /// The call.
        op: &'static str,
        /// What the client library said.
        #[source]
        cause: BoxError,
    },
    /// The server answered with a refusal: it is out of memory, read-only or loading, or we lack permission.
    #[error("storage refused `{op}`")]
    Refused {
        /// The call.
        op: &'static str,
        /// What the server said.
        #[source]
        cause: BoxError,
    },
    /// An entry has to be on this node's disk before it is accepted, and is not: either the shared storage is
    /// away, or memory is configured to survive the process. Nothing was accepted.
    #[error("what is accepted must be on disk first, and {why}")]
    NotDurable {
        /// What is wrong with the disk, for people; names no path.
        why: String,
    },
    /// The shared storage is away, and this node alone does not know the answer. Other nodes may.
    #[error("`{op}` cannot be answered while the shared storage is away")]
    Unknown {
        /// The call.
        op: &'static str,
    },
    /// The stored bytes are not readable. Retrying cannot help.
    #[error("`{key}` is not readable")]
    Corrupt {
        /// What was read.
        key: String,
        /// What is wrong with it.
        #[source]
        cause: BoxError,
    },
}

impl StorageError {
    /// Whether the failure counts towards leaving the primary backend; unreadable data never does.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Deadline { .. } | Self::Unreachable { .. } | Self::Refused { .. } | Self::NotDurable { .. }
        )
    }

    /// The error and its causes, in one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        text
    }

    /// The kind of the error, as a label for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "deadline",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::NotDurable { .. } => "not_durable",
            Self::Unknown { .. } => "unknown",
            Self::Corrupt { .. } => "corrupt",
        }
    }
}

/// The result of a storage call.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;
