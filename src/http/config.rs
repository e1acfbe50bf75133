//! What can be configured about HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::support::checks::{Checks, Finding};

/// Room for a page of 1 MiB, as JSON. A longer answer has room where there is no other one.
pub(crate) const ANSWERS_BYTES_LEAST: usize = 2 << 20;

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port to listen on; port 0 takes any free one. Anything but loopback needs
    /// `allow_unauthenticated`. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Says outright that anyone who can reach `listen` may read and publish. Default false.
    pub allow_unauthenticated: bool,
    /// How long a client may take to send the head of a request, in milliseconds. Default 10,000.
    pub head_timeout_ms: u64,
    /// The largest JSON body, in bytes. A body of lines (NDJSON) is not bounded as a whole.
    /// Default 1 MiB (1,048,576).
    pub body_bytes_max: usize,
    /// What the bodies of all requests that are being read may hold together, in bytes; of a body of lines
    /// (NDJSON) what has not gone through yet. At least `body_bytes_max`, and 64 KiB more than
    /// `line_bytes_max`. Default 256 MiB (268,435,456), or a share of the memory.
    pub bodies_bytes_max: usize,
    /// What answers that their clients have not taken yet may hold together, in bytes: lists, `/latest` and
    /// `/history`. Past it such a request is answered with 503 `busy`. A 32nd of the memory, where that is
    /// less. At least 2 MiB. Default 67,108,864 (64 MiB).
    pub answers_bytes_max: usize,
    /// The longest line of a body of lines (NDJSON), in bytes. Default 65,536.
    pub line_bytes_max: usize,
    /// How long a body that streams (NDJSON) may bring nothing, in seconds. Default 60.
    pub body_idle_s: u64,
    /// Connections that may be in their HTTP phase at once; more wait to be accepted. Default 256.
    pub handshake_gate: usize,
    /// Refused connections that are told why, per second; more are closed without a word. 0 = all are
    /// told. Default 100.
    pub refusals_per_s: u32,
    /// Browser origins that may connect, besides the gateway's own, such as
    /// `https://desk.example.com`. `*` allows all. Default none.
    pub origins: Vec<String>,
    /// Addresses of proxies whose `Forwarded` and `X-Forwarded-*` headers are believed, such as
    /// `10.0.0.7` or `10.0.0.0/8`; the address that these name counts in place of the proxy's against
    /// the limits of an address. Default none.
    pub trusted_proxies: Vec<String>,
    /// The gateway's own address as clients see it, such as `https://stream.example.com`. Unset:
    /// taken from the request.
    pub public_url: Option<String>,
    /// Threads that serve connections. 0 = one per core. Default 0.
    pub shards: usize,
    /// Over how long connections are told to go at shutdown, in seconds. 0 = at once. Default 10.
    pub drain_s: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            allow_unauthenticated: false,
            head_timeout_ms: 10_000,
            body_bytes_max: 1 << 20,
            bodies_bytes_max: 256 << 20,
            answers_bytes_max: 64 << 20,
            line_bytes_max: 64 << 10,
            body_idle_s: 60,
            handshake_gate: 256,
            refusals_per_s: 100,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            public_url: None,
            shards: 0,
            drain_s: 10,
        }
    }
}

/// More than what comes of a body at once.
const CHUNK_BYTES: usize = 64 << 10;

/// More shards than any machine has cores are a slip of the finger.
const SHARDS_MAX: usize = 1_024;

impl HttpConfig {
    /// What cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = Checks::of("http");
        let is_guarded = self.listen.ip().to_canonical().is_loopback() || self.allow_unauthenticated;
        checks.require("listen", is_guarded, || {
            format!(
                "{} can be reached from other machines, and there is no authentication: listen on a \
                 loopback address such as 127.0.0.1, or set http.allow_unauthenticated = true",
                self.listen
            )
        });
        checks.at_least_1("head_timeout_ms", self.head_timeout_ms);
        checks.at_least_1("body_bytes_max", self.body_bytes_max);
        checks.at_least_1("line_bytes_max", self.line_bytes_max);
        checks.require("answers_bytes_max", self.answers_bytes_max >= ANSWERS_BYTES_LEAST, || {
            format!("{} is less than one answer may have, {ANSWERS_BYTES_LEAST}", self.answers_bytes_max)
        });
        let least = self.bodies_bytes_least();
        checks.require("bodies_bytes_max", self.bodies_bytes_max >= least, || {
            format!(
                "expected room for the largest body and line that may come, {least} or more; found {}",
                self.bodies_bytes_max
            )
        });
        checks.at_least_1("body_idle_s", self.body_idle_s);
        checks.at_least_1("handshake_gate", self.handshake_gate);
        checks.require("shards", self.shards <= SHARDS_MAX, || {
            format!("expected at most {SHARDS_MAX}, found {}", self.shards)
        });
        for origin in &self.origins {
            checks.require("origins", is_origin(origin), || {
                format!("expected origins such as https://desk.example.com, or *; found {origin:?}")
            });
        }
        for proxy in &self.trusted_proxies {
            checks.require("trusted_proxies", network(proxy).is_some(), || {
                format!("expected addresses such as 10.0.0.7 or 10.0.0.0/8; found {proxy:?}")
            });
        }
        if let Some(url) = &self.public_url {
            checks.require("public_url", is_origin(url) && url != "*", || {
                format!("expected scheme, host and port such as https://stream.example.com; found {url:?}")
            });
        }
        checks.finish()
    }

    /// The room that any body needs which nothing else is wrong with.
    pub(crate) fn bodies_bytes_least(&self) -> usize {
        self.body_bytes_max.max(self.line_bytes_max.saturating_add(CHUNK_BYTES))
    }

    /// Whether what this address says about a request's way is believed.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxies().any(|proxy| proxy.contains(&peer))
    }

    /// `trusted_proxies`, read.
    pub(super) fn proxies(&self) -> impl Iterator<Item = IpNet> {
        self.trusted_proxies.iter().filter_map(|proxy| network(proxy))
    }
}

/// An address, or a network of them.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// What browsers send in `Origin`: scheme, host and port, nothing after it. Such text is its own
/// serialised form, so comparing with the header needs no parsing.
fn is_origin(text: &str) -> bool {
    text == "*" || url::Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut HttpConfig)) -> Vec<String> {
        let mut config = HttpConfig::default();
        change(&mut config);
        config.check().into_iter().map(|finding| finding.key).collect()
    }

    #[test]
    fn other_addresses_than_loopback_need_a_word() {
        for (listen, allowed, expected) in [
            ("127.0.0.1:1", false, 0),
            ("[::1]:1", false, 0),
            ("[::ffff:127.0.0.1]:1", false, 0),
            ("0.0.0.0:1", false, 1),
            ("[::]:1", false, 1),
            ("10.0.0.5:1", false, 1),
            ("0.0.0.0:1", true, 0),
        ] {
            let found = keys(|http| {
                http.listen = listen.parse().unwrap();
                http.allow_unauthenticated = allowed;
            });
            assert_eq!(found.len(), expected, "{listen} {allowed}");
        }
    }

    #[test]
    fn all_bodies_have_room_for_the_largest_one() {
        let found = |body, line, all| {
            keys(|http| (http.body_bytes_max, http.line_bytes_max, http.bodies_bytes_max) = (body, line, all))
        };
        for (body, line, all) in [(1 << 20, 1 << 16, 1 << 20), (1, 1 << 20, 17 << 16), (1, 1, (1 << 16) + 1)]
        {
            assert_eq!(found(body, line, all), [""; 0], "{body} {line} {all}");
            assert_eq!(found(body, line, all - 1), ["http.bodies_bytes_max"]);
        }
    }

    #[test]
    fn an_origin_has_no_path_and_no_trailing_slash() {
        for (origin, good) in [
            ("*", true),
            ("https://desk.example.com", true),
            ("http://localhost:5173", true),
            ("https://desk.example.com/", false),
            ("https://desk.example.com:443", false),
            ("desk.example.com", false),
            ("", false),
        ] {
            assert_eq!(keys(|http| http.origins = vec![origin.to_owned()]).is_empty(), good, "{origin}");
        }
    }
}
