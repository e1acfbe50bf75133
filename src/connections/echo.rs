//! A connection that gives back what it is sent, as suites of tests for WebSockets expect it. Only tests
//! have it; frames go the same way as everybody's.

use std::rc::Rc;

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::connection::Connection;
use super::inbound::Inbound;
use super::shard::Shard;

/// Gives back one message.
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
