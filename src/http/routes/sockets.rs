//! The WebSockets: without subscriptions, for a zone, for events, for an order.

use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::zones::decoded;
use super::{App, Caller, Handler, caller, handler, segments, with};
use crate::connections::{Opening, Wanted};
use crate::http::problem::Problem;
use crate::http::upgrade::{WebSocketRequest, accept, web_socket};
use crate::model::{ChannelName, EventType, InvalidName, InvalidOrderId, Position, Zone};
use crate::protocol::ErrorCode;

/// A fault in the address of a WebSocket. It is reported over the WebSocket, because browsers hide HTTP
/// answers to upgrades from pages.
struct BadAddress(ErrorCode, String);

#[derive(Debug, Deserialize)]
struct Since {
    since: Option<String>,
    snapshot: Option<String>,
}

/// Parses the query; `None` if it is malformed.
fn since() -> BoxedFilter<(Option<Since>,)> {
    warp::query().map(Some).or(warp::any().map(|| None)).unify().boxed()
}

/// Where to resume, if anywhere, and whether to begin with a snapshot.
fn asked(query: Option<Since>) -> Result<(Option<Position>, bool), BadAddress> {
    let Some(Since { since, snapshot }) = query else {
        let message = "the query must have the form ?since=<epoch>:<offset>";
        return Err(BadAddress(ErrorCode::InvalidPosition, message.to_owned()));
    };
    let since = since.as_deref().map(Position::from_str).transpose();
    let since = since.map_err(|error| BadAddress(ErrorCode::InvalidPosition, error.to_string()))?;
    Ok((since, says_snapshot(snapshot.as_deref())?))
}

/// Whether to begin with a snapshot.
fn says_snapshot(said: Option<&str>) -> Result<bool, BadAddress> {
    match said {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(BadAddress(ErrorCode::InvalidMessage, "`snapshot` is 1 or 0".to_owned())),
    }
}

/// Opens a WebSocket, if only to report that its address is malformed.
async fn open(
    request: WebSocketRequest,
    app: &App,
    caller: Caller,
    opening: Result<Opening, BadAddress>,
) -> Result<Response, Problem> {
    let opening = opening.unwrap_or_else(|BadAddress(code, message)| Opening::BadAddress { code, message });
    let (opening, guest) = match caller.0 {
        Ok(principal) => (opening, app.guest(principal)),
        Err(refused) => (Opening::Unauthorized(refused), Ok(None)),
    };
    accept(request, &app.manager, opening, guest).await
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

#[derive(Debug, Deserialize)]
struct WhichEvents {
    types: Option<String>,
    exchange: Option<String>,
    symbol: Option<String>,
    snapshot: Option<String>,
}

/// `GET /ws/events?types=ticker,trade&exchange=binance&symbol=BTC-USDT&snapshot=1`
pub(in crate::http) fn events(app: &Arc<App>) -> Handler {
    let filter = warp::query().map(Some).or(warp::any().map(|| None)).unify();
    handler(with(app).and(caller()).and(filter).and(web_socket()).then(open_events))
}

async fn open_events(
    app: Arc<App>,
    caller: Caller,
    filter: Option<WhichEvents>,
    request: WebSocketRequest,
) -> Result<Response, Problem> {
    let max = app.manager.limits().subscriptions_max();
    let opening = wanted_events(filter, max).map(Opening::Several);
    open(request, &app, caller, opening).await
}

/// The channels of events, or views of them, that a filter selects.
fn wanted_events(filter: Option<WhichEvents>, max: usize) -> Result<Vec<Wanted>, BadAddress> {
    let Some(WhichEvents { types, exchange, symbol, snapshot }) = filter else {
        let message = "the query must have the form ?types=ticker,trade&exchange=binance&symbol=BTC-USDT";
        return Err(BadAddress(ErrorCode::InvalidMessage, message.to_owned()));
    };
    let snapshot = says_snapshot(snapshot.as_deref())?;
    let listed = |text: Option<&str>| -> Vec<String> {
        let some = text.filter(|text| !text.is_empty()).map(|text| text.split(',').map(str::to_owned));
        some.into_iter().flatten().collect()
    };
    let any = |names: Vec<String>| if names.is_empty() { vec!["*".to_owned()] } else { names };
    let invalid = |error: InvalidName| BadAddress(ErrorCode::InvalidChannel, error.to_string());
    let types: Result<Vec<EventType>, _> = listed(types.as_deref()).iter().map(|name| name.parse()).collect();
    let types = types.map_err(invalid)?;
    let types = if types.is_empty() { EventType::ALL.to_vec() } else { types };
    let (exchanges, symbols) = (any(listed(exchange.as_deref())), any(listed(symbol.as_deref())));
    let mut wanted: Vec<Wanted> = Vec::new();
    for event in types {
        // Events about an exchange have no symbol.
        let symbols = if event.segments() == 1 { &symbols[..1] } else { &symbols };
        for (exchange, symbol) in
            exchanges.iter().flat_map(|exchange| symbols.iter().map(move |symbol| (exchange, symbol)))
        {
            let pattern: Vec<&str> = [exchange, symbol, "*"].into_iter().take(event.segments()).collect();
            let is_all = pattern.iter().all(|segment| *segment == "*");
            let channel = ChannelName::event(event);
            let channel = match is_all {
                true => channel,
                false => format!("{channel}:{}", pattern.join(":")).parse().map_err(invalid)?,
            };
            if wanted.iter().any(|wanted| wanted.channel == channel) {
                continue;
            }
            if wanted.len() == max {
                let message = format!(
                    "a connection may have at most {max} subscriptions; name fewer types, exchanges or symbols"
                );
                return Err(BadAddress(ErrorCode::TooManySubscriptions, message));
            }
            wanted.push(Wanted { channel, since: None, snapshot });
        }
    }
    Ok(wanted)
}

/// `GET /ws/orders/{orderId}?since=<epoch>:<offset>`, also at `/api/orders/status/{orderId}`: subscribed to
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
