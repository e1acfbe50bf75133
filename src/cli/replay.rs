//! `replay`: publish the prices of a file to a running gateway, the lines of each zone in their order.

mod zones;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::time::{self, Duration, Instant};

use self::zones::{Skipped, Zones};
use super::print;
use crate::cli::target::TargetArgs;
use crate::config::{Delimiter, TimeFormat, TimeZone};
use crate::feeds::replay::{FileFormat, Replay, ReplayError, ReplayOptions, ReplayPrice};
use crate::feeds::{Pace, Pacer, SPEED_EXPECTED, is_speed};
use crate::model::Zone;

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire replay lmp.csv --flat-out --key-column location --key-column market
  zonewire replay trades.csv --zone btc-usdt --speed 10
  zonewire replay rt.csv --zone pjm --time-format '%m/%d/%Y %H:%M' --time-zone America/New_York
  zonewire replay ticks.ndjson --zone-column market --rename id=trade_id --now
  gunzip -c big.csv.gz | zonewire replay - --zone btc-usdt

Columns are found by their names: zone; time or timestamp; key, location, hub, node or symbol; \
price, or bid and ask. energy, congestion, loss, quantity, bid and ask are numbers; every other \
column becomes a free field.

The first bad line ends it, when all before it is published. While the gateway is away, or busy, it \
waits up to a minute; prices whose answer was lost then may be there twice, which is said. What the \
gateway refuses for good ends it with 1.";

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
    /// The column that names the hub, node or symbol; of several, in this order, joined with `/`
    #[arg(long, value_name = "COLUMN")]
    key_column: Vec<String>,
    /// The column that holds the price
    #[arg(long, value_name = "COLUMN")]
    price_column: Option<String>,
    /// The column that holds the bid; a line with bid and ask needs no price
    #[arg(long, value_name = "COLUMN")]
    bid_column: Option<String>,
    /// The column that holds the ask
    #[arg(long, value_name = "COLUMN")]
    ask_column: Option<String>,
    /// The column that holds the time
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,
    /// The form of the times as strptime has it, such as '%m/%d/%Y %H:%M'
    #[arg(long, value_name = "FORM")]
    time_format: Option<TimeFormat>,
    /// The time zone of times that do not say their own, such as America/New_York or -05:00
    ///
    /// An hour that clocks go through twice is taken as the first one until the times would go back.
    #[arg(long, value_name = "ZONE", default_value_t, hide_default_value = true)]
    time_zone: TimeZone,
    /// Give a column another name; `type`, `channel`, `offset`, `id`, `late`, `missedBefore` and `snapshot` need one
    #[arg(long, value_name = "OLD=NEW", value_parser = rename)]
    rename: Vec<(String, String)>,
    /// How the file is laid out [default: by its name and first byte]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "csv|ndjson")]
    format: Option<FileFormat>,
    /// What stands between the columns of a CSV file, such as ';' or tab [default: a comma]
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<Delimiter>,
    /// Leave bad lines out; the first 20 are said, and all are counted
    #[arg(long)]
    skip_invalid: bool,
    /// Publish with the times of now: the first price's is the present, the others' follow it
    #[arg(long, conflicts_with = "flat_out")]
    now: bool,
    /// So many times faster than in the file: 0.001 to 1000000
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// As fast as it goes, whatever the times say
    #[arg(long, conflicts_with = "speed")]
    flat_out: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Lines read ahead.
const READ_AHEAD: usize = 256;

/// Publishes the file, and prints how many prices each zone accepted.
pub(crate) async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let options = ReplayOptions {
        format: args.format,
        zone: args.zone,
        zone_column: args.zone_column,
        key: args.key,
        key_columns: args.key_column,
        price_column: args.price_column,
        bid_column: args.bid_column,
        ask_column: args.ask_column,
        time_column: args.time_column,
        time_format: args.time_format,
        time_zone: args.time_zone,
        delimiter: args.delimiter,
        now: args.now.then_some(args.speed),
        rename: args.rename,
    };
    let (replay, length) = open(&args.file, options)?;
    let bar = progress(length);
    let skipped = Skipped::new(args.skip_invalid, bar.clone());
    let mut zones = Zones::new(args.target.base()?, skipped.clone())?;
    let pace = if args.flat_out { Pace::FlatOut } else { Pace::Times(args.speed) };
    let mut file = File { lines: read(replay), skipped: skipped.clone(), sent: 0 };
    // An error of the file or the gateway ends the sending; what was read before it is still sent, so
    // that the report holds.
    let sent = file.send(pace, &mut zones, |sent, at, time| {
        bar.set_position(at);
        bar.set_message(time.map_or(format!("{sent} prices"), |time| format!("{sent} prices, at {time}")));
    });
    let sent = sent.await;
    let (accepted, answered) = zones.finish().await;
    bar.finish_and_clear();
    for (zone, count) in &accepted {
        print::line(&format!("{zone}: {count} accepted"))?;
    }
    let left_out = skipped.report();
    // What the gateway said explains more than what became of the sending.
    answered.and(sent)?;
    match (accepted.values().sum(), left_out) {
        (0, 0) => print::say("no prices in it"),
        (0, left_out) => bail!("all of its {left_out} lines are invalid"),
        _ => {}
    }
    Ok(())
}

/// A file on its way.
struct File {
    lines: mpsc::Receiver<Result<ReplayPrice, ReplayError>>,
    skipped: Skipped,
    sent: u64,
}

impl File {
    /// Sends each price when it is due. `shows` gets how many were, how far into the file that is, and the
    /// newest time.
    async fn send(
        &mut self,
        pace: Pace,
        zones: &mut Zones,
        shows: impl Fn(u64, u64, Option<String>),
    ) -> anyhow::Result<()> {
        let mut pacer = Pacer::new(pace);
        let start = Instant::now();
        loop {
            let price = tokio::select! {
                // Nothing more can be brought in.
                () = zones.failed() => return Ok(()),
                line = self.lines.recv() => match line {
                    None => return Ok(()),
                    Some(Ok(price)) => price,
                    Some(Err(ReplayError::Line { line, problem })) => {
                        self.skipped.line(line, &problem)?;
                        continue;
                    }
                    Some(Err(error)) => return Err(error.into()),
                },
            };
            let ReplayPrice { line, at, time, price } = price;
            let due = start.checked_add(pacer.due(time)).context("the file's times are too far apart")?;
            if due > Instant::now() || self.sent.is_multiple_of(256) {
                shows(self.sent, at, time.map(|time| time.format("%F %T UTC").to_string()));
            }
            if due > Instant::now() {
                tokio::select! {
                    () = zones.failed() => return Ok(()),
                    () = time::sleep_until(due) => {}
                }
            }
            zones.push(price.zone, line, price.json).await?;
            self.sent += 1;
        }
    }
}

/// Reads on a thread that may wait: for a pipe, for one.
fn read(replay: Replay) -> mpsc::Receiver<Result<ReplayPrice, ReplayError>> {
    let (sender, lines) = mpsc::channel(READ_AHEAD);
    // Not waited for: a read of standard input cannot be called off.
    let _reader = tokio::task::spawn_blocking(move || {
        for line in replay {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn open(file: &Path, options: ReplayOptions) -> anyhow::Result<(Replay, Option<u64>)> {
    if file == Path::new("-") {
        let replay = Replay::read("standard input".to_owned(), Box::new(io::stdin()), options);
        return Ok((replay.context("cannot replay standard input")?, None));
    }
    let length = std::fs::metadata(file).ok().map(|metadata| metadata.len());
    let replay = Replay::open(file, options).with_context(|| format!("cannot replay {}", file.display()))?;
    Ok((replay, length))
}

/// On stderr, and only when that is a terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, form) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} to go"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}  {elapsed}"),
    };
    if io::stderr().is_terminal() {
        // Between two prices that are far apart, too.
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    // The forms above are good; if not, the library's own will do.
    if let Ok(style) = ProgressStyle::with_template(form) { bar.with_style(style) } else { bar }
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
