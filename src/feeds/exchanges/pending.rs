//! Trades on their way to the log. A trade's id is made of exchange, symbol and number, so the log stores it
//! once, whichever process appends it and however often. Only the shared log can ensure that: while it cannot
//! be reached, trades wait here and are not published.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::{Duration, Instant};
use tracing::warn;
use uuid::Uuid;

use super::Resume;
use crate::channels::{Channels, Link, PublishError};
use crate::model::{ChannelName, DraftEntry, EventType, NodeId, OFFSET_MAX};

/// How many trades of all symbols may wait; if there are more, the connection restarts and requests them
/// again.
const WAITING_MAX: usize = 10_000;

/// How many trades one request appends.
const AT_ONCE: usize = 500;

/// The pause after a failed attempt.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A trade that has waited this long is marked late.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// The namespace of the producers of trades.
const TRADES: Uuid = Uuid::from_u128(0x2d5a_8f0e_41c7_4b63_8e0f_c9a3_6d17_b254);

/// The producer of a symbol's trades in the log: derived from the exchange, not from a node.
pub(super) fn producer(exchange: &str, symbol: &str) -> NodeId {
    NodeId(Uuid::new_v5(&TRADES, format!("{exchange} {symbol}").as_bytes()))
}

/// The sequence of a trade in the log, where sequences begin with 1; `None` if it exceeds the range of a log.
pub(super) fn sequence(trade: u64) -> Option<u64> {
    trade.checked_add(1).filter(|seq| *seq <= OFFSET_MAX)
}

#[derive(Debug)]
struct Waiting {
    seq: u64,
    draft: DraftEntry,
    since: Instant,
}

/// The waiting trades of a symbol.
#[derive(Debug)]
struct OfSymbol {
    producer: NodeId,
    /// The newest sequence that the log accepted from this process; 0 if none is known.
    last: u64,
    /// Whether the log lacked that sequence at the last attempt: this node may still have to append it again
    /// after an outage.
    is_gap: bool,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
pub(super) struct PendingTrades {
    exchange: String,
    channel: ChannelName,
    symbols: BTreeMap<String, OfSymbol>,
    retry_at: Instant,
}

/// The result of an attempt.
#[derive(Debug, Default)]
pub(super) struct Appended {
    /// How many the log accepted.
    pub(super) accepted: usize,
    /// How many were permanently left out.
    pub(super) left_out: usize,
}

impl PendingTrades {
    pub(super) fn new(exchange: String) -> Self {
        let channel = ChannelName::event(EventType::Trade);
        Self { exchange, channel, symbols: BTreeMap::new(), retry_at: Instant::now() }
    }

    /// Adds a trade, which must follow all that were added before.
    pub(super) fn push(&mut self, symbol: String, seq: u64, draft: DraftEntry) {
        let exchange = &self.exchange;
        let queue = self.symbols.entry(symbol).or_insert_with_key(|symbol| OfSymbol {
            producer: producer(exchange, symbol),
            last: 0,
            is_gap: false,
            waiting: VecDeque::new(),
        });
        queue.waiting.push_back(Waiting { seq, draft, since: Instant::now() });
    }

    fn len(&self) -> usize {
        self.symbols.values().map(|queue| queue.waiting.len()).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() > WAITING_MAX
    }

    /// Drops the waiting trades, so that the next connection requests them again, and returns how many there
    /// were.
    pub(super) fn give_up(&mut self, resume: &mut Resume) -> usize {
        let count = self.len();
        for (symbol, queue) in &mut self.symbols {
            if let Some(first) = queue.waiting.front() {
                // The number of the previous trade.
                match first.seq.checked_sub(2) {
                    Some(before) => resume.insert(symbol.clone(), before),
                    None => resume.remove(symbol),
                };
            }
            queue.waiting.clear();
        }
        count
    }

    /// Appends the waiting trades; those that the log cannot accept now keep waiting.
    ///
    /// # Errors
    /// The log refuses them.
    pub(super) async fn append(&mut self, channels: &Channels) -> (Appended, Result<(), PublishError>) {
        let mut done = Appended::default();
        if Instant::now() < self.retry_at {
            return (done, Ok(()));
        }
        for (symbol, queue) in &mut self.symbols {
            while !queue.waiting.is_empty() {
                let batch = queue.next();
                let answer = channels.publish_as(&self.channel, queue.producer, batch).await;
                let error = match answer {
                    Ok(()) => {
                        done.accepted += queue.took(AT_ONCE);
                        queue.is_gap = false;
                        continue;
                    }
                    Err(error) => error,
                };
                done.accepted += queue.took(error.accepted());
                match error {
                    PublishError::TooManyKeys { .. } => {
                        warn!(exchange = self.exchange, symbol, %error, "trades of an exchange were left out");
                        done.left_out += queue.waiting.len();
                        queue.waiting.clear();
                    }
                    PublishError::Gap { .. } if queue.is_gap => {
                        warn!(
                            exchange = self.exchange,
                            symbol, "the log has lost trades, and continues without them"
                        );
                        (queue.last, queue.is_gap) = (0, false);
                    }
                    // The node first appends again what the log lost.
                    PublishError::Gap { .. } => {
                        queue.is_gap = true;
                        self.retry_at = Instant::now() + RETRY_AFTER;
                        break;
                    }
                    PublishError::Unavailable { cause, .. } if cause.is_outage() => {
                        self.retry_at = Instant::now() + RETRY_AFTER;
                        return (done, Ok(()));
                    }
                    error => return (done, Err(error)),
                }
            }
        }
        (done, Ok(()))
    }
}

impl OfSymbol {
    fn next(&self) -> Vec<(DraftEntry, Link)> {
        let mut prev = self.last;
        let batch = self.waiting.iter().take(AT_ONCE).map(|Waiting { seq, draft, since }| {
            let link = Link { seq: *seq, prev };
            prev = *seq;
            let mut draft = draft.clone();
            draft.marks.late |= since.elapsed() >= LATE_AFTER;
            (draft, link)
        });
        batch.collect()
    }

    /// Removes the first `count` trades, which the log has, and returns how many there were.
    fn took(&mut self, count: usize) -> usize {
        let count = count.min(self.waiting.len());
        if let Some(last) = self.waiting.drain(..count).next_back() {
            self.last = last.seq;
        }
        count
    }
}
