//! A shard with its channels in memory, and its clients.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{self, LocalSet};
use tokio::time;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Gate, Principal};
use crate::channels::{Channels, ChannelsConfig, ChannelsParts, Delivery};
use crate::connections::behind::Behind;
use crate::connections::config::ConnectionsConfig;
use crate::connections::events::{self, EventStream, Wanted};
use crate::connections::limits::{Admission, Source};
use crate::connections::manager::Manager;
use crate::connections::shard::{Opening, Shard};
use crate::connections::socket::Socket;
use crate::connections::transport::Transport;
use crate::model::{
    BackendName, BackendState, ChannelName, DraftEntry, Entry, EntryId, EntryKind, Lane, Marks, NodeId,
};
use crate::storage::{
    MemoryBackend, MemoryConfig, Retention, SharedBackend, StatusReader, StatusWriter, StorageStatus,
};
use crate::support::panics::Vital;

/// Runs a test in a house.
pub(super) async fn in_house(config: ConnectionsConfig, test: impl AsyncFnOnce(House)) {
    let in_house = async { test(House::new(config).await).await };
    LocalSet::new().run_until(in_house).await;
}

/// The size of a socket's kernel buffers, of which the kernel makes a few times as much.
const SOCKET_BYTES: usize = 4_096;

pub(super) struct House {
    pub(super) shard: Rc<Shard>,
    pub(super) channels: Channels,
    pub(super) live: mpsc::Sender<Delivery>,
    pub(super) status: StatusWriter,
    manager: Manager,
    listener: TcpListener,
    sockets: RefCell<Vec<Socket>>,
    /// Keeps the stopped clock from advancing by itself while sockets take their time: a blocking task
    /// prevents that, and ends when this is dropped.
    _clock: std_mpsc::Sender<()>,
}

impl House {
    /// Its fan-out runs as long as the test's `LocalSet`.
    pub(super) async fn new(config: ConnectionsConfig) -> Self {
        let (store, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        Self::on(Arc::new(store), NodeId::random(), config).await
    }

    /// The same on another storage.
    pub(super) async fn on(backend: SharedBackend, node: NodeId, config: ConnectionsConfig) -> Self {
        Self::guarded(backend, node, config, Gate::off().await)
    }

    /// The same with authentication.
    pub(super) fn guarded(
        backend: SharedBackend,
        node: NodeId,
        config: ConnectionsConfig,
        gate: Arc<Gate>,
    ) -> Self {
        let (clock, held) = std_mpsc::channel();
        task::spawn_blocking(move || held.recv());
        let (live, mut incoming) = mpsc::channel(64);
        let parts = ChannelsParts {
            backend,
            node,
            config: ChannelsConfig { default_lane: Lane::Every, ..ChannelsConfig::default() },
            shards: vec![live.clone()],
            runtime: Handle::current(),
            vital: Vital::default(),
            accepted: None,
        };
        let channels = Channels::new(parts, TaskTracker::new(), CancellationToken::new());
        let (status, reader): (StatusWriter, StatusReader) = StatusWriter::new(healthy());
        let behind = Behind::new(&config);
        let manager = Manager::new(Vec::new(), config.clone(), Arc::clone(&behind));
        let shard = Shard::new(0, config, channels.clone(), Arc::default(), reader, gate, behind);
        let on = Rc::clone(&shard);
        task::spawn_local(async move { on.fan_out_all(&mut incoming).await });
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(64).unwrap();
        let sockets = RefCell::default();
        Self { shard, channels, live, status, manager, listener, sockets, _clock: clock }
    }

    /// A connection from which nothing has been read.
    pub(super) async fn connect(&self, opening: Opening) -> Guest {
        self.connect_with(opening, None, false).await
    }

    /// The same for a principal.
    pub(super) async fn connect_as(&self, opening: Opening, principal: Arc<Principal>) -> Guest {
        self.connect_with(opening, Some(principal), false).await
    }

    /// The same; with `small`, the socket's buffers hold little.
    async fn connect_with(
        &self,
        opening: Opening,
        principal: Option<Arc<Principal>>,
        is_small: bool,
    ) -> Guest {
        let socket = TcpSocket::new_v4().unwrap();
        if is_small {
            socket.set_recv_buffer_size(SOCKET_BYTES as u32).unwrap();
        }
        let client = socket.connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        if is_small {
            SockRef::from(&server).set_send_buffer_size(SOCKET_BYTES).unwrap();
        }
        self.shard.adopt(
            Transport::Tcp(server),
            Bytes::new(),
            opening,
            principal.map(Into::into),
            self.admission(),
        );
        let config = WebSocketConfig::default().read_buffer_size(1_024);
        Guest(WebSocketStream::from_raw_socket(client, Role::Client, Some(config)).await)
    }

    fn admission(&self) -> Admission {
        let limits = self.manager.limits();
        let tcp = limits.admit_tcp(Some(Source::of([127, 0, 0, 1].into()))).unwrap();
        limits.admit(Arc::new(tcp), None).unwrap()
    }

    /// How many messages were dropped because a client was too slow.
    pub(super) fn cut(&self) -> u64 {
        self.shard.stats.messages.dropped_by_reason.slow_consumer.get()
    }

    /// An event stream of these channels, and the socket that would carry it.
    pub(super) async fn stream(&self, wanted: &[Wanted]) -> (EventStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        let socket = Socket::new(server);
        let (pipe, events) = events::stream(wanted, socket.look());
        // Kept for as long as the test runs.
        self.sockets.borrow_mut().push(socket);
        let opening = Opening::Channels(wanted.to_vec());
        self.shard.adopt(Transport::Events(Box::new(pipe)), Bytes::new(), opening, None, self.admission());
        (events, client)
    }

    /// A subscriber of a zone, past its first two messages, and the `subscribed` that it got.
    pub(super) async fn subscriber(&self, zone: &str) -> (Guest, Value) {
        self.subscriber_with(zone, false).await
    }

    /// The same, with small socket buffers.
    pub(super) async fn small_subscriber(&self, zone: &str) -> (Guest, Value) {
        self.subscriber_with(zone, true).await
    }

    async fn subscriber_with(&self, zone: &str, is_small: bool) -> (Guest, Value) {
        let zone = zone.parse().unwrap();
        let mut guest =
            self.connect_with(Opening::Market { zone, since: None, snapshot: false }, None, is_small).await;
        assert_eq!(guest.next().await["type"], "connection_established");
        let subscribed = guest.next().await;
        assert_eq!(subscribed["type"], "subscribed");
        (guest, subscribed)
    }

    /// Publishes prices one after the other, and counts how many were accepted.
    pub(super) fn publish(&self, zone: &str, count: u64) -> Rc<RefCell<u64>> {
        let (channels, channel) = (self.channels.clone(), zone_channel(zone));
        let accepted = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&accepted);
        task::spawn_local(async move {
            for n in 1..=count {
                channels.publish(&channel, vec![draft(n)]).await.unwrap();
                *counted.borrow_mut() = n;
            }
        });
        accepted
    }
}

pub(super) fn zone_channel(zone: &str) -> ChannelName {
    ChannelName::zone(&zone.parse().unwrap())
}

pub(super) fn healthy() -> StorageStatus {
    StorageStatus::new(BackendName::InMemory, BackendState::Healthy, "configured", "memory".to_owned())
}

/// A price large enough that a few of them fill a socket.
fn draft(n: u64) -> DraftEntry {
    DraftEntry {
        time: DateTime::from_timestamp_millis(0).unwrap(),
        kind: EntryKind::PriceUpdate,
        key: Some("K".into()),
        data: format!(r#"{{"n":{n},"padding":"{}"}}"#, "x".repeat(300)).into(),
        marks: Marks::default(),
    }
}

/// An entry as the log would return it.
pub(super) fn entry(offset: u64) -> Entry {
    Entry { offset, id: EntryId { producer: NodeId::random(), seq: offset }, draft: draft(offset) }
}

/// Lets everything continue that can without time passing.
pub(super) async fn settle() {
    for _ in 0..2_000 {
        task::yield_now().await;
    }
}

/// Waits without time passing.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_000_000 {
        if is_so() {
            return;
        }
        task::yield_now().await;
    }
    panic!("never: {what}");
}

/// Waits while time passes.
pub(super) async fn in_time<T>(waited_for: impl Future<Output = T>) -> T {
    let passing = async {
        loop {
            for _ in 0..200 {
                task::yield_now().await;
            }
            time::advance(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = waited_for => done,
        () = passing => unreachable!("it goes on without end"),
    }
}

/// A client.
pub(super) struct Guest(pub(super) WebSocketStream<TcpStream>);

impl Guest {
    /// The next message.
    pub(super) async fn next(&mut self) -> Value {
        self.came().await.unwrap_or_else(|code| panic!("a message, not a close with {code}"))
    }

    /// The next message, or the close code.
    pub(super) async fn came(&mut self) -> Result<Value, u16> {
        loop {
            match self.0.next().await.expect("no end without a close").unwrap() {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => return Err(frame.unwrap().code.into()),
                _ => {}
            }
        }
    }

    /// All messages up to the close, and its code.
    pub(super) async fn until_close(&mut self) -> (Vec<Value>, u16) {
        let mut before = Vec::new();
        loop {
            match self.came().await {
                Ok(message) => before.push(message),
                Err(code) => return (before, code),
            }
        }
    }

    pub(super) async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Reads prices up to this offset, which must follow `after` without gaps.
    pub(super) async fn read_prices(&mut self, after: u64, last: u64) {
        for offset in after + 1..=last {
            let price = self.next().await;
            assert_eq!((&price["type"], price["offset"].as_u64()), (&"price_update".into(), Some(offset)));
        }
    }
}
