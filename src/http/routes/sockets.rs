//! The WebSockets: without subscriptions, of a zone, of an order.

use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::zones::decoded;
use super::{App, Caller, Handler, caller, handler, segments, with};
use crate::connections::Opening;
use crate::http::problem::Problem;
use crate::http::upgrade::{WebSocketRequest, accept, web_socket};
use crate::model::{InvalidOrderId, Position, Zone};
use crate::protocol::ErrorCode;

/// A part of the address of a WebSocket that is not of the right form. It is told over the WebSocket,
/// since browsers hide the answers of HTTP from pages.
struct BadAddress(ErrorCode, String);

#[derive(Debug, Deserialize)]
struct Since {
    since: Option<String>,
    snapshot: Option<String>,
}

/// Reads the query; it is `None` where that has not the right form.
fn since() -> BoxedFilter<(Option<Since>,)> {
    warp::query().map(Some).or(warp::any().map(|| None)).unify().boxed()
}

/// Where to resume, if anywhere, and whether the latest entry of each key is wanted.
fn asked(query: Option<Since>) -> Result<(Option<Position>, bool), BadAddress> {
    let Some(Since { since, snapshot }) = query else {
        let message = "the query is not of the form ?since=<epoch>:<offset>";
        return Err(BadAddress(ErrorCode::InvalidPosition, message.to_owned()));
    };
    let since = since.as_deref().map(Position::from_str).transpose();
    let since = since.map_err(|error| BadAddress(ErrorCode::InvalidPosition, error.to_string()))?;
    match snapshot.as_deref() {
        None | Some("0" | "false") => Ok((since, false)),
        Some("1" | "true") => Ok((since, true)),
        Some(_) => Err(BadAddress(ErrorCode::InvalidMessage, "`snapshot` is 1 or 0".to_owned())),
    }
}

/// Opens a WebSocket, if only to say that its address has not the right form.
async fn open(
    request: WebSocketRequest,
    app: &App,
    caller: Caller,
    opening: Result<Opening, BadAddress>,
) -> Result<Response, Problem> {
    let opening = opening.unwrap_or_else(|BadAddress(code, message)| Opening::BadAddress { code, message });
    // Where nobody is asked, a connection need not know who its client is.
    let (opening, principal) = match caller.0 {
        Ok(principal) => (opening, app.gate.is_on().then_some(principal)),
        Err(refused) => (Opening::Unauthorized { message: refused.to_string() }, None),
    };
    accept(request, &app.manager, opening, principal).await
}

/// `GET /ws`
pub(in crate::http) fn any(app: &Arc<App>) -> Handler {
    handler(with(app).and(caller()).and(web_socket()).then(open_any))
}

async fn open_any(app: Arc<App>, caller: Caller, request: WebSocketRequest) -> Result<Response, Problem> {
    open(request, &app, caller, Ok(Opening::Nothing)).await
}

/// `GET /ws/market/{zone}?since=<epoch>:<offset>&snapshot=1`
pub(in crate::http) fn market(app: &Arc<App>) -> Handler {
    handler(with(app).and(caller()).and(segments()).and(since()).and(web_socket()).then(open_market))
}

async fn open_market(
    app: Arc<App>,
    caller: Caller,
    [zone]: [String; 1],
    query: Option<Since>,
    request: WebSocketRequest,
) -> Result<Response, Problem> {
    let opening = decoded::<Zone>(&zone)
        .map_err(|error| BadAddress(ErrorCode::InvalidChannel, error))
        .and_then(|zone| asked(query).map(|(since, snapshot)| Opening::Market { zone, since, snapshot }));
    open(request, &app, caller, opening).await
}

/// `GET /ws/orders/{orderId}?since=<epoch>:<offset>`, also as `/api/orders/status/{orderId}`: subscribed to
/// one order from the start.
pub(in crate::http) fn order(app: &Arc<App>) -> Handler {
    handler(with(app).and(caller()).and(segments()).and(since()).and(web_socket()).then(open_order))
}

async fn open_order(
    app: Arc<App>,
    caller: Caller,
    [order]: [String; 1],
    query: Option<Since>,
    request: WebSocketRequest,
) -> Result<Response, Problem> {
    let opening = order
        .parse()
        .map_err(|error: InvalidOrderId| BadAddress(ErrorCode::InvalidChannel, error.to_string()))
        .and_then(|order| asked(query).map(|(since, _)| Opening::Order { order, since }));
    open(request, &app, caller, opening).await
}
