//! The results of all faults, as a table, as JSON, and as markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde::Serialize;

use super::outcome::{Limits, Outcome, Spread, Tally};

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
    pub(super) fn judge_time(&mut self, fault: &str, limits: &Limits) -> Vec<String> {
        let runs: Vec<&Outcome> = self.outcomes.iter().filter(|outcome| outcome.fault == fault).collect();
        let late = limits.exceeded(&runs);
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
        let _written = writeln!(out, "\nEvents, records and the feed, in the same runs:\n");
        out += &as_markdown(&self.other_cells());
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
        const HEAD: [&str; 18] = [
            "fault",
            "accepted",
            "refused",
            "delivered",
            "lost",
            "told",
            "doubled",
            "reordered",
            "false words",
            "trades later, ms",
            "taken over, ms",
            "written",
            "not written",
            "records",
            "unequal",
            "records lost",
            "came back",
            "the same, ms",
        ];
        let mut rows: Vec<Vec<String>> = vec![HEAD.iter().map(|name| (*name).to_owned()).collect()];
        rows.extend(self.outcomes.chunk_by(|one, other| one.fault == other.fault).map(other_row));
        rows
    }

    fn cells(&self) -> Vec<Vec<String>> {
        const HEAD: [&str; 24] = [
            "fault",
            "held, s",
            "accepted",
            "refused",
            "delivered",
            "lost",
            "lost anew",
            "told",
            "doubled",
            "reordered",
            "moved",
            "resumed",
            "gaps",
            "again",
            "false words",
            "snapshots",
            "stale",
            "later, ms",
            "noticed, ms",
            "recovered, ms",
            "caught up, ms",
            "untrue, ms",
            "cut",
            "memory, MiB",
        ];
        let mut rows: Vec<Vec<String>> = vec![HEAD.iter().map(|name| (*name).to_owned()).collect()];
        rows.extend(self.outcomes.chunk_by(|one, other| one.fault == other.fault).map(row));
        rows
    }
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

/// A count of durable events, of live ones, and of trades of the exchange, over all runs.
fn three_others(runs: &[Outcome], of: impl Fn(&Tally) -> u64) -> String {
    let sum = |kind: fn(&Outcome) -> &Tally| runs.iter().map(|run| of(kind(run))).sum::<u64>();
    slashed([sum(|run| &run.events), sum(|run| &run.live), sum(|run| &run.trades)])
}

fn slashed(values: [u64; 3]) -> String {
    match values == [0; 3] {
        true => "0".to_owned(),
        false => values.map(|value| value.to_string()).join("/"),
    }
}

/// The median of a figure, with the worst behind it.
fn figure(runs: &[Outcome], of: &dyn Fn(&Outcome) -> Option<f64>) -> String {
    match Spread::of(runs.iter().filter_map(of)) {
        None => "-".to_owned(),
        Some(Spread { median, worst }) => {
            let (median, worst) = (format!("{median:.0}"), format!("{worst:.0}"));
            if worst == median { median } else { format!("{median} ({worst})") }
        }
    }
}

fn named(runs: &[Outcome]) -> String {
    let first = runs.first().map(|run| run.fault.clone()).unwrap_or_default();
    if runs.len() > 1 { format!("{first}, {} runs", runs.len()) } else { first }
}

/// The runs of one fault: counts of events, records and the feed.
fn other_row(runs: &[Outcome]) -> Vec<String> {
    let count = |of: fn(&Outcome) -> u64| runs.iter().map(of).sum::<u64>().to_string();
    vec![
        named(runs),
        three_others(runs, |tally| tally.accepted),
        three_others(runs, Tally::refused),
        three_others(runs, |tally| tally.judged.delivered),
        three_others(runs, |tally| tally.judged.lost),
        three_others(runs, |tally| tally.judged.told),
        three_others(runs, |tally| tally.judged.doubled),
        three_others(runs, |tally| tally.judged.reordered),
        three_others(runs, Tally::false_words),
        figure(runs, &|run| run.later_trades_ms),
        figure(runs, &|run| run.taken_over_ms),
        count(|run| run.records.written),
        count(|run| run.records.refused),
        count(|run| run.records.records),
        count(|run| run.records.unequal),
        count(|run| run.records.lost),
        count(|run| run.records.came_back),
        figure(runs, &|run| run.equal_ms),
    ]
}

/// A count of orders, of prices on `every`, and of prices on `latest`, over all runs.
fn three(runs: &[Outcome], of: impl Fn(&Tally) -> u64) -> String {
    let sum = |kind: fn(&Outcome) -> &Tally| runs.iter().map(|run| of(kind(run))).sum::<u64>();
    slashed([sum(|run| &run.orders), sum(|run| &run.every), sum(|run| &run.latest)])
}

/// The runs of one fault: sums of the counts, and of each figure the median with the worst behind it.
fn row(runs: &[Outcome]) -> Vec<String> {
    let figure = |of: &dyn Fn(&Outcome) -> Option<f64>| figure(runs, of);
    let mib = |of: fn(&Outcome) -> Option<u64>| figure(&|run| Some(of(run)? as f64 / 1_048_576.0));
    let count = |of: fn(&Outcome) -> u64| runs.iter().map(of).sum::<u64>().to_string();
    let recovered = match runs.iter().all(|run| run.recovered) {
        true => figure(&|run| run.recovered_ms),
        false => "never".to_owned(),
    };
    let held = Spread::of(runs.iter().map(|run| run.held_s)).map_or(0.0, |held| held.median);
    vec![
        named(runs),
        format!("{held:.0}"),
        three(runs, |tally| tally.accepted),
        three(runs, Tally::refused),
        three(runs, |tally| tally.judged.delivered),
        three(runs, |tally| tally.judged.lost),
        count(|run| run.read_anew.lost),
        three(runs, |tally| tally.judged.told),
        three(runs, |tally| tally.judged.doubled),
        three(runs, |tally| tally.judged.reordered),
        three(runs, |tally| tally.judged.moved),
        three(runs, |tally| tally.judged.resumed),
        three(runs, |tally| tally.judged.gaps),
        three(runs, |tally| tally.judged.again),
        three(runs, Tally::false_words),
        format!(
            "{} / {}",
            count(|run| run.snapshots.counted.whole),
            count(|run| run.snapshots.counted.in_part)
        ),
        count(|run| run.snapshots.stale + run.snapshots.counted.odd),
        format!("{} / {}", figure(&|run| run.later_latest_ms), figure(&|run| run.later_every_ms)),
        format!("{} / {}", figure(&|run| run.noticed_ms), figure(&|run| run.socket_told_ms)),
        recovered,
        figure(&|run| run.caught_up_ms),
        format!(
            "{} / {}",
            figure(&|run| Some(run.falsely_healthy_ms)),
            figure(&|run| Some(run.falsely_degraded_ms))
        ),
        count(|run| run.sockets_cut),
        format!("{} > {}", mib(|run| run.memory_before_bytes), mib(|run| run.memory_after_bytes)),
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
    use crate::outages::outcome::tests::good;

    fn report() -> Report {
        let mut bad = good();
        bad.fault = "flushed".to_owned();
        bad.orders.judged.lost = 2;
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
        let limits = Limits { notice: Some(Duration::ZERO), ..Limits::default() };
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
