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
        InvalidJson = "invalid_json",
        /// the body is not UTF-8
        InvalidUtf8 = "invalid_utf8",
        /// the body ended before it was complete
        BrokenBody = "broken_body",
        /// the name of a zone or of a key is malformed
        InvalidName = "invalid_name",
        /// a position does not have the form `<epoch>:<offset>`
        InvalidPosition = "invalid_position",
        /// the id of an order is not a UUID in its hyphenated form
        InvalidOrderId = "invalid_order_id",
        /// `Idempotency-Key` is not 1 to 255 visible ASCII characters
        InvalidIdempotencyKey = "invalid_idempotency_key",
        /// `status` is not a status of orders
        InvalidStatus = "invalid_status",
        /// `limit` is out of bounds
        InvalidLimit = "invalid_limit",
        /// the query is not of the form that the address accepts
        InvalidQuery = "invalid_query",
        /// a header is missing or invalid
        InvalidHeader = "invalid_header",
        /// there is no `Host`, more than one, or an invalid one
        InvalidHost = "invalid_host",
        /// this is plain HTTP, and the port speaks TLS: use `https://` or `wss://`
        TlsRequired = "tls_required",
        /// the request target is malformed; `*` is for `OPTIONS` only
        InvalidTarget = "invalid_target",
        /// `Sec-WebSocket-Key` is invalid
        InvalidWebSocketKey = "invalid_websocket_key",
        /// the connection cannot become a WebSocket
        NotUpgradable = "not_upgradable",
        /// a token is missing or invalid
        Unauthorized = "unauthorized",
        /// pages of this origin may not use the gateway
        OriginNotAllowed = "origin_not_allowed",
        /// the token gives no right to this
        Forbidden = "forbidden",
        /// there is nothing at this address
        NotFound = "not_found",
        /// there is no such order, or its updates have expired
        UnknownOrder = "unknown_order",
        /// there is no such dead letter
        UnknownDeadLetter = "unknown_dead_letter",
        /// there is no such type of events
        UnknownEventType = "unknown_event_type",
        /// the zone has no price for this key
        UnknownKey = "unknown_key",
        /// nobody has published to the zone, or it was removed
        UnknownZone = "unknown_zone",
        /// there is no such record, or it has expired
        UnknownRecord = "unknown_record",
        /// this node has no open connection with this id
        UnknownConnection = "unknown_connection",
        /// the process is only a worker
        NoGateway = "no_gateway",
        /// the address does not accept this method
        MethodNotAllowed = "method_not_allowed",
        /// a JSON body must be complete within 30 s; in a body of lines, something must arrive every 60 s
        BodyTimeout = "body_timeout",
        /// the idempotency key was used for another order
        IdempotencyConflict = "idempotency_conflict",
        /// the order has been submitted, and can no longer be cancelled
        TooLate = "too_late",
        /// the order has ended
        AlreadyEnded = "already_ended",
        /// the order is executed by the gateway's workers, and only they report on it
        HasJob = "has_job",
        /// the order is executed elsewhere, and must be cancelled there
        NoJob = "no_job",
        /// the order may have been executed after all: find out first, then repeat with `?force=true`
        MayBeSubmitted = "may_be_submitted",
        /// the job is no longer this worker's
        LeaseLost = "lease_lost",
        /// the order was cancelled: end it with `fail`
        Cancelled = "cancelled",
        /// orders are executed by the gateway's own workers
        NotExternal = "not_external",
        /// there already is a record with this key: `PUT` replaces it, `PATCH` changes it
        RecordExists = "record_exists",
        /// the position belongs to another epoch: read again without it
        ForeignEpoch = "foreign_epoch",
        /// the version of the record does not match `If-Match` or `If-None-Match`: read it again
        PreconditionFailed = "precondition_failed",
        /// the body is larger than allowed
        BodyTooLarge = "body_too_large",
        /// a line is larger than allowed
        LineTooLarge = "line_too_large",
        /// a price is larger than allowed
        PriceTooLarge = "price_too_large",
        /// an event is larger than allowed
        EventTooLarge = "event_too_large",
        /// a record is larger than allowed
        RecordTooLarge = "record_too_large",
        /// an update is larger than allowed
        UpdateTooLarge = "update_too_large",
        /// the media type is not accepted; `Accept` lists the ones that are
        UnsupportedMediaType = "unsupported_media_type",
        /// the body is compressed
        UnsupportedContentEncoding = "unsupported_content_encoding",
        /// the gateway does not serve this host name
        UnknownHost = "unknown_host",
        /// the order has invalid fields, listed in `errors`
        InvalidOrder = "invalid_order",
        /// the update has invalid fields, or cannot follow the previous one
        InvalidUpdate = "invalid_update",
        /// a worker's request has invalid fields
        InvalidRequest = "invalid_request",
        /// the price has invalid fields
        InvalidPrice = "invalid_price",
        /// the event has invalid fields
        InvalidEvent = "invalid_event",
        /// the price has no key, or a malformed one
        InvalidKey = "invalid_key",
        /// the record has invalid fields
        InvalidRecord = "invalid_record",
        /// a field name is reserved for the gateway
        ReservedField = "reserved_field",
        /// a field occurs twice
        DuplicateField = "duplicate_field",
        /// a time is malformed, or too far in the future
        InvalidTimestamp = "invalid_timestamp",
        /// the gateway has as many zones as allowed
        TooManyZones = "too_many_zones",
        /// the zone has as many keys as allowed
        TooManyKeys = "too_many_keys",
        /// the registry has as many records as allowed
        TooManyRecords = "too_many_records",
        /// the address is for WebSockets only
        UpgradeRequired = "upgrade_required",
        /// the version of WebSocket is not 13
        UnsupportedVersion = "unsupported_version",
        /// the client's address has as many connections as allowed
        TooManyConnectionsFromAddress = "too_many_connections_from_address",
        /// the subject of the token, the API key, or its tenant, has as many connections as allowed
        TooManyConnectionsOfSubject = "too_many_connections_of_subject",
        /// the client's address, the subject of the token, or its tenant, connects more often than allowed
        ConnectingTooOften = "connecting_too_often",
        /// the subject of the token, the API key, or its tenant, publishes or places orders more often than
        /// allowed: the same request may be sent again after `Retry-After`
        RateLimited = "rate_limited",
        /// the gateway could not answer; this is a bug
        Internal = "internal",
        /// stored data cannot be read
        Corrupt = "corrupt",
        /// the gateway does not know the method, or `Transfer-Encoding` is something other than `chunked`
        NotImplemented = "not_implemented",
        /// the storage does not answer
        StorageUnavailable = "storage_unavailable",
        /// there is no room for the body, or for the answer, at the moment
        Busy = "busy",
        /// the gateway is stopping
        ShuttingDown = "shutting_down",
        /// the gateway has as many connections as allowed
        TooManyConnections = "too_many_connections",
        /// the queue has as many unfinished orders as allowed
        QueueFull = "queue_full",
        /// as many records as allowed are waiting to be written to the log
        RegistryBehind = "registry_behind",
        /// Redis is away; until it is back, no orders are accepted and no registry is replaced as a whole
        StorageDegraded = "storage_degraded",
        /// Redis is away, and this gateway does not know the answer by itself
        UnknownWhileDegraded = "unknown_while_degraded",
        /// no worker could execute the order
        NoWorker = "no_worker",
        /// the token cannot be verified yet, because its issuer's keys are still being fetched: send the
        /// same request again after `Retry-After`
        KeysAwaited = "keys_awaited",
    }
}

impl ProblemCode {
    /// The HTTP status that the code is sent with. Only [`InvalidJson`](Self::InvalidJson) has a second
    /// one: 422, for a line of NDJSON or an element of an array of prices or events.
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidJson
            | Self::InvalidUtf8
            | Self::BrokenBody
            | Self::InvalidName
            | Self::InvalidPosition
            | Self::InvalidOrderId
            | Self::InvalidIdempotencyKey
            | Self::InvalidStatus
            | Self::InvalidLimit
            | Self::InvalidQuery
            | Self::InvalidHeader
            | Self::InvalidHost
            | Self::TlsRequired
            | Self::InvalidTarget
            | Self::InvalidWebSocketKey
            | Self::NotUpgradable => 400,
            Self::Unauthorized => 401,
            Self::OriginNotAllowed | Self::Forbidden => 403,
            Self::NotFound
            | Self::UnknownEventType
            | Self::UnknownOrder
            | Self::UnknownDeadLetter
            | Self::UnknownKey
            | Self::UnknownZone
            | Self::UnknownRecord
            | Self::UnknownConnection
            | Self::NoGateway => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTimeout => 408,
            Self::IdempotencyConflict
            | Self::TooLate
            | Self::AlreadyEnded
            | Self::HasJob
            | Self::NoJob
            | Self::MayBeSubmitted
            | Self::LeaseLost
            | Self::Cancelled
            | Self::RecordExists
            | Self::NotExternal => 409,
            Self::ForeignEpoch => 410,
            Self::PreconditionFailed => 412,
            Self::BodyTooLarge
            | Self::LineTooLarge
            | Self::PriceTooLarge
            | Self::EventTooLarge
            | Self::RecordTooLarge
            | Self::UpdateTooLarge => 413,
            Self::UnsupportedMediaType | Self::UnsupportedContentEncoding => 415,
            Self::UnknownHost => 421,
            Self::InvalidOrder
            | Self::InvalidUpdate
            | Self::InvalidRequest
            | Self::InvalidPrice
            | Self::InvalidEvent
            | Self::InvalidKey
            | Self::ReservedField
            | Self::DuplicateField
            | Self::InvalidTimestamp
            | Self::TooManyZones
            | Self::TooManyKeys
            | Self::InvalidRecord
            | Self::TooManyRecords => 422,
            Self::UpgradeRequired | Self::UnsupportedVersion => 426,
            Self::TooManyConnectionsFromAddress
            | Self::TooManyConnectionsOfSubject
            | Self::ConnectingTooOften
            | Self::RateLimited => 429,
            Self::Internal | Self::Corrupt => 500,
            Self::NotImplemented => 501,
            Self::StorageUnavailable
            | Self::Busy
            | Self::ShuttingDown
            | Self::TooManyConnections
            | Self::QueueFull
            | Self::StorageDegraded
            | Self::RegistryBehind
            | Self::UnknownWhileDegraded
            | Self::NoWorker
            | Self::KeysAwaited => 503,
        }
    }
}

/// A refused request: what was wrong, and what would be right. Most fields may be missing if the answer
/// comes from something other than a gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
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
    #[cfg_attr(feature = "ts", ts(as = "Option<Vec<FieldFault>>", optional))]
    pub errors: Vec<FieldFault>,
}

/// A field that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
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
