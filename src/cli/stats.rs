//! `stats`: what a gateway has counted since its start.

use serde_json::Value;

use super::print;
use crate::cli::target::TargetArgs;
use crate::client;

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire stats
  zonewire stats --json | jq .connections.open

With --json all that the gateway counts, and some of its open connections.";

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// The gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Asks, and prints the answer.
pub(crate) async fn run(args: StatsArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let text = client::get(&base.http()?, base, "ws/stats", &[]).await?;
    if args.json {
        print::line(text.trim())?;
        return Ok(());
    }
    let stats: Value = client::read(&text, "a gateway's statistics")?;
    lines(&stats).iter().try_for_each(|line| print::line(line))?;
    Ok(())
}

/// What an operator looks at first, a line for each part.
fn lines(stats: &Value) -> Vec<String> {
    let number = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let text = |path: &str| stats.pointer(path).map(print::plain).unwrap_or_default();
    let sum = |path: &str| -> u64 {
        let table = stats.pointer(path).and_then(Value::as_object);
        table.into_iter().flat_map(|table| table.values()).filter_map(Value::as_u64).sum()
    };
    let some_of = |path: &str| {
        let table = stats.pointer(path).and_then(Value::as_object);
        let counts = table.into_iter().flatten().filter(|(_, count)| count.as_u64() != Some(0));
        counts
            .map(|(name, count)| format!("{} {count}", print::harmless(name)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut lines = vec![
        line(
            "gateway",
            &format!(
                "version {}, up {}, node {}",
                text("/version"),
                print::duration(number("/uptime_s")),
                text("/node")
            ),
        ),
        line(
            "storage",
            &format!(
                "{}, {} since {} UTC: {}",
                text("/storage_backend"),
                text("/state"),
                print::seconds(&text("/since")),
                text("/reason")
            ),
        ),
        line(
            "connections",
            &format!(
                "{} open, {} since the start, {} refused",
                number("/connections/open"),
                number("/connections/total"),
                sum("/connections/refused_by_limit")
            ),
        ),
        line("  by zone", &some_of("/connections/by_zone")),
        line("  closed", &some_of("/connections/closed_by_reason")),
        line(
            "messages",
            &format!(
                "{} sent, {} received, {} replaced by newer ones, {} dropped, {} errors",
                number("/messages/sent"),
                number("/messages/received"),
                number("/messages/conflated"),
                sum("/messages/dropped_by_reason"),
                number("/messages/errors")
            ),
        ),
        line(
            "entries",
            &format!(
                "{} accepted, {} refused, {} delivered, {} missed",
                number("/channels/entries_accepted"),
                sum("/channels/entries_refused_by_reason"),
                number("/channels/entries_delivered"),
                number("/channels/entries_missed")
            ),
        ),
        line(
            "journal",
            &format!(
                "{} entries wait for Redis ({} bytes)",
                number("/outage/journal_entries"),
                number("/outage/journal_bytes")
            ),
        ),
        line(
            "orders",
            &format!(
                "{} placed here, {} confirmed, {} failed; carried out by {}",
                number("/orders/placed"),
                number("/orders/confirmed"),
                number("/orders/failed"),
                text("/orders/executor")
            ),
        ),
    ];
    let jobs = match stats.pointer("/orders/jobs") {
        Some(Value::Object(_)) => format!(
            "on all gateways {} waiting, {} delayed, {} under way, {} done, {} dead letters",
            number("/orders/jobs/waiting"),
            number("/orders/jobs/delayed"),
            number("/orders/jobs/claimed"),
            number("/orders/jobs/done"),
            number("/orders/jobs/dead")
        ),
        _ => "how many there are could not be found out".to_owned(),
    };
    lines.push(line("  jobs", &jobs));
    let (held, most) = (number("/memory/bytes"), number("/memory/bytes_max"));
    lines.push(line("memory", &format!("{held} of {most} bytes for logs")));
    // A part of which there is nothing to say.
    lines.retain(|line| line.len() > NAME_WIDTH);
    lines
}

const NAME_WIDTH: usize = 13;

fn line(name: &str, what: &str) -> String {
    format!("{name:NAME_WIDTH$}{what}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_part_is_a_line_and_what_is_nothing_is_left_out() {
        let stats = json!({
            "version": "0.1.0", "node": "abc", "uptime_s": 7_384, "storage_backend": "redis",
            "state": "healthy", "since": "2026-11-21T03:40:47.024Z", "reason": "Redis answers",
            "connections": {"open": 2, "total": 5, "by_zone": {"pjm": 2}, "closed_by_reason": {"normal": 0},
                "refused_by_limit": {"rate": 1, "full": 2}},
            "messages": {"sent": 9}, "orders": {"jobs": null}
        });
        let lines = lines(&stats);
        assert_eq!(lines[0], "gateway      version 0.1.0, up 2 h 3 min, node abc");
        assert_eq!(lines[1], "storage      redis, healthy since 2026-11-21 03:40:47 UTC: Redis answers");
        assert_eq!(lines[2], "connections  2 open, 5 since the start, 3 refused");
        assert_eq!(lines[3], "  by zone    pjm 2");
        assert!(lines[4].starts_with("messages     9 sent, 0 received"), "{lines:?}");
        assert!(lines.contains(&"  jobs       how many there are could not be found out".to_owned()));
    }
}
