//! Authentication and authorization, as clients, operators and attackers experience them.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zonewire::config::{AuthMode, Config, IssuerConfig};
use zonewire::model::{ChannelKind, ChannelName, OrderId};
use zonewire::protocol::ClientMessage;
use zonewire::storage::StorageChoice;
use zonewire_access::{ApiKey, ApiKeyFile, SigningKey, make_api_key};

use crate::support::client::{Client, LIMIT, assert_has};
use crate::support::events::EventReader;
use crate::support::eventually::until;
use crate::support::gateway::{Answer, JSON, Running, config, price, request};
use crate::support::orders::swap;
use crate::support::process::Process;
use crate::support::redis::{Configured, redis};

const SECRET: &str = "a secret of these tests, long enough to be one";
const UPGRADE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
const OTHER_SECRET: &str = "another secret of these tests, as long as that";

/// The configuration and the secrets of a gateway with authentication.
pub(crate) struct Realm {
    dir: TempDir,
    key: SigningKey,
}

impl Realm {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        Self { dir, key: SigningKey::of_secret(SECRET).unwrap() }
    }

    fn keys_file(&self) -> PathBuf {
        self.dir.path().join("keys.toml")
    }

    /// An issuer, and roles of tenants.
    pub(crate) fn config(&self) -> Config {
        let mut config = config();
        config.auth.mode = Some(AuthMode::On);
        config.auth.issuers = vec![IssuerConfig {
            issuer: "tests".to_owned(),
            secret_files: vec![self.dir.path().join("secret")],
            ..IssuerConfig::default()
        }];
        let desk =
            ["subscribe:zone:{tenant}.*", "publish:zone:{tenant}.*", "registry:zone:{tenant}.*", "order"];
        config.auth.roles.insert("desk".to_owned(), desk.map(str::to_owned).to_vec());
        config
    }

    async fn start(&self) -> Running {
        Running::start(self.config()).await
    }

    /// A token for an hour, with some claims changed.
    fn token(&self, change: Value) -> String {
        let now = now();
        let mut claims =
            json!({ "iss": "tests", "aud": "zonewire", "sub": "alice", "iat": now, "exp": now + 3_600 });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.key.sign(&claims, None).unwrap()
    }

    pub(crate) fn of(&self, subject: &str, role: &str) -> String {
        self.token(json!({ "sub": subject, "roles": [role] }))
    }

    pub(crate) fn of_tenant(&self, subject: &str, tenant: &str) -> String {
        self.token(json!({ "sub": subject, "roles": ["desk"], "tenant": tenant }))
    }

    /// Writes a key file with one key that has this role, and returns the key.
    fn write_key(&self, role: &str) -> (String, ApiKey) {
        let (key, kept) = make_api_key(ApiKey {
            name: String::new(),
            sha256: String::new(),
            subject: "feed".to_owned(),
            roles: vec![role.to_owned()],
            rights: Vec::new(),
            tenant: None,
            created_at: now() - 1,
            expires_at: None,
        });
        self.write_keys(&[&kept]);
        (key, kept)
    }

    fn write_keys(&self, keys: &[&ApiKey]) {
        let file = ApiKeyFile { keys: keys.iter().map(|key| (*key).clone()).collect() };
        std::fs::write(self.keys_file(), file.to_toml()).unwrap();
    }
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

pub(crate) async fn ask(
    gateway: &Running,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", JSON)];
    let body = body.map(Value::to_string).unwrap_or_default();
    request(gateway.address, method, path, &headers, body.as_bytes()).await
}

async fn get(gateway: &Running, path: &str, token: &str) -> Answer {
    ask(gateway, "GET", path, token, None).await
}

pub(crate) async fn publish(gateway: &Running, zone: &str, token: &str) -> Answer {
    ask(gateway, "POST", &format!("/api/zones/{zone}/prices"), token, Some(&price("K", 1))).await
}

/// Places an order and returns its id.
async fn place(gateway: &Running, token: &str) -> String {
    let placed = ask(gateway, "POST", "/api/orders/execute", token, Some(&swap())).await;
    assert_eq!(placed.status, 202, "{placed:?}");
    placed.json()["orderId"].as_str().unwrap().to_owned()
}

/// A WebSocket with a token, and its first message.
pub(crate) async fn connect(gateway: &Running, path: &str, token: &str) -> (Client, Value) {
    let value = format!("Bearer {token}");
    let mut client = Client::connect_with(&gateway.url(path), "authorization", &value).await;
    let first = client.next().await;
    (client, first)
}

pub(crate) async fn subscribe(client: &mut Client, channel: &str) -> Value {
    client.send(&json!({ "type": "subscribe", "id": channel, "channels": [channel] })).await;
    answer_to(client, json!(channel)).await
}

/// The answer to the message with this id.
async fn answer_to(client: &mut Client, id: Value) -> Value {
    loop {
        let message = client.next().await;
        if message["id"] == id {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_valid_token_are_refused() {
    let realm = Realm::new();
    let gateway = realm.start().await;
    let paths = "/api/zones /api/zones/a/latest /api/orders /ws/stats /api/orders/x /api/zones/%ff/latest";
    for path in paths.split(' ') {
        let answer = gateway.get(path).await;
        answer.problem(401, "unauthorized");
        let asks = answer.head.lines().any(|line| line == "www-authenticate: bearer realm=\"zonewire\"");
        assert!(asks, "{answer:?}");
    }
    gateway.post("a", JSON, b"{}").await.problem(401, "unauthorized");
    for path in ["/", "/mark.svg", "/openapi.json", "/health", "/health/ready", "/metrics"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    let health = gateway.get("/health").await.json();
    assert_eq!(health["authentication"], json!({ "revocations": "known", "keys": "fresh" }));
    for wrong in ["x", "a.b.c", "zwk_0a1b_secret", &realm.of("alice", "trader")[1..]] {
        let answer = get(&gateway, "/api/zones", wrong).await;
        answer.problem(401, "unauthorized");
        let asked = "www-authenticate: bearer realm=\"zonewire\", error=\"invalid_token\"";
        assert!(answer.head.contains(asked), "{answer:?}");
        assert!(!answer.body.contains(wrong) || wrong == "x", "{answer:?}");
    }
    let trader = realm.of("alice", "trader");
    assert_eq!(get(&gateway, "/api/zones", &trader).await.status, 200);
    publish(&gateway, "a", &trader).await.problem(403, "forbidden");
    get(&gateway, "/ws/stats", &trader).await.problem(403, "forbidden");
    let in_url = gateway.get(&format!("/api/zones?access_token={trader}")).await.problem(401, "unauthorized");
    assert!(in_url["detail"].as_str().unwrap().contains("auth.token_in_url"), "{in_url}");
    gateway.stop().await;

    let gateway = Running::changed(realm.config(), |config| config.auth.token_in_url = true).await;
    assert_eq!(gateway.get(&format!("/api/zones?access_token={trader}")).await.status, 200);
    let mut client = gateway.connect(&format!("/ws?access_token={trader}")).await;
    assert_eq!(client.next().await["subject"], "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_in_a_header_as_a_protocol_or_in_a_message() {
    let realm = Realm::new();
    let gateway = realm.start().await;
    let token = realm.token(json!({ "roles": ["viewer"], "exp": now() + 3_000 }));
    let (mut client, first) = connect(&gateway, "/ws/market/a", &token).await;
    assert_eq!((&first["authentication"], &first["subject"]), (&json!("required"), &json!("alice")));
    assert!(first["token_expires_at"].as_str().unwrap().ends_with('Z'), "{first}");
    assert_eq!(client.next().await["type"], "subscribed");

    let protocols = format!("zonewire.v1, bearer.{token}");
    let mut client = Client::connect_with(&gateway.url("/ws"), "sec-websocket-protocol", &protocols).await;
    assert_eq!(client.next().await["subject"], "alice");
    let upgrade = [&UPGRADE[..], &[("sec-websocket-protocol", protocols.as_str())]].concat();
    let answer = request(gateway.address, "GET", "/ws", &upgrade, b"").await;
    assert!(answer.head.lines().any(|line| line == "sec-websocket-protocol: zonewire.v1"), "{answer:?}");
    assert!(!answer.head.contains("bearer"), "{answer:?}");

    // Until the token arrives, the connection's subscription waits, and nothing is sent.
    let mut client = gateway.connect("/ws/market/a").await;
    let first = client.next().await;
    assert_eq!((&first["authentication"], &first["subject"]), (&json!("required"), &Value::Null));
    assert_eq!(subscribe(&mut client, "zone:b").await["code"], "forbidden");
    client.send(&json!({ "type": "auth", "id": 7, "token": token })).await;
    let told = client.next().await;
    assert_has(&told, json!({ "type": "authenticated", "id": 7, "subject": "alice" }));
    assert_eq!(told["expires_at"], first_of(&gateway, &token).await["token_expires_at"]);
    assert_eq!(client.next().await["channel"], "zone:a");
    // Another subject's token is refused, and has no effect.
    client.send(&json!({ "type": "auth", "id": 8, "token": realm.of("bob", "viewer") })).await;
    let error = client.next().await;
    assert_eq!((&error["code"], &error["id"]), (&json!("invalid_token"), &json!(8)));
    client.send(&json!({ "type": "auth", "id": 9, "token": "nonsense" })).await;
    assert_eq!(client.next().await["code"], "invalid_token");
    assert_eq!(subscribe(&mut client, "zone:b").await["type"], "subscribed");
}

async fn first_of(gateway: &Running, token: &str) -> Value {
    connect(gateway, "/ws", token).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_an_invalid_credential_is_closed_for_good() {
    let realm = Realm::new();
    let gateway = Running::changed(realm.config(), |config| config.auth.within_s = 1).await;
    for path in ["/ws", "/ws/market/a", &format!("/ws/orders/{}", OrderId::random())] {
        let mut silent = gateway.connect(path).await;
        let (before, code, reason) = silent.until_close().await;
        assert_eq!((code, reason.as_str()), (4501, "unauthorized"), "{path}");
        assert_eq!(before.last().unwrap()["type"], "closing");
        assert!(before.iter().all(|message| message["type"] != "subscribed"), "{before:?}");

        let mut wrong = gateway.connect(path).await;
        wrong.send(&json!({ "type": "auth", "token": "nonsense" })).await;
        let (before, code, _) = wrong.until_close().await;
        assert_eq!((code, &before[1]["code"]), (4501, &json!("invalid_token")), "{path}");

        let (mut wrong, first) = connect(&gateway, path, "nonsense").await;
        assert_eq!((&first["type"], &first["code"]), (&json!("error"), &json!("invalid_token")), "{path}");
        assert_eq!(wrong.until_close().await.1, 4501);
    }
    // A missing right ends a connection whose address names the channel; otherwise only the request fails.
    let mine = realm.token(json!({ "rights": ["subscribe:zone:a"] }));
    let (mut client, _) = connect(&gateway, "/ws/market/b", &mine).await;
    let (before, code, _) = client.until_close().await;
    assert_eq!((&before[0]["code"], code), (&json!("forbidden"), 4501));
    let (mut client, _) = connect(&gateway, "/ws", &mine).await;
    let error = subscribe(&mut client, "zone:b").await;
    assert_eq!((&error["code"], &error["temporary"]), (&json!("forbidden"), &json!(false)));
    assert_eq!(subscribe(&mut client, "zone:a").await["type"], "subscribed");
}

#[tokio::test(flavor = "multi_thread")]
async fn public_zones_need_no_token() {
    let realm = Realm::new();
    let mut config = realm.config();
    config.auth.anonymous = vec!["subscribe:zone:public.*".to_owned()];
    config.auth.within_s = 1;
    let gateway = Running::start(config).await;
    let publisher = realm.of("feed", "publisher");
    for zone in ["public.a", "private"] {
        assert_eq!(publish(&gateway, zone, &publisher).await.status, 200);
    }
    let listed = gateway.get("/api/zones").await;
    assert!(listed.body.contains("public.a") && !listed.body.contains("private"), "{listed:?}");
    assert_eq!(gateway.get("/api/zones/public.a/latest").await.json()["entries"][0]["key"], "K");
    gateway.get("/api/zones/private/latest").await.problem(401, "unauthorized");
    gateway.get("/api/orders").await.problem(401, "unauthorized");
    let mut client = gateway.connect("/ws/market/public.a").await;
    assert_eq!(client.next().await["authentication"], "optional");
    assert_eq!(client.next().await["type"], "subscribed");
    assert_eq!(subscribe(&mut client, "zone:private").await["code"], "forbidden");
    client.send(&json!({ "type": "auth", "token": "nonsense" })).await;
    assert_eq!(client.next().await["code"], "invalid_token", "its principal is unchanged");
    client.send(&json!({ "type": "auth", "token": realm.of("alice", "viewer") })).await;
    assert_eq!(client.next().await["type"], "authenticated");
    assert_eq!(subscribe(&mut client, "zone:private").await["type"], "subscribed");
    // A connection opened on a private zone needs a credential.
    let mut client = gateway.connect("/ws/market/private").await;
    assert_eq!(client.until_close().await.1, 4501);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_on_a_connection_closes_it() {
    let realm = Realm::new();
    let mut config = realm.config();
    config.auth.anonymous = vec!["subscribe:zone:*".to_owned()];
    (config.connections.messages_per_s, config.connections.messages_burst) = (1, 35);
    let gateway = Running::start(config).await;
    let mut client = gateway.connect("/ws").await;
    // Each counts as ten messages.
    for id in 1..=4 {
        client.send(&json!({ "type": "auth", "id": id, "token": "nonsense" })).await;
    }
    let (before, code, _) = client.until_close().await;
    let refused = before.iter().filter(|message| message["code"] == "invalid_token");
    assert_eq!((refused.count(), code), (3, 4004), "{before:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_without_a_gap_or_the_connection_ends() {
    let realm = Realm::new();
    let gateway = realm.start().await;
    let publisher = realm.of("feed", "publisher");
    let short = |exp: i64| realm.token(json!({ "roles": ["viewer"], "exp": now() + exp }));
    let (mut renewed, _) = connect(&gateway, "/ws/market/a", &short(4)).await;
    let (mut left, _) = connect(&gateway, "/ws/market/a", &short(3)).await;
    for client in [&mut renewed, &mut left] {
        assert_eq!(client.next().await["type"], "subscribed");
        let expiring = client.next_of_type("token_expiring").await;
        assert!(expiring["expires_at"].is_string(), "{expiring}");
    }
    renewed.send(&json!({ "type": "auth", "token": short(600) })).await;
    assert_eq!(renewed.next().await["type"], "authenticated");
    let (before, code, reason) = left.until_close().await;
    assert_eq!((code, reason.as_str()), (4006, "token_expired"));
    assert!(before.last().unwrap()["retry_after_ms"].is_u64(), "it may reconnect: {before:?}");
    // After the first token has expired, the renewed connection still receives everything.
    let deadline = now() + 3;
    let mut sent = 0;
    while now() < deadline {
        assert_eq!(publish(&gateway, "a", &publisher).await.status, 200);
        sent += 1;
        assert_eq!(renewed.next().await["offset"], sent);
    }
    // With fewer rights, subscriptions that are no longer permitted end at once.
    let fewer = realm.token(json!({ "rights": ["subscribe:zone:b"] }));
    renewed.send(&json!({ "type": "auth", "token": fewer })).await;
    assert_eq!(renewed.next().await["type"], "authenticated");
    let ended = renewed.next().await;
    assert_has(&ended, json!({ "type": "unsubscribed", "channel": "zone:a", "code": "forbidden" }));
    publish(&gateway, "a", &publisher).await;
    assert!(renewed.until_pong().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_valid_as_long_as_its_file_contains_it() {
    let realm = Realm::new();
    let mut config = realm.config();
    config.auth.keys_file = Some(realm.keys_file());
    let (key, mut kept) = realm.write_key("viewer");
    let gateway = Running::start(config).await;
    let (mut client, first) = connect(&gateway, "/ws/market/a", &key).await;
    assert_eq!((&first["subject"], &first["token_expires_at"]), (&json!("feed"), &Value::Null));
    assert_eq!(client.next().await["type"], "subscribed");
    // With a right removed, the subscriptions that need it end, and the connection stays open.
    let begun = Instant::now();
    kept.roles = vec!["publisher".to_owned()];
    realm.write_keys(&[&kept]);
    let ended = client.next_of_type("unsubscribed").await;
    assert_eq!(ended["code"], "forbidden");
    assert_eq!(publish(&gateway, "a", &key).await.status, 200);
    // A file that cannot be read has no effect.
    std::fs::write(realm.keys_file(), "[[key]]\n").unwrap();
    until("health says so", async || {
        gateway.get("/health").await.json()["authentication"]["keys"] == "stale"
    })
    .await;
    assert_eq!(publish(&gateway, "a", &key).await.status, 200);
    realm.write_keys(&[]);
    assert_eq!(client.until_close().await.1, 4501);
    publish(&gateway, "a", &key).await.problem(401, "unauthorized");
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_closed_when_the_secret_of_their_tokens_is_replaced() {
    let realm = Realm::new();
    let mut config = realm.config();
    let other = realm.dir.path().join("other");
    std::fs::write(&other, OTHER_SECRET).unwrap();
    config.auth.issuers[0].secret_files.push(other.clone());
    let gateway = Running::start(config).await;
    let sign = |secret: &str| {
        let claims = json!({ "iss": "tests", "aud": "zonewire", "sub": "alice", "exp": now() + 600, "roles": "viewer" });
        SigningKey::of_secret(secret).unwrap().sign(&claims, None).unwrap()
    };
    let (mut stays, _) = connect(&gateway, "/ws/market/a", &sign(SECRET)).await;
    let (mut goes, _) = connect(&gateway, "/ws/market/a", &sign(OTHER_SECRET)).await;
    std::fs::write(&other, "the next secret, and long enough to be one too").unwrap();
    let (before, code, reason) = goes.until_close().await;
    assert_eq!((code, reason.as_str()), (4006, "token_expired"));
    assert!(before.last().unwrap()["retry_after_ms"].as_u64() >= Some(1_000), "it may reconnect: {before:?}");
    get(&gateway, "/api/zones", &sign(OTHER_SECRET)).await.problem(401, "unauthorized");
    assert!(!stays.until_pong().await.iter().any(|message| message["type"] == "closing"));
}

/// Tries everything by which a tenant might find something of another tenant.
#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_see_nothing_of_each_other() {
    let realm = Realm::new();
    let mut config = realm.config();
    // Orders that fail at once, so that there are dead letters.
    config.orders.attempts_max = 1;
    (config.orders.paper.failure_rate, config.orders.paper.step_ms) = (1.0, 1);
    let gateway = Running::start(config).await;
    let (acme, other) = (realm.of_tenant("alice", "acme"), realm.of_tenant("alice", "other"));
    let operator = realm.of("root", "operator");
    assert_eq!(publish(&gateway, "acme.x", &acme).await.status, 200);
    let order = place(&gateway, &acme).await;
    until("it has failed", async || {
        let seen = get(&gateway, &format!("/api/orders/{order}"), &acme).await;
        assert_eq!(seen.status, 200, "{seen:?}");
        seen.json()["status"] == "failed"
    })
    .await;
    let is_dead = async || get(&gateway, "/api/orders/dead-letters", &acme).await.body.contains(&order);
    until("it is a dead letter", is_dead).await;

    // Zones: neither names nor contents can be read, and nothing can be written.
    let listed = get(&gateway, "/api/zones", &other).await;
    assert_eq!(listed.json()["zones"], json!([]));
    for path in ["/api/zones/acme.x/latest", "/api/zones/acme.x/history", "/api/zones/acme%2Ex/latest"] {
        get(&gateway, path, &other).await.problem(403, "forbidden");
    }
    publish(&gateway, "acme.x", &other).await.problem(403, "forbidden");
    for path in ["/api/zones/acme.x", "/api/zones/acme.x/keys/K"] {
        ask(&gateway, "DELETE", path, &other, None).await.problem(403, "forbidden");
    }

    // Orders: the answers are the same as for an order that does not exist.
    let absent = OrderId::random().to_string();
    let differs = |answer: &Answer, name: &str| (answer.status, answer.body.replace(name, "*"));
    for (method, path) in [
        ("GET", "/api/orders/{}"),
        ("POST", "/api/orders/{}/cancel"),
        ("POST", "/api/orders/dead-letters/{}/retry?force=true"),
        ("GET", "/api/orders?after={}"),
        ("GET", "/api/orders/dead-letters?after={}"),
    ] {
        let at = async |name: &str| {
            let answer = ask(&gateway, method, &path.replace("{}", name), &other, None).await;
            differs(&answer, name)
        };
        let (of_acme, of_nobody) = (at(&order).await, at(&absent).await);
        assert_eq!(of_acme, of_nobody, "{method} {path}");
        assert_eq!(of_acme.0, 404, "{method} {path}");
        let upper = at(&order.to_uppercase()).await;
        assert_eq!(upper.0, 404, "{method} {path}");
    }
    for list in ["/api/orders", "/api/orders?status=failed", "/api/orders/dead-letters"] {
        let listed = get(&gateway, list, &other).await.json();
        let found = listed.get("orders").or(listed.get("deadLetters")).unwrap();
        assert_eq!((found, listed.get("next").is_none_or(Value::is_null)), (&json!([]), true), "{list}");
        assert!(get(&gateway, list, &acme).await.body.contains(&order), "{list}");
        assert!(get(&gateway, list, &operator).await.body.contains(&order), "{list}");
    }
    let update = json!({ "type": "routing" });
    for name in [&order, &absent] {
        let path = format!("/api/orders/{name}/updates");
        ask(&gateway, "POST", &path, &other, Some(&update)).await.problem(404, "unknown_order");
    }
    let wish = json!({ "worker": "w" });
    ask(&gateway, "POST", "/api/jobs/claim", &other, Some(&wish)).await.problem(403, "forbidden");

    // The same idempotency key of another tenant is a different key.
    let with_key = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers =
            [("authorization", bearer.as_str()), ("content-type", JSON), ("idempotency-key", "one")];
        let body = swap().to_string();
        request(gateway.address, "POST", "/api/orders/execute", &headers, body.as_bytes()).await
    };
    let (first, again, others) = (with_key(&acme).await, with_key(&acme).await, with_key(&other).await);
    assert_eq!(first.json()["orderId"], again.json()["orderId"]);
    assert_ne!(first.json()["orderId"], others.json()["orderId"]);
    assert!(!others.head.contains("idempotency-replayed"), "{others:?}");

    // WebSockets: by address and by request, live and replayed.
    for name in [&order, &absent] {
        for path in [format!("/ws/orders/{name}"), format!("/api/orders/status/{name}?since=a:0")] {
            let (mut client, _) = connect(&gateway, &path, &other).await;
            let (before, code, _) = client.until_close().await;
            assert_eq!((&before[0]["code"], code), (&json!("forbidden"), 4501), "{path}");
        }
        let (mut client, _) = connect(&gateway, "/ws", &other).await;
        let channel = format!("order:{name}");
        let asked =
            json!({ "type": "subscribe", "id": 1, "channels": [channel], "since": { channel: "a:0" } });
        client.send(&asked).await;
        let answer = client.next().await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("forbidden")), "{answer}");
    }
    let (mut client, _) = connect(&gateway, "/ws/market/acme.x?snapshot=1", &other).await;
    let (before, code, _) = client.until_close().await;
    assert_eq!((&before[0]["code"], code), (&json!("forbidden"), 4501));
    let (mut mine, _) = connect(&gateway, &format!("/ws/orders/{order}"), &acme).await;
    assert_eq!(mine.next().await["orderId"], order);

    // Lists of connections and principals.
    get(&gateway, "/ws/stats", &other).await.problem(403, "forbidden");
    let stats = get(&gateway, "/ws/stats", &operator).await;
    assert_eq!(stats.status, 200);
    for path in ["/health", "/metrics"] {
        let told = gateway.get(path).await.body;
        assert!(!told.contains("acme") && !told.contains(&order) && !told.contains("alice"), "{path}");
    }
    let wish = json!({ "subject": "alice" });
    ask(&gateway, "POST", "/api/auth/revoke", &other, Some(&wish)).await.problem(403, "forbidden");

    // A dead letter that an operator retries still belongs to its owner.
    let path = format!("/api/orders/dead-letters/{order}/retry?force=true");
    let retried = ask(&gateway, "POST", &path, &operator, None).await;
    assert_eq!(retried.status, 202, "{retried:?}");
    let retried = retried.json()["orderId"].as_str().unwrap().to_owned();
    assert_eq!(get(&gateway, &format!("/api/orders/{retried}"), &acme).await.status, 200);
    get(&gateway, &format!("/api/orders/{retried}"), &other).await.problem(404, "unknown_order");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_few_among_many_end_and_name_no_others() {
    let realm = Realm::new();
    let gateway = realm.start().await;
    let (alice, bob) = (realm.of("alice", "trader"), realm.of("bob", "trader"));
    let mut mine = Vec::new();
    for n in 0..40 {
        let order = place(&gateway, if n % 10 == 0 { &alice } else { &bob }).await;
        if n % 10 == 0 {
            mine.insert(0, order);
        }
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&gateway, &format!("/api/orders?limit=2{after}"), &alice).await.json();
        let orders = page["orders"].as_array().unwrap().iter();
        seen.extend(orders.map(|order| order["orderId"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        assert!(mine.iter().any(|order| order == next), "{next} belongs to another owner");
        after = format!("&after={next}");
    }
    assert_eq!(seen, mine);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_settings_without_secrets() {
    let realm = Realm::new();
    let (key, _) = realm.write_key("operator");
    let keys_file = format!("auth.keys_file={}", realm.keys_file().display());
    let settings = ["storage.backend=memory", "http.drain_s=0", &keys_file];
    let variables = [("REDIS_URL", "redis://user:hunter2@127.0.0.1:1")];
    let mut process = Process::start_with(&settings, &variables).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        request(process.address, "GET", "/api/config", &[("authorization", bearer.as_str())], b"").await
    };
    ask("x").await.problem(401, "unauthorized");
    let answer = ask(&key).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.body.contains("hunter2") && !answer.body.contains(&key), "{answer:?}");
    let told = answer.json();
    let of = |key: &str| {
        let setting = told["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == key);
        let setting = setting.unwrap_or_else(|| panic!("{key}: {told}"));
        (setting["value"].clone(), setting["origin"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(of("storage.backend"), (json!("memory"), "flag --set".to_owned()));
    let (url, origin) = of("storage.redis.url");
    assert_eq!((url, &*origin), (json!("redis://user:***@127.0.0.1:1"), "environment variable REDIS_URL"));
    assert_eq!(of("auth.within_s"), (json!(5), "default".to_owned()));
    assert!(process.terminate().await.success());
}

/// Every message and every kind of channel, for every role. The compiler demands an entry here for each new
/// message and kind.
#[tokio::test(flavor = "multi_thread")]
async fn each_message_takes_the_rights_that_it_should() {
    fn needs_a_right(message: &ClientMessage) -> bool {
        match message {
            ClientMessage::Subscribe(_) => true,
            // See the part about publishing to `events` below.
            ClientMessage::Publish(_) => true,
            ClientMessage::Unsubscribe(_)
            | ClientMessage::Heartbeat(_)
            | ClientMessage::HeartbeatAck(_)
            | ClientMessage::Ping(_)
            | ClientMessage::Auth(_) => false,
        }
    }
    fn is_thought_of(channel: &ChannelName) -> bool {
        match channel.kind() {
            ChannelKind::Zone | ChannelKind::Order | ChannelKind::Event | ChannelKind::Registry => true,
        }
    }
    let realm = Realm::new();
    let gateway = realm.start().await;
    let order = place(&gateway, &realm.of("alice", "trader")).await;
    // By role: whether it may follow a zone, its own order, and another's order.
    for (role, zone, own, others) in [
        ("nothing", false, false, false),
        ("viewer", true, false, false),
        ("trader", true, true, false),
        ("publisher", false, false, false),
        ("worker", false, false, false),
        ("operator", true, true, true),
    ] {
        let token = realm.of("alice", role);
        let (mut client, _) = connect(&gateway, "/ws", &token).await;
        let channels = [
            ("zone:a".to_owned(), zone),
            ("event:trade".to_owned(), zone),
            ("event:ticker:binance:*".to_owned(), zone),
            (format!("order:{order}"), own),
            (format!("order:{}", OrderId::random()), others),
            ("registry:providers".to_owned(), others),
        ];
        for (channel, allowed) in channels {
            assert!(is_thought_of(&channel.parse().unwrap()));
            let subscribe_to =
                ClientMessage::parse(&format!(r#"{{"type":"subscribe","channels":["{channel}"]}}"#));
            assert!(needs_a_right(&subscribe_to.unwrap()));
            let answer = subscribe(&mut client, &channel).await;
            let (kind, code) = if allowed { ("subscribed", None) } else { ("error", Some("forbidden")) };
            assert_eq!(answer["type"], kind, "{role} {channel}");
            assert_eq!(answer["code"].as_str(), code, "{role} {channel}");
        }
        let publishes = ["publisher", "operator"].contains(&role);
        let (price, event) = (price("A", 1), json!({ "exchange": "a", "symbol": "B", "price": 1 }));
        for (channel, entry) in [("zone:a", &price), ("event:ticker", &event)] {
            let publish = json!({ "type": "publish", "id": 1, "channel": channel, "entries": [entry] });
            assert!(needs_a_right(&ClientMessage::parse(&publish.to_string()).unwrap()));
            client.send(&publish).await;
            // The role may also receive what it publishes.
            let answer = answer_to(&mut client, json!(1)).await;
            assert_eq!(answer["type"] == "published", publishes, "{role} {channel}: {answer}");
            assert_eq!(answer["code"] == "forbidden", !publishes, "{role} {channel}: {answer}");
        }
        // Whatever the role, these are published over HTTP.
        for channel in [format!("order:{order}"), "registry:providers".to_owned()] {
            client.send(&json!({ "type": "publish", "id": 2, "channel": channel, "entries": [price] })).await;
            let answer = client.next_of_type("error").await;
            assert_eq!((&answer["id"], &answer["code"]), (&json!(2), &json!("invalid_channel")), "{answer}");
        }
        for (message, answer) in [
            (json!({ "type": "heartbeat" }), "heartbeat_ack"),
            (json!({ "type": "ping" }), "pong"),
            (json!({ "type": "auth", "token": token }), "authenticated"),
        ] {
            assert!(!needs_a_right(&ClientMessage::parse(&message.to_string()).unwrap()));
            client.send(&message).await;
            client.next_of_type(answer).await;
        }
    }
}

/// Answers each request with the current text, and counts the requests.
async fn serve_keys(
    text: watch::Receiver<String>,
    tasks: &mut JoinSet<()>,
) -> (String, watch::Receiver<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, count) = watch::channel(0);
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 2_048];
            let _read = stream.read(&mut request).await;
            let body = text.borrow().clone();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _sent = stream.write_all(format!("{head}{body}").as_bytes()).await;
            asked.send_modify(|count| *count += 1);
        }
    });
    (format!("http://{address}/jwks.json"), count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_new_key_is_fetched_when_a_token_needs_it() {
    const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/access/tests/keys");
    let pem = |name: &str| std::fs::read_to_string(format!("{KEYS}/{name}.pem")).unwrap();
    let realm = Realm::new();
    let (texts, text) = watch::channel(jwks(&[(&pem("rsa1.pub"), "one")]));
    let mut tasks = JoinSet::new();
    let (url, asked) = serve_keys(text, &mut tasks).await;
    let mut config = realm.config();
    config.auth.issuers.push(IssuerConfig {
        issuer: "provider".to_owned(),
        keys: vec![url],
        ..IssuerConfig::default()
    });
    let gateway = Running::start(config).await;
    let sign = |name: &str, id: &str| {
        let claims = json!({ "iss": "provider", "aud": "zonewire", "sub": "alice", "exp": now() + 600, "roles": "viewer" });
        SigningKey::of_pem(&pem(name)).unwrap().sign(&claims, Some(id)).unwrap()
    };
    let told = async |token: &str| get(&gateway, "/api/zones", token).await;
    let (old, new, none) = (sign("rsa1", "one"), sign("rsa2", "two"), sign("rsa2", "none"));
    assert_eq!(told(&old).await.status, 200);
    // An existing connection stays open, whatever is shown on it.
    let (mut there, _) = connect(&gateway, "/ws/market/a", &old).await;
    assert_eq!(there.next().await["type"], "subscribed");

    // The issuer signs with a new key: clients with its tokens are asked to retry, over every interface.
    texts.send_replace(jwks(&[(&pem("rsa1.pub"), "one"), (&pem("rsa2.pub"), "two")]));
    let awaited = told(&new).await;
    awaited.problem(503, "keys_awaited");
    let after_s = awaited.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=11).contains(&after_s.parse::<u32>().unwrap()), "{awaited:?}");
    let bearer = format!("Bearer {new}");
    let upgrade = [&UPGRADE[..], &[("authorization", bearer.as_str())]].concat();
    let refused = request(gateway.address, "GET", "/ws/market/a", &upgrade, b"").await;
    refused.problem(503, "keys_awaited");
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    there.send(&json!({ "type": "auth", "id": 1, "token": new })).await;
    let error = there.next().await;
    assert_eq!((&error["code"], &error["id"]), (&json!("keys_awaited"), &json!(1)));
    assert!(error["retry_after_ms"].as_u64() >= Some(1_000), "{error}");
    let mut coming = gateway.connect("/ws/market/a").await;
    coming.send(&json!({ "type": "auth", "token": new })).await;
    let (before, code, reason) = coming.until_close().await;
    assert_eq!((code, reason.as_str(), &before[1]["code"]), (4007, "keys_awaited", &json!("keys_awaited")));
    assert!(before[2]["retry_after_ms"].as_u64() >= Some(1_000), "{before:?}");

    until("the new key is fetched", async || told(&new).await.status == 200).await;
    assert_eq!(told(&old).await.status, 200, "both hold");
    there.send(&json!({ "type": "auth", "id": 2, "token": new })).await;
    assert_eq!(there.next().await["type"], "authenticated");

    // A token with an unknown key is refused once the issuer was asked; further such tokens do not trigger
    // more requests.
    let before = *asked.borrow();
    told(&none).await.problem(503, "keys_awaited");
    for n in 0..50 {
        told(&sign("rsa2", &format!("none {n}"))).await.problem(503, "keys_awaited");
    }
    until("it was asked", async || told(&none).await.status == 401).await;
    assert!(*asked.borrow() <= before + 2, "{before} {}", *asked.borrow());
}

/// Public keys of RSA with 2048 bits as a JWK Set.
fn jwks(keys: &[(&str, &str)]) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let keys: Vec<Value> = keys
        .iter()
        .map(|(pem, id)| {
            let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
            let der = STANDARD.decode(body).unwrap();
            // The modulus precedes the exponent, 65537, at the end.
            let n = URL_SAFE_NO_PAD.encode(&der[der.len() - 5 - 256..der.len() - 5]);
            json!({ "kty": "RSA", "kid": id, "use": "sig", "n": n, "e": "AQAB" })
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_is_authenticated_like_other_requests() {
    let realm = Realm::new();
    let mut config = realm.config();
    config.auth.keys_file = Some(realm.keys_file());
    let (key, mut kept) = realm.write_key("viewer");
    let gateway = Running::start(config).await;
    let path = "/sse?channels=zone:acme.a,zone:b";
    gateway.get(path).await.problem(401, "unauthorized");
    gateway.get("/sse").await.problem(401, "unauthorized");
    get(&gateway, path, "nonsense").await.problem(401, "unauthorized");
    let trader = realm.of("alice", "trader");
    gateway.get(&format!("{path}&access_token={trader}")).await.problem(401, "unauthorized");
    let tenant = realm.of_tenant("bob", "acme");
    let problem = get(&gateway, path, &tenant).await.problem(403, "forbidden");
    assert_eq!(problem["channel"], "zone:b");
    let order = place(&gateway, &trader).await;
    let of_order = format!("/sse?channels=order:{order}");
    let problem = get(&gateway, &of_order, &tenant).await.problem(404, "unknown_order");
    assert_eq!(problem["channel"], format!("order:{order}"));

    let open = async |path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        EventReader::open_with(gateway.address, path, &[("authorization", &bearer)]).await
    };
    let mut own = open(&of_order, &trader).await;
    let greeting = own.next().await;
    assert_eq!((&greeting["subject"], &greeting["authentication"]), (&json!("alice"), &json!("required")));
    own.next_of_type("confirmed").await;

    // The stream ends when its token expires, since a stream cannot renew it.
    let short = realm.token(json!({ "roles": ["viewer"], "exp": now() + 3 }));
    let mut reader = open("/sse?channels=zone:b", &short).await;
    reader.next_of_type("token_expiring").await;
    let told = reader.until_end().await;
    assert_eq!(told.last().unwrap()["code"], 4006, "{told:?}");
    assert!(reader.retry.is_some() && !reader.last_event_id.is_empty() && reader.last_event_id != "final");
    get(&gateway, "/sse?channels=zone:b", &short).await.problem(401, "unauthorized");

    // A stream whose token is revoked is told not to reconnect, and could not.
    let carol = realm.token(json!({ "sub": "carol", "roles": ["viewer"], "iat": now() - 1 }));
    let mut reader = open("/sse?channels=zone:b", &carol).await;
    reader.next_of_type("subscribed").await;
    let operator = realm.of("root", "operator");
    let wish = json!({ "subject": "carol" });
    assert_eq!(ask(&gateway, "POST", "/api/auth/revoke", &operator, Some(&wish)).await.status, 200);
    let told = reader.until_end().await;
    assert_eq!((&told.last().unwrap()["code"], reader.last_event_id.as_str()), (&json!(4501), "final"));
    get(&gateway, "/sse?channels=zone:b", &carol).await.problem(401, "unauthorized");

    // A stream that loses its right to one channel keeps the others; without any channel left it ends.
    let mut reader = open(path, &key).await;
    for _ in 0..2 {
        reader.next_of_type("subscribed").await;
    }
    for (rights, lost) in [(vec!["subscribe:zone:b"], "zone:acme.a"), (vec!["subscribe:zone:c"], "zone:b")] {
        (kept.roles, kept.rights) = (Vec::new(), rights.into_iter().map(str::to_owned).collect());
        realm.write_keys(&[&kept]);
        let ended = reader.next_of_type("unsubscribed").await;
        assert_eq!((&ended["channel"], &ended["code"]), (&json!(lost), &json!("forbidden")));
    }
    let told = reader.until_end().await;
    assert_eq!((&told[0]["code"], reader.last_event_id.as_str()), (&json!(4501), "final"));
    gateway.stop().await;

    let gateway = Running::changed(realm.config(), |config| config.auth.token_in_url = true).await;
    let mut reader = EventReader::open(gateway.address, &format!("{path}&access_token={trader}")).await;
    assert_eq!(reader.next().await["subject"], "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_remembered_as_long_as_its_tokens_could_be_valid() {
    let realm = Realm::new();
    let (operator, key) = realm.write_key("operator");
    realm.write_keys(&[&key]);
    let mut config = realm.config();
    config.auth.keys_file = Some(realm.keys_file());
    (config.auth.lifetime_max_s, config.auth.leeway_s) = (1, 0);
    let gateway = Running::start(config).await;
    // The last one is a token whose id equals the name of a key.
    for what in
        [json!({ "key": "k" }), json!({ "jti": "t" }), json!({ "subject": "s" }), json!({ "jti": "k" })]
    {
        let answer = ask(&gateway, "POST", "/api/auth/revoke", &operator, Some(&what)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    until("that of the key alone is left", async || {
        let metrics = gateway.get("/metrics").await.body;
        metrics.lines().any(|line| line == "zonewire_revocations 1")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_every_node_and_every_socket() {
    let Some(mut server) = redis(&[]).await else { return };
    let realm = Realm::new();
    let mut config = realm.config();
    config.storage.backend = StorageChoice::Redis;
    config.storage.redis = server.config();
    let (one, two) = (Running::start(config.clone()).await, Running::start(config.clone()).await);
    let operator = realm.of("root", "operator");
    let token = |sub: &str, jti: &str| {
        realm.token(json!({ "sub": sub, "jti": jti, "roles": ["viewer"], "iat": now() - 1 }))
    };
    let revoke = async |at: &Running, what: Value| {
        let answer = ask(at, "POST", "/api/auth/revoke", &operator, Some(&what)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let (first, second, bob) = (token("alice", "1"), token("alice", "2"), token("bob", "3"));
    let (mut a, _) = connect(&two, "/ws/market/a", &first).await;
    let (mut b, _) = connect(&two, "/ws/market/a", &second).await;
    let (mut c, _) = connect(&two, "/ws/market/a", &bob).await;
    until("both nodes are known to each other", async || {
        let on = revoke(&one, json!({ "jti": "another" })).await;
        on["holds_on"].as_array().unwrap().len() == 2
    })
    .await;

    let begun = Instant::now();
    let on = revoke(&one, json!({ "jti": "1" })).await;
    assert_eq!(on["unconfirmed_on"], json!([]), "{on}");
    assert_eq!(on["degraded"], false);
    let (_, code, reason) = a.until_close().await;
    assert_eq!((code, reason.as_str()), (4501, "unauthorized"));
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    get(&two, "/api/zones", &first).await.problem(401, "unauthorized");
    assert_eq!(get(&two, "/api/zones", &second).await.status, 200);

    revoke(&two, json!({ "subject": "alice" })).await;
    assert_eq!(b.until_close().await.1, 4501);
    get(&one, "/api/zones", &second).await.problem(401, "unauthorized");
    let later = realm.token(json!({ "roles": ["viewer"], "iat": now() + 2 }));
    assert_eq!(get(&one, "/api/zones", &later).await.status, 200);
    assert!(!c.until_pong().await.iter().any(|message| message["type"] == "closing"));

    for wrong in [json!({}), json!({ "jti": "a", "subject": "b" }), json!({ "jti": "" }), json!({ "x": 1 })] {
        ask(&one, "POST", "/api/auth/revoke", &operator, Some(&wrong)).await.problem(422, "invalid_request");
    }

    // A node that starts later knows it from the start.
    let three = Running::start(config).await;
    get(&three, "/api/zones", &second).await.problem(401, "unauthorized");

    // Without Redis a revocation takes effect on the node that received it, which says so; on others once
    // Redis is back.
    server.kill().await.unwrap();
    until("both are without Redis", async || {
        let state = async |node: &Running| node.get("/health").await.json()["state"].clone();
        state(&one).await == "degraded" && state(&two).await == "degraded"
    })
    .await;
    let on = revoke(&one, json!({ "jti": "3" })).await;
    let own = one.get("/health").await.json()["node"].clone();
    assert_eq!((&on["degraded"], &on["holds_on"]), (&json!(true), &json!([own])), "{on}");
    get(&one, "/api/zones", &bob).await.problem(401, "unauthorized");
    assert_eq!(get(&two, "/api/zones", &bob).await.status, 200);
    // Earlier revocations stay in effect.
    get(&two, "/api/zones", &second).await.problem(401, "unauthorized");
    assert_eq!(two.get("/health").await.json()["authentication"]["revocations"], "unknown");
    server.restart().await.unwrap();
    assert_eq!(c.until_close().await.1, 4501);
    until("it is known at the other node", async || get(&two, "/api/zones", &bob).await.status == 401).await;
}
