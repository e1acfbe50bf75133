//! Plain values that every room speaks: names, positions, entries. No I/O, no clocks of its own. What of
//! it is said to clients is in the crate `zonewire-protocol`, and comes from there.

mod entry;
mod policy;

pub use entry::{DraftEntry, Entry, Marks};
pub(crate) use policy::{ChannelPolicy, RetentionOf, Waiting};
pub(crate) use zonewire_protocol::OFFSET_MAX;
pub use zonewire_protocol::{
    BackendName, BackendState, ChannelKind, ChannelName, EntryId, EntryKind, Epoch, EventType, InvalidName,
    InvalidOrderId, InvalidPosition, JobId, Lane, NAME_LEN_MAX, NodeId, OrderId, Position, UnknownKind,
    WhyUnknown, Zone,
};

use crate::support::chance;

/// A new epoch for a log, never derived from anything but chance.
pub(crate) fn new_epoch() -> Epoch {
    Epoch::of_bits(chance::number())
}
