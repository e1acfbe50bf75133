//! Processes what one client sends: in order, with yields in between, and more slowly the more the client
//! asks for.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::time::{self, Sleep};
use tracing::debug;

use super::connection::{Connection, yield_to_other_tasks};
use super::fragments::FRAGMENTS_MAX;
use super::inbound::{FrameReader, Inbound};
use super::publishing::Publisher;
use super::shard::{Heard, Request, Shard};
use crate::protocol::CloseCode;

/// Processes what one client sends.
#[derive(Default)]
pub(super) struct Intake {
    /// Present while a message is incomplete.
    reader: Option<Box<FrameReader>>,
    /// Whether further input is read and ignored.
    is_deaf: bool,
    backlog: Option<Box<Backlog>>,
    /// Present once the client publishes.
    publisher: Option<Box<Publisher>>,
}

/// Why a client has to wait. While it exists, the client's socket is not read.
struct Backlog {
    /// A request with unprocessed channels.
    request: Option<Request>,
    /// The time for which the client is not read, after it has unsubscribed from too many channels.
    rest: Option<Pin<Box<Sleep>>>,
    /// What was read after the request.
    unread: Vec<u8>,
}

impl Intake {
    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Takes what was read from the socket. Must not be called while there is a backlog.
    pub(super) fn take(&mut self, connection: &Rc<Connection>, shard: &Rc<Shard>, mut input: &[u8]) {
        if input.is_empty() && self.reader.is_none() {
            return;
        }
        let mut output = Vec::new();
        while !self.is_deaf {
            let fragments_max = if connection.echoes() { u32::MAX } else { FRAGMENTS_MAX };
            let new = || Box::new(FrameReader::new(shard.config.message_bytes_max, fragments_max));
            let reader = self.reader.get_or_insert_with(new);
            let inbound = reader.next(&mut input, &mut output);
            let is_all = inbound.is_none() && reader.is_between();
            if !output.is_empty() {
                connection.send(std::mem::take(&mut output).into(), None, shard.limits);
            }
            match inbound {
                None => {
                    if is_all {
                        self.reader = None;
                    }
                    return;
                }
                Some(Inbound::Closed { has_failed }) => {
                    self.is_deaf = true;
                    let code = if has_failed { CloseCode::Abnormal } else { CloseCode::Normal };
                    connection.peer_has_closed(code);
                }
                Some(Inbound::Broken(code)) => {
                    self.is_deaf = true;
                    shard.close(connection, code);
                }
                Some(Inbound::Alive) => self.is_deaf = !connection.allowed_alive(shard),
                #[cfg(test)]
                Some(message @ (Inbound::Text(_) | Inbound::Binary(_))) if connection.echoes() => {
                    echo(connection, shard, message);
                }
                Some(Inbound::Binary(content)) => {
                    debug!(conn.id = %connection.id, bytes = content.len(), "a client sent a binary message");
                    self.is_deaf = true;
                    shard.close(connection, CloseCode::Unsupported);
                }
                Some(Inbound::Text(text)) => {
                    connection.count_message();
                    if !connection.is_open() {
                        continue;
                    }
                    match shard.on_message(connection, &text) {
                        Heard::All => {}
                        Heard::TooMuch => self.is_deaf = true,
                        Heard::Publish(publishing) => {
                            let publisher = self.publisher.get_or_insert_default();
                            publisher.push(publishing);
                            if publisher.is_full() {
                                let unread = input.to_vec();
                                self.backlog = Some(Box::new(Backlog { request: None, rest: None, unread }));
                                return;
                            }
                        }
                        Heard::Request(request) => {
                            let mut backlog =
                                Backlog { request: Some(request), rest: None, unread: Vec::new() };
                            if !backlog.go_on(connection, shard) {
                                backlog.unread = input.to_vec();
                                self.backlog = Some(Box::new(backlog));
                                return;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Continues with what the client publishes.
    pub(super) fn poll_publisher(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Rc<Connection>,
        shard: &Rc<Shard>,
    ) {
        if let Some(publisher) = &mut self.publisher {
            publisher.poll(cx, connection, shard);
            if publisher.is_idle() {
                self.publisher = None;
            }
        }
    }

    /// Continues with the backlog, one step at a time, until there is none.
    pub(super) fn poll_backlog(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Rc<Connection>,
        shard: &Rc<Shard>,
    ) -> Poll<()> {
        while let Some(backlog) = &mut self.backlog {
            if !connection.is_open() {
                // Drops the rest of the request, but not `unread`, which may contain the client's close
                // frame.
                (backlog.request, backlog.rest) = (None, None);
            }
            if connection.is_open() && self.publisher.as_ref().is_some_and(|publisher| publisher.is_full()) {
                // Woken when the log has accepted what is being published.
                return Poll::Pending;
            }
            if let Some(rest) = &mut backlog.rest {
                ready!(rest.as_mut().poll(cx));
                backlog.rest = None;
            }
            if !backlog.go_on(connection, shard) {
                if backlog.rest.is_none() {
                    yield_to_other_tasks(cx);
                    return Poll::Pending;
                }
                continue;
            }
            let unread = std::mem::take(&mut backlog.unread);
            self.backlog = None;
            self.take(connection, shard, &unread);
            self.poll_publisher(cx, connection, shard);
        }
        Poll::Ready(())
    }
}

impl Backlog {
    /// Does one step of the request; returns whether the request is done and the client may be read again.
    fn go_on(&mut self, connection: &Rc<Connection>, shard: &Rc<Shard>) -> bool {
        let Some(request) = &mut self.request else { return true };
        if shard.go_on(connection, request) {
            return false;
        }
        self.request = None;
        self.rest = connection.rest(shard).map(|rest| Box::pin(time::sleep(rest)));
        self.rest.is_none()
    }
}

/// Sends a message back, as test suites for WebSockets expect; its frames take the usual path.
#[cfg(test)]
fn echo(connection: &Rc<Connection>, shard: &Rc<Shard>, message: Inbound) {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    let (kind, content) = match message {
        Inbound::Text(text) => (Data::Text, text.into()),
        Inbound::Binary(bytes) => (Data::Binary, bytes),
        other => panic!("nothing to send back: {other:?}"),
    };
    let mut frame = Vec::new();
    Frame::message(content, OpCode::Data(kind), true).format(&mut frame).unwrap();
    connection.send(frame.into(), None, shard.limits);
}
