//! Carries frames from a connection, which writes them as to a socket, to the body of an answer, which
//! sends events.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::converter::Converter;
use crate::connections::socket::Look;

/// The most bytes in a pipe: as much as a socket accepts beyond what is sent. Thus lag shows in the
/// connection's outbox, which is bounded and where newer entries replace older ones.
const PIPE_BYTES: usize = 16 << 10;

/// About how many bytes of events are sent at once.
const PART_BYTES: usize = 16 << 10;

/// Written once the client's machine has reported that it sends no more; if the client is gone, its machine
/// rejects this.
const ARE_YOU_THERE: &[u8] = b":\n";

/// The state that both ends share.
#[derive(Debug, Default)]
struct Pipe {
    waiting: Vec<u8>,
    /// Since when something waits and nothing was read.
    untaken_since: Option<Instant>,
    /// The connection has ended.
    is_written: bool,
    /// The answer has begun.
    is_begun: bool,
    /// The answer has ended.
    is_gone: bool,
    /// The connection waits for room.
    wants_room: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

/// The connection's end, in place of a socket. If it is dropped before the answer has ended, the client is
/// cut off.
pub(crate) struct EventPipe {
    pipe: Arc<Mutex<Pipe>>,
    look: Look,
}

/// The answer's end, which yields events.
pub(crate) struct EventStream {
    pipe: Arc<Mutex<Pipe>>,
    converter: Converter,
    look: Look,
    /// Completes when the client's machine reports that it sends no more.
    watch: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    /// The client's machine sends no more, and was written to in order to see whether the client is there.
    is_asked: bool,
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waiting) = waiting.take() {
        waiting.wake();
    }
}

pub(super) fn both_ends(converter: Converter, look: Look) -> (EventPipe, EventStream) {
    let pipe = Arc::<Mutex<Pipe>>::default();
    let sent_all = look.clone();
    let watch = Box::pin(async move { sent_all.sends_no_more().await });
    let stream =
        EventStream { pipe: Arc::clone(&pipe), converter, look: look.clone(), watch, is_asked: false };
    (EventPipe { pipe, look }, stream)
}

impl EventPipe {
    /// Accepts as much as there is room for, like a socket.
    pub(in crate::connections) fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.pipe.lock();
        if pipe.is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut taken = 0;
        for slice in slices {
            let some = slice.len().min(PIPE_BYTES - pipe.waiting.len());
            pipe.waiting.extend_from_slice(&slice[..some]);
            taken += some;
        }
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.untaken_since.get_or_insert_with(Instant::now);
        wake(&mut pipe.reader);
        Ok(taken)
    }

    /// Waits until there is room; an error if the answer has ended.
    pub(in crate::connections) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.lock();
        if pipe.is_gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.waiting.len() < PIPE_BYTES {
            return Poll::Ready(Ok(()));
        }
        pipe.wants_room = true;
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until the answer has ended: everything was sent, or the client is gone.
    pub(in crate::connections) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pipe = self.pipe.lock();
        if pipe.is_gone {
            return Poll::Ready(());
        }
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// How long the client has read nothing although something waits.
    pub(in crate::connections) fn untaken_for(&self, now: Instant) -> Duration {
        let since = self.pipe.lock().untaken_since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Restarts the time of [`untaken_for`](Self::untaken_for), because the delay was not the client's fault.
    pub(in crate::connections) fn excuse(&self) {
        let mut pipe = self.pipe.lock();
        pipe.untaken_since = pipe.untaken_since.map(|_| Instant::now());
    }
}

impl Drop for EventPipe {
    fn drop(&mut self) {
        let mut pipe = self.pipe.lock();
        pipe.is_written = true;
        if pipe.is_begun && !pipe.is_gone {
            // A client that reads nothing would keep the answer from ending.
            self.look.hang_up();
        }
        wake(&mut pipe.reader);
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let mut pipe = self.pipe.lock();
        pipe.is_gone = true;
        pipe.waiting = Vec::new();
        wake(&mut pipe.writer);
    }
}

impl EventStream {
    /// Moves waiting frames to `converter`; returns whether more may follow.
    fn poll_take(&mut self, cx: &Context<'_>) -> Poll<bool> {
        let mut pipe = self.pipe.lock();
        pipe.is_begun = true;
        if pipe.waiting.is_empty() {
            if pipe.is_written {
                return Poll::Ready(false);
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.converter.take(&mut pipe.waiting);
        pipe.untaken_since = None;
        if mem::take(&mut pipe.wants_room) {
            wake(&mut pipe.writer);
        }
        Poll::Ready(true)
    }
}

impl Stream for EventStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        // An answer that ends without its last event is aborted, so that the client does not take it for
        // complete.
        let broken = || Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        loop {
            let events = self.converter.convert(PART_BYTES);
            if !events.is_empty() {
                return Poll::Ready(Some(Ok(events.into())));
            }
            if self.converter.has_ended() {
                return Poll::Ready(None);
            }
            match self.poll_take(cx) {
                Poll::Ready(true) => continue,
                Poll::Ready(false) => return broken(),
                Poll::Pending => {}
            }
            if self.watch.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(kept) = self.look.keep().filter(|_| !self.is_asked) else { return broken() };
            self.is_asked = true;
            self.watch = Box::pin(async move { kept.is_gone().await });
            return Poll::Ready(Some(Ok(Bytes::from_static(ARE_YOU_THERE))));
        }
    }
}
