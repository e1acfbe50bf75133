//! What proxies say: under which address a client reaches the gateway, and from which one it comes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName};
use ipnet::IpNet;

use super::config::HttpConfig;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that are believed (`http.trusted_proxies`).
#[derive(Debug)]
pub(super) struct Proxies(Vec<IpNet>);

impl Proxies {
    pub(super) fn of(config: &HttpConfig) -> Self {
        Self(config.proxies().collect())
    }

    pub(super) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Where a request came from: each trusted proxy is asked, from the nearest on, who is before it;
    /// the first that is not one of them is the client. It is in `X-Forwarded-For`, or, where that is
    /// not there, in `Forwarded` (RFC 7239). What cannot be read ends the way.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let before = if headers.contains_key(X_FORWARDED_FOR) {
            hops(headers, &X_FORWARDED_FOR, Some)
        } else {
            hops(headers, &FORWARDED, |hop| {
                hop.split(';').find_map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    name.trim().eq_ignore_ascii_case("for").then_some(value)
                })
            })
        };
        let mut nearest = peer;
        for hop in before {
            match hop {
                Some(address) if self.trust(nearest) => nearest = address,
                _ => break,
            }
        }
        nearest
    }
}

/// The addresses in a header with a list of hops, the nearest first; `None` for what is none.
fn hops<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    address: impl Fn(&'h str) -> Option<&'h str>,
) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default());
    let hops = values.flat_map(|value| value.split(','));
    let mut hops: Vec<_> = hops.map(|hop| address_of(address(hop)?)).collect();
    hops.reverse();
    hops
}

/// An address, perhaps with a port, perhaps in quotes.
fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(in_brackets)
}

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
    fn the_client_is_the_first_that_is_no_proxy_of_ours() {
        let trusted = ["10.0.0.0/8", "2001:db8:9::/48"].map(str::to_owned).to_vec();
        let proxies = Proxies::of(&HttpConfig { trusted_proxies: trusted, ..HttpConfig::default() });
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Headers<'_>, &str); 14] = [
            // Nobody else is believed.
            ("203.0.113.9", &[("x-forwarded-for", "198.51.100.1")], "203.0.113.9"),
            ("10.0.0.7", &[], "10.0.0.7"),
            ("10.0.0.7", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            ("::ffff:10.0.0.7", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            // What the client itself wrote stands before what the proxies did.
            ("10.0.0.7", &[("x-forwarded-for", "127.0.0.1, 198.51.100.1")], "198.51.100.1"),
            ("10.0.0.7", &[("x-forwarded-for", "evil, 198.51.100.1, 10.0.0.8")], "198.51.100.1"),
            (
                "10.0.0.7",
                &[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "10.0.0.8,10.0.0.9")],
                "198.51.100.1",
            ),
            ("10.0.0.7", &[("x-forwarded-for", "10.1.1.1, 10.0.0.8")], "10.1.1.1"),
            ("10.0.0.7", &[("x-forwarded-for", "198.51.100.1, unknown, 10.0.0.8")], "10.0.0.8"),
            ("10.0.0.7", &[("x-forwarded-for", "2001:db8::1")], "2001:db8::1"),
            ("2001:db8:9::7", &[("x-forwarded-for", "[2001:db8::1]:443")], "2001:db8::1"),
            ("10.0.0.7", &[("x-forwarded-for", "198.51.100.1:4711")], "198.51.100.1"),
            (
                "10.0.0.7",
                &[("forwarded", "for=evil, for=\"[2001:db8::1]:4711\";proto=https, For=10.0.0.8;by=x")],
                "2001:db8::1",
            ),
            (
                "10.0.0.7",
                &[("forwarded", "for=127.0.0.1"), ("x-forwarded-for", "198.51.100.1")],
                "198.51.100.1",
            ),
        ];
        for (peer, headers, expected) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name = HeaderName::try_from(*name).unwrap();
                map.append(name, HeaderValue::from_str(value).unwrap());
            }
            let client = proxies.client(peer.parse().unwrap(), &map);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_configured_address_comes_before_all() {
        let config =
            HttpConfig { public_url: Some("https://stream.example.com".to_owned()), ..HttpConfig::default() };
        assert_eq!(web_socket_base(&config, None, &HeaderMap::new()), "wss://stream.example.com");
    }
}
