//! Server-sent events (HTML, section 9.2), for networks that block WebSockets. A shard writes the usual
//! WebSocket frames to the connection, which has a `pipe` in place of a socket. The body of an HTTP answer
//! reads the pipe and converts the frames to events (`converter`), each with an id that contains the position
//! in each channel of the stream (`id`).

mod converter;
mod id;
mod pipe;
#[cfg(any(test, feature = "probes"))]
pub(super) mod probes;

pub(crate) use id::Resume;
pub(crate) use pipe::{EventPipe, EventStream};

use super::socket::Look;
use crate::model::{ChannelName, Position};
use crate::protocol::{CloseCode, ServerMessage};
use converter::Converter;

/// The first retry delay that a stream announces, in case it breaks off: this, plus up to the spread, so
/// that the clients of a gateway that dies do not all reconnect at once.
const RETRY_MS: u64 = 1_000;
const RETRY_SPREAD_MS: u64 = 2_000;

/// A channel that a stream is opened for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) channel: ChannelName,
    /// Where to resume.
    pub(crate) since: Option<Position>,
    /// Whether to begin with a snapshot if the client would otherwise miss something.
    pub(crate) snapshot: bool,
}

/// Both ends of a stream of these channels; `look` observes the client's socket.
pub(crate) fn stream(wanted: &[Wanted], look: Look) -> (EventPipe, EventStream) {
    let places = wanted.iter().map(|wanted| (wanted.channel.clone(), wanted.since.clone()));
    let retry_ms = RETRY_MS + rand::random_range(0..RETRY_SPREAD_MS);
    pipe::both_ends(Converter::new(places.collect(), retry_ms), look)
}

/// A stream with a single message: that it ends, and when to reconnect.
pub(crate) fn closing(code: CloseCode, retry_after_ms: u64) -> Vec<u8> {
    let closing = ServerMessage::closing(code, retry_after_ms, chrono::Utc::now());
    converter::only_event(&closing.to_json())
}
