//! A connection that is kept: made, watched, and made anew when it is lost.
//!
//! fred would reconnect by itself when a connection closes, but it says so a while later, and
//! meanwhile it takes calls that it cannot send. It does nothing when a connection stays open and
//! silent, and it cannot even be told to once the socket takes no more bytes: its task then waits in
//! a write. So a connection is lost for us with the first error that fred tells of it, or when it
//! does not answer; then we end that client, with its task and its socket, and begin with another.
//!
//! Of the connections of a gateway to a server that is away, one tries often to connect, and the others now
//! and then: as soon as it is made, they try too. So a server that is back is found soon by few attempts, and
//! what one connection has proved no other waits for once more.

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

/// How often a connection is asked whether it lives.
const BEAT_EVERY: Duration = Duration::from_millis(200);
/// Without an answer for this part of the time that a command may take, it is taken for hanging. With
/// the default of 800 ms, and together with `BEAT_EVERY`, a hang is noticed within 900 ms.
const BEAT_LIMIT_PART: (u32, u32) = (7, 8);
/// A client that has neither connected nor failed by then is given up. Longer than its own timeouts.
const INIT_LIMIT: Duration = Duration::from_secs(2);
/// A connection that is lost sooner counts as a failed attempt.
const STEADY_AFTER: Duration = Duration::from_secs(1);
/// Calls that are under way on a connection at the same time; more wait. fred refuses what is beyond its
/// own bound at once, which would be taken for an outage.
const CALLS_MAX: usize = COMMANDS_LEN / 2;
/// How long fred has to hand on what the server said when that ends a connection; it does so at once.
const LAST_ANSWERS: Duration = Duration::from_millis(25);

type Build<C> = Arc<dyn Fn() -> Result<C, Error> + Send + Sync>;
type Errors = broadcast::Receiver<(Error, Option<Server>)>;

/// How a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) condition: Condition,
    /// How often it was up and then lost.
    pub(super) losses: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// The first attempt is not decided.
    Connecting,
    /// Lost or not made, and this is why.
    Down(ProbeFailure),
    Up,
}

/// The client in use, and how to make another.
pub(super) struct Link<C: ClientLike> {
    build: Build<C>,
    command_timeout: Duration,
    live: Mutex<Option<Live<C>>>,
    state: watch::Sender<LinkState>,
    places: Semaphore,
    /// Attempts in a row that brought no lasting connection.
    failures: AtomicU32,
    turn: Turn,
}

/// When a connection is tried that was not made, or did not last.
#[derive(Debug)]
enum Turn {
    /// Soon: others wait for it.
    Ahead,
    /// When the one ahead of it is made, where there is one, and now and then by itself.
    Behind(Option<watch::Receiver<LinkState>>),
}

struct Live<C: ClientLike> {
    client: WithOptions<C>,
    /// From before the connection was made; taken by the one who watches.
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
    /// Has no client until [`open`](Self::open) has connected one. Other connections to the same server are
    /// to be [behind](Self::behind) it.
    pub(super) fn new(build: Build<C>, command_timeout: Duration) -> Self {
        Self::in_turn(build, command_timeout, Turn::Ahead)
    }

    /// The same of a connection that has another one to the same server `ahead` of it, where that is known.
    pub(super) fn behind(
        ahead: Option<watch::Receiver<LinkState>>,
        build: Build<C>,
        command_timeout: Duration,
    ) -> Self {
        Self::in_turn(build, command_timeout, Turn::Behind(ahead))
    }

    fn in_turn(build: Build<C>, command_timeout: Duration, turn: Turn) -> Self {
        let state = LinkState { condition: Condition::Connecting, losses: 0 };
        Self {
            build,
            command_timeout,
            live: Mutex::new(None),
            state: watch::Sender::new(state),
            places: Semaphore::new(CALLS_MAX),
            failures: AtomicU32::new(0),
            turn,
        }
    }

    /// The client in use; an error while there is none. What is sent through it is sent at most
    /// once, and is waited for no longer than a command may take.
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

    /// Waits for a place among the calls that are under way, for no longer than a command may take.
    pub(super) async fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        let place = time::timeout(self.command_timeout, self.places.acquire()).await;
        let full = || Error::new(ErrorKind::Timeout, "too many calls are under way");
        place.map_err(|_elapsed| full())?.map_err(|_closed| full())
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Waits until [`up`](Self::up) is said.
    pub(super) async fn until_up(&self) {
        let mut state = self.state.subscribe();
        // An error would mean that the sender is gone, and we hold it.
        let _up = state.wait_for(|state| state.condition == Condition::Up).await;
    }

    /// Waits until the first attempt to connect is decided.
    pub(super) async fn until_tried(&self) {
        if self.state.borrow().condition != Condition::Connecting {
            return;
        }
        let mut state = self.state.subscribe();
        let _tried = state.wait_for(|state| state.condition != Condition::Connecting).await;
    }

    /// Connects, and connects again whenever the connection is lost. Runs until it is dropped. Not for
    /// a connection that something has to be done on first.
    pub(super) async fn keep(&self) {
        loop {
            self.open(|_| ()).await;
            self.up();
            let failure = self.until_lost().await;
            self.lose(failure).await;
        }
    }

    /// Waits until the first attempt, or one after it, has failed.
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

    /// Connects a client, however long that takes, and hands it to `first` before anybody else can
    /// use it.
    pub(super) async fn open<T>(&self, first: impl Fn(&WithOptions<C>) -> T) -> T {
        let mut pause = Pause::of(&self.turn);
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

    /// Says that the client in use can serve.
    pub(super) fn up(&self) {
        self.state.send_if_modified(|state| {
            let changed = state.condition != Condition::Up;
            state.condition = Condition::Up;
            changed
        });
    }

    /// Says that the client in use cannot serve any more, and ends it.
    pub(super) async fn lose(&self, failure: ProbeFailure) {
        let Some(live) = self.live.lock().take() else { return };
        let was_up = self.state.borrow().condition == Condition::Up;
        tracing::debug!(code = failure.code(), reason = failure.reason(), "connection to redis lost");
        if was_up && live.since.elapsed() >= STEADY_AFTER {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let is_silent = matches!(failure, ProbeFailure::NoAnswer | ProbeFailure::Unreachable(_));
        self.down(failure, u64::from(was_up));
        if !is_silent {
            // Callers learn what the server said last, not that we hung up on it.
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

    /// fred allocates room for all that a client may have to hold at once: tens of megabytes, which
    /// must not keep a thread of the runtime from saying that a connection was lost.
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
        // A server that is loading lets us in, and answers nothing else.
        match client.ping::<Value>(None).await {
            Err(error) if !error.details().starts_with("NOPERM") => Err(error),
            _ => Ok(Live { client, errors: Some(errors), since: Instant::now(), task: guard }),
        }
    }

    /// Returns when the connection is lost: closed, refused by what the server answers (fred tells
    /// of READONLY, LOADING and the like), or open without an answer.
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

    /// Returns when the connection does not answer, or fred's task has ended without a word.
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
                // An error that matters is told by fred, too.
                _ => {}
            }
        }
        ProbeFailure::Unreachable("the client ended".into())
    }
}

/// What is waited for between two attempts.
struct Pause {
    wait: Backoff,
    ahead: Option<watch::Receiver<LinkState>>,
}

impl Pause {
    fn of(turn: &Turn) -> Self {
        let mut pause = match turn {
            Turn::Ahead => Self { wait: STORAGE_CONNECT, ahead: None },
            Turn::Behind(ahead) => Self { wait: STORAGE_RETRY, ahead: ahead.clone() },
        };
        pause.begins_anew();
        pause
    }

    /// An attempt begins. If the connection ahead is made from here on, there will be no pause after it.
    fn begins_anew(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.mark_unchanged();
        }
    }

    /// Waits before the next attempt after so many failures.
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

/// Waits until a connection is made that was not, as far as that was seen.
async fn until_made(state: &mut watch::Receiver<LinkState>) {
    while state.changed().await.is_ok() {
        if state.borrow_and_update().condition == Condition::Up {
            return;
        }
    }
    // It is gone, and will not be made any more.
    std::future::pending().await
}

/// Connects a client, once. Its task ends with what this gives, or when this is dropped.
pub(super) async fn connect_client<C: ClientLike>(client: &C) -> Result<AbortOnDrop, Error> {
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
    Ok(guard)
}

/// A subscribed connection answers a PING with a pair, another one with the token alone.
pub(super) fn answers(answer: &Value, token: &str) -> bool {
    match answer {
        Value::Array(pair) => pair.last().is_some_and(|last| last.as_str().as_deref() == Some(token)),
        other => other.as_str().as_deref() == Some(token),
    }
}

/// Connections to servers that come and go, all of which are run by one who waits for more.
pub(super) struct Members<T> {
    /// Those that are not run yet, and what ends each.
    begun: Mutex<Vec<(T, oneshot::Receiver<()>)>>,
    more: Notify,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self { begun: Mutex::default(), more: Notify::new() }
    }
}

impl<T> Members<T> {
    /// Has another one run until the answer is dropped.
    pub(super) fn add(&self, member: T) -> oneshot::Sender<()> {
        let (alive, gone) = oneshot::channel();
        self.begun.lock().push((member, gone));
        self.more.notify_one();
        alive
    }

    /// Runs each of them. Runs until it is dropped.
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

/// Calls `tell` whenever a connection changes how it is, for as long as it lasts.
pub(super) async fn keep_telling(mut state: watch::Receiver<LinkState>, tell: impl Fn()) {
    while state.changed().await.is_ok() {
        tell();
    }
}

/// Ends a task of fred's, and with it the socket.
pub(super) struct AbortOnDrop(AbortHandle);

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
        (state, Pause::of(&Turn::Behind(Some(ahead))))
    }

    fn away() -> Condition {
        Condition::Down(ProbeFailure::NoAnswer)
    }

    /// How long a pause after many failures is, while the connection ahead of it does this.
    async fn length(pause: &mut Pause, doing: impl Future<Output = ()>) -> Duration {
        let begun = Instant::now();
        let over = async {
            pause.over(100).await;
            begun.elapsed()
        };
        tokio::join!(over, doing).0
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_behind_a_connection_is_tried_as_soon_as_that_is_made() {
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
        // It proves nothing of what is tried after it.
        pause.begins_anew();
        assert!(length(&mut pause, async {}).await >= STORAGE_RETRY.max);
        // Made while it is tried.
        is(away());
        pause.begins_anew();
        is(Condition::Up);
        assert_eq!(length(&mut pause, async {}).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_last_though_the_one_ahead_does_is_not_tried_more_often() {
        let (state, mut pause) = states(Condition::Up);
        assert!(length(&mut pause, async {}).await >= STORAGE_RETRY.max);
        // The one ahead is gone for good.
        assert!(length(&mut pause, async { drop(state) }).await >= STORAGE_RETRY.max);
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_others_wait_for_is_tried_often_and_never_without_a_pause() {
        let mut pause = Pause::of(&Turn::Ahead);
        let shortest = [1, 2, 3, 100].map(|failures| STORAGE_CONNECT.wait_with(failures, 0.0).as_millis());
        assert_eq!(shortest, [50, 100, 200, 200]);
        let taken = length(&mut pause, async {}).await;
        let longest = STORAGE_CONNECT.max + STORAGE_CONNECT.jitter + Duration::from_millis(1);
        assert!((STORAGE_CONNECT.max..=longest).contains(&taken), "{taken:?}");
    }
}
