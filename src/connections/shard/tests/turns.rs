//! What concerns all connections is done in steps, and each connection is told once.

use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::task;
use tokio::time;

use super::house::{healthy, in_house, settle, until};
use crate::connections::config::ConnectionsConfig;
use crate::connections::shard::{CHANNELS_NAMED, Opening, TURN_WRITES};
use crate::model::{BackendState, ChannelName};
use crate::storage::{Concerned, Scope, StorageStatus};

fn config() -> ConnectionsConfig {
    ConnectionsConfig { messages_per_s: 0, subscriptions_max: 200, ..ConnectionsConfig::default() }
}

fn degraded() -> StorageStatus {
    let mut status = healthy();
    status.state = BackendState::Degraded;
    status
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_storage_is_told_to_each_once_with_turns_for_others() {
    in_house(config(), async |house| {
        let mut guests = Vec::new();
        for _ in 0..TURN_WRITES * 2 + 10 {
            let mut guest = house.connect(Opening::Nothing).await;
            assert_eq!(guest.next().await["state"], "healthy");
            guests.push(guest);
        }
        house.status.replace(degraded());
        let mut telling = Box::pin(house.shard.send_status());
        let mut turns = 1;
        assert_eq!(poll!(&mut telling), Poll::Pending);
        // Between two steps one client arrives, and two leave: one that was told, and one that was not.
        let mut late = house.connect(Opening::Nothing).await;
        drop((guests.remove(0), guests.pop()));
        settle().await;
        while poll!(&mut telling).is_pending() {
            turns += 1;
        }
        assert_eq!(turns, 3);
        // Its greeting has the state that the others are told.
        assert_eq!(late.next().await["state"], "degraded");
        guests.push(late);
        house.status.replace(healthy());
        house.shard.send_status().await;
        let last = guests.len() - 1;
        for (place, guest) in guests.iter_mut().enumerate() {
            if place != last {
                assert_eq!(guest.next().await["state"], "degraded");
            }
            let message = guest.next().await;
            assert_eq!((&message["type"], &message["state"]), (&"backend_state".into(), &"healthy".into()));
        }
        // Nothing is sent when nothing has changed.
        house.shard.send_status().await;
        let sent = house.shard.stats.messages.sent.get();
        settle().await;
        assert_eq!(house.shard.stats.messages.sent.get(), sent);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_concerns_many_subscriptions_names_a_hundred() {
    in_house(config(), async |house| {
        let names: Vec<String> = (0..CHANNELS_NAMED + 23).map(|n| format!("zone:z{n}")).collect();
        let mut guest = house.connect(Opening::Nothing).await;
        guest.send(&serde_json::json!({ "type": "subscribe", "channels": names })).await;
        for _ in 0..names.len() + 1 {
            guest.next().await;
        }
        let mut bare = house.connect(Opening::Nothing).await;
        bare.next().await;
        let mut status = degraded();
        status.scope = Scope::Some(Concerned::all());
        house.status.replace(status);
        house.shard.send_status().await;
        let told = guest.next().await;
        assert_eq!((&told["scope"], &told["more_channels"]), (&"some".into(), &23.into()));
        let named: Vec<ChannelName> = serde_json::from_value(told["channels"].clone()).unwrap();
        assert_eq!(named.len(), 100);
        assert!(named.iter().all(|channel| names.contains(&channel.to_string())));
        let told = bare.next().await;
        assert_eq!((&told["channels"], told.get("more_channels")), (&serde_json::json!([]), None));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_gateway_stood_still_is_not_its_clients_silence() {
    in_house(config(), async |house| {
        // The client reads nothing, and so answers no ping.
        let mut guest = house.connect(Opening::Nothing).await;
        let stood_still = Duration::from_secs(80);
        time::advance(stood_still).await;
        house.shard.sweep(0, 30, stood_still).await;
        // From here on it is silent, first for the permitted time and then for too long.
        time::advance(Duration::from_secs(74)).await;
        house.shard.sweep(0, 30, Duration::ZERO).await;
        time::advance(Duration::from_secs(2)).await;
        // A sweep that is only a little late excuses nobody.
        house.shard.sweep(0, 30, Duration::from_millis(900)).await;
        let (before, code) = guest.until_close().await;
        let kinds: Vec<_> = before.iter().map(|message| message["type"].as_str().unwrap()).collect();
        assert_eq!(
            (kinds, code),
            (vec!["connection_established", "heartbeat", "heartbeat", "closing"], 4002)
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_spread_over_its_window() {
    in_house(config(), async |house| {
        let mut closes = Vec::new();
        for _ in 0..10 {
            let mut guest = house.connect(Opening::Nothing).await;
            closes.push(task::spawn_local(async move {
                let (_, code) = guest.until_close().await;
                assert_eq!(code, 4000);
            }));
        }
        house.shard.drain(Duration::from_secs(5));
        for place in 0..closes.len() {
            until("the next one is told", || closes[place].is_finished()).await;
            time::advance(Duration::from_millis(498)).await;
            settle().await;
            assert_eq!(closes.iter().filter(|close| close.is_finished()).count(), place + 1);
            time::advance(Duration::from_millis(2)).await;
        }
        for close in closes {
            close.await.unwrap();
        }
    })
    .await;
}
