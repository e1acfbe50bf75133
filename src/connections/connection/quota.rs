//! A connection's use of the limits of its principal and tenant. Without limits it is empty and costs
//! nothing.

use std::cell::{Cell, OnceCell};
use std::io::{self, IoSlice};
use std::rc::Rc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Connection, Particulars};
use crate::access::{Over, Principal, Quota, Seat};
use crate::connections::shard::Shard;

/// Bytes are charged in amounts of this size, so that shards rarely contend for one account.
const CHARGED_BYTES: u32 = 4 << 10;

/// The most that is written at once to a client with a limit on bytes, and so the most that it can exceed
/// the limit by.
const WRITTEN_BYTES: usize = 16 << 10;

/// See `Particulars`. Empty without limits.
#[derive(Default)]
pub(super) struct Counted {
    seat: OnceCell<Seat>,
    /// Bytes written that have not been charged yet.
    written: Cell<u32>,
}

/// The state of a connection whose principal was sent more than allowed.
#[derive(Default)]
pub(super) struct Throttle {
    /// When it may be written to again.
    until: Cell<Option<Instant>>,
    /// Whether it is in the shard's list of throttled connections.
    is_listed: Cell<bool>,
}

impl Counted {
    pub(super) fn of(seat: Option<Seat>) -> Self {
        Self { seat: seat.map(OnceCell::from).unwrap_or_default(), ..Self::default() }
    }
}

impl Connection {
    fn counted(&self) -> Option<&Counted> {
        self.particulars.as_ref().map(|particulars| &particulars.counted)
    }

    fn throttle(&self) -> Option<&Throttle> {
        self.rarities().map(|rarities| &rarities.throttle)
    }

    /// The seat of its principal; `None` without limits, or if the client has not authenticated.
    pub(in crate::connections) fn seat(&self) -> Option<&Seat> {
        self.counted()?.seat.get()
    }

    /// Counts the connection, and its present subscriptions, for a principal from now on.
    pub(in crate::connections) fn take_seat(&self, seat: Seat) {
        // Subscriptions from before authentication stay, even if they are too many.
        let _too_many = self.subscriptions.borrow().iter().try_for_each(|_| seat.subscribe());
        if let Some(counted) = self.counted() {
            // The principal of a connection never changes to another one.
            counted.seat.get_or_init(|| seat);
        }
    }

    /// Takes over the current roles of its principal.
    pub(super) fn has_roles_of(&self, principal: &Principal) {
        if let Some(seat) = self.seat() {
            seat.share().has_roles_of(principal);
        }
    }

    /// Counts one more subscription.
    pub(in crate::connections) fn hold_subscription(&self) -> Result<(), Over> {
        self.seat().map_or(Ok(()), Seat::subscribe)
    }

    /// Counts one subscription less.
    pub(in crate::connections) fn release_subscription(&self) {
        if let Some(seat) = self.seat() {
            seat.unsubscribe();
        }
    }

    /// Charges its principal and tenant.
    pub(in crate::connections) fn take(&self, quota: Quota, some: u64) -> Result<(), Over> {
        self.seat().map_or(Ok(()), |seat| seat.share().take(quota, some))
    }

    // Bytes

    /// Until when nothing is written, because its principal was sent more than allowed. Meanwhile it lags,
    /// like a slow client's connection.
    pub(in crate::connections) fn throttled_until(&self) -> Option<Instant> {
        let until = self.throttle()?.until.get()?;
        (self.is_open() && Instant::now() < until).then_some(until)
    }

    /// The account to charge for what is written, if there is one. When the connection is closing, the rest
    /// is sent without charge.
    ///
    /// # Errors
    /// Nothing may be written now.
    fn metered(&self) -> io::Result<Option<&Particulars>> {
        let Some(seat) = self.seat().filter(|_| self.is_open()) else { return Ok(None) };
        if !seat.share().is_limited(Quota::BytesOut) {
            return Ok(None);
        }
        if self.throttled_until().is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(self.particulars.as_deref())
    }

    /// Writes as much as the socket accepts and the limits permit.
    pub(super) fn put(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(particulars) = self.metered()? else { return self.stream.try_write_vectored(slices) };
        let written = self.stream.try_write_vectored(&first(slices, WRITTEN_BYTES))?;
        particulars.charge(written);
        Ok(written)
    }

    /// Writes one slice, for which a plain system call is cheaper.
    pub(super) fn put_one(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(particulars) = self.metered()? else { return self.stream.try_write(bytes) };
        let written = self.stream.try_write(&bytes[..bytes.len().min(WRITTEN_BYTES)])?;
        particulars.charge(written);
        Ok(written)
    }

    /// Whether it must not be written to now; then the shard wakes it when it may.
    pub(super) fn is_throttled(self: &Rc<Self>, shard: &Shard) -> bool {
        if self.throttled_until().is_none() {
            return false;
        }
        let Some(throttle) = self.throttle() else { return false };
        if !throttle.is_listed.replace(true) {
            shard.unthrottle_later(self);
        }
        true
    }

    /// If the time has come, ends the throttling and wakes the task; returns whether it has.
    pub(in crate::connections) fn release(&self) -> bool {
        if self.throttled_until().is_some() {
            return false;
        }
        if let Some(throttle) = self.throttle() {
            throttle.until.set(None);
            throttle.is_listed.set(false);
        }
        self.wake();
        true
    }
}

impl Particulars {
    fn charge(&self, written: usize) {
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        let Counted { seat, written: before } = &self.counted;
        let written = before.get().saturating_add(written);
        before.set(written);
        let Some(seat) = seat.get().filter(|_| written >= CHARGED_BYTES) else { return };
        before.set(0);
        let wait = seat.share().charge(Quota::BytesOut, written.into());
        if !wait.is_zero() {
            self.rarities.get_or_init(Box::default).throttle.until.set(Some(Instant::now() + wait));
        }
    }
}

/// The first `max` bytes of the slices.
fn first<'a>(slices: &'a [IoSlice<'_>], max: usize) -> SmallVec<[IoSlice<'a>; 64]> {
    let mut left = max;
    let some = slices.iter().map(|slice| {
        let len = slice.len().min(left);
        left -= len;
        IoSlice::new(&slice[..len])
    });
    some.filter(|slice| !slice.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_written_at_once_than_may_be() {
        let slices = [b"abc".as_slice(), b"defg", b"h"].map(IoSlice::new);
        for (max, expected) in [(0, ""), (2, "ab"), (3, "abc"), (5, "abcde"), (100, "abcdefgh")] {
            let written: Vec<u8> = first(&slices, max).iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(written, expected.as_bytes(), "{max}");
        }
    }
}
