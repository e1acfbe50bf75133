//! The composition root: from a [`Config`] to a gateway that runs. The only file that knows every room.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{self, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::channels::{Channels, ChannelsParts};
use crate::config::{Config, Role};
use crate::connections::{self, Manager, ShardSeed};
use crate::feeds::{run_replay, run_simulated};
use crate::http::{self, AcceptParts, AcceptStats, App, BodyRoom, Door, IntakeStats, Sources};
use crate::model::{BackendName, NodeId};
use crate::orders::{
    ExecutorChoice, Interop, InteropParts, InteropWork, OrderExecutor, OrderSchema, Orders, OrdersParts,
    PaperExecutor, Worker,
};
use crate::storage::{self, Opened, OutageReader, OutageTotals, StatusReader, StorageChoice};
use crate::support::machine;
use crate::support::panics::Vital;

/// After the drain window and the clients' time to answer, what is left is cut after this.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// Between looks whether a thread has ended.
const THREAD_POLL: Duration = Duration::from_millis(5);

/// How long a worker may take to finish its orders or to give them back, counted from the end of the
/// drain.
const WORK_WITHIN: Duration = Duration::from_secs(8);

/// Files that are open besides connections: storage, the log, what the runtime needs; and of each shard
/// its listener, its runtime's, and its spare one.
const OTHER_FILES: usize = 64;
const FILES_PER_SHARD: usize = 8;

/// How long appends under way, and what waits for Redis while it serves, may take at shutdown.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// The drain of a gateway that a part has failed is no longer than this.
const FAILED_DRAIN: Duration = Duration::from_secs(2);

/// Why a gateway did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A part that it cannot do without panicked, or ended by itself, which is a bug. What could be
    /// flushed was, and clients were told to come back.
    #[error("the gateway ended because of a bug: its part `{part}` panicked or ended by itself")]
    Failed {
        /// Which one it was; the log says more.
        part: &'static str,
    },
    /// It ended as it was told to, while Redis was away or did not take what had been accepted, and
    /// that was nowhere else.
    #[error(
        "accepted and lost with the gateway, since Redis did not take them: {entries} entries, {orders} orders"
    )]
    Lost {
        /// Prices and updates of orders.
        entries: usize,
        /// Orders that were placed.
        orders: usize,
    },
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The storage that is required cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::StartError),
    /// What orders look like cannot be read.
    #[error("`orders.schema`: {0}")]
    OrderSchema(String),
    /// A worker alone cannot use the Redis that it needs.
    #[error(
        "a worker alone needs Redis, where others place orders (`node.roles` has no gateway), and Redis cannot \
         be used: {reason} [{code}]. Start it, correct `storage.redis`, or add `gateway` to `node.roles`"
    )]
    WorkerNeedsRedis {
        /// A stable word for the kind of failure.
        code: &'static str,
        /// For people. Holds no secrets.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A thread or its runtime could not be made.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A gateway that accepts connections.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    manager: Manager,
    drain_lead: Duration,
    drain_window: Duration,
    close_grace: Duration,
    /// Makes `/health/ready` say no.
    leaving: CancellationToken,
    /// Stops feeds and endless requests.
    stopping: CancellationToken,
    /// Stops accepting.
    stop_accepting: CancellationToken,
    /// Cuts what is left after the drain.
    cut: CancellationToken,
    /// Ends channels once nothing waits.
    stop_channels: CancellationToken,
    /// Ends the storage, when it is no longer needed or the gateway is dropped.
    storage: DropGuard,
    /// Knows the channels and feeds.
    tracker: TaskTracker,
    /// Knows the worker, which needs the channels until its last order is done or given back.
    work: TaskTracker,
    orders: Orders,
    outage: OutageReader,
    status: StatusReader,
    redis_configured: bool,
    vital: Vital,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    handle: thread::JoinHandle<()>,
    done: oneshot::Receiver<()>,
}

impl Gateway {
    /// Opens the storage, listens, and serves. Must be called in a multi-thread runtime, on which
    /// storage, channels and feeds run; connections get threads of their own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let paper = PaperExecutor::new(config.orders.paper.clone());
        Self::start_with(config, Arc::new(paper)).await
    }

    /// The same with an executor of the caller's own, which carries orders out in place of the
    /// built-in simulation (unless `orders.executor` is `external`, or this node is no worker).
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(config: Config, executor: Arc<dyn OrderExecutor>) -> Result<Self, StartError> {
        let node = NodeId::random();
        let shards = match config.http.shards {
            0 => thread::available_parallelism().map_or(1, usize::from),
            shards => shards,
        };
        let mut config = config;
        let is_worker_alone = !config.node.has(Role::Gateway);
        let was_required = config.storage.required;
        if is_worker_alone {
            // A worker alone finds orders only where others put them.
            config.storage.backend = StorageChoice::Redis;
            config.storage.required = true;
        }
        let schema = OrderSchema::load(&config.orders.schema).map_err(StartError::OrderSchema)?;
        let lanes = config.channels.clone();
        let opened = storage::open(&config.storage, node, Arc::new(move |channel| lanes.lane(channel)));
        let opened = opened.await.map_err(|error| match error {
            storage::StartError::RedisRequired { code, reason } if is_worker_alone && !was_required => {
                StartError::WorkerNeedsRedis { code, reason }
            }
            error => StartError::Storage(error),
        });
        let Opened { backend, memory, status_reader: status, outage, driver, spool_panicked, .. } = opened?;
        let begun = status.get();
        let address = config.http.listen;
        let (listeners, address) =
            http::listen(address, shards).map_err(|cause| StartError::Listen { address, cause })?;

        let tracker = TaskTracker::new();
        let stop_channels = CancellationToken::new();
        // A token of its own: channels need the storage until they have flushed.
        let stop_storage = CancellationToken::new();
        let vital = Vital::default();
        // Of the storage's own, so that what the channels flush at the end still gets there.
        let driving = TaskTracker::new();
        let (stopped, told) = (stop_storage.clone(), vital.clone());
        let driver = async move {
            let ended = stopped.clone().run_until_cancelled_owned(driver).await;
            // Told to stop, it may end before that is looked at here.
            if ended.is_some() && !stopped.is_cancelled() {
                told.fail("storage");
            }
        };
        driving.spawn(vital.guard("storage", driver));
        let (stopped, told) = (stop_storage.clone(), vital.clone());
        driving.spawn(async move {
            if stopped.run_until_cancelled_owned(spool_panicked).await.is_some() {
                told.fail("spool");
            }
        });

        fit_open_files(&mut config, machine::open_files(), shards);
        let (manager, seeds, live) = connections::prepare(shards, &config.connections);
        let incoming = backend.take_incoming();
        let parts = ChannelsParts {
            backend: Arc::clone(&backend),
            node,
            config: config.channels.clone(),
            shards: live,
            runtime: Handle::current(),
            vital: vital.clone(),
        };
        let channels = Channels::new(parts, tracker.clone(), stop_channels.clone());
        if let Some(incoming) = incoming {
            let passing = channels.clone().pass_on(incoming);
            let passing = ended(stop_channels.clone().run_until_cancelled_owned(passing));
            tracker.spawn(vital.guard("entries from the storage", passing));
        }
        let parts = InteropParts {
            config: config.interop,
            backend: Arc::clone(&backend),
            node,
            watched: Arc::clone(channels.watched_orders()),
            update_bytes_max: config.http.line_bytes_max,
            stop: stop_channels.clone(),
        };
        let interop = Interop::new(parts);
        if let Some(InteropWork { driver, exchange }) = interop.work {
            let driver = ended(stop_storage.clone().run_until_cancelled_owned(driver));
            driving.spawn(vital.guard("connections of outside orders", driver));
            tracker.spawn(vital.guard("outside orders", exchange));
        }
        if let Err(error) = channels.recall_zones().await {
            warn!(error = %error, "could not read which zones there are");
        }

        let kind = match config.orders.executor {
            ExecutorChoice::Paper => executor.name(),
            ExecutorChoice::External => "external",
        };
        let orders = Orders::new(OrdersParts {
            backend,
            channels: channels.clone(),
            config: config.orders.clone(),
            mirror: interop.mirror,
            kind: kind.into(),
            schema,
        });

        let (leaving, stopping) = (CancellationToken::new(), CancellationToken::new());
        let comparing = orders.clone().compare_executors(node, stopping.clone());
        tracker.spawn(vital.guard("comparison of executors", comparing));
        let accepts = Arc::new(AcceptStats::default());
        let sources = Sources {
            node,
            started: Instant::now(),
            manager: manager.clone(),
            channels: channels.clone(),
            orders: orders.clone(),
            storage: status.clone(),
            memory,
            outage: outage.clone(),
            redis_configured: config.storage.redis.is_configured(),
            accepts: Arc::clone(&accepts),
            intake: Arc::new(IntakeStats::default()),
            bodies: BodyRoom::new(config.http.bodies_bytes_max),
            answers: Arc::new(BodyRoom::new(config.http.answers_bytes_max)),
            refusals: Arc::default(),
            interop: interop.stats,
            leaving: leaving.clone(),
        };
        let app = App {
            config: config.http.clone(),
            manager: manager.clone(),
            channels: channels.clone(),
            orders: orders.clone(),
            serves: config.node.has(Role::Gateway),
            works: config.node.has(Role::Worker),
            sources,
            stopping: stopping.clone(),
        };
        let stop_accepting = CancellationToken::new();
        let serving = Serving {
            door: http::door(Arc::new(app)),
            parts: Arc::new(AcceptParts::new(
                config.http.clone(),
                manager.clone(),
                accepts,
                stop_accepting.clone(),
            )),
            channels: channels.clone(),
            status: status.clone(),
            vital: vital.clone(),
            cut: CancellationToken::new(),
        };
        let cut = serving.cut.clone();
        // Where not all threads start, those that did end.
        let cut_unless_started = cut.clone().drop_guard();
        let threads = seeds
            .into_iter()
            .zip(listeners)
            .enumerate()
            .map(|(index, (seed, listener))| serving.clone().start(index, seed, listener));
        let threads = threads.collect::<io::Result<Vec<_>>>().map_err(StartError::Thread)?;
        cut_unless_started.disarm();

        let work = TaskTracker::new();
        if config.node.has(Role::Worker) && config.orders.executor == ExecutorChoice::Paper {
            work.spawn(vital.guard("worker", Worker::new(&orders, executor).run(stopping.clone())));
        }
        if config.node.has(Role::Gateway) {
            if config.feeds.simulated.enabled {
                let feed = run_simulated(config.feeds.simulated, channels.clone());
                let feed = ended(stopping.clone().run_until_cancelled_owned(feed));
                tracker.spawn(vital.guard("simulated prices", feed));
            }
            let feed = run_replay(config.feeds.replay, channels);
            let feed = ended(stopping.clone().run_until_cancelled_owned(feed));
            tracker.spawn(vital.guard("replayed prices", feed));
        }

        let storage = status.get();
        // Meanwhile the reason may have become that a connection is being made.
        let reason = if storage.state == begun.state { begun.reason } else { storage.reason };
        info!(
            address = %address, node = %node, shards, storage = storage.backend.as_str(),
            state = storage.state.as_str(), reason, "ready"
        );
        if config.node.has(Role::Gateway) {
            let (page, stream) = addresses(address, config.http.public_url.as_deref());
            info!("open {page} in a browser to see the prices; programs follow a zone at {stream}");
        }
        Ok(Self {
            address,
            manager,
            drain_lead: Duration::from_secs(config.http.drain_lead_s),
            drain_window: Duration::from_secs(config.http.drain_s),
            close_grace: Duration::from_millis(config.connections.close_grace_ms),
            leaving,
            stopping,
            stop_accepting,
            cut,
            stop_channels,
            storage: stop_storage.drop_guard(),
            tracker,
            work,
            orders,
            outage,
            status,
            redis_configured: config.storage.redis.is_configured(),
            vital,
            threads,
        })
    }

    /// The address that it listens on, with the port that was taken for 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connections.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Runs until `shutdown` is ready; then says that it is not ready any more, stops accepting, tells each
    /// client `closing`, closes over the drain window, and flushes what was accepted.
    ///
    /// # Errors
    /// See [`RunError`]: a gateway without one of its parts ends by itself, in the same way but sooner;
    /// and what was accepted may be lost with it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut failed = self.failed_before(shutdown).await;
        self.leaving.cancel();
        if failed.is_none() && !self.drain_lead.is_zero() {
            info!(drain_lead_s = self.drain_lead.as_secs(), "not ready any more, and still accepting");
            failed = self.failed_before(time::sleep(self.drain_lead)).await;
        }
        let died = failed.is_some();
        let drain_window = if died { self.drain_window.min(FAILED_DRAIN) } else { self.drain_window };
        match failed {
            Some(part) => error!(part, "stopping, because this part has ended"),
            None => info!(connections = self.manager.totals().open(), "stopping"),
        }
        self.stopping.cancel();
        self.stop_accepting.cancel();
        self.manager.drain(drain_window).await;
        let patience = drain_window + self.close_grace + DRAIN_GRACE;
        let deadline = Instant::now() + patience;
        let mut cut = false;
        for thread in &mut self.threads {
            // One that has ended already was taken note of above.
            if !thread.handle.is_finished() && time::timeout_at(deadline, &mut thread.done).await.is_err() {
                cut = true;
            }
        }
        if cut {
            warn!(
                connections = self.manager.totals().open(),
                "cutting connections that did not close in time"
            );
        }
        self.cut.cancel();
        self.work.close();
        let worked = async { tokio::join!(self.work.wait(), self.orders.settled()) };
        if time::timeout(WORK_WITHIN, worked).await.is_err() {
            error!("orders under way could not be given back in time; their leases run out instead");
        }
        self.stop_channels.cancel();
        self.tracker.close();
        let flushed_by = Instant::now() + FLUSH_WITHIN;
        if time::timeout_at(flushed_by, self.tracker.wait()).await.is_err() {
            error!(tasks = self.tracker.len(), "accepted entries could not be flushed in time");
        }
        // Redis may come back within the drain; what is left then is said.
        let _in_time = time::timeout_at(deadline.max(flushed_by), self.outage.until_sent()).await;
        let lost = self.say_what_is_left();
        drop(self.storage);
        let deadline = Instant::now() + DRAIN_GRACE;
        for thread in self.threads {
            while !thread.handle.is_finished() && Instant::now() < deadline {
                time::sleep(THREAD_POLL).await;
            }
            // A thread that does not end must not keep the process from it.
            if !thread.handle.is_finished() {
                error!("a thread that serves connections does not end; leaving it behind");
            } else if thread.handle.join().is_err() {
                error!("a thread that serves connections panicked");
            }
        }
        info!("stopped");
        match (failed, lost) {
            (Some(part), _) => Err(RunError::Failed { part }),
            (None, Some(lost)) => Err(lost),
            (None, None) => Ok(()),
        }
    }
}

impl Gateway {
    /// Waits until something happens, or a part of the gateway fails; says which one did.
    async fn failed_before(&mut self, happens: impl Future<Output = ()>) -> Option<&'static str> {
        let threads = self.threads.iter_mut().map(|thread| Box::pin(&mut thread.done));
        let any_ended = futures_util::future::select_all(threads);
        tokio::select! {
            () = happens => None,
            part = self.vital.failed() => Some(part),
            _ = any_ended => Some("thread of connections"),
        }
    }

    /// Says what was accepted and the log does not have, at the end; and what of it is lost.
    fn say_what_is_left(&self) -> Option<RunError> {
        let OutageTotals { journal_entries, journal_in_memory_only: entries, jobs_waiting, .. } =
            self.outage.totals();
        let is_served = self.status.get().backend == BackendName::Redis;
        let why = if is_served { "Redis did not take them in time" } else { "Redis is away" };
        let on_disk = journal_entries - entries;
        if on_disk > 0 {
            info!(
                entries = on_disk,
                why, "accepted entries wait in the spool; they are sent after the next start"
            );
        }
        if entries > 0 {
            error!(entries, why, "accepted entries are lost: they are not in a spool");
        }
        // Where no Redis is configured, orders end with their gateway by design.
        let orders = if self.redis_configured { jobs_waiting } else { 0 };
        if orders > 0 {
            error!(orders, why, "accepted orders are lost: nobody else knows them");
        }
        (entries > 0 || orders > 0).then_some(RunError::Lost { entries, orders })
    }
}

/// Where a browser finds the page, and where the stream of a zone is.
fn addresses(listening: SocketAddr, public_url: Option<&str>) -> (String, String) {
    // To all addresses of this machine belongs the one by which it calls itself.
    let host = match listening.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let own = format!("http://{}", SocketAddr::new(host, listening.port()));
    let base = public_url.map_or(own.as_str(), |url| url.trim_end_matches('/'));
    let stream = base.strip_prefix("http").map(|rest| format!("ws{rest}/ws/market/<zone>"));
    (format!("{base}/"), stream.unwrap_or_default())
}

/// A task whose answer says nothing but that it has ended.
async fn ended<T>(task: impl Future<Output = T>) {
    task.await;
}

/// Bounds the TCP connections by the files that may be open, less those that are needed otherwise, and
/// says so.
fn fit_open_files(config: &mut Config, open_files: Option<usize>, shards: usize) {
    let others = OTHER_FILES + shards * FILES_PER_SHARD + http::RESERVE_PLACES;
    // With very few of them at least some connections can be tried.
    let for_tcp = open_files.map(|files| files.saturating_sub(others).max(files / 4));
    let connections = &mut config.connections;
    let (wanted, tcp_max) = (connections.tcp_max_within(None), connections.tcp_max_within(for_tcp));
    if tcp_max < wanted {
        warn!(
            tcp_max,
            wanted,
            open_files,
            "the limit of open files (ulimit -n) leaves room for fewer connections than are configured"
        );
    } else {
        info!(tcp_max, open_files, "bounded the TCP connections");
    }
    connections.tcp_max = tcp_max;
}

/// What each serving thread gets.
#[derive(Clone)]
struct Serving {
    door: Door,
    parts: Arc<AcceptParts>,
    channels: Channels,
    status: StatusReader,
    vital: Vital,
    cut: CancellationToken,
}

impl Serving {
    /// A thread with a runtime of its own that accepts connections and runs their shard.
    fn start(self, index: usize, seed: ShardSeed, listener: std::net::TcpListener) -> io::Result<Thread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ended, done) = oneshot::channel();
        let handle = thread::Builder::new().name(format!("zonewire-{index}")).spawn(move || {
            // Dropped when this thread ends, however it does.
            let _ended = ended;
            let connections = LocalSet::new();
            let serving = connections.run_until(async {
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return error!(error = %error, "cannot listen on a thread"),
                };
                let shard = seed.run(self.channels, self.status, &self.vital, self.cut.clone());
                let accepting = http::serve(listener, index, self.door, self.parts);
                let accepting = self.cut.run_until_cancelled_owned(accepting);
                tokio::join!(shard, accepting);
            });
            runtime.block_on(serving);
        })?;
        Ok(Thread { handle, done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_which_addresses_to_open() {
        for (listening, public_url, page, stream) in [
            ("127.0.0.1:8080", None, "http://127.0.0.1:8080/", "ws://127.0.0.1:8080/ws/market/<zone>"),
            ("0.0.0.0:80", None, "http://127.0.0.1:80/", "ws://127.0.0.1:80/ws/market/<zone>"),
            ("[::]:80", None, "http://[::1]:80/", "ws://[::1]:80/ws/market/<zone>"),
            ("10.0.0.7:80", None, "http://10.0.0.7:80/", "ws://10.0.0.7:80/ws/market/<zone>"),
            (
                "127.0.0.1:8080",
                Some("https://stream.example.com"),
                "https://stream.example.com/",
                "wss://stream.example.com/ws/market/<zone>",
            ),
        ] {
            let said = addresses(listening.parse().unwrap(), public_url);
            assert_eq!(said, (page.to_owned(), stream.to_owned()));
        }
    }
}
