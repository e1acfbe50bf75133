//! The door, which every request passes on its way to a route, and every answer on its way out. It checks
//! which host a request is for and which page it comes from, and what RFC 9110 and 9112 require of a server
//! at any address.

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::BodyDataStream;
use hyper::body::{Body, Bytes};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    ORIGIN, TRANSFER_ENCODING, UPGRADE, VARY,
};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::service::Service as _;
use hyper::{Method, Request, StatusCode, Uri, Version};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use warp::reject::Rejection;
use warp::reply::Response;
use warp::{Filter as _, Reply as _};

use super::arrival::{Peer, Way};
use super::body::discard;
use super::body_budget::BodyBudget;
use super::caller::{self, Caller};
use super::compress::{self, Compressor};
use super::config::HttpConfig;
use super::event_stream;
use super::forwarded::{Proxies, Said};
use super::names::{Known, Names, host_and_port};
use super::prices::holds_body_back;
use super::problem::{Problem, Refused, from_rejection};
use super::refusals::Refusals;
use super::routes::{App, Handler, HeadOnly, Segments};
use super::safeguards::{self, Safeguards};
use super::table::{self, Address, Kind, METHODS};
use super::upgrade::{TooMany, turn_away};
use crate::access::Gate;
use crate::protocol::ProblemCode;

/// Answer headers that pages of other origins may read, in addition to those that they always may.
const EXPOSED: &str =
    "allow, etag, idempotency-replayed, location, registry-state, retry-after, www-authenticate";

/// How long a browser may cache the answer to a preflight request, in seconds.
const PREFLIGHT_AGE_S: &str = "600";

// For pages on the internet that access a private network (Private Network Access).
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The entrance to the routes.
#[derive(Clone)]
pub(crate) struct Door(Arc<Parts>);

struct Parts {
    /// The handlers, by index in [`table::ROUTES`].
    handlers: Vec<Handler>,
    gate: Arc<Gate>,
    names: Names,
    proxies: Proxies,
    /// The path under which a proxy serves the gateway; empty for none.
    base_path: String,
    /// Whether there is a separate listener for operators.
    has_operators: bool,
    /// Whether this process serves clients, or only reports its state.
    serves: bool,
    refusals: Arc<Refusals>,
    safeguards: Safeguards,
    compressor: Compressor,
    /// Cancelled when the gateway stops; unwanted bodies are read no further then.
    stopping: CancellationToken,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("names", &self.0.names).finish_non_exhaustive()
    }
}

/// What to do with a request.
enum Next {
    /// Pass it to the handler with this index, with the segments of its path and its caller.
    Handler(usize, Segments, Caller),
    Answer(Response),
}

/// Where a request comes from.
struct From {
    /// `None` in tests, which call the door directly.
    way: Option<Way>,
    /// The origin of the page that sends it, if a page does.
    origin: Option<HeaderValue>,
    said: Said,
    /// Whether the page may use the gateway, so that CORS headers permit it.
    is_allowed: bool,
}

impl From {
    fn peer(&self) -> Option<IpAddr> {
        self.way.map(|way| way.peer.ip())
    }
}

impl Door {
    /// The door to the gateway's routes.
    pub(crate) fn to(app: &Arc<App>) -> Self {
        Self::new(
            table::ROUTES.iter().map(|route| (route.handler)(app)).collect(),
            Arc::clone(&app.gate),
            &app.config,
            app.serves,
            Arc::clone(&app.sources.refusals),
            Arc::clone(&app.sources.answers),
            app.stopping.clone(),
        )
    }

    fn new(
        handlers: Vec<Handler>,
        gate: Arc<Gate>,
        config: &HttpConfig,
        serves: bool,
        refusals: Arc<Refusals>,
        answers: Arc<BodyBudget>,
        stopping: CancellationToken,
    ) -> Self {
        let (names, proxies, base_path) = (Names::of(config), Proxies::of(config), config.base_path.clone());
        let compressor = Compressor::new(answers);
        Self(Arc::new(Parts {
            handlers,
            gate,
            names,
            proxies,
            base_path,
            has_operators: config.operators.listen.is_some(),
            serves,
            refusals,
            safeguards: Safeguards::of(&config.tls),
            compressor,
            stopping,
        }))
    }

    /// A door behind which one handler answers at all addresses, without authentication.
    #[cfg(test)]
    pub(super) async fn to_one(handler: Handler, config: &HttpConfig, stopping: CancellationToken) -> Self {
        let handlers = vec![handler; table::ROUTES.len()];
        let (gate, answers) = (Gate::off().await, Arc::new(BodyBudget::new(1)));
        Self::new(handlers, gate, config, true, Arc::default(), answers, stopping)
    }

    /// Removes the base path from a request if it is there; a proxy may have removed it already.
    pub(super) fn enter<B>(&self, request: &mut Request<B>) {
        let base = &self.0.base_path;
        let path = request.uri().path_and_query().map(PathAndQuery::as_str);
        let path = path.and_then(|path| path.strip_prefix(base.as_str()));
        if let Some(path) = path.filter(|path| !base.is_empty() && path.starts_with('/'))
            && let Ok(path) = PathAndQuery::try_from(path)
        {
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = Some(path);
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        }
    }

    /// Whether a request asks for health, which is answered in any state of the gateway.
    pub(super) fn is_probe<B>(&self, request: &Request<B>, way: Option<&Way>) -> bool {
        self.find(request.uri().path(), way).is_some_and(|address| address.kind() == Kind::Probe)
    }

    /// Whether a request opens an event stream, which counts like a connection.
    pub(super) fn is_stream<B>(&self, request: &Request<B>, way: Option<&Way>) -> bool {
        let is_of_streams = |address: Address| address.kind() == Kind::Events;
        request.method() == Method::GET && self.find(request.uri().path(), way).is_some_and(is_of_streams)
    }

    /// Answers a request that has [entered](Self::enter) and may be beyond a limit.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        way: Option<Way>,
        too_many: Option<TooMany>,
    ) -> Response
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Sync + Unpin + 'static,
    {
        let said = self.0.proxies.said(way.map(|way| way.peer), request.headers());
        let mut from = From { way, origin: request.headers().get(ORIGIN).cloned(), said, is_allowed: false };
        let takes_gzip = compress::is_asked_for(request.headers());
        let hsts = self.0.safeguards.transport(way.as_ref(), &request);
        let judged = self.judge(&request, &mut from);
        let mut response = match (judged, too_many) {
            // A client that may not use the gateway must not learn that it is full.
            (Err(problem), Some(_)) if may_not_ask(&problem) => problem.into_response(),
            (_, Some(too_many)) => {
                let is_stream = self.is_stream(&request, way.as_ref());
                let told = is_stream.then(|| event_stream::turn_away(request.headers(), too_many.limit));
                match told.flatten() {
                    Some(told) => told,
                    None => turn_away(request, too_many).await,
                }
            }
            (Ok(Next::Answer(response)), None) => response,
            (Ok(Next::Handler(place, segments, caller)), None) => {
                self.hand_on(request, place, segments, caller).await
            }
            (Err(problem), None) => {
                debug!(
                    peer.addr = from.peer().map(|peer| peer.to_string()), method = %request.method(),
                    path = request.uri().path(), code = problem.code.as_str(), "refused a request"
                );
                // A client that is still sending gets to read the answer. One that waits for `100 Continue`
                // is not asked to send.
                if !request.body().is_end_stream() && !holds_body_back(request.headers()) {
                    let mut body = BodyDataStream::new(request.into_body());
                    discard(&mut body, &self.0.stopping).await;
                }
                problem.into_response()
            }
        };
        if let Some(Refused(code)) = response.extensions().get() {
            self.0.refusals.add(*code);
        }
        // A page cannot read the answer that begins a WebSocket.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            safeguards::add(response.headers_mut(), hsts);
            self.add_cors(response.headers_mut(), &from);
        }
        self.0.compressor.compress(response, takes_gzip).await
    }

    async fn hand_on<B>(
        &self,
        mut request: Request<B>,
        place: usize,
        segments: Segments,
        caller: Caller,
    ) -> Response
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Sync + 'static,
    {
        if request.method() == Method::HEAD {
            // Handled like GET; hyper sends only the head of the answer. Nothing is upgraded.
            *request.method_mut() = Method::GET;
            request.headers_mut().remove(UPGRADE);
            request.extensions_mut().insert(HeadOnly);
        }
        request.extensions_mut().insert(segments);
        request.extensions_mut().insert(caller);
        let or_problem =
            |rejection: Rejection| ready(Ok::<_, Infallible>(from_rejection(&rejection).into_response()));
        let handler = self.0.handlers[place].clone().recover(or_problem).unify();
        let answered = TowerToHyperService::new(warp::service(handler)).call(request).await;
        answered.unwrap_or_else(|never| match never {})
    }

    fn judge<B>(&self, request: &Request<B>, from: &mut From) -> Result<Next, Problem> {
        let authority = authority_of(request)?;
        let path = request.uri().path();
        let address = self.find(path, from.way.as_ref());
        let is_probe = address.is_some_and(|address| address.kind() == Kind::Probe);
        let host = authority.as_ref().map(Authority::as_str);
        if !is_probe {
            self.check_host(host, from)?;
        }
        self.check_origin(host, from, is_probe)?;

        let method = request.method().as_str();
        if !METHODS.contains(&method) {
            let detail = "the gateway does not know this method";
            return Err(Problem::new(ProblemCode::NotImplemented, detail));
        }
        check_coding(request.headers())?;
        let is_options = request.method() == Method::OPTIONS;
        if path == "*" {
            if is_options {
                return Ok(Next::Answer(allowed(table::allowed_somewhere())));
            }
            return Err(Problem::new(ProblemCode::InvalidTarget, "only OPTIONS asks for *"));
        }
        if path.is_empty() {
            let detail = "the target must be a path, or a URL with one";
            return Err(Problem::new(ProblemCode::InvalidTarget, detail));
        }
        if path == self.0.base_path && matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(Next::Answer(self.to_page(request.uri().query())));
        }
        let Some(address) = address else { return Err(self.nothing_here()) };
        if is_options {
            let mut response = allowed(address.allow());
            if from.is_allowed {
                add_preflight(response.headers_mut(), request.headers(), &address);
            }
            return Ok(Next::Answer(response));
        }
        if address.is_spoilt_by_slash(method, path) {
            let detail = "with this method, an address has no slash at its end; what has one may be all that is left \
                          of the address of something called `.` or `..`";
            return Err(Problem::new(ProblemCode::NotFound, detail));
        }
        match address.route(method) {
            Some(place) => {
                let segments = address.segments(path);
                let caller = caller::admit(&self.0.gate, &table::ROUTES[place], &segments, request)?;
                Ok(Next::Handler(place, Segments(segments), caller))
            }
            None => Err(Problem::method_not_allowed(address.allow())),
        }
    }

    fn nothing_here(&self) -> Problem {
        if self.0.serves {
            return Problem::new(ProblemCode::NotFound, "there is nothing at this address");
        }
        let detail = "this process only executes orders (node.roles); ask one with the role gateway";
        Problem::new(ProblemCode::NoGateway, detail)
    }

    /// The address at a path, for requests that came this way.
    fn find(&self, path: &str, way: Option<&Way>) -> Option<Address> {
        let is_elsewhere = self.0.has_operators && way.is_some_and(|way| !way.is_for_operators);
        let is_here = |address: &Address| {
            (self.0.serves || matches!(address.kind(), Kind::Probe | Kind::Operator))
                && !(is_elsewhere && address.is_for_operators())
        };
        table::find(path).filter(is_here)
    }

    /// Only requests for this gateway are answered. A trusted proxy may forward any host, unless it connects
    /// over loopback, where it cannot be distinguished from a browser.
    fn check_host(&self, host: Option<&str>, from: &From) -> Result<(), Problem> {
        let Some(host) = host else { return Ok(()) };
        let is_named_by_proxy = || {
            let is_no_browser = |way: Way| match way.peer {
                Peer::Net(address) => !address.ip().to_canonical().is_loopback(),
                Peer::Unix => true,
            };
            from.said.host.is_some() && from.way.is_some_and(is_no_browser)
        };
        if self.0.names.host(host_and_port(host).0) != Known::No || is_named_by_proxy() {
            return Ok(());
        }
        self.0.refusals.log_host(host, from.peer());
        let detail = "this gateway is not known by the name in `Host`, and answers only to names that it knows; \
                      list the name in http.hosts, or set http.public_url";
        Err(Problem::new(ProblemCode::UnknownHost, detail))
    }

    /// Browsers name the origin of the page; only the gateway's own pages and those of listed origins may
    /// use it.
    fn check_origin(&self, host: Option<&str>, from: &mut From, is_probe: bool) -> Result<(), Problem> {
        let Some(origin) = &from.origin else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        from.is_allowed = self.0.names.allow(origin, host, &from.said);
        if from.is_allowed || is_probe {
            return Ok(());
        }
        self.0.refusals.log_origin(origin, host, from.peer());
        let detail = "pages of this origin may not use the gateway; list it in http.origins, or, where it is \
                      the gateway's own behind a proxy, set http.public_url";
        Err(Problem::new(ProblemCode::OriginNotAllowed, detail))
    }

    /// Redirects to the page's path with a slash at its end, because the page's links are relative.
    fn to_page(&self, query: Option<&str>) -> Response {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
        if let Ok(page) = HeaderValue::try_from(format!("{}/{query}", self.0.base_path)) {
            response.headers_mut().insert(LOCATION, page);
        }
        response
    }

    /// Permits pages of other origins that may use the gateway to read its answers (CORS, in the Fetch
    /// standard).
    fn add_cors(&self, headers: &mut HeaderMap, from: &From) {
        if self.0.names.allow_all_origins() {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            headers.append(VARY, HeaderValue::from_static("origin"));
            let Some(origin) = from.origin.as_ref().filter(|_| from.is_allowed) else { return };
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

/// Whether a request is for another host, or from a page that may not use the gateway.
fn may_not_ask(problem: &Problem) -> bool {
    matches!(
        problem.code,
        ProblemCode::InvalidHost | ProblemCode::UnknownHost | ProblemCode::OriginNotAllowed
    )
}

/// The answer to `OPTIONS`.
fn allowed(allow: HeaderValue) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(ALLOW, allow);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers the preflight request of a browser.
fn add_preflight(headers: &mut HeaderMap, asked: &HeaderMap, address: &Address) {
    if !asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return;
    }
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, address.allow());
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE_S));
    // All requested headers are permitted: those that the gateway does not know do no harm.
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    if asked.contains_key(REQUEST_PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
}

/// Only a single `chunked` is accepted (RFC 9112, section 6.1). hyper decodes it whatever stands before it,
/// while an intermediary may have seen another end of the request (request smuggling).
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Problem::unknown_transfer_coding()),
    }
}

/// The host that a request is for: in its target, or else in `Host` (RFC 9112, section 3.2). HTTP/1.0 does
/// not require one.
fn authority_of<B>(request: &Request<B>) -> Result<Option<Authority>, Problem> {
    let bad = |detail: &str| Err(Problem::new(ProblemCode::InvalidHost, detail));
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return bad("there must be only one `Host`"),
        (None, _) if request.version() >= Version::HTTP_11 => return bad("`Host` is missing"),
        (host, _) => host,
    };
    let host = match host.map(|host| Authority::try_from(host.as_bytes())) {
        Some(Ok(host)) if is_host_and_port(&host) => Some(host),
        None => None,
        Some(_) => return bad("`Host` must be a host, optionally with a port"),
    };
    match request.uri().authority() {
        Some(target) if !is_host_and_port(target) => bad("the target must be a host, optionally with a port"),
        Some(target) => Ok(Some(target.clone())),
        None => Ok(host),
    }
}

fn is_host_and_port(authority: &Authority) -> bool {
    let (host, all) = (authority.host(), authority.as_str());
    let port = all.strip_prefix(host).map(|port| port.strip_prefix(':').unwrap_or(port));
    !host.is_empty() && port.is_some_and(|port| port.is_empty() || authority.port_u16().is_some())
}
