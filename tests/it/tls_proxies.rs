//! The configurations of `docs/examples/proxies` for proxies in TCP mode, run unchanged except for ports and
//! files.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use zonewire::config::{Config, Sources};
use zonewire_kit::certificates::{Certificates, Issued};
use zonewire_kit::process::Process;
use zonewire_kit::skip;

use crate::support::client::LIMIT;
use crate::support::eventually::until;
use crate::support::gateway::{LINES, Running, config, price};
use crate::support::program::{self, installed, listening, run, zonewire};
use crate::support::redis::certificates;
use crate::support::tls::{Secure, ask, connect, over, showing, trusting};

/// Set in continuous integration, so that a missing module fails instead of skipping: nginx's stream module is
/// a separate package.
const REQUIRE_STREAM: &str = "ZONEWIRE_TEST_REQUIRE_NGINX_STREAM";
/// A folder with nginx's modules, if not the usual one.
const MODULES: &str = "ZONEWIRE_TEST_NGINX_MODULES";

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/proxies").join(file)
}

/// The gateway of the example, with our certificates, on free ports.
async fn gateway(certificates: &Certificates, dir: &Path) -> Running {
    let mut text = fs::read_to_string(example("gateway-tls.toml")).unwrap();
    for (from, to) in [
        ("/etc/zonewire/tls/tls.crt", certificates.file("server.pem").display().to_string()),
        ("/etc/zonewire/tls/tls.key", certificates.file("server.key").display().to_string()),
        ("/etc/zonewire/tls/clients.crt", certificates.file("ca.pem").display().to_string()),
        ("127.0.0.1:8443", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:8090", "127.0.0.1:0".to_owned()),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, &to);
    }
    let file = dir.join("gateway.toml");
    fs::write(&file, text).unwrap();
    let sources = Sources { file: Some(file), ..Sources::default() };
    let mut loaded = Config::load(&sources).unwrap_or_else(|error| panic!("{error}")).config;
    let usual = config();
    (loaded.storage, loaded.connections, loaded.http.shards) =
        (usual.storage, usual.connections, usual.http.shards);
    (loaded.http.drain_s, loaded.http.drain_lead_s) = (0, 0);
    for (name, subject, names) in [
        ("feed", "/CN=feed", "URI:spiffe://example.com/feed"),
        ("desk", "/CN=desk", "DNS:desk-1.example.com"),
        ("ops", "/CN=ops", "email:ops@example.com"),
    ] {
        certificates.issue(name, &Issued { subject, names, from_s: -60, until_s: 3_600 }).unwrap();
    }
    Running::start(loaded).await
}

/// Starts a proxy with its example, and waits until it reaches this gateway.
async fn start(program: &str, written: &str, dir: &Path) -> (SocketAddr, Process) {
    listening(|address| {
        let written = written.replace("bind :443\n", &format!("bind {address}\n"));
        let written = written.replace("listen 443;", &format!("listen {address};"));
        assert!(written.contains(&address.to_string()), "{written}");
        fs::write(dir.join("proxy.conf"), written).unwrap();
        program::proxy(program, "proxy.conf", dir)
    })
    .await
}

/// A connection through the proxy, from a local address that is not listed as a proxy.
async fn from_afar(proxy: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 77], 0))).unwrap();
    tokio::time::timeout(LIMIT, socket.connect(proxy)).await.expect("in time").unwrap()
}

async fn check(certificates: &Certificates, gateway: Running, proxy: SocketAddr) {
    let [feed, desk, ops] = ["feed", "desk", "ops"].map(|name| showing(certificates, certificates, name));
    let mut reader = Secure::over(&desk, from_afar(proxy).await, "/ws/market/pjm").await;
    let greeting = reader.next_of_type("connection_established").await;
    assert_eq!(greeting["subject"], "desk-1.example.com", "{greeting}");
    reader.next_of_type("subscribed").await;
    let mut publisher = over(&feed, from_afar(proxy).await).await.unwrap();
    let (kind, line) = ([("content-type", LINES)], price("A", 7).to_string());
    let posted = ask(&mut publisher, "POST", "/api/zones/pjm/prices", &kind, &line).await;
    assert_eq!(posted.status, 200, "{posted:?}");
    assert_eq!(reader.next_of_type("price_update").await["price"], 7);

    // The client that the proxy announced, and the subject that the certificate names.
    let mut operator = connect(&ops, gateway.operators.unwrap()).await;
    let stats = ask(&mut operator, "GET", "/ws/stats", &[], "").await.json();
    let listed = &stats["connection_list"][0];
    assert_eq!(listed["subject"], "desk-1.example.com", "{listed}");
    let path = format!("/ws/stats/{}", listed["connection_id"].as_str().unwrap());
    let story = ask(&mut operator, "GET", &path, &[], "").await.json();
    assert_eq!(story["source"], "127.0.0.77", "{story}");
    let stranger = over(&trusting(&[certificates]), from_afar(proxy).await).await;
    if let Ok(mut stranger) = stranger {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let _gone = stranger.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(stranger.read(&mut [0; 16]).await.is_err(), "no certificate, no answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_example_is_a_configuration() {
    run(zonewire(&["config", "check", "--config"]).arg(example("gateway-tls.toml"))).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_work_through_haproxy_in_tcp_mode() {
    let Some(()) = installed("haproxy").await else { return };
    let Some(certificates) = certificates() else { return };
    let dir = TempDir::new().unwrap();
    let gateway = gateway(&certificates, dir.path()).await;
    let operators = gateway.operators.unwrap();
    let text = fs::read_to_string(example("haproxy-tcp.cfg")).unwrap();
    assert!(text.contains("127.0.0.1:8443 send-proxy-v2") && text.contains("port 8090"));
    let text = text.replace("127.0.0.1:8443", &gateway.address.to_string());
    let text = text.replace("port 8090", &format!("port {}", operators.port()));
    let (proxy, _process) = start("haproxy", &text, dir.path()).await;
    // Its health checks succeed, or it would forward nobody by now: two failures are enough.
    let nobody = trusting(&[&certificates]);
    let accepted = async || {
        let metrics = ask(&mut connect(&nobody, operators).await, "GET", "/metrics", &[], "").await.body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("zonewire_tcp_accepted_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let (begin, mut asked) = (accepted().await, 0);
    until("it has checked often enough", async || {
        asked += 1;
        accepted().await >= begin + asked + 4
    })
    .await;
    check(&certificates, gateway, proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_work_through_nginx_in_tcp_mode() {
    let Some(()) = installed("nginx").await else { return };
    let modules =
        std::env::var_os(MODULES).map_or_else(|| PathBuf::from("/usr/lib/nginx/modules"), PathBuf::from);
    let module = modules.join("ngx_stream_module.so");
    if !module.exists() {
        let why = format!("there is no {}; {MODULES} names another folder", module.display());
        let skipped: Option<()> = skip(REQUIRE_STREAM, &why);
        return skipped.unwrap_or_default();
    }
    let Some(certificates) = certificates() else { return };
    let dir = TempDir::new().unwrap();
    let gateway = gateway(&certificates, dir.path()).await;
    let text = fs::read_to_string(example("nginx-stream.conf")).unwrap();
    assert!(text.contains("127.0.0.1:8443") && text.contains("modules/ngx_stream_module.so"));
    let text = text.replace("127.0.0.1:8443", &gateway.address.to_string());
    let text = text.replace("modules/ngx_stream_module.so", &module.display().to_string());
    let (proxy, _process) = start("nginx", &text, dir.path()).await;
    check(&certificates, gateway, proxy).await;
}
