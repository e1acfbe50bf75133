//! `publish`: one price or event, or lines from standard input.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::io::ReaderStream;

use super::exit::UsageError;
use super::raw_json::Number;
use crate::cli::target::TargetArgs;
use crate::client::header::CONTENT_TYPE;
use crate::client::{ANSWER_TIMEOUT, accepted, answer};
use crate::model::{EventType, InvalidName, Zone};
use crate::support::json::json_fault;

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire publish pjm --key 'WESTERN HUB' --price 41.2
  zonewire publish pjm --key 'WESTERN HUB' --bid 41.1 --ask 41.3
  zonewire publish pjm '{\"key\":\"WESTERN HUB\",\"price\":41.2,\"congestion\":0.4}'
  my-feed | zonewire publish pjm -
  zonewire publish --event ticker '{\"exchange\":\"x\",\"symbol\":\"BTC-USDT\",\"price\":\"64250.10\"}'
  my-feed | zonewire publish --event trade -

Prints {\"accepted\":N}.";

/// The usage has three forms, which clap cannot derive.
pub(crate) const USAGE: &str = "\
zonewire publish [OPTIONS] <ZONE> --key <KEY> --price <PRICE>
       zonewire publish [OPTIONS] <ZONE> <JSON|->
       zonewire publish [OPTIONS] --event <TYPE> <JSON|->";

#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// The zone; with --event this argument is the JSON
    #[arg(value_name = "ZONE")]
    zone: String,
    /// A price or an event as a JSON object, or an array of them; `-` reads one object per line from
    /// standard input until it ends
    #[arg(value_name = "JSON|-", conflicts_with_all = ["key", "price", "bid", "ask"])]
    json: Option<String>,
    /// Publish events of this type instead of prices
    #[arg(long, value_name = "TYPE", conflicts_with_all = ["json", "key", "price", "bid", "ask"])]
    event: Option<EventType>,
    /// The hub, node or symbol
    #[arg(long, required_unless_present_any = ["json", "event"])]
    key: Option<String>,
    /// The price
    #[arg(long, allow_negative_numbers = true, required_unless_present_any = ["json", "bid", "ask", "event"])]
    price: Option<Number>,
    /// The bid; with an ask, and without a price, it makes a quote
    #[arg(long, allow_negative_numbers = true)]
    bid: Option<Number>,
    /// The ask
    #[arg(long, allow_negative_numbers = true)]
    ask: Option<Number>,
    #[command(flatten)]
    target: TargetArgs,
}

/// The body of the request.
#[derive(Debug, PartialEq)]
enum Content {
    Json(String),
    StandardInput,
}

/// Publishes, and prints how many were accepted.
pub(crate) async fn run(args: PublishArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let PublishArgs { zone, json, event, key, price, bid, ask, .. } = args;
    let (address, json) = match event {
        Some(event) => (base.events(event), Some(zone)),
        None => {
            let zone: Zone = zone.parse().map_err(|error: InvalidName| UsageError(error.to_string()))?;
            (base.prices(&zone), json)
        }
    };
    let request = base.http()?.post(address);
    let request = match content(json, key.map(|key| Price { key, price, bid, ask }))? {
        Content::Json(json) => {
            request.header(CONTENT_TYPE, "application/json").timeout(ANSWER_TIMEOUT).body(json)
        }
        // No timeout: the lines may arrive over hours.
        Content::StandardInput => {
            request.header(CONTENT_TYPE, "application/x-ndjson").stream(ReaderStream::new(standard_input()?))
        }
    };
    let count = accepted(answer(request.send().await, base).await?).await?;
    writeln!(io::stdout().lock(), "{{\"accepted\":{count}}}")?;
    Ok(())
}

/// Standard input without Rust's buffer, so that a line is sent as soon as it arrives.
fn standard_input() -> io::Result<tokio::fs::File> {
    let handle = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(std::fs::File::from(handle)))
}

/// A price in flags.
#[derive(Serialize)]
struct Price {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask: Option<Number>,
}

fn content(json: Option<String>, flags: Option<Price>) -> Result<Content, UsageError> {
    match (json, flags) {
        (Some(dash), _) if dash == "-" => Ok(Content::StandardInput),
        (Some(json), _) => match serde_json::from_str::<&RawValue>(&json) {
            Ok(value) if value.get().starts_with(['{', '[']) => Ok(Content::Json(json)),
            Ok(_) => Err(UsageError("expected a JSON object, or an array of them".to_owned())),
            Err(error) => Err(UsageError(format!("the argument is not JSON: {}", json_fault(&json, &error)))),
        },
        (None, Some(Price { price: None, bid: None, .. } | Price { price: None, ask: None, .. })) => {
            Err(UsageError("a quote needs both --bid and --ask; otherwise give --price".to_owned()))
        }
        (None, Some(price)) => match serde_json::to_string(&price) {
            Ok(json) => Ok(Content::Json(json)),
            Err(_) => Err(UsageError("the price has no JSON form".to_owned())),
        },
        (None, None) => Err(UsageError("expected a price as JSON, or --key and --price".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_json_or_two_flags_or_standard_input() {
        let sent = |text: &str| Ok::<_, String>(Content::Json(text.to_owned()));
        let made = |text: &str| content(Some(text.to_owned()), None).map_err(|error| error.to_string());
        let flags = |[price, bid, ask]: [&str; 3]| {
            let [price, bid, ask] = [price, bid, ask].map(|number| number.parse().ok());
            let flags = Price { key: "A \"B\"".to_owned(), price, bid, ask };
            content(None, Some(flags)).map_err(|error| error.to_string())
        };
        assert_eq!(flags(["-41.20", "", ""]), sent(r#"{"key":"A \"B\"","price":-41.20}"#));
        assert_eq!(flags(["", "1.0", "2"]), sent(r#"{"key":"A \"B\"","bid":1.0,"ask":2}"#));
        assert_eq!(flags(["3", "", "2"]), sent(r#"{"key":"A \"B\"","price":3,"ask":2}"#));
        assert_eq!(made(r#"{"price": 1.50}"#), sent(r#"{"price": 1.50}"#));
        assert_eq!(made("-"), Ok(Content::StandardInput));
        for bad in ["", "5", "{", "\"x\""] {
            assert!(made(bad).is_err(), "{bad:?}");
        }
        for bad in [["", "", ""], ["", "1", ""], ["", "", "1"]] {
            assert!(flags(bad).is_err(), "{bad:?}");
        }
    }
}
