//! What is published meanwhile: updates of orders, and prices on both lanes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use zonewire::client::header::CONTENT_TYPE;
use zonewire::client::{Http, StatusCode};

use super::witness::{KEY_RUN, Lane, Post, key_run};
use zonewire::client::{BaseUrl, Refused, accepted, answer};
use zonewire::model::{ChannelName, OrderId, Zone};

/// How long one publish may take. A gateway promises an answer sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon after a refusal the next number is tried, at the earliest.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// A channel that is published to and watched.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) name: ChannelName,
    pub(super) lane: Lane,
    /// The nodes that it is published at.
    pub(super) nodes: Vec<usize>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Order(OrderId),
    Zone(Zone),
}

impl Channel {
    /// An order, told of at these nodes.
    pub(super) fn order(nodes: Vec<usize>) -> Self {
        let order = OrderId::random();
        Self { name: ChannelName::order(order), lane: Lane::Order, nodes, what: What::Order(order) }
    }

    /// A zone, published to at all nodes.
    pub(super) fn zone(zone: Zone, lane: Lane, nodes: usize) -> Self {
        Self { name: ChannelName::zone(&zone), lane, nodes: (0..nodes).collect(), what: What::Zone(zone) }
    }

    pub(super) fn as_order(&self) -> Option<OrderId> {
        match self.what {
            What::Order(order) => Some(order),
            What::Zone(_) => None,
        }
    }

    pub(super) fn as_zone(&self) -> Option<&Zone> {
        match &self.what {
            What::Order(_) => None,
            What::Zone(zone) => Some(zone),
        }
    }

    /// Whether it is followed at this node by a subscriber that stays. An order that is told of at two
    /// is followed at the first alone: the other one knows of it what it was told itself, until somebody
    /// comes to watch it there.
    pub(super) fn is_followed_at(&self, node: usize) -> bool {
        self.lane != Lane::Order || self.nodes.len() == 1 || self.nodes.first() == Some(&node)
    }

    fn url(&self, base: &BaseUrl) -> String {
        match &self.what {
            What::Order(order) => base.endpoint(&format!("api/orders/{order}/updates")),
            What::Zone(zone) => base.prices(zone),
        }
    }

    /// The `n`th entry of the node `by`. An order stays in its first stage, so that it never ends.
    fn body(&self, by: usize, n: u64) -> Value {
        match self.what {
            What::Order(_) => json!({ "type": "routing", "progress": 10, "n": n, "by": by }),
            What::Zone(_) => json!({ "key": format!("{by}.{}", key_run(n)), "price": n, "n": n, "by": by }),
        }
    }
}

/// What one node's producer of one channel has posted so far.
#[derive(Debug, Default)]
pub(super) struct Posted {
    pub(super) posts: Vec<Post>,
    /// By their code: refusals, and requests without an answer.
    pub(super) refused: BTreeMap<String, u64>,
    /// By [`key_run`]: the keys that were removed after their last price, and whether that is certain.
    pub(super) removed: BTreeMap<u64, bool>,
}

/// One producer: one channel at one node.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) channel: Channel,
    pub(super) node: usize,
    pub(super) base: BaseUrl,
    /// Where every other removal is asked for: another gateway, where there is one.
    pub(super) elsewhere: BaseUrl,
    pub(super) http: Http,
    pub(super) every: Duration,
    /// When it begins, so that all do not post at once.
    pub(super) delay: Duration,
    pub(super) posted: Arc<Mutex<Posted>>,
}

impl Producer {
    /// Posts until `stop`; the request that is under way then is finished. Each number is posted once:
    /// what was refused is not tried again, so that it can be told from what was doubled.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut ticks = time::interval_at(Instant::now() + self.delay, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let url = self.channel.url(&self.base);
        for n in 1.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let body = self.channel.body(self.node, n).to_string();
            let request = self.http.post(&url).header(CONTENT_TYPE, "application/json").body(body);
            let sent = Instant::now();
            self.posted.lock().posts.push(Post { sent, accepted: None });
            let answered = answer(request.timeout(ANSWER_TIMEOUT).send().await, &self.base).await;
            let taken = match answered {
                Ok(response) => accepted(response).await.map(|accepted| accepted == 1),
                Err(error) => Err(error),
            };
            let at = Instant::now();
            let code = match taken {
                Ok(true) => {
                    if let Some(post) = self.posted.lock().posts.last_mut() {
                        post.accepted = Some(at);
                    }
                    self.remove_one(n).await;
                    continue;
                }
                Ok(false) => "odd_answer".to_owned(),
                Err(error) => match error.downcast_ref::<Refused>() {
                    Some(refused) if refused.code().is_empty() => refused.status.as_str().to_owned(),
                    Some(refused) => refused.code().to_owned(),
                    None => "no_answer".to_owned(),
                },
            };
            *self.posted.lock().refused.entry(code).or_default() += 1;
            time::sleep(AFTER_REFUSAL).await;
        }
    }

    /// Removes every third key of a zone, a while after its last price.
    async fn remove_one(&self, n: u64) {
        let Some(zone) = self.channel.as_zone().filter(|_| n.is_multiple_of(3 * KEY_RUN)) else { return };
        let run = key_run(n) - 1;
        let is_elsewhere = (n / (3 * KEY_RUN)).is_multiple_of(2);
        let base = if is_elsewhere { &self.elsewhere } else { &self.base };
        let url = base.endpoint(&format!("api/zones/{zone}/keys/{}.{run}", self.node));
        let sent = self.http.delete(url).timeout(ANSWER_TIMEOUT).send().await;
        let is_certain = match &sent {
            Ok(response) if response.status.is_success() => true,
            // A gateway that does not know the key removes nothing.
            Ok(response) if response.status == StatusCode::NOT_FOUND => return,
            _ => false,
        };
        self.posted.lock().removed.insert(run, is_certain);
    }
}
