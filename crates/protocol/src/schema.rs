//! All messages and bodies as JSON Schemas, and the WebSockets as AsyncAPI 3.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::shape::*;
use crate::stats::*;
use crate::{Live, *};

/// Passes all types that are described to a macro, in the order in which TypeScript declares them.
macro_rules! all_types {
    ($each:ident) => {
        $each![
            ServerMessage,
            ClientMessage,
            ConnectionEstablished,
            Connection,
            Subscribed,
            CaughtUp,
            Unsubscribed,
            Resync,
            SnapshotEnd,
            Heartbeat,
            Answer,
            BackendStateMessage,
            ErrorMessage,
            Closing,
            Authenticated,
            TokenExpiring,
            Published,
            Authentication,
            EntryMessage,
            Subscribe,
            Since,
            Unsubscribe,
            Publish,
            RawEntry,
            Bare,
            Auth,
            Token,
            Zone,
            ChannelName,
            OrderId,
            Epoch,
            Position,
            RequestId,
            Lane,
            BackendName,
            BackendState,
            Scope,
            ErrorCode,
            EndCode,
            CloseCode,
            ProblemCode,
            Problem,
            FieldFault,
            Accepted,
            ZoneList,
            ZoneView,
            Entries,
            OrderStatus,
            Swap,
            OrderPlaced,
            OrderCancelling,
            OrderView,
            OrderList,
            DeadLetterList,
            DeadLetter,
            ClaimRequest,
            Offer,
            OfferedJob,
            Previous,
            ExtendRequest,
            LeaseHeld,
            Revoke,
            RevokedOn,
            ConfigView,
            SettingView,
            RecordList,
            RecordsSet,
            RegistryStatus,
            RegistrySync,
            RegistrySynced,
            ReleaseRequest,
            FailRequest,
            Failure,
            ReportAccepted,
            JobOutcome,
            Live,
            StorageView,
            HealthView,
            AuthenticationView,
            TlsHealth,
            ChannelSetAside,
            WebSocketView,
            RedisView,
            RedisMetrics,
            SubscriptionMode,
            SetSubscription,
            BridgeSubscriptions,
            BridgeSubscription,
            BridgeSource,
            SourceCounts,
            BridgeView,
            ExchangeView,
            FeedView,
            FleetView,
            NodesKnown,
            FleetNode,
            NodeState,
            ZoneConnections,
            DeliveryLag,
            FleetTotals,
            StatsView,
            NodesView,
            Timing,
            MemoryUsage,
            OutageView,
            ConnectionsView,
            DurationBucket,
            MessagesView,
            DroppedMessages,
            ChannelsView,
            RefusedEntries,
            SkippedEntries,
            OrdersView,
            JobsView,
            InteropCounts,
            OutsideInvalid,
            OutsideRefused,
            RegistriesView,
            RegistryView,
            HttpView,
            TlsView,
            LimitsView,
            StateSpell,
            ConnectionInfo,
            ConnectionHealth,
            TransportKind,
            ConnectionStory,
            SubscriptionInfo,
            SubscriptionPhase,
            PriceUpdate,
            KeyRemoved,
            ZoneRemoved,
            RecordUpdate,
            OrderUpdate,
            OrderFailed,
            Skipped,
            Missed,
            MissedEvents,
            TickerEvent,
            TradeEvent,
            OrderbookEvent,
            CandleEvent,
            ExchangeEvent,
            Digits,
            Ticker,
            Trade,
            Orderbook,
            Candle,
            Exchange
        ]
    };
}

pub(crate) use all_types;

/// Makes optional fields absent instead of null.
#[derive(Debug, Clone)]
struct AbsentNotNull;

impl Transform for AbsentNotNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
        for (name, property) in properties {
            if required.iter().all(|required| required != name) {
                without_null(property);
            }
        }
    }
}

/// Whether this is the type `null`, alone or as a schema.
fn is_null(value: &Value) -> bool {
    value == "null" || *value == json!({ "type": "null" })
}

/// Whether a property may be null.
pub(crate) fn permits_null(property: &Value) -> bool {
    let forms = ["type", "anyOf", "oneOf"].into_iter().filter_map(|word| property.get(word)?.as_array());
    forms.flatten().any(is_null)
}

fn without_null(property: &mut Value) {
    if let Some(types) = property.get_mut("type").and_then(Value::as_array_mut)
        && types.iter().any(is_null)
    {
        types.retain(|name| !is_null(name));
        if let [only] = &types[..] {
            property["type"] = only.clone();
        }
    }
    // A null with a meaning is written with `oneOf`, so it stays.
    if let Some(any) = property.get_mut("anyOf").and_then(Value::as_array_mut) {
        any.retain(|schema| !is_null(schema));
        if let [only] = &any[..]
            && let Some(fields) = only.as_object().cloned()
            && let Some(property) = property.as_object_mut()
        {
            property.remove("anyOf");
            property.extend(fields);
        }
    }
}

/// The schemas of all messages and bodies by name; references to each other begin with `path`, such as
/// `/components/schemas`.
fn definitions(settings: SchemaSettings, path: &'static str) -> Map<String, Value> {
    let settings = settings.for_serialize().with_transform(AbsentNotNull).with(|settings| {
        settings.definitions_path = path.into();
        settings.meta_schema = None;
    });
    let mut generator: SchemaGenerator = settings.into_generator();
    macro_rules! each {
        ($($type:ident),*) => {
            $(generator.subschema_for::<$type>();)*
        };
    }
    all_types!(each);
    let mut all = generator.take_definitions(true);
    // Its fields are among those of other objects, and no schema refers to it.
    all.remove("StorageView");
    all
}

/// One document of draft 2020-12 with all schemas under `$defs`. As a whole it describes a message from the
/// gateway.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Zonewire",
        "description": "What a Zonewire gateway and its clients exchange. As a whole it describes a WebSocket message from the gateway; `#/$defs/ClientMessage` describes one to it, the others HTTP bodies and parts of them. Receivers ignore unknown fields, message types and codes.",
        "$ref": "#/$defs/ServerMessage",
        "$defs": definitions(SchemaSettings::draft2020_12(), "/$defs"),
    })
}

/// The same schemas as components of OpenAPI 3.1.
pub fn components() -> Map<String, Value> {
    definitions(SchemaSettings::draft2020_12(), "/components/schemas")
}

/// Removes definitions that neither `by` nor a definition that stays refers to.
pub fn keep_referred(schemas: &mut Map<String, Value>, by: &Value) {
    let (mut kept, mut found) = (Map::new(), Vec::new());
    named_in(by, &mut found);
    while let Some(name) = found.pop() {
        if let Some(schema) = schemas.remove(&name) {
            named_in(&schema, &mut found);
            kept.insert(name, schema);
        }
    }
    *schemas = kept;
}

/// Collects the names of schemas that a document refers to.
fn named_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(path)) = fields.get("$ref") {
                found.extend(path.strip_prefix("#/components/schemas/").map(str::to_owned));
            }
            fields.values().for_each(|value| named_in(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| named_in(value, found)),
        _ => {}
    }
}

/// The alternatives of a message by their `type`.
fn alternatives<'a>(schemas: &'a Map<String, Value>, name: &str) -> Vec<(&'a str, &'a Value)> {
    let schema = &schemas[name];
    let among = ["oneOf", "anyOf"].into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten();
    let mut found = Vec::new();
    for alternative in among {
        let kind = alternative.pointer("/properties/type/const").and_then(Value::as_str);
        match (kind, alternative.get("$ref").and_then(Value::as_str)) {
            (Some(kind), _) => found.push((kind, alternative)),
            (None, Some(path)) => {
                found.extend(alternatives(schemas, path.rsplit('/').next().unwrap_or_default()));
            }
            (None, None) => found.extend(alternatives_within(alternative)),
        }
    }
    found
}

fn alternatives_within(schema: &Value) -> Vec<(&str, &Value)> {
    let among = ["oneOf", "anyOf"].into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten();
    among.filter_map(|one| Some((one.pointer("/properties/type/const")?.as_str()?, one))).collect()
}

/// The WebSockets of a gateway as AsyncAPI 3. `version` is that of the program.
pub fn asyncapi(version: &str) -> Value {
    let mut schemas = definitions(SchemaSettings::draft07(), "/components/schemas");
    let mut messages = Map::new();
    let (mut sent, mut received) = (Map::new(), Map::new());
    for (side, name, names) in
        [("server", "ServerMessage", &mut sent), ("client", "ClientMessage", &mut received)]
    {
        for (kind, payload) in alternatives(&schemas, name) {
            let id = format!("{side}.{kind}");
            names.insert(id.clone(), json!({ "$ref": format!("#/components/messages/{id}") }));
            let message = json!({
                "name": kind,
                "summary": payload.get("description"),
                "contentType": "application/json",
                "payload": payload,
            });
            messages.insert(id, message);
        }
    }
    let messages = Value::Object(messages);
    keep_referred(&mut schemas, &messages);
    let every: Map<String, Value> = sent.clone().into_iter().chain(received.clone()).collect();
    let since =
        json!({ "type": "string", "description": "The position to resume from, `<epoch>:<offset>`." });
    let snapshot = json!({ "type": "string", "enum": ["0", "1", "false", "true"], "description": "Begin with the latest entry of each key." });
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for (name, address, summary, parameter, query) in [
        ("any", "/ws", "Without subscriptions at first; the client sends `subscribe`.", None, json!({})),
        (
            "market",
            "/ws/market/{zone}",
            "Subscribed to a zone from the start.",
            Some(("zone", "The name of a zone: 1 to 64 of A-Z a-z 0-9 . _ : -")),
            json!({ "since": since, "snapshot": snapshot }),
        ),
        (
            "order",
            "/ws/orders/{order}",
            "Subscribed to an order from the start; closed after the order has ended.",
            Some(("order", "The id of an order, a UUID in its hyphenated form.")),
            json!({ "since": since }),
        ),
    ] {
        let mut channel = json!({ "address": address, "summary": summary, "messages": every });
        if let Some((name, description)) = parameter {
            channel["parameters"] = json!({ name: { "description": description } });
            let query = json!({ "type": "object", "properties": query });
            channel["bindings"] = json!({ "ws": { "method": "GET", "query": query } });
        }
        channels.insert(name.to_owned(), channel);
        for (action, ids, summary) in [
            ("send", &sent, "What the gateway sends."),
            ("receive", &received, "What clients send to the gateway."),
        ] {
            let ids = ids.keys().map(|id| json!({ "$ref": format!("#/channels/{name}/messages/{id}") }));
            let operation = json!({
                "action": action,
                "channel": { "$ref": format!("#/channels/{name}") },
                "summary": summary,
                "messages": ids.collect::<Vec<_>>(),
            });
            operations.insert(format!("{name}.{action}"), operation);
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Zonewire",
            "version": version,
            "description": "The WebSockets of a Zonewire gateway: prices by zone, and the progress of orders. Each message is one text frame. Receivers ignore unknown fields, message types and codes.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": { "gateway": { "host": "127.0.0.1:8080", "protocol": "ws", "pathname": "/" } },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}
