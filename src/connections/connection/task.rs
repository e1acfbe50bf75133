//! The task of a connection: reads, and writes what was left over, until the connection ends.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::task;

use super::{Connection, State};
use crate::connections::intake::Intake;
use crate::connections::shard::Shard;
use crate::protocol::CloseCode;

/// How much is read from a socket at once, into a buffer that the thread shares.
const READ_CHUNK: usize = 16 << 10;

/// How many chunks are read from one socket before the task yields.
const READS_PER_TURN: usize = 8;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_CHUNK]);
}

impl Connection {
    /// Reads, and writes what was left over, until the connection ends; returns the close code.
    pub(in crate::connections) async fn run(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        intake: &mut Intake,
    ) -> CloseCode {
        let code = poll_fn(|cx| self.poll(cx, shard, intake)).await;
        let unsent = self.outbox.borrow_mut().take().map_or(0, |outbox| outbox.messages());
        self.stats.messages.dropped_by_reason.connection_ended.add(unsent as u64);
        self.state.set(State::Ended(code));
        self.drained.notify_waiters();
        code
    }

    fn ended(&self) -> Option<CloseCode> {
        if let State::Ended(code) = self.state.get() { Some(code) } else { None }
    }

    fn poll(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        shard: &Rc<Shard>,
        intake: &mut Intake,
    ) -> Poll<CloseCode> {
        let held = self.waker.take().filter(|held| held.will_wake(cx.waker()));
        self.waker.set(held.or_else(|| Some(cx.waker().clone())));
        if self.poll_write(cx, shard).is_err() {
            return Poll::Ready(self.code_or(CloseCode::Abnormal));
        }
        if intake.is_deaf() && self.has_sent_all() && !self.is_open() {
            // Input is ignored, so the client's close frame will not be noticed. The end of our side shows
            // the client that everything was sent, and then it closes its side.
            self.stream.end_writing();
        }
        if matches!(self.state.get(), State::Closing { peer_closed: true, .. }) && self.has_sent_all() {
            return Poll::Ready(self.code_or(CloseCode::Normal));
        }
        if let Some(code) = self.ended() {
            return Poll::Ready(code);
        }
        for _ in 0..READS_PER_TURN {
            // Begins to publish what arrived with the previous read, too.
            intake.poll_publisher(cx, self, shard);
            // While there is a backlog, the socket is not read: what the client sends stays in it.
            if intake.poll_backlog(cx, self, shard).is_pending() {
                return Poll::Pending;
            }
            if let Some(code) = self.ended() {
                return Poll::Ready(code);
            }
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(self.code_or(CloseCode::Abnormal)),
                Poll::Ready(Ok(())) => {}
            }
            let ended = READ_BUFFER.with_borrow_mut(|buffer| match self.stream.read_now(buffer) {
                Ok(0) => Some(self.code_or(CloseCode::Abnormal)),
                Ok(read) => {
                    self.stats.messages.bytes_received.add(read as u64);
                    self.last_heard.set(self.ticks());
                    intake.take(self, shard, &buffer[..read]);
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(_) => Some(self.code_or(CloseCode::Abnormal)),
            });
            if let Some(code) = ended.or_else(|| self.ended()) {
                return Poll::Ready(code);
            }
        }
        intake.poll_publisher(cx, self, shard);
        // The client sends more than its share of the thread.
        yield_to_other_tasks(cx);
        Poll::Pending
    }

    fn poll_write(self: &Rc<Self>, cx: &mut Context<'_>, shard: &Shard) -> io::Result<()> {
        if let Poll::Ready(flushed) = self.stream.poll_flush(cx) {
            flushed?;
        }
        loop {
            if self.is_behind() && self.is_throttled(shard) {
                return Ok(());
            }
            let mut slot = self.outbox.borrow_mut();
            let Some(outbox) = &mut *slot else { return Ok(()) };
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            }
            let written = outbox.write_to(|slices| self.put(slices))?;
            self.stats.messages.sent.add(written.messages as u64);
            let (all, waiting) = (written.all, outbox.unreplaceable());
            if all {
                *slot = None;
            }
            drop(slot);
            if waiting == 0 {
                self.drained.notify_waiters();
            }
            shard.eased(self, waiting, all);
        }
    }
}

/// Polls the task again after other tasks have run and sockets were checked; waking it directly would poll
/// it before that.
pub(in crate::connections) fn yield_to_other_tasks(cx: &mut Context<'_>) {
    let _comes_again = pin!(task::yield_now()).poll(cx);
}
