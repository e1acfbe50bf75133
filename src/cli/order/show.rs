//! `order show`: one order, and the updates of it that are kept.

use serde::Deserialize;

use super::watch::Update;
use super::{View, what};
use crate::cli::print;
use crate::cli::target::TargetArgs;
use crate::client;
use crate::model::OrderId;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire order show 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11
  zonewire order show 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11 --json | jq .status";

/// Arguments of `order show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The order
    #[arg(value_name = "ORDER_ID")]
    order: OrderId,
    /// The gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// What is shown besides a [`View`].
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct More {
    created_at: String,
    gap: Option<u64>,
    degraded: bool,
    cancel_requested: bool,
}

pub(super) async fn run(args: ShowArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let text = client::get(&base.http()?, base, &format!("api/orders/{}", args.order), &[]).await?;
    if args.json {
        print::line(text.trim())?;
        return Ok(());
    }
    lines(client::read(&text, "an order")?, &client::read(&text, "an order")?)
        .iter()
        .try_for_each(|line| print::line(line))?;
    Ok(())
}

fn lines(view: View, more: &More) -> Vec<String> {
    let progress = view.progress.as_ref().map(|progress| format!(" ({} %)", print::plain(progress)));
    let cancelled = if more.cancel_requested { ", asked to be cancelled" } else { "" };
    let time = |time: &str| format!("{} UTC", print::seconds(time));
    let status = format!("{}{}{cancelled}", print::harmless(&view.status), progress.unwrap_or_default());
    let mut lines = Vec::new();
    for (name, value) in [
        ("order", print::harmless(&view.order_id)),
        ("what", what(view.order.as_deref())),
        ("status", status),
        ("placed", if more.created_at.is_empty() { String::new() } else { time(&more.created_at) }),
        ("updated", time(&view.updated_at)),
    ] {
        if !value.is_empty() {
            lines.push(format!("{name:8}  {value}"));
        }
    }
    if more.degraded {
        lines.push("Redis is away: this is what the gateway itself knows, and may be behind.".to_owned());
    }
    lines.push(match more.gap {
        None => "updates (how many before them are gone cannot be known now):".to_owned(),
        Some(0) if view.updates.is_empty() => "no updates yet".to_owned(),
        Some(0) => "updates:".to_owned(),
        Some(gap) => format!("updates (the first {gap} are no longer kept):"),
    });
    let updates = view.updates.into_iter().filter_map(|update| serde_json::from_value::<Update>(update).ok());
    lines.extend(updates.map(|update| format!("  {}", update.line())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let lines = lines(serde_json::from_str(text).unwrap(), &serde_json::from_str(text).unwrap());
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_order_is_shown_with_its_updates() {
        check(
            r#"{"orderId":"6f1c","status":"routing","progress":10,"cancelRequested":true,"gap":2,
                "order":{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50},"createdAt":"2026-11-21T10:01:01.409Z",
                "updatedAt":"2026-11-21T10:01:02.409Z",
                "updates":[{"type":"routing","progress":10,"timestamp":"2026-11-21T10:01:02.409Z","message":"hm"}]}"#,
            &[
                "order     6f1c",
                "what      1.50 SOL -> USDC",
                "status    routing (10 %), asked to be cancelled",
                "placed    2026-11-21 10:01:01 UTC",
                "updated   2026-11-21 10:01:02 UTC",
                "updates (the first 2 are no longer kept):",
                "  2026-11-21 10:01:02  routing     10 %  hm",
            ],
        );
        check(
            r#"{"orderId":"6f1c","status":"pending","updatedAt":"2026-11-21T10:01:02.409Z","gap":0}"#,
            &["order     6f1c", "status    pending", "updated   2026-11-21 10:01:02 UTC", "no updates yet"],
        );
    }
}
