//! What these tests share: a gateway in this process, and a Redis of their own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time;
use zonewire::config::Config;
use zonewire::gateway::{Gateway, RunError};
use zonewire::storage::StorageChoice;
use zonewire_lab::kit::process::{Data, RedisServer};

/// Set in continuous integration, so that a missing server fails instead of skipping.
const REQUIRE: &str = "ZONEWIRE_TEST_REQUIRE_REDIS";
/// How long a gateway may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a Redis can be started here; where not, that is said on stdout.
pub(crate) async fn has_redis() -> bool {
    if RedisServer::ensure_installed().await.is_ok() {
        return true;
    }
    assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and there is no redis-server");
    println!("skipped: there is no redis-server");
    false
}

/// An empty Redis; none where it is not installed.
pub(crate) async fn redis() -> Option<RedisServer> {
    if !has_redis().await {
        return None;
    }
    let mut server = RedisServer::prepare().unwrap();
    server.start(Data::Empty).unwrap();
    server.wait_until_it_serves().await.unwrap();
    Some(server)
}

/// In memory, on a free port, and a shutdown without a drain window.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.http.shards = 2;
    config.http.drain_s = 0;
    config.storage.backend = StorageChoice::Memory;
    config
}

/// A gateway that runs until [`stop`](Self::stop).
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    running: JoinSet<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let gateway = Gateway::start(config).await.unwrap();
        let address = gateway.address();
        let (shutdown, asked) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(gateway.run(async {
            // A test that fails drops the sender, which is as good a reason to stop.
            let _dropped = asked.await;
        }));
        Self { address, shutdown, running }
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.send(()).unwrap();
        let ended =
            time::timeout(PATIENCE, self.running.join_next()).await.expect("the gateway stops in time");
        ended.unwrap().unwrap().unwrap();
    }
}
