//! Kraken: its WebSocket, version 2.
//!
//! A book is sent as a snapshot and changes, each with a checksum of the ten best levels; a checksum that
//! differs shows that a change is missing. A trade stream begins with the latest trades, which include those
//! missed during a pause. The exchange does not say when a candle is closed.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Duration, Instant};

use super::book::{Book, Level, Sides};
use super::candles::Candle;
use super::decimal::Decimal;
use super::desk::{Desk, Trade};
use super::{
    ExchangeConfig, Feed, Malformed, Moment, Resume, STREAMED, Step, Trouble, milliseconds, open_time, parse,
    refused,
};
use crate::model::EventType;

/// The exchange documents no limit for public messages, but refuses many at once.
const SEND_EVERY: Duration = Duration::from_millis(50);

/// How long after a wrong checksum a book is requested again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How many levels of each side a checksum covers.
const CHECKED: usize = 10;

pub(crate) struct Kraken {
    desk: Desk,
    /// Books to request again, and when.
    again: Vec<(Instant, usize)>,
    next_id: u64,
}

#[derive(Deserialize)]
struct Message<'a> {
    channel: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    data: Option<&'a RawValue>,
    method: Option<&'a str>,
    success: Option<bool>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Subscribed<'a> {
    channel: &'a str,
    #[serde(borrow)]
    symbol: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Status<'a> {
    system: &'a str,
}

#[derive(Deserialize)]
struct TickerData<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    bid: Option<Decimal<'a>>,
    bid_qty: Option<Decimal<'a>>,
    ask: Option<Decimal<'a>>,
    ask_qty: Option<Decimal<'a>>,
    last: Option<Decimal<'a>>,
    volume: Option<Decimal<'a>>,
    low: Option<Decimal<'a>>,
    high: Option<Decimal<'a>>,
    timestamp: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct TradeData<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    side: &'a str,
    price: Decimal<'a>,
    qty: Decimal<'a>,
    trade_id: u64,
    timestamp: DateTime<Utc>,
}

#[derive(Deserialize)]
struct LevelData<'a> {
    #[serde(borrow)]
    price: Decimal<'a>,
    qty: Decimal<'a>,
}

#[derive(Deserialize)]
struct BookData<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    bids: Vec<LevelData<'a>>,
    asks: Vec<LevelData<'a>>,
    checksum: u32,
    timestamp: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct CandleData<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    interval: u32,
    interval_begin: DateTime<Utc>,
    open: Decimal<'a>,
    high: Decimal<'a>,
    low: Decimal<'a>,
    close: Decimal<'a>,
    volume: Decimal<'a>,
}

fn channel_of(kind: EventType) -> &'static str {
    match kind {
        EventType::Trade => "trade",
        EventType::Orderbook => "book",
        EventType::Candle => "ohlc",
        _ => "ticker",
    }
}

fn levels(data: Vec<LevelData<'_>>) -> Vec<Level<'_>> {
    data.into_iter().map(|level| (level.price, level.qty)).collect()
}

/// CRC-32 of the digits of the best levels, asks first.
fn checksum(book: &Book) -> u32 {
    let (bids, asks) = book.best(CHECKED);
    let mut digits = String::new();
    for (price, size) in asks.into_iter().chain(bids) {
        for text in [price, size] {
            let all: String = text.chars().filter(|c| *c != '.').collect();
            digits.push_str(all.trim_start_matches('0'));
        }
    }
    let mut crc = flate2::Crc::new();
    crc.update(digits.as_bytes());
    crc.sum()
}

impl Kraken {
    pub(crate) fn new(config: &ExchangeConfig, resume: &Resume, at: Moment) -> Self {
        let theirs = |base: &str, quote: &str| format!("{base}/{quote}");
        Self { desk: Desk::new(config, resume, theirs, SEND_EVERY, at), again: Vec::new(), next_id: 1 }
    }

    fn request(
        &mut self,
        method: &str,
        kind: EventType,
        symbols: &[usize],
        at: Moment,
        steps: &mut Vec<Step>,
    ) {
        let names: Vec<&str> =
            symbols.iter().map(|symbol| self.desk.symbols[*symbol].theirs.as_str()).collect();
        let mut params = serde_json::json!({"channel": channel_of(kind), "symbol": names});
        if method == "subscribe" && kind != EventType::Ticker {
            params["snapshot"] = true.into();
        }
        match kind {
            EventType::Orderbook => params["depth"] = self.desk.depth.into(),
            EventType::Candle => params["interval"] = self.desk.interval.minutes().into(),
            _ => {}
        }
        let message = serde_json::json!({"method": method, "params": params, "req_id": self.next_id});
        self.next_id += 1;
        self.desk.send(message.to_string(), at.now, steps);
    }

    fn subscribe(&mut self, kind: EventType, symbols: &[usize], at: Moment, steps: &mut Vec<Step>) {
        symbols.iter().for_each(|symbol| self.desk.streams.ask(*symbol, kind, at.now));
        self.request("subscribe", kind, symbols, at, steps);
    }

    /// Only a new subscription brings a new snapshot.
    fn begin_again(&mut self, kind: EventType, symbol: usize, at: Moment, steps: &mut Vec<Step>) {
        self.request("unsubscribe", kind, &[symbol], at, steps);
        self.subscribe(kind, &[symbol], at, steps);
    }

    fn answered(
        &mut self,
        message: &Message<'_>,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        if message.method != Some("subscribe") {
            return Ok(());
        }
        if message.success != Some(true) {
            let why = message.error.map_or("", RawValue::get);
            // An existing subscription continues.
            if !why.contains("Already subscribed") {
                refused("a subscription was refused", why, steps);
            }
            return Ok(());
        }
        let subscribed: Subscribed<'_> = parse(message.result.ok_or("it has no result")?.get())?;
        let kind = STREAMED.into_iter().find(|kind| channel_of(*kind) == subscribed.channel);
        let kind = kind.ok_or("its channel was not requested")?;
        let symbol = self.desk.symbol(&subscribed.symbol)?;
        self.desk.acknowledged(symbol, kind, at, steps);
        Ok(())
    }

    fn data(&mut self, message: &Message<'_>, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let data = message.data.ok_or("it has no data")?.get();
        let is_snapshot = message.kind == Some("snapshot");
        match message.channel.unwrap_or_default() {
            "ticker" => self.tickers(data, at, steps),
            "trade" => self.trades(data, at, steps),
            "book" => self.books(data, is_snapshot, at, steps),
            "ohlc" => self.candles(data, at, steps),
            "status" => {
                let status: Vec<Status<'_>> = parse(data)?;
                if let Some(status) = status.iter().find(|status| status.system != "online") {
                    let system: String = status.system.chars().take(40).collect();
                    steps.push(Step::Trouble(Trouble::Refused(format!("the exchange says: {system}"))));
                }
                Ok(())
            }
            _ => Err("its channel was not requested".to_owned()),
        }
    }

    fn tickers(&mut self, data: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let data: Vec<TickerData<'_>> = parse(data)?;
        let mut tickers = Vec::with_capacity(data.len());
        for data in &data {
            let fields = [
                ("price", data.last),
                ("bid", data.bid),
                ("bidSize", data.bid_qty),
                ("ask", data.ask),
                ("askSize", data.ask_qty),
                ("high", data.high),
                ("low", data.low),
                ("volume", data.volume),
            ];
            let time = milliseconds(data.timestamp.unwrap_or(at.utc))?;
            tickers.push((self.desk.symbol(&data.symbol)?, time, fields));
        }
        self.desk.tickers(&tickers, at, steps)
    }

    fn trades(&mut self, data: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let data: Vec<TradeData<'_>> = parse(data)?;
        let mut by_symbol = vec![Vec::new(); self.desk.symbols.len()];
        for data in data {
            let symbol = self.desk.symbol(&data.symbol)?;
            let is_buy = match data.side {
                "buy" => true,
                "sell" => false,
                _ => return Err("its side is neither buy nor sell".to_owned()),
            };
            let trade = Trade::new(data.price, data.qty, is_buy, milliseconds(data.timestamp)?);
            by_symbol[symbol].push((data.trade_id, trade));
        }
        self.desk.all_trades(by_symbol, at, steps);
        Ok(())
    }

    fn books(
        &mut self,
        data: &str,
        is_snapshot: bool,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let data: Vec<BookData<'_>> = parse(data)?;
        let of = |data: &BookData<'_>| {
            Ok((self.desk.symbol(&data.symbol)?, milliseconds(data.timestamp.unwrap_or(at.utc))?))
        };
        let places = data.iter().map(of).collect::<Result<Vec<_>, Malformed>>()?;
        for (data, (symbol, time)) in data.into_iter().zip(places) {
            let sides = Sides { bids: levels(data.bids), asks: levels(data.asks) };
            self.desk.streams.heard(symbol, EventType::Orderbook, at.now);
            let depth = self.desk.depth;
            let book = &mut self.desk.symbols[symbol].book;
            if !is_snapshot && book.sequence().is_none() {
                continue;
            }
            let sequence = book.next_number(at.utc);
            let mut next = book.clone();
            if is_snapshot {
                next.begin(&sides, sequence, depth, at.now);
            } else {
                next.apply(&sides, sequence, depth);
            }
            if checksum(&next) != data.checksum {
                book.lose();
                let name = &self.desk.symbols[symbol].name;
                let reason = format!("the checksum of the book of {name} differs: changes of it are missing");
                steps.push(Step::Trouble(Trouble::Gap(reason)));
                self.again.push((at.now + ASK_AGAIN_AFTER, symbol));
            } else if is_snapshot {
                *book = next;
                self.desk.snapshot(symbol, &time, steps);
            } else {
                self.desk.delta(symbol, &time, &sides, (sequence, depth), steps);
            }
        }
        Ok(())
    }

    fn candles(&mut self, data: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let data: Vec<CandleData<'_>> = parse(data)?;
        let mut candles = Vec::with_capacity(data.len());
        for data in &data {
            if data.interval != self.desk.interval.minutes() {
                return Err("its interval was not requested".to_owned());
            }
            let open_time = open_time(Some(data.interval_begin))?;
            let values = [data.open, data.high, data.low, data.close, data.volume];
            candles.push((self.desk.symbol(&data.symbol)?, Candle::new(open_time, values)));
        }
        let now = at.utc.timestamp_millis().to_string();
        for (symbol, candle) in candles {
            self.desk.offer_candle(symbol, candle, &now, at, steps);
        }
        Ok(())
    }
}

impl Feed for Kraken {
    fn connected(&mut self, at: Moment, steps: &mut Vec<Step>) {
        let all: Vec<usize> = (0..self.desk.symbols.len()).collect();
        for kind in self.desk.types.clone() {
            self.subscribe(kind, &all, at, steps);
        }
    }

    fn frame(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let message: Message<'_> = parse(text)?;
        match (message.method, message.channel) {
            (Some(_), _) => self.answered(&message, at, steps),
            (None, Some("heartbeat")) => Ok(()),
            (None, Some(_)) => self.data(&message, at, steps),
            (None, None) => Err("it is neither data nor an answer".to_owned()),
        }
    }

    fn tick(&mut self, at: Moment, steps: &mut Vec<Step>) {
        for (symbol, kind) in self.desk.tick(at, steps) {
            self.begin_again(kind, symbol, at, steps);
        }
        let due: Vec<usize> =
            self.again.extract_if(.., |(when, _)| *when <= at.now).map(|(_, s)| s).collect();
        for symbol in due {
            self.begin_again(EventType::Orderbook, symbol, at, steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_exchanges_own_example() {
        let side = |text: &'static str| -> Vec<Level<'static>> {
            let levels = text.split(", ").map(|level| level.split_once(' ').unwrap());
            let read = |text| Decimal::read(text).unwrap();
            levels.map(|(price, size)| (read(price), read(size))).collect()
        };
        let asks = "45285.2 0.00100000, 45286.4 1.54571953, 45286.6 1.54571109, 45289.6 1.54560911, \
            45290.2 0.15890660, 45291.8 1.54553491, 45294.7 0.04454749, 45296.1 0.35380000, \
            45297.5 0.09945542, 45299.5 0.18772827";
        let bids = "45283.5 0.10000000, 45283.4 1.54582015, 45282.1 0.10000000, 45281.0 0.10000000, \
            45280.3 1.54592586, 45279.0 0.07990000, 45277.6 0.03310103, 45277.5 0.30000000, \
            45277.3 1.54602737, 45276.6 0.15445238";
        let mut book = Book::default();
        book.begin(&Sides { bids: side(bids), asks: side(asks) }, 1, 10, Instant::now());
        assert_eq!(checksum(&book), 3_310_070_434);
    }
}
