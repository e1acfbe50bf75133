//! Counts the fragments that a client cuts its messages into. What puts them together does not tell of
//! them, and fragments may be empty: without a bound, a message of them need never end.

/// Fragments of one message. Clients cut long messages into pieces of kilobytes, if at all.
pub(super) const FRAGMENTS_MAX: u16 = 256;

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
#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// The length of the payload; within it, what is to come.
    length: u64,
    part: Part,
    is_masked: bool,
    /// Of the message that has begun and not ended.
    count: u16,
}

impl Fragments {
    /// Takes what comes next; false when a message has more fragments than it may.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.part == Part::Payload {
                // As much as is here; the first byte of it at the least.
                let here = usize::try_from(self.length).unwrap_or(usize::MAX).min(bytes.len());
                self.length -= here as u64;
                bytes = &bytes[here..];
                if self.length == 0 {
                    self.part = Part::Opcode;
                }
                continue;
            }
            bytes = rest;
            if !self.take_header(byte) {
                return false;
            }
        }
        true
    }

    fn take_header(&mut self, byte: u8) -> bool {
        match self.part {
            Part::Opcode => {
                self.part = Part::Length;
                let (is_final, is_control) = (byte & 0x80 != 0, byte & 0x08 != 0);
                if !is_control {
                    self.count = if is_final { 0 } else { self.count.saturating_add(1) };
                }
                return self.count < FRAGMENTS_MAX;
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
                if left > 1 {
                    self.part = Part::Mask(left - 1)
                } else {
                    self.after_mask()
                }
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
