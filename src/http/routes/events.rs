//! `/sse`: channels as server-sent events, for networks that block WebSockets.

use std::collections::HashSet;
use std::str::FromStr as _;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use serde::Deserialize;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{App, Caller, Handler, HeadOnly, caller, handler, with};
use crate::connections::{Resume, Wanted};
use crate::http::event_stream;
use crate::http::problem::Problem;
use crate::http::upgrade::Arrival;
use crate::model::{ChannelName, Position};
use crate::protocol::ProblemCode;

/// The header with which a browser that reconnects names the last event that it received.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Deserialize)]
struct Query {
    channels: Option<String>,
    since: Option<String>,
    snapshot: Option<String>,
}

/// `GET /sse?channels=<channel>,…&since=<id>&snapshot=1`
pub(in crate::http) fn stream(app: &Arc<App>) -> Handler {
    let request = warp::query().and(warp::header::headers_cloned());
    let connection = warp::ext::optional::<Arrival>().and(warp::ext::optional::<HeadOnly>());
    handler(with(app).and(caller()).and(request).and(connection).then(open))
}

async fn open(
    app: Arc<App>,
    caller: Caller,
    query: Query,
    headers: HeaderMap,
    arrival: Option<Arrival>,
    head_only: Option<HeadOnly>,
) -> Result<Response, Problem> {
    let channels = channels(query.channels.as_deref(), app.manager.limits().subscriptions_max())?;
    let principal = caller.may_follow(&channels)?;
    let since = since(&headers, query.since.as_deref())?;
    let Resume::After(since) = since else {
        let mut response = StatusCode::NO_CONTENT.into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    };
    let wanted = all(channels, since, query.snapshot.as_deref())?;
    let Some(arrival) = arrival else {
        return Err(Problem::new(ProblemCode::NotUpgradable, "this connection cannot be handed over"));
    };
    if head_only.is_some() {
        return Ok(event_stream::head());
    }
    event_stream::open(&app.manager, arrival, &headers, wanted, app.guest(principal)).await
}

/// The channels of a stream. Without any, the stream reports only the storage's state.
fn channels(names: Option<&str>, max: usize) -> Result<Vec<ChannelName>, Problem> {
    let names = names.filter(|names| !names.is_empty()).map(|names| names.split(','));
    let mut channels = Vec::new();
    let mut seen = HashSet::new();
    for name in names.into_iter().flatten() {
        let invalid = |error| Problem::new(ProblemCode::InvalidName, format!("{error}")).of_channel(name);
        let channel = ChannelName::from_str(name).map_err(invalid)?;
        let fault = if channels.len() == max {
            Some(format!("a stream may have at most {max} channels; open another one for the rest"))
        } else {
            // Positions belong to channels by their order, so a channel must not occur twice.
            (!seen.insert(channel.clone())).then(|| format!("{channel} occurs twice"))
        };
        if let Some(detail) = fault {
            return Err(Problem::new(ProblemCode::InvalidQuery, detail).of_channel(name));
        }
        channels.push(channel);
    }
    Ok(channels)
}

/// Where to resume. What a browser sends when it reconnects overrides what the address said originally.
fn since(headers: &HeaderMap, query: Option<&str>) -> Result<Resume, Problem> {
    let header = match headers.get(LAST_EVENT_ID).map(HeaderValue::to_str) {
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return Err(invalid_position("`Last-Event-ID` is not visible ASCII text")),
        None => None,
    };
    let id = header.filter(|id| !id.is_empty()).or(query).unwrap_or_default();
    id.parse().map_err(|error| invalid_position(format!("{error}; of several channels, separated by commas")))
}

fn invalid_position(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidPosition, detail)
}

/// Combines channels, positions and snapshots.
fn all(
    channels: Vec<ChannelName>,
    since: Vec<Option<Position>>,
    snapshot: Option<&str>,
) -> Result<Vec<Wanted>, Problem> {
    let count = channels.len();
    // An empty position stands for no position of any channel.
    let says_nothing = matches!(since[..], [None]);
    if !says_nothing && since.len() != count {
        let detail = format!("there are {} positions for {count} channels", since.len());
        return Err(invalid_position(detail));
    }
    let since = since.into_iter().chain(std::iter::repeat(None));
    let snapshot = snapshots(snapshot, count)?;
    let wanted = channels.into_iter().zip(since).zip(snapshot);
    Ok(wanted.map(|((channel, since), snapshot)| Wanted { channel, since, snapshot }).collect())
}

/// Which channels begin with a snapshot: all, none, or as given for each.
fn snapshots(said: Option<&str>, count: usize) -> Result<Vec<bool>, Problem> {
    let read = |said: &str| match said {
        "0" | "false" => Some(false),
        "1" | "true" => Some(true),
        _ => None,
    };
    let said: Option<Vec<bool>> = said.unwrap_or("0").split(',').map(read).collect();
    match said.as_deref() {
        Some([same]) => Ok(vec![*same; count]),
        Some(each) if each.len() == count => Ok(each.to_vec()),
        _ => {
            let detail =
                format!("`snapshot` must be 1 or 0, or one of these for each of the {count} channels");
            Err(Problem::new(ProblemCode::InvalidQuery, detail))
        }
    }
}
