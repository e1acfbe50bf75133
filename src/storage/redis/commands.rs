//! Routes commands: to the one server or, in a cluster, to the primary with the key's slot.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use tokio::sync::watch;

use super::errors::storage_error;
use super::link::{Link, LinkState};
use super::primaries::Primaries;
use crate::storage::{ProbeFailure, StorageError};

/// Whether a command waits for a place among the calls in progress on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// It waits, no longer than a command may take.
    Usual,
    /// It does not wait: it has to prove that the server answers, however many calls are in progress.
    Beat,
}

/// The connections for commands.
#[derive(Debug)]
pub(super) enum Commands {
    One(Arc<Link<Client>>),
    Cluster(Arc<Primaries>),
}

impl Commands {
    /// How long a command may take.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Self::One(link) => link.command_timeout,
            Self::Cluster(primaries) => primaries.command_timeout,
        }
    }

    /// Sends a command about a key, at most once. Redirections of a cluster mean that nothing was done, so
    /// they are followed, within the time that a command may take.
    pub(super) async fn call<R: FromValue>(
        &self,
        priority: Priority,
        key: &str,
        command: &'static str,
        args: Vec<Value>,
    ) -> Result<R, Error> {
        match self {
            Self::One(link) => send_on(link, priority, command, args).await,
            Self::Cluster(primaries) => primaries.call(priority, key, command, args).await,
        }
    }

    /// The same for the call `op` of the storage.
    pub(super) async fn ask<R: FromValue>(
        &self,
        op: &'static str,
        key: &str,
        command: &'static str,
        args: Vec<Value>,
    ) -> Result<R, StorageError> {
        let answer = self.call(Priority::Usual, key, command, args).await;
        answer.map_err(|error| storage_error(op, self.limit(), &error))
    }

    /// Waits until some connection has failed, and returns why.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        match self {
            Self::One(link) => link.until_failed().await,
            Self::Cluster(primaries) => primaries.until_failed().await,
        }
    }

    /// Waits until some server can be asked.
    pub(super) async fn until_up(&self) {
        match self {
            Self::One(link) => link.until_up().await,
            Self::Cluster(primaries) => primaries.until_some_up().await,
        }
    }

    /// The state of the connection to the one server, for connections behind it; `None` in a cluster.
    pub(super) fn ahead(&self) -> Option<watch::Receiver<LinkState>> {
        match self {
            Self::One(link) => Some(link.state()),
            Self::Cluster(_) => None,
        }
    }

    /// The cluster's primaries; `None` if there is a single server.
    pub(super) fn primaries(&self) -> Option<&Primaries> {
        match self {
            Self::One(_) => None,
            Self::Cluster(primaries) => Some(primaries),
        }
    }
}

/// Sends a command once there is a place for it.
pub(super) async fn send_on<R: FromValue>(
    link: &Link<Client>,
    priority: Priority,
    command: &'static str,
    args: Vec<Value>,
) -> Result<R, Error> {
    // Without a connection, there is no need to wait for a place.
    link.client()?;
    let _place = match priority {
        Priority::Usual => Some(link.place().await?),
        Priority::Beat => None,
    };
    send(&link.client()?, command, args).await
}

/// Sends a command on this connection.
pub(super) async fn send<R: FromValue>(
    client: &WithOptions<Client>,
    command: &'static str,
    args: Vec<Value>,
) -> Result<R, Error> {
    client.custom(CustomCommand::new_static(command, ClusterHash::FirstKey, false), args).await
}
