//! Exit codes; documented in `docs/CONFIG.md` and in the help.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::gateway::RunError;
use crate::support::telemetry;

/// Success; also after a graceful shutdown.
pub const CLEAN: u8 = 0;
/// The command could not start, or it failed on the way.
pub const FAILED: u8 = 1;
/// Bad usage or bad configuration: another try without a change cannot help.
pub const USAGE: u8 = 64;
/// A part of the gateway panicked: a bug. The supervisor should restart the gateway.
pub const BROKEN: u8 = 70;
/// A gateway ended with accepted entries or orders that are stored nowhere else.
pub const LOST: u8 = 74;
/// A second signal ended a graceful shutdown, or a signal ended a check of outages.
pub const INTERRUPTED: u8 = 130;

/// Invalid arguments that are only detected when the command uses them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// A second signal ended a graceful shutdown.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a second signal; connections were cut")]
pub(crate) struct Interrupted;

/// A signal ended a command that has nothing to finish.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Stopped;

/// The code for how a command ended.
pub(crate) fn code(result: &anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => CLEAN,
        Err(error) if error.is::<Interrupted>() || error.is::<Stopped>() => INTERRUPTED,
        Err(error) if error.is::<UsageError>() || error.is::<ConfigError>() => USAGE,
        Err(error) if matches!(error.downcast_ref(), Some(RunError::Lost { .. })) => LOST,
        Err(error) if error.is::<RunError>() => BROKEN,
        // The program that reads the output has closed it (`zonewire tail pjm | head`).
        Err(error) if is_broken_pipe(error) => CLEAN,
        Err(_) => FAILED,
    }
}

/// Prints an error to stderr and returns the exit code.
pub(crate) fn report(result: &anyhow::Result<()>) -> ExitCode {
    let code = code(result);
    if let Err(error) = result
        && code != CLEAN
    {
        telemetry::last_words(&format!("error: {error:#}"));
    }
    ExitCode::from(code)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn each_end_has_its_code() {
        let usage = Err(UsageError("no".to_owned()).into());
        let bad_config = Err(ConfigError { faults: Vec::new() }.into());
        for (result, expected) in [
            (Ok(()), CLEAN),
            (usage, USAGE),
            (bad_config, USAGE),
            (Err(Interrupted.into()), INTERRUPTED),
            (Err(Stopped.into()), INTERRUPTED),
            (Err(RunError::Failed { part: "fan-out" }.into()), BROKEN),
            (Err(RunError::Lost { entries: 1, orders: 0 }.into()), LOST),
            (Err(anyhow::anyhow!("broken")), FAILED),
            (Err(io::Error::from(io::ErrorKind::BrokenPipe).into()), CLEAN),
            (Err(io::Error::from(io::ErrorKind::NotFound).into()), FAILED),
        ] {
            assert_eq!(code(&result), expected, "{result:?}");
        }
        let wrapped: anyhow::Result<()> = Err(UsageError("no".to_owned())).context("in FILE");
        assert_eq!(code(&wrapped), USAGE);
    }
}
