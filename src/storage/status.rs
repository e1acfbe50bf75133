//! How the storage serves right now: one truth for health, stats, metrics and clients.

use chrono::{DateTime, Utc};
use tokio::sync::watch;

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
    /// Why, for people. Holds no secrets.
    pub reason: String,
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
    pub fn set(&self, state: BackendState, reason_code: &'static str, reason: String) -> bool {
        let mut moved = false;
        self.0.send_if_modified(|status| {
            moved = status.state != state;
            let changed = moved || status.reason_code != reason_code;
            if moved {
                status.since = Utc::now();
            }
            if changed {
                (status.state, status.reason_code, status.reason) = (state, reason_code, reason);
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
