//! Follows the frames of a client ahead of what puts them together, for two things that that one sees too
//! late. It does not tell of fragments, which may be empty: without a bound, a message of them need never
//! end. And it looks at the text of a frame once all of it has come, where a client that sends what is no
//! UTF-8 is to be told at the first byte that shows it (RFC 6455, section 8.1).

/// Fragments of one message. Clients cut long messages into pieces of kilobytes, if at all.
pub(super) const FRAGMENTS_MAX: u32 = 256;

/// Opcodes of RFC 6455, section 5.2.
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;

/// What is wrong with what a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    TooManyFragments,
    NotUtf8,
}

/// Looked at together; what is in the middle of a character waits for the next piece.
const BLOCK: usize = 512;

/// The text of a message so far.
#[derive(Debug, Default)]
struct Text {
    /// How many bytes of the frame were taken; what they are masked with goes by it.
    at: usize,
    /// The beginning of a character.
    begun: [u8; 3],
    begun_length: usize,
}

impl Text {
    /// Takes a piece of a frame; false once it cannot become UTF-8 any more.
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

/// Where in a frame (RFC 6455, section 5.2) the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Opcode,
    Length,
    /// So many bytes of a longer length are to come.
    LongLength(u8),
    /// So many bytes of the mask are to come.
    Mask(u8),
    Payload,
}

/// Follows the frames of one client, whatever pieces they come in.
#[derive(Debug)]
pub(super) struct Fragments {
    /// The length of the payload; within it, what is to come.
    length: u64,
    part: Part,
    is_masked: bool,
    is_control: bool,
    /// None of the bits is set that are reserved.
    is_plain: bool,
    /// Of the message that has begun and not ended.
    count: u32,
    /// It may have fewer than this.
    max: u32,
    /// Whether that message is text.
    is_text: bool,
    mask: [u8; 4],
    text: Text,
    /// Nothing more is taken.
    wrong: Option<Wrong>,
}

impl Fragments {
    /// Of messages with fewer than `max` fragments besides the last one.
    pub(super) fn fewer_than(max: u32) -> Self {
        Self {
            length: 0,
            part: Part::default(),
            is_masked: false,
            is_control: false,
            is_plain: true,
            count: 0,
            max,
            is_text: false,
            mask: [0; 4],
            text: Text::default(),
            wrong: None,
        }
    }

    /// What the bytes so far have shown to be wrong.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        self.wrong
    }

    /// Takes what comes next; says how much of it comes before what is [wrong](Self::wrong).
    pub(super) fn take(&mut self, all: &[u8]) -> usize {
        let mut bytes = all;
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.part == Part::Payload {
                // As much as is here; the first byte of it at the least.
                let here = usize::try_from(self.length).unwrap_or(usize::MAX).min(bytes.len());
                // Of a frame that is wrong by its head, that is what its sender is told.
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

    /// Takes a byte of a header; false when a message has more fragments than it may.
    fn take_header(&mut self, byte: u8) -> bool {
        match self.part {
            Part::Opcode => {
                self.part = Part::Length;
                let is_final = byte & 0x80 != 0;
                self.is_control = byte & 0x08 != 0;
                self.is_plain = byte & 0x70 == 0;
                if !self.is_control {
                    match byte & 0x0f {
                        // It continues nothing, and that is what is wrong with it.
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

    /// Whether nothing has begun that has not ended.
    pub(super) fn is_between(&self) -> bool {
        self.part == Part::Opcode && self.count == 0
    }
}
