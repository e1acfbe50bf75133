//! What a connection has of what its principal and its tenant may have. Where nothing is limited it is nothing,
//! and costs nothing.

use std::cell::{Cell, OnceCell};
use std::io::{self, IoSlice};
use std::rc::Rc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Connection, Particulars};
use crate::access::{Over, Principal, Quota, Seat};
use crate::connections::shard::Shard;

/// Bytes are charged in parts of so many: shards then seldom meet at one account.
const CHARGED_BYTES: u32 = 4 << 10;

/// The most that is written at once to who may be sent so much a second, and so what it may owe.
const WRITTEN_BYTES: usize = 16 << 10;

/// See `Particulars`. Empty where nothing is limited.
#[derive(Default)]
pub(super) struct Counted {
    seat: OnceCell<Seat>,
    /// Bytes that were written, and not charged yet.
    written: Cell<u32>,
}

/// Of who was sent more than it may be.
#[derive(Default)]
pub(super) struct HeldBack {
    /// When there may be written to it again.
    until: Cell<Option<Instant>>,
    /// The shard knows of it.
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

    fn held_back(&self) -> Option<&HeldBack> {
        self.rarities().map(|rarities| &rarities.held_back)
    }

    /// Its place among those of its principal; `None` where nothing is limited, or it is not known who it is.
    pub(in crate::connections) fn seat(&self) -> Option<&Seat> {
        self.counted()?.seat.get()
    }

    /// It counts for a principal from here on, with the subscriptions that it has.
    pub(in crate::connections) fn take_seat(&self, seat: Seat) {
        // What it had before it showed who it is, it keeps, be that too much or not.
        let _too_many = self.subscriptions.borrow().iter().try_for_each(|_| seat.subscribe());
        if let Some(counted) = self.counted() {
            // Nobody becomes somebody else.
            counted.seat.get_or_init(|| seat);
        }
    }

    /// Its principal may have other roles now.
    pub(super) fn has_roles_of(&self, principal: &Principal) {
        if let Some(seat) = self.seat() {
            seat.share().has_roles_of(principal);
        }
    }

    /// Counts one more subscription.
    pub(in crate::connections) fn hold_subscription(&self) -> Result<(), Over> {
        self.seat().map_or(Ok(()), Seat::subscribe)
    }

    /// Counts one less.
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

    /// Until when nothing is written, since all that its principal is sent is more than that may be. It is
    /// behind meanwhile, as any slow reader is.
    pub(in crate::connections) fn held_back_until(&self) -> Option<Instant> {
        let until = self.held_back()?.until.get()?;
        (self.is_open() && Instant::now() < until).then_some(until)
    }

    /// Where what is written is charged, if it is. What is left to say to one that is being closed is said.
    ///
    /// # Errors
    /// Nothing may be written now.
    fn metered(&self) -> io::Result<Option<&Particulars>> {
        let Some(seat) = self.seat().filter(|_| self.is_open()) else { return Ok(None) };
        if !seat.share().is_limited(Quota::BytesOut) {
            return Ok(None);
        }
        if self.held_back_until().is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(self.particulars.as_deref())
    }

    /// Writes as much as the socket takes, and as may be.
    pub(super) fn put(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(particulars) = self.metered()? else { return self.stream.try_write_vectored(slices) };
        let written = self.stream.try_write_vectored(&first(slices, WRITTEN_BYTES))?;
        particulars.charge(written);
        Ok(written)
    }

    /// The same of one piece, which the system takes with less effort.
    pub(super) fn put_one(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(particulars) = self.metered()? else { return self.stream.try_write(bytes) };
        let written = self.stream.try_write(&bytes[..bytes.len().min(WRITTEN_BYTES)])?;
        particulars.charge(written);
        Ok(written)
    }

    /// Whether it waits for its time to be written to; the shard wakes it then.
    pub(super) fn waits_to_be_released(self: &Rc<Self>, shard: &Shard) -> bool {
        if self.held_back_until().is_none() {
            return false;
        }
        let Some(held_back) = self.held_back() else { return false };
        if !held_back.is_listed.replace(true) {
            shard.release_later(self);
        }
        true
    }

    /// Goes on with what waits, if the time has come; says whether.
    pub(in crate::connections) fn release(&self) -> bool {
        if self.held_back_until().is_some() {
            return false;
        }
        if let Some(held_back) = self.held_back() {
            held_back.until.set(None);
            held_back.is_listed.set(false);
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
            self.rarities.get_or_init(Box::default).held_back.until.set(Some(Instant::now() + wait));
        }
    }
}

/// The first bytes of these.
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
