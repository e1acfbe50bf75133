//! `replay`: publish the prices of a file to a running gateway, one stream of lines per zone.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, Duration, Instant};

use super::client::{BaseUrl, TargetArgs, accepted, answer};
use crate::feeds::replay::{FileFormat, Replay, ReplayOptions, ReplayPrice};
use crate::feeds::{Pace, Pacer, SPEED_EXPECTED, is_speed};
use crate::model::Zone;

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire replay lmp.csv --flat-out
  zonewire replay trades.csv --zone btc-usdt --speed 10
  zonewire replay ticks.ndjson --zone-column market --rename id=trade_id
  gunzip -c big.csv.gz | zonewire replay - --zone btc-usdt

Columns are found by their names: zone; time or timestamp; key, location, hub, node or symbol; \
price. energy, congestion, loss, quantity, bid and ask are numbers; every other column becomes a \
free field.";

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// A CSV file with a header, or NDJSON (one object per line); `-` is standard input
    file: PathBuf,
    /// The zone of all prices
    #[arg(long, value_name = "NAME", conflicts_with = "zone_column")]
    zone: Option<Zone>,
    /// The column that names the zone
    #[arg(long, value_name = "COLUMN")]
    zone_column: Option<String>,
    /// The hub, node or symbol of all prices
    #[arg(long, value_name = "NAME", conflicts_with = "key_column")]
    key: Option<String>,
    /// The column that names the hub, node or symbol
    #[arg(long, value_name = "COLUMN")]
    key_column: Option<String>,
    /// The column that holds the price
    #[arg(long, value_name = "COLUMN")]
    price_column: Option<String>,
    /// The column that holds the time
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,
    /// Give a column another name; `type`, `channel`, `offset` and `id` need one
    #[arg(long, value_name = "OLD=NEW", value_parser = rename)]
    rename: Vec<(String, String)>,
    /// How the file is laid out [default: by its name and first byte]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "csv|ndjson")]
    format: Option<FileFormat>,
    /// So many times faster than in the file: 0.001 to 1000000
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// As fast as it goes, whatever the times say
    #[arg(long, conflicts_with = "speed")]
    flat_out: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Lines wait for the network up to so many chunks per zone; then the reading waits.
const CHUNKS_MAX: usize = 8;
/// Lines go out together up to this size.
const CHUNK_BYTES: usize = 16 << 10;
/// Each zone has a request of its own.
const ZONES_MAX: usize = 256;
/// A wait shorter than this is not worth a chunk of its own.
const WAIT_MIN: Duration = Duration::from_millis(2);

/// Publishes the file, and prints how many prices each zone accepted.
pub(crate) async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let options = ReplayOptions {
        format: args.format,
        zone: args.zone,
        zone_column: args.zone_column,
        key: args.key,
        key_column: args.key_column,
        price_column: args.price_column,
        time_column: args.time_column,
        rename: args.rename,
    };
    let (mut replay, length) = open(&args.file, options)?;
    let bar = progress(length);
    let mut zones = Zones::new(args.target.url)?;
    let pace = if args.flat_out { Pace::FlatOut } else { Pace::Times(args.speed) };
    // An error of the file or the gateway ends the sending; what is under way is still finished,
    // so that the report holds.
    let sent = send(&mut replay, pace, &mut zones, &bar).await;
    let (accepted, answered) = zones.finish().await;
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    for (zone, count) in &accepted {
        writeln!(out, "{zone}: {count} accepted")?;
    }
    // What the gateway said explains more than that a stream to it broke off.
    answered.and(sent)
}

async fn send(replay: &mut Replay, pace: Pace, zones: &mut Zones, bar: &ProgressBar) -> anyhow::Result<()> {
    let mut pacer = Pacer::new(pace);
    let start = Instant::now();
    let mut lines: u64 = 0;
    while let Some(price) = replay.next() {
        let ReplayPrice { time, price, .. } = price?;
        let due = start.checked_add(pacer.due(time)).context("the file's times are too far apart")?;
        if due > Instant::now() + WAIT_MIN {
            zones.flush().await?;
            bar.set_position(replay.bytes_read());
            time::sleep_until(due).await;
        }
        zones.push(price.zone, &price.json).await?;
        lines += 1;
        if lines.is_multiple_of(256) {
            bar.set_position(replay.bytes_read());
        }
    }
    zones.flush().await
}

fn open(file: &Path, options: ReplayOptions) -> anyhow::Result<(Replay, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Replay::read("standard input".to_owned(), Box::new(io::stdin()), options)?, None));
    }
    let length = std::fs::metadata(file).ok().map(|metadata| metadata.len());
    let replay = Replay::open(file, options).with_context(|| format!("cannot replay {}", file.display()))?;
    Ok((replay, length))
}

/// On stderr, and only when that is a terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, form) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {percent:>3} % {bytes} {elapsed}, {eta} to go"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {elapsed}"),
    };
    // The forms above are good; if not, the library's own will do.
    if let Ok(style) = ProgressStyle::with_template(form) { bar.with_style(style) } else { bar }
}

/// The requests under way: one for each zone.
struct Zones {
    base: BaseUrl,
    http: Client,
    open: BTreeMap<Zone, Lines>,
    requests: JoinSet<(Zone, anyhow::Result<u64>)>,
}

struct Lines {
    waiting: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Zones {
    fn new(base: BaseUrl) -> anyhow::Result<Self> {
        let http = base.http()?;
        Ok(Self { base, http, open: BTreeMap::new(), requests: JoinSet::new() })
    }

    async fn push(&mut self, zone: Zone, json: &str) -> anyhow::Result<()> {
        if !self.open.contains_key(&zone) {
            if self.open.len() == ZONES_MAX {
                bail!("the file names more than {ZONES_MAX} zones: is that the zone's column?");
            }
            let lines = self.begin(&zone);
            self.open.insert(zone.clone(), lines);
        }
        let Some(lines) = self.open.get_mut(&zone) else { return Ok(()) };
        lines.waiting.extend_from_slice(json.as_bytes());
        lines.waiting.push(b'\n');
        if lines.waiting.len() >= CHUNK_BYTES { lines.flush(&zone).await } else { Ok(()) }
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        for (zone, lines) in &mut self.open {
            lines.flush(zone).await?;
        }
        Ok(())
    }

    fn begin(&mut self, zone: &Zone) -> Lines {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let chunks = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|chunk: io::Result<Bytes>| (chunk, receiver))
        });
        let request = self
            .http
            .post(self.base.prices(zone))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(Body::wrap_stream(chunks));
        let (zone, base) = (zone.clone(), self.base.clone());
        self.requests.spawn(async move {
            let count = async { accepted(answer(request.send().await, &base).await?).await };
            let count = count.await.with_context(|| format!("zone {zone}"));
            (zone, count)
        });
        Lines { waiting: Vec::new(), sender }
    }

    /// Ends all requests, and gathers what they were answered; the first error of them, if any.
    async fn finish(mut self) -> (BTreeMap<Zone, u64>, anyhow::Result<()>) {
        self.open.clear();
        let (mut counts, mut result) = (BTreeMap::new(), Ok(()));
        while let Some(joined) = self.requests.join_next().await {
            match joined {
                Ok((zone, Ok(count))) => {
                    counts.insert(zone, count);
                }
                Ok((_, Err(error))) => result = result.and(Err(error)),
                Err(error) => result = result.and(Err(anyhow!(error))),
            }
        }
        (counts, result)
    }
}

impl Lines {
    async fn flush(&mut self, zone: &Zone) -> anyhow::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.waiting));
        self.sender.send(Ok(chunk)).await.map_err(|_| anyhow!("the gateway ended the stream of zone {zone}"))
    }
}

fn rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("expected OLD=NEW, such as id=trade_id".to_owned()),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.trim_end_matches('x').parse().ok();
    speed.filter(|speed| is_speed(*speed)).ok_or_else(|| format!("expected {SPEED_EXPECTED}"))
}
