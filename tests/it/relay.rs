//! Relays between two fleets, each with a Redis of its own: real servers, real gateways, the real program,
//! and a link with a round trip of 80 ms that is cut and heals.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use zonewire::config::Config;
use zonewire_kit::process::{Process, Signal};
use zonewire_kit::proxy::{Mode, Proxy};
use zonewire_kit::redis::RedisServer;

use crate::support;
use crate::support::client::{Client, LIMIT};
use crate::support::eventually::until;
use crate::support::foreign::Foreign;
use crate::support::gateway::{Running, request, until_stat};
use crate::support::orders::publish_event;
use crate::support::program::{listening, run, zonewire};
use crate::support::redis::{Admin as _, redis};

/// Half of the time for a request and its answer.
const ONE_WAY: Duration = Duration::from_millis(40);

fn on(redis: &RedisServer) -> Config {
    let mut config = support::redis::on(redis);
    config.bridge.enabled = true;
    config
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// A link with delay to a server.
async fn link(server: &RedisServer) -> Proxy {
    let proxy = Proxy::start(server.target.address).await.unwrap();
    proxy.delay(ONE_WAY);
    proxy
}

async fn publish_trade(gateway: &Running, id: u64) {
    let data = json!({ "exchange": "kraken", "symbol": "BTC/USD", "price": "64250.10", "size": "0.50", "tradeId": id });
    publish_event(gateway.address, "trade", &data).await;
}

fn ticker(price: u64) -> Value {
    json!({ "exchange": "binance", "symbol": "BTC-USDT", "price": price })
}

/// The id that the gateway gave the next trade, and the trade's own id.
async fn next_trade(client: &mut Client) -> (String, u64) {
    let trade = client.next_of_type("trade").await;
    (trade["id"].as_str().unwrap().to_owned(), trade["data"]["tradeId"].as_u64().unwrap())
}

/// The number of trades in a server's log.
async fn log_len(server: &RedisServer) -> u64 {
    server.admin(&["XLEN", "zw:{event:trade}:log"]).await.parse().unwrap()
}

/// How many subscribe to live tickers.
async fn listeners(server: &RedisServer) -> u64 {
    let script = "return redis.call('PUBSUB','NUMSUB',ARGV[1])[2]";
    server.admin(&["EVAL", script, "0", "ws:ticker"]).await.parse().unwrap()
}

/// The relay program.
struct Relay {
    process: Process,
    address: SocketAddr,
}

impl Relay {
    async fn start(from: u16, to: u16, types: &str) -> Self {
        let (from, to) = (url(from), url(to));
        let relay = |address: SocketAddr| {
            let mut command = zonewire(&["relay", "--from", &from, "--to", &to, "--types", types]);
            command.arg("--listen").arg(address.to_string());
            command.stdout(Stdio::null()).stderr(Stdio::inherit());
            command
        };
        let (address, process) = listening(relay).await;
        Self { process, address }
    }

    /// The relay's counters.
    async fn counts(&self) -> Value {
        request(self.address, "GET", "/health", &[], b"").await.json()["relay"].take()
    }

    async fn count(&self, name: &str, event: &str) -> u64 {
        self.counts().await[name][event].as_u64().unwrap()
    }

    async fn until(&self, name: &str, event: &str, least: u64) {
        until(&format!("{name} of {event} is {least}"), async || self.count(name, event).await >= least)
            .await;
    }

    async fn until_it_carries(&self, event: &str) {
        self.until("carries", event, 1).await;
    }

    async fn stop(mut self) {
        self.process.signal(Signal::TERM).unwrap();
        assert_eq!(self.process.ended(LIMIT).await.unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_events_arrive_once_despite_cut_links_and_a_killed_relay() {
    const ALL: u64 = 400;
    let (Some(here), Some(there)) = (redis(&[]).await, redis(&[]).await) else { return };
    let (a, b) = (Running::start(on(&here)).await, Running::start(on(&there)).await);
    let (mut at_a, mut at_b) = (a.follow("event:trade").await, b.follow("event:trade").await);
    let (from, to) = (link(&here).await, link(&there).await);
    let mut relay = Relay::start(from.address.port(), to.address.port(), "trade").await;
    relay.until_it_carries("trade").await;
    let mut given = BTreeMap::new();
    for id in 1..=ALL {
        publish_trade(&a, id).await;
        given.insert(next_trade(&mut at_a).await, ());
        match id {
            // The answer to an append is lost, and with it all connections there.
            60 => to.lose_reply(b"done"),
            120 => from.cut(),
            160 => to.set(Mode::Refuse),
            180 => to.set(Mode::Pass),
            220 => from.set(Mode::Hole { requests: true, replies: true }),
            240 => from.set(Mode::Pass),
            280 => {
                relay.process.kill().await.unwrap();
                // The leases of the killed relay block the new one for a moment.
                relay = Relay::start(from.address.port(), to.address.port(), "trade").await;
            }
            340 => to.cut(),
            _ => {}
        }
    }
    // Whatever happened: each trade arrives once, in order, under its original id.
    for id in 1..=ALL {
        let (name, trade) = next_trade(&mut at_b).await;
        assert_eq!(trade, id);
        assert!(given.contains_key(&(name, trade)), "{trade} keeps its id");
    }
    assert!(to.has_lost_reply());
    relay.until("carried", "trade", ALL - 280).await;
    let counts = relay.counts().await;
    let of = |name: &str| counts[name]["trade"].as_u64().unwrap();
    assert_eq!((of("missed"), of("begun_anew"), of("unreadable")), (0, 0, 0), "{counts}");
    until("nothing is behind", async || relay.count("behind", "trade").await == 0).await;
    assert_eq!(log_len(&there).await, ALL);

    // After a restart the relay knows where to continue.
    relay.stop().await;
    for id in ALL + 1..=ALL + 10 {
        publish_trade(&a, id).await;
    }
    let relay = Relay::start(from.address.port(), to.address.port(), "trade").await;
    relay.until("carried", "trade", 10).await;
    assert_eq!(relay.count("already_there", "trade").await, 0);
    assert_eq!(log_len(&there).await, ALL + 10);
    let metrics = request(relay.address, "GET", "/metrics", &[], b"").await;
    assert!(metrics.body.contains("zonewire_relay_carried_total{type=\"trade\"} 10"), "{metrics:?}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_in_both_directions_carry_nothing_in_circles() {
    const EACH: u64 = 100;
    let (Some(here), Some(there)) = (redis(&[]).await, redis(&[]).await) else { return };
    let (a, b) = (Running::start(on(&here)).await, Running::start(on(&there)).await);
    let east = Relay::start(here.port, there.port, "trade,ticker").await;
    let west = Relay::start(there.port, here.port, "trade,ticker").await;
    for relay in [&east, &west] {
        relay.until_it_carries("trade").await;
        relay.until_it_carries("ticker").await;
    }
    for id in 1..=EACH {
        publish_trade(&a, id).await;
        publish_trade(&b, EACH + id).await;
    }
    for relay in [&east, &west] {
        relay.until("carried", "trade", EACH).await;
        relay.until("already_there", "trade", EACH).await;
    }
    for (relay, server) in [(&east, &here), (&west, &there)] {
        assert_eq!(log_len(server).await, 2 * EACH);
        assert_eq!(relay.count("carried", "trade").await, EACH);
    }

    // Messages without numbers do not travel in circles either.
    let (mut feed, mut at_a, mut at_b) =
        (Foreign::connect(&here).await, Foreign::connect(&here).await, Foreign::connect(&there).await);
    at_a.listen("ticker").await;
    at_b.listen("ticker").await;
    until("both listen", async || {
        let both = [listeners(&here).await, listeners(&there).await];
        both.iter().all(|count| *count >= 2)
    })
    .await;
    let envelope = |price| json!({ "type": "ticker", "data": ticker(price), "source": "feed-1" });
    for price in 1..=20 {
        feed.publish("ticker", &envelope(price)).await;
    }
    for price in 1..=20 {
        assert_eq!(at_a.hear().await["data"]["price"], price);
        let message = at_b.hear().await;
        assert_eq!((&message["data"]["price"], &message["source"]), (&json!(price), &json!("feed-1")));
        assert_eq!(message["zonewireRelayed"].as_array().unwrap().len(), 1, "{message}");
    }
    west.until("live_passed", "ticker", 20).await;
    feed.publish("ticker", &envelope(21)).await;
    assert_eq!(at_a.hear().await["data"]["price"], 21, "nothing came in between");
    // A message is counted after it was published.
    east.until("live_carried", "ticker", 20).await;
    assert_eq!(west.count("live_carried", "ticker").await, 0);
    east.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_lost_in_a_cut_are_counted() {
    let (Some(here), Some(there)) = (redis(&[]).await, redis(&[]).await) else { return };
    let (a, b) = (Running::start(on(&here)).await, Running::start(on(&there)).await);
    let from = link(&here).await;
    let relay = Relay::start(from.address.port(), there.port, "ticker").await;
    relay.until_it_carries("ticker").await;
    let mut at_b = b.follow("event:ticker").await;
    for gateway in [&a, &b] {
        until_stat(gateway, "/redis/connected", 1).await;
    }
    until_stat(&b, "/redis/active_subscriptions", 1).await;
    let publish = async |price: u64| publish_event(a.address, "ticker", &ticker(price)).await;
    let until_heard = async |client: &mut Client, price: u64| {
        let ticker = client.next_of_type("ticker").await;
        assert_eq!(ticker["data"]["price"], price);
    };
    // The relay has subscribed once an event has arrived.
    until("the relay listens", async || listeners(&here).await > 0).await;
    publish(1).await;
    until_heard(&mut at_b, 1).await;
    from.set(Mode::Refuse);
    for price in 2..=11 {
        publish(price).await;
    }
    until_stat(&a, "/redis/published/ticker", 11).await;
    from.set(Mode::Pass);
    // Without another event, A announces its newest number, and the relay carries the announcement.
    let mut missing = 0;
    while missing < 10 {
        let missed = at_b.next_of_type("missed").await;
        missing += missed["data"]["count"].as_u64().unwrap_or(0);
    }
    assert_eq!(missing, 10);
    publish(12).await;
    until_heard(&mut at_b, 12).await;
    // A message is counted after it was published.
    relay.until("live_carried", "ticker", 2).await;
    let counts = relay.counts().await;
    assert_eq!(counts["live_missed"]["ticker"], 10);
    assert_eq!(counts["live_carried"]["ticker"], 2);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_takes_over_and_refills_a_target_that_lost_its_data() {
    let (Some(here), Some(there)) = (redis(&[]).await, redis(&[]).await) else { return };
    let a = Running::start(on(&here)).await;
    let mut first = Relay::start(here.port, there.port, "trade").await;
    first.until_it_carries("trade").await;
    let second = Relay::start(here.port, there.port, "trade").await;
    for id in 1..=30 {
        publish_trade(&a, id).await;
    }
    first.until("carried", "trade", 30).await;
    assert_eq!(second.count("carries", "trade").await, 0);
    first.process.kill().await.unwrap();
    for id in 31..=60 {
        publish_trade(&a, id).await;
    }
    second.until_it_carries("trade").await;
    second.until("carried", "trade", 30).await;
    assert_eq!(log_len(&there).await, 60);

    there.admin(&["FLUSHALL"]).await;
    second.until("begun_anew", "trade", 1).await;
    until("all trades are back", async || log_len(&there).await == 60).await;
    publish_trade(&a, 61).await;
    until("it continues", async || log_len(&there).await == 61).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cannot_work_says_why() {
    let Some(server) = redis(&[]).await else { return };
    let (one, same) = (url(server.port), format!("redis://127.0.0.1:{}/0", server.port));
    for (arguments, said) in [
        (["--from", &one, "--to", &one, "--types", "trade"], "are the same fleet"),
        (["--from", &one, "--to", &same, "--types", "trade"], "are the same fleet"),
        (["--from", &one, "--to", &same, "--types", "trades"], "expected `all`, `exchange:*`"),
        (
            ["--from", "redis://user:secret@/x?y", "--to", &one, "--types", "all"],
            "storage.redis.url (flag --from)",
        ),
    ] {
        let mut words = vec!["relay"];
        words.extend(arguments);
        let end = run(&mut zonewire(&words)).await;
        assert_eq!(end.code, Some(64), "{words:?}: {end:?}");
        assert!(end.stderr.contains(said) && !end.stderr.contains("secret"), "{words:?}: {}", end.stderr);
    }
}
