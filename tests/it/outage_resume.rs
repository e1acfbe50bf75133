//! A client that reconnects early in an outage to a gateway that does not know its channel.

use serde_json::Value;
use zonewire::config::Config;
use zonewire_kit::redis::RedisServer;

use crate::support::client::{Client, offset};
use crate::support::gateway::{Running, price, until_state};
use crate::support::redis::{on_prefix, redis};

fn on(server: &RedisServer) -> Config {
    on_prefix(server, "resume")
}

/// Publishes three prices at one gateway, freezes Redis, and reconnects to another gateway that has noticed,
/// with the position after the first price.
async fn come_back(server: &RedisServer, publisher: &Running, to: &Running, zone: &str) -> Client {
    until_state(publisher.address, "healthy").await;
    let (mut client, subscribed) = publisher.market(zone).await;
    publisher.publish(zone, (1..=3).map(|n| price("A", n))).await;
    client.prices(3).await;
    client.close().await;
    let mut witness = to.market("witness").await.0;
    server.freeze().unwrap();
    // On a busy machine, the gateway may have been degraded before, and says first that it is healthy again.
    while witness.next_of_type("backend_state").await["state"] != "degraded" {}
    let epoch = subscribed["epoch"].as_str().unwrap();
    let since = format!("{epoch}:{}", offset(&subscribed) + 1);
    let mut client = to.connect(&format!("/ws/market/{zone}?since={since}")).await;
    assert_eq!(client.next().await["state"], "degraded");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_resumed_if_redis_returns_within_moments() {
    let Some(server) = redis(&[]).await else { return };
    let a = Running::start(on(&server)).await;
    // A stalling machine makes the outage long; then another round follows. Each round has a fresh gateway,
    // since one that has relapsed trusts Redis later.
    for round in 0..6 {
        let b = Running::start(on(&server)).await;
        let mut client = come_back(&server, &a, &b, &format!("zone-{round}")).await;
        server.thaw().unwrap();
        let subscribed = client.next_of_type("subscribed").await;
        if subscribed["recovered"] == true {
            assert_eq!((&subscribed["gap"], offset(&subscribed)), (&Value::from(0), 1));
            let prices =
                [client.next_of_type("price_update").await, client.next_of_type("price_update").await];
            assert_eq!([&prices[0]["price"], &prices[1]["price"]], [2, 3]);
            drop(client);
            a.stop().await;
            return b.stop().await;
        }
        assert_eq!(subscribed["gap"], Value::Null, "{subscribed}");
    }
    panic!("a short outage always costs a client its position");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_wait_for_a_redis_that_stays_away() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut client = come_back(&server, &a, &b, "pjm").await;
    let subscribed = client.next().await;
    assert_eq!(subscribed["type"], "subscribed", "no error comes before it");
    assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&Value::Bool(false), &Value::Null));
    b.publish("pjm", [price("A", 4)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 4, "it is live meanwhile");
    server.thaw().unwrap();
}
