//! The HTTP API as OpenAPI 3.1: the table of addresses, with the body and the answer of each.

use serde_json::{Map, Value, json};
use zonewire_protocol::schema;

use super::{Answer, Body, Description};
use crate::http::table::{Kind, Needs, ROUTES};
use crate::model::EventType;
use crate::protocol::documents::{check, pretty};

fn of_schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn body(body: Body) -> Option<Value> {
    let one_or_many = |schema: Value| json!({ "oneOf": [schema, { "type": "array", "items": schema }] });
    let asked = match body {
        Body::None => return None,
        Body::Json(name) => content(of_schema(name)),
        Body::Prices => json!({
            "application/json": { "schema": one_or_many(of_schema("Price")) },
            "application/x-ndjson": { "schema": { "type": "string", "description": "A price in each line." } },
        }),
        Body::Events => json!({
            "application/json": { "schema": one_or_many(of_schema("Event")) },
            "application/x-ndjson": { "schema": { "type": "string", "description": "An event in each line." } },
        }),
        Body::Order => json!({ "application/json": {
            "schema": { "anyOf": [of_schema("Swap"), { "type": "object", "description": "An order as `orders.schema` describes it." }] },
            "example": { "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5, "slippage": 0.5 },
        } }),
        Body::Updates => content(one_or_many(of_schema("UpdateRequest"))),
        Body::Report => content(of_schema("Report")),
        Body::Record => content(json!({ "type": "object" })),
        Body::Records => content(json!({ "type": "array", "items": { "type": "object" } })),
    };
    Some(json!({ "required": true, "content": asked }))
}

fn content(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// The schemas of bodies that the gateway parses field by field, to say what is wrong with each.
fn read_by_hand() -> [(&'static str, Value); 4] {
    let number = json!({ "type": ["number", "null"] });
    let timestamp = json!({
        "type": ["string", "number", "null"],
        "description": "RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970.",
    });
    [
        (
            "Price",
            json!({
                "type": "object",
                "description": "A price to publish, with any other fields. It has a `price`, or a `bid` and an `ask`, and one of the fields that name its key.",
                "properties": {
                    "price": { "type": "number" }, "bid": number, "ask": number, "energy": number,
                    "congestion": number, "loss": number, "quantity": number,
                    "key": { "type": "string" }, "node": { "type": "string" }, "hub": { "type": "string" },
                    "symbol": { "type": "string" }, "location": { "type": "string" },
                    "timestamp": timestamp,
                },
                "anyOf": [{ "required": ["price"] }, { "required": ["bid", "ask"] }],
            }),
        ),
        (
            "Event",
            json!({
                "type": "object",
                "description": "An event to publish, with any other fields. The required fields depend on the type.",
                "properties": {
                    "exchange": { "type": "string" },
                    "symbol": { "type": "string" },
                    "timestamp": timestamp,
                },
                "required": ["exchange"],
            }),
        ),
        (
            "UpdateRequest",
            json!({
                "type": "object",
                "description": "An update of an order, with any other fields.",
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
                "description": "An update of an order by the worker that has claimed it, with any other fields. `complete` needs no `type`.",
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

fn answers(answer: Answer, problems: &[u16], takes_body: bool, kind: Kind) -> Value {
    let done = |content: Value| json!({ "description": "Done.", "content": content });
    let (status, good) = match answer {
        Answer::Json(status, name) => (status, done(content(of_schema(name)))),
        Answer::Either(status, names) => {
            let any: Vec<Value> = names.iter().map(|name| of_schema(name)).collect();
            (status, done(content(json!({ "anyOf": any }))))
        }
        Answer::Object(status) => (status, done(content(json!({ "type": "object" })))),
        Answer::Text(kind) => (200, done(json!({ kind: { "schema": { "type": "string" } } }))),
        Answer::Events => {
            let events = json!({ "schema": { "type": "string", "description": "The messages of a WebSocket, each the data of an event: see /asyncapi.json." } });
            (
                200,
                json!({ "description": "Events, as long as the stream is open.", "content": { "text/event-stream": events } }),
            )
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
        Kind::Operator => &[403, 421],
        Kind::Client => &[403, 421, 429, 503],
        Kind::WebSocket => &[403, 421, 426, 429, 503],
        Kind::Events => &[403, 421, 429, 503],
    };
    let of_bodies: &[u16] = if takes_body { &[400, 408, 413, 415, 422] } else { &[] };
    for status in problems.iter().chain(of_bodies).chain(of_all) {
        answers.insert(status.to_string(), problem.clone());
    }
    if kind == Kind::Events {
        let told = "The stream has ended for good: do not reconnect.";
        answers.insert("204".to_owned(), json!({ "description": told }));
    }
    if let (Answer::Json(_, name), Kind::Probe) = (answer, kind)
        && name != "Live"
    {
        answers.insert(
            "503".to_owned(),
            json!({ "description": "It is not.", "content": content(of_schema(name)) }),
        );
    }
    Value::Object(answers)
}

fn parameters(pattern: &str, query: &[(&str, &str)]) -> Vec<Value> {
    let named = pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = named.map(|name| {
        let schema = match name {
            "zone" => of_schema("Zone"),
            "type" => json!({ "type": "string", "enum": EventType::ALL.map(EventType::as_str) }),
            "order" | "job" => of_schema("OrderId"),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let query = query.iter().map(|(name, description)| {
        let schema = match *name {
            "scope" => json!({ "type": "string", "enum": ["node", "fleet"], "default": "node" }),
            "limit" | "connections" => json!({ "type": "integer", "minimum": 0 }),
            "force" | "written" | "replace" => json!({ "type": "boolean" }),
            "status" => of_schema("OrderStatus"),
            "zone" => of_schema("Zone"),
            _ => json!({ "type": "string" }),
        };
        json!({ "name": name, "in": "query", "description": description, "schema": schema })
    });
    path.chain(query).collect()
}

fn openapi() -> Value {
    let mut paths = Map::new();
    for route in ROUTES.iter() {
        let (method, pattern) = (route.method, route.pattern);
        let Description { summary, query, body: asked, answer: answered, problems } = &route.description;
        let words = pattern.split(['/', '.', '-']).map(|word| word.trim_matches(['{', '}']));
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let mut parameters = parameters(pattern, query);
        if pattern == "/api/orders/execute" {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "schema": { "type": "string", "maxLength": 255 },
                "description": "Requests with the same key place one order.",
            }));
        }
        if route.kind == Kind::Events {
            parameters.push(json!({
                "name": "Last-Event-ID", "in": "header", "schema": { "type": "string" },
                "description": "Like `since`, over which it takes precedence; sent by browsers.",
            }));
        }
        let body = body(*asked);
        let mut operation = json!({
            "operationId": format!("{}_{}", method.to_lowercase(), words.join("_")).trim_end_matches('_'),
            "summary": summary,
            "parameters": parameters,
            "responses": answers(*answered, problems, body.is_some(), route.kind),
        });
        if route.needs == Needs::Nothing {
            operation["security"] = json!([]);
        } else if route.needs != Needs::EachChannel {
            for status in ["401", "503"] {
                operation["responses"][status] = json!({ "$ref": "#/components/responses/Problem" });
            }
        }
        if let Some(body) = body {
            operation["requestBody"] = body;
        }
        let path = paths.entry(pattern).or_insert_with(|| json!({}));
        path[method.to_lowercase()] = operation;
    }
    let mut schemas = schema::components();
    schemas.extend(read_by_hand().map(|(name, schema)| (name.to_owned(), schema)));
    let responses = json!({
        "Problem": {
            "description": "What was wrong, and what would be right.",
            "content": { "application/problem+json": { "schema": of_schema("Problem") } },
        },
    });
    schema::keep_referred(&mut schemas, &json!([paths, responses]));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Zonewire",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API of a Zonewire gateway. Receivers ignore unknown fields and codes. If authentication is on, send a token in `Authorization`.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "A JSON Web Token, or an API key of the gateway.",
                },
            },
            "responses": responses,
        },
    })
}

#[test]
fn openapi_is_as_checked_in_and_whole() {
    let (document, mut paths) = (openapi(), Vec::new());
    references(&document, &mut paths);
    for path in paths {
        assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path}");
    }
    check("openapi.json", &pretty(&document));
}

/// Collects every `$ref` of a document.
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
