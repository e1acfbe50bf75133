//! Frames that wait for a slow client. Exists only while its socket accepts no more.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::model::ChannelName;

/// Frames passed to the kernel in one call.
const IO_SLICES: usize = 64;

/// What a frame replaces among those that wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Replaces {
    /// An older entry with this key of this channel.
    Entry(ChannelName, Arc<str>),
    /// An older heartbeat.
    Heartbeat,
}

/// Bounds on what waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutboxLimits {
    /// Frames, not counting those that a newer one may replace.
    pub(super) frames: usize,
    /// Bytes in all, except for a piece of a replay: there is at most one, and its size is bounded where it
    /// is read.
    pub(super) bytes: usize,
}

/// More waits than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

#[derive(Debug)]
struct Queued {
    bytes: Bytes,
    /// Messages in `bytes`; several, if entries are replayed in one piece.
    messages: usize,
    replaces: Option<Replaces>,
    is_piece: bool,
}

impl Queued {
    fn piece_bytes(&self) -> usize {
        if self.is_piece { self.bytes.len() } else { 0 }
    }
}

/// A queue in two generations. Frames are written from the `sealed` one; new frames go into the `open` one,
/// where a newer frame removes the older one with its key and goes to the end. Thus offsets on the wire
/// never go back, a partly written frame is never replaced, and a key that changes faster than the client
/// reads is still sent once in each generation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    sealed: VecDeque<Queued>,
    open: VecDeque<Option<Queued>>,
    /// The index in `open` of the frame with this key.
    places: HashMap<Replaces, usize>,
    /// How many of `open` are `None`.
    removed: usize,
    bytes: usize,
    /// The part of `bytes` in pieces.
    piece_bytes: usize,
    unreplaceable: usize,
    /// The first of `sealed` is partly written.
    half_written: bool,
}

impl Outbox {
    /// Begins with the rest of a frame that the kernel accepted in part.
    pub(super) fn with_rest(rest: Bytes) -> Self {
        Self::begun_with(Queued { bytes: rest, messages: 1, replaces: None, is_piece: false })
    }

    /// Begins with the rest of a piece of several messages that the kernel accepted in part.
    pub(super) fn with_rest_of(rest: Bytes, messages: usize) -> Self {
        Self::begun_with(Queued { bytes: rest, messages, replaces: None, is_piece: true })
    }

    fn begun_with(first: Queued) -> Self {
        Self {
            bytes: first.bytes.len(),
            piece_bytes: first.piece_bytes(),
            unreplaceable: usize::from(first.replaces.is_none()),
            sealed: VecDeque::from([first]),
            half_written: true,
            ..Self::default()
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that wait and that nothing may replace.
    pub(super) fn unreplaceable(&self) -> usize {
        self.unreplaceable
    }

    /// Messages that wait.
    pub(super) fn messages(&self) -> usize {
        let open = self.open.iter().flatten();
        self.sealed.iter().chain(open).map(|queued| queued.messages).sum()
    }

    /// Adds a frame; returns whether it replaced an older one.
    pub(super) fn push(
        &mut self,
        frame: Bytes,
        replaces: Option<Replaces>,
        limits: OutboxLimits,
    ) -> Result<bool, Overflow> {
        let replaced = replaces.as_ref().is_some_and(|key| self.remove(key));
        self.add(Queued { bytes: frame, messages: 1, replaces, is_piece: false });
        if self.bytes - self.piece_bytes > limits.bytes || self.unreplaceable > limits.frames {
            Err(Overflow)
        } else {
            Ok(replaced)
        }
    }

    /// Adds several messages in one piece, whose size the caller bounds.
    pub(super) fn push_piece(&mut self, frames: Bytes, messages: usize) {
        self.add(Queued { bytes: frames, messages, replaces: None, is_piece: true });
    }

    fn add(&mut self, queued: Queued) {
        self.bytes += queued.bytes.len();
        self.piece_bytes += queued.piece_bytes();
        match &queued.replaces {
            Some(key) => {
                self.places.insert(key.clone(), self.open.len());
            }
            None => self.unreplaceable += 1,
        }
        self.open.push_back(Some(queued));
    }

    fn remove(&mut self, key: &Replaces) -> bool {
        let place = self.places.remove(key);
        let Some(older) = place.and_then(|place| self.open.get_mut(place)).and_then(Option::take) else {
            return false;
        };
        self.bytes -= older.bytes.len();
        self.removed += 1;
        // Holes must not accumulate while the client reads nothing.
        if self.removed > self.open.len() / 2 + 32 {
            self.open.retain(Option::is_some);
            self.removed = 0;
            self.places.clear();
            for (place, queued) in self.open.iter().flatten().enumerate() {
                if let Some(key) = &queued.replaces {
                    self.places.insert(key.clone(), place);
                }
            }
        }
        true
    }

    /// Drops everything except a partly written frame; returns how many messages were dropped.
    pub(super) fn abandon(&mut self) -> usize {
        let kept = if self.half_written { self.sealed.pop_front() } else { None };
        let dropped = self.messages();
        *self = Self::default();
        if let Some(kept) = kept {
            *self = Self::begun_with(kept);
        }
        dropped
    }

    fn seal(&mut self) {
        self.sealed.extend(std::mem::take(&mut self.open).into_iter().flatten());
        self.places.clear();
        self.removed = 0;
    }

    /// Passes frames to `write` until none is left or it accepts no more (`WouldBlock`).
    ///
    /// # Errors
    /// Errors of `write` other than `WouldBlock`.
    pub(super) fn write_to(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Written> {
        let mut written = Written::default();
        loop {
            if self.sealed.is_empty() {
                self.seal();
                if self.sealed.is_empty() {
                    written.all = true;
                    return Ok(written);
                }
            }
            let mut slices = [IoSlice::new(&[]); IO_SLICES];
            let mut count = 0;
            for (slice, queued) in slices.iter_mut().zip(&self.sealed) {
                *slice = IoSlice::new(&queued.bytes);
                count += 1;
            }
            match write(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.taken(taken, &mut written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(written),
                Err(error) => return Err(error),
            }
        }
    }

    fn taken(&mut self, mut taken: usize, written: &mut Written) {
        self.bytes -= taken;
        self.half_written = false;
        while taken > 0
            && let Some(first) = self.sealed.front_mut()
        {
            if taken < first.bytes.len() {
                self.piece_bytes -= if first.is_piece { taken } else { 0 };
                first.bytes.advance(taken);
                self.half_written = true;
                return;
            }
            taken -= first.bytes.len();
            self.piece_bytes -= first.piece_bytes();
            written.messages += first.messages;
            self.unreplaceable -= usize::from(first.replaces.is_none());
            self.sealed.pop_front();
        }
    }
}

/// The outcome of writing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Messages that were completely written.
    pub(super) messages: usize,
    /// Whether nothing waits any longer.
    pub(super) all: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { frames: 256, bytes: 1 << 20 };

    fn key(name: &str) -> Option<Replaces> {
        Some(Replaces::Entry("zone:a".parse().unwrap(), name.into()))
    }

    fn drain(outbox: &mut Outbox, at_most: usize) -> String {
        let mut out = Vec::new();
        let taken = outbox.write_to(|slices| {
            let room = at_most - out.len();
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let part = &all[..all.len().min(room)];
            out.extend_from_slice(part);
            Ok(part.len())
        });
        taken.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_newer_frame_replaces_the_waiting_one_and_goes_to_the_end() {
        let mut outbox = Outbox::default();
        for (frame, name) in [("1", "x"), ("2", "y"), ("3", "x")] {
            outbox.push(Bytes::from_static(frame.as_bytes()), key(name), LIMITS).unwrap();
        }
        assert_eq!(drain(&mut outbox, 99), "23");
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }

    #[test]
    fn a_frame_half_on_the_wire_is_finished() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"old"), key("x"), LIMITS).unwrap();
        assert_eq!(drain(&mut outbox, 1), "o");
        assert_eq!(outbox.push(Bytes::from_static(b"new"), key("x"), LIMITS), Ok(false));
        assert_eq!(drain(&mut outbox, 99), "ldnew");
    }

    #[test]
    fn a_key_that_changes_all_the_time_still_gets_its_turn() {
        let mut outbox = Outbox::default();
        let mut seen = String::new();
        for _ in 0..10 {
            for (frame, name) in [("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")] {
                outbox.push(Bytes::from_static(frame.as_bytes()), key(name), LIMITS).unwrap();
            }
            seen += &drain(&mut outbox, 1);
        }
        assert!("abcd".chars().all(|name| seen.contains(name)), "{seen}");
    }

    #[test]
    fn the_257th_frame_that_nothing_replaces_is_too_many() {
        let mut outbox = Outbox::default();
        for _ in 0..256 {
            assert_eq!(outbox.push(Bytes::from_static(b"x"), None, LIMITS), Ok(false));
        }
        assert_eq!(outbox.push(Bytes::from_static(b"x"), None, LIMITS), Err(Overflow));
    }

    #[test]
    fn too_many_bytes_are_too_many() {
        let mut outbox = Outbox::default();
        let frame = Bytes::from(vec![b'x'; 600 << 10]);
        assert_eq!(outbox.push(frame.clone(), key("x"), LIMITS), Ok(false));
        assert_eq!(outbox.push(frame.clone(), key("x"), LIMITS), Ok(true));
        assert_eq!(outbox.push(frame, key("y"), LIMITS), Err(Overflow));
    }

    #[test]
    fn a_piece_leaves_the_room_of_what_comes_live_as_it_is() {
        let mut outbox = Outbox::with_rest_of(Bytes::from(vec![b'x'; 2 << 20]), 10);
        let frame = Bytes::from(vec![b'x'; 600 << 10]);
        assert_eq!(outbox.push(frame.clone(), None, LIMITS), Ok(false));
        assert_eq!(drain(&mut outbox, 3 << 20).len(), (2 << 20) + (600 << 10));
        outbox.push_piece(Bytes::from(vec![b'x'; 2 << 20]), 10);
        assert_eq!((outbox.push(frame.clone(), None, LIMITS), outbox.messages()), (Ok(false), 11));
        assert_eq!(outbox.push(frame, None, LIMITS), Err(Overflow));
        assert_eq!((outbox.abandon(), outbox.bytes(), outbox.piece_bytes), (12, 0, 0));
    }

    #[test]
    fn a_reader_that_stands_still_costs_as_much_as_its_keys() {
        let mut outbox = Outbox::with_rest(Bytes::from_static(b"rest"));
        for n in 0..100_000 {
            outbox.push(Bytes::from_static(b"frame"), key(["x", "y", "z"][n % 3]), LIMITS).unwrap();
        }
        assert_eq!(outbox.bytes(), 4 + 3 * 5);
        assert!(outbox.open.len() < 100, "{}", outbox.open.len());
    }

    #[test]
    fn abandoning_keeps_only_what_is_half_on_the_wire() {
        let mut outbox = Outbox::with_rest(Bytes::from_static(b"rest"));
        outbox.push(Bytes::from_static(b"x"), None, LIMITS).unwrap();
        assert_eq!(outbox.abandon(), 1);
        assert_eq!(drain(&mut outbox, 99), "rest");
        outbox.push(Bytes::from_static(b"x"), None, LIMITS).unwrap();
        assert_eq!(outbox.abandon(), 1);
        assert_eq!(drain(&mut outbox, 99), "");
    }

    proptest! {
        /// Whatever is pushed, and however slowly it is read: frames without a key all arrive in order; the
        /// last frame of each key arrives; the order never goes back; the counts are right.
        #[test]
        fn nothing_that_must_arrive_is_lost(
            steps in prop::collection::vec((0u8..6, 0usize..30), 1..120),
        ) {
            let limits = OutboxLimits { frames: 10_000, bytes: 1 << 20 };
            let mut outbox = Outbox::default();
            let (mut wire, mut last_of_key, mut plain) = (String::new(), HashMap::new(), Vec::new());
            for (n, (kind, read)) in steps.iter().enumerate() {
                let name = format!("k{kind}");
                let replaces = if *kind == 0 { plain.push(n); None } else { last_of_key.insert(name.clone(), n); key(&name) };
                outbox.push(Bytes::from(format!("{n},")), replaces, limits).unwrap();
                wire += &drain(&mut outbox, *read);
            }
            wire += &drain(&mut outbox, usize::MAX);
            let got: Vec<usize> = wire.split_terminator(',').map(|n| n.parse().unwrap()).collect();
            prop_assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", got);
            prop_assert!(plain.iter().chain(last_of_key.values()).all(|n| got.contains(n)));
            prop_assert_eq!((outbox.bytes(), outbox.unreplaceable(), outbox.messages()), (0, 0, 0));
        }
    }
}
