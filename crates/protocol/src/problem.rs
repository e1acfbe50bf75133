//! Errors over HTTP: `application/problem+json` (RFC 9457) with a stable `code`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Open;
use crate::open::words;

words! {
    /// Why a request was refused. Stable: clients may match on it.
    pub enum ProblemCode {
        /// the body is not JSON, or exceeds the limits on JSON; 422 if the fault is in a line of NDJSON or
        /// in an element of an array of prices or events
        InvalidJson = "invalid_json" => 400,
        /// the body is not UTF-8
        InvalidUtf8 = "invalid_utf8" => 400,
        /// the body ended before it was complete
        BrokenBody = "broken_body" => 400,
        /// the name of a zone or of a key is malformed
        InvalidName = "invalid_name" => 400,
        /// a position does not have the form `<epoch>:<offset>`
        InvalidPosition = "invalid_position" => 400,
        /// the id of an order is not a UUID in its hyphenated form
        InvalidOrderId = "invalid_order_id" => 400,
        /// `Idempotency-Key` is not 1 to 255 visible ASCII characters
        InvalidIdempotencyKey = "invalid_idempotency_key" => 400,
        /// `status` is not a status of orders
        InvalidStatus = "invalid_status" => 400,
        /// `limit` is out of bounds
        InvalidLimit = "invalid_limit" => 400,
        /// the query is not of the form that the address accepts
        InvalidQuery = "invalid_query" => 400,
        /// a header is missing or invalid
        InvalidHeader = "invalid_header" => 400,
        /// there is no `Host`, more than one, or an invalid one
        InvalidHost = "invalid_host" => 400,
        /// this is plain HTTP, and the port speaks TLS: use `https://` or `wss://`
        TlsRequired = "tls_required" => 400,
        /// the request target is malformed; `*` is for `OPTIONS` only
        InvalidTarget = "invalid_target" => 400,
        /// `Sec-WebSocket-Key` is invalid
        InvalidWebSocketKey = "invalid_websocket_key" => 400,
        /// the connection cannot become a WebSocket
        NotUpgradable = "not_upgradable" => 400,
        /// a token is missing or invalid
        Unauthorized = "unauthorized" => 401,
        /// pages of this origin may not use the gateway
        OriginNotAllowed = "origin_not_allowed" => 403,
        /// the token gives no right to this
        Forbidden = "forbidden" => 403,
        /// there is nothing at this address
        NotFound = "not_found" => 404,
        /// there is no such order, or its updates have expired
        UnknownOrder = "unknown_order" => 404,
        /// there is no such dead letter
        UnknownDeadLetter = "unknown_dead_letter" => 404,
        /// there is no such type of events
        UnknownEventType = "unknown_event_type" => 404,
        /// the zone has no price for this key
        UnknownKey = "unknown_key" => 404,
        /// nobody has published to the zone, or it was removed
        UnknownZone = "unknown_zone" => 404,
        /// there is no such record, or it has expired
        UnknownRecord = "unknown_record" => 404,
        /// this node has no open connection with this id
        UnknownConnection = "unknown_connection" => 404,
        /// the process is only a worker
        NoGateway = "no_gateway" => 404,
        /// the address does not accept this method
        MethodNotAllowed = "method_not_allowed" => 405,
        /// a JSON body must be complete within 30 s; in a body of lines, something must arrive every 60 s
        BodyTimeout = "body_timeout" => 408,
        /// the idempotency key was used for another order
        IdempotencyConflict = "idempotency_conflict" => 409,
        /// the order has been submitted, and can no longer be cancelled
        TooLate = "too_late" => 409,
        /// the order has ended
        AlreadyEnded = "already_ended" => 409,
        /// the order is executed by the gateway's workers, and only they report on it
        HasJob = "has_job" => 409,
        /// the order is executed elsewhere, and must be cancelled there
        NoJob = "no_job" => 409,
        /// the order may have been executed after all: find out first, then repeat with `?force=true`
        MayBeSubmitted = "may_be_submitted" => 409,
        /// the job is no longer this worker's
        LeaseLost = "lease_lost" => 409,
        /// the order was cancelled: end it with `fail`
        Cancelled = "cancelled" => 409,
        /// orders are executed by the gateway's own workers
        NotExternal = "not_external" => 409,
        /// there already is a record with this key: `PUT` replaces it, `PATCH` changes it
        RecordExists = "record_exists" => 409,
        /// the position belongs to another epoch: read again without it
        ForeignEpoch = "foreign_epoch" => 410,
        /// the version of the record does not match `If-Match` or `If-None-Match`: read it again
        PreconditionFailed = "precondition_failed" => 412,
        /// the body is larger than allowed
        BodyTooLarge = "body_too_large" => 413,
        /// a line is larger than allowed
        LineTooLarge = "line_too_large" => 413,
        /// a price is larger than allowed
        PriceTooLarge = "price_too_large" => 413,
        /// an event is larger than allowed
        EventTooLarge = "event_too_large" => 413,
        /// a record is larger than allowed
        RecordTooLarge = "record_too_large" => 413,
        /// an update is larger than allowed
        UpdateTooLarge = "update_too_large" => 413,
        /// the media type is not accepted; `Accept` lists the ones that are
        UnsupportedMediaType = "unsupported_media_type" => 415,
        /// the body is compressed
        UnsupportedContentEncoding = "unsupported_content_encoding" => 415,
        /// the gateway does not serve this host name
        UnknownHost = "unknown_host" => 421,
        /// the order has invalid fields, listed in `errors`
        InvalidOrder = "invalid_order" => 422,
        /// the update has invalid fields, or cannot follow the previous one
        InvalidUpdate = "invalid_update" => 422,
        /// a worker's request has invalid fields
        InvalidRequest = "invalid_request" => 422,
        /// the price has invalid fields
        InvalidPrice = "invalid_price" => 422,
        /// the event has invalid fields
        InvalidEvent = "invalid_event" => 422,
        /// the price has no key, or a malformed one
        InvalidKey = "invalid_key" => 422,
        /// the record has invalid fields
        InvalidRecord = "invalid_record" => 422,
        /// a field name is reserved for the gateway
        ReservedField = "reserved_field" => 422,
        /// a field occurs twice
        DuplicateField = "duplicate_field" => 422,
        /// a time is malformed, or too far in the future
        InvalidTimestamp = "invalid_timestamp" => 422,
        /// the gateway has as many zones as allowed
        TooManyZones = "too_many_zones" => 422,
        /// the zone has as many keys as allowed
        TooManyKeys = "too_many_keys" => 422,
        /// the registry has as many records as allowed
        TooManyRecords = "too_many_records" => 422,
        /// the address is for WebSockets only
        UpgradeRequired = "upgrade_required" => 426,
        /// the version of WebSocket is not 13
        UnsupportedVersion = "unsupported_version" => 426,
        /// the client's address has as many connections as allowed
        TooManyConnectionsFromAddress = "too_many_connections_from_address" => 429,
        /// the subject of the token, the API key, or its tenant, has as many connections as allowed
        TooManyConnectionsOfSubject = "too_many_connections_of_subject" => 429,
        /// the client's address, the subject of the token, or its tenant, connects more often than allowed
        ConnectingTooOften = "connecting_too_often" => 429,
        /// the subject of the token, the API key, or its tenant, publishes or places orders more often than
        /// allowed: the same request may be sent again after `Retry-After`
        RateLimited = "rate_limited" => 429,
        /// the gateway could not answer; this is a bug
        Internal = "internal" => 500,
        /// stored data cannot be read
        Corrupt = "corrupt" => 500,
        /// the gateway does not know the method, or `Transfer-Encoding` is something other than `chunked`
        NotImplemented = "not_implemented" => 501,
        /// the storage does not answer
        StorageUnavailable = "storage_unavailable" => 503,
        /// there is no room for the body, or for the answer, at the moment
        Busy = "busy" => 503,
        /// the gateway is stopping
        ShuttingDown = "shutting_down" => 503,
        /// the gateway has as many connections as allowed
        TooManyConnections = "too_many_connections" => 503,
        /// the queue has as many unfinished orders as allowed
        QueueFull = "queue_full" => 503,
        /// as many records as allowed are waiting to be written to the log
        RegistryBehind = "registry_behind" => 503,
        /// Redis is away; until it is back, no orders are accepted and no registry is replaced as a whole
        StorageDegraded = "storage_degraded" => 503,
        /// Redis is away, and this gateway does not know the answer by itself
        UnknownWhileDegraded = "unknown_while_degraded" => 503,
        /// no worker could execute the order
        NoWorker = "no_worker" => 503,
        /// the token cannot be verified yet, because its issuer's keys are still being fetched: send the
        /// same request again after `Retry-After`
        KeysAwaited = "keys_awaited" => 503,
    }

    /// The HTTP status that the code is sent with. Only [`InvalidJson`](Self::InvalidJson) has a second
    /// one: 422, for a line of NDJSON or an element of an array of prices or events.
    pub const fn status(self) -> u16;
}

/// A refused request: what was wrong, and what would be right. Most fields may be missing if the answer
/// comes from something other than a gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Problem {
    /// `about:blank`: the code identifies the problem.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The HTTP status in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A stable code; programs may match on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Open<ProblemCode>>,
    /// The problem in words, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many prices or updates were accepted despite the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    /// The line with the first fault, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The index of the first faulty array element, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// After how many milliseconds the same request may succeed, if known; `Retry-After` gives it in whole
    /// seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// If the request names several channels, the faulty one, as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Each wrong field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", ts(as = "Option<Vec<FieldFault>>", optional))]
    pub errors: Vec<FieldFault>,
}

/// A field that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct FieldFault {
    /// The name of the field.
    pub field: String,
    /// What was wrong and what would be right.
    pub message: String,
}

/// The problem in words, for people.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail.as_deref().or(self.title.as_deref()).unwrap_or("no reason given"))?;
        for FieldFault { field, message } in &self.errors {
            write!(f, "; {field}: {message}")?;
        }
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        if let Some(line) = self.line {
            write!(f, ", at line {line} of what was sent")?;
        }
        match self.accepted {
            Some(accepted) => write!(f, "; {accepted} accepted before that"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_was_wrong_and_where() {
        let text =
            r#"{"type":"x","title":"Bad line","code":"invalid_json","detail":"no","line":3,"accepted":2}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(
            problem.to_string(),
            "no (invalid_json), at line 3 of what was sent; 2 accepted before that"
        );
        let text = r#"{"code":"too_blue","detail":"bad","errors":[{"field":"amount","message":"must be above 0"},{"field":"slippage","message":"no"}]}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.to_string(), "bad; amount: must be above 0; slippage: no (too_blue)");
        assert_eq!(Problem::default().to_string(), "no reason given");
    }
}
