//! The command line: parses the arguments, runs the command, and returns the exit code.

mod argument_errors;
mod channel;
mod config_args;
mod config_cmd;
pub mod exit;
mod fleet;
mod health;
mod holder;
mod init;
mod key;
mod order;
mod print;
mod publish;
mod raw_json;
mod relay;
mod replay;
mod schema;
mod serve;
mod stats;
mod table;
mod tail;
mod target;
mod token;
mod zones;

use std::error::Error as _;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use self::config_args::Hidden;
use crate::client;

/// Keeps market data flowing to browsers: with Redis, without it, and when that changes.
#[derive(Debug, Parser)]
#[command(
    name = "zonewire",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Try `zonewire demo`, then `zonewire tail pjm`. `--help` says more than `-h`.",
    after_long_help = AFTER_LONG_HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_LONG_HELP: &str = "\
Examples:
  zonewire demo                                    a gateway with made-up prices, no Redis needed
  zonewire tail pjm ercot --pretty                 watch two zones
  zonewire latest pjm                              the latest price of each key
  zonewire publish pjm --key 'WESTERN HUB' --price 41.2
  zonewire replay trades.csv --zone btc-usdt --speed 10
  zonewire order place SOL USDC 1.5 --watch
  zonewire serve --config zonewire.toml            a real gateway
  zonewire config init /etc/zonewire               with authentication
  zonewire config default > zonewire.toml          every setting, explained

Exit codes:
  0    all went well
  1    could not start, failed on the way, or the order that was followed failed
  64   bad usage or bad configuration
  70   the gateway ended because of a bug; start it again
  74   the gateway ended with accepted entries that neither Redis nor a spool stored
  130  a second signal ended a graceful shutdown";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    #[command(after_help = serve::SERVE_EXAMPLES)]
    Serve(serve::ServeArgs),
    /// Run the gateway with made-up prices of seven power markets
    #[command(after_help = serve::DEMO_EXAMPLES)]
    Demo(serve::DemoArgs),
    /// Print entries as they arrive, one JSON object per line
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::TailArgs),
    /// List the zones that have prices
    #[command(after_help = zones::LIST_EXAMPLES)]
    Zones(zones::ZonesArgs),
    /// Show the latest entry of each key of a zone, or of a type of events
    #[command(after_help = zones::LATEST_EXAMPLES)]
    Latest(zones::LatestArgs),
    /// Show the newest entries of a zone's log, or of that of a type of events
    #[command(after_help = zones::HISTORY_EXAMPLES)]
    History(zones::HistoryArgs),
    /// Publish prices to a zone, or events
    #[command(after_help = publish::EXAMPLES, override_usage = publish::USAGE)]
    Publish(publish::PublishArgs),
    /// Publish the prices of a CSV or NDJSON file to a running gateway
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
    /// Relay events from the Redis of one fleet of gateways to that of another
    #[command(after_help = relay::EXAMPLES)]
    Relay(relay::RelayArgs),
    /// Place, follow and manage orders
    #[command(after_help = order::EXAMPLES)]
    Order(order::OrderArgs),
    /// Show the health of a gateway
    #[command(after_help = health::EXAMPLES)]
    Health(health::HealthArgs),
    /// Show what a gateway has counted since its start
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::StatsArgs),
    /// Check, show and explain the configuration
    #[command(subcommand)]
    Config(config_cmd::ConfigCommand),
    /// Make and list API keys
    #[command(subcommand, after_help = key::EXAMPLES)]
    Key(key::KeyCommand),
    /// Make, show and revoke tokens
    #[command(subcommand, after_help = token::EXAMPLES)]
    Token(token::TokenCommand),
    /// Print a machine-readable description of the protocol
    #[command(after_help = schema::EXAMPLES)]
    Schema(schema::SchemaArgs),
    /// Write a completion script for a shell
    #[command(
        after_help = "Example:\n  zonewire completions bash > ~/.local/share/bash-completion/completions/zonewire"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of the program; `args` begins with the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    program(args, run)
}

/// Runs a program of this family, which shares its error messages and exit codes. `args` begins with the
/// program's name.
pub fn program<T: Parser>(
    args: impl IntoIterator<Item = OsString>,
    run: impl FnOnce(T) -> anyhow::Result<()>,
) -> ExitCode {
    // Two libraries use TLS, and both use this provider. If a provider is installed already, that one is
    // used.
    drop(rustls::crypto::ring::default_provider().install_default());
    match T::try_parse_from(args) {
        Ok(arguments) => exit::report(&run(arguments)),
        Err(error) => {
            let code = if error.use_stderr() { exit::USAGE } else { exit::CLEAN };
            // If printing the error fails, nobody can be informed.
            match in_words(&error) {
                Some(text) => drop(io::Write::write_all(&mut io::stderr(), text.as_bytes())),
                None => drop(error.print()),
            }
            ExitCode::from(code)
        }
    }
}

/// Plain words for an argument's error, if the error is one of the standard library's parsers.
fn in_words(error: &clap::Error) -> Option<String> {
    let source = error.source()?;
    let words = argument_errors::of_argument(source)?;
    Some(error.render().to_string().replace(&source.to_string(), &words))
}

fn run(Cli { command }: Cli) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::serve(args),
        Command::Demo(args) => serve::demo(args),
        Command::Tail(args) => client::block_on(tail::run(args)),
        Command::Zones(args) => client::block_on(zones::list(args)),
        Command::Latest(args) => client::block_on(zones::latest(args)),
        Command::History(args) => client::block_on(zones::history(args)),
        Command::Publish(args) => client::block_on(publish::run(args)),
        Command::Replay(args) => client::block_on(replay::run(args)),
        Command::Relay(args) => relay::run(args),
        Command::Order(args) => client::block_on(order::run(args)),
        Command::Health(args) => client::block_on(health::run(args)),
        Command::Stats(args) => client::block_on(stats::run(args)),
        Command::Config(command) => config_cmd::run(command),
        Command::Key(command) => key::run(command),
        Command::Token(command) => token::run(command),
        Command::Schema(args) => schema::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "zonewire", &mut script);
            io::Write::write_all(&mut io::stdout().lock(), &script)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
