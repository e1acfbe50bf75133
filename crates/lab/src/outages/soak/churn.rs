//! The churn: clients of every kind come, ask and go, properly or not, over and over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zonewire::client::follow::{Socket, connect};
use zonewire::client::header::CONTENT_TYPE;
use zonewire::client::{BaseUrl, Http, Request, StatusCode};
use zonewire_kit::hostile::{ATTACKS, Target};

use super::realm::{LIFETIME_MAX_S, Realm};
use super::sample::OF_CHURN;

/// How many act at once.
const WORKERS: u64 = 6;
/// How long each rests between two acts.
const REST: Duration = Duration::from_millis(20);
/// How long an act may take, including an outage.
const PATIENCE: Duration = Duration::from_secs(12);
/// How many names of each kind there are: zones, symbols, subjects, records.
const NAMES: u64 = 16;
/// More messages than a client may send or publish in a burst.
const RUSH: u64 = 400;
/// Where clients that exceed their limits publish.
const EAGER: &str = "api/zones/soak-eager/prices";
/// Handshakes that break off at once.
const HALVES: usize = 40;

type Done<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// An act with its name, which fails if its result is not the required one.
type Act = (&'static str, for<'a> fn(&'a Client, u64) -> Done<'a>);

const ACTS: &[Act] = &[
    ("sockets that subscribe, unsubscribe and leave", |c, n| Box::pin(c.come_and_go(n))),
    ("sockets of one zone, with a snapshot", |c, n| Box::pin(c.one_zone(n))),
    ("sockets that are dropped amid what they are sent", |c, n| Box::pin(c.drop_amid(n))),
    ("tokens renewed on the open socket", |c, n| Box::pin(c.renew(n))),
    ("tokens that expire", |c, n| Box::pin(c.expire(n))),
    ("tokens revoked", |c, n| Box::pin(c.revoke(n))),
    ("sockets with no token, or a wrong one", |c, n| Box::pin(c.show_nothing(n))),
    ("streams of events", |c, n| Box::pin(c.stream(n))),
    ("requests", |c, n| Box::pin(c.request(n))),
    ("orders followed to their end", |c, n| Box::pin(c.order(n))),
    ("orders cancelled", |c, n| Box::pin(c.cancel(n))),
    ("records bound to a socket, and removed", |c, n| Box::pin(c.records(n))),
    ("events, and a view of them", |c, n| Box::pin(c.events(n))),
    ("limits met", |c, n| Box::pin(c.limits(n))),
    ("handshakes that break off", |c, n| Box::pin(c.half(n))),
];

/// How often an act had the required result (`done`), and how often it did not (`failed`).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ActResults {
    pub(super) done: u64,
    /// Some must fail in an outage.
    pub(super) failed: u64,
    /// Why the last failure failed.
    pub(super) why: String,
}

/// By the name of the act.
pub(super) type ResultsByAct = BTreeMap<&'static str, ActResults>;

/// A gateway and its clients.
#[derive(Debug)]
pub(super) struct Client {
    /// Without a token.
    base: BaseUrl,
    address: SocketAddr,
    /// With the operator's token.
    operators: BaseUrl,
    realm: Realm,
    results: Mutex<ResultsByAct>,
    next: AtomicU64,
}

impl Client {
    pub(super) fn new(operators: &BaseUrl, realm: Realm) -> anyhow::Result<Arc<Self>> {
        // Without the token.
        let text = operators.to_string();
        let base = text.parse().map_err(|error: String| anyhow!(error))?;
        let address = text.trim_start_matches("http://").parse().context("a gateway at an odd address")?;
        let results = ACTS.iter().map(|(name, _)| (*name, ActResults::default())).collect();
        let (operators, next) = (operators.clone(), AtomicU64::new(0));
        Ok(Arc::new(Self { base, address, operators, realm, results: Mutex::new(results), next }))
    }

    pub(super) fn results(&self) -> ResultsByAct {
        self.results.lock().clone()
    }

    /// Does one act after the other until `stop`.
    pub(super) fn begin(self: &Arc<Self>, stop: &CancellationToken) -> JoinSet<()> {
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let (client, stop) = (Arc::clone(self), stop.clone());
            workers.spawn(async move {
                while !stop.is_cancelled() {
                    client.act().await;
                    time::sleep(REST).await;
                }
            });
        }
        workers
    }

    async fn act(&self) {
        let n = self.next.fetch_add(1, Relaxed);
        let (count, round) = (ACTS.len() as u64, n / ACTS.len() as u64);
        let (name, run) = ACTS[(n % count) as usize];
        let done = time::timeout(PATIENCE, run(self, round)).await;
        let done = done.map_err(anyhow::Error::from).flatten();
        let mut results = self.results.lock();
        let of_act = results.entry(name).or_default();
        match done {
            Ok(()) => of_act.done += 1,
            Err(error) => {
                of_act.failed += 1;
                of_act.why = format!("{error:#}");
            }
        }
    }

    /// Creates all names that come again and again.
    pub(super) async fn begin_all(&self) -> anyhow::Result<()> {
        for n in 0..NAMES {
            self.publish(n, NAMES).await?;
            good(with_json(self.operators.http()?.post(self.base.endpoint("api/events/candle")), &candle(n)))
                .await?;
            for path in [provider(n), active_order(n)] {
                let put = self.operators.http()?.put(self.base.endpoint(&path));
                good(with_json(put, &json!({ "by": 0, "n": n }))).await?;
            }
        }
        let eager = self.operators.http()?.post(self.base.endpoint(EAGER));
        good(with_json(eager, &price(0))).await?;
        self.tidy().await
    }

    /// Removes the records that an outage left behind.
    pub(super) async fn tidy(&self) -> anyhow::Result<()> {
        let http = self.operators.http()?;
        for n in 0..NAMES {
            for path in [provider(n), active_order(n)] {
                let gone = http.delete(self.base.endpoint(&path)).timeout(PATIENCE).send().await?;
                let status = gone.status;
                if !status.is_success() && status != StatusCode::NOT_FOUND {
                    bail!("{path} stays: {status} {}", gone.text().await?);
                }
            }
        }
        Ok(())
    }

    // ----- the acts ---------------------------------------------------------------------

    async fn come_and_go(&self, n: u64) -> anyhow::Result<()> {
        let mut socket = self.socket("ws", &self.guest(n)?).await?;
        let zones = [zone(n), zone(n + 1), zone(n + 2)];
        let snapshot = n.is_multiple_of(2);
        socket.say(json!({ "type": "subscribe", "id": 1, "channels": zones, "snapshot": snapshot })).await?;
        for _ in zones {
            socket.until("subscribed").await?;
        }
        socket.say(json!({ "type": "unsubscribe", "id": 2, "channels": [zone(n)] })).await?;
        socket.until("unsubscribed").await?;
        socket.say(json!({ "type": "ping", "id": 3 })).await?;
        socket.until("pong").await?;
        socket.leave().await
    }

    async fn one_zone(&self, n: u64) -> anyhow::Result<()> {
        let name = zone(n).replace("zone:", "");
        self.publish(n, 3).await?;
        let mut socket = self.socket(&format!("ws/market/{name}?snapshot=1"), &self.guest(n)?).await?;
        socket.until("snapshot_end").await?;
        socket.leave().await
    }

    async fn drop_amid(&self, n: u64) -> anyhow::Result<()> {
        let mut socket = self.socket("ws", &self.guest(n)?).await?;
        socket.say(json!({ "type": "subscribe", "channels": [zone(n)] })).await?;
        socket.until("subscribed").await?;
        // The messages wait in the kernel, and the socket is dropped before it has read all.
        self.publish(n, 40).await
    }

    async fn renew(&self, n: u64) -> anyhow::Result<()> {
        let mut socket = self.socket("ws", &self.guest(n)?).await?;
        for id in 0..3 {
            socket.say(json!({ "type": "auth", "id": id, "token": self.guest(n)? })).await?;
            socket.until("authenticated").await?;
        }
        let entries = [price(n)];
        socket.say(json!({ "type": "publish", "id": 9, "channel": zone(n), "entries": entries })).await?;
        socket.until("published").await?;
        socket.leave().await
    }

    async fn expire(&self, n: u64) -> anyhow::Result<()> {
        let (token, _) = self.realm.token(&subject(n), 2)?;
        let mut socket = self.socket("ws", &token).await?;
        socket.say(json!({ "type": "subscribe", "channels": [zone(n)] })).await?;
        socket.until_closed_with(4006).await
    }

    async fn revoke(&self, n: u64) -> anyhow::Result<()> {
        let (token, jti) = self.realm.token(&subject(n), LIFETIME_MAX_S)?;
        let mut socket = self.socket("ws", &token).await?;
        let url = self.base.endpoint("api/auth/revoke");
        expect(with_json(self.operators.http()?.post(url), &json!({ "jti": jti })), StatusCode::OK).await?;
        socket.until_closed_with(4501).await?;
        match connect(&self.showing(&token)?, &self.base.socket("ws")).await {
            Ok(again) => Line(again).until_closed_with(4501).await,
            Err(_refused) => Ok(()),
        }
    }

    async fn show_nothing(&self, n: u64) -> anyhow::Result<()> {
        let opened = connect(&self.base, &self.base.socket("ws")).await;
        let mut line = Line(opened.map_err(|lost| anyhow!(lost.why))?);
        if n.is_multiple_of(2) {
            line.say(json!({ "type": "auth", "id": 1, "token": "zwk_nobody_nothing" })).await?;
        }
        line.until_closed_with(4501).await
    }

    /// Reads until both channels are subscribed, and then leaves.
    async fn stream(&self, n: u64) -> anyhow::Result<()> {
        let (channels, token) = (format!("{},{}", zone(n), zone(n + 1)), self.guest(n)?);
        let mut stream = TcpStream::connect(self.address).await?;
        let head = format!(
            "GET /sse?channels={channels}&snapshot=1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut came = Vec::new();
        while came.windows(10).filter(|word| *word == b"subscribed").count() < 2 {
            ensure!(stream.read_buf(&mut came).await? > 0, "a stream ended at its beginning");
        }
        Ok(())
    }

    async fn request(&self, n: u64) -> anyhow::Result<()> {
        let http = self.http(n)?;
        let name = zone(n).replace("zone:", "");
        let lines: String = (0..5).map(|more| format!("{}\n", price(n + more))).collect();
        let post = http.post(self.base.endpoint(&format!("api/zones/{name}/prices")));
        expect(post.header(CONTENT_TYPE, "application/x-ndjson").body(lines), StatusCode::OK).await?;
        for path in ["api/zones", "api/orders?limit=5", "openapi.json", "", "ws/health"] {
            expect(http.get(self.base.endpoint(path)), StatusCode::OK).await?;
        }
        for what in ["latest", "history?limit=20"] {
            let url = self.base.endpoint(&format!("api/zones/{name}/{what}"));
            expect(http.get(url), StatusCode::OK).await?;
        }
        let of_others = self.base.endpoint("ws/stats");
        expect(http.get(of_others), StatusCode::FORBIDDEN).await?;
        expect(http.get(self.base.endpoint("nothing/here")), StatusCode::NOT_FOUND).await.map(drop)
    }

    async fn order(&self, n: u64) -> anyhow::Result<()> {
        let (order, _) = self.place(n).await?;
        let mut socket = self.socket(&format!("ws/orders/{order}"), &self.guest(n)?).await?;
        socket.until_closed_with(1000).await?;
        let url = self.base.endpoint(&format!("api/orders/{order}"));
        expect(self.http(n)?.get(url), StatusCode::OK).await.map(drop)
    }

    async fn cancel(&self, n: u64) -> anyhow::Result<()> {
        let (order, key) = self.place(n).await?;
        let http = self.http(n)?;
        // A repetition places nothing.
        let again = with_json(http.post(self.base.endpoint("api/orders/execute")), &swap(n));
        let again = expect(again.header("idempotency-key", &*key), StatusCode::ACCEPTED).await?;
        ensure!(again["orderId"] == order, "a repeated order is another one: {again}");
        let url = self.base.endpoint(&format!("api/orders/{order}/cancel"));
        let status = http.post(url).timeout(PATIENCE).send().await?.status;
        // The order may have been submitted or have ended by then.
        ensure!(status.is_success() || status == StatusCode::CONFLICT, "cancelling was answered {status}");
        Ok(())
    }

    async fn records(&self, n: u64) -> anyhow::Result<()> {
        let mut socket = self.socket("ws", &self.guest(n)?).await?;
        let hello = socket.until("connection_established").await?;
        let connection = hello["connection_id"].as_str().context("a connection without an id")?;
        let http = self.http(n)?;
        let put = |path: String| with_json(http.put(self.base.endpoint(&path)), &json!({ "by": 0, "n": n }));
        good(put(format!("{}?connection={connection}", provider(n)))).await?;
        good(put(active_order(n))).await?;
        good(http.post(self.base.endpoint(&format!("{}/heartbeat", provider(n))))).await?;
        socket.leave().await?;
        good(http.delete(self.base.endpoint(&provider(n)))).await?;
        good(http.delete(self.base.endpoint(&active_order(n)))).await
    }

    async fn events(&self, n: u64) -> anyhow::Result<()> {
        let mut socket = self.socket("ws", &self.guest(n)?).await?;
        let view = format!("event:candle:soak:{}:*", symbol(n));
        socket.say(json!({ "type": "subscribe", "channels": [view, "registry:providers"] })).await?;
        socket.until("subscribed").await?;
        socket.until("subscribed").await?;
        let url = self.base.endpoint("api/events/candle");
        expect(with_json(self.http(n)?.post(url), &candle(n)), StatusCode::OK).await?;
        socket.until("candle").await?;
        socket.leave().await
    }

    /// Acts as one of a few clients that exceed their limits; nobody else shares these limits.
    async fn limits(&self, n: u64) -> anyhow::Result<()> {
        let (token, _) = self.realm.token(&format!("eager-{}", n % 4), LIFETIME_MAX_S)?;
        let http = self.showing(&token)?.http()?;
        let prices: Vec<Value> = (0..RUSH).map(price).collect();
        let url = self.base.endpoint(EAGER);
        let mut status = StatusCode::OK;
        for _ in 0..3 {
            let post = with_json(http.post(&url), &Value::from(prices[..60].to_vec()));
            status = post.timeout(PATIENCE).send().await?.status;
        }
        ensure!(status == StatusCode::TOO_MANY_REQUESTS, "publishing too much was answered {status}");
        let mut socket = self.socket("ws", &token).await?;
        for id in 0..RUSH {
            // It may be closed before all of them are accepted.
            if socket.say(json!({ "type": "ping", "id": id })).await.is_err() {
                break;
            }
        }
        socket.until_closed_with(4004).await
    }

    async fn half(&self, _n: u64) -> anyhow::Result<()> {
        let attack = ATTACKS.iter().find(|attack| attack.name == "half handshakes");
        let target = Target { address: self.address, many: HALVES };
        attack.context("there is no such attack")?.round(&target).await.map(drop)
    }

    // ----- what they use ----------------------------------------------------------------

    /// A guest's token.
    fn guest(&self, n: u64) -> anyhow::Result<String> {
        Ok(self.realm.token(&subject(n), LIFETIME_MAX_S)?.0)
    }

    fn showing(&self, token: &str) -> anyhow::Result<BaseUrl> {
        self.base.clone().with_token(token).map_err(|error| anyhow!(error))
    }

    /// A client with its own connections, which close with it.
    fn http(&self, n: u64) -> anyhow::Result<Http> {
        self.showing(&self.guest(n)?)?.http()
    }

    async fn socket(&self, path: &str, token: &str) -> anyhow::Result<Line> {
        let opened = connect(&self.showing(token)?, &self.base.socket(path)).await;
        Ok(Line(opened.map_err(|lost| anyhow!(lost.why))?))
    }

    async fn publish(&self, n: u64, count: u64) -> anyhow::Result<()> {
        let prices: Vec<Value> = (0..count).map(|more| price(n + more)).collect();
        let name = zone(n).replace("zone:", "");
        let url = self.base.endpoint(&format!("api/zones/{name}/prices"));
        expect(with_json(self.operators.http()?.post(url), &Value::from(prices)), StatusCode::OK)
            .await
            .map(drop)
    }

    /// An accepted order, and its key.
    async fn place(&self, n: u64) -> anyhow::Result<(String, String)> {
        let key = Uuid::new_v4().to_string();
        let post = with_json(self.http(n)?.post(self.base.endpoint("api/orders/execute")), &swap(n));
        let placed = expect(post.header("idempotency-key", &*key), StatusCode::ACCEPTED).await?;
        let order = placed["orderId"].as_str().context("an order without an id")?;
        Ok((order.to_owned(), key))
    }
}

fn zone(n: u64) -> String {
    format!("zone:{OF_CHURN}{}", n % NAMES)
}

fn subject(n: u64) -> String {
    format!("guest-{}", n % NAMES)
}

fn provider(n: u64) -> String {
    format!("api/providers/soak-{}", n % NAMES)
}

fn active_order(n: u64) -> String {
    format!("api/active-orders/soak-{}", n % NAMES)
}

fn price(n: u64) -> Value {
    json!({ "key": format!("K{}", n % NAMES), "price": n })
}

fn symbol(n: u64) -> String {
    format!("S{}-USD", n % NAMES)
}

fn candle(n: u64) -> Value {
    json!({
        "exchange": "soak", "symbol": symbol(n), "interval": "1m", "openTime": 60_000 * n, "open": 1, "high": 2,
        "low": 1, "close": 2, "volume": n, "closed": true,
    })
}

fn swap(n: u64) -> Value {
    json!({ "tokenIn": "SOL", "tokenOut": "USDC", "amount": n + 1 })
}

fn with_json(request: Request, body: &Value) -> Request {
    request.header(CONTENT_TYPE, "application/json").body(body.to_string())
}

/// The answer, parsed if it is JSON; fails on any other status.
async fn expect(request: Request, status: StatusCode) -> anyhow::Result<Value> {
    let answer = request.timeout(PATIENCE).send().await?;
    let came = answer.status;
    let body = answer.bytes().await?;
    ensure!(came == status, "{came} in place of {status}: {:.200}", String::from_utf8_lossy(&body));
    Ok(serde_json::from_slice(&body).unwrap_or_default())
}

/// Fails unless the status is a success.
async fn good(request: Request) -> anyhow::Result<()> {
    let status = request.timeout(PATIENCE).send().await?.status;
    ensure!(status.is_success(), "answered {status}");
    Ok(())
}

/// An open WebSocket.
struct Line(Socket);

impl Line {
    async fn say(&mut self, message: Value) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(message.to_string())).await?)
    }

    /// The next message of a type; fails on an `error` before it.
    async fn until(&mut self, kind: &str) -> anyhow::Result<Value> {
        loop {
            let message = self.0.next().await.context("the socket ended")??;
            let Message::Text(text) = message else {
                ensure!(!message.is_close(), "closed before `{kind}`: {message:?}");
                continue;
            };
            let message: Value = serde_json::from_str(&text)?;
            match message["type"].as_str() {
                Some(came) if came == kind => return Ok(message),
                // A temporary error is followed by an answer.
                Some("error") if message["temporary"] != true => bail!("{text}"),
                _ => {}
            }
        }
    }

    async fn until_closed_with(&mut self, code: u16) -> anyhow::Result<()> {
        loop {
            match self.0.next().await.context("the socket ended without a code")?? {
                Message::Close(frame) => {
                    let came = frame.map_or(1005, |frame| u16::from(frame.code));
                    ensure!(came == code, "closed with {came} in place of {code}");
                    return Ok(());
                }
                _ => continue,
            }
        }
    }

    /// Closes the socket properly, and waits for the other side.
    async fn leave(mut self) -> anyhow::Result<()> {
        self.0.close(None).await?;
        while let Some(Ok(_)) = self.0.next().await {}
        Ok(())
    }
}
