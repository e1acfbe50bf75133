//! Pub/sub with other processes, whose channels have neither our prefix nor a hash tag.
//!
//! Publishing and subscribing each have their own connection, so that a flood of messages does not delay the
//! log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike as _;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::mpsc;

use super::errors::storage_error;
use super::link::{Condition, Link};
use super::subscriber::{Published, Subscriber, Subscribing};
use super::{RedisBackend, connect};
use crate::storage::{Outgoing, PubSub, PubSubEvent, PubSubHealth, PubSubLink, Result, StorageError};

/// Messages that wait for the reader of `incoming`; when it is full, messages are dropped, which is reported
/// as `Suspect`.
const HEARD_LEN: usize = 8_192;

/// The most messages in one pipeline.
const PIPELINE_LEN: usize = 256;

/// Passes on messages uninterpreted.
#[derive(Debug, Clone)]
struct Messages;

impl Published for Messages {
    type Event = PubSubEvent;

    fn read(&self, channel: &str, content: &[u8]) -> Option<PubSubEvent> {
        Some(PubSubEvent::Heard { channel: channel.into(), message: Bytes::copy_from_slice(content) })
    }

    fn suspect(&self) -> PubSubEvent {
        PubSubEvent::Suspect
    }
}

/// [`PubSub`] in Redis.
#[derive(Debug)]
struct RedisPubSub {
    publisher: Arc<Link<Client>>,
    subscriber: Arc<Subscriber<Messages>>,
    incoming: parking_lot::Mutex<Option<mpsc::Receiver<PubSubEvent>>>,
    command_timeout: Duration,
}

impl RedisBackend {
    /// The pub/sub role, on two further connections that its driver maintains.
    pub(super) fn open_pub_sub(&self) -> PubSubLink {
        let ((target, config), node) = (self.target.clone(), self.any_node());
        let publishers = move || connect::commands_client(&target, &config, node()?);
        let publisher = Link::behind(self.commands.ahead(), Arc::new(publishers), self.commands.limit());
        let publisher = Arc::new(publisher);
        let subscriber = self.subscriber_to_any(Messages);
        let (events, incoming) = mpsc::channel(HEARD_LEN);
        let pubsub = RedisPubSub {
            publisher: Arc::clone(&publisher),
            subscriber: Arc::clone(&subscriber),
            incoming: parking_lot::Mutex::new(Some(incoming)),
            command_timeout: self.commands.limit(),
        };
        let driver = async move {
            tokio::join!(publisher.keep(), subscriber.run(events));
        };
        PubSubLink { role: Arc::new(pubsub), driver: Box::pin(driver) }
    }

    /// A subscriber for channels of other processes, on a further connection.
    pub(super) fn subscriber_to_any<P: Published>(&self, published: P) -> Arc<Subscriber<P>> {
        let ((target, config), node) = (self.target.clone(), self.any_node());
        let build = move || connect::subscriber_client(&target, &config, node()?);
        let link = Link::behind(self.commands.ahead(), Arc::new(build), self.commands.limit());
        Arc::new(Subscriber::new(link, Arc::clone(&self.commands), published, Subscribing::Plain))
    }

    /// Chooses a node of a cluster, the next one each time: a known primary or, while none is known, a configured
    /// node. `None` if there is a single server. In a cluster, PUBLISH reaches the subscribers of all nodes.
    fn any_node(&self) -> impl Fn() -> std::result::Result<Option<Server>, Error> + Send + Sync + use<> {
        let (commands, configured) = (Arc::clone(&self.commands), self.target.0.servers());
        let turn = AtomicUsize::new(0);
        move || {
            let Some(primaries) = commands.primaries() else { return Ok(None) };
            let known = primaries.servers();
            let servers = if known.is_empty() { &configured } else { &known };
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let server = servers.get(turn % servers.len().max(1)).cloned();
            server.map(Some).ok_or_else(|| Error::new(ErrorKind::Config, "no node is known"))
        }
    }
}

impl RedisPubSub {
    fn failed(&self, error: &Error) -> StorageError {
        storage_error("publish", self.command_timeout, error)
    }

    /// Publishes some messages in one pipeline.
    async fn publish_together(&self, messages: &[Outgoing]) -> Vec<Result<()>> {
        let client = match self.publisher.client() {
            Ok(client) => client,
            Err(error) => return messages.iter().map(|_| Err(self.failed(&error))).collect(),
        };
        let pipeline = client.pipeline();
        for Outgoing { channel, message } in messages {
            let command = CustomCommand::new_static("PUBLISH", ClusterHash::FirstKey, false);
            let args = vec![Value::from(&**channel), Value::Bytes(message.clone())];
            // The pipeline only queues it here.
            let queued: std::result::Result<(), Error> = pipeline.custom(command, args).await;
            if let Err(error) = queued {
                return messages.iter().map(|_| Err(self.failed(&error))).collect();
            }
        }
        let mut answers = pipeline.try_all::<u64>().await.into_iter();
        // If the connection is lost, one error stands for all unanswered messages.
        let mut last = None;
        let answer = |_: &Outgoing| match answers.next() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                let failed = Err(self.failed(&error));
                last = Some(error);
                failed
            }
            None => {
                let lost = || Error::new(ErrorKind::Canceled, "the connection was lost");
                Err(self.failed(last.get_or_insert_with(lost)))
            }
        };
        messages.iter().map(answer).collect()
    }
}

#[async_trait]
impl PubSub for RedisPubSub {
    async fn follow(&self, channel: &str) -> Result<()> {
        self.subscriber.follow(channel.to_owned()).await
    }

    async fn unfollow(&self, channel: &str) -> Result<()> {
        self.subscriber.unfollow(channel.to_owned()).await
    }

    async fn publish(&self, messages: &[Outgoing]) -> Vec<Result<()>> {
        let mut answers = Vec::with_capacity(messages.len());
        for together in messages.chunks(PIPELINE_LEN) {
            answers.extend(self.publish_together(together).await);
        }
        answers
    }

    fn health(&self) -> PubSubHealth {
        let (publisher, subscriber) = (self.publisher.state(), self.subscriber.state());
        let (publisher, subscriber) = (publisher.borrow(), subscriber.borrow());
        PubSubHealth {
            publishes: publisher.condition == Condition::Up,
            hears: subscriber.condition == Condition::Up,
            losses: publisher.losses + subscriber.losses,
        }
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<PubSubEvent>> {
        self.incoming.lock().take()
    }
}
