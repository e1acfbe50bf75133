//! Runs the feed of an exchange: holds its lease, maintains a connection, and publishes what the adapter
//! emits.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zonewire_protocol::stats::{FeedCounts, FeedState, FeedView, Live as _};

use super::lease::{Lease, Lost};
use super::pending::{self, PendingTrades};
use super::session::{Came, Session, reconnects};
use super::{ExchangeConfig, ExchangeKind, Feed, FeedEvent, Moment, Resume, Step, Trouble, adapter};
use crate::channels::{Channels, PublishError};
use crate::model::{ChannelName, DraftEntry, EventType, NodeId, Zone};
use crate::protocol::{parse_event, parse_price};
use crate::storage::{SharedBackend, StorageError};
use crate::support::backoff::RECONNECT;
use crate::support::counter::Counter;
use crate::support::seldom::Seldom;

/// How many frames are processed together.
const FRAMES_AT_ONCE: usize = 256;

/// A connection that lasts this long was a good one: the next backoff starts short again.
const GOOD_AFTER: Duration = Duration::from_secs(60);

/// How often problems are published as events; all of them are counted.
const PROBLEM_EVERY: Duration = Duration::from_secs(1);

/// How many of the newest trades are read to find the last number of each symbol.
const TRADES_READ: usize = 10_000;

/// The counters and the state of a feed.
#[derive(Debug)]
pub(crate) struct FeedCounters {
    pub(super) counts: FeedCounts<Counter>,
    state: Mutex<(FeedState, String)>,
    /// The problem with the lease, and whether it was published as an event.
    lease: Mutex<Option<(String, bool)>>,
    kind: &'static str,
}

impl FeedCounters {
    pub(crate) fn new(kind: &'static str) -> Arc<Self> {
        let state = Mutex::new((FeedState::Standby, "it waits for its lease".to_owned()));
        Arc::new(Self { counts: FeedCounts::default(), state, lease: Mutex::new(None), kind })
    }

    /// Records that the lease cannot be renewed and how long it lasts, or, with `None`, that all is well.
    fn lease_is_shaky(&self, left: Option<Duration>) {
        let problem = left.map(|left| {
            let left = left.as_secs_f64();
            format!("its lease cannot be renewed: it continues for {left:.1} s, then stops until the storage is back")
        });
        if let Some(problem) = &problem {
            self.counts.lease_failures.add(1);
            warn!(kind = self.kind, problem, "a feed may have to stop");
        }
        *self.lease.lock() = problem.map(|problem| (problem, false));
    }

    /// The problem with the lease, if it has not been published as an event yet.
    fn unpublished_problem(&self) -> Option<String> {
        let mut lease = self.lease.lock();
        let (problem, is_published) = lease.as_mut()?;
        (!std::mem::replace(is_published, true)).then(|| problem.clone())
    }

    pub(super) fn is(&self, state: FeedState, reason: impl Into<String>) {
        *self.state.lock() = (state, reason.into());
    }

    /// The feed's part of `/ws/stats`.
    pub(crate) fn view(&self) -> FeedView {
        let (state, mut reason) = self.state.lock().clone();
        if let Some((problem, _)) = &*self.lease.lock() {
            reason.clone_from(problem);
        }
        FeedView {
            kind: self.kind.to_owned(),
            connected: u64::from(state == FeedState::Connected),
            state: state.as_str().to_owned(),
            reason,
            counts: self.counts.read(),
        }
    }
}

/// What a feed is built from.
pub(crate) struct ExchangeParts {
    pub(crate) config: ExchangeConfig,
    pub(crate) channels: Channels,
    pub(crate) backend: SharedBackend,
    pub(crate) node: NodeId,
    pub(crate) counters: Arc<FeedCounters>,
    /// Ends the feed when cancelled.
    pub(crate) stop: CancellationToken,
}

/// Runs until `stop` is cancelled; then releases the lease, so that another process can take over at once.
pub(crate) async fn run_exchange(parts: ExchangeParts) {
    let ExchangeParts { config, channels, backend, node, counters, stop } = parts;
    let lease = Lease::new(backend, config.name(), node);
    let mut publisher = Publisher::new(config.name().to_owned(), channels, Arc::clone(&counters));
    let running = async {
        loop {
            counters.is(FeedState::Standby, "it waits for its lease");
            let fence = lease.take().await;
            let lost = tokio::select! {
                biased;
                lost = lease.keep(|left| counters.lease_is_shaky(left)) => lost,
                () = connections(&config, &lease, &mut publisher, fence) => Lost::RanOut,
            };
            let (exchange, reason) = (config.name(), lost.reason());
            warn!(exchange, fence, reason, "this process no longer runs the feed");
            counters.counts.leases_lost.add(1);
            counters.lease_is_shaky(None);
            counters.is(FeedState::Standby, reason);
            publisher.error("lease", reason).await;
            publisher.state(EventType::ExchangeDisconnected, reason, &[]).await;
        }
    };
    stop.run_until_cancelled_owned(running).await;
    lease.let_go().await;
}

/// Makes one connection after the other, until the lease is lost.
async fn connections(config: &ExchangeConfig, lease: &Lease, publisher: &mut Publisher, fence: u64) {
    let mut attempt = 0;
    // Another process may have published since.
    publisher.is_looked_up = false;
    while lease.is_held() {
        let begun = Instant::now();
        publisher.counters.is(FeedState::Connecting, "connecting");
        // Trades that wait for the log are appended even while the exchange is away.
        let _published = publisher.publish(Batch::default()).await;
        let reason = match publisher.look_up(&config.symbols).await {
            Ok(()) => connection(config, lease, publisher, fence).await,
            Err(reason) => reason,
        };
        if !lease.is_held() {
            return;
        }
        attempt = if begun.elapsed() >= GOOD_AFTER { 1 } else { attempt + 1 };
        let wait = RECONNECT.wait(attempt);
        publisher.counters.counts.reconnects.add(1);
        info!(exchange = config.name(), reason, attempt, wait_ms = wait.as_millis(), "reconnecting a feed");
        publisher.counters.is(FeedState::Waiting, reason.as_str());
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let more = [("attempt", u64::from(attempt)), ("delayMs", wait_ms)];
        publisher.state(EventType::ExchangeReconnecting, &reason, &more).await;
        tokio::time::sleep(wait).await;
    }
}

/// Runs one connection, and returns why it ended.
async fn connection(config: &ExchangeConfig, lease: &Lease, publisher: &mut Publisher, fence: u64) -> String {
    let is_polled = config.kind == ExchangeKind::Http;
    let mut session = match Session::open((!is_polled).then(|| config.url())).await {
        Ok(session) => session,
        Err(reason) => return reason,
    };
    let at = Moment::read();
    let mut feed = adapter(config, &publisher.resume, at);
    let mut steps = Vec::new();
    feed.connected(at, &mut steps);
    let mut is_ready = false;
    let ended = loop {
        let reason = reconnects(&steps).map(str::to_owned);
        if !lease.is_held() {
            break "the lease ran out".to_owned();
        }
        let steps_now = std::mem::take(&mut steps);
        if let Err(ended) = publisher.perform(steps_now, &mut session, &mut is_ready, fence).await {
            break ended;
        }
        if let Some(reason) = reason {
            break reason;
        }
        if let Some(problem) = publisher.counters.unpublished_problem() {
            publisher.error("lease", &problem).await;
        }
        // Frames that have arrived already are processed together.
        let mut came = Some(session.next().await);
        for _ in 0..FRAMES_AT_ONCE {
            let Some(next) = came.take() else { break };
            let is_end = matches!(next, Came::End(_));
            publisher.understand(&mut *feed, next, &mut steps);
            if is_end {
                break;
            }
            came = session.next_now();
        }
        if let Some(last) = came {
            publisher.understand(&mut *feed, last, &mut steps);
        }
    };
    if is_ready {
        publisher.state(EventType::ExchangeDisconnected, &ended, &[]).await;
    }
    ended
}

pub(super) struct Publisher {
    exchange: String,
    channels: Channels,
    counters: Arc<FeedCounters>,
    pending: PendingTrades,
    resume: Resume,
    /// Whether `resume` is up to date; otherwise it is looked up in the log.
    is_looked_up: bool,
    /// When problems may be published as events.
    problems: Seldom,
}

impl Publisher {
    pub(super) fn new(exchange: String, channels: Channels, counters: Arc<FeedCounters>) -> Self {
        let pending = PendingTrades::new(exchange.clone());
        let problems = Seldom::every(PROBLEM_EVERY);
        Self { exchange, channels, counters, pending, resume: Resume::new(), is_looked_up: false, problems }
    }

    /// Passes what arrived to the adapter.
    fn understand(&self, feed: &mut dyn Feed, came: Came, steps: &mut Vec<Step>) {
        let at = Moment::read();
        let understood = match came {
            Came::Frame(text) => {
                self.counters.counts.frames.add(1);
                feed.frame(text.as_str(), at, steps)
            }
            Came::Answer { id, answer } => {
                self.counters.counts.requests.add(1);
                feed.fetched(id, answer.as_deref().map_err(Clone::clone), at, steps)
            }
            Came::Tick => {
                feed.tick(at, steps);
                Ok(())
            }
            Came::End(reason) => {
                steps.push(Step::Reconnect(reason));
                Ok(())
            }
        };
        if let Err(problem) = understood {
            steps.push(Step::Trouble(Trouble::Malformed(problem)));
        }
    }

    /// Performs steps in order; everything to be published goes into one batch.
    async fn perform(
        &mut self,
        steps: Vec<Step>,
        session: &mut Session,
        is_ready: &mut bool,
        fence: u64,
    ) -> Result<(), String> {
        let (mut batch, mut troubles, mut becomes_ready) = (Batch::default(), Vec::new(), false);
        for step in steps {
            match step {
                Step::Event(event) => self.add_event(&mut batch, event),
                Step::Price { zone, json } => self.add_price(&mut batch, &zone, &json),
                Step::Send(text) => session.send(text).await?,
                Step::Fetch { id, url } => session.fetch(id, url),
                Step::Ready => becomes_ready = true,
                Step::Trouble(trouble) => troubles.push(trouble),
                Step::Reconnect(_) => {}
            }
        }
        if becomes_ready {
            *is_ready = true;
            self.counters.is(FeedState::Connected, "");
            info!(exchange = self.exchange, fence, "a feed is connected");
            self.state(EventType::ExchangeConnected, "", &[("fence", fence)]).await;
        }
        self.publish(batch).await?;
        for trouble in troubles {
            self.trouble(&trouble).await;
        }
        Ok(())
    }

    pub(super) fn add_event(&self, batch: &mut Batch, event: FeedEvent) {
        let FeedEvent { kind, json, trade } = event;
        let channel = ChannelName::event(kind);
        match parse_event(kind, &json, Utc::now(), self.channels.config().ahead_max(&channel)) {
            Ok(draft) => match trade.and_then(|(symbol, id)| Some((symbol, id, pending::sequence(id)?))) {
                Some((symbol, id, seq)) => batch.trades.push(Numbered { symbol, id, seq, draft }),
                None => batch.add(channel, draft),
            },
            Err(error) => self.unfit(&error.to_string()),
        }
    }

    pub(super) fn add_price(&self, batch: &mut Batch, zone: &Zone, json: &str) {
        let channel = ChannelName::zone(zone);
        match parse_price(json, Utc::now(), self.channels.config().ahead_max(&channel)) {
            Ok(draft) => batch.add(channel, draft),
            Err(error) => self.unfit(&error.to_string()),
        }
    }

    /// Counts and logs a value that no gateway accepts, such as a time far ahead.
    fn unfit(&self, problem: &str) {
        self.counters.counts.malformed.add(1);
        warn!(exchange = self.exchange, problem, "an exchange sent a value that is not accepted");
    }

    /// Publishes a batch. If something is not accepted, the connection ends: the next one starts with a
    /// snapshot of each book and the missing trades.
    pub(super) async fn publish(&mut self, batch: Batch) -> Result<(), String> {
        for Numbered { symbol, id, seq, draft } in batch.trades {
            self.resume.insert(symbol.clone(), id);
            self.pending.push(symbol, seq, draft);
        }
        self.publish_under_own_ids(batch.channels).await.inspect_err(|_| self.is_looked_up = false)?;
        let (appended, answer) = self.pending.append(&self.channels).await;
        self.counters.counts.events.add(appended.accepted as u64);
        self.counters.counts.unpublished.add(appended.left_out as u64);
        let reason = match answer {
            Ok(()) if !self.pending.is_full() => return Ok(()),
            Ok(()) => "too many trades wait for the log".to_owned(),
            Err(error) => format!("trades were not accepted: {error}"),
        };
        warn!(exchange = self.exchange, reason, "trades of an exchange will be requested again");
        self.counters.counts.unpublished.add(self.pending.give_up(&mut self.resume) as u64);
        self.is_looked_up = false;
        Err(reason)
    }

    /// Publishes entries that get ids of this gateway.
    async fn publish_under_own_ids(
        &self,
        channels: BTreeMap<ChannelName, Vec<DraftEntry>>,
    ) -> Result<(), String> {
        for (channel, drafts) in channels {
            let count = drafts.len() as u64;
            match self.channels.publish(&channel, drafts).await {
                Ok(()) => {
                    self.counters.counts.events.add(count);
                }
                Err(error @ (PublishError::TooManyZones { .. } | PublishError::TooManyKeys { .. })) => {
                    self.counters.counts.unpublished.add(count);
                    warn!(exchange = self.exchange, %channel, %error, "prices of an exchange were left out");
                }
                Err(error) => {
                    self.counters.counts.events.add(error.accepted() as u64);
                    self.counters.counts.unpublished.add(count - error.accepted() as u64);
                    warn!(exchange = self.exchange, %channel, %error, "events of an exchange were not accepted");
                    return Err(format!("events were not accepted: {error}"));
                }
            }
        }
        Ok(())
    }

    async fn trouble(&mut self, trouble: &Trouble) {
        let counts = &self.counters.counts;
        match trouble {
            Trouble::Malformed(_) => counts.malformed.add(1),
            Trouble::Gap(_) => counts.gaps.add(1),
            Trouble::TradesMissed { count, .. } => counts.trades_missed.add(*count),
            Trouble::Refused(_) => counts.refused.add(1),
        }
        // Missed trades are reported in any case.
        let is_loss = matches!(trouble, Trouble::TradesMissed { .. });
        if self.problems.may_tell(Instant::now()).is_some() || is_loss {
            self.error(trouble.code(), trouble.reason()).await;
        }
    }

    async fn error(&self, code: &str, reason: &str) {
        warn!(exchange = self.exchange, code, reason, "problem with an exchange");
        let json = serde_json::json!({"exchange": self.exchange, "code": code, "reason": reason});
        self.publish_event(EventType::ExchangeError, &json).await;
    }

    /// Publishes the state of the connection to the exchange.
    async fn state(&self, kind: EventType, reason: &str, more: &[(&str, u64)]) {
        let mut json = serde_json::json!({"exchange": self.exchange});
        if !reason.is_empty() {
            json["reason"] = reason.into();
        }
        for (name, number) in more {
            json[*name] = (*number).into();
        }
        self.publish_event(kind, &json).await;
    }

    async fn publish_event(&self, kind: EventType, json: &serde_json::Value) {
        let mut batch = Batch::default();
        self.add_event(&mut batch, FeedEvent { kind, json: json.to_string(), trade: None });
        // Whether it was accepted shows in the log and in the counters.
        let _counted = self.publish_under_own_ids(batch.channels).await;
    }

    /// Reads the numbers of the last trades from the log if they are unknown: another process may have
    /// published some.
    async fn look_up(&mut self, symbols: &[String]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Data {
            data: TradeData,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct TradeData {
            exchange: String,
            symbol: String,
            trade_id: Option<String>,
        }
        if self.is_looked_up {
            return Ok(());
        }
        let channel = ChannelName::event(EventType::Trade);
        let unread = |error: StorageError| format!("the last trades cannot be read: {error}");
        for symbol in symbols {
            // The log remembers a producer's newest sequence for longer than the trade itself.
            let producer = pending::producer(&self.exchange, symbol);
            let last = self.channels.newest_of(&channel, producer).await.map_err(unread)?;
            if let Some(last) = last.checked_sub(1) {
                self.saw(symbol.clone(), last);
            }
        }
        // If each gateway has a log of its own, other gateways' trades are there as received events.
        let page = self.channels.newest(&channel, TRADES_READ).await.map_err(unread)?;
        for entry in page.entries {
            let Ok(Data { data }) = serde_json::from_slice(&entry.draft.data) else { continue };
            let id = data.trade_id.and_then(|id| id.parse::<u64>().ok());
            if let (true, Some(id)) = (data.exchange == self.exchange, id) {
                self.saw(data.symbol, id);
            }
        }
        self.is_looked_up = true;
        Ok(())
    }

    /// Notes that the log has a trade.
    fn saw(&mut self, symbol: String, id: u64) {
        let last = self.resume.entry(symbol).or_insert(id);
        *last = id.max(*last);
    }
}

/// What is published together: entries by channel, each in order, and trades, which have ids of their own.
#[derive(Default)]
pub(super) struct Batch {
    channels: BTreeMap<ChannelName, Vec<DraftEntry>>,
    trades: Vec<Numbered>,
}

/// A trade with its number, and its sequence in the log.
struct Numbered {
    symbol: String,
    id: u64,
    seq: u64,
    draft: DraftEntry,
}

impl Batch {
    fn add(&mut self, channel: ChannelName, draft: DraftEntry) {
        self.channels.entry(channel).or_default().push(draft);
    }
}
