//! Command-line flags that are settings.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::{Config, ConfigError, Flag, Loaded, Sources};

/// Settings on the command line; they override the environment and the file.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings")]
pub(crate) struct ConfigArgs {
    /// A TOML file; see `zonewire config default`
    ///
    /// The environment variable ZONEWIRE_CONFIG does the same. If neither is set, no file is read.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8080]
    ///
    /// Any address but loopback requires authentication, or auth.mode = "off".
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Where entries are stored [default: auto]
    ///
    /// auto: Redis if it answers at startup, otherwise memory. memory: Redis is never used. redis: Redis;
    /// memory only while Redis does not answer.
    #[arg(long, value_name = "KIND", value_parser = ["auto", "memory", "redis"], hide_possible_values = true)]
    pub(crate) storage: Option<String>,
    /// Address of Redis; better set as REDIS_URL, since other users can see flags
    ///
    /// redis://[user:password@]host[:port][/db], or rediss:// for TLS. Every user of this machine can see
    /// flags (`ps`): if the address has a password, set REDIS_URL or ZONEWIRE_STORAGE__REDIS__URL instead.
    #[arg(long, value_name = "URL")]
    pub(crate) redis_url: Option<Hidden>,
    /// Roles of this process [default: gateway,worker]
    ///
    /// gateway: serves clients. worker: executes orders.
    #[arg(long, value_name = "ROLES")]
    pub(crate) roles: Option<String>,
    /// Any other setting, such as `http.shards=2`; may be repeated
    ///
    /// The keys are those of the file; `zonewire config default` explains them. The environment variable
    /// for http.shards is ZONEWIRE_HTTP__SHARDS.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<Assignment>,
}

/// An argument that is never printed, because it may contain a password.
#[derive(Clone)]
pub struct Hidden(String);

impl Hidden {
    /// The text; must not be printed.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `KEY=VALUE`
#[derive(Clone)]
pub(crate) struct Assignment {
    key: String,
    value: String,
}

impl FromStr for Assignment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self { key: key.trim().to_owned(), value: value.trim().to_owned() })
            }
            _ => Err("expected KEY=VALUE, such as http.shards=2"),
        }
    }
}

impl Assignment {
    /// This setting, as set by the flag `name`.
    pub(super) fn flag(&self, name: &str) -> Flag {
        flag(name, &self.key, &self.value)
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

/// The setting `key`, set by the flag `name`.
pub(super) fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

impl ConfigArgs {
    /// Loads the configuration of this process; `more` are the flags that only one command has.
    pub(crate) fn load(&self, more: Vec<Flag>) -> Result<Loaded, ConfigError> {
        let (environment, memory) = (Sources::environment_of_process(), Sources::memory_of_process());
        let (file, flags) = (self.config.clone(), self.flags(more));
        Config::load(&Sources { file, environment, flags, memory })
    }

    fn flags(&self, more: Vec<Flag>) -> Vec<Flag> {
        // `--set` comes first: of two flags for the same setting the dedicated one wins.
        let mut flags: Vec<Flag> = self.set.iter().map(|set| set.flag("--set")).collect();
        flags.extend(self.listen.iter().map(|value| flag("--listen", "http.listen", value)));
        flags.extend(self.storage.iter().map(|value| flag("--storage", "storage.backend", value)));
        flags.extend(self.redis_url.iter().map(|value| flag("--redis-url", "storage.redis.url", &value.0)));
        flags.extend(self.roles.iter().map(|value| flag("--roles", "node.roles", value)));
        flags.extend(more);
        flags
    }
}
