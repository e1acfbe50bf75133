//! `zonewire-exchange`: a stand-in for an exchange, to try feeds on.

use std::time::Duration;

use clap::Parser as _;
use zonewire_kit::exchange::{Exchange, Faults, Speaks};

const EXAMPLES: &str = "\
Examples:
  zonewire-exchange --speaks binance
  zonewire-exchange --speaks kraken --symbol BTC-USD --port 9001 --seed 7
  zonewire-exchange --speaks coinbase --symbol BTC-USD --lost 0.01 --cuts 0.001

It says the settings of a gateway that feeds on it, and runs until Ctrl-C. Faults are shares of the frames, \
0 to 1.";

/// Speak the public protocol of an exchange, with a market that is made up.
#[derive(Debug, clap::Parser)]
#[command(name = "zonewire-exchange", version, after_help = EXAMPLES)]
struct Args {
    /// Whose protocol
    #[arg(long, value_enum, default_value = "binance")]
    speaks: Kind,
    /// What is traded, as BASE-QUOTE
    #[arg(long, default_value = "BTC-USDT")]
    symbol: String,
    /// Where it listens on this machine; 0 for any
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The same seed gives the same market
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often something happens, in milliseconds
    #[arg(long, default_value_t = 100)]
    step_ms: u64,
    /// Frames that are not sent
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    lost: f64,
    /// Frames that are sent after the next one
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    swapped: f64,
    /// What is sent besides, and is no frame
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    garbage: f64,
    /// Frames whose numbers are none
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    lies: f64,
    /// Frames before which it is silent for a second
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    stalls: f64,
    /// Frames in place of which the connection is cut
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    cuts: f64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Binance,
    Coinbase,
    Kraken,
}

fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Runs it until Ctrl-C.
///
/// # Errors
/// It cannot listen.
pub fn run() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (speaks, kind) = match args.speaks {
            Kind::Binance => (Speaks::Binance, "binance"),
            Kind::Coinbase => (Speaks::Coinbase, "coinbase"),
            Kind::Kraken => (Speaks::Kraken, "kraken"),
        };
        let step = Duration::from_millis(args.step_ms.max(1));
        let exchange = Exchange::start(speaks, &args.symbol, args.port, args.seed, step).await?;
        let Args { lost, swapped, garbage, lies, stalls, cuts, .. } = args;
        exchange.set_faults(Faults { lost, swapped, garbage, lies, stalls, cuts });
        println!("[[feeds.exchanges]]\nkind = \"{kind}\"\nurl = \"{}\"", exchange.url());
        if speaks == Speaks::Binance {
            println!("api_url = \"{}\"", exchange.api_url());
        }
        println!("symbols = [\"{}\"]", args.symbol);
        tokio::signal::ctrl_c().await?;
        let (first, last) = exchange.trades();
        println!("# trades {first} to {last}, {} connections", exchange.connections());
        Ok(())
    })
}
