//! Pacing delays a channel's own publishers, and nobody else.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task;
use tokio::time::{self, Instant};

use super::house::{House, entry, in_house, settle, until, zone_channel};
use crate::channels::{CREDITS, Delivery, Live, LiveBatch, Moved, credits};
use crate::connections::config::ConnectionsConfig;
use crate::model::{Epoch, Lane, Position};
use crate::storage::EpochTransition;

fn config() -> ConnectionsConfig {
    ConnectionsConfig { outbox_frames_max: 200, messages_per_s: 0, ..ConnectionsConfig::default() }
}

/// Continues until the shard has paced this often.
async fn until_paced(house: &House, times: u64) {
    until("readers are waited for", || house.shard.stats.messages.paced.get() >= times).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_reader_holds_up_its_own_zone_for_its_share_of_a_second_and_no_other() {
    const COUNT: u64 = 600;
    in_house(config(), async |house| {
        let (mut silent, _) = house.small_subscriber("busy").await;
        let (mut fast, _) = house.subscriber("busy").await;
        let (mut calm, _) = house.subscriber("calm").await;
        let reading = task::spawn_local(async move { fast.read_prices(0, COUNT).await });
        let accepted = house.publish("busy", COUNT);
        until_paced(&house, 1).await;

        // While the zone waits, its publisher waits too, and another zone does not.
        let held = *accepted.borrow();
        assert!(held < COUNT / 2, "{held}");
        house.publish("calm", 5);
        calm.read_prices(0, 5).await;
        // One of two clients lags: half a second, once. Then the channel waits no longer, and the client is
        // closed.
        time::advance(Duration::from_millis(498)).await;
        settle().await;
        assert_eq!(*accepted.borrow(), held);
        assert!(!reading.is_finished());
        time::advance(Duration::from_millis(3)).await;
        reading.await.unwrap();
        until("all is accepted", || *accepted.borrow() == COUNT).await;
        let (prices, code) = silent.until_close().await;
        assert_eq!((code, house.shard.stats.messages.paced.get()), (4001, 1));
        let (closing, prices) = prices.split_last().unwrap();
        assert_eq!(closing["reason"], "slow_consumer");
        assert!(prices.iter().zip(1..).all(|(price, n)| price["offset"] == n), "in order, none left out");
        // Every entry for it was sent or counted as dropped.
        let cut = house.cut();
        assert!(cut > 100 && prices.len() as u64 + cut <= COUNT, "{} and {cut}", prices.len());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_two_zones_is_waited_for_by_both() {
    in_house(config(), async |house| {
        let (mut silent, _) = house.small_subscriber("a").await;
        silent.send(&json!({ "type": "subscribe", "channels": ["zone:b"] })).await;
        assert_eq!(silent.next().await["type"], "subscribed");
        let (a, b) = (house.publish("a", 400), house.publish("b", 400));
        until_paced(&house, 2).await;
        let held = (*a.borrow(), *b.borrow());
        assert!(held.0 < 400 && held.1 < 400, "{held:?}");
        // It is the only subscriber of both: a second, and then it is closed.
        time::advance(Duration::from_millis(998)).await;
        settle().await;
        assert_eq!((*a.borrow(), *b.borrow()), held);
        time::advance(Duration::from_millis(3)).await;
        until("it is cut", || house.cut() > 0).await;
        assert_eq!(silent.until_close().await.1, 4001);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_zone_is_told_while_it_is_held_back_keeps_its_order() {
    in_house(config(), async |house| {
        // Starts the log, so that its epoch is known.
        let first = house.publish("busy", 1);
        until("the log has begun", || *first.borrow() == 1).await;
        let (mut reader, subscribed) = house.small_subscriber("busy").await;
        let (channel, old) = (zone_channel("busy"), subscribed["epoch"].as_str().unwrap().parse().unwrap());
        let new: Epoch = "next".parse().unwrap();
        let batch = |epoch: &Epoch, from: u64, to: u64| {
            let entries: Vec<_> = (from..=to).map(entry).collect();
            Live::Batch(Arc::new(LiveBatch::encode(&channel, epoch, Lane::Every, false, &entries)))
        };
        // Enough that the client lags far, followed by all kinds of messages.
        let mut told: Vec<Live> = (0..4).map(|n| batch(&old, n * 40 + 2, n * 40 + 41)).collect();
        let to = Position { epoch: new.clone(), offset: 161 };
        let transition = EpochTransition::whole(to);
        let from = Position { epoch: old.clone(), offset: 161 };
        told.push(Live::Moved(Arc::new(Moved { channel: channel.clone(), from, transition })));
        told.extend((0..8).map(|n| batch(&new, n * 4 + 162, n * 4 + 165)));
        // A message of a channel that this shard does not follow must do no harm.
        told.push(Live::Skipped { channel: zone_channel("other"), epoch: new, offset: 3 });
        let credits = credits();
        for live in told {
            assert!(Delivery::send(&house.live, &credits, live, Instant::now()).await);
        }
        until_paced(&house, 1).await;
        let held = CREDITS - credits.available_permits();
        assert!(held > 0, "what is held back holds its credits");
        reader.read_prices(1, 161).await;
        let resync = reader.next().await;
        assert_eq!((&resync["type"], &resync["epoch"]), (&"resync".into(), &"next".into()));
        reader.read_prices(161, 193).await;
        until("the credits are given back", || credits.available_permits() == CREDITS).await;
        settle().await;
        let followed = house.shard.followed_by(&channel).unwrap();
        assert_eq!(Rc::strong_count(&followed), 2, "nothing of the waiting stays behind");
    })
    .await;
}
