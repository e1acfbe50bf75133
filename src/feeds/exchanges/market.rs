//! A simulated market for the demo. It speaks Binance's protocol frame by frame, from a seed, and its frames
//! are processed like those of an exchange. All of its events are marked `simulated`.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{self, Duration, MissedTickBehavior};
use zonewire_protocol::stats::FeedState;

use super::binance::Binance;
use super::run::{Batch, FeedCounters, Publisher};
use super::{ExchangeConfig, Feed, FeedEvent, Interval, Malformed, Moment, Resume, Step};
use crate::channels::Channels;

/// Its name in events.
pub(crate) const EXCHANGE: &str = "simulated";

const FRAMES_EVERY: Duration = Duration::from_millis(250);

/// The levels of each side.
const LEVELS: i64 = 25;

/// Publishes the simulated market until dropped. Events that are not accepted are dropped: more will follow.
pub(crate) async fn run_market(
    symbols: Vec<String>,
    seed: u64,
    channels: Channels,
    counters: Arc<FeedCounters>,
) {
    let config = ExchangeConfig {
        name: EXCHANGE.to_owned(),
        symbols,
        types: super::STREAMED.to_vec(),
        interval: Interval::MINUTE,
        depth: LEVELS as usize,
        ..ExchangeConfig::default()
    };
    let mut publisher = Publisher::new(EXCHANGE.to_owned(), channels, Arc::clone(&counters));
    let at = Moment::read();
    // Trade numbers start from the clock, so that a restarted demo does not repeat numbers.
    let mut market = Market::new(&config.symbols, seed, at.utc);
    let mut feed = Binance::new(&config, &Resume::new(), at).simulated();
    let mut steps = Vec::new();
    feed.connected(at, &mut steps);
    counters.is(FeedState::Connected, "it is simulated");
    let mut ticks = time::interval(FRAMES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let at = Moment::read();
        for frame in market.frames(at.utc) {
            counters.counts.frames.add(1);
            understood(feed.frame(&frame, at, &mut steps));
        }
        feed.tick(at, &mut steps);
        let mut batch = Batch::default();
        // Requests are answered at once, which may yield further steps.
        while !steps.is_empty() {
            for step in std::mem::take(&mut steps) {
                match step {
                    // Each process simulates its own trades, so their numbers are not ids.
                    Step::Event(event) => publisher.add_event(&mut batch, FeedEvent { trade: None, ..event }),
                    Step::Price { zone, json } => publisher.add_price(&mut batch, &zone, &json),
                    Step::Send(text) => understood(feed.frame(&acknowledged(&text), at, &mut steps)),
                    Step::Fetch { id, url } => {
                        let answer = market.answer(&url);
                        understood(feed.fetched(id, Ok(&answer), at, &mut steps));
                    }
                    Step::Ready | Step::Trouble(_) | Step::Reconnect(_) => {}
                }
            }
        }
        // A failure is logged and counted.
        let _published = publisher.publish(batch).await;
    }
}

fn understood(result: Result<(), Malformed>) {
    if let Err(problem) = result {
        tracing::warn!(problem, "the simulated market wrote a frame that its adapter does not understand");
    }
}

fn acknowledged(request: &str) -> String {
    let request: Value = serde_json::from_str(request).unwrap_or_default();
    json!({"result": null, "id": request["id"]}).to_string()
}

/// Prices are in cents, sizes in units of 0.00001.
struct Symbol {
    name: String,
    mid: i64,
    bids: BTreeMap<i64, u64>,
    asks: BTreeMap<i64, u64>,
    update: u64,
    trade: u64,
    /// Start, open, high, low, close, volume.
    candle: (DateTime<Utc>, i64, i64, i64, i64, u64),
}

pub(super) struct Market {
    random: StdRng,
    symbols: Vec<Symbol>,
}

fn price(cents: i64) -> String {
    format!("{}.{:02}000000", cents / 100, cents % 100)
}

fn size(units: u64) -> String {
    format!("{}.{:05}000", units / 100_000, units % 100_000)
}

fn levels<'a>(side: impl Iterator<Item = (&'a i64, &'a u64)>) -> Vec<[String; 2]> {
    side.map(|(cents, units)| [price(*cents), size(*units)]).collect()
}

fn minute(now: DateTime<Utc>) -> DateTime<Utc> {
    now.duration_trunc(TimeDelta::minutes(1)).unwrap_or(now)
}

impl Market {
    pub(super) fn new(names: &[String], seed: u64, now: DateTime<Utc>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let begin = u64::try_from(now.timestamp_millis()).unwrap_or(1);
        let symbols = names.iter().enumerate().map(|(n, name)| {
            let mid = 6_400_000 / (n as i64 + 1);
            let mut symbol = Symbol {
                name: name.replace('-', ""),
                mid,
                bids: BTreeMap::new(),
                asks: BTreeMap::new(),
                update: begin,
                trade: begin,
                candle: (minute(now), mid, mid, mid, mid, 0),
            };
            for step in 1..=LEVELS {
                symbol.bids.insert(mid - 10 * step, random.random_range(1_000..200_000));
                symbol.asks.insert(mid + 10 * step, random.random_range(1_000..200_000));
            }
            symbol
        });
        let symbols = symbols.collect();
        Self { random, symbols }
    }

    /// The frames of everything that happened since the last call.
    pub(super) fn frames(&mut self, now: DateTime<Utc>) -> Vec<String> {
        let (mut frames, time) = (Vec::new(), now.timestamp_millis());
        for symbol in &mut self.symbols {
            let mut events = symbol.step(&mut self.random, now);
            events.push(symbol.ticker(time));
            frames.extend(events.into_iter().map(|data| json!({"stream": "", "data": data}).to_string()));
        }
        frames
    }

    pub(super) fn answer(&self, url: &str) -> String {
        let symbol = self.symbols.iter().find(|symbol| url.contains(&format!("symbol={}&", symbol.name)));
        match symbol {
            Some(symbol) if url.contains("/depth?") => json!({
                "lastUpdateId": symbol.update,
                "bids": levels(symbol.bids.iter().rev()),
                "asks": levels(symbol.asks.iter()),
            })
            .to_string(),
            _ => "[]".to_owned(),
        }
    }
}

impl Symbol {
    /// Moves the market by one step: the book changes, and trades happen.
    fn step(&mut self, random: &mut StdRng, now: DateTime<Utc>) -> Vec<Value> {
        let time = now.timestamp_millis();
        let mut frames = Vec::new();
        let begin = minute(now);
        if begin > self.candle.0 {
            frames.push(self.candle(time, true));
            let close = self.candle.4;
            self.candle = (begin, close, close, close, close, 0);
        }
        for _ in 0..random.random_range(0..3) {
            let is_sell = random.random_bool(0.5);
            let cents = if is_sell { self.mid - 10 } else { self.mid + 10 };
            let units = random.random_range(100..30_000);
            self.trade += 1;
            let (_, _, high, low, close, volume) = &mut self.candle;
            (*high, *low, *close) = ((*high).max(cents), (*low).min(cents), cents);
            *volume += units;
            frames.push(json!({
                "e": "trade", "E": time, "s": self.name, "t": self.trade, "p": price(cents),
                "q": size(units), "T": time, "m": is_sell, "M": true,
            }));
        }
        frames.push(self.candle(time, false));
        frames.push(self.change(random, time));
        frames
    }

    fn change(&mut self, random: &mut StdRng, time: i64) -> Value {
        let moved = 10 * random.random_range(-2..=2_i64);
        self.mid += moved;
        let first = self.update + 1;
        let (old_bids, old_asks) = (self.bids.clone(), self.asks.clone());
        for step in 1..=LEVELS {
            self.bids.entry(self.mid - 10 * step).or_insert_with(|| random.random_range(1_000..200_000));
            self.asks.entry(self.mid + 10 * step).or_insert_with(|| random.random_range(1_000..200_000));
        }
        let (lowest, highest) = (self.mid - 10 * LEVELS, self.mid + 10 * LEVELS);
        self.bids.retain(|cents, _| (lowest..self.mid).contains(cents));
        self.asks.retain(|cents, _| *cents > self.mid && *cents <= highest);
        for side in [&mut self.bids, &mut self.asks] {
            let place = random.random_range(0..side.len().max(1));
            if let Some((_, units)) = side.iter_mut().nth(place) {
                *units = random.random_range(1_000..200_000);
            }
        }
        let changed = |old: &BTreeMap<i64, u64>, new: &BTreeMap<i64, u64>| {
            let gone = old.keys().filter(|cents| !new.contains_key(cents)).map(|cents| (*cents, 0));
            let set = new.iter().filter(|(cents, units)| old.get(cents) != Some(units));
            let all: BTreeMap<i64, u64> = gone.chain(set.map(|(cents, units)| (*cents, *units))).collect();
            levels(all.iter())
        };
        let (bids, asks) = (changed(&old_bids, &self.bids), changed(&old_asks, &self.asks));
        self.update += 1 + (bids.len() + asks.len()) as u64;
        json!({"e": "depthUpdate", "E": time, "s": self.name, "U": first, "u": self.update, "b": bids, "a": asks})
    }

    fn candle(&self, time: i64, is_closed: bool) -> Value {
        let (begin, open, high, low, close, volume) = &self.candle;
        json!({"e": "kline", "E": time, "s": self.name, "k": {
            "t": begin.timestamp_millis(), "s": self.name, "i": "1m", "o": price(*open), "h": price(*high),
            "l": price(*low), "c": price(*close), "v": size(*volume), "x": is_closed,
        }})
    }

    fn ticker(&self, time: i64) -> Value {
        let (bid, ask) = (self.bids.last_key_value(), self.asks.first_key_value());
        let text = |level: Option<(&i64, &u64)>| level.map(|(cents, units)| (price(*cents), size(*units)));
        let ((bid, bid_size), (ask, ask_size)) =
            (text(bid).unwrap_or_default(), text(ask).unwrap_or_default());
        json!({
            "e": "24hrTicker", "E": time, "s": self.name, "c": price(self.candle.4), "b": bid, "B": bid_size,
            "a": ask, "A": ask_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_frames() {
        let now = DateTime::UNIX_EPOCH;
        let of = |seed| {
            let mut market = Market::new(&["BTC-USDT".to_owned()], seed, now);
            (0..20).flat_map(|_| market.frames(now)).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
