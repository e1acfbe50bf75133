//! Random numbers that determine when, and in which order, things happen: all in one place, so that tests
//! can repeat them.

/// The hasher of maps that are used for every entry, and of those whose order determines what happens next.
/// Clients choose some of the keys, so it is seeded at random to prevent chosen collisions.
#[cfg(not(test))]
pub(crate) type Hashing = ahash::RandomState;
/// Not seeded in tests, so that the order is the same in each run.
#[cfg(test)]
pub(crate) type Hashing = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// A number in `0.0..1.0`, for jitter.
pub(crate) fn fraction() -> f64 {
    (number() >> 11) as f64 / (1u64 << 53) as f64
}

/// 64 random bits.
pub(crate) fn number() -> u64 {
    #[cfg(test)]
    if let Some(number) = seeded::number() {
        return number;
    }
    rand::random()
}

#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    thread_local! {
        static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// From here on, this thread's random numbers follow from the seed; `None` ends that.
    pub(crate) fn begin(seed: Option<u64>) {
        SEEDED.with_borrow_mut(|held| *held = seed.map(StdRng::seed_from_u64));
    }

    pub(super) fn number() -> Option<u64> {
        SEEDED.with_borrow_mut(|held| held.as_mut().map(|rng| rng.random()))
    }
}
