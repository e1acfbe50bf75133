//! The messages in `tests/fixtures/protocol`, one to a file, just as they are on the wire. Other
//! languages' clients are tested with the same files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    ClientMessage, CloseCode, EndCode, ErrorCode, PROTOCOL_VERSION, RequestId, ServerMessage, Subscribe,
    entry_json, latest_json,
};
use crate::model::{
    BackendName, BackendState, ChannelName, DraftEntry, Entry, EntryId, EntryKind, Epoch, Marks, NodeId,
    OrderId, Position,
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

fn skipped() -> String {
    let kind = EntryKind::named("ticker", false).unwrap();
    entry(&"zone:pjm".parse().unwrap(), 43, kind, "WESTERN HUB", r#"{"bid":19.5}"#, false)
}

/// The latest price of a key, for a client that begins with it.
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
    let Ok(ClientMessage::Ping { id: Some(id) }) = ping else { panic!("{ping:?}") };
    id
}

fn order() -> OrderId {
    "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11".parse().unwrap()
}

/// The updates of one order that went well, and the end of one that did not.
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
            r#"{"progress":100,"message":"The order was carried out","attempt":1,"maxAttempts":3,"txHash":"0xabc"}"#,
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
    Entry {
        offset,
        id: EntryId { producer, seq: 9 },
        draft: DraftEntry {
            time: time("2021-01-08T00:00:00.278Z"),
            kind,
            key: Some(key.into()),
            data: Bytes::from_static(data.as_bytes()),
            marks: Marks::default(),
        },
    }
}

/// The name of the fixture of a message, without what is special about it. Names every variant, so
/// that a new one does not compile without its fixture.
fn kind(message: &ServerMessage<'_>) -> &'static str {
    match message {
        ServerMessage::ConnectionEstablished { .. } => "connection_established",
        ServerMessage::Connection { .. } => "connection",
        ServerMessage::Subscribed { .. } => "subscribed",
        ServerMessage::CaughtUp { .. } => "caught_up",
        ServerMessage::Unsubscribed { .. } => "unsubscribed",
        ServerMessage::Resync { .. } => "resync",
        ServerMessage::SnapshotEnd { .. } => "snapshot_end",
        ServerMessage::Heartbeat { .. } => "heartbeat",
        ServerMessage::HeartbeatAck { .. } => "heartbeat_ack",
        ServerMessage::Pong { .. } => "pong",
        ServerMessage::BackendState { .. } => "backend_state",
        ServerMessage::Error { .. } => "error",
        ServerMessage::Closing { .. } => "closing",
    }
}

#[test]
fn server_messages_are_as_in_their_fixtures() {
    let timestamp = time("2021-01-08T00:00:00.278Z");
    let since = time("2021-01-08T00:00:00Z");
    let connection_id = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    let channel: &ChannelName = &"zone:pjm".parse().unwrap();
    let first: &Epoch = &"0123456789abcdef".parse().unwrap();
    let second: &Epoch = &"fedcba9876543210".parse().unwrap();
    let fork: &Epoch = &"f.0123456789abcdef.56.67e5504410b1426f9247bb680e5fe0c8.9.56".parse().unwrap();
    let view: &Epoch = &"v.0123456789abcdef.67e5504410b1426f9247bb680e5fe0c8-12".parse().unwrap();
    let part: &Epoch = &"v.0123456789abcdef.s".parse().unwrap();
    let ids = ["1", "3", "7", r#""a""#].map(id);
    let [one, three, seven, a] = &ids;
    let established = |market_zone, storage_backend, state, message| ServerMessage::ConnectionEstablished {
        connection_id,
        market_zone,
        storage_backend,
        state,
        heartbeat_interval_ms: 30_000,
        protocol: PROTOCOL_VERSION,
        timestamp,
        message,
    };
    let subscribed = |id, epoch, offset, top, recovered, gap| ServerMessage::Subscribed {
        id,
        channel,
        order_id: None,
        epoch,
        offset,
        top,
        recovered,
        gap,
        snapshot: false,
        timestamp,
        message: None,
    };
    let resync = |epoch, offset, gap| ServerMessage::Resync {
        channel,
        old_epoch: first,
        epoch,
        offset,
        recovered: gap == Some(0),
        gap,
        snapshot: false,
        timestamp,
    };
    let with_snapshot = |mut message| {
        if let ServerMessage::Subscribed { snapshot, .. } | ServerMessage::Resync { snapshot, .. } =
            &mut message
        {
            *snapshot = true;
        }
        message
    };
    let snapshot_end =
        |epoch, recovered| ServerMessage::SnapshotEnd { channel, epoch, offset: 41, recovered, timestamp };
    let backend_state = |storage_backend, state, reason| ServerMessage::BackendState {
        storage_backend,
        state,
        since,
        scope: "all",
        channels: None,
        more_channels: 0,
        reason,
        timestamp,
    };
    let some_state = |channels, more_channels| ServerMessage::BackendState {
        storage_backend: BackendName::Redis,
        state: BackendState::Degraded,
        since,
        scope: "some",
        channels: Some(channels),
        more_channels,
        reason: Some("Redis does not answer in time"),
        timestamp,
    };
    let error = |id, code: ErrorCode, message, channel| {
        let temporary = code.is_temporary();
        ServerMessage::Error { id, code, temporary, message, channel, timestamp }
    };
    let (memory, redis) = (BackendName::InMemory, BackendName::Redis);
    let concerned = [channel];
    let messages = [
        (
            "connection_established",
            established(
                Some("pjm"),
                BackendName::Redis,
                BackendState::Healthy,
                "Connected to pjm market updates",
            ),
        ),
        (
            "connection_established_without_zone",
            established(
                None,
                BackendName::InMemory,
                BackendState::Degraded,
                "Connected; subscribe to channels such as zone:pjm",
            ),
        ),
        (
            "connection",
            ServerMessage::Connection {
                connection_id,
                order_id: order(),
                storage_backend: BackendName::Redis,
                state: BackendState::Healthy,
                heartbeat_interval_ms: 30_000,
                protocol: PROTOCOL_VERSION,
                timestamp,
                message: "Connected to order status stream",
            },
        ),
        (
            "subscribed_to_order",
            ServerMessage::Subscribed {
                id: None,
                channel: &ChannelName::order(order()),
                order_id: Some(order()),
                epoch: first,
                offset: 0,
                top: Some(3),
                recovered: true,
                gap: Some(0),
                snapshot: false,
                timestamp,
                message: Some(
                    "Subscribed to real-time updates for order 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11",
                ),
            },
        ),
        ("subscribed", subscribed(Some(seven), first, 41, Some(41), true, Some(0))),
        ("subscribed_with_gap", subscribed(None, first, 41, Some(97), false, Some(12))),
        ("subscribed_in_an_epoch_that_is_over", subscribed(None, fork, 56, None, true, Some(0))),
        ("subscribed_in_another_epoch", subscribed(Some(a), second, 0, Some(5), false, None)),
        ("caught_up", ServerMessage::CaughtUp { channel, timestamp }),
        ("unsubscribed", ServerMessage::Unsubscribed { id: Some(seven), channel, code: None, timestamp }),
        (
            "unsubscribed_by_the_gateway",
            ServerMessage::Unsubscribed {
                id: None,
                channel: &ChannelName::order(order()),
                code: Some(EndCode::Finished),
                timestamp,
            },
        ),
        ("resync", resync(second, 0, None)),
        ("resync_with_gap", resync(first, 99, Some(4))),
        ("resync_to_a_fork", resync(fork, 56, Some(0))),
        ("resync_to_a_view", resync(view, 56, Some(0))),
        (
            "subscribed_with_snapshot",
            with_snapshot(subscribed(Some(seven), part, 41, Some(41), true, Some(0))),
        ),
        ("resync_with_snapshot", with_snapshot(resync(part, 41, None))),
        ("snapshot_end", snapshot_end(first, true)),
        ("snapshot_end_of_part", snapshot_end(part, false)),
        ("heartbeat", ServerMessage::Heartbeat { timestamp }),
        ("heartbeat_ack", ServerMessage::HeartbeatAck { id: Some(a), timestamp }),
        ("pong", ServerMessage::Pong { id: Some(one), timestamp }),
        ("backend_state", backend_state(memory, BackendState::Degraded, Some("Redis does not answer"))),
        ("backend_state_of_some", some_state(&concerned, 0)),
        ("backend_state_of_none_here", some_state(&[], 0)),
        ("backend_state_of_many", some_state(&concerned, 23)),
        (
            "backend_state_recovering",
            backend_state(redis, BackendState::Recovering, Some("Redis answers again")),
        ),
        ("backend_state_healthy", backend_state(redis, BackendState::Healthy, None)),
        (
            "error",
            error(Some(three), ErrorCode::InvalidChannel, "`pjm` is not a valid channel name", Some("pjm")),
        ),
        (
            "error_temporary",
            error(
                Some(seven),
                ErrorCode::StorageUnavailable,
                "the storage does not answer; the subscription is made as soon as it does",
                Some("zone:pjm"),
            ),
        ),
        ("error_without_id", error(None, ErrorCode::InvalidJson, "the message is not JSON", None)),
        ("closing", ServerMessage::closing(CloseCode::ShuttingDown, 1_500, timestamp)),
        ("closing_after_order", ServerMessage::closing(CloseCode::Normal, 1_500, timestamp)),
        ("closing_for_good", ServerMessage::closing(CloseCode::Disconnected, 1_500, timestamp)),
    ];
    let mut written = BTreeMap::from([
        ("price_update".to_owned(), price(false)),
        ("price_update_late".to_owned(), price(true)),
        ("price_update_snapshot".to_owned(), latest()),
        ("skipped".to_owned(), skipped()),
        ("key_removed".to_owned(), removal(EntryKind::KeyRemoved, r#"{"key":"WESTERN HUB"}"#)),
        ("zone_removed".to_owned(), removal(EntryKind::ZoneRemoved, "{}")),
    ]);
    written.extend(updates());
    for (name, message) in &messages {
        assert!(name.starts_with(kind(message)), "{name}");
        let json = String::from_utf8(message.to_json()).unwrap();
        assert!(json.starts_with(&format!(r#"{{"type":"{}""#, kind(message))), "{json}");
        written.insert((*name).to_owned(), json);
    }
    assert_eq!(written, fixtures("server_"));
}

#[test]
fn client_messages_are_read_from_their_fixtures() {
    let position = Position { epoch: "0123456789abcdef".parse().unwrap(), offset: 41 };
    let channels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let subscribe = |id, names: &[&str], since: &[(&str, Value)]| {
        let since = since.iter().map(|(name, since)| ((*name).to_owned(), since.clone()));
        let (channels, since) = (channels(names), since.collect());
        ClientMessage::Subscribe(Subscribe { id, channels, since, snapshot: false })
    };
    let with_snapshot = |mut message| {
        if let ClientMessage::Subscribe(Subscribe { snapshot, .. }) = &mut message {
            *snapshot = true;
        }
        message
    };
    let object = serde_json::to_value(&position).unwrap();
    let expected = HashMap::from([
        ("subscribe", subscribe(Some(id("7")), &["zone:pjm", "zone:ercot"], &[("zone:pjm", object)])),
        ("subscribe_from_now", subscribe(None, &["zone:pjm"], &[])),
        ("subscribe_with_snapshot", with_snapshot(subscribe(None, &["zone:pjm"], &[]))),
        (
            "subscribe_with_text_position",
            subscribe(Some(id(r#""a""#)), &["zone:pjm"], &[("zone:pjm", json!(position.to_string()))]),
        ),
        ("unsubscribe", ClientMessage::Unsubscribe { id: Some(id("8")), channels: channels(&["zone:pjm"]) }),
        ("heartbeat", ClientMessage::Heartbeat { id: Some(id(r#""h1""#)) }),
        ("heartbeat_ack", ClientMessage::HeartbeatAck),
        ("ping", ClientMessage::Ping { id: Some(id("1")) }),
        ("ping_with_a_long_number", ClientMessage::Ping { id: Some(id("123456789012345678901234567890")) }),
    ]);
    let fixtures = fixtures("client_");
    assert_eq!(fixtures.len(), expected.len());
    for (name, text) in fixtures {
        assert_eq!(ClientMessage::parse(&text).as_ref(), Ok(&expected[name.as_str()]), "{name}");
    }
}
