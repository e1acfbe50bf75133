//! The table of all addresses: who uses each, which methods it accepts, and what answers them. The `door`
//! derives `Allow`, `HEAD`, `OPTIONS`, CORS, 404 and 405 from it, and a test derives the OpenAPI document.

use std::sync::Arc;

use hyper::header::HeaderValue;

use self::Kind::{Client, Events, Probe, Told, WebSocket};
use self::Needs::{Anything, Channel, EachChannel, Event, Gateway, Nothing as NoRight, Order, Zone};
use super::described::Answer::{self, Either, Json, Object, Text, Upgrade};
use super::described::{
    Body, Description, FILTER, JOB, LISTED, PAGE, RECORD, RECORDS, SINCE, SNAPSHOT, STREAM, WRITE_PROVIDER,
    WRITE_RECORD,
};
use super::routes::registry::{self, active_orders, providers};
use super::routes::{
    App, Handler, auth, bridge, config, event_types, events, health, jobs, orders, page, sockets, zones,
};
use crate::access::{Action, Quota};
use crate::protocol::ProblemCode;
use crate::registry::RegistryKind;

/// The channels of registries.
const PROVIDERS: &str = RegistryKind::Providers.channel_name();
const ACTIVE_ORDERS: &str = RegistryKind::ActiveOrders.channel_name();

/// Of one node, or of all.
const STATS: &[&str] = &["StatsView", "FleetView"];

/// The methods that the gateway knows; others are answered with 501.
pub(super) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Who uses an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Health checks, by whatever name they use.
    Probe,
    /// Operators. Like those of health checks, these addresses exist in a process that only executes
    /// orders.
    Told,
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
    /// A right to the zone in the first segment.
    Zone(Action),
    /// A right to the type of events in the first segment.
    Event(Action),
    /// A right to the order in the first segment, or, for actions on channels, to the order's channel.
    Order(Action),
    /// A right to this channel.
    Channel(Action, &'static str),
    /// Any right: the answer leaves out what the caller may not see.
    Anything,
    /// A right to each channel that is followed, which the shard or the handler checks.
    EachChannel,
}

/// A method at an address, or at many that differ in the segments in braces.
#[derive(Debug)]
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

const fn get(pattern: &'static str, kind: Kind, handler: Make, summary: &'static str) -> Route {
    route("GET", pattern, kind, handler, summary)
}

const fn post(pattern: &'static str, kind: Kind, handler: Make, summary: &'static str) -> Route {
    route("POST", pattern, kind, handler, summary)
}

const fn put(pattern: &'static str, kind: Kind, handler: Make, summary: &'static str) -> Route {
    route("PUT", pattern, kind, handler, summary)
}

const fn patch(pattern: &'static str, kind: Kind, handler: Make, summary: &'static str) -> Route {
    route("PATCH", pattern, kind, handler, summary)
}

const fn delete(pattern: &'static str, kind: Kind, handler: Make, summary: &'static str) -> Route {
    route("DELETE", pattern, kind, handler, summary)
}

const fn route(
    method: &'static str,
    pattern: &'static str,
    kind: Kind,
    handler: Make,
    summary: &'static str,
) -> Route {
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
        kind,
        needs,
        is_for_operators,
        unknown,
        takes_of: None,
        handler,
        description,
        plain,
    }
}

impl Route {
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

    /// The statuses of its own problems, in addition to those of all addresses of this kind.
    const fn or(mut self, problems: &'static [u16]) -> Self {
        self.description.problems = problems;
        self
    }
}

/// The first match counts, so literal segments precede braces. All methods of an address are adjacent.
pub(super) const ROUTES: &[Route] = &[
    get("/", Client, page::index, "A page for traders and operators").needs(NoRight).gives(Text("text/html")),
    get("/mark.svg", Client, page::mark, "The icon of the page").needs(NoRight).gives(Text("image/svg+xml")),
    get("/assets/{file}", Client, page::asset, "The scripts and styles of the page")
        .needs(NoRight)
        .gives(Text("text/javascript"))
        .or(&[404]),
    get("/openapi.json", Client, page::openapi, "This document").needs(NoRight).gives(Object(200)),
    get("/asyncapi.json", Client, page::asyncapi, "The WebSockets, as AsyncAPI 3")
        .needs(NoRight)
        .gives(Object(200)),
    get("/health", Probe, health::whole, "The state of the gateway")
        .needs(NoRight)
        .gives(Json(200, "HealthView")),
    get("/health/live", Probe, health::live, "Whether the process works")
        .needs(NoRight)
        .gives(Json(200, "Live")),
    get(
        "/health/ready",
        Probe,
        health::ready,
        "Whether the gateway may be sent traffic; 503 with the same body if it may not",
    )
    .needs(NoRight)
    .gives(Json(200, "HealthView")),
    get("/health/redis", Probe, health::redis, "The state of Redis; 503 with the same body while it is away")
        .needs(NoRight)
        .gives(Json(200, "RedisView")),
    get("/ws/health", Probe, health::whole, "The state of the gateway")
        .needs(NoRight)
        .gives(Json(200, "HealthView")),
    get("/api/ws/ws/health", Probe, health::whole, "The state of the gateway")
        .needs(NoRight)
        .gives(Json(200, "HealthView")),
    get("/metrics", Probe, health::metrics, "Counters for Prometheus")
        .needs(NoRight)
        .for_operators()
        .gives(Text("text/plain"))
        .or(&[500]),
    get("/ws/stats", Told, health::stats, "Counters and open connections, or the nodes")
        .needs(Gateway(Action::Admin))
        .query(LISTED)
        .gives(Either(200, STATS))
        .or(&[400]),
    get("/api/ws/ws/stats", Told, health::stats, "Counters and open connections, or the nodes")
        .needs(Gateway(Action::Admin))
        .query(LISTED)
        .gives(Either(200, STATS))
        .or(&[400]),
    get("/ws/stats/{connection}", Told, health::connection, "Everything known about an open connection")
        .needs(Gateway(Action::Admin))
        .gives(Json(200, "ConnectionStory"))
        .or(&[404]),
    delete("/ws/stats/{connection}", Told, health::disconnect, "Close an open connection")
        .needs(Gateway(Action::Admin))
        .query(&[("reconnect", "`true`: tell its client to reconnect at once, possibly to another gateway.")])
        .or(&[400, 404]),
    get("/api/config", Told, config::show, "The settings in effect, and where each came from")
        .needs(Gateway(Action::Admin))
        .gives(Json(200, "ConfigView")),
    get(
        "/api/bridge/subscriptions",
        Client,
        bridge::subscriptions,
        "Which events are exchanged with other processes, with counters",
    )
    .needs(Gateway(Action::Admin))
    .gives(Json(200, "BridgeSubscriptions")),
    post(
        "/api/bridge/subscriptions",
        Client,
        bridge::set,
        "Set when to subscribe to a type of events of other processes",
    )
    .needs(Gateway(Action::Admin))
    .takes(Body::Json("SetSubscription"))
    .gives(Json(200, "BridgeSubscriptions"))
    .or(&[400, 404, 408, 413, 415, 422]),
    get("/ws", WebSocket, sockets::any, "WebSocket without subscriptions")
        .needs(EachChannel)
        .gives(Upgrade)
        .or(&[400]),
    get("/ws/market/{zone}", WebSocket, sockets::market, "WebSocket of a zone")
        .needs(EachChannel)
        .query(&[SINCE, SNAPSHOT])
        .gives(Upgrade)
        .or(&[400]),
    get("/ws/events", WebSocket, sockets::events, "WebSocket of events")
        .needs(EachChannel)
        .query(FILTER)
        .gives(Upgrade)
        .or(&[400]),
    get("/ws/orders/{order}", WebSocket, sockets::order, "WebSocket of an order")
        .needs(EachChannel)
        .query(&[SINCE])
        .gives(Upgrade)
        .or(&[400]),
    get("/api/orders/status/{order}", WebSocket, sockets::order, "WebSocket of an order")
        .needs(EachChannel)
        .query(&[SINCE])
        .gives(Upgrade)
        .or(&[400]),
    get("/sse", Events, events::stream, "Channels as server-sent events")
        .needs(EachChannel)
        .query(STREAM)
        .gives(Answer::Events)
        .or(&[400, 401, 404]),
    get("/api/zones", Client, zones::list, "The zones that have been published to")
        .needs(Anything)
        .gives(Json(200, "ZoneList")),
    delete("/api/zones/{zone}", Client, zones::remove, "Remove all prices of a zone")
        .needs(Zone(Action::Registry))
        .counts_as(Quota::Publishes)
        .or(&[400, 404]),
    post("/api/zones/{zone}/prices", Client, zones::publish, "Publish one price, an array, or lines")
        .needs(Zone(Action::Publish))
        .takes(Body::Prices)
        .gives(Json(200, "Accepted"))
        .or(&[400, 408, 413, 415, 422]),
    get("/api/zones/{zone}/latest", Client, zones::latest, "The latest price of each key")
        .needs(Zone(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 500]),
    get("/api/zones/{zone}/history", Client, zones::history, "Entries from the log")
        .needs(Zone(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 410, 500]),
    delete("/api/zones/{zone}/keys/{key}", Client, zones::remove_key, "Remove the price of a key")
        .needs(Zone(Action::Publish))
        .counts_as(Quota::Publishes)
        .or(&[400, 404]),
    post("/api/events/{type}", Client, event_types::publish, "Publish one event, an array, or lines")
        .needs(Event(Action::Publish))
        .takes(Body::Events)
        .gives(Json(200, "Accepted"))
        .or(&[400, 404, 408, 413, 415, 422]),
    get("/api/events/{type}/latest", Client, event_types::latest, "The latest event of each key")
        .needs(Event(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 404, 500]),
    get("/api/events/{type}/history", Client, event_types::history, "Events from the log")
        .needs(Event(Action::Subscribe))
        .query(PAGE)
        .gives(Json(200, "Entries"))
        .or(&[400, 404, 410, 500]),
    get("/api/orders", Client, orders::list, "Orders, newest first")
        .needs(Gateway(Action::Order))
        .query(&[
            ("status", "Only orders with this status."),
            ("limit", "The most orders to return."),
            ("after", "Only orders placed before this one."),
        ])
        .gives(Json(200, "OrderList"))
        .or(&[400, 404]),
    post("/api/orders/execute", Client, orders::execute, "Place an order")
        .needs(Gateway(Action::Order))
        .counts_as(Quota::Orders)
        .takes(Body::Order)
        .gives(Json(202, "OrderPlaced"))
        .or(&[400, 408, 409, 413, 415, 422]),
    get("/api/orders/schema", Client, orders::schema, "What an order must look like, as a JSON Schema")
        .needs(Gateway(Action::Order))
        .gives(Object(200)),
    get("/api/orders/dead-letters", Client, orders::dead_letters, "Orders whose every attempt failed")
        .needs(Gateway(Action::Order))
        .query(PAGE)
        .gives(Json(200, "DeadLetterList"))
        .or(&[400, 404]),
    post(
        "/api/orders/dead-letters/{order}/retry",
        Client,
        orders::retry,
        "Place a dead letter's order again",
    )
    .needs(Order(Action::Order))
    .counts_as(Quota::Orders)
    .hides_as(ProblemCode::UnknownDeadLetter)
    .query(&[("force", "Even if it may have been executed after all.")])
    .gives(Json(202, "OrderPlaced"))
    .or(&[400, 404, 409]),
    get("/api/orders/{order}", Client, orders::get, "An order with its updates")
        .needs(Order(Action::Subscribe))
        .gives(Json(200, "OrderView"))
        .or(&[400, 404]),
    post("/api/orders/{order}/cancel", Client, orders::cancel, "End an order before it is submitted")
        .needs(Order(Action::Order))
        .gives(Json(202, "OrderCancelling"))
        .or(&[400, 404, 409]),
    post(
        "/api/orders/{order}/updates",
        Client,
        orders::update,
        "Report on an order that is executed elsewhere",
    )
    .needs(Order(Action::Publish))
    .takes(Body::Updates)
    .gives(Json(200, "Accepted"))
    .or(&[400, 408, 409, 413, 415, 422]),
    post("/api/jobs/claim", Client, jobs::claim, "Claim orders to execute")
        .needs(Gateway(Action::Work))
        .takes(Body::Json("ClaimRequest"))
        .gives(Json(200, "Offer"))
        .or(JOB),
    post("/api/jobs/{job}/extend", Client, jobs::extend, "Extend the lease of a job")
        .needs(Gateway(Action::Work))
        .takes(Body::Json("ExtendRequest"))
        .gives(Json(200, "LeaseHeld"))
        .or(JOB),
    post("/api/jobs/{job}/progress", Client, jobs::progress, "Report the progress of an order")
        .needs(Gateway(Action::Work))
        .takes(Body::Report)
        .gives(Json(200, "ReportAccepted"))
        .or(JOB),
    post("/api/jobs/{job}/complete", Client, jobs::complete, "Report that an order was executed")
        .needs(Gateway(Action::Work))
        .takes(Body::Report)
        .gives(Json(200, "ReportAccepted"))
        .or(JOB),
    post("/api/jobs/{job}/release", Client, jobs::release, "Give a job back")
        .needs(Gateway(Action::Work))
        .takes(Body::Json("ReleaseRequest"))
        .gives(Json(200, "JobOutcome"))
        .or(JOB),
    post("/api/jobs/{job}/fail", Client, jobs::fail, "Report that an order could not be executed")
        .needs(Gateway(Action::Work))
        .takes(Body::Json("FailRequest"))
        .gives(Json(200, "JobOutcome"))
        .or(JOB),
    get("/api/registry", Told, registry::status, "The state of the registries, and how far they lag")
        .needs(Gateway(Action::Admin))
        .gives(Json(200, "RegistryStatus")),
    post("/api/registry/sync", Client, registry::sync, "Read the Redis keys of other programs")
        .needs(Gateway(Action::Admin))
        .query(&[("replace", "1 to replace records that are already known.")])
        .gives(Json(200, "RegistrySync"))
        .or(&[400, 404]),
    get("/api/providers", Client, providers::list, "Providers, filtered by any of their fields")
        .needs(Channel(Action::Subscribe, PROVIDERS))
        .query(RECORDS)
        .gives(Json(200, "RecordList"))
        .or(&[400]),
    post("/api/providers", Client, providers::add, "Add a provider")
        .needs(Channel(Action::Registry, PROVIDERS))
        .counts_as(Quota::Publishes)
        .query(WRITE_PROVIDER)
        .takes(Body::Record)
        .gives(Object(201))
        .or(&[400, 404, 408, 409, 413, 415, 422]),
    put("/api/providers", Client, providers::set_all, "Replace all providers with these")
        .needs(Channel(Action::Registry, PROVIDERS))
        .counts_as(Quota::Publishes)
        .takes(Body::Records)
        .gives(Json(200, "RecordsSet"))
        .or(&[400, 408, 413, 415, 422]),
    delete("/api/providers", Client, providers::clear, "Remove all providers")
        .needs(Channel(Action::Registry, PROVIDERS))
        .counts_as(Quota::Publishes)
        .gives(Json(200, "RecordsSet")),
    get("/api/providers/{userId}", Client, providers::get, "A provider")
        .needs(Channel(Action::Subscribe, PROVIDERS))
        .gives(Object(200))
        .or(&[400, 404]),
    put("/api/providers/{userId}", Client, providers::put, "Add a provider, or replace it")
        .needs(Channel(Action::Registry, PROVIDERS))
        .counts_as(Quota::Publishes)
        .query(WRITE_PROVIDER)
        .takes(Body::Record)
        .gives(Object(200))
        .or(RECORD),
    patch(
        "/api/providers/{userId}",
        Client,
        providers::patch,
        "Change a provider by a merge patch (RFC 7396)",
    )
    .needs(Channel(Action::Registry, PROVIDERS))
    .counts_as(Quota::Publishes)
    .query(WRITE_PROVIDER)
    .takes(Body::Record)
    .gives(Object(200))
    .or(RECORD),
    delete("/api/providers/{userId}", Client, providers::remove, "Remove a provider")
        .needs(Channel(Action::Registry, PROVIDERS))
        .counts_as(Quota::Publishes)
        .query(WRITE_RECORD)
        .or(&[400, 404, 412]),
    post(
        "/api/providers/{userId}/heartbeat",
        Client,
        providers::renew,
        "Renew a provider, which restarts its time to live",
    )
    .needs(Channel(Action::Registry, PROVIDERS))
    .counts_as(Quota::Publishes)
    .query(WRITE_PROVIDER)
    .gives(Object(200))
    .or(&[400, 404]),
    get("/api/active-orders", Client, active_orders::list, "Active orders, filtered by any of their fields")
        .needs(Channel(Action::Subscribe, ACTIVE_ORDERS))
        .query(RECORDS)
        .gives(Json(200, "RecordList"))
        .or(&[400]),
    post("/api/active-orders", Client, active_orders::add, "Add an active order")
        .needs(Channel(Action::Registry, ACTIVE_ORDERS))
        .counts_as(Quota::Publishes)
        .query(WRITE_RECORD)
        .takes(Body::Record)
        .gives(Object(201))
        .or(&[400, 404, 408, 409, 413, 415, 422]),
    put("/api/active-orders", Client, active_orders::set_all, "Replace all active orders with these")
        .needs(Channel(Action::Registry, ACTIVE_ORDERS))
        .counts_as(Quota::Publishes)
        .takes(Body::Records)
        .gives(Json(200, "RecordsSet"))
        .or(&[400, 408, 413, 415, 422]),
    delete("/api/active-orders", Client, active_orders::clear, "Remove all active orders")
        .needs(Channel(Action::Registry, ACTIVE_ORDERS))
        .counts_as(Quota::Publishes)
        .gives(Json(200, "RecordsSet")),
    get("/api/active-orders/{orderId}", Client, active_orders::get, "An active order")
        .needs(Channel(Action::Subscribe, ACTIVE_ORDERS))
        .gives(Object(200))
        .or(&[400, 404]),
    put("/api/active-orders/{orderId}", Client, active_orders::put, "Add an active order, or replace it")
        .needs(Channel(Action::Registry, ACTIVE_ORDERS))
        .counts_as(Quota::Publishes)
        .query(WRITE_RECORD)
        .takes(Body::Record)
        .gives(Object(200))
        .or(RECORD),
    patch(
        "/api/active-orders/{orderId}",
        Client,
        active_orders::patch,
        "Change an active order by a merge patch (RFC 7396)",
    )
    .needs(Channel(Action::Registry, ACTIVE_ORDERS))
    .counts_as(Quota::Publishes)
    .query(WRITE_RECORD)
    .takes(Body::Record)
    .gives(Object(200))
    .or(RECORD),
    delete("/api/active-orders/{orderId}", Client, active_orders::remove, "Remove an active order")
        .needs(Channel(Action::Registry, ACTIVE_ORDERS))
        .counts_as(Quota::Publishes)
        .query(WRITE_RECORD)
        .or(&[400, 404, 412]),
    post(
        "/api/active-orders/{orderId}/heartbeat",
        Client,
        active_orders::renew,
        "Renew an active order, which restarts its time to live",
    )
    .needs(Channel(Action::Registry, ACTIVE_ORDERS))
    .counts_as(Quota::Publishes)
    .query(WRITE_RECORD)
    .gives(Object(200))
    .or(&[400, 404]),
    post(
        "/api/auth/revoke",
        Client,
        auth::revoke,
        "Revoke a token, a key, or everything issued to a subject",
    )
    .needs(Gateway(Action::Admin))
    .takes(Body::Json("Revoke"))
    .gives(Json(200, "RevokedOn"))
    .or(&[400, 404, 408, 413, 415, 422]),
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
    allowed(ROUTES)
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
