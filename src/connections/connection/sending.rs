//! Sends to a socket: writes directly as much as it accepts, and queues the rest in the outbox.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{CLOSE_GRACE_SLOW, Connection};
use crate::channels::LiveBatch;
use crate::connections::outbox::{Outbox, OutboxLimits, Overflow, Replaces};
use crate::protocol::{CloseCode, ServerMessage, text_frame};

impl Connection {
    /// Writes contiguous batches of one channel, without the first `skip` frames of the first one. What the
    /// socket does not accept goes to the outbox.
    pub(in crate::connections) fn send_live(
        &self,
        batches: &[Arc<LiveBatch>],
        skip: usize,
        limits: OutboxLimits,
    ) {
        if !self.is_open() {
            return;
        }
        let Some(mut written) = self.write_now(|on| write_batches(on, batches, skip)) else { return };
        let mut sent = 0;
        let mut skip = skip;
        for (place, batch) in batches.iter().enumerate() {
            let from = batch.start_of(skip);
            if written >= batch.frames.len() - from {
                written -= batch.frames.len() - from;
                sent += batch.len() - skip;
                skip = 0;
                continue;
            }
            for index in skip..batch.len() {
                let frame = batch.frame(index);
                if written >= frame.len() {
                    written -= frame.len();
                    sent += 1;
                    continue;
                }
                if written > 0 {
                    self.begin_outbox(frame.slice(written..));
                    written = 0;
                    continue;
                }
                let replaces =
                    batch.key(index).map(|key| Replaces::Entry(batch.channel.clone(), Arc::clone(key)));
                if !self.enqueue(frame, replaces, limits) {
                    // The frames after this one were dropped too, like those that waited before them.
                    let behind: usize = batches[place + 1..].iter().map(|batch| batch.len()).sum();
                    self.stats
                        .messages
                        .dropped_by_reason
                        .slow_consumer
                        .add((batch.len() - index - 1 + behind) as u64);
                    self.stats.messages.sent.add(sent as u64);
                    return;
                }
            }
            skip = 0;
        }
        self.stats.messages.sent.add(sent as u64);
    }

    /// Writes directly, and returns how much the socket accepted: nothing while the client lags. `None` if
    /// the socket is broken, which ends the connection.
    fn write_now(&self, write: impl FnOnce(&Self) -> io::Result<usize>) -> Option<usize> {
        if self.is_behind() {
            return Some(0);
        }
        match write(self) {
            Ok(taken) => Some(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            Err(_) => {
                self.end(CloseCode::Abnormal);
                None
            }
        }
    }

    /// Sends one frame, or queues it.
    pub(in crate::connections) fn send(
        &self,
        frame: Bytes,
        replaces: Option<Replaces>,
        limits: OutboxLimits,
    ) {
        if self.is_open() {
            self.write_or_queue(frame, replaces, limits);
        }
    }

    /// Sends a message, or queues it.
    pub(in crate::connections) fn send_message(&self, message: &ServerMessage, limits: OutboxLimits) {
        let mut frame = Vec::new();
        text_frame(&message.to_json(), &mut frame);
        self.send(frame.into(), None, limits);
    }

    /// Sends several messages in one piece. The caller limits its size, and waits for
    /// [`until_drained`](Self::until_drained) between pieces.
    pub(in crate::connections) fn send_piece(&self, frames: Bytes, messages: usize) {
        if !self.is_open() {
            return;
        }
        let Some(taken) = self.write_now(|on| on.put_one(&frames)) else { return };
        if taken == frames.len() {
            self.stats.messages.sent.add(messages as u64);
            return;
        }
        // The part that the kernel accepted may end within a frame. The rest stays in one piece, which is
        // never replaced, and whose messages count as sent when all of it is.
        let mut outbox = self.outbox.borrow_mut();
        let outbox = outbox.get_or_insert_default();
        if taken > 0 {
            **outbox = Outbox::with_rest_of(frames.slice(taken..), messages);
        } else {
            outbox.push_piece(frames, messages);
        }
        self.wake();
    }

    pub(super) fn write_or_queue(&self, frame: Bytes, replaces: Option<Replaces>, limits: OutboxLimits) {
        match self.write_now(|on| on.put_one(&frame)) {
            None => {}
            Some(0) => {
                self.enqueue(frame, replaces, limits);
            }
            Some(taken) if taken == frame.len() => self.stats.messages.sent.add(1),
            Some(taken) => self.begin_outbox(frame.slice(taken..)),
        }
    }

    fn begin_outbox(&self, rest: Bytes) {
        *self.outbox.borrow_mut() = Some(Box::new(Outbox::with_rest(rest)));
        self.wake();
    }

    /// Queues a frame; false if that exceeded a bound, and the connection is being closed.
    fn enqueue(&self, frame: Bytes, replaces: Option<Replaces>, limits: OutboxLimits) -> bool {
        let pushed = {
            let mut outbox = self.outbox.borrow_mut();
            if outbox.is_none() {
                self.wake();
            }
            outbox.get_or_insert_default().push(frame, replaces, limits)
        };
        match pushed {
            Ok(replaced) => {
                self.stats.messages.conflated.add(u64::from(replaced));
                true
            }
            Err(Overflow) => {
                // A client over its limit on bytes would be throttled again if it reconnected sooner.
                let wait = self.throttled_until().map(|until| until.duration_since(Instant::now()));
                let after_ms = wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                self.close(CloseCode::SlowConsumer, after_ms, CLOSE_GRACE_SLOW);
                false
            }
        }
    }
}

fn write_batches(on: &Connection, batches: &[Arc<LiveBatch>], skip: usize) -> io::Result<usize> {
    if let [batch] = batches {
        return on.put_one(&batch.frames[batch.start_of(skip)..]);
    }
    let first = batches.first().map_or(0, |batch| batch.start_of(skip));
    let slices = batches.iter().enumerate().map(|(place, batch)| {
        let from = if place == 0 { first } else { 0 };
        IoSlice::new(&batch.frames[from..])
    });
    let slices: SmallVec<[IoSlice<'_>; 64]> = slices.collect();
    on.put(&slices)
}
