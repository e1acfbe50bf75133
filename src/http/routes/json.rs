//! JSON that clients post, and JSON that they are answered with.

use std::ops::Deref;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::reject::Rejection;
use warp::reply::Response;

use super::{App, sent, with};
use crate::http::body::{Whole, discard, not_utf8, read_whole};
use crate::http::body_budget::Held;
use crate::http::prices::{Format, holds_body_back};
use crate::http::problem::Problem;
use crate::protocol::{ProblemCode, check_json};
use crate::support::json::json_fault;

/// A posted text with its headers, and the memory that is reserved for it while this exists.
pub(super) struct Text {
    pub(super) headers: HeaderMap,
    text: String,
    _held: Held,
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// The text of a JSON body, which is no longer than a line may be. It is read before the handler runs.
pub(super) fn json_body(app: &Arc<App>) -> impl Filter<Extract = (Text,), Error = Rejection> + Clone + use<> {
    json_body_of(app, app.config.line_bytes_max, sent())
}

/// The text of a JSON body of at most `max` bytes.
pub(super) fn json_body_of<F, S, B>(
    app: &Arc<App>,
    max: usize,
    sent: F,
) -> impl Filter<Extract = (Text,), Error = Rejection> + Clone + use<F, S, B>
where
    F: Filter<Extract = (HeaderMap, S), Error = Rejection> + Clone + Send + Sync + 'static,
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf + Send,
{
    with(app).and(sent).and_then(move |app: Arc<App>, headers: HeaderMap, body| async move {
        read(headers, body, max, &app).await.map_err(Rejection::from)
    })
}

/// Reads a JSON body. If it is refused, the rest is read and dropped first.
async fn read(
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    max: usize,
    app: &App,
) -> Result<Text, Problem> {
    tokio::pin!(body);
    if let Err(problem) = check_json_is_sent(&headers) {
        if !holds_body_back(&headers) {
            discard(&mut body, &app.stopping).await;
        }
        return Err(problem);
    }
    let reading = async {
        let budget = &app.sources.bodies;
        let Whole { bytes, held } =
            read_whole(&mut body, max, "send less at once", budget, &app.stopping).await?;
        let text = String::from_utf8(bytes.into()).map_err(|_error| not_utf8())?;
        Ok(Text { headers, text, _held: held })
    };
    let read = reading.await;
    if read.is_err() {
        discard(&mut body, &app.stopping).await;
    }
    read
}

fn check_json_is_sent(headers: &HeaderMap) -> Result<(), Problem> {
    match Format::of(headers) {
        Ok(Format::Json) => Ok(()),
        Err(problem) if problem.code == ProblemCode::UnsupportedContentEncoding => Err(problem),
        _ => {
            let detail = "expected `Content-Type: application/json`, in UTF-8";
            Err(Problem::unsupported_media_type(detail, "application/json"))
        }
    }
}

/// Parses a posted text.
pub(super) fn parse<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Problem> {
    check_json(text).map_err(|unreadable| Problem::new(ProblemCode::InvalidJson, unreadable.to_string()))?;
    serde_json::from_str(text).map_err(|error| {
        let fault = json_fault(text, &error);
        if error.is_data() {
            Problem::new(ProblemCode::InvalidRequest, fault)
        } else {
            Problem::new(ProblemCode::InvalidJson, format!("not JSON: {fault}"))
        }
    })
}

// Answers

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = of_json(bytes_of(value).into());
    *response.status_mut() = status;
    response
}

/// A JSON answer that may be long. Its memory counts until the client has read it.
pub(super) fn long_json(app: &App, value: &impl Serialize) -> Result<Response, Problem> {
    Ok(of_json(app.sources.answers.hold(bytes_of(value))?))
}

/// An answer whose body is this JSON.
pub(super) fn of_json(body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn bytes_of(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("an answer always serialises")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Revoke;

    #[test]
    fn what_is_not_json_differs_from_json_of_another_form() {
        let deep = "[".repeat(40);
        for (text, status, code) in [
            ("", 400, ProblemCode::InvalidJson),
            ("{", 400, ProblemCode::InvalidJson),
            ("{}x", 400, ProblemCode::InvalidJson),
            (&deep, 400, ProblemCode::InvalidJson),
            ("[]", 422, ProblemCode::InvalidRequest),
            (r#"{"jti":5}"#, 422, ProblemCode::InvalidRequest),
        ] {
            let problem = parse::<Revoke>(text).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (status, code), "{text}");
        }
        assert!(parse::<Revoke>(r#"{"jti":"a"}"#).is_ok());
    }
}
