//! A Redis of a test's own, of any kind, and how a gateway is told to use it.

use std::time::Duration;

use zonewire::storage::RedisConfig;
use zonewire_kit::certificates::Certificates;
use zonewire_kit::redis::{Cluster, RedisServer, Sentinels, Several};
use zonewire_kit::skip;

/// Set in continuous integration, so that a missing server fails instead of skipping.
const REQUIRE: &str = "ZONEWIRE_TEST_REQUIRE_REDIS";
/// What sentinels want of those who ask.
pub(crate) const SENTINEL_PASSWORD: &str = "sentinel word";

/// `None`, said on stdout, where no server is installed; so with the others too.
async fn installed() -> Option<()> {
    if RedisServer::is_installed().await { Some(()) } else { skip(REQUIRE, "there is no redis-server") }
}

/// Starts a server with these options.
pub(crate) async fn redis(options: &[&str]) -> Option<RedisServer> {
    installed().await?;
    Some(RedisServer::start(options).await.unwrap())
}

/// Starts a cluster whose first primary has so many replicas.
pub(crate) async fn cluster(replicas: usize, options: &[&str]) -> Option<Cluster> {
    cluster_of(Several { replicas, options, tls: None }).await
}

/// Starts a cluster.
pub(crate) async fn cluster_of(with: Several<'_>) -> Option<Cluster> {
    installed().await?;
    Some(Cluster::start(with).await.unwrap())
}

/// Zones whose logs the three primaries of a cluster have, of each one.
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

/// Makes certificates; `None`, said on stdout, where there is no `openssl`.
pub(crate) fn certificates() -> Option<Certificates> {
    if !Certificates::can_be_made() {
        println!("skipped: there is no openssl");
        return None;
    }
    Some(Certificates::make().unwrap())
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    zonewire_kit::free_port().unwrap()
}

/// A machine that stands still for a second is no outage.
pub(crate) fn patient(config: RedisConfig) -> RedisConfig {
    RedisConfig { connect_timeout_ms: 10_000, command_timeout_ms: 15_000, ..config }
}

/// What gateways can be told to use.
pub(crate) trait Configured {
    /// How a gateway is told to use this.
    fn config(&self) -> RedisConfig;

    /// The same for tests that are not about time-outs.
    fn patient_config(&self) -> RedisConfig {
        patient(self.config())
    }
}

impl Configured for RedisServer {
    /// An append that is a little late on a busy machine forks no channel, unless a test wants that.
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

/// Commands besides the gateways', each of which must succeed.
pub(crate) trait Admin {
    /// Gives the answer, if that is a text or a number.
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
