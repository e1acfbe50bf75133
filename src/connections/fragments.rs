//! Follows a client's frames ahead of the WebSocket library, for two faults that the library reports too
//! late or not at all. It does not count fragments, which may be empty, so a message of many of them need
//! never end. And it checks the UTF-8 of a frame only once that is complete, although a client that sends
//! invalid UTF-8 should get the error at the first invalid byte (RFC 6455, section 8.1).

/// The most fragments of one message. Clients split long messages into pieces of kilobytes, if at all.
pub(super) const FRAGMENTS_MAX: u32 = 256;

/// Opcodes of RFC 6455, section 5.2.
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;

/// A fault in what a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    TooManyFragments,
    NotUtf8,
}

/// Bytes checked together; an incomplete character waits for the next piece.
const BLOCK: usize = 512;

/// The text of a message so far.
#[derive(Debug, Default)]
struct Text {
    /// How many bytes of the frame were taken, which determines the position in the mask.
    at: usize,
    /// The beginning of an incomplete character.
    begun: [u8; 3],
    begun_length: usize,
}

impl Text {
    /// Takes a piece of a frame; false once the text can no longer become valid UTF-8.
    fn take(&mut self, masked: &[u8], mask: [u8; 4]) -> bool {
        for piece in masked.chunks(BLOCK - self.begun.len()) {
            let mut block = [0; BLOCK];
            block[..self.begun_length].copy_from_slice(&self.begun[..self.begun_length]);
            let length = self.begun_length + piece.len();
            for (plain, byte) in block[self.begun_length..].iter_mut().zip(piece) {
                *plain = byte ^ mask[self.at % 4];
                self.at += 1;
            }
            let rest = match str::from_utf8(&block[..length]) {
                Ok(_) => &[][..],
                Err(error) if error.error_len().is_some() => return false,
                Err(error) => &block[error.valid_up_to()..length],
            };
            self.begun[..rest.len()].copy_from_slice(rest);
            self.begun_length = rest.len();
        }
        true
    }
}

/// The part of a frame (RFC 6455, section 5.2) that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Opcode,
    Length,
    /// How many bytes of an extended length are missing.
    LongLength(u8),
    /// How many bytes of the mask are missing.
    Mask(u8),
    Payload,
}

/// Follows the frames of one client, in whatever pieces they arrive.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// The length of the payload; within the payload, how much is missing.
    length: u64,
    part: Part,
    is_masked: bool,
    is_control: bool,
    /// Whether all reserved bits are zero.
    is_plain: bool,
    /// The fragments so far of a message that has not ended.
    count: u32,
    /// A message must have fewer fragments than this, in addition to the last one.
    max: u32,
    /// Whether that message is text.
    is_text: bool,
    mask: [u8; 4],
    text: Text,
    /// Set once something is wrong; nothing more is taken.
    wrong: Option<Wrong>,
}

impl Fragments {
    /// For messages with fewer than `max` fragments in addition to the last one.
    pub(super) fn fewer_than(max: u32) -> Self {
        Self { max, ..Self::default() }
    }

    /// The first fault in the bytes so far.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        self.wrong
    }

    /// Takes the next bytes; returns how many of them precede what is [wrong](Self::wrong).
    pub(super) fn take(&mut self, all: &[u8]) -> usize {
        let mut bytes = all;
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.part == Part::Payload {
                // As much of the payload as is here, at least one byte.
                let here = usize::try_from(self.length).unwrap_or(usize::MAX).min(bytes.len());
                // If the header is wrong, the library reports that instead.
                let is_text = self.is_text && !self.is_control && self.is_plain && self.is_masked;
                if is_text && !self.text.take(&bytes[..here], self.mask) {
                    self.wrong = Some(Wrong::NotUtf8);
                    return all.len() - bytes.len();
                }
                self.length -= here as u64;
                bytes = &bytes[here..];
                if self.length == 0 {
                    self.part = Part::Opcode;
                }
                continue;
            }
            if !self.take_header(byte) {
                self.wrong = Some(Wrong::TooManyFragments);
                return all.len() - bytes.len();
            }
            bytes = rest;
        }
        all.len()
    }

    /// Takes a byte of a header; false if a message has too many fragments.
    fn take_header(&mut self, byte: u8) -> bool {
        match self.part {
            Part::Opcode => {
                self.part = Part::Length;
                let is_final = byte & 0x80 != 0;
                self.is_control = byte & 0x08 != 0;
                self.is_plain = byte & 0x70 == 0;
                if !self.is_control {
                    match byte & 0x0f {
                        // A stray continuation: the library reports that.
                        CONTINUATION if self.count == 0 => self.is_text = false,
                        CONTINUATION => self.text.at = 0,
                        opcode => (self.is_text, self.text) = (opcode == TEXT, Text::default()),
                    }
                    self.count = if is_final { 0 } else { self.count.saturating_add(1) };
                }
                return self.count < self.max;
            }
            Part::Length => {
                self.is_masked = byte & 0x80 != 0;
                let length = byte & 0x7f;
                self.length = if length < 126 { u64::from(length) } else { 0 };
                match length {
                    126 => self.part = Part::LongLength(2),
                    127 => self.part = Part::LongLength(8),
                    _ => self.after_length(),
                }
            }
            Part::LongLength(left) => {
                self.length = self.length << 8 | u64::from(byte);
                if left > 1 { self.part = Part::LongLength(left - 1) } else { self.after_length() }
            }
            Part::Mask(left) => {
                self.mask[usize::from(4 - left)] = byte;
                if left > 1 { self.part = Part::Mask(left - 1) } else { self.after_mask() }
            }
            Part::Payload => {}
        }
        true
    }

    fn after_length(&mut self) {
        if self.is_masked { self.part = Part::Mask(4) } else { self.after_mask() }
    }

    fn after_mask(&mut self) {
        self.part = if self.length == 0 { Part::Opcode } else { Part::Payload };
    }

    /// Whether every message that has begun has ended.
    pub(super) fn is_between(&self) -> bool {
        self.part == Part::Opcode && self.count == 0
    }
}
