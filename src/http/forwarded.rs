//! Under which address a client reaches the gateway.

use std::net::IpAddr;

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName};

use super::config::HttpConfig;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The base of WebSocket addresses, such as `wss://stream.example.com`, for the client of a request:
/// `http.public_url`, or else what a trusted proxy said in `Forwarded` (RFC 7239) or
/// `X-Forwarded-Proto` and `X-Forwarded-Host`, or else the request's own `Host`. Of several proxies
/// the nearest counts: what stands before it may come from anyone.
pub(super) fn web_socket_base(config: &HttpConfig, peer: Option<IpAddr>, headers: &HeaderMap) -> String {
    if let Some(url) = &config.public_url {
        // `http` becomes `ws`, and `https` `wss`.
        return url.replacen("http", "ws", 1);
    }
    let own_host = || headers.get(HOST).and_then(|host| host.to_str().ok()).and_then(host_of);
    let (proto, host) =
        if peer.is_some_and(|peer| config.trusts(peer)) { said(headers) } else { (None, None) };
    let scheme = if proto.is_some_and(|proto| matches!(&*proto, "https" | "wss")) { "wss" } else { "ws" };
    let host = host.as_deref().and_then(host_of).or_else(own_host);
    let host = host.unwrap_or_else(|| config.listen.to_string());
    format!("{scheme}://{host}")
}

/// What the nearest proxy says of scheme and host.
fn said(headers: &HeaderMap) -> (Option<String>, Option<String>) {
    let last = |name: &HeaderName| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).next_back().map(|value| value.trim().to_owned())
    };
    let (mut proto, mut host) = (None, None);
    for pair in last(&FORWARDED).unwrap_or_default().split(';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = value.trim().trim_matches('"').to_owned();
        match name.trim().to_ascii_lowercase().as_str() {
            "proto" => proto = Some(value),
            "host" => host = Some(value),
            _ => {}
        }
    }
    let proto = proto.or_else(|| last(&X_FORWARDED_PROTO)).map(|proto| proto.to_ascii_lowercase());
    (proto, host.or_else(|| last(&X_FORWARDED_HOST)))
}

/// A host and perhaps a port, if the text is nothing else.
fn host_of(text: &str) -> Option<String> {
    let good = (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_'));
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn base(peer: &str, trusted: &[&str], headers: &[(&'static str, &'static str)]) -> String {
        let config = HttpConfig {
            trusted_proxies: trusted.iter().map(|&proxy| proxy.to_owned()).collect(),
            ..HttpConfig::default()
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        web_socket_base(&config, Some(peer.parse().unwrap()), &map)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let headers = [
            ("host", "10.0.0.9:8080"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "stream.example.com"),
        ];
        assert_eq!(base("10.0.0.7", &[], &headers), "ws://10.0.0.9:8080");
        assert_eq!(base("10.0.0.7", &["10.0.0.8"], &headers), "ws://10.0.0.9:8080");
        for trusted in ["10.0.0.7", "10.0.0.0/8"] {
            assert_eq!(base("10.0.0.7", &[trusted], &headers), "wss://stream.example.com");
            assert_eq!(base("::ffff:10.0.0.7", &[trusted], &headers), "wss://stream.example.com");
        }
    }

    #[test]
    fn the_nearest_proxy_counts_and_nonsense_does_not() {
        let trusted = ["127.0.0.1"];
        let cases: [(&[(&str, &str)], &str); 5] = [
            (
                &[
                    ("host", "a:1"),
                    ("forwarded", "for=1.2.3.4;proto=http;host=evil, proto=https;host=\"b.example:8443\""),
                ],
                "wss://b.example:8443",
            ),
            (&[("host", "a:1"), ("x-forwarded-proto", "http, HTTPS")], "wss://a:1"),
            (&[("host", "a:1"), ("x-forwarded-host", "evil/path?x")], "ws://a:1"),
            (&[("host", "[::1]:8080")], "ws://[::1]:8080"),
            (&[], "ws://127.0.0.1:8080"),
        ];
        for (headers, expected) in cases {
            let headers: Vec<(&'static str, &'static str)> = headers.to_vec();
            assert_eq!(base("127.0.0.1", &trusted, &headers), expected);
        }
    }

    #[test]
    fn a_configured_address_comes_before_all() {
        let config =
            HttpConfig { public_url: Some("https://stream.example.com".to_owned()), ..HttpConfig::default() };
        assert_eq!(web_socket_base(&config, None, &HeaderMap::new()), "wss://stream.example.com");
    }
}
