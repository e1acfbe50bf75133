//! Creates the parts of a gateway and connects them, each after those that it needs.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::threads::{Listening, Serving, Thread};
use super::{Gateway, StartError, Stops};
use crate::access::Gate;
use crate::bridge::{Bridge, BridgeParts};
use crate::channels::{CREDITS, Channels, ChannelsParts, Delivery, TellAccepted};
use crate::config::{Config, Loaded, Role};
use crate::connections::{self, Manager, ShardSeed};
use crate::feeds::{
    ExchangeParts, FeedCounters, SIMULATED_EXCHANGE, run_exchange, run_market, run_replay, run_simulated,
};
use crate::fleet::{Fleet, FleetParts};
use crate::http::{
    self, AcceptParts, App, BodyBudget, Door, Entrance, HttpConfig, ProxyProtocol, Sources, Tls, UnixFile,
};
use crate::model::NodeId;
use crate::orders::{
    ExecutorChoice, InteropStats, InteropWork, OrderExecutor, OrderMirror, OrderSchema, Orders, OrdersParts,
    Worker, exchange_updates,
};
use crate::protocol::ConfigView;
use crate::registry::{Registry, RegistryParts};
use crate::storage::{self, MemoryBackend, Opened, OwnLogs, SharedBackend, StorageChoice, StorageStatus};
use crate::support::machine;
use crate::support::panics::Vital;

/// Open files other than connections: for storage, the log and the runtime; and per shard for its
/// listeners, its runtime, and its reserve.
const OTHER_FILES: usize = 64;
const FILES_PER_SHARD: usize = 10;

/// Batches on their way to the registries: as many as two channels may have.
const REGISTRY_QUEUE: usize = 2 * CREDITS;

/// What parts need in order to run.
struct Running {
    node: NodeId,
    config: Config,
    stops: Stops,
    vital: Vital,
    /// Tracks the channels and feeds.
    tracker: TaskTracker,
    /// Tracks the storage's tasks, which outlive the channels, so that these can flush into the storage.
    driving: TaskTracker,
}

impl Running {
    /// Runs a part that ends by itself once it is stopped.
    fn spawn(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.vital.guard(name, part));
    }

    /// Runs a part until it ends, or is stopped.
    fn until(
        &self,
        stop: &CancellationToken,
        name: &'static str,
        part: impl Future<Output: Send> + Send + 'static,
    ) {
        let stop = stop.clone();
        self.spawn(name, async move {
            stop.run_until_cancelled_owned(part).await;
        });
    }

    /// Runs the storage, and watches the spool's thread (`spool_panicked` ends only when that has panicked).
    /// Neither may end before the storage is stopped.
    fn drive_storage(&self, driver: BoxFuture<'static, ()>, spool_panicked: BoxFuture<'static, ()>) {
        for (name, driver) in [("storage", driver), ("spool", spool_panicked)] {
            let (stopped, vital) = (self.stops.storage.clone(), self.vital.clone());
            let driver = async move {
                let ended = stopped.clone().run_until_cancelled_owned(driver).await;
                // A driver that ends because it was stopped may do so before this task notices the stop.
                if ended.is_some() && !stopped.is_cancelled() {
                    vital.fail(name);
                }
            };
            self.driving.spawn(self.vital.guard(name, driver));
        }
    }

    /// Runs an exchange with other programs, and the connections to Redis that it uses (`driver`). The
    /// exchange ends by itself after it is stopped; the connections last as long as the storage. `names` are
    /// those of the connections and of the exchange.
    fn exchange(
        &self,
        names: [&'static str; 2],
        driver: BoxFuture<'static, ()>,
        exchange: BoxFuture<'static, ()>,
    ) {
        let (stop, [connections, name]) = (self.stops.storage.clone(), names);
        let driver = async move {
            stop.run_until_cancelled_owned(driver).await;
        };
        self.driving.spawn(self.vital.guard(connections, driver));
        self.spawn(name, exchange);
    }

    /// Runs what access depends on: keys, revocations, and the certificate of TLS, if there is one.
    async fn begin_access(
        &self,
        backend: &SharedBackend,
    ) -> Result<(Arc<Gate>, Option<Arc<Tls>>), StartError> {
        let stop = &self.stops.channels;
        let gate = Gate::open(&self.config.auth, &self.config.limits, self.node, Arc::clone(backend)).await;
        let gate = gate.map_err(StartError::Auth)?;
        let tls = Tls::open(&self.config.http.tls, Arc::clone(&gate)).await.map_err(StartError::Tls)?;
        self.spawn("keys and revocations", Arc::clone(&gate).run(stop.clone()));
        if let Some(tls) = &tls {
            self.spawn("certificate", Arc::clone(tls).keep(stop.clone()));
        }
        Ok((gate, tls))
    }

    fn begin_channels(
        &self,
        backend: &SharedBackend,
        shards: Vec<mpsc::Sender<Delivery>>,
        accepted: Arc<dyn TellAccepted>,
    ) -> Channels {
        let incoming = backend.take_incoming();
        let parts = ChannelsParts {
            backend: Arc::clone(backend),
            node: self.node,
            config: self.config.channels.clone(),
            shards,
            runtime: Handle::current(),
            vital: self.vital.clone(),
            accepted: Some(accepted),
        };
        let channels = Channels::new(parts, self.tracker.clone(), self.stops.channels.clone());
        if let Some(incoming) = incoming {
            self.until(&self.stops.channels, "entries from the storage", channels.clone().pass_on(incoming));
        }
        channels
    }

    /// Runs the registries. They end with the channels, to which they write.
    fn begin_registry(&self, registry: &Registry, manager: &Manager, deliveries: mpsc::Receiver<Delivery>) {
        let stop = &self.stops.channels;
        self.until(stop, "registries", registry.clone().hear_all(deliveries));
        for (name, part) in registry.work(Arc::new(manager.clone()), stop) {
            self.until(stop, name, part);
        }
    }

    /// Publishes this node's record as long as others may need it, and reads the records of other nodes.
    fn begin_fleet(&self, fleet: &Fleet, manager: &Manager) {
        let stop = &self.stops.channels;
        let announcing = fleet.clone().announce(Arc::new(manager.clone()), stop.clone());
        self.spawn("this node's record in the fleet", announcing);
        self.until(stop, "records of other nodes", fleet.clone().keep_up());
    }

    /// Runs the exchange of updates with workers that use Redis lists, if it is configured.
    fn begin_interop(
        &self,
        backend: &SharedBackend,
        channels: &Channels,
    ) -> (OrderMirror, Arc<InteropStats>) {
        let (mirror, stats, work) = exchange_updates(
            &self.config.interop,
            backend,
            self.node,
            channels.watched_orders(),
            self.config.http.line_bytes_max,
            self.stops.channels.clone(),
        );
        if let Some(InteropWork { driver, exchange }) = work {
            self.exchange(["connections of outside orders", "outside orders"], driver, exchange);
        }
        (mirror, stats)
    }

    /// What the routes work with.
    fn app(&self, configured: Arc<ConfigView>, sources: Sources) -> Arc<App> {
        Arc::new(App {
            config: self.config.http.clone(),
            configured,
            manager: sources.manager.clone(),
            channels: sources.channels.clone(),
            orders: sources.orders.clone(),
            registry: sources.registry.clone(),
            gate: Arc::clone(&sources.gate),
            serves: self.config.node.has(Role::Gateway),
            works: self.config.node.has(Role::Worker),
            sources,
            stopping: self.stops.stopping.clone(),
        })
    }

    /// Starts the serving threads. If one fails to start, the others end.
    fn serve(
        &self,
        app: &Arc<App>,
        seeds: Vec<ShardSeed>,
        listening: Vec<Vec<(Entrance, Listening)>>,
    ) -> io::Result<Vec<Thread>> {
        let Self { config, stops, vital, .. } = self;
        let Sources { accepts, tls, .. } = &app.sources;
        let (manager, accepts, tls) = (app.manager.clone(), Arc::clone(accepts), tls.clone());
        let parts = AcceptParts::new(config.http.clone(), manager, accepts, stops.accepting.clone(), tls);
        let serving = Serving {
            door: Door::to(app),
            parts: Arc::new(parts),
            app: Arc::clone(app),
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

    fn begin_feeds(&self, sources: &Sources, backend: &SharedBackend) {
        let stop = &self.stops.stopping;
        let Sources { node, channels, feeds, .. } = sources;
        let simulated = &self.config.feeds.simulated;
        if simulated.enabled {
            self.until(stop, "simulated prices", run_simulated(simulated.clone(), channels.clone()));
            if let Some(counters) = feeds.get(SIMULATED_EXCHANGE) {
                let symbols = simulated.symbols.clone();
                let feed = run_market(symbols, simulated.seed, channels.clone(), Arc::clone(counters));
                self.until(stop, "a simulated exchange", feed);
            }
        }
        for exchange in &self.config.feeds.exchanges {
            let Some(counters) = feeds.get(exchange.name()) else { continue };
            let parts = ExchangeParts {
                config: exchange.clone(),
                channels: channels.clone(),
                backend: Arc::clone(backend),
                node: *node,
                counters: Arc::clone(counters),
                stop: stop.clone(),
            };
            self.spawn("the feed of an exchange", run_exchange(parts));
        }
        self.until(stop, "replayed prices", run_replay(self.config.feeds.replay.clone(), channels.clone()));
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
    let needs_redis = require_redis_for_worker(&mut loaded);
    fit_open_files(&mut loaded, machine::open_files(), shards);
    let configured = Arc::new(view(&loaded));
    let Loaded { config, .. } = loaded;
    let schema = OrderSchema::load(&config.orders.schema).map_err(StartError::OrderSchema)?;
    let opened = open_storage(&config, node, needs_redis).await?;
    let Opened { backend: shared, memory, status_reader: status, outage, driver, spool_panicked, .. } =
        opened;
    let begun = status.get();
    let Entrances { address, operators, listening, file } = listen(&config.http, shards)?;

    let (stops, vital) = (Stops::default(), Vital::default());
    let (tracker, driving) = (TaskTracker::new(), TaskTracker::new());
    let running = Running { node, config, stops, vital, tracker, driving };
    let config = &running.config;
    running.drive_storage(driver, spool_panicked);
    // Boxed, because fetching keys over TLS makes it large.
    let (gate, tls) = Box::pin(running.begin_access(&shared)).await?;
    let (manager, seeds, mut live) = connections::prepare(shards, &config.connections);
    // The registries follow channels as a shard does.
    let (to_registries, deliveries) = mpsc::channel(REGISTRY_QUEUE);
    live.push(to_registries);
    let (bridge, bridge_work) = Bridge::new(BridgeParts {
        config: config.bridge.clone(),
        backend: Arc::clone(&shared),
        link: config.bridge.enabled.then(|| shared.pub_sub()).flatten(),
        node,
        message_bytes_max: config.http.line_bytes_max,
    });
    let backend = with_own_logs(config, shared, &memory);
    let channels = running.begin_channels(&backend, live, bridge.tell_accepted());
    if let Some(work) = bridge_work {
        let exchange = work.exchange.run(channels.clone(), running.stops.channels.clone());
        running.exchange(["connections of the bridge", "bridge"], work.driver, Box::pin(exchange));
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
    running.begin_fleet(&fleet, &manager);
    let registry = Registry::new(RegistryParts {
        channels: channels.clone(),
        backend: Arc::clone(&backend),
        node,
        fleet: fleet.clone(),
        config: config.registry.clone(),
        place: shards,
    });
    running.begin_registry(&registry, &manager, deliveries);
    let (mirror, interop) = running.begin_interop(&backend, &channels);
    if let Err(error) = channels.recall_zones().await {
        warn!(error = %error, "could not read the list of zones");
    }
    let orders = Orders::new(OrdersParts {
        backend: Arc::clone(&backend),
        channels: channels.clone(),
        config: config.orders.clone(),
        mirror,
        watch: config.registry.follow_orders.then(|| Arc::new(registry.clone()) as Arc<_>),
        kind,
        schema,
    });
    let sources = Sources {
        node,
        started: Instant::now(),
        manager: manager.clone(),
        runtime: Handle::current(),
        channels,
        orders: orders.clone(),
        registry: registry.clone(),
        fleet,
        storage: status.clone(),
        memory: memory.clone(),
        outage: outage.clone(),
        redis_configured: config.storage.redis.is_configured(),
        accepts: Arc::default(),
        intake: Arc::default(),
        bodies: Arc::new(BodyBudget::new(config.http.bodies_bytes_max)),
        answers: Arc::new(BodyBudget::new(config.http.answers_bytes_max)),
        refusals: Arc::default(),
        interop,
        feeds: feed_counters(config),
        bridge,
        gate,
        tls,
        leaving: running.stops.leaving.clone(),
    };
    let app = running.app(configured, sources);
    let threads = running.serve(&app, seeds, listening).map_err(StartError::Thread)?;
    let work = TaskTracker::new();
    if config.node.has(Role::Worker) && config.orders.executor == ExecutorChoice::Paper {
        let working = Worker::new(&orders, executor).run(running.stops.stopping.clone());
        work.spawn(running.vital.guard("worker", working));
    }
    if config.node.has(Role::Gateway) {
        running.begin_feeds(&app.sources, &backend);
    }
    say_ready(config, node, (address, operators), shards, &begun, &status.get());
    let Running { config, stops, vital, tracker, .. } = running;
    Ok(Gateway {
        address,
        operators,
        _file: file,
        manager,
        config,
        storage: stops.storage.clone().drop_guard(),
        stops,
        tracker,
        work,
        orders,
        registry,
        outage,
        memory,
        status,
        vital,
        threads,
    })
}

/// The settings in effect, with their origins, and all warnings in one text.
fn view(loaded: &Loaded) -> ConfigView {
    let warnings: Vec<&str> = loaded.warning.iter().chain(&loaded.notices).map(String::as_str).collect();
    ConfigView {
        file: loaded.file.as_ref().map(|file| file.display().to_string()),
        warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
        settings: loaded.settings(),
    }
}

/// Requires Redis for a process that is only a worker, which is useless without it; returns whether that is
/// why Redis is required.
fn require_redis_for_worker(loaded: &mut Loaded) -> bool {
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

/// With the bridge, the logs of live types are this node's own.
fn with_own_logs(config: &Config, shared: SharedBackend, memory: &MemoryBackend) -> SharedBackend {
    if !config.bridge.enabled {
        return shared;
    }
    let bridge = config.bridge.clone();
    Arc::new(OwnLogs::new(shared, memory.clone(), Arc::new(move |channel| bridge.is_own_log(channel))))
}

/// The listeners.
struct Entrances {
    address: SocketAddr,
    /// The address of the operators' listener.
    operators: Option<SocketAddr>,
    /// By thread.
    listening: Vec<Vec<(Entrance, Listening)>>,
    file: Option<UnixFile>,
}

fn listen(config: &HttpConfig, shards: usize) -> Result<Entrances, StartError> {
    let on = |address| {
        http::listen(address, shards)
            .map_err(|cause| StartError::Listen { address: address.to_string(), cause })
    };
    // By thread.
    let mut listening: Vec<Vec<(Entrance, Listening)>> = Vec::new();
    listening.resize_with(shards, Vec::new);
    let mut add = |entrance, listeners: Vec<Listening>| {
        for (thread, on) in listening.iter_mut().zip(listeners) {
            thread.push((entrance, on));
        }
    };
    let addressed = |listeners: Vec<_>| listeners.into_iter().map(Listening::Address).collect();
    let is_announced = config.proxy_protocol == ProxyProtocol::Required;
    let entrance = Entrance { is_for_operators: false, speaks_tls: true, is_announced };
    let (listeners, address) = on(config.listen)?;
    add(entrance, addressed(listeners));
    let mut operators = None;
    if let Some(address) = config.operators.listen {
        let (listeners, address) = on(address)?;
        operators = Some(address);
        let speaks_tls = config.operators.tls;
        add(Entrance { is_for_operators: true, speaks_tls, is_announced: false }, addressed(listeners));
    }
    let mut file = None;
    if let Some(path) = &config.unix_socket {
        let mode = config.unix_socket_mode().unwrap_or(0o600);
        let (listeners, its_file) = http::listen_unix(path, mode, shards)
            .map_err(|cause| StartError::Listen { address: path.display().to_string(), cause })?;
        file = Some(its_file);
        // Its clients are on this machine, so nobody can listen in.
        let entrance = Entrance { speaks_tls: false, ..entrance };
        add(entrance, listeners.into_iter().map(Listening::File).collect());
    }
    Ok(Entrances { address, operators, listening, file })
}

/// The counters of exchanges' feeds, by name.
fn feed_counters(config: &Config) -> BTreeMap<String, Arc<FeedCounters>> {
    if !config.node.has(Role::Gateway) {
        return BTreeMap::new();
    }
    let exchanges = config.feeds.exchanges.iter().map(|exchange| (exchange.name(), exchange.kind.as_str()));
    let simulated = &config.feeds.simulated;
    let made_up = simulated.enabled && !simulated.symbols.is_empty();
    let all = exchanges.chain(made_up.then_some((SIMULATED_EXCHANGE, SIMULATED_EXCHANGE)));
    all.map(|(name, kind)| (name.to_owned(), FeedCounters::new(kind))).collect()
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
    // If the state has not changed since, its first reason is the more useful one: by now it may only say
    // that the gateway is connecting.
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
