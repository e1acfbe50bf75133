//! The load: updates of orders, prices on both lanes, and events of a durable and of a live type; and the
//! trades of an exchange that the gateways have a feed from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use zonewire::client::header::CONTENT_TYPE;
use zonewire::client::{Http, StatusCode};

use super::witness::{KEY_RUN, Lane, Post, key_run};
use zonewire::client::{BaseUrl, Refused, accepted, answer};
use zonewire::model::{ChannelName, EventType, OrderId, Zone};
use zonewire_kit::exchange::Exchange;
use zonewire_protocol::Fields;

/// How long one publish may take; a gateway promises to answer sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The least time from a refusal to the next number.
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
    Event(EventType),
    /// Trades of an exchange; the first one has this number.
    Feed {
        first: u64,
    },
}

/// The prefix of an event's key: its symbol must not begin with a digit, to differ from a price's key.
const KEY_PREFIX: &str = "G";
/// The exchange of the events that the load publishes; events of the feed have another one.
const EXCHANGE: &str = "outage";
/// The exchange of the feed, and what is traded there.
pub(super) const FEED: &str = "binance";
pub(super) const SYMBOL: &str = "BTC-USDT";
/// How often the exchange is asked how many trades there are.
const TRADES_EVERY: Duration = Duration::from_millis(10);

/// The fields of an entry that matter here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct EntryFields {
    by: Option<usize>,
    n: Option<u64>,
    symbol: Option<String>,
    exchange: Option<String>,
    #[serde(rename = "tradeId")]
    trade: Option<String>,
}

impl Channel {
    /// An order whose updates are posted at these nodes.
    pub(super) fn order(nodes: Vec<usize>) -> Self {
        let order = OrderId::random();
        Self { name: ChannelName::order(order), lane: Lane::Orders, nodes, what: What::Order(order) }
    }

    /// A zone, published to at all nodes.
    pub(super) fn zone(zone: Zone, lane: Lane, nodes: usize) -> Self {
        Self { name: ChannelName::zone(&zone), lane, nodes: (0..nodes).collect(), what: What::Zone(zone) }
    }

    /// Events of a type, published at all nodes.
    pub(super) fn event(event: EventType, lane: Lane, nodes: usize) -> Self {
        Self { name: ChannelName::event(event), lane, nodes: (0..nodes).collect(), what: What::Event(event) }
    }

    /// A view of all trades of the feed, whose first trade has this number. Its posts are attributed to the
    /// first gateway, which has the feed first; that the feed moves makes no difference to the trades.
    pub(super) fn feed(first: u64) -> anyhow::Result<Self> {
        let name = format!("event:{}:{FEED}:{SYMBOL}", EventType::Trade);
        let name = name.parse().map_err(|error| anyhow::anyhow!("{name} is no channel: {error}"))?;
        Ok(Self { name, lane: Lane::Trades, nodes: vec![0], what: What::Feed { first } })
    }

    pub(super) fn as_event(&self) -> Option<EventType> {
        match self.what {
            What::Event(event) => Some(event),
            What::Feed { .. } => Some(EventType::Trade),
            What::Order(_) | What::Zone(_) => None,
        }
    }

    /// The node that an entry was posted at, and its number there; `None` if the load did not publish it.
    pub(super) fn number(&self, fields: &Fields) -> Option<(usize, u64)> {
        let fields: EntryFields = match self.as_event() {
            Some(_) => fields.get("data")?,
            None => fields.read().ok()?,
        };
        self.number_of(&fields)
    }

    /// The same, from parsed fields.
    pub(super) fn number_of(&self, fields: &EntryFields) -> Option<(usize, u64)> {
        match self.what {
            What::Feed { first } => {
                let is_its_own = fields.exchange.as_deref() == Some(FEED);
                let trade: u64 = fields.trade.as_deref().filter(|_| is_its_own)?.parse().ok()?;
                Some((0, trade.checked_sub(first)? + 1))
            }
            _ => Some((fields.by?, fields.n?)),
        }
    }

    /// The key of an entry: the node that posts to it, and its number.
    pub(super) fn key(&self, fields: &Fields) -> Option<(usize, u64)> {
        let key = match self.as_event() {
            Some(_) => fields.get::<EntryFields>("data")?.symbol?.strip_prefix(KEY_PREFIX)?.to_owned(),
            None => fields.get::<String>("key")?,
        };
        let (by, run) = key.split_once('.')?;
        Some((by.parse().ok()?, run.parse().ok()?))
    }

    pub(super) fn as_order(&self) -> Option<OrderId> {
        match self.what {
            What::Order(order) => Some(order),
            _ => None,
        }
    }

    pub(super) fn as_zone(&self) -> Option<&Zone> {
        match &self.what {
            What::Zone(zone) => Some(zone),
            _ => None,
        }
    }

    /// Whether a subscriber that stays follows the channel at this node. An order that is posted at two nodes
    /// is followed at the first alone: the second knows only the updates posted there, until a client watches
    /// the order there.
    pub(super) fn is_followed_at(&self, node: usize) -> bool {
        self.lane != Lane::Orders || self.nodes.len() == 1 || self.nodes.first() == Some(&node)
    }

    fn url(&self, base: &BaseUrl) -> String {
        match &self.what {
            What::Order(order) => base.endpoint(&format!("api/orders/{order}/updates")),
            What::Zone(zone) => base.prices(zone),
            What::Event(event) => base.events(*event),
            What::Feed { .. } => base.events(EventType::Trade),
        }
    }

    /// The `n`th entry of the node `by`. An order stays in its first stage, so that it never ends.
    fn body(&self, by: usize, n: u64) -> Value {
        match self.what {
            What::Order(_) => json!({ "type": "routing", "progress": 10, "n": n, "by": by }),
            What::Zone(_) => json!({ "key": format!("{by}.{}", key_run(n)), "price": n, "n": n, "by": by }),
            // A ticker needs no more fields than a trade.
            What::Event(_) | What::Feed { .. } => {
                let symbol = format!("{KEY_PREFIX}{by}.{}", key_run(n));
                json!({ "exchange": EXCHANGE, "symbol": symbol, "price": n, "size": 1, "n": n, "by": by })
            }
        }
    }
}

/// What one node's producer of one channel has posted so far.
#[derive(Debug, Default)]
pub(super) struct Posted {
    pub(super) posts: Vec<Post>,
    /// Refusals and requests without an answer, by code.
    pub(super) refused: BTreeMap<String, u64>,
    /// By [`key_run`]: the keys that were removed after their last price, and whether the removal is certain.
    pub(super) removed: BTreeMap<u64, bool>,
}

/// One producer: one channel at one node.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) channel: Channel,
    pub(super) node: usize,
    pub(super) base: BaseUrl,
    /// The gateway at which every other removal is requested: another one, if there is one.
    pub(super) elsewhere: BaseUrl,
    pub(super) http: Http,
    pub(super) every: Duration,
    /// The delay before the first post, so that the producers do not post at once.
    pub(super) delay: Duration,
    pub(super) posted: Arc<Mutex<Posted>>,
}

impl Producer {
    /// Posts until `stop`; the request that is under way then is finished. Each number is posted once: a
    /// refused number is not posted again, so that no repetition can be taken for a doubled entry.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut ticks = time::interval_at(Instant::now() + self.delay, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let url = self.channel.url(&self.base);
        for n in 1.. {
            if stop.run_until_cancelled(ticks.tick()).await.is_none() {
                return;
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

/// Notes until `stop` when the exchange made which trade. A trade counts as accepted once some trade has come
/// to a client: the gateways do not ask the exchange for earlier ones. Nor do the trades count that existed
/// before the noting began: who was subscribed by then is unknown.
pub(super) async fn note_trades(
    exchange: Arc<Exchange>,
    has_begun: impl Fn() -> bool,
    posted: Arc<Mutex<Posted>>,
    stop: CancellationToken,
) {
    let mut ticks = time::interval(TRADES_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (first, last) = exchange.trades();
        let (now, is_owed) = (Instant::now(), looked.is_some() && has_begun());
        let count = usize::try_from((last + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let mut posted = posted.lock();
        while posted.posts.len() < count {
            posted.posts.push(Post { sent: looked.unwrap_or(now), accepted: is_owed.then_some(now) });
        }
        looked = Some(now);
    }
}
