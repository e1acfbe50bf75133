//! Certificates of clients: whom they identify, how far each right reaches, and how long they are valid.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use rustls::HandshakeKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;
use zonewire::config::{CertificateConfig, ClientAuth, Config};
use zonewire_kit::certificates::{Certificates, Issued};

use crate::access::Realm;
use crate::support::client::LIMIT;
use crate::support::eventually::until;
use crate::support::gateway::{Answer, JSON, LINES, Running, price};
use crate::support::orders::swap;
use crate::support::program::{Program, run, zonewire};
use crate::support::redis::certificates;
use crate::support::tls::{Secure, ask, connect, over, showing, trusting};
use crate::tls::replace;

const FEED: &str = "URI:spiffe://example.com/feed";

/// Valid from an hour ago for another hour.
const VALID: Issued<'static> = Issued { subject: "/CN=x", names: "", from_s: -3_600, until_s: 3_600 };

fn listed(name: &str, role: &str) -> CertificateConfig {
    CertificateConfig { name: name.to_owned(), roles: vec![role.to_owned()], ..CertificateConfig::default() }
}

/// A gateway that accepts tokens of a realm, and certificates of an authority: `feed` publishes, `alice` and
/// `bob` trade, `root` is an operator; the certificate `stranger` is not listed.
fn guarded(realm: &Realm, certificates: &Certificates) -> Config {
    let issue =
        |name: &str, subject, names| certificates.issue(name, &Issued { subject, names, ..VALID }).unwrap();
    issue("feed", "/CN=whatever", FEED);
    issue("alice", "/CN=alice", "");
    issue("bob", "/O=desk/CN=bob", "DNS:bob.example.com");
    issue("root", "/CN=someone", "email:root@example.com");
    issue("stranger", "/CN=stranger", "DNS:alice,URI:alice");
    let mut config = realm.config();
    // Requests reuse connections after files were reloaded, or certificates have expired.
    config.http.head_timeout_ms = 60_000;
    let tls = &mut config.http.tls;
    tls.cert_file = Some(certificates.file("server.pem"));
    tls.key_file = Some(certificates.file("server.key"));
    tls.client_ca_file = Some(certificates.file("ca.pem"));
    config.auth.certificates = vec![
        CertificateConfig { subject: Some("feed".to_owned()), ..listed(FEED, "publisher") },
        listed("CN:alice", "trader"),
        listed("DNS:bob.example.com", "trader"),
        listed("email:root@example.com", "operator"),
    ];
    config
}

/// Starts such a gateway; `None` if no certificates can be made.
async fn start_guarded() -> Option<(Certificates, Realm, Running)> {
    let (certificates, realm) = (certificates()?, Realm::new());
    let gateway = Running::start(guarded(&realm, &certificates)).await;
    Some((certificates, realm, gateway))
}

async fn get(connector: &TlsConnector, address: SocketAddr, path: &str) -> Answer {
    ask(&mut connect(connector, address).await, "GET", path, &[], "").await
}

async fn post_price(connector: &TlsConnector, address: SocketAddr, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("content-type", LINES)][..], headers].concat();
    let line = price("A", 1).to_string();
    ask(&mut connect(connector, address).await, "POST", "/api/zones/pjm/prices", &headers, &line).await
}

/// The reason why a handshake fails. With TLS 1.3 the client learns it after its own part is complete.
async fn refusal(connector: &TlsConnector, address: SocketAddr) -> String {
    let mut stream = match over(connector, TcpStream::connect(address).await.unwrap()).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    // As a client would that does not know yet.
    let _gone = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let _gone = stream.flush().await;
    let read = time::timeout(LIMIT, stream.read(&mut [0; 64])).await.expect("an end in time");
    read.expect_err("it is refused").to_string()
}

async fn tls_stats(operator: &TlsConnector, gateway: &Running) -> Value {
    get(operator, gateway.address, "/ws/stats").await.json()["http"]["tls"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_listed_certificate_identifies_a_client() {
    let Some((certificates, realm, gateway)) = start_guarded().await else { return };
    let showing = |name: &str| showing(&certificates, &certificates, name);
    let (feed, root, address) = (showing("feed"), showing("root"), gateway.address);

    let nobody = trusting(&[&certificates]);
    assert_eq!(get(&nobody, address, "/health").await.status, 200);
    get(&nobody, address, "/api/zones").await.problem(401, "unauthorized");
    // Headers that a proxy would write about a certificate are ignored.
    for (name, value) in [
        ("x-ssl-client-verify", "SUCCESS"),
        ("x-ssl-client-cn", "alice"),
        ("ssl-client-cert", "-----BEGIN CERTIFICATE-----"),
        ("x-forwarded-client-cert", "Subject=\"CN=alice\";URI=spiffe://example.com/feed"),
        ("client-cert", ":MIIB:"),
    ] {
        post_price(&nobody, address, &[(name, value)]).await.problem(401, "unauthorized");
    }
    assert_eq!(post_price(&feed, address, &[]).await.status, 200);
    get(&feed, address, "/ws/stats").await.problem(403, "forbidden");
    // Its names are listed, but as names of another kind.
    post_price(&showing("stranger"), address, &[]).await.problem(401, "unauthorized");
    get(&showing("stranger"), address, "/api/zones").await.problem(401, "unauthorized");

    // A credential that a request shows replaces the certificate, be it stronger, weaker or invalid.
    let alice = showing("alice");
    let token = |token: String| format!("Bearer {token}");
    let (publisher, viewer) = (token(realm.of("p", "publisher")), token(realm.of("v", "viewer")));
    post_price(&alice, address, &[]).await.problem(403, "forbidden");
    assert_eq!(post_price(&alice, address, &[("authorization", &publisher)]).await.status, 200);
    post_price(&feed, address, &[("authorization", &viewer)]).await.problem(403, "forbidden");
    post_price(&feed, address, &[("authorization", "Bearer x.y.z")]).await.problem(401, "unauthorized");
    assert_eq!(post_price(&showing("stranger"), address, &[("authorization", &publisher)]).await.status, 200);

    // A WebSocket belongs to the certificate's subject.
    let mut socket = Secure::open(&alice, address, "/ws/market/pjm").await;
    let greeting = socket.next_of_type("connection_established").await;
    assert_eq!(greeting["subject"], "alice", "{greeting}");
    assert!(greeting["token_expires_at"].is_string(), "{greeting}");
    assert_eq!(socket.next_of_type("subscribed").await["channel"], "zone:pjm");
    socket.send(&json!({ "type": "subscribe", "channels": ["registry:providers"] })).await;
    assert_eq!(socket.next_of_type("error").await["code"], "forbidden");
    socket.send(&json!({ "type": "auth", "token": realm.of("p", "publisher") })).await;
    let refused = socket.next_of_type("error").await;
    assert_eq!(refused["code"], "invalid_token", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("certificate"), "{refused}");
    // A WebSocket with an unlisted certificate waits for a token, like one without a certificate.
    let mut stranger = Secure::open(&showing("stranger"), address, "/ws/market/pjm").await;
    let greeting = stranger.next_of_type("connection_established").await;
    assert_eq!(greeting["authentication"], "required", "{greeting}");
    stranger.send(&json!({ "type": "auth", "token": realm.of("v", "viewer") })).await;
    assert_eq!(stranger.next_of_type("authenticated").await["subject"], "v");
    stranger.next_of_type("subscribed").await;

    let stats = get(&root, address, "/ws/stats").await.json();
    let mut subjects: Vec<_> = stats["connection_list"].as_array().unwrap().iter().collect();
    subjects.sort_by_key(|listed| listed["subject"].to_string());
    let subjects: Vec<_> = subjects.into_iter().map(|listed| listed["subject"].clone()).collect();
    assert_eq!(subjects, ["alice", "v"]);
    let counted = &stats["http"]["tls"]["certificates_by_result"];
    assert_eq!(counted["unlisted"], 4, "{counted}");
    assert!(counted["listed"].as_u64().unwrap() >= 8, "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_certificate_ends_the_handshake_with_a_reason() {
    let (Some(certificates), Some(others)) = (certificates(), certificates()) else { return };
    let realm = Realm::new();
    let gateway = Running::start(guarded(&realm, &certificates)).await;
    let of_feed = |from_s, until_s| Issued { subject: "/CN=a", names: FEED, from_s, until_s };
    certificates.issue("over", &of_feed(-7_200, -3_600)).unwrap();
    certificates.issue("early", &of_feed(3_600, 7_200)).unwrap();
    others.issue("forged", &of_feed(-3_600, 3_600)).unwrap();
    let long = vec!["DNS:x.example.com"; 1_200].join(",");
    certificates.issue("long", &Issued { names: &format!("{FEED},{long}"), ..VALID }).unwrap();
    let root = showing(&certificates, &certificates, "root");
    for (of, name) in
        [(&certificates, "over"), (&certificates, "early"), (&others, "forged"), (&certificates, "long")]
    {
        let said = refusal(&showing(&certificates, of, name), gateway.address).await.to_lowercase();
        assert!(said.contains("alert"), "{name}: {said}");
    }
    // A failure is counted after the client was told.
    let failed = async || tls_stats(&root, &gateway).await["failed_by_reason"].take();
    until("all are counted", async || failed().await["certificate"] == 4).await;
    assert_eq!(failed().await["no_certificate"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_certificate_is_demanded_except_on_the_operators_listener() {
    let Some(certificates) = certificates() else { return };
    let realm = Realm::new();
    let mut config = guarded(&realm, &certificates);
    config.http.tls.client_auth = ClientAuth::Required;
    config.http.operators.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let gateway = Running::start(config).await;
    let (address, operators) = (gateway.address, gateway.operators.unwrap());
    let nobody = trusting(&[&certificates]);
    let said = refusal(&nobody, address).await;
    assert!(said.contains("CertificateRequired"), "{said}");
    assert_eq!(get(&nobody, operators, "/health/ready").await.status, 200);
    get(&nobody, operators, "/ws/stats").await.problem(401, "unauthorized");
    // A session from the operators' listener cannot be resumed here.
    let said = refusal(&nobody, address).await;
    assert!(said.contains("CertificateRequired"), "{said}");

    let root = showing(&certificates, &certificates, "root");
    assert_eq!(get(&root, address, "/api/zones").await.status, 200);
    let stats = get(&root, operators, "/ws/stats").await;
    assert_eq!(stats.status, 200, "{stats:?}");
    // A failure is counted after the client was told.
    let failed =
        async || get(&root, operators, "/ws/stats").await.json()["http"]["tls"]["failed_by_reason"].take();
    until("both are counted", async || failed().await["no_certificate"] == 2).await;
    // A client with an unlisted certificate may complete the handshake, and nothing more.
    let stranger = showing(&certificates, &certificates, "stranger");
    get(&stranger, address, "/api/zones").await.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_certificate_does_not_identify_its_clients() {
    let Some(certificates) = certificates() else { return };
    let realm = Realm::new();
    let gateway = Running::changed(guarded(&realm, &certificates), |config| {
        config.http.trusted_proxies = vec!["127.0.0.1".to_owned()]
    })
    .await;
    let alice = showing(&certificates, &certificates, "alice");
    let mut http = connect(&alice, gateway.address).await;
    assert_eq!(ask(&mut http, "GET", "/api/orders", &[], "").await.status, 200);
    for forwarded in [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "localhost"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.9"),
    ] {
        ask(&mut http, "GET", "/api/orders", &[forwarded], "").await.problem(401, "unauthorized");
    }
    assert_eq!(ask(&mut http, "GET", "/api/orders", &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_keeps_its_certificate() {
    let Some((certificates, _realm, gateway)) = start_guarded().await else { return };
    let alice = showing(&certificates, &certificates, "alice");
    assert_eq!(get(&alice, gateway.address, "/api/orders").await.status, 200);
    let mut again = connect(&alice, gateway.address).await;
    assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(ask(&mut again, "GET", "/api/orders", &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_their_certificates_subjects() {
    let Some((certificates, _realm, gateway)) = start_guarded().await else { return };
    let [alice, bob, root] = ["alice", "bob", "root"].map(|name| showing(&certificates, &certificates, name));
    let mut http = connect(&alice, gateway.address).await;
    let kind = [("content-type", JSON)];
    let placed = ask(&mut http, "POST", "/api/orders/execute", &kind, &swap().to_string()).await;
    assert_eq!(placed.status, 202, "{placed:?}");
    let order = placed.json()["orderId"].as_str().unwrap().to_owned();
    let path = format!("/api/orders/{order}");
    for (who, status) in [(&alice, 200), (&root, 200), (&bob, 404)] {
        assert_eq!(get(who, gateway.address, &path).await.status, status);
    }
    assert_eq!(get(&bob, gateway.address, "/api/orders").await.json()["orders"], json!([]));
    let mut own = Secure::open(&alice, gateway.address, &format!("/ws/orders/{order}")).await;
    own.next_of_type("subscribed").await;
    let mut of_another = Secure::open(&bob, gateway.address, &format!("/ws/orders/{order}")).await;
    assert_eq!(of_another.until_close().await.1, 4501);
    // Another certificate with her name, even a newer one, identifies her too.
    certificates.issue("alice-anew", &Issued { subject: "/CN=alice", ..VALID }).unwrap();
    let anew = showing(&certificates, &certificates, "alice-anew");
    assert_eq!(get(&anew, gateway.address, &path).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_subject_revokes_its_certificates_but_not_later_ones() {
    let Some((certificates, _realm, gateway)) = start_guarded().await else { return };
    let [alice, bob] = ["alice", "bob"].map(|name| showing(&certificates, &certificates, name));
    let address = gateway.address;
    let mut socket = Secure::open(&alice, address, "/ws/market/pjm").await;
    socket.next_of_type("subscribed").await;
    let mut others = Secure::open(&bob, address, "/ws/market/pjm").await;
    others.next_of_type("subscribed").await;
    let mut http = connect(&alice, address).await;
    assert_eq!(ask(&mut http, "GET", "/api/orders", &[], "").await.status, 200);

    let (ca, cert, key) =
        (certificates.file("ca.pem"), certificates.file("root.pem"), certificates.file("root.key"));
    let mut revoke = zonewire(&["token", "revoke", "--subject", "alice"]);
    revoke.args(["--url", &format!("https://{address}"), "--ca-file"]).arg(ca);
    revoke.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
    run(&mut revoke).await.exits(0);
    assert_eq!(socket.until_close().await.1, 4501);
    let refused = ask(&mut http, "GET", "/api/orders", &[], "").await;
    refused.problem(401, "unauthorized");
    assert!(refused.head.lines().any(|line| line == "connection: close"), "{refused:?}");
    get(&alice, address, "/api/orders").await.problem(401, "unauthorized");
    let mut turned_away = Secure::open(&alice, address, "/ws/market/pjm").await;
    let (before, code) = turned_away.until_close().await;
    assert_eq!((code, &before.last().unwrap()["type"]), (4501, &json!("closing")), "{before:?}");

    // A certificate issued in the seconds after that is valid.
    let mut number = 0;
    until("one that is issued later holds", async || {
        number += 1;
        let name = format!("alice-{number}");
        certificates.issue(&name, &Issued { subject: "/CN=alice", from_s: 0, ..VALID }).unwrap();
        let anew = showing(&certificates, &certificates, &name);
        get(&anew, address, "/api/orders").await.status == 200
    })
    .await;
    get(&alice, address, "/api/orders").await.problem(401, "unauthorized");
    others.send(&json!({ "type": "ping", "id": 1 })).await;
    others.next_of_type("pong").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_certificate() {
    let Some((certificates, _realm, gateway)) = start_guarded().await else { return };
    certificates.issue("short", &Issued { subject: "/CN=alice", until_s: 8, ..VALID }).unwrap();
    let short = showing(&certificates, &certificates, "short");
    let mut http = connect(&short, gateway.address).await;
    let mut socket = Secure::open(&short, gateway.address, "/ws/market/pjm").await;
    let told = socket.next_of_type("token_expiring").await;
    assert!(told["expires_at"].is_string(), "{told}");
    assert_eq!(socket.until_close().await.1, 4006);
    let refused = ask(&mut http, "GET", "/api/orders", &[], "").await;
    let problem = refused.problem(401, "unauthorized");
    assert!(problem["detail"].as_str().unwrap().contains("certificate has expired"), "{problem}");
    assert!(refused.head.lines().any(|line| line == "connection: close"), "{refused:?}");
    // Nor can its session be resumed on another connection.
    if let Ok(mut resumed) = over(&short, TcpStream::connect(gateway.address).await.unwrap()).await
        && resumed.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    {
        ask(&mut resumed, "GET", "/api/orders", &[], "").await.problem(401, "unauthorized");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_reloaded_and_a_removed_one_disconnects_its_clients() {
    let (Some(one), Some(two)) = (certificates(), certificates()) else { return };
    let realm = Realm::new();
    let gateway = Running::start(guarded(&realm, &one)).await;
    two.issue("bob", &Issued { names: "DNS:bob.example.com", ..VALID }).unwrap();
    let (alice, bob) = (showing(&one, &one, "alice"), showing(&one, &two, "bob"));
    let address = gateway.address;
    let root = showing(&one, &one, "root");
    let reloads = async |operator: &TlsConnector, result: &str| {
        tls_stats(operator, &gateway).await["reloads_by_result"][result].as_u64().unwrap()
    };
    let mut of_alice = Secure::open(&alice, address, "/ws/market/pjm").await;
    of_alice.next_of_type("subscribed").await;
    refusal(&bob, address).await;

    // A file without an authority is reported, and the previous ones stay in effect.
    let authority = fs::read_to_string(one.file("ca.pem")).unwrap();
    fs::write(one.file("ca.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    until("it is told", async || reloads(&root, "failed").await == 1).await;
    assert_eq!(get(&root, address, "/health").await.json()["tls"]["files"], "stale");
    fs::write(one.file("ca.pem"), "").unwrap();
    until("an empty file counts as a failure too", async || reloads(&root, "failed").await == 2).await;
    assert_eq!(get(&alice, address, "/api/orders").await.status, 200);

    // Adding an authority disconnects nobody.
    let both = format!("{authority}{}", fs::read_to_string(two.file("ca.pem")).unwrap());
    fs::write(one.file("ca.pem"), both).unwrap();
    until("both hold", async || reloads(&root, "good").await == 1).await;
    let mut of_bob = Secure::open(&bob, address, "/ws/market/pjm").await;
    of_bob.next_of_type("subscribed").await;
    of_alice.send(&json!({ "type": "ping", "id": 1 })).await;
    of_alice.next_of_type("pong").await;
    let mut http = connect(&alice, address).await;
    assert_eq!(ask(&mut http, "GET", "/api/orders", &[], "").await.status, 200);

    // Removing the first authority disconnects its clients, and asks those of the other to show their
    // certificate again.
    replace(&one, &two.file("ca.pem"));
    assert_eq!(of_alice.until_close().await.1, 4006);
    assert_eq!(of_bob.until_close().await.1, 4006);
    let refused = ask(&mut http, "GET", "/api/orders", &[], "").await;
    refused.problem(401, "unauthorized");
    assert!(refused.head.lines().any(|line| line == "connection: close"), "{refused:?}");
    // Nor can an earlier session be resumed.
    let said = refusal(&alice, address).await;
    assert!(said.contains("alert"), "{said}");
    let mut of_bob = Secure::open(&bob, address, "/ws/market/pjm").await;
    of_bob.next_of_type("subscribed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_uses_the_configured_authorities_and_certificates() {
    let (Some(certificates), Some(others)) = (certificates(), certificates()) else { return };
    let realm = Realm::new();
    let mut config = guarded(&realm, &certificates);
    config.http.tls.client_auth = ClientAuth::Required;
    config.auth.certificates[0].roles.push("viewer".to_owned());
    let gateway = Running::start(config.clone()).await;
    let url = format!("https://{}", gateway.address);
    let file = |name: &str| certificates.file(name).display().to_string();
    let command = |args: &[&str], who: &str| {
        let mut command = zonewire(args);
        command.args(["--url", &url, "--ca-file", &file("ca.pem")]);
        command.args([
            "--cert-file",
            &file(&format!("{who}.pem")),
            "--key-file",
            &file(&format!("{who}.key")),
        ]);
        command
    };
    // The same for https:// and wss://.
    let mut tail = Program::start(&mut command(&["tail", "pjm", "--count", "1"], "feed"));
    until("it follows", async || {
        let end = run(&mut command(&["stats", "--json"], "root")).await.exits(0);
        let stats: Value = serde_json::from_str(&end.stdout).unwrap();
        stats["connections"]["by_zone"]["pjm"] == 1
    })
    .await;
    run(&mut command(&["publish", "pjm", "--key", "A", "--price", "7"], "feed")).await.exits(0);
    assert_eq!(tail.json().await["price"], 7);
    assert_eq!(tail.ended().await.code, Some(0));
    run(&mut command(&["order", "place", "SOL", "USDC", "1.5", "--watch"], "alice")).await.exits(0);
    // And by environment variables.
    let mut health = zonewire(&["health"]);
    health.env("ZONEWIRE_URL", &url).env("ZONEWIRE_CA_FILE", file("ca.pem"));
    health.env("ZONEWIRE_CERT_FILE", file("root.pem")).env("ZONEWIRE_KEY_FILE", file("root.key"));
    run(&mut health).await.exits(0);

    fs::write(certificates.file("text"), "no PEM at all\n").unwrap();
    let (ca, cert, key) = (file("ca.pem"), file("root.pem"), file("root.key"));
    let (nowhere, text, of_another) = (file("nowhere.pem"), file("text"), file("feed.key"));
    let strangers = others.file("ca.pem").display().to_string();
    for (code, args, expected) in [
        (64, &["--ca-file", &nowhere][..], "nowhere.pem cannot be read"),
        (64, &["--ca-file", &text], "holds no certificate"),
        (64, &["--ca-file", &ca, "--cert-file", &cert], "go together"),
        (64, &["--ca-file", &ca, "--key-file", &key], "go together"),
        (64, &["--ca-file", &ca, "--cert-file", &cert, "--key-file", &text], "no private key"),
        (64, &["--ca-file", &ca, "--cert-file", &cert, "--key-file", &of_another], "do not belong together"),
        (1, &["--ca-file", &strangers], "from an authority that is not trusted here"),
        (1, &["--ca-file", &ca], "it requires a client certificate"),
    ] {
        for what in [&["health"][..], &["tail", "pjm"]] {
            let end = run(zonewire(what).args(["--url", &url]).args(args)).await;
            assert_eq!(end.code, Some(code), "{what:?} {args:?}: {end:?}");
            assert!(end.stderr.contains(expected), "{what:?} {args:?}: {end:?}");
        }
    }
    gateway.stop().await;

    certificates.issue("elsewhere", &Issued { names: "DNS:elsewhere.example.com", ..VALID }).unwrap();
    config.http.tls.cert_file = Some(certificates.file("elsewhere.pem"));
    config.http.tls.key_file = Some(certificates.file("elsewhere.key"));
    let gateway = Running::start(config).await;
    let url = format!("https://{}", gateway.address);
    let end = run(zonewire(&["health", "--url", &url, "--ca-file", &ca]).args([
        "--cert-file",
        &cert,
        "--key-file",
        &key,
    ]))
    .await
    .exits(1);
    assert!(end.stderr.contains("its certificate is for another host"), "{end:?}");
}
