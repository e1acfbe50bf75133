//! Redis servers for tests, in every deployment, and how a gateway is configured to use them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpSocket;
use zonewire::config::Config;
use zonewire::storage::{RedisConfig, StorageChoice};
use zonewire_kit::certificates::Certificates;
use zonewire_kit::redis::{Cluster, RedisServer, Sentinels, Several};
use zonewire_kit::skip;

use super::gateway::config;

/// Set in continuous integration, so that a missing server fails instead of skipping; also used for openssl.
const REQUIRE: &str = "ZONEWIRE_TEST_REQUIRE_REDIS";
/// The password that sentinels require.
pub(crate) const SENTINEL_PASSWORD: &str = "sentinel word";

/// `None`, after printing so, if no server is installed; the functions below do the same.
async fn installed() -> Option<()> {
    if RedisServer::is_installed().await { Some(()) } else { skip(REQUIRE, "there is no redis-server") }
}

/// Starts a server with these options.
pub(crate) async fn redis(options: &[&str]) -> Option<RedisServer> {
    installed().await?;
    Some(RedisServer::start(options).await.unwrap())
}

/// Starts a cluster whose first primary has this many replicas.
pub(crate) async fn cluster(replicas: usize, options: &[&str]) -> Option<Cluster> {
    cluster_of(Several { replicas, options, tls: None }).await
}

/// Starts a cluster.
pub(crate) async fn cluster_of(with: Several<'_>) -> Option<Cluster> {
    installed().await?;
    Some(Cluster::start(with).await.unwrap())
}

/// For each of the three primaries of a cluster, a zone whose log it has.
pub(crate) async fn zone_of_each(cluster: &Cluster) -> [String; 3] {
    let mut zones = [const { None }; 3];
    for zone in (0..).map(|n| format!("z{n}")) {
        let owner = cluster.owner(&format!("zw:{{zone:{zone}}}:meta")).await.unwrap();
        zones[owner].get_or_insert(zone);
        if zones.iter().all(Option::is_some) {
            break;
        }
    }
    zones.map(Option::unwrap)
}

/// Starts a primary with one replica, and sentinels.
pub(crate) async fn sentinels(down_after: Duration, tls: Option<&Certificates>) -> Option<Sentinels> {
    installed().await?;
    let with = Several { replicas: 1, tls, ..Several::default() };
    Some(Sentinels::start(with, down_after, Some(SENTINEL_PASSWORD)).await.unwrap())
}

/// Makes certificates; `None`, after printing so, if there is no `openssl`.
pub(crate) fn certificates() -> Option<Certificates> {
    if !Certificates::can_be_made() {
        return skip(REQUIRE, "there is no openssl");
    }
    Some(Certificates::make().unwrap())
}

/// A port for a program that listens on it soon; until then another process may take it.
pub(crate) fn free_port() -> u16 {
    zonewire_kit::free_port().unwrap()
}

/// A port on which nothing listens while this process runs: it stays bound, so nobody else gets it.
pub(crate) fn nowhere() -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::mem::forget(socket);
    port
}

/// Settings under which a machine that stalls for a second is not an outage.
pub(crate) fn patient(config: RedisConfig) -> RedisConfig {
    RedisConfig { connect_timeout_ms: 10_000, command_timeout_ms: 15_000, ..config }
}

/// A Redis that gateways can be configured to use.
pub(crate) trait Configured {
    /// The gateway's settings for it.
    fn config(&self) -> RedisConfig;

    /// The same for tests that do not concern timeouts.
    fn patient_config(&self) -> RedisConfig {
        patient(self.config())
    }
}

/// A gateway on this Redis, without which it does not start.
pub(crate) fn on(redis: &impl Configured) -> Config {
    let mut config = config();
    config.storage.backend = StorageChoice::Redis;
    config.storage.required = true;
    config.storage.redis = redis.config();
    config
}

/// The same with this prefix of its keys.
pub(crate) fn on_prefix(redis: &impl Configured, prefix: &str) -> Config {
    let mut config = on(redis);
    config.storage.redis.prefix = prefix.to_owned();
    config
}

impl Configured for RedisServer {
    /// A slightly slow append on a busy machine must not fork a channel, unless a test wants that.
    fn config(&self) -> RedisConfig {
        RedisConfig {
            ordering_deadline_ms: 30_000,
            host: Some("127.0.0.1".to_owned()),
            port: Some(self.port),
            password: self.target.password.clone(),
            ..RedisConfig::default()
        }
    }
}

impl Configured for Cluster {
    fn config(&self) -> RedisConfig {
        RedisConfig {
            cluster: true,
            port: Some(self.ports[0]),
            nodes: self.ports[1..].iter().map(|port| format!("127.0.0.1:{port}")).collect(),
            ..self.nodes[0].config()
        }
    }
}

impl Configured for Sentinels {
    fn config(&self) -> RedisConfig {
        RedisConfig {
            url: Some(self.url()),
            sentinel_password: Some(SENTINEL_PASSWORD.to_owned()),
            ..RedisConfig::default()
        }
    }
}

/// Commands beside the gateways', each of which must succeed.
pub(crate) trait Admin {
    /// Returns the answer, if that is a text or a number.
    async fn admin(&self, command: &[&str]) -> String;

    /// The same for an answer that is a list.
    async fn list(&self, command: &[&str]) -> Vec<String>;
}

impl Admin for RedisServer {
    async fn admin(&self, command: &[&str]) -> String {
        self.target.run(command).await.unwrap().text()
    }

    async fn list(&self, command: &[&str]) -> Vec<String> {
        self.target.run(command).await.unwrap().texts()
    }
}
