//! The sources of settings, in order: later ones override earlier ones.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::fault::Fault;
use super::settings::{OPEN_TABLES, Setting};
use super::{CA_VARIABLE, CERT_VARIABLE, FILE_VARIABLE, KEY_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE};
use crate::support::cgroup;
use crate::support::fault::VARIABLE as TEST_FAULT_VARIABLE;

const PREFIX: &str = "ZONEWIRE_";

/// Variables that other software reads too, and the keys that they set here; `ZONEWIRE_*` override them.
const SHARED_VARIABLES: [(&str, &str); 9] = [
    ("REDIS_URL", "storage.redis.url"),
    ("REDIS_HOST", "storage.redis.host"),
    ("REDIS_PORT", "storage.redis.port"),
    ("REDIS_USERNAME", "storage.redis.username"),
    ("REDIS_PASSWORD", "storage.redis.password"),
    ("REDIS_DB", "storage.redis.db"),
    ("LOG_LEVEL", "log.level"),
    ("UPDATE_BUFFER_TTL", "storage.retention.orders.age_s"),
    ("MAX_BUFFERED_UPDATES", "storage.retention.orders.updates"),
];

/// Variables with our prefix that are not settings. The last two are for tests.
const OTHER_VARIABLES: [&str; 8] = [
    FILE_VARIABLE,
    URL_VARIABLE,
    TOKEN_VARIABLE,
    CA_VARIABLE,
    CERT_VARIABLE,
    KEY_VARIABLE,
    "ZONEWIRE_UPDATE_DOCS",
    TEST_FAULT_VARIABLE,
];

/// The rank of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The file.
    File,
    /// `REDIS_*`, `LOG_LEVEL` and their like.
    SharedVariable,
    /// `ZONEWIRE_*`.
    Variable,
    /// The command line.
    Flag,
}

/// A setting on the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as typed, such as `--listen`.
    pub name: String,
    /// The key that it sets, such as `http.listen`.
    pub key: String,
    /// The value as typed.
    pub value: String,
}

/// All sources of a configuration. The environment is passed in, so tests never change the process' own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file named by a flag; overrides `ZONEWIRE_CONFIG`.
    pub file: Option<PathBuf>,
    /// Environment variables by name; unknown ones are ignored. An empty value counts as unset.
    pub environment: BTreeMap<String, String>,
    /// Flags; a later one wins.
    pub flags: Vec<Flag>,
    /// Bytes of memory that the gateway may use; some defaults are at most a share of it. `None` leaves
    /// them unchanged.
    pub memory: Option<u64>,
}

// Values may be secrets, in the environment even other programs', so only names are printed.
impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flag").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment", &self.environment.keys())
            .field("flags", &self.flags)
            .field("memory", &self.memory)
            .finish()
    }
}

impl Sources {
    /// The memory that this process may use: the machine's, or the limit of its cgroup or one above it,
    /// whichever is least.
    pub fn memory_of_process() -> Option<u64> {
        cgroup::memory(Path::new("/"))
    }

    /// The environment of this process, without what is not UTF-8, because no setting is.
    pub fn environment_of_process() -> BTreeMap<String, String> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }
}

/// All settings as they were read, in ascending rank, and the file that was read.
pub(super) fn collect(sources: &Sources, faults: &mut Vec<Fault>) -> (Option<PathBuf>, Vec<Setting>) {
    let mut settings = Vec::new();
    let file = sources.file.clone().map(|path| (path, "--config".to_owned())).or_else(|| {
        let named = sources.environment.get(FILE_VARIABLE).filter(|path| !path.is_empty())?;
        Some((PathBuf::from(named), format!("environment variable {FILE_VARIABLE}")))
    });
    if let Some((path, named_by)) = &file {
        match read_file(path, named_by) {
            Ok(said) => settings.extend(said),
            Err(fault) => faults.push(fault),
        }
    }
    settings.extend(of_environment(&sources.environment));
    settings.extend(sources.flags.iter().map(|flag| Setting {
        rank: Rank::Flag,
        path: path_of(&flag.key, "."),
        value: flag.value.clone().into(),
        origin: format!("flag {}", flag.name),
    }));
    (file.map(|(path, _)| path), settings)
}

/// The settings in the environment, in ascending rank.
pub(super) fn of_environment(environment: &BTreeMap<String, String>) -> impl Iterator<Item = Setting> {
    shared_variables(environment).chain(variables(environment))
}

fn read_file(path: &Path, named_by: &str) -> Result<Vec<Setting>, Fault> {
    let origin = format!("file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| {
        Fault::new("", &origin, format!("cannot be read ({error}); it was named by {named_by}"))
    })?;
    of_file(&text, &origin)
}

/// The settings in a file.
pub(super) fn of_file(text: &str, origin: &str) -> Result<Vec<Setting>, Fault> {
    let mut settings = Vec::new();
    flatten(&mut Vec::new(), &read_toml(text, origin)?, origin, &mut settings);
    Ok(settings)
}

fn read_toml(text: &str, origin: &str) -> Result<Dict, Fault> {
    let fault = |problem| Fault::new("", origin, problem);
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        // The error's `Display` would quote the line, which may contain a secret.
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(""));
        let line = before.matches('\n').count() + 1;
        fault(format!("line {line} is not TOML: {}", error.message().replace('\n', ", ")))
    })?;
    let value = Value::serialize(table).map_err(|error| fault(error.to_string()))?;
    Ok(value.into_dict().unwrap_or_default())
}

fn flatten(path: &mut Vec<String>, table: &Dict, origin: &str, settings: &mut Vec<Setting>) {
    for (name, value) in table {
        path.push(name.clone());
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => flatten(path, inner, origin, settings),
            _ => settings.push(Setting {
                rank: Rank::File,
                path: path.clone(),
                value: value.clone(),
                origin: origin.to_owned(),
            }),
        }
        path.pop();
    }
}

fn shared_variables(environment: &BTreeMap<String, String>) -> impl Iterator<Item = Setting> {
    SHARED_VARIABLES.into_iter().filter_map(|(variable, key)| {
        let value = environment.get(variable).filter(|value| !value.is_empty())?;
        // Kubernetes sets REDIS_PORT=tcp://… in every pod beside a service called `redis`.
        if variable == "REDIS_PORT" && value.starts_with("tcp://") {
            return None;
        }
        Some(Setting {
            rank: Rank::SharedVariable,
            path: path_of(key, "."),
            value: value.clone().into(),
            origin: format!("environment variable {variable}"),
        })
    })
}

fn variables(environment: &BTreeMap<String, String>) -> impl Iterator<Item = Setting> {
    let ours = environment.iter().filter(|(name, value)| {
        name.starts_with(PREFIX)
            && !value.is_empty()
            && !OTHER_VARIABLES.contains(&name.as_str())
            && !is_set_by_kubernetes(name, value)
    });
    ours.map(|(name, value)| Setting {
        rank: Rank::Variable,
        path: path_of(&name[PREFIX.len()..].to_lowercase(), "__"),
        value: value.clone().into(),
        origin: format!("environment variable {name}"),
    })
}

/// Kubernetes describes a service called `zonewire` to every pod beside it: `ZONEWIRE_SERVICE_HOST`,
/// `ZONEWIRE_SERVICE_PORT[_<NAME>]`, `ZONEWIRE_PORT=tcp://…`, `ZONEWIRE_PORT_<n>_TCP[_…]`.
fn is_set_by_kubernetes(name: &str, value: &str) -> bool {
    let rest = &name[PREFIX.len()..];
    let is_numbered = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_digit()) && (rest.contains("_TCP") || rest.contains("_UDP"))
    };
    rest == "SERVICE_HOST"
        || rest == "SERVICE_PORT"
        || rest.starts_with("SERVICE_PORT_")
        || (rest == "PORT" && value.starts_with("tcp://"))
        || rest.strip_prefix("PORT_").is_some_and(is_numbered)
}

/// Splits a key into its parts, except for names in tables with free keys: a zone's name may contain dots.
fn path_of(key: &str, separator: &str) -> Vec<String> {
    for table in OPEN_TABLES {
        let head: String = table.iter().map(|part| format!("{part}{separator}")).collect();
        if let Some(name) = key.strip_prefix(&head) {
            return table.iter().copied().chain([name]).map(str::to_owned).collect();
        }
    }
    key.split(separator).map(str::to_owned).collect()
}
