//! Which backend serves after startup, and the reason that is reported.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use zonewire::model::{BackendName, BackendState, Lane, NodeId};
use zonewire::storage::{Opened, RedisConfig, StartError, StorageChoice, StorageConfig, StorageStatus, open};

use crate::support::eventually::{eventually, until};
use crate::support::redis::{Admin, Configured, nowhere, redis};
use crate::support::stores::{Producer, SECOND};

const HEALTHY_IN_MEMORY: (BackendName, BackendState) = (BackendName::InMemory, BackendState::Healthy);
const DEGRADED: (BackendName, BackendState) = (BackendName::InMemory, BackendState::Degraded);
const REDIS: (BackendName, BackendState) = (BackendName::Redis, BackendState::Healthy);

fn at(port: u16) -> RedisConfig {
    RedisConfig { host: Some("127.0.0.1".into()), port: Some(port), ..RedisConfig::default() }
}

fn with_url(url: impl Into<String>) -> RedisConfig {
    RedisConfig { url: Some(url.into()), ..RedisConfig::default() }
}

async fn opened(backend: StorageChoice, redis: RedisConfig) -> Opened {
    let config = StorageConfig { backend, redis, ..StorageConfig::default() };
    let begun = Instant::now();
    let opened = open(&config, NodeId::random(), Arc::new(|_| Lane::Latest)).await.unwrap();
    // The promise is one second; the rest is for a busy machine.
    assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(opened.backend.name(), opened.status_reader.get().backend);
    opened
}

async fn status(backend: StorageChoice, redis: RedisConfig) -> StorageStatus {
    opened(backend, redis).await.status_reader.get()
}

/// Opens with this Redis, whose failure must be reported with `code`, and checks that memory serves,
/// degraded.
async fn check_degraded(redis: RedisConfig, code: &str) -> String {
    for choice in [StorageChoice::Auto, StorageChoice::Redis] {
        let status = status(choice, redis.clone()).await;
        assert_eq!((status.backend, status.state), DEGRADED, "{status:?}");
        assert_eq!(status.reason_code, code, "{status:?}");
    }
    let config =
        StorageConfig { backend: StorageChoice::Redis, required: true, redis, ..StorageConfig::default() };
    let StartError::RedisRequired { code: told, reason } =
        open(&config, NodeId::random(), Arc::new(|_| Lane::Latest)).await.unwrap_err()
    else {
        panic!("another error")
    };
    assert_eq!(told, code, "{reason}");
    reason
}

#[tokio::test]
async fn memory_is_never_probed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let status = status(StorageChoice::Memory, at(listener.local_addr().unwrap().port())).await;
    assert_eq!((status.backend, status.state), HEALTHY_IN_MEMORY);
    assert_eq!(status.reason_code, "configured");
    assert!(listener.accept().is_err(), "nobody connected");
}

#[tokio::test]
async fn a_redis_that_answers_serves() {
    let Some(server) = redis(&["--requirepass", "a b@/:%"]).await else { return };
    for redis in
        [server.config(), with_url(format!("redis://:a%20b%40%2F%3A%25@127.0.0.1:{}/2", server.port))]
    {
        let opened = opened(StorageChoice::Auto, redis).await;
        let status = opened.status_reader.get();
        assert_eq!((status.backend, status.state), REDIS, "{status:?}");
        assert_eq!(status.reason_code, "ok");
        let debug = format!("{opened:?}");
        assert!(!debug.contains("a b@"), "{debug}");
        let producer = Producer::new(&opened.backend).await;
        producer.fill(1..=3).await;
        assert_eq!(producer.read(0, 10).await.top, 3);
    }
}

#[tokio::test]
async fn a_user_with_the_necessary_rights_is_sufficient() {
    let Some(server) = redis(&[]).await else { return };
    let rules = [
        "ACL",
        "SETUSER",
        "gate",
        "on",
        ">word",
        "~zw:*",
        "&zw:*",
        "+@all",
        "-@admin",
        "-@dangerous",
        "-select",
    ];
    assert_eq!(server.admin(&rules).await, "OK");
    let status =
        status(StorageChoice::Redis, with_url(format!("redis://gate:word@127.0.0.1:{}", server.port))).await;
    assert_eq!((status.backend, status.state), REDIS, "{status:?}");
}

#[tokio::test]
async fn nothing_configured_and_nothing_there_is_healthy() {
    let redis = RedisConfig { port: Some(nowhere()), ..RedisConfig::default() };
    let status = status(StorageChoice::Auto, redis).await;
    assert_eq!((status.backend, status.state), HEALTHY_IN_MEMORY);
    assert_eq!((status.reason_code, status.reason.as_str()), ("not_configured", "no Redis is configured"));
}

#[tokio::test]
async fn nothing_configured_and_a_redis_found_is_used() {
    let Some(server) = redis(&[]).await else { return };
    let redis = RedisConfig { port: Some(server.port), ..RedisConfig::default() };
    let status = status(StorageChoice::Auto, redis).await;
    assert_eq!((status.backend, status.state), REDIS);
}

#[tokio::test]
async fn nothing_configured_and_a_redis_that_refuses_is_healthy_and_says_what_was_found() {
    let Some(server) = redis(&["--requirepass", "word"]).await else { return };
    let redis = RedisConfig { port: Some(server.port), ..RedisConfig::default() };
    let status = status(StorageChoice::Auto, redis).await;
    assert_eq!((status.backend, status.state), HEALTHY_IN_MEMORY);
    assert_eq!(status.reason_code, "not_configured");
    assert!(status.reason.contains("password"), "{}", status.reason);
}

#[tokio::test]
async fn nothing_listening_is_unreachable() {
    let port = nowhere();
    let reason = check_degraded(at(port), "unreachable").await;
    assert!(reason.contains(&format!("127.0.0.1:{port}")) && reason.contains("refused"), "{reason}");
    check_degraded(with_url("redis://no-such-host.invalid"), "unreachable").await;
}

#[tokio::test]
async fn a_listener_that_never_answers_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    check_degraded(at(listener.local_addr().unwrap().port()), "no_answer").await;
}

#[tokio::test]
async fn a_server_that_hangs_is_no_answer() {
    let Some(server) = redis(&[]).await else { return };
    server.freeze().unwrap();
    check_degraded(server.config(), "no_answer").await;
    server.thaw().unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_never_printed() {
    let Some(server) = redis(&["--requirepass", "word"]).await else { return };
    let port = server.port;
    for redis in [
        RedisConfig { password: Some("hunter2".into()), ..at(port) },
        with_url(format!("redis://:hunter2@127.0.0.1:{port}")),
        with_url(format!("redis://someone:hunter2@127.0.0.1:{port}")),
    ] {
        assert!(!format!("{redis:?}").contains("hunter2"));
        let reason = check_degraded(redis, "wrong_password").await;
        assert!(!reason.contains("hunter2"), "{reason}");
    }
}

#[tokio::test]
async fn a_missing_password_is_reported() {
    let Some(server) = redis(&["--requirepass", "word"]).await else { return };
    check_degraded(at(server.port), "password_required").await;
}

#[tokio::test]
async fn a_replica_is_read_only() {
    let Some(primary) = redis(&[]).await else { return };
    let of = format!("127.0.0.1 {}", primary.port);
    let Some(replica) = redis(&["--replicaof", &of]).await else { return };
    until("the replica is in step", async || {
        replica.admin(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    check_degraded(replica.config(), "read_only").await;
}

#[tokio::test]
async fn a_user_who_may_not_write_is_reported() {
    let Some(server) = redis(&[]).await else { return };
    let needs = ["-xadd", "-publish", "-set", "-eval", "resetchannels", "resetkeys"];
    for (n, missing) in needs.iter().enumerate() {
        let user = format!("gate{n}");
        let rules = ["ACL", "SETUSER", &user, "on", ">word", "~*", "&*", "+@all", missing];
        assert_eq!(server.admin(&rules).await, "OK");
        let redis = RedisConfig { username: Some(user), password: Some("word".into()), ..server.config() };
        check_degraded(redis, "no_permission").await;
    }
}

#[tokio::test]
async fn a_full_server_is_out_of_memory() {
    let Some(server) = redis(&["--maxmemory", "100kb", "--maxmemory-policy", "noeviction"]).await else {
        return;
    };
    check_degraded(server.config(), "out_of_memory").await;
}

#[tokio::test]
async fn a_server_without_tls_cannot_be_reached_by_tls() {
    let Some(server) = redis(&[]).await else { return };
    let status = status(StorageChoice::Auto, with_url(format!("rediss://127.0.0.1:{}", server.port))).await;
    assert_eq!((status.backend, status.state), DEGRADED, "{status:?}");
}

#[tokio::test]
async fn a_server_other_than_redis_is_reported() {
    let mut fakes = JoinSet::new();
    let port = fake(&mut fakes, |_| b"-ERR what do you want\r\n".to_vec());
    check_degraded(at(port), "unexpected").await;
}

#[tokio::test]
async fn a_wrong_configuration_is_reported_with_what_would_be_right() {
    for url in ["hunter2", "http://:hunter2@h", "redis-sentinel://:hunter2@h", "redis://:hunter2@h/x"] {
        let reason = check_degraded(with_url(url), "invalid_config").await;
        assert!(reason.contains("redis://") && !reason.contains("hunter2"), "{reason}");
    }
}

#[tokio::test]
async fn a_required_server_is_waited_for_while_it_loads() {
    let mut fakes = JoinSet::new();
    let port = fake(&mut fakes, |_| b"-LOADING Redis is loading the dataset in memory\r\n".to_vec());
    let status = status(StorageChoice::Auto, at(port)).await;
    assert_eq!((status.backend, status.state, status.reason_code), (DEGRADED.0, DEGRADED.1, "loading"));

    let required = |redis| StorageConfig {
        backend: StorageChoice::Redis,
        required: true,
        redis,
        ..StorageConfig::default()
    };
    let begun = Instant::now();
    let impatient = RedisConfig { loading_patience_ms: 600, ..at(port) };
    let error = open(&required(impatient), NodeId::random(), Arc::new(|_| Lane::Latest)).await.unwrap_err();
    assert!(error.to_string().contains("loading"), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "it was waited for");

    // A server that finishes loading: the fake ends, and the real one takes its port.
    let Some(server) = redis(&[]).await else { return };
    let real = server.port;
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = proxy.local_addr().unwrap().port();
    proxy.set_nonblocking(true).unwrap();
    let proxy = tokio::net::TcpListener::from_std(proxy).unwrap();
    fakes.spawn(async move {
        let begun = Instant::now();
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = proxy.accept().await.unwrap();
            let loading = begun.elapsed() < SECOND;
            connections.spawn(async move {
                if loading {
                    answer_all(&mut client, |_| {
                        b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()
                    })
                    .await;
                } else {
                    let mut server = tokio::net::TcpStream::connect(("127.0.0.1", real)).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    let opened = open(&required(at(port)), NodeId::random(), Arc::new(|_| Lane::Latest)).await.unwrap();
    assert_eq!(opened.status_reader.get().backend, BackendName::Redis);
}

#[tokio::test]
async fn the_status_shows_an_outage_and_its_end() {
    let Some(server) = redis(&[]).await else { return };
    let Opened { backend, mut status_reader, driver, .. } =
        opened(StorageChoice::Auto, server.config()).await;
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    let first = status_reader.get();
    server.freeze().unwrap();
    let changed = time::timeout(10 * SECOND, status_reader.changed()).await;
    assert!(changed.expect("an outage is told"));
    let during = status_reader.get();
    assert_eq!((during.backend, during.state), (BackendName::InMemory, BackendState::Degraded));
    assert!(["no_answer", "unreachable"].contains(&during.reason_code), "{during:?}");
    assert!(during.since > first.since);
    server.thaw().unwrap();
    let after = eventually("its end is told", async || {
        Some(status_reader.get()).filter(|status| status.state == BackendState::Healthy)
    })
    .await;
    assert_eq!((after.reason_code, after.since > during.since), ("ok", true));
    drop(backend);
    time::timeout(10 * SECOND, drivers.join_next()).await.expect("the driver ends with the backend");
}

/// A server that answers everything with the same bytes.
fn fake(tasks: &mut JoinSet<()>, answer: fn(&[u8]) -> Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            connections.spawn(async move { answer_all(&mut client, answer).await });
        }
    });
    port
}

async fn answer_all(client: &mut tokio::net::TcpStream, answer: fn(&[u8]) -> Vec<u8>) {
    let mut buffer = [0; 4_096];
    while let Ok(len @ 1..) = client.read(&mut buffer).await {
        if client.write_all(&answer(&buffer[..len])).await.is_err() {
            return;
        }
    }
}
