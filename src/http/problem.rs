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
use crate::protocol::{self, FieldFault, ProblemCode};
use crate::storage::{Refusal, StorageError};

/// Seconds after which it is worth trying again, unless the problem says so itself.
const RETRY_AFTER_S: &str = "1";

/// A refused request: what was wrong, and what would be right.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: ProblemCode,
    /// The rest of the body.
    pub(super) told: Box<protocol::Problem>,
    /// A header that says what would be right.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// Marks a response that is a problem with its code, for who counts them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused(pub(super) ProblemCode);

impl Problem {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let told = protocol::Problem { detail: Some(detail.into()), ..protocol::Problem::default() };
        Self { status, code, told: Box::new(told), header: None }
    }

    /// It is about a part of the body, which as a whole could be read.
    pub(crate) fn of_a_part(self) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, ..self }
    }

    /// The method cannot be used at this address; these can.
    pub(super) fn method_not_allowed(allow: HeaderValue) -> Self {
        let detail = format!("this address takes {}", allow.to_str().unwrap_or("other methods"));
        let problem = Self::new(ProblemCode::MethodNotAllowed, detail);
        Self { header: Some(Box::new((ALLOW, allow))), ..problem }
    }

    /// The body is of a kind that cannot be read here; these can.
    pub(super) fn unsupported_media_type(detail: &'static str, accepted: &'static str) -> Self {
        let problem = Self::new(ProblemCode::UnsupportedMediaType, detail);
        Self { header: Some(Box::new((ACCEPT, HeaderValue::from_static(accepted)))), ..problem }
    }

    /// The body is compressed, which is not read.
    pub(super) fn unsupported_coding() -> Self {
        let detail = "a body with a `Content-Encoding` is not read; send it as it is";
        let problem = Self::new(ProblemCode::UnsupportedContentEncoding, detail);
        Self { header: Some(Box::new((ACCEPT_ENCODING, HeaderValue::from_static("identity")))), ..problem }
    }

    /// The end of the body may have been seen elsewhere by somebody on the way, so nothing behind it is answered.
    pub(super) fn unknown_transfer_coding() -> Self {
        let detail = "`Transfer-Encoding` may be `chunked`, once, and nothing else";
        let problem = Self::new(ProblemCode::NotImplemented, detail);
        Self { header: Some(Box::new((CONNECTION, HeaderValue::from_static("close")))), ..problem }
    }

    /// A token is missing; or one does not hold, and `error` says so to programs (RFC 6750, section 3).
    pub(super) fn unauthorized(detail: impl Into<String>, has_token: bool) -> Self {
        let asked = if has_token {
            r#"Bearer realm="zonewire", error="invalid_token""#
        } else {
            r#"Bearer realm="zonewire""#
        };
        let problem = Self::new(ProblemCode::Unauthorized, detail);
        Self { header: Some(Box::new((WWW_AUTHENTICATE, HeaderValue::from_static(asked)))), ..problem }
    }

    /// Whether a token holds cannot be told before so many seconds have passed.
    pub(super) fn keys_awaited(detail: impl Into<String>, after_s: u32) -> Self {
        let problem = Self::new(ProblemCode::KeysAwaited, detail);
        Self { header: Some(Box::new((RETRY_AFTER, HeaderValue::from(after_s)))), ..problem }
    }

    pub(crate) fn accepted(mut self, accepted: u64) -> Self {
        self.told.accepted = Some(accepted);
        self
    }

    pub(crate) fn at_line(mut self, line: u64) -> Self {
        self.told.line = Some(line);
        self
    }

    pub(crate) fn at_index(mut self, index: usize) -> Self {
        self.told.index = Some(index);
        self
    }

    /// It is about one of several channels, as the client names it.
    pub(super) fn of_channel(mut self, channel: &str) -> Self {
        self.told.channel = Some(channel.to_owned());
        self
    }

    pub(crate) fn fields(mut self, errors: Vec<FieldFault>) -> Self {
        self.told.errors = errors;
        self
    }

    pub(crate) fn storage(error: &StorageError) -> Self {
        if let StorageError::Unknown { .. } = error {
            let detail =
                "Redis is away, and this node by itself knows nothing of it; it may be known elsewhere";
            return Self::new(ProblemCode::UnknownWhileDegraded, detail);
        }
        // The cause stays in the log: it may name what is none of the client's business.
        Self::new(ProblemCode::StorageUnavailable, error.to_string())
    }

    /// There is no such order; or it is somebody else's, which must look the same.
    pub(super) fn unknown_order(order: Option<OrderId>) -> Self {
        let order = order.map(|order| format!(" {order}")).unwrap_or_default();
        let detail = format!("there is no order{order}, or it is no longer kept");
        Self::new(ProblemCode::UnknownOrder, detail)
    }

    /// The same of a dead letter.
    pub(super) fn unknown_dead_letter() -> Self {
        Self::new(ProblemCode::UnknownDeadLetter, RetryError::Unknown.to_string())
    }

    /// Why a connection, or a request on one, is refused.
    pub(crate) fn limit(limit: Limit) -> Self {
        let (code, detail) = match limit {
            Limit::Full | Limit::Tcp => (
                ProblemCode::TooManyConnections,
                "this node has as many connections as it may have; try another one, or later",
            ),
            Limit::Address => (
                ProblemCode::TooManyConnectionsFromAddress,
                "this address has as many connections as it may have at once; close one first",
            ),
            Limit::Rate => (
                ProblemCode::ConnectingTooOften,
                "this address connects more often than it may; keep connections, and try again later",
            ),
            Limit::Quota(over) => return Self::over(over),
        };
        Self::new(code, detail)
    }

    /// It is more than a principal, or a tenant, may have.
    pub(super) fn over(over: Over) -> Self {
        let code = match over.quota {
            Quota::Connects => ProblemCode::ConnectingTooOften,
            Quota::Connections => ProblemCode::TooManyConnectionsOfSubject,
            _ => ProblemCode::RateLimited,
        };
        let mut problem = Self::new(code, over.to_string());
        let after_ms = over.wait_ms();
        problem.told.retry_after_ms = Some(after_ms);
        Self { header: Some(Box::new((RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1_000))))), ..problem }
    }

    pub(crate) fn publish(error: &PublishError) -> Self {
        let code = match error {
            PublishError::Unavailable { .. } | PublishError::Gap { .. } => ProblemCode::StorageUnavailable,
            PublishError::ShuttingDown { .. } => ProblemCode::ShuttingDown,
            PublishError::Refused { refusal: Refusal::Closed, .. } => ProblemCode::AlreadyEnded,
            PublishError::Refused { refusal: Refusal::StaleFence { .. }, .. } => ProblemCode::LeaseLost,
            PublishError::TooManyZones { .. } => ProblemCode::TooManyZones,
            PublishError::TooManyKeys { .. } => ProblemCode::TooManyKeys,
        };
        let detail = match error {
            // What is wrong with this node's disk is no secret, and no other storage's words.
            PublishError::Unavailable { cause, .. } if matches!(**cause, StorageError::NotDurable { .. }) => {
                format!("{error}: {cause}")
            }
            _ => error.to_string(),
        };
        Self::new(code, detail)
    }
}

impl Reject for Problem {}

impl Reply for Problem {
    fn into_response(self) -> warp::reply::Response {
        let told = protocol::Problem {
            kind: Some("about:blank".to_owned()),
            title: Some(self.status.canonical_reason().unwrap_or("Error").to_owned()),
            status: Some(self.status.as_u16()),
            code: Some(self.code.into()),
            ..*self.told
        };
        let body = serde_json::to_vec(&told).expect("a struct of plain fields always serialises");
        let mut response = Response::new(Bytes::from(body)).into_response();
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // 404, 405, 410, 421 and 501 could be kept by caches otherwise.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if let Some(header) = self.header {
            let (name, value) = *header;
            headers.insert(name, value);
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110, section 15.5.22: say to what; RFC 6455, section 4.4: and which version would do.
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response.extensions_mut().insert(Refused(self.code));
        response
    }
}

/// What is wrong with a request of which a handler could not take what it takes.
pub(crate) fn from_rejection(rejection: &Rejection) -> Problem {
    use warp::reject::{InvalidHeader, InvalidQuery, MissingHeader};
    if let Some(problem) = rejection.find::<Problem>() {
        return problem.clone();
    }
    if rejection.find::<InvalidQuery>().is_some() {
        let detail = "the query is not of the form that this address takes";
        return Problem::new(ProblemCode::InvalidQuery, detail);
    }
    if rejection.find::<MissingHeader>().is_some() || rejection.find::<InvalidHeader>().is_some() {
        return Problem::new(ProblemCode::InvalidHeader, "a header is missing or not valid");
    }
    tracing::error!(rejection = ?rejection, "a rejection without an answer");
    internal()
}

/// The answer to a request that met a bug.
pub(super) fn internal() -> Problem {
    Problem::new(ProblemCode::Internal, "the gateway could not answer; this is a bug")
}
