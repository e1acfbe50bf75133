//! The market of the stand-in: a book and trades, simulated from a seed.

use std::collections::{BTreeMap, VecDeque};

use chrono::Utc;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

/// How many trades a request can retrieve.
const KEPT: usize = 1_000;

/// The levels of each side.
const LEVELS: i64 = 12;

/// A trade.
#[derive(Debug, Clone)]
pub(super) struct Trade {
    pub(super) id: u64,
    pub(super) price: String,
    pub(super) size: String,
    pub(super) is_buy: bool,
    pub(super) time_ms: u64,
}

/// An event in the market.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Trade(Trade),
    /// The book changed.
    Change {
        first: u64,
        last: u64,
        bids: Vec<[String; 2]>,
        asks: Vec<[String; 2]>,
        time_ms: u64,
        /// Kraken's checksum of the ten best levels after the change.
        checksum: u32,
    },
    Ticker {
        price: String,
        bid: [String; 2],
        ask: [String; 2],
        time_ms: u64,
    },
    Candle {
        begin_ms: u64,
        open: String,
        high: String,
        low: String,
        close: String,
        volume: String,
        time_ms: u64,
    },
}

pub(super) struct Market {
    /// `BTC-USDT`.
    pub(super) symbol: String,
    random: StdRng,
    mid: i64,
    bids: BTreeMap<i64, u64>,
    asks: BTreeMap<i64, u64>,
    pub(super) update: u64,
    first_trade: u64,
    pub(super) trades: VecDeque<Trade>,
    candle: [i64; 4],
    volume: u64,
    begin_ms: u64,
}

fn price(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn size(units: u64) -> String {
    format!("{}.{:05}", units / 100_000, units % 100_000)
}

fn now_ms() -> u64 {
    u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0)
}

impl Market {
    pub(super) fn new(symbol: &str, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mid = 10_594_425;
        let (mut bids, mut asks) = (BTreeMap::new(), BTreeMap::new());
        for step in 0..LEVELS {
            bids.insert(mid - 5 - 10 * step, random.random_range(1..500_000));
            asks.insert(mid + 5 + 10 * step, random.random_range(1..500_000));
        }
        let first_trade = 1_000 + seed % 1_000;
        Self {
            symbol: symbol.to_owned(),
            random,
            mid,
            bids,
            asks,
            update: 500,
            first_trade,
            trades: VecDeque::new(),
            candle: [mid; 4],
            volume: 0,
            begin_ms: now_ms() / 60_000 * 60_000,
        }
    }

    pub(super) fn trade_numbers(&self) -> (u64, u64) {
        (self.first_trade, self.trades.back().map_or(self.first_trade - 1, |trade| trade.id))
    }

    pub(super) fn best(&self, depth: usize) -> (Vec<[String; 2]>, Vec<[String; 2]>) {
        let texts = |(cents, units): (&i64, &u64)| [price(*cents), size(*units)];
        (
            self.bids.iter().rev().take(depth).map(texts).collect(),
            self.asks.iter().take(depth).map(texts).collect(),
        )
    }

    pub(super) fn checksum(&self) -> u32 {
        let (bids, asks) = self.best(10);
        let digits = asks.into_iter().chain(bids).flatten();
        let digits: String =
            digits.map(|text| text.replace('.', "").trim_start_matches('0').to_owned()).collect();
        crc32(digits.as_bytes())
    }

    /// Produces one to three events.
    pub(super) fn step(&mut self) -> Vec<Happening> {
        let time_ms = now_ms();
        let mut happened = vec![self.change(time_ms)];
        let begin_ms = time_ms / 60_000 * 60_000;
        if begin_ms > self.begin_ms {
            self.begin_ms = begin_ms;
            self.candle = [self.candle[3]; 4];
            self.volume = 0;
        }
        if self.random.random_bool(0.6) {
            let is_buy = self.random.random_bool(0.5);
            let cents = if is_buy { self.mid + 5 } else { self.mid - 5 };
            let units = self.random.random_range(1..100_000);
            let id = self.trades.back().map_or(self.first_trade, |trade| trade.id + 1);
            let trade = Trade { id, price: price(cents), size: size(units), is_buy, time_ms };
            self.trades.push_back(trade.clone());
            if self.trades.len() > KEPT {
                self.trades.pop_front();
            }
            let [_, high, low, close] = &mut self.candle;
            (*high, *low, *close) = ((*high).max(cents), (*low).min(cents), cents);
            self.volume += units;
            happened.push(Happening::Trade(trade));
            let (bids, asks) = self.best(1);
            happened.push(Happening::Ticker {
                price: price(cents),
                bid: bids[0].clone(),
                ask: asks[0].clone(),
                time_ms,
            });
            let [open, high, low, close] = self.candle.map(price);
            let volume = size(self.volume);
            happened.push(Happening::Candle { begin_ms, open, high, low, close, volume, time_ms });
        }
        happened
    }

    fn change(&mut self, time_ms: u64) -> Happening {
        let first = self.update + 1;
        let (bids, asks) = (self.bids.clone(), self.asks.clone());
        let moved = 10 * self.random.random_range(-1..=1_i64);
        self.mid += moved;
        for step in 0..LEVELS {
            let random = &mut self.random;
            self.bids.entry(self.mid - 5 - 10 * step).or_insert_with(|| random.random_range(1..500_000));
            self.asks.entry(self.mid + 5 + 10 * step).or_insert_with(|| random.random_range(1..500_000));
        }
        let (mid, reach) = (self.mid, 10 * LEVELS);
        self.bids.retain(|cents, _| *cents < mid && *cents > mid - reach);
        self.asks.retain(|cents, _| *cents > mid && *cents < mid + reach);
        for side in [&mut self.bids, &mut self.asks] {
            let place = self.random.random_range(0..side.len());
            if let Some((_, units)) = side.iter_mut().nth(place) {
                *units = self.random.random_range(1..500_000);
            }
        }
        let changes = |old: &BTreeMap<i64, u64>, new: &BTreeMap<i64, u64>| -> Vec<[String; 2]> {
            let gone = old.keys().filter(|cents| !new.contains_key(cents)).map(|cents| (*cents, 0));
            let set = new.iter().filter(|(cents, units)| old.get(cents) != Some(units));
            let all = gone.chain(set.map(|(cents, units)| (*cents, *units)));
            all.map(|(cents, units)| [price(cents), size(units)]).collect()
        };
        let (bids, asks) = (changes(&bids, &self.bids), changes(&asks, &self.asks));
        self.update += 1 + (bids.len() + asks.len()) as u64;
        Happening::Change { first, last: self.update, bids, asks, time_ms, checksum: self.checksum() }
    }

    /// The answer to a request for `/api/v3/…`.
    pub(super) fn answer(&self, path: &str) -> String {
        if path.contains("/depth?") {
            let (bids, asks) = self.best(1_000);
            return json!({"lastUpdateId": self.update, "bids": bids, "asks": asks}).to_string();
        }
        let trades = self.trades.iter().map(|trade| {
            json!({
                "id": trade.id, "price": trade.price, "qty": trade.size, "quoteQty": "1.0",
                "time": trade.time_ms, "isBuyerMaker": !trade.is_buy, "isBestMatch": true,
            })
        });
        serde_json::Value::from_iter(trades).to_string()
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
