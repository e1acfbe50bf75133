//! The program as its users run it: exit codes, and the client commands against a scripted gateway.

use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::support::redis::free_port;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn zonewire(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zonewire"));
    command.args(args.split_whitespace()).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A child process that gets this standard input.
async fn run_with_input(command: &mut Command, input: &str) -> (i32, String, String) {
    let mut child: Child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let Output { status, stdout, stderr } =
        tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
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
        let (code, stdout, stderr) = run(&mut zonewire(args)).await;
        assert_eq!(code, expected, "{args}: {stderr}");
        assert_eq!(stderr.is_empty(), code == 0, "{args}: {stderr}");
        assert!(!stdout.contains("hunter2"));
    }
}

#[tokio::test]
async fn all_faults_are_printed_at_once() {
    let mut command = zonewire("config check --listen nowhere");
    command.env("ZONEWIRE_HTTP__SHARD", "2").env("REDIS_DB", "x");
    let (code, _, stderr) = run(&mut command).await;
    assert_eq!(code, 64);
    for part in ["3 faults", "flag --listen", "did you mean http.shards?", "environment variable REDIS_DB"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[tokio::test]
async fn no_gateway_is_1_and_says_what_to_do() {
    // A port that was free a moment ago.
    let port = free_port();
    for command in ["health", "publish pjm --key A --price 1"] {
        let (code, _, stderr) = run(&mut zonewire(&format!("{command} --url http://127.0.0.1:{port}"))).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("no gateway answers at"), "{stderr}");
    }
}

/// The requests that a scripted gateway received: path, content type, body.
type Received = Arc<Mutex<Vec<(String, String, String)>>>;

/// Answers every request with `status` and `body`, after reading it completely.
async fn http_gateway(status: &'static str, body: &'static str) -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received = Received::default();
    let log = Arc::clone(&received);
    TaskTracker::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            TaskTracker::new().spawn(async move {
                let request = read_request(stream, status, body).await;
                log.lock().unwrap().push(request);
            });
        }
    });
    (url, received)
}

pub(crate) async fn read_request(stream: TcpStream, status: &str, answer: &str) -> (String, String, String) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let prefix = format!("{name}: ");
        let found =
            lines.iter().find_map(|line| line.to_lowercase().strip_prefix(&prefix).map(str::to_owned));
        found.unwrap_or_default()
    };
    let mut body = Vec::new();
    if header("transfer-encoding") == "chunked" {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await.unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body = vec![0; header("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut body).await.unwrap();
    }
    let reply =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len());
    stream.write_all(reply.as_bytes()).await.unwrap();
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    (path, header("content-type"), String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn publish_sends_one_price_or_lines_from_standard_input() {
    let (url, received) = http_gateway("200 OK", r#"{"accepted":2}"#).await;
    let (code, stdout, stderr) =
        run(&mut zonewire(&format!("publish pjm --key A --price 1.5 --url {url}"))).await;
    assert_eq!((code, stdout.as_str()), (0, "{\"accepted\":2}\n"), "{stderr}");
    let lines = "{\"price\":1}\n{\"price\":2}\n";
    let (code, _, stderr) = run_with_input(&mut zonewire(&format!("publish pjm - --url {url}")), lines).await;
    assert_eq!(code, 0, "{stderr}");
    let received = received.lock().unwrap();
    let path = "/api/zones/pjm/prices".to_owned();
    assert_eq!(
        received[0],
        (path.clone(), "application/json".to_owned(), r#"{"key":"A","price":1.5}"#.to_owned())
    );
    assert_eq!(received[1], (path, "application/x-ndjson".to_owned(), lines.to_owned()));
}

#[tokio::test]
async fn a_refusal_says_why() {
    let problem = r#"{"type":"x","title":"Bad","status":400,"code":"reserved_field","detail":"`id` is reserved","line":2,"accepted":1}"#;
    let (url, _) = http_gateway("400 Bad Request", problem).await;
    let (code, _, stderr) = run(&mut zonewire(&format!("publish pjm --key A --price 1 --url {url}"))).await;
    assert_eq!(code, 1);
    assert!(
        stderr.contains(
            "400 Bad Request: `id` is reserved (reserved_field), at line 2 of what was sent; 1 accepted"
        ),
        "{stderr}"
    );
}

#[tokio::test]
async fn replay_sends_each_zone_its_lines_in_order() {
    let (url, received) = http_gateway("200 OK", r#"{"accepted":2}"#).await;
    let csv = "zone,key,price,time\na,x,1,2021-01-01\nb,y,2,2021-01-02\na,z,3,2021-01-03\n";
    let (code, stdout, stderr) =
        run_with_input(&mut zonewire(&format!("replay - --flat-out --url {url}")), csv).await;
    // Each request is answered with 2, however many prices it had.
    assert!(code == 0 && stderr.is_empty() && stdout.starts_with("a: "), "{stdout} {stderr}");
    let received = received.lock().unwrap().clone();
    let sent = |path: &str| -> String {
        let of_zone = received.iter().filter(|request| request.0 == path);
        of_zone.map(|request| request.2.as_str()).collect()
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
    let (code, stdout, stderr) = run_with_input(&mut zonewire(&format!("replay - --url {url}")), csv).await;
    assert_eq!((code, stdout.as_str()), (1, "a: 1 accepted\n"));
    assert!(stderr.contains("line 3: price \"much\" is not a number"), "{stderr}");
}

#[tokio::test]
async fn health_is_strict_when_asked() {
    let (url, received) = http_gateway("200 OK", r#"{"status":"degraded"}"#).await;
    assert_eq!(run(&mut zonewire(&format!("health --url {url}"))).await.0, 0);
    assert_eq!(run(&mut zonewire(&format!("health --strict --url {url}"))).await.0, 1);
    let paths: Vec<String> = received.lock().unwrap().iter().map(|request| request.0.clone()).collect();
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
