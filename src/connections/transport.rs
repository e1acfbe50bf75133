//! What a connection reads from and writes to.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::events::EventPipe;
use super::socket::read_now;
use super::tls::TlsStream;

/// What a connection reads from and writes to without waiting: a socket, or something like one.
pub(super) enum Transport {
    /// A socket.
    Tcp(TcpStream),
    /// A socket with a TLS session. Boxed, so that plain sockets pay nothing for it.
    Tls(Box<TlsStream>),
    /// The answer to an HTTP request, which sends what is written as server-sent events. Nothing is read
    /// from it. Boxed, so that sockets pay nothing for it.
    Events(Box<EventPipe>),
}

impl Transport {
    /// Writes some of the bytes; `WouldBlock` if it accepts none now.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Tls(stream) => stream.try_write_vectored(&[IoSlice::new(bytes)]),
            Self::Events(pipe) => pipe.try_write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    /// Writes some of several slices.
    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Tls(stream) => stream.try_write_vectored(slices),
            Self::Events(pipe) => pipe.try_write_vectored(slices),
        }
    }

    /// Whether something was accepted but is unsent, and needs [`poll_flush`](Self::poll_flush).
    pub(super) fn has_unsent(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.has_unsent())
    }

    /// Sends what was accepted; to be called whenever the connection's task is polled.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Events(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Tls(stream) => stream.poll_write_ready(cx),
            Self::Events(pipe) => pipe.poll_write_ready(cx),
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_read_ready(cx),
            Self::Events(pipe) => pipe.poll_gone(cx).map(Ok),
        }
    }

    /// Reads what has arrived; 0 at the end. To be called when it is [ready](Self::poll_read_ready).
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => read_now(stream, buffer),
            Self::Tls(stream) => stream.read_now(buffer),
            Self::Events(_) => Ok(0),
        }
    }

    /// Announces that nothing more is written.
    pub(super) fn end_writing(&self) {
        match self {
            Self::Tcp(stream) => {
                // If the other side has gone already, there is nothing to do.
                let _gone = SockRef::from(stream).shutdown(Shutdown::Write);
            }
            Self::Tls(stream) => stream.end_writing(),
            Self::Events(_) => {}
        }
    }

    /// The pipe of an event stream.
    pub(super) fn events(&self) -> Option<&EventPipe> {
        if let Self::Events(pipe) = self { Some(pipe) } else { None }
    }
}
