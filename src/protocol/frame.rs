//! WebSocket frames as the gateway sends them (RFC 6455, section 5): whole, unmasked, encoded once. They are
//! parsed again where they are converted to another format.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::CloseCode;

/// The longest header of a server's frame.
pub const FRAME_HEADER_MAX: usize = 10;

fn write_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to a Vec cannot fail.
    let written = header.format(payload.len() as u64, out);
    debug_assert!(written.is_ok());
    out.extend_from_slice(payload);
}

/// Appends a text frame.
pub fn text_frame(payload: &[u8], out: &mut Vec<u8>) {
    write_frame(OpCode::Data(Data::Text), payload, out);
}

/// Appends a ping without a payload.
pub fn ping_frame(out: &mut Vec<u8>) {
    write_frame(OpCode::Control(Control::Ping), &[], out);
}

/// Appends a close frame with a code and its reason.
pub fn close_frame(code: CloseCode, out: &mut Vec<u8>) {
    let mut payload = code.number().to_be_bytes().to_vec();
    payload.extend_from_slice(code.reason().as_bytes());
    write_frame(OpCode::Control(Control::Close), &payload, out);
}

/// A frame that this module wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message.
    Text(&'a [u8]),
    /// A ping.
    Ping,
    /// The close frame.
    Close,
}

/// The first frame in bytes that this module wrote, and its length; `None` if it is incomplete.
pub fn first_frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let mut cursor = Cursor::new(bytes);
    let (header, payload) = FrameHeader::parse(&mut cursor).ok().flatten()?;
    let from = usize::try_from(cursor.position()).ok()?;
    let to = from.checked_add(usize::try_from(payload).ok()?)?;
    let payload = bytes.get(from..to)?;
    let frame = match header.opcode {
        OpCode::Control(Control::Close) => Frame::Close,
        OpCode::Control(_) => Frame::Ping,
        OpCode::Data(_) => Frame::Text(payload),
    };
    Some((frame, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_bytes_of_the_rfc() {
        let mut out = Vec::new();
        text_frame(b"Hello", &mut out);
        ping_frame(&mut out);
        close_frame(CloseCode::Normal, &mut out);
        assert_eq!(out, b"\x81\x05Hello\x89\x00\x88\x08\x03\xe8normal");
    }

    #[test]
    fn longer_payloads_use_the_longer_length_forms() {
        for (len, header) in [(125, 2), (126, 4), (65_535, 4), (65_536, FRAME_HEADER_MAX)] {
            let mut out = Vec::new();
            text_frame(&vec![b'x'; len], &mut out);
            assert_eq!(out.len(), header + len);
            assert_eq!(first_frame(&out), Some((Frame::Text(&out[header..]), out.len())));
            assert_eq!((first_frame(&out[..out.len() - 1]), first_frame(&out[..1])), (None, None));
        }
    }

    #[test]
    fn frames_are_read_back_one_by_one() {
        let mut out = Vec::new();
        text_frame(b"a", &mut out);
        ping_frame(&mut out);
        close_frame(CloseCode::Normal, &mut out);
        let (mut read, mut from) = (Vec::new(), 0);
        while let Some((frame, len)) = first_frame(&out[from..]) {
            read.push(frame);
            from += len;
        }
        assert_eq!((read, from), (vec![Frame::Text(b"a"), Frame::Ping, Frame::Close], out.len()));
        assert_eq!(first_frame(b""), None);
    }
}
