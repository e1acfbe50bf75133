//! `zonewire-outages`: what becomes of a deployment when its Redis fails.
//!
//! For each fault, gateways and a Redis of their own are started as processes, with a proxy on each link.
//! Producers post numbered entries at every gateway, and subscribers at every gateway watch all of them; some
//! subscribers move from gateway to gateway (`load`, `watch`). The fault begins and ends (`faults`, `world`,
//! `node`, and the kit). What each subscriber saw and was told is compared with what was accepted and with
//! what the logs hold at the end (`record`, `witness`, `read`, `logs`, `timeline`, `outcome`).

mod document;
mod faults;
mod load;
mod logs;
mod mirror;
mod outcome;
mod poll;
mod read;
mod record;
mod registries;
mod report;
mod schedule;
mod session;
mod soak;
mod timeline;
mod watch;
mod witness;
mod world;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::builder::RangedU64ValueParser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time;
use uuid::Uuid;

use self::document::write_between_markers;
use self::faults::{FAULTS, Fault};
use self::outcome::Outcome;
use self::report::{Report, machine};
use self::session::Setup;
use crate::node;
use zonewire::cli::Hidden;
use zonewire::cli::exit::{Stopped, UsageError};
use zonewire_kit::clock::NotRun;
use zonewire_kit::redis::RedisServer;
use zonewire_kit::resp::Target;

const EXAMPLES: &str = "\
Examples:
  zonewire-outages                                   every fault once, some fifteen minutes
  zonewire-outages --list
  zonewire-outages --faults killed-empty,black-hole --hold 10s
  zonewire-outages --faults cut,frozen --repeat 5 --timing
  zonewire-outages --random 10m --seed 7             faults from a seed, in one deployment
  zonewire-outages --soak 30m                        does a gateway give back what it took?
  zonewire-outages --redis redis://10.0.0.7:6379     your Redis, with what harms no data
  zonewire-outages --list --redis redis://10.0.0.7   which faults those are

It starts gateways of its own on free ports of this machine, and redis-server 7 or later, which must \
be in the PATH, unless --redis names one. The faults of clocks need libfaketime (Debian: apt-get install \
faketime). Nothing is installed, and what it starts ends with it.

A Redis that it did not start is never killed, flushed or set otherwise, and its keys there, under a \
prefix of their own, are removed at the end.

Ends with 0 when every promise of docs/OUTAGES.md held, with 1 when one did not or a fault could not be \
run. What was lost, doubled or reordered is said with its channel, gateway, id and time; --logs DIR keeps \
what the gateways did then.";

/// Let Redis fail in every way, and see what becomes of updates, sockets and the truth.
#[derive(Debug, clap::Parser)]
#[command(name = "zonewire-outages", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct OutageArgs {
    /// The gateway to check [default: the `zonewire` beside this program, else the one in the PATH]
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// List the faults
    #[arg(long)]
    list: bool,
    /// The faults to run, by name [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    faults: Vec<String>,
    /// Run random faults for this long, one after the other in one deployment
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    random: Option<Duration>,
    /// Have clients of every kind come and go at one gateway with authentication for this long, while Redis is
    /// away now and then; memory, descriptors, tasks and the keys of Redis must come back to what they were
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["faults", "random", "hold", "repeat", "redis", "json"])]
    soak: Option<Duration>,
    /// Decides which random faults come when, and where subscribers move [default: a random one, which is
    /// printed]
    #[arg(long)]
    seed: Option<u64>,
    /// How long each fault is held, instead of its own time
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "random")]
    hold: Option<Duration>,
    /// How often each fault is run, each time in a new deployment; each figure is reported with its median
    /// and its worst value
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), conflicts_with = "random")]
    repeat: u32,
    #[command(flatten)]
    load: LoadArgs,
    /// A Redis of yours, instead of one of its own; better given as OUTAGE_CHECK_REDIS_URL, since
    /// others can see flags
    #[arg(long, value_name = "URL", env = "OUTAGE_CHECK_REDIS_URL", hide_env_values = true)]
    redis: Option<Hidden>,
    /// Also fail if the median of a fault's runs exceeds a limit of docs/OUTAGES.md; for an otherwise idle
    /// machine
    #[arg(long)]
    timing: bool,
    /// The results as JSON; `-` is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The table, between the markers of a document
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// The deployment, and what is published in it.
#[derive(Debug, Clone, clap::Args)]
struct LoadArgs {
    /// Gateways
    #[arg(long, default_value_t = 3, value_parser = from_to(1..=8))]
    nodes: usize,
    /// Orders, most of them watched at every gateway
    #[arg(long, default_value_t = 50, value_parser = from_to(1..=1000))]
    orders: usize,
    /// Zones, on the lanes `latest` and `every` alternately
    #[arg(long, default_value_t = 7, value_parser = from_to(2..=100))]
    zones: usize,
    /// Prices per second and zone, of all gateways together
    #[arg(long, default_value_t = 10.0, value_parser = parse_rate)]
    rate: f64,
    /// Updates per second and order; a log holds 50 of an order, and a fault lasts up to a minute
    #[arg(long, default_value_t = 0.5, value_parser = parse_rate)]
    order_rate: f64,
    /// Where to write the gateways' logs [default: nowhere]
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Overrides a setting of the gateways, as for `serve`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

fn from_to(range: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

/// The longest time that can be asked for: all that was seen stays in memory to the end.
const TIME_MAX: Duration = Duration::from_secs(6 * 3600);

/// `500ms`, `30s`, `10m`, `1h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a time such as 500ms, 30s or 10m".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a time such as 500ms, 30s or 10m".to_owned())?;
    match number.checked_mul(unit_ms).map(Duration::from_millis) {
        Some(time) if (Duration::from_millis(1)..=TIME_MAX).contains(&time) => Ok(time),
        _ => Err("expected a time from 1ms to 6h".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0.01 to 1000".to_owned()),
    }
}

/// Runs the faults, and fails if a promise was broken.
pub fn run(args: OutageArgs) -> anyhow::Result<()> {
    if args.list {
        print!("{}", list(&args));
        return Ok(());
    }
    // Two threads, whatever the machine: the gateways need the others.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(run_or_interrupt(args));
    // Dropping the handles kills the children; nothing else needs waiting for.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn run_or_interrupt(args: OutageArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let faults = chosen(&args)?;
    let redis = match &args.redis {
        Some(url) => {
            let target = Target::parse(url.text()).await.map_err(|error| UsageError(format!("{error:#}")))?;
            target.run(&["PING"]).await?;
            Some(target)
        }
        None if RedisServer::is_installed().await => None,
        None => {
            bail!("cannot find redis-server: install it, or name a Redis of your own with --redis redis://…")
        }
    };
    if args.redis.is_some() {
        eprintln!("{}: {}", why_not(&args), not_possible(&args).join(", "));
    }
    if let Some(dir) = &args.load.logs {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let setup = Setup {
        gateway: node::find(args.gateway.as_deref()).await?,
        load: args.load.clone(),
        redis,
        prefix: format!("outage-check-{}", Uuid::new_v4().simple()),
        seed: args.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        access: None,
    };
    if let Some(length) = args.soak {
        return tokio::select! {
            soaked = soak::run(&setup, length) => print_soaked(&args, &soaked?),
            () = stopped => Err(Stopped.into()),
        };
    }
    let ran: anyhow::Result<Report> = tokio::select! {
        report = run_all(&args, &setup, &faults) => Ok(report),
        () = stopped => Err(Stopped.into()),
    };
    // The gateways are gone by now, so their keys can be removed.
    let cleaned = clean_up(&setup).await;
    let report = ran?;
    print_report(&args, &report)?;
    cleaned?;
    match (report.failed.is_empty(), report.is_good()) {
        (_, true) => Ok(()),
        (true, false) => bail!("not every promise held"),
        (false, false) => bail!("not every fault could be run"),
    }
}

fn is_possible(args: &OutageArgs, fault: &Fault) -> bool {
    (args.redis.is_none() || !fault.is_of_redis()) && (args.random.is_none() || fault.is_for_random())
}

fn not_possible(args: &OutageArgs) -> Vec<&'static str> {
    FAULTS.iter().filter(|fault| !is_possible(args, fault)).map(|fault| fault.name).collect()
}

fn why_not(args: &OutageArgs) -> &'static str {
    if args.redis.is_some() { "not with a Redis that the suite did not start" } else { "not among others" }
}

/// The faults that can be run with these arguments, and the names of those that cannot.
fn list(args: &OutageArgs) -> String {
    let possible: Vec<&Fault> = FAULTS.iter().filter(|fault| is_possible(args, fault)).collect();
    let width = possible.iter().map(|fault| fault.name.len()).max().unwrap_or(0);
    let line = |fault: &&Fault| format!("{:<width$}  {}\n", fault.name, fault.about);
    let mut out: String = possible.iter().map(line).collect();
    let others = not_possible(args);
    if !others.is_empty() {
        out += &format!("\n{}: {}\n", why_not(args), others.join(", "));
    }
    out
}

/// The faults to run; an error names all bad names at once.
fn chosen(args: &OutageArgs) -> anyhow::Result<Vec<Fault>> {
    let is_possible = |fault: &Fault| is_possible(args, fault);
    if args.faults.is_empty() {
        return Ok(FAULTS.iter().copied().filter(is_possible).map(|fault| held(fault, args.hold)).collect());
    }
    let (mut faults, mut bad) = (Vec::new(), Vec::new());
    for name in &args.faults {
        match faults::find(name) {
            Some(fault) if is_possible(fault) => faults.push(held(*fault, args.hold)),
            Some(_) => bad.push(format!(
                "`{name}` cannot be run so: it needs a Redis of the suite's own, or a run of its own"
            )),
            None => bad.push(format!("there is no fault `{name}`; --list says which there are")),
        }
    }
    match bad.is_empty() {
        true => Ok(faults),
        false => Err(UsageError(bad.join("\n")).into()),
    }
}

fn held(fault: Fault, hold: Option<Duration>) -> Fault {
    match hold {
        Some(hold) if !fault.ends_by_itself() => Fault { hold, ..fault },
        _ => fault,
    }
}

async fn run_all(args: &OutageArgs, setup: &Setup, faults: &[Fault]) -> Report {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: machine(),
        nodes: setup.load.nodes,
        orders: setup.load.orders,
        zones: setup.load.zones,
        seed: setup.seed,
        outcomes: Vec::new(),
        too_late: BTreeMap::new(),
        failed: BTreeMap::new(),
    };
    if let Some(length) = args.random {
        let plan = schedule::plan(setup.seed, length, faults);
        eprintln!("random faults from seed {}: {} in {length:?}", setup.seed, plan.len());
        let outcome = session::random(setup, &plan).await;
        note(&mut report, "random", 1, outcome);
        return report;
    }
    for (number, fault) in faults.iter().enumerate() {
        eprintln!("{}/{} {}: {}", number + 1, faults.len(), fault.name, fault.about);
        for run in 1..=args.repeat {
            // On a Redis that outlives the run, each run has keys of its own.
            let setup = Setup { prefix: format!("{}-{number}-{run}", setup.prefix), ..setup.clone() };
            let outcome = session::one(&setup, fault).await;
            note(&mut report, fault.name, run, outcome);
        }
        if args.timing {
            let late = report.judge_time(fault.name, &fault.limits(setup.ordering_deadline()));
            late.iter().for_each(|late| eprintln!("  {late}"));
        }
    }
    report
}

/// Prints the result of a run, and records it.
fn note(report: &mut Report, name: &str, run: u32, outcome: anyhow::Result<Outcome>) {
    match outcome {
        Ok(outcome) => {
            let verdict = match outcome.broken.is_empty() {
                true => "good".to_owned(),
                false => format!("NOT GOOD: {}", outcome.broken.join(", ")),
            };
            eprintln!("  {verdict}");
            print_examples(&outcome);
            report.outcomes.push(Outcome { run, ..outcome });
        }
        Err(error) => {
            let what = if error.is::<NotRun>() { "not run" } else { "could not be run" };
            let why = format!("{what}: {error:#}");
            eprintln!("  {why}");
            report.failed.insert(name.to_owned(), why);
        }
    }
}

fn print_examples(outcome: &Outcome) {
    let kinds = [
        ("lost", &outcome.lost_examples[..]),
        ("doubled or reordered", &outcome.odd_examples),
        ("a record", &outcome.records.examples),
        ("not so", &outcome.false_examples),
    ];
    for (what, examples) in kinds {
        examples.iter().for_each(|example| eprintln!("    {what}: {example}"));
    }
}

/// Removes what was written to a Redis that the suite did not start. A command of a gateway that was just
/// killed may still arrive, so it repeats until it has twice found nothing.
async fn clean_up(setup: &Setup) -> anyhow::Result<()> {
    const LOOKS_MAX: u32 = 20;
    let Some(target) = &setup.redis else { return Ok(()) };
    let mut looks_clean = 0;
    for _ in 0..LOOKS_MAX {
        let removed = target.remove_all(&setup.prefix).await;
        let removed =
            removed.with_context(|| format!("keys that begin with {} are left in Redis", setup.prefix))?;
        looks_clean = if removed == 0 { looks_clean + 1 } else { 0 };
        if looks_clean == 2 {
            return Ok(());
        }
        time::sleep(Duration::from_millis(300)).await;
    }
    bail!("keys that begin with {} come back in Redis", setup.prefix)
}

fn print_report(args: &OutageArgs, report: &Report) -> anyhow::Result<()> {
    let json = || serde_json::to_string_pretty(report).context("cannot write the results as JSON");
    match &args.json {
        Some(path) if path.as_os_str() == "-" => println!("{}", json()?),
        path => {
            if let Some(path) = path {
                std::fs::write(path, json()? + "\n")
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            print!("{}", report.table());
        }
    }
    if let Some(path) = &args.markdown {
        write_between_markers(path, "outages", &report.markdown())?;
    }
    Ok(())
}

fn print_soaked(args: &OutageArgs, soaked: &soak::Soaked) -> anyhow::Result<()> {
    print!("{}", soaked.text());
    print_examples(&soaked.outcome);
    if let Some(path) = &args.markdown {
        write_between_markers(path, "soak", &soaked.markdown())?;
    }
    match soaked.faults().is_empty() {
        true => Ok(()),
        false => bail!("not all came back, or not every promise held"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen_by(arguments: &[&str]) -> anyhow::Result<Vec<&'static str>> {
        use clap::Parser as _;
        let args = OutageArgs::try_parse_from([&["probe"], arguments].concat())?;
        Ok(chosen(&args)?.iter().map(|fault| fault.name).collect())
    }

    #[test]
    fn times_are_read() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
        for bad in ["", "5", "s", "0s", "-1s", "1.5s", "7h", "99999999999999999999h", "1d"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn faults_are_chosen_by_name_and_all_bad_names_are_told() {
        assert_eq!(chosen_by(&[]).unwrap().len(), FAULTS.len());
        assert_eq!(chosen_by(&["--faults", "cut,flushed"]).unwrap(), ["cut", "flushed"]);
        let error = chosen_by(&["--faults", "x,cut,y"]).unwrap_err().to_string();
        assert!(error.contains("`x`") && error.contains("`y`"), "{error}");
    }

    #[test]
    fn the_list_says_what_can_be_run_and_what_cannot() {
        use clap::Parser as _;
        let said =
            |arguments: &[&str]| list(&OutageArgs::try_parse_from([&["probe"], arguments].concat()).unwrap());
        assert_eq!(said(&[]).lines().count(), FAULTS.len());
        let theirs = said(&["--redis", "redis://127.0.0.1"]);
        let (can, cannot) = theirs.split_once("\nnot with a Redis that the suite did not start: ").unwrap();
        assert!(can.contains("black-hole ") && can.contains("gateway-clock "), "{theirs}");
        assert!(cannot.contains("flushed") && cannot.contains("redis-clock"), "{theirs}");
        assert!(said(&["--random", "1m"]).contains("\nnot among others: "));
    }

    #[test]
    fn somebody_elses_redis_gets_faults_of_the_link_only() {
        let names = chosen_by(&["--redis", "redis://127.0.0.1"]).unwrap();
        assert!(names.contains(&"black-hole") && names.contains(&"flapping"));
        assert!(
            !names.contains(&"flushed") && !names.contains(&"killed-aof") && !names.contains(&"client-kill")
        );
        assert!(chosen_by(&["--redis", "redis://127.0.0.1", "--faults", "flushed"]).is_err());
    }
}
