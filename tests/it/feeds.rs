//! Feeds of exchanges, against a stand-in that speaks their protocols: what they publish, and which process
//! runs them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use zonewire::config::{Config, ExchangeConfig, ExchangeKind};
use zonewire_kit::exchange::{Exchange, Faults, Speaks};
use zonewire_kit::proxy::{Mode, Proxy};
use zonewire_kit::redis::{DURABLE, RedisServer};

use crate::support::client::{Client, assert_has};
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Running, config, until_state};
use crate::support::process::Process;
use crate::support::redis::{on, on_prefix, redis};

const STEP: Duration = Duration::from_millis(15);

const KINDS: [(Speaks, ExchangeKind, &str); 3] = [
    (Speaks::Binance, ExchangeKind::Binance, "BTC-USDT"),
    (Speaks::Coinbase, ExchangeKind::Coinbase, "BTC-USD"),
    (Speaks::Kraken, ExchangeKind::Kraken, "BTC-USD"),
];

fn feed(exchange: &Exchange, kind: ExchangeKind, symbol: &str) -> Config {
    let mut config = config();
    let types = ["ticker", "trade", "orderbook", "candle"].map(|name| name.parse().unwrap()).to_vec();
    config.feeds.exchanges = vec![ExchangeConfig {
        kind,
        url: Some(exchange.url()),
        api_url: (kind == ExchangeKind::Binance).then(|| exchange.api_url()),
        symbols: vec![symbol.to_owned()],
        types,
        interval: if kind == ExchangeKind::Coinbase { "5m" } else { "1m" }.parse().unwrap(),
        depth: 25,
        zones: [(symbol.to_owned(), "btc".parse().unwrap())].into(),
        ..ExchangeConfig::default()
    }];
    config
}

/// What clients of a gateway receive about an exchange, checked as it arrives.
struct Seen {
    client: Client,
    trades: Vec<u64>,
    /// The number of the last change of the book.
    sequence: Option<u64>,
    book: [BTreeMap<String, String>; 2],
    /// How many events of each type.
    counts: BTreeMap<String, u64>,
    missed: u64,
}

impl Seen {
    async fn at(url: &str) -> Self {
        let mut client = Client::connect(url).await;
        client.next_of_type("connection_established").await;
        let types = [
            "ticker",
            "trade",
            "orderbook",
            "candle",
            "exchange:connected",
            "exchange:disconnected",
            "exchange:reconnecting",
            "exchange:error",
        ];
        let channels: Vec<String> = types.iter().map(|name| format!("event:{name}")).collect();
        client.send(&json!({ "type": "subscribe", "channels": channels })).await;
        Self {
            client,
            trades: Vec::new(),
            sequence: None,
            book: Default::default(),
            counts: BTreeMap::new(),
            missed: 0,
        }
    }

    /// Reads the next event.
    async fn next(&mut self) -> Value {
        loop {
            let message = self.client.next().await;
            let kind = message["type"].as_str().unwrap().to_owned();
            if !message["data"]["exchange"].is_string() {
                assert_ne!(kind, "error", "{message}");
                continue;
            }
            *self.counts.entry(kind.clone()).or_default() += 1;
            let data = &message["data"];
            match kind.as_str() {
                "trade" => {
                    let id: u64 = data["tradeId"].as_str().unwrap().parse().unwrap();
                    let last = self.trades.last().copied();
                    assert!(last.is_none_or(|last| last < id), "{id} comes after {last:?}");
                    self.trades.push(id);
                }
                "orderbook" => self.change(data),
                "exchange:error" if data["code"] == "trades_missed" => {
                    let count = data["reason"].as_str().unwrap().split(' ').next().unwrap();
                    self.missed += count.parse::<u64>().unwrap();
                }
                _ => {}
            }
            return message;
        }
    }

    fn change(&mut self, data: &Value) {
        if data["kind"] == "snapshot" {
            self.book = Default::default();
        } else {
            // A reader that begins in the middle waits for a snapshot.
            if self.sequence.is_none() {
                return;
            }
            assert_eq!(data["previousSequence"].as_u64(), self.sequence, "{data}");
        }
        self.sequence = data["sequence"].as_u64();
        for (side, name) in self.book.iter_mut().zip(["bids", "asks"]) {
            for level in data[name].as_array().unwrap() {
                let [price, size] = [0, 1].map(|n| level[n].as_str().unwrap().to_owned());
                if size.parse::<f64>().unwrap() == 0.0 {
                    side.remove(&price);
                } else {
                    side.insert(price, size);
                }
            }
        }
    }

    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            self.next().await;
        }
    }

    /// Reads until a trade after this one has arrived.
    async fn until_after(&mut self, trade: u64) {
        self.until(|seen| seen.trades.last().is_some_and(|last| *last > trade)).await;
    }

    fn has(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    /// How many trades are missing between the first and the last received.
    fn missing(&self) -> u64 {
        let (first, last) = (self.trades[0], self.trades[self.trades.len() - 1]);
        last - first + 1 - self.trades.len() as u64
    }

    fn best(&self) -> [Vec<[String; 2]>; 2] {
        let mut sides =
            self.book.clone().map(|side| side.into_iter().map(|(p, s)| [p, s]).collect::<Vec<_>>());
        sides[0].reverse();
        sides
    }
}

async fn stats_of(gateway: &Running, exchange: &str) -> Value {
    gateway.stats().await["feeds"][exchange].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_exchange_become_events_and_prices() {
    for (speaks, kind, symbol) in KINDS {
        let exchange = Exchange::start(speaks, symbol, 0, 1, STEP).await.unwrap();
        let gateway = Running::start(feed(&exchange, kind, symbol)).await;
        let mut seen = Seen::at(&gateway.url("/ws")).await;
        seen.until(|seen| {
            let all = ["ticker", "trade", "orderbook", "candle"];
            all.iter().all(|kind| seen.has(kind) > 0) && seen.trades.len() > 30 && seen.sequence.is_some()
        })
        .await;
        assert_eq!(seen.missing(), 0);
        // Once everything in transit has arrived, the book equals the exchange's.
        seen.until(|seen| seen.best() == <[_; 2]>::from(exchange.best(100))).await;
        let name = speaks_name(speaks);
        let stats = stats_of(&gateway, name).await;
        assert_has(&stats, json!({ "state": "connected", "gaps": 0, "malformed": 0 }));
        assert!(stats["frames"].as_u64().unwrap() > 30, "{stats}");
        let price = gateway.get("/api/zones/btc/latest").await.json();
        assert_eq!(price["entries"][0]["key"], format!("{name}:{symbol}"), "{price}");
        let metrics = gateway.get("/metrics").await.body;
        let told = format!("zonewire_exchange_connected{{exchange=\"{name}\"}} 1");
        assert!(metrics.contains(&told), "{metrics}");
    }
}

fn speaks_name(speaks: Speaks) -> &'static str {
    match speaks {
        Speaks::Binance => "binance",
        Speaks::Coinbase => "coinbase",
        Speaks::Kraken => "kraken",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_no_trade_is_doubled_and_no_book_is_torn() {
    let faults = Faults { lost: 0.02, swapped: 0.02, garbage: 0.02, lies: 0.01, stalls: 0.0, cuts: 0.002 };
    for (speaks, kind, symbol) in KINDS {
        let exchange = Exchange::start(speaks, symbol, 0, 5, STEP).await.unwrap();
        let gateway = Running::start(feed(&exchange, kind, symbol)).await;
        let mut seen = Seen::at(&gateway.url("/ws")).await;
        seen.until(|seen| seen.trades.len() > 5 && seen.sequence.is_some()).await;
        // A connection that ends before everything was acknowledged counts as an attempt, not as connected.
        until("it is connected", async || stats_of(&gateway, speaks_name(speaks)).await["connected"] == 1)
            .await;
        exchange.set_faults(faults);
        // Trades that the exchange makes from now on, however far this test lags behind.
        seen.until_after(exchange.trades().1 + 250).await;
        exchange.set_faults(Faults::default());
        // A connection that is cut now is followed by a good one.
        exchange.cut();
        seen.until_after(exchange.trades().1).await;
        let stats = stats_of(&gateway, speaks_name(speaks)).await;
        assert!(stats["malformed"].as_u64().unwrap() > 0 && stats["gaps"].as_u64().unwrap() > 0, "{stats}");
        assert!(stats["reconnects"].as_u64().unwrap() > 0, "{stats}");
        // Missing trades are reported on another channel; Binance provides them again.
        seen.until(|seen| seen.missed >= seen.missing()).await;
        assert_eq!(seen.missing(), seen.missed, "{stats}");
        // They are counted when reported, so these figures may be older than what has arrived here since.
        until("all that is missing is counted", async || {
            stats_of(&gateway, speaks_name(speaks)).await["trades_missed"] == seen.missed
        })
        .await;
        if speaks == Speaks::Binance {
            assert_eq!(seen.missed, 0, "{stats}");
        }
        // Kraken's checksum covers the ten best levels: only those are certain.
        let best = |seen: &Seen| seen.best().map(|side| side.into_iter().take(10).collect::<Vec<_>>());
        seen.until(|seen| best(seen) == <[_; 2]>::from(exchange.best(10))).await;
        seen.until(|seen| seen.has("exchange:reconnecting") > 0 && seen.has("exchange:disconnected") > 0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_exchange_is_reported_and_reconnected() {
    let exchange = Exchange::start(Speaks::Kraken, "BTC-USD", 0, 2, STEP).await.unwrap();
    let gateway = Running::start(feed(&exchange, ExchangeKind::Kraken, "BTC-USD")).await;
    let mut seen = Seen::at(&gateway.url("/ws")).await;
    seen.until(|seen| !seen.trades.is_empty()).await;
    exchange.set_closed(true);
    exchange.cut();
    seen.until(|seen| seen.has("exchange:reconnecting") > 1).await;
    assert_eq!(stats_of(&gateway, "kraken").await["connected"], 0);
    let connected = seen.has("exchange:connected");
    exchange.set_closed(false);
    seen.until(|seen| seen.has("exchange:connected") > connected).await;
}

/// A settings file for a gateway on this Redis with a feed of this exchange.
fn settings(server: &RedisServer, exchange: &Exchange) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let (port, url, api) = (server.port, exchange.url(), exchange.api_url());
    let text = format!(
        "[storage]\nbackend = 'redis'\n[storage.redis]\nhost = '127.0.0.1'\nport = {port}\nprefix = 'feeds'\n\
         [[feeds.exchanges]]\nkind = 'binance'\nurl = '{url}'\napi_url = '{api}'\nsymbols = ['BTC-USDT']\n"
    );
    file.write_all(text.as_bytes()).unwrap();
    file
}

async fn state(process: &Process) -> String {
    let stats = crate::support::gateway::request(process.address, "GET", "/ws/stats", &[], b"").await.json();
    stats["feeds"]["binance"]["state"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_process_of_a_feed_is_killed_another_takes_over_without_losing_or_doubling_trades() {
    let Some(server) = redis(&[]).await else { return };
    let exchange = Exchange::start(Speaks::Binance, "BTC-USDT", 0, 3, STEP).await.unwrap();
    let file = settings(&server, &exchange);
    let with_file = [("ZONEWIRE_CONFIG", file.path().to_str().unwrap())];
    let mut first = Process::start_with(&[], &with_file).await;
    until("the first one has the feed", async || state(&first).await == "connected").await;
    let mut second = Process::start_with(&[], &with_file).await;
    let mut seen = Seen::at(&second.url("/ws")).await;
    seen.until(|seen| seen.trades.len() > 20).await;
    assert_eq!(state(&second).await, "standby");
    assert_eq!(exchange.connections(), 1);

    first.kill().await;
    until("the second one has it", async || state(&second).await == "connected").await;
    seen.until_after(exchange.trades().1).await;
    assert_eq!((seen.missing(), seen.missed), (0, 0));
    assert_eq!(exchange.connections(), 2);

    // A process that is asked to stop releases the feed at once.
    let third = Process::start_with(&[], &with_file).await;
    let mut seen = Seen::at(&third.url("/ws")).await;
    seen.until(|seen| seen.trades.len() > 5).await;
    second.signal(crate::support::process::Signal::TERM);
    assert!(second.ended().await.success());
    until("the third one has it", async || state(&third).await == "connected").await;
    seen.until_after(exchange.trades().1).await;
    assert_eq!((seen.missing(), seen.missed), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_the_feed_continues_until_its_lease_expires_and_says_so() {
    let Some(mut server) = redis(&DURABLE).await else { return };
    let exchange = Exchange::start(Speaks::Binance, "BTC-USDT", 0, 4, STEP).await.unwrap();
    let gateway = Running::changed(feed(&exchange, ExchangeKind::Binance, "BTC-USDT"), |config| {
        config.storage = on(&server).storage
    })
    .await;
    let mut seen = Seen::at(&gateway.url("/ws")).await;
    seen.until(|seen| seen.trades.len() > 5).await;
    server.kill().await.unwrap();
    let (tickers, mut told) = (seen.has("ticker"), Vec::new());
    // Everything except trades continues meanwhile; then the feed announces that it stops, and stops.
    while told.len() < 2 {
        let message = seen.next().await;
        if message["type"] == "exchange:error" && message["data"]["code"] == "lease" {
            told.push(message["data"]["reason"].as_str().unwrap().to_owned());
        }
    }
    assert!(told[0].contains("it continues for") && told[1].contains("ran out"), "{told:?}");
    assert!(seen.has("ticker") > tickers, "the feed continued");
    let stats = stats_of(&gateway, "binance").await;
    assert_eq!((&stats["state"], &stats["leases_lost"]), (&json!("standby"), &json!(1)), "{stats}");
    server.restart().await.unwrap();
    seen.until_after(exchange.trades().1 + 5).await;
    assert_eq!((seen.missing(), seen.missed), (0, 0), "what was missed meanwhile arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_only_the_holder_loses_redis_another_takes_over_without_doubling_trades() {
    let Some(server) = redis(&[]).await else { return };
    let exchange = Exchange::start(Speaks::Binance, "BTC-USDT", 0, 6, STEP).await.unwrap();
    for hole in [Mode::Refuse, Mode::Hole { requests: true, replies: true }] {
        let proxy = Proxy::start(server.target.address).await.unwrap();
        let of = |port| {
            let mut config = feed(&exchange, ExchangeKind::Binance, "BTC-USDT");
            config.feeds.exchanges[0].types = vec!["trade".parse().unwrap()];
            config.storage = on_prefix(&server, &format!("feeds-{}", proxy.address.port())).storage;
            config.storage.redis.port = Some(port);
            config
        };
        let first = Running::start(of(proxy.address.port())).await;
        let is_connected = async |gateway: &Running| {
            (stats_of(gateway, "binance").await["state"] == "connected").then_some(())
        };
        eventually("the first one has the feed", async || is_connected(&first).await).await;
        let second = Running::start(of(server.port)).await;
        let mut seen = [Seen::at(&first.url("/ws")).await, Seen::at(&second.url("/ws")).await];
        for seen in &mut seen {
            seen.until(|seen| seen.trades.len() > 10).await;
        }
        proxy.set(hole);
        eventually("the second one has it", async || is_connected(&second).await).await;
        seen[1].until_after(exchange.trades().1 + 20).await;
        proxy.set(Mode::Pass);
        // What the first process had received from the exchange reaches the log later, and is there already.
        until_state(first.address, "healthy").await;
        let last = exchange.trades().1 + 20;
        for seen in &mut seen {
            seen.until_after(last).await;
            assert_eq!((seen.missing(), seen.missed), (0, 0));
        }
        let history = second.get("/api/events/trade/history?limit=1000").await.json();
        let ids = history["entries"].as_array().unwrap().iter().map(|entry| &entry["data"]["tradeId"]);
        let ids: Vec<u64> = ids.map(|id| id.as_str().unwrap().parse().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
    }
}
