//! Server-sent events (HTML, section 9.2), for networks that let no WebSocket through: what a shard sends to a
//! connection goes into a `pipe` in place of a socket, as the same WebSocket frames, and the body of an HTTP
//! answer takes it out and tells it as events (`telling`), each with an id that says where all channels of the
//! stream stand (`id`).

mod id;
mod pipe;
#[cfg(any(test, feature = "probes"))]
pub(super) mod probes;
mod telling;

pub(crate) use id::Resume;
pub(crate) use pipe::{EventPipe, EventStream};

use super::socket::Look;
use crate::model::{ChannelName, Position};
use crate::protocol::{CloseCode, ServerMessage};
use telling::Telling;

/// The first wait that a stream tells its reader, in case it ends without a word: from this, and up to this much
/// more, so that readers of a gateway that dies do not come back all at once.
const RETRY_MS: u64 = 1_000;
const RETRY_SPREAD_MS: u64 = 2_000;

/// A channel that a stream is opened for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) channel: ChannelName,
    /// Where to resume.
    pub(crate) since: Option<Position>,
    /// Where it would miss something, the latest entry of each key comes first.
    pub(crate) snapshot: bool,
}

/// Both ends of a stream of these channels, whose reader is at the other end of the socket.
pub(crate) fn stream(wanted: &[Wanted], look: Look) -> (EventPipe, EventStream) {
    let places = wanted.iter().map(|wanted| (wanted.channel.clone(), wanted.since.clone()));
    let retry_ms = RETRY_MS + rand::random_range(0..RETRY_SPREAD_MS);
    pipe::both_ends(Telling::new(places.collect(), retry_ms), look)
}

/// A stream that tells nothing but that it ends, and when to come back.
pub(crate) fn closing(code: CloseCode, retry_after_ms: u64) -> Vec<u8> {
    let closing = ServerMessage::closing(code, retry_after_ms, chrono::Utc::now());
    telling::last_words(&closing.to_json())
}
