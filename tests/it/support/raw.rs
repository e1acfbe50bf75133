//! A client that need not follow the protocol: bytes on a socket.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;
use zonewire_kit::hostile::wire::frame_header;

use super::client::LIMIT;

pub(crate) use zonewire_kit::hostile::wire::{masked, upgrade};

/// A socket after its upgrade.
pub(crate) struct RawSocket {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl RawSocket {
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Self {
        Self::open_with(address, &upgrade(path)).await
    }

    /// The same with the head of a request.
    pub(crate) async fn open_with(address: SocketAddr, head: &str) -> Self {
        let opened = Self::upgraded(address, head).await;
        opened.unwrap_or_else(|answer| panic!("no upgrade: {answer}"))
    }

    /// The same; returns the answer if there is no upgrade.
    pub(crate) async fn upgraded(address: SocketAddr, head: &str) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut socket = Self { stream, unread: Vec::new() };
        let end = loop {
            if let Some(end) = socket.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(socket.read_more().await, "no answer to an upgrade");
        };
        let head = String::from_utf8(socket.unread.drain(..end).collect()).unwrap();
        if head.starts_with("HTTP/1.1 101") { Ok(socket) } else { Err(head) }
    }

    /// The next text.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            let (opcode, payload) = self.frame().await.expect("the socket stays open");
            if opcode == 1 {
                return String::from_utf8(payload).unwrap();
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // It may have been closed by now, which reading will show.
        let _closed = self.stream.write_all(bytes).await;
    }

    async fn read_more(&mut self) -> bool {
        let read = time::timeout(LIMIT, self.stream.read_buf(&mut self.unread)).await;
        read.expect("something arrives in time").is_ok_and(|read| read > 0)
    }

    /// The next frame's opcode and payload; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, header, len)) = frame_header(&self.unread)
                && self.unread.len() >= header + len
            {
                let frame: Vec<u8> = self.unread.drain(..header + len).collect();
                return Some((opcode, frame[header..].to_vec()));
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// The first message.
    pub(crate) async fn greeting(&mut self) -> Value {
        let (opcode, payload) = self.frame().await.expect("a first message");
        assert_eq!(opcode, 1);
        serde_json::from_slice(&payload).unwrap()
    }

    /// Checks the close of a refused client: its code and `closing` say when to reconnect. Answers the close
    /// frame.
    pub(crate) async fn assert_turned_away(mut self, code: u16, reason: &str) {
        let (texts, number) = self.until_close().await;
        let [closing] = &texts[..] else { panic!("{texts:?}") };
        let closing: Value = serde_json::from_str(closing).unwrap();
        assert_eq!((&closing["type"], &closing["code"]), (&json!("closing"), &json!(code)), "{closing}");
        assert_eq!((number, closing["reason"].as_str()), (code, Some(reason)), "{closing}");
        assert!((1_000..5_000).contains(&closing["retry_after_ms"].as_u64().unwrap()), "{closing}");
        self.send(&masked(0x88, &code.to_be_bytes())).await;
        assert!(self.frame().await.is_none(), "the gateway ends it");
    }

    /// Reads up to the close frame. Returns the texts before it, and its code.
    pub(crate) async fn until_close(&mut self) -> (Vec<String>, u16) {
        let mut texts = Vec::new();
        loop {
            let (opcode, payload) =
                self.frame().await.unwrap_or_else(|| panic!("no close frame, after {texts:?}"));
            match opcode {
                1 => texts.push(String::from_utf8(payload).unwrap()),
                8 => return (texts, u16::from_be_bytes([payload[0], payload[1]])),
                _ => {}
            }
        }
    }
}
