//! Why a channel did not do what was asked.

use std::sync::Arc;

use crate::storage::{Refusal, StorageError};

/// Why entries were not accepted. The first `accepted` of them were.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The storage did not accept them in time. If an answer was lost, those after `accepted` may have been
    /// stored nevertheless.
    #[error("the storage does not take entries at the moment")]
    Unavailable {
        /// How many were accepted.
        accepted: usize,
        /// The storage's last error.
        #[source]
        cause: Arc<StorageError>,
    },
    /// There are as many zones as allowed.
    #[error("there are {max} zones already; publish to one of them, or raise channels.zones_max")]
    TooManyZones {
        /// The bound.
        max: usize,
    },
    /// The zone, or the type of events, has as many keys as allowed. Nothing of the request was accepted.
    #[error("there are {max} keys already; publish one of them, or raise channels.keys_per_zone_max")]
    TooManyKeys {
        /// The bound.
        max: usize,
        /// The index, from 0, of the first draft with a new key.
        index: usize,
    },
    /// The log refuses the next entry for good.
    #[error("the log refused the entry: {refusal}")]
    Refused {
        /// How many were accepted.
        accepted: usize,
        /// Why the next one was refused.
        refusal: Refusal,
    },
    /// The log lacks the entry that the next one must follow.
    #[error("the log does not have the entry that it must follow")]
    Gap {
        /// How many were accepted.
        accepted: usize,
    },
    /// They had to be the first entries of the log, and it has others. None of them was accepted.
    #[error("the log has entries already")]
    NotFirst,
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    ShuttingDown {
        /// How many were accepted.
        accepted: usize,
    },
}

impl PublishError {
    /// How many entries of the request were accepted.
    pub fn accepted(&self) -> usize {
        match self {
            Self::Unavailable { accepted, .. }
            | Self::Refused { accepted, .. }
            | Self::Gap { accepted }
            | Self::ShuttingDown { accepted } => *accepted,
            Self::TooManyZones { .. } | Self::TooManyKeys { .. } | Self::NotFirst => 0,
        }
    }
}

/// Why a channel cannot be joined now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The storage did not answer; a retry makes sense.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[source] StorageError),
    /// Subscribers have begun as many channels of its kind, or follow as many views, as allowed.
    #[error("there are {0} channels of this kind already")]
    TooManyChannels(usize),
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    ShuttingDown,
}
