//! A client that receives prices throughout a test, whatever else happens.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::client::{Client, LIMIT, offset};
use super::gateway::{price, publish};

/// The zone that is published to and followed.
const ZONE: &str = "witness";

/// Publishes a price every few milliseconds, and checks that each arrives once and in order before the next.
pub(crate) struct Witness {
    watching: JoinSet<u64>,
    done: CancellationToken,
}

impl Witness {
    pub(crate) async fn start(address: SocketAddr) -> Self {
        let mut client = Client::connect(&format!("ws://{address}/ws/market/{ZONE}")).await;
        client.next_of_type("connection_established").await;
        let subscribed = client.next().await;
        assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
        publish(address, ZONE, [price("W", 1)]).await;
        let done = CancellationToken::new();
        let (until, mut watching) = (done.clone(), JoinSet::new());
        watching.spawn(async move {
            let mut pace = time::interval(Duration::from_millis(5));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut count = 1;
            assert_eq!(offset(&client.prices(1).await[0]), count);
            // One more after the end, to check that it still works then.
            loop {
                let last = until.is_cancelled();
                count += 1;
                publish(address, ZONE, [price("W", count)]).await;
                let got = client.prices(1).await.remove(0);
                assert_eq!((offset(&got), &got["price"]), (count, &json!(count)));
                if last {
                    assert_eq!(client.until_pong().await, [] as [Value; 0]);
                    return count;
                }
                pace.tick().await;
            }
        });
        Self { watching, done }
    }

    /// Checks that nothing was missed, and returns how many prices arrived.
    pub(crate) async fn finish(mut self) -> u64 {
        self.done.cancel();
        let seen = time::timeout(LIMIT, self.watching.join_next()).await.expect("the witness ends in time");
        seen.unwrap().unwrap()
    }
}
