//! Faults that tests of the whole program ask for. Release builds have none.

/// The environment variable with which a test makes a debug build panic: its value is the name of a place,
/// such as `fan-out zone:pjm`.
pub(crate) const VARIABLE: &str = "ZONEWIRE_TEST_PANIC";

/// Panics if a test asked for a panic at this place.
#[cfg(debug_assertions)]
pub(crate) fn point(place: impl FnOnce() -> String) {
    use std::sync::OnceLock;

    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    if let Some(wanted) = WANTED.get_or_init(|| std::env::var(VARIABLE).ok())
        && *wanted == place()
    {
        panic!("a test asked for this panic: {wanted}");
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn point(_place: impl FnOnce() -> String) {}
