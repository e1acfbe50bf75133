//! Creates the parts of a gateway and connects them, each after those that it needs.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::registries::Following;
use super::threads::{Listening, ListeningOn, Serving, Thread};
use super::{Gateway, StartError, Stops};
use crate::access::Gate;
use crate::bridge::{Bridge, BridgeParts, BridgeWork};
use crate::channels::{CREDITS, Channels, ChannelsParts, Delivery, TellAccepted};
use crate::config::{Config, Effective, Loaded, Role};
use crate::connections::{self, Manager, ShardSeed};
use crate::feeds::{
    ExchangeParts, FeedCounters, SIMULATED_EXCHANGE, run_exchange, run_market, run_replay, run_simulated,
};
use crate::fleet::{Fleet, FleetParts};
use crate::http::{
    self, AcceptParts, AcceptStats, App, BodyRoom, Door, Entrance, HttpConfig, IntakeStats, ProxyProtocol,
    Sources, Tls, UnixFile,
};
use crate::model::NodeId;
use crate::orders::{
    ExecutorChoice, Interop, InteropParts, InteropStats, InteropWork, OrderExecutor, OrderMirror,
    OrderSchema, Orders, OrdersParts, Worker,
};
use crate::protocol::{ConfigView, SettingView};
use crate::registry::{Registry, RegistryParts, RegistryWork};
use crate::storage::{
    self, MemoryBackend, Opened, OutageReader, OwnLogs, SharedBackend, StatusReader, StorageChoice,
    StorageStatus,
};
use crate::support::machine;
use crate::support::panics::Vital;

/// Open files other than connections: for storage, the log and the runtime; and per shard for its
/// listeners, its runtime, and its reserve.
const OTHER_FILES: usize = 64;
const FILES_PER_SHARD: usize = 10;

/// Batches on their way to the registries: as many as two channels may have.
const REGISTRY_QUEUE: usize = 2 * CREDITS;

/// What parts need in order to run.
#[derive(Default)]
struct Running {
    stops: Stops,
    vital: Vital,
    /// Tracks the channels and feeds.
    tracker: TaskTracker,
    /// Tracks the storage's tasks, so that what the channels flush at the end still gets there.
    driving: TaskTracker,
}

impl Running {
    /// Runs a part until it ends, or is stopped.
    fn part(
        &self,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        name: &'static str,
        work: impl Future<Output: Send> + Send + 'static,
    ) {
        let stop = stop.clone();
        let part = async move {
            stop.run_until_cancelled_owned(work).await;
        };
        tracker.spawn(self.vital.guard(name, part));
    }
}

pub(super) async fn assemble(
    mut loaded: Loaded,
    executor: Arc<dyn OrderExecutor>,
) -> Result<Gateway, StartError> {
    let node = NodeId::random();
    let shards = match loaded.config.http.shards {
        0 => thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    };
    let needs_redis = fit_worker_alone(&mut loaded);
    fit_open_files(&mut loaded, machine::open_files(), shards);
    let configured = view(&loaded);
    let Loaded { config, .. } = loaded;
    let schema = OrderSchema::load(&config.orders.schema).map_err(StartError::OrderSchema)?;
    let opened = open_storage(&config, node, needs_redis).await?;
    let Opened { backend: shared, memory, status_reader: status, outage, driver, spool_panicked, .. } =
        opened;
    let begun = status.get();
    let Entrances { address, operators, listening, file } = listen(&config.http, shards)?;

    let running = Running::default();
    drive_storage(&running, driver, spool_panicked);
    // Boxed, because fetching keys over TLS makes it large.
    let gate = Box::pin(Gate::open(&config.auth, &config.limits, node, Arc::clone(&shared)));
    let gate = gate.await.map_err(StartError::Auth)?;
    let tls = Tls::open(&config.http.tls, Arc::clone(&gate)).await.map_err(StartError::Tls)?;
    let keeping = Arc::clone(&gate).run(running.stops.channels.clone());
    running.tracker.spawn(running.vital.guard("keys and revocations", keeping));
    if let Some(tls) = &tls {
        let keeping = Arc::clone(tls).keep(running.stops.channels.clone());
        running.tracker.spawn(running.vital.guard("certificate", keeping));
    }
    let (manager, seeds, mut live) = connections::prepare(shards, &config.connections);
    // The registries follow channels as a shard does.
    let (told, hears) = mpsc::channel(REGISTRY_QUEUE);
    live.push(told);
    let (bridge, bridge_work) = Bridge::new(BridgeParts {
        config: config.bridge.clone(),
        backend: Arc::clone(&shared),
        link: config.bridge.enabled.then(|| shared.pub_sub()).flatten(),
        node,
        message_bytes_max: config.http.line_bytes_max,
    });
    let backend = with_own_logs(&config, shared, &memory);
    let channels = begin_channels(&running, &config, node, &backend, (live, bridge.tell_accepted()));
    if let Some(work) = bridge_work {
        begin_bridge(&running, work, &channels);
    }
    let kind: Arc<str> = match config.orders.executor {
        ExecutorChoice::Paper => executor.name(),
        ExecutorChoice::External => "external",
    }
    .into();
    let fleet = Fleet::new(FleetParts {
        node,
        backend: Arc::clone(&backend),
        storage: status.clone(),
        executor: Arc::clone(&kind),
        leaving: running.stops.leaving.clone(),
    });
    begin_fleet(&running, &fleet, &manager);
    let registry = Registry::new(RegistryParts {
        channels: channels.clone(),
        backend: Arc::clone(&backend),
        node,
        fleet: fleet.clone(),
        config: config.registry.clone(),
        place: shards,
    });
    begin_registry(&running, &registry, &manager, hears);
    let (mirror, interop) = begin_interop(&running, &config, node, &backend, &channels);
    if let Err(error) = channels.recall_zones().await {
        warn!(error = %error, "could not read the list of zones");
    }
    let settings = config.orders.clone();
    let feeding = Arc::clone(&backend);
    let watch = config.registry.follow_orders.then(|| Arc::new(Following(registry.clone())) as Arc<_>);
    let channels_of_orders = channels.clone();
    let parts =
        OrdersParts { backend, channels: channels_of_orders, config: settings, mirror, watch, kind, schema };
    let orders = Orders::new(parts);

    let feeds = feed_counters(&config);
    let served = Served {
        node,
        manager: &manager,
        channels: &channels,
        orders: &orders,
        registry: &registry,
        fleet: &fleet,
        status: &status,
        gate: &gate,
        configured: Arc::new(configured),
        feeds: feeds.clone(),
        tls,
    };
    let counted = (memory.clone(), outage.clone(), interop, bridge);
    let threads = serve(&running, &config, served, counted, seeds, listening).map_err(StartError::Thread)?;
    let work = TaskTracker::new();
    if config.node.has(Role::Worker) && config.orders.executor == ExecutorChoice::Paper {
        let working = Worker::new(&orders, executor).run(running.stops.stopping.clone());
        work.spawn(running.vital.guard("worker", working));
    }
    if config.node.has(Role::Gateway) {
        begin_feeds(&running, &config, &channels, &feeding, node, &feeds);
    }
    say_ready(&config, node, (address, operators), shards, &begun, &status.get());
    let Running { stops, vital, tracker, .. } = running;
    Ok(Gateway {
        address,
        operators,
        _file: file,
        manager,
        drain_lead: Duration::from_secs(config.http.drain_lead_s),
        drain_window: Duration::from_secs(config.http.drain_s),
        close_grace: Duration::from_millis(config.connections.close_grace_ms),
        storage: stops.storage.clone().drop_guard(),
        stops,
        tracker,
        work,
        orders,
        registry,
        outage,
        memory,
        status,
        redis_configured: config.storage.redis.is_configured(),
        vital,
        threads,
    })
}

/// The settings in effect, with their origins.
fn view(loaded: &Loaded) -> ConfigView {
    let settings = loaded.settings().into_iter();
    ConfigView {
        file: loaded.file.as_ref().map(|file| file.display().to_string()),
        warning: warnings(&loaded.warning, &loaded.notices),
        settings: settings
            .map(|Effective { key, value, origin }| SettingView { key, value, origin })
            .collect(),
    }
}

/// All warnings in one text.
fn warnings(warning: &Option<String>, notices: &[String]) -> Option<String> {
    let all: Vec<&str> = warning.iter().chain(notices).map(String::as_str).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Requires Redis for a process that is only a worker, which is useless without it; returns whether that is
/// why Redis is required.
fn fit_worker_alone(loaded: &mut Loaded) -> bool {
    let Loaded { config, origins, .. } = loaded;
    if config.node.has(Role::Gateway) {
        return false;
    }
    let was_required = config.storage.required;
    for (key, was_so) in [
        ("storage.backend", config.storage.backend == StorageChoice::Redis),
        ("storage.required", was_required),
    ] {
        if !was_so {
            origins.insert(key.to_owned(), "because node.roles has no gateway".to_owned());
        }
    }
    (config.storage.backend, config.storage.required) = (StorageChoice::Redis, true);
    !was_required
}

/// Opens the storage. A process that is only a worker finds orders only where others put them, so it needs
/// Redis.
async fn open_storage(config: &Config, node: NodeId, needs_redis: bool) -> Result<Opened, StartError> {
    let lanes = config.channels.clone();
    let opened = storage::open(&config.storage, node, Arc::new(move |channel| lanes.lane(channel)));
    opened.await.map_err(|error| match error {
        storage::StartError::RedisRequired { code, reason } if needs_redis => {
            StartError::WorkerNeedsRedis { code, reason }
        }
        error => StartError::Storage(error),
    })
}

fn drive_storage(running: &Running, driver: BoxFuture<'static, ()>, spool_panicked: BoxFuture<'static, ()>) {
    let Running { stops, vital, driving, .. } = running;
    let (stopped, told) = (stops.storage.clone(), vital.clone());
    let driver = async move {
        let ended = stopped.clone().run_until_cancelled_owned(driver).await;
        // When it is stopped, it may end before that is noticed here.
        if ended.is_some() && !stopped.is_cancelled() {
            told.fail("storage");
        }
    };
    driving.spawn(vital.guard("storage", driver));
    let (stopped, told) = (stops.storage.clone(), vital.clone());
    driving.spawn(async move {
        if stopped.run_until_cancelled_owned(spool_panicked).await.is_some() {
            told.fail("spool");
        }
    });
}

fn begin_channels(
    running: &Running,
    config: &Config,
    node: NodeId,
    backend: &SharedBackend,
    (shards, accepted): (Vec<mpsc::Sender<Delivery>>, Arc<dyn TellAccepted>),
) -> Channels {
    let Running { stops, vital, tracker, .. } = running;
    let incoming = backend.take_incoming();
    let parts = ChannelsParts {
        backend: Arc::clone(backend),
        node,
        config: config.channels.clone(),
        shards,
        runtime: Handle::current(),
        vital: vital.clone(),
        accepted: Some(accepted),
    };
    let channels = Channels::new(parts, tracker.clone(), stops.channels.clone());
    if let Some(incoming) = incoming {
        let passing = channels.clone().pass_on(incoming);
        running.part(tracker, &stops.channels, "entries from the storage", passing);
    }
    channels
}

/// Runs the registries. They end with the channels, to which they write.
fn begin_registry(
    running: &Running,
    registry: &Registry,
    manager: &Manager,
    hears: mpsc::Receiver<Delivery>,
) {
    let Running { stops, tracker, .. } = running;
    running.part(tracker, &stops.channels, "registries", registry.clone().hear_all(hears));
    let RegistryWork { parts } = registry.work(Arc::new(manager.clone()), &stops.channels);
    for (name, part) in parts {
        running.part(tracker, &stops.channels, name, part);
    }
}

/// Publishes this node's record as long as others may need it, and reads the records of other nodes.
fn begin_fleet(running: &Running, fleet: &Fleet, manager: &Manager) {
    let Running { stops, vital, tracker, .. } = running;
    let telling = fleet.clone().tell(Arc::new(manager.clone()), stops.channels.clone());
    tracker.spawn(vital.guard("this node's record in the fleet", telling));
    running.part(tracker, &stops.channels, "records of other nodes", fleet.clone().keep_up());
}

/// With the bridge, the logs of live types are this node's own.
fn with_own_logs(config: &Config, shared: SharedBackend, memory: &MemoryBackend) -> SharedBackend {
    if !config.bridge.enabled {
        return shared;
    }
    let bridge = config.bridge.clone();
    Arc::new(OwnLogs::new(shared, memory.clone(), Arc::new(move |channel| bridge.is_own_log(channel))))
}

/// Runs the exchange of events with other gateways and processes.
fn begin_bridge(running: &Running, work: BridgeWork, channels: &Channels) {
    let Running { stops, vital, tracker, driving } = running;
    let BridgeWork { driver, exchange } = work;
    running.part(driving, &stops.storage, "connections of the bridge", driver);
    tracker.spawn(vital.guard("bridge", exchange.run(channels.clone(), stops.channels.clone())));
}

/// Runs the exchange of updates with workers that use Redis lists, if it is configured.
fn begin_interop(
    running: &Running,
    config: &Config,
    node: NodeId,
    backend: &SharedBackend,
    channels: &Channels,
) -> (OrderMirror, Arc<InteropStats>) {
    let Running { stops, vital, tracker, driving } = running;
    let Interop { mirror, stats, work } = Interop::new(InteropParts {
        config: config.interop.clone(),
        backend: Arc::clone(backend),
        node,
        watched: Arc::clone(channels.watched_orders()),
        update_bytes_max: config.http.line_bytes_max,
        stop: stops.channels.clone(),
    });
    if let Some(InteropWork { driver, exchange }) = work {
        running.part(driving, &stops.storage, "connections of outside orders", driver);
        tracker.spawn(vital.guard("outside orders", exchange));
    }
    (mirror, stats)
}

/// The listeners.
struct Entrances {
    address: SocketAddr,
    /// The address of the operators' listener.
    operators: Option<SocketAddr>,
    /// By thread.
    listening: Vec<Vec<Listening>>,
    file: Option<UnixFile>,
}

fn listen(config: &HttpConfig, shards: usize) -> Result<Entrances, StartError> {
    let on = |address| {
        http::listen(address, shards)
            .map_err(|cause| StartError::Listen { address: address.to_string(), cause })
    };
    let (listeners, address) = on(config.listen)?;
    let is_announced = config.proxy_protocol == ProxyProtocol::Required;
    let entrance = Entrance { is_for_operators: false, speaks_tls: true, is_announced };
    let of_thread = |on| vec![Listening { entrance, on: ListeningOn::Address(on) }];
    let mut listening: Vec<Vec<Listening>> = listeners.into_iter().map(of_thread).collect();
    let mut operators = None;
    if let Some(address) = config.operators.listen {
        let (listeners, address) = on(address)?;
        operators = Some(address);
        let entrance =
            Entrance { is_for_operators: true, speaks_tls: config.operators.tls, is_announced: false };
        for (thread, on) in listening.iter_mut().zip(listeners) {
            thread.push(Listening { entrance, on: ListeningOn::Address(on) });
        }
    }
    let mut file = None;
    if let Some(path) = &config.unix_socket {
        let mode = config.unix_socket_mode().unwrap_or(0o600);
        let (listeners, its_file) = http::listen_unix(path, mode, shards)
            .map_err(|cause| StartError::Listen { address: path.display().to_string(), cause })?;
        file = Some(its_file);
        // Its clients are on this machine, so nobody can listen in.
        let entrance = Entrance { is_for_operators: false, speaks_tls: false, is_announced };
        for (thread, on) in listening.iter_mut().zip(listeners) {
            thread.push(Listening { entrance, on: ListeningOn::File(on) });
        }
    }
    Ok(Entrances { address, operators, listening, file })
}

/// What requests need.
struct Served<'a> {
    node: NodeId,
    manager: &'a Manager,
    channels: &'a Channels,
    orders: &'a Orders,
    registry: &'a Registry,
    fleet: &'a Fleet,
    status: &'a StatusReader,
    gate: &'a Arc<Gate>,
    configured: Arc<ConfigView>,
    feeds: CountersOfFeeds,
    tls: Option<Arc<Tls>>,
}

/// The counters of exchanges' feeds, by name.
type CountersOfFeeds = BTreeMap<String, Arc<FeedCounters>>;

fn feed_counters(config: &Config) -> CountersOfFeeds {
    if !config.node.has(Role::Gateway) {
        return BTreeMap::new();
    }
    let exchanges = config.feeds.exchanges.iter().map(|exchange| (exchange.name(), exchange.kind.as_str()));
    let simulated = &config.feeds.simulated;
    let made_up = simulated.enabled && !simulated.symbols.is_empty();
    let all = exchanges.chain(made_up.then_some((SIMULATED_EXCHANGE, SIMULATED_EXCHANGE)));
    all.map(|(name, kind)| (name.to_owned(), FeedCounters::new(kind))).collect()
}

/// Starts the serving threads. If one fails to start, the others end.
fn serve(
    running: &Running,
    config: &Config,
    served: Served<'_>,
    (memory, outage, interop, bridge): (MemoryBackend, OutageReader, Arc<InteropStats>, Bridge),
    seeds: Vec<ShardSeed>,
    listening: Vec<Vec<Listening>>,
) -> io::Result<Vec<Thread>> {
    let Running { stops, vital, .. } = running;
    let Served { node, manager, channels, orders, registry, fleet, status, gate, configured, feeds, tls } =
        served;
    let accepts = Arc::new(AcceptStats::default());
    let sources = Sources {
        node,
        started: Instant::now(),
        manager: manager.clone(),
        runtime: Handle::current(),
        channels: channels.clone(),
        orders: orders.clone(),
        registry: registry.clone(),
        fleet: fleet.clone(),
        storage: status.clone(),
        memory,
        outage,
        redis_configured: config.storage.redis.is_configured(),
        accepts: Arc::clone(&accepts),
        intake: Arc::new(IntakeStats::default()),
        bodies: BodyRoom::new(config.http.bodies_bytes_max),
        answers: Arc::new(BodyRoom::new(config.http.answers_bytes_max)),
        refusals: Arc::default(),
        interop,
        feeds,
        bridge,
        gate: Arc::clone(gate),
        tls: tls.clone(),
        leaving: stops.leaving.clone(),
    };
    let app = App {
        config: config.http.clone(),
        configured,
        manager: manager.clone(),
        channels: channels.clone(),
        orders: orders.clone(),
        registry: registry.clone(),
        gate: Arc::clone(gate),
        serves: config.node.has(Role::Gateway),
        works: config.node.has(Role::Worker),
        sources,
        stopping: stops.stopping.clone(),
    };
    let parts = AcceptParts::new(config.http.clone(), manager.clone(), accepts, stops.accepting.clone(), tls);
    let serving = Serving {
        door: Door::to(&Arc::new(app)),
        parts: Arc::new(parts),
        channels: channels.clone(),
        status: status.clone(),
        gate: Arc::clone(gate),
        vital: vital.clone(),
        cut: stops.cut.clone(),
    };
    let cut_unless_started = stops.cut.clone().drop_guard();
    let threads = seeds.into_iter().zip(listening).enumerate();
    let threads = threads.map(|(index, (seed, listening))| serving.clone().start(index, seed, listening));
    let threads = threads.collect::<io::Result<_>>()?;
    cut_unless_started.disarm();
    Ok(threads)
}

fn begin_feeds(
    running: &Running,
    config: &Config,
    channels: &Channels,
    backend: &SharedBackend,
    node: NodeId,
    feeds: &CountersOfFeeds,
) {
    let Running { stops, tracker, vital, .. } = running;
    let simulated = &config.feeds.simulated;
    if simulated.enabled {
        let feed = run_simulated(simulated.clone(), channels.clone());
        running.part(tracker, &stops.stopping, "simulated prices", feed);
        if let Some(counters) = feeds.get(SIMULATED_EXCHANGE) {
            let symbols = simulated.symbols.clone();
            let feed = run_market(symbols, simulated.seed, channels.clone(), Arc::clone(counters));
            running.part(tracker, &stops.stopping, "a simulated exchange", feed);
        }
    }
    for exchange in &config.feeds.exchanges {
        let Some(counters) = feeds.get(exchange.name()) else { continue };
        let parts = ExchangeParts {
            config: exchange.clone(),
            channels: channels.clone(),
            backend: Arc::clone(backend),
            node,
            counters: Arc::clone(counters),
            stop: stops.stopping.clone(),
        };
        tracker.spawn(vital.guard("the feed of an exchange", run_exchange(parts)));
    }
    let feed = run_replay(config.feeds.replay.clone(), channels.clone());
    running.part(tracker, &stops.stopping, "replayed prices", feed);
}

/// Logs that the gateway is ready, and where; `begun` is the storage's initial state.
fn say_ready(
    config: &Config,
    node: NodeId,
    (address, operators): (SocketAddr, Option<SocketAddr>),
    shards: usize,
    begun: &StorageStatus,
    storage: &StorageStatus,
) {
    // Meanwhile the reason may have become that it is connecting.
    let reason = if storage.state == begun.state { &begun.reason } else { &storage.reason };
    let operators = operators.map(tracing::field::display);
    let unix_socket = config.http.unix_socket.as_ref().map(|path| tracing::field::display(path.display()));
    info!(
        address = %address, operators, unix_socket, tls = config.http.tls.is_on(), node = %node, shards, storage = storage.backend.as_str(),
        state = storage.state.as_str(), reason, "ready"
    );
    if config.node.has(Role::Gateway) {
        let (page, stream) = addresses(address, config.http.tls.is_on(), config.http.public_url.as_deref());
        info!("open {page} in a browser to see the prices; programs follow a zone at {stream}");
    }
}

/// The address of the page, and that of a zone's stream.
fn addresses(listening: SocketAddr, is_secure: bool, public_url: Option<&str>) -> (String, String) {
    // The unspecified address includes loopback, which a browser on this machine can use.
    let host = match listening.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let scheme = if is_secure { "https" } else { "http" };
    let own = format!("{scheme}://{}", SocketAddr::new(host, listening.port()));
    let base = public_url.map_or(own.as_str(), |url| url.trim_end_matches('/'));
    let stream = base.strip_prefix("http").map(|rest| format!("ws{rest}/ws/market/<zone>"));
    (format!("{base}/"), stream.unwrap_or_default())
}

/// Limits TCP connections to the files that may be open, less those needed otherwise, and logs it.
fn fit_open_files(loaded: &mut Loaded, open_files: Option<usize>, shards: usize) {
    let Loaded { config, origins, .. } = loaded;
    let others = OTHER_FILES + shards * FILES_PER_SHARD + http::RESERVE_PLACES;
    // With very few files, at least some connections can be tried.
    let for_tcp = open_files.map(|files| files.saturating_sub(others).max(files / 4));
    let connections = &mut config.connections;
    let (wanted, tcp_max) = (connections.tcp_max_within(None), connections.tcp_max_within(for_tcp));
    if tcp_max < wanted {
        warn!(
            tcp_max,
            wanted,
            open_files,
            "the limit on open files (ulimit -n) permits fewer connections than are configured"
        );
        origins.insert("connections.tcp_max".to_owned(), "the limit on open files".to_owned());
    } else {
        info!(tcp_max, open_files, "limited the TCP connections");
    }
    connections.tcp_max = tcp_max;
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
            let said = addresses(listening.parse().unwrap(), false, public_url);
            assert_eq!(said, (page.to_owned(), stream.to_owned()));
        }
        let (page, stream) = addresses("127.0.0.1:8443".parse().unwrap(), true, None);
        assert_eq!(page, "https://127.0.0.1:8443/");
        assert_eq!(stream, "wss://127.0.0.1:8443/ws/market/<zone>");
    }
}
