//! Limits of principals and tenants, as clients experience them.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use zonewire::config::{Allowances, Config, RoleAllowances};
use zonewire::model::Lane;

use crate::access::{Realm, ask, connect, publish, subscribe};
use crate::support::client::Client;
use crate::support::events::EventReader;
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Answer, LINES, Running, price, request, until_stat};
use crate::support::orders::swap;

/// How often a test tries until it is refused: on a slow machine one unit per second is given back meanwhile.
const TRIES: usize = 200;

/// A gateway of a realm with limits.
async fn limited(realm: &Realm, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = realm.config();
    config.limits.burst_s = 3;
    change(&mut config);
    Running::start(config).await
}

/// Limits each principal, or each tenant.
fn allow(config: &mut Config, scope: &str, few: Allowances) {
    if scope == "tenant" { config.limits.tenant = few } else { config.limits.principal = few }
}

/// Requests until one is refused. Returns how many were not, and the refusal.
async fn until_refused(mut ask: impl AsyncFnMut() -> Answer) -> (usize, Answer) {
    for accepted in 0..TRIES {
        let answer = ask().await;
        if answer.status == 429 {
            return (accepted, answer);
        }
        assert!(!matches!(answer.status, 401 | 403 | 500..), "{answer:?}");
    }
    panic!("nothing was refused");
}

/// Checks that a refusal says when to retry.
fn says_when(refusal: &Answer, code: &str) {
    let problem = refusal.problem(429, code);
    let after_ms = problem["retry_after_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&after_ms), "{problem}");
    let header = format!("retry-after: {}", after_ms.div_ceil(1_000));
    assert!(refusal.head.lines().any(|line| line == header), "{refusal:?}");
}

async fn counted(gateway: &Running, realm: &Realm, kind: &str, limit: &str) -> u64 {
    let stats = ask(gateway, "GET", "/ws/stats", &realm.of("root", "operator"), None).await.json();
    stats["limits"][kind][limit].as_u64().unwrap_or_else(|| panic!("{limit} is not in {}", stats["limits"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_is_limited_for_a_principal_and_for_a_tenant() {
    let realm = Realm::new();
    for scope in ["principal", "tenant"] {
        let gateway = limited(&realm, |config| {
            config.limits.burst_s = 30;
            let few = Allowances { publishes_per_s: 1, ..Allowances::default() };
            allow(config, scope, few);
        })
        .await;
        let (alice, bob) = (realm.of_tenant("alice", "acme"), realm.of_tenant("bob", "acme"));
        let other = realm.of_tenant("alice", "other");
        let (accepted, refusal) = until_refused(async || publish(&gateway, "acme.a", &alice).await).await;
        assert!(accepted >= 30, "{accepted}");
        says_when(&refusal, "rate_limited");
        assert_eq!(refusal.json()["accepted"], 0);
        assert_eq!(publish(&gateway, "other.a", &other).await.status, 200, "another tenant");
        let (of_bob, _) = until_refused(async || publish(&gateway, "acme.a", &bob).await).await;
        assert!(if scope == "tenant" { of_bob < 20 } else { of_bob >= 30 }, "{scope} {of_bob}");
        // Over a WebSocket the same allowance applies.
        let (mut client, _) = connect(&gateway, "/ws", &alice).await;
        let message = json!({
            "type": "publish", "id": 7, "channel": "zone:acme.a", "entries": vec![price("K", 1); 20],
        });
        client.send(&message).await;
        let answer = client.next().await;
        assert_eq!((&answer["code"], &answer["accepted"]), (&json!("not_published"), &json!(0)), "{answer}");
        assert!(answer["retry_after_ms"].as_u64().unwrap() > 0, "{answer}");
        // A removal counts as one entry.
        let path = "/api/zones/acme.a/keys/K";
        let (_, refusal) = until_refused(async || ask(&gateway, "DELETE", path, &alice, None).await).await;
        says_when(&refusal, "rate_limited");
        let history = ask(&gateway, "GET", "/api/zones/acme.a/latest", &alice, None).await;
        assert_eq!(history.status, 200, "reading is not limited");
        let limit = format!("{scope}.publishes_per_s");
        assert!(counted(&gateway, &realm, "refused", &limit).await >= 3);
        let metrics = gateway.get("/metrics").await.body;
        assert!(metrics.contains(&format!("zonewire_limited_total{{limit=\"{limit}\"}}")), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_lines_beyond_the_rate_is_read_slowly_and_completely() {
    let realm = Realm::new();
    let gateway = limited(&realm, |config| {
        config.limits.burst_s = 1;
        config.limits.principal.publishes_per_s = 300;
    })
    .await;
    let lines: Vec<String> = (0..900).map(|n| price(&format!("K{}", n % 7), n).to_string()).collect();
    let authorization = format!("Bearer {}", realm.of_tenant("alice", "acme"));
    let headers = [("authorization", authorization.as_str()), ("content-type", LINES)];
    let path = "/api/zones/acme.a/prices";
    let answer = request(gateway.address, "POST", path, &headers, lines.join("\n").as_bytes()).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(900)), "{answer:?}");
    assert!(counted(&gateway, &realm, "refused", "principal.publishes_per_s").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_limited_and_a_role_may_have_more() {
    let realm = Realm::new();
    for scope in ["principal", "tenant"] {
        let gateway = limited(&realm, |config| {
            let few = Allowances { orders_per_s: 1, ..Allowances::default() };
            allow(config, scope, few);
            let role = RoleAllowances { orders_per_s: Some(0), ..RoleAllowances::default() };
            config.limits.roles.insert("trader".to_owned(), role);
        })
        .await;
        let place =
            async |token: &str| ask(&gateway, "POST", "/api/orders/execute", token, Some(&swap())).await;
        let token = realm.of_tenant("alice", "acme");
        let order = place(&token).await.json()["orderId"].as_str().unwrap().to_owned();
        let (accepted, refusal) = until_refused(async || place(&token).await).await;
        assert!(accepted >= 2, "{accepted}");
        says_when(&refusal, "rate_limited");
        // Orders may be cancelled even when no more may be placed.
        let cancelled = ask(&gateway, "POST", &format!("/api/orders/{order}/cancel"), &token, None).await;
        assert_ne!(cancelled.status, 429, "{cancelled:?}");
        let trader = realm.of("bob", "trader");
        for _ in 0..20 {
            assert_eq!(place(&trader).await.status, 202);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_and_their_rate_are_limited() {
    let realm = Realm::new();
    let gateway = limited(&realm, |config| {
        config.limits.principal.connections_max = 2;
        config.limits.tenant.connections_max = 3;
        config.limits.roles.insert(
            "viewer".to_owned(),
            RoleAllowances { connections_max: Some(0), connects_per_s: Some(1), ..RoleAllowances::default() },
        );
    })
    .await;
    let (alice, bob) = (realm.of_tenant("alice", "acme"), realm.of_tenant("bob", "acme"));
    let (first, greeting) = connect(&gateway, "/ws", &alice).await;
    assert_eq!(greeting["type"], "connection_established");
    let stream = "/sse?channels=zone:acme.a".to_owned();
    let authorization = format!("Bearer {alice}");
    let second = EventReader::open_with(
        gateway.address,
        &stream,
        &[("authorization", &authorization), ("accept", "text/event-stream")],
    )
    .await;
    let refused = async |token: &str| {
        let (mut client, closing) = connect(&gateway, "/ws", token).await;
        assert_eq!(closing["type"], "closing");
        assert!(closing["retry_after_ms"].as_u64().unwrap() >= 1_000, "{closing}");
        client.until_close().await.1
    };
    assert_eq!(refused(&alice).await, 4005);
    // A client that does not ask for events explicitly gets an HTTP answer.
    let head = format!("GET {stream} HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\n\r\n");
    let socket = TcpStream::connect(gateway.address).await.unwrap();
    let answer = EventReader::ask(socket, &head).await.err().unwrap();
    says_when(&answer, "too_many_connections_of_subject");
    let (_third, greeting) = connect(&gateway, "/ws", &bob).await;
    assert_eq!(greeting["type"], "connection_established");
    assert_eq!(refused(&bob).await, 4005, "the tenant has three");
    assert_eq!(counted(&gateway, &realm, "refused", "principal.connections_max").await, 2);
    assert_eq!(counted(&gateway, &realm, "refused", "tenant.connections_max").await, 1);
    // A connection that ends makes room.
    first.close().await;
    drop(second);
    until("there is room again", async || {
        let (_client, first) = connect(&gateway, "/ws", &alice).await;
        first["type"] == "connection_established"
    })
    .await;

    // A role has its own rate.
    let carol = realm.of("carol", "viewer");
    let mut accepted = 0;
    let code = loop {
        let (mut client, first) = connect(&gateway, "/ws", &carol).await;
        if first["type"] == "closing" {
            break client.until_close().await.1;
        }
        accepted += 1;
        assert!(accepted < TRIES);
    };
    assert!(code == 4004 && accepted >= 3, "{code} {accepted}");
    assert!(counted(&gateway, &realm, "refused", "principal.connects_per_s").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_limited_over_all_connections_together() {
    let realm = Realm::new();
    let gateway = limited(&realm, |config| config.limits.tenant.messages_per_s = 10).await;
    let (mut one, _) = connect(&gateway, "/ws", &realm.of_tenant("alice", "acme")).await;
    let (mut two, _) = connect(&gateway, "/ws", &realm.of_tenant("bob", "acme")).await;
    // Each connection by itself may send 200 at once.
    for _ in 0..25 {
        one.send(&json!({ "type": "ping" })).await;
    }
    let mut sent = 0;
    let (messages, code) = loop {
        two.send(&json!({ "type": "ping" })).await;
        sent += 1;
        let message = two.next().await;
        if message["type"] == "closing" {
            break (message, two.until_close().await.1);
        }
        assert!(sent < TRIES);
    };
    assert_eq!(code, 4004);
    assert!(messages["retry_after_ms"].as_u64().unwrap() >= 1_000, "{messages}");
    assert!(counted(&gateway, &realm, "refused", "tenant.messages_per_s").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_limited_on_all_connections_together_and_unsubscribing_is_not() {
    let realm = Realm::new();
    for scope in ["principal", "tenant"] {
        let gateway = limited(&realm, |config| {
            let few = Allowances { subscriptions_max: 3, ..Allowances::default() };
            allow(config, scope, few);
        })
        .await;
        let alice = realm.of_tenant("alice", "acme");
        // This client authenticates after it has connected.
        let mut one = gateway.client().await;
        one.send(&json!({ "type": "auth", "token": alice })).await;
        one.next_of_type("authenticated").await;
        let (mut two, _) = connect(&gateway, "/ws/market/acme.a", &alice).await;
        two.next_of_type("subscribed").await;
        for channel in ["zone:acme.b", "zone:acme.c"] {
            assert_eq!(subscribe(&mut one, channel).await["type"], "subscribed");
        }
        let refused = subscribe(&mut two, "zone:acme.d").await;
        assert_eq!(refused["code"], "too_many_subscriptions", "{refused}");
        assert!(refused["retry_after_ms"].as_u64().unwrap() > 0 && refused["channel"] == "zone:acme.d");
        // Subscribing again takes nothing from the allowance.
        assert_eq!(subscribe(&mut one, "zone:acme.c").await["type"], "subscribed");
        let (mut three, _) = connect(&gateway, "/ws/market/acme.e", &alice).await;
        let (before, code, _) = three.until_close().await;
        assert_eq!((&before[0]["code"], code), (&json!("too_many_subscriptions"), 4005), "{before:?}");
        let authorization = format!("Bearer {alice}");
        let headers = [("authorization", authorization.as_str()), ("accept", "text/event-stream")];
        let path = "/sse?channels=zone:acme.e,zone:acme.f";
        let mut stream = EventReader::open_with(gateway.address, path, &headers).await;
        let told = stream.until_end().await;
        assert_eq!(told.last().unwrap()["reason"], "too_many_connections", "{told:?}");

        one.send(&json!({ "type": "unsubscribe", "id": 1, "channels": ["zone:acme.b"] })).await;
        one.next_of_type("unsubscribed").await;
        assert_eq!(subscribe(&mut two, "zone:acme.d").await["type"], "subscribed");
        assert_eq!(subscribe(&mut one, "zone:acme.b").await["code"], "too_many_subscriptions");
        drop(two);
        until("a connection that ends gives back", async || {
            subscribe(&mut one, "zone:acme.b").await["type"] == "subscribed"
        })
        .await;
        assert!(counted(&gateway, &realm, "refused", &format!("{scope}.subscriptions_max")).await >= 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_beyond_the_byte_rate_is_delayed_but_not_lost() {
    let realm = Realm::new();
    let gateway = limited(&realm, |config| {
        config.limits.burst_s = 1;
        config.limits.principal.bytes_out_per_s = 60_000;
        let role = RoleAllowances { bytes_out_per_s: Some(0), ..RoleAllowances::default() };
        config.limits.roles.insert("operator".to_owned(), role);
        config.channels.default_lane = Lane::Every;
    })
    .await;
    let (mut limited, _) = connect(&gateway, "/ws/market/acme.a", &realm.of_tenant("alice", "acme")).await;
    let (mut free, _) = connect(&gateway, "/ws/market/acme.a", &realm.of("root", "operator")).await;
    free.next_of_type("subscribed").await;
    limited.next_of_type("subscribed").await;
    let publisher = realm.of_tenant("bob", "acme");
    // About 150 kB.
    let prices: Vec<Value> =
        (0..150).map(|n| json!({ "key": "K", "price": n, "note": "x".repeat(900) })).collect();
    let answer = ask(&gateway, "POST", "/api/zones/acme.a/prices", &publisher, Some(&json!(prices))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for (client, who) in [(&mut free, "free"), (&mut limited, "limited")] {
        let prices = client.prices(150).await;
        let values: Vec<u64> = prices.iter().map(|price| price["price"].as_u64().unwrap()).collect();
        assert_eq!(values, (0..150).collect::<Vec<_>>(), "{who}");
    }
    assert!(counted(&gateway, &realm, "refused", "principal.bytes_out_per_s").await > 0);
    assert_eq!(limited.until_pong().await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_it_lets_through() {
    let realm = Realm::new();
    let gateway = limited(&realm, |config| {
        config.limits.dry_run = true;
        config.limits.burst_s = 1;
        config.limits.principal = Allowances {
            connects_per_s: 1,
            connections_max: 1,
            messages_per_s: 1,
            subscriptions_max: 1,
            publishes_per_s: 1,
            orders_per_s: 1,
            bytes_out_per_s: 4_096,
            behind_max: 1,
        };
    })
    .await;
    let alice = realm.of_tenant("alice", "acme");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (mut client, _) = connect(&gateway, "/ws", &alice).await;
        for channel in ["zone:acme.a", "zone:acme.b"] {
            assert_eq!(subscribe(&mut client, channel).await["type"], "subscribed");
        }
        clients.push(client);
    }
    for _ in 0..20 {
        assert_eq!(publish(&gateway, "acme.a", &alice).await.status, 200);
        assert_eq!(ask(&gateway, "POST", "/api/orders/execute", &alice, Some(&swap())).await.status, 202);
    }
    for limit in ["connections_max", "messages_per_s", "subscriptions_max", "publishes_per_s", "orders_per_s"]
    {
        assert!(counted(&gateway, &realm, "dry_run", &format!("principal.{limit}")).await > 0, "{limit}");
    }
    let stats = ask(&gateway, "GET", "/ws/stats", &realm.of("root", "operator"), None).await.json();
    assert_eq!(stats["limits"]["refused"].as_object().unwrap().values().filter(|n| **n != 0).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_clients_have_only_the_limits_of_their_address() {
    let realm = Realm::new();
    let gateway = limited(&realm, |config| {
        config.auth.anonymous = vec!["subscribe:zone:public.*".to_owned()];
        config.limits.principal = Allowances {
            connections_max: 1,
            subscriptions_max: 1,
            messages_per_s: 1,
            ..Allowances::default()
        };
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = gateway.connect("/ws/market/public.a").await;
        client.next_of_type("subscribed").await;
        for n in 0..10 {
            assert_eq!(subscribe(&mut client, &format!("zone:public.{n}")).await["type"], "subscribed");
        }
        clients.push(client);
    }
}

/// More than a slow reader's socket takes; with many keys, so that nothing is replaced.
fn many_keys() -> impl Iterator<Item = Value> {
    let filling = "x".repeat(4_000);
    (0..600).map(move |n| json!({ "key": format!("K{n}"), "price": 1, "note": filling }))
}

/// A client that reads nothing of a zone.
async fn slow(gateway: &Running) -> Client {
    let mut client = Client::connect_small(&gateway.url("/ws/market/a")).await;
    client.next_of_type("subscribed").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn of_lagging_readers_the_one_lagging_for_longest_is_closed() {
    let mut config = crate::support::gateway::config();
    config.connections.behind_per_address_max = 1;
    // A reader's own bound is not reached.
    config.connections.outbox_bytes_max = 64 << 20;
    let gateway = Running::start(config).await;
    let fill = async || gateway.publish("a", many_keys()).await;
    let mut first = slow(&gateway).await;
    fill().await;
    until_stat(&gateway, "/limits/behind", 1).await;
    let _second = slow(&gateway).await;
    fill().await;
    until_stat(&gateway, "/limits/refused/connections.behind_per_address_max", 1).await;
    // Its shard closes it at its next check; a reader that has caught up by then may stay.
    until("one is being closed", async || {
        let stats = gateway.get("/ws/stats?connections=10").await.json();
        let list = stats["connection_list"].as_array().unwrap();
        list.iter().any(|connection| connection["health"] == "closing")
    })
    .await;
    let (_, code, _) = first.until_close().await;
    assert_eq!(code, 4001);
}

/// A lagging reader of a zone of its own, which reads nothing, and its connection id.
async fn behind(gateway: &Running, realm: &Realm, token: &str, zone: &str) -> (Client, Value) {
    let mut client = Client::connect_small(&gateway.url("/ws")).await;
    let id = client.next_of_type("connection_established").await["connection_id"].clone();
    client.send(&json!({ "type": "auth", "token": token })).await;
    client.next_of_type("authenticated").await;
    assert_eq!(subscribe(&mut client, &format!("zone:{zone}")).await["type"], "subscribed");
    let authorization = format!("Bearer {}", realm.of("root", "operator"));
    let headers = [("authorization", authorization.as_str()), ("content-type", LINES)];
    let lines = many_keys().map(|price| price.to_string()).collect::<Vec<_>>().join("\n");
    let path = format!("/api/zones/{zone}/prices");
    assert_eq!(request(gateway.address, "POST", &path, &headers, lines.as_bytes()).await.status, 200);
    (client, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_principals_or_tenants_lagging_readers_the_one_lagging_for_longest_is_closed() {
    let realm = Realm::new();
    let readers = |scope| match scope {
        "principal" => [("bob", "acme"), ("alice", "acme"), ("alice", "acme")],
        _ => [("alice", "other"), ("alice", "acme"), ("bob", "acme")],
    };
    for (scope, dry_run) in [("principal", false), ("tenant", false), ("principal", true), ("tenant", true)] {
        let gateway = limited(&realm, |config| {
            let few = Allowances { behind_max: 1, ..Allowances::default() };
            allow(config, scope, few);
            config.limits.dry_run = dry_run;
            config.connections.outbox_bytes_max = 64 << 20;
        })
        .await;
        let operator = realm.of("root", "operator");
        let stats = async || ask(&gateway, "GET", "/ws/stats", &operator, None).await.json();
        let (limit, kind) = (format!("{scope}.behind_max"), if dry_run { "dry_run" } else { "refused" });
        let mut held = Vec::new();
        for (n, (subject, tenant)) in readers(scope).into_iter().enumerate() {
            let token = realm.of_tenant(subject, tenant);
            held.push(behind(&gateway, &realm, &token, &format!("{tenant}.r{n}")).await);
            until("it is counted", async || {
                let limits = stats().await["limits"].clone();
                match n {
                    0 | 1 => limits["behind"] == n + 1,
                    // One too many for the same principal or tenant.
                    _ => limits[kind][&limit] == 1,
                }
            })
            .await;
        }
        let health = async || {
            let list = stats().await["connection_list"].clone();
            let of = |id: &Value| {
                let listed = list.as_array().unwrap().iter().find(|listed| listed["connection_id"] == *id);
                listed.map_or("gone".to_owned(), |listed| listed["health"].as_str().unwrap().to_owned())
            };
            held.iter().map(|(_, id)| of(id)).collect::<Vec<_>>()
        };
        if dry_run {
            assert_eq!(health().await, ["behind"; 3], "{scope}");
        } else {
            // Its shard closes it at its next check.
            let is_closing = async || (health().await[1] == "closing").then_some(());
            eventually("the second one is being closed", is_closing).await;
            assert_eq!(health().await, ["behind", "closing", "behind"], "{scope}");
            let (_, code, _) = held[1].0.until_close().await;
            assert_eq!(code, 4001, "{scope}");
            let left = async || (stats().await["limits"]["behind"] == 2).then_some(());
            eventually("two are left", left).await;
        }
        assert_eq!(counted(&gateway, &realm, kind, &limit).await, 1, "{scope}");
        // A reader that has caught up no longer counts.
        let (first, _) = &mut held[0];
        first.send(&json!({ "type": "ping", "id": 1 })).await;
        first.next_of_type("pong").await;
        let expected = if dry_run { 2 } else { 1 };
        let left = async || (stats().await["limits"]["behind"] == expected).then_some(());
        eventually("one less", left).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_above_the_burst_is_accepted_when_the_allowance_is_full() {
    let realm = Realm::new();
    let gateway = limited(&realm, |config| config.limits.principal.publishes_per_s = 1).await;
    let many = json!((0..50).map(|n| price("K", n)).collect::<Vec<_>>());
    let alice = realm.of_tenant("alice", "acme");
    let post = async || ask(&gateway, "POST", "/api/zones/acme.a/prices", &alice, Some(&many)).await;
    assert_eq!(post().await.status, 200);
    let refusal = post().await;
    says_when(&refusal, "rate_limited");
}
