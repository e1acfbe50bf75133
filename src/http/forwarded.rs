//! What proxies report: the address under which a client reaches the gateway, and the client's own address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName};
use ipnet::IpNet;

use super::arrival::{Peer, Way};
use super::config::HttpConfig;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The trusted proxies (`http.trusted_proxies`).
#[derive(Debug)]
pub(super) struct Proxies {
    networks: Vec<IpNet>,
    /// Whether clients of the Unix socket are trusted proxies.
    unix: bool,
}

impl Proxies {
    pub(super) fn of(config: &HttpConfig) -> Self {
        Self { networks: config.proxies().collect(), unix: config.trusts_unix() }
    }

    pub(super) fn trust_peer(&self, peer: Peer) -> bool {
        match peer {
            Peer::Net(address) => self.trust(address.ip()),
            Peer::Unix => self.unix,
        }
    }

    pub(super) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The client that a request came from. Beginning with the nearest, each trusted proxy names its
    /// predecessor; the first that is not a trusted proxy is the client. The names are in
    /// `X-Forwarded-For`, or, without that, in `Forwarded` (RFC 7239). An unreadable name ends the search.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        if !self.trust_peer(peer) {
            return peer.ip();
        }
        let mut before: Vec<_> = if headers.contains_key(X_FORWARDED_FOR) {
            let values = headers.get_all(X_FORWARDED_FOR).into_iter();
            let values = values.map(|value| value.to_str().unwrap_or_default());
            values.flat_map(|value| value.split(',')).map(address_of).collect()
        } else {
            hops(headers).iter().map(|hop| address_of(&parameter(hop, "for")?)).collect()
        };
        before.reverse();
        let mut nearest = None;
        for hop in before {
            match hop {
                Some(address) if nearest.is_none_or(|nearest| self.trust(nearest)) => nearest = Some(address),
                _ => break,
            }
        }
        nearest.unwrap_or(peer.ip())
    }

    /// Whether a trusted proxy passes the request on for somebody else.
    pub(super) fn pass_on(&self, peer: Peer, headers: &HeaderMap) -> bool {
        let say = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, FORWARDED];
        self.trust_peer(peer) && say.iter().any(|name| headers.contains_key(name))
    }

    /// How clients reach the gateway, as far as that is trusted.
    pub(super) fn said(&self, peer: Option<Peer>, headers: &HeaderMap) -> Said {
        if peer.is_some_and(|peer| self.trust_peer(peer)) { Said::of(headers) } else { Said::default() }
    }
}

/// How clients reach the gateway, according to the nearest proxy: anybody could have written earlier
/// values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// In lower case, such as `https`.
    pub(super) proto: Option<String>,
    /// A host, optionally with a port.
    pub(super) host: Option<String>,
}

impl Said {
    /// Parses `X-Forwarded-Proto` and `X-Forwarded-Host`, or, if there is no `X-Forwarded-*` header,
    /// `Forwarded`: a proxy that writes the former may pass on what a client wrote into the latter.
    fn of(headers: &HeaderMap) -> Self {
        let is_plain = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO];
        let (proto, host) = if is_plain.iter().any(|name| headers.contains_key(name)) {
            let last = |name: &HeaderName| {
                let value = headers.get_all(name).into_iter().next_back()?.to_str().ok()?;
                value.rsplit(',').next().map(|value| value.trim().to_owned())
            };
            (last(&X_FORWARDED_PROTO), last(&X_FORWARDED_HOST))
        } else {
            let hops = hops(headers);
            let last = |name| parameter(hops.last()?, name);
            (last("proto"), last("host"))
        };
        let proto = proto.map(|proto| proto.to_ascii_lowercase());
        // Some proxies report the scheme of the WebSocket itself.
        let proto = proto.map(|proto| match proto.as_str() {
            "ws" => "http".to_owned(),
            "wss" => "https".to_owned(),
            _ => proto,
        });
        Self { proto, host: host.as_deref().and_then(host_of) }
    }
}

/// The elements of all `Forwarded` headers; the nearest proxy's is last.
fn hops(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(FORWARDED).into_iter().map(|value| value.to_str().unwrap_or_default());
    values.flat_map(|value| split(value, ',')).collect()
}

/// The value of a parameter of an element.
fn parameter(hop: &str, name: &str) -> Option<String> {
    split(hop, ';').into_iter().find_map(|pair| {
        let (its_name, value) = pair.split_once('=')?;
        its_name.trim().eq_ignore_ascii_case(name).then(|| unquoted(value.trim()))?
    })
}

/// Splits at separators outside quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|c| {
        let is_plain = !std::mem::take(&mut is_escaped);
        match c {
            '"' if is_plain => is_quoted = !is_quoted,
            '\\' if is_plain && is_quoted => is_escaped = true,
            _ => {}
        }
        c == separator && !is_quoted
    });
    parts.collect()
}

/// The value of a token or a quoted string (RFC 9110, section 5.6.4); `None` if the quotes do not end.
fn unquoted(value: &str) -> Option<String> {
    let Some(quoted) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let (mut text, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

/// An IP address, optionally with a port.
fn address_of(text: impl AsRef<str>) -> Option<IpAddr> {
    let text = text.as_ref().trim();
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(in_brackets)
}

/// The base of WebSocket addresses for the client of a request, such as `wss://stream.example.com`:
/// `http.public_url`, or else what a trusted proxy reported, or else the request's own `Host`; followed by
/// `http.base_path`.
pub(super) fn web_socket_base(config: &HttpConfig, way: Option<Way>, headers: &HeaderMap) -> String {
    let path = &config.base_path;
    if let Some(url) = &config.public_url {
        // `http` becomes `ws`, and `https` `wss`.
        return url.replacen("http", "ws", 1) + path;
    }
    let own_host = || headers.get(HOST).and_then(|host| host.to_str().ok()).and_then(host_of);
    let Said { proto, host } = Proxies::of(config).said(way.map(|way| way.peer), headers);
    let is_secure = proto.map_or(way.is_some_and(|way| way.is_secure), |proto| proto == "https");
    let scheme = if is_secure { "wss" } else { "ws" };
    let host = host.or_else(own_host).unwrap_or_else(|| config.listen.to_string());
    format!("{scheme}://{host}{path}")
}

/// The text, if it is a host, optionally with a port, and nothing else.
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

    fn at(peer: &str) -> Peer {
        Peer::Net(SocketAddr::new(peer.parse().unwrap(), 4_711))
    }

    fn map_of(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn base(peer: &str, trusted: &[&str], headers: &[(&str, &str)]) -> String {
        let config = HttpConfig {
            trusted_proxies: trusted.iter().map(|&proxy| proxy.to_owned()).collect(),
            ..HttpConfig::default()
        };
        let way = Way { peer: at(peer), is_for_operators: false, is_secure: false };
        web_socket_base(&config, Some(way), &map_of(headers))
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
        let cases: [(&[(&str, &str)], &str); 9] = [
            (
                &[
                    ("host", "a:1"),
                    ("forwarded", "for=1.2.3.4;proto=http;host=evil, proto=https;host=\"b.example:8443\""),
                ],
                "wss://b.example:8443",
            ),
            (&[("host", "a:1"), ("x-forwarded-proto", "http, HTTPS")], "wss://a:1"),
            // Separators within quotes do not count, and quotes within quotes are escaped (RFC 7239,
            // section 4).
            (&[("forwarded", r#"host="b.example";ext="a,b;host=evil";proto=https"#)], "wss://b.example"),
            (&[("forwarded", r#"ext="\";host=evil, host=evil";host="b\.example""#)], "ws://b.example"),
            (&[("host", "a:1"), ("forwarded", r#"proto=https;host="b.example"#)], "wss://a:1"),
            // If the proxy writes X-Forwarded-*, `Forwarded` is the client's and ignored.
            (&[("host", "a:1"), ("x-forwarded-proto", "http"), ("forwarded", "host=evil")], "ws://a:1"),
            (&[("host", "a:1"), ("x-forwarded-host", "evil/path?x")], "ws://a:1"),
            (&[("host", "[::1]:8080")], "ws://[::1]:8080"),
            (&[], "ws://127.0.0.1:8080"),
        ];
        for (headers, expected) in cases {
            assert_eq!(base("127.0.0.1", &trusted, headers), expected);
        }
    }

    #[test]
    fn the_client_is_the_first_that_is_no_proxy_of_ours() {
        let trusted = ["10.0.0.0/8", "2001:db8:9::/48"].map(str::to_owned).to_vec();
        let proxies = Proxies::of(&HttpConfig { trusted_proxies: trusted, ..HttpConfig::default() });
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Headers<'_>, &str); 16] = [
            // Headers of other senders are not trusted.
            ("203.0.113.9", &[("x-forwarded-for", "198.51.100.1")], "203.0.113.9"),
            ("10.0.0.7", &[], "10.0.0.7"),
            ("10.0.0.7", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            ("::ffff:10.0.0.7", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            // Values that the client wrote come before those of the proxies.
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
            ("10.0.0.7", &[("forwarded", r#"for=198.51.100.1;ext=", for=127.0.0.1""#)], "198.51.100.1"),
            ("10.0.0.7", &[("forwarded", r#"for=198.51.100.1, for="127.0.0.1"#)], "10.0.0.7"),
        ];
        for (peer, headers, expected) in cases {
            let client = proxies.client(at(peer), &map_of(headers));
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_configured_address_comes_before_all() {
        let config =
            HttpConfig { public_url: Some("https://stream.example.com".to_owned()), ..HttpConfig::default() };
        assert_eq!(web_socket_base(&config, None, &HeaderMap::new()), "wss://stream.example.com");
        let config = HttpConfig { base_path: "/prices".to_owned(), ..config };
        assert_eq!(web_socket_base(&config, None, &HeaderMap::new()), "wss://stream.example.com/prices");
    }
}
