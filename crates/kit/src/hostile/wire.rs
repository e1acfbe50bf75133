//! Bytes on sockets, for clients that need not follow the protocol.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;

/// How long a gateway may take to answer, or to close what it must close.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How much is read of one connection at most.
const READ_BYTES_MAX: usize = 64 << 20;

/// The head of a valid upgrade request.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A client's frame with the given first byte, masked with zeros.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Opcode, header length and payload length of a server's frame, if its header is complete.
pub fn frame_header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (opcode, short) = (bytes.first()? & 0x0f, bytes.get(1)? & 0x7f);
    let long = |from: usize, to: usize| {
        Some(bytes.get(from..to)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
    };
    match short {
        126 => Some((opcode, 4, long(2, 4)?)),
        127 => Some((opcode, 10, long(2, 10)?)),
        len => Some((opcode, 2, usize::from(len))),
    }
}

/// Removes the first frame of a server from these bytes, if it is complete: its opcode and payload.
fn take_frame(unread: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (opcode, header, len) = frame_header(unread)?;
    (unread.len() >= header + len).then(|| (opcode, unread.drain(..header + len).skip(header).collect()))
}

/// A request with a body, the last one of its connection. `head` is the method and the target.
pub fn request(head: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Connects to the gateway.
pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let connected = time::timeout(PATIENCE, TcpStream::connect(address)).await;
    connected.map_err(anyhow::Error::from)?.context("cannot connect to the gateway")
}

/// Sends bytes on a new connection, reads until the gateway closes it, and returns what was read. A gateway
/// need not read what it refuses, so not all bytes may have been sent.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = connect(address).await?;
    let (mut from, mut to) = stream.split();
    let mut came = Vec::new();
    let reading = async {
        while came.len() < READ_BYTES_MAX && from.read_buf(&mut came).await.is_ok_and(|read| read > 0) {}
    };
    let writing = async {
        // A failed write does not matter, only the answer does.
        let _refused = to.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::select! { () = reading => {}, () = writing => {} }
    };
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    time::timeout(PATIENCE, ended).await.with_context(|| format!("a connection does not end: {shown:?}"))?;
    Ok(came)
}

/// The statuses of all answers in these bytes.
pub fn statuses(answered: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answered);
    let heads = text.split("HTTP/1.").skip(1);
    heads.filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
}

/// The status and the text of the single answer to a request.
pub async fn ask(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<(u16, String)> {
    let answered = exchange(address, bytes).await?;
    let text = String::from_utf8_lossy(&answered).into_owned();
    match statuses(&answered)[..] {
        [status] => Ok((status, text)),
        _ => bail!("expected one answer, found {text:?}"),
    }
}

/// A WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    unread: Vec<u8>,
}

impl Socket {
    /// Opens one with a valid handshake; fails if it is refused.
    pub(super) async fn open(address: SocketAddr, head: &str) -> anyhow::Result<Self> {
        Self::over(connect(address).await?, head).await
    }

    /// The same on an existing connection.
    pub(super) async fn over(mut stream: TcpStream, head: &str) -> anyhow::Result<Self> {
        stream.write_all(head.as_bytes()).await.context("an upgrade could not be sent")?;
        let mut socket = Self { stream, unread: Vec::new() };
        let end = loop {
            if let Some(end) = socket.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(socket.read_more().await?, "no answer to an upgrade");
        };
        let head: Vec<u8> = socket.unread.drain(..end).collect();
        ensure!(head.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&head));
        Ok(socket)
    }

    /// Sends a text message.
    pub(super) async fn send(&mut self, text: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(&masked(0x81, text)).await.context("a message could not be sent")
    }

    /// Reads more, and returns false at the end of the connection.
    async fn read_more(&mut self) -> anyhow::Result<bool> {
        let read = time::timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
        Ok(read.context("a WebSocket is silent")?.is_ok_and(|read| read > 0))
    }

    /// The opcode and payload of the next frame; `None` at the end.
    pub(super) async fn frame(&mut self) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some(frame) = take_frame(&mut self.unread) {
                return Ok(Some(frame));
            }
            if !self.read_more().await? {
                return Ok(None);
            }
        }
    }

    /// The next text that contains this word.
    pub(super) async fn text_with(&mut self, word: &str) -> anyhow::Result<String> {
        while let Some((opcode, payload)) = self.frame().await? {
            let text = String::from_utf8_lossy(&payload);
            if opcode == 1 && text.contains(word) {
                return Ok(text.into_owned());
            }
        }
        bail!("a WebSocket ended without a message with {word}")
    }

    /// Sends bytes while reading up to the close frame. Returns its code, and how many texts came before it.
    pub(super) async fn until_close(self, bytes: &[u8]) -> anyhow::Result<(u16, usize)> {
        let (mut from, mut to) = self.stream.into_split();
        let mut unread = self.unread;
        let writing = async {
            let _closed = to.write_all(bytes).await;
            std::future::pending::<anyhow::Result<(u16, usize)>>().await
        };
        let reading = async {
            let mut texts = 0;
            loop {
                while let Some((opcode, payload)) = take_frame(&mut unread) {
                    match (opcode, &payload[..]) {
                        (1, _) => texts += 1,
                        (8, [high, low, ..]) => return Ok((u16::from_be_bytes([*high, *low]), texts)),
                        _ => {}
                    }
                }
                let read = from.read_buf(&mut unread).await;
                ensure!(read.is_ok_and(|read| read > 0), "no close frame, after {texts} texts");
            }
        };
        let closing = async {
            tokio::select! { closed = reading => closed, closed = writing => closed }
        };
        time::timeout(PATIENCE, closing).await.context("a WebSocket is not closed")?
    }
}
