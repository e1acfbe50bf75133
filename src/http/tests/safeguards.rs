//! The headers for browsers in every answer.

use super::*;
use crate::http::arrival::{Peer, Way};
use crate::http::table::Address;

/// Headers that every answer has.
const ALWAYS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

fn path_of(address: &Address) -> String {
    address.pattern().replace(['{', '}'], "")
}

#[tokio::test]
async fn every_answer_of_every_address_tells_browsers_what_not_to_do() {
    let routes = Routes::new().await;
    let others = [("GET", "/nowhere".to_owned()), ("TRACE", "/".to_owned()), ("OPTIONS", "*".to_owned())];
    let all = Address::all().flat_map(|address| {
        let path = path_of(&address);
        let methods = address.methods().chain(["OPTIONS", "HEAD"]).collect::<Vec<_>>();
        methods.into_iter().map(move |method| (method, path.clone()))
    });
    for (method, path) in all.chain(others) {
        let request = Request::builder().method(method).uri(&path);
        let answer = routes.send(request, "").await;
        for (name, value) in ALWAYS {
            let values: Vec<_> = answer.headers().get_all(name).into_iter().collect();
            assert_eq!(values, [value], "{name} of {method} {path}: {answer:?}");
        }
        let policies: Vec<_> = answer.headers().get_all("content-security-policy").into_iter().collect();
        let policy = policies.first().unwrap_or_else(|| panic!("{method} {path}")).to_str().unwrap();
        assert!(
            policies.len() == 1
                && policy.starts_with("default-src 'none'")
                && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        // Only the page may run scripts, and only the gateway's own.
        assert_eq!(policy.contains("script-src 'self'"), path == "/" && answer.status() == 200, "{path}");
        assert!(!answer.headers().contains_key("strict-transport-security"), "not over plain HTTP");
    }
}

#[tokio::test]
async fn browsers_are_told_to_come_by_tls_where_they_did() {
    let hosts = vec!["stream.example.com".to_owned()];
    let config = HttpConfig { hosts, ..HttpConfig::default() };
    let routes = Routes::with(2_000, config).await;
    let way = |is_secure| Way { peer: Peer::Unix, is_for_operators: false, is_secure };
    for (host, is_secure, is_told) in [
        ("stream.example.com", true, true),
        ("stream.example.com:8443", true, true),
        ("stream.example.com", false, false),
        ("localhost:8443", true, false),
        ("127.0.0.1:8443", true, false),
        ("[::1]:8443", true, false),
    ] {
        for path in ["/", "/nowhere"] {
            let request = Request::get(path).header("host", host).body(Full::from("")).unwrap();
            let answer = routes.door.answer(request, Some(way(is_secure)), None).await;
            let told = answer.headers().get("strict-transport-security");
            assert_eq!(told.is_some(), is_told, "{host} {path}");
            assert!(told.is_none_or(|value| value == "max-age=15552000"));
        }
    }
}

#[tokio::test]
async fn what_is_for_operators_is_on_their_listener_alone() {
    let mut config = HttpConfig::default();
    config.operators.listen = Some("127.0.0.1:1".parse().unwrap());
    let (apart, together) = (Routes::with(2_000, config).await, Routes::new().await);
    let way = |is_for_operators| Way { peer: Peer::Unix, is_for_operators, is_secure: false };
    for address in Address::all() {
        let path = path_of(&address);
        let ask = async |routes: &Routes, is_for_operators| {
            let request =
                Request::options(&path).header("host", "localhost").body(Full::from(String::new())).unwrap();
            routes.door.answer(request, Some(way(is_for_operators)), None).await.status().as_u16()
        };
        let public = if address.is_for_operators() { 404 } else { 204 };
        assert_eq!(ask(&apart, false).await, public, "{path}");
        assert_eq!(ask(&apart, true).await, 204, "{path}");
        assert_eq!(ask(&together, false).await, 204, "{path}");
    }
}
