//! `relay`: events from the Redis of one fleet of gateways to that of another, until a signal comes.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::config_args::{Assignment, Hidden};
use super::exit::{Interrupted, UsageError};
use super::serve::Signals;
use crate::config::{Config, Flag, Sources};
use crate::model::EventType;
use crate::relay::{self, RelayError, RelayParts};
use crate::support::telemetry;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire relay --from redis://10.1.0.5 --to redis://10.2.0.5 --types trade,exchange:*
  zonewire relay --from rediss://eu --to rediss://us --types all --config zonewire.toml --listen 127.0.0.1:9091
  ZONEWIRE_RELAY_FROM=redis://:secret@eu ZONEWIRE_RELAY_TO=redis://:secret@us zonewire relay --types all

Durable events come once, live ones at most once, and none comes round: relays may go both ways, and in \
rings. Several for the same way take turns. SIGTERM or Ctrl-C ends it gracefully; a second one at once.";

/// Arguments of `relay`.
#[derive(Debug, clap::Args)]
pub(super) struct RelayArgs {
    /// The Redis that events come from; with a password, better given as ZONEWIRE_RELAY_FROM
    #[arg(long, value_name = "URL", env = "ZONEWIRE_RELAY_FROM", hide_env = true, hide_env_values = true)]
    from: Hidden,
    /// The Redis that they go to; with a password, better given as ZONEWIRE_RELAY_TO
    #[arg(long, value_name = "URL", env = "ZONEWIRE_RELAY_TO", hide_env = true, hide_env_values = true)]
    to: Hidden,
    /// Which events: types with commas between them, `exchange:*`, or `all`
    #[arg(long, value_name = "TYPES", required = true, value_delimiter = ',', value_parser = types)]
    types: Vec<Types>,
    /// Where to tell /health and /metrics [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A TOML file with the settings of the gateways, of both fleets
    ///
    /// Of it counts what is of Redis, of how much is kept, of the bridge and of the log. The environment variable
    /// ZONEWIRE_CONFIG does the same.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting of both fleets, such as `bridge.durable=["trade"]`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// The same of the fleet that events come from, such as `storage.redis.prefix=eu`
    #[arg(long, value_name = "KEY=VALUE")]
    set_from: Vec<Assignment>,
    /// The same of the fleet that they go to
    #[arg(long, value_name = "KEY=VALUE")]
    set_to: Vec<Assignment>,
}

/// What one word of `--types` stands for.
type Types = Vec<EventType>;

fn types(word: &str) -> Result<Types, String> {
    let of = |is_meant: fn(&EventType) -> bool| EventType::ALL.into_iter().filter(is_meant).collect();
    match word {
        "all" => Ok(of(|_| true)),
        "exchange:*" => Ok(of(|event| event.is_of_exchange())),
        name => name.parse().map(|event| vec![event]).map_err(|_| {
            let known = EventType::ALL.map(EventType::as_str).join(", ");
            format!("expected `all`, `exchange:*`, or some of {known}")
        }),
    }
}

impl RelayArgs {
    /// The settings of one of the two.
    fn load(&self, name: &str, url: &Hidden, sets: &[Assignment]) -> anyhow::Result<crate::config::Loaded> {
        let set = |name: &str, set: &Assignment| {
            let (key, value) = set.parts();
            Flag { name: name.to_owned(), key: key.to_owned(), value: value.to_owned() }
        };
        let mut flags: Vec<Flag> = self.set.iter().map(|both| set("--set", both)).collect();
        flags.extend(sets.iter().map(|one| set(&format!("--set-{name}"), one)));
        flags.push(Flag {
            name: format!("--{name}"),
            key: "storage.redis.url".to_owned(),
            value: url.text().to_owned(),
        });
        let (environment, memory) = (Sources::environment_of_process(), Sources::memory_of_process());
        Ok(Config::load(&Sources { file: self.config.clone(), environment, flags, memory })?)
    }
}

/// Carries events until a signal comes.
pub(super) fn run(args: RelayArgs) -> anyhow::Result<()> {
    let from = args.load("from", &args.from, &args.set_from)?;
    let to = args.load("to", &args.to, &args.set_to)?;
    if from.config.storage.redis == to.config.storage.redis {
        return Err(UsageError(RelayError::OneFleet.to_string()).into());
    }
    let log = telemetry::init(&to.config.log).context("cannot set up the log")?;
    let mut types: Vec<EventType> = args.types.into_iter().flatten().collect();
    types.sort_unstable();
    types.dedup();
    let parts = RelayParts { from: from.config, to: to.config, types, listen: args.listen };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let stop = CancellationToken::new();
        let force = async {
            signals.next().await;
            stop.cancel();
            signals.next().await;
        };
        tokio::select! {
            ended = relay::run(parts, stop.clone()) => match ended {
                Err(error @ (RelayError::OneFleet | RelayError::Unusable { .. })) => Err(UsageError(error.to_string()).into()),
                ended => Ok(ended?),
            },
            () = force => Err(Interrupted.into()),
        }
    });
    runtime.shutdown_background();
    drop(log);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_said_in_words() {
        assert_eq!(types("all").unwrap().len(), EventType::ALL.len());
        assert_eq!(types("exchange:*").unwrap().len(), 4);
        assert_eq!(types("trade"), Ok(vec![EventType::Trade]));
        assert!(types("trades").unwrap_err().contains("exchange:*"));
    }
}
