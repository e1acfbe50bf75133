//! Probes a Redis once: can it serve, and if not, why?

use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use tokio::time;

use super::connect::probe_client;
use super::errors::{Said, is_from_server, sanitize};
use super::link::AbortOnDrop;
use super::prove::prove;
use super::target::Target;
use crate::storage::{Lost, RedisConfig, StorageError};

/// The longest time that a probe takes, whatever the configured timeouts are.
const PROBE_LIMIT: Duration = Duration::from_millis(900);

/// Why a Redis cannot serve. Texts hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// Nothing listens there, or the host name is unknown.
    #[error("nothing answers at that address ({0})")]
    Unreachable(String),
    /// Something listens, but does not answer in time.
    #[error("it does not answer in time")]
    NoAnswer,
    /// The user or the password is wrong.
    #[error("it refuses the user or the password")]
    WrongPassword,
    /// It requires a password, and none is configured.
    #[error("it requires a password, and none is configured")]
    PasswordRequired,
    /// It is reading its data from disk.
    #[error("it is still loading its data")]
    Loading,
    /// It is a replica.
    #[error("it is a read-only replica; the address of the primary is needed")]
    ReadOnly,
    /// The user lacks permissions.
    #[error("its user lacks permissions that are needed ({0})")]
    NoPermission(String),
    /// It has reached `maxmemory`.
    #[error("it is out of memory")]
    OutOfMemory,
    /// The configuration cannot be right. The text says what would be.
    #[error("{0}")]
    InvalidConfig(String),
    /// It gave an unexpected answer.
    #[error("it answered something unexpected ({0})")]
    Unexpected(String),
}

impl ProbeFailure {
    /// A stable word for health, metrics and clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::NoAnswer => "no_answer",
            Self::WrongPassword => "wrong_password",
            Self::PasswordRequired => "password_required",
            Self::Loading => "loading",
            Self::ReadOnly => "read_only",
            Self::NoPermission(_) => "no_permission",
            Self::OutOfMemory => "out_of_memory",
            Self::InvalidConfig(_) => "invalid_config",
            Self::Unexpected(_) => "unexpected",
        }
    }

    /// Sorts an error of fred.
    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Timeout => Self::NoAnswer,
            // Errors of rustls, such as an unknown authority.
            ErrorKind::IO if error.details().contains("kind: InvalidData") => {
                Self::Unexpected(format!("TLS: {}", sanitize(error.details())))
            }
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing => {
                Self::Unreachable(io_text(error.details()))
            }
            ErrorKind::Sentinel => Self::of_sentinel(error.details()),
            ErrorKind::Tls => Self::Unexpected(format!("TLS: {}", sanitize(error.details()))),
            _ => Self::of_answer(error.details()),
        }
    }

    /// Sorts an error from asking sentinels, or from the primary that they named.
    fn of_sentinel(text: &str) -> Self {
        match text {
            _ if is_from_server(text) => Self::of_answer(text),
            _ if text.starts_with("Missing primary") => {
                Self::InvalidConfig("the sentinels know no primary of that name".to_owned())
            }
            _ if text.starts_with("Invalid role") => Self::ReadOnly,
            _ if text.contains("timed out") => Self::NoAnswer,
            _ => Self::Unreachable(io_text(text)),
        }
    }

    /// Sorts a failed call.
    pub(super) fn of_call(error: &StorageError) -> Self {
        let said = |cause: &(dyn std::error::Error + Send + Sync + 'static)| {
            cause.downcast_ref::<Said>().map_or_else(|| sanitize(&cause.to_string()), |said| said.0.clone())
        };
        match error {
            StorageError::Deadline { .. } => Self::NoAnswer,
            StorageError::Unreachable { cause, .. } => Self::Unreachable(said(cause.as_ref())),
            StorageError::Refused { cause, .. } => Self::of_answer(&said(cause.as_ref())),
            StorageError::Unknown { .. } | StorageError::NotDurable { .. } => {
                Self::Unexpected(error.to_string())
            }
            StorageError::Corrupt { cause, .. } => Self::Unexpected(said(cause.as_ref())),
        }
    }

    /// Sorts an error answer of the server by its first word.
    fn of_answer(text: &str) -> Self {
        match text.split_whitespace().next().unwrap_or_default() {
            "WRONGPASS" => Self::WrongPassword,
            "NOAUTH" => Self::PasswordRequired,
            "LOADING" => Self::Loading,
            "READONLY" => Self::ReadOnly,
            "NOPERM" => Self::NoPermission(sanitize(text)),
            "OOM" => Self::OutOfMemory,
            "MOVED" => Self::InvalidConfig(
                "it is a node of a cluster; begin the URL with `redis-cluster`, or set `cluster = true`"
                    .to_owned(),
            ),
            _ if text.contains("invalid password") => Self::WrongPassword,
            // Some servers require no password, and refuse one.
            _ if text.contains("no password is set") || text.contains("without any password") => {
                Self::WrongPassword
            }
            _ if text.contains("user executing the script can't") => Self::NoPermission(sanitize(text)),
            _ => Self::Unexpected(sanitize(text)),
        }
    }
}

impl From<&ProbeFailure> for Lost {
    fn from(failure: &ProbeFailure) -> Self {
        Self { code: failure.code(), reason: failure.to_string() }
    }
}

/// fred prints the operating system's error in debug form; people need its message.
fn io_text(details: &str) -> String {
    if details.contains("failed to lookup address") {
        return "there is no host of that name".to_owned();
    }
    let message = details.split_once("message: \"").and_then(|(_, rest)| rest.split('"').next());
    sanitize(message.unwrap_or(details)).to_lowercase()
}

/// Connects and runs one script that makes every kind of write that we make. Returns the address for people,
/// within a second.
///
/// A connection alone proves little: a replica accepts it, and so does a server for a user without write
/// permission.
pub(in crate::storage) async fn probe(config: &RedisConfig) -> Result<String, ProbeFailure> {
    let target = Target::from_config(config).map_err(ProbeFailure::InvalidConfig)?;
    match time::timeout(PROBE_LIMIT, ask(&target, config)).await {
        Ok(answer) => answer.map(|()| target.to_string()),
        Err(_) => Err(ProbeFailure::NoAnswer),
    }
}

async fn ask(target: &Target, config: &RedisConfig) -> Result<(), ProbeFailure> {
    let client = probe_client(target, config).map_err(|error| ProbeFailure::of(&error))?;
    let task = client.init().await.map_err(|error| ProbeFailure::of(&error))?;
    // If this is dropped mid-call, the connection closes.
    let _task = AbortOnDrop(task.abort_handle());
    prove(&client, target, &config.prefix).await.map_err(|error| ProbeFailure::of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_operating_system_become_readable() {
        for (details, expected) in [
            (
                r#"Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }"#,
                "connection refused",
            ),
            (
                r#"Custom { kind: Uncategorized, error: "failed to lookup address information: Name or service not known" }"#,
                "there is no host of that name",
            ),
            ("Connection closed unexpectedly.", "connection closed unexpectedly."),
        ] {
            assert_eq!(io_text(details), expected);
        }
    }
}
