//! What a running gateway sends conforms to `docs/schema`, and the types of `zonewire-protocol` read and
//! write it.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zonewire_protocol as protocol;
use zonewire_protocol::ServerMessage;

use crate::support::client::{Came, Client};
use crate::support::gateway::{Answer, JSON, LINES, Running, config, request};
use crate::support::orders::{external, paper, place, post_json};

/// The schemas that are checked in.
struct Schemas(Value);

impl Schemas {
    fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema/zonewire.schema.json");
        Self(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }

    fn check(&self, name: &str, value: &Value) {
        let mut schema = self.0.clone();
        schema["$ref"] = json!(format!("#/$defs/{name}"));
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let faults: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {value}: {faults:?}");
    }

    /// Checks a message, and returns its type.
    fn check_message(&self, text: &str) -> String {
        self.check("ServerMessage", &serde_json::from_str(text).unwrap());
        let message = ServerMessage::read(text).unwrap();
        assert!(!matches!(message, ServerMessage::Unknown(_)), "{text}");
        assert_eq!(String::from_utf8(message.to_json()).unwrap(), text);
        message.kind().to_owned()
    }

    /// Checks the status of an answer, and the type of its body.
    fn check_body<T: Serialize + DeserializeOwned>(&self, name: &str, status: u16, answer: &Answer) {
        assert_eq!(answer.status, status, "{answer:?}");
        self.check(name, &answer.json());
        let typed: T = serde_json::from_value(answer.json()).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), answer.json());
    }
}

/// Reads up to a message of this type, and returns the types of all messages read.
async fn types_to(client: &mut Client, schemas: &Schemas, kind: &str) -> Vec<String> {
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|last| last != kind) {
        match client.came().await {
            Came::Text(text) => kinds.push(schemas.check_message(&text)),
            Came::Ping => {}
            other => panic!("{other:?} before {kind}, after {kinds:?}"),
        }
    }
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_gateway_conform_to_their_schemas() {
    let schemas = Schemas::load();
    let mut config = paper();
    config.connections.heartbeat_interval_s = 1;
    config.connections.order_linger_ms = 0;
    let gateway = Running::start(config).await;
    let quote = r#"{"symbol":"B","bid":1.10,"ask":1.20e0,"note":{"a":[null]}}"#;
    gateway.publish("pjm", [r#"{"key":"A","price":39432.480}"#, quote]).await;
    let mut client = gateway.connect("/ws/market/pjm?snapshot=1").await;
    assert_eq!(
        types_to(&mut client, &schemas, "snapshot_end").await,
        ["connection_established", "subscribed", "price_update", "price_update", "snapshot_end"]
    );
    gateway.publish("pjm", [r#"{"key":"A","price":2,"timestamp":"2021-01-08T00:00:00Z"}"#]).await;
    assert_eq!(gateway.delete("/api/zones/pjm/keys/A").await.status, 204);
    assert_eq!(gateway.delete("/api/zones/pjm").await.status, 204);
    let kinds = types_to(&mut client, &schemas, "zone_removed").await;
    assert!(["price_update", "key_removed"].iter().all(|kind| kinds.iter().any(|k| k == kind)), "{kinds:?}");
    for (message, kind) in [
        (json!({"type": "ping", "id": 1.50}), "pong"),
        (json!({"type": "heartbeat", "id": "a"}), "heartbeat_ack"),
        (json!({"type": "dance"}), "error"),
        (json!({"type": "subscribe", "channels": ["pjm"]}), "error"),
        (
            json!({"type": "subscribe", "id": 2, "channels": ["zone:pjm"], "since": {"zone:pjm": "gone:5"}}),
            "subscribed",
        ),
        (json!({"type": "unsubscribe", "channels": ["zone:pjm"]}), "unsubscribed"),
    ] {
        client.send(&message).await;
        types_to(&mut client, &schemas, kind).await;
    }
    types_to(&mut client, &schemas, "heartbeat").await;
    client.close().await;

    let order = place(gateway.address).await;
    let mut client = gateway.connect(&format!("/ws/orders/{order}")).await;
    let kinds = types_to(&mut client, &schemas, "closing").await;
    for kind in ["connection", "subscribed", "routing", "building", "submitted", "confirmed"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind}: {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_a_gateway_conform_to_their_schemas() {
    let schemas = Schemas::load();
    let gateway = Running::changed(external(), |config| config.orders.attempts_max = 1).await;
    let published = gateway.post("pjm", JSON, br#"[{"key":"A","price":1.5},{"key":"B","price":2}]"#).await;
    schemas.check_body::<protocol::Accepted>("Accepted", 200, &published);
    schemas.check_body::<protocol::ZoneList>("ZoneList", 200, &gateway.get("/api/zones").await);
    for path in [
        "/api/zones/pjm/latest",
        "/api/zones/pjm/latest?limit=1",
        "/api/zones/pjm/history",
        "/api/zones/x/history",
    ] {
        schemas.check_body::<protocol::Entries>("Entries", 200, &gateway.get(path).await);
    }
    let refused = gateway.post("pjm", LINES, b"{\"key\":\"A\",\"price\":1}\nx\n").await;
    schemas.check_body::<protocol::Problem>("Problem", 422, &refused);
    let refused = post_json(gateway.address, "/api/orders/execute", &json!({"amount": -1})).await;
    schemas.check_body::<protocol::Problem>("Problem", 422, &refused);
    schemas.check_body::<protocol::Problem>("Problem", 404, &gateway.get("/nowhere").await);
    schemas.check_body::<protocol::Live>("Live", 200, &gateway.get("/health/live").await);
    for path in ["/health", "/health/ready"] {
        schemas.check_body::<protocol::HealthView>("HealthView", 200, &gateway.get(path).await);
    }
    schemas.check_body::<protocol::RedisView>("RedisView", 200, &gateway.get("/health/redis").await);
    schemas.check_body::<protocol::ConfigView>("ConfigView", 200, &gateway.get("/api/config").await);
    let mut client = gateway.connect("/ws/market/pjm").await;
    let id = client.next().await["connection_id"].as_str().unwrap().to_owned();
    let stats = gateway.get("/ws/stats").await;
    schemas.check_body::<protocol::stats::StatsView>("StatsView", 200, &stats);
    let fleet = gateway.get("/ws/stats?scope=fleet").await;
    schemas.check_body::<protocol::stats::FleetView>("FleetView", 200, &fleet);
    let story = gateway.get(&format!("/ws/stats/{id}")).await;
    schemas.check_body::<protocol::stats::ConnectionStory>("ConnectionStory", 200, &story);
    client.close().await;

    let ordered = json!({"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5});
    let ask = async |path: &str, body: Value| post_json(gateway.address, path, &body).await;
    let placed = ask("/api/orders/execute", ordered.clone()).await;
    schemas.check_body::<protocol::OrderPlaced>("OrderPlaced", 202, &placed);
    let order = placed.json()["orderId"].as_str().unwrap().to_owned();
    let claimed = ask("/api/jobs/claim", json!({"worker": "w", "leaseMs": 60_000})).await;
    schemas.check_body::<protocol::Offer>("Offer", 200, &claimed);
    let offer: protocol::Offer = serde_json::from_value(claimed.json()).unwrap();
    let token = offer.jobs[0].token;
    let job = |what: &str| format!("/api/jobs/{order}/{what}");
    let extended = ask(&job("extend"), json!({"token": token, "leaseMs": 60_000})).await;
    schemas.check_body::<protocol::LeaseHeld>("LeaseHeld", 200, &extended);
    let told = ask(&job("progress"), json!({"token": token, "type": "routing", "progress": 10})).await;
    schemas.check_body::<protocol::ReportAccepted>("ReportAccepted", 200, &told);
    schemas.check_body::<protocol::OrderView>(
        "OrderView",
        200,
        &gateway.get(&format!("/api/orders/{order}")).await,
    );
    schemas.check_body::<protocol::OrderList>("OrderList", 200, &gateway.get("/api/orders").await);
    let error = json!({"code": "no_liquidity", "message": "none"});
    let failed = ask(&job("fail"), json!({"token": token, "error": error, "retry": true})).await;
    schemas.check_body::<protocol::JobOutcome>("JobOutcome", 200, &failed);
    let letters = gateway.get("/api/orders/dead-letters").await;
    schemas.check_body::<protocol::DeadLetterList>("DeadLetterList", 200, &letters);
    let again = gateway.post_empty(&format!("/api/orders/dead-letters/{order}/retry")).await;
    schemas.check_body::<protocol::OrderPlaced>("OrderPlaced", 202, &again);
    let again = again.json()["orderId"].as_str().unwrap().to_owned();
    let cancelled = gateway.post_empty(&format!("/api/orders/{again}/cancel")).await;
    schemas.check_body::<protocol::OrderCancelling>("OrderCancelling", 202, &cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_serves_its_descriptions_with_its_own_address() {
    let gateway = Running::changed(config(), |config| config.http.base_path = "/feed".to_owned()).await;
    for (path, place) in [("openapi.json", "/servers/0/url"), ("asyncapi.json", "/servers/gateway/pathname")]
    {
        let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema").join(path);
        let mut expected: Value =
            serde_json::from_str(&std::fs::read_to_string(checked_in).unwrap()).unwrap();
        *expected.pointer_mut(place).unwrap() = json!("/feed");
        for address in [format!("/{path}"), format!("/feed/{path}")] {
            let answer = request(gateway.address, "GET", &address, &[], b"").await;
            assert_eq!((answer.status, answer.json()), (200, expected.clone()), "{address}");
        }
    }
}
