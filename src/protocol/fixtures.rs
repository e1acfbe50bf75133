//! The messages in `tests/fixtures/protocol`, one per file, exactly as on the wire. The clients in other
//! languages are tested with the same files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Auth, Bare, ClientMessage, CloseCode, Publish, RequestId, ServerMessage, Since, Subscribe, Token,
    Unsubscribe, entry_json, latest_json,
};
use crate::model::{
    ChannelName, DraftEntry, Entry, EntryId, EntryKind, EventType, NodeId, OrderId, Position,
};

/// The fixtures whose names begin with `side`, by the rest of their names.
fn fixtures(side: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/protocol");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let fixtures = files.filter_map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix(".json").unwrap().strip_prefix(side)?.to_owned();
        Some((name, std::fs::read_to_string(&path).unwrap().trim_end().to_owned()))
    });
    fixtures.collect()
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

const PRICE: &str =
    r#"{"key":"WESTERN HUB","hub":"WESTERN HUB","price":39432.480,"n":1.10e2,"bid":null,"note":"x \" é"}"#;

fn price(late: bool) -> String {
    entry(&"zone:pjm".parse().unwrap(), 42, EntryKind::PriceUpdate, "WESTERN HUB", PRICE, late)
}

/// An event, as a follower of a view receives it.
fn ticker() -> String {
    const DATA: &str =
        r#"{"data":{"exchange":"binance","symbol":"BTC-USDT","price":64250.10,"bidSize":"0.50"}}"#;
    let view = "event:ticker:binance:*".parse().unwrap();
    entry(&view, 42, EntryKind::Event(EventType::Ticker), "binance:BTC-USDT", DATA, false)
}

fn skipped() -> String {
    let kind = EntryKind::named("quote", false).unwrap();
    entry(&"zone:pjm".parse().unwrap(), 43, kind, "WESTERN HUB", r#"{"bid":19.5}"#, false)
}

/// The latest price of a key, as part of a snapshot.
fn latest() -> String {
    let mut out = Vec::new();
    latest_json(
        &"zone:pjm".parse().unwrap(),
        &stored(42, EntryKind::PriceUpdate, "WESTERN HUB", PRICE),
        &mut out,
    );
    String::from_utf8(out).unwrap()
}

fn removal(kind: EntryKind, data: &'static str) -> String {
    entry(&"zone:pjm".parse().unwrap(), 43, kind, "WESTERN HUB", data, false)
}

fn id(json: &str) -> RequestId {
    let ping = ClientMessage::parse(&format!(r#"{{"type":"ping","id":{json}}}"#));
    let Ok(ClientMessage::Ping(Bare { id: Some(id) })) = ping else { panic!("{ping:?}") };
    id
}

fn order() -> OrderId {
    "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11".parse().unwrap()
}

/// All updates of an order that succeeded, and the last one of an order that failed.
fn updates() -> impl Iterator<Item = (String, String)> {
    let updates = [
        (
            EntryKind::Routing,
            r#"{"progress":10,"message":"Looking for a venue","attempt":1,"maxAttempts":3}"#,
        ),
        (
            EntryKind::Building,
            r#"{"progress":50,"message":"Building the transaction","attempt":1,"maxAttempts":3,"chosenDex":"meteora","quote":{"dex":"meteora","amountOut":"0.7075"}}"#,
        ),
        (
            EntryKind::Submitted,
            r#"{"progress":75,"message":"The transaction was sent","attempt":1,"maxAttempts":3,"txHash":"0xabc"}"#,
        ),
        (
            EntryKind::Confirmed,
            r#"{"progress":100,"message":"The order was executed","attempt":1,"maxAttempts":3,"txHash":"0xabc"}"#,
        ),
        (
            EntryKind::Failed,
            r#"{"progress":0,"message":"No venue took the order","error":{"code":"no_route","message":"no venue"},"attempts":3}"#,
        ),
    ];
    (1..).zip(updates).map(|(offset, (kind, data))| {
        let channel = ChannelName::order(order());
        (kind.as_str().to_owned(), entry(&channel, offset, kind.clone(), "order", data, false))
    })
}

fn entry(
    channel: &ChannelName,
    offset: u64,
    kind: EntryKind,
    key: &str,
    data: &'static str,
    late: bool,
) -> String {
    let mut out = Vec::new();
    entry_json(channel, &stored(offset, kind, key, data), late, &mut out);
    String::from_utf8(out).unwrap()
}

fn stored(offset: u64, kind: EntryKind, key: &str, data: &'static str) -> Entry {
    let producer = NodeId(Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8));
    let time = time("2021-01-08T00:00:00.278Z");
    let draft = DraftEntry { time, kind, key: Some(key.into()), ..DraftEntry::price(0, data) };
    Entry { offset, id: EntryId { producer, seq: 9 }, draft }
}

/// The messages of the fast writers, and the close messages, whose codes tell clients whether to reconnect.
#[test]
fn messages_are_written_as_in_their_fixtures() {
    let closing = |code| {
        let message = ServerMessage::closing(code, 1_500, time("2021-01-08T00:00:00.278Z"));
        String::from_utf8(message.to_json()).unwrap()
    };
    let mut written = BTreeMap::from([
        ("price_update".to_owned(), price(false)),
        ("price_update_late".to_owned(), price(true)),
        ("price_update_snapshot".to_owned(), latest()),
        ("skipped".to_owned(), skipped()),
        ("key_removed".to_owned(), removal(EntryKind::KeyRemoved, r#"{"key":"WESTERN HUB"}"#)),
        ("zone_removed".to_owned(), removal(EntryKind::ZoneRemoved, "{}")),
        ("ticker".to_owned(), ticker()),
        ("closing".to_owned(), closing(CloseCode::ShuttingDown)),
        ("closing_after_order".to_owned(), closing(CloseCode::Normal)),
        ("closing_for_good".to_owned(), closing(CloseCode::Disconnected)),
    ]);
    written.extend(updates());
    let fixtures = fixtures("server_");
    for (name, text) in written {
        assert_eq!(fixtures.get(&name), Some(&text), "{name}");
    }
}

/// The type of each message has a place for every field in its fixture, including those of the fast writers.
#[test]
fn each_server_message_reads_and_writes_without_loss() {
    let fixtures = fixtures("server_");
    for kind in ServerMessage::KINDS {
        assert!(fixtures.contains_key(kind), "{kind} has no fixture");
    }
    for (name, text) in fixtures {
        let message = ServerMessage::read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!matches!(message, ServerMessage::Unknown(_)), "{name}");
        assert!(name.starts_with(message.kind()), "{name}");
        assert_eq!(String::from_utf8(message.to_json()).unwrap(), text, "{name}");
    }
}

#[test]
fn client_messages_are_read_from_their_fixtures() {
    let position = Position { epoch: "0123456789abcdef".parse().unwrap(), offset: 41 };
    let channels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let subscribe = |id, names: &[&str], since: &[&str]| {
        let since = since.iter().map(|name| ((*name).to_owned(), Some(Since::At(position.clone()))));
        let (channels, since) = (channels(names), since.collect());
        ClientMessage::Subscribe(Subscribe { id, channels, since, snapshot: false })
    };
    let with_snapshot = |mut message| {
        if let ClientMessage::Subscribe(Subscribe { snapshot, .. }) = &mut message {
            *snapshot = true;
        }
        message
    };
    let expected = HashMap::from([
        ("subscribe", subscribe(Some(id("7")), &["zone:pjm", "zone:ercot"], &["zone:pjm"])),
        ("subscribe_from_now", subscribe(None, &["zone:pjm"], &[])),
        ("subscribe_with_snapshot", with_snapshot(subscribe(None, &["zone:pjm"], &[]))),
        ("subscribe_with_text_position", subscribe(Some(id(r#""a""#)), &["zone:pjm"], &["zone:pjm"])),
        (
            "unsubscribe",
            ClientMessage::Unsubscribe(Unsubscribe { id: Some(id("8")), channels: channels(&["zone:pjm"]) }),
        ),
        ("auth", ClientMessage::Auth(Auth { id: Some(id("9")), token: Token("zwk_0a1b_secret".to_owned()) })),
        ("heartbeat", ClientMessage::Heartbeat(Bare { id: Some(id(r#""h1""#)) })),
        ("heartbeat_ack", ClientMessage::HeartbeatAck(Bare::default())),
        (
            "publish",
            ClientMessage::Publish(Publish {
                id: Some(id("8")),
                channel: "zone:pjm".to_owned(),
                entries: serde_json::from_str(r#"[{"key":"A","price":1.50}]"#).unwrap(),
            }),
        ),
        ("ping", ClientMessage::Ping(Bare { id: Some(id("1")) })),
        (
            "ping_with_a_long_number",
            ClientMessage::Ping(Bare { id: Some(id("123456789012345678901234567890")) }),
        ),
    ]);
    let fixtures = fixtures("client_");
    assert_eq!(fixtures.len(), expected.len());
    for (name, text) in fixtures {
        assert_eq!(ClientMessage::parse(&text).as_ref(), Ok(&expected[name.as_str()]), "{name}");
    }
}
