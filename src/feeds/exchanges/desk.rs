//! What the adapters share: what is subscribed to, what was requested, and how events are written.

use std::collections::VecDeque;
use std::fmt::Write as _;

use tokio::time::{Duration, Instant};

use super::book::{Book, Sides};
use super::candles::{Candle, CandleEvent, Candles};
use super::decimal::Decimal;
use super::streams::Streams;
use super::trades::Trades;
use super::{ExchangeConfig, FeedEvent, Interval, Malformed, Moment, Resume, Step, Trouble};
use crate::model::{EventType, Zone};

/// A symbol and its state.
#[derive(Debug)]
pub(super) struct Symbol {
    /// `BASE-QUOTE`.
    pub(super) name: String,
    /// The exchange's own name for it.
    pub(super) theirs: String,
    zone: Option<Zone>,
    pub(super) book: Book,
    pub(super) trades: Trades<Trade>,
    candles: Candles,
}

/// A trade that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trade {
    price: String,
    size: String,
    is_buy: bool,
    /// Milliseconds since 1970, or a text; as JSON.
    time: String,
}

impl Trade {
    /// `time` is JSON.
    pub(super) fn new(price: Decimal<'_>, size: Decimal<'_>, is_buy: bool, time: String) -> Self {
        Self { price: price.text().to_owned(), size: size.text().to_owned(), is_buy, time }
    }
}

/// A field of a ticker: its name and number.
pub(super) type Field<'a> = (&'static str, Option<Decimal<'a>>);

#[derive(Debug)]
pub(super) struct Desk {
    exchange: String,
    is_simulated: bool,
    pub(super) symbols: Vec<Symbol>,
    pub(super) types: Vec<EventType>,
    pub(super) interval: Interval,
    pub(super) depth: usize,
    pub(super) streams: Streams,
    outgoing: VecDeque<String>,
    /// The least time between two messages.
    send_every: Duration,
    sent: Option<Instant>,
}

impl Desk {
    /// `theirs` builds the exchange's name of a symbol from base and quote.
    pub(super) fn new(
        config: &ExchangeConfig,
        resume: &Resume,
        theirs: impl Fn(&str, &str) -> String,
        send_every: Duration,
        at: Moment,
    ) -> Self {
        let symbols = config.symbols.iter().map(|name| {
            let (base, quote) = name.split_once('-').unwrap_or((name, ""));
            Symbol {
                name: name.clone(),
                theirs: theirs(base, quote),
                zone: config.zones.get(name).cloned(),
                book: Book::default(),
                trades: Trades::after(resume.get(name).copied()),
                candles: Candles::default(),
            }
        });
        let silence = Duration::from_secs(config.silence_s);
        Self {
            exchange: config.name().to_owned(),
            is_simulated: false,
            symbols: symbols.collect(),
            types: config.types.clone(),
            interval: config.interval,
            depth: config.depth,
            streams: Streams::asked(config.symbols.len(), &config.types, silence, at.now),
            outgoing: VecDeque::new(),
            send_every,
            sent: None,
        }
    }

    /// Marks all events as simulated.
    pub(super) fn simulated(mut self) -> Self {
        self.is_simulated = true;
        self
    }

    /// The symbol to which the exchange's name belongs.
    pub(super) fn symbol(&self, theirs: &str) -> Result<usize, Malformed> {
        let found = self.symbols.iter().position(|symbol| symbol.theirs == theirs);
        found.ok_or_else(|| "it is about a symbol that was not subscribed to".to_owned())
    }

    /// Sends a message as soon as the exchange's limit permits.
    pub(super) fn send(&mut self, message: String, now: Instant, steps: &mut Vec<Step>) {
        self.outgoing.push_back(message);
        self.flush(now, steps);
    }

    fn flush(&mut self, now: Instant, steps: &mut Vec<Step>) {
        while self.sent.is_none_or(|sent| now.saturating_duration_since(sent) >= self.send_every) {
            let Some(message) = self.outgoing.pop_front() else { return };
            self.sent = Some(now);
            steps.push(Step::Send(message));
        }
    }

    /// Sends messages that are due, closes candles whose time is over, and emits snapshots of books that have
    /// been changing for a while, for late subscribers. Returns the streams that are silent. If a stream was not
    /// acknowledged in time, the connection is restarted.
    pub(super) fn tick(&mut self, at: Moment, steps: &mut Vec<Step>) -> Vec<(usize, EventType)> {
        self.flush(at.now, steps);
        let time = || at.utc.timestamp_millis().to_string();
        for symbol in 0..self.symbols.len() {
            if let Some(closed) = self.symbols[symbol].candles.tick(self.interval.length(), at.utc) {
                self.candle(symbol, &closed, &time(), steps);
            }
            if self.symbols[symbol].book.is_due(at.now) {
                self.snapshot(symbol, &time(), steps);
            }
        }
        self.streams.silent(at.now).unwrap_or_else(|(symbol, kind)| {
            let symbol = &self.symbols[symbol].name;
            steps.push(Step::Reconnect(format!("{kind} of {symbol} was not acknowledged")));
            Vec::new()
        })
    }

    /// The exchange acknowledged a stream. When all are acknowledged, the feed becomes ready, once.
    pub(super) fn acknowledged(&mut self, symbol: usize, kind: EventType, at: Moment, steps: &mut Vec<Step>) {
        self.streams.acknowledged(symbol, kind, at.now);
        if self.streams.becomes_ready() {
            steps.push(Step::Ready);
        }
    }

    /// Begins the object of an event; `time` is JSON.
    fn head(&self, symbol: usize, time: &str) -> String {
        let Self { exchange, symbols, .. } = self;
        let mut json =
            format!(r#"{{"exchange":"{exchange}","symbol":"{}","timestamp":{time}"#, symbols[symbol].name);
        if self.is_simulated {
            json.push_str(r#","simulated":true"#);
        }
        json
    }

    /// Emits a frame's tickers, each with its symbol's index and its time as JSON; none if one lacks a price.
    pub(super) fn tickers<const N: usize>(
        &mut self,
        tickers: &[(usize, impl AsRef<str>, [Field<'_>; N])],
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let before = steps.len();
        for (symbol, time, fields) in tickers {
            self.ticker(*symbol, time.as_ref(), fields, steps).inspect_err(|_| steps.truncate(before))?;
        }
        for (symbol, ..) in tickers {
            self.streams.heard(*symbol, EventType::Ticker, at.now);
        }
        Ok(())
    }

    /// Emits a ticker, and with it the price of the symbol's zone.
    fn ticker(
        &self,
        symbol: usize,
        time: &str,
        fields: &[Field<'_>],
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let get = |name: &str| fields.iter().find(|(field, _)| *field == name).and_then(|(_, value)| *value);
        if get("price").is_none() && (get("bid").is_none() || get("ask").is_none()) {
            return Err("there is neither a price nor bid and ask".to_owned());
        }
        let mut json = self.head(symbol, time);
        for (name, value) in fields {
            if let Some(value) = value {
                push(&mut json, name, &format!("\"{}\"", value.text()));
            }
        }
        json.push('}');
        steps.push(event(EventType::Ticker, json));
        if let Some(zone) = &self.symbols[symbol].zone {
            let prices = [("price", get("price")), ("bid", get("bid")), ("ask", get("ask"))];
            self.price(zone, symbol, time, &prices, steps);
        }
        Ok(())
    }

    /// Emits the price of a zone: its numbers are JSON numbers with the exchange's digits.
    fn price(&self, zone: &Zone, symbol: usize, time: &str, prices: &[Field<'_>], steps: &mut Vec<Step>) {
        let Self { exchange, symbols, .. } = self;
        let symbol = &symbols[symbol].name;
        let mut json = format!(
            r#"{{"key":"{exchange}:{symbol}","exchange":"{exchange}","symbol":"{symbol}","timestamp":{time}"#
        );
        for (name, value) in prices {
            if let Some(value) = value {
                push(&mut json, name, value.text());
            }
        }
        if self.is_simulated {
            json.push_str(r#","simulated":true"#);
        }
        json.push('}');
        steps.push(Step::Price { zone: zone.clone(), json });
    }

    /// Takes trades in whatever order, and emits those that are due. Returns whether trades are missing that
    /// have not been requested.
    pub(super) fn trades(
        &mut self,
        symbol: usize,
        trades: impl IntoIterator<Item = (u64, Trade)>,
        steps: &mut Vec<Step>,
    ) -> bool {
        let taken = self.symbols[symbol].trades.offer(trades);
        self.emit_trades(symbol, taken.ready, steps);
        taken.is_gap
    }

    /// Takes the trades of a frame, those of each symbol at its index, and gives up on missing ones, which cannot
    /// be requested.
    pub(super) fn all_trades(
        &mut self,
        by_symbol: Vec<Vec<(u64, Trade)>>,
        at: Moment,
        steps: &mut Vec<Step>,
    ) {
        for (symbol, trades) in by_symbol.into_iter().enumerate().filter(|(_, trades)| !trades.is_empty()) {
            self.streams.heard(symbol, EventType::Trade, at.now);
            if self.trades(symbol, trades, steps) {
                self.give_up_trades(symbol, steps);
            }
        }
    }

    /// Gives up on missing trades, which the exchange no longer has.
    pub(super) fn give_up_trades(&mut self, symbol: usize, steps: &mut Vec<Step>) {
        let (count, ready) = self.symbols[symbol].trades.give_up();
        if count > 0 {
            let reason = format!(
                "{count} trades of {} were missed, and the exchange does not provide them any more",
                self.symbols[symbol].name
            );
            steps.push(Step::Trouble(Trouble::TradesMissed { count, reason }));
        }
        self.emit_trades(symbol, ready, steps);
    }

    fn emit_trades(&self, symbol: usize, trades: Vec<(u64, Trade)>, steps: &mut Vec<Step>) {
        // Without a ticker stream, the newest trade provides the price of the zone.
        if let (Some(zone), false, Some((_, last))) =
            (&self.symbols[symbol].zone, self.types.contains(&EventType::Ticker), trades.last())
        {
            self.price(zone, symbol, &last.time, &[("price", Decimal::read(&last.price))], steps);
        }
        for (id, Trade { price, size, is_buy, time }) in trades {
            let side = if is_buy { "buy" } else { "sell" };
            let mut json = self.head(symbol, &time);
            // Writing to a String cannot fail.
            let _written =
                write!(json, r#","tradeId":"{id}","price":"{price}","size":"{size}","side":"{side}"}}"#);
            let trade = Some((self.symbols[symbol].name.clone(), id));
            steps.push(Step::Event(FeedEvent { kind: EventType::Trade, json, trade }));
        }
    }

    /// Emits the whole book as it is now.
    pub(super) fn snapshot(&self, symbol: usize, time: &str, steps: &mut Vec<Step>) {
        let book = &self.symbols[symbol].book;
        let Some(sequence) = book.sequence() else { return };
        let mut json = self.head(symbol, time);
        let _written = write!(json, r#","kind":"snapshot","sequence":{sequence}"#);
        let (bids, asks) = book.best(self.depth);
        push_levels(&mut json, "bids", bids.into_iter());
        push_levels(&mut json, "asks", asks.into_iter());
        json.push('}');
        steps.push(event(EventType::Orderbook, json));
    }

    /// Applies a change to a book, and emits it.
    pub(super) fn delta(
        &mut self,
        symbol: usize,
        time: &str,
        sides: &Sides<'_>,
        (sequence, depth): (u64, usize),
        steps: &mut Vec<Step>,
    ) {
        let book = &mut self.symbols[symbol].book;
        let Some(before) = book.sequence() else { return };
        book.apply(sides, sequence, depth);
        let mut json = self.head(symbol, time);
        let _written = write!(json, r#","kind":"delta","sequence":{sequence},"previousSequence":{before}"#);
        push_levels(&mut json, "bids", sides.bids.iter().map(|(price, size)| (price.text(), size.text())));
        push_levels(&mut json, "asks", sides.asks.iter().map(|(price, size)| (price.text(), size.text())));
        json.push('}');
        steps.push(event(EventType::Orderbook, json));
    }

    /// Takes a candle of an exchange that does not say when it is closed, and emits it if it is news.
    pub(super) fn offer_candle(
        &mut self,
        symbol: usize,
        candle: Candle,
        time: &str,
        at: Moment,
        steps: &mut Vec<Step>,
    ) {
        self.streams.heard(symbol, EventType::Candle, at.now);
        let length = self.interval.length();
        // A subscription begins with hundreds of candles; only the last closed one and the open one are new.
        if at.utc.signed_duration_since(candle.open_time) <= length * 2 {
            for event in self.symbols[symbol].candles.offer(candle, length, at.utc) {
                self.candle(symbol, &event, time, steps);
            }
        }
    }

    pub(super) fn candle(
        &self,
        symbol: usize,
        CandleEvent { candle, is_closed, is_correction }: &CandleEvent,
        time: &str,
        steps: &mut Vec<Step>,
    ) {
        let mut json = self.head(symbol, time);
        push(&mut json, "interval", &format!("\"{}\"", self.interval));
        push(&mut json, "openTime", &candle.open_time.timestamp_millis().to_string());
        for (name, value) in ["open", "high", "low", "close", "volume"].iter().zip(&candle.values) {
            push(&mut json, name, &format!("\"{value}\""));
        }
        push(&mut json, "closed", if *is_closed { "true" } else { "false" });
        if *is_correction {
            push(&mut json, "correction", "true");
        }
        json.push('}');
        steps.push(event(EventType::Candle, json));
    }
}

fn event(kind: EventType, json: String) -> Step {
    Step::Event(FeedEvent { kind, json, trade: None })
}

fn push(json: &mut String, name: &str, value: &str) {
    json.extend([",\"", name, "\":", value]);
}

fn push_levels<'a>(json: &mut String, name: &str, levels: impl Iterator<Item = (&'a str, &'a str)>) {
    push(json, name, "[");
    for (n, (price, size)) in levels.enumerate() {
        json.extend([if n > 0 { "," } else { "" }, "[\"", price, "\",\"", size, "\"]"]);
    }
    json.push(']');
}
