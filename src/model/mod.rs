//! Plain values that every room uses: names, positions, entries. No I/O and no clock. Those that clients
//! see come from the crate `zonewire-protocol`.

mod entry;
mod policy;

pub use entry::{DraftEntry, Entry, Marks};
pub(crate) use policy::{ChannelPolicy, RetentionOf, WaitLimit};
pub(crate) use zonewire_protocol::OFFSET_MAX;
pub use zonewire_protocol::{
    BackendName, BackendState, ChannelKind, ChannelName, EntryId, EntryKind, Epoch, EventType, InvalidName,
    InvalidOrderId, InvalidPosition, JobId, Lane, NAME_LEN_MAX, NodeId, OrderId, Position, UnknownKind,
    WhyUnknown, Zone,
};

use crate::support::chance;

/// A new random epoch for a log.
pub(crate) fn new_epoch() -> Epoch {
    Epoch::of_bits(chance::number())
}
