//! The program as its users run it: exit codes, and the client commands against a scripted gateway.

use std::process::{Output, Stdio};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use uuid::Uuid;

use crate::support::program::{self, End, run};
use crate::support::redis::nowhere;
use crate::support::scripted::http_gateway;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn zonewire(args: &str) -> Command {
    let mut command = program::zonewire(&args.split_whitespace().collect::<Vec<_>>());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs it with this standard input.
async fn run_with_input(command: &mut Command, input: &str) -> End {
    let mut child: Child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let Output { status, stdout, stderr } =
        tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    End { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

#[tokio::test]
async fn usage_and_configuration_faults_end_with_64_and_help_with_0() {
    for (args, expected) in [
        ("--help", 0),
        ("tail -h", 0),
        ("--version", 0),
        ("config check", 0),
        ("config default", 0),
        ("config show --set storage.redis.password=hunter2", 0),
        ("completions bash", 0),
        ("dance", 64),
        ("tail", 64),
        ("config check --config /nowhere.toml", 64),
        ("serve --listen 0.0.0.0:0", 64),
        ("publish pjm {", 64),
        ("tail a b --since e:1", 64),
    ] {
        let End { code, stdout, stderr } = run(&mut zonewire(args)).await;
        assert_eq!(code, Some(expected), "{args}: {stderr}");
        assert_eq!(stderr.is_empty(), code == Some(0), "{args}: {stderr}");
        assert!(!stdout.contains("hunter2"));
    }
}

#[tokio::test]
async fn all_faults_are_printed_at_once() {
    let mut command = zonewire("config check --listen nowhere");
    command.env("ZONEWIRE_HTTP__SHARD", "2").env("REDIS_DB", "x");
    let End { code, stderr, .. } = run(&mut command).await;
    assert_eq!(code, Some(64));
    for part in ["3 faults", "flag --listen", "did you mean http.shards?", "environment variable REDIS_DB"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[tokio::test]
async fn no_gateway_is_1_and_says_what_to_do() {
    let port = nowhere();
    for command in ["health", "publish pjm --key A --price 1"] {
        let End { code, stderr, .. } =
            run(&mut zonewire(&format!("{command} --url http://127.0.0.1:{port}"))).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("no gateway answers at"), "{stderr}");
    }
}

#[tokio::test]
async fn publish_sends_one_price_or_lines_from_standard_input() {
    let (url, received) = http_gateway("200 OK", r#"{"accepted":2}"#).await;
    let End { code, stdout, stderr } =
        run(&mut zonewire(&format!("publish pjm --key A --price 1.5 --url {url}"))).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "{\"accepted\":2}\n"), "{stderr}");
    let lines = "{\"price\":1}\n{\"price\":2}\n";
    let End { code, stderr, .. } =
        run_with_input(&mut zonewire(&format!("publish pjm - --url {url}")), lines).await;
    assert_eq!(code, Some(0), "{stderr}");
    let received = received.lock().unwrap();
    let path = "/api/zones/pjm/prices";
    let sent = |n: usize| (received[n].path.as_str(), received[n].kind.as_str(), received[n].body.as_str());
    assert_eq!(sent(0), (path, "application/json", r#"{"key":"A","price":1.5}"#));
    assert_eq!(sent(1), (path, "application/x-ndjson", lines));
}

#[tokio::test]
async fn a_refusal_says_why() {
    let problem = r#"{"type":"x","title":"Bad","status":400,"code":"reserved_field","detail":"`id` is reserved","line":2,"accepted":1}"#;
    let (url, _) = http_gateway("400 Bad Request", problem).await;
    let End { code, stderr, .. } =
        run(&mut zonewire(&format!("publish pjm --key A --price 1 --url {url}"))).await;
    assert_eq!(code, Some(1));
    let told = "400 Bad Request: `id` is reserved (reserved_field), at line 2 of what was sent; 1 accepted";
    assert!(stderr.contains(told), "{stderr}");
}

#[tokio::test]
async fn replay_sends_each_zone_its_lines_in_order() {
    let (url, received) = http_gateway("200 OK", r#"{"accepted":2}"#).await;
    let csv = "zone,key,price,time\na,x,1,2021-01-01\nb,y,2,2021-01-02\na,z,3,2021-01-03\n";
    let End { code, stdout, stderr } =
        run_with_input(&mut zonewire(&format!("replay - --flat-out --url {url}")), csv).await;
    // Each request is answered with 2, however many prices it had.
    assert!(code == Some(0) && stderr.is_empty() && stdout.starts_with("a: "), "{stdout} {stderr}");
    let received = received.lock().unwrap().clone();
    let sent = |path: &str| -> String {
        let of_zone = received.iter().filter(|request| request.path == path);
        of_zone.map(|request| request.body.as_str()).collect()
    };
    let line = |key: &str, price: u8, day: u8| {
        format!("{{\"key\":\"{key}\",\"price\":{price},\"timestamp\":\"2021-01-0{day}T00:00:00.000Z\"}}\n")
    };
    assert_eq!(sent("/api/zones/a/prices"), line("x", 1, 1) + &line("z", 3, 3));
    assert_eq!(sent("/api/zones/b/prices"), line("y", 2, 2));
}

#[tokio::test]
async fn replay_names_the_bad_line_and_still_reports() {
    let (url, _) = http_gateway("200 OK", r#"{"accepted":1}"#).await;
    let csv = "zone,key,price\na,k,1\na,k,much\n";
    let End { code, stdout, stderr } =
        run_with_input(&mut zonewire(&format!("replay - --url {url}")), csv).await;
    assert_eq!((code, stdout.as_str()), (Some(1), "a: 1 accepted\n"));
    assert!(stderr.contains("line 3: price \"much\" is not a number"), "{stderr}");
}

#[tokio::test]
async fn health_is_strict_when_asked() {
    let (url, received) = http_gateway("200 OK", r#"{"status":"degraded"}"#).await;
    assert_eq!(run(&mut zonewire(&format!("health --url {url}"))).await.code, Some(0));
    assert_eq!(run(&mut zonewire(&format!("health --strict --url {url}"))).await.code, Some(1));
    let paths: Vec<String> = received.lock().unwrap().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths, ["/health/ready", "/health"]);
}

/// The next connection to a scripted WebSocket gateway, and its subscription.
async fn next_socket(listener: &TcpListener) -> (WebSocketStream<TcpStream>, Value) {
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    say(&mut socket, json!({
        "type": "connection_established", "connection_id": Uuid::nil(), "storage_backend": "in-memory",
        "state": "healthy", "heartbeat_interval_ms": 30_000, "protocol": 1, "timestamp": NOW, "message": "Connected",
    })).await;
    let subscribe = socket.next().await.unwrap().unwrap().into_text().unwrap();
    (socket, serde_json::from_str(&subscribe).unwrap())
}

const NOW: &str = "2026-11-21T03:40:47.024Z";

async fn say(socket: &mut WebSocketStream<TcpStream>, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

async fn entries(socket: &mut WebSocketStream<TcpStream>, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        let id = format!("n-{offset}");
        say(socket, json!({"type": "price_update", "channel": "zone:pjm", "offset": offset, "id": id})).await;
    }
}

#[tokio::test]
async fn tail_resumes_after_a_lost_connection_and_prints_nothing_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let child = zonewire(&format!("tail pjm --count 5 --url {url}")).spawn().unwrap();

    let (mut socket, subscribe) = next_socket(&listener).await;
    assert_eq!(subscribe["channels"], json!(["zone:pjm"]));
    assert_eq!(subscribe["since"], Value::Null);
    let subscribed = |recovered: bool| json!({"type": "subscribed", "channel": "zone:pjm", "epoch": "e1", "offset": 7, "recovered": recovered, "timestamp": NOW});
    say(&mut socket, subscribed(true)).await;
    entries(&mut socket, 8..=10).await;
    let frame = CloseFrame { code: 4000.into(), reason: "shutting_down".into() };
    socket.close(Some(frame)).await.unwrap();

    let (mut socket, subscribe) = next_socket(&listener).await;
    assert_eq!(subscribe["since"], json!({"zone:pjm": {"epoch": "e1", "offset": 10}}));
    say(&mut socket, subscribed(false)).await;
    entries(&mut socket, 8..=12).await;

    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let offsets: Vec<u64> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [8, 9, 10, 11, 12]);
    assert!(stderr.contains("closed with 4000 shutting_down; trying again in"), "{stderr}");
    assert!(stderr.contains("(attempt 1)") && stderr.contains("zone:pjm from e1:7 on\n"), "{stderr}");
}

#[tokio::test]
async fn tail_does_not_come_back_after_a_final_code() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let child = zonewire(&format!("tail pjm --url {url}")).spawn().unwrap();
    let (mut socket, _) = next_socket(&listener).await;
    socket.close(Some(CloseFrame { code: 4500.into(), reason: "disconnected".into() })).await.unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("closed with 4500 disconnected"));
}
