//! The table of all addresses: who uses each, which methods it accepts, and what answers them. The `door`
//! derives `Allow`, `HEAD`, `OPTIONS`, CORS, 404 and 405 from it, and a test derives the OpenAPI document.

use std::sync::{Arc, LazyLock};

use hyper::header::HeaderValue;

use self::Kind::{Client, Events, Operator, Probe, WebSocket};
use self::Needs::{Anything, Channel, EachChannel, Event, Gateway, Nothing as NoRight, Order, Zone};
use super::described::Answer::{self, Either, Json, Object, Text, Upgrade};
use super::described::{
    Body, Description, FILTER, LISTED, PAGE, RECORDS, SINCE, SNAPSHOT, STREAM, WRITE_PROVIDER, WRITE_RECORD,
};
use super::routes::{
    App, Handler, auth, bridge, config, event_types, events, health, jobs, orders, page, registry, sockets,
    zones,
};
use crate::access::{Action, Quota};
use crate::protocol::ProblemCode;
use crate::registry::RegistryKind;

/// The schemas of statistics: those of one node, or of all nodes.
const STATS: &[&str] = &["StatsView", "FleetView"];

/// The methods that the gateway knows; others are answered with 501.
pub(super) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Who uses an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Health checks, at any of the paths where tools look for them.
    Probe,
    /// Operators. Like those of health checks, these addresses exist in a process that only executes
    /// orders.
    Operator,
    /// Clients, publishers and workers.
    Client,
    /// Clients, by upgrading to a WebSocket.
    WebSocket,
    /// Clients, by an answer that does not end.
    Events,
}

/// The right that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// None: it concerns nobody in particular.
    Nothing,
    /// A right to the gateway as a whole.
    Gateway(Action),
    /// A right to the zone that the first braces of the pattern match.
    Zone(Action),
    /// A right to the type of events that the first braces match.
    Event(Action),
    /// A right to the order that the first braces match, or, for actions on channels, to its channel.
    Order(Action),
    /// A right to this channel.
    Channel(Action, &'static str),
    /// Any right: the answer leaves out what the caller may not see.
    Anything,
    /// A right to each channel that is followed, which the shard or the handler checks.
    EachChannel,
}

/// A method at an address, or at many that differ in the segments in braces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// Never `HEAD`, which every `GET` route answers, nor `OPTIONS`, which every route answers.
    pub(super) method: &'static str,
    pub(super) pattern: &'static str,
    pub(super) kind: Kind,
    pub(super) needs: Needs,
    /// Whether it is for operators only: if they have a listener, it exists only there.
    is_for_operators: bool,
    /// The problem for something that belongs to somebody else: the same as if it did not exist.
    pub(super) unknown: ProblemCode,
    /// The limit that a request counts against, in addition to what the handler counts.
    pub(super) takes_of: Option<Quota>,
    /// Makes the handler.
    pub(super) handler: fn(&Arc<App>) -> Handler,
    /// For machine-readable documentation.
    pub(super) description: Description,
    /// How much of the pattern precedes the first brace: nearly all addresses differ in that part.
    plain: usize,
}

type Make = fn(&Arc<App>) -> Handler;

/// For each method, the function that begins a row.
macro_rules! methods {
    ($($name:ident: $method:literal)+) => {
        $(const fn $name(pattern: &'static str, handler: Make, summary: &'static str) -> Route {
            route($method, pattern, handler, summary)
        })+
    };
}

methods!(get: "GET" post: "POST" put: "PUT" patch: "PATCH" delete: "DELETE");

const fn route(method: &'static str, pattern: &'static str, handler: Make, summary: &'static str) -> Route {
    let (bytes, mut plain) = (pattern.as_bytes(), 0);
    while plain < bytes.len() && bytes[plain] != b'{' {
        plain += 1;
    }
    // Denied to everybody but operators unless the row says otherwise.
    let needs = Needs::Gateway(Action::Admin);
    let is_for_operators = true;
    let (description, unknown) = (Description::of(summary), ProblemCode::UnknownOrder);
    Route {
        method,
        pattern,
        kind: Client,
        needs,
        is_for_operators,
        unknown,
        takes_of: None,
        handler,
        description,
        plain,
    }
}

/// A health check, which answers with JSON.
const fn probe(pattern: &'static str, handler: Make, summary: &'static str, answer: &'static str) -> Route {
    get(pattern, handler, summary).of(Probe).needs(NoRight).gives(Json(200, answer))
}

const fn web_socket(pattern: &'static str, handler: Make, summary: &'static str) -> Route {
    get(pattern, handler, summary).of(WebSocket).needs(EachChannel).gives(Upgrade).or(&[400])
}

/// What an outside worker sends about orders.
const fn job(pattern: &'static str, handler: Make, summary: &'static str, answer: &'static str) -> Route {
    let row = post(pattern, handler, summary).needs(Gateway(Action::Work));
    row.gives(Json(200, answer)).or(&[404, 409])
}

impl Route {
    /// Sets who uses it, if not clients.
    const fn of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the right that a request needs. Routes that need the right of operators are for operators only.
    const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self.is_for_operators = matches!(needs, Gateway(Action::Admin));
        self
    }

    /// Marks a route for operators only that needs no right.
    const fn for_operators(mut self) -> Self {
        self.is_for_operators = true;
        self
    }

    /// Sets the problem for something that belongs to somebody else.
    const fn hides_as(mut self, unknown: ProblemCode) -> Self {
        self.unknown = unknown;
        self
    }

    /// Sets the limit that a request counts against.
    const fn counts_as(mut self, quota: Quota) -> Self {
        self.takes_of = Some(quota);
        self
    }

    /// Marks a route that writes records to a registry.
    const fn writes_to(self, channel: &'static str) -> Self {
        self.needs(Channel(Action::Registry, channel)).counts_as(Quota::Publishes)
    }

    /// Its query parameters.
    const fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.description.query = query;
        self
    }

    const fn takes(mut self, body: Body) -> Self {
        self.description.body = body;
        self
    }

    /// The answer to a successful request.
    const fn gives(mut self, answer: Answer) -> Self {
        self.description.answer = answer;
        self
    }

    /// The statuses of its own problems, in addition to those of all addresses of this kind, and of all routes
    /// that take a body.
    const fn or(mut self, problems: &'static [u16]) -> Self {
        self.description.problems = problems;
        self
    }
}

/// The routes of a registry's records.
macro_rules! records {
    ($kind:ident at $address:literal, $key:literal: $These:literal, $these:literal, $One:literal, $one:literal, $write:ident) => {{
        const KIND: RegistryKind = RegistryKind::$kind;
        const CHANNEL: &str = KIND.channel_name();
        const RECORD: &str = concat!($address, "/{", $key, "}");
        [
            get(
                $address,
                |app| registry::list(app, KIND),
                concat!($These, ", filtered by any of their fields"),
            )
            .needs(Channel(Action::Subscribe, CHANNEL))
            .query(RECORDS)
            .gives(Json(200, "RecordList"))
            .or(&[400]),
            post($address, |app| registry::add(app, KIND), concat!("Add ", $one))
                .writes_to(CHANNEL)
                .query($write)
                .takes(Body::Record)
                .gives(Object(201))
                .or(&[404, 409]),
            put($address, |app| registry::set_all(app, KIND), concat!("Replace all ", $these, " with these"))
                .writes_to(CHANNEL)
                .takes(Body::Records)
                .gives(Json(200, "RecordsSet")),
            delete($address, |app| registry::clear(app, KIND), concat!("Remove all ", $these))
                .writes_to(CHANNEL)
                .gives(Json(200, "RecordsSet")),
            get(RECORD, |app| registry::get(app, KIND), $One)
                .needs(Channel(Action::Subscribe, CHANNEL))
                .gives(Object(200))
                .or(&[400, 404]),
            put(RECORD, |app| registry::put(app, KIND), concat!("Add ", $one, ", or replace it"))
                .writes_to(CHANNEL)
                .query($write)
                .takes(Body::Record)
                .gives(Object(200))
                .or(&[404, 412]),
            patch(
                RECORD,
                |app| registry::patch(app, KIND),
                concat!("Change ", $one, " by a merge patch (RFC 7396)"),
            )
            .writes_to(CHANNEL)
            .query($write)
            .takes(Body::Record)
            .gives(Object(200))
            .or(&[404, 412]),
            delete(RECORD, |app| registry::remove(app, KIND), concat!("Remove ", $one))
                .writes_to(CHANNEL)
                .query(WRITE_RECORD)
                .or(&[400, 404, 412]),
            post(
                concat!($address, "/{", $key, "}/heartbeat"),
                |app| registry::renew(app, KIND),
                concat!("Renew ", $one, ", which restarts its time to live"),
            )
            .writes_to(CHANNEL)
            .query($write)
            .gives(Object(200))
            .or(&[400, 404]),
        ]
    }};
}

/// The first match counts, so literal segments precede braces. All methods of an address are adjacent.
pub(super) static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let providers = records!(
        Providers at "/api/providers", "userId":
        "Providers", "providers", "A provider", "a provider", WRITE_PROVIDER
    );
    let active_orders = records!(
        ActiveOrders at "/api/active-orders", "orderId":
        "Active orders", "active orders", "An active order", "an active order", WRITE_RECORD
    );
    [SINGLE, &providers, &active_orders].concat()
});

/// The routes that exist once.
const SINGLE: &[Route] = &[
    get("/", page::index, "A page for traders and operators").needs(NoRight).gives(Text("text/html")),
    get("/mark.svg", page::mark, "The icon of the page").needs(NoRight).gives(Text("image/svg+xml")),
    get("/assets/{file}", page::asset, "The scripts and styles of the page")
        .needs(NoRight)
        .gives(Text("text/javascript"))
        .or(&[404]),
    get("/openapi.json", page::openapi, "This document").needs(NoRight).gives(Object(200)),
    get("/asyncapi.json", page::asyncapi, "The WebSockets, as AsyncAPI 3").needs(NoRight).gives(Object(200)),
    probe("/health", health::whole, "The state of the gateway", "HealthView"),
    probe("/health/live", health::live, "Whether the process works", "Live"),
    probe(
        "/health/ready",
        health::ready,
        "Whether the gateway may be sent traffic; 503 with the same body if it may not",
        "HealthView",
    ),
    probe(
        "/health/redis",
        health::redis,
        "The state of Redis; 503 with the same body while it is away",
        "RedisView",
    ),
    probe("/ws/health", health::whole, "The state of the gateway", "HealthView"),
    probe("/api/ws/ws/health", health::whole, "The state of the gateway", "HealthView"),
    get("/metrics", health::metrics, "Counters for Prometheus")
        .of(Probe)
        .needs(NoRight)
        .for_operators()
        .gives(Text("text/plain"))
        .or(&[500]),
    get("/ws/stats", health::stats, "Counters and open connections, or the nodes")
        .of(Operator)
        .query(LISTED)
        .gives(Either(200, STATS))
        .or(&[400]),
    get("/api/ws/ws/stats", health::stats, "Counters and open connections, or the nodes")
        .of(Operator)
        .query(LISTED)
        .gives(Either(200, STATS))
        .or(&[400]),
    get("/ws/stats/{connection}", health::connection, "Everything known about an open connection")
        .of(Operator)
        .gives(Json(200, "ConnectionStory"))
        .or(&[404]),
    delete("/ws/stats/{connection}", health::disconnect, "Close an open connection")
        .of(Operator)
        .query(&[("reconnect", "`true`: tell its client to reconnect at once, possibly to another gateway.")])
        .or(&[400, 404]),
    get("/api/config", config::show, "The settings in effect, and where each came from")
        .of(Operator)
        .gives(Json(200, "ConfigView")),
    get(
        "/api/bridge/subscriptions",
        bridge::subscriptions,
        "Which events are exchanged with other processes, with counters",
    )
    .gives(Json(200, "BridgeSubscriptions")),
    post(
        "/api/bridge/subscriptions",
        bridge::set,
        "Set when to subscribe to a type of events of other processes",
    )
    .takes(Body::Json("SetSubscription"))
    .gives(Json(200, "BridgeSubscriptions"))
    .or(&[404]),
    web_socket("/ws", sockets::any, "WebSocket without subscriptions"),
    web_socket("/ws/market/{zone}", sockets::market, "WebSocket of a zone").query(&[SINCE, SNAPSHOT]),
    web_socket("/ws/events", sockets::events, "WebSocket of events").query(FILTER),
    web_socket("/ws/orders/{order}", sockets::order, "WebSocket of an order").query(&[SINCE]),
    web_socket("/api/orders/status/{order}", sockets::order, "WebSocket of an order").query(&[SINCE]),
    get("/sse", events::stream, "Channels as server-sent events")
        .of(Events)
        .needs(EachChannel)
        .query(STREAM)
        .gives(Answer::Events)
        .or(&[400, 401, 404]),
    get("/api/zones", zones::list, "The zones that have been published to")
        .needs(Anything)
        .gives(Json(200, "ZoneList")),
    delete("/api/zones/{zone}", zones::remove, "Remove all prices of a zone")
        .needs(Zone(Action::Registry))
        .counts_as(Quota::Publishes)
        .or(&[400, 404]),
    post("/api/zones/{zone}/prices", zones::publish, "Publish one price, an array, or lines")
        .needs(Zone(Action::Publish))
        .takes(Body::Prices)
        .gives(Json(200, "Accepted")),
    get("/api/zones/{zone}/latest", zones::latest, "The latest price of each key")
        .needs(Zone(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 500]),
    get("/api/zones/{zone}/history", zones::history, "Entries from the log")
        .needs(Zone(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 410, 500]),
    delete("/api/zones/{zone}/keys/{key}", zones::remove_key, "Remove the price of a key")
        .needs(Zone(Action::Publish))
        .counts_as(Quota::Publishes)
        .or(&[400, 404]),
    post("/api/events/{type}", event_types::publish, "Publish one event, an array, or lines")
        .needs(Event(Action::Publish))
        .takes(Body::Events)
        .gives(Json(200, "Accepted"))
        .or(&[404]),
    get("/api/events/{type}/latest", event_types::latest, "The latest event of each key")
        .needs(Event(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 404, 500]),
    get("/api/events/{type}/history", event_types::history, "Events from the log")
        .needs(Event(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 404, 410, 500]),
    get("/api/orders", orders::list, "Orders, newest first")
        .needs(Gateway(Action::Order))
        .query(&[
            ("status", "Only orders with this status."),
            ("limit", "The most orders to return."),
            ("after", "Only orders placed before this one."),
        ])
        .gives(Json(200, "OrderList"))
        .or(&[400, 404]),
    post("/api/orders/execute", orders::execute, "Place an order")
        .needs(Gateway(Action::Order))
        .counts_as(Quota::Orders)
        .takes(Body::Order)
        .gives(Json(202, "OrderPlaced"))
        .or(&[409]),
    get("/api/orders/schema", orders::schema, "What an order must look like, as a JSON Schema")
        .needs(Gateway(Action::Order))
        .gives(Object(200)),
    get("/api/orders/dead-letters", orders::dead_letters, "Orders whose every attempt failed")
        .needs(Gateway(Action::Order))
        .query(PAGE)
        .gives(Json(200, "DeadLetterList"))
        .or(&[400, 404]),
    post("/api/orders/dead-letters/{order}/retry", orders::retry, "Place a dead letter's order again")
        .needs(Order(Action::Order))
        .counts_as(Quota::Orders)
        .hides_as(ProblemCode::UnknownDeadLetter)
        .query(&[("force", "Even if it may have been executed after all.")])
        .gives(Json(202, "OrderPlaced"))
        .or(&[400, 404, 409]),
    get("/api/orders/{order}", orders::get, "An order with its updates")
        .needs(Order(Action::Subscribe))
        .gives(Json(200, "OrderView"))
        .or(&[400, 404]),
    post("/api/orders/{order}/cancel", orders::cancel, "End an order before it is submitted")
        .needs(Order(Action::Order))
        .gives(Json(202, "OrderCancelling"))
        .or(&[400, 404, 409]),
    post("/api/orders/{order}/updates", orders::update, "Report on an order that is executed elsewhere")
        .needs(Order(Action::Publish))
        .takes(Body::Updates)
        .gives(Json(200, "Accepted"))
        .or(&[409]),
    job("/api/jobs/claim", jobs::claim, "Claim orders to execute", "Offer").takes(Body::Json("ClaimRequest")),
    job("/api/jobs/{job}/extend", jobs::extend, "Extend the lease of a job", "LeaseHeld")
        .takes(Body::Json("ExtendRequest")),
    job("/api/jobs/{job}/progress", jobs::progress, "Report the progress of an order", "ReportAccepted")
        .takes(Body::Report),
    job("/api/jobs/{job}/complete", jobs::complete, "Report that an order was executed", "ReportAccepted")
        .takes(Body::Report),
    job("/api/jobs/{job}/release", jobs::release, "Give a job back", "JobOutcome")
        .takes(Body::Json("ReleaseRequest")),
    job("/api/jobs/{job}/fail", jobs::fail, "Report that an order could not be executed", "JobOutcome")
        .takes(Body::Json("FailRequest")),
    get("/api/registry", registry::status, "The state of the registries, and how far they lag")
        .of(Operator)
        .gives(Json(200, "RegistryStatus")),
    post("/api/registry/sync", registry::sync, "Read the Redis keys of other programs")
        .query(&[("replace", "1 to replace records that are already known.")])
        .gives(Json(200, "RegistrySync"))
        .or(&[400, 404]),
    post("/api/auth/revoke", auth::revoke, "Revoke a token, a key, or everything issued to a subject")
        .takes(Body::Json("Revoke"))
        .gives(Json(200, "RevokedOn"))
        .or(&[404]),
];

/// An address: its routes, one for each method.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    routes: &'static [Route],
    /// The index of the first one in [`ROUTES`].
    place: usize,
}

/// The address that a path belongs to. One slash at the end does not matter.
pub(super) fn find(path: &str) -> Option<Address> {
    let place = ROUTES.iter().position(|route| route.fits(path))?;
    Some(Address::at(place))
}

/// Whether a path begins like one of the addresses.
pub(super) fn begins_like_one(path: &str) -> bool {
    let first = |path: &'_ str| path.split('/').nth(1).map(str::to_owned);
    ROUTES.iter().any(|route| first(route.pattern) == first(path))
}

/// The methods of all addresses together, for `OPTIONS *`.
pub(super) fn allowed_somewhere() -> HeaderValue {
    allowed(&ROUTES)
}

impl Address {
    fn at(place: usize) -> Self {
        let same = ROUTES[place..].iter().take_while(|route| route.pattern == ROUTES[place].pattern);
        Self { routes: &ROUTES[place..place + same.count()], place }
    }

    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let first = |place: &usize| *place == 0 || ROUTES[place - 1].pattern != ROUTES[*place].pattern;
        (0..ROUTES.len()).filter(first).map(Self::at)
    }

    pub(super) fn pattern(&self) -> &'static str {
        self.routes[0].pattern
    }

    pub(super) fn kind(&self) -> Kind {
        self.routes[0].kind
    }

    /// Whether it is for operators only. This is the same for all methods of an address.
    pub(super) fn is_for_operators(&self) -> bool {
        self.routes[0].is_for_operators
    }

    /// The methods that it accepts.
    #[cfg(test)]
    pub(super) fn methods(&self) -> impl Iterator<Item = &'static str> {
        self.routes.iter().map(|route| route.method)
    }

    /// The index in [`ROUTES`] of the route for a method. `HEAD` is handled like `GET`.
    pub(super) fn route(&self, method: &str) -> Option<usize> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.routes.iter().position(|route| route.method == method).map(|place| self.place + place)
    }

    /// Whether a slash at the end of a path does matter. Browsers and proxies remove `.` and `..` from
    /// addresses, so `DELETE …/keys/..` arrives as `DELETE …/`, which would remove more than was asked for.
    pub(super) fn is_spoilt_by_slash(&self, method: &str, path: &str) -> bool {
        matches!(method, "PUT" | "PATCH" | "DELETE") && path.ends_with('/') && self.pattern() != "/"
    }

    /// The value of `Allow`.
    pub(super) fn allow(&self) -> HeaderValue {
        allowed(self.routes)
    }

    /// The segments of a path that match the braces in the pattern, not decoded.
    pub(super) fn segments(&self, path: &str) -> Vec<String> {
        let named = self.pattern().split('/').zip(path.split('/')).filter(|(name, _)| name.starts_with('{'));
        named.map(|(_, segment)| segment.to_owned()).collect()
    }
}

impl Route {
    fn fits(&self, path: &str) -> bool {
        if self.pattern == "/" || path == "/" {
            return self.pattern == path;
        }
        if !path.starts_with(&self.pattern[..self.plain]) {
            return false;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let (mut expected, mut found) = (self.pattern.split('/'), path.split('/'));
        loop {
            match (expected.next(), found.next()) {
                (None, None) => return true,
                (Some(expected), Some(found)) => {
                    let fits = if expected.starts_with('{') { !found.is_empty() } else { expected == found };
                    if !fits {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }
}

/// The methods that the routes accept, with `HEAD` and `OPTIONS`.
fn allowed(routes: &[Route]) -> HeaderValue {
    let is_taken = |method: &&str| {
        let asked = if *method == "HEAD" { "GET" } else { method };
        *method == "OPTIONS" || routes.iter().any(|route| route.method == asked)
    };
    let text = METHODS.into_iter().filter(is_taken).collect::<Vec<_>>().join(", ");
    HeaderValue::from_str(&text).expect("names of methods are visible characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_the_first_address_that_fits() {
        for (path, expected) in [
            ("/", Some("/")),
            ("//", None),
            ("", None),
            ("/health", Some("/health")),
            ("/health/", Some("/health")),
            ("/health//", None),
            ("/healthy", None),
            ("/ws/health", Some("/ws/health")),
            ("/api/zones/health/prices", Some("/api/zones/{zone}/prices")),
            ("/api/zones//prices", None),
            ("/api/zones/a%2Fb/latest", Some("/api/zones/{zone}/latest")),
            ("/api/orders/execute", Some("/api/orders/execute")),
            ("/api/orders/x", Some("/api/orders/{order}")),
            ("/api/orders/x/y", None),
            ("/api/jobs/claim", Some("/api/jobs/claim")),
            ("/api/jobs/x/dance", None),
        ] {
            assert_eq!(find(path).map(|address| address.pattern()), expected, "{path}");
        }
    }

    #[test]
    fn segments_are_what_stands_in_place_of_braces() {
        for (path, expected) in [
            ("/api/zones/a%2Fb/keys/c/", &["a%2Fb", "c"][..]),
            ("/ws/market/pjm", &["pjm"]),
            ("/api/zones", &[]),
        ] {
            assert_eq!(find(path).unwrap().segments(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_for_operators_is_so_with_each_method() {
        let of_operators: Vec<_> = Address::all().filter(Address::is_for_operators).collect();
        let patterns: Vec<_> = of_operators.iter().map(Address::pattern).collect();
        assert_eq!(
            patterns,
            [
                "/metrics",
                "/ws/stats",
                "/api/ws/ws/stats",
                "/ws/stats/{connection}",
                "/api/config",
                "/api/bridge/subscriptions",
                "/api/registry",
                "/api/registry/sync",
                "/api/auth/revoke",
            ]
        );
        for address in Address::all() {
            let differs =
                address.routes.iter().find(|route| route.is_for_operators != address.is_for_operators());
            assert!(differs.is_none(), "{differs:?}");
        }
    }

    #[test]
    fn allow_names_what_goes() {
        let allow = |path| find(path).unwrap().allow();
        assert_eq!(allow("/ws"), "GET, HEAD, OPTIONS");
        assert_eq!(allow("/api/zones/x/prices"), "POST, OPTIONS");
        assert_eq!(allow("/api/zones/x"), "DELETE, OPTIONS");
        assert_eq!(allowed_somewhere(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }

    #[test]
    fn an_address_does_not_stand_behind_one_that_takes_its_place() {
        for (place, route) in ROUTES.iter().enumerate() {
            let found = find(&route.pattern.replace(['{', '}'], "")).unwrap();
            assert_eq!((found.pattern(), found.kind()), (route.pattern, route.kind));
            assert_eq!(found.route(route.method), Some(place), "{route:?}");
            assert!(METHODS.contains(&route.method), "{route:?}");
        }
    }
}
