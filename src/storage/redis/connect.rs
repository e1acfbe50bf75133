//! Turns the configuration into clients. The only place where fred is set up.

use std::time::Duration;

use fred::clients::{Client, SubscriberClient, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::Builder;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, ConnectionConfig, Options, PerformanceConfig, ReconnectError,
    ReconnectPolicy, Server, ServerConfig, TcpConfig, TlsConnector,
};

use super::target::{Kind, Target};
use crate::storage::RedisConfig;

/// The most commands that may wait to be written. 0 would mean no bound.
pub(super) const COMMANDS_LEN: usize = 4_096;
/// The most published messages that may wait for our receive loop, which only forwards them. fred's default
/// of 32 loses most messages at full rate; losses beyond this bound are detected, and read from the log. fred
/// allocates memory for this many in each of several channels of a client, about 6 MiB in all.
const MESSAGES_LEN: usize = 8_192;
/// Reconnects and errors are rare, but fred gives all channels of a client the same size.
const NOTICES_LEN: usize = 64;
/// The first and the longest wait between attempts to reconnect. The longest one bounds how late we notice
/// that a server is back.
const RECONNECT_MS: (u32, u32) = (50, 1_000);
const RECONNECT_JITTER_MS: u32 = 50;

impl Target {
    fn fred_config(&self, server: ServerConfig) -> Result<Config, Error> {
        let tls = self.tls.as_ref().map(|files| {
            let config = files.client_config().map_err(|what| Error::new(ErrorKind::Tls, what))?;
            Ok::<_, Error>(TlsConnector::from(config).into())
        });
        Ok(Config {
            server,
            username: self.username.clone(),
            password: self.password.clone(),
            // A connection starts with database 0, and a restricted user may lack SELECT.
            database: (self.db != 0).then_some(self.db),
            fail_fast: true,
            tls: tls.transpose()?,
            ..Config::default()
        })
    }

    /// The servers named in the configuration.
    pub(super) fn servers(&self) -> Vec<Server> {
        self.nodes.iter().map(|node| Server::new(node.host.as_str(), node.port)).collect()
    }

    fn server_config(&self) -> ServerConfig {
        match &self.kind {
            Kind::Single => match self.servers().into_iter().next() {
                Some(server) => ServerConfig::Centralized { server },
                None => ServerConfig::default_centralized(),
            },
            // Only for probing: the gateway itself keeps connections to each primary.
            Kind::Cluster => {
                ServerConfig::Clustered { hosts: self.servers(), policy: ClusterDiscoveryPolicy::UseCache }
            }
            Kind::Sentinel { service, username, password } => ServerConfig::Sentinel {
                hosts: self.servers(),
                service_name: service.clone(),
                username: username.clone(),
                password: password.clone(),
            },
        }
    }
}

/// A client for commands: to one node of a cluster, if it is named, otherwise to the configured server.
pub(super) fn commands_client(
    target: &Target,
    config: &RedisConfig,
    node: Option<Server>,
) -> Result<Client, Error> {
    lasting(target, config, node)?.build()
}

/// A client for subscriptions, to the same servers. It has its own connection, so that published messages do not
/// wait behind replies.
pub(super) fn subscriber_client(
    target: &Target,
    config: &RedisConfig,
    node: Option<Server>,
) -> Result<SubscriberClient, Error> {
    let mut builder = lasting(target, config, node)?;
    builder.with_performance_config(|performance| performance.broadcast_channel_capacity = MESSAGES_LEN);
    builder.build_subscriber_client()
}

/// A builder for a client that reconnects when its connection closes.
fn lasting(target: &Target, config: &RedisConfig, node: Option<Server>) -> Result<Builder, Error> {
    let server = node.map(|server| ServerConfig::Centralized { server });
    let mut builder = builder(target, server.unwrap_or_else(|| target.server_config()), config)?;
    let (first, longest) = RECONNECT_MS;
    let mut policy = ReconnectPolicy::new_exponential(0, first, longest, 2);
    policy.set_jitter(RECONNECT_JITTER_MS);
    builder.set_policy(policy).with_connection_config(|connection| {
        connection.reconnect_errors = vec![
            ReconnectError::ClusterDown,
            ReconnectError::Loading,
            ReconnectError::MasterDown,
            ReconnectError::ReadOnly,
        ];
    });
    Ok(builder)
}

/// A client for one probe: it does not reconnect, and passes on what the server answers.
pub(in crate::storage) fn probe_client(target: &Target, config: &RedisConfig) -> Result<Client, Error> {
    let mut builder = builder(target, target.server_config(), config)?;
    builder.with_connection_config(|connection| connection.reconnect_errors = Vec::new());
    builder.build()
}

/// Sends each command at most once, fails at once without a connection, and waits for an answer no longer
/// than `timeout`.
pub(super) fn once<C: ClientLike>(client: &C, timeout: Duration) -> WithOptions<C> {
    client.with_options(&once_within(timeout))
}

/// The same for commands to one node of a cluster.
pub(super) fn once_on<C: ClientLike>(client: &C, timeout: Duration, server: Server) -> WithOptions<C> {
    client.with_options(&Options { cluster_node: Some(server), ..once_within(timeout) })
}

fn once_within(timeout: Duration) -> Options {
    Options { max_attempts: Some(1), fail_fast: true, timeout: Some(timeout), ..Options::default() }
}

fn builder(target: &Target, server: ServerConfig, config: &RedisConfig) -> Result<Builder, Error> {
    let connect = Duration::from_millis(config.connect_timeout_ms);
    let mut builder = Builder::from_config(target.fred_config(server)?);
    builder
        .set_connection_config(ConnectionConfig {
            connection_timeout: connect,
            internal_command_timeout: connect,
            // A command whose reply was lost may have run, so fred must not repeat it.
            max_command_attempts: 1,
            max_command_buffer_len: COMMANDS_LEN,
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        })
        .set_performance_config(PerformanceConfig {
            default_command_timeout: Duration::from_millis(config.command_timeout_ms),
            broadcast_channel_capacity: NOTICES_LEN,
            ..PerformanceConfig::default()
        });
    Ok(builder)
}
