//! One validated [`Config`] from defaults, a file, the environment and flags.
//!
//! Loading takes two steps: settings are collected with their origin ([`Sources`], `settings`), and then
//! become a [`Config`] whose values are valid, each by itself and together. All faults on the way are
//! collected, so that they can be reported together. Each room owns its part of the configuration.

mod bridge;
mod checks;
mod default;
mod fault;
mod layers;
mod memory;
mod node;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod redis;
mod settings;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use settings::Setting;
use zonewire_protocol::SettingView;

pub use self::default::DEFAULT_TOML;
pub use self::fault::{ConfigError, Fault};
pub use self::layers::{Flag, Sources};
pub use self::node::{NodeConfig, Role};
pub use crate::access::{
    Allowances, AuthConfig, CertificateConfig, IssuerConfig, LimitsConfig, Mode as AuthMode, RoleAllowances,
};
pub use crate::bridge::{BridgeConfig, BridgeRole, BridgedType};
pub use crate::channels::ChannelsConfig;
pub use crate::connections::ConnectionsConfig;
pub use crate::feeds::{
    Delimiter, ExchangeConfig, ExchangeKind, FeedsConfig, Interval, ReplayConfig, RowsConfig,
    SimulatedConfig, TimeFormat, TimeZone,
};
pub use crate::http::{ClientAuth, HttpConfig, OperatorsConfig, ProxyProtocol, TlsConfig};
pub use crate::orders::{ExecutorChoice, InteropConfig, OrdersConfig, PaperConfig};
pub use crate::registry::RegistryConfig;
pub use crate::storage::{StorageChoice, StorageConfig};
pub use crate::support::telemetry::{LogConfig, LogFormat};

/// The environment variable that names the file; `--config` overrides it.
pub const FILE_VARIABLE: &str = "ZONEWIRE_CONFIG";

/// The environment variable with the gateway's address, for commands that talk to one. Not a setting.
pub const URL_VARIABLE: &str = "ZONEWIRE_URL";

/// The environment variable with the token for such commands. Not a setting.
pub const TOKEN_VARIABLE: &str = "ZONEWIRE_TOKEN";

/// The environment variables with the files that such commands use for TLS: authorities to trust, and a
/// client certificate with its key. Not settings.
pub const CA_VARIABLE: &str = "ZONEWIRE_CA_FILE";
/// See [`CA_VARIABLE`].
pub const CERT_VARIABLE: &str = "ZONEWIRE_CERT_FILE";
/// See [`CA_VARIABLE`].
pub const KEY_VARIABLE: &str = "ZONEWIRE_KEY_FILE";

/// All settings of a gateway.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[node]`
    pub node: NodeConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[auth]`
    pub auth: AuthConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[connections]`
    pub connections: ConnectionsConfig,
    /// `[channels]`
    pub channels: ChannelsConfig,
    /// `[storage]`
    pub storage: StorageConfig,
    /// `[orders]`
    pub orders: OrdersConfig,
    /// `[feeds]`
    pub feeds: FeedsConfig,
    /// `[registry]`
    pub registry: RegistryConfig,
    /// `[bridge]`
    pub bridge: BridgeConfig,
    /// `[interop]`
    pub interop: InteropConfig,
    /// `[log]`
    pub log: LogConfig,
}

/// A configuration, and the origin of each value that is not a default.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Key to origin, such as `http.listen` to `environment variable ZONEWIRE_HTTP__LISTEN`.
    pub origins: BTreeMap<String, String>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// A valid setting that may be a mistake: bounds that add up to more than the available memory.
    pub warning: Option<String>,
    /// Environment variables that are ignored or have no effect, and why.
    pub notices: Vec<String>,
}

impl Config {
    /// Collects all sources and validates the result.
    ///
    /// # Errors
    /// All faults, each with its key, its origin and what would be right.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut faults = Vec::new();
        let (file, settings) = layers::collect(sources, &mut faults);
        Self::of(sources, file, settings, faults)
    }

    /// Validates settings as they were read, in addition to the faults found so far.
    fn of(
        sources: &Sources,
        file: Option<PathBuf>,
        mut settings: Vec<Setting>,
        mut faults: Vec<Fault>,
    ) -> Result<Loaded, ConfigError> {
        let mut notices = bridge::take(&sources.environment, &mut settings);
        let mut good = settings::accept(settings, &mut faults);
        redis::settle(&mut good, &mut faults);
        let mut origins: BTreeMap<String, String> =
            good.iter().map(|setting| (setting.key(), setting.origin.clone())).collect();
        let mut config = match settings::extract(good) {
            Ok(config) => config,
            Err(error) => {
                // Each setting is valid by itself, so two of them contradict each other.
                faults.push(Fault::new("", "", error.to_string()));
                return Err(ConfigError { faults });
            }
        };
        redis::complete(&mut config.storage.redis, &mut origins);
        if let Some(memory) = sources.memory {
            memory::fit(&mut config, &mut origins, memory);
        }
        // Settings of the wrong type have their defaults here; their own faults have been recorded already.
        let mistyped = faults.len();
        for finding in checks::check(&config) {
            if faults[..mistyped].iter().all(|fault: &Fault| fault.key != finding.key) {
                let origin = origins.get(&finding.key).cloned().unwrap_or_else(|| "default".to_owned());
                faults.push(Fault::new(finding.key, origin, finding.problem));
            }
        }
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        let warning = sources.memory.and_then(|memory| memory::warning(&config, memory));
        notices.extend(bridge::without_effect(&sources.environment, &config));
        Ok(Loaded { config, origins, file, warning, notices })
    }

    /// The same with secrets replaced by `***`, so that it can be shown.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut masked = self.clone();
        redis::mask(&mut masked.storage.redis);
        masked.feeds.mask();
        masked
    }
}

/// A configuration made by a program: the origin of its values is unknown.
impl From<Config> for Loaded {
    fn from(config: Config) -> Self {
        Self { config, origins: BTreeMap::new(), file: None, warning: None, notices: Vec::new() }
    }
}

impl Loaded {
    /// The effective values one by one, with secrets masked.
    pub fn settings(&self) -> Vec<SettingView> {
        show::settings(self)
    }

    /// The effective values as TOML, with secrets masked, each with its origin as a comment.
    pub fn show(&self) -> String {
        show::show(&self.config.masked(), &self.origins)
    }
}

#[cfg(test)]
mod tests;
