//! Errors as `application/problem+json` (RFC 9457) with a stable `code`.

use hyper::StatusCode;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue,
    RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use serde::Serialize;
use warp::Reply;
use warp::http::Response;
use warp::hyper::body::Bytes;
use warp::reject::{Reject, Rejection};

use crate::channels::PublishError;
use crate::connections::Limit;
use crate::orders::FieldFault;
use crate::storage::{Refusal, StorageError};

/// Seconds after which it is worth trying again when the storage or a place was missing.
const RETRY_AFTER_S: &str = "1";

/// A refused request: what was wrong, and what would be right.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type", serialize_with = "about_blank")]
    kind: (),
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    pub(crate) status: StatusCode,
    /// Stable: programs may match on it.
    pub(crate) code: &'static str,
    detail: String,
    /// How many prices were accepted all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    /// The line of the first fault, counting from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The element of the array with the first fault, counting from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// Each wrong field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldFault>,
    /// A header that says what would be right.
    #[serde(skip)]
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// Marks a response that is a problem with its code, for who counts them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused(pub(super) &'static str);

/// The code says which problem it is.
fn about_blank<S: serde::Serializer>(_kind: &(), serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("about:blank")
}

fn status_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            kind: (),
            title,
            status,
            code,
            detail: detail.into(),
            accepted: None,
            line: None,
            index: None,
            errors: Vec::new(),
            header: None,
        }
    }

    /// The method cannot be used at this address; these can.
    pub(super) fn method_not_allowed(allow: HeaderValue) -> Self {
        let detail = format!("this address takes {}", allow.to_str().unwrap_or("other methods"));
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
        Self { header: Some(Box::new((ALLOW, allow))), ..problem }
    }

    /// The body is of a kind that cannot be read here; these can.
    pub(super) fn unsupported_media_type(detail: &'static str, accepted: &'static str) -> Self {
        let problem = Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail);
        Self { header: Some(Box::new((ACCEPT, HeaderValue::from_static(accepted)))), ..problem }
    }

    /// The body is compressed, which is not read.
    pub(super) fn unsupported_coding() -> Self {
        let detail = "a body with a `Content-Encoding` is not read; send it as it is";
        let problem = Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", detail);
        Self { header: Some(Box::new((ACCEPT_ENCODING, HeaderValue::from_static("identity")))), ..problem }
    }

    pub(crate) fn accepted(self, accepted: u64) -> Self {
        Self { accepted: Some(accepted), ..self }
    }

    pub(crate) fn at_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    pub(crate) fn at_index(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }

    pub(crate) fn fields(self, errors: Vec<FieldFault>) -> Self {
        Self { errors, ..self }
    }

    pub(crate) fn storage(error: &StorageError) -> Self {
        if let StorageError::Unknown { .. } = error {
            let detail =
                "Redis is away, and this node by itself knows nothing of it; it may be known elsewhere";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "unknown_while_degraded", detail);
        }
        // The cause stays in the log: it may name what is none of the client's business.
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", error.to_string())
    }

    /// Why a connection, or a request on one, is refused.
    pub(crate) fn limit(limit: Limit) -> Self {
        let (status, code, detail) = match limit {
            Limit::Full | Limit::Tcp => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                "this node has as many connections as it may have; try another one, or later",
            ),
            Limit::Address => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_connections_from_address",
                "this address has as many connections as it may have at once; close one first",
            ),
            Limit::Rate => (
                StatusCode::TOO_MANY_REQUESTS,
                "connecting_too_often",
                "this address connects more often than it may; keep connections, and try again later",
            ),
        };
        Self::new(status, code, detail)
    }

    pub(crate) fn publish(error: &PublishError) -> Self {
        let (status, code) = match error {
            PublishError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable"),
            PublishError::ShuttingDown { .. } => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            PublishError::Refused { refusal: Refusal::Closed, .. } => (StatusCode::CONFLICT, "already_ended"),
            PublishError::Refused { refusal: Refusal::StaleFence { .. }, .. } => {
                (StatusCode::CONFLICT, "lease_lost")
            }
            PublishError::TooManyZones { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "too_many_zones"),
            PublishError::TooManyKeys { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "too_many_keys"),
        };
        let detail = match error {
            // What is wrong with this node's disk is no secret, and no other storage's words.
            PublishError::Unavailable { cause, .. } if matches!(**cause, StorageError::NotDurable { .. }) => {
                format!("{error}: {cause}")
            }
            _ => error.to_string(),
        };
        Self::new(status, code, detail)
    }
}

impl Reject for Problem {}

impl Reply for Problem {
    fn into_response(self) -> warp::reply::Response {
        let body = serde_json::to_vec(&self).expect("a struct of plain fields always serialises");
        let mut response = Response::new(Bytes::from(body)).into_response();
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // 404, 405, 410, 421 and 501 could be kept by caches otherwise.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(header) = self.header {
            let (name, value) = *header;
            headers.insert(name, value);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
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

/// Turns what no route took into a problem.
pub(crate) fn from_rejection(rejection: &Rejection) -> Problem {
    use warp::reject::{InvalidHeader, InvalidQuery, MethodNotAllowed, MissingHeader};
    if let Some(problem) = rejection.find::<Problem>() {
        return problem.clone();
    }
    if rejection.find::<MethodNotAllowed>().is_some() {
        let detail = "this address does not take this method";
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    }
    if rejection.is_not_found() {
        return Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address");
    }
    if rejection.find::<InvalidQuery>().is_some() {
        let detail = "the query is not of the form that this address takes";
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail);
    }
    if rejection.find::<MissingHeader>().is_some() || rejection.find::<InvalidHeader>().is_some() {
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_header", "a header is missing or not valid");
    }
    tracing::error!(rejection = ?rejection, "a rejection without an answer");
    internal()
}

/// The answer to a request that met a bug.
pub(super) fn internal() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the gateway could not answer; this is a bug")
}
