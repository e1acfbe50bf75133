//! WebSocket frames from a client's point of view: unmasked ones are read, masked ones written.

use std::io::{self, Read};

use tungstenite::protocol::frame::FrameHeader;

/// The longest frame that is accepted from a server.
const FRAME_LEN_MAX: usize = 16 * 1024 * 1024;

/// The least buffer space for one `read`.
const READ_LEN: usize = 256 * 1024;

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

/// A whole frame, still in the read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) fin: bool,
    pub(super) payload: &'a [u8],
}

/// Why a server's bytes are not a frame. The connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("masked server frame")]
    Masked,
    #[error("reserved bit without an extension")]
    Reserved,
    #[error("unknown opcode")]
    Opcode,
    #[error("frame over 16 MiB")]
    TooLong,
}

/// Returns the frame at the front of `bytes` with its whole length; `None` while it is incomplete.
#[inline]
pub(super) fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    let opcode = first & 0x0F;
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
        return Err(FrameError::Opcode);
    }
    let (len, head) = match second & 0x7F {
        126 => match rest {
            [a, b, ..] => (u64::from(u16::from_be_bytes([*a, *b])), 4),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(len) => (u64::from_be_bytes(*len), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let len = usize::try_from(len).ok().filter(|len| *len <= FRAME_LEN_MAX).ok_or(FrameError::TooLong)?;
    match bytes.get(head..head + len) {
        Some(payload) => Ok(Some((Frame { opcode, fin: first & 0x80 != 0, payload }, head + len))),
        None => Ok(None),
    }
}

/// Appends a masked final frame, as a client must send it.
pub(super) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    let mask: [u8; 4] = rand::random();
    let header = FrameHeader { opcode: opcode.into(), mask: Some(mask), ..FrameHeader::default() };
    header.format(payload.len() as u64, out).expect("writing to a vector cannot fail");
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The code of a close frame; 1005 stands for none.
pub(super) fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// A buffer into which all the connections of a thread read.
///
/// The incomplete frame of a connection (its *carry*) is placed in front of the bytes that are read next, so
/// that frames are always parsed from one slice and a connection without an incomplete frame holds no memory.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl ReadBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; READ_LEN * 2], filled: 0 }
    }

    /// Reads once. Returns the number of new bytes, zero at the end, and whether the source may have more.
    pub(super) fn fill(&mut self, carry: &mut Vec<u8>, source: &mut impl Read) -> io::Result<(usize, bool)> {
        if self.bytes.len() < carry.len() + READ_LEN {
            self.bytes.resize(carry.len() + READ_LEN, 0);
        }
        let read = source.read(&mut self.bytes[carry.len()..])?;
        self.bytes[..carry.len()].copy_from_slice(carry);
        self.filled = carry.len() + read;
        let more = self.filled == self.bytes.len();
        carry.clear();
        Ok((read, more))
    }

    /// The carry and what was read after it.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// Stores the incomplete end for the next read. If there is none after an unusually long frame, releases the
/// memory.
pub(super) fn keep(carry: &mut Vec<u8>, rest: &[u8]) {
    carry.extend_from_slice(rest);
    if rest.is_empty() && carry.capacity() > 4096 {
        *carry = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A final frame of a server.
    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = FrameHeader { opcode: opcode.into(), ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut out).unwrap();
        [out, payload.to_vec()].concat()
    }

    /// A source that returns the given pieces, one per read.
    struct Pieces<'a>(std::collections::VecDeque<&'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.0.pop_front() else { return Ok(0) };
            let taken = piece.len().min(out.len());
            out[..taken].copy_from_slice(&piece[..taken]);
            if taken < piece.len() {
                self.0.push_front(&piece[taken..]);
            }
            Ok(taken)
        }
    }

    fn parse_in_pieces(pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut source = Pieces(pieces.iter().copied().filter(|piece| !piece.is_empty()).collect());
        let (mut buffer, mut carry, mut frames) = (ReadBuffer::new(), Vec::new(), Vec::new());
        while buffer.fill(&mut carry, &mut source).unwrap().0 > 0 {
            let mut rest = buffer.filled();
            while let Some((frame, len)) = next_frame(rest).unwrap() {
                frames.push((frame.opcode, frame.payload.to_vec()));
                rest = &rest[len..];
            }
            keep(&mut carry, rest);
        }
        assert!(carry.is_empty());
        frames
    }

    fn wire() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let expected = vec![
            (TEXT, b"short".to_vec()),
            (PING, Vec::new()),
            (TEXT, vec![b'm'; 126]),
            (TEXT, vec![b'l'; 66_000]),
            (CLOSE, 4001u16.to_be_bytes().to_vec()),
        ];
        let wire = expected.iter().flat_map(|(opcode, payload)| server_frame(*opcode, payload)).collect();
        (wire, expected)
    }

    #[test]
    fn many_frames_in_one_read() {
        let (wire, expected) = wire();
        assert_eq!(parse_in_pieces(&[&wire]), expected);
    }

    #[test]
    fn frames_split_at_any_byte_are_the_same_frames() {
        let (wire, expected) = wire();
        // Within the long payload all splits are alike.
        for at in (0..=400).chain(wire.len() - 20..=wire.len()) {
            assert_eq!(parse_in_pieces(&[&wire[..at], &wire[at..]]), expected, "split at {at}");
        }
    }

    #[test]
    fn frames_come_through_a_byte_at_a_time() {
        let wire = [server_frame(TEXT, &[b'a'; 130]), server_frame(TEXT, b"b")].concat();
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(parse_in_pieces(&bytes), [(TEXT, vec![b'a'; 130]), (TEXT, b"b".to_vec())]);
    }

    #[test]
    fn bad_heads_are_refused() {
        assert_eq!(next_frame(&[0x81, 0x80]), Err(FrameError::Masked));
        assert_eq!(next_frame(&[0xC1, 0x00]), Err(FrameError::Reserved));
        assert_eq!(next_frame(&[0x83, 0x00]), Err(FrameError::Opcode));
        assert_eq!(next_frame(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::TooLong));
    }

    #[test]
    fn a_masked_frame_unmasks_to_its_payload() {
        for len in [0, 5, 125, 126, 70_000] {
            let payload = vec![7u8; len];
            let mut out = Vec::new();
            write_masked(&mut out, TEXT, &payload);
            let body = out.split_off(out.len() - len);
            let mask = out.split_off(out.len() - 4);
            let plain: Vec<u8> = body.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert_eq!(plain, payload);
            assert!(out[1] & 0x80 != 0);
        }
    }

    #[test]
    fn a_close_without_a_code_is_1005() {
        assert_eq!(close_code(&[]), 1005);
        assert_eq!(close_code(&4001u16.to_be_bytes()), 4001);
    }
}
