//! Errors as `application/problem+json` (RFC 9457) with a stable `code`.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue,
    RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use warp::Reply;
use warp::http::Response;
use warp::reject::{Reject, Rejection};

use crate::access::{Over, Quota};
use crate::channels::PublishError;
use crate::connections::Limit;
use crate::model::OrderId;
use crate::orders::RetryError;
use crate::protocol::{self, FieldFault, InvalidPayload, ProblemCode};
use crate::storage::{Refusal, StorageError};

/// After how many seconds to retry, unless the problem itself says.
const RETRY_AFTER_S: &str = "1";

/// A refused request: what was wrong, and what would be right.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: ProblemCode,
    /// The rest of the body of the answer.
    pub(super) body: Box<protocol::Problem>,
    /// A header that says what would be right.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// Marks the response of a refused request with its code, so that it can be counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused(pub(super) ProblemCode);

impl Problem {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = protocol::Problem { detail: Some(detail.into()), ..protocol::Problem::default() };
        Self { status, code, body: Box::new(body), header: None }
    }

    /// With a header that says what would be right.
    fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }

    /// The problem concerns a part of the body, which as a whole could be parsed.
    pub(crate) fn of_a_part(self) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, ..self }
    }

    /// The address does not accept the method; it accepts these.
    pub(super) fn method_not_allowed(allow: HeaderValue) -> Self {
        let detail = format!("this address accepts {}", allow.to_str().unwrap_or("other methods"));
        Self::new(ProblemCode::MethodNotAllowed, detail).with(ALLOW, allow)
    }

    /// The body has a media type that is not accepted; these are.
    pub(super) fn unsupported_media_type(detail: &'static str, accepted: &'static str) -> Self {
        let problem = Self::new(ProblemCode::UnsupportedMediaType, detail);
        problem.with(ACCEPT, HeaderValue::from_static(accepted))
    }

    /// The body is compressed, which is not supported.
    pub(super) fn unsupported_coding() -> Self {
        let detail = "a body with a `Content-Encoding` is not accepted; send it uncompressed";
        let problem = Self::new(ProblemCode::UnsupportedContentEncoding, detail);
        problem.with(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// Closes the connection: an intermediary may have seen another end of the body, so nothing after it
    /// can be answered.
    pub(super) fn unknown_transfer_coding() -> Self {
        let detail = "`Transfer-Encoding` may be `chunked`, once, and nothing else";
        let problem = Self::new(ProblemCode::NotImplemented, detail);
        problem.with(CONNECTION, HeaderValue::from_static("close"))
    }

    /// A token is missing or invalid; if invalid, `error` says so to programs (RFC 6750, section 3).
    pub(super) fn unauthorized(detail: impl Into<String>, has_token: bool) -> Self {
        let asked = if has_token {
            r#"Bearer realm="zonewire", error="invalid_token""#
        } else {
            r#"Bearer realm="zonewire""#
        };
        let problem = Self::new(ProblemCode::Unauthorized, detail);
        problem.with(WWW_AUTHENTICATE, HeaderValue::from_static(asked))
    }

    /// The token cannot be verified before this many seconds have passed.
    pub(super) fn keys_awaited(detail: impl Into<String>, after_s: u32) -> Self {
        Self::new(ProblemCode::KeysAwaited, detail).with(RETRY_AFTER, HeaderValue::from(after_s))
    }

    pub(super) fn shutting_down() -> Self {
        Self::new(ProblemCode::ShuttingDown, "the gateway is shutting down")
    }

    pub(crate) fn accepted(mut self, accepted: u64) -> Self {
        self.body.accepted = Some(accepted);
        self
    }

    pub(crate) fn at_line(mut self, line: u64) -> Self {
        self.body.line = Some(line);
        self
    }

    pub(crate) fn at_index(mut self, index: usize) -> Self {
        self.body.index = Some(index);
        self
    }

    /// The problem concerns one of several channels, named as the client wrote it.
    pub(super) fn of_channel(mut self, channel: &str) -> Self {
        self.body.channel = Some(channel.to_owned());
        self
    }

    pub(crate) fn fields(mut self, errors: Vec<FieldFault>) -> Self {
        self.body.errors = errors;
        self
    }

    pub(crate) fn storage(error: &StorageError) -> Self {
        if let StorageError::Unknown { .. } = error {
            let detail = "Redis is away, and this node alone does not know it; other nodes may";
            return Self::new(ProblemCode::UnknownWhileDegraded, detail);
        }
        // The cause stays in the log, because it may reveal internals.
        Self::new(ProblemCode::StorageUnavailable, error.to_string())
    }

    /// There is no such order, or it belongs to somebody else, which must look the same.
    pub(super) fn unknown_order(order: Option<OrderId>) -> Self {
        let order = order.map(|order| format!(" {order}")).unwrap_or_default();
        let detail = format!("there is no order{order}, or it is no longer kept");
        Self::new(ProblemCode::UnknownOrder, detail)
    }

    /// There is no such dead letter, or its order belongs to somebody else.
    pub(super) fn unknown_dead_letter() -> Self {
        Self::new(ProblemCode::UnknownDeadLetter, RetryError::Unknown.to_string())
    }

    /// The limit that refuses a connection or a request.
    pub(crate) fn limit(limit: Limit) -> Self {
        let (code, detail) = match limit {
            Limit::Full | Limit::Tcp => (
                ProblemCode::TooManyConnections,
                "this node has as many connections as allowed; try another node, or try later",
            ),
            Limit::Address => (
                ProblemCode::TooManyConnectionsFromAddress,
                "this address has as many connections as allowed; close one first",
            ),
            Limit::Rate => (
                ProblemCode::ConnectingTooOften,
                "this address connects more often than allowed; keep connections open, and try again later",
            ),
            Limit::Quota(over) => return Self::over(over),
        };
        Self::new(code, detail)
    }

    /// A limit of a principal or a tenant is reached.
    pub(super) fn over(over: Over) -> Self {
        let code = match over.quota {
            Quota::Connects => ProblemCode::ConnectingTooOften,
            Quota::Connections => ProblemCode::TooManyConnectionsOfSubject,
            _ => ProblemCode::RateLimited,
        };
        let mut problem = Self::new(code, over.to_string());
        let after_ms = over.wait_ms();
        problem.body.retry_after_ms = Some(after_ms);
        problem.with(RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1_000)))
    }

    pub(crate) fn publish(error: &PublishError) -> Self {
        let code = match error {
            PublishError::Unavailable { .. } | PublishError::Gap { .. } | PublishError::NotFirst => {
                ProblemCode::StorageUnavailable
            }
            PublishError::ShuttingDown { .. } => ProblemCode::ShuttingDown,
            PublishError::Refused { refusal: Refusal::Closed, .. } => ProblemCode::AlreadyEnded,
            PublishError::Refused { refusal: Refusal::StaleFence { .. }, .. } => ProblemCode::LeaseLost,
            PublishError::TooManyZones { .. } => ProblemCode::TooManyZones,
            PublishError::TooManyKeys { .. } => ProblemCode::TooManyKeys,
        };
        let detail = match error {
            // The fault of this node's disk is no secret, and the text is not another server's.
            PublishError::Unavailable { cause, .. } if matches!(**cause, StorageError::NotDurable { .. }) => {
                format!("{error}: {cause}")
            }
            _ => error.to_string(),
        };
        Self::new(code, detail)
    }
}

impl Reject for Problem {}

impl From<InvalidPayload> for Problem {
    fn from(InvalidPayload { code, detail }: InvalidPayload) -> Self {
        Self::new(code, detail)
    }
}

impl Reply for Problem {
    fn into_response(self) -> warp::reply::Response {
        let body = protocol::Problem {
            kind: Some("about:blank".to_owned()),
            title: Some(self.status.canonical_reason().unwrap_or("Error").to_owned()),
            status: Some(self.status.as_u16()),
            code: Some(self.code.into()),
            ..*self.body
        };
        let body = serde_json::to_vec(&body).expect("a struct of plain fields always serialises");
        let mut response = Response::new(Bytes::from(body)).into_response();
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // Otherwise caches could store 404, 405, 410, 421 and 501.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if let Some(header) = self.header {
            let (name, value) = *header;
            headers.insert(name, value);
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110, section 15.5.22: name the protocol; RFC 6455, section 4.4: name the version.
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response.extensions_mut().insert(Refused(self.code));
        response
    }
}

/// The problem of a request that a handler's filter rejected.
pub(crate) fn from_rejection(rejection: &Rejection) -> Problem {
    use warp::reject::{InvalidHeader, InvalidQuery, MissingHeader};
    if let Some(problem) = rejection.find::<Problem>() {
        return problem.clone();
    }
    if rejection.find::<InvalidQuery>().is_some() {
        let detail = "the query does not have the form that this address accepts";
        return Problem::new(ProblemCode::InvalidQuery, detail);
    }
    if rejection.find::<MissingHeader>().is_some() || rejection.find::<InvalidHeader>().is_some() {
        return Problem::new(ProblemCode::InvalidHeader, "a header is missing or invalid");
    }
    tracing::error!(rejection = ?rejection, "a filter rejected a request for an unknown reason");
    internal()
}

/// The answer to a request that ran into a bug.
pub(super) fn internal() -> Problem {
    Problem::new(ProblemCode::Internal, "the gateway could not answer; this is a bug")
}
