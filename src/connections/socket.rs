//! A TCP socket that others can look at while hyper has it.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A socket that is read and written by one, and looked at by others.
#[derive(Debug)]
pub(crate) struct Socket(Arc<TcpStream>);

/// The look of others at a socket; it does not keep it open.
#[derive(Debug, Clone)]
pub(crate) struct Look(Weak<TcpStream>);

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    pub(crate) fn look(&self) -> Look {
        Look(Arc::downgrade(&self.0))
    }

    /// The stream by itself; `None` while somebody looks.
    pub(crate) fn into_inner(self) -> Option<TcpStream> {
        Arc::into_inner(self.0)
    }
}

impl Look {
    /// Waits until the other side sends no more: it is gone, or has merely said all that it has to say
    /// and waits for the answer, which is the same to see. Where it has sent more than was read, nobody
    /// knows what comes after that, and this waits for ever.
    pub(crate) async fn sends_no_more(&self) {
        let Some(stream) = self.0.upgrade() else { return };
        if stream.peek(&mut [0]).await.is_ok_and(|peeked| peeked > 0) {
            std::future::pending().await
        }
    }

    /// Keeps the socket, to see what becomes of what was written.
    pub(crate) fn keep(&self) -> Option<Kept> {
        self.0.upgrade().map(Kept)
    }
}

/// A socket that is kept open.
#[derive(Debug)]
pub(crate) struct Kept(Arc<TcpStream>);

impl Kept {
    /// Waits until the other side says that it takes nothing any more.
    pub(crate) async fn is_gone(&self) {
        // Asked for by the socket itself; that it cannot be asked for is an end too.
        let _ended = self.0.ready(Interest::ERROR).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}
