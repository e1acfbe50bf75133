//! Probes of the adapters of exchanges. The input is a conversation: each line is a frame, unless it begins
//! with one of the marks below.

use std::collections::{BTreeMap, VecDeque};

use chrono::TimeDelta;
use tokio::time::{Duration, Instant};

use super::{ExchangeConfig, FeedEvent, Moment, Resume, Step, Trouble, adapter};
use crate::model::EventType;
use crate::protocol::{parse_event, parse_price};
use crate::support::json::check_json;
use crate::support::probing::{NOW, json, text, told};

/// The line answers the oldest request; a request failed; a second passes; a minute and a half passes.
const ANSWER: char = '=';
const FAILURE: char = '!';
const SECOND: char = '.';
const LONG: char = '~';

fn config(toml: &str) -> ExchangeConfig {
    toml::from_str(toml).expect("settings")
}

/// A conversation about two symbols.
fn of_pairs(bytes: &[u8], kind: &str, quote: &str) {
    let config = config(&format!(
        "kind = '{kind}'\nsymbols = ['BTC-{quote}', 'ETH-{quote}']\n\
         types = ['ticker', 'trade', 'orderbook', 'candle']\ndepth = 10\nzones = {{ BTC-{quote} = 'btc' }}"
    ));
    converse(bytes, &config, true);
}

/// Binance's frames and answers.
pub(crate) fn binance(bytes: &[u8]) {
    of_pairs(bytes, "binance", "USDT");
}

/// Frames of Coinbase.
pub(crate) fn coinbase(bytes: &[u8]) {
    of_pairs(bytes, "coinbase", "USD");
}

/// Frames of Kraken.
pub(crate) fn kraken(bytes: &[u8]) {
    of_pairs(bytes, "kraken", "USD");
}

/// Documents of any source: CSV and JSON.
pub(crate) fn documents(bytes: &[u8]) {
    let polled = config(
        "kind = 'http'\nname = 'iso'\nurl = 'http://example.com/'\n\
         rows = { zone = 'pjm', every_s = 1, at = '/data/items', time_column = 'at' }",
    );
    let streamed = config(
        "kind = 'websocket'\nname = 'iso'\nurl = 'ws://example.com/'\nrows = { zone_column = 'zone' }",
    );
    converse(bytes, &streamed, false);
    converse(bytes, &polled, false);
    // A document of several lines.
    let Some(text) = text(bytes) else { return };
    let at = Moment { now: Instant::now(), utc: NOW };
    let (mut feed, mut heard) = (adapter(&streamed, &Resume::new(), at), Heard::default());
    let mut steps = Vec::new();
    let taken = feed.frame(text, at, &mut steps);
    let _is_over = heard.take(steps, taken, text.len(), false);
}

/// Runs a conversation with the adapter of an exchange. If `is_strict`, every event must be acceptable to a gateway;
/// otherwise the adapter passes on what rows say, and a gateway may refuse that.
fn converse(bytes: &[u8], config: &ExchangeConfig, is_strict: bool) {
    let Some(text) = text(bytes) else { return };
    let (begun, mut after) = (Instant::now(), Duration::ZERO);
    let at = |after: Duration| Moment {
        now: begun + after,
        utc: NOW + TimeDelta::from_std(after).expect("hours"),
    };
    let mut feed = adapter(config, &Resume::new(), at(after));
    let mut heard = Heard::default();
    let mut steps = Vec::new();
    feed.connected(at(after), &mut steps);
    assert!(!heard.take(steps, Ok(()), 0, is_strict), "it gives up before anything came");
    for line in text.lines().take(200) {
        let mut steps = Vec::new();
        let taken = match line.chars().next() {
            Some(c @ (ANSWER | FAILURE)) => match heard.asked.pop_front() {
                Some(id) => {
                    let failure = || "a request was answered with 500".to_owned();
                    let answer = (c == ANSWER).then(|| &line[1..]).ok_or_else(failure);
                    feed.fetched(id, answer, at(after), &mut steps)
                }
                None => Ok(()),
            },
            Some(c @ (SECOND | LONG)) => {
                after += Duration::from_secs(if c == SECOND { 1 } else { 90 });
                feed.tick(at(after), &mut steps);
                Ok(())
            }
            _ => feed.frame(line, at(after), &mut steps),
        };
        if heard.take(steps, taken, line.len(), is_strict) {
            // The next connection starts with a new adapter.
            return;
        }
    }
}

/// What an adapter has emitted so far.
#[derive(Default)]
struct Heard {
    /// Requests that were not answered yet.
    asked: VecDeque<u64>,
    /// The last trade of each symbol.
    trades: BTreeMap<String, u64>,
    /// The sequence of each book.
    books: BTreeMap<String, u64>,
}

impl Heard {
    /// Checks the steps of an adapter, and returns whether they end its connection.
    fn take(&mut self, steps: Vec<Step>, taken: Result<(), String>, len: usize, is_strict: bool) -> bool {
        let mut is_over = false;
        if let Err(malformed) = taken {
            // A failed answer may release trades that waited for it; their events do not come from the
            // malformed answer.
            let is_given_up = |step: &Step| matches!(step, Step::Trouble(Trouble::TradesMissed { .. }));
            let gives_up = steps.iter().any(is_given_up);
            // An unreadable answer still shows that its source is reachable.
            let is_used = |step: &Step| match step {
                Step::Event(event) => !(gives_up && event.kind == EventType::Trade),
                Step::Price { .. } => true,
                Step::Ready => is_strict,
                _ => false,
            };
            assert!(
                !steps.iter().any(is_used),
                "a part of a malformed frame ({malformed}) was used: {steps:?}"
            );
        }
        for step in steps {
            match step {
                Step::Event(event) => self.event(&event),
                Step::Price { json: price, .. } => match parse_price(&price, NOW, Duration::MAX) {
                    Ok(_) => {}
                    Err(error) => assert!(!is_strict, "{error}: {price}"),
                },
                Step::Send(text) => {
                    json(&text);
                }
                Step::Fetch { id, url } => {
                    assert!(url.starts_with("http"), "{url}");
                    self.asked.push_back(id);
                    assert!(self.asked.len() <= 64, "so many requests at once");
                }
                Step::Trouble(trouble) => {
                    assert!(trouble.reason().len() <= 1_000 + len, "{}", trouble.reason())
                }
                Step::Reconnect(reason) => {
                    told(&reason);
                    is_over = true;
                }
                Step::Ready => {}
            }
        }
        is_over
    }

    fn event(&mut self, FeedEvent { kind, json: event, trade }: &FeedEvent) {
        assert_eq!(check_json(event), Ok(()));
        let draft = parse_event(*kind, event, NOW, Duration::MAX).unwrap_or_else(|e| panic!("{e}: {event}"));
        let payload = json(text(&draft.data).expect("JSON is text"));
        let data = &payload["data"];
        let symbol = data["symbol"].as_str().unwrap_or_default().to_owned();
        if let Some((symbol, id)) = trade {
            let last = self.trades.insert(symbol.clone(), *id);
            assert!(last.is_none_or(|last| last < *id), "trade {id} of {symbol} after {last:?}");
        }
        if *kind == EventType::Orderbook {
            let sequence = data["sequence"].as_u64().expect("a number");
            let before = self.books.insert(symbol, sequence);
            if data["kind"] == "delta" {
                assert_eq!(data["previousSequence"].as_u64(), before, "changes follow each other");
            }
        }
    }
}
