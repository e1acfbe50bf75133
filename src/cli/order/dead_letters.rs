//! `order dead-letters`: orders that failed permanently.

use super::{page, print_placed, what};
use crate::cli::print;
use crate::cli::table::Table;
use crate::cli::target::TargetArgs;
use crate::client::{self, ANSWER_TIMEOUT, text_of};
use crate::model::OrderId;
use crate::protocol::DeadLetter;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire order dead-letters
  zonewire order dead-letters retry 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11

`retry` places the order again, as a new one, whose id it prints: an order that ended stays ended.";

/// Arguments of `order dead-letters`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Option<DeadLettersCommand>,
    #[command(flatten)]
    list: DeadLettersList,
}

#[derive(Debug, clap::Subcommand)]
enum DeadLettersCommand {
    /// Place a failed order again, as a new order
    Retry(RetryArgs),
}

#[derive(Debug, clap::Args)]
struct DeadLettersList {
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

#[derive(Debug, clap::Args)]
struct RetryArgs {
    /// The order that failed
    #[arg(value_name = "ORDER_ID")]
    order: OrderId,
    /// Place the order again even if it may have been executed; check that first
    #[arg(long)]
    force: bool,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn run(args: DeadLettersArgs) -> anyhow::Result<()> {
    match args.command {
        Some(DeadLettersCommand::Retry(args)) => retry(args).await,
        None => list(args.list).await,
    }
}

/// Sent once: if an answer is lost, a second request would be told that the order is no dead letter any
/// more.
async fn retry(args: RetryArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let path = format!("api/orders/dead-letters/{}/retry?force={}", args.order, args.force);
    let request = base.http()?.post(base.endpoint(&path));
    let text = text_of(request.timeout(ANSWER_TIMEOUT).send().await, base).await?;
    print_placed(&text, args.json)?;
    Ok(())
}

async fn list(args: DeadLettersList) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let query = [
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("after", args.after.map(|order| order.to_string())),
    ];
    let (letters, next) = page(&base.http()?, base, "api/orders/dead-letters", &query).await?;
    if args.json {
        letters.iter().try_for_each(|letter| print::line(letter.get()))?;
    } else {
        let mut table = Table::new(&["ORDER", "FAILED (UTC)", "WHAT", "WHY", ""]);
        for letter in &letters {
            table.row(row(&client::read(letter.get(), "a dead letter")?));
        }
        table.print("no dead letters")?;
    }
    if let Some(next) = next {
        print::say(&format!("there are more: --after {next}"));
    }
    Ok(())
}

fn row(letter: &DeadLetter) -> [String; 5] {
    let submitted = if letter.submitted { "(submitted)" } else { "" };
    [
        letter.order_id.to_string(),
        print::seconds(&letter.failed_at),
        what(letter.order.as_deref()),
        print::harmless(&letter.error),
        submitted.to_owned(),
    ]
}
