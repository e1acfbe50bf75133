//! What a client asks for costs others no more than a turn, and itself what it is worth.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time;

use super::house::{Guest, House, in_time, settle, until};
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
    let test = async {
        let house = House::new(ConnectionsConfig::default()).await;
        let (mut greedy, mut other) = (bare(&house).await, bare(&house).await);
        greedy.send(&json!({ "type": "subscribe", "channels": names(20) })).await;
        for _ in 0..20 {
            assert_eq!(greedy.next().await["type"], "subscribed");
        }
        // Of all kinds: without form, without a subscription, and in the end those that there are.
        let mut channels = vec![String::new(); 800];
        channels.extend(vec!["zone:none".to_owned(); 180]);
        channels.extend(names(20));
        greedy.send(&json!({ "type": "unsubscribe", "id": 7, "channels": channels })).await;
        greedy.send(&json!({ "type": "ping" })).await;
        other.send(&json!({ "type": "ping" })).await;
        assert_eq!(until_pong(&mut other).await, [] as [Value; 0]);
        // What it asked for is done at once; what it said behind that is heard when it has paid:
        // 1,000 names, 200 of them at once, 50 a second.
        let mut before = Vec::new();
        for _ in 0..121 {
            before.push(greedy.next().await);
        }
        time::advance(Duration::from_millis(15_900)).await;
        settle().await;
        let heard = house.shard.stats.messages_received.get();
        assert_eq!(heard, 3, "its ping has not been read");
        time::advance(Duration::from_millis(200)).await;
        assert_eq!(until_pong(&mut greedy).await, [] as [Value; 0]);
        let errors: Vec<_> = before.iter().filter(|message| message["type"] == "error").collect();
        let left = before.iter().filter(|message| message["type"] == "unsubscribed").count();
        assert_eq!((errors.len(), left, before.len()), (101, 20, 121));
        assert!(before.iter().all(|message| message["id"] == 7));
        assert!(errors[..100].iter().all(|error| error["code"] == "invalid_channel"));
        assert_eq!((&errors[100]["code"], errors[100].get("channel")), (&"invalid_message".into(), None));
        assert!(errors[100]["message"].as_str().unwrap().starts_with("880 more names"));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn no_number_of_unsubscribes_closes_a_connection_or_is_lost() {
    let test = async {
        let house = House::new(ConnectionsConfig::default()).await;
        let mut guest = bare(&house).await;
        guest.send(&json!({ "type": "subscribe", "channels": names(128) })).await;
        for _ in 0..128 {
            guest.next().await;
        }
        // One message each, and then many times as much as messages may be.
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
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_list_ends_with_its_connection() {
    let test = async {
        let house = House::new(ConnectionsConfig { messages_per_s: 0, ..ConnectionsConfig::default() }).await;
        let mut guest = bare(&house).await;
        // More than one turn's worth; it is closed before the second.
        guest.send(&json!({ "type": "subscribe", "channels": vec![""; 5_000] })).await;
        until("it has begun", || house.shard.stats.totals_of_errors() > 0).await;
        house.shard.drain(Duration::ZERO);
        let (_, code) = guest.until_close().await;
        assert_eq!(code, 4000);
        settle().await;
        let made = house.shard.stats.totals_of_errors();
        assert!(made < 1_000, "{made}");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_waiting_can_still_be_closed() {
    let test = async {
        let house = House::new(ConnectionsConfig::default()).await;
        let mut guest = bare(&house).await;
        guest.send(&json!({ "type": "unsubscribe", "channels": vec![""; 5_000] })).await;
        for _ in 0..101 {
            guest.next().await;
        }
        house.shard.drain(Duration::ZERO);
        let (_, code) = guest.until_close().await;
        assert_eq!(code, 4000);
        // Its answer to that is read, although it has not paid.
        assert!(guest.0.next().await.is_none_or(|end| end.is_err()));
        until("it has ended", || house.shard.stats.closed() == 1).await;
    };
    LocalSet::new().run_until(test).await;
}
