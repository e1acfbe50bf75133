//! Clients that move between gateways while one of these is cut off from Redis.

use std::collections::HashSet;
use std::thread;

use serde_json::{Value, json};
use zonewire::config::Config;
use zonewire::model::Lane;
use zonewire::storage::StorageChoice;
use zonewire_kit::proxy::{Mode, Proxy};
use zonewire_kit::redis::RedisServer;

use crate::support::client::{Client, assert_has, position};
use crate::support::eventually::until;
use crate::support::gateway::{Running, config, price};
use crate::support::orders::{get_order, new_order, update};
use crate::support::redis::{nowhere, on_prefix, redis};

/// A gateway whose link to Redis can be cut.
struct Node {
    gateway: Running,
    link: Proxy,
}

impl Node {
    async fn start(server: &RedisServer) -> Self {
        let link = Proxy::start(server.target.address).await.unwrap();
        let gateway = Running::start(through(server, &link)).await;
        Self { gateway, link }
    }

    async fn state(&self) -> Value {
        self.gateway.get("/ws/health").await.json()["state"].take()
    }

    async fn until_state(&self, state: &str) {
        until(&format!("the storage is {state}"), async || self.state().await == state).await;
    }

    /// Cuts the link, and waits until the gateway has noticed.
    async fn cut(&self) {
        self.link.set(Mode::Refuse);
        self.until_state("degraded").await;
    }

    fn mend(&self) {
        self.link.set(Mode::Pass);
    }

    /// Waits until all that the gateway accepted is in Redis.
    async fn until_in_order(&self) {
        self.until_state("healthy").await;
        until("every channel is reconciled", async || {
            let outage = &self.gateway.stats().await["outage"];
            outage["channels_waiting"] == 0 && outage["journal_entries"] == 0
        })
        .await;
    }
}

fn through(server: &RedisServer, link: &Proxy) -> Config {
    let mut config = on_prefix(server, "moving");
    config.channels.default_lane = Lane::Every;
    config.connections.order_linger_ms = 0;
    config.storage.redis.port = Some(link.address.port());
    config
}

async fn two_nodes(server: &RedisServer) -> (Node, Node) {
    let (a, b) = (Node::start(server).await, Node::start(server).await);
    for node in [&a, &b] {
        node.until_state("healthy").await;
    }
    (a, b)
}

/// The progress of update 0; each further one adds its number.
const FIRST_PROGRESS: u64 = 10;

/// The channel that a client follows.
#[derive(Debug, Clone)]
enum Channel {
    Order(String),
    Zone(&'static str),
}

impl Channel {
    fn order() -> Self {
        Self::Order(new_order())
    }

    fn path(&self) -> String {
        match self {
            Self::Order(id) => format!("/ws/orders/{id}"),
            Self::Zone(zone) => format!("/ws/market/{zone}"),
        }
    }

    /// Publishes these numbers at a node, one after the other.
    async fn tell(&self, node: &Node, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            match self {
                Self::Order(id) => {
                    let routing = json!({ "type": "routing", "progress": FIRST_PROGRESS + number });
                    update(node.gateway.address, id, routing).await;
                }
                Self::Zone(zone) => node.gateway.publish(zone, [price("A", number)]).await,
            }
        }
    }
}

/// A client that keeps its position and drops repeated entries as the protocol permits. With each message it
/// checks that nothing else is repeated, and that no gap has a number.
struct Traveller {
    channel: Channel,
    client: Option<Client>,
    position: Option<String>,
    /// Whether `recovered` was false when it was last stated.
    in_doubt: bool,
    ids: HashSet<String>,
    /// The numbers that it has received, in order.
    had: Vec<u64>,
    late: Vec<u64>,
    /// Numbers that arrived again, after a warning that they may.
    again: Vec<u64>,
    /// The storage state that was last reported.
    state: Option<String>,
    /// All messages received, which are printed when a test fails.
    words: Vec<String>,
}

/// The number of an entry.
fn number(entry: &Value) -> u64 {
    match entry.get("price") {
        Some(price) => price.as_u64().unwrap(),
        None => entry["progress"].as_u64().unwrap() - FIRST_PROGRESS,
    }
}

impl Drop for Traveller {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{} was told:", self.channel.path());
            self.words.iter().for_each(|word| println!("  {word}"));
        }
    }
}

impl Traveller {
    fn of(channel: &Channel) -> Self {
        Self {
            channel: channel.clone(),
            client: None,
            position: None,
            in_doubt: false,
            ids: HashSet::new(),
            had: Vec::new(),
            late: Vec::new(),
            again: Vec::new(),
            state: None,
            words: Vec::new(),
        }
    }

    /// Leaves the current node, if any, connects to another one with the position, and returns `subscribed`.
    async fn go_to(&mut self, node: &Node) -> Value {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
        let since = self.position.as_ref().map(|at| format!("?since={at}")).unwrap_or_default();
        self.words.push(format!("-- at {}{since}", node.gateway.address));
        let url = node.gateway.url(&format!("{}{since}", self.channel.path()));
        self.client = Some(Client::connect(&url).await);
        loop {
            let message = self.take_next().await;
            if message["type"] == "subscribed" {
                return message;
            }
        }
    }

    async fn take_next(&mut self) -> Value {
        let message = self.client.as_mut().expect("it is connected").next().await;
        self.take(&message);
        message
    }

    fn take(&mut self, message: &Value) {
        self.words.push(message.to_string());
        match message["type"].as_str().unwrap() {
            "subscribed" | "resync" => {
                self.in_doubt = message["recovered"] == false;
                let gap = if self.in_doubt { Value::Null } else { json!(0) };
                assert_eq!(message["gap"], gap, "nothing is gone for good: {message}");
                self.position = Some(position(message));
            }
            "routing" | "price_update" => {
                let number = number(message);
                let (epoch, _) = self.position.as_ref().unwrap().rsplit_once(':').unwrap();
                self.position = Some(format!("{epoch}:{}", message["offset"]));
                assert_eq!(message.get("missedBefore"), None, "{message}");
                if !self.ids.insert(message["id"].as_str().unwrap().to_owned()) {
                    assert!(self.in_doubt, "{number} came twice: {message}");
                    self.again.push(number);
                    return;
                }
                self.had.push(number);
                if message["late"] == true {
                    self.late.push(number);
                }
            }
            "backend_state" => self.state = message["state"].as_str().map(str::to_owned),
            "connection" | "connection_established" => {}
            // The client is subscribed as soon as the storage answers.
            "error" => assert_eq!(message["code"], "storage_unavailable", "{message}"),
            _ => panic!("{message}"),
        }
    }

    /// Reads until all of these have arrived.
    async fn until_had(&mut self, numbers: &[u64]) {
        while !numbers.iter().all(|number| self.had.contains(number)) {
            self.take_next().await;
        }
    }

    /// Reads until it was told that Redis answers again. A recovery that was over before the connection's thread
    /// looked is not told.
    async fn until_told_of_recovery(&mut self) {
        while !matches!(self.state.as_deref(), Some("recovering" | "healthy")) {
            self.take_next().await;
        }
    }

    /// Reads what has been sent so far.
    async fn take_rest(&mut self) {
        for message in self.client.as_mut().expect("it is connected").until_pong().await {
            self.take(&message);
        }
    }

    /// Reads up to the last published number, checks that nothing is missing, and that the client is not left
    /// in doubt.
    async fn until_whole(&mut self, last: u64) {
        let all: Vec<u64> = (1..=last).collect();
        self.until_had(&all).await;
        self.take_rest().await;
        assert!(!self.in_doubt, "the client was told that nothing is missing");
    }
}

/// Whether a message says that nothing is missing; its gap is checked when it is read.
fn is_recovered(word: &Value) -> bool {
    word["recovered"] == true
}

/// An order with updates 1 to 3 from node `a`, and 4 and 5 from node `b`, which has been cut off since
/// before; and a client at `b` that has received 4 and 5.
async fn behind_a_cut(a: &Node, b: &Node) -> Traveller {
    let order = Channel::order();
    order.tell(a, 1..=3).await;
    order.tell(b, [4]).await;
    b.cut().await;
    order.tell(b, [5]).await;
    let mut client = Traveller::of(&order);
    assert!(!is_recovered(&client.go_to(b).await));
    client.until_had(&[4, 5]).await;
    client.take_rest().await;
    assert_eq!(client.had, [4, 5]);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_unseen_by_a_cut_off_gateway_are_no_gap_and_arrive_late() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = two_nodes(&server).await;
    let mut client = behind_a_cut(&a, &b).await;
    b.mend();
    client.until_had(&[1, 2, 3]).await;
    b.until_in_order().await;
    client.channel.tell(&a, [6]).await;
    client.channel.tell(&b, [7]).await;
    client.until_whole(7).await;
    assert_eq!((&client.had[..5], &client.again[..]), (&[4, 5, 1, 2, 3][..], &[][..]));
    // The gateway cannot say whether the client's first entries came in time; for these it can.
    assert!(client.late.ends_with(&[1, 2, 3]), "{:?}", client.late);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_unseen_by_a_cut_off_gateway_arrive_at_the_next_gateway() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = two_nodes(&server).await;
    let mut client = behind_a_cut(&a, &b).await;
    assert!(is_recovered(&client.go_to(&a).await));
    client.until_had(&[1, 2, 3]).await;
    client.take_rest().await;
    assert_eq!(client.had, [4, 5, 1, 2, 3]);
    b.mend();
    b.until_in_order().await;
    client.channel.tell(&a, [6]).await;
    client.channel.tell(&b, [7]).await;
    client.until_whole(7).await;
    assert_eq!(client.again, [0; 0]);
}

/// When the cut-off gateway is first given something that makes its channel fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Before the client connects.
    Since,
    /// After the client has connected.
    Then,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_ends_at_a_cut_off_gateway_is_closed_only_after_the_missing_updates() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = two_nodes(&server).await;
    let ends = json!({ "type": "confirmed", "progress": 100 });
    let other = Channel::order();
    other.tell(&b, [1]).await;
    let mut client = behind_a_cut(&a, &b).await;
    let mut witness = b.gateway.connect(&other.path()).await;
    for channel in [&client.channel, &other] {
        let Channel::Order(id) = channel else { panic!("it is an order") };
        update(b.gateway.address, id, ends.clone()).await;
    }
    // This client misses nothing, and its stream ended later.
    assert_eq!(witness.until_close().await.1, 1000);
    b.mend();
    let (words, code, _) = client.client.take().unwrap().until_close().await;
    let late = words.iter().filter(|word| word["late"] == true).map(number).collect::<Vec<_>>();
    assert_eq!((late, code), (vec![1, 2, 3], 1000), "{words:?}");
}

/// A client that is ahead of a cut-off gateway moves there and back.
async fn there_and_back(channel: Channel, when: When) {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = two_nodes(&server).await;
    let (mut client, mut witness) = (Traveller::of(&channel), Traveller::of(&channel));
    client.go_to(&b).await;
    witness.go_to(&a).await;
    channel.tell(&a, 1..=2).await;
    client.until_had(&[1, 2]).await;
    witness.until_had(&[1, 2]).await;
    a.cut().await;
    channel.tell(&b, [3]).await;
    client.until_had(&[3]).await;

    if when == When::Since {
        // The channel forks.
        channel.tell(&a, [4]).await;
    }
    assert!(!is_recovered(&client.go_to(&a).await));
    if when == When::Then {
        channel.tell(&a, [4]).await;
    }
    channel.tell(&a, [5]).await;
    client.until_had(&[4, 5]).await;

    assert!(is_recovered(&client.go_to(&b).await) || when == When::Then);
    client.take_rest().await;
    assert_eq!(client.had, [1, 2, 3, 4, 5]);
    a.mend();
    a.until_in_order().await;
    channel.tell(&b, [6]).await;
    channel.tell(&a, [7]).await;
    client.until_had(&[6, 7]).await;
    client.take_rest().await;
    assert_eq!(client.had, [1, 2, 3, 4, 5, 6, 7]);
    // If the client was warned, entries may arrive again, to be dropped.
    assert!((client.again.is_empty() && !client.in_doubt) || when == When::Then, "{:?}", client.again);
    witness.until_whole(7).await;
    assert_eq!(witness.again, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_a_forked_gateway_and_back_repeats_nothing_of_a_zone() {
    there_and_back(Channel::Zone("pjm"), When::Since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_a_forked_gateway_and_back_repeats_nothing_of_an_order() {
    there_and_back(Channel::order(), When::Since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_a_cut_off_gateway_before_it_forks_loses_nothing_of_a_zone() {
    there_and_back(Channel::Zone("pjm"), When::Then).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_a_cut_off_gateway_before_it_forks_loses_nothing_of_an_order() {
    there_and_back(Channel::order(), When::Then).await;
}

/// When the link breaks again.
#[derive(Debug, Clone, Copy)]
enum Again {
    /// As soon as Redis was seen to answer.
    Recovering,
    /// The same, and answers to later requests are lost.
    Unanswered,
    /// As soon as Redis can be reached.
    AtOnce,
    /// When the first of the missing entries has arrived.
    Late,
}

async fn cut_again(again: Again) {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = two_nodes(&server).await;
    let mut client = behind_a_cut(&a, &b).await;
    let channel = client.channel.clone();
    b.mend();
    match again {
        Again::Recovering => client.until_told_of_recovery().await,
        Again::Unanswered => {
            client.until_told_of_recovery().await;
            b.link.set(Mode::Hole { requests: false, replies: true });
        }
        Again::AtOnce => {}
        Again::Late => client.until_had(&[1]).await,
    }
    b.cut().await;
    channel.tell(&b, [6]).await;
    channel.tell(&a, [7]).await;
    client.until_had(&[6]).await;
    b.mend();
    client.until_had(&(1..=7).collect::<Vec<_>>()).await;
    b.until_in_order().await;
    channel.tell(&b, [8]).await;
    client.until_whole(8).await;
    assert_eq!(client.again, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_during_the_recovery_loses_and_doubles_nothing() {
    cut_again(Again::Recovering).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_again_before_anything_is_answered_loses_and_doubles_nothing() {
    cut_again(Again::Unanswered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_again_at_once_loses_and_doubles_nothing() {
    cut_again(Again::AtOnce).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_while_missing_entries_arrive_loses_and_doubles_nothing() {
    cut_again(Again::Late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_from_a_gateway_that_never_knew_the_zone_loses_nothing() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = two_nodes(&server).await;
    let zone = Channel::Zone("pjm");
    let mut client = Traveller::of(&zone);
    client.go_to(&a).await;
    zone.tell(&a, 1..=3).await;
    client.until_had(&[1, 2, 3]).await;
    b.cut().await;

    assert!(!is_recovered(&client.go_to(&b).await));
    zone.tell(&a, [4]).await;
    zone.tell(&b, [5]).await;
    client.until_had(&[5]).await;
    client.go_to(&a).await;
    zone.tell(&a, [6]).await;
    client.until_had(&[4, 6]).await;
    client.take_rest().await;
    b.mend();
    b.until_in_order().await;
    zone.tell(&b, [7]).await;
    client.until_whole(7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partly_known_order_is_shown_with_a_gap_of_unknown_size() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = two_nodes(&server).await;
    let client = behind_a_cut(&a, &b).await;
    let Channel::Order(id) = &client.channel else { panic!("it follows an order") };
    let order = get_order(b.gateway.address, id).await;
    let numbers =
        |order: &Value| -> Vec<u64> { order["updates"].as_array().unwrap().iter().map(number).collect() };
    assert_eq!((numbers(&order), order.get("gap")), (vec![4, 5], Some(&Value::Null)), "{order}");
    assert_has(&order, json!({ "degraded": true, "progress": FIRST_PROGRESS + 5 }));
    // Of this order, `b` knows only what it was sent itself.
    let other = Channel::order();
    other.tell(&a, [1]).await;
    other.tell(&b, [2]).await;
    let Channel::Order(other) = &other else { panic!("it is an order") };
    let shown = get_order(b.gateway.address, other).await;
    assert_eq!((numbers(&shown), shown.get("gap")), (vec![2], Some(&Value::Null)), "{shown}");

    b.mend();
    b.until_in_order().await;
    for (id, expected) in [(id, vec![1, 2, 3, 4, 5]), (other, vec![1, 2])] {
        let order = get_order(b.gateway.address, id).await;
        assert_eq!((numbers(&order), &order["gap"]), (expected, &json!(0)), "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_in_memory_knows_all_of_an_order() {
    let mut config = config();
    config.storage.backend = StorageChoice::Auto;
    config.storage.redis.port = Some(nowhere());
    let gateway = Running::start(config).await;
    let id = new_order();
    update(gateway.address, &id, json!({ "type": "routing", "progress": 11 })).await;
    let (_client, subscribed) = gateway.subscribed(&format!("/ws/orders/{id}")).await;
    assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(true), &json!(0)), "{subscribed}");
}

/// Readers that resume from the same position cost one read per page, whatever state the storage is in.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_many_resume_with_is_read_once_even_in_an_outage() {
    const READERS: usize = 100;
    let Some(server) = redis(&[]).await else { return };
    let node = Node::start(&server).await;
    let zone = Channel::Zone("pjm");
    zone.tell(&node, 1..=1_000).await;
    let since = {
        let (_client, subscribed) = node.gateway.subscribed("/ws/market/pjm").await;
        position(&subscribed).rsplit_once(':').map(|(epoch, _)| format!("{epoch}:0")).unwrap()
    };
    let url = node.gateway.url(&format!("/ws/market/pjm?since={since}"));
    let reads = async || node.gateway.stats().await["messages"]["replay_reads"].as_u64().unwrap();
    // An epoch transition is announced to each reader by a page without entries.
    let come_back = async |expected: u64, transitions: usize| {
        let before = reads().await;
        let clients = (0..READERS).map(async |_| {
            let mut client = Client::connect(&url).await;
            for next in 1..=expected {
                assert_eq!(number(&client.next_of_type("price_update").await), next);
            }
            client
        });
        let _clients = futures_util::future::join_all(clients).await;
        let more = reads().await - before;
        let most = transitions * READERS + 20;
        assert!(more <= most as u64, "{READERS} readers cost {more} reads, instead of {most}");
    };
    come_back(1_000, 0).await;
    node.cut().await;
    come_back(1_000, 0).await;
    // By now the zone has forked.
    zone.tell(&node, [1_001]).await;
    come_back(1_001, 1).await;
    node.mend();
    node.until_in_order().await;
    come_back(1_001, 0).await;
}
