//! Readers that do not take what they are sent as fast as it comes, and so hold memory: how many there may be,
//! in all, of one source, and of one principal or tenant. Past that the one goes that has been behind for
//! longest: whoever is slow for a moment only has caught up by then.
//!
//! Shards look at their connections once a second, and meet here then; no entry waits for it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::config::ConnectionsConfig;
use super::connection::Connection;
use super::limits::Source;
use crate::access::{Quotas, Scope};
use crate::support::counter::Counter;
use crate::support::seldom::Seldom;

/// With whom a reader is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum With {
    All,
    Source(Source),
    /// All of a principal, or of a tenant, by a number that no other has while one of its connections is here.
    Account(Scope, usize),
}

/// A bound on readers that are behind.
#[derive(Debug, Clone, Copy)]
struct Bound {
    with: With,
    max: usize,
}

/// The readers of all shards that are behind.
#[derive(Debug)]
pub(super) struct Behind {
    max: usize,
    per_address_max: usize,
    state: Mutex<State>,
    /// Of the two settings here: what was closed, what would have been, and the line of the log.
    told: [(Counter, Counter, Mutex<Seldom>); 2],
}

#[derive(Debug, Default)]
struct State {
    readers: HashMap<Uuid, (Instant, SmallVec<[With; 4]>)>,
    /// By since when they are behind.
    by: HashMap<With, BTreeSet<(Instant, Uuid)>>,
    /// Those that are to be closed.
    too_many: HashSet<Uuid>,
}

/// What is told of it.
#[derive(Debug, Default)]
pub(crate) struct BehindCounts {
    pub(crate) connections: usize,
    /// By setting.
    pub(crate) refused: Vec<(String, u64)>,
    pub(crate) dry_run: Vec<(String, u64)>,
}

impl Behind {
    pub(super) fn new(config: &ConnectionsConfig) -> Arc<Self> {
        Arc::new(Self {
            max: config.behind_max,
            per_address_max: config.behind_per_address_max,
            state: Mutex::default(),
            told: Default::default(),
        })
    }

    /// Whether anything is bounded.
    pub(super) fn is_on(&self, quotas: &Quotas) -> bool {
        self.max > 0 || self.per_address_max > 0 || quotas.bounds_behind()
    }

    /// A reader has been behind for a while, and is counted for as long as this is held.
    pub(super) fn count(
        self: &Arc<Self>,
        reader: &Connection,
        since: Instant,
        quotas: &Quotas,
    ) -> BehindPlace {
        let bounds = self.bounds(reader);
        let over = self.state.lock().add(reader.id, since, &bounds);
        for bound in over {
            let is_closed = match bound.with {
                With::Account(scope, _) => {
                    reader.seat().is_some_and(|seat| seat.share().has_too_many_behind(scope))
                }
                With::All => self.tell(0, "connections.behind_max", None, quotas.is_dry_run()),
                With::Source(source) => {
                    self.tell(1, "connections.behind_per_address_max", Some(source), quotas.is_dry_run())
                }
            };
            if is_closed {
                self.state.lock().let_oldest_go(bound);
            }
        }
        BehindPlace { behind: Arc::clone(self), reader: reader.id }
    }

    fn bounds(&self, reader: &Connection) -> SmallVec<[Bound; 4]> {
        let mut bounds = SmallVec::new();
        let mut add = |with, max| {
            if max > 0 {
                bounds.push(Bound { with, max });
            }
        };
        add(With::All, self.max);
        if let Some(source) = reader.source() {
            add(With::Source(source), self.per_address_max);
        }
        if let Some(seat) = reader.seat() {
            seat.share()
                .behind_max()
                .for_each(|(scope, account, max)| add(With::Account(scope, account), max));
        }
        bounds
    }

    /// Counts that there are too many; says whether one is closed for it.
    fn tell(&self, place: usize, setting: &str, source: Option<Source>, dry_run: bool) -> bool {
        let (closed, counted, line) = &self.told[place];
        if dry_run {
            counted.add(1)
        } else {
            closed.add(1)
        }
        if let Some(untold) = line.lock().may_tell(Instant::now()) {
            let (times, source) = (untold + 1, source.map(|source| source.to_string()));
            warn!(times, setting, source, dry_run, "too many readers are behind");
        }
        !dry_run
    }

    pub(super) fn counts(&self) -> BehindCounts {
        let mut counts =
            BehindCounts { connections: self.state.lock().readers.len(), ..BehindCounts::default() };
        let settings = ["connections.behind_max", "connections.behind_per_address_max"];
        let is_set = [self.max > 0, self.per_address_max > 0];
        for ((setting, _), (closed, counted, _)) in
            settings.into_iter().zip(is_set).zip(&self.told).filter(|((_, is_set), _)| *is_set)
        {
            counts.refused.push((setting.to_owned(), closed.get()));
            counts.dry_run.push((setting.to_owned(), counted.get()));
        }
        counts
    }
}

impl State {
    /// The bounds that are passed then.
    fn add(&mut self, reader: Uuid, since: Instant, bounds: &[Bound]) -> SmallVec<[Bound; 4]> {
        self.remove(reader);
        self.readers.insert(reader, (since, bounds.iter().map(|bound| bound.with).collect()));
        let mut over = SmallVec::new();
        for bound in bounds {
            let readers = self.by.entry(bound.with).or_default();
            readers.insert((since, reader));
            if readers.len() > bound.max {
                over.push(*bound);
            }
        }
        over
    }

    /// The one goes that is behind for longest, unless another bound had one go already. It counts no more.
    fn let_oldest_go(&mut self, Bound { with, max }: Bound) {
        let readers = self.by.get(&with).filter(|readers| readers.len() > max);
        let oldest = readers.and_then(|readers| readers.first()).map(|(_, reader)| *reader);
        if let Some(oldest) = oldest {
            self.remove(oldest);
            self.too_many.insert(oldest);
        }
    }

    fn remove(&mut self, reader: Uuid) {
        let Some((since, all)) = self.readers.remove(&reader) else { return };
        for with in all {
            if let Some(readers) = self.by.get_mut(&with) {
                readers.remove(&(since, reader));
                if readers.is_empty() {
                    self.by.remove(&with);
                }
            }
        }
    }
}

/// Counts a reader that is behind, for as long as it is held.
#[derive(Debug)]
pub(super) struct BehindPlace {
    behind: Arc<Behind>,
    reader: Uuid,
}

impl BehindPlace {
    /// Whether it is to be closed.
    pub(super) fn is_too_many(&self) -> bool {
        self.behind.state.lock().too_many.contains(&self.reader)
    }
}

impl Drop for BehindPlace {
    fn drop(&mut self) {
        let mut state = self.behind.state.lock();
        state.remove(self.reader);
        state.too_many.remove(&self.reader);
    }
}

/// What a shard knows of a connection that is behind.
#[derive(Debug)]
struct Seen {
    /// When it was first seen so.
    since: Instant,
    /// From the second time on: it is no matter of a moment then.
    place: Option<BehindPlace>,
}

/// The connections of a shard that are behind.
#[derive(Debug, Default)]
pub(super) struct SeenBehind(HashMap<Uuid, Seen>);

impl SeenBehind {
    /// Looks at a connection, once in each sweep; says whether it is to be closed.
    pub(super) fn look_at(
        &mut self,
        connection: &Connection,
        now: Instant,
        behind: &Arc<Behind>,
        quotas: &Quotas,
    ) -> bool {
        if !connection.is_behind() || !connection.is_open() {
            // Of most connections nothing is known.
            self.forget(connection.id);
            return false;
        }
        let seen = match self.0.entry(connection.id) {
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(Seen { since: now, place: None });
                return false;
            }
            std::collections::hash_map::Entry::Occupied(seen) => seen.into_mut(),
        };
        let since = seen.since;
        seen.place.get_or_insert_with(|| behind.count(connection, since, quotas)).is_too_many()
    }

    /// It is behind no more, or gone.
    pub(super) fn forget(&mut self, connection: Uuid) {
        self.0.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_one_goes_that_is_behind_for_longest() {
        let (mut state, start) = (State::default(), Instant::now());
        let all = Bound { with: With::All, max: 3 };
        let source = |last| Bound { with: With::Source(Source::of([10, 0, 0, last].into())), max: 2 };
        let ids: Vec<Uuid> = (0..6).map(|_| Uuid::new_v4()).collect();
        let mut add = |n: usize, s: u64, last| {
            let since = start + Duration::from_secs(s);
            let over = state.add(ids[n], since, &[all, source(last)]);
            over.iter().for_each(|bound| state.let_oldest_go(*bound));
            let mut gone: Vec<usize> = (0..6).filter(|n| state.too_many.contains(&ids[*n])).collect();
            gone.sort_unstable();
            gone
        };
        assert_eq!((add(0, 5, 1), add(1, 3, 1)), (vec![], vec![]));
        assert_eq!(add(2, 9, 1), [1], "of its source");
        assert_eq!(add(3, 8, 2), [1], "and it counts no more");
        assert_eq!(add(4, 7, 3), [0, 1], "in all");
        state.remove(ids[3]);
        assert_eq!((state.readers.len(), state.by.len()), (2, 3));
        (0..6).for_each(|n| state.remove(ids[n]));
        assert!(state.readers.is_empty() && state.by.is_empty());
    }
}
