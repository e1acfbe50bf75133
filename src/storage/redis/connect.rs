//! From the configuration to connected clients. The only place where fred is set up.

use std::time::Duration;

use fred::clients::{Client, SubscriberClient, WithOptions};
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::Builder;
use fred::types::config::{
    Config, ConnectionConfig, Options, PerformanceConfig, ReconnectError, ReconnectPolicy, ServerConfig,
    TcpConfig, TlsConnector,
};
use url::Url;

use crate::storage::RedisConfig;

/// Commands that may wait to be written. 0 would mean no bound.
const COMMANDS_LEN: usize = 4_096;
/// Published messages that may wait for our receive loop, which only moves them on. fred's default
/// of 32 loses most messages at full rate; what is lost past it is noticed and read from the log.
const MESSAGES_LEN: usize = 65_536;
/// Reconnects and errors are few; fred sizes all of a client's channels alike.
const NOTICES_LEN: usize = 64;
/// The first and the longest wait between attempts to reconnect. The longest bounds how late we are
/// back.
const RECONNECT_MS: (u32, u32) = (50, 1_000);
const RECONNECT_JITTER_MS: u32 = 50;

const URL_FORM: &str = "`redis://[user:password@]host[:port][/db]` or `rediss://…`";

/// Where and as whom to connect: the URL and the separate fields merged.
#[derive(Clone)]
pub(in crate::storage) struct Target {
    pub(in crate::storage) host: String,
    pub(in crate::storage) port: u16,
    pub(in crate::storage) db: u8,
    tls: bool,
    username: Option<String>,
    password: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({self})")
    }
}

/// Host and port; never a secret.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// Merges URL and fields. The error says what would be right and repeats nothing of the URL.
    pub(in crate::storage) fn from_config(config: &RedisConfig) -> Result<Self, String> {
        check_prefix(&config.prefix)?;
        let mut target = match &config.url {
            Some(url) => Self::from_url(url.trim(), config.host.as_deref())?,
            None => Self::local(),
        };
        if let Some(host) = &config.host {
            target.host.clone_from(host);
        }
        target.port = config.port.unwrap_or(target.port);
        target.db = config.db.unwrap_or(target.db);
        if config.username.is_some() {
            target.username.clone_from(&config.username);
        }
        if config.password.is_some() {
            target.password.clone_from(&config.password);
        }
        if target.host.is_empty() {
            return Err(format!("the Redis host is empty; expected {URL_FORM}"));
        }
        if target.username.is_some() && target.password.is_none() {
            return Err("a Redis user is given without a password; give both, or none".to_owned());
        }
        Ok(target)
    }

    fn local() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: 6379, db: 0, tls: false, username: None, password: None }
    }

    fn from_url(text: &str, host_beside: Option<&str>) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| {
            format!(
                "the Redis URL cannot be read ({error}); expected {URL_FORM}, with special characters in \
                 the password percent-encoded"
            )
        })?;
        let tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            scheme if ["cluster", "sentinel", "unix"].iter().any(|kind| scheme.contains(kind)) => {
                return Err(format!(
                    "Redis Cluster, Sentinel and Unix sockets are not supported yet; expected {URL_FORM}"
                ));
            }
            _ => return Err(format!("the Redis URL has an unknown scheme; expected {URL_FORM}")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "the Redis URL has something after `?` or `#`, which is not supported; expected {URL_FORM}, \
                 with special characters in the password percent-encoded"
            ));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if host.is_empty() && host_beside.is_none() {
            return Err(format!("the Redis URL names no host; expected {URL_FORM}"));
        }
        let db = match url.path().trim_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_| {
                format!(
                    "what follows the host in the Redis URL must be a database number; expected {URL_FORM}"
                )
            })?,
        };
        let secret = |encoded: &str| {
            percent_decoded(encoded)
                .ok_or_else(|| "the credentials in the Redis URL are not valid percent-encoding".to_owned())
        };
        Ok(Self {
            host: host.to_owned(),
            port: url.port().unwrap_or(6379),
            db,
            tls,
            username: Some(url.username()).filter(|name| !name.is_empty()).map(secret).transpose()?,
            password: url.password().filter(|word| !word.is_empty()).map(secret).transpose()?,
        })
    }

    fn fred_config(&self) -> Result<Config, Error> {
        let tls = if self.tls {
            // Answers Err when a provider is in place already, which is as good.
            let _already = rustls::crypto::ring::default_provider().install_default();
            Some(TlsConnector::default_rustls()?.into())
        } else {
            None
        };
        Ok(Config {
            server: ServerConfig::new_centralized(self.host.as_str(), self.port),
            username: self.username.clone(),
            password: self.password.clone(),
            // SELECT 0 is what a connection starts with, and a restricted user may lack SELECT.
            database: (self.db != 0).then_some(self.db),
            fail_fast: true,
            tls,
            ..Config::default()
        })
    }
}

/// A client for commands.
pub(super) fn commands_client(target: &Target, config: &RedisConfig) -> Result<Client, Error> {
    lasting(target, config)?.build()
}

/// A client for subscriptions: on a connection of its own, so that what is published does not wait
/// behind replies.
pub(super) fn subscriber_client(target: &Target, config: &RedisConfig) -> Result<SubscriberClient, Error> {
    let mut builder = lasting(target, config)?;
    builder.with_performance_config(|performance| performance.broadcast_channel_capacity = MESSAGES_LEN);
    builder.build_subscriber_client()
}

/// For a client that reconnects when its connection closes.
fn lasting(target: &Target, config: &RedisConfig) -> Result<Builder, Error> {
    let mut builder = builder(target, config)?;
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

/// A client for one probe: it neither reconnects nor hides what the server answers.
pub(in crate::storage) fn probe_client(target: &Target, config: &RedisConfig) -> Result<Client, Error> {
    let mut builder = builder(target, config)?;
    builder.with_connection_config(|connection| connection.reconnect_errors = Vec::new());
    builder.build()
}

/// Commands that are sent at most once, fail at once while there is no connection, and are not
/// waited for longer than `timeout`.
pub(super) fn once<C: ClientLike>(client: &C, timeout: Duration) -> WithOptions<C> {
    client.with_options(&Options {
        max_attempts: Some(1),
        fail_fast: true,
        timeout: Some(timeout),
        ..Options::default()
    })
}

fn builder(target: &Target, config: &RedisConfig) -> Result<Builder, Error> {
    let connect = Duration::from_millis(config.connect_timeout_ms);
    let mut builder = Builder::from_config(target.fred_config()?);
    builder
        .set_connection_config(ConnectionConfig {
            connection_timeout: connect,
            internal_command_timeout: connect,
            // A command whose reply was lost may have run; repeating it is not fred's to decide.
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

/// Braces would change which part of a key is hashed; the rest keeps keys readable.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    if (1..=64).contains(&prefix.len()) && prefix.bytes().all(plain) {
        Ok(())
    } else {
        Err("the Redis key prefix must be 1 to 64 of A-Z a-z 0-9 . _ : -".to_owned())
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> RedisConfig {
        RedisConfig { url: Some(url.to_owned()), ..RedisConfig::default() }
    }

    fn parts(config: &RedisConfig) -> (String, u8, bool, Option<String>, Option<String>) {
        let target = Target::from_config(config).unwrap();
        (target.to_string(), target.db, target.tls, target.username, target.password)
    }

    #[test]
    fn a_url_names_host_port_database_and_credentials() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts(&RedisConfig::default()), ("127.0.0.1:6379".into(), 0, false, None, None));
        assert_eq!(parts(&with_url("redis://h")), ("h:6379".into(), 0, false, None, None));
        assert_eq!(
            parts(&with_url("rediss://u:p%40%2F@h:1/3")),
            ("h:1".into(), 3, true, some("u"), some("p@/"))
        );
        assert_eq!(parts(&with_url("redis://:p@[::1]:7/")), ("[::1]:7".into(), 0, false, None, some("p")));
    }

    #[test]
    fn separate_fields_override_the_parts_of_the_url() {
        let config = RedisConfig {
            host: Some("other".into()),
            port: Some(7),
            username: Some("me".into()),
            password: Some("word".into()),
            db: Some(2),
            ..with_url("redis://u:p@h:1/3")
        };
        let expected = ("other:7".into(), 2, false, Some("me".into()), Some("word".into()));
        assert_eq!(parts(&config), expected);
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_its_secret() {
        let wrong = [
            "hunter2",
            "redis://:hunter2@",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h/db",
            "redis://:hunter2@h?x=hunter2",
            "redis://:hunter2/x@h",
            "redis://:hunter2%zz@h",
            "redis://hunter2@h",
            "http://:hunter2@h",
            "redis-cluster://:hunter2@h",
            "redis-sentinel://:hunter2@h",
        ];
        for url in wrong {
            let error = Target::from_config(&with_url(url)).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = Target::from_config(&with_url("redis-sentinel://h")).unwrap_err();
        assert!(error.contains("not supported yet") && error.contains("redis://"), "{error}");
    }

    #[test]
    fn a_prefix_with_braces_is_refused() {
        for prefix in ["", "a{b}", "a b"] {
            let config = RedisConfig { prefix: prefix.to_owned(), ..RedisConfig::default() };
            assert!(Target::from_config(&config).is_err(), "{prefix:?}");
        }
    }
}
