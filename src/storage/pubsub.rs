//! What processes that know nothing of our logs say to each other, and hear of us, by pub/sub.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::Result;

/// What is heard without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PubSubEvent {
    /// A message in a channel that is followed.
    Heard {
        /// The channel.
        channel: Box<str>,
        /// The message, whatever it is.
        message: Bytes,
    },
    /// Messages of any of the followed channels may have been missed.
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

/// Which of the two connections are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PubSubHealth {
    /// What is published reaches the server.
    pub publishes: bool,
    /// What is followed is subscribed to.
    pub hears: bool,
    /// How often one of them was lost.
    pub losses: u64,
}

/// The ability to publish messages and to hear those of others, apart from our logs.
///
/// Promises:
/// - After [`follow`](Self::follow) has answered, every message that the server passes on to this connection
///   later is told in [`incoming`](Self::take_incoming), in the order in which it came, or
///   [`PubSubEvent::Suspect`] is.
/// - What one call of [`publish`](Self::publish) is given goes in its order, and each message at most once:
///   none is sent again. One that was not answered may have been published.
///
/// Not promised: that anybody hears a message.
///
/// Implementations spawn nothing, and survive being dropped in mid-call.
#[async_trait]
pub trait PubSub: fmt::Debug + Send + Sync {
    /// Asks for a channel's messages, on this connection and on each one after it. Following twice is
    /// following once.
    async fn follow(&self, channel: &str) -> Result<()>;

    /// Ends what `follow` began. Messages on their way may still come.
    async fn unfollow(&self, channel: &str) -> Result<()>;

    /// Publishes messages, and says of each, in their order, whether the server took it.
    async fn publish(&self, messages: &[Outgoing]) -> Vec<Result<()>>;

    /// Which connections are there.
    fn health(&self) -> PubSubHealth;

    /// What is heard. There is one receiver: the first call gets it.
    fn take_incoming(&self) -> Option<mpsc::Receiver<PubSubEvent>>;
}

/// The ability, and what keeps it going.
pub struct PubSubLink {
    /// The ability.
    pub pubsub: Arc<dyn PubSub>,
    /// Must run for as long as `pubsub` is used; it does not end by itself. Until it has connected, calls
    /// fail as they do in an outage.
    pub driver: BoxFuture<'static, ()>,
}

impl fmt::Debug for PubSubLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PubSubLink").field("pubsub", &self.pubsub).finish_non_exhaustive()
    }
}
