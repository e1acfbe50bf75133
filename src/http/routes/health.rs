//! `/health`, `/ws/stats` and `/metrics`: the state of the gateway.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use serde::Deserialize;
use tracing::info;
use uuid::Uuid;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{App, Caller, Handler, caller, handler, json, segments, with};
use crate::connections::Listing;
use crate::http::exposition::Exposition;
use crate::http::problem::Problem;
use crate::model::Zone;
use crate::protocol::{CloseCode, Live, ProblemCode};

/// How many connections `/ws/stats` lists by default.
const LISTED: usize = 100;
const LISTED_MAX: usize = 10_000;

/// `GET /health`
pub(in crate::http) fn whole(app: &Arc<App>) -> Handler {
    handler(with(app).map(|app: Arc<App>| json(StatusCode::OK, &app.sources.health())))
}

/// `GET /health/live`
pub(in crate::http) fn live(_app: &Arc<App>) -> Handler {
    handler(warp::any().map(|| json(StatusCode::OK, &Live { status: "live".to_owned() })))
}

/// `GET /health/ready`
pub(in crate::http) fn ready(app: &Arc<App>) -> Handler {
    handler(with(app).map(|app: Arc<App>| {
        let health = app.sources.health();
        json(if_well(health.ready), &health)
    }))
}

/// `GET /health/redis`
pub(in crate::http) fn redis(app: &Arc<App>) -> Handler {
    handler(with(app).map(|app: Arc<App>| {
        let redis = app.sources.redis();
        json(if_well(redis.status == "healthy"), &redis)
    }))
}

fn if_well(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(Debug, Deserialize)]
struct Asked {
    scope: Option<String>,
    connections: Option<usize>,
    after: Option<Uuid>,
    zone: Option<Zone>,
}

/// `GET /ws/stats?scope=&connections=&after=&zone=`
pub(in crate::http) fn stats(app: &Arc<App>) -> Handler {
    handler(with(app).and(warp::query()).then(tell_stats))
}

async fn tell_stats(app: Arc<App>, asked: Asked) -> Result<Response, Problem> {
    let Asked { scope, connections, after, zone } = asked;
    match scope.as_deref() {
        None | Some("node") => {
            let listing = Listing { max: connections.unwrap_or(LISTED).min(LISTED_MAX), after, zone };
            Ok(json(StatusCode::OK, &app.sources.stats(Some(listing)).await))
        }
        Some("fleet") => Ok(json(StatusCode::OK, &app.sources.fleet.view().await)),
        Some(other) => {
            let detail = format!(
                "`scope` must be `node` (this one) or `fleet` (all that share its storage), not {other:?}"
            );
            Err(Problem::new(ProblemCode::InvalidQuery, detail))
        }
    }
}

/// `GET /ws/stats/{connection}`
pub(in crate::http) fn connection(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).then(|app: Arc<App>, [id]: [String; 1]| async move {
        let story = match id.parse::<Uuid>() {
            Ok(id) => app.sources.connection(id).await,
            Err(_) => None,
        };
        story.map(|story| json(StatusCode::OK, &story)).ok_or_else(unknown_connection)
    }))
}

fn unknown_connection() -> Problem {
    let detail = "this node has no open connection with this id; another node may";
    Problem::new(ProblemCode::UnknownConnection, detail)
}

#[derive(Debug, Deserialize)]
struct HowToEnd {
    #[serde(default)]
    reconnect: bool,
}

/// `DELETE /ws/stats/{connection}?reconnect=`
pub(in crate::http) fn disconnect(app: &Arc<App>) -> Handler {
    let asked = with(app).and(segments()).and(warp::query()).and(caller());
    handler(asked.then(
        |app: Arc<App>, [id]: [String; 1], HowToEnd { reconnect }: HowToEnd, caller: Caller| async move {
            let id = id.parse::<Uuid>().map_err(|_error| unknown_connection())?;
            let code = if reconnect { CloseCode::Moved } else { CloseCode::Disconnected };
            if !app.manager.disconnect(id, code).await {
                return Err(unknown_connection());
            }
            let by = caller.principal()?;
            info!(conn.id = %id, code = code.reason(), by = by.subject(), "an operator closed a connection");
            Ok(StatusCode::NO_CONTENT.into_response())
        },
    ))
}

/// `GET /metrics`
pub(in crate::http) fn metrics(app: &Arc<App>) -> Handler {
    let asked = with(app).and(warp::header::headers_cloned());
    handler(asked.then(|app: Arc<App>, headers: HeaderMap| async move {
        let format = Exposition::asked_for(&headers);
        let text = app.sources.metrics().await;
        let text = text.map_err(|error| Problem::new(ProblemCode::Internal, error.to_string()))?;
        let mut response = format.of(text).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, format.content_type());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        Ok::<_, Problem>(response)
    }))
}
