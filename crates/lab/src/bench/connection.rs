//! One connection, and the meter that counts its frames.

use std::{
    io::{self, Write},
    mem,
};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    client::{ClientPlan, Seat, Tally},
    clock::Clock,
    frame::{self, Frame},
    handshake::Handshake,
    payload::Scanner,
    sequence::SequenceChecker,
    target::Endpoint,
};

/// A stalled subscriber offers the server so little buffer space that it blocks after a few messages rather
/// than after 100 KiB in the kernel.
const STALLED_RCVBUF: usize = 4096;

/// The stage of a connection.
#[derive(Debug)]
pub(super) enum Stage {
    /// Waiting for the TCP connection or for the response.
    Opening(Handshake),
    Open,
}

/// One socket.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) stage: Stage,
    pub(super) began_ns: u64,
    /// Bytes of an incomplete frame or response.
    pub(super) carry: Vec<u8>,
    /// Bytes that the socket has not accepted yet.
    pub(super) outgoing: Vec<u8>,
    /// Whether it is open and, if required, subscribed.
    ready: bool,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// It failed before it was open.
    Failed(String),
    /// It was open; 1006 if the server sent no close frame.
    Closed(u16),
    /// The server sent something that is not a frame.
    Broken,
}

/// The result of reading a socket.
#[derive(Debug)]
pub(super) enum Outcome {
    Continue,
    /// The response was valid; bytes after it are kept for `settle_in`.
    JustOpened,
    Over(End),
}

/// Everything that frames are counted with, apart from the sockets, so that both can be borrowed at once.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) clock: Clock,
    pub(super) tally: Tally,
    pub(super) round: Round,
    /// Messages sent before this do not count in the latency.
    pub(super) measure_from_ns: u64,
    pub(super) plan: ClientPlan,
    scanner: Scanner,
}

/// The counts of one round of the loop, which go to the main thread at its end.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) ready: usize,
    pub(super) deliveries: u64,
    pub(super) bytes: u64,
    pub(super) last_ns: u64,
}

impl Connection {
    /// Begins a handshake, which is sent when the socket is connected.
    pub(super) fn begin(
        endpoint: &Endpoint,
        headers: &[String],
        stalled: bool,
        now_ns: u64,
    ) -> io::Result<Self> {
        let stream = connect(endpoint, stalled)?;
        let (handshake, outgoing) = Handshake::begin(endpoint, headers);
        let stage = Stage::Opening(handshake);
        Ok(Self { stream, stage, began_ns: now_ns, carry: Vec::new(), outgoing, ready: false })
    }

    /// Processes the contents of the buffer: first the response, then frames.
    #[inline]
    pub(super) fn take_in(
        &mut self,
        bytes: &[u8],
        meter: &mut Meter,
        checker: &mut SequenceChecker,
    ) -> Outcome {
        match &self.stage {
            Stage::Opening(handshake) => match handshake.check(bytes) {
                Err(error) => Outcome::Over(End::Failed(error.to_string())),
                Ok(None) => {
                    frame::keep(&mut self.carry, bytes);
                    Outcome::Continue
                }
                Ok(Some(head_len)) => {
                    let took_ns = meter.clock.now_ns().saturating_sub(self.began_ns);
                    meter.tally.handshake_ns.saturating_record(took_ns);
                    self.stage = Stage::Open;
                    frame::keep(&mut self.carry, &bytes[head_len..]);
                    Outcome::JustOpened
                }
            },
            Stage::Open => match self.take_frames(bytes, meter, checker) {
                Ok(()) => Outcome::Continue,
                Err(end) => Outcome::Over(end),
            },
        }
    }

    /// Completes the opening of a connection: sends its first frame, and processes frames that arrived with
    /// the response.
    pub(super) fn settle_in(
        &mut self,
        seat: &Seat,
        meter: &mut Meter,
        checker: &mut SequenceChecker,
    ) -> Result<(), End> {
        if let Some(hello) = &seat.hello {
            frame::write_masked(&mut self.outgoing, frame::TEXT, hello.as_bytes());
        }
        self.flush().map_err(|_| End::Closed(1006))?;
        // A stalled one never reads its subscription.
        if !meter.plan.expect_subscribed || seat.stalled {
            self.set_ready(meter);
        }
        let kept = mem::take(&mut self.carry);
        self.take_frames(&kept, meter, checker)
    }

    fn set_ready(&mut self, meter: &mut Meter) {
        self.ready = true;
        meter.round.ready += 1;
    }

    fn take_frames(
        &mut self,
        bytes: &[u8],
        meter: &mut Meter,
        checker: &mut SequenceChecker,
    ) -> Result<(), End> {
        let now_ns = meter.clock.now_ns();
        let mut rest = bytes;
        while let Some((frame, len)) = frame::next_frame(rest).map_err(|_| End::Broken)? {
            match frame.opcode {
                // A fragmented message is searched fragment by fragment: a cut within our two numbers would
                // make it count as lost.
                frame::TEXT | frame::BINARY | frame::CONTINUATION => {
                    let has_messages = meter.count(frame.payload, len, now_ns, checker);
                    if !self.ready && !has_messages && meter.scanner.is_subscribed(frame.payload) {
                        self.set_ready(meter);
                    }
                }
                _ => self.take_control(frame, meter)?,
            }
            rest = &rest[len..];
        }
        frame::keep(&mut self.carry, rest);
        Ok(())
    }

    fn take_control(&mut self, frame: Frame<'_>, meter: &mut Meter) -> Result<(), End> {
        match frame.opcode {
            frame::PING => {
                meter.tally.pings += 1;
                frame::write_masked(&mut self.outgoing, frame::PONG, frame.payload);
                self.flush().map_err(|_| End::Closed(1006))
            }
            frame::CLOSE => {
                frame::write_masked(&mut self.outgoing, frame::CLOSE, frame.payload);
                // The server has stated its code; whether it receives ours makes no difference.
                self.flush().ok();
                Err(End::Closed(frame::close_code(frame.payload)))
            }
            _ => Ok(()),
        }
    }

    /// Writes as much as the socket accepts. A socket that is still connecting accepts nothing, which is not
    /// an error.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing = Vec::new();
        Ok(())
    }

    /// How an error on the socket ends the connection at this stage.
    pub(super) fn end_by(&self, error: &io::Error) -> End {
        match self.stage {
            Stage::Opening(_) => End::Failed(error_name(error)),
            Stage::Open => End::Closed(1006),
        }
    }
}

impl Meter {
    pub(super) fn new(clock: Clock, plan: ClientPlan) -> Self {
        let (tally, round, scanner) = (Tally::new(), Round::default(), Scanner::new());
        Self { clock, tally, round, measure_from_ns: u64::MAX, plan, scanner }
    }

    /// Counts the messages in a frame; false if there are none.
    #[inline]
    fn count(&mut self, text: &[u8], len: usize, now_ns: u64, checker: &mut SequenceChecker) -> bool {
        let mut found = false;
        for (seq, sent_ns) in self.scanner.messages(text) {
            found = true;
            if self.plan.own_messages && sent_ns < self.plan.started_ns {
                self.tally.stale += 1;
                continue;
            }
            checker.see(seq);
            self.round.deliveries += 1;
            if self.plan.own_messages && sent_ns >= self.measure_from_ns {
                self.tally.latency_ns.saturating_record(now_ns.saturating_sub(sent_ns));
                if self.tally.arrivals.len() < self.plan.arrivals_max {
                    self.tally.arrivals.push((sent_ns, now_ns));
                }
            }
        }
        if found {
            self.round.bytes += len as u64;
            self.round.last_ns = now_ns;
        } else {
            self.tally.other_frames += 1;
        }
        found
    }
}

fn connect(endpoint: &Endpoint, stalled: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(endpoint.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if stalled {
        // This only has an effect before connecting.
        socket.set_recv_buffer_size(STALLED_RCVBUF)?;
    }
    match socket.connect(&endpoint.address.into()) {
        Ok(()) => {}
        Err(error) if is_in_progress(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// `EINPROGRESS` has no stable [`io::ErrorKind`].
fn is_in_progress(error: &io::Error) -> bool {
    const EINPROGRESS: i32 = 115;
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}

/// A short name under which failures are counted.
pub(super) fn error_name(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed before a response".to_owned(),
        kind => kind.to_string(),
    }
}
