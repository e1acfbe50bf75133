//! `order list`: orders as lines.

use serde_json::value::RawValue;

use super::{View, page, what};
use crate::cli::print;
use crate::cli::table::Table;
use crate::cli::target::TargetArgs;
use crate::model::OrderId;
use crate::protocol::OrderStatus;

/// Arguments of `order list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only those that are pending, routing, building, submitted, confirmed or failed
    #[arg(long, value_name = "STATUS", value_parser = OrderStatus::ALL.map(OrderStatus::as_str), hide_possible_values = true)]
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
    let base = &args.target.base()?;
    let query = [
        ("status", args.status),
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("after", args.after.map(|order| order.to_string())),
    ];
    let (orders, next) = page(&base.http()?, base, "api/orders", &query).await?;
    if args.json {
        orders.iter().try_for_each(|order| print::line(order.get()))?;
    } else {
        let mut table = Table::new(&["ORDER", "UPDATED (UTC)", "STATUS", "PROGRESS", "WHAT"]);
        orders.iter().for_each(|order| table.row(row(order)));
        table.print(if next.is_some() { "none of this page" } else { "no orders" })?;
    }
    if let Some(next) = next {
        print::say(&format!("there are more: --after {next}"));
    }
    Ok(())
}

fn row(order: &RawValue) -> [String; 5] {
    let view: View = serde_json::from_str(order.get()).unwrap_or_default();
    let progress = view.progress.as_ref().map(|progress| format!("{:>3} %", print::plain(progress)));
    let View { order_id, status, order, updated_at, .. } = view;
    let what = what(order.as_deref());
    [
        print::harmless(&order_id),
        print::seconds(&updated_at),
        print::harmless(&status),
        progress.unwrap_or_default(),
        what,
    ]
}
