//! `zonewire-outages`: from arguments to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    zonewire::cli::program(std::env::args_os(), zonewire_lab::outages::run)
}
