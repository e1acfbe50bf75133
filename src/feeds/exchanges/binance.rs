//! Binance: market streams, and the two requests for what streams do not contain.
//!
//! A book begins with a request for a snapshot, during which changes are buffered; each change states the
//! range of numbers it covers. Missing trades are requested from the last thousand. The exchange closes
//! connections after 24 hours, and accepts five messages a second.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Duration, Instant};

use super::book::{Level, Sides};
use super::candles::{Candle, CandleEvent};
use super::decimal::Decimal;
use super::desk::{Desk, Trade};
use super::{
    ExchangeConfig, Feed, Malformed, Moment, Resume, Step, Trouble, open_time, parse, refused, time_json,
};
use crate::model::EventType;

/// The exchange allows five messages a second, pongs included.
const SEND_EVERY: Duration = Duration::from_millis(300);

/// How many streams one message names.
const STREAMS_PER_MESSAGE: usize = 100;

/// The exchange closes each connection after 24 hours, so it is replaced earlier, at a moment of our choice.
const LIFE_MAX: Duration = Duration::from_secs(23 * 3_600 + 1_800);

/// How long after a failed request it is repeated.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// After how many failed requests in a row missing trades are given up; until then later trades wait.
const TRIES_MAX: u32 = 3;

/// How many changes of a book may wait for its snapshot; beyond that they are dropped, and newer ones wait.
const HELD_MAX: usize = 2_000;

/// The subject of a request, with the symbol's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    Book(usize),
    Trades(usize),
}

pub(crate) struct Binance {
    desk: Desk,
    api: String,
    begun: Instant,
    /// Messages that were not acknowledged yet, with the streams that they request.
    asked: HashMap<u64, Vec<(usize, EventType)>>,
    requests: HashMap<u64, Wanted>,
    next_id: u64,
    /// Failed requests, and when to repeat them.
    again: Vec<(Instant, Wanted)>,
    /// Consecutive failed requests for trades, by symbol.
    failed: Vec<u32>,
    /// Changes that wait for their book's snapshot.
    held: Vec<VecDeque<Box<str>>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    data: Option<&'a RawValue>,
    id: Option<u64>,
    error: Option<&'a RawValue>,
    code: Option<&'a RawValue>,
    e: Option<&'a str>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    e: Option<&'a str>,
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the exchange tells them apart by case")]
struct TickerFrame<'a> {
    E: u64,
    s: &'a str,
    c: Decimal<'a>,
    b: Option<Decimal<'a>>,
    B: Option<Decimal<'a>>,
    a: Option<Decimal<'a>>,
    A: Option<Decimal<'a>>,
    o: Option<Decimal<'a>>,
    h: Option<Decimal<'a>>,
    l: Option<Decimal<'a>>,
    v: Option<Decimal<'a>>,
    q: Option<Decimal<'a>>,
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the exchange tells them apart by case")]
struct TradeFrame<'a> {
    s: &'a str,
    t: u64,
    p: Decimal<'a>,
    q: Decimal<'a>,
    T: u64,
    /// Whether the buyer's order was in the book first.
    m: bool,
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the exchange tells them apart by case")]
struct DepthFrame<'a> {
    E: u64,
    s: &'a str,
    U: u64,
    u: u64,
    /// The last number of the previous change, on the markets that state it.
    pu: Option<u64>,
    b: Vec<Level<'a>>,
    a: Vec<Level<'a>>,
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the exchange tells them apart by case")]
struct CandleFrame<'a> {
    E: u64,
    s: &'a str,
    k: CandleFields<'a>,
}

#[derive(Deserialize)]
struct CandleFields<'a> {
    t: i64,
    i: &'a str,
    o: Decimal<'a>,
    c: Decimal<'a>,
    h: Decimal<'a>,
    l: Decimal<'a>,
    v: Decimal<'a>,
    x: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DepthAnswer<'a> {
    last_update_id: u64,
    #[serde(borrow)]
    bids: Vec<Level<'a>>,
    asks: Vec<Level<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TradeAnswer<'a> {
    id: u64,
    #[serde(borrow)]
    price: Decimal<'a>,
    qty: Decimal<'a>,
    time: u64,
    is_buyer_maker: bool,
}

impl Binance {
    pub(crate) fn new(config: &ExchangeConfig, resume: &Resume, at: Moment) -> Self {
        let theirs = |base: &str, quote: &str| format!("{base}{quote}");
        let desk = Desk::new(config, resume, theirs, SEND_EVERY, at);
        let held: Vec<VecDeque<Box<str>>> = desk.symbols.iter().map(|_| VecDeque::new()).collect();
        let api = config.api_url().to_owned();
        Self {
            desk,
            api,
            begun: at.now,
            asked: HashMap::new(),
            requests: HashMap::new(),
            next_id: 1,
            again: Vec::new(),
            failed: vec![0; held.len()],
            held,
        }
    }

    pub(super) fn simulated(mut self) -> Self {
        self.desk = self.desk.simulated();
        self
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn stream(&self, symbol: usize, kind: EventType) -> String {
        let symbol = self.desk.symbols[symbol].theirs.to_lowercase();
        match kind {
            EventType::Trade => format!("{symbol}@trade"),
            EventType::Orderbook => format!("{symbol}@depth@100ms"),
            EventType::Candle => format!("{symbol}@kline_{}", self.desk.interval),
            _ => format!("{symbol}@ticker"),
        }
    }

    fn subscribe(&mut self, streams: &[(usize, EventType)], at: Moment, steps: &mut Vec<Step>) {
        for streams in streams.chunks(STREAMS_PER_MESSAGE) {
            let names: Vec<String> =
                streams.iter().map(|(symbol, kind)| self.stream(*symbol, *kind)).collect();
            let id = self.id();
            let message = serde_json::json!({"method": "SUBSCRIBE", "params": names, "id": id});
            streams.iter().for_each(|(symbol, kind)| self.desk.streams.ask(*symbol, *kind, at.now));
            self.asked.insert(id, streams.to_vec());
            self.desk.send(message.to_string(), at.now, steps);
        }
    }

    fn ask(&mut self, wanted: Wanted, steps: &mut Vec<Step>) {
        if self.requests.values().any(|asked| *asked == wanted) {
            return;
        }
        let id = self.id();
        let (what, symbol) = match wanted {
            Wanted::Book(symbol) => ("depth", symbol),
            Wanted::Trades(symbol) => ("trades", symbol),
        };
        let symbol = &self.desk.symbols[symbol].theirs;
        let url = format!("{}/api/v3/{what}?symbol={symbol}&limit=1000", self.api);
        self.requests.insert(id, wanted);
        steps.push(Step::Fetch { id, url });
    }

    fn answered(
        &mut self,
        id: u64,
        message: &Message<'_>,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let streams = self.asked.remove(&id).ok_or("it answers what was not asked")?;
        if let Some(why) = message.error.or(message.code) {
            refused("a subscription was refused", why.get(), steps);
            return Ok(());
        }
        for (symbol, kind) in streams {
            if kind == EventType::Orderbook && self.desk.symbols[symbol].book.sequence().is_none() {
                self.ask(Wanted::Book(symbol), steps);
            }
            self.desk.acknowledged(symbol, kind, at, steps);
        }
        Ok(())
    }

    fn data(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        match parse::<Kind<'_>>(text)?.e.ok_or("it has no type")? {
            "24hrTicker" => self.ticker(text, at, steps),
            "trade" => self.trade(text, at, steps),
            "depthUpdate" => self.depth(text, at, steps),
            "kline" => self.candle(text, at, steps),
            "serverShutdown" => {
                steps.push(Step::Reconnect("the exchange's server shuts down".to_owned()));
                Ok(())
            }
            _ => Err("its type was not requested".to_owned()),
        }
    }

    fn ticker(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let frame: TickerFrame<'_> = parse(text)?;
        let symbol = self.desk.symbol(frame.s)?;
        let fields = [
            ("price", Some(frame.c)),
            ("bid", frame.b),
            ("bidSize", frame.B),
            ("ask", frame.a),
            ("askSize", frame.A),
            ("open", frame.o),
            ("high", frame.h),
            ("low", frame.l),
            ("volume", frame.v),
            ("quoteVolume", frame.q),
        ];
        self.desk.tickers(&[(symbol, time_json(frame.E)?, fields)], at, steps)
    }

    fn trade(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let frame: TradeFrame<'_> = parse(text)?;
        let symbol = self.desk.symbol(frame.s)?;
        let trade = Trade::new(frame.p, frame.q, !frame.m, time_json(frame.T)?);
        self.desk.streams.heard(symbol, EventType::Trade, at.now);
        if self.desk.trades(symbol, [(frame.t, trade)], steps) {
            self.ask(Wanted::Trades(symbol), steps);
        }
        if self.desk.symbols[symbol].trades.is_full() {
            self.desk.give_up_trades(symbol, steps);
        }
        Ok(())
    }

    fn depth(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let frame: DepthFrame<'_> = parse(text)?;
        let symbol = self.desk.symbol(frame.s)?;
        if frame.U > frame.u {
            return Err("its first number is after its last".to_owned());
        }
        let time = time_json(frame.E)?;
        self.desk.streams.heard(symbol, EventType::Orderbook, at.now);
        let Some(sequence) = self.desk.symbols[symbol].book.sequence() else {
            let held = &mut self.held[symbol];
            if held.len() >= HELD_MAX {
                held.clear();
            }
            held.push_back(text.into());
            return Ok(());
        };
        if frame.u <= sequence {
            return Ok(());
        }
        // The first change may overlap the snapshot; every other one begins where the one before it ends.
        let follows = match frame.pu {
            Some(before) => before == sequence || (frame.U <= sequence + 1),
            None => frame.U <= sequence + 1,
        };
        if !follows {
            let name = &self.desk.symbols[symbol].name;
            let reason = format!("changes of the book of {name} are missing after {sequence}");
            steps.push(Step::Trouble(Trouble::Gap(reason)));
            self.desk.symbols[symbol].book.lose();
            self.held[symbol].push_back(text.into());
            self.ask(Wanted::Book(symbol), steps);
            return Ok(());
        }
        let sides = Sides { bids: frame.b, asks: frame.a };
        self.desk.delta(symbol, &time, &sides, (frame.u, usize::MAX), steps);
        Ok(())
    }

    fn candle(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let CandleFrame { E: time, s, k } = parse(text)?;
        let symbol = self.desk.symbol(s)?;
        if k.i != self.desk.interval.to_string() {
            return Err("its interval was not requested".to_owned());
        }
        let (time, open_time) = (time_json(time)?, open_time(chrono::DateTime::from_timestamp_millis(k.t))?);
        let candle = Candle::new(open_time, [k.o, k.h, k.l, k.c, k.v]);
        let event = CandleEvent { candle, is_closed: k.x, is_correction: false };
        self.desk.candle(symbol, &event, &time, steps);
        self.desk.streams.heard(symbol, EventType::Candle, at.now);
        Ok(())
    }

    /// Repeats a failed request after a while. Missing trades are given up after [`TRIES_MAX`] failures.
    fn failed(&mut self, wanted: Wanted, at: Moment, steps: &mut Vec<Step>) {
        if let Wanted::Trades(symbol) = wanted {
            self.failed[symbol] += 1;
            if self.failed[symbol] >= TRIES_MAX {
                self.failed[symbol] = 0;
                self.desk.give_up_trades(symbol, steps);
                return;
            }
        }
        self.again.push((at.now + ASK_AGAIN_AFTER, wanted));
    }

    /// Begins a book with its snapshot, and applies the changes that waited for it.
    fn begin_book(
        &mut self,
        symbol: usize,
        text: &str,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let answer: DepthAnswer<'_> = parse(text)?;
        // If changes are missing between the snapshot and the first that waits, a newer snapshot is needed.
        let first = self.held[symbol].front().and_then(|text| parse::<DepthFrame<'_>>(text).ok());
        if first.is_some_and(|first| first.U > answer.last_update_id.saturating_add(1)) {
            self.again.push((at.now + ASK_AGAIN_AFTER / 4, Wanted::Book(symbol)));
            return Ok(());
        }
        let sides = Sides { bids: answer.bids, asks: answer.asks };
        self.desk.symbols[symbol].book.begin(&sides, answer.last_update_id, usize::MAX, at.now);
        self.desk.snapshot(symbol, &at.utc.timestamp_millis().to_string(), steps);
        for held in std::mem::take(&mut self.held[symbol]) {
            self.depth(&held, at, steps)?;
        }
        Ok(())
    }

    fn fill_trades(&mut self, symbol: usize, text: &str, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let answer: Vec<TradeAnswer<'_>> = parse(text)?;
        let trades = answer.iter().map(|TradeAnswer { id, price, qty, time, is_buyer_maker }| {
            Ok((*id, Trade::new(*price, *qty, !is_buyer_maker, time_json(*time)?)))
        });
        let trades = trades.collect::<Result<Vec<_>, Malformed>>()?;
        self.desk.trades(symbol, trades, steps);
        self.failed[symbol] = 0;
        // Trades that are still missing are older than those that the exchange provides.
        self.desk.give_up_trades(symbol, steps);
        Ok(())
    }
}

impl Feed for Binance {
    fn connected(&mut self, at: Moment, steps: &mut Vec<Step>) {
        let types = self.desk.types.clone();
        let all: Vec<_> = (0..self.desk.symbols.len())
            .flat_map(|symbol| types.iter().map(move |kind| (symbol, *kind)))
            .collect();
        self.subscribe(&all, at, steps);
    }

    fn frame(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let message: Message<'_> = parse(text)?;
        match message {
            Message { data: Some(data), .. } => self.data(data.get(), at, steps),
            Message { e: Some(_), .. } => self.data(text, at, steps),
            Message { id: Some(id), .. } => self.answered(id, &message, at, steps),
            _ => Err("it is neither an event nor an answer".to_owned()),
        }
    }

    fn fetched(
        &mut self,
        id: u64,
        answer: Result<&str, String>,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        let Some(wanted) = self.requests.remove(&id) else { return Ok(()) };
        let text = match answer {
            Ok(text) => text,
            Err(reason) => {
                steps.push(Step::Trouble(Trouble::Refused(reason)));
                self.failed(wanted, at, steps);
                return Ok(());
            }
        };
        let taken = match wanted {
            Wanted::Book(symbol) => self.begin_book(symbol, text, at, steps),
            Wanted::Trades(symbol) => self.fill_trades(symbol, text, steps),
        };
        if taken.is_err() {
            self.failed(wanted, at, steps);
        }
        taken
    }

    fn tick(&mut self, at: Moment, steps: &mut Vec<Step>) {
        if at.now.saturating_duration_since(self.begun) > LIFE_MAX {
            steps.push(Step::Reconnect("the exchange would cut the connection after a day".to_owned()));
            return;
        }
        let silent = self.desk.tick(at, steps);
        if !silent.is_empty() {
            self.subscribe(&silent, at, steps);
        }
        let due: Vec<Wanted> =
            self.again.extract_if(.., |(when, _)| *when <= at.now).map(|(_, w)| w).collect();
        due.into_iter().for_each(|wanted| self.ask(wanted, steps));
    }
}
