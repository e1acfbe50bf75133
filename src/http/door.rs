//! What every request passes before it reaches a route, and every answer on its way out: what RFC 9110
//! and 9112 ask of a server, whatever the address.

use std::fmt;
use std::sync::Arc;

use http_body_util::BodyDataStream;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, HOST, UPGRADE};
use hyper::http::uri::Authority;
use hyper::service::Service as _;
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use warp::Reply as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::body::discard;
use super::prices::holds_body_back;
use super::problem::Problem;
use super::table::{self, Address, Kind, METHODS};
use super::upgrade::{TooMany, turn_away};

/// The way to the routes.
#[derive(Clone)]
pub(crate) struct Door(Arc<Parts>);

struct Parts {
    routes: BoxedFilter<(Response,)>,
    /// Whether clients are served, or only told how the gateway does.
    serves: bool,
    /// Bodies that nobody wants are read no longer when the gateway stops.
    stopping: CancellationToken,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("serves", &self.0.serves).finish_non_exhaustive()
    }
}

/// What becomes of a request.
enum Next {
    /// It goes to the routes.
    Route,
    Answer(Response),
}

impl Door {
    pub(super) fn new(routes: BoxedFilter<(Response,)>, serves: bool, stopping: CancellationToken) -> Self {
        Self(Arc::new(Parts { routes, serves, stopping }))
    }

    /// Whether a request asks how the gateway does, which it must be able to say in whatever state it is.
    pub(super) fn is_probe<B>(&self, request: &Request<B>) -> bool {
        table::find(request.uri().path()).is_some_and(|address| address.kind == Kind::Probe)
    }

    /// Answers a request, which may be one too many.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        too_many: Option<TooMany>,
    ) -> Response {
        if let Some(too_many) = too_many {
            return turn_away(request, too_many).await;
        }
        match self.judge(&request) {
            Ok(Next::Answer(response)) => response,
            Ok(Next::Route) => {
                if request.method() == Method::HEAD {
                    // The answer to GET, of which hyper sends no more than the head. Nothing is upgraded.
                    *request.method_mut() = Method::GET;
                    request.headers_mut().remove(UPGRADE);
                }
                let routes = TowerToHyperService::new(warp::service(self.0.routes.clone()));
                routes.call(request).await.unwrap_or_else(|never| match never {})
            }
            Err(problem) => {
                // Who still sends gets to read the answer; who waits to be asked for more is not asked.
                if !request.body().is_end_stream() && !holds_body_back(request.headers()) {
                    let mut body = BodyDataStream::new(request.into_body());
                    discard(&mut body, &self.0.stopping).await;
                }
                problem.into_response()
            }
        }
    }

    fn judge(&self, request: &Request<Incoming>) -> Result<Next, Problem> {
        authority_of(request)?;
        let method = request.method().as_str();
        if !METHODS.contains(&method) {
            let detail = "the gateway does not know this method";
            return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", detail));
        }
        if request.uri().path() == "*" {
            return match *request.method() {
                Method::OPTIONS => Ok(Next::Answer(allowed(table::allowed_somewhere()))),
                _ => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_target", "only OPTIONS asks for *")),
            };
        }
        // Where there is nothing, the routes say so.
        let Some(address) = self.find(request.uri().path()) else { return Ok(Next::Route) };
        if !address.takes(method) {
            return Err(Problem::method_not_allowed(address.allow()));
        }
        Ok(match *request.method() {
            Method::OPTIONS => Next::Answer(allowed(address.allow())),
            _ => Next::Route,
        })
    }

    /// The address that this process has at a path.
    fn find(&self, path: &str) -> Option<&'static Address> {
        let is_here = |address: &&Address| self.0.serves || matches!(address.kind, Kind::Probe | Kind::Told);
        table::find(path).filter(is_here)
    }
}

/// The answer to `OPTIONS`.
fn allowed(allow: hyper::header::HeaderValue) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// Whom a request is for: what its target says, or else `Host` (RFC 9112, section 3.2). A request of
/// HTTP/1.0 need not say it.
fn authority_of<B>(request: &Request<B>) -> Result<Option<Authority>, Problem> {
    let bad = |detail: &str| Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_host", detail));
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return bad("`Host` must be there once"),
        (None, _) if request.version() >= Version::HTTP_11 => return bad("`Host` is missing"),
        (host, _) => host,
    };
    let host = match host.map(|host| Authority::try_from(host.as_bytes())) {
        Some(Ok(host)) if is_host_and_port(&host) => Some(host),
        None => None,
        Some(_) => return bad("`Host` must be a host, and perhaps a port"),
    };
    match request.uri().authority() {
        Some(target) if !is_host_and_port(target) => bad("the target must be a host, and perhaps a port"),
        Some(target) => Ok(Some(target.clone())),
        None => Ok(host),
    }
}

fn is_host_and_port(authority: &Authority) -> bool {
    let (host, all) = (authority.host(), authority.as_str());
    let port = all.strip_prefix(host).map(|port| port.strip_prefix(':').unwrap_or(port));
    !host.is_empty() && port.is_some_and(|port| port.is_empty() || authority.port_u16().is_some())
}
