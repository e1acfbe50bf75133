//! Every route, as a function that returns a warp filter.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reject::Rejection;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::config::HttpConfig;
use super::door::Door;
use super::exposition::Exposition;
use super::jobs::jobs;
use super::order_sockets::order_sockets;
use super::orders::orders;
use super::prices::{Format, Intake, answer_post};
use super::problem::{Problem, from_rejection};
use super::status::Sources;
use super::upgrade::{WebSocketRequest, accept, web_socket};
use crate::channels::{Channels, PublishError, in_log};
use crate::connections::{Manager, Opening};
use crate::model::{ChannelName, Entry, Position, Zone};
use crate::orders::Orders;
use crate::protocol::documents::{ASYNCAPI, OPENAPI};
use crate::protocol::{Entries, ErrorCode, Live, ProblemCode, ZoneList, ZoneView, entry_json};
use crate::storage::{LatestPage, Page, StorageError};
use crate::support::fault;

/// Connections listed by `/ws/stats` when not asked for more.
const LISTED: usize = 100;
const LISTED_MAX: usize = 10_000;

/// Entries given by `/history` when not asked for more.
const HISTORY: usize = 100;
const HISTORY_MAX: usize = 1_000;

/// Keys given by `/latest` at the most, whose entries come to a MiB at the most.
const LATEST_MAX: usize = 10_000;

/// What the routes work with.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: HttpConfig,
    pub(crate) manager: Manager,
    pub(crate) channels: Channels,
    pub(crate) orders: Orders,
    pub(crate) sources: Sources,
    pub(crate) stopping: CancellationToken,
    /// Whether this process serves clients, or only tells how it does.
    pub(crate) serves: bool,
    /// Whether it carries orders out.
    pub(crate) works: bool,
}

/// The way to all routes.
pub(crate) fn door(app: Arc<App>) -> Door {
    let (serves, stopping) = (app.serves, app.stopping.clone());
    let (config, refusals) = (app.config.clone(), Arc::clone(&app.sources.refusals));
    let answers = Arc::clone(&app.sources.answers);
    Door::new(
        routes(Arc::clone(&app)),
        whole(web_sockets(&app)),
        &config,
        serves,
        refusals,
        answers,
        stopping,
    )
}

/// All routes; never rejects.
pub(super) fn routes(app: Arc<App>) -> BoxedFilter<(Response,)> {
    let told = health(&app).or(stats(&app)).unify();
    whole(if app.serves {
        told.or(clients(&app)).unify().boxed()
    } else {
        told.or(no_gateway()).unify().boxed()
    })
}

/// The routes that upgrade. A request for one of them passes no others: each that is passed takes memory
/// for all that it could do.
fn web_sockets(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    market(app).or(subscribe_any(app)).unify().or(order_sockets(app)).unify().boxed()
}

/// The same, with an answer where none of them fits.
fn whole(routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    routes
        .or(warp::any().and_then(|| async { Err::<Response, _>(warp::reject::not_found()) }))
        .unify()
        .recover(|rejection: Rejection| async move {
            Ok::<_, Infallible>(from_rejection(&rejection).into_response())
        })
        .unify()
        .boxed()
}

/// Where clients are sent that come to a process that only works on orders.
fn no_gateway() -> BoxedFilter<(Response,)> {
    let detail = "this process only works on orders (node.roles); ask one with the role gateway";
    warp::any().map(move || Problem::new(ProblemCode::NoGateway, detail).into_response()).boxed()
}

/// What clients and publishers use.
fn clients(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    prices(app)
        .or(zones(app))
        .unify()
        .or(latest(app))
        .unify()
        .or(removals(app))
        .unify()
        .or(history(app))
        .unify()
        .or(orders(app))
        .unify()
        .or(jobs(app))
        .unify()
        .or(web_sockets(app))
        .unify()
        .or(page())
        .unify()
        .or(documents(&app.config.base_path))
        .unify()
        .boxed()
}

pub(super) fn with(app: &Arc<App>) -> impl Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + use<> {
    let app = Arc::clone(app);
    warp::any().map(move || Arc::clone(&app))
}

/// A path segment that names something.
fn named<T: FromStr<Err: std::fmt::Display>>(segment: &str) -> Result<T, Problem> {
    let invalid = |detail| Problem::new(ProblemCode::InvalidName, detail);
    decoded(segment).map_err(invalid)
}

/// The same; what is wrong, in words.
fn decoded<T: FromStr<Err: std::fmt::Display>>(segment: &str) -> Result<T, String> {
    let text = percent_decode_str(segment).decode_utf8();
    let text = text.map_err(|_error| "the name in the address is not UTF-8".to_owned())?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn answer(result: Result<Response, Problem>) -> Result<Response, Rejection> {
    // A problem is an answer, not a reason to try other routes.
    Ok(result.unwrap_or_else(Reply::into_response))
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = warp::reply::with_status(warp::reply::json(value), status).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The same with an answer that may be long. It counts until its client has taken it.
pub(super) fn long_json(app: &App, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).expect("an answer always serialises");
    let body = app.sources.answers.hold(body)?;
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

// WebSockets

#[derive(Debug, Deserialize)]
pub(super) struct Since {
    since: Option<String>,
    snapshot: Option<String>,
}

/// A part of the address of a WebSocket that is not of the right form. It is told over the WebSocket,
/// since browsers hide the answers of HTTP from pages.
pub(super) struct BadAddress(pub(super) ErrorCode, pub(super) String);

impl Since {
    /// Reads the query; it is `None` where that has not the right form.
    pub(super) fn filter() -> BoxedFilter<(Option<Self>,)> {
        warp::query::<Self>().map(Some).or(warp::any().map(|| None)).unify().boxed()
    }

    /// Where to resume, if anywhere.
    pub(super) fn position(query: Option<Self>) -> Result<Option<Position>, BadAddress> {
        Ok(Self::asked(query)?.0)
    }

    /// The same, and whether the latest entry of each key is wanted.
    fn asked(query: Option<Self>) -> Result<(Option<Position>, bool), BadAddress> {
        let Some(Self { since, snapshot }) = query else {
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
}

/// Opens a WebSocket, if only to say that its address has not the right form.
pub(super) async fn open(
    request: WebSocketRequest,
    app: &App,
    opening: Result<Opening, BadAddress>,
) -> Result<Response, Rejection> {
    let opening = opening.unwrap_or_else(|BadAddress(code, message)| Opening::BadAddress { code, message });
    answer(accept(request, &app.manager, opening).await)
}

/// `GET /ws/market/{zone}?since=<epoch>:<offset>&snapshot=1`
fn market(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    warp::path!("ws" / "market" / String)
        .and(Since::filter())
        .and(web_socket())
        .and(with(app))
        .and_then(|zone: String, query, request, app: Arc<App>| async move {
            open(request, &app, market_of(&zone, query)).await
        })
        .boxed()
}

fn market_of(zone: &str, query: Option<Since>) -> Result<Opening, BadAddress> {
    let zone = decoded::<Zone>(zone).map_err(|error| BadAddress(ErrorCode::InvalidChannel, error))?;
    let (since, snapshot) = Since::asked(query)?;
    Ok(Opening::Market { zone, since, snapshot })
}

/// `GET /ws`
fn subscribe_any(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    warp::path!("ws")
        .and(web_socket())
        .and(with(app))
        .and_then(|request, app: Arc<App>| async move { open(request, &app, Ok(Opening::Nothing)).await })
        .boxed()
}

// Health and stats

fn health(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let whole = warp::path!("health")
        .or(warp::path!("ws" / "health"))
        .unify()
        .or(warp::path!("api" / "ws" / "ws" / "health"))
        .unify()
        .and(warp::get())
        .and(with(app))
        .map(|app: Arc<App>| json(StatusCode::OK, &app.sources.health()));
    let live = warp::path!("health" / "live")
        .and(warp::get())
        .map(|| json(StatusCode::OK, &Live { status: "live".to_owned() }));
    let ready = warp::path!("health" / "ready").and(warp::get()).and(with(app)).map(|app: Arc<App>| {
        let health = app.sources.health();
        json(if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &health)
    });
    let redis = warp::path!("health" / "redis").and(warp::get()).and(with(app)).map(|app: Arc<App>| {
        let redis = app.sources.redis();
        let is_whole = !matches!(redis.status.as_str(), "down" | "partial");
        json(if is_whole { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &redis)
    });
    whole.or(live).unify().or(ready).unify().or(redis).unify().boxed()
}

#[derive(Debug, Deserialize)]
struct Listing {
    connections: Option<usize>,
}

fn stats(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let stats = warp::path!("ws" / "stats")
        .or(warp::path!("api" / "ws" / "ws" / "stats"))
        .unify()
        .and(warp::get())
        .and(warp::query::<Listing>())
        .and(with(app))
        .then(|listing: Listing, app: Arc<App>| async move {
            let list = listing.connections.unwrap_or(LISTED).min(LISTED_MAX);
            json(StatusCode::OK, &app.sources.stats(Some(list)).await)
        });
    let metrics =
        warp::path!("metrics").and(warp::get()).and(warp::header::headers_cloned()).and(with(app)).then(
            |headers: HeaderMap, app: Arc<App>| async move {
                let format = Exposition::asked_for(&headers);
                match app.sources.metrics().await {
                    Ok(text) => {
                        let mut response = format.of(text).into_response();
                        let headers = response.headers_mut();
                        headers.insert(CONTENT_TYPE, format.content_type());
                        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                        headers.insert(VARY, HeaderValue::from_static("accept"));
                        response
                    }
                    Err(error) => Problem::new(ProblemCode::Internal, error.to_string()).into_response(),
                }
            },
        );
    stats.or(metrics).unify().boxed()
}

// Zones

/// `POST /api/zones/{zone}/prices`
fn prices(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "zones" / String / "prices")
        .and(warp::post())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .and(with(app))
        .and_then(|zone: String, headers: HeaderMap, body, app: Arc<App>| async move {
            answer(post_prices(&zone, &headers, body, &app).await)
        })
        .boxed()
}

async fn post_prices<S, B>(zone: &str, headers: &HeaderMap, body: S, app: &App) -> Result<Response, Problem>
where
    S: futures_util::Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let stats = &app.sources.intake;
    let intake = || {
        let intake = Intake {
            channels: &app.channels,
            config: &app.config,
            stats,
            room: &app.sources.bodies,
            channel: ChannelName::zone(&named::<Zone>(zone)?),
            stopping: &app.stopping,
        };
        Ok((intake, Format::of(headers)?))
    };
    answer_post(intake(), stats, &app.stopping, headers, body).await
}

/// `GET /api/zones`
fn zones(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "zones")
        .and(warp::get())
        .and(with(app))
        .and_then(|app: Arc<App>| async move {
            fault::point(|| "request".to_owned());
            let listed = app.channels.zones().await.map_err(|error| Problem::storage(&error));
            answer(listed.and_then(|zones| {
                let views = zones.into_iter().map(|zone| {
                    let channel = ChannelName::zone(&zone);
                    let lane = app.channels.config().lane(&channel);
                    let stream = format!("{}/ws/market/{zone}", app.config.base_path);
                    ZoneView { zone: zone.to_string(), channel, lane, stream }
                });
                long_json(&app, &ZoneList { zones: views.collect() })
            }))
        })
        .boxed()
}

fn messages(channel: &ChannelName, entries: &[Entry]) -> Result<Vec<Box<RawValue>>, Problem> {
    let messages = entries.iter().map(|entry| {
        let mut out = Vec::new();
        entry_json(channel, entry, false, &mut out);
        serde_json::from_slice(&out)
    });
    messages.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(channel = %channel, error = %error, "a stored entry is not readable");
        Problem::new(ProblemCode::Corrupt, "a stored entry is not readable")
    })
}

/// `GET /api/zones/{zone}/latest?limit=&after=`
fn latest(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "zones" / String / "latest")
        .and(warp::get())
        .and(warp::query::<PageQuery>())
        .and(with(app))
        .and_then(|zone: String, query: PageQuery, app: Arc<App>| async move {
            answer(get_latest(&zone, &query, &app).await)
        })
        .boxed()
}

async fn get_latest(zone: &str, query: &PageQuery, app: &App) -> Result<Response, Problem> {
    let channel = ChannelName::zone(&named::<Zone>(zone)?);
    let limit = query.limit(LATEST_MAX, LATEST_MAX)?;
    let page = app.channels.latest(&channel, query.after.as_deref(), limit).await;
    let LatestPage { mut entries, next, .. } = page.map_err(|error| Problem::storage(&error))?;
    entries.retain(|entry| entry.draft.kind.unknown().is_none());
    let entries = messages(&channel, &entries)?;
    let view = Entries { channel, epoch: None, first_offset: None, last_offset: None, next, entries };
    long_json(app, &view)
}

/// `DELETE /api/zones/{zone}/keys/{key}`, `DELETE /api/zones/{zone}`
fn removals(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let key = warp::path!("api" / "zones" / String / "keys" / String)
        .and(warp::delete())
        .and(with(app))
        .and_then(|zone: String, key: String, app: Arc<App>| async move {
            answer(delete_key(&zone, &key, &app).await)
        });
    let zone = warp::path!("api" / "zones" / String)
        .and(warp::delete())
        .and(with(app))
        .and_then(|zone: String, app: Arc<App>| async move { answer(delete_zone(&zone, &app).await) });
    key.or(zone).unify().boxed()
}

async fn delete_key(zone: &str, key: &str, app: &App) -> Result<Response, Problem> {
    let zone = named::<Zone>(zone)?;
    let key = named::<String>(key)?;
    let detail = || format!("the zone {zone} has no price of this key");
    removed(app.channels.remove_key(&zone, &key).await, &zone, ProblemCode::UnknownKey, detail, app)
}

async fn delete_zone(zone: &str, app: &App) -> Result<Response, Problem> {
    let zone = named::<Zone>(zone)?;
    let detail = || format!("nobody has published to the zone {zone}, or it was removed");
    removed(app.channels.remove_zone(&zone).await, &zone, ProblemCode::UnknownZone, detail, app)
}

fn removed(
    found: Result<bool, PublishError>,
    zone: &Zone,
    code: ProblemCode,
    detail: impl FnOnce() -> String,
    app: &App,
) -> Result<Response, Problem> {
    match found {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        // Others may know it.
        Ok(false) if app.channels.is_degraded(&ChannelName::zone(zone)) => {
            Err(Problem::storage(&StorageError::Unknown { op: "remove" }))
        }
        Ok(false) => Err(Problem::new(code, detail())),
        Err(error) => Err(Problem::publish(&error)),
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize)]
struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

impl PageQuery {
    fn limit(&self, usual: usize, max: usize) -> Result<usize, Problem> {
        let limit = self.limit.unwrap_or(usual);
        if (1..=max).contains(&limit) {
            return Ok(limit);
        }
        let detail = format!("`limit` must be 1 to {max}");
        Err(Problem::new(ProblemCode::InvalidLimit, detail))
    }
}

/// `GET /api/zones/{zone}/history?limit=&after=`
fn history(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "zones" / String / "history")
        .and(warp::get())
        .and(warp::query::<PageQuery>())
        .and(with(app))
        .and_then(|zone: String, query: PageQuery, app: Arc<App>| async move {
            answer(get_history(&zone, &query, &app).await)
        })
        .boxed()
}

async fn get_history(zone: &str, query: &PageQuery, app: &App) -> Result<Response, Problem> {
    let channel = ChannelName::zone(&named::<Zone>(zone)?);
    let limit = query.limit(HISTORY, HISTORY_MAX)?;
    let after = query.after.as_deref().map(Position::from_str).transpose();
    let after = after.map_err(|error| Problem::new(ProblemCode::InvalidPosition, error.to_string()))?;
    let has_after = after.is_some();
    let after = after.and_then(in_log);
    let page = match &after {
        None if !has_after => app.channels.newest(&channel, limit).await,
        after => app.channels.read_after(&channel, after.as_ref(), limit).await,
    };
    let Page { epoch, top, first, entries, .. } = page.map_err(|error| Problem::storage(&error))?;
    if after.is_some_and(|position| epoch.as_ref() != Some(&position.epoch)) {
        let detail = "the log has begun a new life since that position; read again without `after`";
        return Err(Problem::new(ProblemCode::ForeignEpoch, detail));
    }
    let view = Entries {
        entries: messages(&channel, &entries)?,
        channel,
        epoch,
        first_offset: (first <= top).then_some(first),
        last_offset: (first <= top).then_some(top),
        next: None,
    };
    long_json(app, &view)
}

// The page

const PAGE: &str = include_str!("page.html");
const PAGE_SCRIPT: &str = include_str!("page.js");

/// `/`: shows that it works, and how to go on.
fn page() -> BoxedFilter<(Response,)> {
    let html = warp::path::end().and(warp::get().or(warp::head()).unify()).map(|| {
        let mut response = warp::reply::html(PAGE).into_response();
        let policy = HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
        );
        response.headers_mut().insert("content-security-policy", policy);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    });
    let script = warp::path!("page.js").and(warp::get().or(warp::head()).unify()).map(|| {
        let mut response = PAGE_SCRIPT.into_response();
        let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    });
    html.or(script).unify().boxed()
}

/// `/openapi.json`, `/asyncapi.json`: what there is, for programs. They say where they are served.
fn documents(base_path: &str) -> BoxedFilter<(Response,)> {
    let served = |text: &'static str, place: &str, path: &str| -> Bytes {
        let mut document: Value = serde_json::from_str(text).expect("a test has read it");
        if let Some(found) = document.pointer_mut(place) {
            *found = Value::from(if path.is_empty() { "/" } else { path });
        }
        document.to_string().into()
    };
    let openapi = served(OPENAPI, "/servers/0/url", base_path);
    let asyncapi = served(ASYNCAPI, "/servers/gateway/pathname", base_path);
    let answer = |document: &Bytes| {
        let mut response = warp::http::Response::new(document.clone()).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        response
    };
    let openapi = warp::path!("openapi.json").and(warp::get()).map(move || answer(&openapi));
    let asyncapi = warp::path!("asyncapi.json").and(warp::get()).map(move || answer(&asyncapi));
    openapi.or(asyncapi).unify().boxed()
}
