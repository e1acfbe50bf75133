//! The streams subscribed to: whether each was acknowledged, and when it last sent something.

use tokio::time::{Duration, Instant};

use crate::model::EventType;

/// How long an exchange may take to acknowledge a subscription.
const ACK_WITHIN: Duration = Duration::from_secs(10);

/// One type of events of one symbol.
#[derive(Debug)]
struct Stream {
    symbol: usize,
    kind: EventType,
    /// When it was requested, until it is acknowledged.
    asked: Option<Instant>,
    heard: Instant,
}

#[derive(Debug)]
pub(super) struct Streams {
    all: Vec<Stream>,
    silence: Duration,
    is_ready: bool,
}

impl Streams {
    /// All streams have just been requested.
    pub(super) fn asked(symbols: usize, kinds: &[EventType], silence: Duration, now: Instant) -> Self {
        let of = |symbol| {
            kinds.iter().map(move |kind| Stream { symbol, kind: *kind, asked: Some(now), heard: now })
        };
        Self { all: (0..symbols).flat_map(of).collect(), silence, is_ready: false }
    }

    fn of(&mut self, symbol: usize, kind: EventType) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut().filter(move |stream| stream.symbol == symbol && stream.kind == kind)
    }

    /// A stream is requested again, and waits to be acknowledged.
    pub(super) fn ask(&mut self, symbol: usize, kind: EventType, now: Instant) {
        self.of(symbol, kind).for_each(|stream| stream.asked = Some(now));
    }

    pub(super) fn acknowledged(&mut self, symbol: usize, kind: EventType, now: Instant) {
        self.of(symbol, kind).for_each(|stream| (stream.asked, stream.heard) = (None, now));
    }

    /// A stream sent something.
    pub(super) fn heard(&mut self, symbol: usize, kind: EventType, now: Instant) {
        self.of(symbol, kind).for_each(|stream| stream.heard = now);
    }

    /// Whether all streams are acknowledged; true only once.
    pub(super) fn becomes_ready(&mut self) -> bool {
        let is_ready = self.all.iter().all(|stream| stream.asked.is_none());
        is_ready && !std::mem::replace(&mut self.is_ready, true)
    }

    /// The symbols and types of the streams that have been silent for too long. They are reported again only
    /// after another period of silence.
    ///
    /// # Errors
    /// A stream was not acknowledged in time: its symbol and type.
    pub(super) fn silent(&mut self, now: Instant) -> Result<Vec<(usize, EventType)>, (usize, EventType)> {
        let since = |moment: Instant| now.saturating_duration_since(moment);
        let unacknowledged =
            self.all.iter().find(|stream| stream.asked.is_some_and(|asked| since(asked) > ACK_WITHIN));
        if let Some(Stream { symbol, kind, .. }) = unacknowledged {
            return Err((*symbol, *kind));
        }
        let mut silent = Vec::new();
        for stream in &mut self.all {
            if stream.asked.is_none() && since(stream.heard) > self.silence {
                stream.heard = now;
                silent.push((stream.symbol, stream.kind));
            }
        }
        Ok(silent)
    }
}
