//! Tests each adapter on frames of the documented form.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::market::Market;
use super::*;
use crate::protocol::{ProblemCode, parse_event, parse_price};

/// An adapter under test, and its time.
struct Tried {
    feed: Box<dyn Feed>,
    begun: Instant,
    after: Duration,
}

const BEGUN: DateTime<Utc> = DateTime::from_timestamp_nanos(1_760_000_000_000_000_000);

fn config(text: &str) -> ExchangeConfig {
    toml::from_str(text).unwrap()
}

impl Tried {
    fn new(config: &ExchangeConfig, resume: &[(&str, u64)]) -> (Self, Vec<Step>) {
        let resume: Resume = resume.iter().map(|(symbol, id)| ((*symbol).to_owned(), *id)).collect();
        let begun = Instant::now();
        let at = Moment { now: begun, utc: BEGUN };
        let mut tried = Self { feed: adapter(config, &resume, at), begun, after: Duration::ZERO };
        let mut steps = Vec::new();
        tried.feed.connected(at, &mut steps);
        (tried, steps)
    }

    fn at(&self) -> Moment {
        let utc = BEGUN + TimeDelta::from_std(self.after).unwrap();
        Moment { now: self.begun + self.after, utc }
    }

    /// Passes a text to the adapter, well-formed or not.
    fn hear(&mut self, text: &str) -> (Vec<Step>, Result<(), Malformed>) {
        let (at, mut steps) = (self.at(), Vec::new());
        let understood = self.feed.frame(text, at, &mut steps);
        (steps, understood)
    }

    fn text(&mut self, text: &str) -> Vec<Step> {
        let (steps, understood) = self.hear(text);
        understood.unwrap();
        steps
    }

    fn frame(&mut self, frame: &Value) -> Vec<Step> {
        self.text(&frame.to_string())
    }

    fn malformed(&mut self, text: &str) -> String {
        let (steps, understood) = self.hear(text);
        assert_eq!(steps, [], "half of a frame was taken: {text}");
        understood.unwrap_err()
    }

    /// Answers a request, or lets it fail.
    fn answer(&mut self, id: u64, answer: Result<&str, &str>) -> (Vec<Step>, Result<(), Malformed>) {
        let (at, mut steps) = (self.at(), Vec::new());
        let understood = self.feed.fetched(id, answer.map_err(str::to_owned), at, &mut steps);
        (steps, understood)
    }

    fn answered(&mut self, id: u64, answer: Result<&str, &str>) -> Vec<Step> {
        let (steps, understood) = self.answer(id, answer);
        understood.unwrap();
        steps
    }

    fn fetched(&mut self, id: u64, answer: &Value) -> Vec<Step> {
        self.answered(id, Ok(&answer.to_string()))
    }

    fn tick(&mut self, after: Duration) -> Vec<Step> {
        self.after += after;
        let (at, mut steps) = (self.at(), Vec::new());
        self.feed.tick(at, &mut steps);
        steps
    }
}

/// What `pick` finds in each step.
fn all<'a, T>(steps: &'a [Step], pick: impl FnMut(&'a Step) -> Option<T>) -> Vec<T> {
    steps.iter().filter_map(pick).collect()
}

fn sent(steps: &[Step]) -> Vec<Value> {
    all(
        steps,
        |step| if let Step::Send(text) = step { Some(serde_json::from_str(text).unwrap()) } else { None },
    )
}

fn asked(steps: &[Step]) -> Vec<(u64, String)> {
    all(steps, |step| if let Step::Fetch { id, url } = step { Some((*id, url.clone())) } else { None })
}

/// The events, each checked to be acceptable to a gateway, with its time in milliseconds.
fn events(steps: &[Step]) -> Vec<(&'static str, i64, Value)> {
    all(steps, |step| {
        let Step::Event(FeedEvent { kind, json, .. }) = step else { return None };
        let draft = parse_event(*kind, json, BEGUN, Duration::MAX).unwrap_or_else(|e| panic!("{json}: {e}"));
        let value: Value = serde_json::from_slice(&draft.data).unwrap();
        Some((kind.as_str(), draft.time.timestamp_millis(), value["data"].clone()))
    })
}

fn troubles(steps: &[Step]) -> Vec<&str> {
    all(steps, |step| if let Step::Trouble(trouble) = step { Some(trouble.code()) } else { None })
}

fn binance() -> ExchangeConfig {
    config(
        "symbols = ['BTC-USDT', 'ETH-USDT']\ntypes = ['ticker', 'trade', 'orderbook', 'candle']\ninterval = '1m'\n\
         zones = { BTC-USDT = 'btc-usdt' }",
    )
}

/// An adapter that is subscribed and has a book up to 160.
fn binance_ready(resume: &[(&str, u64)]) -> Tried {
    let config = config("symbols = ['BTC-USDT']\ntypes = ['trade', 'orderbook']");
    let (mut tried, _) = Tried::new(&config, resume);
    let steps = tried.frame(&json!({"result": null, "id": 1}));
    assert_eq!(steps.last(), Some(&Step::Ready));
    let (id, _) = asked(&steps)[0].clone();
    let book = json!({"lastUpdateId": 160, "bids": [["0.0024", "10"]], "asks": [["0.0026", "100"]]});
    let steps = tried.fetched(id, &book);
    assert_eq!(events(&steps)[0].2["sequence"], 160);
    tried
}

fn depth(first: u64, last: u64, bids: &Value) -> Value {
    let data = json!({"e": "depthUpdate", "E": 123456789000_u64, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": []});
    json!({"stream": "btcusdt@depth@100ms", "data": data})
}

fn binance_trade(id: u64) -> Value {
    let data = json!({
        "e": "trade", "E": 1672515782136_u64, "s": "BTCUSDT", "t": id, "p": "0.00100", "q": "100",
        "T": 1672515782136_u64, "m": true, "M": true,
    });
    json!({"stream": "btcusdt@trade", "data": data})
}

fn ids(steps: &[Step]) -> Vec<String> {
    let trades = events(steps).into_iter().filter(|(kind, ..)| *kind == "trade");
    trades.map(|(.., data)| data["tradeId"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn binance_is_subscribed_to_and_ready_when_all_streams_are_acknowledged() {
    let (mut tried, steps) = Tried::new(&binance(), &[]);
    let message = json!({"method": "SUBSCRIBE", "id": 1, "params": [
        "btcusdt@ticker", "btcusdt@trade", "btcusdt@depth@100ms", "btcusdt@kline_1m",
        "ethusdt@ticker", "ethusdt@trade", "ethusdt@depth@100ms", "ethusdt@kline_1m",
    ]});
    assert_eq!(sent(&steps), [message]);
    let steps = tried.frame(&json!({"result": null, "id": 1}));
    let urls: Vec<String> = asked(&steps).into_iter().map(|(_, url)| url).collect();
    let url = |symbol| format!("https://api.binance.com/api/v3/depth?symbol={symbol}&limit=1000");
    assert_eq!(urls, [url("BTCUSDT"), url("ETHUSDT")]);
    assert_eq!(steps.last(), Some(&Step::Ready));
    // A refusal ends the connection.
    let (mut tried, _) = Tried::new(&binance(), &[]);
    let steps = tried.frame(&json!({"error": {"code": 2, "msg": "Invalid request"}, "id": 1}));
    assert_eq!(troubles(&steps), ["refused"]);
    assert!(matches!(steps.last(), Some(Step::Reconnect(_))));
}

#[test]
fn a_missing_acknowledgement_ends_the_connection_and_a_silent_stream_is_requested_again() {
    let (mut tried, _) = Tried::new(&binance(), &[]);
    assert_eq!(tried.tick(Duration::from_secs(10)), []);
    let steps = tried.tick(Duration::from_secs(1));
    assert!(
        matches!(&steps[..], [Step::Reconnect(why)] if why.contains("was not acknowledged")),
        "{steps:?}"
    );

    let mut tried = binance_ready(&[]);
    tried.tick(Duration::from_secs(55));
    tried.frame(&binance_trade(1));
    let steps = tried.tick(Duration::from_secs(6));
    assert_eq!(sent(&steps)[0]["params"], json!(["btcusdt@depth@100ms"]), "trades came");
    assert!(tried.frame(&json!({"result": null, "id": 3})).is_empty(), "it was ready before");
    // A connection is replaced before the exchange's limit of a day.
    let mut tried = binance_ready(&[]);
    tried.after = Duration::from_secs(23 * 3_600 + 1_801);
    assert!(matches!(&tried.tick(Duration::ZERO)[..], [Step::Reconnect(why)] if why.contains("after a day")));
    let steps = tried.frame(&json!({"e": "serverShutdown", "E": 1770123456789_u64}));
    assert!(matches!(&steps[..], [Step::Reconnect(_)]));
}

#[test]
fn tickers_and_candles_of_binance_keep_their_digits() {
    let (mut tried, _) = Tried::new(&binance(), &[]);
    let ticker = json!({
        "e": "24hrTicker", "E": 1672515782136_u64, "s": "BTCUSDT", "p": "-131.40000000", "P": "-0.786",
        "c": "16584.60000000", "Q": "0.002", "b": "16584.50", "B": "1", "a": "16584.70", "A": "2.0",
        "o": "16716.00000000", "h": "16764.89", "l": "16456.51", "v": "122474.816", "q": "2036102085.69746400",
        "n": 142853,
    });
    let steps = tried.frame(&ticker);
    let (kind, time, data) = events(&steps)[0].clone();
    assert_eq!((kind, time), ("ticker", 1_672_515_782_136));
    let expected = json!({
        "exchange": "binance", "symbol": "BTC-USDT", "price": "16584.60000000", "bid": "16584.50",
        "bidSize": "1", "ask": "16584.70", "askSize": "2.0", "open": "16716.00000000", "high": "16764.89",
        "low": "16456.51", "volume": "122474.816", "quoteVolume": "2036102085.69746400",
    });
    assert_eq!(data, expected);
    let Some(Step::Price { zone, json }) = steps.get(1) else { panic!("{steps:?}") };
    assert_eq!(zone.as_str(), "btc-usdt");
    let price = parse_price(json, BEGUN, Duration::MAX).unwrap();
    assert_eq!(price.key.as_deref(), Some("binance:BTC-USDT"));
    assert!(std::str::from_utf8(&price.data).unwrap().contains(r#""price":16584.60000000,"#), "{json}");

    for is_closed in [false, true] {
        let candle = json!({"e": "kline", "E": 1638747660001_u64, "s": "ETHUSDT", "k": {
            "t": 1638747660000_u64, "T": 1638747719999_u64, "s": "ETHUSDT", "i": "1m", "o": "0.0010",
            "c": "0.0020", "h": "0.0025", "l": "0.0015", "v": "1000", "n": 100, "x": is_closed, "q": "1.0000",
        }});
        let steps = tried.frame(&candle);
        let expected = json!({
            "exchange": "binance", "symbol": "ETH-USDT", "interval": "1m", "openTime": 1638747660000_u64,
            "open": "0.0010", "high": "0.0025", "low": "0.0015", "close": "0.0020", "volume": "1000",
            "closed": is_closed,
        });
        assert_eq!(events(&steps)[0].2, expected);
    }
}

#[test]
fn a_book_of_binance_begins_with_a_snapshot_that_held_changes_follow() {
    let config = config("symbols = ['BTC-USDT']\ntypes = ['orderbook']");
    let (mut tried, _) = Tried::new(&config, &[]);
    let steps = tried.frame(&json!({"result": null, "id": 1}));
    let (id, _) = asked(&steps)[0].clone();
    for frame in [
        depth(150, 156, &json!([["0.0024", "1"]])),
        depth(157, 162, &json!([["0.0024", "0"], ["0.0023", "7"]])),
        depth(163, 163, &json!([["0.0022", "1"]])),
    ] {
        assert_eq!(tried.frame(&frame), [], "it waits for the snapshot");
    }
    let book = json!({
        "lastUpdateId": 160, "bids": [["0.0024", "10"], ["0.00235", "2"]], "asks": [["0.0026", "100"]],
    });
    let seen = events(&tried.fetched(id, &book));
    let of = |n: usize| &seen[n].2;
    assert_eq!(seen.len(), 3, "the first change is older than the snapshot");
    assert_eq!((&of(0)["kind"], &of(0)["sequence"]), (&json!("snapshot"), &json!(160)));
    assert_eq!(of(0)["bids"], json!([["0.0024", "10"], ["0.00235", "2"]]));
    assert_eq!((&of(1)["sequence"], &of(1)["previousSequence"]), (&json!(162), &json!(160)));
    assert_eq!((&of(2)["sequence"], &of(2)["previousSequence"]), (&json!(163), &json!(162)));
    // Snapshots are published from time to time, for late subscribers.
    let seen = events(&tried.tick(Duration::from_secs(11)));
    assert_eq!(seen[0].2["bids"], json!([["0.00235", "2"], ["0.0023", "7"], ["0.0022", "1"]]));
}

#[test]
fn a_gap_in_a_book_of_binance_leads_to_a_new_snapshot() {
    let mut tried = binance_ready(&[]);
    assert_eq!(events(&tried.frame(&depth(161, 165, &json!([])))).len(), 1);
    let steps = tried.frame(&depth(167, 168, &json!([["0.0024", "9"]])));
    assert_eq!((troubles(&steps), events(&steps).len()), (vec!["gap"], 0), "nothing of it is published");
    let (id, _) = asked(&steps)[0].clone();
    assert_eq!(tried.frame(&depth(169, 169, &json!([["0.0021", "3"]]))), []);
    // A snapshot older than the buffered changes is useless: another one is requested.
    let old = json!({"lastUpdateId": 161, "bids": [], "asks": []});
    assert_eq!(tried.fetched(id, &old), []);
    let (id, _) = asked(&tried.tick(Duration::from_secs(1)))[0].clone();
    let seen =
        events(&tried.fetched(id, &json!({"lastUpdateId": 168, "bids": [["0.0024", "9"]], "asks": []})));
    let sequences: Vec<_> =
        seen.iter().map(|(.., data)| (data["kind"].clone(), data["sequence"].clone())).collect();
    assert_eq!(sequences, [(json!("snapshot"), json!(168)), (json!("delta"), json!(169))]);
}

#[test]
fn missing_trades_of_binance_are_requested() {
    let mut tried = binance_ready(&[("BTC-USDT", 10)]);
    assert_eq!(ids(&tried.frame(&binance_trade(10))), [""; 0], "it was published before");
    assert_eq!(ids(&tried.frame(&binance_trade(11))), ["11"]);
    let steps = tried.frame(&binance_trade(15));
    let (id, url) = asked(&steps)[0].clone();
    assert_eq!(
        (ids(&steps).len(), url.as_str()),
        (0, "https://api.binance.com/api/v3/trades?symbol=BTCUSDT&limit=1000")
    );
    assert_eq!(tried.frame(&binance_trade(16)), []);
    let given = |id: u64| json!({"id": id, "price": "0.00100", "qty": "12.0", "time": 1499865549590_u64, "isBuyerMaker": false, "isBestMatch": true});
    let steps = tried.fetched(id, &json!([given(13), given(14), given(15)]));
    assert_eq!(ids(&steps), ["13", "14", "15", "16"]);
    assert_eq!(troubles(&steps), ["trades_missed"], "the twelfth is older than those in the answer");
    assert_eq!(events(&steps)[0].2["side"], "buy");
    // Without an answer, the waiting trades are published after some attempts.
    let mut steps = tried.frame(&binance_trade(20));
    for _ in 0..3 {
        steps = tried.answered(asked(&steps)[0].0, Err("no answer"));
        if ids(&steps).is_empty() {
            steps = tried.tick(Duration::from_secs(2));
        }
    }
    assert_eq!(ids(&steps), ["20"]);
    assert_eq!(events(&tried.frame(&binance_trade(21)))[0].2["side"], "sell");
}

fn kraken(types: &str) -> ExchangeConfig {
    config(&format!("kind = 'kraken'\nsymbols = ['BTC-USD']\ntypes = {types}\ndepth = 10\ninterval = '1m'"))
}

#[test]
fn kraken_is_subscribed_to_and_its_tickers_keep_their_digits() {
    let (mut tried, mut steps) = Tried::new(&kraken("['ticker', 'trade', 'orderbook', 'candle']"), &[]);
    for _ in 0..3 {
        steps.extend(tried.tick(Duration::from_millis(100)));
    }
    let params: Vec<Value> = sent(&steps).into_iter().map(|message| message["params"].clone()).collect();
    assert_eq!(
        params,
        [
            json!({"channel": "ticker", "symbol": ["BTC/USD"]}),
            json!({"channel": "trade", "symbol": ["BTC/USD"], "snapshot": true}),
            json!({"channel": "book", "symbol": ["BTC/USD"], "snapshot": true, "depth": 10}),
            json!({"channel": "ohlc", "symbol": ["BTC/USD"], "snapshot": true, "interval": 1}),
        ]
    );
    let mut last = vec![];
    for channel in ["ticker", "trade", "book", "ohlc"] {
        last = tried.frame(&json!({
            "method": "subscribe", "result": {"channel": channel, "symbol": "BTC/USD", "snapshot": true},
            "success": true, "time_in": "2023-09-25T09:04:31.742599Z", "req_id": 1,
        }));
    }
    assert_eq!(last, [Step::Ready]);
    assert_eq!(tried.frame(&json!({"channel": "heartbeat"})), []);
    let text = r#"{"channel":"ticker","type":"snapshot","data":[{"symbol":"BTC/USD","bid":105944.20,"bid_qty":2.50,
        "ask":105944.30,"ask_qty":3.2,"last":105899.40,"volume":163.28908096,"vwap":105904.39279,"low":104711.00,
        "high":106613.10,"change":250.00,"change_pct":0.24,"timestamp":"2022-12-25T09:30:59.123456Z"}]}"#;
    let (_, time, data) = events(&tried.text(text))[0].clone();
    assert_eq!(
        (time, &data["bid"], &data["bidSize"]),
        (1_671_960_659_123, &json!("105944.20"), &json!("2.50"))
    );
    assert_eq!(
        troubles(
            &tried
                .frame(&json!({"channel": "status", "type": "update", "data": [{"system": "maintenance"}]}))
        ),
        ["refused"]
    );
    let refused =
        json!({"method": "subscribe", "success": false, "error": "Currency pair not supported A/B"});
    assert!(matches!(tried.frame(&refused).last(), Some(Step::Reconnect(_))));
}

fn crc(digits: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(digits.as_bytes());
    crc.sum()
}

fn kraken_book(kind: &str, bids: &str, asks: &str, checksum: u32) -> String {
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":{bids},"asks":{asks},
        "checksum":{checksum},"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}"#
    )
}

#[test]
fn a_book_of_kraken_is_checked_by_its_checksum() {
    let (mut tried, _) = Tried::new(&kraken("['orderbook']"), &[]);
    let level = |price: &str, qty: &str| format!(r#"[{{"price":{price},"qty":{qty}}}]"#);
    let first = crc("1059443013610594420136");
    let book = kraken_book("snapshot", &level("105944.20", "0.136"), &level("105944.30", "0.136"), first);
    let seen = events(&tried.text(&book));
    assert_eq!(seen[0].2["bids"], json!([["105944.20", "0.136"]]));
    let sequence = seen[0].2["sequence"].as_u64().unwrap();
    let second = crc("1059443013610594420250");
    let seen = events(&tried.text(&kraken_book("update", &level("105944.20", "0.250"), "[]", second)));
    assert_eq!(seen[0].2["previousSequence"], sequence);
    assert_eq!((&seen[0].2["kind"], &seen[0].2["bids"]), (&json!("delta"), &json!([["105944.20", "0.250"]])));
    // A change is missing: later ones are not published until there is a snapshot.
    let steps = tried.text(&kraken_book("update", "[]", &level("105944.30", "1"), 7));
    assert_eq!((troubles(&steps), events(&steps).len()), (vec!["gap"], 0));
    assert_eq!(tried.text(&kraken_book("update", "[]", "[]", second)), []);
    let mut steps = tried.tick(Duration::from_secs(1));
    steps.extend(tried.tick(Duration::from_millis(100)));
    let methods: Vec<_> = sent(&steps).iter().map(|message| message["method"].clone()).collect();
    assert_eq!(methods, ["unsubscribe", "subscribe"]);
    let seen = events(&tried.text(&book));
    assert!(seen[0].2["sequence"].as_u64().unwrap() > sequence);
}

#[test]
fn trades_of_kraken_continue_after_the_last_published_one() {
    let (mut tried, _) = Tried::new(&kraken("['trade']"), &[("BTC-USD", 5)]);
    let trades =
        |kind: &str, ids: &[u64]| {
            let data: Vec<Value> = ids.iter().map(|id| json!({
            "symbol": "BTC/USD", "side": "sell", "price": 105944.25, "qty": 0.5, "ord_type": "limit",
            "trade_id": id, "timestamp": "2023-10-06T17:35:55.440295Z",
        })).collect();
            json!({"channel": "trade", "type": kind, "data": data})
        };
    assert_eq!(ids(&tried.frame(&trades("snapshot", &[4, 5, 6, 7]))), ["6", "7"]);
    let steps = tried.frame(&trades("update", &[8, 10]));
    assert_eq!((ids(&steps), troubles(&steps)), (vec!["8".into(), "10".into()], vec!["trades_missed"]));
    let (_, time, data) = events(&steps)[0].clone();
    assert_eq!(
        (time, &data["side"], &data["price"]),
        (1_696_613_755_440, &json!("sell"), &json!("105944.25"))
    );
}

#[test]
fn candles_of_kraken_are_closed_by_the_clock() {
    let (mut tried, _) = Tried::new(&kraken("['candle']"), &[]);
    let begin = BEGUN.timestamp() / 60 * 60;
    let candle = |close: f64| {
        let begin = DateTime::from_timestamp(begin, 0).unwrap().to_rfc3339();
        json!({"channel": "ohlc", "type": "update", "data": [{
            "symbol": "BTC/USD", "interval": 1, "interval_begin": begin, "open": 1.5, "high": 2.5, "low": 1.5,
            "close": close, "volume": 30927.68066226, "vwap": 106039.6, "trades": 12,
        }]})
    };
    assert_eq!(events(&tried.frame(&candle(2.5)))[0].2["closed"], false);
    assert_eq!(events(&tried.tick(Duration::from_secs(70)))[0].2["closed"], true);
    let (.., data) = events(&tried.frame(&candle(2.25)))[0].clone();
    assert_eq!(
        (&data["closed"], &data["correction"], &data["close"]),
        (&json!(true), &json!(true), &json!("2.25"))
    );
}

fn coinbase(types: &str) -> ExchangeConfig {
    config(&format!("kind = 'coinbase'\nsymbols = ['BTC-USD']\ntypes = {types}"))
}

fn coinbase_frame(channel: &str, number: u64, events: &Value) -> Value {
    json!({"channel": channel, "client_id": "", "timestamp": "2026-04-07T14:30:02.789012Z", "sequence_num": number, "events": events})
}

#[test]
fn coinbase_channels_are_subscribed_to_one_by_one() {
    let (mut tried, mut steps) = Tried::new(&coinbase("['trade', 'orderbook']"), &[]);
    for _ in 0..2 {
        steps.extend(tried.tick(Duration::from_millis(200)));
    }
    assert_eq!(
        sent(&steps),
        [
            json!({"type": "subscribe", "channel": "heartbeats"}),
            json!({"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD"]}),
            json!({"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]}),
        ]
    );
    let subscribed = json!([{"subscriptions": {"level2": ["BTC-USD"], "market_trades": ["BTC-USD"]}}]);
    assert_eq!(tried.frame(&coinbase_frame("subscriptions", 0, &subscribed)), [Step::Ready]);
    // A missing message makes the connection's state unknown.
    let beat = json!([{"current_time": "2026-04-07 14:30:10", "heartbeat_counter": 42}]);
    assert_eq!(tried.frame(&coinbase_frame("heartbeats", 1, &beat)), []);
    assert_eq!(tried.frame(&coinbase_frame("heartbeats", 1, &beat)), []);
    // So does one that is not understood.
    tried.malformed(&coinbase_frame("level2", 2, &beat).to_string());
    let steps = tried.frame(&coinbase_frame("heartbeats", 3, &beat));
    assert!(matches!(&steps[..], [Step::Trouble(Trouble::Gap(_)), Step::Reconnect(_)]), "{steps:?}");
    let steps = tried.frame(&json!({"type": "error", "message": "authentication failure"}));
    assert!(matches!(&steps[..], [Step::Trouble(Trouble::Refused(_)), Step::Reconnect(_)]));
}

#[test]
fn books_trades_and_tickers_of_coinbase() {
    let (mut tried, _) =
        Tried::new(&coinbase("['ticker', 'trade', 'orderbook', 'candle']"), &[("BTC-USD", 995098699)]);
    let level = |side, price, size| json!({"side": side, "event_time": "2026-04-07T14:30:00.123456Z", "price_level": price, "new_quantity": size});
    let book = json!([{"type": "snapshot", "product_id": "BTC-USD", "updates": [
        level("bid", "68900.00", "1.50000000"), level("offer", "68901.00", "0.50000000"),
        level("bid", "68899.50", "0.75000000"), level("offer", "68902.00", "0"),
    ]}]);
    let change = json!([{"type": "update", "product_id": "BTC-USD", "updates": [level("offer", "68901.00", "0.00000000")]}]);
    assert_eq!(tried.frame(&coinbase_frame("l2_data", 0, &change)), [], "there is no book yet");
    let seen = events(&tried.frame(&coinbase_frame("l2_data", 1, &book)));
    assert_eq!(seen[0].2["bids"], json!([["68900.00", "1.50000000"], ["68899.50", "0.75000000"]]));
    assert_eq!(seen[0].2["asks"], json!([["68901.00", "0.50000000"]]));
    let change = events(&tried.frame(&coinbase_frame("l2_data", 2, &change)));
    assert_eq!(change[0].2["asks"], json!([["68901.00", "0.00000000"]]));
    assert_eq!(change[0].2["previousSequence"], seen[0].2["sequence"]);

    let trade = |id: &str, side: &str| {
        json!({
            "trade_id": id, "product_id": "BTC-USD", "price": "68900.50", "size": "0.00150000", "side": side,
            "time": "2026-04-07T14:30:02.789012Z",
        })
    };
    // The newest trade comes first, and the side is that of the resting order.
    let trades =
        json!([{"type": "update", "trades": [trade("995098701", "SELL"), trade("995098700", "BUY")]}]);
    let seen = events(&tried.frame(&coinbase_frame("market_trades", 3, &trades)));
    let sides: Vec<_> =
        seen.iter().map(|(.., data)| (data["tradeId"].clone(), data["side"].clone())).collect();
    assert_eq!(sides, [(json!("995098700"), json!("sell")), (json!("995098701"), json!("buy"))]);

    let ticker = json!([{"type": "snapshot", "tickers": [{
        "type": "ticker", "product_id": "BTC-USD", "price": "68900.50", "volume_24_h": "15328.12345678",
        "low_24_h": "67500.00", "high_24_h": "69200.00", "price_percent_chg_24_h": "1.85",
        "best_bid": "68900.00", "best_bid_quantity": "1.5", "best_ask": "68901.00", "best_ask_quantity": "0.5",
    }]}]);
    let seen = events(&tried.frame(&coinbase_frame("ticker", 4, &ticker)));
    assert_eq!((&seen[0].2["price"], &seen[0].2["bid"]), (&json!("68900.50"), &json!("68900.00")));
    let start = (BEGUN.timestamp() / 300 * 300).to_string();
    let candle = json!([{"type": "update", "candles": [{
        "start": start, "high": "68950.00", "low": "68850.00", "open": "68900.00", "close": "68920.50",
        "volume": "42.15000000", "product_id": "BTC-USD",
    }]}]);
    let seen = events(&tried.frame(&coinbase_frame("candles", 5, &candle)));
    assert_eq!((&seen[0].2["interval"], &seen[0].2["close"]), (&json!("5m"), &json!("68920.50")));
}

#[test]
fn no_part_of_a_malformed_frame_is_used() {
    let mut of = BTreeMap::from([
        ("binance", Tried::new(&binance(), &[]).0),
        ("kraken", Tried::new(&kraken("['ticker', 'trade', 'orderbook', 'candle']"), &[]).0),
        ("coinbase", Tried::new(&coinbase("['ticker', 'trade', 'orderbook', 'candle']"), &[]).0),
    ]);
    for (exchange, frame) in [
        ("binance", ""),
        ("binance", "[]"),
        ("binance", "{}"),
        ("binance", r#"{"id":99,"result":null}"#),
        ("binance", r#"{"data":{"e":"trade","s":"BTCUSDT","t":1,"p":"x","q":"1","T":1,"m":true}}"#),
        ("binance", r#"{"data":{"e":"trade","s":"NO","t":1,"p":"1","q":"1","T":1,"m":true}}"#),
        ("binance", r#"{"data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":9,"u":1,"b":[],"a":[]}}"#),
        ("binance", r#"{"data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"b":[["1"]],"a":[]}}"#),
        ("binance", r#"{"data":{"e":"unheard","E":1}}"#),
        ("kraken", "null"),
        ("kraken", r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD"}]}"#),
        ("kraken", r#"{"channel":"other","data":[]}"#),
        (
            "kraken",
            r#"{"channel":"ohlc","data":[{"symbol":"BTC/USD","interval":9,"interval_begin":"2023-10-04T16:25:00Z","open":1,"high":1,"low":1,"close":1,"volume":1}]}"#,
        ),
        ("coinbase", r#"{"channel":"l2_data","events":[]}"#),
        (
            "coinbase",
            r#"{"channel":"l2_data","sequence_num":0,"events":[{"type":"other","product_id":"BTC-USD","updates":[]}]}"#,
        ),
        (
            "coinbase",
            r#"{"channel":"market_trades","sequence_num":1,"events":[{"trades":[{"trade_id":"x","product_id":"BTC-USD","price":"1","size":"1","side":"BUY","time":"2026-04-07T14:30:02Z"}]}]}"#,
        ),
    ] {
        assert!(!of.get_mut(exchange).unwrap().malformed(frame).is_empty());
    }
}

fn rows(text: &str) -> ExchangeConfig {
    config(&format!("kind = 'http'\nname = 'iso'\nurl = 'http://example.com/lmp'\nrows = {text}"))
}

fn prices(steps: &[Step]) -> Vec<(String, String)> {
    all(steps, |step| {
        let Step::Price { zone, json } = step else { return None };
        // A row may have an invalid key, which the intake of prices refuses and counts.
        let refused = parse_price(json, BEGUN, Duration::MAX).err();
        assert!(refused.is_none_or(|error| error.code == ProblemCode::InvalidKey), "{json}");
        Some((zone.to_string(), json.clone()))
    })
}

#[test]
fn rows_of_csv_are_prices_and_repeated_rows_are_skipped() {
    let config = rows(
        "{ zone = 'pjm', every_s = 300, key_columns = ['pnode_name'], price_column = 'total_lmp_rt', time_column = 'at' }",
    );
    let (mut tried, steps) = Tried::new(&config, &[]);
    assert_eq!(asked(&steps), [(0, "http://example.com/lmp".to_owned())]);
    let answer = |rows: &str| format!("pnode_name,total_lmp_rt,at\n{rows}");
    let (steps, _) =
        tried.answer(0, Ok(&answer("WESTERN HUB,31.50,2025-10-09T08:00:00Z\nX,oops,2025-10-09T08:00:00Z\n")));
    assert_eq!((steps[0].clone(), troubles(&steps)), (Step::Ready, vec!["malformed"]));
    assert_eq!(prices(&steps).len(), 1);
    assert!(prices(&steps)[0].1.contains("31.50"), "{steps:?}");
    assert_eq!(tried.tick(Duration::from_secs(299)), []);
    assert_eq!(asked(&tried.tick(Duration::from_secs(1))).len(), 1);
    let (steps, _) = tried.answer(
        0,
        Ok(&answer("WESTERN HUB,31.50,2025-10-09T08:00:00Z\nWESTERN HUB,32.00,2025-10-09T08:05:00Z\n")),
    );
    assert_eq!(prices(&steps).len(), 1, "one is new");
    for n in [1, 2] {
        assert_eq!(troubles(&tried.answered(0, Err("a request was answered with 500"))), ["refused"], "{n}");
    }
    let (steps, understood) = tried.answer(0, Ok("nothing,known\n1,2\n"));
    assert!(steps.is_empty() && understood.is_err(), "{understood:?}");
}

#[test]
fn rows_of_json_are_found_by_a_pointer() {
    let config =
        rows("{ zone_column = 'market', at = '/data/items', key_columns = ['hub'], price_column = 'lmp' }");
    let (mut tried, _) = Tried::new(&config, &[]);
    let text = "{\"data\": {\"items\": [\n{\"market\": \"pjm\", \"hub\": \"A\",\n \"lmp\": 31.50},\n\
                {\"market\": \"spp\", \"hub\": \"B\", \"lmp\": \"7.0\"}]}}";
    let found = prices(&tried.answered(0, Ok(text)));
    assert_eq!(found.iter().map(|(zone, _)| zone.as_str()).collect::<Vec<_>>(), ["pjm", "spp"]);
    assert!(found[0].1.contains("31.50"), "{found:?}");
    assert!(tried.answer(0, Ok("{\"data\":[]}")).1.unwrap_err().contains("/data/items"));
    // Each message of a WebSocket is new.
    let config = ExchangeConfig {
        kind: ExchangeKind::Websocket,
        url: Some("ws://x/".to_owned()),
        ..rows("{ zone = 'spp', subscribe = ['hello'] }")
    };
    let (mut tried, steps) = Tried::new(&config, &[]);
    assert_eq!(steps, [Step::Send("hello".to_owned()), Step::Ready]);
    for _ in 0..2 {
        assert_eq!(prices(&tried.frame(&json!({"key": "A", "price": 1.5}))).len(), 1);
    }
}

#[test]
fn times_that_no_gateway_accepts_make_a_frame_malformed() {
    let far = "+262142-12-31T23:59:59Z";
    let (mut tried, _) = Tried::new(&kraken("['ticker', 'trade', 'orderbook', 'candle']"), &[]);
    for data in [
        json!({"symbol": "BTC/USD", "last": 1, "timestamp": far}),
        json!({"symbol": "BTC/USD", "last": 1, "timestamp": "1969-12-31T23:59:59Z"}),
    ] {
        let frame = json!({"channel": "ticker", "type": "update", "data": [data]});
        assert!(tried.malformed(&frame.to_string()).contains("time"), "{frame}");
    }
    let candle = json!({"symbol": "BTC/USD", "interval": 1, "interval_begin": far, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1});
    let frame = json!({"channel": "ohlc", "type": "update", "data": [candle]});
    assert!(tried.malformed(&frame.to_string()).contains("time"));

    let (mut tried, _) = Tried::new(&coinbase("['candle']"), &[]);
    let candle = json!([{"candles": [{"start": "8210266876799", "product_id": "BTC-USD", "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1"}]}]);
    assert!(tried.malformed(&coinbase_frame("candles", 0, &candle).to_string()).contains("time"));

    let mut tried = binance_ready(&[]);
    let mut trade = binance_trade(1);
    trade["data"]["T"] = u64::MAX.into();
    assert!(tried.malformed(&trade.to_string()).contains("time"));
    assert_eq!(ids(&tried.frame(&binance_trade(1))), ["1"], "the number was not recorded");
}

#[test]
fn nothing_of_a_malformed_frame_is_published() {
    let tickers = |theirs: [&str; 2]| theirs.map(|symbol| json!({"symbol": symbol, "last": 1}));
    let (mut tried, _) = Tried::new(&kraken("['ticker']"), &[]);
    let frame = json!({"channel": "ticker", "type": "update", "data": tickers(["BTC/USD", "X/Y"])});
    assert!(tried.malformed(&frame.to_string()).contains("not subscribed to"));
    let (mut tried, _) = Tried::new(&coinbase("['ticker']"), &[]);
    let tickers =
        json!([{"tickers": [{"product_id": "BTC-USD", "price": "1"}, {"product_id": "X-Y", "price": "1"}]}]);
    assert!(
        tried.malformed(&coinbase_frame("ticker", 0, &tickers).to_string()).contains("not subscribed to")
    );
    let all = json!([{"subscriptions": {"ticker": ["BTC-USD", "X-Y"]}}]);
    assert!(
        tried.malformed(&coinbase_frame("subscriptions", 0, &all).to_string()).contains("not subscribed to")
    );
}

#[test]
fn the_greatest_number_does_not_overflow() {
    let config = config("symbols = ['BTC-USDT']\ntypes = ['orderbook']");
    let (mut tried, _) = Tried::new(&config, &[]);
    let steps = tried.frame(&json!({"result": null, "id": 1}));
    tried.frame(&depth(u64::MAX, u64::MAX, &json!([["1", "1"]])));
    let book = json!({"lastUpdateId": u64::MAX, "bids": [["1", "2"]], "asks": []});
    let steps = tried.fetched(asked(&steps)[0].0, &book);
    assert_eq!(events(&steps)[0].2["sequence"], u64::MAX);
}

/// Checks that no input makes the adapter panic, and that every published event is complete.
fn survives(config: &ExchangeConfig, frames: &[String]) {
    let (mut tried, _) = Tried::new(config, &[]);
    for frame in frames {
        let (mut steps, _) = tried.hear(frame);
        for (id, _) in asked(&steps) {
            steps.extend(tried.answer(id, Ok(frame)).0);
        }
        events(&steps);
        prices(&steps);
        events(&tried.tick(Duration::from_millis(700)));
    }
}

/// Frames that are nearly valid: some bytes of a valid one are changed.
fn nearly(good: Vec<String>) -> impl Strategy<Value = Vec<String>> {
    let one = (0..good.len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3));
    prop::collection::vec(one, 1..12).prop_map(move |picks| {
        let frames = picks.into_iter().map(|(n, changes)| {
            let mut bytes = good[n].clone().into_bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        frames.collect()
    })
}

fn good_frames() -> Vec<String> {
    let mut market = Market::new(&["BTC-USDT".to_owned()], 7, BEGUN);
    let mut frames: Vec<String> = (0..4).flat_map(|_| market.frames(BEGUN)).collect();
    frames.push(json!({"result": null, "id": 1}).to_string());
    frames.push(market.answer("https://x/api/v3/depth?symbol=BTCUSDT&limit=1000"));
    frames.push(kraken_book("snapshot", r#"[{"price":1.5,"qty":2}]"#, "[]", crc("152")));
    frames.push(r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":1.5,"qty":1,"trade_id":7,"timestamp":"2023-10-06T17:35:55Z"}]}"#.to_owned());
    let trade = json!([{"trades": [{"trade_id": "9", "product_id": "BTC-USD", "price": "1", "size": "1", "side": "BUY", "time": "2026-04-07T14:30:02Z"}]}]);
    frames.push(coinbase_frame("market_trades", 0, &trade).to_string());
    let book = json!([{"type": "snapshot", "product_id": "BTC-USD", "updates": [{"side": "bid", "price_level": "1", "new_quantity": "2"}]}]);
    frames.push(coinbase_frame("l2_data", 1, &book).to_string());
    frames.push(r#"[{"key":"A","price":1.5},{"key":"B","bid":1,"ask":2}]"#.to_owned());
    frames.push("key,price\nA,1.50\n".to_owned());
    frames
}

fn all_kinds() -> [ExchangeConfig; 4] {
    let types = "['ticker', 'trade', 'orderbook', 'candle']";
    [binance(), kraken(types), coinbase(types), rows("{ zone = 'pjm' }")]
}

proptest! {
    #[test]
    fn no_frame_makes_an_adapter_panic_or_publish_half_an_event(frames in nearly(good_frames()), noise in ".{0,200}") {
        for config in all_kinds() {
            survives(&config, &frames);
            survives(&config, std::slice::from_ref(&noise));
        }
    }

    /// Whatever is lost, changes of a book follow each other without a gap from a snapshot on.
    #[test]
    fn changes_of_a_book_follow_each_other(lost in prop::collection::vec(any::<bool>(), 40)) {
        let config = config("symbols = ['BTC-USDT']\ntypes = ['orderbook']");
        let (mut tried, _) = Tried::new(&config, &[]);
        let mut market = Market::new(&config.symbols, 3, BEGUN);
        let mut seen = Vec::new();
        let mut steps = tried.frame(&json!({"result": null, "id": 1}));
        for is_lost in lost {
            for frame in market.frames(BEGUN) {
                if is_lost || !frame.contains("depthUpdate") {
                    continue;
                }
                steps.extend(tried.text(&frame));
            }
            for (id, url) in asked(&steps) {
                steps.extend(tried.answered(id, Ok(&market.answer(&url))));
            }
            seen.extend(events(&steps));
            steps = tried.tick(Duration::from_millis(600));
        }
        let mut sequence = None;
        for (.., data) in seen {
            if data["kind"] == "delta" {
                prop_assert_eq!(data["previousSequence"].as_u64(), sequence);
            }
            sequence = data["sequence"].as_u64();
        }
        prop_assert!(sequence.is_some());
    }
}
