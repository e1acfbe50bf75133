//! `order place`: places an order exactly once, even if the request has to be sent several times.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::client::StatusCode;
use crate::client::header::{CONTENT_TYPE, HeaderValue};
use anyhow::Context as _;
use serde_json::value::RawValue;
use tokio::time::{self, Instant};
use uuid::Uuid;

use super::{print_placed, watch};
use crate::cli::exit::UsageError;
use crate::cli::print;
use crate::cli::raw_json::{Number, Object};
use crate::cli::target::TargetArgs;
use crate::client::{BaseUrl, NoAnswer, Refused, text_of};
use crate::protocol::Swap;
use crate::support::backoff::RESEND;
use crate::support::json::json_fault;

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire order place SOL USDC 1.5
  zonewire order place SOL USDC 1.5 --slippage 0.3 --metadata '{\"desk\":\"east\"}' --watch
  zonewire order place SOL USDC 1.5 --idempotency-key invoice-4711
  zonewire order place --order power.json --watch
  echo '{\"side\":\"buy\",\"quantity\":50}' | zonewire order place --order -

The request has an Idempotency-Key, a random one if none is given, so that sending it again does not \
place the order twice. It is sent again for up to half a minute when an answer is lost or the gateway \
is busy.";

#[derive(Debug, clap::Args)]
pub(super) struct PlaceArgs {
    /// The token to sell, such as SOL
    #[arg(required_unless_present = "order")]
    token_in: Option<String>,
    /// The token to buy, such as USDC
    #[arg(required_unless_present = "order")]
    token_out: Option<String>,
    /// How much of TOKEN_IN
    #[arg(required_unless_present = "order", allow_negative_numbers = true)]
    amount: Option<Number>,
    /// Per cent by which the price may be worse than quoted [default: 0.5]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    slippage: Option<Number>,
    /// A JSON object that is stored with the order
    #[arg(long, value_name = "JSON")]
    metadata: Option<Object>,
    /// Instead of a swap: a file with the order as JSON, or - for standard input
    ///
    /// The gateway checks the order against its schema (orders.schema).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token_in", "token_out", "amount", "slippage", "metadata"])]
    order: Option<PathBuf>,
    /// Your name for the order: the same key places the order only once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Then follow the order, as `order watch` does
    #[arg(long)]
    watch: bool,
    /// Print the gateway's answer as JSON, and with --watch its messages, one per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// For how long a request is sent again.
const TRY_FOR: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn run(args: PlaceArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let body = match (&args.order, args.token_in, args.token_out, args.amount) {
        (Some(file), ..) => read(file)?,
        (None, Some(token_in), Some(token_out), Some(Number(amount))) => {
            let slippage = args.slippage.map(|Number(slippage)| slippage);
            let metadata = args.metadata.map(|Object(metadata)| metadata);
            serde_json::to_string(&Swap { token_in, token_out, amount, slippage, metadata })?
        }
        _ => return Err(UsageError("expected TOKEN_IN TOKEN_OUT AMOUNT, or --order FILE".to_owned()).into()),
    };
    let key = args.idempotency_key.unwrap_or_else(|| Uuid::new_v4().to_string());
    let text = place(base, &body, &key).await?;
    let order = print_placed(&text, args.json)?;
    if args.watch { watch::watch(base, order, args.json, true).await } else { Ok(()) }
}

/// The text of an order. Only that it is JSON is checked here; everything else is checked by the
/// gateway.
fn read(file: &Path) -> anyhow::Result<String> {
    let text = match file.to_str() {
        Some("-") => io::read_to_string(io::stdin()).context("standard input cannot be read")?,
        _ => fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?,
    };
    let json = serde_json::from_str::<&RawValue>(&text);
    json.map_err(|error| {
        UsageError(format!("{} is not JSON: {}", file.display(), json_fault(&text, &error)))
    })?;
    Ok(text)
}

/// Sends the order until the gateway's answer says what became of it.
async fn place(base: &BaseUrl, body: &str, key: &str) -> anyhow::Result<String> {
    let header = HeaderValue::from_str(key)
        .map_err(|_| UsageError("an idempotency key consists of visible ASCII characters".to_owned()))?;
    let (http, deadline) = (base.http()?, Instant::now() + TRY_FOR);
    let (mut attempt, mut is_there, mut is_unsure) = (0, false, false);
    loop {
        attempt += 1;
        let request = http
            .post(base.endpoint("api/orders/execute"))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", &header)
            .timeout(ANSWER_WITHIN)
            .body(body.to_owned());
        let error = match text_of(request.send().await, base).await {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        let fault = Fault::of(&error);
        is_there |= !matches!(fault, Fault::Absent);
        is_unsure |= matches!(fault, Fault::Unsure { .. });
        let wait = fault.wait(attempt, is_there, rand::random());
        match wait.filter(|wait| Instant::now() + *wait < deadline) {
            Some(wait) => {
                print::say(&format!("{error:#}; trying again in {:.1} s", wait.as_secs_f64()));
                time::sleep(wait).await;
            }
            None if is_unsure => {
                return Err(error.context(format!(
                    "it is not known whether the order was placed; with --idempotency-key {key} it can \
                     be sent again without being placed twice"
                )));
            }
            None => return Err(error),
        }
    }
}

/// What a failed request says about the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// No gateway answered, so that the order was not placed.
    Absent,
    /// The gateway refused the order, and would refuse it again.
    Final,
    /// The gateway refused the order for now.
    Busy { retry_after: Option<Duration> },
    /// The order may have been placed.
    Unsure { retry_after: Option<Duration> },
}

impl Fault {
    fn of(error: &anyhow::Error) -> Self {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            let retry_after = refused.retry_after;
            return match refused.status {
                StatusCode::TOO_MANY_REQUESTS => Self::Busy { retry_after },
                StatusCode::SERVICE_UNAVAILABLE if refused.code() == "queue_full" => {
                    Self::Busy { retry_after }
                }
                status if status.is_server_error() => Self::Unsure { retry_after },
                StatusCode::REQUEST_TIMEOUT => Self::Unsure { retry_after },
                _ => Self::Final,
            };
        }
        match error.downcast_ref::<NoAnswer>() {
            Some(NoAnswer { is_absent: true, .. }) => Self::Absent,
            _ => Self::Unsure { retry_after: None },
        }
    }

    /// How long to wait before the request is sent again; `None` when that cannot help. A gateway that
    /// answered earlier (`is_there`) may come back; if none ever did, the address is probably wrong.
    fn wait(self, attempt: u32, is_there: bool, random: f64) -> Option<Duration> {
        let backoff = RESEND.wait_with(attempt, random);
        match self {
            Self::Final => None,
            Self::Absent => is_there.then_some(backoff),
            Self::Busy { retry_after } | Self::Unsure { retry_after } => {
                Some(backoff.max(retry_after.unwrap_or_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_was_asked_for() {
        let (Number(amount), Number(slippage)) = ("1.50".parse().unwrap(), "0.01".parse().unwrap());
        let Object(metadata) = r#"{"desk":"east"}"#.parse().unwrap();
        let (token_in, token_out) = ("SOL".to_owned(), "USDC".to_owned());
        let mut body = Swap { token_in, token_out, amount, slippage: None, metadata: None };
        let plain = r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50}"#;
        assert_eq!(serde_json::to_string(&body).unwrap(), plain);
        body.slippage = Some(slippage);
        assert!(serde_json::to_string(&body).unwrap().ends_with(r#","slippage":0.01}"#));
        body.metadata = Some(metadata);
        assert!(serde_json::to_string(&body).unwrap().ends_with(r#","metadata":{"desk":"east"}}"#));
    }

    #[test]
    fn only_what_may_yet_succeed_is_sent_again() {
        let second = Duration::from_secs(1);
        let (busy, asked) = (Fault::Busy { retry_after: None }, Fault::Busy { retry_after: Some(second) });
        assert_eq!(busy.wait(1, true, 0.0), Some(RESEND.first));
        assert_eq!(asked.wait(1, true, 0.0), Some(second));
        assert_eq!(asked.wait(4, true, 0.0), Some(2 * second));
        assert_eq!(Fault::Unsure { retry_after: None }.wait(1, true, 0.0), Some(RESEND.first));
        assert_eq!(Fault::Absent.wait(1, false, 0.0), None);
        assert_eq!(Fault::Absent.wait(1, true, 0.0), Some(RESEND.first));
        assert_eq!(Fault::Final.wait(1, true, 0.0), None);
    }
}
