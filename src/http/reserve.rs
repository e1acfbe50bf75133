//! Places for connections beyond the limits, so that they are told why, and health is answered whatever
//! happens.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A few places. When all are taken, a new connection displaces the oldest: clients that send their request
/// at once are served, however many silent ones there are.
#[derive(Debug)]
pub(super) struct Reserve {
    places: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    /// In the order in which they were taken.
    by_age: VecDeque<(u64, CancellationToken)>,
}

/// A place, until it is dropped or displaced.
#[derive(Debug)]
pub(super) struct ReservePlace {
    reserve: Arc<Reserve>,
    number: u64,
    /// Cancelled when the place is displaced.
    pub(super) lost: CancellationToken,
}

impl Reserve {
    pub(super) fn new(places: usize) -> Self {
        Self { places, taken: Mutex::default() }
    }

    pub(super) fn take(self: &Arc<Self>) -> ReservePlace {
        let mut taken = self.taken.lock();
        if taken.by_age.len() >= self.places
            && let Some((_, oldest)) = taken.by_age.pop_front()
        {
            oldest.cancel();
        }
        taken.last += 1;
        let (number, lost) = (taken.last, CancellationToken::new());
        taken.by_age.push_back((number, lost.clone()));
        ReservePlace { reserve: Arc::clone(self), number, lost }
    }
}

impl Drop for ReservePlace {
    fn drop(&mut self) {
        self.reserve.taken.lock().by_age.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_place_for_longest_gives_it_up() {
        let reserve = Arc::new(Reserve::new(2));
        let (a, b) = (reserve.take(), reserve.take());
        assert!(!a.lost.is_cancelled());
        let c = reserve.take();
        assert_eq!([&a, &b, &c].map(|place| place.lost.is_cancelled()), [true, false, false]);
        drop(b);
        let d = reserve.take();
        assert_eq!([&c, &d].map(|place| place.lost.is_cancelled()), [false, false]);
        drop((a, c, d));
        assert!(reserve.taken.lock().by_age.is_empty());
    }
}
