//! What outside workers keep for orders: the list `order:<id>:updates` and the pub/sub channel `order:<id>`.
//! These workers chose the names, so they have neither our prefix nor a hash tag.
//!
//! Published updates come on a separate connection, so that a worker that floods its channels does not delay
//! the log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Value;
use tokio::sync::mpsc;

use super::commands::Commands;
use super::subscriber::{Published, Subscriber};
use super::{INCOMING_LEN, RedisBackend, scripts};
use crate::model::OrderId;
use crate::storage::{OUTSIDE_WINDOW, Outside, OutsideEvent, OutsideKeys, OutsideOrders, Result};

/// How long a list is kept after its newest update.
const KEPT_FOR: Duration = Duration::from_secs(300);

const CHANNEL_PREFIX: &str = "order:";

/// The pub/sub channel of an order, with the id in hyphenated lower case.
fn channel(order: OrderId) -> String {
    format!("{CHANNEL_PREFIX}{order}")
}

/// The key of an order's list.
fn list(order: OrderId) -> String {
    format!("{CHANNEL_PREFIX}{order}:updates")
}

/// Parses messages on the channels of orders.
#[derive(Debug, Clone)]
struct OutsideMessages;

impl Published for OutsideMessages {
    type Event = OutsideEvent;

    fn read(&self, channel: &str, content: &[u8]) -> Option<OutsideEvent> {
        let order = channel.strip_prefix(CHANNEL_PREFIX)?.parse().ok()?;
        Some(OutsideEvent::Published { order, update: Bytes::copy_from_slice(content) })
    }

    fn suspect(&self) -> OutsideEvent {
        OutsideEvent::Suspect
    }
}

/// [`OutsideOrders`] in Redis.
#[derive(Debug)]
struct RedisOutside {
    commands: Arc<Commands>,
    subscriber: Arc<Subscriber<OutsideMessages>>,
    incoming: parking_lot::Mutex<Option<mpsc::Receiver<OutsideEvent>>>,
}

impl RedisBackend {
    /// The role of outside orders, on a further connection that its driver maintains.
    pub(super) fn open_outside(&self) -> Outside {
        let subscriber = self.subscriber_to_any(OutsideMessages);
        let (events, incoming) = mpsc::channel(INCOMING_LEN);
        let orders = RedisOutside {
            commands: Arc::clone(&self.commands),
            subscriber: Arc::clone(&subscriber),
            incoming: parking_lot::Mutex::new(Some(incoming)),
        };
        let driver = async move { subscriber.run(events).await };
        Outside { role: Arc::new(orders), driver: Box::pin(driver) }
    }
}

#[async_trait]
impl OutsideOrders for RedisOutside {
    async fn follow(&self, order: OrderId) -> Result<()> {
        self.subscriber.follow(channel(order)).await
    }

    async fn unfollow(&self, order: OrderId) -> Result<()> {
        self.subscriber.unfollow(channel(order)).await
    }

    async fn window(&self, order: OrderId, limit: usize) -> Result<Vec<Bytes>> {
        let newest = i64::try_from(limit).unwrap_or(i64::MAX);
        let (list, from) = (list(order), (-newest).to_string());
        let args = vec![Value::from(list.as_str()), Value::from(from), Value::from("-1")];
        self.commands.ask("window", &list, "LRANGE", args).await
    }

    async fn write(&self, order: OrderId, updates: &[Bytes]) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        let mut args = vec![
            Value::from(channel(order)),
            Value::from(OUTSIDE_WINDOW.to_string()),
            Value::from(KEPT_FOR.as_secs().to_string()),
        ];
        args.extend(updates.iter().cloned().map(Value::Bytes));
        scripts::WRITE_OUTSIDE.run::<Value>(&self.commands, "write", vec![list(order)], args).await.map(drop)
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<OutsideEvent>> {
        self.incoming.lock().take()
    }
}

/// [`OutsideKeys`] in Redis.
#[derive(Debug)]
struct RedisKeys(Arc<Commands>);

impl RedisBackend {
    /// The role of outside keys, on the existing connection.
    pub(super) fn open_outside_keys(&self) -> Arc<dyn OutsideKeys> {
        Arc::new(RedisKeys(Arc::clone(&self.commands)))
    }
}

#[async_trait]
impl OutsideKeys for RedisKeys {
    async fn get(&self, key: &'static str) -> Result<Option<Bytes>> {
        self.0.ask("get", key, "GET", vec![Value::from(key)]).await
    }

    async fn set(&self, key: &'static str, text: Bytes, ttl: Duration) -> Result<()> {
        let ttl = Value::from(ttl.as_secs().max(1).to_string());
        let args = vec![Value::from(key), Value::Bytes(text), Value::from("EX"), ttl];
        self.0.ask::<Value>("set", key, "SET", args).await.map(drop)
    }
}
