//! A client that is replaced when its connection hangs.
//!
//! fred reconnects by itself when a connection closes. It does not when one stays open and silent,
//! and it cannot even be told to once the socket takes no more bytes: its task then waits in a
//! write. So we ask each connection whether it lives, and if it does not answer, we end that
//! client, with its task and its socket, and begin with another.

use std::fmt;
use std::time::Duration;

use fred::clients::WithOptions;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, ClusterInterface};
use fred::types::Value;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time;

use super::connect::{once, ping_all};
use crate::support::backoff::Backoff;

/// How often a connection is asked whether it lives.
const BEAT_EVERY: Duration = Duration::from_millis(200);
/// Without an answer for this part of the time that a command may take, it is taken for hanging. With
/// the default of 800 ms, and together with `BEAT_EVERY`, a hang is noticed within 900 ms.
const BEAT_LIMIT_PART: (u32, u32) = (7, 8);
/// A client that has neither connected nor failed by then is given up. Longer than its own timeouts.
const INIT_LIMIT: Duration = Duration::from_secs(2);
/// Between attempts to connect another client.
const REPLACE_BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_secs(1),
    jitter: Duration::from_millis(50),
};

type Build<C> = Box<dyn Fn() -> Result<C, Error> + Send + Sync>;

/// The client in use, and how to make another.
pub(super) struct Link<C: ClientLike> {
    build: Build<C>,
    command_timeout: Duration,
    live: Mutex<Option<Live<C>>>,
}

struct Live<C: ClientLike> {
    client: WithOptions<C>,
    /// Ends fred's task, which owns the socket.
    task: AbortOnDrop,
}

impl<C: ClientLike> fmt::Debug for Link<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("up", &self.live.lock().is_some()).finish_non_exhaustive()
    }
}

impl<C: ClusterInterface + Clone> Link<C> {
    /// Has no client until [`replace`](Self::replace) has connected one.
    pub(super) fn unconnected(build: Build<C>, command_timeout: Duration) -> Self {
        Self { build, command_timeout, live: Mutex::new(None) }
    }

    /// Connects the first client.
    pub(super) async fn init(build: Build<C>, command_timeout: Duration) -> Result<Self, Error> {
        let link = Self::unconnected(build, command_timeout);
        let live = link.connect().await?;
        *link.live.lock() = Some(live);
        Ok(link)
    }

    /// The client in use; an error while a hanging one is being replaced. What is sent through it
    /// is sent at most once, fails at once while there is no connection, and is waited for no
    /// longer than a command may take.
    pub(super) fn client(&self) -> Result<WithOptions<C>, Error> {
        let live = self.live.lock();
        let client = live.as_ref().map(|live| live.client.clone());
        client.ok_or_else(|| Error::new(ErrorKind::Canceled, "the connection hung and is being replaced"))
    }

    /// Ends the client in use and connects another, however long that takes.
    pub(super) async fn replace(&self) {
        drop(self.live.lock().take());
        for attempt in 1.. {
            match self.connect().await {
                Ok(live) => {
                    *self.live.lock() = Some(live);
                    return;
                }
                Err(error) => tracing::debug!(attempt, %error, "no new connection to redis yet"),
            }
            time::sleep(REPLACE_BACKOFF.wait(attempt, rand::random())).await;
        }
    }

    async fn connect(&self) -> Result<Live<C>, Error> {
        let client = (self.build)()?;
        let mut task = client.connect();
        let guard = AbortOnDrop(task.abort_handle());
        let connected = async {
            tokio::select! {
                // It ends by itself only when the first connection fails.
                ended = &mut task => Err(match ended {
                    Ok(Err(error)) => error,
                    _ => Error::new(ErrorKind::Canceled, "the client ended"),
                }),
                connected = client.wait_for_connect() => connected,
            }
        };
        time::timeout(INIT_LIMIT, connected)
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "no connection in time"))??;
        Ok(Live { client: once(&client, self.command_timeout), task: guard })
    }

    /// Returns when the connection is open and does not answer, or fred's task has ended.
    pub(super) async fn until_it_hangs(&self) {
        let Ok(client) = self.client() else { return };
        let limit = self.command_timeout * BEAT_LIMIT_PART.0 / BEAT_LIMIT_PART.1;
        for beat in 0u64.. {
            time::sleep(BEAT_EVERY).await;
            if self.live.lock().as_ref().is_none_or(|live| live.task.0.is_finished()) {
                return;
            }
            // While fred reconnects, there is nothing to ask.
            if !client.is_connected() {
                continue;
            }
            let token = format!("zw-beat-{beat}");
            let hangs = match ping_all(&*client, limit, &token).await {
                Ok(fits) => !fits,
                Err(error) => matches!(error.kind(), ErrorKind::Timeout),
            };
            if hangs && client.is_connected() {
                tracing::warn!(?limit, "connection to redis does not answer, replacing it");
                return;
            }
        }
    }
}

/// A subscribed connection answers a PING with a pair, another one with the token alone.
pub(super) fn answers(answer: &Value, token: &str) -> bool {
    match answer {
        Value::Array(pair) => pair.last().is_some_and(|last| last.as_str().as_deref() == Some(token)),
        other => other.as_str().as_deref() == Some(token),
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
