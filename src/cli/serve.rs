//! `serve` and `demo`: run a gateway until a signal ends it.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config_args::{ConfigArgs, flag};
use super::exit::Interrupted;
use crate::config::Loaded;
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
  zonewire demo --redis-url redis://127.0.0.1
Then, in another terminal:
  zonewire tail pjm caiso --pretty

The demo stores everything in its own memory unless a setting of `storage` is given on the command line, \
in a file or as ZONEWIRE_STORAGE__…; REDIS_URL and similar variables are ignored. Its prices are marked \
`simulated`.";

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

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

pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<()> {
    start(args.config.load(Vec::new())?)
}

/// Runs the gateway with the simulated feed.
pub(crate) fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let mut flags = vec![
        flag("demo", "feeds.simulated.enabled", "true"),
        flag("demo", "feeds.simulated.symbols", "[\"BTC-USDT\"]"),
    ];
    flags.extend(args.seed.map(|seed| flag("--seed", "feeds.simulated.seed", &seed.to_string())));
    let interval = args.interval_ms.map(|interval| interval.to_string());
    flags.extend(interval.map(|ms| flag("--interval-ms", "feeds.simulated.interval_ms", &ms)));
    let loaded = args.config.load(flags.clone())?;
    if names_a_storage(&loaded.origins) {
        return start(loaded);
    }
    // Made-up prices, and orders that are only simulated, must not mix with other programs' data.
    flags.push(flag("demo", "storage.backend", "memory"));
    start(args.config.load(flags)?)
}

/// Whether the storage was chosen for this program. `REDIS_*` variables may be meant for other
/// programs.
fn names_a_storage(origins: &BTreeMap<String, String>) -> bool {
    let is_ours = |origin: &str| {
        ["flag ", "file ", "environment variable ZONEWIRE_"].iter().any(|source| origin.starts_with(source))
    };
    let is_choice = |key: &str| {
        key == "storage.backend" || key == "storage.required" || key.starts_with("storage.redis.")
    };
    origins.iter().any(|(key, origin)| is_choice(key) && is_ours(origin))
}

fn start(loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { config, file, warning, notices, .. } = &loaded;
    let log = telemetry::init(&config.log).context("cannot set up the log")?;
    if let Some(file) = file {
        tracing::info!(file = %file.display(), "read the config");
    }
    tracing::info!(
        storage.memory.total_bytes = config.storage.memory.total_bytes,
        storage.journal.bytes = config.storage.journal.bytes,
        connections.max = config.connections.max,
        "the limits of memory"
    );
    if let Some(warning) = warning {
        tracing::warn!(warning, "the limits may need more memory than there is");
    }
    for notice in notices {
        tracing::warn!("{notice}");
    }
    let result = with_signals(|stop, force| run(loaded, stop.cancelled_owned(), force));
    drop(log);
    result
}

/// Runs something on all cores. It gets a token, which the first signal cancels, and a future, which the
/// second signal completes. It must poll that future, which also handles the first signal.
pub(super) fn with_signals<F: Future<Output = anyhow::Result<()>>>(
    run: impl FnOnce(CancellationToken, Pin<Box<dyn Future<Output = ()>>>) -> F,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let begin = CancellationToken::new();
        let stop = begin.clone();
        // The first signal is consumed before the shutdown becomes visible: if a second signal arrived
        // before that, the two would count as one.
        let force = async move {
            signals.next().await;
            begin.cancel();
            signals.next().await;
        };
        run(stop, Box::pin(force)).await
    });
    // Blocking work that still runs, such as a read of a file, is not worth waiting for.
    runtime.shutdown_background();
    result
}

/// Runs a gateway until `shutdown`, and then until its graceful end or `force`.
///
/// # Errors
/// The gateway could not start, it failed, or it was [`Interrupted`] by `force`.
pub(crate) async fn run(
    config: impl Into<Loaded>,
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

/// A write beyond the limit on file sizes (`ulimit -f`) raises this signal, which kills a process that does
/// not handle it. If the signal is handled, the write fails with an error instead. The number is the same
/// on Linux and BSD.
const SIGXFSZ: i32 = 25;

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
    use crate::config::{Config, StorageChoice};

    fn config() -> Config {
        let mut config = Config::default();
        config.http.listen.set_port(0);
        config.storage.backend = StorageChoice::Memory;
        config
    }

    #[test]
    fn only_what_was_said_to_this_program_takes_the_demo_to_a_redis() {
        for (key, origin, chosen) in [
            ("storage.redis.url", "environment variable REDIS_URL", false),
            ("storage.redis.host", "because storage.redis.port is set", false),
            ("storage.redis.url", "environment variable ZONEWIRE_STORAGE__REDIS__URL", true),
            ("storage.redis.url", "flag --redis-url", true),
            ("storage.backend", "flag --storage", true),
            ("storage.backend", "file zonewire.toml", true),
            ("storage.retention.age_s", "file zonewire.toml", false),
        ] {
            let origins = BTreeMap::from([(key.to_owned(), origin.to_owned())]);
            assert_eq!(names_a_storage(&origins), chosen, "{key} {origin}");
        }
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
