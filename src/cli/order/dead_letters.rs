//! `order dead-letters`: orders that failed permanently.

use super::{PageArgs, print_placed, what};
use crate::cli::print;
use crate::cli::target::TargetArgs;
use crate::client::{ANSWER_TIMEOUT, text_of};
use crate::model::OrderId;
use crate::protocol::DeadLetter;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire order dead-letters
  zonewire order dead-letters retry 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11

`retry` places the order again, as a new one, whose id it prints: an order that ended stays ended.";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Option<DeadLettersCommand>,
    #[command(flatten)]
    list: PageArgs,
}

#[derive(Debug, clap::Subcommand)]
enum DeadLettersCommand {
    /// Place a failed order again, as a new order
    Retry(RetryArgs),
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
    let header = ["ORDER", "FAILED (UTC)", "WHAT", "WHY", ""];
    match args.command {
        Some(DeadLettersCommand::Retry(args)) => retry(args).await,
        None => args.list.print("api/orders/dead-letters", None, header, "no dead letters", row).await,
    }
}

/// Sent once: if the answer is lost, a second request would be refused, since the order is no dead letter any
/// more.
async fn retry(args: RetryArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let path = format!("api/orders/dead-letters/{}/retry?force={}", args.order, args.force);
    let request = base.http()?.post(base.endpoint(&path));
    let text = text_of(request.timeout(ANSWER_TIMEOUT).send().await, base).await?;
    print_placed(&text, args.json)?;
    Ok(())
}

fn row(letter: DeadLetter) -> [String; 5] {
    let submitted = if letter.submitted { "(submitted)" } else { "" };
    [
        letter.order_id.to_string(),
        print::seconds(&letter.failed_at),
        what(letter.order.as_deref()),
        print::harmless(&letter.error),
        submitted.to_owned(),
    ]
}
