//! A TLS session over a socket. It has its own buffers and needs `&mut`, so it is a separate kind of
//! transport; plain sockets pay nothing for it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::task::{Context, Poll, Waker, ready};

use rustls::ServerConnection;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::socket::read_now;

/// The most encrypted bytes that may wait: as much as a socket accepts beyond what is sent. Encrypted
/// entries can be neither replaced nor dropped, so everything else waits in the outbox.
const UNSENT_BYTES: usize = 16 << 10;

/// The session of a socket. The caller passes the socket to each method.
#[derive(Debug)]
pub(crate) struct Tls {
    session: ServerConnection,
    /// Whether there may be decrypted bytes that were not read.
    has_more: bool,
    /// Whether the end of our side was announced.
    is_ending: bool,
}

impl Tls {
    pub(crate) fn new(mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(UNSENT_BYTES));
        Self { session, has_more: true, is_ending: false }
    }

    /// The session, for the handshake and its results.
    pub(crate) fn session(&mut self) -> &mut ServerConnection {
        &mut self.session
    }

    /// Passes bytes to the session that were read from the socket before.
    ///
    /// # Errors
    /// They are not TLS, or do not fit the configuration.
    pub(crate) fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            // Reading from a slice cannot fail; nothing is read if the session's buffer is full.
            match self.session.read_tls(&mut bytes) {
                Ok(taken) if taken > 0 => {}
                _ => return Err(rustls::Error::General("the session's buffer is full".to_owned())),
            }
            self.session.process_new_packets()?;
        }
        Ok(())
    }

    /// Reads encrypted bytes from the socket; 0 at its end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has arrived; `InvalidData` with a [`rustls::Error`] if it is not TLS.
    pub(crate) fn read_more(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let read = self.session.read_tls(&mut Now(stream))?;
        if let Err(error) = self.session.process_new_packets() {
            // The alert names the reason; the other side may be unable to read it.
            let _untold = self.flush(stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(read)
    }

    /// Reads what has arrived; 0 at the end, whether the other side announced it or was cut off: frames and
    /// bodies mark their own ends.
    ///
    /// # Errors
    /// As [`read_more`](Self::read_more).
    pub(super) fn read_now(&mut self, stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(read) => {
                    // If the buffer is not full, all decrypted bytes were read.
                    self.has_more = read > 0 && read == buffer.len();
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_more = false,
                Err(error) => return Err(error),
            }
            self.read_more(stream)?;
        }
    }

    /// Whether there may be something to read although the socket has nothing.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Encrypts some of the bytes; `WouldBlock` while earlier ones are unsent.
    pub(super) fn write(&mut self, stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut slices: SmallVec<[IoSlice<'_>; 64]> = slices.iter().copied().collect();
        let mut rest = &mut slices[..];
        let mut taken = 0;
        while rest.iter().any(|slice| !slice.is_empty()) {
            let more = self.session.writer().write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, more);
            taken += more;
            if more == 0 || !self.flush(stream)? {
                break;
            }
        }
        Ok(taken)
    }

    /// Whether encrypted bytes are unsent.
    pub(super) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Sends encrypted bytes; returns whether all were sent.
    ///
    /// # Errors
    /// The socket is broken.
    pub(crate) fn flush(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Now(stream)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends all encrypted bytes, however long the socket takes.
    pub(crate) fn poll_flush(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.flush(stream)? {
            ready!(stream.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Announces the end of our side; returns whether that was sent. To be called again until it was.
    pub(super) fn end_writing(&mut self, stream: &TcpStream) -> io::Result<bool> {
        if !self.is_ending {
            self.is_ending = true;
            self.session.send_close_notify();
        }
        let is_sent = self.flush(stream)?;
        if is_sent {
            // If the other side has gone already, there is nothing to do.
            let _gone = SockRef::from(stream).shutdown(Shutdown::Write);
        }
        Ok(is_sent)
    }
}

/// A socket with its TLS session, as a connection's transport.
pub(super) struct TlsStream {
    stream: TcpStream,
    tls: RefCell<Tls>,
    /// Wakes the connection's task, which sends what the socket did not accept at once.
    waker: Cell<Option<Waker>>,
}

impl TlsStream {
    pub(super) fn new(stream: TcpStream, tls: Tls) -> Self {
        Self { stream, tls: RefCell::new(tls), waker: Cell::default() }
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        let written = tls.write(&self.stream, slices);
        if tls.has_unsent()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        written
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.tls.borrow().has_unsent()
    }

    /// Sends what was left over; to be called whenever the connection's task is polled.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let held = self.waker.take().filter(|held| held.will_wake(cx.waker()));
        self.waker.set(held.or_else(|| Some(cx.waker().clone())));
        self.tls.borrow_mut().poll_flush(&self.stream, cx)
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.stream.poll_write_ready(cx)
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.borrow().has_more() {
            return Poll::Ready(Ok(()));
        }
        self.stream.poll_read_ready(cx)
    }

    pub(super) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tls.borrow_mut().read_now(&self.stream, buffer)
    }

    pub(super) fn end_writing(&self) {
        // If the other side has gone already, there is nothing to do; what is not sent now is sent at the
        // next poll.
        let _gone = self.tls.borrow_mut().end_writing(&self.stream);
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // The end of the frames was sent; the end of the session is sent as far as the socket accepts it.
        self.end_writing();
    }
}

/// A socket as rustls reads and writes it: without waiting.
struct Now<'s>(&'s TcpStream);

impl io::Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_now(self.0, buffer)
    }
}

impl io::Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
