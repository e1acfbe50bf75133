//! `serve` and `demo`: run a gateway until a signal comes.

use std::io;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config_args::ConfigArgs;
use super::exit::Interrupted;
use crate::config::{Config, Flag, Loaded};
use crate::gateway::Gateway;
use crate::support::telemetry;

pub(crate) const SERVE_EXAMPLES: &str = "\
Examples:
  zonewire serve
  zonewire serve --config /etc/zonewire.toml
  REDIS_URL=redis://10.0.0.5 zonewire serve --storage redis
  zonewire serve --set log.format=json --set channels.lanes.trades=every

SIGTERM or Ctrl-C ends it gracefully; a second one at once.";

pub(crate) const DEMO_EXAMPLES: &str = "\
Examples:
  zonewire demo
  zonewire demo --interval-ms 100 --seed 7
Then, elsewhere:
  zonewire tail pjm caiso --pretty";

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The same seed gives the same prices [default: 1]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How often every hub gets a price, in milliseconds [default: 1000]
    #[arg(long, value_name = "MS")]
    interval_ms: Option<u64>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the gateway.
pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<()> {
    start(args.config.load(Vec::new())?)
}

/// Runs the gateway with the simulated feed.
pub(crate) fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let flag = |name: &str, key: &str, value: String| Flag {
        name: name.to_owned(),
        key: format!("feeds.simulated.{key}"),
        value,
    };
    let mut flags = vec![flag("demo", "enabled", "true".to_owned())];
    flags.extend(args.seed.map(|seed| flag("--seed", "seed", seed.to_string())));
    flags.extend(args.interval_ms.map(|interval| flag("--interval-ms", "interval_ms", interval.to_string())));
    start(args.config.load(flags)?)
}

fn start(loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { config, file, warning, .. } = loaded;
    let log = telemetry::init(&config.log).context("cannot set up the log")?;
    if let Some(file) = file {
        tracing::info!(file = %file.display(), "read the config");
    }
    tracing::info!(
        storage.memory.total_bytes = config.storage.memory.total_bytes,
        storage.journal.bytes = config.storage.journal.bytes,
        connections.max = config.connections.max,
        "bounded the memory"
    );
    if let Some(warning) = warning {
        tracing::warn!(warning, "there may be too little memory");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let begin = CancellationToken::new();
        let shutdown = begin.clone().cancelled_owned();
        // The first signal is taken before anything shows that it came: were both there before either
        // was taken, they would count as one.
        let force = async move {
            signals.next().await;
            begin.cancel();
            signals.next().await;
        };
        run(config, shutdown, force).await
    });
    // What still runs now, such as a read of a file, is not worth waiting for.
    runtime.shutdown_background();
    drop(log);
    result
}

/// Runs a gateway until `shutdown`, then gracefully to its end, or until `force`.
///
/// # Errors
/// It could not start, it failed, or it was [`Interrupted`] by `force`.
pub(crate) async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    force: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let serving = async {
        let gateway = Gateway::start(config).await.context("cannot start")?;
        Ok(gateway.run(shutdown).await?)
    };
    tokio::select! {
        result = serving => result,
        () = force => Err(Interrupted.into()),
    }
}

/// What is written past the limit of the size of files (`ulimit -f`) sends this one, which kills whoever
/// does not listen to it; who does finds the write failed. The number is the same on Linux and BSD.
const SIGXFSZ: i32 = 25;

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    _file_size: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::cli::exit;
    use crate::config::StorageChoice;

    fn config() -> Config {
        let mut config = Config::default();
        config.http.listen.set_port(0);
        config.storage.backend = StorageChoice::Memory;
        config
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_graceful_shutdown_is_clean() {
        assert_eq!(exit::code(&run(config(), ready(()), pending()).await), exit::CLEAN);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn force_ends_it_at_once() {
        assert_eq!(exit::code(&run(config(), pending(), ready(())).await), exit::INTERRUPTED);
    }
}
