//! How the storage serves right now: one truth for health, stats, metrics and clients.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{BackendName, BackendState};

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
        Self { backend, state, since, reason_code, reason, switches: 0, entered, spent }
    }

    /// Why, for clients: says nothing of where things run.
    pub fn reason_for_clients(&self) -> &'static str {
        match self.reason_code {
            "ok" => "Redis serves",
            "configured" | "not_configured" => "memory serves",
            "unreachable" => "Redis cannot be reached",
            "no_answer" => "Redis does not answer in time",
            "loading" => "Redis is loading its data",
            "read_only" => "Redis takes no writes",
            "out_of_memory" => "Redis is out of memory",
            "data_older" => "Redis answers with data that are older than they were",
            "data_lost" => "Redis answers without the data that it had",
            "appeared" => "a Redis has appeared",
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

    /// Sets state and reason; `since` moves only when the state does. Says whether it did.
    pub fn set(
        &self,
        backend: BackendName,
        state: BackendState,
        reason_code: &'static str,
        reason: String,
    ) -> bool {
        let mut moved = false;
        self.0.send_if_modified(|status| {
            moved = status.state != state;
            let changed = moved || status.reason_code != reason_code || status.backend != backend;
            if moved {
                let now = Instant::now();
                status.spent[index(status.state)] += now - status.entered;
                (status.since, status.entered) = (Utc::now(), now);
                status.switches += 1;
            }
            if changed {
                (status.backend, status.state) = (backend, state);
                (status.reason_code, status.reason) = (reason_code, reason);
            }
            changed
        });
        moved
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
