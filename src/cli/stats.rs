//! `stats`: what a gateway has counted since its start, or the nodes that share its storage.

use std::collections::BTreeMap;

use zonewire_protocol::stats::{FleetView, JobsView, StatsView};

use super::{fleet, print};
use crate::cli::target::TargetArgs;
use crate::client;

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire stats
  zonewire stats --json | jq .connections.open
  zonewire stats --fleet

With --json all that the gateway counts, and some of its open connections. With --fleet the nodes that share
its storage, each with its subscribers by zone and how long entries took to them of late.";

#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Show the nodes that share the gateway's storage, a row for each
    #[arg(long)]
    fleet: bool,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Asks the gateway, and prints its answer.
pub(crate) async fn run(args: StatsArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let scope = args.fleet.then(|| "fleet".to_owned());
    let text = client::get(&base.http()?, base, "ws/stats", &[("scope", scope)]).await?;
    if args.json {
        print::line(text.trim())?;
        return Ok(());
    }
    if args.fleet {
        let view: FleetView = client::read(&text, "the nodes of a fleet")?;
        return Ok(fleet::show(&view)?);
    }
    let stats: StatsView = client::read(&text, "a gateway's statistics")?;
    lines(&stats).iter().try_for_each(|line| print::line(line))?;
    Ok(())
}

/// What an operator looks at first, one line per area.
fn lines(stats: &StatsView) -> Vec<String> {
    let StatsView { storage, memory, outage, connections, messages, channels, orders, .. } = stats;
    let (version, node) = (print::harmless(&stats.version), print::harmless(&stats.node));
    let up = print::duration(stats.uptime_s);
    let backend = print::harmless(storage.storage_backend.as_str());
    let (state, reason) = (print::harmless(storage.state.as_str()), print::harmless(&storage.reason));
    let since = storage.since.format("%Y-%m-%d %H:%M:%S");
    let (open, total) = (connections.open, connections.total);
    let refused: u64 = connections.refused_by_limit.values().sum();
    let (sent, received, replaced) =
        (messages.counts.sent, messages.counts.received, messages.counts.conflated);
    let dropped = &messages.counts.dropped_by_reason;
    let (dropped, errors) = (dropped.slow_consumer + dropped.connection_ended, messages.errors);
    let (entries, executor) = (&channels.counts, print::harmless(&orders.executor));
    let (accepted, delivered, missed) =
        (entries.entries_accepted, entries.entries_delivered, entries.entries_missed);
    let not_accepted = &entries.entries_refused_by_reason;
    let not_accepted = not_accepted.stale_lease + not_accepted.order_ended;
    let (placed, confirmed, failed) = (orders.counts.placed, orders.counts.confirmed, orders.counts.failed);
    let jobs = orders.jobs.as_ref().map(|JobsView { waiting, delayed, claimed, done, dead, .. }| {
        format!(
            "on all gateways {waiting} waiting, {delayed} delayed, {claimed} under way, {done} done, {dead} dead letters"
        )
    });
    let mut lines = vec![
        line("gateway", &format!("version {version}, up {up}, node {node}")),
        line("storage", &format!("{backend}, {state} since {since} UTC: {reason}")),
        line("connections", &format!("{open} open, {total} since the start, {refused} refused")),
        line("  by zone", &some_of(&connections.by_zone)),
        line("  closed", &some_of(&connections.closed_by_reason)),
        line(
            "messages",
            &format!(
                "{sent} sent, {received} received, {replaced} replaced by newer ones, {dropped} dropped, {errors} errors"
            ),
        ),
        line(
            "entries",
            &format!("{accepted} accepted, {not_accepted} refused, {delivered} delivered, {missed} missed"),
        ),
        line(
            "journal",
            &format!("{} entries wait for Redis ({} bytes)", outage.journal_entries, outage.journal_bytes),
        ),
        line(
            "orders",
            &format!("{placed} placed here, {confirmed} confirmed, {failed} failed; executed by {executor}"),
        ),
        line("  jobs", jobs.as_deref().unwrap_or("their number is not known")),
        line("memory", &format!("{} of {} bytes for logs", memory.bytes, memory.bytes_max)),
    ];
    // Lines with a name and no value are left out.
    lines.retain(|line| line.len() > NAME_WIDTH);
    lines
}

/// The counts that are not zero.
fn some_of<N: PartialEq + Default + std::fmt::Display>(counts: &BTreeMap<String, N>) -> String {
    let counts = counts.iter().filter(|(_, count)| **count != N::default());
    counts.map(|(name, count)| format!("{} {count}", print::harmless(name))).collect::<Vec<_>>().join(", ")
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
            "version": "0.1.0", "node": "abc", "uptime_s": 7_384, "timestamp": "2026-11-21T05:43:51.024Z",
            "storage_backend": "redis", "state": "healthy", "since": "2026-11-21T03:40:47.024Z", "scope": "all",
            "reason_code": "connected", "reason": "Redis answers", "primaries": 1, "primaries_away": 0,
            "connections": {"open": 2, "total": 5, "by_zone": {"pjm": 2}, "closed_by_reason": {"normal": 0},
                "refused_by_limit": {"rate": 1, "full": 2}},
            "messages": {"sent": 9}, "orders": {"jobs": null}, "memory": {}, "outage": {}, "channels": {},
            "interop": {}, "http": {}, "connection_list": [], "silent_shards": 0
        });
        let lines = lines(&serde_json::from_value(stats).unwrap());
        assert_eq!(lines[0], "gateway      version 0.1.0, up 2 h 3 min, node abc");
        assert_eq!(lines[1], "storage      redis, healthy since 2026-11-21 03:40:47 UTC: Redis answers");
        assert_eq!(lines[2], "connections  2 open, 5 since the start, 3 refused");
        assert_eq!(lines[3], "  by zone    pjm 2");
        assert!(lines[4].starts_with("messages     9 sent, 0 received"), "{lines:?}");
        assert!(lines.contains(&"  jobs       their number is not known".to_owned()));
    }
}
