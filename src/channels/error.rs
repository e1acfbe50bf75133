//! Why a channel did not do what was asked.

use std::sync::Arc;

use crate::storage::{Refusal, StorageError};

/// Why entries were not accepted. `accepted` of them, from the front, were.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The storage did not take them in time. Those after `accepted` may have been stored all the
    /// same, when an answer was lost.
    #[error("the storage does not take entries at the moment")]
    Unavailable {
        /// How many were accepted, from the front.
        accepted: usize,
        /// What the storage said last.
        #[source]
        cause: Arc<StorageError>,
    },
    /// One zone more than is kept.
    #[error("there are {max} zones already; publish to one of them, or raise channels.zones_max")]
    TooManyZones {
        /// The bound.
        max: usize,
    },
    /// One key more than is kept in this zone, or of this type of events. Nothing of the request was accepted.
    #[error("there are {max} keys already; publish one of them, or raise channels.keys_per_zone_max")]
    TooManyKeys {
        /// The bound.
        max: usize,
        /// The first draft, counting from 0, whose key is new.
        index: usize,
    },
    /// The log takes it neither now nor later.
    #[error("the log does not take it: {refusal}")]
    Refused {
        /// How many were accepted, from the front.
        accepted: usize,
        /// Why not the next one.
        refusal: Refusal,
    },
    /// The log does not have the entry that the next one is to follow on.
    #[error("the log does not have what it is to follow on")]
    Gap {
        /// How many were accepted, from the front.
        accepted: usize,
    },
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    ShuttingDown {
        /// How many were accepted, from the front.
        accepted: usize,
    },
}

impl PublishError {
    /// How many entries of the request were accepted, from the front.
    pub fn accepted(&self) -> usize {
        match self {
            Self::Unavailable { accepted, .. }
            | Self::Refused { accepted, .. }
            | Self::Gap { accepted }
            | Self::ShuttingDown { accepted } => *accepted,
            Self::TooManyZones { .. } | Self::TooManyKeys { .. } => 0,
        }
    }
}

/// Why a channel cannot be joined now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The storage did not answer; worth another try.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[source] StorageError),
    /// One channel of its kind more than subscribers may begin.
    #[error("there are {0} channels of this kind already")]
    TooManyChannels(usize),
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    ShuttingDown,
}
