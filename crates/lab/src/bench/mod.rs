//! `zonewire-bench`: a load generator for any WebSocket server.
//!
//! One event loop holds all connections (`event_loop`), a second thread publishes (`publisher`), and the main
//! thread only watches counters and decides when a phase is over. None of this knows the gateway: subscribers
//! look for `"seq":` and `"sent_ns":` in whatever envelope the server puts around a published line, so that
//! other servers, and the bare `limit-server`, are measured by the same code.
//!
//! Two subcommands do know it, `order-updates` and `order-throughput`: they place orders and report on them
//! over HTTP (`keep_alive`). Others start gateways themselves: `handshakes`, `hostile`, and `events`, which
//! starts two of them on a Redis. `registry` runs its gateways in its own process, as a program does that
//! embeds one, and `dead-primary` a storage.
//!
//! Every run ends by itself. Only loopback addresses are accepted, unless `--allow-remote` says that the
//! other machine may be put under load.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use self::report::emit;

mod access;
mod client;
mod clock;
mod common;
mod connect;
mod connection;
pub(crate) mod cpu;
mod credential;
mod dead_primary;
mod event_loop;
mod events;
mod fanout;
mod frame;
mod handshake;
mod handshakes;
mod hostile;
mod idle;
mod keep_alive;
mod order_throughput;
mod order_updates;
mod payload;
mod publisher;
mod registry;
mod report;
mod sequence;
mod target;
mod watch;

/// Measure a WebSocket server.
#[derive(Debug, Parser)]
#[command(name = "zonewire-bench", version, max_term_width = 100)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
    /// Write the report as JSON to FILE, or to standard output with `-`.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Publish to many subscribers; check order and loss, measure latency and the server's CPU.
    Fanout(fanout::FanoutArgs),
    /// Hold many silent connections and measure what each costs the server in memory.
    Idle(idle::IdleArgs),
    /// Open and close connections over and over.
    Connect(connect::ConnectArgs),
    /// The same with each kind of token, against gateways started for it; measure what it costs to
    /// identify a client.
    Handshakes(handshakes::HandshakesArgs),
    /// Measure how long it takes, in this process, to identify a client and to decide what it may do.
    Access(access::AccessArgs),
    /// Publish events at one gateway and follow them at another, both started for it; check loss, and measure
    /// the lag and the CPU time of the gateways and Redis per event.
    Events(events::EventsArgs),
    /// Measure how fast records are read in the gateway's own process, how far the log lags behind writes,
    /// and how soon gateways that were cut off from Redis hold the same.
    Registry(registry::RegistryArgs),
    /// Append to channels of a Redis Cluster while one of its primaries is dead and many channels of that one
    /// are forked, in this process; measure what the channels of the other primaries wait.
    DeadPrimary(dead_primary::DeadPrimaryArgs),
    /// Attack a gateway that is started for it in each way that `docs/SECURITY.md` lists; measure the effect
    /// on another client, and the gateway's memory.
    Hostile(hostile::HostileArgs),
    /// Post updates of orders to a gateway; check order and loss, and measure how soon each arrives on its
    /// order's socket.
    OrderUpdates(order_updates::OrderUpdatesArgs),
    /// Place orders as fast as a gateway accepts them, and measure how soon all have ended.
    OrderThroughput(order_throughput::OrderThroughputArgs),
}

/// Runs one measurement to its end and prints its report.
pub fn run(BenchArgs { command, json }: BenchArgs) -> anyhow::Result<()> {
    let json = json.as_deref();
    match command {
        BenchCommand::Fanout(args) => emit("fanout", &fanout::run(&args)?, json),
        BenchCommand::Idle(args) => emit("idle", &idle::run(&args)?, json),
        BenchCommand::Connect(args) => emit("connect", &connect::run(&args)?, json),
        BenchCommand::Handshakes(args) => emit("handshakes", &handshakes::run(&args)?, json),
        BenchCommand::Access(args) => emit("access", &access::run(&args)?, json),
        BenchCommand::Events(args) => emit("events", &events::run(&args)?, json),
        BenchCommand::Registry(args) => emit("registry", &registry::run(&args)?, json),
        BenchCommand::DeadPrimary(args) => emit("dead-primary", &dead_primary::run(&args)?, json),
        BenchCommand::Hostile(args) => {
            let report = hostile::run(&args)?;
            emit("hostile", &report, json)?;
            report.verdict()
        }
        BenchCommand::OrderUpdates(args) => emit("order-updates", &order_updates::run(&args)?, json),
        BenchCommand::OrderThroughput(args) => emit("order-throughput", &order_throughput::run(&args)?, json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_tree_is_consistent() {
        use clap::CommandFactory;
        BenchArgs::command().debug_assert();
    }
}
