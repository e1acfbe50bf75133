//! Updates of orders that others keep in lists and pub/sub channels of their own, outside our logs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::Result;
use crate::model::OrderId;

/// How many updates of an order others keep: `LTRIM -50 -1`.
pub const OUTSIDE_WINDOW: usize = 50;

/// What others say without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideEvent {
    /// An update was published for a followed order; by whom, its bytes tell.
    Published {
        /// The order.
        order: OrderId,
        /// The update as it was published, whatever it is.
        update: Bytes,
    },
    /// Updates may have been missed: the window of every followed order must be read.
    Suspect,
}

/// The ability to exchange updates with workers that know nothing of our logs.
///
/// Promises, for each order:
/// - After [`follow`](Self::follow) has answered, every update that is published later is told in
///   [`incoming`](Self::take_incoming), in the order of its publication, or [`OutsideEvent::Suspect`] is.
/// - Reading removes nothing.
/// - [`write`](Self::write) puts each update into the window and publishes it, as one step, unless
///   the window holds the same bytes already; so a repeated write does nothing.
///
/// Not promised: that an update that is published is in the window, or the other way round: that is
/// up to whoever wrote it. Nor that an event comes only once.
///
/// Implementations spawn nothing, retry nothing, and survive being dropped in mid-call.
#[async_trait]
pub trait OutsideOrders: fmt::Debug + Send + Sync {
    /// Asks for what is published for the order. Answers when it is certain to come. Following twice
    /// is following once.
    async fn follow(&self, order: OrderId) -> Result<()>;

    /// Ends what `follow` began. Events on their way may still come.
    async fn unfollow(&self, order: OrderId) -> Result<()>;

    /// The newest updates that the order's window holds, oldest first, `limit` of them at the most.
    async fn window(&self, order: OrderId, limit: usize) -> Result<Vec<Bytes>>;

    /// Adds updates to the order's window, in order, publishes them, and renews the window's time.
    async fn write(&self, order: OrderId, updates: &[Bytes]) -> Result<()>;

    /// What is published for followed orders. There is one receiver: the first call gets it.
    fn take_incoming(&self) -> Option<mpsc::Receiver<OutsideEvent>>;
}

/// The ability to read and write keys of others, by the names that these have.
///
/// Implementations spawn nothing, retry nothing, and survive being dropped in mid-call.
#[async_trait]
pub trait OutsideKeys: fmt::Debug + Send + Sync {
    /// The text in a key, if it holds one.
    async fn get(&self, key: &'static str) -> Result<Option<Bytes>>;

    /// Puts a text into a key, for so long.
    async fn set(&self, key: &'static str, text: Bytes, ttl: Duration) -> Result<()>;
}

/// The ability, and what keeps it going.
pub struct Outside {
    /// The ability.
    pub orders: Arc<dyn OutsideOrders>,
    /// Must run for as long as `orders` is used; it does not end by itself. Until it has connected,
    /// `follow` fails as it does in an outage.
    pub driver: BoxFuture<'static, ()>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("orders", &self.orders).finish_non_exhaustive()
    }
}
