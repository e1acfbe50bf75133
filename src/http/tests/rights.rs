//! Every route with every role. New routes must be listed here.

use std::sync::Arc;

use hyper::Request;
use serde_json::json;
use zonewire_access::SigningKey;

use crate::access::{AuthConfig, Gate, IssuerConfig};
use crate::http::caller::{Caller, admit};
use crate::http::table::{Needs, ROUTES, Route};

const SECRET: &str = "a secret of this test, long enough to be one";

/// The callers: without a token; with a token without rights; in each role; a trader of a tenant.
const CALLERS: [&str; 8] =
    ["anonymous", "nothing", "viewer", "trader", "publisher", "worker", "operator", "tenant"];

/// Methods, their address, and the answer of each of them to each caller, in the order of [`CALLERS`]: `+` is
/// admitted, `1` is 401, `3` is 403, `4` is 404, as if it did not exist. The order in the address belongs to
/// nobody.
const DOORS: &[(&str, &str, &str)] = &[
    ("GET", "/", "++++++++"),
    ("GET", "/mark.svg", "++++++++"),
    ("GET", "/assets/{file}", "++++++++"),
    ("GET", "/openapi.json", "++++++++"),
    ("GET", "/asyncapi.json", "++++++++"),
    ("GET", "/health", "++++++++"),
    ("GET", "/health/live", "++++++++"),
    ("GET", "/health/ready", "++++++++"),
    ("GET", "/health/redis", "++++++++"),
    ("GET", "/ws/health", "++++++++"),
    ("GET", "/api/ws/ws/health", "++++++++"),
    ("GET", "/metrics", "++++++++"),
    ("GET", "/ws/stats", "133333+3"),
    ("GET", "/api/ws/ws/stats", "133333+3"),
    ("GET DELETE", "/ws/stats/{connection}", "133333+3"),
    ("GET", "/api/config", "133333+3"),
    ("GET POST", "/api/bridge/subscriptions", "133333+3"),
    // The shard checks each channel: see `tests/it/access.rs`.
    ("GET", "/ws", "++++++++"),
    ("GET", "/ws/market/{zone}", "++++++++"),
    ("GET", "/ws/events", "++++++++"),
    ("GET", "/ws/orders/{order}", "++++++++"),
    ("GET", "/api/orders/status/{order}", "++++++++"),
    // The handler checks each channel: see below.
    ("GET", "/sse", "++++++++"),
    // Lists what the caller may see.
    ("GET", "/api/zones", "13++++++"),
    ("DELETE", "/api/zones/{zone}", "133333+3"),
    ("POST", "/api/zones/{zone}/prices", "1333+3+3"),
    ("GET", "/api/zones/{zone}/latest", "13++33+3"),
    ("GET", "/api/zones/{zone}/history", "13++33+3"),
    ("DELETE", "/api/zones/{zone}/keys/{key}", "1333+3+3"),
    ("POST", "/api/events/{type}", "1333+3+3"),
    ("GET", "/api/events/{type}/latest", "13++33+3"),
    ("GET", "/api/events/{type}/history", "13++33+3"),
    ("GET", "/api/orders", "133+33++"),
    ("POST", "/api/orders/execute", "133+33++"),
    ("GET", "/api/orders/schema", "133+33++"),
    ("GET", "/api/orders/dead-letters", "133+33++"),
    ("POST", "/api/orders/dead-letters/{order}/retry", "133433+4"),
    ("GET", "/api/orders/{order}", "133433+4"),
    ("POST", "/api/orders/{order}/cancel", "133433+4"),
    ("POST", "/api/orders/{order}/updates", "13343++4"),
    ("POST", "/api/jobs/claim", "13333++3"),
    ("POST", "/api/jobs/{job}/extend", "13333++3"),
    ("POST", "/api/jobs/{job}/progress", "13333++3"),
    ("POST", "/api/jobs/{job}/complete", "13333++3"),
    ("POST", "/api/jobs/{job}/release", "13333++3"),
    ("POST", "/api/jobs/{job}/fail", "13333++3"),
    // A principal of a tenant has no right to what belongs to no tenant.
    ("GET", "/api/registry", "133333+3"),
    ("POST", "/api/registry/sync", "133333+3"),
    ("GET POST PUT DELETE", "/api/providers", "133333+3"),
    ("GET PUT PATCH DELETE", "/api/providers/{userId}", "133333+3"),
    ("POST", "/api/providers/{userId}/heartbeat", "133333+3"),
    ("GET POST PUT DELETE", "/api/active-orders", "133333+3"),
    ("GET PUT PATCH DELETE", "/api/active-orders/{orderId}", "133333+3"),
    ("POST", "/api/active-orders/{orderId}/heartbeat", "133333+3"),
    ("POST", "/api/auth/revoke", "133333+3"),
];

async fn guarded() -> (Arc<Gate>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let issuer =
        IssuerConfig { issuer: "tests".to_owned(), secret_files: vec![secret], ..IssuerConfig::default() };
    let mut config = AuthConfig { issuers: vec![issuer], ..AuthConfig::default() };
    config.roles.insert("desk".to_owned(), vec!["order".to_owned(), "subscribe:zone:{tenant}.*".to_owned()]);
    (Gate::in_memory(&config).await, directory)
}

/// The token of a caller.
fn token(caller: &str) -> Option<String> {
    let now = crate::access::now_s();
    let mut claims = json!({
        "iss": "tests", "aud": "zonewire", "sub": "somebody", "exp": now + 600, "iat": now, "roles": [caller],
    });
    match caller {
        "anonymous" => return None,
        // Rights that cannot be limited to a tenant are void for it.
        "tenant" => {
            claims["roles"] = json!(["desk", "operator", "worker"]);
            claims["rights"] = json!([
                "subscribe:order:*",
                "publish:order:*",
                "subscribe:registry:*",
                "registry:registry:*"
            ]);
            claims["tenant"] = json!("acme");
        }
        _ => {}
    }
    Some(SigningKey::of_secret(SECRET).unwrap().sign(&claims, None).unwrap())
}

fn told(gate: &Gate, route: &Route, caller: &str) -> char {
    let order = "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
    let path = route
        .pattern
        .replace("{order}", order)
        .replace("{job}", order)
        .replace("{zone}", "pjm")
        .replace("{type}", "ticker");
    let mut request = Request::builder().method(route.method).uri(&path);
    if let Some(token) = token(caller) {
        request = request.header("authorization", format!("bearer {token}"));
    }
    let named = route.pattern.split('/').zip(path.split('/')).filter(|(name, _)| name.starts_with('{'));
    let segments: Vec<String> = named.map(|(_, segment)| segment.to_owned()).collect();
    match admit(gate, route, &segments, &request.body(()).unwrap()) {
        Ok(caller) => {
            assert!(caller.principal().is_ok());
            '+'
        }
        Err(problem) => match problem.status.as_u16() {
            401 => '1',
            403 => '3',
            404 => '4',
            other => panic!("{other}"),
        },
    }
}

#[tokio::test]
async fn each_route_lets_in_whom_it_should() {
    let (gate, _directory) = guarded().await;
    for route in ROUTES.iter() {
        let known = DOORS.iter().find(|(methods, pattern, _)| {
            *pattern == route.pattern && methods.split(' ').any(|method| method == route.method)
        });
        let Some((_, _, expected)) = known else {
            panic!("who may {} {}? Say so in `DOORS`", route.method, route.pattern)
        };
        let found: String = CALLERS.iter().map(|caller| told(&gate, route, caller)).collect();
        assert_eq!(found, *expected, "{} {} for {CALLERS:?}", route.method, route.pattern);
        let is_open = route.needs == Needs::Nothing;
        assert_eq!(
            is_open,
            *expected == "++++++++" && route.needs != Needs::EachChannel,
            "{}",
            route.pattern
        );
    }
    let listed = DOORS.iter().flat_map(|(methods, _, _)| methods.split(' '));
    assert_eq!(listed.count(), ROUTES.len());
}

#[tokio::test]
async fn a_stream_of_events_lets_in_who_may_follow_all_its_channels() {
    let (gate, _directory) = guarded().await;
    let order = "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
    for (names, expected) in [
        (&[][..], "13++++++"),
        (&["zone:pjm"], "13++33+3"),
        (&["zone:acme.pjm"], "13++33++"),
        (&[order], "133433+4"),
        (&["zone:pjm", "zone:acme.pjm"], "13++33+3"),
        (&["zone:pjm", order], "13343 3+3"),
    ] {
        let channels: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        let told = CALLERS.map(|caller| {
            let shown =
                token(caller).map_or_else(|| gate.nobody(), |token| gate.authenticate(&token).unwrap());
            match Caller(Ok(shown)).may_follow(&channels).map_err(|problem| problem.status.as_u16()) {
                Ok(_) => '+',
                Err(401) => '1',
                Err(403) => '3',
                Err(404) => '4',
                Err(other) => panic!("{other}"),
            }
        });
        assert_eq!(String::from_iter(told), expected.replace(' ', ""), "{names:?} for {CALLERS:?}");
    }
    let refused = gate.authenticate("nonsense").unwrap_err();
    assert_eq!(Caller(Err(refused)).may_follow(&[]).unwrap_err().status.as_u16(), 401);
}

#[tokio::test]
async fn where_nobody_is_asked_every_route_lets_in_everybody() {
    let gate = Gate::off().await;
    for route in ROUTES.iter() {
        for caller in CALLERS {
            assert_eq!(told(&gate, route, caller), '+', "{} {}", route.method, route.pattern);
        }
    }
}
