//! Where commands go: to one server, or in a cluster to the primary that has the key's slot.

use std::sync::Arc;

use fred::clients::{Client, WithOptions};
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};
use tokio::sync::watch;

use super::link::{Link, LinkState};
use super::primaries::Primaries;
use crate::storage::ProbeFailure;

/// Whether a command waits for a place among those that are under way on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// It does, for no longer than a command may take.
    Usual,
    /// It does not: it is to prove that the server answers, however many others ask.
    Beat,
}

/// The connections for commands.
#[derive(Debug)]
pub(super) enum Commands {
    One(Arc<Link<Client>>),
    Cluster(Arc<Primaries>),
}

impl Commands {
    /// Sends a command about a key, at most once; redirections of a cluster, which say that nothing
    /// was done, are followed within the time that a command may take.
    pub(super) async fn call<R: FromValue>(
        &self,
        key: &str,
        command: &'static str,
        args: Vec<Value>,
    ) -> Result<R, Error> {
        self.call_with(Priority::Usual, key, command, args).await
    }

    /// The same, with a priority.
    pub(super) async fn call_with<R: FromValue>(
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

    /// Waits until it is known why not all can be asked.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        match self {
            Self::One(link) => link.until_failed().await,
            Self::Cluster(primaries) => primaries.until_failed().await,
        }
    }

    /// Waits until there is somebody to ask.
    pub(super) async fn until_up(&self) {
        match self {
            Self::One(link) => link.until_up().await,
            Self::Cluster(primaries) => primaries.until_some_up().await,
        }
    }

    /// How the connection to the one server is, for those that are behind it; `None` in a cluster.
    pub(super) fn ahead(&self) -> Option<watch::Receiver<LinkState>> {
        match self {
            Self::One(link) => Some(link.state()),
            Self::Cluster(_) => None,
        }
    }

    /// The cluster's primaries; `None` where there is one server.
    pub(super) fn primaries(&self) -> Option<&Primaries> {
        match self {
            Self::One(_) => None,
            Self::Cluster(primaries) => Some(primaries),
        }
    }
}

/// Sends a command when there is a place for it.
pub(super) async fn send_on<R: FromValue>(
    link: &Link<Client>,
    priority: Priority,
    command: &'static str,
    args: Vec<Value>,
) -> Result<R, Error> {
    // What cannot be sent needs no place.
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
