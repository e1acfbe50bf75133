//! What came of each fault, as a table, as JSON, and as markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::witness::Judged;

/// All of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: String,
    pub(super) nodes: usize,
    pub(super) orders: usize,
    pub(super) zones: usize,
    /// Of a random run.
    pub(super) seed: Option<u64>,
    pub(super) outcomes: Vec<Outcome>,
    /// Faults that could not be run to their end, and why.
    pub(super) failed: BTreeMap<String, String>,
}

/// What one fault did. Times are in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Outcome {
    pub(super) fault: String,
    pub(super) about: String,
    /// More than one in a random run.
    pub(super) faults: u64,
    pub(super) held_s: f64,
    pub(super) orders: Tally,
    pub(super) every: Tally,
    pub(super) latest: Tally,
    /// The longest time in which none of what was posted at a gateway came to its own subscribers.
    pub(super) silence_latest_ms: Option<f64>,
    pub(super) silence_every_ms: Option<f64>,
    /// From the fault until the last gateway that it reached said so.
    pub(super) noticed_ms: Option<f64>,
    /// From the fault until the last socket that was told by `backend_state` was.
    pub(super) socket_told_ms: Option<f64>,
    /// All gateways were healthy at last.
    pub(super) recovered: bool,
    /// From when Redis served again until they were; none where they never were anything else.
    pub(super) recovered_ms: Option<f64>,
    /// From the same moment until all that had been accepted by then had come to all subscribers.
    pub(super) caught_up_ms: Option<f64>,
    pub(super) falsely_healthy_ms: f64,
    pub(super) falsely_degraded_ms: f64,
    pub(super) health_unanswered: u64,
    pub(super) sockets: u64,
    /// Sockets that ended though nobody meant them to.
    pub(super) sockets_cut: u64,
    /// Sockets of a gateway that was killed.
    pub(super) cut_by_the_fault: u64,
    /// Why those of `sockets_cut` ended.
    pub(super) cuts: BTreeMap<String, u64>,
    /// `error` messages to subscribers.
    pub(super) errors: BTreeMap<String, u64>,
    /// Of the gateway that grew most.
    pub(super) memory_before_bytes: Option<u64>,
    pub(super) memory_after_bytes: Option<u64>,
    /// How late the suite itself was at the most: times are this much too long at the most.
    pub(super) suite_late_ms: f64,
    /// Some of what was lost, in words.
    pub(super) lost_examples: Vec<String>,
    /// What new subscribers of all orders were told at the end, each at another gateway than the
    /// order's own.
    pub(super) read_anew: Tally,
    /// Promises that did not hold.
    pub(super) broken: Vec<String>,
}

/// What became of one kind of entry.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Tally {
    pub(super) posted: u64,
    /// Answered with 2xx.
    pub(super) accepted: u64,
    /// By code; `no_answer` is a request that was not answered.
    pub(super) refused: BTreeMap<String, u64>,
    /// Deliveries that are owed: accepted entries (on `latest`, the newest of each key), times
    /// subscribers.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// Missing, and the subscriber was told that entries are.
    pub(super) told: u64,
    /// How often subscribers were told so.
    pub(super) gaps: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    /// Had on an earlier connection, and sent again after the subscriber was told.
    pub(super) again: u64,
    /// Came without having been accepted.
    pub(super) unaccepted: u64,
    /// Were marked `late`.
    pub(super) late: u64,
}

impl From<&Judged> for Tally {
    fn from(judged: &Judged) -> Self {
        Self {
            expected: judged.expected,
            delivered: judged.delivered,
            lost: judged.lost,
            told: judged.told,
            gaps: judged.gaps,
            doubled: judged.doubled,
            reordered: judged.reordered,
            again: judged.again,
            unaccepted: judged.unaccepted,
            late: judged.late,
            ..Self::default()
        }
    }
}

impl Tally {
    fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// Milliseconds, to a tenth.
pub(super) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Outcome {
    /// Fills in which promises did not hold; `notice` is how soon the fault must have been noticed, if
    /// that counts.
    pub(super) fn find_broken(&mut self, notice: Option<Duration>) {
        let mut broken = Vec::new();
        for (name, tally) in [
            ("order updates", &self.orders),
            ("prices (every)", &self.every),
            ("prices (latest)", &self.latest),
        ] {
            for (what, count) in
                [("lost", tally.lost), ("doubled", tally.doubled), ("reordered", tally.reordered)]
            {
                if count > 0 {
                    broken.push(format!("{count} {name} {what}"));
                }
            }
            // A run that measured nothing proves nothing.
            if tally.posted > 0 && tally.accepted == 0 {
                broken.push(format!("no {name} accepted"));
            }
        }
        for (what, count) in [
            ("missing", self.read_anew.lost),
            ("doubled", self.read_anew.doubled),
            ("reordered", self.read_anew.reordered),
        ] {
            if count > 0 {
                broken.push(format!("{count} order updates {what} for new subscribers"));
            }
        }
        if self.sockets_cut > 0 {
            broken.push(format!("{} sockets cut", self.sockets_cut));
        }
        if !self.recovered {
            broken.push("not healthy again".to_owned());
        }
        // What the suite cannot tell from its own slowness, it does not blame on the gateways.
        if let (Some(limit), Some(noticed)) = (notice.map(ms), self.noticed_ms) {
            let slack = ms(POLL) + 2.0 * self.suite_late_ms;
            if noticed > limit + slack {
                broken.push(format!("noticed after {noticed:.0} ms instead of {limit:.0}"));
            }
        }
        self.broken = broken;
    }
}

/// Two polls of the health lie this far apart, with their answer.
const POLL: Duration = Duration::from_millis(100);

impl Report {
    /// Whether every promise held, and every fault was run.
    pub(super) fn is_good(&self) -> bool {
        self.failed.is_empty() && self.outcomes.iter().all(|outcome| outcome.broken.is_empty())
    }

    /// For a terminal.
    pub(super) fn table(&self) -> String {
        let mut out = lay_out(&self.cells());
        for line in self.notes() {
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    /// For a document.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        let setup = format!("{} gateways, {} orders, {} zones", self.nodes, self.orders, self.zones);
        let seed = self.seed.map(|seed| format!("; seed {seed}")).unwrap_or_default();
        // Writing to a text cannot fail.
        let _written = writeln!(out, "Version {}, {setup}{seed}. {}\n", self.version, self.machine);
        let cells = self.cells();
        for (number, row) in cells.iter().enumerate() {
            let _written = writeln!(out, "| {} |", row.join(" | "));
            if number == 0 {
                let rule: Vec<&str> =
                    row.iter().enumerate().map(|(n, _)| if n == 0 { "---" } else { "---:" }).collect();
                let _written = writeln!(out, "| {} |", rule.join(" | "));
            }
        }
        let notes = self.notes();
        if !notes.is_empty() {
            let _written = writeln!(
                out,
                "\n{}",
                notes.iter().map(|note| format!("- {note}")).collect::<Vec<_>>().join("\n")
            );
        }
        out.trim_end().to_owned()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for outcome in &self.outcomes {
            if !outcome.broken.is_empty() {
                notes.push(format!("{}: {}", outcome.fault, outcome.broken.join(", ")));
            }
        }
        notes.extend(self.failed.iter().map(|(fault, why)| format!("{fault}: could not be run: {why}")));
        notes
    }

    fn cells(&self) -> Vec<Vec<String>> {
        const HEAD: [&str; 17] = [
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
            "silence, ms",
            "noticed, ms",
            "recovered, ms",
            "caught up, ms",
            "untrue, ms",
            "cut",
            "memory, MiB",
        ];
        let mut rows: Vec<Vec<String>> = vec![HEAD.iter().map(|name| (*name).to_owned()).collect()];
        rows.extend(self.outcomes.iter().map(row));
        rows
    }
}

/// Orders, then prices on `every`, then on `latest`.
fn three(outcome: &Outcome, of: impl Fn(&Tally) -> u64) -> String {
    let values = [&outcome.orders, &outcome.every, &outcome.latest].map(of);
    match values.iter().all(|value| *value == 0) {
        true => "0".to_owned(),
        false => values.map(|value| value.to_string()).join("/"),
    }
}

fn row(outcome: &Outcome) -> Vec<String> {
    let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1_048_576.0))
    };
    let recovered = if outcome.recovered { time(outcome.recovered_ms) } else { "never".to_owned() };
    vec![
        outcome.fault.clone(),
        format!("{:.0}", outcome.held_s),
        three(outcome, |tally| tally.accepted),
        three(outcome, Tally::refused),
        three(outcome, |tally| tally.delivered),
        three(outcome, |tally| tally.lost),
        outcome.read_anew.lost.to_string(),
        three(outcome, |tally| tally.told),
        three(outcome, |tally| tally.doubled),
        three(outcome, |tally| tally.reordered),
        format!("{} / {}", time(outcome.silence_latest_ms), time(outcome.silence_every_ms)),
        format!("{} / {}", time(outcome.noticed_ms), time(outcome.socket_told_ms)),
        recovered,
        time(outcome.caught_up_ms),
        format!("{:.0} / {:.0}", outcome.falsely_healthy_ms, outcome.falsely_degraded_ms),
        outcome.sockets_cut.to_string(),
        format!("{} > {}", mib(outcome.memory_before_bytes), mib(outcome.memory_after_bytes)),
    ]
}

/// Columns of even width, the first to the left and all others to the right.
fn lay_out(rows: &[Vec<String>]) -> String {
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

const BEGIN: &str = "<!-- outages:begin -->";
const END: &str = "<!-- outages:end -->";

/// Writes the part of a document between its markers anew; makes the document where there is none.
pub(super) fn write_between_markers(path: &Path, part: &str) -> anyhow::Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{BEGIN}\n{END}\n"),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let text = put_between(&text, part).with_context(|| format!("{} is left as it is", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn put_between(text: &str, part: &str) -> anyhow::Result<String> {
    let (Some((head, rest)), 1, 1) =
        (text.split_once(BEGIN), text.matches(BEGIN).count(), text.matches(END).count())
    else {
        bail!("it has no place for the results: {BEGIN} and {END}");
    };
    let Some((_, tail)) = rest.split_once(END) else { bail!("{END} comes before {BEGIN}") };
    Ok(format!("{head}{BEGIN}\n{part}\n{END}{tail}"))
}

/// When and on what this was measured.
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
    use super::*;

    fn good() -> Outcome {
        let tally = Tally { posted: 10, accepted: 9, expected: 27, delivered: 27, ..Tally::default() };
        Outcome {
            fault: "cut".to_owned(),
            orders: tally.clone(),
            every: tally.clone(),
            latest: tally,
            recovered: true,
            noticed_ms: Some(40.0),
            ..Outcome::default()
        }
    }

    fn broken(change: impl FnOnce(&mut Outcome), notice: Option<u64>) -> Vec<String> {
        let mut outcome = good();
        change(&mut outcome);
        outcome.find_broken(notice.map(Duration::from_millis));
        outcome.broken
    }

    #[test]
    fn promises_that_do_not_hold_are_named() {
        assert_eq!(broken(|_| {}, Some(50)), [""; 0]);
        assert_eq!(broken(|outcome| outcome.orders.lost = 3, None), ["3 order updates lost"]);
        assert_eq!(broken(|outcome| outcome.every.doubled = 1, None), ["1 prices (every) doubled"]);
        assert_eq!(broken(|outcome| outcome.latest.reordered = 2, None), ["2 prices (latest) reordered"]);
        assert_eq!(broken(|outcome| outcome.sockets_cut = 1, None), ["1 sockets cut"]);
        assert_eq!(broken(|outcome| outcome.recovered = false, None), ["not healthy again"]);
        assert_eq!(broken(|outcome| outcome.orders.accepted = 0, None), ["no order updates accepted"]);
        assert_eq!(
            broken(|outcome| outcome.orders.told = 5, None),
            [""; 0],
            "what is told is no broken promise"
        );
    }

    #[test]
    fn the_suite_does_not_blame_the_gateways_for_its_own_slowness() {
        let late = |outcome: &mut Outcome| outcome.noticed_ms = Some(400.0);
        assert_eq!(broken(late, Some(50)), ["noticed after 400 ms instead of 50"]);
        assert_eq!(broken(late, None), [""; 0]);
        let late_itself = |outcome: &mut Outcome| {
            late(outcome);
            outcome.suite_late_ms = 130.0;
        };
        assert_eq!(broken(late_itself, Some(50)), [""; 0]);
    }

    fn report() -> Report {
        let mut bad = good();
        bad.orders.lost = 2;
        bad.find_broken(None);
        Report {
            version: "1",
            machine: "m".to_owned(),
            nodes: 3,
            orders: 5,
            zones: 2,
            seed: None,
            outcomes: vec![good(), bad],
            failed: BTreeMap::new(),
        }
    }

    #[test]
    fn tables_have_a_row_for_each_fault_and_say_what_is_broken() {
        let (table, markdown) = (report().table(), report().markdown());
        assert_eq!(table.lines().count(), 4);
        assert!(table.ends_with("cut: 2 order updates lost\n"), "{table}");
        assert!(table.contains("2/0/0"), "{table}");
        let columns: Vec<usize> = markdown
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(columns, [18; 4], "{markdown}");
        assert!(!report().is_good());
    }

    #[test]
    fn results_go_between_the_markers_and_nowhere_else() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(put_between(&text, "new").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        for text in ["", "a", BEGIN, END, &format!("{END}{BEGIN}"), &format!("{BEGIN}{BEGIN}{END}")] {
            assert!(put_between(text, "new").is_err(), "{text}");
        }
    }
}
