//! `config`: checks, shows and explains the configuration.

use std::io::{self, Write as _};

use super::config_args::ConfigArgs;
use super::init::{self, InitArgs};
use crate::config::DEFAULT_TOML;

/// Commands about the configuration.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration; every fault is reported at once
    Check(ConfigArgs),
    /// Print the effective values as TOML with their origins; secrets are masked
    Show(ConfigArgs),
    /// Print a file with every setting, explained, at its default
    Default,
    /// Write a configuration with authentication that works, with a secret for tokens and a key for you
    Init(InitArgs),
}

pub(crate) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match command {
        ConfigCommand::Check(args) => {
            let loaded = args.load(Vec::new())?;
            let file = loaded.file.map(|file| format!(" ({})", file.display())).unwrap_or_default();
            writeln!(out, "the configuration is good{file}")?;
            if let Some(warning) = loaded.warning {
                writeln!(out, "warning: {warning}")?;
            }
            for notice in loaded.notices {
                writeln!(out, "warning: {notice}")?;
            }
        }
        ConfigCommand::Show(args) => out.write_all(args.load(Vec::new())?.show().as_bytes())?,
        ConfigCommand::Init(args) => {
            // `init` writes to stdout by itself.
            drop(out);
            return init::run(&args);
        }
        ConfigCommand::Default => out.write_all(DEFAULT_TOML.as_bytes())?,
    }
    Ok(())
}
