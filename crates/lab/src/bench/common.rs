//! Arguments that several subcommands share.
//!
//! Their help cannot contain the placeholder `{n}` itself: clap prints it as a line break.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use zonewire::cli::Hidden;

use super::{
    client::{ClientPlan, Purpose, Seat},
    clock::Clock,
    target::{self, Endpoint, PublishTarget, Token},
};
use crate::node::{Start, find};

/// The server, as it is reached and measured.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// A token or an API key to show at each handshake and request; better given as ZONEWIRE_TOKEN, since
    /// other users can see flags.
    #[arg(long, value_name = "TOKEN", env = "ZONEWIRE_TOKEN", hide_env = true, hide_env_values = true)]
    token: Option<Hidden>,
    /// The server's process id, to measure its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    /// Accept addresses that are not loopback. Only for machines that you may put under load.
    #[arg(long)]
    allow_remote: bool,
}

impl ServerArgs {
    fn token(&self) -> anyhow::Result<Token> {
        Token::new(self.token.as_ref().map_or("", Hidden::text))
    }
}

/// How the client opens its connections.
#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    /// Handshakes in progress at once.
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub(super) open_concurrency: usize,
    /// After how many seconds an unanswered handshake has failed.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    handshake_timeout: f64,
    /// Event loop threads of the client.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(super) threads: usize,
}

impl OpenArgs {
    /// A plan that expects nothing of the server's messages.
    pub(super) fn plan(&self, purpose: Purpose, clock: &Clock) -> ClientPlan {
        ClientPlan {
            purpose,
            open_concurrency: self.open_concurrency,
            handshake_timeout_s: self.handshake_timeout,
            started_ns: clock.now_ns(),
            ..ClientPlan::default()
        }
    }
}

/// The waiting times of a run in which all subscribers must receive what is published.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// How many seconds opening all connections may take.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    pub(super) open_timeout: f64,
    /// Seconds of pause between opening and publishing.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub(super) settle: f64,
    /// How many seconds to wait without arrivals after the last publish.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub(super) drain: f64,
}

/// The gateways that a subcommand starts.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The gateway's program [default: `zonewire` beside this one, or else on the PATH]
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// The only core for gateways, set with `taskset`; run this program, and so all else that it starts, on
    /// another one [default: any]
    #[arg(long, value_name = "CORE")]
    gateway_core: Option<usize>,
    /// A setting of the gateways; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl NodeArgs {
    /// How such a gateway is started, with these settings unless the arguments override them.
    pub(super) async fn start(&self, settings: &[&str]) -> anyhow::Result<Start> {
        let settings = settings.iter().copied().map(str::to_owned);
        Ok(Start {
            program: find(self.gateway.as_deref()).await?,
            settings: settings.chain(self.settings.iter().cloned()).collect(),
            core: self.gateway_core,
            ..Start::default()
        })
    }
}

/// The arguments of the subcommands that work with any server.
#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// Where to connect: ws://host:port/path; repeatable. An n in braces stands for the channel number.
    #[arg(long = "url", required = true, value_name = "URL")]
    pub(super) urls: Vec<String>,
    /// How many channels the n in braces counts through from 0; connections take them one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) channels: u32,
    #[command(flatten)]
    pub(super) open: OpenArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// A header line added to each handshake, e.g. `Origin: https://desk.example`; repeatable.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A text frame that each client sends once it is open; an n in braces stands for the channel number.
    #[arg(long, value_name = "TEXT")]
    send_on_open: Option<String>,
}

impl CommonArgs {
    /// The seats, spread round robin over the URLs and channels; the last `stalled` ones do not read.
    pub(super) fn seats(&self, count: usize, stalled: usize) -> anyhow::Result<Vec<Seat>> {
        let (mut places, token) = (Vec::new(), self.server.token()?);
        for channel in 0..self.channels {
            for url in &self.urls {
                let endpoint =
                    target::websocket(&target::for_channel(url, channel), self.server.allow_remote)?;
                let hello =
                    self.send_on_open.as_deref().map(|text| target::for_channel(text, channel).into());
                places.push(Seat {
                    endpoint: Arc::new(endpoint.with_token(&token)),
                    channel: channel as usize,
                    stalled: false,
                    hello,
                });
            }
        }
        let seats = (0..count)
            .map(|seat| Seat { stalled: seat >= count - stalled, ..places[seat % places.len()].clone() });
        Ok(seats.collect())
    }

    /// The target to which the publisher sends its lines.
    pub(super) fn publish_target(&self, text: &str) -> anyhow::Result<PublishTarget> {
        Ok(target::publish(text, self.channels, self.server.allow_remote)?.with_token(&self.server.token()?))
    }

    pub(super) fn client_plan(&self, purpose: Purpose, clock: &Clock) -> ClientPlan {
        ClientPlan { headers: self.headers.clone(), ..self.open.plan(purpose, clock) }
    }
}

/// The arguments of the subcommands about orders: they know the gateway's paths, and need only its address.
#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    /// The gateway's address: http://host:port; repeatable for several gateways, among which connections are spread.
    #[arg(long = "url", required = true, value_name = "URL")]
    pub(super) urls: Vec<String>,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

impl GatewayArgs {
    pub(super) fn gateways(&self) -> anyhow::Result<Vec<Endpoint>> {
        self.resolve(&self.urls)
    }

    pub(super) fn resolve(&self, urls: &[String]) -> anyhow::Result<Vec<Endpoint>> {
        let token = self.server.token()?;
        urls.iter()
            .map(|url| Ok(target::gateway(url, self.server.allow_remote)?.with_token(&token)))
            .collect()
    }
}

/// Parses a duration in seconds, at most an hour, since every run must end.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=3600.0).contains(&value) => Ok(value),
        _ => Err("expected seconds between 0 and 3600".to_owned()),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) | Err(_) => Err("expected a number of at least 1".to_owned()),
        Ok(value) => Ok(value),
    }
}

/// Parses messages per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e7 => Ok(value),
        _ => Err("expected messages per second above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(seconds("-1").is_err());
        assert!(seconds("NaN").is_err());
        assert!(seconds("3601").is_err());
    }

    #[test]
    fn a_rate_is_above_zero() {
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err());
        assert!(rate("inf").is_err());
    }
}
