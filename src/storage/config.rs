//! What can be configured about storage.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{ChannelPolicy, RetentionOf};

/// Which backend serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageChoice {
    /// Redis if it answers at startup, else memory.
    #[default]
    Auto,
    /// Memory; Redis is never probed.
    Memory,
    /// Redis; memory only while it does not answer, or not at all with `required`.
    Redis,
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Which backend serves. Default `auto`.
    pub backend: StorageChoice,
    /// With `backend = "redis"`: refuse to start without Redis. Default false.
    pub required: bool,
    /// `[storage.memory]`
    pub memory: MemoryConfig,
    /// `[storage.redis]`
    pub redis: RedisConfig,
    /// `[storage.retention]`
    pub retention: Retention,
    /// `[storage.journal]`
    pub journal: JournalConfig,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            backend: StorageChoice::Auto,
            required: false,
            memory: MemoryConfig::default(),
            redis: RedisConfig::default(),
            retention: Retention::default(),
            journal: JournalConfig::default(),
        }
    }
}

/// `[storage.retention]`: how much of each channel is kept, whichever backend serves. The oldest
/// entries go first, as soon as one of the bounds is passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Entries per channel. Default 10,000.
    pub entries: usize,
    /// Bytes per channel. Default 16 MiB (16,777,216).
    pub bytes: usize,
    /// Age of an entry since it was appended, in seconds. Default 3,600.
    pub age_s: u64,
    /// How long the latest entry of a key is kept that nobody updates, in seconds. Default 604,800 (a
    /// week).
    pub key_age_s: u64,
    /// `[storage.retention.orders]`
    pub orders: OrderRetention,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 16 << 20,
            age_s: 3_600,
            key_age_s: 604_800,
            orders: OrderRetention::default(),
        }
    }
}

impl Retention {
    /// Entries, and their age in seconds, that are kept of each channel of a kind.
    pub(in crate::storage) fn bounds_of(&self, policy: &ChannelPolicy) -> (usize, u64) {
        match policy.retention {
            RetentionOf::Channels => (self.entries, self.age_s),
            RetentionOf::Orders => (self.orders.updates, self.orders.age_s),
        }
    }
}

/// `[storage.retention.orders]`: how many updates of each order are kept. They go together, some
/// time after the newest of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrderRetention {
    /// Updates per order. Default 50.
    pub updates: usize,
    /// Time since the newest update was appended, in seconds. Default 300.
    pub age_s: u64,
}

impl Default for OrderRetention {
    fn default() -> Self {
        Self { updates: 50, age_s: 300 }
    }
}

/// `[storage.memory]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Bytes of all channels together: of their entries, of the latest entry of each key, which is
    /// counted besides its place in the log, and of what a channel takes by itself. Default 1 GiB
    /// (1,073,741,824). When it is passed, the oldest entries of all channels go. The latest entries of keys take half of it at the most;
    /// past that, in the zones that hold most of them, the keys that were not updated for longest
    /// lose theirs.
    pub total_bytes: usize,
    /// Bytes of this node's own entries that are kept to be put back should Redis lose them. Default
    /// 256 MiB (268,435,456). When it is passed, those of the channels that rest longest go.
    pub put_back_bytes: usize,
    /// With `backend = "memory"`: the directory, for this gateway alone, in which memory keeps what it has, so
    /// that it survives the process. Unset: it does not.
    pub data_dir: Option<PathBuf>,
    /// When what was written there reaches the disk itself. Default `always`.
    pub fsync: Fsync,
    /// With `fsync = "interval"`: how often, in milliseconds. Default 100.
    pub fsync_interval_ms: u64,
    /// How long the disk may take for what is published, in milliseconds. Default 1,000.
    pub deadline_ms: u64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            total_bytes: 1 << 30,
            put_back_bytes: 256 << 20,
            data_dir: None,
            fsync: Fsync::Always,
            fsync_interval_ms: 100,
            deadline_ms: 1_000,
        }
    }
}

/// `[storage.redis]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Address, as `redis://[user:password@]host[:port][/db]`,
    /// `redis-cluster://…host[:port][?node=host:port&…]` or
    /// `redis-sentinel://…host[:port][/db]?sentinelServiceName=name[&node=host:port&…]`; `rediss`
    /// in place of `redis` means TLS. Unset: `auto` looks at 127.0.0.1:6379.
    pub url: Option<String>,
    /// Instead of a URL: the host.
    pub host: Option<String>,
    /// With `host`: the port. Default 6379, of sentinels 26379.
    pub port: Option<u16>,
    /// Further nodes of a cluster, or further sentinels, as `host:port`. None by default.
    pub nodes: Vec<String>,
    /// Whether the nodes are those of a Redis Cluster. Default false.
    pub cluster: bool,
    /// What the sentinels call the primary; makes the nodes sentinels.
    pub sentinel_service: Option<String>,
    /// ACL user at the sentinels. Unset: that of the password alone, or none.
    pub sentinel_username: Option<String>,
    /// Password at the sentinels. Unset: they want none.
    pub sentinel_password: Option<String>,
    /// Whether to use TLS. Default false; a URL can say it, too.
    pub tls: bool,
    /// Certificates in PEM of the authorities to trust, in place of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The gateway's own certificate in PEM; goes with the key.
    pub tls_cert_file: Option<PathBuf>,
    /// Its key in PEM.
    pub tls_key_file: Option<PathBuf>,
    /// ACL user; overrides the URL's.
    pub username: Option<String>,
    /// Password; overrides the URL's. Better given in the environment than in a file.
    pub password: Option<String>,
    /// Database number; overrides the URL's. Default 0.
    pub db: Option<u8>,
    /// What every key and pub/sub channel begins with. Default `zw`.
    pub prefix: String,
    /// How long a connection may take to come about, in milliseconds. Default 400.
    pub connect_timeout_ms: u64,
    /// How long a command may take, in milliseconds. Default 800.
    pub command_timeout_ms: u64,
    /// How long an append on the lane `latest` is waited for before its channel goes on without
    /// Redis, in milliseconds; four times the usual time, if that is longer. Default 50.
    pub ordering_deadline_ms: u64,
    /// How long a LOADING server is waited for when Redis is `required`, in milliseconds. Default 30,000.
    pub loading_patience_ms: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            host: None,
            port: None,
            nodes: Vec::new(),
            cluster: false,
            sentinel_service: None,
            sentinel_username: None,
            sentinel_password: None,
            tls: false,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            username: None,
            password: None,
            db: None,
            prefix: "zw".to_owned(),
            connect_timeout_ms: 400,
            command_timeout_ms: 800,
            ordering_deadline_ms: 50,
            loading_patience_ms: 30_000,
        }
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL and the passwords are or may hold secrets; none is ever printed.
        f.debug_struct("RedisConfig")
            .field("url", &self.url.as_ref().map(|_| "…"))
            .field("host", &self.host)
            .field("port", &self.port)
            .field("nodes", &self.nodes)
            .field("cluster", &self.cluster)
            .field("sentinel_service", &self.sentinel_service)
            .field("tls", &self.tls)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("db", &self.db)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl RedisConfig {
    /// Whether the user named a Redis, in whatever way.
    pub fn is_configured(&self) -> bool {
        self.url.is_some() || self.host.is_some() || !self.nodes.is_empty()
    }

    /// Whether URL, fields and prefix make sense together, and files for TLS can be used, without
    /// connecting.
    ///
    /// # Errors
    /// A text that says what would be right and repeats no secret.
    pub fn check(&self) -> Result<(), String> {
        super::redis::Target::from_config(self).map(|_| ())
    }
}

/// `[storage.journal]`: what is accepted while Redis does not take it waits here. When it is full,
/// prices of the lane `latest` are thinned to the newest of each key; after that, what is new is
/// refused, and nothing that was accepted is dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Bytes of all waiting entries. Default 256 MiB (268,435,456).
    pub bytes: usize,
    /// Waiting entries. Default 1,000,000.
    pub entries: usize,
    /// How long an entry of a zone waits, in seconds. Default 3,600; 0 = as long as it takes.
    pub age_s: u64,
    /// `[storage.journal.spool]`
    pub spool: SpoolConfig,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { bytes: 256 << 20, entries: 1_000_000, age_s: 3_600, spool: SpoolConfig::default() }
    }
}

/// `[storage.journal.spool]`: the journal's copy on disk, so that a crash of the gateway in an outage
/// loses nothing that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// The directory, for this gateway alone. Unset: there is no copy.
    pub data_dir: Option<PathBuf>,
    /// When what was written reaches the disk itself. Default `always`.
    pub fsync: SpoolFsync,
    /// Bytes of the entries in it. Default 256 MiB (268,435,456).
    pub bytes: u64,
    /// How long the disk may take for an entry, in milliseconds. Default 1,000.
    pub deadline_ms: u64,
    /// What the disk has not taken by then is refused. Default true; false: it waits in memory only.
    pub required: bool,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            fsync: SpoolFsync::Always,
            bytes: 256 << 20,
            deadline_ms: 1_000,
            required: true,
        }
    }
}

/// When what was written reaches the disk itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Before it is accepted.
    #[default]
    Always,
    /// Every `fsync_interval_ms`.
    Interval,
    /// When the operating system sees fit.
    Never,
}

/// When what was spooled reaches the disk itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoolFsync {
    /// Before it is accepted: it survives a crash of the machine.
    #[default]
    Always,
    /// When the operating system sees fit: it survives a crash of the process. After a crash of the
    /// machine the file may be unreadable.
    Never,
}
