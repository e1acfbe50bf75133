//! Trades on their way to the log. Each goes there under an id that is made of exchange, symbol and number, so
//! that the log has it once, whichever process appends it, and however often. That needs the log itself: while it
//! cannot be reached, trades wait here, and are told by nobody.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::{Duration, Instant};
use tracing::warn;
use uuid::Uuid;

use super::Resume;
use crate::channels::{Channels, Link, PublishError};
use crate::model::{ChannelName, DraftEntry, EventType, NodeId, OFFSET_MAX};

/// Trades that wait, of all symbols. Past it the connection begins anew, and asks for them again.
const WAITING_MAX: usize = 10_000;

/// Trades in one request.
const AT_ONCE: usize = 500;

/// After a try that failed, the next one.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What waited for so long is late.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// Names the trades of a symbol.
const TRADES: Uuid = Uuid::from_u128(0x2d5a_8f0e_41c7_4b63_8e0f_c9a3_6d17_b254);

/// Whose the trades of a symbol are in the log: nobody's but the exchange's.
pub(super) fn producer(exchange: &str, symbol: &str) -> NodeId {
    NodeId(Uuid::new_v5(&TRADES, format!("{exchange} {symbol}").as_bytes()))
}

/// The sequence of a trade in the log, where numbers begin with 1; `None` of one that no log counts to.
pub(super) fn sequence(trade: u64) -> Option<u64> {
    trade.checked_add(1).filter(|seq| *seq <= OFFSET_MAX)
}

#[derive(Debug)]
struct Waiting {
    seq: u64,
    draft: DraftEntry,
    since: Instant,
}

/// The trades of a symbol.
#[derive(Debug)]
struct Line {
    producer: NodeId,
    /// The newest one that the log took here; 0 where none is known.
    last: u64,
    /// The log did not have that one when it was asked last: it may have to be put back.
    is_gap: bool,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
pub(super) struct Untold {
    exchange: String,
    channel: ChannelName,
    lines: BTreeMap<String, Line>,
    retry_at: Instant,
}

/// What came of a try.
#[derive(Debug, Default)]
pub(super) struct Appended {
    pub(super) told: usize,
    /// Left out for good.
    pub(super) left_out: usize,
}

impl Untold {
    pub(super) fn new(exchange: String) -> Self {
        let channel = ChannelName::event(EventType::Trade);
        Self { exchange, channel, lines: BTreeMap::new(), retry_at: Instant::now() }
    }

    /// Takes a trade that is to follow on all that came before; it will be told.
    pub(super) fn push(&mut self, symbol: String, seq: u64, draft: DraftEntry) {
        let exchange = &self.exchange;
        let line = self.lines.entry(symbol).or_insert_with_key(|symbol| Line {
            producer: producer(exchange, symbol),
            last: 0,
            is_gap: false,
            waiting: VecDeque::new(),
        });
        line.waiting.push_back(Waiting { seq, draft, since: Instant::now() });
    }

    fn len(&self) -> usize {
        self.lines.values().map(|line| line.waiting.len()).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() > WAITING_MAX
    }

    /// Forgets what waits: the next connection asks for it again. Answers how many that are.
    pub(super) fn give_up(&mut self, resume: &mut Resume) -> usize {
        let count = self.len();
        for (symbol, line) in &mut self.lines {
            if let Some(first) = line.waiting.front() {
                // The number of the one before it.
                match first.seq.checked_sub(2) {
                    Some(before) => resume.insert(symbol.clone(), before),
                    None => resume.remove(symbol),
                };
            }
            line.waiting.clear();
        }
        count
    }

    /// Appends what waits, and leaves there what the log cannot be given now.
    ///
    /// # Errors
    /// It will not take them.
    pub(super) async fn append(&mut self, channels: &Channels) -> (Appended, Result<(), PublishError>) {
        let mut done = Appended::default();
        if Instant::now() < self.retry_at {
            return (done, Ok(()));
        }
        for (symbol, line) in &mut self.lines {
            while !line.waiting.is_empty() {
                let batch = line.next();
                let answer = channels.publish_as(&self.channel, line.producer, batch).await;
                let error = match answer {
                    Ok(()) => {
                        done.told += line.took(AT_ONCE);
                        line.is_gap = false;
                        continue;
                    }
                    Err(error) => error,
                };
                done.told += line.took(error.accepted());
                match error {
                    PublishError::TooManyKeys { .. } => {
                        warn!(exchange = self.exchange, symbol, %error, "trades of an exchange are left out");
                        done.left_out += line.waiting.len();
                        line.waiting.clear();
                    }
                    PublishError::Gap { .. } if line.is_gap => {
                        warn!(
                            exchange = self.exchange,
                            symbol, "the log has lost trades, and goes on without them"
                        );
                        (line.last, line.is_gap) = (0, false);
                    }
                    // Whatever was appended here is put back first.
                    PublishError::Gap { .. } => {
                        line.is_gap = true;
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

impl Line {
    /// What is to be appended next.
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

    /// The log has so many of them, from the front. Answers how many there were.
    fn took(&mut self, count: usize) -> usize {
        let count = count.min(self.waiting.len());
        if let Some(last) = self.waiting.drain(..count).next_back() {
            self.last = last.seq;
        }
        count
    }
}
