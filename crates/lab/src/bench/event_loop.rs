//! The event loop: opens seats, reads sockets that are ready, and ends connections.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::Context;
use mio::{Events, Interest, Poll, Token, event::Event};
use socket2::SockRef;

use super::{
    client::{ClientPlan, Progress, Purpose, Seat, Tally},
    clock::{Clock, nanos},
    connection::{Connection, End, Meter, Outcome, Stage, error_name},
    frame::{self, ReadBuffer},
    sequence::SequenceChecker,
};

/// How often the loop checks its commands when no socket is ready.
const TICK: Duration = Duration::from_millis(20);

/// Edge-triggered, and constant for a socket's lifetime: an idle socket is reported writable once, and after
/// that only when it was full.
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A thread's seats, and everything it needs to open and read them.
#[derive(Debug)]
pub(super) struct EventLoop {
    poll: Poll,
    seats: Vec<Seat>,
    /// By seat.
    connections: Vec<Option<Connection>>,
    /// By seat.
    checkers: Vec<SequenceChecker>,
    waiting: VecDeque<usize>,
    /// Seat and start of each handshake, oldest first; finished ones are skipped.
    under_way: VecDeque<(usize, u64)>,
    under_way_count: usize,
    buffer: ReadBuffer,
    meter: Meter,
    progress: Arc<Progress>,
}

// ===== the loop =====

impl EventLoop {
    pub(super) fn new(
        seats: Vec<Seat>,
        plan: ClientPlan,
        clock: Clock,
        progress: Arc<Progress>,
    ) -> anyhow::Result<Self> {
        let checker = match plan.own_messages {
            true => SequenceChecker::from_zero(),
            false => SequenceChecker::from_anywhere(),
        };
        Ok(Self {
            poll: Poll::new().context("cannot create an epoll instance")?,
            connections: seats.iter().map(|_| None).collect(),
            checkers: vec![checker; seats.len()],
            waiting: (0..seats.len()).collect(),
            under_way: VecDeque::new(),
            under_way_count: 0,
            buffer: ReadBuffer::new(),
            meter: Meter::new(clock, plan),
            seats,
            progress,
        })
    }

    /// Runs until told to stop, then closes every connection.
    pub(super) fn run(mut self) -> anyhow::Result<Tally> {
        let mut events = Events::with_capacity(4096);
        while !self.progress.stop.load(Relaxed) {
            self.open_waiting();
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            self.meter.measure_from_ns = self.progress.measure_from_ns.load(Relaxed);
            for event in &events {
                self.on_event(event);
            }
            self.publish_round();
            self.expire_handshakes();
        }
        for seat in 0..self.connections.len() {
            self.say_goodbye(seat);
        }
        let readers = self.seats.iter().zip(self.checkers).filter(|(seat, _)| !seat.stalled);
        self.meter.tally.subscribers = readers.map(|(seat, checker)| (seat.channel, checker)).collect();
        Ok(self.meter.tally)
    }

    fn on_event(&mut self, event: &Event) {
        let seat = event.token().0;
        if event.is_writable() {
            self.on_writable(seat);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.on_readable(seat);
        }
    }

    fn on_writable(&mut self, seat: usize) {
        let Some(connection) = &mut self.connections[seat] else { return };
        if connection.outgoing.is_empty() {
            return;
        }
        if let Err(error) = connection.flush() {
            let end = connection.end_by(&error);
            self.end(seat, end);
        }
    }

    fn on_readable(&mut self, seat: usize) {
        loop {
            let Some(connection) = &mut self.connections[seat] else { return };
            let (read, more) = match self.buffer.fill(&mut connection.carry, &mut connection.stream) {
                Ok(answer) => answer,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let end = connection.end_by(&error);
                    return self.end(seat, end);
                }
            };
            if read == 0 {
                let end = connection.end_by(&io::ErrorKind::UnexpectedEof.into());
                return self.end(seat, end);
            }
            let (meter, checker) = (&mut self.meter, &mut self.checkers[seat]);
            match connection.take_in(self.buffer.filled(), meter, checker) {
                Outcome::Continue => {}
                Outcome::JustOpened => self.on_open(seat),
                Outcome::Over(end) => return self.end(seat, end),
            }
            // A read that does not fill the buffer has emptied the socket: the next arrival is a new edge.
            if !more {
                return;
            }
        }
    }

    fn on_open(&mut self, seat: usize) {
        self.under_way_count -= 1;
        self.progress.opened.fetch_add(1, Relaxed);
        if self.meter.plan.purpose == Purpose::Churn {
            self.say_goodbye(seat);
            return self.waiting.push_back(seat);
        }
        let Some(connection) = &mut self.connections[seat] else { return };
        let (meter, checker) = (&mut self.meter, &mut self.checkers[seat]);
        let settled = connection.settle_in(&self.seats[seat], meter, checker).and_then(|()| {
            match self.seats[seat].stalled {
                true => {
                    self.poll.registry().deregister(&mut connection.stream).map_err(|_| End::Closed(1006))
                }
                false => Ok(()),
            }
        });
        if let Err(end) = settled {
            self.end(seat, end);
        }
    }

    fn publish_round(&mut self) {
        let round = std::mem::take(&mut self.meter.round);
        if round.ready > 0 {
            self.progress.ready.fetch_add(round.ready, Relaxed);
        }
        if round.deliveries > 0 {
            self.progress.delivered_bytes.fetch_add(round.bytes, Relaxed);
            self.progress.last_delivery_ns.fetch_max(round.last_ns, Relaxed);
            self.progress.deliveries.fetch_add(round.deliveries, Relaxed);
        }
    }
}

// ===== opening and ending =====

impl EventLoop {
    fn open_waiting(&mut self) {
        while self.under_way_count < self.meter.plan.open_concurrency
            && let Some(seat) = self.waiting.pop_front()
        {
            let now_ns = self.meter.clock.now_ns();
            match self.open(seat, now_ns) {
                Ok(connection) => {
                    self.connections[seat] = Some(connection);
                    self.under_way.push_back((seat, now_ns));
                    self.under_way_count += 1;
                }
                Err(error) => self.fail(seat, error_name(&error)),
            }
        }
    }

    fn open(&self, seat: usize, now_ns: u64) -> io::Result<Connection> {
        let Seat { endpoint, stalled, .. } = &self.seats[seat];
        let mut connection = Connection::begin(endpoint, &self.meter.plan.headers, *stalled, now_ns)?;
        self.poll.registry().register(&mut connection.stream, Token(seat), INTEREST)?;
        Ok(connection)
    }

    fn expire_handshakes(&mut self) {
        let oldest_ns = self.meter.clock.now_ns().saturating_sub(nanos(self.meter.plan.handshake_timeout_s));
        while let Some((seat, began_ns)) = self.under_way.front().copied() {
            let opening = self.connections[seat].as_ref().is_some_and(|connection| {
                connection.began_ns == began_ns && matches!(connection.stage, Stage::Opening(_))
            });
            if opening && began_ns > oldest_ns {
                return;
            }
            self.under_way.pop_front();
            if opening {
                self.end(seat, End::Failed("timeout".to_owned()));
            }
        }
    }

    fn end(&mut self, seat: usize, end: End) {
        self.connections[seat] = None;
        match end {
            End::Failed(reason) => {
                self.under_way_count -= 1;
                self.fail(seat, reason);
            }
            End::Closed(code) => *self.meter.tally.closed_by_code.entry(code).or_default() += 1,
            End::Broken => self.meter.tally.broken_frames += 1,
        }
    }

    fn fail(&mut self, seat: usize, reason: String) {
        *self.meter.tally.failures.entry(reason).or_default() += 1;
        self.progress.failed.fetch_add(1, Relaxed);
        if self.meter.plan.purpose == Purpose::Churn {
            self.waiting.push_back(seat);
        }
    }

    /// Closes from this side: sends a close frame without waiting for the answer, and resets the connection. An
    /// orderly close would keep the port in use for a minute, and the kernel's search for a free port among many
    /// such ones was seen to delay handshakes by 100 ms.
    fn say_goodbye(&mut self, seat: usize) {
        let Some(mut connection) = self.connections[seat].take() else { return };
        if matches!(connection.stage, Stage::Open) {
            frame::write_masked(&mut connection.outgoing, frame::CLOSE, &1000u16.to_be_bytes());
            // The server may be gone already.
            connection.flush().ok();
        }
        SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO)).ok();
    }
}
