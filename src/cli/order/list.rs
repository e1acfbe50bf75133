//! `order list`: orders as rows of a table.

use super::{View, page, what};
use crate::cli::print;
use crate::cli::table::Table;
use crate::cli::target::TargetArgs;
use crate::client;
use crate::model::OrderId;
use crate::protocol::OrderStatus;

/// Arguments of `order list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only orders that are pending, routing, building, submitted, confirmed or failed
    #[arg(long, value_name = "STATUS", value_parser = OrderStatus::ALL.map(OrderStatus::as_str), hide_possible_values = true)]
    status: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Only orders placed before this one; the end of a page prints the value for the next one
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
        for order in &orders {
            table.row(row(client::read(order.get(), "an order")?));
        }
        table.print(if next.is_some() { "none on this page" } else { "no orders" })?;
    }
    if let Some(next) = next {
        print::say(&format!("there are more: --after {next}"));
    }
    Ok(())
}

fn row(view: View) -> [String; 5] {
    let View { order_id, status, progress, order, updated_at, .. } = view;
    [
        order_id.to_string(),
        updated_at.as_deref().map(print::seconds).unwrap_or_default(),
        print::harmless(&status),
        format!("{progress:>3} %"),
        what(order.as_deref()),
    ]
}
