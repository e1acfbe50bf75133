//! Turns an HTTP request into a WebSocket (RFC 6455, section 4).

use std::sync::Arc;

use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{self, OnUpgrade};
use hyper::{Method, Request, StatusCode};
use tungstenite::handshake::derive_accept_key;
use warp::filters::BoxedFilter;
use warp::reject::Rejection;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::arrival::Way;
use super::handing_over::HandingOver;
use super::problem::Problem;
use crate::connections::{
    AddressPermit, Admission, Arriving, Guest, Limit, Look, Manager, Opening, ShardHandle, TcpPlace,
};
use crate::protocol::{ProblemCode, SUBPROTOCOL};

/// What the accept loop knows about a connection; travels in the extensions of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) way: Way,
    pub(crate) shard: ShardHandle,
    pub(crate) tcp: Arc<TcpPlace>,
    /// For a request that a trusted proxy passes on.
    pub(crate) forwarded: Option<Arc<AddressPermit>>,
    pub(crate) look: Look,
    pub(crate) handing_over: HandingOver,
}

/// A valid request to become a WebSocket.
#[derive(Debug, Clone)]
pub(crate) struct WebSocketRequest {
    response: Accepted,
    upgrade: OnUpgrade,
    arrival: Arrival,
}

/// The variable parts of the answer to a valid request.
#[derive(Debug, Clone)]
struct Accepted {
    /// The value of `Sec-WebSocket-Accept`.
    key: String,
    /// Whether the client offered our subprotocol. If it offered only others, none is chosen (RFC 6455,
    /// section 4.2.2), and the client decides whether to continue.
    names_protocol: bool,
}

/// Passes only valid requests for a WebSocket.
pub(crate) fn web_socket() -> BoxedFilter<(WebSocketRequest,)> {
    warp::method()
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::optional::<Arrival>())
        .and_then(|method, headers, upgrade: Option<OnUpgrade>, arrival: Option<Arrival>| {
            let checked = check(&method, &headers).and_then(|response| {
                let detail = "this connection cannot be upgraded";
                let refuse = || Problem::new(ProblemCode::NotUpgradable, detail);
                let upgrade = upgrade.ok_or_else(refuse)?;
                Ok(WebSocketRequest { response, upgrade, arrival: arrival.ok_or_else(refuse)? })
            });
            async move { checked.map_err(Rejection::from) }
        })
        .boxed()
}

/// The answer, if the request has everything that the RFC requires.
fn check(method: &Method, headers: &HeaderMap) -> Result<Accepted, Problem> {
    let bad = |detail: &str| Problem::new(ProblemCode::InvalidWebSocketKey, detail);
    if method != Method::GET {
        let detail = "a WebSocket begins with GET";
        return Err(Problem::new(ProblemCode::MethodNotAllowed, detail));
    }
    if !has_token(headers, UPGRADE, "websocket") || !has_token(headers, CONNECTION, "upgrade") {
        let detail = "this address speaks WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`";
        return Err(Problem::new(ProblemCode::UpgradeRequired, detail));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let detail = "this gateway speaks version 13 of the WebSocket protocol (`Sec-WebSocket-Version: 13`)";
        return Err(Problem::new(ProblemCode::UnsupportedVersion, detail));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("`Sec-WebSocket-Key` is missing"))?;
    if !is_key(key.as_bytes()) {
        return Err(bad("`Sec-WebSocket-Key` must be 16 bytes in base64"));
    }
    let names_protocol = tokens(headers, SEC_WEBSOCKET_PROTOCOL).any(|name| name == SUBPROTOCOL);
    Ok(Accepted { key: derive_accept_key(key.as_bytes()), names_protocol })
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|part| part.eq_ignore_ascii_case(token))
}

/// 16 bytes in base64 are 22 characters and two `=`.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// Answers 101 and hands the socket to the shard of its thread. If there is no room, the client is told
/// over the WebSocket, because browsers hide HTTP answers from pages; or with a problem, if too many are
/// being told already.
pub(crate) async fn accept(
    request: WebSocketRequest,
    manager: &Manager,
    opening: Opening,
    guest: Result<Option<Guest>, Limit>,
) -> Result<Response, Problem> {
    let WebSocketRequest { response, upgrade, arrival } = request;
    let Arrival { shard, tcp, forwarded, .. } = arrival;
    let admitted =
        guest.and_then(|guest| Ok((manager.limits().admit(Arc::clone(&tcp), forwarded.clone())?, guest)));
    let (admission, opening, guest) = match admitted {
        Ok((admission, guest)) => (admission, opening, guest),
        Err(limit) => {
            let beyond = manager.limits().admit_beyond(Some(tcp), forwarded);
            (beyond.ok_or_else(|| Problem::limit(limit))?, Opening::TurnedAway(limit), None)
        }
    };
    hand_over(response, upgrade, &shard, (opening, guest), admission).await
}

/// A request beyond a limit.
#[derive(Debug)]
pub(crate) struct TooMany {
    pub(crate) limit: Limit,
    pub(crate) manager: Manager,
    pub(crate) shard: ShardHandle,
    /// The permit of its connection, if that was admitted.
    pub(crate) tcp: Option<Arc<TcpPlace>>,
}

/// Answers a request that a limit refuses, before any route: over a WebSocket, if it is a valid request for
/// one and not too many clients are being told already.
pub(crate) async fn turn_away<B>(mut request: Request<B>, too_many: TooMany) -> Response {
    let TooMany { limit, manager, shard, tcp } = too_many;
    let Ok(response) = check(request.method(), request.headers()) else {
        return Problem::limit(limit).into_response();
    };
    // Beyond the limit on TCP connections, the few reserved places are for health checks, not for WebSockets.
    let admission = if limit == Limit::Tcp { None } else { manager.limits().admit_beyond(tcp, None) };
    let Some(admission) = admission else {
        return Problem::limit(limit).into_response();
    };
    let upgrade = upgrade::on(&mut request);
    let told = hand_over(response, upgrade, &shard, (Opening::TurnedAway(limit), None), admission).await;
    told.unwrap_or_else(Reply::into_response)
}

async fn hand_over(
    accepted: Accepted,
    upgrade: OnUpgrade,
    shard: &ShardHandle,
    (opening, guest): (Opening, Option<Guest>),
    admission: Admission,
) -> Result<Response, Problem> {
    if !shard.adopt(Arriving::Upgrade(upgrade), opening, guest, admission).await {
        return Err(Problem::shutting_down());
    }
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if accepted.names_protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    if let Ok(key) = HeaderValue::from_str(&accepted.key) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(changes: &[(&'static str, Option<&'static str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "localhost:8080"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in changes {
            match value {
                Some(value) => headers.insert(*name, HeaderValue::from_static(value)),
                None => headers.remove(*name),
            };
        }
        headers
    }

    #[test]
    fn a_right_request_gets_the_accept_key_of_the_rfc() {
        let accepted = check(&Method::GET, &headers(&[])).unwrap();
        assert_eq!(accepted.key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_subprotocol_is_chosen_where_it_is_asked_for() {
        for (asked, expected) in [
            (None, false),
            (Some("zonewire.v1"), true),
            (Some("graphql-ws,  zonewire.v1"), true),
            (Some("zonewire.v2, Zonewire.V1"), false),
            (Some(""), false),
        ] {
            let headers = headers(&[("sec-websocket-protocol", asked)]);
            let accepted = check(&Method::GET, &headers).unwrap();
            assert_eq!(accepted.names_protocol, expected, "{asked:?}");
        }
        let mut twice = headers(&[("sec-websocket-protocol", Some("a"))]);
        twice.append("sec-websocket-protocol", HeaderValue::from_static("zonewire.v1"));
        assert!(check(&Method::GET, &twice).unwrap().names_protocol);
    }

    #[test]
    fn each_wrong_request_gets_its_code() {
        for (changes, status, code) in [
            ([("upgrade", None)], 426, "upgrade_required"),
            ([("connection", Some("close"))], 426, "upgrade_required"),
            ([("sec-websocket-version", Some("8"))], 426, "unsupported_version"),
            ([("sec-websocket-version", None)], 426, "unsupported_version"),
            ([("sec-websocket-key", None)], 400, "invalid_websocket_key"),
            ([("sec-websocket-key", Some("short"))], 400, "invalid_websocket_key"),
            ([("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ=*"))], 400, "invalid_websocket_key"),
        ] {
            let problem = check(&Method::GET, &headers(&changes)).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code.as_str()), (status, code), "{changes:?}");
        }
        assert_eq!(check(&Method::POST, &headers(&[])).unwrap_err().code, ProblemCode::MethodNotAllowed);
    }
}
