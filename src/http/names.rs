//! The gateway's host names, and the origins whose pages may use it.
//!
//! Without authentication, it matters which pages a browser lets talk to the gateway. A page's owner can
//! point its host name at the gateway's address (DNS rebinding), and to the browser it then has the
//! gateway's origin. Therefore only host names that nobody else can own are served.

use std::net::IpAddr;

use super::config::HttpConfig;
use super::forwarded::Said;

/// Host names and origins, as configured.
#[derive(Debug)]
pub(super) struct Names {
    /// `http.hosts`, and the host of `http.public_url`.
    hosts: Vec<String>,
    all_hosts: bool,
    /// Whether the gateway is reachable by addresses other than loopback, not all of which it may know.
    has_addresses: bool,
    origins: Vec<String>,
    all_origins: bool,
    public_url: Option<String>,
}

/// Whether a host name is the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is, and pages from it are the gateway's own.
    Own,
    /// A name without a dot, as containers on one network use. Only machines on that network can have it;
    /// still, no page counts as the gateway's own because of it.
    Short,
    No,
}

impl Names {
    pub(super) fn of(config: &HttpConfig) -> Self {
        let public_host = config.public_url.as_deref().and_then(|url| url.split_once("://"));
        let public_host = public_host.map(|(_, authority)| host_and_port(authority).0);
        let listed = config.hosts.iter().map(String::as_str);
        Self {
            hosts: listed.chain(public_host).map(normal).collect(),
            all_hosts: config.hosts.iter().any(|host| host == "*"),
            has_addresses: [Some(config.listen), config.operators.listen]
                .into_iter()
                .flatten()
                .any(|listen| !listen.ip().to_canonical().is_loopback()),
            origins: config.origins.clone(),
            all_origins: config.origins.iter().any(|origin| origin == "*"),
            public_url: config.public_url.clone(),
        }
    }

    /// Whether a host, without its port, is the gateway's.
    pub(super) fn host(&self, host: &str) -> Known {
        let host = normal(host);
        let is_own = match host.parse::<IpAddr>() {
            // An address cannot be rebound, because no name has to be resolved.
            Ok(address) => {
                let address = address.to_canonical();
                self.has_addresses || address.is_loopback() || address.is_unspecified()
            }
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        };
        if is_own || self.all_hosts || self.hosts.contains(&host) {
            Known::Own
        } else if !host.contains(['.', ':']) {
            Known::Short
        } else {
            Known::No
        }
    }

    /// Whether pages of every origin may use the gateway.
    pub(super) fn allow_all_origins(&self) -> bool {
        self.all_origins
    }

    /// Whether pages of an origin may use the gateway: the origin is its own, by the host of the request or
    /// according to a trusted proxy, or it is listed.
    pub(super) fn allow(&self, origin: &str, host: Option<&str>, said: &Said) -> bool {
        let by_host = || {
            let host = host.filter(|host| self.host(host_and_port(host).0) == Known::Own);
            host.is_some_and(|host| is_at(origin, None, host))
        };
        let by_proxy = || said.host.as_deref().is_some_and(|host| is_at(origin, said.proto.as_deref(), host));
        let is_listed = |listed: &String| listed.eq_ignore_ascii_case(origin);
        self.all_origins
            || self.public_url.as_ref().is_some_and(is_listed)
            || self.origins.iter().any(is_listed)
            || by_host()
            || by_proxy()
    }
}

/// Whether an origin has this host and port, and this scheme if it is given.
fn is_at(origin: &str, scheme: Option<&str>, authority: &str) -> bool {
    let Some((its_scheme, its_authority)) = origin.split_once("://") else { return false };
    let usual = match its_scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (its_host, its_port) = host_and_port(its_authority);
    let (host, port) = host_and_port(authority);
    scheme.is_none_or(|scheme| scheme == its_scheme)
        && normal(its_host) == normal(host)
        && its_port.unwrap_or(usual) == port.unwrap_or(usual)
}

/// The host and the port of an authority; an invalid port counts as missing.
pub(super) fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// A host in the form in which hosts are compared: in lower case, without the brackets of an IPv6 address,
/// and without a final dot.
fn normal(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether a text has the form of an `Origin` header: scheme, host and port, and nothing after them. Such a
/// text equals its serialized origin, so the header can be compared without parsing. Apps in web views have
/// their own schemes, such as `capacitor://localhost`.
pub(super) fn is_origin(text: &str) -> bool {
    match text.split_once("://") {
        Some(("http" | "https", _)) => is_web_origin(text),
        Some(("ws" | "wss" | "ftp", _)) | None => matches!(text, "*" | "null"),
        Some(("file", rest)) => rest.is_empty(),
        Some((scheme, rest)) => {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
                && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
            let (host, port) = rest.split_once(':').unwrap_or((rest, "1"));
            let is_host = !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
            is_scheme && is_host && port.parse::<u16>().is_ok()
        }
    }
}

/// Whether this is the origin of a page on the web.
pub(super) fn is_web_origin(text: &str) -> bool {
    text.starts_with("http")
        && url::Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

/// Whether a text is a host name or an IP address, without a port, or `*`.
pub(super) fn is_host(text: &str) -> bool {
    let is_name =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    text == "*" || normal(text).parse::<IpAddr>().is_ok() || (!text.is_empty() && is_name(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listen: &str, change: impl FnOnce(&mut HttpConfig)) -> Names {
        let mut config = HttpConfig { listen: listen.parse().unwrap(), ..HttpConfig::default() };
        change(&mut config);
        Names::of(&config)
    }

    #[test]
    fn only_names_that_nobody_else_can_have_are_known() {
        use Known::{No, Own, Short};
        let here = names("127.0.0.1:8080", |http| {
            http.hosts = vec!["Prices.Example.com".to_owned(), "2001:db8::7".to_owned()];
            http.public_url = Some("https://stream.example.com:8443".to_owned());
        });
        let everywhere = names("0.0.0.0:8080", |_| {});
        for (host, by_loopback, by_any) in [
            ("localhost", Own, Own),
            ("LocalHost.", Own, Own),
            ("app.localhost", Own, Own),
            ("127.0.0.1", Own, Own),
            ("127.1.2.3", Own, Own),
            ("[::1]", Own, Own),
            ("[::ffff:127.0.0.1]", Own, Own),
            ("0.0.0.0", Own, Own),
            ("prices.example.com", Own, No),
            ("PRICES.example.com.", Own, No),
            ("stream.example.com", Own, No),
            ("[2001:db8::7]", Own, Own),
            ("192.0.2.1", No, Own),
            ("[2001:db8::8]", No, Own),
            ("evil.example", No, No),
            ("localhost.evil.example", No, No),
            ("127.0.0.1.evil.example", No, No),
            ("notlocalhost", Short, Short),
            ("zonewire", Short, Short),
        ] {
            assert_eq!((here.host(host), everywhere.host(host)), (by_loopback, by_any), "{host}");
        }
        let all = names("127.0.0.1:8080", |http| http.hosts = vec!["*".to_owned()]);
        assert_eq!(all.host("evil.example"), Own);
    }

    #[test]
    fn a_page_is_the_gateways_own_by_host_by_proxy_or_by_its_public_url() {
        let plain = names("127.0.0.1:8080", |_| {});
        let listed = names("127.0.0.1:8080", |http| {
            http.origins = vec!["https://desk.example".to_owned(), "capacitor://localhost".to_owned()];
            http.public_url = Some("https://stream.example.com".to_owned());
        });
        let nobody = Said::default();
        let proxy = Said { proto: Some("https".to_owned()), host: Some("front.example".to_owned()) };
        let names_only = Said { proto: None, host: Some("front.example:8443".to_owned()) };
        for (names, origin, host, said, expected) in [
            (&plain, "http://localhost:8080", "localhost:8080", &nobody, true),
            (&plain, "http://localhost:8080", "LOCALHOST:8080", &nobody, true),
            (&plain, "https://localhost", "localhost", &nobody, true),
            (&plain, "http://localhost", "localhost:80", &nobody, true),
            (&plain, "https://localhost", "localhost:80", &nobody, false),
            (&plain, "http://localhost:3000", "localhost:8080", &nobody, false),
            (&plain, "http://[::1]:8080", "[::1]:8080", &nobody, true),
            (&plain, "http://zonewire:8080", "zonewire:8080", &nobody, false),
            (&plain, "http://evil.example", "evil.example", &nobody, false),
            (&plain, "capacitor://localhost", "localhost", &nobody, false),
            (&plain, "null", "localhost", &nobody, false),
            (&plain, "", "localhost", &nobody, false),
            (&plain, "https://front.example", "127.0.0.1:8080", &proxy, true),
            (&plain, "http://front.example", "127.0.0.1:8080", &proxy, false),
            (&plain, "https://front.example:8443", "127.0.0.1:8080", &names_only, true),
            (&plain, "https://front.example", "127.0.0.1:8080", &names_only, false),
            (&listed, "https://desk.example", "127.0.0.1:8080", &nobody, true),
            (&listed, "HTTPS://Desk.Example", "127.0.0.1:8080", &nobody, true),
            (&listed, "https://desk.example.evil.example", "127.0.0.1:8080", &nobody, false),
            (&listed, "https://desk.example:444", "127.0.0.1:8080", &nobody, false),
            (&listed, "capacitor://localhost", "127.0.0.1:8080", &nobody, true),
            (&listed, "https://stream.example.com", "127.0.0.1:8080", &nobody, true),
        ] {
            assert_eq!(names.allow(origin, Some(host), said), expected, "{origin} {host} {said:?}");
        }
        assert!(!plain.allow("http://localhost", None, &nobody));
    }

    #[test]
    fn origins_of_pages_and_of_packaged_apps_can_be_listed() {
        for (origin, good) in [
            ("*", true),
            ("null", true),
            ("https://desk.example.com", true),
            ("http://localhost:5173", true),
            ("capacitor://localhost", true),
            ("ionic://localhost", true),
            ("tauri://localhost", true),
            ("app://bundle", true),
            ("chrome-extension://mdplmiioglkpgkgblfdilgebpppgdlma", true),
            ("vscode-webview://1a2b3c", true),
            ("app://bundle:8080", true),
            ("file://", true),
            ("https://desk.example.com/", false),
            ("https://desk.example.com:443", false),
            ("https://Desk.example.com", false),
            ("HTTPS://desk.example.com", false),
            ("wss://desk.example.com", false),
            ("capacitor://localhost/", false),
            ("capacitor://", false),
            ("app://bundle:x", false),
            ("app://user@bundle", false),
            ("file:///home", false),
            ("desk.example.com", false),
            ("", false),
        ] {
            assert_eq!(is_origin(origin), good, "{origin}");
        }
        for (host, good) in [
            ("stream.example.com", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("[2001:db8::1]", true),
            ("*", true),
            ("stream.example.com:8080", false),
            ("https://stream.example.com", false),
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(is_host(host), good, "{host}");
        }
    }
}
