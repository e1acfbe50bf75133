//! `order list`: orders as lines.

use serde_json::Value;

use super::{View, page, what};
use crate::cli::client::TargetArgs;
use crate::cli::print;
use crate::model::OrderId;

/// Arguments of `order list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only those that are pending, routing, building, submitted, confirmed or failed
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// How many at the most
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Only those placed before this one; the end of a list says how it goes on
    #[arg(long, value_name = "ORDER_ID")]
    after: Option<OrderId>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn run(args: ListArgs) -> anyhow::Result<()> {
    let base = &args.target.url;
    let query = [
        ("status", args.status),
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("after", args.after.map(|order| order.to_string())),
    ];
    let (orders, next) = page(&base.http()?, base, "api/orders", &query, "orders").await?;
    for order in orders {
        print::line(&if args.json { order.to_string() } else { line(order) })?;
    }
    if let Some(next) = next {
        print::say(&format!("there are more: --after {next}"));
    }
    Ok(())
}

fn line(order: Value) -> String {
    let view: View = serde_json::from_value(order).unwrap_or_default();
    let progress = view.progress.as_ref().map(print::plain).unwrap_or_default();
    let View { order_id, status, order, updated_at, .. } = view;
    let (time, what) = (print::seconds(&updated_at), what(&order));
    format!("{order_id:36}  {time:19}  {status:10}  {progress:>3} %  {what}")
}
