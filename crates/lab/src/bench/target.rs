//! Addresses that subscribers connect to and messages are published to.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use url::Url;

/// A resolved address, and the credential for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    /// For the `Host` header.
    pub(super) host: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) token: Token,
}

/// The credential to show, if any. It is not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Token(Option<Arc<str>>);

impl Token {
    /// Fails if the text does not fit into a header.
    pub(super) fn new(text: &str) -> anyhow::Result<Self> {
        let token = text.trim();
        ensure!(
            token.bytes().all(|byte| byte.is_ascii_graphic()),
            "a token has visible ASCII characters only"
        );
        Ok(Self((!token.is_empty()).then(|| token.into())))
    }

    /// The value of `Authorization`.
    pub(super) fn bearer(&self) -> Option<String> {
        self.0.as_ref().map(|token| format!("Bearer {token}"))
    }

    /// The same as a header line; empty without a credential.
    pub(super) fn line(&self) -> String {
        self.bearer().map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "***" } else { "none" })
    }
}

/// Where the publisher sends its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublishTarget {
    /// A chunked `POST` of NDJSON per channel.
    Http(Vec<Endpoint>),
    /// Plain lines over TCP, without channels.
    Tcp(SocketAddr),
    /// Somebody else publishes.
    None,
}

/// Fills in the channel's number.
pub(super) fn for_channel(template: &str, channel: u32) -> String {
    template.replace("{n}", &channel.to_string())
}

/// Resolves `ws://...`; anything but loopback is refused unless allowed.
pub(super) fn websocket(text: &str, allow_remote: bool) -> anyhow::Result<Endpoint> {
    let url = parse(text)?;
    match url.scheme() {
        "ws" => resolve(&url, 80, allow_remote),
        "wss" => bail!("`{text}`: the bench client speaks no TLS; measure the server behind it with ws://"),
        _ => bail!("`{text}`: expected ws://host:port/path"),
    }
}

/// Resolves `http://host:port`, the base address of a gateway.
pub(super) fn gateway(text: &str, allow_remote: bool) -> anyhow::Result<Endpoint> {
    let url = parse(text)?;
    ensure!(
        url.scheme() == "http" && url.query().is_none() && url.fragment().is_none(),
        "`{text}`: expected http://host:port"
    );
    let base = resolve(&url, 80, allow_remote)?;
    Ok(Endpoint { path: base.path.trim_end_matches('/').to_owned(), ..base })
}

/// Resolves `http://...`, `tcp://...` or `none`, with an endpoint for each channel.
pub(super) fn publish(text: &str, channels: u32, allow_remote: bool) -> anyhow::Result<PublishTarget> {
    if text == "none" {
        return Ok(PublishTarget::None);
    }
    match parse(&for_channel(text, 0))?.scheme() {
        "http" => (0..channels)
            .map(|channel| resolve(&parse(&for_channel(text, channel))?, 80, allow_remote))
            .collect::<anyhow::Result<_>>()
            .map(PublishTarget::Http),
        "tcp" => {
            ensure!(channels == 1, "`{text}`: a tcp target has one channel");
            let url = parse(text)?;
            ensure!(url.port().is_some(), "`{text}`: expected tcp://host:port");
            Ok(PublishTarget::Tcp(resolve(&url, 0, allow_remote)?.address))
        }
        _ => bail!("`{text}`: expected http://host:port/path, tcp://host:port or none"),
    }
}

impl PublishTarget {
    /// The same target with a credential; lines over TCP have none.
    pub(super) fn with_token(mut self, token: &Token) -> Self {
        if let Self::Http(endpoints) = &mut self {
            endpoints.iter_mut().for_each(|endpoint| endpoint.token = token.clone());
        }
        self
    }
}

impl Endpoint {
    /// The same endpoint with a credential.
    pub(super) fn with_token(self, token: &Token) -> Self {
        Self { token: token.clone(), ..self }
    }

    /// An endpoint below this one; `path` begins with a slash.
    pub(super) fn at(&self, path: &str) -> Self {
        Self { path: format!("{}{path}", self.path), ..self.clone() }
    }
}

fn parse(text: &str) -> anyhow::Result<Url> {
    Url::parse(text).with_context(|| format!("`{text}` is not a URL"))
}

fn resolve(url: &Url, default_port: u16, allow_remote: bool) -> anyhow::Result<Endpoint> {
    let host = url.host_str().with_context(|| format!("`{url}` has no host"))?;
    let port = url.port().unwrap_or(default_port);
    // Name resolution takes an IPv6 address without its brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = (bare, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve `{host}`"))?
        .next()
        .with_context(|| format!("`{host}` has no address"))?;
    ensure!(
        allow_remote || address.ip().is_loopback(),
        "`{url}` is not on this machine ({}); add --allow-remote if you may put that host under load",
        address.ip()
    );
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Ok(Endpoint { address, host: format!("{host}:{port}"), path, token: Token::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_url_resolves() {
        let endpoint = websocket("ws://127.0.0.1:8080/ws/market/bench?since=a:1", false).unwrap();
        assert_eq!(endpoint.address.to_string(), "127.0.0.1:8080");
        assert_eq!(endpoint.host, "127.0.0.1:8080");
        assert_eq!(endpoint.path, "/ws/market/bench?since=a:1");
        assert!(websocket("ws://[::1]:8080/ws", false).is_ok());
    }

    #[test]
    fn remote_hosts_must_be_allowed() {
        let error = websocket("ws://192.0.2.1/ws", false).unwrap_err().to_string();
        assert!(error.contains("--allow-remote"), "{error}");
        assert!(websocket("ws://192.0.2.1/ws", true).is_ok());
        assert!(publish("http://192.0.2.1/x", 1, false).is_err());
        assert!(publish("tcp://192.0.2.1:9", 1, false).is_err());
    }

    #[test]
    fn wrong_schemes_are_refused() {
        for url in ["wss://127.0.0.1/ws", "http://127.0.0.1/ws", "nonsense"] {
            assert!(websocket(url, false).is_err(), "{url}");
        }
        assert!(publish("ftp://127.0.0.1/", 1, false).is_err());
    }

    #[test]
    fn a_gateway_has_paths_below_it() {
        let base = gateway("http://127.0.0.1:8080/", false).unwrap();
        assert_eq!(base.at("/ws/orders/1").path, "/ws/orders/1");
        let behind = gateway("http://127.0.0.1:8080/feed", false).unwrap();
        assert_eq!(behind.at("/ws/stats").path, "/feed/ws/stats");
        for text in ["http://192.0.2.1", "ws://127.0.0.1:1", "https://127.0.0.1", "http://127.0.0.1/?a", "x"]
        {
            assert!(gateway(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn each_channel_has_its_own_post() {
        let target = publish("http://127.0.0.1:1/api/zones/z{n}/prices", 2, false).unwrap();
        let PublishTarget::Http(endpoints) = target else { panic!("not http: {target:?}") };
        let paths: Vec<_> = endpoints.iter().map(|endpoint| endpoint.path.as_str()).collect();
        assert_eq!(paths, ["/api/zones/z0/prices", "/api/zones/z1/prices"]);
    }

    #[test]
    fn a_token_goes_into_the_head_and_is_not_printed() {
        let endpoint = websocket("ws://127.0.0.1:1/ws", false).unwrap();
        assert_eq!(endpoint.token.line(), "");
        let with_token = endpoint.with_token(&Token::new(" abc.def\n").unwrap());
        assert_eq!(with_token.token.line(), "Authorization: Bearer abc.def\r\n");
        assert!(!format!("{with_token:?}").contains("abc"), "{with_token:?}");
        assert!(Token::new("a\r\nb").is_err());
        assert_eq!(Token::new("").unwrap().bearer(), None);
    }

    #[test]
    fn lines_over_tcp_have_one_channel() {
        assert!(publish("tcp://127.0.0.1:9", 1, false).is_ok());
        assert!(publish("tcp://127.0.0.1:9", 2, false).is_err());
        assert_eq!(publish("none", 3, false).unwrap(), PublishTarget::None);
    }
}
