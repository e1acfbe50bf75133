//! `zonewire-exchange`: a stand-in for an exchange, to test feeds with.

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::time;
use zonewire::client::BaseUrl;
use zonewire_kit::exchange::{Exchange, Faults, Speaks};

use crate::node::metric;

const EXAMPLES: &str = "\
Examples:
  zonewire-exchange --speaks binance
  zonewire-exchange --speaks kraken --symbol BTC-USD --port 9001 --seed 7
  zonewire-exchange --speaks coinbase --symbol BTC-USD --lost 0.01 --cuts 0.001
  zonewire-exchange --port 9001 --step-ms 1 --measure http://127.0.0.1:8080

It prints the settings for a gateway that uses it, and runs until Ctrl-C. Faults are shares of the frames, \
0 to 1.";

/// Speak the public protocol of an exchange, with a simulated market.
#[derive(Debug, clap::Parser)]
#[command(name = "zonewire-exchange", version, after_help = EXAMPLES)]
struct Args {
    /// The exchange whose protocol is spoken
    #[arg(long, value_enum, default_value = "binance")]
    speaks: Kind,
    /// The symbol that is traded, as BASE-QUOTE
    #[arg(long, default_value = "BTC-USDT")]
    symbol: String,
    /// The port to listen on; 0 for any
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The same seed gives the same market
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often something happens, in milliseconds
    #[arg(long, default_value_t = 100)]
    step_ms: u64,
    /// A gateway that uses this exchange: print every 5 s how much CPU time it takes for 1,000 frames,
    /// including everything it does with them
    #[arg(long, value_name = "URL")]
    measure: Option<BaseUrl>,
    /// Frames that are not sent
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    lost: f64,
    /// Frames that are sent after the next one
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    swapped: f64,
    /// Texts sent in addition that are not frames
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    garbage: f64,
    /// Frames with invalid numbers
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    lies: f64,
    /// Frames before which nothing is sent for a second
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    stalls: f64,
    /// Frames instead of which the connection is cut
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

/// Runs until Ctrl-C.
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
        let measuring = async {
            match &args.measure {
                Some(gateway) => measure(gateway, kind).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = tokio::signal::ctrl_c() => ended?,
            failed = measuring => return failed,
        }
        let (first, last) = exchange.trades();
        println!("# trades {first} to {last}, {} connections", exchange.connections());
        Ok(())
    })
}

/// Prints again and again what the frames of this exchange cost. Waits for a gateway that does not run yet,
/// since it is started with the settings that this program prints, and ends when the gateway stops answering.
async fn measure(gateway: &BaseUrl, exchange: &str) -> anyhow::Result<()> {
    let http = gateway.http()?;
    let mut before: Option<(f64, f64)> = None;
    let mut is_awaited = false;
    loop {
        let answer = http.get(gateway.endpoint("metrics")).timeout(Duration::from_secs(5)).send().await;
        let answer = match answer {
            Err(error) if before.is_none() => {
                if !std::mem::replace(&mut is_awaited, true) {
                    println!("# waiting for the gateway: {error:#}");
                }
                time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            answer => answer?,
        };
        let metrics = answer.text().await?;
        let frames = format!("zonewire_exchange_frames_total{{exchange=\"{exchange}\"}}");
        let value =
            |name: &str| metric(&metrics, name).with_context(|| format!("the gateway has no metric {name}"));
        let now = (value("process_cpu_seconds_total")?, value(&frames)?);
        if let Some((cpu_s, frames)) = before.replace(now) {
            let (cpu_s, frames) = (now.0 - cpu_s, now.1 - frames);
            let ms = cpu_s * 1e6 / frames.max(1.0);
            println!("# {frames:.0} frames in 5 s, {ms:.2} ms of CPU for 1,000 of them");
        }
        time::sleep(Duration::from_secs(5)).await;
    }
}
