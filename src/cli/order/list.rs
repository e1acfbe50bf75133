//! `order list`: orders as rows of a table.

use super::{PageArgs, View, what};
use crate::cli::print;
use crate::protocol::OrderStatus;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only orders that are pending, routing, building, submitted, confirmed or failed
    #[arg(long, value_name = "STATUS", value_parser = OrderStatus::ALL.map(OrderStatus::as_str), hide_possible_values = true)]
    status: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

pub(super) async fn run(args: ListArgs) -> anyhow::Result<()> {
    let header = ["ORDER", "UPDATED (UTC)", "STATUS", "PROGRESS", "WHAT"];
    args.page.print("api/orders", args.status, header, "no orders", row).await
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
