//! The configuration of the storage.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EPOCH_KEPT_FOR;
use crate::model::{ChannelName, ChannelPolicy, RetentionOf};
use crate::support::settings;

/// Which backend serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageChoice {
    /// Redis if it answers at startup, otherwise memory.
    #[default]
    Auto,
    /// Memory; Redis is never probed.
    Memory,
    /// Redis; memory only while Redis does not answer, or never if `required`.
    Redis,
}

settings! {
    /// `[storage]`
    #[derive(Debug)]
    pub struct StorageConfig {
        /// Which backend serves. Default `auto`.
        pub backend: StorageChoice = StorageChoice::Auto,
        /// With `backend = "redis"`: refuse to start without Redis. Default false.
        pub required: bool = false,
        /// `[storage.memory]`
        pub memory: MemoryConfig,
        /// `[storage.redis]`
        pub redis: RedisConfig,
        /// `[storage.retention]`
        pub retention: Retention,
        /// `[storage.journal]`
        pub journal: JournalConfig,
    }

    /// `[storage.retention]`: how much of each channel is kept, whichever backend serves. As soon as a bound
    /// is exceeded, the oldest entries are removed.
    #[derive(Debug)]
    pub struct Retention in "storage.retention" {
        /// Entries per channel. Default 10,000.
        pub entries: usize [1..] = 10_000,
        /// Bytes per channel. Default 16 MiB (16,777,216).
        pub bytes: usize [1..] = 16 << 20,
        /// Age of an entry since it was appended, in seconds. Default 3,600.
        pub age_s: u64 [1..] = 3_600,
        /// How long the latest entry of a key is kept after the last update of the key, in seconds. Default
        /// 604,800 (a week).
        pub key_age_s: u64 = 604_800,
        /// `[storage.retention.orders]`
        pub orders: OrderRetention,
    }
}

/// Longer ages are reduced to this, a century, because an `Instant` cannot be arbitrarily far away.
pub(in crate::storage) const AGE_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// How much of a channel is kept.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Bounds {
    pub(in crate::storage) entries: usize,
    pub(in crate::storage) bytes: usize,
    pub(in crate::storage) age: Duration,
    /// See [`ChannelPolicy::goes_together`].
    pub(in crate::storage) together: bool,
    /// How long the latest entry of a key is kept without an update.
    pub(in crate::storage) key_age: Duration,
}

impl Bounds {
    pub(in crate::storage) fn of(retention: &Retention, channel: &ChannelName) -> Self {
        let policy = ChannelPolicy::of(channel);
        let (entries, age_s) = match policy.retention {
            RetentionOf::Channels => (retention.entries, retention.age_s),
            RetentionOf::Orders => (retention.orders.updates, retention.orders.age_s),
        };
        let key_age = Duration::from_secs(retention.key_age_s).min(AGE_MAX);
        Self {
            entries,
            bytes: retention.bytes,
            age: Duration::from_secs(age_s).min(AGE_MAX),
            together: policy.goes_together,
            key_age: if policy.goes_together { AGE_MAX } else { key_age },
        }
    }

    /// How long a log is kept after its last append.
    pub(in crate::storage) fn kept(&self) -> Duration {
        self.age + EPOCH_KEPT_FOR
    }

    /// How long a producer's entries may come again after its last append: retransmit buffers keep them for
    /// the retention age, and an outage in between may double that.
    pub(in crate::storage) fn producers_silent(&self) -> Duration {
        self.age.saturating_mul(2)
    }
}

settings! {
    /// `[storage.retention.orders]`: how many updates of each order are kept. All updates of an order expire
    /// together, `age_s` after the newest of them.
    #[derive(Debug)]
    pub struct OrderRetention in "storage.retention.orders" {
        /// Updates per order. Default 50.
        pub updates: usize [1..] = 50,
        /// Time since the newest update was appended, in seconds. Default 300.
        pub age_s: u64 [1..] = 300,
    }

    /// `[storage.memory]`
    #[derive(Debug)]
    pub struct MemoryConfig in "storage.memory" {
        /// Bytes of all channels together: of their entries, of the latest entry of each key, which is
        /// counted in addition to its place in the log, and of what a channel takes by itself. Default 1 GiB
        /// (1,073,741,824). When it is exceeded, the oldest entries of all channels are removed. The latest
        /// entries of keys take at most half of it; beyond that, the zones with most of them lose those of
        /// the keys that were not updated for longest.
        pub total_bytes: usize [1..] = 1 << 30,
        /// Bytes of this node's own entries that are kept to restore them if Redis loses them. Default 256
        /// MiB (268,435,456). When it is exceeded, the entries of the channels that have been idle for
        /// longest are removed.
        pub put_back_bytes: usize [1..] = 256 << 20,
        /// With `backend = "memory"`: the directory, used by this gateway alone, in which memory persists its
        /// content, so that it survives the process. Unset: it does not survive.
        pub data_dir: Option<PathBuf>,
        /// When what was written there is on the disk itself. Default `always`.
        pub fsync: Fsync = Fsync::Always,
        /// With `fsync = "interval"`: how often, in milliseconds. Default 100.
        pub fsync_interval_ms: u64 [1..] = 100,
        /// How long the disk may take to store what is published, in milliseconds. Default 1,000.
        pub deadline_ms: u64 [1..] = 1_000,
    }

    /// `[storage.redis]`
    pub struct RedisConfig in "storage.redis" {
        /// Address, as `redis://[user:password@]host[:port][/db]`,
        /// `redis-cluster://…host[:port][?node=host:port&…]` or
        /// `redis-sentinel://…host[:port][/db]?sentinelServiceName=name[&node=host:port&…]`; `rediss` instead
        /// of `redis` means TLS. Unset: `auto` tries 127.0.0.1:6379.
        pub url: Option<String>,
        /// The host, instead of a URL.
        pub host: Option<String>,
        /// With `host`: the port. Default 6379; for sentinels 26379.
        pub port: Option<u16>,
        /// Further nodes of a cluster, or further sentinels, as `host:port`. Default none.
        pub nodes: Vec<String>,
        /// Whether the nodes form a Redis Cluster. Default false.
        pub cluster: bool = false,
        /// The name by which the sentinels know the primary; makes the nodes sentinels.
        pub sentinel_service: Option<String>,
        /// ACL user at the sentinels. Unset: the default user if there is a password, otherwise none.
        pub sentinel_username: Option<String>,
        /// Password at the sentinels. Unset: they require none.
        pub sentinel_password: Option<String>,
        /// Whether to use TLS. Default false; a URL can say so too.
        pub tls: bool = false,
        /// PEM file with the certificate authorities to trust, instead of the system's.
        pub tls_ca_file: Option<PathBuf>,
        /// PEM file with the gateway's own certificate; requires the key.
        pub tls_cert_file: Option<PathBuf>,
        /// PEM file with its key.
        pub tls_key_file: Option<PathBuf>,
        /// ACL user; overrides the URL's.
        pub username: Option<String>,
        /// Password; overrides the URL's. Better set in the environment than in a file.
        pub password: Option<String>,
        /// Database number; overrides the URL's. Default 0.
        pub db: Option<u8>,
        /// The prefix of every key and pub/sub channel. Default `zw`.
        pub prefix: String = "zw".to_owned(),
        /// How long establishing a connection may take, in milliseconds. Default 400.
        pub connect_timeout_ms: u64 [1..] = 400,
        /// How long a command may take, in milliseconds. Default 800.
        pub command_timeout_ms: u64 [1..] = 800,
        /// How long an append on the lane `latest` may take before its channel forks, in milliseconds; four
        /// times the usual duration, if that is longer. Default 50.
        pub ordering_deadline_ms: u64 = 50,
        /// How long to wait for a server that is LOADING if Redis is `required`, in milliseconds. Default
        /// 30,000.
        pub loading_patience_ms: u64 = 30_000,
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL and the passwords may hold secrets, so none is ever printed.
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
    /// Whether the configuration names a Redis, in whatever way.
    pub fn is_configured(&self) -> bool {
        self.url.is_some() || self.host.is_some() || !self.nodes.is_empty()
    }

    /// Checks, without connecting, that URL, fields and prefix fit together, and that the files for TLS can
    /// be used.
    ///
    /// # Errors
    /// A text that says what would be right and repeats no secret.
    pub fn check(&self) -> Result<(), String> {
        super::redis::Target::from_config(self).map(|_| ())
    }
}

settings! {
    /// `[storage.journal]`: holds accepted entries until Redis accepts them. When it is full, entries of the
    /// lane `latest` are thinned to the newest of each key; if that is not enough, new entries are refused.
    /// No other accepted entry is dropped for want of room.
    #[derive(Debug)]
    pub struct JournalConfig in "storage.journal" {
        /// Bytes of all waiting entries. Default 256 MiB (268,435,456).
        pub bytes: usize [1..] = 256 << 20,
        /// Waiting entries. Default 1,000,000.
        pub entries: usize [1..] = 1_000_000,
        /// How long an entry of a zone waits, in seconds. Default 3,600; 0 = without limit.
        pub age_s: u64 = 3_600,
        /// `[storage.journal.spool]`
        pub spool: SpoolConfig,
    }

    /// `[storage.journal.spool]`: the journal's write-ahead log on disk, so that nothing accepted is lost if
    /// the gateway crashes during an outage.
    #[derive(Debug)]
    pub struct SpoolConfig in "storage.journal.spool" {
        /// The directory, used by this gateway alone. Unset: there is no spool.
        pub data_dir: Option<PathBuf>,
        /// When what was written is on the disk itself. Default `always`.
        pub fsync: SpoolFsync = SpoolFsync::Always,
        /// Bytes of the entries in the spool. Default 256 MiB (268,435,456).
        pub bytes: u64 [1..] = 256 << 20,
        /// How long the disk may take to store an entry, in milliseconds. Default 1,000.
        pub deadline_ms: u64 [1..] = 1_000,
        /// Whether an entry is refused if the disk has not stored it in time. Default true; false: it then
        /// waits in memory only.
        pub required: bool = true,
    }
}

/// When what was written is on the disk itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Before it is accepted.
    #[default]
    Always,
    /// Every `fsync_interval_ms`.
    Interval,
    /// When the operating system decides.
    Never,
}

/// When what was spooled is on the disk itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoolFsync {
    /// Before it is accepted: it survives a crash of the machine.
    #[default]
    Always,
    /// When the operating system decides: it survives a crash of the process. After a crash of the machine
    /// the file may be unreadable.
    Never,
}
