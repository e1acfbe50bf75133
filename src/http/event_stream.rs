//! Turns an HTTP request into a stream of server-sent events (HTML, section 9.2).

use bytes::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use warp::Reply as _;
use warp::reply::Response;

use super::accepts::wanted;
use super::problem::Problem;
use super::upgrade::Arrival;
use crate::connections::{self, Arriving, EventStream, Guest, Limit, Manager, Opening, Wanted};
use crate::protocol::{CloseCode, ProblemCode};

const EVENT_STREAM: &str = "text/event-stream";

/// Makes nginx pass on each event at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Whether a client asks for server-sent events, as browsers do.
fn is_asked_for(headers: &HeaderMap) -> bool {
    wanted(headers, &ACCEPT, &[EVENT_STREAM]).is_some_and(|weight| weight > 0.0)
}

/// The head of the answer, for `HEAD`.
pub(super) fn head() -> Response {
    with_head(Response::default())
}

fn with_head(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn telling(events: EventStream) -> Response {
    with_head(warp::reply::stream(events).into_response())
}

/// Reports in a stream that there is no room, to a client that asks for events: browsers treat any other
/// answer as final and do not reconnect. `None` for other clients.
pub(super) fn turn_away(headers: &HeaderMap, limit: Limit) -> Option<Response> {
    is_asked_for(headers).then(|| not_now(limit.close_code(), limit.retry_after_ms()))
}

fn not_now(code: CloseCode, retry_after_ms: u64) -> Response {
    let told = connections::closing_events(code, retry_after_ms);
    with_head(Response::new(Bytes::from(told).into()))
}

/// Answers with a stream of these channels, which the shard of this thread fills.
pub(super) async fn open(
    manager: &Manager,
    arrival: Arrival,
    headers: &HeaderMap,
    wanted: Vec<Wanted>,
    guest: Result<Option<Guest>, Limit>,
) -> Result<Response, Problem> {
    let Arrival { shard, tcp, forwarded, look, .. } = arrival;
    let admitted = guest.and_then(|guest| Ok((manager.limits().admit(tcp, forwarded)?, guest)));
    let (admission, guest) = match admitted {
        Ok(admitted) => admitted,
        Err(limit) => return turn_away(headers, limit).ok_or_else(|| Problem::limit(limit)),
    };
    let (pipe, events) = connections::event_stream(&wanted, look);
    let opening = Opening::Channels(wanted);
    if shard.adopt(Arriving::Events(pipe), opening, guest, admission).await {
        return Ok(telling(events));
    }
    if is_asked_for(headers) {
        return Ok(not_now(CloseCode::ShuttingDown, connections::spread_retry_ms()));
    }
    Err(Problem::new(ProblemCode::ShuttingDown, "the gateway is shutting down"))
}
