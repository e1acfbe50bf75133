//! The channels of this node: each appends what is published here, follows its log, fills gaps, and delivers
//! entries in order to the shards.
//!
//! Each channel in use has one actor, which does one thing at a time: it appends what is published here, puts
//! the results in order with what other nodes append, and passes the entries to each shard, encoded once.

mod accepted;
mod actor;
mod config;
mod error;
mod hub;
mod keys;
mod live;
mod merge;
mod pages;
mod reader;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod unborn;
mod views;
mod watched;

use zonewire_protocol::stats::{ChannelCounts, PageCounts};

use crate::support::counter::Counter;

pub(crate) use accepted::TellAccepted;
pub(crate) use actor::Link;
pub use config::ChannelsConfig;
pub use error::{JoinError, PublishError};
pub use hub::Channels;
pub(crate) use hub::{ChannelsParts, First, PageSizes, UpdateTerms};
#[cfg(test)]
pub(crate) use live::credits;
pub(crate) use live::{CREDITS, Delivery, Live, LiveBatch, Moved};
pub(crate) use pages::{EncodedLatest, EncodedPage};
#[cfg(test)]
pub(crate) use reader::Start;
pub(crate) use reader::{Asked, Reader, Room, StartingPoint, Step, Steps, Then, Turn, Way};
pub(crate) use unborn::in_log;
pub(crate) use watched::WatchedOrders;

/// The counters of channels.
pub(crate) type ChannelStats = ChannelCounts<Counter>;

/// The counters of pages read for clients.
pub(crate) type PageStats = PageCounts<Counter>;
