//! `/api/events`: publishing and reading events.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hyper::header::HeaderMap;
use warp::Filter;
use warp::reply::Response;

use super::zones::{PageQuery, decoded, history_of, latest_of, post_entries};
use super::{App, Caller, Handler, caller, handler, segments, with};
use crate::http::prices::Posted;
use crate::http::problem::Problem;
use crate::model::{ChannelName, EventType};
use crate::protocol::ProblemCode;

/// The type in the address.
fn named(segment: &str) -> Result<EventType, Problem> {
    decoded(segment).map_err(|detail| Problem::new(ProblemCode::UnknownEventType, detail))
}

/// `POST /api/events/{type}`
pub(in crate::http) fn publish(app: &Arc<App>) -> Handler {
    let sent = warp::header::headers_cloned().and(warp::body::stream());
    handler(with(app).and(caller()).and(segments()).and(sent).then(post_events))
}

async fn post_events<S, B>(
    app: Arc<App>,
    caller: Caller,
    [event]: [String; 1],
    headers: HeaderMap,
    body: S,
) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let event = named(&event);
    let posted = Posted::Event(event.as_ref().copied().unwrap_or(EventType::Ticker));
    post_entries(&app, &caller, posted, event.map(ChannelName::event), &headers, body).await
}

/// `GET /api/events/{type}/latest?limit=&after=`
pub(in crate::http) fn latest(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).and(warp::query()).then(get_latest))
}

async fn get_latest(app: Arc<App>, [event]: [String; 1], query: PageQuery) -> Result<Response, Problem> {
    latest_of(&app, ChannelName::event(named(&event)?), &query).await
}

/// `GET /api/events/{type}/history?limit=&after=`
pub(in crate::http) fn history(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).and(warp::query()).then(get_history))
}

async fn get_history(app: Arc<App>, [event]: [String; 1], query: PageQuery) -> Result<Response, Problem> {
    history_of(&app, ChannelName::event(named(&event)?), &query).await
}
