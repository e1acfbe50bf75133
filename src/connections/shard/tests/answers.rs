//! Each request gets one final answer for each of its channels, whatever happens in between.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::{self, LocalSet};
use tokio::time::{self, Instant};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::house::{Guest, House, in_house, settle};
use crate::connections::config::ConnectionsConfig;
use crate::connections::manager::Listing;
use crate::connections::shard::Opening;
use crate::model::{ChannelName, DraftEntry, EntryKind, Marks, NodeId, OrderId};
use crate::storage::model::{Ages, Faults, Laws, ModelServer, Trace};

/// A client that collects what it receives.
struct Asker {
    requests: SplitSink<WebSocketStream<TcpStream>, Message>,
    came: Rc<RefCell<Vec<Value>>>,
}

impl Asker {
    async fn new(house: &House) -> Self {
        let Guest(socket) = house.connect(Opening::Nothing).await;
        let (requests, mut answers) = socket.split();
        let came = Rc::<RefCell<Vec<Value>>>::default();
        let taken = Rc::clone(&came);
        task::spawn_local(async move {
            while let Some(Ok(message)) = answers.next().await {
                if let Message::Text(text) = message {
                    taken.borrow_mut().push(serde_json::from_str(&text).unwrap());
                }
            }
        });
        Self { requests, came }
    }

    /// Sends all requests in one piece.
    async fn ask(&mut self, requests: &[Value]) {
        for request in requests {
            self.requests.feed(Message::text(request.to_string())).await.unwrap();
        }
        self.requests.flush().await.unwrap();
    }

    /// Summaries of the answers to a request: type, code, channel.
    fn answers(&self, id: u64) -> Vec<String> {
        let came = self.came.borrow();
        let answers = came.iter().filter(|message| message["id"] == id);
        let word = |message: &Value, name| message[name].as_str().unwrap_or("-").to_owned();
        answers.map(|m| ["type", "code", "channel"].map(|name| word(m, name)).join(" ")).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !is_so(&self.came.borrow()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.came.borrow());
            for _ in 0..100 {
                task::yield_now().await;
            }
            time::advance(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_answered_once_however_often_it_is_named_and_overtaken() {
    in_house(ConnectionsConfig::default(), async |house| {
        let mut asker = Asker::new(&house).await;
        let order = OrderId::random().to_string();
        let names = ["zone:a".to_owned(), format!("order:{order}"), "x".repeat(300)];
        let again = [names[2].clone(), format!("order:{}", order.to_uppercase()), "zone:a".to_owned()];
        let both = [names.clone(), again].concat();
        asker.ask(&[json!({ "type": "subscribe", "id": 1, "channels": both })]).await;
        asker.until("three answers", |came| came.len() >= 4).await;
        settle().await;
        let mut answers = asker.answers(1);
        answers.sort_unstable();
        let expected = [
            format!("error invalid_channel {}", names[2]),
            format!("subscribed - {}", names[1]),
            "subscribed - zone:a".to_owned(),
        ];
        assert_eq!(answers, expected);

        // All are read before the first is answered.
        let subscribe = |id| json!({ "type": "subscribe", "id": id, "channels": ["zone:b"] });
        let unsubscribe = |id, zone| json!({ "type": "unsubscribe", "id": id, "channels": [zone] });
        asker
            .ask(&[
                subscribe(2),
                subscribe(3),
                unsubscribe(4, "zone:b"),
                unsubscribe(5, "zone:b"),
                subscribe(6),
                unsubscribe(7, "zone:none"),
                unsubscribe(8, "b"),
            ])
            .await;
        asker.until("seven answers", |came| came.len() >= 11).await;
        settle().await;
        for (id, expected) in [
            (2, "error superseded zone:b"),
            (3, "error superseded zone:b"),
            (4, "unsubscribed - zone:b"),
            (5, "error not_subscribed zone:b"),
            (6, "subscribed - zone:b"),
            (7, "error not_subscribed zone:none"),
            (8, "error invalid_channel b"),
        ] {
            assert_eq!(asker.answers(id), [expected], "{id}");
        }
        assert!(asker.came.borrow().iter().all(|message| message["temporary"] != true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_gateway_ends_what_follows_an_order_that_has_ended_and_says_so() {
    in_house(ConnectionsConfig::default(), async |house| {
        let mut asker = Asker::new(&house).await;
        let channel = ChannelName::order(OrderId::random());
        let update = |kind| DraftEntry {
            time: chrono::DateTime::from_timestamp_millis(0).unwrap(),
            kind,
            key: Some("order".into()),
            data: "{}".into(),
            marks: Marks::default(),
        };
        let subscribe = |id| json!({ "type": "subscribe", "id": id, "channels": [channel, "zone:a"] });
        let kinds = |asker: &Asker| -> Vec<String> {
            let of_it = |message: &&Value| message["channel"] == channel.as_str();
            let came = asker.came.borrow();
            came.iter().filter(of_it).map(|message| message["type"].as_str().unwrap().to_owned()).collect()
        };
        let sweep = async |ms| {
            time::advance(Duration::from_millis(ms)).await;
            house.shard.sweep(0, 30, Duration::ZERO).await;
            settle().await;
        };
        asker.ask(&[subscribe(1)]).await;
        asker.until("it is subscribed", |came| came.len() >= 3).await;
        house.channels.publish(&channel, vec![update(EntryKind::Routing)]).await.unwrap();
        sweep(60_000).await;
        assert_eq!(kinds(&asker), ["subscribed", "routing"]);
        house.channels.publish(&channel, vec![update(EntryKind::Confirmed)]).await.unwrap();
        let has = |kind: &'static str| move |came: &[Value]| came.iter().any(|m| m["type"] == kind);
        asker.until("it has ended", has("confirmed")).await;
        sweep(4_900).await;
        assert_eq!(kinds(&asker), ["subscribed", "routing", "confirmed"], "it stays for a while");
        sweep(200).await;
        asker.until("it is told", has("unsubscribed")).await;
        let end = asker.came.borrow().iter().rfind(|m| m["channel"] == channel.as_str()).unwrap().clone();
        assert_eq!((&end["type"], &end["code"]), (&json!("unsubscribed"), &json!("finished")));
        assert_eq!((&end["channel"], end.get("id")), (&json!(channel), None));

        // What is published later takes the same path, and only its subscriber gets it.
        asker.ask(&[subscribe(2)]).await;
        asker.until("it has caught up", has("caught_up")).await;
        sweep(5_100).await;
        let is_told = |came: &[Value]| came.iter().filter(|m| m["type"] == "unsubscribed").count() == 2;
        asker.until("it is told again", is_told).await;
        let all = ["subscribed", "routing", "confirmed", "caught_up", "unsubscribed"];
        assert_eq!(kinds(&asker)[4..], all);
        let inspection = house.shard.inspect(&Listing { max: 10, ..Listing::default() }).await;
        assert_eq!(inspection.connections[0].channels, ["zone:a"]);
    })
    .await;
}

/// The channels that random requests name.
fn names(random: &mut StdRng, of: &[String]) -> Vec<String> {
    let count = *[0, 1, 1, 2, 3, 5, 9].choose(random).unwrap();
    (0..count).map(|_| of.choose(random).unwrap().clone()).collect()
}

/// The channel's name in answers.
fn told(name: &str) -> String {
    name.parse().map_or_else(|_| name.to_owned(), |channel: ChannelName| channel.to_string())
}

const NAMES_MAX: usize = 8;

/// One run of random requests; returns how many answers were postponed.
async fn check(seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let server = ModelServer::new(seed, Faults::default(), Laws::default(), Ages::default(), Trace::Off);
    let backend = server.start_bare(0);
    let config =
        ConnectionsConfig { messages_per_s: 0, subscriptions_max: NAMES_MAX, ..ConnectionsConfig::default() };
    let house = House::on(backend, NodeId::random(), config).await;
    let mut asker = Asker::new(&house).await;
    let order = OrderId::random().to_string();
    let mut all: Vec<String> = (0..100).map(|n| format!("zone:{n}")).collect();
    // Some channels are requested often, others only once, so that the storage is asked.
    for _ in 0..5 {
        all.extend((0..5).map(|n| format!("zone:{n}")));
        all.extend([format!("order:{order}"), format!("order:{}", order.to_uppercase())]);
        all.extend(["".to_owned(), "zone:a b".to_owned(), "é".repeat(200)]);
    }

    let mut asked: Vec<(u64, bool, Vec<String>)> = Vec::new();
    for _ in 0..40 {
        let lost = *[0, 300, 600].choose(&mut random).unwrap();
        let slow = *[0, 500].choose(&mut random).unwrap();
        server.set_faults(Faults { request_lost: lost, slow, ..Faults::default() });
        let mut requests = Vec::new();
        for _ in 0..random.random_range(1..4) {
            let (id, subscribes) = (asked.len() as u64, random.random_bool(0.7));
            let channels = names(&mut random, &all);
            let since: HashMap<String, &str> = names(&mut random, &all)
                .into_iter()
                .map(|name| (name, *["u.abc:0", "abc:7", "nonsense"].choose(&mut random).unwrap()))
                .collect();
            let kind = if subscribes { "subscribe" } else { "unsubscribe" };
            requests.push(json!({ "type": kind, "id": id, "channels": channels, "since": since }));
            asked.push((id, subscribes, channels));
        }
        asker.ask(&requests).await;
        for _ in 0..random.random_range(0..300) {
            task::yield_now().await;
        }
        time::advance(Duration::from_millis(*[0, 0, 5, 100, 1_000].choose(&mut random).unwrap())).await;
    }
    server.set_faults(Faults::default());
    let is_final = |message: &Value| message["id"].is_u64() && message["temporary"] != true;
    let expected = |(_, _, channels): &(u64, bool, Vec<String>)| -> BTreeSet<Option<String>> {
        match channels.len() {
            1..=NAMES_MAX => channels.iter().map(|name| Some(told(name))).collect(),
            _ => BTreeSet::from([None]),
        }
    };
    let total: usize = asked.iter().map(|request| expected(request).len()).sum();
    asker.until("all is answered", |came| came.iter().filter(|m| is_final(m)).count() >= total).await;
    settle().await;

    let came = asker.came.take();
    let (mut put_off, mut subscribed) = (0, BTreeSet::new());
    for request @ (id, subscribes, _) in &asked {
        let mut open = expected(request);
        let mut waits = BTreeSet::new();
        for message in came.iter().filter(|message| message["id"] == *id) {
            let channel = message["channel"].as_str().map(str::to_owned);
            assert!(open.contains(&channel), "{id} was asked for less: {message}");
            if !is_final(message) {
                assert!(*subscribes && waits.insert(channel), "{message}");
                continue;
            }
            open.remove(&channel);
            match (message["type"].as_str(), channel) {
                (Some("error"), _) => {}
                (Some("subscribed"), Some(channel)) if *subscribes => {
                    subscribed.insert(channel);
                }
                (Some("unsubscribed"), Some(channel)) if !subscribes => {
                    subscribed.remove(&channel);
                }
                _ => panic!("{message}"),
            }
        }
        assert!(open.is_empty(), "{id} has no answer for {open:?}");
        put_off += waits.len();
    }
    // In the end, the answers agree with the subscriptions that exist.
    let inspection = house.shard.inspect(&Listing { max: 10, ..Listing::default() }).await;
    let held: BTreeSet<String> = inspection.connections[0].channels.iter().cloned().collect();
    assert_eq!(held, subscribed, "seed {seed}");
    put_off
}

#[tokio::test(start_paused = true)]
async fn random_requests_get_one_final_answer_for_each_of_their_channels() {
    let mut put_off = 0;
    for seed in 0..40 {
        put_off += LocalSet::new().run_until(check(seed)).await;
    }
    assert!(put_off > 400, "the storage was out of reach {put_off} times");
}
