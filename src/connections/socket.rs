//! A socket that others can observe while hyper has it.

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::tls::{Tls, TlsStream};
use super::transport::Transport;

/// A socket with one owner, who reads and writes, and any number of observers.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    /// Bytes that were read from the socket before, and are returned first. Empty if there is a TLS session,
    /// which has received them.
    first: Bytes,
    tls: Option<Box<Tls>>,
}

/// Observes a socket without keeping it open.
#[derive(Debug, Clone)]
pub(crate) struct Look(Weak<TcpStream>);

impl Socket {
    #[cfg(test)]
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self::begun(stream, Bytes::new())
    }

    /// With a TLS session whose handshake is complete.
    pub(crate) fn with_tls(stream: TcpStream, tls: Tls) -> Self {
        Self { stream: Arc::new(stream), first: Bytes::new(), tls: Some(Box::new(tls)) }
    }

    /// A socket from which something was read already: less than hyper reads at once, so that nothing of it
    /// is left when the stream is taken out.
    pub(crate) fn begun(stream: TcpStream, first: Bytes) -> Self {
        Self { stream: Arc::new(stream), first, tls: None }
    }

    pub(crate) fn look(&self) -> Look {
        Look(Arc::downgrade(&self.stream))
    }

    /// Turns it into a connection's transport; `None` while somebody holds the stream.
    pub(super) fn into_transport(self) -> Option<Transport> {
        let stream = Arc::into_inner(self.stream)?;
        Some(match self.tls {
            None => Transport::Tcp(stream),
            Some(tls) => Transport::Tls(Box::new(TlsStream::new(stream, *tls))),
        })
    }
}

impl Look {
    /// Waits until the other side sends no more: either it is gone, or it has sent its request and waits
    /// for the answer, which looks the same. If the other side has sent more than was read, its end cannot
    /// be seen, and this waits for ever.
    pub(crate) async fn sends_no_more(&self) {
        let Some(stream) = self.0.upgrade() else { return };
        if stream.peek(&mut [0]).await.is_ok_and(|peeked| peeked > 0) {
            std::future::pending().await
        }
    }

    /// Closes the socket in both directions, whoever owns it; unsent bytes may be lost.
    pub(crate) fn hang_up(&self) {
        if let Some(stream) = self.0.upgrade() {
            // If the other side has gone already, there is nothing to do.
            let _gone = SockRef::from(&*stream).shutdown(Shutdown::Both);
        }
    }

    /// Keeps the socket open, to see what becomes of what was written.
    pub(crate) fn keep(&self) -> Option<Kept> {
        self.0.upgrade().map(Kept)
    }

    /// Whether the client sends no more as of now, as far as this machine knows. Asks the kernel, because
    /// tokio may not have been notified yet.
    pub(crate) fn has_sent_all(&self) -> bool {
        let ended = |stream: Arc<TcpStream>| match SockRef::from(&*stream).peek(&mut [MaybeUninit::uninit()])
        {
            Ok(peeked) => peeked == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.0.upgrade().is_none_or(ended)
    }
}

/// Reads what has arrived. If the buffer is not full, nothing is left, so a further read, which would fail,
/// is saved; tokio's own reader does the same.
pub(crate) fn read_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    let tried = stream.try_io(Interest::READABLE, || {
        read = (&*SockRef::from(stream)).read(buffer)?;
        let is_drained =
            0 < read && read < buffer.len() && cfg!(any(target_os = "linux", target_os = "macos"));
        // Makes tokio wait for more; what was read is not lost.
        if is_drained { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match tried {
        Err(error) if read == 0 => Err(error),
        _ => Ok(read),
    }
}

/// The first bytes that arrive; empty at the end of the stream.
pub(crate) async fn read_first(stream: &TcpStream) -> io::Result<Bytes> {
    /// Most request heads are smaller, and hyper reads more at once.
    const LEN: usize = 1 << 10;
    let now = || {
        let mut first = [0; LEN];
        read_now(stream, &mut first).map(|read| Bytes::copy_from_slice(&first[..read]))
    };
    loop {
        stream.readable().await?;
        match now() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// A socket that is kept open.
#[derive(Debug)]
pub(crate) struct Kept(Arc<TcpStream>);

impl Kept {
    /// Waits until the other side reports that it accepts no more.
    pub(crate) async fn is_gone(&self) {
        // Waits for the socket's error state; if even that fails, the socket is gone too.
        let _ended = self.0.ready(Interest::ERROR).await;
    }
}

impl Socket {
    fn poll_read_tls(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        /// The most that a TLS record holds.
        const AT_ONCE: usize = 16 << 10;
        let Self { stream, tls: Some(tls), .. } = self else { return Poll::Ready(Ok(())) };
        let at_once = AT_ONCE.min(buf.remaining());
        loop {
            match tls.read_now(stream, buf.initialize_unfilled_to(at_once)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    buf.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(stream.poll_read_ready(cx))?;
        }
    }

    fn poll_write_slices(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let written = match (&mut self.tls, slices) {
                (None, [bytes]) => self.stream.try_write(bytes),
                (None, _) => self.stream.try_write_vectored(slices),
                (Some(tls), _) => tls.write(&self.stream, slices),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.tls.is_some() {
            return self.poll_read_tls(cx, buf);
        }
        if !self.first.is_empty() {
            let len = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(len));
            return Poll::Ready(Ok(()));
        }
        // The buffer has to be zeroed first, and may be hundreds of KiB, while most reads need little of
        // it; bodies need more.
        const AT_FIRST: usize = 4 << 10;
        const THEN: usize = 64 << 10;
        let at_first = AT_FIRST.min(buf.remaining());
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let read = match read_now(&self.stream, buf.initialize_unfilled_to(at_first)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                read => read?,
            };
            buf.advance(read);
            if read == AT_FIRST && buf.remaining() > 0 {
                let then = THEN.min(buf.remaining());
                // The next read finds the end or the error; what was read comes before it.
                let read = read_now(&self.stream, buf.initialize_unfilled_to(then)).unwrap_or(0);
                buf.advance(read);
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, tls, .. } = &mut *self;
        tls.as_mut().map_or(Poll::Ready(Ok(())), |tls| tls.poll_flush(stream, cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, tls, .. } = &mut *self;
        let Some(tls) = tls else {
            return Poll::Ready(SockRef::from(&**stream).shutdown(Shutdown::Write));
        };
        while !tls.end_writing(stream)? {
            ready!(stream.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}
