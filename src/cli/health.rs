//! `health`: shows the health of a gateway.

use anyhow::bail;
use serde_json::Value;

use super::print;
use crate::cli::target::TargetArgs;
use crate::client::{self, ANSWER_TIMEOUT, BaseUrl};

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire health
  zonewire health --json | jq -r .state
  zonewire health --strict --url http://10.0.0.7:8080

The exit code is 0 when the gateway is ready for traffic (a degraded gateway is), and 1 when it is \
not ready or does not answer. With --strict it is also 1 when the gateway is degraded.";

#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    /// Fail if the gateway is degraded, too
    #[arg(long)]
    strict: bool,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Asks the gateway, prints its answer, and fails unless it is good.
pub(crate) async fn run(args: HealthArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let path = if args.strict { "health" } else { "health/ready" };
    let sent = base.http()?.get(base.endpoint(path)).timeout(ANSWER_TIMEOUT).send().await;
    // A gateway that is not ready answers in the same form, with an error status.
    let (is_good, text) = client::success_and_text(sent, base).await?;
    let health = client::read::<Value>(&text, "a gateway's health");
    let health = match health {
        Ok(health) if health.is_object() => health,
        _ => bail!("the answer of {base} is not a gateway's health; is this a Zonewire gateway?"),
    };
    print::line(&if args.json { text.trim().to_owned() } else { sentence(base, &health) })?;
    if !is_good {
        bail!("the gateway at {base} is not ready for traffic");
    }
    if args.strict && !is_healthy(&health) {
        bail!("the gateway at {base} is not healthy");
    }
    Ok(())
}

/// `The gateway at http://127.0.0.1:8080 is healthy. It serves from Redis, …`
fn sentence(base: &BaseUrl, health: &Value) -> String {
    let text = |name: &str| health.get(name).map(print::plain).unwrap_or_default();
    let status = if text("status").is_empty() { text("state") } else { text("status") };
    let mut said = format!("The gateway at {base} is {status}");
    if status != "healthy" && !text("since").is_empty() {
        said += &format!(" since {} UTC: {}", print::seconds(&text("since")), text("reason"));
    }
    let serves = match text("storage_backend").as_str() {
        "" => String::new(),
        "in-memory" => "It serves from memory".to_owned(),
        "redis" => "It serves from Redis".to_owned(),
        other => format!("It serves from {other}"),
    };
    let connections = health.get("connections").and_then(Value::as_u64).map(|open| match open {
        1 => "has 1 connection".to_owned(),
        open => format!("has {open} connections"),
    });
    let uptime = health.get("uptime_s").and_then(Value::as_u64);
    let uptime = uptime.map(|seconds| format!("has been up for {}", print::duration(seconds)));
    let parts = [Some(serves).filter(|serves| !serves.is_empty()), connections, uptime];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    said += ".";
    if !parts.is_empty() {
        said += &format!(" {}.", parts.join(", "));
    }
    if let Some(reason) = health.get("spool_reason") {
        said += &format!(" Its spool is {}: {}.", text("spool"), print::plain(reason));
    }
    if let Some(Value::Array(aside)) = health.get("channels_set_aside") {
        let names: Vec<String> = aside.iter().map(|aside| print::plain(&aside["channel"])).collect();
        said += &format!(" These channels could not be reconciled: {}.", names.join(", "));
    }
    if let Some(Value::Array(others)) = health.get("other_executors") {
        let names: Vec<String> = others.iter().map(print::plain).collect();
        let (own, others) = (text("executor"), names.join(", "));
        said += &format!(" Orders are executed by {own} here, and by {others} on other gateways.");
    }
    said
}

/// Whether an answer of `/health` reports no degradation at all.
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

    #[test]
    fn health_is_a_sentence() {
        let base = "http://127.0.0.1:8080".parse().unwrap();
        let mut health = json!({
            "status": "healthy", "state": "healthy", "since": "2026-11-21T03:40:47.024Z",
            "reason": "Redis answers", "storage_backend": "redis", "connections": 1, "uptime_s": 61
        });
        assert_eq!(
            sentence(&base, &health),
            "The gateway at http://127.0.0.1:8080 is healthy. It serves from Redis, has 1 connection, \
             has been up for 1 min 1 s."
        );
        health["status"] = json!("degraded");
        health["reason"] = json!("Redis cannot be reached");
        health["storage_backend"] = json!("in-memory");
        health["channels_set_aside"] = json!([{"channel": "zone:pjm", "reason": "x"}]);
        assert_eq!(
            sentence(&base, &health),
            "The gateway at http://127.0.0.1:8080 is degraded since 2026-11-21 03:40:47 UTC: Redis cannot \
             be reached. It serves from memory, has 1 connection, has been up for 1 min 1 s. These \
             channels could not be reconciled: zone:pjm."
        );
        assert_eq!(
            sentence(&base, &json!({"status": "stopping"})),
            "The gateway at http://127.0.0.1:8080 is stopping."
        );
    }
}
