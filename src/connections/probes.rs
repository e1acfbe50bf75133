//! Probes of the parsers of WebSocket frames, and of the positions with which event streams are resumed:
//! see [`crate::probes`].

use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::fragments::FRAGMENTS_MAX;
use super::inbound::{FrameReader, Inbound};
use crate::support::probing::cuts;

pub(crate) use super::events::probes::resumes;

/// The longest message; short, so that some messages are too long.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// What the pieces yield, and the answers; with a new reader whenever one would do, as connections have it.
fn hear(pieces: &[&[u8]], is_renewed: bool) -> (Vec<Inbound>, Vec<u8>) {
    let new = || FrameReader::new(MESSAGE_BYTES_MAX, FRAGMENTS_MAX);
    let (mut reader, mut heard, mut output) = (new(), Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = *piece;
        while let Some(inbound) = reader.next(&mut input, &mut output) {
            heard.push(inbound);
            if matches!(heard.last(), Some(Inbound::Closed { .. } | Inbound::Broken(_))) {
                return (heard, output);
            }
        }
        assert!(input.is_empty(), "what is not used up would be lost");
        if is_renewed && reader.is_between() {
            reader = new();
        }
    }
    (heard, output)
}

/// Frames of a client.
pub(crate) fn frames(bytes: &[u8]) {
    let whole = hear(&[bytes], false);
    for pieces in cuts(bytes) {
        for is_renewed in [false, true] {
            assert_eq!(hear(&pieces, is_renewed), whole, "in {} pieces", pieces.len());
        }
    }
    let (heard, output) = whole;
    assert!(output.len() <= bytes.len() + 16, "{} bytes are answered to {}", output.len(), bytes.len());
    // Parsing what was received, when formatted again, yields the same.
    let mut again = Vec::new();
    let mut messages = Vec::new();
    for message in heard {
        let (data, payload) = match &message {
            Inbound::Text(text) => (Data::Text, text.clone().into()),
            Inbound::Binary(bytes) => (Data::Binary, bytes.clone()),
            _ => continue,
        };
        assert!(payload.len() <= MESSAGE_BYTES_MAX);
        let header = FrameHeader {
            is_final: true,
            opcode: OpCode::Data(data),
            mask: Some([7, 0, 255, 9]),
            ..FrameHeader::default()
        };
        let frame = Frame::from_payload(header, payload);
        frame.format(&mut again).expect("memory takes what is written");
        messages.push(message);
    }
    assert_eq!(hear(&[&again[..]], false), (messages, Vec::new()));
}
