//! A connection that echoes what it receives, as test suites for WebSockets expect. Only in tests; the
//! frames take the same path as always.

use std::rc::Rc;

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::connection::Connection;
use super::inbound::Inbound;
use super::shard::Shard;

/// Echoes one message.
pub(super) fn answer(connection: &Rc<Connection>, shard: &Rc<Shard>, message: Inbound) {
    let (kind, content) = match message {
        Inbound::Text(text) => (Data::Text, text.into()),
        Inbound::Binary(bytes) => (Data::Binary, bytes),
        other => panic!("nothing to give back: {other:?}"),
    };
    let mut frame = Vec::new();
    Frame::message(content, OpCode::Data(kind), true).format(&mut frame).unwrap();
    connection.send(frame.into(), None, shard.limits);
}
