//! Every address of the gateway, and what may be asked of it. 405, `Allow`, `OPTIONS` and CORS are
//! answered from here, and a path that is not here reaches no route.

use hyper::header::HeaderValue;

use self::Kind::{Client, Probe, Told, WebSocket};

/// The methods that the gateway knows; any other is answered with 501.
pub(super) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Who uses an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Probes, which ask how the gateway does, and by which name they do is up to them.
    Probe,
    /// Operators; like the one for probes, it is there in a process that only works on orders.
    Told,
    /// Clients, publishers and workers.
    Client,
    /// Clients, by an upgrade to WebSocket.
    WebSocket,
}

/// An address, or many that differ in the segments in braces.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) pattern: &'static str,
    pub(super) kind: Kind,
    /// Without `HEAD`, which goes wherever `GET` does, and `OPTIONS`, which goes everywhere.
    pub(super) methods: &'static [&'static str],
    /// How much of the pattern stands before the first brace: nearly all addresses differ in that.
    plain: usize,
}

const fn address(pattern: &'static str, kind: Kind, methods: &'static [&'static str]) -> Address {
    let (bytes, mut plain) = (pattern.as_bytes(), 0);
    while plain < bytes.len() && bytes[plain] != b'{' {
        plain += 1;
    }
    Address { pattern, kind, methods, plain }
}

const GET: &[&str] = &["GET"];
const POST: &[&str] = &["POST"];
const DELETE: &[&str] = &["DELETE"];

/// The first one that fits counts, so words stand before braces.
pub(super) const ADDRESSES: &[Address] = &[
    address("/", Client, GET),
    address("/page.js", Client, GET),
    address("/openapi.json", Client, GET),
    address("/asyncapi.json", Client, GET),
    address("/health", Probe, GET),
    address("/health/live", Probe, GET),
    address("/health/ready", Probe, GET),
    address("/health/redis", Probe, GET),
    address("/ws/health", Probe, GET),
    address("/api/ws/ws/health", Probe, GET),
    address("/metrics", Probe, GET),
    address("/ws/stats", Told, GET),
    address("/api/ws/ws/stats", Told, GET),
    address("/ws", WebSocket, GET),
    address("/ws/market/{zone}", WebSocket, GET),
    address("/ws/orders/{order}", WebSocket, GET),
    address("/api/zones", Client, GET),
    address("/api/zones/{zone}", Client, DELETE),
    address("/api/zones/{zone}/prices", Client, POST),
    address("/api/zones/{zone}/latest", Client, GET),
    address("/api/zones/{zone}/history", Client, GET),
    address("/api/zones/{zone}/keys/{key}", Client, DELETE),
    address("/api/orders", Client, GET),
    address("/api/orders/execute", Client, POST),
    address("/api/orders/dead-letters", Client, GET),
    address("/api/orders/dead-letters/{order}/retry", Client, POST),
    address("/api/orders/status/{order}", WebSocket, GET),
    address("/api/orders/{order}", Client, GET),
    address("/api/orders/{order}/cancel", Client, POST),
    address("/api/orders/{order}/updates", Client, POST),
    address("/api/jobs/claim", Client, POST),
    address("/api/jobs/{job}/extend", Client, POST),
    address("/api/jobs/{job}/progress", Client, POST),
    address("/api/jobs/{job}/complete", Client, POST),
    address("/api/jobs/{job}/release", Client, POST),
    address("/api/jobs/{job}/fail", Client, POST),
];

/// The address that a path is of. One slash at the end does not matter.
pub(super) fn find(path: &str) -> Option<&'static Address> {
    ADDRESSES.iter().find(|address| address.fits(path))
}

/// Whether a path begins as one of the addresses does.
pub(super) fn begins_like_one(path: &str) -> bool {
    let first = |path: &'_ str| path.split('/').nth(1).map(str::to_owned);
    ADDRESSES.iter().any(|address| first(address.pattern) == first(path))
}

/// What can be asked of some address or other, as `OPTIONS *` wants to know.
pub(super) fn allowed_somewhere() -> HeaderValue {
    let is_used = |method: &&str| ADDRESSES.iter().any(|address| address.takes(method));
    listed(METHODS.into_iter().filter(is_used))
}

impl Address {
    pub(super) fn takes(&self, method: &str) -> bool {
        match method {
            "OPTIONS" => true,
            "HEAD" => self.methods.contains(&"GET"),
            method => self.methods.contains(&method),
        }
    }

    /// The value of `Allow`.
    pub(super) fn allow(&self) -> HeaderValue {
        listed(METHODS.into_iter().filter(|method| self.takes(method)))
    }

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

fn listed<'m>(methods: impl Iterator<Item = &'m str>) -> HeaderValue {
    let text = methods.collect::<Vec<_>>().join(", ");
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
            assert_eq!(find(path).map(|address| address.pattern), expected, "{path}");
        }
    }

    #[test]
    fn allow_names_what_goes() {
        let allow = |path| find(path).unwrap().allow();
        assert_eq!(allow("/ws"), "GET, HEAD, OPTIONS");
        assert_eq!(allow("/api/zones/x/prices"), "POST, OPTIONS");
        assert_eq!(allow("/api/zones/x"), "DELETE, OPTIONS");
        assert_eq!(allowed_somewhere(), "GET, HEAD, POST, DELETE, OPTIONS");
    }

    #[test]
    fn an_address_does_not_stand_behind_one_that_takes_its_place() {
        for address in ADDRESSES {
            let path = address.pattern.replace(['{', '}'], "");
            assert_eq!(find(&path).unwrap().pattern, address.pattern);
            assert!(address.methods.iter().all(|method| METHODS.contains(method)), "{address:?}");
        }
    }
}
