//! Event streams: the same connections, with a client that sends nothing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::time;

use super::house::{in_house, in_time, settle, until, zone_channel};
use crate::connections::config::ConnectionsConfig;
use crate::connections::events::{EventStream, Resume, Wanted};
use crate::connections::manager::Listing;

fn config() -> ConnectionsConfig {
    ConnectionsConfig { outbox_frames_max: 200, ..ConnectionsConfig::default() }
}

fn zone(zone: &str) -> Vec<Wanted> {
    vec![Wanted { channel: zone_channel(zone), since: None, snapshot: false }]
}

/// All events up to the end, and whether the stream was complete.
async fn until_end(events: &mut EventStream) -> (Vec<(String, Value)>, bool) {
    let (mut text, mut is_whole) = (String::new(), true);
    while let Some(part) = in_time(events.next()).await {
        match part {
            Ok(part) => text += std::str::from_utf8(&part).unwrap(),
            Err(_) => {
                is_whole = false;
                break;
            }
        }
    }
    let mut id = String::new();
    let told = text.split_terminator("\n\n").filter_map(|event| {
        let mut data = None;
        for line in event.lines() {
            match line.split_once(": ") {
                Some(("id", told)) => told.clone_into(&mut id),
                Some(("data", told)) => data = Some(serde_json::from_str(told).unwrap()),
                _ => {}
            }
        }
        Some((id.clone(), data?))
    });
    (told.collect(), is_whole)
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_read_is_bounded_as_any_other_and_resumes_from_its_last_id() {
    const COUNT: u64 = 2_000;
    in_house(config(), async |house| {
        let (mut events, _client) = house.stream(&zone("pjm")).await;
        // The answer has begun, and then nobody reads it.
        let first: Bytes = events.next().await.unwrap().unwrap();
        assert!(first.starts_with(b"retry: "));
        settle().await;
        let accepted = house.publish("pjm", COUNT);
        in_time(until("all is accepted", || *accepted.borrow() == COUNT)).await;
        until("it is cut", || house.cut() > 0).await;
        let (told, is_whole) = until_end(&mut events).await;
        drop(events);
        assert!(is_whole);
        let ((last_id, closing), told) = told.split_last().unwrap();
        assert_eq!(closing["reason"], "slow_consumer");
        let prices: Vec<_> = told.iter().filter(|(_, message)| message["type"] == "price_update").collect();
        let last = prices.len() as u64;
        assert!(
            last > 0 && last < COUNT && prices.iter().zip(1..).all(|((_, price), n)| price["offset"] == n)
        );
        assert!(prices.iter().zip(1..).all(|((id, _), n): (_, u64)| id.ends_with(&format!(":{n}"))));
        until("it is gone", || house.shard.stats.closed() == 1).await;

        let Ok(Resume::After(since)) = last_id.parse() else { panic!("{last_id}") };
        let wanted = vec![Wanted { since: since[0].clone(), ..zone("pjm").remove(0) }];
        let (mut events, _client) = house.stream(&wanted).await;
        let mut text = String::new();
        while !text.contains("caught_up") {
            text += std::str::from_utf8(&in_time(events.next()).await.unwrap().unwrap()).unwrap();
        }
        for offset in last + 1..=COUNT {
            assert_eq!(text.matches(&format!("\"offset\":{offset},")).count(), 1, "{offset}");
        }
        assert_eq!(text.matches("price_update").count() as u64, COUNT - last);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_nothing_for_too_long_is_closed_and_then_cut_off() {
    in_house(config(), async |house| {
        let (mut reading, _other) = house.stream(&zone("pjm")).await;
        let (mut stuck, mut client) = house.stream(&zone("pjm")).await;
        stuck.next().await.unwrap().unwrap();
        let shard = &house.shard;
        let mut swept = async |times: u64| {
            for step in 0..times {
                time::advance(Duration::from_secs(1)).await;
                shard.sweep(step as usize % 30, 30, Duration::ZERO).await;
                settle().await;
                // One client reads what there is.
                while let std::task::Poll::Ready(part) = futures_util::poll!(reading.next()) {
                    part.unwrap().unwrap();
                }
            }
        };
        swept(74).await;
        let infos = shard.inspect(&Listing { max: 10, ..Listing::default() }).await.connections;
        let silent = infos.iter().map(|info| info.last_heard_s_ago).max().unwrap();
        assert!((40..76).contains(&silent), "{silent}");
        assert_eq!(infos.iter().filter(|info| info.last_heard_s_ago == 0).count(), 1);
        swept(40).await;
        assert_eq!((shard.stats.closed(), shard.connections.borrow().len()), (1, 1));
        // What it would not read is discarded: it finds the end of its socket.
        assert_eq!(in_time(client.read(&mut [0; 16])).await.unwrap(), 0);
        let (told, _) = until_end(&mut stuck).await;
        assert_eq!(told.last().unwrap().1["reason"], "heartbeat_timeout");
        // A standstill of the process does not count as its clients' silence.
        swept(70).await;
        shard.sweep(0, 30, Duration::from_secs(60)).await;
        swept(30).await;
        assert_eq!(shard.connections.borrow().len(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_answer_is_dropped_leaves_nothing_behind() {
    in_house(config(), async |house| {
        let (mut events, _client) = house.stream(&zone("pjm")).await;
        events.next().await.unwrap().unwrap();
        assert_eq!(house.shard.connections.borrow().len(), 1);
        drop(events);
        until("it is gone", || house.shard.connections.borrow().is_empty()).await;
        assert!(house.shard.followed.borrow().is_empty());
        // Including one that was never read, and one with something in its outbox.
        let (events, _client) = house.stream(&zone("pjm")).await;
        let accepted = house.publish("pjm", 150);
        in_time(until("all is accepted", || *accepted.borrow() == 150)).await;
        assert!(
            house.shard.inspect(&Listing { max: 1, ..Listing::default() }).await.connections[0]
                .waiting_messages
                > 0
        );
        drop(events);
        until("it is gone too", || house.shard.connections.borrow().is_empty()).await;
        let stats = &house.shard.stats;
        assert_eq!((stats.streams_opened.get(), stats.streams_ended.get(), stats.closed()), (2, 2, 2));
        assert!(stats.messages.dropped_by_reason.connection_ended.get() > 0, "it is counted");
    })
    .await;
}
