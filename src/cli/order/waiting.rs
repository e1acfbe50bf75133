//! What `order watch` reports while no worker takes the order.

use std::convert::Infallible;
use std::future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time;
use zonewire_protocol::stats::{JobsView, OrdersView, StatsView};

use super::View;
use super::watch::{LOOK_WITHIN, look};
use crate::cli::print;
use crate::client::{self, BaseUrl, text_of};
use crate::model::OrderId;

/// After how long it is reported. A worker that is free takes an order within a second.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// Reports once, after a while, that an order still waits for a worker, and why; then does nothing.
pub(super) async fn tell(base: &BaseUrl, order: OrderId, say: impl Fn(&str)) -> Infallible {
    loop {
        time::sleep(SAY_AFTER).await;
        // Other code reports that the gateway does not answer, or that the order does not exist yet.
        let Ok(Some(view)) = look(base, order).await else { continue };
        if view.status != PENDING {
            break;
        }
        let stats = stats(base).await;
        let waited = waited(&view, stats.as_ref().map_or_else(|_| Utc::now(), |stats| stats.timestamp));
        if waited.is_none_or(|waited| waited >= SAY_AFTER) {
            let orders = stats.map(|stats| stats.orders).unwrap_or_default();
            say(&words(order, waited, &orders));
            break;
        }
    }
    future::pending().await
}

/// The status of an order that no worker has reported on yet.
const PENDING: &str = "pending";

async fn stats(base: &BaseUrl) -> anyhow::Result<StatsView> {
    let request = base.http()?.get(base.endpoint("ws/stats?connections=0"));
    let text = text_of(request.timeout(LOOK_WITHIN).send().await, base).await?;
    client::read(&text, "a gateway's statistics")
}

/// How long the order has waited, by the gateways' clocks.
fn waited(view: &View, now: DateTime<Utc>) -> Option<Duration> {
    let placed: DateTime<Utc> = view.created_at.as_ref()?.parse().ok()?;
    Some((now - placed).to_std().unwrap_or_default())
}

fn words(order: OrderId, waited: Option<Duration>, orders: &OrdersView) -> String {
    let OrdersView { counts, executor, other_executors, jobs } = orders;
    let long = waited.map(|waited| format!(" for {}", print::duration(waited.as_secs()))).unwrap_or_default();
    let mut words = vec![format!("order {order} has waited{long}, and no worker has taken it")];
    if let Some(JobsView { waiting, claimed, .. }) = jobs {
        // The order itself is one of those that wait.
        let others = waiting.saturating_sub(1);
        let wait = if others == 1 { "other waits" } else { "others wait" };
        words.push(format!("on all gateways {others} {wait}, and {claimed} are under way"));
    }
    let kind = print::harmless(executor);
    let is_idle = jobs.as_ref().is_some_and(|jobs| jobs.claimed == 0);
    match counts.claims_under_way {
        // External workers ask each gateway separately, so that the count of this one is all that is
        // known.
        0 if executor == "external" => {
            words.push(format!(
                "no worker asks this gateway for orders, which are for workers of the kind {kind}"
            ));
        }
        _ if is_idle && !executor.is_empty() => {
            words.push(format!("no worker of the kind {kind} seems to be running"));
        }
        _ => {}
    }
    if !other_executors.is_empty() {
        let kinds = other_executors.iter().map(|kind| print::harmless(kind)).collect::<Vec<_>>().join(", ");
        words.push(format!("other gateways have workers of another kind ({kinds}), which do not take it"));
    }
    words.push("`zonewire stats` shows the state of all orders".to_owned());
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::{Value, json};

    use super::*;

    fn said(orders: &Value) -> String {
        let orders = OrdersView::deserialize(orders).unwrap();
        let words = words(OrderId::random(), Some(Duration::from_millis(4_700)), &orders);
        words.split_once("; ").unwrap().1.replace("; `zonewire stats` shows the state of all orders", "")
    }

    #[test]
    fn it_says_what_the_gateway_knows_and_no_more() {
        let external = json!({"executor": "external", "claims_under_way": 0, "other_executors": ["paper"],
            "jobs": {"waiting": 3, "claimed": 0}});
        assert_eq!(
            said(&external),
            "on all gateways 2 others wait, and 0 are under way; no worker asks this gateway for orders, \
             which are for workers of the kind external; other gateways have workers of another kind \
             (paper), which do not take it"
        );
        let busy = json!({"executor": "paper", "claims_under_way": 0, "jobs": {"waiting": 2, "claimed": 8}});
        assert_eq!(said(&busy), "on all gateways 1 other waits, and 8 are under way");
        let idle = json!({"executor": "paper", "jobs": {"waiting": 1, "claimed": 0}});
        assert!(
            said(&idle).ends_with("; no worker of the kind paper seems to be running"),
            "{}",
            said(&idle)
        );
        let nothing = words(OrderId::random(), None, &OrdersView::default());
        assert!(nothing.ends_with(
            " has waited, and no worker has taken it; `zonewire stats` shows the state of all orders"
        ));
    }
}
