//! `order`: places, follows and manages orders.

mod dead_letters;
mod list;
mod place;
mod show;
mod waiting;
mod watch;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::print;
use super::table::{Fields, Table};
use crate::cli::target::TargetArgs;
use crate::client::{self, ANSWER_TIMEOUT, text_of};
use crate::model::OrderId;
use crate::protocol::{OrderCancelling, OrderPlaced, OrderView};

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire order place SOL USDC 1.5 --watch
  id=$(zonewire order place SOL USDC 1.5)
  zonewire order watch $id
  zonewire order list --status failed
  zonewire order dead-letters retry $id

The exit code of `watch` and `place --watch` is 0 when the order was confirmed, and 1 when it failed or \
could not be followed to its end.";

#[derive(Debug, clap::Args)]
pub(crate) struct OrderArgs {
    #[command(subcommand)]
    command: OrderCommand,
}

#[derive(Debug, clap::Subcommand)]
enum OrderCommand {
    /// Place an order, and print its id
    #[command(after_help = place::EXAMPLES)]
    Place(place::PlaceArgs),
    /// Follow an order until it ends
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// Show one order and its updates
    #[command(after_help = show::EXAMPLES)]
    Show(OneOrderArgs),
    /// List orders, the newest first
    List(list::ListArgs),
    /// Ask for an order to be cancelled
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(OneOrderArgs),
    /// List orders that failed permanently, or place one of them again
    #[command(after_help = dead_letters::EXAMPLES)]
    DeadLetters(dead_letters::DeadLettersArgs),
}

const CANCEL_EXAMPLES: &str = "\
Example:
  zonewire order cancel 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11

`order watch` shows when the order has ended: it fails with the code `cancelled`. An order whose \
transaction was submitted can no longer be cancelled.";

/// Arguments of `order show` and `order cancel`.
#[derive(Debug, clap::Args)]
struct OneOrderArgs {
    /// The order
    #[arg(value_name = "ORDER_ID")]
    order: OrderId,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: OrderArgs) -> anyhow::Result<()> {
    match args.command {
        OrderCommand::Place(args) => place::run(args).await,
        OrderCommand::Watch(args) => watch::run(args).await,
        OrderCommand::Show(args) => show::run(args).await,
        OrderCommand::List(args) => list::run(args).await,
        OrderCommand::Cancel(args) => cancel(args).await,
        OrderCommand::DeadLetters(args) => dead_letters::run(args).await,
    }
}

async fn cancel(args: OneOrderArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let sent = base.http()?.post(base.endpoint(&format!("api/orders/{}/cancel", args.order)));
    let text = text_of(sent.timeout(ANSWER_TIMEOUT).send().await, base).await?;
    if args.json {
        print::line(text.trim())?;
    } else {
        let asked: OrderCancelling = client::read(&text, "an order's cancellation")?;
        print::line(&print::harmless(&asked.status))?;
    }
    Ok(())
}

/// Prints the answer to a new order: the whole answer as one line of JSON, or the order's id alone.
fn print_placed(text: &str, is_json: bool) -> anyhow::Result<OrderId> {
    let placed: OrderPlaced = client::read(text, "an order that was placed")?;
    if is_json {
        print::line(text.trim())?;
    } else {
        print::line(&placed.order_id.to_string())?;
    }
    Ok(placed.order_id)
}

/// An order as the gateway shows it.
type View = OrderView<Value>;

/// The part of a list of orders to show, and its form.
#[derive(Debug, clap::Args)]
struct PageArgs {
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

impl PageArgs {
    /// Prints a page of the list at `path`, as JSON or as a table with a `row` for each order. If it is empty, it
    /// says so: `nothing` if no page follows.
    async fn print<T: DeserializeOwned>(
        self,
        path: &str,
        status: Option<String>,
        header: [&'static str; 5],
        nothing: &str,
        row: fn(T) -> [String; 5],
    ) -> anyhow::Result<()> {
        /// The fields that the page of every list has.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(alias = "deadLetters")]
            orders: Vec<Box<RawValue>>,
            next: Option<String>,
        }
        let base = &self.target.base()?;
        let query = [
            ("status", status),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("after", self.after.map(|order| order.to_string())),
        ];
        let text = client::get(&base.http()?, base, path, &query).await?;
        let Page { orders, next } = client::read(&text, "a list of orders")?;
        if self.json {
            orders.iter().try_for_each(|order| print::line(order.get()))?;
        } else {
            let mut table = Table::new(&header);
            for order in &orders {
                table.row(row(client::read(order.get(), "an order of a list")?));
            }
            table.print(if next.is_some() { "none on this page" } else { nothing })?;
        }
        if let Some(next) = next {
            print::say(&format!("there are more: --after {next}"));
        }
        Ok(())
    }
}

/// How many characters of an order that is not a swap a list shows.
const WHAT_MAX: usize = 80;

/// `1.5 SOL -> USDC`, or the order as JSON; empty for an order that was not placed at this gateway.
fn what(order: Option<&RawValue>) -> String {
    let Some((order, fields)) = order.and_then(|order| Some((order, Fields::read(order.get())?))) else {
        return String::new();
    };
    if fields.get("tokenIn").is_empty() {
        return print::harmless(&order.get().chars().take(WHAT_MAX).collect::<String>());
    }
    format!("{} {} -> {}", fields.get("amount"), fields.get("tokenIn"), fields.get("tokenOut"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_keeps_its_digits() {
        let of = |text: &str| what(Some(&RawValue::from_string(text.to_owned()).unwrap()));
        assert_eq!(of(r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50}"#), "1.50 SOL -> USDC");
        assert_eq!(of(r#"{"side":"buy","quantity":50.0}"#), r#"{"side":"buy","quantity":50.0}"#);
        assert_eq!((of("null").as_str(), what(None).as_str()), ("", ""));
    }
}
