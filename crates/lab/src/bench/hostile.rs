//! `bench hostile`: how attacks affect other clients. A gateway is started, prices are published to it at a
//! rate, and one client follows them: first without an attack, then during each attack of
//! `zonewire_kit::hostile`.
//!
//! Attacks run on a separate thread, but still take CPU time of the machine, so give the gateway a core of
//! its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use hyper::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{self, Instant},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;
use zonewire::client::block_on;
use zonewire_kit::hostile::{ATTACKS, Attack, SETTINGS, Target};

use super::{
    clock::{Clock, nanos},
    common::{NodeArgs, rate, seconds},
    cpu,
    keep_alive::KeepAlive,
    report::Percentiles,
    target::{self, Endpoint},
};
use crate::node::Node;

/// The zone of the well-behaved client.
const ZONE: &str = "healthy";
/// How long to wait for the next price.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the gateway's memory is read.
const LOOK: Duration = Duration::from_millis(20);
/// A round with more would take too long.
const MANY_MAX: u64 = 200_000;
/// More at once would need more memory or open files than most machines have. This does not apply to the
/// attack whose connections come one after the other.
const MANY_TOGETHER_MAX: u64 = 10_000;
const ONE_BY_ONE: &str = "half handshakes";

#[derive(Debug, Args)]
pub(super) struct HostileArgs {
    /// Only these attacks [default: all, one after the other]
    #[arg(long = "attack", value_delimiter = ',', value_name = "NAME")]
    attacks: Vec<String>,
    /// Seconds of each attack, extended to the end of its round, and of the phase without an attack before
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// How many connections a round opens, or messages it sends, if it repeats an action; at most 10,000, and
    /// for `half handshakes` only 200,000
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MANY_MAX))]
    many: u64,
    /// Prices per second that the client follows
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    rate: f64,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Serialize)]
pub(super) struct HostileReport {
    duration_s: f64,
    many: u64,
    rate_per_s: f64,
    /// The phase before all attacks.
    peace: Phase,
    attacks: Vec<Attacked>,
    /// How many prices were accepted, ...
    published: u64,
    /// ... and how many arrived in order.
    received: u64,
    /// The gateway's resident memory before the first attack and after the last one.
    rss_before_bytes: u64,
    rss_end_bytes: u64,
}

/// What the client and the memory showed during one phase.
#[derive(Debug, Serialize)]
struct Phase {
    seconds: f64,
    /// From when a price was due to be published until it arrived.
    latency_us: Option<Percentiles>,
    /// The peak of the gateway's resident memory.
    rss_peak_bytes: u64,
}

/// The same during an attack.
#[derive(Debug, Serialize)]
struct Attacked {
    name: &'static str,
    rounds: u64,
    cases: u64,
    /// What came back that must not.
    wrong: Option<String>,
    #[serde(flatten)]
    phase: Phase,
    rss_before_bytes: u64,
}

/// Runs the measurement.
///
/// # Errors
/// A price was lost, doubled or out of order; the gateway ended; or an attack does not exist.
pub(super) fn run(args: &HostileArgs) -> anyhow::Result<HostileReport> {
    let attacks = chosen(&args.attacks)?;
    let are_one_by_one = attacks.iter().all(|attack| attack.name == ONE_BY_ONE);
    ensure!(
        are_one_by_one || args.many <= MANY_TOGETHER_MAX,
        "more than {MANY_TOGETHER_MAX} are for `--attack \"{ONE_BY_ONE}\"` only"
    );
    cpu::ensure_open_files(usize::try_from(args.many.min(MANY_TOGETHER_MAX))?, None)?;
    block_on(async {
        // No price may be replaced by a newer one, since each of them is checked.
        let settings = [&SETTINGS[..], &["channels.default_lane=every"]].concat();
        let start = args.nodes.start(&settings).await?;
        let mut node = Node::start(start).await?;
        let report = measure(args, &mut node, &attacks).await?;
        node.kill().await?;
        Ok(report)
    })
}

/// The named attacks, or all.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Attack>> {
    let find = |name: &String| {
        let all = || ATTACKS.iter().map(|attack| attack.name).collect::<Vec<_>>().join(", ");
        let found = ATTACKS.iter().find(|attack| attack.name == name);
        found.ok_or_else(|| anyhow!("there is no attack `{name}`; there are: {}", all()))
    };
    if names.is_empty() { Ok(ATTACKS.iter().collect()) } else { names.iter().map(find).collect() }
}

async fn measure(
    args: &HostileArgs,
    node: &mut Node,
    attacks: &[&'static Attack],
) -> anyhow::Result<HostileReport> {
    let (pid, duration) = (node.pid()?, Duration::from_secs_f64(args.duration));
    let endpoint = target::gateway(&node.base.to_string(), false)?;
    let target = Target { address: endpoint.address, many: usize::try_from(args.many)? };
    let mut healthy = Healthy::start(&endpoint, args.rate).await?;
    let (peace, ()) = healthy.phase(node, thread::spawn(move || thread::sleep(duration))).await?;
    let rss_before_bytes = cpu::rss_bytes(pid)?;
    let mut attacked = Vec::new();
    for &attack in attacks {
        let rss_before_bytes = cpu::rss_bytes(pid)?;
        let attacker = thread::spawn(move || block_on(rounds(attack, target, duration)));
        let (phase, result) = healthy.phase(node, attacker).await?;
        let (rounds, cases, wrong) = result?;
        attacked.push(Attacked { name: attack.name, rounds, cases, wrong, phase, rss_before_bytes });
    }
    let (published, received) = healthy.finish().await?;
    Ok(HostileReport {
        duration_s: args.duration,
        many: args.many,
        rate_per_s: args.rate,
        peace,
        attacks: attacked,
        published,
        received,
        rss_before_bytes,
        rss_end_bytes: cpu::rss_bytes(pid)?,
    })
}

/// Repeats an attack for a while, at least one round. Returns rounds, cases, and what came back that must
/// not.
async fn rounds(
    attack: &Attack,
    target: Target,
    duration: Duration,
) -> anyhow::Result<(u64, u64, Option<String>)> {
    let (end, mut rounds, mut cases) = (Instant::now() + duration, 0, 0);
    while rounds == 0 || Instant::now() < end {
        match attack.round(&target).await {
            Ok(more) => cases += more,
            Err(error) => return Ok((rounds, cases, Some(format!("{error:#}")))),
        }
        rounds += 1;
    }
    Ok((rounds, cases, None))
}

/// The publisher, and the client that follows.
struct Healthy {
    clock: Clock,
    latency: Arc<Mutex<Histogram<u64>>>,
    /// Set when a phase begins: the publisher then drops its backlog, so that a phase shows only its own
    /// delays.
    anew: Arc<AtomicBool>,
    stop: CancellationToken,
    /// Each task returns how many prices it handled.
    tasks: JoinSet<anyhow::Result<u64>>,
}

impl Healthy {
    async fn start(gateway: &Endpoint, rate: f64) -> anyhow::Result<Self> {
        let (clock, stop, mut tasks) = (Clock::start(), CancellationToken::new(), JoinSet::new());
        let (latency, anew) = (Arc::new(Mutex::new(Histogram::new(3)?)), Arc::new(AtomicBool::new(false)));
        let mut to = KeepAlive::connect(gateway, clock).await?;
        // For attacks that read the zone's history.
        to.post("/api/zones/pjm/prices", r#"[{"key":"A","price":1},{"key":"B","price":2}]"#, StatusCode::OK)
            .await?;
        let stream = TcpStream::connect(gateway.address).await.context("cannot connect to the gateway")?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{}/ws/market/{ZONE}", gateway.address);
        let (socket, _answer) = client_async(url, stream).await.context("the healthy client was refused")?;
        tasks.spawn(follow(socket, clock, Arc::clone(&latency)));
        tasks.spawn(publish(to, rate, clock, Arc::clone(&anew), stop.clone()));
        Ok(Self { clock, latency, anew, stop, tasks })
    }

    /// The phase that lasts until a thread has ended, and that thread's result.
    async fn phase<T>(&mut self, node: &mut Node, act: JoinHandle<T>) -> anyhow::Result<(Phase, T)> {
        let (began_ns, pid) = (self.clock.now_ns(), node.pid()?);
        let mut rss_peak_bytes = cpu::rss_bytes(pid)?;
        self.anew.store(true, Relaxed);
        self.latency.lock().reset();
        while !act.is_finished() {
            time::sleep(LOOK).await;
            node.check()?;
            rss_peak_bytes = rss_peak_bytes.max(cpu::rss_bytes(pid)?);
            if let Some(ended) = self.tasks.try_join_next() {
                let count = ended.context("the healthy client panicked")??;
                bail!("the healthy client ended after {count} prices");
            }
        }
        let latency_us = Percentiles::of(&self.latency.lock());
        let result = act.join().map_err(|_panic| anyhow!("an attacker panicked"))?;
        Ok((Phase { seconds: self.clock.seconds_since(began_ns), latency_us, rss_peak_bytes }, result))
    }

    /// How many prices were published and how many arrived; these must be equal.
    async fn finish(mut self) -> anyhow::Result<(u64, u64)> {
        self.stop.cancel();
        let mut counts = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            counts.push(ended.context("the healthy client panicked")??);
        }
        let [one, other] = counts[..] else { bail!("the healthy client did not end") };
        ensure!(one == other, "{} prices were published, and {} arrived", one.max(other), one.min(other));
        Ok((one, other))
    }
}

/// Publishes at a rate until stopped, then one more price that is marked as the last.
async fn publish(
    mut to: KeepAlive,
    rate: f64,
    clock: Clock,
    anew: Arc<AtomicBool>,
    stop: CancellationToken,
) -> anyhow::Result<u64> {
    let (mut began_ns, mut before, mut sequence) = (clock.now_ns(), 0_u64, 0_u64);
    loop {
        if anew.swap(false, Relaxed) {
            (began_ns, before) = (clock.now_ns(), sequence);
        }
        let last = stop.is_cancelled();
        let due_ns = began_ns + nanos((sequence - before) as f64 / rate);
        time::sleep(Duration::from_nanos(due_ns.saturating_sub(clock.now_ns()))).await;
        sequence += 1;
        let price = format!(r#"{{"key":"A","price":{sequence},"due_ns":{due_ns},"last":{last}}}"#);
        to.post(&format!("/api/zones/{ZONE}/prices"), price, StatusCode::OK).await?;
        if last {
            return Ok(sequence);
        }
    }
}

/// Receives prices, each of which must be the next one, up to the last.
async fn follow(
    mut socket: WebSocketStream<TcpStream>,
    clock: Clock,
    latency: Arc<Mutex<Histogram<u64>>>,
) -> anyhow::Result<u64> {
    let mut received = 0;
    loop {
        let message = time::timeout(PATIENCE, socket.next()).await.context("no price arrived")?;
        let text = match message.context("the healthy client's connection ended")?? {
            Message::Text(text) => text,
            Message::Close(frame) => bail!("the healthy client was closed: {frame:?}"),
            _ => continue,
        };
        let price: Value = serde_json::from_str(&text).context("a message that is no JSON")?;
        match price["type"].as_str() {
            Some("price_update") => {}
            Some("error" | "resync" | "missed") => bail!("the healthy client received: {text}"),
            _ => continue,
        }
        ensure!(price["price"] == received + 1, "after price {received} arrived {text}");
        received += 1;
        let due_ns = price["due_ns"].as_u64().context("a price without its time")?;
        latency.lock().record(clock.now_ns().saturating_sub(due_ns))?;
        if price["last"] == true {
            return Ok(received);
        }
    }
}

impl HostileReport {
    /// Fails if something came back that must not.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let wrong: Vec<&str> = self.attacks.iter().filter_map(|attacked| attacked.wrong.as_deref()).collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_are_chosen_by_their_names() {
        assert_eq!(chosen(&[]).unwrap().len(), ATTACKS.len());
        assert_eq!(chosen(&["pings".to_owned()]).unwrap()[0].name, "pings");
        let error = chosen(&["kindness".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`kindness`") && error.contains("slow heads"), "{error}");
    }
}
