//! Programs other than gateways that exchange events over a Redis.

use serde_json::Value;
use tokio::time;
use zonewire_kit::redis::RedisServer;
use zonewire_kit::resp::Connection;

use super::client::LIMIT;

/// A program other than a gateway, which publishes and subscribes directly.
pub(crate) struct Foreign(pub(crate) Connection);

impl Foreign {
    pub(crate) async fn connect(server: &RedisServer) -> Self {
        Self(server.target.open().await.unwrap())
    }

    pub(crate) async fn publish(&mut self, event: &str, envelope: &Value) {
        self.0.ask(&["PUBLISH", &format!("ws:{event}"), &envelope.to_string()]).await.unwrap();
    }

    pub(crate) async fn listen(&mut self, event: &str) {
        self.0.ask(&["SUBSCRIBE", &format!("ws:{event}")]).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn hear(&mut self) -> Value {
        let texts = time::timeout(LIMIT, self.0.next()).await.unwrap().unwrap().texts();
        assert_eq!(texts[0], "message", "{texts:?}");
        serde_json::from_str(&texts[2]).unwrap()
    }
}
