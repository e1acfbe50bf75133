//! Faults that tests of the whole program ask for. Builds for release have none.

/// Where to panic, as a test says it to a debug build of the program: the name of one place, such as
/// `fan-out zone:pjm`.
pub(crate) const VARIABLE: &str = "ZONEWIRE_TEST_PANIC";

/// Panics if a test asked for that at this place.
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
