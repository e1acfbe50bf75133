//! `publish`: one price, or lines from standard input.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use reqwest::Body;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::client::{ANSWER_TIMEOUT, TargetArgs, accepted, answer};
use super::exit::UsageError;
use super::raw_json::Number;
use crate::model::Zone;

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire publish pjm --key 'WESTERN HUB' --price 41.2
  zonewire publish pjm '{\"key\":\"WESTERN HUB\",\"price\":41.2,\"congestion\":0.4}'
  my-feed | zonewire publish pjm -

Prints {\"accepted\":N}.";

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// The zone
    zone: Zone,
    /// A price as a JSON object, or an array of them; `-` reads one object per line from standard
    /// input until it ends
    #[arg(value_name = "JSON|-", required_unless_present = "price", conflicts_with_all = ["key", "price"])]
    json: Option<String>,
    /// The hub, node or symbol
    #[arg(long, requires = "price", required_unless_present = "json")]
    key: Option<String>,
    /// The price
    #[arg(long, allow_negative_numbers = true)]
    price: Option<Number>,
    #[command(flatten)]
    target: TargetArgs,
}

/// What is sent.
#[derive(Debug, PartialEq)]
enum Content {
    Json(String),
    StandardInput,
}

/// Publishes, and prints how many were accepted.
pub(crate) async fn run(args: PublishArgs) -> anyhow::Result<()> {
    let base = &args.target.url;
    let request = base.http()?.post(base.prices(&args.zone));
    let request = match content(args.json, args.key, args.price)? {
        Content::Json(json) => {
            request.header(CONTENT_TYPE, "application/json").timeout(ANSWER_TIMEOUT).body(json)
        }
        // No deadline: the lines may come over hours.
        Content::StandardInput => request
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(Body::wrap_stream(ReaderStream::new(standard_input()?))),
    };
    let count = accepted(answer(request.send().await, base).await?).await?;
    writeln!(io::stdout().lock(), "{{\"accepted\":{count}}}")?;
    Ok(())
}

/// A handle of our own, that reads without a buffer in between.
fn standard_input() -> io::Result<tokio::fs::File> {
    let handle = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(std::fs::File::from(handle)))
}

fn content(json: Option<String>, key: Option<String>, price: Option<Number>) -> Result<Content, UsageError> {
    #[derive(Serialize)]
    struct Price {
        key: String,
        price: Number,
    }
    match (json, key.zip(price)) {
        (Some(dash), _) if dash == "-" => Ok(Content::StandardInput),
        (Some(json), _) => match serde_json::from_str::<Value>(&json) {
            Ok(Value::Object(_) | Value::Array(_)) => Ok(Content::Json(json)),
            Ok(_) => Err(UsageError(r#"expected an object such as {"key":"HUB","price":41.2}"#.to_owned())),
            Err(error) => Err(UsageError(format!("the price is not JSON: {error}"))),
        },
        (None, Some((key, price))) => match serde_json::to_string(&Price { key, price }) {
            Ok(json) => Ok(Content::Json(json)),
            Err(error) => Err(UsageError(format!("the price has no JSON form: {error}"))),
        },
        _ => Err(UsageError("expected a price as JSON, or --key and --price".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_json_or_two_flags_or_standard_input() {
        let sent = |text: &str| Ok::<_, String>(Content::Json(text.to_owned()));
        let made = |text: Option<&str>, key: Option<&str>, price: Option<&str>| {
            let price = price.map(|price| price.parse().unwrap());
            content(text.map(str::to_owned), key.map(str::to_owned), price).map_err(|error| error.to_string())
        };
        assert_eq!(made(None, Some("A \"B\""), Some("-41.20")), sent(r#"{"key":"A \"B\"","price":-41.20}"#));
        assert_eq!(made(Some(r#"{"price": 1.50}"#), None, None), sent(r#"{"price": 1.50}"#));
        assert_eq!(made(Some("-"), None, None), Ok(Content::StandardInput));
        for bad in ["", "5", "{", "\"x\""] {
            assert!(made(Some(bad), None, None).is_err(), "{bad:?}");
        }
        assert!(made(None, None, Some("1.0")).is_err());
    }
}
