//! The handlers of the addresses in the `table`: functions that make a warp filter from the gateway's
//! state. A filter extracts what it needs from a request; address and method have already been matched.

pub(super) mod auth;
pub(super) mod bridge;
pub(super) mod config;
mod entries;
pub(super) mod event_types;
pub(super) mod events;
pub(super) mod health;
pub(super) mod jobs;
mod json;
pub(super) mod orders;
pub(super) mod page;
pub(super) mod registry;
pub(super) mod sockets;
pub(super) mod zones;

use std::convert::Infallible;
use std::future;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hyper::header::HeaderMap;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reject::Rejection;
use warp::reply::Response;
use warp::{Filter, Reply};

use self::json::{Text, json, json_body, json_body_of, long_json, of_json, parse};
use super::caller::Caller;
use super::config::HttpConfig;
use super::problem::{Problem, internal};
use super::status::Sources;
use crate::access::{Gate, Principal, Share};
use crate::channels::Channels;
use crate::connections::{Guest, Limit, Manager};
use crate::orders::Orders;
use crate::protocol::{ConfigView, ProblemCode};
use crate::registry::Registry;

/// The state that the routes work with.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: HttpConfig,
    /// All settings, with secrets masked.
    pub(crate) configured: Arc<ConfigView>,
    pub(crate) manager: Manager,
    pub(crate) channels: Channels,
    pub(crate) orders: Orders,
    pub(crate) registry: Registry,
    pub(crate) gate: Arc<Gate>,
    pub(crate) sources: Sources,
    pub(crate) stopping: CancellationToken,
    /// Whether this process serves clients, or only reports its state.
    pub(crate) serves: bool,
    /// Whether it executes orders.
    pub(crate) works: bool,
}

impl App {
    /// The client that a connection counts for. With authentication off there is none.
    fn guest(&self, principal: Arc<Principal>) -> Result<Option<Guest>, Limit> {
        if !self.gate.is_on() {
            return Ok(None);
        }
        let seat = self.gate.share(&principal).map(Share::connect).transpose().map_err(Limit::Quota)?;
        Ok(Some(Guest { principal, seat }))
    }
}

/// Answers requests of one method at one address.
pub(super) type Handler = BoxedFilter<(Response,)>;

fn handler<F, R>(filter: F) -> Handler
where
    F: Filter<Extract = (R,), Error: Into<Rejection>> + Send + Sync + 'static,
    R: Reply + 'static,
{
    filter.map(Reply::into_response).boxed()
}

fn with(app: &Arc<App>) -> impl Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + use<> {
    let app = Arc::clone(app);
    warp::any().map(move || Arc::clone(&app))
}

/// The segments of a path that match the braces in its pattern; travel in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Segments(pub(super) Vec<String>);

/// Marks a `HEAD` request, of which only the head is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadOnly;

/// The caller of a request.
fn caller() -> impl Filter<Extract = (Caller,), Error = Rejection> + Clone {
    warp::ext::get::<Caller>()
}

/// The headers and the body of a request.
fn sent()
-> impl Filter<Extract = (HeaderMap, impl Stream<Item = Result<impl Buf, warp::Error>>), Error = Rejection> + Clone
{
    warp::header::headers_cloned().and(warp::body::stream())
}

/// The segments of a path, not decoded.
fn segments<const N: usize>() -> impl Filter<Extract = ([String; N],), Error = Rejection> + Clone {
    warp::ext::get::<Segments>().and_then(|Segments(segments)| {
        let segments = <[String; N]>::try_from(segments);
        future::ready(segments.map_err(|_more_or_fewer| Rejection::from(internal())))
    })
}

/// How many items to return: as many as were asked for, or `usual`.
fn limit(asked: Option<usize>, usual: usize, max: usize) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(usual);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(ProblemCode::InvalidLimit, format!("`limit` must be 1 to {max}")))
}
