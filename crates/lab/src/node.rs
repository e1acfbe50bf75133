//! The gateways under test, as processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use tokio::process::Command;
use zonewire::cli::Hidden;
use zonewire::client::{BaseUrl, Http};
use zonewire_kit::clock::WallClock;
use zonewire_kit::eventually;
use zonewire_kit::process::Gateway;
use zonewire_protocol::stats::StatsView;
use zonewire_protocol::{BridgeSubscriptions, HealthView};

/// How long a gateway may take to report its health.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Finds the gateway to test: the given program, or the one beside this program.
///
/// Fails if there is none, or if it does not print its version.
pub(crate) async fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("zonewire"));
    let program = match named {
        Some(path) => path.to_owned(),
        None => beside().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("zonewire")),
    };
    let mut command = Command::new(&program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().await.with_context(|| {
        format!("cannot run the gateway, {}: name it with --gateway FILE", program.display())
    })?;
    if !output.status.success() || !output.stdout.starts_with(b"zonewire ") {
        bail!("{} is not a Zonewire gateway: it does not print its version", program.display());
    }
    Ok(program)
}

/// A gateway's health; fails if it does not answer within this time.
pub(crate) async fn health(base: &BaseUrl, http: &Http, within: Duration) -> anyhow::Result<HealthView> {
    ask(base, http, "ws/health", within).await.context("a gateway did not report its health")
}

async fn ask<T: DeserializeOwned>(
    base: &BaseUrl,
    http: &Http,
    path: &str,
    within: Duration,
) -> anyhow::Result<T> {
    let answer = http.get(base.endpoint(path)).timeout(within).send().await?.bytes().await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// The sum over the samples of a metric, or one of them if its labels are named too; `None` if there are none.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let samples = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = samples.filter(|rest| rest.starts_with([' ', '{'])).map(|rest| rest.rsplit(' ').next());
    values.map(|value| value?.parse::<f64>().ok()).reduce(|sum, value| Some(sum? + value?)).flatten()
}

/// A gateway.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its address.
    pub(crate) base: BaseUrl,
    pub(crate) gateway: Gateway,
    pub(crate) start: Start,
}

/// How a gateway is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    /// The gateway's program.
    pub(crate) program: PathBuf,
    /// Its number, from 0.
    pub(crate) index: usize,
    /// The URL of Redis, passed in the environment because it may contain a password; without one the gateway
    /// stores everything in memory.
    pub(crate) redis_url: Option<String>,
    /// Its configuration file, if any.
    pub(crate) config: Option<PathBuf>,
    /// The credential for health requests, if the gateway requires one.
    pub(crate) token: Option<Hidden>,
    /// `KEY=VALUE`
    pub(crate) settings: Vec<String>,
    /// The only core that it runs on, or any.
    pub(crate) core: Option<usize>,
    /// The file for its log, if any.
    pub(crate) log: Option<PathBuf>,
    /// Its wall clock, if it has a separate one.
    pub(crate) clock: Option<WallClock>,
}

impl Node {
    /// Starts one on a free port, and waits until it is ready.
    pub(crate) async fn start(start: Start) -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), start).await
    }

    async fn start_at(address: SocketAddr, start: Start) -> anyhow::Result<Self> {
        let mut command = match start.core {
            // `taskset` replaces itself by the gateway, so this is the gateway's process.
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &core.to_string()]).arg(&start.program);
                pinned
            }
            None => Command::new(&start.program),
        };
        let storage = if start.redis_url.is_some() { "redis" } else { "memory" };
        command.args(["serve", "--set=log.format=json"]).arg(format!("--storage={storage}"));
        command.arg(format!("--listen={address}"));
        command.args(start.config.iter().map(|file| format!("--config={}", file.display())));
        command.args(start.settings.iter().map(|setting| format!("--set={setting}")));
        // The settings of whoever runs the suite must not apply.
        command.env_clear().envs(start.redis_url.iter().map(|url| ("REDIS_URL", url)));
        start.clock.iter().for_each(|clock| clock.give_to(&mut command));
        let gateway = Gateway::start(command, start.log.as_deref()).await;
        let gateway = gateway.with_context(|| format!("gateway {} did not start", start.index))?;
        let base = format!("http://{}", gateway.address).parse();
        let base: BaseUrl = base.map_err(|error| anyhow::anyhow!("a gateway at an odd address: {error}"))?;
        let base = match &start.token {
            Some(token) => base.with_token(token.text()).map_err(anyhow::Error::msg)?,
            None => base,
        };
        Ok(Self { base, gateway, start })
    }

    /// Starts it again at the same address, after [`Self::kill`].
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        *self = Self::start_at(self.gateway.address, self.start.clone()).await?;
        Ok(())
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.gateway.process.kill().await?;
        // Its log ends with it.
        self.gateway.log(ANSWER_PATIENCE).await.map(drop)
    }

    /// Its process id; fails if it has ended.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.gateway.process.id().context("the gateway has ended")
    }

    /// Its health.
    pub(crate) async fn health(&self) -> anyhow::Result<HealthView> {
        health(&self.base, &self.base.http()?, ANSWER_PATIENCE).await
    }

    /// Its statistics.
    pub(crate) async fn stats(&self) -> anyhow::Result<StatsView> {
        let stats = ask(&self.base, &self.base.http()?, "ws/stats", ANSWER_PATIENCE).await;
        stats.context("a gateway did not report its statistics")
    }

    /// Waits until it receives live events of this type from other gateways.
    pub(crate) async fn until_bridged(&self, event: &str, patience: Duration) -> anyhow::Result<()> {
        let http = self.base.http()?;
        eventually("live events are subscribed to", patience, async || {
            let path = "api/bridge/subscriptions";
            let bridged: BridgeSubscriptions = ask(&self.base, &http, path, patience).await.ok()?;
            bridged.types.iter().any(|of| of.event == event && of.active).then_some(())
        })
        .await
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.gateway.process.has_ended()? {
            Some(status) => bail!("gateway {} ended by itself: {status}", self.start.index),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_metric_are_summed() {
        let text =
            "# TYPE a counter\na_total{reason=\"x\"} 2\na_total{reason=\"y\"} 3\na_total_else 7\nb 1\n";
        let metric = |name| metric(text, name);
        assert_eq!((metric("a_total"), metric("b"), metric("c")), (Some(5.0), Some(1.0), None));
        assert_eq!(metric("a_total{reason=\"y\"}"), Some(3.0));
    }
}
