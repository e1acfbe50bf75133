//! Bounds the memory for the bodies of all requests that are being read, and for the answers that clients
//! have not read yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::problem::Problem;
use crate::protocol::ProblemCode;
use crate::support::counter::Counter;

/// The memory that all bodies share.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    refused: Counter,
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), refused: Counter::default() }
    }

    /// The bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Requests that were refused for lack of memory.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Whether this many bytes would fit if nothing else were in use.
    pub(super) fn is_large_enough_for(&self, bytes: usize) -> bool {
        bytes <= self.bytes_max
    }

    /// Begins a request body, which has nothing reserved yet.
    pub(super) fn enter(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }

    /// Reserves memory for the body of an answer until the client has read it. If nothing else is in use,
    /// any size is accepted.
    ///
    /// # Errors
    /// There is not enough left.
    pub(super) fn hold(self: &Arc<Self>, body: Vec<u8>) -> Result<Bytes, Problem> {
        let is_only_one =
            self.bytes.compare_exchange(0, body.len(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_only_one {
            self.change(0, body.len())?;
        }
        Ok(Bytes::from_owner(Answer { body, budget: Arc::clone(self) }))
    }

    /// Reserves memory for the compressed form of an answer without checking the limit, because it soon
    /// replaces the answer, which is larger.
    pub(super) fn hold_smaller(self: &Arc<Self>, body: Vec<u8>) -> Bytes {
        self.bytes.fetch_add(body.len(), Ordering::Relaxed);
        Bytes::from_owner(Answer { body, budget: Arc::clone(self) })
    }

    fn change(&self, before: usize, bytes: usize) -> Result<(), Problem> {
        let fits =
            |all: usize| Some(all - before + bytes).filter(|all| bytes <= before || *all <= self.bytes_max);
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            return Ok(());
        }
        self.refused.add(1);
        let detail = "other requests use all the memory for bodies; try again in a moment";
        Err(Problem::new(ProblemCode::Busy, detail))
    }
}

/// The body of an answer, with its reservation.
struct Answer {
    body: Vec<u8>,
    budget: Arc<BodyBudget>,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

/// The memory reserved for one body; released on drop.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<BodyBudget>,
    bytes: usize,
}

impl Held {
    /// Changes the reservation to this many bytes.
    ///
    /// # Errors
    /// There is not enough left; the reservation is unchanged.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Problem> {
        self.budget.change(self.bytes, bytes)?;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_body_holds_another_one_cannot_until_it_is_given_back() {
        let budget = Arc::new(BodyBudget::new(100));
        let (mut one, mut other) = (budget.enter(), budget.enter());
        one.set(60).unwrap();
        other.set(40).unwrap();
        let problem = other.set(41).unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code, budget.refused()), (503, ProblemCode::Busy, 1));
        assert_eq!(budget.bytes(), 100, "what was held is still held");
        one.set(10).unwrap();
        other.set(90).unwrap();
        assert_eq!(budget.bytes(), 100);
        drop(other);
        assert_eq!(budget.bytes(), 10);
        drop(one);
        assert_eq!((budget.bytes(), budget.refused()), (0, 1));
    }

    #[test]
    fn an_answer_is_held_for_as_long_as_any_of_it_waits() {
        let budget = Arc::new(BodyBudget::new(100));
        let mut body = budget.hold(vec![b'x'; 80]).unwrap();
        let rest = body.split_off(70);
        assert_eq!(budget.hold(vec![b'x'; 21]).unwrap_err().code, ProblemCode::Busy);
        drop(body);
        assert_eq!(budget.bytes(), 80, "its end has not been taken");
        drop(rest);
        assert_eq!((budget.bytes(), budget.hold(vec![b'x'; 21]).unwrap().len()), (0, 21));
        let longer = budget.hold(vec![b'x'; 200]).unwrap();
        assert_eq!((longer.len(), budget.hold(vec![b'x']).unwrap_err().code), (200, ProblemCode::Busy));
    }
}
