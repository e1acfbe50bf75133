//! Plain values that every room speaks: names, positions, entries. No I/O, no clocks of its own.

mod backend;
mod channel;
mod entry;
mod lane;
mod name;
mod order;
mod position;

pub use backend::{BackendName, BackendState};
pub use channel::{ChannelKind, ChannelName};
pub use entry::{DraftEntry, Entry, EntryId, EntryKind, Marks, NodeId, UnknownKind, WhyUnknown};
pub use lane::Lane;
pub use name::{InvalidName, NAME_LEN_MAX, Zone};
pub use order::{InvalidOrderId, JobId, OrderId};
pub(crate) use position::OFFSET_MAX;
pub use position::{Epoch, InvalidPosition, Position};
