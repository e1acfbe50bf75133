//! What remains when clients leave: the list of those who stay, and the count of what was never sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::house::{Guest, entry, in_house, settle, until, zone_channel};
use crate::channels::{Delivery, Live, LiveBatch, credits};
use crate::connections::config::ConnectionsConfig;
use crate::connections::outbox::OutboxLimits;
use crate::model::{Epoch, Lane};

#[tokio::test(start_paused = true)]
async fn those_who_stay_get_all_after_many_have_left() {
    const GUESTS: usize = 150;
    in_house(ConnectionsConfig::default(), async |house| {
        let mut guests: Vec<Guest> = Vec::new();
        for _ in 0..GUESTS {
            guests.push(house.subscriber("busy").await.0);
        }
        let followed = house.shard.followed_by(&zone_channel("busy")).unwrap();
        let len = || followed.subscriptions.borrow().len();
        let capacity = || followed.subscriptions.borrow().capacity();
        assert!(len() == GUESTS && capacity() >= 256, "{} {}", len(), capacity());

        // Those who stay are spread over the list.
        let mut place = 0;
        guests.retain(|_| {
            place += 1;
            place % 15 == 0
        });
        until("the others have left", || len() == 10).await;
        house.publish("busy", 3);
        for guest in &mut guests {
            guest.read_prices(0, 3).await;
        }
        until("the list is small", || capacity() < 64).await;
        assert_eq!(len(), 10);

        // Each knows its new index in the list, so the right one leaves.
        guests.truncate(5);
        until("more have left", || len() == 5).await;
        guests.push(house.subscriber("busy").await.0);
        house.publish("busy", 3);
        for guest in &mut guests {
            guest.read_prices(3, 6).await;
        }
        drop(guests);
        until("nobody follows the channel", || house.shard.followed_by(&zone_channel("busy")).is_none())
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_is_cut_from_is_counted_to_the_message() {
    // How the frames arrive: the bound is exceeded within one batch, or with a later one.
    for pieces in [vec![1_000], vec![150, 850], vec![50, 50, 50, 1_000]] {
        let config = ConnectionsConfig { outbox_frames_max: 200, ..ConnectionsConfig::default() };
        in_house(config, async |house| {
            let first = house.publish("busy", 1);
            until("the log has begun", || *first.borrow() == 1).await;
            let (mut reader, subscribed) = house.small_subscriber("busy").await;
            let (channel, credits) = (zone_channel("busy"), credits());
            let epoch: Epoch = subscribed["epoch"].as_str().unwrap().parse().unwrap();
            let mut last = 1;
            for piece in &pieces {
                let entries: Vec<_> = (last + 1..=last + piece).map(entry).collect();
                last += piece;
                let batch = LiveBatch::encode(&channel, &epoch, Lane::Every, false, &entries);
                let live = Live::Batch(Arc::new(batch));
                assert!(Delivery::send(&house.live, &credits, live, Instant::now()).await);
                settle().await;
            }
            // Even if the channel waits for it, then no longer than this.
            time::advance(Duration::from_secs(2)).await;
            let stats = &house.shard.stats;
            until("it is cut", || house.cut() > 0).await;

            let (told, code) = reader.until_close().await;
            let (closing, prices) = told.split_last().unwrap();
            assert_eq!((code, &closing["type"]), (4001, &"closing".into()));
            assert!(prices.iter().zip(2..).all(|(price, offset)| price["offset"] == offset), "{prices:?}");
            let sent: u64 = pieces.iter().sum();
            assert_eq!(prices.len() as u64 + house.cut(), sent, "{pieces:?}");
            drop(reader);
            until("it is gone", || house.shard.followed_by(&channel).is_none()).await;
            assert_eq!(stats.messages.dropped_by_reason.connection_ended.get(), 0);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_batches_that_are_sent_in_one_go_all_are_sent_or_counted() {
    let limits = OutboxLimits { frames: 200, bytes: 1 << 20 };
    // (sizes of batches, and how many entries of the first to skip): the bound is exceeded in the second.
    for (sizes, skip) in [([90, 700, 110, 60], 0), ([90, 700, 110, 60], 40), ([1, 900, 1, 1], 1)] {
        in_house(ConnectionsConfig::default(), async |house| {
            let (mut reader, _) = house.small_subscriber("busy").await;
            let channel = zone_channel("busy");
            let followed = house.shard.followed_by(&channel).unwrap();
            let connection = {
                let subscriptions = followed.subscriptions.borrow();
                let (_, subscription) = subscriptions.iter().next().unwrap();
                Rc::clone(&subscription.connection)
            };
            let (mut last, epoch) = (0, "e".parse().unwrap());
            let batches = sizes.map(|size: u64| {
                let entries: Vec<_> = (last + 1..=last + size).map(entry).collect();
                last += size;
                Arc::new(LiveBatch::encode(&channel, &epoch, Lane::Every, false, &entries))
            });
            connection.send_live(&batches, skip, limits);
            let (told, code) = reader.until_close().await;
            assert_eq!(code, 4001);
            let sent = sizes.iter().sum::<u64>() - skip as u64;
            let came = told.len() as u64 - 1;
            assert_eq!(came + house.cut(), sent, "{sizes:?} {skip}");
            assert!(came < sent - 200, "the bound was passed: {came} of {sent}");
        })
        .await;
    }
}
