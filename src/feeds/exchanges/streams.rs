//! What was asked for of an exchange, whether it was acknowledged, and when each was last heard of.

use tokio::time::{Duration, Instant};

use crate::model::EventType;

/// How long an exchange may take to acknowledge.
const ACK_WITHIN: Duration = Duration::from_secs(10);

/// One kind of events of one symbol.
#[derive(Debug)]
struct Stream {
    symbol: usize,
    kind: EventType,
    /// Asked for, and not acknowledged.
    asked: Option<Instant>,
    heard: Instant,
}

/// Why streams need something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// What was asked for was not acknowledged.
    Unacknowledged { symbol: usize, kind: EventType },
    /// Nothing has come for as long as may be.
    Silent(Vec<(usize, EventType)>),
}

#[derive(Debug)]
pub(super) struct Streams {
    all: Vec<Stream>,
    silence: Duration,
    is_ready: bool,
}

impl Streams {
    /// Everything of this was asked for.
    pub(super) fn asked(symbols: usize, kinds: &[EventType], silence: Duration, now: Instant) -> Self {
        let of = |symbol| {
            kinds.iter().map(move |kind| Stream { symbol, kind: *kind, asked: Some(now), heard: now })
        };
        Self { all: (0..symbols).flat_map(of).collect(), silence, is_ready: false }
    }

    fn of(&mut self, symbol: usize, kind: EventType) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut().filter(move |stream| stream.symbol == symbol && stream.kind == kind)
    }

    /// One is asked for again, and waits to be acknowledged.
    pub(super) fn ask(&mut self, symbol: usize, kind: EventType, now: Instant) {
        self.of(symbol, kind).for_each(|stream| stream.asked = Some(now));
    }

    /// The exchange acknowledged one.
    pub(super) fn acknowledged(&mut self, symbol: usize, kind: EventType, now: Instant) {
        self.of(symbol, kind).for_each(|stream| (stream.asked, stream.heard) = (None, now));
    }

    /// Something of one came.
    pub(super) fn heard(&mut self, symbol: usize, kind: EventType, now: Instant) {
        self.of(symbol, kind).for_each(|stream| stream.heard = now);
    }

    /// Whether all are acknowledged; once.
    pub(super) fn becomes_ready(&mut self) -> bool {
        let is_ready = self.all.iter().all(|stream| stream.asked.is_none());
        is_ready && !std::mem::replace(&mut self.is_ready, true)
    }

    /// What needs something. Those that are silent count as heard of from here on.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Overdue> {
        let since = |moment: Instant| now.saturating_duration_since(moment);
        let unacknowledged =
            self.all.iter().find(|stream| stream.asked.is_some_and(|asked| since(asked) > ACK_WITHIN));
        if let Some(Stream { symbol, kind, .. }) = unacknowledged {
            return Some(Overdue::Unacknowledged { symbol: *symbol, kind: *kind });
        }
        let mut silent = Vec::new();
        for stream in &mut self.all {
            if stream.asked.is_none() && since(stream.heard) > self.silence {
                stream.heard = now;
                silent.push((stream.symbol, stream.kind));
            }
        }
        (!silent.is_empty()).then_some(Overdue::Silent(silent))
    }
}
