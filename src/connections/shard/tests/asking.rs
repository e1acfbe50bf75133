//! A client's requests delay other clients by no more than one step, and itself in proportion to what it
//! asks for.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time;

use super::house::{Guest, House, in_house, in_time, settle, until};
use crate::connections::config::ConnectionsConfig;
use crate::connections::shard::Opening;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("zone:z{n}")).collect()
}

/// A connection without subscriptions, past its first message.
async fn bare(house: &House) -> Guest {
    let mut guest = house.connect(Opening::Nothing).await;
    guest.next().await;
    guest
}

async fn until_pong(guest: &mut Guest) -> Vec<Value> {
    let mut before = Vec::new();
    loop {
        let message = guest.next().await;
        if message["type"] == "pong" {
            return before;
        }
        before.push(message);
    }
}

#[tokio::test(start_paused = true)]
async fn to_unsubscribe_from_many_names_slows_its_client_and_nobody_else() {
    in_house(ConnectionsConfig::default(), async |house| {
        let (mut greedy, mut other) = (bare(&house).await, bare(&house).await);
        greedy.send(&json!({ "type": "subscribe", "channels": names(20) })).await;
        for _ in 0..20 {
            assert_eq!(greedy.next().await["type"], "subscribed");
        }
        // Names of all kinds: malformed, not subscribed to, and finally subscribed to.
        let mut channels: Vec<String> = (0..80).map(|n| format!("{n}")).collect();
        channels.extend((0..28).map(|n| format!("zone:none{n}")));
        channels.extend(names(20));
        for _ in 0..10 {
            greedy.send(&json!({ "type": "unsubscribe", "id": 7, "channels": channels })).await;
        }
        greedy.send(&json!({ "type": "ping" })).await;
        other.send(&json!({ "type": "ping" })).await;
        assert_eq!(until_pong(&mut other).await, [] as [Value; 0]);
        // A message is processed at once; the next one when the client has paid: for 1,280 channels, 200 of
        // them at once and 50 per second.
        let begun = time::Instant::now();
        let before = in_time(until_pong(&mut greedy)).await;
        let (took, least) = (begun.elapsed(), Duration::from_millis(21_500));
        assert!((least..least + Duration::from_millis(500)).contains(&took), "{took:?}");
        let count =
            |field: &str, value: &str| before.iter().filter(|message| message[field] == value).count();
        assert_eq!((before.len(), count("type", "unsubscribed")), (1_280, 20));
        assert_eq!((count("code", "invalid_channel"), count("code", "not_subscribed")), (800, 460));
        assert!(before.iter().all(|message| message["id"] == 7));
        // What was paid is not paid again with the next request.
        let begun = time::Instant::now();
        greedy.send(&json!({ "type": "subscribe", "channels": ["zone:later"] })).await;
        greedy.send(&json!({ "type": "ping" })).await;
        in_time(until_pong(&mut greedy)).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_number_of_unsubscribes_closes_a_connection_or_is_lost() {
    in_house(ConnectionsConfig::default(), async |house| {
        let mut guest = bare(&house).await;
        guest.send(&json!({ "type": "subscribe", "channels": names(128) })).await;
        for _ in 0..128 {
            guest.next().await;
        }
        // One channel per message, and then many times as many as messages are permitted.
        let mut left = 0;
        for name in names(128).into_iter().chain(names(400)) {
            guest.send(&json!({ "type": "unsubscribe", "channels": [name] })).await;
            left += usize::from(in_time(guest.next()).await["type"] == "unsubscribed");
        }
        assert_eq!(left, 128);
        // Its other messages have not been charged for that.
        for _ in 0..20 {
            guest.send(&json!({ "type": "ping" })).await;
        }
        for _ in 0..20 {
            assert_eq!(in_time(guest.next()).await["type"], "pong");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_long_list_ends_with_its_connection() {
    let config =
        ConnectionsConfig { messages_per_s: 0, subscriptions_max: 5_000, ..ConnectionsConfig::default() };
    in_house(config, async |house| {
        let mut guest = bare(&house).await;
        // More than one step; it is closed before the second.
        let channels: Vec<String> = (0..5_000).map(|n| format!("{n}")).collect();
        guest.send(&json!({ "type": "subscribe", "channels": channels })).await;
        until("it has begun", || house.shard.stats.totals_of_errors() > 0).await;
        house.shard.drain(Duration::ZERO);
        let (_, code) = guest.until_close().await;
        assert_eq!(code, 4000);
        settle().await;
        let made = house.shard.stats.totals_of_errors();
        assert!(made < 1_000, "{made}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_waiting_can_still_be_closed() {
    in_house(ConnectionsConfig::default(), async |house| {
        let mut guest = bare(&house).await;
        let channels: Vec<String> = (0..128).map(|n| format!("{n}")).collect();
        for _ in 0..10 {
            guest.send(&json!({ "type": "unsubscribe", "channels": channels })).await;
        }
        for _ in 0..256 {
            guest.next().await;
        }
        house.shard.drain(Duration::ZERO);
        let (_, code) = guest.until_close().await;
        assert_eq!(code, 4000);
        // Its close frame is read although it has not paid.
        assert!(guest.0.next().await.is_none_or(|end| end.is_err()));
        until("it has ended", || house.shard.stats.closed() == 1).await;
    })
    .await;
}
