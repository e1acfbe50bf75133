//! A reader of server-sent events, by the HTML standard (sections 9.2.5 and 9.2.6) and RFC 9112, over bytes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;

use super::client::{LIMIT, connect_small};
use super::gateway::Answer;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Chunked,
    /// Until the connection ends, as in HTTP/1.0.
    ToTheEnd,
    /// After so many more bytes.
    Sized(usize),
    Over,
}

/// What arrived.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Value),
    Comment,
    /// The answer is complete.
    End,
    /// The answer broke off.
    Broken,
}

/// A stream of events.
pub(crate) struct EventReader {
    pub(crate) stream: TcpStream,
    /// In lower case.
    pub(crate) head: String,
    /// As the standard stores it for reconnecting.
    pub(crate) last_event_id: String,
    /// The last reconnection delay from the stream, in milliseconds.
    pub(crate) retry: Option<u64>,
    body: Body,
    /// Bytes of the connection, and of the decoded body.
    unread: Vec<u8>,
    text: Vec<u8>,
    /// Fields of the event that is being read.
    data: Vec<String>,
    id: String,
}

impl EventReader {
    /// Opens a stream as a browser does; the answer must be a stream.
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Self {
        Self::open_with(address, path, &[("accept", "text/event-stream")]).await
    }

    /// The same with the id of the last event.
    pub(crate) async fn resume(address: SocketAddr, path: &str, last_event_id: &str) -> Self {
        let headers = [("accept", "text/event-stream"), ("last-event-id", last_event_id)];
        Self::open_with(address, path, if last_event_id.is_empty() { &headers[..1] } else { &headers }).await
    }

    /// The same with these headers.
    pub(crate) async fn open_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        let stream = TcpStream::connect(address).await.unwrap();
        Self::ask(stream, &format!("{head}\r\n")).await.unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    /// A reader whose kernel buffers hardly anything that it has not read.
    pub(crate) async fn open_small(address: SocketAddr, path: &str) -> Self {
        let stream = connect_small(address).await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        Self::ask(stream, &head).await.unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    /// Sends the head of a request. Returns the answer if that is not a stream.
    pub(crate) async fn ask(mut stream: TcpStream, request: &str) -> Result<Self, Answer> {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut unread = Vec::new();
        let end = loop {
            if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let read = time::timeout(LIMIT, stream.read_buf(&mut unread)).await.expect("an answer in time");
            assert!(read.unwrap() > 0, "no answer to {request}");
        };
        let head = String::from_utf8(unread.drain(..end).collect()).unwrap().to_lowercase();
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let len = len.map(|len| len.trim().parse::<usize>().unwrap());
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 || !head.contains("content-type: text/event-stream\r\n") {
            while unread.len() < len.unwrap_or(0) {
                let read =
                    time::timeout(LIMIT, stream.read_buf(&mut unread)).await.expect("all of it in time");
                assert!(read.unwrap() > 0, "half an answer to {request}");
            }
            return Err(Answer { status, head, body: String::from_utf8(unread).unwrap() });
        }
        let body = match len {
            Some(len) => Body::Sized(len),
            None if head.contains("transfer-encoding: chunked\r\n") => Body::Chunked,
            None => Body::ToTheEnd,
        };
        let (text, data, id) = (Vec::new(), Vec::new(), String::new());
        Ok(Self { stream, head, last_event_id: String::new(), retry: None, body, unread, text, data, id })
    }

    /// What arrives next.
    pub(crate) async fn came(&mut self) -> Event {
        loop {
            while let Some(line) = self.line() {
                if let Some(event) = self.take(&line) {
                    return event;
                }
            }
            if self.body == Body::Over {
                return Event::End;
            }
            if self.more_of_body() {
                continue;
            }
            let read = time::timeout(LIMIT, self.stream.read_buf(&mut self.unread)).await;
            if !read.expect("something arrives in time").is_ok_and(|read| read > 0) {
                return if self.body == Body::ToTheEnd { Event::End } else { Event::Broken };
            }
        }
    }

    /// The next line of the body, without its end.
    fn line(&mut self) -> Option<String> {
        let end = self.text.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.text.drain(..=end).collect();
        Some(String::from_utf8(line).unwrap().trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Decodes more of the body; false if there was nothing to decode.
    fn more_of_body(&mut self) -> bool {
        let some = match self.body {
            Body::ToTheEnd => self.unread.len(),
            Body::Sized(left) => self.unread.len().min(left),
            Body::Over => 0,
            Body::Chunked => {
                let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") else { return false };
                let len = std::str::from_utf8(&self.unread[..end]).unwrap();
                let len = usize::from_str_radix(len, 16).unwrap_or_else(|error| panic!("{error}: {len:?}"));
                if self.unread.len() < end + 2 + len + 2 {
                    return false;
                }
                self.unread.drain(..end + 2);
                self.text.extend(self.unread.drain(..len));
                assert_eq!(self.unread.drain(..2).collect::<Vec<u8>>(), b"\r\n");
                if len == 0 {
                    self.body = Body::Over;
                }
                return true;
            }
        };
        self.text.extend(self.unread.drain(..some));
        if let Body::Sized(left) = self.body {
            self.body = if left == some { Body::Over } else { Body::Sized(left - some) };
        }
        some > 0 || self.body == Body::Over
    }

    fn take(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            self.last_event_id.clone_from(&self.id);
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty())
                .then(|| Event::Message(serde_json::from_str(&data.join("\n")).unwrap()));
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" => return Some(Event::Comment),
            "data" => self.data.push(value.to_owned()),
            "id" => value.clone_into(&mut self.id),
            "retry" => self.retry = Some(value.parse().unwrap()),
            _ => panic!("a field that nobody sends: {line}"),
        }
        None
    }

    /// The next message. Comments and heartbeats are skipped.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match self.came().await {
                Event::Message(message) if message["type"] == "heartbeat" => {}
                Event::Message(message) => return message,
                Event::Comment => {}
                end => panic!("expected a message, found {end:?}"),
            }
        }
    }

    /// The next message of a type; others are skipped.
    pub(crate) async fn next_of_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// All messages up to the end, which must be complete.
    pub(crate) async fn until_end(&mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            match self.came().await {
                Event::Message(message) => messages.push(message),
                Event::Comment => {}
                Event::End => return messages,
                Event::Broken => panic!("broken off after {messages:?}"),
            }
        }
    }
}
