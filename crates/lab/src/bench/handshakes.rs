//! `bench handshakes`: what it costs a gateway to identify its clients.
//!
//! Connections are opened and closed as fast as possible, with one kind of credential after the other, against
//! gateways that this program starts with matching settings. Each kind gets a fresh gateway in each round, so
//! that drift of the machine affects all kinds alike.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum as _};
use zonewire::client::{block_on, text_of};

use super::{
    client::{Client, Purpose, Seat, Tally},
    clock::Clock,
    common::{NodeArgs, OpenArgs, seconds},
    connect::{Churned, churn},
    cpu,
    credential::{Credential, Kind},
    report::{HandshakesOfKind, HandshakesReport, Percentiles},
    target::{self, Token},
};
use crate::figures::Spread;
use crate::node::{Node, Start, metric};
use zonewire_kit::dir::TempDir;

/// How long a gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct HandshakesArgs {
    /// Which credentials clients present [default: each kind, one after the other]
    #[arg(long = "show", value_enum, value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<Kind>,
    /// Present tokens that the gateway has verified before, as clients that reconnect do; otherwise it
    /// verifies each as if it were new
    #[arg(long)]
    again: bool,
    /// How many rounds to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Seconds of opening and closing that are measured, per kind and round
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    duration: f64,
    /// Seconds of it before that
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    #[command(flatten)]
    open: OpenArgs,
    /// The path that clients connect to
    #[arg(long, default_value = "/ws", value_name = "PATH")]
    path: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// The result of one kind in one round.
struct Measured {
    churned: Churned,
    tally: Tally,
}

/// Failed handshakes are a result; a credential that the gateway refuses is an error.
pub(super) fn run(args: &HandshakesArgs) -> anyhow::Result<HandshakesReport> {
    cpu::ensure_open_files(args.open.open_concurrency, None)?;
    let kinds = if args.kinds.is_empty() { Kind::value_variants().to_vec() } else { args.kinds.clone() };
    let measured = block_on(async {
        let start = args.nodes.start(&[]).await?;
        let mut measured: Vec<Vec<Measured>> = kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.rounds {
            for (kind, of_it) in kinds.iter().zip(&mut measured) {
                of_it.push(measure_kind(args, &start, *kind).await?);
            }
        }
        Ok(measured)
    })?;
    let kinds = kinds.into_iter().zip(measured).map(|(kind, rounds)| of_kind(kind, rounds));
    Ok(HandshakesReport {
        again: args.again,
        rounds: args.rounds,
        duration_s: args.duration,
        open_concurrency: args.open.open_concurrency,
        kinds: kinds.collect::<anyhow::Result<_>>()?,
    }
    .compared())
}

async fn measure_kind(args: &HandshakesArgs, start: &Start, kind: Kind) -> anyhow::Result<Measured> {
    let (credential, directory) = (Credential::of(kind)?, TempDir::new()?);
    let config = Some(credential.write_into(directory.path(), args.again)?);
    let start = Start { config, ..start.clone() };
    let mut node = Node::start(start).await.with_context(|| format!("with {}", kind.as_str()))?;
    let measured = measure(args, &node, &credential).await;
    node.check()?;
    node.kill().await?;
    measured.with_context(|| format!("with {}", kind.as_str()))
}

async fn measure(args: &HandshakesArgs, node: &Node, credential: &Credential) -> anyhow::Result<Measured> {
    let pid = Some(node.pid()?);
    let url = format!("{}{}", node.base, args.path).replacen("http://", "ws://", 1);
    let endpoint = Arc::new(target::websocket(&url, false)?.with_token(&Token::new(&credential.presented)?));
    let seat = Seat { endpoint, channel: 0, stalled: false, hello: None };
    let seats = vec![seat; args.open.open_concurrency];
    let clock = Clock::start();
    let begin =
        || Client::start(seats.clone(), &args.open.plan(Purpose::Churn, &clock), args.open.threads, clock);
    let (warm, _tally) = churn(begin()?, pid, args.warmup, &clock)?;
    let (churned, tally) = churn(begin()?, pid, args.duration, &clock)?;
    // A refused token is reported over the WebSocket, after the handshake.
    let opened = warm.opened + churned.opened;
    let (accepted, refused) = tokens(node).await?;
    let expected = if credential.presented.is_empty() { 0 } else { opened };
    ensure!(
        refused == 0 && accepted >= expected && (expected > 0 || accepted == 0),
        "of {opened} connections {accepted} presented a valid token, and {refused} an invalid one"
    );
    Ok(Measured { churned, tally })
}

/// How many tokens and keys the gateway accepted and refused, by its metrics.
async fn tokens(node: &Node) -> anyhow::Result<(u64, u64)> {
    let asked = node.base.http()?.get(node.base.endpoint("metrics")).timeout(PATIENCE).send();
    let text = text_of(asked.await, &node.base).await?;
    let sum = |name| metric(&text, name).unwrap_or(0.0) as u64;
    Ok((sum("zonewire_tokens_accepted_total"), sum("zonewire_tokens_refused_total")))
}

fn of_kind(kind: Kind, rounds: Vec<Measured>) -> anyhow::Result<HandshakesOfKind> {
    let (mut all, mut opened) = (Tally::new(), 0);
    let (mut per_s, mut per_cpu_s, mut client) = (Vec::new(), Vec::new(), Vec::new());
    for Measured { churned, tally } in rounds {
        opened += churned.opened;
        per_s.push(churned.opened as f64 / churned.duration_s.max(1e-9));
        per_cpu_s
            .extend(churned.server_cpu_s.filter(|cpu_s| *cpu_s > 0.0).map(|s| churned.opened as f64 / s));
        client.push(churned.own_cpu_s / churned.duration_s.max(1e-9));
        all.add(tally)?;
    }
    let handshakes_per_cpu_s = median(per_cpu_s);
    Ok(HandshakesOfKind {
        shown: kind,
        opened,
        failed: all.failed(),
        failures_by_reason: all.failures,
        handshakes_per_s: median(per_s).unwrap_or(0.0),
        handshakes_per_cpu_s,
        server_cpu_us_per_handshake: handshakes_per_cpu_s.map(|per_s| 1e6 / per_s),
        more_than_none_us: None,
        handshake_us: Percentiles::of(&all.handshake_ns),
        client_busy_ratio: median(client).unwrap_or(0.0),
    })
}

fn median(values: Vec<f64>) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}
