//! Prints the nodes of a fleet as a table.

use std::io;

use zonewire_protocol::stats::{FleetNode, FleetView};

use super::print;
use super::table::Table;

/// How many zones of a node are named.
const ZONES_SHOWN: usize = 3;

/// Prints a row for each node to stdout, and the gateway's note to stderr.
pub(super) fn show(view: &FleetView) -> io::Result<()> {
    table(view).print("no nodes")?;
    if let Some(note) = &view.note {
        print::say(&print::harmless(note));
    }
    Ok(())
}

fn table(view: &FleetView) -> Table {
    let mut table = Table::new(&[
        "NODE",
        "STATE",
        "CONNECTIONS",
        "ZONES",
        "P50 MS",
        "P99 MS",
        "VERSION",
        "EXECUTOR",
        "STARTED (UTC)",
        "",
    ]);
    for node in &view.nodes {
        let ms = |ms: Option<f64>| ms.map(|ms| format!("{ms:.2}")).unwrap_or_default();
        table.row([
            print::harmless(&node.node),
            print::harmless(node.state.as_str()),
            node.connections.to_string(),
            zones(node),
            ms(node.lag_ms.p50),
            ms(node.lag_ms.p99),
            print::harmless(&node.version),
            print::harmless(&node.executor),
            node.started_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            if node.here { "answers".to_owned() } else { String::new() },
        ]);
    }
    table
}

/// The names of the largest zones, and how many more there are.
fn zones(node: &FleetNode) -> String {
    let named = node.zones.iter().take(ZONES_SHOWN);
    let mut words: Vec<String> =
        named.map(|zone| format!("{} {}", print::harmless(&zone.zone), zone.connections)).collect();
    let more = node.zones.len().saturating_sub(ZONES_SHOWN) as u64 + node.zones_left_out;
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_names_the_greatest_zones_and_counts_the_rest() {
        let zone = |zone: &str, connections: u64| json!({ "zone": zone, "connections": connections });
        let node = |name: &str, zones: serde_json::Value, p50: serde_json::Value| {
            json!({
                "node": name, "here": name == "a", "version": "0.1.0", "state": "serving", "connections": 9,
                "started_at": "2026-11-30T12:00:00.5Z", "told_at": "2026-11-30T12:01:00Z", "zones": zones,
                "zones_left_out": 2, "lag_ms": { "p50": p50, "p99": null }, "executor": "paper",
            })
        };
        let many = json!([zone("pjm", 4), zone("ercot", 3), zone("a\u{1b}", 2), zone("c", 1)]);
        let view = json!({
            "scope": "fleet", "nodes_known": "all", "totals": { "nodes": 2, "connections": 18 },
            "nodes": [node("a", many, json!(0.4)), node("b", json!([]), json!(12.345))],
        });
        let expected = [
            "NODE  STATE    CONNECTIONS  ZONES                         P50 MS  VERSION  EXECUTOR  STARTED (UTC)",
            "a     serving            9  pjm 4, ercot 3, a\u{fffd} 2, 3 more    0.40  0.1.0    paper     2026-11-30 12:00:00  answers",
            "b     serving            9  2 more                         12.35  0.1.0    paper     2026-11-30 12:00:00",
        ];
        assert_eq!(table(&serde_json::from_value(view).unwrap()).lines(), expected);
    }
}
