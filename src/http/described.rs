//! What is asked and answered at an address, for the document that programs read: a row of the `table`
//! says it, and a test writes it as OpenAPI. The gateway has that document as it is checked in.
#![cfg_attr(not(test), expect(dead_code, reason = "only the test that writes the document reads it"))]

#[cfg(test)]
mod openapi;

/// What a route does, takes and answers.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) summary: &'static str,
    /// Parameters in the query, and what they say.
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) body: Body,
    pub(super) answer: Answer,
    /// The statuses of its own problems.
    pub(super) problems: &'static [u16],
}

impl Description {
    /// Of a route that takes nothing and answers with nothing.
    pub(super) const fn of(summary: &'static str) -> Self {
        Self { summary, query: &[], body: Body::None, answer: Answer::Nothing, problems: &[] }
    }
}

/// What is asked at an address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    None,
    /// JSON with this schema.
    Json(&'static str),
    /// The prices of a zone.
    Prices,
    /// Events of a type.
    Events,
    /// Any object.
    Order,
    /// An update of an order, or several.
    Updates,
    /// The same, of a worker, with its token.
    Report,
    /// A record of a registry, or a part of it.
    Record,
    /// Several.
    Records,
}

/// What is answered when all went well.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// A status, and JSON with this schema.
    Json(u16, &'static str),
    /// The same with one of these schemas.
    Either(u16, &'static [&'static str]),
    /// JSON that this document does not say more of.
    Object(u16),
    /// Text of this kind.
    Text(&'static str),
    Nothing,
    /// A WebSocket.
    Upgrade,
    /// Server-sent events.
    Events,
}

pub(super) const PAGE: &[(&str, &str)] =
    &[("limit", "How many at the most."), ("after", "Where the page begins.")];
pub(super) const SINCE: (&str, &str) = ("since", "The position to resume from, `<epoch>:<offset>`.");
pub(super) const SNAPSHOT: (&str, &str) = ("snapshot", "1 to begin with the latest entry of each key.");
pub(super) const STREAM: &[(&str, &str)] = &[
    ("channels", "Their names, separated by commas."),
    ("since", "The id of the last event, to resume from: a position for each channel, separated by commas."),
    (
        "snapshot",
        "1 to begin with the latest entry of each key; or 1 or 0 for each channel, separated by commas.",
    ),
];
pub(super) const FILTER: &[(&str, &str)] = &[
    ("types", "Types of events, separated by commas; all where it is absent."),
    ("exchange", "Only those of these exchanges, separated by commas."),
    ("symbol", "Only those of these symbols, separated by commas."),
    ("snapshot", "1 to begin with the latest event of each key."),
];
pub(super) const LISTED: &[(&str, &str)] = &[
    (
        "scope",
        "`node`, as it is by default; or `fleet` for the nodes that share the storage, of which the other parameters say nothing.",
    ),
    ("connections", "How many open connections are listed."),
    ("after", "Only connections after this one, in the order of their ids."),
    ("zone", "Only connections that are subscribed to this zone."),
];
pub(super) const RECORDS: &[(&str, &str)] = &[
    ("limit", "How many at the most."),
    ("after", "Where the page begins: `next` of the one before."),
    ("sort", "The field by which they are sorted; with `-` before it the greatest first."),
    ("{field}", "Any other name is that of a field, and its value what it must be."),
];
pub(super) const WRITE_RECORD: &[(&str, &str)] = &[("written", "1 to be answered only once the log has it.")];
pub(super) const WRITE_PROVIDER: &[(&str, &str)] = &[
    ("written", "1 to be answered only once the log has it."),
    (
        "connection",
        "The `connection_id` of an open WebSocket of this gateway, with which the provider goes offline.",
    ),
];
pub(super) const RECORD: &[u16] = &[400, 404, 408, 412, 413, 415, 422];
pub(super) const JOB: &[u16] = &[400, 404, 408, 409, 413, 415, 422];
