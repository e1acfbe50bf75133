//! `replay`: publishes the prices of a file to a running gateway, the lines of each zone in order.

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
use crate::feeds::replay::{Replay, ReplayError, ReplayOptions, ReplayPrice};
use crate::feeds::{Pace, Pacer, SPEED_EXPECTED, is_speed};

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

The first invalid line ends the command, after all lines before it are published. If the gateway is \
unreachable or busy, the command retries for up to a minute; prices whose answer was lost may then be \
stored twice, which is reported. If the gateway refuses a line permanently, the exit code is 1.";

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// A CSV file with a header, or NDJSON (one object per line); `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    options: ReplayOptions,
    /// Skip invalid lines; the first 20 are reported, and all are counted
    #[arg(long)]
    skip_invalid: bool,
    /// Publish with current times: the first price gets the present time, the others keep their distance to
    /// it
    #[arg(long, conflicts_with = "flat_out")]
    now: bool,
    /// How many times faster than in the file: 0.001 to 1000000
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Publish as fast as possible, regardless of the times
    #[arg(long, conflicts_with = "speed")]
    flat_out: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// How many lines are read ahead.
const READ_AHEAD: usize = 256;

/// Publishes the file, and prints how many prices each zone accepted.
pub(crate) async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let options = ReplayOptions { now: args.now.then_some(args.speed), ..args.options };
    let (replay, length) = open(&args.file, options)?;
    let bar = progress(length);
    let skipped = Skipped::new(args.skip_invalid, bar.clone());
    let mut zones = Zones::new(args.target.base()?, skipped.clone())?;
    let pace = if args.flat_out { Pace::FlatOut } else { Pace::Times(args.speed) };
    // If the file or the gateway fails, no more lines are read, but those already read are still sent,
    // so that the report is correct.
    let sent = send(read(replay), &skipped, pace, &mut zones, |sent, at, time| {
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
    // The gateway's answer explains more than an error that followed from it.
    answered.and(sent)?;
    match (accepted.values().sum(), left_out) {
        (0, 0) => print::say("no prices in it"),
        (0, left_out) => bail!("all of its {left_out} lines are invalid"),
        _ => {}
    }
    Ok(())
}

/// Sends each price when it is due. `shows` gets the number of sent prices, the position in the file, and the
/// newest time.
async fn send(
    mut lines: mpsc::Receiver<Result<ReplayPrice, ReplayError>>,
    skipped: &Skipped,
    pace: Pace,
    zones: &mut Zones,
    shows: impl Fn(u64, u64, Option<String>),
) -> anyhow::Result<()> {
    let (mut pacer, start, mut sent) = (Pacer::new(pace), Instant::now(), 0_u64);
    loop {
        let price = tokio::select! {
            // A zone has failed for good.
            () = zones.failed() => return Ok(()),
            line = lines.recv() => match line {
                None => return Ok(()),
                Some(Ok(price)) => price,
                Some(Err(ReplayError::Line { line, problem })) => {
                    skipped.line(line, &problem)?;
                    continue;
                }
                Some(Err(error)) => return Err(error.into()),
            },
        };
        let ReplayPrice { line, at, time, price } = price;
        let due = start.checked_add(pacer.due(time)).context("the file's times are too far apart")?;
        if due > Instant::now() || sent.is_multiple_of(256) {
            shows(sent, at, time.map(|time| time.format("%F %T UTC").to_string()));
        }
        if due > Instant::now() {
            tokio::select! {
                () = zones.failed() => return Ok(()),
                () = time::sleep_until(due) => {}
            }
        }
        zones.push(price.zone, line, price.json).await?;
        sent += 1;
    }
}

/// Reads on a blocking thread, because the file may be a pipe.
fn read(replay: Replay) -> mpsc::Receiver<Result<ReplayPrice, ReplayError>> {
    let (sender, lines) = mpsc::channel(READ_AHEAD);
    // The thread is not waited for: a read of standard input cannot be interrupted.
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

/// A progress bar on stderr; it is hidden if stderr is not a terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, form) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {percent:>3} %  {msg}  {elapsed}, {eta} to go"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}  {elapsed}"),
    };
    if io::stderr().is_terminal() {
        // The bar also moves while the next price is not due for long.
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    // The templates are valid; if one were not, the library's default would do.
    if let Ok(style) = ProgressStyle::with_template(form) { bar.with_style(style) } else { bar }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.trim_end_matches('x').parse().ok();
    speed.filter(|speed| is_speed(*speed)).ok_or_else(|| format!("expected {SPEED_EXPECTED}"))
}
