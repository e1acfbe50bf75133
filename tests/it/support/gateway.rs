//! A gateway in this process, and small HTTP requests to it.

use std::net::SocketAddr;
use std::panic;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{self, JoinSet};
use tokio::time;
use zonewire::config::Config;
use zonewire::connections::Manager;
use zonewire::gateway::{Gateway, RunError, StartError};
use zonewire::orders::{OrderExecutor, PaperExecutor};
use zonewire::storage::StorageChoice;
use zonewire_protocol::{Accepted, Entries};

use super::client::{Client, LIMIT, offset};
use super::eventually::{eventually, until};

/// In memory, on a free port, with two shards, and a shutdown without a drain window that waits one second
/// for clients that a test has left connected.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.http.shards = 2;
    config.http.drain_s = 0;
    config.connections.close_grace_ms = 1_000;
    config.storage.backend = StorageChoice::Memory;
    config
}

/// A gateway that runs until it is dropped: it must then stop in time and without an error, except for entries
/// that it could not send in a test that ends without its Redis. Clients that a test makes after it are gone by
/// then; only [`stop`](Self::stop) meets connected ones.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) operators: Option<SocketAddr>,
    pub(crate) manager: Manager,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinSet<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let paper = PaperExecutor::new(config.orders.paper.clone());
        Self::start_with(config, Arc::new(paper)).await
    }

    /// The same after a change of the settings.
    pub(crate) async fn changed(mut config: Config, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut config);
        Self::start(config).await
    }

    pub(crate) async fn start_with(config: Config, executor: Arc<dyn OrderExecutor>) -> Self {
        // A gateway gives up on Redis within a second, which a busy machine may exceed.
        let started = async || match Gateway::start_with(config.clone(), Arc::clone(&executor)).await {
            Err(StartError::Storage(_)) => None,
            started => Some(started.unwrap()),
        };
        let gateway = eventually("the gateway starts", started).await;
        let (address, operators) = (gateway.address(), gateway.operators_address());
        let manager = gateway.manager().clone();
        let (shutdown, asked) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(gateway.run(async {
            // A failing test drops the sender, and aborts this.
            let _dropped = asked.await;
        }));
        Self { address, operators, manager, shutdown: Some(shutdown), running }
    }

    /// Asks it to stop, without waiting.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            shutdown.send(()).unwrap();
        }
    }

    /// Stops it now, for tests that continue without it.
    pub(crate) async fn stop(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        self.begin_stop();
        let ended = time::timeout(LIMIT, self.running.join_next()).await.expect("the gateway stops in time");
        match ended.unwrap().unwrap() {
            Ok(()) | Err(RunError::Lost { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The URL of a WebSocket endpoint such as `/ws`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// A client of a WebSocket endpoint.
    pub(crate) async fn connect(&self, path: &str) -> Client {
        Client::connect(&self.url(path)).await
    }

    /// A client of `/ws`, after its first message.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.connect("/ws").await;
        client.next_of_type("connection_established").await;
        client
    }

    /// A client that follows a channel from now on.
    pub(crate) async fn follow(&self, channel: &str) -> Client {
        let mut client = self.client().await;
        client.send(&serde_json::json!({ "type": "subscribe", "channels": [channel] })).await;
        client.next_of_type("subscribed").await;
        client
    }

    /// A client of a WebSocket endpoint, after `subscribed`, and that.
    pub(crate) async fn subscribed(&self, path: &str) -> (Client, Value) {
        let mut client = self.connect(path).await;
        let subscribed = client.next_of_type("subscribed").await;
        (client, subscribed)
    }

    /// A client of `/ws/market/<zone>`, after its first two messages, and `subscribed`.
    pub(crate) async fn market(&self, zone: &str) -> (Client, Value) {
        let mut client = Client::connect(&self.url(&format!("/ws/market/{zone}"))).await;
        client.next_of_type("connection_established").await;
        let subscribed = client.next().await;
        assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
        (client, subscribed)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        request(self.address, "GET", path, &[], b"").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        request(self.address, "DELETE", path, &[], b"").await
    }

    /// A `POST` without a body.
    pub(crate) async fn post_empty(&self, path: &str) -> Answer {
        request(self.address, "POST", path, &[], b"").await
    }

    /// `/ws/stats`.
    pub(crate) async fn stats(&self) -> Value {
        self.get("/ws/stats").await.json()
    }

    pub(crate) async fn post(&self, zone: &str, content_type: &str, body: &[u8]) -> Answer {
        post(self.address, zone, content_type, body).await
    }

    /// Posts prices, one JSON object each, as lines; all must be accepted.
    pub(crate) async fn publish<T: ToString>(&self, zone: &str, prices: impl IntoIterator<Item = T>) {
        publish(self.address, zone, prices).await;
    }
}

impl Drop for Running {
    /// Where a test has failed, or has stopped the gateway itself, nothing is waited for: the set aborts a gateway
    /// that still runs.
    fn drop(&mut self) {
        if !self.running.is_empty() && !std::thread::panicking() {
            let runtime = Handle::current();
            // On a thread of its own: to wait here would take a wakeup that came meanwhile from the test, which may
            // be polling other futures beside the one that ended.
            let end = || std::thread::scope(|scope| scope.spawn(|| runtime.block_on(self.end())).join());
            if let Err(panicked) = task::block_in_place(end) {
                panic::resume_unwind(panicked);
            }
        }
    }
}

pub(crate) const LINES: &str = "application/x-ndjson";
pub(crate) const JSON: &str = "application/json";

pub(crate) async fn post(address: SocketAddr, zone: &str, content_type: &str, body: &[u8]) -> Answer {
    let path = format!("/api/zones/{zone}/prices");
    request(address, "POST", &path, &[("content-type", content_type)], body).await
}

/// Posts prices, one JSON object each, as lines; all must be accepted.
pub(crate) async fn publish<T: ToString>(
    address: SocketAddr,
    zone: &str,
    prices: impl IntoIterator<Item = T>,
) {
    let lines: Vec<String> = prices.into_iter().map(|price| price.to_string()).collect();
    let answer = post(address, zone, LINES, lines.join("\n").as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.read::<Accepted>().accepted, lines.len() as u64);
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body, parsed as clients do.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a problem with this status and code, and returns it.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{self:?}");
        problem
    }
}

/// One request on a new connection.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    // A server that refuses early need not read everything.
    let _refused = stream.write_all(&request).await;
    read_answer(&mut stream).await.unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// Reads a response; `None` if the connection ends before one.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    let mut bytes = Vec::new();
    let reading =
        async { while !is_whole(&bytes) && stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {} };
    time::timeout(LIMIT, reading).await.expect("an answer in time");
    (!bytes.is_empty()).then(|| parse_answer(&bytes))
}

/// Whether the head is complete, and the body as long as the head says.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let len = len.map_or(0, |len| len.parse().unwrap());
    bytes.len() >= end + 4 + len
}

fn parse_answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    // After an upgrade, frames may follow.
    Answer { status, head, body: String::from_utf8_lossy(&bytes[end + 4..]).into_owned() }
}

/// A `POST` of lines that stays open.
pub(crate) struct Lines(TcpStream);

impl Lines {
    pub(crate) async fn open(address: SocketAddr, zone: &str) -> Self {
        Self::open_at(address, &address.to_string(), &format!("/api/zones/{zone}/prices")).await
    }

    /// The same for a host and a path.
    pub(crate) async fn open_at(address: SocketAddr, host: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Sends text as one chunk, with its line breaks unchanged.
    pub(crate) async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        // After an error the gateway reads no more; the answer says why.
        let _refused = self.0.write_all(chunk.as_bytes()).await;
    }

    /// Ends the body, and reads the answer.
    pub(crate) async fn finish(mut self) -> Answer {
        self.0.write_all(b"0\r\n\r\n").await.unwrap();
        self.answer().await
    }

    /// Reads the answer, whether or not the body has ended.
    pub(crate) async fn answer(mut self) -> Answer {
        read_answer(&mut self.0).await.expect("an answer")
    }
}

/// Everything in the log of a zone, page by page.
pub(crate) async fn history(address: SocketAddr, zone: &str) -> Vec<Value> {
    let get = async |query: &str| -> Entries<Value> {
        let path = format!("/api/zones/{zone}/history?{query}");
        request(address, "GET", &path, &[], b"").await.read()
    };
    let newest = get("limit=1").await;
    let Some(epoch) = newest.epoch else { return Vec::new() };
    let (mut all, mut end) = (Vec::new(), newest.first_offset.unwrap_or(1) - 1);
    while Some(end) < newest.last_offset {
        let page = get(&format!("limit=1000&after={epoch}:{end}")).await;
        end = offset(page.entries.last().expect("the log has more"));
        all.extend(page.entries);
    }
    all
}

/// A price of `key`.
pub(crate) fn price(key: &str, value: u64) -> Value {
    serde_json::json!({ "key": key, "price": value })
}

/// A number in `/metrics`, by its name with labels.
pub(crate) async fn metric(address: SocketAddr, name: &str) -> u64 {
    let text = request(address, "GET", "/metrics", &[], b"").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until connections to an address are refused.
pub(crate) async fn until_closed(address: SocketAddr) {
    until("nobody listens any more", async || TcpStream::connect(address).await.is_err()).await;
}

/// Waits until the storage of a gateway is in this state.
pub(crate) async fn until_state(address: SocketAddr, state: &str) {
    until(&format!("the storage is {state}"), async || {
        request(address, "GET", "/ws/health", &[], b"").await.json()["state"] == state
    })
    .await;
}

/// Waits until a number in `/ws/stats` (a JSON pointer) is at least this.
pub(crate) async fn until_stat(gateway: &Running, pointer: &str, at_least: u64) -> u64 {
    eventually(&format!("{pointer} >= {at_least}"), async || {
        let value = gateway.stats().await.pointer(pointer).and_then(Value::as_u64);
        value.filter(|value| *value >= at_least)
    })
    .await
}
