//! Describes the requests and answers of addresses for machine-readable documentation: rows of the `table`
//! contain a description, and a test writes them as OpenAPI. The gateway serves the document that is
//! checked in.
#![cfg_attr(not(test), expect(dead_code, reason = "only the test that writes the document reads it"))]

#[cfg(test)]
mod openapi;

/// The description of a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Description {
    pub(super) summary: &'static str,
    /// Query parameters, each with an explanation.
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) body: Body,
    pub(super) answer: Answer,
    /// The statuses of the route's own problems, besides those of every route that takes a body.
    pub(super) problems: &'static [u16],
}

impl Description {
    /// Describes a route without a body and without content in its answer.
    pub(super) const fn of(summary: &'static str) -> Self {
        Self { summary, query: &[], body: Body::None, answer: Answer::Nothing, problems: &[] }
    }
}

/// The body of a request.
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
    /// A report of a worker, with its fencing token.
    Report,
    /// A record of a registry, or a part of it.
    Record,
    /// Several records.
    Records,
}

/// The answer to a successful request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// A status, and JSON with this schema.
    Json(u16, &'static str),
    /// A status, and JSON with one of these schemas.
    Either(u16, &'static [&'static str]),
    /// A status, and a JSON object that is not described further.
    Object(u16),
    /// Text of this media type.
    Text(&'static str),
    Nothing,
    /// A WebSocket.
    Upgrade,
    /// Server-sent events.
    Events,
}

pub(super) const PAGE: &[(&str, &str)] =
    &[("limit", "The most entries to return."), ("after", "Where the page begins.")];
pub(super) const SINCE: (&str, &str) = ("since", "The position to resume from, `<epoch>:<offset>`.");
pub(super) const SNAPSHOT: (&str, &str) = ("snapshot", "1 to begin with the latest entry of each key.");
pub(super) const STREAM: &[(&str, &str)] = &[
    ("channels", "Names of channels, separated by commas."),
    ("since", "The id of the last event, to resume from: a position for each channel, separated by commas."),
    (
        "snapshot",
        "1 to begin with the latest entry of each key; or 1 or 0 for each channel, separated by commas.",
    ),
];
pub(super) const FILTER: &[(&str, &str)] = &[
    ("types", "Types of events, separated by commas; all if absent."),
    ("exchange", "Only those of these exchanges, separated by commas."),
    ("symbol", "Only those of these symbols, separated by commas."),
    ("snapshot", "1 to begin with the latest event of each key."),
];
pub(super) const LISTED: &[(&str, &str)] = &[
    (
        "scope",
        "`node`, the default, or `fleet` for all nodes that share the storage; with `fleet` the other parameters have no effect.",
    ),
    ("connections", "How many open connections to list."),
    ("after", "Only connections after this one, in the order of their ids."),
    ("zone", "Only connections that are subscribed to this zone."),
];
pub(super) const RECORDS: &[(&str, &str)] = &[
    ("limit", "The most records to return."),
    ("after", "Where the page begins: `next` of the previous page."),
    ("sort", "The field to sort by; with `-` before it, in descending order."),
    ("{field}", "Any other parameter filters by the field of that name."),
];
pub(super) const WRITE_RECORD: &[(&str, &str)] =
    &[("written", "1 to get the answer only once the log has it.")];
pub(super) const WRITE_PROVIDER: &[(&str, &str)] = &[
    ("written", "1 to get the answer only once the log has it."),
    (
        "connection",
        "The `connection_id` of an open WebSocket of this gateway; the provider goes offline when it closes.",
    ),
];
