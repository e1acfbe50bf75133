//! Coinbase: the public channels of its Advanced Trade WebSocket.
//!
//! All messages of a connection are numbered. If one is missing, its contents are unknown, so the connection
//! starts over with snapshots of books and the last trades. The exchange does not say when a candle is
//! closed.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Duration;

use super::book::Sides;
use super::candles::Candle;
use super::decimal::Decimal;
use super::desk::{Desk, Trade};
use super::{
    ExchangeConfig, Feed, Malformed, Moment, Resume, STREAMED, Step, Trouble, milliseconds, open_time, parse,
    refused,
};
use crate::model::EventType;

/// Anonymous clients may send eight messages a second.
const SEND_EVERY: Duration = Duration::from_millis(150);

pub(crate) struct Coinbase {
    desk: Desk,
    /// The number of the last message.
    number: Option<u64>,
}

#[derive(Deserialize)]
struct Message<'a> {
    channel: Option<&'a str>,
    timestamp: Option<DateTime<Utc>>,
    sequence_num: Option<u64>,
    events: Option<&'a RawValue>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Subscriptions<'a> {
    #[serde(borrow)]
    subscriptions: std::collections::BTreeMap<Cow<'a, str>, Option<Vec<Cow<'a, str>>>>,
}

#[derive(Deserialize)]
struct Tickers<'a> {
    #[serde(borrow)]
    tickers: Vec<TickerData<'a>>,
}

#[derive(Deserialize)]
struct TickerData<'a> {
    product_id: &'a str,
    price: Option<Decimal<'a>>,
    volume_24_h: Option<Decimal<'a>>,
    low_24_h: Option<Decimal<'a>>,
    high_24_h: Option<Decimal<'a>>,
    best_bid: Option<Decimal<'a>>,
    best_bid_quantity: Option<Decimal<'a>>,
    best_ask: Option<Decimal<'a>>,
    best_ask_quantity: Option<Decimal<'a>>,
}

#[derive(Deserialize)]
struct TradesEvent<'a> {
    #[serde(borrow)]
    trades: Vec<TradeData<'a>>,
}

#[derive(Deserialize)]
struct TradeData<'a> {
    trade_id: &'a str,
    product_id: &'a str,
    price: Decimal<'a>,
    size: Decimal<'a>,
    side: &'a str,
    time: DateTime<Utc>,
}

#[derive(Deserialize)]
struct BookEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    product_id: &'a str,
    updates: Vec<LevelData<'a>>,
}

#[derive(Deserialize)]
struct LevelData<'a> {
    side: &'a str,
    price_level: Decimal<'a>,
    new_quantity: Decimal<'a>,
}

#[derive(Deserialize)]
struct CandlesEvent<'a> {
    #[serde(borrow)]
    candles: Vec<CandleData<'a>>,
}

#[derive(Deserialize)]
struct CandleData<'a> {
    start: &'a str,
    product_id: &'a str,
    open: Decimal<'a>,
    high: Decimal<'a>,
    low: Decimal<'a>,
    close: Decimal<'a>,
    volume: Decimal<'a>,
}

fn channel_of(kind: EventType) -> &'static str {
    match kind {
        EventType::Trade => "market_trades",
        EventType::Orderbook => "level2",
        EventType::Candle => "candles",
        _ => "ticker",
    }
}

impl Coinbase {
    pub(crate) fn new(config: &ExchangeConfig, resume: &Resume, at: Moment) -> Self {
        let theirs = |base: &str, quote: &str| format!("{base}-{quote}");
        Self { desk: Desk::new(config, resume, theirs, SEND_EVERY, at), number: None }
    }

    fn subscribe(&mut self, kind: EventType, symbols: &[usize], at: Moment, steps: &mut Vec<Step>) {
        let names: Vec<&str> =
            symbols.iter().map(|symbol| self.desk.symbols[*symbol].theirs.as_str()).collect();
        let message = serde_json::json!({
            "type": "subscribe", "product_ids": names, "channel": channel_of(kind),
        });
        self.desk.send(message.to_string(), at.now, steps);
        symbols.iter().for_each(|symbol| self.desk.streams.ask(*symbol, kind, at.now));
    }

    /// Each such message lists all subscriptions, and thereby acknowledges them.
    fn subscriptions(&mut self, events: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let events: Vec<Subscriptions<'_>> = parse(events)?;
        let mut subscribed = Vec::new();
        for (channel, products) in events.iter().flat_map(|event| &event.subscriptions) {
            let Some(kind) = STREAMED.into_iter().find(|kind| channel_of(*kind) == channel) else { continue };
            for product in products.iter().flatten() {
                subscribed.push((self.desk.symbol(product)?, kind));
            }
        }
        for (symbol, kind) in subscribed {
            self.desk.acknowledged(symbol, kind, at, steps);
        }
        Ok(())
    }

    fn tickers(
        &mut self,
        events: &str,
        time: &str,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let events: Vec<Tickers<'_>> = parse(events)?;
        let mut tickers = Vec::new();
        for data in events.iter().flat_map(|event| &event.tickers) {
            let fields = [
                ("price", data.price),
                ("bid", data.best_bid),
                ("bidSize", data.best_bid_quantity),
                ("ask", data.best_ask),
                ("askSize", data.best_ask_quantity),
                ("high", data.high_24_h),
                ("low", data.low_24_h),
                ("volume", data.volume_24_h),
            ];
            tickers.push((self.desk.symbol(data.product_id)?, time, fields));
        }
        self.desk.tickers(&tickers, at, steps)
    }

    fn trades(&mut self, events: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let events: Vec<TradesEvent<'_>> = parse(events)?;
        let mut by_symbol = vec![Vec::new(); self.desk.symbols.len()];
        for data in events.iter().flat_map(|event| &event.trades) {
            let symbol = self.desk.symbol(data.product_id)?;
            let id: u64 =
                data.trade_id.parse().map_err(|_| "the id of a trade is not a number".to_owned())?;
            // The exchange states the side of the resting order; the taker did the opposite.
            let is_buy = match data.side {
                "BUY" => false,
                "SELL" => true,
                _ => return Err("its side is neither BUY nor SELL".to_owned()),
            };
            let trade = Trade::new(data.price, data.size, is_buy, milliseconds(data.time)?);
            by_symbol[symbol].push((id, trade));
        }
        self.desk.all_trades(by_symbol, at, steps);
        Ok(())
    }

    fn books(
        &mut self,
        events: &str,
        time: &str,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let events: Vec<BookEvent<'_>> = parse(events)?;
        let mut changes = Vec::with_capacity(events.len());
        for event in &events {
            let symbol = self.desk.symbol(event.product_id)?;
            let mut sides = Sides::default();
            for LevelData { side, price_level, new_quantity } in &event.updates {
                match *side {
                    "bid" => sides.bids.push((*price_level, *new_quantity)),
                    "offer" => sides.asks.push((*price_level, *new_quantity)),
                    _ => return Err("a side is neither bid nor offer".to_owned()),
                }
            }
            match event.kind {
                "snapshot" => changes.push((symbol, true, sides)),
                "update" => changes.push((symbol, false, sides)),
                _ => return Err("it is neither a snapshot nor an update".to_owned()),
            }
        }
        for (symbol, is_snapshot, sides) in changes {
            self.desk.streams.heard(symbol, EventType::Orderbook, at.now);
            let book = &mut self.desk.symbols[symbol].book;
            let sequence = book.next_number(at.utc);
            if is_snapshot {
                book.begin(&sides, sequence, usize::MAX, at.now);
                self.desk.snapshot(symbol, time, steps);
            } else {
                // Before the snapshot there is no book to change.
                self.desk.delta(symbol, time, &sides, (sequence, usize::MAX), steps);
            }
        }
        Ok(())
    }

    fn candles(
        &mut self,
        events: &str,
        time: &str,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let events: Vec<CandlesEvent<'_>> = parse(events)?;
        let mut candles = Vec::new();
        for data in events.iter().flat_map(|event| &event.candles) {
            let symbol = self.desk.symbol(data.product_id)?;
            let start = data.start.parse().ok().and_then(|start| DateTime::from_timestamp(start, 0));
            let values = [data.open, data.high, data.low, data.close, data.volume];
            candles.push((symbol, Candle::new(open_time(start)?, values)));
        }
        // A snapshot lists the newest candle first.
        candles.sort_by_key(|(_, candle)| candle.open_time);
        for (symbol, candle) in candles {
            self.desk.offer_candle(symbol, candle, time, at, steps);
        }
        Ok(())
    }

    /// Whether a message with this number is to be processed. A gap in the numbers ends the connection.
    fn follows(&self, number: u64, steps: &mut Vec<Step>) -> bool {
        match self.number {
            Some(last) if number <= last => false,
            Some(last) if number > last + 1 => {
                let reason = format!("messages are missing between {last} and {number}");
                steps.push(Step::Trouble(Trouble::Gap(reason.clone())));
                steps.push(Step::Reconnect(reason));
                false
            }
            _ => true,
        }
    }
}

impl Feed for Coinbase {
    fn connected(&mut self, at: Moment, steps: &mut Vec<Step>) {
        // Without heartbeats a quiet market would look like a dead connection.
        self.desk.send(r#"{"type":"subscribe","channel":"heartbeats"}"#.to_owned(), at.now, steps);
        let all: Vec<usize> = (0..self.desk.symbols.len()).collect();
        for kind in self.desk.types.clone() {
            self.subscribe(kind, &all, at, steps);
        }
    }

    fn frame(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let message: Message<'_> = parse(text)?;
        if message.kind == Some("error") {
            refused("the exchange says", message.message.as_deref().unwrap_or_default(), steps);
            return Ok(());
        }
        let number = message.sequence_num.ok_or("it has no number")?;
        if !self.follows(number, steps) {
            return Ok(());
        }
        let events = message.events.ok_or("it has no events")?.get();
        let time = milliseconds(message.timestamp.unwrap_or(at.utc))?;
        let taken = match message.channel.unwrap_or_default() {
            "subscriptions" => self.subscriptions(events, at, steps),
            "heartbeats" => Ok(()),
            "ticker" => self.tickers(events, &time, at, steps),
            "market_trades" => self.trades(events, at, steps),
            "l2_data" => self.books(events, &time, at, steps),
            "candles" => self.candles(events, &time, at, steps),
            _ => Err("its channel was not requested".to_owned()),
        };
        // A message that was not understood counts as missing.
        if taken.is_ok() {
            self.number = Some(number);
        }
        taken
    }

    fn tick(&mut self, at: Moment, steps: &mut Vec<Step>) {
        for (symbol, kind) in self.desk.tick(at, steps) {
            self.subscribe(kind, &[symbol], at, steps);
        }
    }
}
