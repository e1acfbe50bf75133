//! The protocol of each exchange: how the stand-in answers requests and announces events.

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::Speaks;
use super::market::{Happening, Market, Trade};

/// How many trades a subscription begins with.
const LAST_TRADES: usize = 50;

pub(super) struct Speech {
    speaks: Speaks,
    /// The subscribed channels, by the exchange's names.
    channels: BTreeSet<String>,
    /// The symbol in the exchange's form.
    symbol: String,
    number: u64,
}

fn rfc3339(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl Speech {
    pub(super) fn new(speaks: Speaks) -> Self {
        Self { speaks, channels: BTreeSet::new(), symbol: String::new(), number: 0 }
    }

    pub(super) fn greeting(&self) -> Vec<String> {
        match self.speaks {
            Speaks::Kraken => vec![
                json!({"channel": "status", "type": "update", "data": [{
                    "system": "online", "api_version": "v2", "connection_id": 1, "version": "2.0.0",
                }]})
                .to_string(),
            ],
            _ => Vec::new(),
        }
    }

    pub(super) fn asked(&mut self, text: &str, market: &Market) -> Vec<String> {
        let asked: Value = serde_json::from_str(text).unwrap_or_default();
        match self.speaks {
            Speaks::Binance => self.binance_asked(&asked, market),
            Speaks::Coinbase => self.coinbase_asked(&asked, market),
            Speaks::Kraken => self.kraken_asked(&asked, market),
        }
    }

    /// Writes an event, if it was subscribed to.
    pub(super) fn tell(&mut self, happening: &Happening) -> Vec<String> {
        let frame = match self.speaks {
            Speaks::Binance => self.binance(happening),
            Speaks::Coinbase => self.coinbase(happening),
            Speaks::Kraken => self.kraken(happening),
        };
        frame.into_iter().collect()
    }

    fn has(&self, channel: &str) -> bool {
        self.channels.contains(channel)
    }

    fn binance_asked(&mut self, asked: &Value, market: &Market) -> Vec<String> {
        self.symbol = market.symbol.replace('-', "");
        let Some(params) = asked["params"].as_array().filter(|_| asked["method"] == "SUBSCRIBE") else {
            let error = json!({"code": 2, "msg": "Invalid request: unknown method"});
            return vec![json!({"error": error, "id": asked["id"]}).to_string()];
        };
        for name in params.iter().filter_map(Value::as_str) {
            let Some((symbol, channel)) = name.split_once('@') else { continue };
            if symbol == self.symbol.to_lowercase() {
                self.channels.insert(channel.to_owned());
            }
        }
        vec![json!({"result": null, "id": asked["id"]}).to_string()]
    }

    fn binance(&self, happening: &Happening) -> Option<String> {
        let symbol = &self.symbol;
        let (channel, data) = match happening {
            Happening::Trade(Trade { id, price, size, is_buy, time_ms }) => {
                let data = json!({
                    "e": "trade", "E": time_ms, "s": symbol, "t": id, "p": price, "q": size, "T": time_ms,
                    "m": !is_buy, "M": true,
                });
                ("trade", data)
            }
            Happening::Change { first, last, bids, asks, time_ms, .. } => {
                let data = json!({
                    "e": "depthUpdate", "E": time_ms, "s": symbol, "U": first, "u": last, "b": bids, "a": asks,
                });
                ("depth@100ms", data)
            }
            Happening::Ticker { price, bid, ask, time_ms } => {
                let data = json!({
                    "e": "24hrTicker", "E": time_ms, "s": symbol, "p": "0.00", "P": "0.000", "c": price,
                    "b": bid[0], "B": bid[1], "a": ask[0], "A": ask[1], "o": "105000.00", "h": "106000.00",
                    "l": "104000.00", "v": "100.5", "q": "10000000.5", "n": 1,
                });
                ("ticker", data)
            }
            Happening::Candle { begin_ms, open, high, low, close, volume, time_ms } => {
                let data = json!({"e": "kline", "E": time_ms, "s": symbol, "k": {
                    "t": begin_ms, "T": begin_ms + 59_999, "s": symbol, "i": "1m", "o": open, "h": high,
                    "l": low, "c": close, "v": volume, "n": 1, "x": false, "q": "1.0",
                }});
                ("kline_1m", data)
            }
        };
        let stream = format!("{}@{channel}", symbol.to_lowercase());
        self.has(channel).then(|| json!({"stream": stream, "data": data}).to_string())
    }

    fn numbered(&mut self, channel: &str, time_ms: u64, events: &Value) -> String {
        let number = self.number;
        self.number += 1;
        json!({
            "channel": channel, "client_id": "", "timestamp": rfc3339(time_ms), "sequence_num": number,
            "events": events,
        })
        .to_string()
    }

    fn coinbase_asked(&mut self, asked: &Value, market: &Market) -> Vec<String> {
        self.symbol.clone_from(&market.symbol);
        let Some(channel) = asked["channel"].as_str().filter(|_| asked["type"] == "subscribe") else {
            return vec![json!({"type": "error", "message": "invalid request"}).to_string()];
        };
        let channel = channel.to_owned();
        self.channels.insert(channel.clone());
        let time_ms = market.trades.back().map_or(1_760_000_000_000, |trade| trade.time_ms);
        let mut frames = Vec::new();
        let symbol = self.symbol.clone();
        match channel.as_str() {
            "level2" => {
                let (bids, asks) = market.best(1_000);
                let events =
                    json!([{"type": "snapshot", "product_id": symbol, "updates": updates(&bids, &asks)}]);
                frames.push(self.numbered("l2_data", time_ms, &events));
            }
            "market_trades" => {
                let last = market.trades.iter().rev().take(LAST_TRADES);
                let trades: Vec<Value> = last.map(|trade| coinbase_trade(trade, &symbol)).collect();
                let events = json!([{"type": "snapshot", "trades": trades}]);
                frames.push(self.numbered("market_trades", time_ms, &events));
            }
            _ => {}
        }
        let all: serde_json::Map<String, Value> =
            self.channels.iter().map(|channel| (channel.clone(), json!([symbol]))).collect();
        frames.push(self.numbered("subscriptions", time_ms, &json!([{"subscriptions": all}])));
        frames
    }

    fn coinbase(&mut self, happening: &Happening) -> Option<String> {
        let symbol = self.symbol.clone();
        match happening {
            Happening::Trade(trade) if self.has("market_trades") => {
                let events = json!([{"type": "update", "trades": [coinbase_trade(trade, &symbol)]}]);
                Some(self.numbered("market_trades", trade.time_ms, &events))
            }
            Happening::Change { bids, asks, time_ms, .. } if self.has("level2") => {
                let events =
                    json!([{"type": "update", "product_id": symbol, "updates": updates(bids, asks)}]);
                Some(self.numbered("l2_data", *time_ms, &events))
            }
            Happening::Ticker { price, bid, ask, time_ms } if self.has("ticker") => {
                let ticker = json!({
                    "type": "ticker", "product_id": symbol, "price": price, "volume_24_h": "15328.12345678",
                    "low_24_h": "104000.00", "high_24_h": "106000.00", "price_percent_chg_24_h": "1.85",
                    "best_bid": bid[0], "best_bid_quantity": bid[1], "best_ask": ask[0],
                    "best_ask_quantity": ask[1],
                });
                Some(self.numbered("ticker", *time_ms, &json!([{"type": "update", "tickers": [ticker]}])))
            }
            Happening::Candle { begin_ms, open, high, low, close, volume, time_ms }
                if self.has("candles") =>
            {
                let start = (begin_ms / 300_000 * 300).to_string();
                let candle = json!({
                    "start": start, "high": high, "low": low, "open": open, "close": close, "volume": volume,
                    "product_id": symbol,
                });
                Some(self.numbered("candles", *time_ms, &json!([{"type": "update", "candles": [candle]}])))
            }
            _ => None,
        }
    }

    fn kraken_asked(&mut self, asked: &Value, market: &Market) -> Vec<String> {
        self.symbol = market.symbol.replace('-', "/");
        let channel = asked["params"]["channel"].as_str().unwrap_or_default().to_owned();
        let symbol = self.symbol.clone();
        let answer = json!({
            "method": asked["method"], "result": {"channel": channel, "symbol": symbol, "snapshot": true},
            "success": true, "time_in": "2023-09-25T09:04:31.742599Z", "time_out": "2023-09-25T09:04:31.742648Z",
            "req_id": asked["req_id"],
        });
        let mut frames = vec![answer.to_string()];
        if asked["method"] != "subscribe" {
            self.channels.remove(&channel);
            return frames;
        }
        match channel.as_str() {
            "book" => {
                let depth = asked["params"]["depth"].as_u64().unwrap_or(10);
                let (bids, asks) = market.best(usize::try_from(depth).unwrap_or(10));
                let checksum = market.checksum();
                frames.push(kraken_book("snapshot", &symbol, &bids, &asks, checksum, 1_760_000_000_000));
            }
            "trade" => {
                let last = market.trades.iter().rev().take(LAST_TRADES).rev();
                let last = last.map(|trade| kraken_trade(trade, &symbol)).collect::<Vec<_>>().join(",");
                frames.push(format!(r#"{{"channel":"trade","type":"snapshot","data":[{last}]}}"#));
            }
            _ => {}
        }
        self.channels.insert(channel);
        frames
    }

    fn kraken(&self, happening: &Happening) -> Option<String> {
        let symbol = &self.symbol;
        match happening {
            Happening::Trade(trade) => self.has("trade").then(|| {
                format!(r#"{{"channel":"trade","type":"update","data":[{}]}}"#, kraken_trade(trade, symbol))
            }),
            Happening::Change { bids, asks, time_ms, checksum, .. } => {
                self.has("book").then(|| kraken_book("update", symbol, bids, asks, *checksum, *time_ms))
            }
            Happening::Ticker { price, bid, ask, time_ms } => self.has("ticker").then(|| {
                let ([bid, bid_qty], [ask, ask_qty], time) = (bid, ask, rfc3339(*time_ms));
                format!(
                    r#"{{"channel":"ticker","type":"update","data":[{{"symbol":"{symbol}","bid":{bid},"bid_qty":{bid_qty},"ask":{ask},"ask_qty":{ask_qty},"last":{price},"volume":163.28908096,"vwap":105904.39279,"low":104711.00,"high":106613.10,"change":250.00,"change_pct":0.24,"timestamp":"{time}"}}]}}"#
                )
            }),
            Happening::Candle { begin_ms, open, high, low, close, volume, .. } => self.has("ohlc").then(|| {
                let begin = rfc3339(*begin_ms);
                format!(
                    r#"{{"channel":"ohlc","type":"update","data":[{{"symbol":"{symbol}","interval":1,"interval_begin":"{begin}","open":{open},"high":{high},"low":{low},"close":{close},"volume":{volume},"vwap":{close},"trades":1}}]}}"#
                )
            }),
        }
    }
}

fn updates(bids: &[[String; 2]], asks: &[[String; 2]]) -> Vec<Value> {
    let of = |side: &'static str| {
        move |[price, size]: &[String; 2]| {
            json!({
                "side": side, "event_time": "1970-01-01T00:00:00Z", "price_level": price, "new_quantity": size,
            })
        }
    };
    bids.iter().map(of("bid")).chain(asks.iter().map(of("offer"))).collect()
}

fn coinbase_trade(trade: &Trade, symbol: &str) -> Value {
    // The side is that of the resting order.
    let side = if trade.is_buy { "SELL" } else { "BUY" };
    json!({
        "trade_id": trade.id.to_string(), "product_id": symbol, "price": trade.price, "size": trade.size,
        "side": side, "time": rfc3339(trade.time_ms),
    })
}

fn kraken_trade(trade: &Trade, symbol: &str) -> String {
    let Trade { id, price, size, is_buy, time_ms } = trade;
    let (side, time) = (if *is_buy { "buy" } else { "sell" }, rfc3339(*time_ms));
    format!(
        r#"{{"symbol":"{symbol}","side":"{side}","price":{price},"qty":{size},"ord_type":"limit","trade_id":{id},"timestamp":"{time}"}}"#
    )
}

fn kraken_book(
    kind: &str,
    symbol: &str,
    bids: &[[String; 2]],
    asks: &[[String; 2]],
    checksum: u32,
    time_ms: u64,
) -> String {
    let side = |levels: &[[String; 2]]| {
        let levels = levels.iter().map(|[price, size]| format!(r#"{{"price":{price},"qty":{size}}}"#));
        levels.collect::<Vec<_>>().join(",")
    };
    let (bids, asks, time) = (side(bids), side(asks), rfc3339(time_ms));
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":[{bids}],"asks":[{asks}],"checksum":{checksum},"timestamp":"{time}"}}]}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_exchanges_do() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(1_709_251_199_123), "2024-02-29T23:59:59.123000Z");
    }
}
