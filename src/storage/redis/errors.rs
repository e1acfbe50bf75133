//! Turns errors of fred and Redis into [`StorageError`]s without secrets.

use std::time::Duration;

use fred::error::{Error, ErrorKind};

use crate::storage::StorageError;

/// What the server or the client library said. Holds no secrets: see [`sanitize`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::storage) struct Said(pub(in crate::storage) String);

/// The longest text that is accepted from outside.
const SAID_LEN_MAX: usize = 200;

/// Makes a text from outside fit for logs: one short line, without the arguments that some servers repeat
/// after an unknown command (which may be AUTH).
pub(in crate::storage) fn sanitize(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(", with args beginning with").next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(SAID_LEN_MAX).collect()
}

/// Sorts an error of fred in the call `op`.
pub(super) fn storage_error(op: &'static str, limit: Duration, error: &Error) -> StorageError {
    let cause = || Box::new(Said(sanitize(error.details()))).into();
    match error.kind() {
        ErrorKind::Timeout => StorageError::Deadline { op, limit },
        ErrorKind::Parse | ErrorKind::Protocol | ErrorKind::NotFound | ErrorKind::InvalidArgument => {
            StorageError::Corrupt { key: op.to_owned(), cause: cause() }
        }
        // fred has no kind for most errors of servers.
        ErrorKind::Auth | ErrorKind::Cluster | ErrorKind::Backpressure | ErrorKind::InvalidCommand => {
            StorageError::Refused { op, cause: cause() }
        }
        _ if is_from_server(error.details()) => StorageError::Refused { op, cause: cause() },
        _ => StorageError::Unreachable { op, cause: cause() },
    }
}

/// For stored or published bytes in a form that we do not write.
pub(super) fn corrupt(key: &str, what: impl Into<String>) -> StorageError {
    StorageError::Corrupt { key: key.to_owned(), cause: Box::new(Said(what.into())).into() }
}

/// Whether an error is from Redis: those begin with a word in capitals, such as `OOM` or `ERR`.
pub(super) fn is_from_server(details: &str) -> bool {
    let word = details.split([' ', ':']).next().unwrap_or_default();
    word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(kind: ErrorKind, details: &'static str) -> &'static str {
        storage_error("append", Duration::from_millis(1), &Error::new(kind, details)).kind()
    }

    #[test]
    fn errors_are_sorted_by_what_the_caller_can_do() {
        assert_eq!(kind(ErrorKind::Timeout, "Request timed out."), "deadline");
        assert_eq!(kind(ErrorKind::IO, "Os { code: 104 }"), "unreachable");
        assert_eq!(kind(ErrorKind::Canceled, "Connection closed unexpectedly."), "unreachable");
        assert_eq!(kind(ErrorKind::Unknown, "Client is not initialized."), "unreachable");
        assert_eq!(kind(ErrorKind::Unknown, "OOM command not allowed"), "refused");
        assert_eq!(kind(ErrorKind::Auth, "NOAUTH Authentication required."), "refused");
        assert_eq!(kind(ErrorKind::InvalidArgument, "WRONGTYPE Operation against a key"), "corrupt");
    }

    #[test]
    fn arguments_that_a_server_repeats_are_omitted() {
        let said = "ERR unknown command 'AUTH', with args beginning with: 'hunter2'\nx";
        assert_eq!(sanitize(said), "ERR unknown command 'AUTH'");
    }
}
