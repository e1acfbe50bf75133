//! `relay`: carries events from the Redis of one fleet of gateways to that of another, until a signal
//! ends it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;

use super::config_args::{Assignment, Hidden, flag};
use super::exit::{Interrupted, UsageError};
use super::serve::with_signals;
use crate::config::{Config, Flag, Sources};
use crate::model::EventType;
use crate::relay::{self, RelayError, RelayParts};
use crate::support::telemetry;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire relay --from redis://10.1.0.5 --to redis://10.2.0.5 --types trade,exchange:*
  zonewire relay --from rediss://eu --to rediss://us --types all --config zonewire.toml --listen 127.0.0.1:9091
  ZONEWIRE_RELAY_FROM=redis://:secret@eu ZONEWIRE_RELAY_TO=redis://:secret@us zonewire relay --types all

Durable events are delivered once and live ones at most once. No event returns to where it came from, so \
that relays may run in both directions and in rings. Of several relays for one direction, one is active at \
a time. SIGTERM or Ctrl-C ends it gracefully; a second one at once.";

#[derive(Debug, clap::Args)]
pub(super) struct RelayArgs {
    /// The Redis to read events from; if it has a password, better set as ZONEWIRE_RELAY_FROM
    #[arg(long, value_name = "URL", env = "ZONEWIRE_RELAY_FROM", hide_env = true, hide_env_values = true)]
    from: Hidden,
    /// The Redis to write events to; if it has a password, better set as ZONEWIRE_RELAY_TO
    #[arg(long, value_name = "URL", env = "ZONEWIRE_RELAY_TO", hide_env = true, hide_env_values = true)]
    to: Hidden,
    /// Which events: types separated by commas, `exchange:*`, or `all`
    #[arg(long, value_name = "TYPES", required = true, value_delimiter = ',', value_parser = types)]
    types: Vec<Types>,
    /// Where to serve /health and /metrics [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A TOML file with the settings of the gateways of both fleets
    ///
    /// Only the settings of Redis, of the size of logs, of the bridge and of the log are used. The
    /// environment variable ZONEWIRE_CONFIG does the same.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting of both fleets, such as `bridge.durable=["trade"]`; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// A setting of the fleet to read from, such as `storage.redis.prefix=eu`
    #[arg(long, value_name = "KEY=VALUE")]
    set_from: Vec<Assignment>,
    /// A setting of the fleet to write to
    #[arg(long, value_name = "KEY=VALUE")]
    set_to: Vec<Assignment>,
}

/// The event types that one word of `--types` stands for.
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
    /// Loads the settings of one of the two fleets.
    fn load(&self, name: &str, url: &Hidden, sets: &[Assignment]) -> anyhow::Result<crate::config::Loaded> {
        let mut flags: Vec<Flag> = self.set.iter().map(|set| set.flag("--set")).collect();
        flags.extend(sets.iter().map(|set| set.flag(&format!("--set-{name}"))));
        flags.push(flag(&format!("--{name}"), "storage.redis.url", url.text()));
        let (environment, memory) = (Sources::environment_of_process(), Sources::memory_of_process());
        Ok(Config::load(&Sources { file: self.config.clone(), environment, flags, memory })?)
    }
}

/// Carries events until a signal ends it.
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
    let result = with_signals(|stop, force| async {
        tokio::select! {
            ended = relay::run(parts, stop) => match ended {
                Err(error @ (RelayError::OneFleet | RelayError::Unusable { .. })) => Err(UsageError(error.to_string()).into()),
                ended => Ok(ended?),
            },
            () = force => Err(Interrupted.into()),
        }
    });
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
