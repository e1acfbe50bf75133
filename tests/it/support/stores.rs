//! Every backend behind one interface, for tests of the common contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time;
use zonewire::model::{
    BackendState, ChannelName, DraftEntry, Entry, EntryKind, Epoch, Lane, Marks, NodeId, Position,
};
use zonewire::storage::{
    Append, AppendAnswer, AppendBatch, Appended, LogEvent, MemoryBackend, MemoryConfig, Page, RedisBackend,
    RedisConfig, Retention, SharedBackend, StorageChoice, StorageConfig, open,
};
use zonewire_kit::redis::RedisServer;

use super::client::LIMIT;
use super::eventually::eventually;
use super::redis::{Configured, nowhere, patient, redis};
use super::reopening::Reopening;

/// A storage on which nodes can be opened.
pub(crate) struct Stores {
    retention: Retention,
    pub(crate) server: Option<RedisServer>,
    /// A Redis that another test started.
    shared: Option<RedisConfig>,
    memory: Option<SharedBackend>,
    drivers: Mutex<JoinSet<()>>,
    /// Whether Redis gets generous timeouts.
    patient: bool,
    /// Whether nodes use the switching storage.
    pub(crate) switches: bool,
}

/// The node that each storage was opened for, if any: the first producer on the storage is that node.
static NODES: Mutex<Vec<(usize, NodeId)>> = Mutex::new(Vec::new());

fn address(store: &SharedBackend) -> usize {
    Arc::as_ptr(store).cast::<()>() as usize
}

/// The id of the next producer on a storage.
pub(crate) fn producer_of(store: &SharedBackend) -> NodeId {
    let mut nodes = NODES.lock();
    let at = nodes.iter().position(|(of, _)| *of == address(store));
    at.map_or_else(NodeId::random, |at| nodes.swap_remove(at).1)
}

/// The storage that a test runs on.
#[derive(Clone, Copy)]
pub(crate) enum Make {
    /// Memory, with tokio's time paused. All nodes share one instance.
    Memory,
    /// Memory with a directory, which is closed and reopened now and then. All nodes share one instance.
    Folder,
    /// A new Redis.
    Redis,
    /// A new Redis, and nodes with the switching storage.
    Switching,
    /// The switching storage with a Redis that never was there. Each node is alone.
    Away,
    /// The Redis of [`sharing`], with separate keys.
    Variant,
}

impl Make {
    /// `None` if there is no Redis.
    pub(crate) async fn stores(self, retention: Retention) -> Option<Stores> {
        match self {
            Self::Memory => Some(Stores::memory(retention)),
            Self::Folder => {
                let memory: SharedBackend = Arc::new(Reopening::new(retention.clone()).await);
                Some(Stores { memory: Some(memory), ..Stores::of(retention) })
            }
            Self::Redis => Some(Stores { patient: true, ..Stores::redis(retention).await? }),
            Self::Switching => {
                Some(Stores { patient: true, switches: true, ..Stores::redis(retention).await? })
            }
            Self::Away => Some(Stores::away(retention)),
            Self::Variant => Some(Stores::variant(retention)),
        }
    }

    /// `None` if there is no Redis.
    pub(crate) async fn fresh(self, retention: Retention) -> Option<Fresh> {
        let stores = self.stores(retention).await?;
        let store = stores.open().await;
        Some(Fresh { stores, store })
    }
}

/// An empty storage, and one node's access to it.
pub(crate) struct Fresh {
    pub(crate) stores: Stores,
    pub(crate) store: SharedBackend,
}

/// What a test of the contract begins with: a storage with the default retention, or only the way to make one.
pub(crate) trait Beginning: Sized {
    async fn make(make: Make) -> Option<Self>;
}

impl Beginning for Fresh {
    async fn make(make: Make) -> Option<Self> {
        make.fresh(Retention::default()).await
    }
}

/// An empty log on such a storage, and a producer.
pub(crate) struct Log {
    pub(crate) producer: Producer,
    pub(crate) store: SharedBackend,
    _stores: Stores,
}

impl Beginning for Log {
    async fn make(make: Make) -> Option<Self> {
        let Fresh { stores, store } = Fresh::make(make).await?;
        Some(Self { producer: Producer::new(&store).await, store, _stores: stores })
    }
}

impl Beginning for Make {
    async fn make(make: Make) -> Option<Self> {
        Some(make)
    }
}

/// Runs a test, if there is the storage that it needs.
pub(crate) async fn run<T: Beginning, F: Future<Output = ()>>(make: Make, test: impl FnOnce(T) -> F) {
    if let Some(beginning) = T::make(make).await {
        test(beginning).await;
    }
}

impl Stores {
    fn memory(retention: Retention) -> Self {
        tokio::time::pause();
        let (backend, driver) = MemoryBackend::new(retention.clone(), MemoryConfig::default());
        let stores = Self { memory: Some(Arc::new(backend)), ..Self::of(retention) };
        stores.spawn(driver);
        stores
    }

    /// A new Redis with default timeouts; `None` if there is none.
    pub(crate) async fn redis(retention: Retention) -> Option<Self> {
        Some(Self { server: Some(redis(&[]).await?), ..Self::of(retention) })
    }

    /// Its own Redis.
    pub(crate) fn server(&self) -> &RedisServer {
        self.server.as_ref().unwrap()
    }

    fn away(retention: Retention) -> Self {
        tokio::time::pause();
        let config = RedisConfig {
            host: Some("127.0.0.1".to_owned()),
            port: Some(nowhere()),
            ..RedisConfig::default()
        };
        Self { switches: true, shared: Some(config), ..Self::of(retention) }
    }

    /// A Redis that somebody else started.
    pub(crate) fn at(config: RedisConfig, retention: Retention) -> Self {
        Self { shared: Some(config), patient: true, ..Self::of(retention) }
    }

    fn of(retention: Retention) -> Self {
        let (drivers, patient, switches) = (Mutex::default(), false, false);
        Self { retention, server: None, shared: None, memory: None, drivers, patient, switches }
    }

    fn variant(retention: Retention) -> Self {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let prefix = SHARED.with(|config| config.prefix.clone());
        let prefix = format!("{prefix}:{}", STORES.fetch_add(1, Ordering::Relaxed));
        Self::at(RedisConfig { prefix, ..SHARED.with(Clone::clone) }, retention)
    }

    /// Another node's access to the storage.
    pub(crate) async fn open(&self) -> SharedBackend {
        match &self.memory {
            Some(memory) => Arc::clone(memory),
            None if self.switches => self.open_switching().await,
            None => Arc::new(self.open_redis().await),
        }
    }

    async fn open_switching(&self) -> SharedBackend {
        let redis = match (&self.shared, &self.server) {
            (Some(config), _) => config.clone(),
            (None, server) => server.as_ref().unwrap().patient_config(),
        };
        let (backend, retention) = (StorageChoice::Redis, self.retention.clone());
        let config = StorageConfig { backend, redis, retention, ..StorageConfig::default() };
        let node = NodeId::random();
        let wanted = if self.server.is_some() { BackendState::Healthy } else { BackendState::Degraded };
        let opened = eventually("the storage begins as it should", async || {
            let opened = open(&config, node, Arc::new(|_| Lane::Every)).await.unwrap();
            (opened.status_reader.get().state == wanted).then_some(opened)
        })
        .await;
        self.drivers.lock().spawn(opened.driver);
        // A dropped storage may have had the same address.
        let mut nodes = NODES.lock();
        nodes.retain(|(of, _)| *of != address(&opened.backend));
        nodes.push((address(&opened.backend), node));
        drop(nodes);
        opened.backend
    }

    pub(crate) async fn open_redis(&self) -> RedisBackend {
        let config = match (&self.shared, &self.server) {
            (Some(config), _) => patient(config.clone()),
            (None, Some(server)) if self.patient => server.patient_config(),
            (None, server) => server.as_ref().unwrap().config(),
        };
        let (backend, driver) = connect(&config, &self.retention).await;
        self.drivers.lock().spawn(driver);
        backend
    }

    /// Runs a task as long as this lives.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.drivers.lock().spawn(task);
    }
}

tokio::task_local! {
    static SHARED: RedisConfig;
}

/// Runs a future in which [`Stores::variant`] uses this Redis.
pub(crate) async fn sharing<T>(config: RedisConfig, run: impl Future<Output = T>) -> T {
    SHARED.scope(config, run).await
}

/// Connects, however busy the machine is: a gateway gives up after 0.4 s, and tests that share two cores may
/// take longer.
pub(crate) async fn connect(
    config: &RedisConfig,
    retention: &Retention,
) -> (RedisBackend, BoxFuture<'static, ()>) {
    eventually("redis lets us in", async || RedisBackend::connect(config, retention.clone()).await.ok()).await
}

/// The same, and runs the driver as long as the returned set lives.
pub(crate) async fn connected(config: &RedisConfig, retention: &Retention) -> (SharedBackend, JoinSet<()>) {
    let (store, driver) = connect(config, retention).await;
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    (Arc::new(store), drivers)
}

pub(crate) async fn next_event(incoming: &mut Receiver<LogEvent>) -> LogEvent {
    time::timeout(LIMIT, incoming.recv()).await.expect("an event").expect("an open channel")
}

pub(crate) async fn until_suspect(incoming: &mut Receiver<LogEvent>) {
    while !matches!(next_event(incoming).await, LogEvent::Suspect) {}
}

pub(crate) fn channel() -> ChannelName {
    "zone:pjm".parse().unwrap()
}

/// A price at a time, with or without a key.
pub(crate) fn price(time_ms: i64, key: Option<&str>, data: &str) -> DraftEntry {
    DraftEntry {
        time: DateTime::from_timestamp_millis(time_ms).unwrap(),
        kind: EntryKind::PriceUpdate,
        key: key.map(Arc::from),
        data: Bytes::copy_from_slice(data.as_bytes()),
        marks: Marks::default(),
    }
}

/// A node that appends to one channel.
#[derive(Clone)]
pub(crate) struct Producer {
    pub(crate) store: SharedBackend,
    pub(crate) channel: ChannelName,
    pub(crate) epoch: Epoch,
    pub(crate) id: NodeId,
}

impl Producer {
    /// Creates the channel's log, or continues an existing one.
    pub(crate) async fn new(store: &SharedBackend) -> Self {
        Self::on(store, channel()).await
    }

    pub(crate) async fn on(store: &SharedBackend, channel: ChannelName) -> Self {
        let id = producer_of(store);
        let epoch = store.open(&channel, id, &Epoch::random()).await.unwrap().epoch;
        Self { store: Arc::clone(store), channel, epoch, id }
    }

    pub(crate) fn batch(&self, entries: Vec<Append>) -> AppendBatch {
        AppendBatch { channel: self.channel.clone(), epoch: self.epoch.clone(), producer: self.id, entries }
    }

    /// Entries with these sequences, each following the previous one.
    pub(crate) fn chain(&self, seqs: std::ops::RangeInclusive<u64>) -> AppendBatch {
        self.batch(seqs.map(|seq| link(seq - 1, seq)).collect())
    }

    pub(crate) async fn append(&self, entries: Vec<Append>) -> Vec<Appended> {
        done(self.store.append(&self.batch(entries)).await.unwrap())
    }

    /// Appends a chain, all of which must be applied.
    pub(crate) async fn fill(&self, seqs: std::ops::RangeInclusive<u64>) {
        let results = done(self.store.append(&self.chain(seqs)).await.unwrap());
        assert!(results.iter().all(|result| matches!(result, Appended::Applied { .. })), "{results:?}");
    }

    pub(crate) async fn read(&self, after: u64, limit: usize) -> Page {
        let after = Position { epoch: self.epoch.clone(), offset: after };
        self.store.read_after(&self.channel, Some(&after), limit).await.unwrap()
    }
}

/// An entry with its position in the chain; its content is its sequence.
pub(crate) fn link(prev: u64, seq: u64) -> Append {
    Append { seq, prev, draft: price(seq as i64, Some("k"), &format!("{{\"n\":{seq}}}")), fence: None }
}

pub(crate) fn done(answer: AppendAnswer) -> Vec<Appended> {
    match answer {
        AppendAnswer::Done(results) => results,
        AppendAnswer::ForeignEpoch(epoch) => panic!("foreign epoch {epoch:?}"),
    }
}

pub(crate) fn offsets(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.offset).collect()
}

/// Runs each test body once for every backend.
macro_rules! for_every_backend {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        mod memory {
            $($(#[$meta])* #[tokio::test]
            async fn $name() {
                $crate::support::stores::run($crate::support::stores::Make::Memory, super::$name).await;
            })*
        }
        mod folder {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::support::stores::run($crate::support::stores::Make::Folder, super::$name).await;
            })*
        }
        mod switching {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::support::stores::run($crate::support::stores::Make::Switching, super::$name).await;
            })*
        }
        mod redis {
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::support::stores::run($crate::support::stores::Make::Redis, super::$name).await;
            })*
        }

        /// All tests on one Redis, that of [`sharing`]($crate::support::stores::sharing).
        pub(crate) async fn on_variant() {
            use futures_util::stream::{self, StreamExt as _};
            use futures_util::future::LocalBoxFuture;
            let all: Vec<LocalBoxFuture<'_, ()>> = vec![$({
                // Each future is created on a separate stack frame: together they exceed a thread's stack.
                #[inline(never)]
                fn boxed() -> LocalBoxFuture<'static, ()> {
                    Box::pin($crate::support::stores::run($crate::support::stores::Make::Variant, $name))
                }
                boxed()
            }),*];
            stream::iter(all).for_each_concurrent(8, |body| body).await;
        }
    };
}
pub(crate) use for_every_backend;

/// Runs tests also while Redis is configured and away: what a node without Redis promises.
macro_rules! also_while_redis_is_away {
    ($($name:ident),* $(,)?) => {
        mod away {
            $(#[tokio::test]
            async fn $name() {
                $crate::support::stores::run($crate::support::stores::Make::Away, super::$name).await;
            })*
        }
    };
}
pub(crate) use also_while_redis_is_away;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
