//! The settings of HTTP.

mod entrances;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

pub(in crate::http) use self::entrances::UNIX;
pub use self::entrances::{ClientAuth, OperatorsConfig, ProxyProtocol, TlsConfig};
use super::names::{is_host, is_origin, is_web_origin};
use super::table;
use crate::support::checks::Finding;
use crate::support::settings;

/// Enough for a page of 1 MiB, as JSON. A longer answer is possible while there is no other one.
pub(crate) const ANSWERS_BYTES_LEAST: usize = 2 << 20;

settings! {
    /// `[http]`
    #[derive(Debug)]
    pub struct HttpConfig in "http" {
        /// Address and port to listen on; port 0 takes any free one. Anything but loopback needs
        /// authentication, or `auth.mode = "off"`. Default `127.0.0.1:8080`.
        pub listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
        /// How long a client may take to send the head of a request, in milliseconds. Default 10,000.
        pub head_timeout_ms: u64 [1..] = 10_000,
        /// The largest JSON body, in bytes. An NDJSON body is not limited as a whole. Default 1 MiB
        /// (1,048,576).
        pub body_bytes_max: usize [1..] = 1 << 20,
        /// Memory for the bodies of all requests that are being read, in bytes; of an NDJSON body, only what
        /// has not been published yet counts. At least `body_bytes_max`, and 64 KiB more than
        /// `line_bytes_max`. Default 256 MiB (268,435,456), or a share of the memory.
        pub bodies_bytes_max: usize = 256 << 20,
        /// Memory for answers that clients have not read yet, in bytes: lists, `/latest` and `/history`.
        /// Beyond it, such a request is answered with 503 `busy`. A 32nd of the machine's memory, if that is
        /// less. At least 2 MiB. Default 67,108,864 (64 MiB).
        pub answers_bytes_max: usize = 64 << 20,
        /// The longest line of an NDJSON body, in bytes. Default 65,536.
        pub line_bytes_max: usize [1..] = 64 << 10,
        /// The longest pause in an NDJSON body, in seconds. Default 60.
        pub body_idle_s: u64 [1..] = 60,
        /// Connections that may be in their HTTP phase at once; further ones wait to be accepted. Default
        /// 256.
        pub handshake_gate: usize [1..] = 256,
        /// Refused connections that are told why, per second; others are closed without an answer. 0 = all
        /// are told. Default 100.
        pub refusals_per_s: u32 = 100,
        /// Browser origins whose pages may use the gateway, in addition to its own, such as
        /// `https://desk.example.com`, or `capacitor://localhost` for a packaged app. `*` permits all.
        /// Default none.
        pub origins: Vec<String>,
        /// Hosts that the gateway serves (in `Host`), in addition to loopback names, addresses and the host
        /// of `public_url`, such as `stream.example.com`. `*` serves all. Default none.
        pub hosts: Vec<String>,
        /// Addresses of proxies whose `Forwarded` and `X-Forwarded-*` headers are trusted, such as `10.0.0.7`
        /// or `10.0.0.0/8`. The client address in these headers counts against the limits on addresses, in
        /// place of the proxy's. `unix` stands for clients of `unix_socket`. Default none.
        pub trusted_proxies: Vec<String>,
        /// Whether connections of `trusted_proxies` begin with a PROXY protocol header (version 1 or 2),
        /// which names the client: `off` or `required`. Connections of others never do. Default `off`.
        pub proxy_protocol: ProxyProtocol = ProxyProtocol::Off,
        /// A Unix socket to listen on in addition to `listen`, such as `/run/zonewire.sock`. Its clients
        /// count as loopback. Default none.
        pub unix_socket: Option<PathBuf>,
        /// Who may connect to it: its permission bits, in octal. Default `0660`.
        pub unix_socket_mode: String = "0660".to_owned(),
        /// The gateway's own address as clients see it, such as `https://stream.example.com`. Unset: derived
        /// from each request.
        pub public_url: Option<String>,
        /// The path under which a proxy serves the gateway, such as `/prices`; requests with it and without
        /// it are answered. Default none.
        pub base_path: String,
        /// Threads that serve connections. 0 = one per core. Default 0.
        pub shards: usize [..=SHARDS_MAX] = 0,
        /// How long `/health/ready` reports that the gateway is not ready, while it still works as usual,
        /// before it stops accepting, in seconds; for load balancers, which check now and then. Default 0.
        pub drain_lead_s: u64 = 0,
        /// Over how long connections are closed at shutdown, in seconds. 0 = at once. Default 10.
        pub drain_s: u64 = 10,
        /// `[http.tls]`
        pub tls: TlsConfig,
        /// `[http.operators]`
        pub operators: OperatorsConfig,
    }
}

/// More than a body delivers at once.
const CHUNK_BYTES: usize = 64 << 10;

/// No machine has more cores, so a larger number is a typing error.
const SHARDS_MAX: usize = 1_024;

impl HttpConfig {
    /// The invalid settings.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = self.check_ranges();
        checks.require("answers_bytes_max", self.answers_bytes_max >= ANSWERS_BYTES_LEAST, || {
            format!("{} is less than one answer may take, {ANSWERS_BYTES_LEAST}", self.answers_bytes_max)
        });
        let least = self.bodies_bytes_least();
        checks.require("bodies_bytes_max", self.bodies_bytes_max >= least, || {
            format!(
                "expected room for the largest permitted body and line, {least} or more; found {}",
                self.bodies_bytes_max
            )
        });
        let mut check_list = |key, list: &[String], is_good: fn(&str) -> bool, expected| {
            for entry in list {
                checks.require(key, is_good(entry), || format!("expected {expected}; found {entry:?}"));
            }
        };
        check_list("origins", &self.origins, is_origin, "origins such as https://desk.example.com, or *");
        check_list("hosts", &self.hosts, is_host, "names or addresses without a port, or *");
        let is_network = |text: &str| text == UNIX || network(text).is_some();
        let expected = "addresses such as 10.0.0.7 or 10.0.0.0/8, or unix";
        check_list("trusted_proxies", &self.trusted_proxies, is_network, expected);
        if let Some(url) = &self.public_url {
            checks.require("public_url", is_web_origin(url), || {
                format!("expected scheme, host and port such as https://stream.example.com; found {url:?}")
            });
        }
        checks.require("base_path", self.base_path.is_empty() || is_base_path(&self.base_path), || {
            format!(
                "expected a path such as /prices, without a slash at its end, of A-Z a-z 0-9 . _ ~ - and \
                 slashes, that does not begin like an address of the gateway; found {:?}",
                self.base_path
            )
        });
        self.check_entrances(&mut checks);
        checks.finish()
    }

    /// The memory that one body of the permitted size may need.
    pub(crate) fn bodies_bytes_least(&self) -> usize {
        self.body_bytes_max.max(self.line_bytes_max.saturating_add(CHUNK_BYTES))
    }

    /// `trusted_proxies`, parsed.
    pub(super) fn proxies(&self) -> impl Iterator<Item = IpNet> {
        self.trusted_proxies.iter().filter_map(|proxy| network(proxy))
    }
}

/// Parses an address or a network.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether this is a valid base path: no address of the gateway itself begins like it.
fn is_base_path(text: &str) -> bool {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-'))
    };
    text.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment))
        && !table::begins_like_one(text)
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
    fn all_that_is_bad_in_a_list_is_named_at_once() {
        let list = |entries: [&str; 3]| entries.map(str::to_owned).to_vec();
        let config = HttpConfig {
            origins: list(["https://a.example", "a.example", "https://b.example/"]),
            hosts: list(["a.example:80", "a.example", "http://b"]),
            trusted_proxies: list(["10.0.0.0/8", "proxy", "10.0.0.0/99"]),
            ..HttpConfig::default()
        };
        let found: Vec<_> =
            config.check().into_iter().map(|finding| (finding.key, finding.problem)).collect();
        let expected = [
            ("http.origins", r#"found "a.example""#),
            ("http.origins", r#"found "https://b.example/""#),
            ("http.hosts", r#"found "a.example:80""#),
            ("http.hosts", r#"found "http://b""#),
            ("http.trusted_proxies", r#"found "proxy""#),
            ("http.trusted_proxies", r#"found "10.0.0.0/99""#),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((key, problem), (expected, end)) in found.iter().zip(expected) {
            assert!(key == expected && problem.ends_with(end), "{key}: {problem}");
        }
    }

    #[test]
    fn a_base_path_is_no_address_of_the_gateway() {
        for (path, good) in [
            ("", true),
            ("/prices", true),
            ("/a/b-c/api", true),
            ("/apiary", true),
            ("/", false),
            ("prices", false),
            ("/prices/", false),
            ("//prices", false),
            ("/a/../b", false),
            ("/a b", false),
            ("/a?b", false),
            ("/api", false),
            ("/ws/prices", false),
            ("/health", false),
        ] {
            assert_eq!(keys(|http| http.base_path = path.to_owned()).is_empty(), good, "{path}");
        }
        assert_eq!(
            keys(|http| http.public_url = Some("capacitor://localhost".to_owned())),
            ["http.public_url"]
        );
    }
}
