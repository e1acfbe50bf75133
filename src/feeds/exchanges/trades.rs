//! Orders the trades of a symbol by number, which exchanges count without holes: each trade is released once
//! and in order, and missing ones are noticed.

use std::collections::BTreeMap;

/// How many trades may wait for missing ones before them; beyond that they are released.
const HELD_MAX: usize = 10_000;

/// The result of offering trades.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<T> {
    /// Trades to publish now, in order.
    pub(super) ready: Vec<(u64, T)>,
    /// How many were released before, or wait already.
    pub(super) repeated: usize,
    /// Whether trades are missing that have not been requested yet.
    pub(super) is_gap: bool,
}

#[derive(Debug)]
pub(super) struct Trades<T> {
    /// The number of the newest released trade.
    last: Option<u64>,
    held: BTreeMap<u64, T>,
    is_asked: bool,
}

impl<T> Trades<T> {
    /// Starts after the trade with this number, or with `None` at whichever comes first.
    pub(super) fn after(last: Option<u64>) -> Self {
        Self { last, held: BTreeMap::new(), is_asked: false }
    }

    /// Takes trades in whatever order.
    pub(super) fn offer(&mut self, trades: impl IntoIterator<Item = (u64, T)>) -> Taken<T> {
        let mut repeated = 0;
        for (id, trade) in trades {
            if self.last.is_some_and(|last| id <= last) || self.held.contains_key(&id) {
                repeated += 1;
            } else {
                self.held.insert(id, trade);
            }
        }
        let ready = self.release();
        let is_gap = !self.held.is_empty() && !std::mem::replace(&mut self.is_asked, !self.held.is_empty());
        Taken { ready, repeated, is_gap }
    }

    fn release(&mut self) -> Vec<(u64, T)> {
        let mut ready = Vec::new();
        while let Some(first) = self.held.first_entry() {
            let id = *first.key();
            if self.last.is_some_and(|last| last.checked_add(1) != Some(id)) {
                break;
            }
            self.last = Some(id);
            ready.push((id, first.remove()));
        }
        if self.held.is_empty() {
            self.is_asked = false;
        }
        ready
    }

    /// Gives up on missing trades. Returns how many are missing, and the trades that waited for them, in
    /// order.
    pub(super) fn give_up(&mut self) -> (u64, Vec<(u64, T)>) {
        let mut missed = 0;
        let mut ready = Vec::new();
        while let Some((id, _)) = self.held.first_key_value() {
            missed += self.last.map_or(0, |last| (id - last).saturating_sub(1));
            self.last = Some(id - 1);
            ready.extend(self.release());
        }
        self.is_asked = false;
        (missed, ready)
    }

    /// Whether more trades wait than may.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() > HELD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(trades: &[(u64, char)]) -> Vec<u64> {
        trades.iter().map(|(id, _)| *id).collect()
    }

    fn offer(trades: &mut Trades<char>, of: &[u64]) -> (Vec<u64>, usize, bool) {
        let taken = trades.offer(of.iter().map(|id| (*id, 'a')));
        (ids(&taken.ready), taken.repeated, taken.is_gap)
    }

    #[test]
    fn each_trade_is_released_once_and_in_order() {
        let mut trades = Trades::after(Some(4));
        assert_eq!(offer(&mut trades, &[3, 4]), (vec![], 2, false));
        assert_eq!(offer(&mut trades, &[7, 6]), (vec![], 0, true));
        assert_eq!(offer(&mut trades, &[8, 7]), (vec![], 1, false), "requested already");
        assert_eq!(offer(&mut trades, &[4, 5, 6]), (vec![5, 6, 7, 8], 2, false));
        assert_eq!(offer(&mut trades, &[10]), (vec![], 0, true));
        assert_eq!(offer(&mut trades, &[13]), (vec![], 0, false));
        let (missed, ready) = trades.give_up();
        assert_eq!((missed, ids(&ready)), (3, vec![10, 13]));
        assert_eq!(offer(&mut trades, &[14]), (vec![14], 0, false));
    }

    #[test]
    fn without_a_last_number_the_first_trade_is_the_start() {
        let mut trades = Trades::after(None);
        assert_eq!(offer(&mut trades, &[9, 8]), (vec![8, 9], 0, false));
        assert_eq!(trades.give_up().0, 0);
        let mut last = Trades::after(Some(u64::MAX));
        assert_eq!(offer(&mut last, &[0, u64::MAX]), (vec![], 2, false));
        let mut zero = Trades::after(None);
        assert_eq!(offer(&mut zero, &[0]), (vec![0], 0, false));
    }
}
