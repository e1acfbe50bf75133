//! Who sends a request, and whether they may have what it asks for.

use std::sync::Arc;

use hyper::Request;
use hyper::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use percent_encoding::percent_decode_str;

use super::problem::{Problem, internal};
use super::table::{Kind, Needs, Route};
use crate::access::{Action, Denied, Gate, Owner, Principal, Refused, Resource, may, now_s};
use crate::model::{ChannelName, EventType, OrderId, Zone};
use crate::protocol::ProblemCode;

/// The prefix of a token among subprotocols.
const AS_PROTOCOL: &str = "bearer.";

/// The name of a token in an address.
const IN_ADDRESS: &str = "access_token";

/// The principal of a request; travels in its extensions. For a WebSocket, an invalid token is reported
/// over the WebSocket.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Result<Arc<Principal>, Refused>);

/// The principal of the certificate that the connection began with; travels in the extensions of its
/// requests.
#[derive(Debug, Clone)]
pub(super) struct Certified(pub(super) Arc<Principal>);

impl Caller {
    /// The owner whose orders are visible: the principal's own, or everybody's (`None`).
    pub(super) fn sees_orders_of(&self) -> Result<Option<Owner>, Problem> {
        let principal = self.principal()?;
        let sees_all = may(principal, Action::Admin, Resource::Gateway).is_ok();
        Ok(if sees_all { None } else { Some(principal.owner().ok_or_else(internal)?) })
    }

    /// Whether the caller may learn that a zone exists.
    pub(super) fn may_know(&self, zone: &Zone) -> bool {
        let channel = ChannelName::zone(zone);
        let channel = Resource::Channel(channel.as_str());
        let may_do = |action| self.0.as_ref().is_ok_and(|principal| may(principal, action, channel).is_ok());
        may_do(Action::Subscribe) || may_do(Action::Publish)
    }

    /// The principal, if it may follow these channels; without channels, if it has any right.
    pub(super) fn may_follow(&self, channels: &[ChannelName]) -> Result<Arc<Principal>, Problem> {
        let principal = match &self.0 {
            Ok(principal) => principal,
            Err(refused) => return Err(Problem::unauthorized(refused.to_string(), true)),
        };
        // The leeway for clocks is not granted, because the stream would end at once and be reopened.
        if principal.has_expired(now_s()) {
            return Err(Problem::unauthorized(Refused::Expired.to_string(), true));
        }
        if channels.is_empty() {
            has_some_right(principal).map_err(|denied| denied_problem(denied, None))?;
        }
        for channel in channels {
            let asked = may(principal, Action::Subscribe, Resource::Channel(channel.as_str()));
            asked
                .map_err(|denied| denied_problem(denied, channel.as_order()).of_channel(channel.as_str()))?;
        }
        Ok(Arc::clone(principal))
    }

    /// The principal. The door has checked it already, except for requests for a WebSocket.
    pub(super) fn principal(&self) -> Result<&Arc<Principal>, Problem> {
        self.0.as_ref().map_err(|_refused| internal())
    }
}

/// Admits a request, or says why not.
pub(super) fn admit<B>(
    gate: &Gate,
    route: &Route,
    segments: &[String],
    request: &Request<B>,
) -> Result<Caller, Problem> {
    if !gate.is_on() || route.needs == Needs::Nothing {
        return Ok(Caller(Ok(gate.nobody())));
    }
    let shown = token(request, route.kind == Kind::WebSocket, gate.config().token_in_url)?;
    // A credential in the request identifies its sender more exactly than the certificate of the
    // connection, so it alone counts: a certificate neither adds rights to a token nor replaces an invalid
    // one.
    let caller = match (&shown, request.extensions().get::<Certified>()) {
        (Some(shown), _) => gate.authenticate(shown),
        (None, Some(Certified(principal))) => gate.still_certified(principal).map(|()| Arc::clone(principal)),
        (None, None) => Ok(gate.nobody()),
    };
    // This applies to upgrades too: so far, nothing is wrong that would have to be reported over the
    // WebSocket.
    if let Err(refused) = &caller
        && let Some(after_s) = refused.after_s()
    {
        return Err(Problem::keys_awaited(refused.to_string(), after_s));
    }
    if route.needs == Needs::EachChannel {
        return Ok(Caller(caller));
    }
    let caller = caller.map_err(|refused| Problem::unauthorized(refused.to_string(), true))?;
    check(&caller, route, segments).map_err(|denied| problem(denied, route, segments))?;
    if let Some(quota) = route.takes_of
        && let Some(share) = gate.share(&caller)
    {
        share.take(quota, 1).map_err(Problem::over)?;
    }
    Ok(Caller(Ok(caller)))
}

/// Whether a principal may use a route. Malformed names are left to the handler.
fn check(caller: &Principal, route: &Route, segments: &[String]) -> Result<(), Denied> {
    let segment = segments.first().map_or("", String::as_str);
    let name = percent_decode_str(segment).decode_utf8().unwrap_or_default();
    let may_use = |action, channel: Option<ChannelName>| match channel {
        Some(channel) => may(caller, action, Resource::Channel(channel.as_str())),
        None => has_some_right(caller),
    };
    match route.needs {
        Needs::Nothing | Needs::EachChannel => Ok(()),
        Needs::Channel(action, channel) => may(caller, action, Resource::Channel(channel)),
        Needs::Gateway(action) => may(caller, action, Resource::Gateway),
        Needs::Anything => has_some_right(caller),
        Needs::Zone(action) => {
            may_use(action, name.parse::<Zone>().ok().map(|zone| ChannelName::zone(&zone)))
        }
        Needs::Event(action) => may_use(action, name.parse::<EventType>().ok().map(ChannelName::event)),
        // Parsed as handlers do it: without decoding.
        Needs::Order(action) => match segment.parse::<OrderId>().ok() {
            order if action.is_of_channels() => may_use(action, order.map(ChannelName::order)),
            Some(order) => may(caller, action, Resource::Order(order.0)),
            None => has_some_right(caller),
        },
    }
}

fn has_some_right(caller: &Principal) -> Result<(), Denied> {
    let has_any = caller.rights().iter().next().is_some();
    // For a principal without any right, `may` selects the error. If authentication is off, `may` permits
    // this too.
    if has_any { Ok(()) } else { may(caller, Action::Admin, Resource::Gateway) }
}

fn problem(denied: Denied, route: &Route, segments: &[String]) -> Problem {
    if denied == Denied::Unknown && route.unknown != ProblemCode::UnknownOrder {
        return Problem::unknown_dead_letter();
    }
    denied_problem(denied, segments.first().and_then(|name| name.parse::<OrderId>().ok()))
}

/// The problem for a denied request, which may concern an order.
fn denied_problem(denied: Denied, order: Option<OrderId>) -> Problem {
    match denied {
        Denied::Unauthenticated => Problem::unauthorized(denied.to_string(), false),
        Denied::Forbidden => Problem::new(ProblemCode::Forbidden, denied.to_string()),
        // In the same words as the handlers.
        Denied::Unknown => Problem::unknown_order(order),
    }
}

/// The credential of a request: a token or an API key, in one of the places where it may be.
fn token<B>(
    request: &Request<B>,
    is_web_socket: bool,
    may_be_in_url: bool,
) -> Result<Option<String>, Problem> {
    let headers = request.headers();
    let mut authorizations = headers.get_all(AUTHORIZATION).into_iter();
    if let Some(value) = authorizations.next() {
        if authorizations.next().is_some() {
            return Err(Problem::unauthorized("there must be only one `Authorization`", true));
        }
        // A header of another scheme may be for a proxy.
        let value = value.to_str().unwrap_or_default().trim();
        if let Some((scheme, token)) = value.split_once(' ')
            && scheme.eq_ignore_ascii_case("bearer")
        {
            return Ok(Some(token.trim().to_owned()));
        }
    }
    if is_web_socket {
        let values =
            headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
        let mut named = values
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().strip_prefix(AS_PROTOCOL));
        if let Some(token) = named.next() {
            return Ok(Some(token.to_owned()));
        }
    }
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let mut pairs = url::form_urlencoded::parse(query).filter(|(name, _)| name == IN_ADDRESS);
    match pairs.next() {
        None => Ok(None),
        Some((_, token)) if may_be_in_url => Ok(Some(token.into_owned())),
        Some(_) => {
            let detail = "a token in the address is not taken here, since addresses are written into logs \
                          (auth.token_in_url); send `Authorization: Bearer <token>`, or the message `auth`";
            Err(Problem::unauthorized(detail, true))
        }
    }
}
