//! Bounds the number of connections whose clients read more slowly than entries arrive, and that therefore
//! take memory: in all, of one source, and of one principal or tenant. Beyond a bound, the connection that
//! has lagged longest is closed, because a client that is slow only for a moment has caught up by then.
//!
//! Shards check their connections once a second and update this shared state; sending entries never touches
//! it.

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

/// The group that a lagging connection counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum With {
    All,
    Source(Source),
    /// A principal or a tenant. The number identifies its account as long as one of its connections exists.
    Account(Scope, usize),
}

/// A bound on the lagging connections of a group.
#[derive(Debug, Clone, Copy)]
struct Bound {
    with: With,
    max: usize,
}

/// The lagging connections of all shards.
#[derive(Debug)]
pub(super) struct Behind {
    all: Setting,
    per_address: Setting,
    state: Mutex<State>,
}

/// A bound from the settings of connections, as opposed to those of a principal or a tenant.
#[derive(Debug)]
struct Setting {
    name: &'static str,
    /// 0 is unlimited.
    max: usize,
    closed: Counter,
    /// Connections that a dry run would have closed.
    dry_run: Counter,
    line: Mutex<Seldom>,
}

impl Setting {
    fn new(name: &'static str, max: usize) -> Self {
        let (closed, dry_run, line) = Default::default();
        Self { name, max, closed, dry_run, line }
    }

    /// Counts that the bound was exceeded; returns whether a connection is closed for it.
    fn exceeded(&self, source: Option<Source>, dry_run: bool) -> bool {
        let counter = if dry_run { &self.dry_run } else { &self.closed };
        counter.add(1);
        if let Some(untold) = self.line.lock().may_tell(Instant::now()) {
            let (times, source) = (untold + 1, source.map(|source| source.to_string()));
            warn!(times, setting = self.name, source, dry_run, "too many connections lag");
        }
        !dry_run
    }
}

#[derive(Debug, Default)]
struct State {
    readers: HashMap<Uuid, (Instant, SmallVec<[With; 4]>)>,
    /// By group, the connections, longest lagging first.
    by: HashMap<With, BTreeSet<(Instant, Uuid)>>,
    /// Connections that have to be closed.
    too_many: HashSet<Uuid>,
}

/// What statistics report about lagging connections.
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
            all: Setting::new("connections.behind_max", config.behind_max),
            per_address: Setting::new("connections.behind_per_address_max", config.behind_per_address_max),
            state: Mutex::default(),
        })
    }

    /// Whether anything is bounded.
    pub(super) fn is_on(&self, quotas: &Quotas) -> bool {
        self.all.max > 0 || self.per_address.max > 0 || quotas.bounds_behind()
    }

    /// Counts a connection that has lagged for a while, until the returned value is dropped.
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
                With::All => self.all.exceeded(None, quotas.is_dry_run()),
                With::Source(source) => self.per_address.exceeded(Some(source), quotas.is_dry_run()),
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
        add(With::All, self.all.max);
        if let Some(source) = reader.source() {
            add(With::Source(source), self.per_address.max);
        }
        if let Some(seat) = reader.seat() {
            seat.share()
                .behind_max()
                .for_each(|(scope, account, max)| add(With::Account(scope, account), max));
        }
        bounds
    }

    pub(super) fn counts(&self) -> BehindCounts {
        let mut counts =
            BehindCounts { connections: self.state.lock().readers.len(), ..BehindCounts::default() };
        for setting in [&self.all, &self.per_address].into_iter().filter(|setting| setting.max > 0) {
            counts.refused.push((setting.name.to_owned(), setting.closed.get()));
            counts.dry_run.push((setting.name.to_owned(), setting.dry_run.get()));
        }
        counts
    }
}

impl State {
    /// Adds a connection; returns the bounds that are exceeded then.
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

    /// Marks the connection that has lagged longest for closing, unless closing one for another bound was
    /// enough. It no longer counts.
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

/// Counts a lagging connection until dropped.
#[derive(Debug)]
pub(super) struct BehindPlace {
    behind: Arc<Behind>,
    reader: Uuid,
}

impl BehindPlace {
    /// Whether the connection is to be closed.
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

/// What a shard knows about a lagging connection.
#[derive(Debug)]
struct Seen {
    /// When it was first seen lagging.
    since: Instant,
    /// Set from the second check on: by then the lag is not momentary.
    place: Option<BehindPlace>,
}

/// The lagging connections of a shard.
#[derive(Debug, Default)]
pub(super) struct SeenBehind(HashMap<Uuid, Seen>);

impl SeenBehind {
    /// Checks a connection, once in each sweep; returns whether it is to be closed.
    pub(super) fn look_at(
        &mut self,
        connection: &Connection,
        now: Instant,
        behind: &Arc<Behind>,
        quotas: &Quotas,
    ) -> bool {
        if !connection.is_behind() || !connection.is_open() {
            // Most connections are not in the map.
            self.forget(connection.id);
            return false;
        }
        let Some(Seen { since, place }) = self.0.get_mut(&connection.id) else {
            self.0.insert(connection.id, Seen { since: now, place: None });
            return false;
        };
        place.get_or_insert_with(|| behind.count(connection, *since, quotas)).is_too_many()
    }

    /// The connection no longer lags, or is gone.
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
