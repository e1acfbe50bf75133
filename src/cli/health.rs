//! `health`: ask a gateway how it is.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::client::{ANSWER_TIMEOUT, TargetArgs, answer};

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire health
  zonewire health --strict --url http://10.0.0.7:8080

Ends with 0 when the gateway may take traffic, which a degraded one may, and with 1 when it may \
not or does not answer. With --strict a degraded gateway ends with 1 as well.";

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    /// Degraded is not good enough
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Asks, prints the answer, and fails when it is not good.
pub(crate) async fn run(args: HealthArgs) -> anyhow::Result<()> {
    let base = &args.target.url;
    let http = base.http()?;
    let path = if args.strict { "health" } else { "health/ready" };
    let sent = http.get(base.endpoint(path)).timeout(ANSWER_TIMEOUT).send().await;
    let body = answer(sent, base).await?.bytes().await.context("the answer broke off")?;
    let mut out = io::stdout().lock();
    out.write_all(body.trim_ascii())?;
    out.write_all(b"\n")?;
    let health: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if args.strict && !is_healthy(&health) {
        bail!("the gateway at {base} answers and is not healthy");
    }
    Ok(())
}

/// Whether an answer of `/health` says that all is as configured.
fn is_healthy(health: &Value) -> bool {
    let places = ["/status", "/state", "/storage/state"];
    let mut states = places.iter().filter_map(|place| health.pointer(place)?.as_str()).peekable();
    states.peek().is_some() && states.all(|state| matches!(state, "healthy" | "ok" | "up" | "ready"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_clear_word_is_healthy() {
        assert!(is_healthy(&json!({"status": "healthy"})));
        assert!(is_healthy(&json!({"status": "ok", "storage": {"state": "healthy"}})));
        assert!(!is_healthy(&json!({"status": "ok", "storage": {"state": "degraded"}})));
        assert!(!is_healthy(&json!({"state": "recovering"})));
        assert!(!is_healthy(&json!({})));
        assert!(!is_healthy(&Value::Null));
    }
}
