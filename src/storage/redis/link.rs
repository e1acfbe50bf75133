//! A connection that is maintained: established, monitored, and replaced when it is lost.
//!
//! fred would reconnect by itself when a connection closes, but it reports that late, and until then accepts
//! calls that it cannot send. If a connection stays open but silent, fred does nothing, and once the socket
//! accepts no more bytes, fred cannot even be asked to reconnect, because its task waits in a write. So we
//! treat a connection as lost at the first error that fred reports, or when it does not answer; we then end
//! that client, with its task and its socket, and start another.
//!
//! Of a gateway's connections to a server that is away, one tries often to connect, and the others rarely:
//! once the first is established, they try too. So a server that is back is found soon with few attempts, and
//! a fact that one connection has established is not tested again by the others.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fred::clients::WithOptions;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::Value;
use fred::types::config::Server;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, broadcast, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};

use super::connect::{COMMANDS_LEN, once};
use crate::storage::ProbeFailure;
use crate::support::backoff::{Backoff, STORAGE_CONNECT, STORAGE_RETRY};

/// How often a connection is pinged.
const BEAT_EVERY: Duration = Duration::from_millis(200);
/// The part of the command timeout after which an unanswered ping means that the connection hangs. With the
/// default of 800 ms, and together with `BEAT_EVERY`, a hang is detected within 900 ms.
const BEAT_LIMIT_PART: (u32, u32) = (7, 8);
/// A client that has neither connected nor failed by then is abandoned. Longer than the client's own
/// timeouts.
const INIT_LIMIT: Duration = Duration::from_secs(2);
/// A connection that is lost sooner counts as a failed attempt.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// The most calls in progress on a connection; further ones wait. fred refuses calls beyond its own bound at
/// once, which would look like an outage.
const CALLS_MAX: usize = COMMANDS_LEN / 2;
/// How long fred may take to deliver what the server said when it ended the connection; usually no time.
const LAST_ANSWERS: Duration = Duration::from_millis(25);

type Build<C> = Arc<dyn Fn() -> Result<C, Error> + Send + Sync>;
type Errors = broadcast::Receiver<(Error, Option<Server>)>;

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) condition: Condition,
    /// How often it was up and then lost.
    pub(super) losses: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// The first attempt has no result yet.
    Connecting,
    /// It was lost, or could not be established, for this reason.
    Down(ProbeFailure),
    Up,
}

/// The present client, and how to build another.
pub(super) struct Link<C: ClientLike> {
    build: Build<C>,
    pub(super) command_timeout: Duration,
    live: Mutex<Option<Live<C>>>,
    state: watch::Sender<LinkState>,
    places: Semaphore,
    /// Consecutive attempts that did not lead to a lasting connection.
    failures: AtomicU32,
    retry: Retry,
}

/// When to retry a connection that could not be established, or did not last.
#[derive(Debug)]
enum Retry {
    /// Soon, because other connections wait for it.
    Ahead,
    /// When the connection ahead of it, if there is one, is established; otherwise rarely.
    Behind(Option<watch::Receiver<LinkState>>),
}

struct Live<C: ClientLike> {
    client: WithOptions<C>,
    /// Subscribed before the client connected; the watching task takes it.
    errors: Option<Errors>,
    since: Instant,
    /// Ends fred's task, which owns the socket.
    task: AbortOnDrop,
}

impl<C: ClientLike> fmt::Debug for Link<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl<C: EventInterface + Clone + Send + 'static> Link<C> {
    /// A link without a client until [`open`](Self::open) has connected one. Other connections to the same
    /// server should be [behind](Self::behind) it.
    pub(super) fn new(build: Build<C>, command_timeout: Duration) -> Self {
        Self::with_retry(build, command_timeout, Retry::Ahead)
    }

    /// A link for which another connection to the same server is `ahead`, if that is known.
    pub(super) fn behind(
        ahead: Option<watch::Receiver<LinkState>>,
        build: Build<C>,
        command_timeout: Duration,
    ) -> Self {
        Self::with_retry(build, command_timeout, Retry::Behind(ahead))
    }

    fn with_retry(build: Build<C>, command_timeout: Duration, retry: Retry) -> Self {
        let state = LinkState { condition: Condition::Connecting, losses: 0 };
        Self {
            build,
            command_timeout,
            live: Mutex::new(None),
            state: watch::Sender::new(state),
            places: Semaphore::new(CALLS_MAX),
            failures: AtomicU32::new(0),
            retry,
        }
    }

    /// The present client; an error if there is none. It sends each command at most once, and waits for the
    /// answer no longer than a command may take.
    pub(super) fn client(&self) -> Result<WithOptions<C>, Error> {
        let client = self.live.lock().as_ref().map(|live| live.client.clone());
        client.ok_or_else(|| {
            let why = match &self.state.borrow().condition {
                Condition::Down(failure) => format!("not connected: {failure}"),
                Condition::Connecting | Condition::Up => "not connected yet".to_owned(),
            };
            Error::new(ErrorKind::Canceled, why)
        })
    }

    /// Waits for a place among the calls in progress, no longer than a command may take.
    pub(super) async fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        let place = time::timeout(self.command_timeout, self.places.acquire()).await;
        let full = || Error::new(ErrorKind::Timeout, "too many calls are under way");
        place.map_err(|_elapsed| full())?.map_err(|_closed| full())
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Waits until [`up`](Self::up) is called.
    pub(super) async fn until_up(&self) {
        let mut state = self.state.subscribe();
        // An error would mean that the sender is gone, but `self` holds it.
        let _up = state.wait_for(|state| state.condition == Condition::Up).await;
    }

    /// Waits until the first attempt to connect has a result.
    pub(super) async fn until_tried(&self) {
        if self.state.borrow().condition != Condition::Connecting {
            return;
        }
        let mut state = self.state.subscribe();
        let _tried = state.wait_for(|state| state.condition != Condition::Connecting).await;
    }

    /// Connects, and reconnects whenever the connection is lost. Runs until it is dropped. Not for
    /// connections that need preparation before use.
    pub(super) async fn keep(&self) {
        loop {
            self.open(|_| ()).await;
            self.up();
            let failure = self.until_lost().await;
            self.lose(failure).await;
        }
    }

    /// Waits until an attempt to connect has failed, the first one or a later one.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        let mut state = self.state.subscribe();
        loop {
            if let Condition::Down(failure) = &state.borrow_and_update().condition {
                return failure.clone();
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Connects a client, however long that takes, and passes it to `first` before anybody else can use it.
    pub(super) async fn open<T>(&self, first: impl Fn(&WithOptions<C>) -> T) -> T {
        let mut pause = Pause::of(&self.retry);
        loop {
            let failures = self.failures.load(Ordering::Relaxed);
            if failures > 0 {
                pause.over(failures).await;
            }
            pause.begins_anew();
            match self.connect().await {
                Ok(live) => {
                    let taken = first(&live.client);
                    *self.live.lock() = Some(live);
                    return taken;
                }
                Err(error) => {
                    tracing::debug!(failures, %error, "no connection to redis yet");
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    self.down(ProbeFailure::of(&error), 0);
                }
            }
        }
    }

    /// Reports that the present client can serve.
    pub(super) fn up(&self) {
        self.state.send_if_modified(|state| {
            let changed = state.condition != Condition::Up;
            state.condition = Condition::Up;
            changed
        });
    }

    /// Reports that the present client can no longer serve, and ends it.
    pub(super) async fn lose(&self, failure: ProbeFailure) {
        let Some(live) = self.live.lock().take() else { return };
        let was_up = self.state.borrow().condition == Condition::Up;
        tracing::debug!(code = failure.code(), reason = %failure, "connection to redis lost");
        if was_up && live.since.elapsed() >= STEADY_AFTER {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let is_silent = matches!(failure, ProbeFailure::NoAnswer | ProbeFailure::Unreachable(_));
        self.down(failure, u64::from(was_up));
        if !is_silent {
            // Callers should learn the server's last answer rather than that we closed the connection.
            time::sleep(LAST_ANSWERS).await;
        }
        drop(live);
    }

    fn down(&self, failure: ProbeFailure, losses: u64) {
        self.state.send_if_modified(|state| {
            let condition = Condition::Down(failure);
            let changed = losses > 0 || state.condition != condition;
            state.condition = condition;
            state.losses += losses;
            changed
        });
    }

    /// fred allocates room for everything that a client may hold at once: tens of megabytes. That must not
    /// keep a thread of the runtime from reporting a lost connection.
    async fn client_to_connect(&self) -> Result<C, Error> {
        let build = Arc::clone(&self.build);
        let built = tokio::task::spawn_blocking(move || build()).await;
        built.unwrap_or_else(|_| Err(Error::new(ErrorKind::Canceled, "the program ends")))
    }

    async fn connect(&self) -> Result<Live<C>, Error> {
        let client = self.client_to_connect().await?;
        let errors = client.error_rx();
        let guard = connect_client(&client).await?;
        let client = once(&client, self.command_timeout);
        // A server that is loading accepts connections, and answers nothing else.
        match client.ping::<Value>(None).await {
            Err(error) if !error.details().starts_with("NOPERM") => Err(error),
            _ => Ok(Live { client, errors: Some(errors), since: Instant::now(), task: guard }),
        }
    }

    /// Returns when the connection is lost: closed, refused by the server's answers (fred reports READONLY,
    /// LOADING and the like), or open without an answer.
    pub(super) async fn until_lost(&self) -> ProbeFailure {
        let (client, errors) = {
            let mut live = self.live.lock();
            let Some(live) = live.as_mut() else { return ProbeFailure::Unreachable("not connected".into()) };
            (live.client.clone(), live.errors.take())
        };
        let mut errors = errors.unwrap_or_else(|| client.error_rx());
        tokio::select! {
            biased;
            error = errors.recv() => match error {
                Ok((error, _)) => ProbeFailure::of(&error),
                Err(_) => ProbeFailure::Unreachable("the client ended".into()),
            },
            failure = self.until_silent(&client) => failure,
        }
    }

    /// Returns when the connection does not answer, or fred's task has ended silently.
    async fn until_silent(&self, client: &WithOptions<C>) -> ProbeFailure {
        let limit = self.command_timeout * BEAT_LIMIT_PART.0 / BEAT_LIMIT_PART.1;
        for beat in 0u64.. {
            time::sleep(BEAT_EVERY).await;
            if self.live.lock().as_ref().is_none_or(|live| live.task.0.is_finished()) {
                break;
            }
            let token = format!("zw-beat-{beat}");
            match once(&**client, limit).ping::<Value>(Some(token.clone())).await {
                Ok(answer) if !answers(&answer, &token) => {
                    return ProbeFailure::Unexpected("answers are out of step".into());
                }
                Err(error) if *error.kind() == ErrorKind::Timeout => {
                    tracing::warn!(?limit, "connection to redis does not answer, replacing it");
                    return ProbeFailure::NoAnswer;
                }
                // fred reports errors that matter, so they are handled there.
                _ => {}
            }
        }
        ProbeFailure::Unreachable("the client ended".into())
    }
}

/// The wait between two attempts.
struct Pause {
    wait: Backoff,
    ahead: Option<watch::Receiver<LinkState>>,
}

impl Pause {
    fn of(retry: &Retry) -> Self {
        let mut pause = match retry {
            Retry::Ahead => Self { wait: STORAGE_CONNECT, ahead: None },
            Retry::Behind(ahead) => Self { wait: STORAGE_RETRY, ahead: ahead.clone() },
        };
        pause.begins_anew();
        pause
    }

    /// An attempt begins. If the connection ahead is established from here on, the next wait is skipped.
    fn begins_anew(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.mark_unchanged();
        }
    }

    /// Waits before the attempt that follows so many failures.
    async fn over(&mut self, failures: u32) {
        let ahead = async {
            match &mut self.ahead {
                Some(ahead) => until_made(ahead).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wait.pause(failures) => {}
            () = ahead => {}
        }
    }
}

/// Waits until a connection that was last seen down is established.
async fn until_made(state: &mut watch::Receiver<LinkState>) {
    while state.changed().await.is_ok() {
        if state.borrow_and_update().condition == Condition::Up {
            return;
        }
    }
    // The connection is gone for good.
    std::future::pending().await
}

/// Connects a client, once. Its task ends when the returned guard is dropped, or when this future is.
pub(super) async fn connect_client<C: ClientLike>(client: &C) -> Result<AbortOnDrop, Error> {
    let mut task = client.connect();
    let guard = AbortOnDrop(task.abort_handle());
    let connected = async {
        tokio::select! {
            // The task ends by itself only if the first connection fails.
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
    Ok(guard)
}

/// A subscribed connection answers PING with a pair, any other with the token alone.
pub(super) fn answers(answer: &Value, token: &str) -> bool {
    match answer {
        Value::Array(pair) => pair.last().is_some_and(|last| last.as_str().as_deref() == Some(token)),
        other => other.as_str().as_deref() == Some(token),
    }
}

/// Connections to servers that come and go, all run by one future that accepts new ones.
pub(super) struct Members<T> {
    /// Members that do not run yet, each with the signal that ends it.
    begun: Mutex<Vec<(T, oneshot::Receiver<()>)>>,
    more: Notify,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self { begun: Mutex::default(), more: Notify::new() }
    }
}

impl<T> Members<T> {
    /// Adds a member, which runs until the returned sender is dropped.
    pub(super) fn add(&self, member: T) -> oneshot::Sender<()> {
        let (alive, gone) = oneshot::channel();
        self.begun.lock().push((member, gone));
        self.more.notify_one();
        alive
    }

    /// Runs all members. Runs until it is dropped.
    pub(super) async fn run<F: Future<Output = ()>>(&self, run: impl Fn(T) -> F) {
        let mut running = FuturesUnordered::new();
        loop {
            let begun = std::mem::take(&mut *self.begun.lock());
            for (member, gone) in begun {
                let run = run(member);
                running.push(async move {
                    tokio::select! {
                        () = run => {}
                        _ = gone => {}
                    }
                });
            }
            tokio::select! {
                _ended = running.next(), if !running.is_empty() => {}
                () = self.more.notified() => {}
            }
        }
    }
}

/// Waits until one of several connections has failed, and returns why. `changes` notifies of their changes.
pub(super) async fn until_one_failed(
    mut changes: watch::Receiver<u64>,
    states: impl Fn() -> Vec<LinkState>,
) -> ProbeFailure {
    loop {
        changes.borrow_and_update();
        let failed = states().into_iter().find_map(|state| match state.condition {
            Condition::Down(failure) => Some(failure),
            Condition::Connecting | Condition::Up => None,
        });
        if let Some(failure) = failed {
            return failure;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Calls `tell` at each change of a connection's state, until the connection is gone.
pub(super) async fn keep_telling(mut state: watch::Receiver<LinkState>, tell: impl Fn()) {
    while state.changed().await.is_ok() {
        tell();
    }
}

/// Ends one of fred's tasks, and with it the socket.
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(condition: Condition) -> (watch::Sender<LinkState>, Pause) {
        let (state, ahead) = watch::channel(LinkState { condition, losses: 0 });
        (state, Pause::of(&Retry::Behind(Some(ahead))))
    }

    fn away() -> Condition {
        Condition::Down(ProbeFailure::NoAnswer)
    }

    /// How long the wait after many failures is, while the connection ahead does this.
    async fn length(pause: &mut Pause, doing: impl Future<Output = ()>) -> Duration {
        let begun = Instant::now();
        let over = async {
            pause.over(100).await;
            begun.elapsed()
        };
        tokio::join!(over, doing).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_behind_another_is_tried_when_that_is_established() {
        let (state, mut pause) = states(away());
        let is = |condition| state.send_modify(|state| state.condition = condition);
        let made_later = async {
            time::sleep(Duration::from_millis(10)).await;
            is(Condition::Down(ProbeFailure::Loading));
            time::sleep(Duration::from_millis(10)).await;
            is(Condition::Up);
        };
        let made = length(&mut pause, made_later).await;
        assert!(made < Duration::from_millis(30), "{made:?}");
        // An earlier success of the connection ahead says nothing about later attempts.
        pause.begins_anew();
        assert!(length(&mut pause, async {}).await >= STORAGE_RETRY.max);
        // The connection ahead is established during an attempt.
        is(away());
        pause.begins_anew();
        is(Condition::Up);
        assert_eq!(length(&mut pause, async {}).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unstable_connection_behind_a_stable_one_is_not_tried_more_often() {
        let (state, mut pause) = states(Condition::Up);
        assert!(length(&mut pause, async {}).await >= STORAGE_RETRY.max);
        // The connection ahead is gone for good.
        assert!(length(&mut pause, async { drop(state) }).await >= STORAGE_RETRY.max);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_ahead_is_tried_often_but_never_without_a_pause() {
        let mut pause = Pause::of(&Retry::Ahead);
        let shortest = [1, 2, 3, 100].map(|failures| STORAGE_CONNECT.wait_with(failures, 0.0).as_millis());
        assert_eq!(shortest, [50, 100, 200, 200]);
        let taken = length(&mut pause, async {}).await;
        let longest = STORAGE_CONNECT.max + STORAGE_CONNECT.jitter + Duration::from_millis(1);
        assert!((STORAGE_CONNECT.max..=longest).contains(&taken), "{taken:?}");
    }
}
