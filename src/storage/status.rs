//! The state of the storage at present: one truth for health, stats, metrics and clients.

use std::collections::VecDeque;
use std::ops::Sub;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Concerned;
use crate::model::{BackendName, BackendState};

/// The channels that the storage does not serve as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All channels.
    All,
    /// These channels; healthy primaries of the cluster serve the others.
    Some(Concerned),
}

impl Scope {
    /// `all` or `some`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Some(_) => "some",
        }
    }
}

/// The most past states that are remembered; the oldest are dropped.
pub(crate) const STATES_REMEMBERED: usize = 100;

/// What outages have cost since the start; these counts only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Toll {
    /// Accepted entries that were sent to Redis late.
    pub(crate) replayed: u64,
    /// Entries put back into logs that had lost them.
    pub(crate) put_back: u64,
    /// Accepted entries that the log will never have.
    pub(crate) let_go: u64,
    /// Entries that were refused for want of room.
    pub(crate) refused: u64,
    /// Logs that lost acknowledged entries.
    pub(crate) logs_lost: u64,
}

impl Sub for Toll {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            replayed: self.replayed.saturating_sub(before.replayed),
            put_back: self.put_back.saturating_sub(before.put_back),
            let_go: self.let_go.saturating_sub(before.let_go),
            refused: self.refused.saturating_sub(before.refused),
            logs_lost: self.logs_lost.saturating_sub(before.logs_lost),
        }
    }
}

/// A state of the storage, present or past, from the moment it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateSpell {
    pub(crate) backend: BackendName,
    pub(crate) state: BackendState,
    /// Whether all channels were concerned at first.
    pub(crate) is_all: bool,
    pub(crate) since: DateTime<Utc>,
    /// `None` for the present state.
    pub(crate) until: Option<DateTime<Utc>>,
    pub(crate) lasted: Duration,
    pub(crate) reason_code: &'static str,
    pub(crate) reason: String,
    /// What it cost while it lasted.
    pub(crate) toll: Toll,
}

/// Past states, the newest first, and what the present one began with.
#[derive(Debug, Default)]
struct History {
    past: VecDeque<StateSpell>,
    began: Began,
}

#[derive(Debug, Clone, Default)]
struct Began {
    is_all: bool,
    reason_code: &'static str,
    reason: String,
    toll: Toll,
}

/// What the storage reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Served {
    pub(in crate::storage) backend: BackendName,
    pub(in crate::storage) state: BackendState,
    pub(in crate::storage) reason_code: &'static str,
    pub(in crate::storage) reason: String,
    pub(in crate::storage) scope: Scope,
    pub(in crate::storage) primaries: usize,
    pub(in crate::storage) primaries_away: usize,
    /// The counts up to now.
    pub(in crate::storage) toll: Toll,
}

/// The state of the storage at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageStatus {
    /// Which backend serves.
    pub backend: BackendName,
    /// How well.
    pub state: BackendState,
    /// Since when.
    pub since: DateTime<Utc>,
    /// A stable word for why, such as `not_configured`, `unreachable`, `wrong_password`.
    pub reason_code: &'static str,
    /// Why, for operators: may name hosts, but holds no secrets.
    pub reason: String,
    /// The channels that are not served as they should be; [`Scope::All`] while healthy.
    pub scope: Scope,
    /// How many servers share the channels: the primaries of a cluster, or one.
    pub primaries: usize,
    /// How many of these do not serve. With memory alone, 0 of 1.
    pub primaries_away: usize,
    /// How often the state has changed since the start.
    pub switches: u64,
    /// When the state last changed.
    entered: Instant,
    /// The time spent in each state before that.
    spent: [Duration; BackendState::ALL.len()],
}

impl StorageStatus {
    /// The first status, which begins now.
    pub fn new(backend: BackendName, state: BackendState, reason_code: &'static str, reason: String) -> Self {
        let (since, entered) = (Utc::now(), Instant::now());
        let spent = Default::default();
        let primaries_away = usize::from(state == BackendState::Degraded);
        Self {
            backend,
            state,
            since,
            reason_code,
            reason,
            scope: Scope::All,
            primaries: 1,
            primaries_away,
            switches: 0,
            entered,
            spent,
        }
    }

    /// Why, for clients: does not reveal where anything runs.
    pub fn reason_for_clients(&self) -> &'static str {
        match self.reason_code {
            "ok" => "Redis serves",
            "configured" | "not_configured" => "memory serves",
            "disk" => "the disk does not take what is published",
            "data_older" => "Redis answers with data that are older than before",
            "data_lost" => "Redis answers without the data that it had",
            "appeared" => "a Redis has appeared",
            _ if self.state == BackendState::Recovering => "Redis answers again",
            "unreachable" => "Redis cannot be reached",
            "no_answer" => "Redis does not answer in time",
            "loading" => "Redis is loading its data",
            "read_only" => "Redis takes no writes",
            "out_of_memory" => "Redis is out of memory",
            _ => "Redis does not serve",
        }
    }

    /// How long the present state has lasted.
    pub fn age(&self) -> Duration {
        self.entered.elapsed()
    }

    /// The time spent in a state since the start, up to now.
    pub fn spent_in(&self, state: BackendState) -> Duration {
        let now = if state == self.state { self.entered.elapsed() } else { Duration::ZERO };
        self.spent[index(state)] + now
    }
}

fn index(state: BackendState) -> usize {
    state as usize
}

/// The writing end of the status.
#[derive(Debug)]
pub struct StatusWriter(watch::Sender<StorageStatus>, Arc<Mutex<History>>);

/// The reading end of the status. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusReader(watch::Receiver<StorageStatus>, Arc<Mutex<History>>);

impl StatusWriter {
    /// Begins with a first status.
    pub fn new(first: StorageStatus) -> (Self, StatusReader) {
        let began = Began {
            is_all: true,
            reason_code: first.reason_code,
            reason: first.reason.clone(),
            toll: Toll::default(),
        };
        let history = Arc::new(Mutex::new(History { past: VecDeque::new(), began }));
        let (writer, reader) = watch::channel(first);
        (Self(writer, Arc::clone(&history)), StatusReader(reader, history))
    }

    /// Replaces the whole status.
    #[cfg(test)]
    pub(crate) fn replace(&self, status: StorageStatus) {
        self.0.send_replace(status);
    }

    /// Sets state, reason and scope; `since` changes only when the state does.
    pub(in crate::storage) fn set(&self, served: Served) {
        let Served { backend, state, reason_code, reason, scope, primaries, primaries_away, toll } = served;
        self.0.send_if_modified(|status| {
            let moved = status.state != state;
            let counts = (primaries, primaries_away);
            let changed = moved
                || status.reason_code != reason_code
                || status.backend != backend
                || status.scope != scope
                || (status.primaries, status.primaries_away) != counts;
            if moved {
                let (now, time) = (Instant::now(), Utc::now());
                let began = Began { is_all: scope == Scope::All, reason_code, reason: reason.clone(), toll };
                self.1.lock().turn(status, began, time);
                status.spent[index(status.state)] += now - status.entered;
                (status.since, status.entered) = (time, now);
                status.switches += 1;
            }
            if changed {
                (status.backend, status.state) = (backend, state);
                (status.reason_code, status.scope) = (reason_code, scope);
                (status.primaries, status.primaries_away) = counts;
            }
            // A new reason is stored for readers, but wakes nobody.
            status.reason = reason;
            changed
        });
    }
}

impl History {
    /// The present state, up to now.
    fn current(&self, status: &StorageStatus, toll: Toll) -> StateSpell {
        let Began { is_all, reason_code, ref reason, toll: before } = self.began;
        StateSpell {
            backend: status.backend,
            state: status.state,
            is_all,
            since: status.since,
            until: None,
            lasted: status.age(),
            reason_code,
            reason: reason.clone(),
            toll: toll - before,
        }
    }

    /// Ends the present state and begins another.
    fn turn(&mut self, status: &StorageStatus, next: Began, now: DateTime<Utc>) {
        let over = StateSpell { until: Some(now), ..self.current(status, next.toll) };
        self.past.push_front(over);
        self.past.truncate(STATES_REMEMBERED);
        self.began = next;
    }
}

impl StatusReader {
    /// The present state and those before it, the newest first. `toll` is what has been counted up to now.
    pub(crate) fn history(&self, toll: Toll) -> Vec<StateSpell> {
        // Locks in the order in which the writer takes them.
        let status = self.0.borrow();
        let history = self.1.lock();
        std::iter::once(history.current(&status, toll)).chain(history.past.iter().cloned()).collect()
    }

    /// The status now.
    pub fn get(&self) -> StorageStatus {
        self.0.borrow().clone()
    }

    /// Waits for the next change; false if there will be none.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(state: BackendState, reason: &str, toll: Toll) -> Served {
        Served {
            backend: BackendName::InMemory,
            state,
            reason_code: "unreachable",
            reason: reason.to_owned(),
            scope: Scope::All,
            primaries: 1,
            primaries_away: 1,
            toll,
        }
    }

    #[tokio::test]
    async fn a_new_reason_is_stored_and_wakes_nobody() {
        let first = StorageStatus::new(BackendName::Redis, BackendState::Healthy, "ok", String::new());
        let (writer, reader) = StatusWriter::new(first);
        let mut woken = reader.clone();
        let say = |reason| writer.set(served(BackendState::Degraded, reason, Toll::default()));
        say("connection refused");
        assert!(woken.changed().await);
        let since = reader.get().since;
        say("no route to host");
        let said = reader.get();
        assert_eq!((said.reason.as_str(), said.since, said.switches), ("no route to host", since, 1));
        assert!(!woken.0.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn past_states_are_remembered_with_their_cost() {
        let first = StorageStatus::new(BackendName::Redis, BackendState::Healthy, "ok", "well".to_owned());
        let (writer, reader) = StatusWriter::new(first);
        let toll = |replayed, let_go| Toll { replayed, let_go, ..Toll::default() };
        let turn = |state, reason, toll| writer.set(served(state, reason, toll));
        let advance = |s| tokio::time::advance(Duration::from_secs(s));
        advance(5).await;
        turn(BackendState::Degraded, "refused", toll(0, 0));
        advance(7).await;
        turn(BackendState::Degraded, "no route", toll(0, 2));
        turn(BackendState::Recovering, "back", toll(0, 3));
        advance(2).await;
        turn(BackendState::Healthy, "well", toll(40, 3));
        advance(1).await;
        let history = reader.history(toll(41, 3));
        let told: Vec<_> = history
            .iter()
            .map(|spell| {
                let Toll { replayed, let_go, .. } = spell.toll;
                (spell.state, spell.lasted.as_secs(), spell.reason.as_str(), replayed, let_go)
            })
            .collect();
        assert_eq!(
            told,
            [
                (BackendState::Healthy, 1, "well", 1, 0),
                (BackendState::Recovering, 2, "back", 40, 0),
                (BackendState::Degraded, 7, "refused", 0, 3),
                (BackendState::Healthy, 5, "well", 0, 0),
            ]
        );
        assert_eq!(history[0].until, None);
        assert!(history.windows(2).all(|two| two[1].until == Some(two[0].since)), "{history:?}");
        for n in 0..500 {
            turn(if n % 2 == 0 { BackendState::Degraded } else { BackendState::Healthy }, "", toll(41, 3));
        }
        assert_eq!(reader.history(toll(41, 3)).len(), STATES_REMEMBERED + 1);
    }
}
