//! The address of Redis: the URL and the separate settings, merged.

use std::fmt;

use url::Url;

use super::tls::TlsFiles;
use crate::storage::RedisConfig;

const URL_FORM: &str = "`redis://[user:password@]host[:port][/db]`, \
     `redis-cluster://[user:password@]host[:port][?node=host:port&…]` or \
     `redis-sentinel://[user:password@]host[:port][/db]?sentinelServiceName=name[&node=host:port&…]`, \
     each with `rediss` in place of `redis` for TLS, and with special characters in passwords \
     percent-encoded";

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Node {
    pub(in crate::storage) host: String,
    pub(in crate::storage) port: u16,
}

/// What the configured nodes are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// One server.
    Single,
    /// Some nodes of a cluster, which name the others.
    Cluster,
    /// Sentinels, which know the primary of a service.
    Sentinel { service: String, username: Option<String>, password: Option<String> },
}

/// Where to connect, and as which user.
#[derive(Clone)]
pub(in crate::storage) struct Target {
    pub(super) kind: Kind,
    /// At least one.
    pub(super) nodes: Vec<Node>,
    pub(in crate::storage) db: u8,
    pub(super) tls: Option<TlsFiles>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// Hosts and ports; never a secret.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Single => {}
            Kind::Cluster => write!(f, "the cluster of ")?,
            Kind::Sentinel { service, .. } => write!(f, "`{service}` of the sentinels ")?,
        }
        for (n, node) in self.nodes.iter().enumerate() {
            write!(f, "{}{node}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Node {
    /// `host`, `host:port`, `[address]` or `[address]:port`.
    fn read(text: &str, default_port: u16) -> Option<Self> {
        let url = Url::parse(&format!("redis://{text}")).ok()?;
        let is_more = !url.username().is_empty()
            || url.password().is_some()
            || !matches!(url.path(), "" | "/")
            || url.query().is_some()
            || url.fragment().is_some();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port().unwrap_or(default_port);
        (!is_more && !host.is_empty() && port != 0).then(|| Self { host: host.to_owned(), port })
    }
}

impl Target {
    /// Merges URL and settings, and reads the files for TLS once to verify that they can be used. Errors say
    /// what would be right, and repeat nothing of the URL.
    pub(in crate::storage) fn from_config(config: &RedisConfig) -> Result<Self, String> {
        check_prefix(&config.prefix)?;
        let url = config.url.as_deref().map(|url| Parts::of(url.trim(), config.host.as_deref()));
        let url = url.transpose()?;
        let kind = kind(config, url.as_ref())?;
        let nodes = nodes(config, url.as_ref(), &kind)?;
        let url = url.unwrap_or_default();
        let target = Self {
            nodes,
            db: config.db.unwrap_or(url.db),
            tls: tls(config, url.tls)?,
            username: config.username.clone().or(url.username),
            password: config.password.clone().or(url.password),
            kind,
        };
        if target.username.is_some() && target.password.is_none() {
            return Err("a Redis user is given without a password; give both, or none".to_owned());
        }
        match &target.kind {
            Kind::Single if target.nodes.len() > 1 => Err("several Redis nodes are given; say what they \
                 are: set `cluster = true` or `sentinel_service`, or leave `nodes` out"
                .to_owned()),
            Kind::Cluster if target.db != 0 => {
                Err("a Redis Cluster has no database but 0; leave the database out".to_owned())
            }
            Kind::Sentinel { username: Some(_), password: None, .. } => {
                Err("a user of the sentinels is given without a password; give both, or none".to_owned())
            }
            _ => Ok(target),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.kind == Kind::Cluster
    }
}

/// The parts of a URL.
#[derive(Default)]
struct Parts {
    scheme: Scheme,
    tls: bool,
    host: Option<String>,
    port: Option<u16>,
    nodes: Vec<String>,
    db: u8,
    username: Option<String>,
    password: Option<String>,
    service: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Scheme {
    #[default]
    Single,
    Cluster,
    Sentinel,
}

impl Parts {
    fn of(text: &str, host_beside: Option<&str>) -> Result<Self, String> {
        let url = Url::parse(text)
            .map_err(|error| format!("the Redis URL cannot be read ({error}); expected {URL_FORM}"))?;
        let (scheme, tls) = match url.scheme() {
            "redis" => (Scheme::Single, false),
            "rediss" => (Scheme::Single, true),
            "redis-cluster" => (Scheme::Cluster, false),
            "rediss-cluster" => (Scheme::Cluster, true),
            "redis-sentinel" => (Scheme::Sentinel, false),
            "rediss-sentinel" => (Scheme::Sentinel, true),
            scheme if scheme.contains("unix") => {
                return Err(format!("Unix sockets are not supported; expected {URL_FORM}"));
            }
            _ => return Err(format!("the Redis URL has an unknown scheme; expected {URL_FORM}")),
        };
        if url.fragment().is_some() {
            return Err(format!("the Redis URL has something after `#`; expected {URL_FORM}"));
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
        let mut parts = Self {
            scheme,
            tls,
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
            port: url.port(),
            db,
            username: Some(url.username()).filter(|name| !name.is_empty()).map(secret).transpose()?,
            password: url.password().filter(|word| !word.is_empty()).map(secret).transpose()?,
            ..Self::default()
        };
        for pair in url.query().into_iter().flat_map(|query| query.split('&')) {
            parts.take_parameter(pair)?;
        }
        Ok(parts)
    }

    fn take_parameter(&mut self, pair: &str) -> Result<(), String> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Some(secret(value)?).filter(|value| !value.is_empty());
        let is_sentinel = self.scheme == Scheme::Sentinel;
        match name {
            "node" if self.scheme != Scheme::Single => self.nodes.extend(value),
            "sentinelServiceName" if is_sentinel => self.service = value,
            "sentinelUsername" if is_sentinel => self.sentinel_username = value,
            "sentinelPassword" if is_sentinel => self.sentinel_password = value,
            _ => {
                return Err(format!(
                    "the Redis URL has a parameter after `?` that does not go with its scheme: \
                     `redis-cluster` takes `node`, `redis-sentinel` also `sentinelServiceName`, \
                     `sentinelUsername` and `sentinelPassword`, others none; expected {URL_FORM}"
                ));
            }
        }
        Ok(())
    }
}

fn kind(config: &RedisConfig, url: Option<&Parts>) -> Result<Kind, String> {
    let scheme = url.map_or(Scheme::Single, |url| url.scheme);
    let is_sentinel = scheme == Scheme::Sentinel || config.sentinel_service.is_some();
    let is_cluster = scheme == Scheme::Cluster || config.cluster;
    let (username, password) = (&config.sentinel_username, &config.sentinel_password);
    if is_sentinel && is_cluster {
        return Err("Redis Cluster and Sentinel are both asked for; a cluster has no sentinels, so \
                    leave one of the two out"
            .to_owned());
    }
    if !is_sentinel {
        return if username.is_some() || password.is_some() {
            Err("`sentinel_username` and `sentinel_password` go only with Sentinel: set \
                 `sentinel_service`, or leave them out"
                .to_owned())
        } else if is_cluster {
            Ok(Kind::Cluster)
        } else {
            Ok(Kind::Single)
        };
    }
    let service = config.sentinel_service.clone().or_else(|| url?.service.clone()).unwrap_or_default();
    if service.is_empty() {
        return Err(format!(
            "the name under which the sentinels know the primary is missing: set `sentinel_service`, or \
             `sentinelServiceName` in the URL; expected {URL_FORM}"
        ));
    }
    Ok(Kind::Sentinel {
        service,
        username: username.clone().or_else(|| url?.sentinel_username.clone()),
        password: password.clone().or_else(|| url?.sentinel_password.clone()),
    })
}

fn nodes(config: &RedisConfig, url: Option<&Parts>, kind: &Kind) -> Result<Vec<Node>, String> {
    let default_port = if matches!(kind, Kind::Sentinel { .. }) { SENTINEL_PORT } else { REDIS_PORT };
    let host = config.host.clone().or_else(|| url?.host.clone());
    let port = config.port.or_else(|| url?.port).unwrap_or(default_port);
    if host.as_deref() == Some("") {
        return Err(format!("the Redis host is empty; expected {URL_FORM}"));
    }
    let named = url.map(|url| url.nodes.as_slice()).unwrap_or_default().iter().chain(&config.nodes);
    let named = named.map(|text| {
        let form = "a further Redis node cannot be read; expected `host:port` in `nodes` and after `node=`";
        Node::read(text.trim(), default_port).ok_or_else(|| form.to_owned())
    });
    let mut nodes = named.collect::<Result<Vec<_>, _>>()?;
    if host.is_some() || nodes.is_empty() {
        nodes.insert(0, Node { host: host.unwrap_or_else(|| "127.0.0.1".to_owned()), port });
    }
    Ok(nodes)
}

fn tls(config: &RedisConfig, by_url: bool) -> Result<Option<TlsFiles>, String> {
    let files = TlsFiles {
        ca: config.tls_ca_file.clone(),
        certificate: config.tls_cert_file.clone(),
        key: config.tls_key_file.clone(),
    };
    if by_url || config.tls {
        files.check()?;
        Ok(Some(files))
    } else if files == TlsFiles::default() {
        Ok(None)
    } else {
        Err("files for TLS to Redis are given, and TLS is not used: set `tls = true` or begin the URL \
             with `rediss`, or leave the files out"
            .to_owned())
    }
}

/// Braces would change which part of a key is hashed; the other rules keep keys readable.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    if (1..=64).contains(&prefix.len()) && prefix.bytes().all(plain) {
        Ok(())
    } else {
        Err("the Redis key prefix must be 1 to 64 of A-Z a-z 0-9 . _ : -".to_owned())
    }
}

fn secret(encoded: &str) -> Result<String, String> {
    percent_decoded(encoded)
        .ok_or_else(|| "what the Redis URL holds is not valid percent-encoding".to_owned())
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

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn parts(config: &RedisConfig) -> (String, u8, bool, Option<String>, Option<String>) {
        let target = Target::from_config(config).unwrap();
        (target.to_string(), target.db, target.tls.is_some(), target.username, target.password)
    }

    fn error(config: &RedisConfig) -> String {
        Target::from_config(config).unwrap_err()
    }

    #[test]
    fn a_url_names_host_port_database_and_credentials() {
        assert_eq!(parts(&RedisConfig::default()), ("127.0.0.1:6379".into(), 0, false, None, None));
        assert_eq!(parts(&with_url("redis://h")), ("h:6379".into(), 0, false, None, None));
        assert_eq!(
            parts(&with_url("rediss://u:p%40%2F@h:1/3")),
            ("h:1".into(), 3, true, some("u"), some("p@/"))
        );
        assert_eq!(parts(&with_url("redis://:p@[::1]:7/")), ("[::1]:7".into(), 0, false, None, some("p")));
    }

    #[test]
    fn a_url_names_a_cluster_by_some_of_its_nodes() {
        assert_eq!(
            parts(&with_url("redis-cluster://u:p@a:1?node=b:2&node=[::1]")),
            ("the cluster of a:1, b:2, [::1]:6379".into(), 0, false, some("u"), some("p"))
        );
        assert_eq!(
            parts(&with_url("rediss-cluster://a")),
            ("the cluster of a:6379".into(), 0, true, None, None)
        );
        assert!(error(&with_url("redis-cluster://a/3")).contains("no database but 0"));
        for nodes in
            ["redis-cluster://a?node=b:x", "redis-cluster://a?node=u:p@b", "redis-cluster://a?node=b/1"]
        {
            assert!(error(&with_url(nodes)).contains("`host:port`"), "{nodes}");
        }
    }

    #[test]
    fn a_url_names_a_service_and_its_sentinels() {
        let url = "rediss-sentinel://u:p@a/2?sentinelServiceName=main&node=b:2&sentinelPassword=x%26%2B+";
        assert_eq!(
            parts(&with_url(url)),
            ("`main` of the sentinels a:26379, b:2".into(), 2, true, some("u"), some("p"))
        );
        let Kind::Sentinel { password, .. } = Target::from_config(&with_url(url)).unwrap().kind else {
            panic!("another kind")
        };
        assert_eq!(password, some("x&++"));
        assert!(error(&with_url("redis-sentinel://a")).contains("`sentinel_service`"));
        let user = "redis-sentinel://a?sentinelServiceName=main&sentinelUsername=u";
        assert!(error(&with_url(user)).contains("without a password"));
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
    fn separate_fields_say_all_that_a_url_can_say() {
        let nodes = vec!["b:2".to_owned(), "c".to_owned()];
        let cluster =
            RedisConfig { cluster: true, tls: true, nodes: nodes.clone(), ..RedisConfig::default() };
        assert_eq!(parts(&cluster), ("the cluster of b:2, c:6379".into(), 0, true, None, None));
        let sentinels = RedisConfig {
            host: some("a"),
            nodes,
            sentinel_service: some("main"),
            sentinel_username: some("u"),
            sentinel_password: some("p"),
            ..RedisConfig::default()
        };
        let target = Target::from_config(&sentinels).unwrap();
        assert_eq!(target.to_string(), "`main` of the sentinels a:26379, b:2, c:26379");
        assert!(
            target.kind
                == Kind::Sentinel { service: "main".into(), username: some("u"), password: some("p") }
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_reported() {
        let base = RedisConfig::default;
        let wrong = [
            (RedisConfig { nodes: vec!["b".into(), "c".into()], ..base() }, "`cluster = true`"),
            (RedisConfig { cluster: true, ..with_url("redis-sentinel://a?sentinelServiceName=m") }, "both"),
            (RedisConfig { cluster: true, sentinel_service: some("m"), ..base() }, "both"),
            (RedisConfig { sentinel_password: some("hunter2"), ..base() }, "`sentinel_service`"),
            (RedisConfig { tls_ca_file: Some("/ca.pem".into()), ..base() }, "`tls = true`"),
            (RedisConfig { tls: true, tls_cert_file: Some("/c.pem".into()), ..base() }, "`tls_key_file`"),
            (RedisConfig { tls: true, tls_ca_file: Some("/no/ca.pem".into()), ..base() }, "/no/ca.pem"),
            (with_url("redis://a?node=b"), "`redis-cluster` takes `node`"),
            (with_url("unix:///run/redis"), "Unix sockets"),
        ];
        for (config, expected) in wrong {
            let error = error(&config);
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_its_secret() {
        let wrong = [
            "hunter2",
            "redis://:hunter2@",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h/db",
            "redis://:hunter2@h?x=hunter2",
            "redis://:hunter2@h?hunter2",
            "redis://:hunter2/x@h",
            "redis://:hunter2%zz@h",
            "redis://hunter2@h",
            "http://:hunter2@h",
            "redis-cluster://:hunter2@h/1",
            "redis-cluster://:hunter2@h?node=hunter2:x",
            "redis-sentinel://:hunter2@h",
            "redis-sentinel://:hunter2@h?sentinelPassword=hunter2",
        ];
        for url in wrong {
            let error = error(&with_url(url));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_prefix_with_braces_is_refused() {
        for prefix in ["", "a{b}", "a b"] {
            let config = RedisConfig { prefix: prefix.to_owned(), ..RedisConfig::default() };
            assert!(Target::from_config(&config).is_err(), "{prefix:?}");
        }
    }
}
