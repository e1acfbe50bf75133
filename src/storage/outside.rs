//! The role of outside orders: updates that other programs keep in their own lists and pub/sub channels.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Driven, Result};
use crate::model::OrderId;

/// How many updates of an order these programs keep: `LTRIM -50 -1`.
pub const OUTSIDE_WINDOW: usize = 50;

/// What the backend reports without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideEvent {
    /// An update was published for a followed order. Only its bytes say by whom.
    Published {
        /// The order.
        order: OrderId,
        /// The update as it was published, uninterpreted.
        update: Bytes,
    },
    /// Updates may have been missed: the window of every followed order has to be read.
    Suspect,
}

/// Exchanges updates with workers that do not know our logs.
///
/// Promises, for each order:
/// - After [`follow`](Self::follow) has returned, every update that is published later is reported in
///   [`incoming`](Self::take_incoming), in order of publication, or [`OutsideEvent::Suspect`] is.
/// - Reading removes nothing.
/// - [`write`](Self::write) appends each update to the window and publishes it, in one step, unless the
///   window already has the same bytes; so repeating a write changes nothing.
///
/// Not promised: that a published update is in the window, or the reverse, because its writer decides that.
/// Nor that an event comes only once.
///
/// Implementations spawn nothing, retry nothing, and may be dropped mid-call.
#[async_trait]
pub trait OutsideOrders: fmt::Debug + Send + Sync {
    /// Subscribes to the order's updates. Returns when they are certain to come. Following twice is the same
    /// as following once.
    async fn follow(&self, order: OrderId) -> Result<()>;

    /// Ends what `follow` began. Events in transit may still come.
    async fn unfollow(&self, order: OrderId) -> Result<()>;

    /// The newest updates in the order's window, oldest first; at most `limit`.
    async fn window(&self, order: OrderId, limit: usize) -> Result<Vec<Bytes>>;

    /// Appends updates to the order's window, in order, publishes them, and renews the window's expiry.
    async fn write(&self, order: OrderId, updates: &[Bytes]) -> Result<()>;

    /// Updates of followed orders. There is one receiver: the first call gets it.
    fn take_incoming(&self) -> Option<mpsc::Receiver<OutsideEvent>>;
}

/// Reads and writes keys of other programs, under the names that those programs use.
///
/// Implementations spawn nothing, retry nothing, and may be dropped mid-call.
#[async_trait]
pub trait OutsideKeys: fmt::Debug + Send + Sync {
    /// The text in a key, if it holds one.
    async fn get(&self, key: &'static str) -> Result<Option<Bytes>>;

    /// Stores a text in a key, for `ttl`.
    async fn set(&self, key: &'static str, text: Bytes, ttl: Duration) -> Result<()>;
}

/// The role of outside orders.
pub type Outside = Driven<dyn OutsideOrders>;
