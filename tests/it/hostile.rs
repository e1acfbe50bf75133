//! Attacks cost no more than the limits allow. The attacks are those of `zonewire_kit::hostile`; these tests
//! check what must hold meanwhile: that another client receives everything in order, how much memory is used,
//! what hostile names become in Redis, and what the log contains.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::time;
use zonewire::storage::StorageChoice;
use zonewire_kit::hostile::{ATTACKS, Attack, NAMES, SETTINGS, Target};
use zonewire_kit::process::Signal;

use crate::support::client::LIMIT;
use crate::support::eventually::until;
use crate::support::gateway::{Running, price, publish, request};
use crate::support::orders::external;
use crate::support::process::{Process, serve};
use crate::support::program::listening;
use crate::support::redis::{Admin, Configured, redis};
use crate::support::witness::Witness;

/// How many connections are opened, or messages sent, by attacks that repeat an action.
const MANY: usize = 100;

/// How much the process may grow, whatever is sent: bodies of a few MiB, the buffers of some hundred
/// connections, and what the system's allocator retains of them.
const GROWTH_MAX: u64 = 96 << 20;

/// The levels of log lines.
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

async fn metrics(address: SocketAddr) -> String {
    request(address, "GET", "/metrics", &[], b"").await.body
}

/// The sum over all samples of a metric.
fn sum(metrics: &str, name: &str) -> u64 {
    let of_it = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let values =
        of_it.filter(|rest| rest.starts_with([' ', '{'])).map(|rest| rest.rsplit(' ').next().unwrap());
    let values: Vec<u64> = values.map(|value| value.parse().unwrap()).collect();
    assert!(!values.is_empty(), "{name} is not in {metrics}");
    values.into_iter().sum()
}

fn attack(name: &str) -> &'static Attack {
    ATTACKS.iter().find(|attack| attack.name == name).unwrap_or_else(|| panic!("no attack {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_costs_another_client_a_price_or_exceeds_the_memory_bound() {
    let settings = [&["storage.backend=memory", "http.drain_s=0"][..], &SETTINGS].concat();
    let mut process = Process::start(&settings).await;
    let address = process.address;
    let target = Target { address, many: MANY };
    // For attacks that resume subscriptions.
    publish(address, "pjm", (1..=50).map(|n| price("A", n))).await;
    let witness = Witness::start(address).await;
    let before = sum(&metrics(address).await, "process_resident_memory_bytes");
    let mut wrong = Vec::new();
    for attack in ATTACKS {
        match attack.round(&target).await {
            Ok(cases) => assert!(cases > 0, "{attack:?}"),
            Err(error) => wrong.push(format!("{error:#}")),
        }
        let health = request(address, "GET", "/health", &[], b"").await;
        assert_eq!(health.status, 200, "{attack:?}: {health:?}");
        assert_eq!(health.json()["state"], "healthy", "{attack:?}");
        let metrics = metrics(address).await;
        assert_eq!(sum(&metrics, "zonewire_panics_total"), 0, "{attack:?}");
        let grown = sum(&metrics, "process_resident_memory_bytes").saturating_sub(before);
        assert!(grown <= GROWTH_MAX, "{attack:?}: the process takes {grown} bytes more");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The attackers' resources are released.
    for (name, left) in
        [("zonewire_connections", 1), ("zonewire_body_bytes", 0), ("zonewire_answer_bytes", 0)]
    {
        until(name, async || sum(&metrics(address).await, name) == left).await;
    }
    assert!(witness.finish().await > 1);
    assert!(process.terminate().await.success());
}

/// The words of a command in the output of `MONITOR`: quoted, with escapes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut chars) = (Vec::new(), line.chars());
    while chars.any(|c| c == '"') {
        let mut word = String::new();
        while let Some(c) = chars.next().filter(|c| *c != '"') {
            word.push(c);
            // An escape has at least two characters, of which the second may be a quote.
            word.extend((c == '\\').then(|| chars.next()).flatten());
        }
        words.push(word);
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn in_redis_no_name_becomes_a_pattern_or_code_or_a_key_outside_the_prefix() {
    let Some(server) = redis(&[]).await else { return };
    let mut config = external();
    config.storage.backend = StorageChoice::Redis;
    config.storage.redis = server.config();
    config.storage.redis.prefix = "walled".to_owned();
    let gateway = Running::start(config).await;
    server.admin(&["SET", "canary", "sings"]).await;
    let mut monitor = server.target.open().await.unwrap();
    monitor.send(&["MONITOR"]).await.unwrap();
    let target = Target { address: gateway.address, many: MANY };
    attack("names").round(&target).await.unwrap_or_else(|error| panic!("{error:#}"));
    gateway.stop().await;
    server.admin(&["ECHO", "that was all"]).await;

    let (mut scripts, mut named) = (0, 0);
    loop {
        let line = time::timeout(LIMIT, monitor.next()).await.expect("it tells all").unwrap().text();
        let words = words(&line);
        let Some((command, arguments)) = words.split_first() else { continue };
        if arguments == ["that was all"] {
            break;
        }
        let is_named = |word: &String| word.contains("hostile") || NAMES.contains(&word.as_str());
        named += usize::from(arguments.iter().any(is_named));
        let keys = match command.to_ascii_lowercase().as_str() {
            "keys" | "psubscribe" | "flushall" | "flushdb" | "select" => panic!("{line}"),
            "script" | "scan" | "config" => {
                assert!(!arguments.iter().any(is_named), "{line}");
                continue;
            }
            "eval" | "evalsha" => {
                assert!(!is_named(&arguments[0]), "{line}");
                scripts += 1;
                let count: usize = arguments[1].parse().unwrap();
                &arguments[2..2 + count]
            }
            // In any other command, a first argument with a hostile name is a key or a channel.
            _ => &arguments[..arguments.len().min(1)],
        };
        let is_walled = |key: &String| key.starts_with("walled:") || !is_named(key);
        assert!(keys.iter().all(is_walled), "{line}");
    }
    assert!(scripts > 100 && named > 50, "names came to Redis: {scripts} {named}");
    let keys = server.list(&["KEYS", "*"]).await;
    assert!(keys.iter().all(|key| key == "canary" || key.starts_with("walled:")), "{keys:?}");
    assert_eq!(server.admin(&["GET", "canary"]).await, "sings");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_the_log_is_an_event_whatever_clients_send() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let settings = ["storage.backend=memory", "http.drain_s=0", "log.format=text", "log.level=trace"];
    let settings = settings.iter().chain(&SETTINGS).map(|setting| format!("--set={setting}"));
    let settings: Vec<String> = settings.collect();
    let (address, mut process) = listening(|address| {
        let mut command = serve(&[&[format!("--listen={address}")][..], &settings].concat());
        command.stdout(Stdio::null()).stderr(File::create(&path).unwrap());
        command
    })
    .await;
    let target = Target { address, many: 10 };
    for name in ["names", "foreign pages", "smuggling", "wrong frames", "large heads", "auth"] {
        attack(name).round(&target).await.unwrap_or_else(|error| panic!("{error:#}"));
    }
    // An address that is also invalid in another way.
    let wrong = request(address, "GET", "/ws/stats?zone=*&access_token=zwk_hostile", &[], b"").await;
    wrong.problem(400, "invalid_query");
    process.signal(Signal::TERM).unwrap();
    process.ended(Duration::from_secs(40)).await.unwrap();

    let log = String::from_utf8(std::fs::read(&path).unwrap()).expect("the log is UTF-8");
    for line in log.lines() {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
        let mut words = line.split_whitespace();
        let begins = words.next().is_some_and(|time| time.parse::<chrono::DateTime<chrono::Utc>>().is_ok());
        let has_level = words.next().is_some_and(|level| LEVELS.contains(&level));
        assert!(begins && has_level, "a line that is no event: {line:?}");
    }
    assert!(!log.contains("zwk_"), "a token is in the log");
    assert!(log.lines().count() > 100 && log.contains("hostile"), "what clients send is told");
}
