//! `order show`: one order and its updates.

use super::watch::Update;
use super::{OneOrderArgs, View, what};
use crate::cli::print;
use crate::client;
use crate::protocol::Gap;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire order show 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11
  zonewire order show 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11 --json | jq .status";

pub(super) async fn run(args: OneOrderArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let text = client::get(&base.http()?, base, &format!("api/orders/{}", args.order), &[]).await?;
    if args.json {
        print::line(text.trim())?;
        return Ok(());
    }
    lines(client::read(&text, "an order")?).iter().try_for_each(|line| print::line(line))?;
    Ok(())
}

fn lines(view: View) -> Vec<String> {
    let cancelled = if view.cancel_requested { ", asked to be cancelled" } else { "" };
    let time =
        |time: Option<String>| time.map(|time| format!("{} UTC", print::seconds(&time))).unwrap_or_default();
    let mut lines = Vec::new();
    for (name, value) in [
        ("order", view.order_id.to_string()),
        ("what", what(view.order.as_deref())),
        ("status", format!("{} ({} %){cancelled}", print::harmless(&view.status), view.progress)),
        ("placed", time(view.created_at)),
        ("updated", time(view.updated_at)),
    ] {
        if !value.is_empty() {
            lines.push(format!("{name:8}  {value}"));
        }
    }
    if view.degraded {
        lines.push(
            "Redis is unavailable: this is what the gateway itself knows, and may be out of date.".to_owned(),
        );
    }
    let updates = view.updates.unwrap_or_default();
    lines.push(match view.gap {
        None | Some(Gap::Unknown) => {
            "updates (it is not known how many earlier ones were deleted):".to_owned()
        }
        Some(Gap::Known(0)) if updates.is_empty() => "no updates yet".to_owned(),
        Some(Gap::Known(0)) => "updates:".to_owned(),
        Some(Gap::Known(gap)) => format!("updates (the first {gap} were deleted):"),
    });
    let updates = updates.into_iter().filter_map(|update| serde_json::from_value::<Update>(update).ok());
    lines.extend(updates.map(|update| format!("  {}", update.line())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds the fields that each order has.
    fn check(fields: &str, expected: &[&str]) {
        let text = format!(
            r#"{{"orderId":"6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11","attempt":1,"maxAttempts":3,"run":1,{fields}}}"#
        );
        assert_eq!(lines(serde_json::from_str(&text).unwrap()), expected);
    }

    #[test]
    fn an_order_is_shown_with_its_updates() {
        check(
            r#""status":"routing","progress":10,"cancelRequested":true,"gap":2,
                "order":{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50},"createdAt":"2026-11-21T10:01:01.409Z",
                "updatedAt":"2026-11-21T10:01:02.409Z",
                "updates":[{"type":"routing","progress":10,"timestamp":"2026-11-21T10:01:02.409Z","message":"hm"}]"#,
            &[
                "order     6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11",
                "what      1.50 SOL -> USDC",
                "status    routing (10 %), asked to be cancelled",
                "placed    2026-11-21 10:01:01 UTC",
                "updated   2026-11-21 10:01:02 UTC",
                "updates (the first 2 were deleted):",
                "  2026-11-21 10:01:02  routing     10 %  hm",
            ],
        );
        check(
            r#""status":"pending","progress":0,"cancelRequested":false,"updatedAt":"2026-11-21T10:01:02.409Z","gap":0"#,
            &[
                "order     6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11",
                "status    pending (0 %)",
                "updated   2026-11-21 10:01:02 UTC",
                "no updates yet",
            ],
        );
    }
}
