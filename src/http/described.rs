//! What the gateway serves, as OpenAPI 3.1: the table of addresses with what each takes and answers. Only
//! tests make it; the gateway has the document that is checked in.

use serde_json::{Map, Value, json};
use zonewire_protocol::schema;

use super::table::{ADDRESSES, Kind};
use crate::protocol::documents::{check, pretty};

/// What is asked at an address.
#[derive(Debug, Clone, Copy)]
enum Body {
    None,
    /// JSON with this schema.
    Json(&'static str),
    /// The prices of a zone.
    Prices,
    /// Any object.
    Order,
    /// An update of an order, or several.
    Updates,
    /// The same, of a worker, with its token.
    Report,
}

/// What is answered when all went well.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// A status, and JSON with this schema.
    Json(u16, &'static str),
    /// JSON that this document does not say more of.
    Object(u16),
    /// Text of this kind.
    Text(&'static str),
    Nothing,
    /// A WebSocket.
    Upgrade,
}

/// A method of an address: what it does, its parameters in the query, what it takes and answers, and the
/// statuses of its own problems.
type Operation = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    Body,
    Answer,
    &'static [u16],
);

const PAGE: &[(&str, &str)] = &[("limit", "How many at the most."), ("after", "Where the page begins.")];
const SINCE: (&str, &str) = ("since", "The position to resume from, `<epoch>:<offset>`.");
const SNAPSHOT: (&str, &str) = ("snapshot", "1 to begin with the latest entry of each key.");
const LISTED: &[(&str, &str)] = &[("connections", "How many open connections are listed.")];
const JOB: &[u16] = &[400, 404, 408, 409, 413, 415, 422];

const OPERATIONS: &[Operation] = &[
    ("GET", "/", "A page that shows the prices", &[], Body::None, Answer::Text("text/html"), &[]),
    ("GET", "/page.js", "The script of that page", &[], Body::None, Answer::Text("text/javascript"), &[]),
    ("GET", "/openapi.json", "This document", &[], Body::None, Answer::Object(200), &[]),
    ("GET", "/asyncapi.json", "The WebSockets, as AsyncAPI 3", &[], Body::None, Answer::Object(200), &[]),
    ("GET", "/health", "How the gateway does", &[], Body::None, Answer::Json(200, "HealthView"), &[]),
    ("GET", "/health/live", "Whether the process works", &[], Body::None, Answer::Json(200, "Live"), &[]),
    (
        "GET",
        "/health/ready",
        "Whether it may be sent traffic; 503 with the same body where it may not",
        &[],
        Body::None,
        Answer::Json(200, "HealthView"),
        &[],
    ),
    (
        "GET",
        "/health/redis",
        "How Redis does; 503 with the same body where it is away",
        &[],
        Body::None,
        Answer::Json(200, "RedisView"),
        &[],
    ),
    ("GET", "/ws/health", "How the gateway does", &[], Body::None, Answer::Json(200, "HealthView"), &[]),
    (
        "GET",
        "/api/ws/ws/health",
        "How the gateway does",
        &[],
        Body::None,
        Answer::Json(200, "HealthView"),
        &[],
    ),
    ("GET", "/metrics", "Counters for Prometheus", &[], Body::None, Answer::Text("text/plain"), &[500]),
    ("GET", "/ws/stats", "Counters, and open connections", LISTED, Body::None, Answer::Object(200), &[400]),
    (
        "GET",
        "/api/ws/ws/stats",
        "Counters, and open connections",
        LISTED,
        Body::None,
        Answer::Object(200),
        &[400],
    ),
    ("GET", "/ws", "WebSocket without subscriptions", &[], Body::None, Answer::Upgrade, &[400]),
    (
        "GET",
        "/ws/market/{zone}",
        "WebSocket of a zone",
        &[SINCE, SNAPSHOT],
        Body::None,
        Answer::Upgrade,
        &[400],
    ),
    ("GET", "/ws/orders/{order}", "WebSocket of an order", &[SINCE], Body::None, Answer::Upgrade, &[400]),
    (
        "GET",
        "/api/orders/status/{order}",
        "WebSocket of an order",
        &[SINCE],
        Body::None,
        Answer::Upgrade,
        &[400],
    ),
    (
        "GET",
        "/api/zones",
        "The zones that were published to",
        &[],
        Body::None,
        Answer::Json(200, "ZoneList"),
        &[],
    ),
    (
        "DELETE",
        "/api/zones/{zone}",
        "Take all prices of a zone away",
        &[],
        Body::None,
        Answer::Nothing,
        &[400, 404],
    ),
    (
        "POST",
        "/api/zones/{zone}/prices",
        "Publish one price, an array, or lines",
        &[],
        Body::Prices,
        Answer::Json(200, "Accepted"),
        &[400, 408, 413, 415, 422],
    ),
    (
        "GET",
        "/api/zones/{zone}/latest",
        "The latest price of each key",
        PAGE,
        Body::None,
        Answer::Json(200, "Entries"),
        &[400, 500],
    ),
    (
        "GET",
        "/api/zones/{zone}/history",
        "Entries from the log",
        PAGE,
        Body::None,
        Answer::Json(200, "Entries"),
        &[400, 410, 500],
    ),
    (
        "DELETE",
        "/api/zones/{zone}/keys/{key}",
        "Take the price of a key away",
        &[],
        Body::None,
        Answer::Nothing,
        &[400, 404],
    ),
    (
        "GET",
        "/api/orders",
        "Orders, the newest first",
        &[
            ("status", "Only those that stand so."),
            ("limit", "How many at the most."),
            ("after", "Only those placed before this one."),
        ],
        Body::None,
        Answer::Json(200, "OrderList"),
        &[400, 404],
    ),
    (
        "POST",
        "/api/orders/execute",
        "Place an order",
        &[],
        Body::Order,
        Answer::Json(202, "OrderPlaced"),
        &[400, 408, 409, 413, 415, 422],
    ),
    (
        "GET",
        "/api/orders/dead-letters",
        "Orders that were tried in vain",
        PAGE,
        Body::None,
        Answer::Json(200, "DeadLetterList"),
        &[400, 404],
    ),
    (
        "POST",
        "/api/orders/dead-letters/{order}/retry",
        "Place one of them again",
        &[("force", "Also where it may have been carried out all the same.")],
        Body::None,
        Answer::Json(202, "OrderPlaced"),
        &[400, 404, 409],
    ),
    (
        "GET",
        "/api/orders/{order}",
        "An order with its updates",
        &[],
        Body::None,
        Answer::Json(200, "OrderView"),
        &[400, 404],
    ),
    (
        "POST",
        "/api/orders/{order}/cancel",
        "End an order before it is submitted",
        &[],
        Body::None,
        Answer::Json(202, "OrderCancelling"),
        &[400, 404, 409],
    ),
    (
        "POST",
        "/api/orders/{order}/updates",
        "Tell of an order that is carried out elsewhere",
        &[],
        Body::Updates,
        Answer::Json(200, "Accepted"),
        &[400, 408, 409, 413, 415, 422],
    ),
    (
        "POST",
        "/api/jobs/claim",
        "Claim orders to carry out",
        &[],
        Body::Json("ClaimRequest"),
        Answer::Json(200, "Offer"),
        JOB,
    ),
    (
        "POST",
        "/api/jobs/{job}/extend",
        "Hold a job for longer",
        &[],
        Body::Json("ExtendRequest"),
        Answer::Json(200, "LeaseHeld"),
        JOB,
    ),
    (
        "POST",
        "/api/jobs/{job}/progress",
        "Tell how an order gets on",
        &[],
        Body::Report,
        Answer::Json(200, "ReportAccepted"),
        JOB,
    ),
    (
        "POST",
        "/api/jobs/{job}/complete",
        "Tell that an order was carried out",
        &[],
        Body::Report,
        Answer::Json(200, "ReportAccepted"),
        JOB,
    ),
    (
        "POST",
        "/api/jobs/{job}/release",
        "Give a job back",
        &[],
        Body::Json("ReleaseRequest"),
        Answer::Json(200, "JobOutcome"),
        JOB,
    ),
    (
        "POST",
        "/api/jobs/{job}/fail",
        "Tell that an order could not be carried out",
        &[],
        Body::Json("FailRequest"),
        Answer::Json(200, "JobOutcome"),
        JOB,
    ),
];

fn of_schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn body(body: Body) -> Option<Value> {
    let json = |schema: Value| json!({ "application/json": { "schema": schema } });
    let one_or_many = |schema: Value| json!({ "oneOf": [schema, { "type": "array", "items": schema }] });
    let content = match body {
        Body::None => return None,
        Body::Json(name) => json(of_schema(name)),
        Body::Prices => json!({
            "application/json": { "schema": one_or_many(of_schema("Price")) },
            "application/x-ndjson": { "schema": { "type": "string", "description": "A price in each line." } },
        }),
        Body::Order => json!({ "application/json": {
            "schema": { "type": "object", "description": "A swap, or what `orders.schema` says." },
            "example": { "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5, "slippage": 0.5 },
        } }),
        Body::Updates => json(one_or_many(of_schema("UpdateRequest"))),
        Body::Report => json(of_schema("Report")),
    };
    Some(json!({ "required": true, "content": content }))
}

/// Bodies of which the gateway reads every field by hand, so that it can say what is wrong with it.
fn read_by_hand() -> [(&'static str, Value); 3] {
    let number = json!({ "type": ["number", "null"] });
    [
        (
            "Price",
            json!({
                "type": "object",
                "description": "A price to be published, with other fields as one likes. It has a `price`, or a `bid` and an `ask`, and one of the fields that name its key.",
                "properties": {
                    "price": { "type": "number" }, "bid": number, "ask": number, "energy": number,
                    "congestion": number, "loss": number, "quantity": number,
                    "key": { "type": "string" }, "node": { "type": "string" }, "hub": { "type": "string" },
                    "symbol": { "type": "string" }, "location": { "type": "string" },
                    "timestamp": {
                        "type": ["string", "number", "null"],
                        "description": "RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970.",
                    },
                },
                "anyOf": [{ "required": ["price"] }, { "required": ["bid", "ask"] }],
            }),
        ),
        (
            "UpdateRequest",
            json!({
                "type": "object",
                "description": "An update of an order, with other fields as one likes.",
                "properties": {
                    "type": { "enum": ["routing", "building", "submitted", "confirmed", "failed"] },
                    "progress": { "type": "integer", "minimum": 0, "maximum": 100 },
                    "attempt": { "type": "integer", "minimum": 1 },
                    "message": { "type": "string" },
                    "error": of_schema("Failure"),
                    "timestamp": { "type": ["string", "number", "null"] },
                },
                "required": ["type"],
            }),
        ),
        (
            "Report",
            json!({
                "type": "object",
                "description": "An update of an order by the worker that has claimed it, with other fields as one likes. `complete` needs no `type`.",
                "properties": {
                    "token": { "type": "integer", "minimum": 0 },
                    "type": { "enum": ["routing", "building", "submitted"] },
                    "progress": { "type": "integer", "minimum": 0, "maximum": 100 },
                    "attempt": { "type": "integer", "minimum": 1 },
                    "message": { "type": "string" },
                    "txHash": { "type": "string" },
                },
                "required": ["token"],
            }),
        ),
    ]
}

fn answers(answer: Answer, problems: &[u16], kind: Kind) -> Value {
    let json = |schema: Value| json!({ "application/json": { "schema": schema } });
    let (status, good) = match answer {
        Answer::Json(status, name) => {
            (status, json!({ "description": "Done.", "content": json(of_schema(name)) }))
        }
        Answer::Object(status) => {
            (status, json!({ "description": "Done.", "content": json(json!({ "type": "object" })) }))
        }
        Answer::Text(kind) => {
            (200, json!({ "description": "Done.", "content": { kind: { "schema": { "type": "string" } } } }))
        }
        Answer::Nothing => (204, json!({ "description": "Done." })),
        Answer::Upgrade => {
            (101, json!({ "description": "The connection is a WebSocket: see /asyncapi.json." }))
        }
    };
    let mut answers = Map::from_iter([(status.to_string(), good)]);
    let problem = json!({ "$ref": "#/components/responses/Problem" });
    let of_all: &[u16] = match kind {
        Kind::Probe => &[],
        Kind::Told => &[403, 421],
        Kind::Client => &[403, 421, 503],
        Kind::WebSocket => &[403, 421, 426, 429, 503],
    };
    for status in problems.iter().chain(of_all) {
        answers.insert(status.to_string(), problem.clone());
    }
    if let (Answer::Json(_, name), Kind::Probe) = (answer, kind)
        && name != "Live"
    {
        answers
            .insert("503".to_owned(), json!({ "description": "Not so.", "content": json(of_schema(name)) }));
    }
    Value::Object(answers)
}

fn parameters(pattern: &str, query: &[(&str, &str)]) -> Vec<Value> {
    let named = pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = named.map(|name| {
        let schema = match name {
            "zone" => of_schema("Zone"),
            "order" | "job" => of_schema("OrderId"),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let query = query.iter().map(|(name, description)| {
        let schema = match *name {
            "limit" | "connections" => json!({ "type": "integer", "minimum": 0 }),
            "force" => json!({ "type": "boolean" }),
            "status" => of_schema("OrderStatus"),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "query", "description": description, "schema": schema })
    });
    path.chain(query).collect()
}

fn openapi() -> Value {
    let mut paths = Map::new();
    for (method, pattern, summary, query, asked, answered, problems) in OPERATIONS {
        let address = ADDRESSES.iter().find(|address| address.pattern == *pattern);
        let kind = address.unwrap_or_else(|| panic!("{pattern} is not in the table")).kind;
        let words = pattern.split(['/', '.', '-']).map(|word| word.trim_matches(['{', '}']));
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let mut parameters = parameters(pattern, query);
        if *pattern == "/api/orders/execute" {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "schema": { "type": "string", "maxLength": 255 },
                "description": "The same key places the order once.",
            }));
        }
        let mut operation = json!({
            "operationId": format!("{}_{}", method.to_lowercase(), words.join("_")).trim_end_matches('_'),
            "summary": summary,
            "parameters": parameters,
            "responses": answers(*answered, problems, kind),
        });
        if let Some(body) = body(*asked) {
            operation["requestBody"] = body;
        }
        let path = paths.entry(*pattern).or_insert_with(|| json!({}));
        path[method.to_lowercase()] = operation;
    }
    let mut schemas = schema::components();
    schemas.extend(read_by_hand().map(|(name, schema)| (name.to_owned(), schema)));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Zonewire",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API of a Zonewire gateway. Receivers ignore fields and codes that they do not know. There is no authentication yet.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "What was wrong, and what would be right.",
                    "content": { "application/problem+json": { "schema": of_schema("Problem") } },
                },
            },
        },
    })
}

#[test]
fn openapi_describes_every_address_and_nothing_else() {
    let described = |pattern: &str, method: &str| {
        OPERATIONS.iter().filter(|operation| operation.0 == method && operation.1 == pattern).count()
    };
    for address in ADDRESSES {
        for method in address.methods {
            assert_eq!(described(address.pattern, method), 1, "{method} {}", address.pattern);
        }
    }
    let there: usize = ADDRESSES.iter().map(|address| address.methods.len()).sum();
    assert_eq!(OPERATIONS.len(), there);
    let (document, mut paths) = (openapi(), Vec::new());
    references(&document, &mut paths);
    for path in paths {
        assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path}");
    }
    check("openapi.json", &pretty(&document));
}

/// Every `$ref` of a document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(path)) = fields.get("$ref") {
                found.push(path.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}
