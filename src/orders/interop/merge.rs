//! Makes one sequence of the updates of one order, from the two places where outside workers leave them: a
//! list, and a pub/sub channel. Decides only; reading and appending is done elsewhere.
//!
//! Some workers push an update to the list before they publish it, some after, and some publish only. So an
//! update that was heard but is not in the list waits a little. For example 1 is heard and the list is `[2]`:
//! if the list becomes `[1, 2]` within the wait, 1 takes its position there; if not, 1 was only published, and
//! keeps the position at which it was heard.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::model::DraftEntry;
use crate::storage::OUTSIDE_WINDOW;

/// How long an update that was heard may take to appear in the list.
pub(super) const HOLD: Duration = Duration::from_millis(200);

/// When the list is read again while an update that was heard is missing in it, counted from when it was
/// heard. Most workers push within a round trip.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(5), Duration::from_millis(25), Duration::from_millis(75), HOLD];

/// The most updates of one order that wait to be appended. Beyond it an update that is heard is dropped; if
/// it is in the list, it is found there again.
pub(super) const WAITING_MAX: usize = 256;

/// Beyond this many known updates, those that are neither in the list nor waiting are forgotten. If one comes
/// again, the log recognises it.
const KNOWN_MAX: usize = 1_024;

/// Numbers the stretches of time in which pub/sub was heard without interruption. What is first seen in
/// stretch 3 says nothing about what was missed between stretches 2 and 3, until the list has been read in
/// stretch 3.
type Stretch = u64;

/// What is known of an order's outside updates. An update is identified by the hash of its bytes.
#[derive(Debug)]
pub(super) struct Merge {
    known: HashMap<Uuid, Stretch>,
    waiting: VecDeque<Waiting>,
    pub(super) stretch: Stretch,
    /// The newest stretch in which the list was read.
    proven: Stretch,
    /// Updates may have been lost before the next one.
    missed: bool,
    look_at: Option<Instant>,
    /// A second look, for workers that published before we subscribed and pushed after we read the list.
    look_again_at: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    id: Uuid,
    update: DraftEntry,
    heard_at: Instant,
    /// It was in the list.
    listed: bool,
    /// The list was read after it was heard.
    looked: bool,
    /// It will not appear in the list any more.
    settled: bool,
    /// Updates before it may be missing.
    after_gap: bool,
}

/// What became of an update that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It waits to be appended.
    New,
    /// It was known already.
    Known,
    /// There was no room; the next one is marked as coming after a gap.
    Dropped,
}

/// An element of the list. `None` if the update is not for the log or is known to the merge.
pub(super) type Listed = (Uuid, Option<DraftEntry>);

impl Merge {
    /// Knows no updates. The list is due to be read now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            known: HashMap::new(),
            waiting: VecDeque::new(),
            stretch: 1,
            proven: 0,
            missed: false,
            look_at: Some(now),
            look_again_at: None,
        }
    }

    pub(super) fn knows(&self, id: &Uuid) -> bool {
        self.known.contains_key(id)
    }

    /// The log has these updates.
    pub(super) fn in_log(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        for id in ids {
            self.known.insert(id, 0);
        }
    }

    /// The log has another epoch: what was appended to the old log has to be appended again.
    pub(super) fn log_is_new(&mut self) {
        let waiting: HashSet<Uuid> = self.waiting.iter().map(|waiting| waiting.id).collect();
        self.known.retain(|id, _| waiting.contains(id));
    }

    /// Messages may have been missed: the list is due to be read.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.stretch += 1;
        self.look_at = Some(now);
    }

    /// Takes a published update; `update` is `None` if it is not for the log. `room` says whether there is
    /// memory for it.
    pub(super) fn hear(&mut self, id: Uuid, update: Option<DraftEntry>, room: bool, now: Instant) -> Heard {
        if self.knows(&id) {
            return Heard::Known;
        }
        let Some(update) = update else {
            // Known updates are forgotten only when the list is read, and these updates cause no read.
            if self.known.len() < KNOWN_MAX {
                self.known.insert(id, self.stretch);
            }
            return Heard::New;
        };
        self.look_by(now);
        if !room || self.waiting.len() >= WAITING_MAX {
            self.missed = true;
            return Heard::Dropped;
        }
        self.known.insert(id, self.stretch);
        let after_gap = std::mem::take(&mut self.missed);
        let heard =
            Waiting { id, update, heard_at: now, listed: false, looked: false, settled: false, after_gap };
        self.waiting.push_back(heard);
        Heard::New
    }

    /// Takes the list, oldest first, as found by a read that began at `begun` in `stretch`. Returns whether
    /// updates before it may be missing.
    pub(super) fn look(&mut self, list: Vec<Listed>, begun: Instant, stretch: Stretch) -> bool {
        let gap = self.has_gap(&list);
        self.missed |= gap;
        let listed: HashSet<Uuid> = list.iter().map(|(id, _)| *id).collect();
        self.arrange(list, &listed, begun, stretch);
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.heard_at <= begun) {
            waiting.looked = true;
            waiting.settled |= begun >= waiting.heard_at + HOLD;
        }
        // The first look of a stretch is repeated once; see `look_again_at`.
        let first = self.proven < stretch;
        self.proven = self.proven.max(stretch);
        if self.known.len() > KNOWN_MAX {
            let waiting: HashSet<Uuid> = self.waiting.iter().map(|waiting| waiting.id).collect();
            self.known.retain(|id, _| listed.contains(id) || waiting.contains(id));
        }
        if let Some(at) = self.next_look(begun) {
            self.look_by(at);
        }
        if first {
            self.look_again_at = Some(begun + HOLD);
        } else if self.look_again_at.is_some_and(|at| at <= begun) {
            self.look_again_at = None;
        }
        gap
    }

    /// Whether updates may have been pushed out of the list: it is full, and has nothing that was known
    /// before the last interruption.
    fn has_gap(&self, list: &[Listed]) -> bool {
        let is_proof = |stretch: &Stretch| *stretch <= self.proven;
        list.len() >= OUTSIDE_WINDOW
            && self.known.values().any(is_proof)
            && !list.iter().any(|(id, _)| self.known.get(id).is_some_and(is_proof))
    }

    /// Puts the waiting updates into the list's order; one that is not in the list keeps its position among
    /// what was heard.
    fn arrange(&mut self, list: Vec<Listed>, listed: &HashSet<Uuid>, begun: Instant, stretch: Stretch) {
        let place: HashMap<Uuid, usize> =
            self.waiting.iter().enumerate().map(|(place, waiting)| (waiting.id, place)).collect();
        let mut found = HashMap::new();
        let mut held = VecDeque::new();
        for waiting in self.waiting.drain(..) {
            if listed.contains(&waiting.id) {
                found.insert(waiting.id, waiting);
            } else {
                held.push_back(waiting);
            }
        }
        for (id, update) in list {
            let next = match (found.remove(&id), update) {
                (Some(waiting), _) => Waiting { listed: true, ..waiting },
                (None, Some(update)) if !self.known.contains_key(&id) => {
                    let after_gap = std::mem::take(&mut self.missed);
                    Waiting {
                        id,
                        update,
                        heard_at: begun,
                        listed: true,
                        looked: true,
                        settled: true,
                        after_gap,
                    }
                }
                (None, _) => {
                    self.known.entry(id).or_insert(stretch);
                    continue;
                }
            };
            self.known.entry(id).or_insert(stretch);
            // An update that is not in the list goes first if it waited before this one. If this one did not
            // wait, the other goes first only if an earlier look lacked it too; otherwise what is in the list
            // counts as older.
            let goes_first = |held: &Waiting| match place.get(&id) {
                Some(own) => place.get(&held.id).is_some_and(|place| place < own),
                None => held.looked,
            };
            while held.front().is_some_and(goes_first) {
                self.waiting.extend(held.pop_front());
            }
            self.waiting.push_back(next);
        }
        self.waiting.append(&mut held);
    }

    fn next_look(&self, now: Instant) -> Option<Instant> {
        let open = self.waiting.iter().filter(|waiting| !waiting.listed && !waiting.settled);
        let looks = open.filter_map(|waiting| {
            if !waiting.looked {
                return Some(waiting.heard_at);
            }
            LOOKS.iter().map(|after| waiting.heard_at + *after).find(|at| *at > now)
        });
        looks.min()
    }

    /// The list is due to be read at this time, or sooner.
    pub(super) fn look_by(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |due| due.min(at)));
    }

    /// When the list is to be read.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.look_again_at).min()
    }

    /// Begins a read of the list, and returns the stretch to pass to [`look`](Self::look).
    pub(super) fn begin_look(&mut self) -> Stretch {
        self.look_at = None;
        self.stretch
    }

    /// The update to be appended next, and whether updates before it may be missing.
    pub(super) fn next(&self) -> Option<(Uuid, &DraftEntry, bool)> {
        let first = self.waiting.front()?;
        (first.listed || first.settled).then_some((first.id, &first.update, first.after_gap))
    }

    /// The update that [`next`](Self::next) returned was appended, or given up as `lost`.
    pub(super) fn done(&mut self, lost: bool) -> Option<DraftEntry> {
        let done = self.waiting.pop_front();
        if lost {
            match self.waiting.front_mut() {
                Some(next) => next.after_gap = true,
                None => self.missed = true,
            }
        }
        done.map(|done| done.update)
    }

    /// Stops waiting for the list: updates are appended in the order in which they were heard.
    pub(super) fn settle(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.settled = true);
    }

    /// The memory that all waiting updates take.
    pub(super) fn cost(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.update.cost()).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests;
