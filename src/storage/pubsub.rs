//! The pub/sub role: messages to and from processes that do not know our logs.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::Result;

/// What the backend reports without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PubSubEvent {
    /// A message on a followed channel.
    Heard {
        /// The channel.
        channel: Box<str>,
        /// The message, uninterpreted.
        message: Bytes,
    },
    /// Messages on any of the followed channels may have been missed.
    Suspect,
}

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The channel.
    pub channel: Arc<str>,
    /// The message.
    pub message: Bytes,
}

/// The state of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PubSubHealth {
    /// Published messages reach the server.
    pub publishes: bool,
    /// Followed channels are subscribed.
    pub hears: bool,
    /// How often one of the connections was lost.
    pub losses: u64,
}

/// Publishes messages and receives those of others, independently of our logs.
///
/// Promises:
/// - After [`follow`](Self::follow) has returned, every message that the server forwards to this connection
///   later is reported in [`incoming`](Self::take_incoming), in order of arrival, or [`PubSubEvent::Suspect`]
///   is.
/// - The messages of one [`publish`](Self::publish) call are sent in order, each at most once: none is sent
///   again. One without an answer may have been published.
///
/// Not promised: that anybody receives a message.
///
/// Implementations spawn nothing, and may be dropped mid-call.
#[async_trait]
pub trait PubSub: fmt::Debug + Send + Sync {
    /// Subscribes to a channel, on this connection and on every later one. Following twice is the same as
    /// following once.
    async fn follow(&self, channel: &str) -> Result<()>;

    /// Ends what `follow` began. Messages in transit may still come.
    async fn unfollow(&self, channel: &str) -> Result<()>;

    /// Publishes messages. Returns for each, in order, whether the server accepted it.
    async fn publish(&self, messages: &[Outgoing]) -> Vec<Result<()>>;

    /// The state of the connections.
    fn health(&self) -> PubSubHealth;

    /// The received messages. There is one receiver: the first call gets it.
    fn take_incoming(&self) -> Option<mpsc::Receiver<PubSubEvent>>;
}

/// A role with connections of its own, and the future that maintains these.
pub struct Driven<R: ?Sized> {
    /// The role.
    pub role: Arc<R>,
    /// Must run for as long as the role is used; it does not end by itself. Until it has connected, calls fail
    /// as in an outage.
    pub driver: BoxFuture<'static, ()>,
}

/// The pub/sub role.
pub type PubSubLink = Driven<dyn PubSub>;

impl<R: fmt::Debug + ?Sized> fmt::Debug for Driven<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven").field("role", &self.role).finish_non_exhaustive()
    }
}
