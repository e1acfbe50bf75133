//! Errors over HTTP: `application/problem+json` (RFC 9457) with a stable `code`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Open;
use crate::open::words;

words! {
    /// What was wrong with a request. Stable: clients may match on it.
    pub enum ProblemCode {
        /// what was sent is not JSON, or beyond the limits of JSON; 422 in a line of NDJSON, and in an element
        /// of an array of prices or events
        InvalidJson = "invalid_json",
        /// the body is not UTF-8
        InvalidUtf8 = "invalid_utf8",
        /// the body ended before it was complete
        BrokenBody = "broken_body",
        /// the name of a zone or of a key has not the right form
        InvalidName = "invalid_name",
        /// a position is not of the form `<epoch>:<offset>`
        InvalidPosition = "invalid_position",
        /// the id of an order is not a UUID in its hyphenated form
        InvalidOrderId = "invalid_order_id",
        /// `Idempotency-Key` is not 1 to 255 visible ASCII characters
        InvalidIdempotencyKey = "invalid_idempotency_key",
        /// there is no such `status` of an order
        InvalidStatus = "invalid_status",
        /// `limit` is beyond its bounds
        InvalidLimit = "invalid_limit",
        /// the query is not of the form that the address takes
        InvalidQuery = "invalid_query",
        /// a header is missing or not valid
        InvalidHeader = "invalid_header",
        /// there is not one `Host`, or it is none
        InvalidHost = "invalid_host",
        /// this is plain HTTP, and the port speaks TLS: use `https://` or `wss://`
        TlsRequired = "tls_required",
        /// the target is not of the right form; `*` is for `OPTIONS`
        InvalidTarget = "invalid_target",
        /// `Sec-WebSocket-Key` is not right
        InvalidWebSocketKey = "invalid_websocket_key",
        /// the connection cannot become a WebSocket
        NotUpgradable = "not_upgradable",
        /// a token is missing, or does not hold
        Unauthorized = "unauthorized",
        /// the page may not use the gateway
        OriginNotAllowed = "origin_not_allowed",
        /// the token gives no right to this
        Forbidden = "forbidden",
        /// there is nothing at this address
        NotFound = "not_found",
        /// there is no such order, or it is no longer kept
        UnknownOrder = "unknown_order",
        /// there is no such dead letter
        UnknownDeadLetter = "unknown_dead_letter",
        /// there is no such type of events
        UnknownEventType = "unknown_event_type",
        /// the zone has no price of this key
        UnknownKey = "unknown_key",
        /// nobody has published to the zone, or it was removed
        UnknownZone = "unknown_zone",
        /// there is no such record, or it has expired
        UnknownRecord = "unknown_record",
        /// this node has no open connection of this id
        UnknownConnection = "unknown_connection",
        /// the process is only a worker
        NoGateway = "no_gateway",
        /// the address does not take this method
        MethodNotAllowed = "method_not_allowed",
        /// a JSON body must be complete within 30 s, and one of lines bring something every 60 s
        BodyTimeout = "body_timeout",
        /// the idempotency key was used for another order
        IdempotencyConflict = "idempotency_conflict",
        /// the order has been submitted, and can no longer be cancelled
        TooLate = "too_late",
        /// the order has ended
        AlreadyEnded = "already_ended",
        /// the order is carried out here, and told of by whoever does
        HasJob = "has_job",
        /// the order is carried out elsewhere, and must be cancelled there
        NoJob = "no_job",
        /// the order may have been carried out all the same: find out first, then `?force=true`
        MayBeSubmitted = "may_be_submitted",
        /// the job is no longer this worker's
        LeaseLost = "lease_lost",
        /// the order was cancelled: `fail` ends it
        Cancelled = "cancelled",
        /// orders are carried out by the gateway's own workers
        NotExternal = "not_external",
        /// there is a record of this key already: `PUT` replaces it, `PATCH` changes it
        RecordExists = "record_exists",
        /// the position is of another life of the log: read again without it
        ForeignEpoch = "foreign_epoch",
        /// the record has another version than `If-Match` or `If-None-Match` says: read it again
        PreconditionFailed = "precondition_failed",
        /// the body is larger than it may be
        BodyTooLarge = "body_too_large",
        /// a line is larger than it may be
        LineTooLarge = "line_too_large",
        /// a price is larger than it may be
        PriceTooLarge = "price_too_large",
        /// an event is larger than it may be
        EventTooLarge = "event_too_large",
        /// a record is larger than it may be
        RecordTooLarge = "record_too_large",
        /// an update is larger than it may be
        UpdateTooLarge = "update_too_large",
        /// the body is of a kind that is not read here; `Accept` says which are
        UnsupportedMediaType = "unsupported_media_type",
        /// the body is compressed
        UnsupportedContentEncoding = "unsupported_content_encoding",
        /// the gateway is not reached under this name
        UnknownHost = "unknown_host",
        /// the order has wrong fields, which `errors` names
        InvalidOrder = "invalid_order",
        /// the update has wrong fields, or cannot follow the one before
        InvalidUpdate = "invalid_update",
        /// what a worker sent has wrong fields
        InvalidRequest = "invalid_request",
        /// the price has wrong fields
        InvalidPrice = "invalid_price",
        /// the event has wrong fields
        InvalidEvent = "invalid_event",
        /// the price has no key, or one of the wrong form
        InvalidKey = "invalid_key",
        /// the record has wrong fields
        InvalidRecord = "invalid_record",
        /// a field belongs to the gateway
        ReservedField = "reserved_field",
        /// a field is there twice
        DuplicateField = "duplicate_field",
        /// a time has not the right form, or is too far ahead
        InvalidTimestamp = "invalid_timestamp",
        /// one zone more than the gateway keeps
        TooManyZones = "too_many_zones",
        /// one key more than a zone may have
        TooManyKeys = "too_many_keys",
        /// one record more than a registry may have
        TooManyRecords = "too_many_records",
        /// the address is one of WebSockets
        UpgradeRequired = "upgrade_required",
        /// the version of WebSocket is not 13
        UnsupportedVersion = "unsupported_version",
        /// the address has as many connections as it may have at once
        TooManyConnectionsFromAddress = "too_many_connections_from_address",
        /// the subject of the token, or the API key, or its tenant, has as many connections as it may have at
        /// once
        TooManyConnectionsOfSubject = "too_many_connections_of_subject",
        /// the address, the subject of the token, or its tenant, connects more often than it may
        ConnectingTooOften = "connecting_too_often",
        /// the subject of the token, or the API key, or its tenant, publishes or places orders more often than
        /// it may: the same may be sent again after `Retry-After`
        RateLimited = "rate_limited",
        /// the gateway could not answer; this is a bug
        Internal = "internal",
        /// what is stored cannot be read
        Corrupt = "corrupt",
        /// the gateway does not know the method, or the `Transfer-Encoding` is not just `chunked`
        NotImplemented = "not_implemented",
        /// the storage does not answer
        StorageUnavailable = "storage_unavailable",
        /// there is no room for the body, or for the answer, at the moment
        Busy = "busy",
        /// the gateway stops
        ShuttingDown = "shutting_down",
        /// the gateway has as many connections as it may have
        TooManyConnections = "too_many_connections",
        /// as many orders wait as may
        QueueFull = "queue_full",
        /// as many records wait to be written to the log as may
        RegistryBehind = "registry_behind",
        /// Redis is away, and orders are not taken, nor registries replaced as a whole, meanwhile
        StorageDegraded = "storage_degraded",
        /// Redis is away, and this gateway does not know it by itself
        UnknownWhileDegraded = "unknown_while_degraded",
        /// nobody could carry the order out
        NoWorker = "no_worker",
        /// whether the token holds cannot be told yet, since keys of its issuer are being fetched: send the
        /// same again after `Retry-After`
        KeysAwaited = "keys_awaited",
    }
}

impl ProblemCode {
    /// The status that it comes with. [`InvalidJson`](Self::InvalidJson) alone has another one too: 422, in a
    /// line of NDJSON and in an element of an array of prices.
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

/// A refused request: what was wrong, and what would be right. Where something else than a gateway has
/// answered, most of it may be missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Problem {
    /// `about:blank`: the code says which problem it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The status in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Programs may match on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Open<ProblemCode>>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many prices or updates were accepted all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    /// The line of the first fault, counting from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The element of the array with the first fault, counting from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// When the same may succeed, in milliseconds from now, where that can be told; `Retry-After` says it in
    /// whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The channel that is at fault, as the client named it, of several.
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
    /// Its name.
    pub field: String,
    /// What was wrong and what would be right.
    pub message: String,
}

/// In words for people.
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
