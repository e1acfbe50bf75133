//! Room for the bodies of requests: what all that are being read hold together is bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::StatusCode;

use super::problem::Problem;
use crate::support::counter::Counter;

/// The room that all bodies share.
#[derive(Debug)]
pub(crate) struct BodyRoom {
    bytes_max: usize,
    bytes: AtomicUsize,
    refused: Counter,
}

impl BodyRoom {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), refused: Counter::default() }
    }

    /// What is held at the moment.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Requests that were refused because there was no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// A body that begins: it holds nothing yet.
    pub(super) fn enter(&self) -> Held<'_> {
        Held { room: self, bytes: 0 }
    }
}

/// What one body holds; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    room: &'a BodyRoom,
    bytes: usize,
}

impl Held<'_> {
    /// The body holds so many bytes from now on, more or fewer than before.
    ///
    /// # Errors
    /// There is no room for so many; it holds what it held before.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Problem> {
        let Self { room, bytes: before } = *self;
        let fits =
            |all: usize| Some(all - before + bytes).filter(|all| bytes <= before || *all <= room.bytes_max);
        if room.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            room.refused.add(1);
            let detail = "the bodies that are being read leave no room for more; try again in a moment";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_body_holds_another_one_cannot_until_it_is_given_back() {
        let room = BodyRoom::new(100);
        let (mut one, mut other) = (room.enter(), room.enter());
        one.set(60).unwrap();
        other.set(40).unwrap();
        let problem = other.set(41).unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code, room.refused()), (503, "busy", 1));
        assert_eq!(room.bytes(), 100, "what was held is still held");
        one.set(10).unwrap();
        other.set(90).unwrap();
        assert_eq!(room.bytes(), 100);
        drop(other);
        assert_eq!(room.bytes(), 10);
        drop(one);
        assert_eq!((room.bytes(), room.refused()), (0, 1));
    }
}
