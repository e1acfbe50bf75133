//! How the storage serves right now: one truth for health, stats, metrics and clients.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Concerned;
use crate::model::{BackendName, BackendState};

/// Which channels it is about that a storage does not serve as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// These: others are served by primaries of a cluster with which all is well.
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

/// What is said of the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Served {
    pub(in crate::storage) backend: BackendName,
    pub(in crate::storage) state: BackendState,
    pub(in crate::storage) reason_code: &'static str,
    pub(in crate::storage) reason: String,
    pub(in crate::storage) scope: Scope,
    pub(in crate::storage) primaries: usize,
    pub(in crate::storage) primaries_away: usize,
}

/// How the storage serves right now.
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
    /// Why, for those who run the gateway: may name hosts, and holds no secrets.
    pub reason: String,
    /// Which channels it is about; [`Scope::All`] while healthy.
    pub scope: Scope,
    /// Servers that share the channels among them: the primaries of a cluster, or one.
    pub primaries: usize,
    /// Of these, those that do not serve. With memory alone, 0 of 1.
    pub primaries_away: usize,
    /// How often the state has changed since the start.
    pub switches: u64,
    /// When it last did.
    entered: Instant,
    /// The time spent in each state before that.
    spent: [Duration; BackendState::ALL.len()],
}

impl StorageStatus {
    /// A first status, which holds from now on.
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

    /// Why, for clients: says nothing of where things run.
    pub fn reason_for_clients(&self) -> &'static str {
        match self.reason_code {
            "ok" => "Redis serves",
            "configured" | "not_configured" => "memory serves",
            "data_older" => "Redis answers with data that are older than they were",
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

    /// How long the state has lasted.
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

/// The end that changes the status.
#[derive(Debug)]
pub struct StatusWriter(watch::Sender<StorageStatus>);

/// The end that reads it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusReader(watch::Receiver<StorageStatus>);

impl StatusWriter {
    /// Starts with a first status.
    pub fn new(first: StorageStatus) -> (Self, StatusReader) {
        let (writer, reader) = watch::channel(first);
        (Self(writer), StatusReader(reader))
    }

    /// Sets everything.
    #[cfg(test)]
    pub(crate) fn replace(&self, status: StorageStatus) {
        self.0.send_replace(status);
    }

    /// Sets state, reason and scope; `since` moves only when the state does.
    pub(in crate::storage) fn set(&self, served: Served) {
        let Served { backend, state, reason_code, reason, scope, primaries, primaries_away } = served;
        self.0.send_if_modified(|status| {
            let moved = status.state != state;
            let counts = (primaries, primaries_away);
            let changed = moved
                || status.reason_code != reason_code
                || status.backend != backend
                || status.scope != scope
                || (status.primaries, status.primaries_away) != counts;
            if moved {
                let now = Instant::now();
                status.spent[index(status.state)] += now - status.entered;
                (status.since, status.entered) = (Utc::now(), now);
                status.switches += 1;
            }
            if changed {
                (status.backend, status.state) = (backend, state);
                (status.reason_code, status.scope) = (reason_code, scope);
                (status.primaries, status.primaries_away) = counts;
            }
            // The newest words are there for who looks; nobody is woken for them.
            status.reason = reason;
            changed
        });
    }
}

impl StatusReader {
    /// The status now.
    pub fn get(&self) -> StorageStatus {
        self.0.borrow().clone()
    }

    /// Waits for the next change; false when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_reason_is_told_and_nobody_is_woken_for_words_alone() {
        let first = StorageStatus::new(BackendName::Redis, BackendState::Healthy, "ok", String::new());
        let (writer, reader) = StatusWriter::new(first);
        let mut woken = reader.clone();
        let say = |reason: &str| {
            writer.set(Served {
                backend: BackendName::InMemory,
                state: BackendState::Degraded,
                reason_code: "unreachable",
                reason: reason.to_owned(),
                scope: Scope::All,
                primaries: 1,
                primaries_away: 1,
            });
        };
        say("connection refused");
        assert!(woken.changed().await);
        let since = reader.get().since;
        say("no route to host");
        let said = reader.get();
        assert_eq!((said.reason.as_str(), said.since, said.switches), ("no route to host", since, 1));
        assert!(!woken.0.has_changed().unwrap());
    }
}
