//! The settings of exchanges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use url::Url;

use super::super::replay::time::{TimeFormat, TimeZone};
use super::super::replay::{Delimiter, ReplayOptions};
use super::STREAMED;
use crate::model::{EventType, Zone};
use crate::support::checks::{Checks, Finding};

/// How many streams Binance allows on one connection.
const BINANCE_STREAMS_MAX: usize = 1_024;

/// `[[feeds.exchanges]]`: an exchange whose public data are published, or a source of rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExchangeConfig {
    /// The exchange's name in events, in lower case. Unset: the kind. Of several processes on one Redis, only
    /// one at a time runs the feed with a given name.
    pub name: String,
    /// The exchange's protocol.
    pub kind: ExchangeKind,
    /// The address. Unset: the public address in the exchange's documentation.
    pub url: Option<String>,
    /// The address for requests, for Binance. Unset: the public address in its documentation.
    pub api_url: Option<String>,
    /// The symbols to subscribe to, as `BASE-QUOTE`.
    pub symbols: Vec<String>,
    /// Some of `ticker`, `trade`, `orderbook` and `candle`. Default the first three.
    #[serde(with = "types")]
    pub types: Vec<EventType>,
    /// The length of candles. Coinbase has `5m` only. Default `5m`.
    pub interval: Interval,
    /// How many levels each side of a book's snapshot has; for Kraken one of 10, 25, 100, 500 and 1,000.
    /// Default 100.
    pub depth: usize,
    /// After how many seconds of silence a stream is requested again; if that is not acknowledged, the
    /// connection is restarted. Default 60.
    pub silence_s: u64,
    /// Symbols whose prices are also published to a zone.
    pub zones: BTreeMap<String, Zone>,
    /// The meaning of rows, for the kinds `http` and `websocket`.
    pub rows: Option<RowsConfig>,
}

impl Default for ExchangeConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: ExchangeKind::Binance,
            url: None,
            api_url: None,
            symbols: Vec::new(),
            types: vec![EventType::Ticker, EventType::Trade, EventType::Orderbook],
            interval: Interval(5),
            depth: 100,
            silence_s: 60,
            zones: BTreeMap::new(),
            rows: None,
        }
    }
}

/// Serializes types of events by name.
mod types {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::model::EventType;

    pub(super) fn serialize<S: Serializer>(types: &[EventType], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(types.iter().map(|kind| kind.as_str()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<EventType>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
    }
}

/// The protocol of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeKind {
    /// Binance's market streams.
    Binance,
    /// Coinbase's Advanced Trade WebSocket.
    Coinbase,
    /// Kraken's WebSocket, version 2.
    Kraken,
    /// An address that is polled for rows of CSV or JSON.
    Http,
    /// A WebSocket whose messages are rows of JSON.
    Websocket,
}

impl ExchangeKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Binance => "binance",
            Self::Coinbase => "coinbase",
            Self::Kraken => "kraken",
            Self::Http => "http",
            Self::Websocket => "websocket",
        }
    }

    /// Whether it yields rows whose meaning is configured.
    pub(super) fn has_rows(self) -> bool {
        matches!(self, Self::Http | Self::Websocket)
    }

    fn url(self) -> &'static str {
        match self {
            Self::Binance => "wss://stream.binance.com:9443/stream",
            Self::Coinbase => "wss://advanced-trade-ws.coinbase.com",
            Self::Kraken => "wss://ws.kraken.com/v2",
            Self::Http | Self::Websocket => "",
        }
    }
}

/// The length of a candle in whole minutes, such as `1m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(u32);

text_in_settings!(Interval);

impl Interval {
    /// The lengths that exchanges offer, in minutes.
    const ALL: [(&str, u32); 8] = [
        ("1m", 1),
        ("5m", 5),
        ("15m", 15),
        ("30m", 30),
        ("1h", 60),
        ("4h", 240),
        ("1d", 1_440),
        ("1w", 10_080),
    ];

    pub(super) const MINUTE: Self = Self(1);

    pub(super) fn minutes(self) -> u32 {
        self.0
    }

    pub(super) fn length(self) -> TimeDelta {
        TimeDelta::minutes(self.0.into())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, minutes)| *minutes == self.0).map_or("5m", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, minutes)| Self(*minutes)).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            format!("expected one of {names}; found {text:?}")
        })
    }
}

/// `rows` of `[[feeds.exchanges]]`: the meaning of the rows of a source that is not an exchange, in the terms
/// of `[feeds.replay]`. Each row is a price of a zone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RowsConfig {
    /// How often to request the address, in seconds. 0, the default, means 60.
    pub every_s: u64,
    /// Messages to send once the WebSocket is connected.
    pub subscribe: Vec<String>,
    /// A JSON pointer to the rows within a document, such as `/data/items`. Empty: the document itself is a
    /// row or an array of rows.
    pub at: String,
    /// The zone of all rows, instead of a column.
    pub zone: Option<Zone>,
    /// The column that names the zone.
    pub zone_column: Option<String>,
    /// The columns that name the hub, node or symbol, joined with `/`.
    pub key_columns: Vec<String>,
    /// The column that holds the price.
    pub price_column: Option<String>,
    /// The column that holds the time.
    pub time_column: Option<String>,
    /// The format of the times, as for `strptime`.
    pub time_format: Option<TimeFormat>,
    /// The time zone of times that do not state their own.
    pub time_zone: TimeZone,
    /// The delimiter of the columns of CSV.
    pub delimiter: Option<Delimiter>,
    /// New names of columns, as `old = "new"`.
    pub rename: BTreeMap<String, String>,
}

impl RowsConfig {
    pub(super) fn every_s(&self) -> u64 {
        if self.every_s == 0 { 60 } else { self.every_s }
    }

    pub(super) fn options(&self) -> ReplayOptions {
        ReplayOptions {
            zone: self.zone.clone(),
            zone_column: self.zone_column.clone(),
            key_columns: self.key_columns.clone(),
            price_column: self.price_column.clone(),
            time_column: self.time_column.clone(),
            time_format: self.time_format.clone(),
            time_zone: self.time_zone,
            delimiter: self.delimiter,
            rename: self.rename.clone().into_iter().collect(),
            ..ReplayOptions::default()
        }
    }
}

impl ExchangeConfig {
    /// The exchange's name in events.
    pub(crate) fn name(&self) -> &str {
        if self.name.is_empty() { self.kind.as_str() } else { &self.name }
    }

    /// Removes from its addresses the parts that may contain a key.
    pub(crate) fn mask(&mut self) {
        for url in [&mut self.url, &mut self.api_url].into_iter().flatten() {
            if let Some((address, _)) = url.split_once('?') {
                *url = format!("{address}?***");
            }
        }
    }

    pub(super) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(self.kind.url())
    }

    pub(super) fn api_url(&self) -> &str {
        self.api_url.as_deref().unwrap_or("https://api.binance.com").trim_end_matches('/')
    }

    /// The problems of its settings, each with the key concerned.
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let name = self.name();
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        if name.len() > 32 || !name.chars().all(is_plain) {
            found.push(("name", format!("expected up to 32 of a-z, 0-9, `.`, `_` and `-`; found {name:?}")));
        }
        if self.silence_s == 0 {
            found.push(("silence_s", "expected 1 or more, found 0".to_owned()));
        }
        if !(1..=1_000).contains(&self.depth) {
            found.push(("depth", format!("expected 1 to 1000, found {}", self.depth)));
        }
        let schemes: &[&str] =
            if self.kind == ExchangeKind::Http { &["http", "https"] } else { &["ws", "wss"] };
        address(self.url(), "url", schemes, &mut found);
        if self.kind.has_rows() {
            self.problems_of_rows(&mut found);
        } else {
            self.problems_of_symbols(&mut found);
        }
        if self.kind == ExchangeKind::Binance {
            address(self.api_url(), "api_url", &["http", "https"], &mut found);
        } else if self.api_url.is_some() {
            found.push(("api_url", "only Binance is asked by requests".to_owned()));
        }
        found
    }

    fn problems_of_rows(&self, found: &mut Vec<(&'static str, String)>) {
        let Some(rows) = &self.rows else {
            found.push(("rows", "it is missing: what the rows mean, such as { zone = \"pjm\" }".to_owned()));
            return;
        };
        if !self.symbols.is_empty() || !self.zones.is_empty() {
            found.push((
                "symbols",
                "its rows say what they are about; leave out symbols and zones".to_owned(),
            ));
        }
        if rows.zone.is_some() == rows.zone_column.is_some() {
            found.push(("rows", "expected either `zone` or `zone_column`".to_owned()));
        }
        if !(rows.at.is_empty() || rows.at.starts_with('/')) {
            found.push(("rows", format!("`at` is a JSON pointer such as /data/items; found {:?}", rows.at)));
        }
    }

    fn problems_of_symbols(&self, found: &mut Vec<(&'static str, String)>) {
        if self.rows.is_some() {
            found.push(("rows", "only the kinds http and websocket have rows".to_owned()));
        }
        if self.symbols.is_empty() {
            found.push(("symbols", "expected at least one, such as BTC-USDT".to_owned()));
        }
        for symbol in self.symbols.iter().filter(|symbol| !is_pair(symbol)) {
            found.push(("symbols", format!("expected BASE-QUOTE such as BTC-USDT; found {symbol:?}")));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.symbols.iter().find(|symbol| !seen.insert(symbol.as_str())) {
            found.push(("symbols", format!("{twice} occurs twice")));
        }
        if let Some(other) = self.zones.keys().find(|symbol| !self.symbols.contains(symbol)) {
            found.push(("zones", format!("{other} is not among `symbols`")));
        }
        if self.types.is_empty() || !self.types.iter().all(|kind| STREAMED.contains(kind)) {
            found.push(("types", "expected some of ticker, trade, orderbook, candle".to_owned()));
        }
        let streams = self.symbols.len() * self.types.len();
        if self.kind == ExchangeKind::Binance && streams > BINANCE_STREAMS_MAX {
            let problem = format!(
                "{streams} streams are more than the {BINANCE_STREAMS_MAX} of one connection: split it in two"
            );
            found.push(("symbols", problem));
        }
        let has_candles = self.types.contains(&EventType::Candle);
        if self.kind == ExchangeKind::Coinbase && has_candles && self.interval.minutes() != 5 {
            found.push(("interval", format!("Coinbase has 5m only; found {}", self.interval)));
        }
        if self.kind == ExchangeKind::Kraken && ![10, 25, 100, 500, 1_000].contains(&self.depth) {
            found.push(("depth", format!("Kraken has 10, 25, 100, 500 and 1000; found {}", self.depth)));
        }
    }
}

/// Whether a symbol has the form `BASE-QUOTE`.
pub(crate) fn is_pair(symbol: &str) -> bool {
    let is_part = |part: &str| {
        (1..=16).contains(&part.len()) && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    };
    symbol.split_once('-').is_some_and(|(base, quote)| is_part(base) && is_part(quote))
}

fn address(text: &str, key: &'static str, schemes: &[&str], found: &mut Vec<(&'static str, String)>) {
    let expected = format!("expected an address that begins with {}://", schemes.join(":// or "));
    // The address may contain a key of the source, so errors must not repeat it.
    match Url::parse(text) {
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => {
            if !url.username().is_empty() || url.password().is_some() {
                found.push((key, "there must be no user and no password in it".to_owned()));
            }
        }
        _ => found.push((key, expected)),
    }
}

/// The settings that cannot be used, of all exchanges.
pub(crate) fn check(exchanges: &[ExchangeConfig]) -> Vec<Finding> {
    let mut checks = Checks::of("feeds");
    let mut names = BTreeSet::new();
    for exchange in exchanges {
        for (key, problem) in exchange.problems() {
            checks.require("exchanges", false, || format!("{}: {key}: {problem}", exchange.name()));
        }
        checks.require("exchanges", names.insert(exchange.name()), || {
            format!("{}: two exchanges have this name; set the `name` of one", exchange.name())
        });
    }
    checks.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        #[derive(Deserialize)]
        struct Section {
            exchanges: Vec<ExchangeConfig>,
        }
        let section: Section = toml::from_str(text).unwrap();
        check(&section.exchanges).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn valid_settings_are_accepted() {
        for good in [
            "[[exchanges]]\nkind = 'binance'\nsymbols = ['BTC-USDT']\nzones = { BTC-USDT = 'btc-usdt' }",
            "[[exchanges]]\nkind = 'kraken'\nsymbols = ['BTC-USD']\ntypes = ['candle']\ninterval = '1m'",
            "[[exchanges]]\nkind = 'coinbase'\nsymbols = ['BTC-USD', 'ETH-USD']\ntypes = ['candle', 'trade']",
            "[[exchanges]]\nkind = 'http'\nname = 'iso'\nurl = 'https://example.com/lmp.csv'\n\
             rows = { zone = 'pjm', every_s = 300, price_column = 'lmp' }",
        ] {
            assert_eq!(problems(good), [""; 0], "{good}");
        }
    }

    #[test]
    fn parts_of_addresses_that_may_be_keys_are_masked() {
        let mut config: ExchangeConfig = toml::from_str("url = 'https://x/y?key=secret'").unwrap();
        config.mask();
        assert_eq!(config.url.as_deref(), Some("https://x/y?***"));
    }

    #[test]
    fn each_invalid_setting_is_reported() {
        for (bad, expected) in [
            ("[[exchanges]]", "binance: symbols: expected at least one"),
            (
                "[[exchanges]]\nsymbols = ['btcusdt']",
                "expected BASE-QUOTE such as BTC-USDT; found \"btcusdt\"",
            ),
            ("[[exchanges]]\nsymbols = ['A-B', 'A-B']", "A-B occurs twice"),
            ("[[exchanges]]\nsymbols = ['A-B']\nname = 'No'", "name: expected up to 32 of a-z"),
            ("[[exchanges]]\nsymbols = ['A-B']\nurl = 'https://u:secret@x/'", "begins with ws:// or wss://"),
            ("[[exchanges]]\nsymbols = ['A-B']\nurl = 'wss://u:secret@x/'", "no user and no password"),
            ("[[exchanges]]\nsymbols = ['A-B']\ntypes = ['exchange:error']", "types: expected some of"),
            ("[[exchanges]]\nsymbols = ['A-B']\nzones = { X-Y = 'a' }", "zones: X-Y is not among `symbols`"),
            (
                "[[exchanges]]\nsymbols = ['A-B']\n[[exchanges]]\nsymbols = ['A-B']",
                "two exchanges have this name",
            ),
            ("[[exchanges]]\nkind = 'kraken'\nsymbols = ['A-B']\ndepth = 50", "Kraken has 10, 25"),
            (
                "[[exchanges]]\nkind = 'coinbase'\nsymbols = ['A-B']\ntypes = ['candle']\ninterval = '1h'",
                "Coinbase has 5m only; found 1h",
            ),
            ("[[exchanges]]\nkind = 'http'\nurl = 'http://x/'", "rows: it is missing"),
            ("[[exchanges]]\nkind = 'http'\nurl = 'http://x/'\nrows = {}", "either `zone` or `zone_column`"),
        ] {
            let found = problems(bad);
            assert!(found.iter().any(|problem| problem.contains(expected)), "{bad}: {found:?}");
            assert!(found.iter().all(|problem| !problem.contains("secret")), "{found:?}");
        }
        let error = toml::from_str::<ExchangeConfig>("interval = '2m'").unwrap_err().to_string();
        assert!(error.contains("expected one of 1m, 5m"), "{error}");
    }
}
