//! What a client sends: turns bytes into messages. tungstenite's sans-I/O context does parsing, masking,
//! fragmentation, UTF-8 and the closing handshake (RFC 6455).

use std::io::{self, Read, Write};

use bytes::Bytes;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

use super::fragments::{Fragments, Wrong};
use crate::protocol::CloseCode;

/// The initial size of the read buffer, in bytes; it grows for larger messages.
const READ_BUFFER: usize = 128;

/// Something that a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// A whole text message.
    Text(Utf8Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping or a pong; pings have been answered.
    Alive,
    /// The client closes, and that has been answered. `has_failed` if its code reports a failure.
    Closed { has_failed: bool },
    /// The client violated the protocol; the connection has to be closed with this code.
    Broken(CloseCode),
}

/// Reads one client's frames. Exists only while a message is incomplete, because most of the many clients
/// are silent most of the time.
pub(super) struct FrameReader {
    context: WebSocketContext,
    fragments: Fragments,
}

impl FrameReader {
    /// Whether a new reader would read the next bytes just as well. Called when all bytes so far have been
    /// read.
    pub(super) fn is_between(&self) -> bool {
        self.fragments.is_between()
    }

    /// Messages longer than `message_bytes_max`, or of more than `fragments_max` fragments, violate the
    /// protocol.
    pub(super) fn new(message_bytes_max: usize, fragments_max: u32) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self { context, fragments: Fragments::fewer_than(fragments_max) }
    }

    /// The next message in `input`, which is consumed from the front; `None` if more bytes are needed.
    /// Answers (pongs, a close) are appended to `output`.
    pub(super) fn next(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Option<Inbound> {
        let mut pipe = Pipe { input, output, fragments: &mut self.fragments };
        match self.context.read(&mut pipe) {
            Ok(Message::Text(text)) => Some(Inbound::Text(text)),
            Ok(Message::Binary(bytes)) => Some(Inbound::Binary(bytes)),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Some(Inbound::Alive),
            Ok(Message::Close(frame)) => {
                // Codes that report a failure: 1002 to 1015, except 1005, which stands for the absence of a
                // code.
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                let has_failed = (1002..=1015).contains(&code) && code != 1005;
                // The answer is queued in the context; flushing into a `Vec` cannot fail.
                match self.context.flush(&mut pipe) {
                    Ok(()) | Err(Error::ConnectionClosed) => Some(Inbound::Closed { has_failed }),
                    Err(error) => Some(Inbound::Broken(close_code(&error))),
                }
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            // Only `Pipe` produces this error, and only for text that is not UTF-8.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Some(Inbound::Broken(CloseCode::InvalidUtf8))
            }
            Err(Error::Io(_)) => Some(Inbound::Broken(CloseCode::TooBig)),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                Some(Inbound::Closed { has_failed: false })
            }
            Err(error) => Some(Inbound::Broken(close_code(&error))),
        }
    }
}

fn close_code(error: &Error) -> CloseCode {
    match error {
        Error::Capacity(_) => CloseCode::TooBig,
        Error::Utf8(_) => CloseCode::InvalidUtf8,
        _ => CloseCode::ProtocolError,
    }
}

/// The available input and the output, as the blocking stream that the context expects.
struct Pipe<'a, 'b> {
    input: &'a mut &'b [u8],
    output: &'a mut Vec<u8>,
    fragments: &'a mut Fragments,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(wrong) = self.fragments.wrong() {
            return Err(wrong.into());
        }
        if self.input.is_empty() {
            // Zero would mean the end of the stream.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.input.read(buf)?;
        // Complete messages before the fault are processed first.
        match (self.fragments.take(&buf[..read]), self.fragments.wrong()) {
            (0, Some(wrong)) => Err(wrong.into()),
            (good, _) => Ok(good),
        }
    }
}

impl From<Wrong> for io::Error {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::NotUtf8 => Self::new(io::ErrorKind::InvalidData, "not UTF-8"),
            Wrong::TooManyFragments => Self::other("too many fragments"),
        }
    }
}

impl Write for Pipe<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tungstenite::protocol::frame::{Frame, FrameHeader};

    use super::*;
    use crate::connections::fragments::FRAGMENTS_MAX;

    fn frame(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
        let header =
            FrameHeader { is_final: fin, opcode, mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
        let mut out = Vec::new();
        Frame::from_payload(header, payload.to_vec().into()).format(&mut out).unwrap();
        out
    }

    /// Feeds bytes in pieces of `step`, and shows the outcome.
    fn feed(bytes: &[u8], step: usize) -> (Vec<String>, Vec<u8>) {
        let mut reader = FrameReader::new(1_000, FRAGMENTS_MAX);
        let (mut seen, mut output) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            let mut input = piece;
            while let Some(inbound) = reader.next(&mut input, &mut output) {
                let text = match &inbound {
                    Inbound::Text(text) => format!("text {text}"),
                    Inbound::Binary(bytes) => format!("binary {}", bytes.len()),
                    Inbound::Alive => "alive".to_owned(),
                    Inbound::Closed { has_failed: false } => "closed".to_owned(),
                    Inbound::Closed { has_failed: true } => "failed".to_owned(),
                    Inbound::Broken(code) => format!("broken {}", code.number()),
                };
                seen.push(text);
                if matches!(inbound, Inbound::Closed { .. } | Inbound::Broken(_)) {
                    return (seen, output);
                }
            }
        }
        (seen, output)
    }

    fn check(bytes: &[u8], expected: &[&str]) {
        for step in [1, 2, 3, 7, 64, 100_000] {
            assert_eq!(feed(bytes, step).0, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut bytes = frame(OpCode::Data(Data::Text), false, b"hel");
        bytes.extend(frame(OpCode::Control(Control::Ping), true, b"p"));
        bytes.extend(frame(OpCode::Data(Data::Continue), true, b"lo"));
        bytes.extend(frame(OpCode::Data(Data::Text), true, &[b'x'; 500]));
        check(&bytes, &["alive", "text hello", &format!("text {}", "x".repeat(500))]);
    }

    #[test]
    fn what_is_no_utf_8_is_told_at_the_first_byte_that_shows_it() {
        // κόσμε, an invalid code point, and more: in one frame that has arrived only in part.
        let text = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
        let wrong_at = 12;
        let whole = frame(OpCode::Data(Data::Text), true, text);
        let header = whole.len() - text.len();
        let step = |bytes: &[u8]| feed(bytes, 1).0;
        assert_eq!(step(&whole[..header + wrong_at]), [""; 0]);
        assert_eq!(step(&whole[..header + wrong_at + 1]), ["broken 1007"]);
        // In fragments, each with its own mask, and between them a ping, whose payload is not part of the
        // text.
        let mut cut = frame(OpCode::Data(Data::Text), false, &text[..3]);
        cut.extend(frame(OpCode::Control(Control::Ping), true, b"\xff"));
        cut.extend(frame(OpCode::Data(Data::Continue), false, &text[3..11]));
        cut.extend(frame(OpCode::Data(Data::Continue), true, &text[11..]));
        let after = text.len() - wrong_at - 1;
        assert_eq!(step(&cut[..cut.len() - after - 1]), ["alive"]);
        assert_eq!(step(&cut[..cut.len() - after]), ["alive", "broken 1007"]);
        // Complete messages before it are processed.
        let before = frame(OpCode::Data(Data::Text), true, b"heard");
        check(&[&before[..], &whole].concat(), &["text heard", "broken 1007"]);
        // For a frame with an invalid header, that is reported, whatever its payload.
        let mut unmasked = vec![0x81, 2];
        unmasked.extend(b"\xff\xfe");
        check(&[&before[..], &unmasked].concat(), &["text heard", "broken 1002"]);
        let mut reserved = frame(OpCode::Data(Data::Text), true, b"\xff\xfe");
        reserved[0] |= 0x40;
        check(&[&before[..], &reserved].concat(), &["text heard", "broken 1002"]);
        // A stray continuation is reported, even after a text message, and however little of it has
        // arrived.
        let stray = frame(OpCode::Data(Data::Continue), true, b"\xff\xfe");
        check(&[&before[..], &stray].concat(), &["text heard", "broken 1002"]);
        check(&[&before[..], &stray[..stray.len() - 1]].concat(), &["text heard"]);
        // A message that ends within a character; and a binary one, which may contain anything.
        check(&frame(OpCode::Data(Data::Text), true, &text[..1]), &["broken 1007"]);
        check(&frame(OpCode::Data(Data::Binary), true, text), &[&format!("binary {}", text.len())]);
        // More than is checked together, with characters across the boundaries.
        for shift in 0..4 {
            let long = ["x".repeat(shift), "€".repeat(300)].concat();
            check(&frame(OpCode::Data(Data::Text), true, long.as_bytes()), &[&format!("text {long}")]);
        }
    }

    #[test]
    fn a_ping_is_answered_with_its_payload() {
        let (_, output) = feed(&frame(OpCode::Control(Control::Ping), true, b"abc"), 100);
        assert_eq!(output, b"\x8a\x03abc");
    }

    #[test]
    fn a_close_is_answered() {
        let (seen, output) = feed(&frame(OpCode::Control(Control::Close), true, &1000u16.to_be_bytes()), 100);
        assert_eq!((seen, output), (vec!["closed".to_owned()], b"\x88\x02\x03\xe8".to_vec()));
    }

    #[test]
    fn what_breaks_the_protocol_gets_its_code() {
        let unmasked = b"\x81\x02hi";
        check(unmasked, &["broken 1002"]);
        let reserved_bit = b"\xc1\x80\x01\x02\x03\x04";
        check(reserved_bit, &["broken 1002"]);
        check(&frame(OpCode::Data(Data::Continue), true, b"x"), &["broken 1002"]);
        check(&frame(OpCode::Data(Data::Text), true, b"\xff\xfe"), &["broken 1007"]);
        check(&frame(OpCode::Data(Data::Binary), true, b"x"), &["binary 1"]);
        check(&frame(OpCode::Data(Data::Text), true, &[b'x'; 1_001]), &["broken 1009"]);
        let claims_2_to_the_62 = b"\x81\xff\x40\0\0\0\0\0\0\0\x01\x02\x03\x04";
        check(claims_2_to_the_62, &["broken 1009"]);
    }

    #[test]
    fn a_client_that_closes_because_it_failed_is_told_apart() {
        for (code, seen) in
            [(1000, "closed"), (1001, "closed"), (1002, "failed"), (1011, "failed"), (4321, "closed")]
        {
            check(&frame(OpCode::Control(Control::Close), true, &u16::to_be_bytes(code)), &[seen]);
        }
        check(&frame(OpCode::Control(Control::Close), true, b""), &["closed"]);
    }

    #[test]
    fn a_message_has_so_many_fragments_and_no_more_however_small() {
        let begin = frame(OpCode::Data(Data::Text), false, b"");
        let more = |count: u32| frame(OpCode::Data(Data::Continue), false, b"").repeat(count as usize);
        let end = frame(OpCode::Data(Data::Continue), true, b"x");
        let ping = frame(OpCode::Control(Control::Ping), true, b"in between");
        let most = [&begin[..], &more(100), &ping, &more(FRAGMENTS_MAX - 102), &end].concat();
        // Each message is counted separately.
        check(&most.repeat(2), &["alive", "text x", "alive", "text x"]);
        check(&[&begin[..], &more(FRAGMENTS_MAX - 1), &end].concat(), &["broken 1009"]);
        let small = frame(OpCode::Data(Data::Continue), false, b"a");
        check(&[&begin[..], &small.repeat(FRAGMENTS_MAX as usize)].concat(), &["broken 1009"]);
    }

    #[test]
    fn whoever_is_between_two_messages_can_be_read_by_another() {
        let large = frame(OpCode::Data(Data::Text), true, &[b'x'; 70_000]);
        let halves = [
            frame(OpCode::Data(Data::Text), false, &[b'y'; 5_000]),
            frame(OpCode::Control(Control::Ping), true, b"p"),
            frame(OpCode::Data(Data::Continue), true, &[b'z'; 126]),
        ];
        let bytes = [large, halves.concat(), frame(OpCode::Data(Data::Text), true, b"end")].concat();
        for step in [1, 7, 4_096, 5_008, 1 << 20] {
            let mut reader = FrameReader::new(100_000, FRAGMENTS_MAX);
            let (mut seen, mut output) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(step) {
                let mut input = piece;
                while let Some(inbound) = reader.next(&mut input, &mut output) {
                    seen.push(match inbound {
                        Inbound::Text(text) => text.len(),
                        Inbound::Alive => 0,
                        other => panic!("{other:?}"),
                    });
                }
                if reader.is_between() {
                    reader = FrameReader::new(100_000, FRAGMENTS_MAX);
                }
            }
            assert_eq!(
                (seen, output),
                (vec![70_000, 0, 5_126, 3], b"\x8a\x01p".to_vec()),
                "in pieces of {step}"
            );
        }
    }

    #[test]
    fn fragments_that_never_end_are_bounded() {
        let mut bytes = frame(OpCode::Data(Data::Text), false, &[b'x'; 400]);
        bytes.extend(frame(OpCode::Data(Data::Continue), false, &[b'x'; 400]));
        bytes.extend(frame(OpCode::Data(Data::Continue), false, &[b'x'; 400]));
        check(&bytes, &["broken 1009"]);
    }
}
