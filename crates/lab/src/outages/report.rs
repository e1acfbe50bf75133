//! The results of all faults, as a table, as JSON, and as markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde::Serialize;

use super::outcome::{Limit, Outcome, Tally};
use super::witness::Lane;
use crate::figures::Spread;

/// The results of one run of the suite.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: String,
    pub(super) nodes: usize,
    pub(super) orders: usize,
    pub(super) zones: usize,
    /// The seed of random faults, and of where subscribers move.
    pub(super) seed: u64,
    /// Each run of each fault; the runs of one fault are consecutive.
    pub(super) outcomes: Vec<Outcome>,
    /// Promises on times that the runs of a fault broke; empty unless they are judged.
    pub(super) too_late: BTreeMap<String, Vec<String>>,
    /// Faults that could not be run, or not to their end, and why.
    pub(super) failed: BTreeMap<String, String>,
}

impl Report {
    /// Whether every promise held, and every fault was run.
    pub(super) fn is_good(&self) -> bool {
        self.failed.is_empty()
            && self.too_late.is_empty()
            && self.outcomes.iter().all(|outcome| outcome.broken.is_empty())
    }

    /// Judges the times of a fault's runs; returns what took too long.
    pub(super) fn judge_time(&mut self, fault: &str, limits: &[Limit]) -> Vec<String> {
        let runs: Vec<&Outcome> = self.outcomes.iter().filter(|outcome| outcome.fault == fault).collect();
        let late: Vec<String> = limits.iter().filter_map(|limit| limit.exceeded(&runs)).collect();
        if !late.is_empty() {
            self.too_late.insert(fault.to_owned(), late.clone());
        }
        late
    }

    /// For a terminal.
    pub(super) fn table(&self) -> String {
        let mut out = lay_out(&self.cells());
        out.push('\n');
        out.push_str(&lay_out(&self.other_cells()));
        for line in self.notes() {
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    /// For a document.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        let Self { version, machine, nodes, orders, zones, seed, .. } = self;
        let setup = format!("{nodes} gateways, {orders} orders, {zones} zones; seed {seed}");
        // Writing to a string cannot fail.
        let _written = writeln!(out, "Version {version}, {setup}. {machine}\n");
        out += &as_markdown(&self.cells());
        if !self.outcomes.is_empty() {
            let _written = writeln!(out, "\nEvents, records and the feed, in the same runs:\n");
            out += &as_markdown(&self.other_cells());
        }
        let notes: Vec<String> = self.notes().iter().map(|note| format!("- {note}")).collect();
        if !notes.is_empty() {
            let _written = writeln!(out, "\n{}", notes.join("\n"));
        }
        out.trim_end().to_owned()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for outcome in self.outcomes.iter().filter(|outcome| !outcome.broken.is_empty()) {
            let run = if outcome.run > 1 { format!(", run {}", outcome.run) } else { String::new() };
            notes.push(format!("{}{run}: {}", outcome.fault, outcome.broken.join(", ")));
        }
        notes.extend(self.too_late.iter().map(|(fault, late)| format!("{fault}: {}", late.join(", "))));
        notes.extend(self.failed.iter().map(|(fault, why)| format!("{fault}: {why}")));
        notes
    }

    fn other_cells(&self) -> Vec<Vec<String>> {
        table(self.outcomes.chunk_by(|one, other| one.fault == other.fault).map(other_row))
    }

    fn cells(&self) -> Vec<Vec<String>> {
        table(self.outcomes.chunk_by(|one, other| one.fault == other.fault).map(row))
    }
}

/// A row of a table: each cell with the head of its column.
pub(super) type Row<const N: usize> = [(&'static str, String); N];

/// The cells of a table, heads first; none if there are no rows.
pub(super) fn table<const N: usize>(rows: impl Iterator<Item = Row<N>>) -> Vec<Vec<String>> {
    let mut cells = Vec::new();
    for row in rows {
        if cells.is_empty() {
            cells.push(row.iter().map(|(head, _)| (*head).to_owned()).collect());
        }
        cells.push(row.into_iter().map(|(_, cell)| cell).collect());
    }
    cells
}

/// A table of a document.
pub(super) fn as_markdown(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _written = writeln!(out, "| {} |", row.join(" | "));
        if number == 0 {
            let rule: Vec<&str> =
                row.iter().enumerate().map(|(n, _)| if n == 0 { "---" } else { "---:" }).collect();
            let _written = writeln!(out, "| {} |", rule.join(" | "));
        }
    }
    out
}

/// A count of three kinds of entries, over all runs.
fn three(runs: &[Outcome], lanes: [Lane; 3], of: impl Fn(&Tally) -> u64) -> String {
    let sums = lanes.map(|lane| runs.iter().filter_map(|run| run.tallies.get(&lane)).map(&of).sum::<u64>());
    match sums == [0; 3] {
        true => "0".to_owned(),
        false => sums.map(|sum| sum.to_string()).join("/"),
    }
}

/// The median of a figure, with the worst behind it.
fn figure(runs: &[Outcome], of: &dyn Fn(&Outcome) -> Option<f64>) -> String {
    match Spread::of(runs.iter().filter_map(of)) {
        None => "-".to_owned(),
        Some(Spread { median, most, .. }) => {
            let (median, most) = (format!("{median:.0}"), format!("{most:.0}"));
            if most == median { median } else { format!("{median} ({most})") }
        }
    }
}

fn named(runs: &[Outcome]) -> String {
    let first = runs.first().map(|run| run.fault.clone()).unwrap_or_default();
    if runs.len() > 1 { format!("{first}, {} runs", runs.len()) } else { first }
}

/// The runs of one fault: counts of events, records and the feed.
fn other_row(runs: &[Outcome]) -> Row<18> {
    let count = |of: fn(&Outcome) -> u64| runs.iter().map(of).sum::<u64>().to_string();
    let three = |of: fn(&Tally) -> u64| three(runs, [Lane::Events, Lane::Live, Lane::Trades], of);
    [
        ("fault", named(runs)),
        ("accepted", three(|tally| tally.accepted)),
        ("refused", three(Tally::refused)),
        ("delivered", three(|tally| tally.judged.delivered)),
        ("lost", three(|tally| tally.judged.lost)),
        ("told", three(|tally| tally.judged.told)),
        ("doubled", three(|tally| tally.judged.doubled)),
        ("reordered", three(|tally| tally.judged.reordered)),
        ("false words", three(Tally::false_statements)),
        ("trades later, ms", figure(runs, &|run| run.later_trades_ms)),
        ("taken over, ms", figure(runs, &|run| run.taken_over_ms)),
        ("written", count(|run| run.records.written)),
        ("not written", count(|run| run.records.refused)),
        ("records", count(|run| run.records.records)),
        ("unequal", count(|run| run.records.unequal)),
        ("records lost", count(|run| run.records.lost)),
        ("came back", count(|run| run.records.came_back)),
        ("the same, ms", figure(runs, &|run| run.equal_ms)),
    ]
}

/// The runs of one fault: sums of the counts, and of each figure the median with the worst behind it.
fn row(runs: &[Outcome]) -> Row<24> {
    let figure = |of: &dyn Fn(&Outcome) -> Option<f64>| figure(runs, of);
    let mib = |of: fn(&Outcome) -> Option<u64>| figure(&|run| Some(of(run)? as f64 / 1_048_576.0));
    let count = |of: fn(&Outcome) -> u64| runs.iter().map(of).sum::<u64>().to_string();
    let three = |of: fn(&Tally) -> u64| three(runs, [Lane::Orders, Lane::Every, Lane::Latest], of);
    let two = |one: String, other: String| format!("{one} / {other}");
    let recovered = match runs.iter().all(|run| run.recovered) {
        true => figure(&|run| run.recovered_ms),
        false => "never".to_owned(),
    };
    let held = Spread::of(runs.iter().map(|run| run.held_s)).map_or(0.0, |held| held.median);
    let whole = count(|run| run.snapshots.counted.whole);
    let later_every = figure(&|run| run.later_every_ms);
    let falsely_degraded = figure(&|run| Some(run.falsely_degraded_ms));
    [
        ("fault", named(runs)),
        ("held, s", format!("{held:.0}")),
        ("accepted", three(|tally| tally.accepted)),
        ("refused", three(Tally::refused)),
        ("delivered", three(|tally| tally.judged.delivered)),
        ("lost", three(|tally| tally.judged.lost)),
        ("lost anew", count(|run| run.read_anew.lost)),
        ("told", three(|tally| tally.judged.told)),
        ("doubled", three(|tally| tally.judged.doubled)),
        ("reordered", three(|tally| tally.judged.reordered)),
        ("moved", three(|tally| tally.judged.moved)),
        ("resumed", three(|tally| tally.judged.resumed)),
        ("gaps", three(|tally| tally.judged.gaps)),
        ("again", three(|tally| tally.judged.again)),
        ("false words", three(Tally::false_statements)),
        ("snapshots", two(whole, count(|run| run.snapshots.counted.in_part))),
        ("stale", count(|run| run.snapshots.stale + run.snapshots.counted.odd)),
        ("later, ms", two(figure(&|run| run.later_latest_ms), later_every)),
        ("noticed, ms", two(figure(&|run| run.noticed_ms), figure(&|run| run.socket_told_ms))),
        ("recovered, ms", recovered),
        ("caught up, ms", figure(&|run| run.caught_up_ms)),
        ("untrue, ms", two(figure(&|run| Some(run.falsely_healthy_ms)), falsely_degraded)),
        ("cut", count(|run| run.sockets_cut)),
        (
            "memory, MiB",
            format!("{} > {}", mib(|run| run.memory_before_bytes), mib(|run| run.memory_after_bytes)),
        ),
    ]
}

/// Columns of even width, the first aligned left and all others right.
pub(super) fn lay_out(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _written = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The day and the machine of the measurement.
pub(super) fn machine() -> String {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(|c: char| c == ':' || c.is_whitespace()).to_owned())
    };
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = field("/proc/sys/kernel/osrelease", "").unwrap_or_else(|| "unknown".to_owned());
    let day = chrono::Utc::now().format("%Y-%m-%d");
    let build = if cfg!(debug_assertions) { ", debug build" } else { "" };
    format!("{day}; {model}, {cores} cores, Linux {kernel}{build}.")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outages::outcome::tests::{good, limits};

    fn report() -> Report {
        let mut bad = good();
        bad.fault = "flushed".to_owned();
        bad.of(Lane::Orders).judged.lost = 2;
        bad.find_broken();
        Report {
            version: "1",
            machine: "m".to_owned(),
            nodes: 3,
            orders: 5,
            zones: 2,
            seed: 7,
            outcomes: vec![good(), bad],
            too_late: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    #[test]
    fn tables_have_a_row_for_each_fault_and_say_what_is_broken() {
        let (table, markdown) = (report().table(), report().markdown());
        assert_eq!(table.lines().count(), 8);
        assert!(table.ends_with("flushed: 2 order updates lost\n"), "{table}");
        assert!(table.contains("2/0/0"), "{table}");
        let columns: Vec<usize> = markdown
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(columns, [[25; 4], [19; 4]].concat(), "{markdown}");
        assert!(!report().is_good());
    }

    #[test]
    fn runs_of_one_fault_share_a_row_with_median_and_worst() {
        let run = |run, noticed| Outcome { run, noticed_ms: Some(noticed), ..good() };
        let mut report = Report { outcomes: vec![run(1, 10.0), run(2, 90.0), run(3, 20.0)], ..report() };
        let table = report.table();
        assert_eq!(table.lines().count(), 5, "{table}");
        assert!(table.contains("cut, 3 runs") && table.contains("20 (90)") && table.contains("27/27/27"));
        assert!(report.is_good());
        let limits = limits(|what| (what == "noticed after").then_some(Duration::ZERO));
        assert_eq!(report.judge_time("cut", &limits), [""; 0], "the polls lie that far apart");
        report.outcomes[0].noticed_ms = Some(400.0);
        report.outcomes[1].noticed_ms = Some(500.0);
        assert_eq!(report.judge_time("cut", &limits), ["noticed after 400 ms instead of 0"]);
        assert!(!report.is_good());
        report.outcomes[1].broken.push("1 order updates lost".to_owned());
        let table = report.table();
        assert!(table.contains("cut, run 2: 1 order updates lost\ncut: noticed after"), "{table}");
    }

    #[test]
    fn a_fault_that_was_not_run_is_not_good() {
        let failed = [("gateway-clock".to_owned(), "not run: libfaketime is missing".to_owned())];
        let report = Report { outcomes: vec![good()], failed: failed.into(), ..report() };
        assert!(!report.is_good() && report.table().contains("gateway-clock: not run: libfaketime"));
    }
}
