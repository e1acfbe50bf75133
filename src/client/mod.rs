//! What programs that talk to a gateway share: its address, requests and their outcomes, and following
//! channels across reconnects.

pub mod follow;
mod http;
mod tls;
mod words;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hyper::header::{HeaderValue, RETRY_AFTER};
pub use hyper::{StatusCode, header};
use hyper_util::client::proxy::matcher::Matcher;
use serde::Deserialize;
use url::{Host, Url};

use self::http::SpeaksTls;
pub use self::http::{Http, Request, Response, SendError};
pub use self::tls::{TlsFiles, TlsTerms};

use crate::model::{EventType, Zone};
use crate::protocol::{Accepted, Open, Problem};

/// How long a gateway may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a gateway may take to answer a small request.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The address of a gateway, with a path if a proxy serves it under one; and a credential for it, which is
/// never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    url: Url,
    /// The `Authorization` header.
    authorization: Option<HeaderValue>,
    /// The TLS configuration, if it differs from this machine's.
    tls: Option<TlsTerms>,
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BaseUrl").field("url", &self.to_string()).finish_non_exhaustive()
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "expected an address such as http://127.0.0.1:8080";
        // `localhost:8080` is a valid URL too, with the scheme `localhost`.
        let has_scheme = text.contains("://");
        let with_scheme = || Url::parse(&format!("http://{text}")).is_ok();
        let url = Url::parse(text).ok().filter(|_| has_scheme);
        let url = url.ok_or_else(|| match !text.is_empty() && !has_scheme && with_scheme() {
            true => format!("{FORM}; did you mean http://{text}?"),
            false => FORM.to_owned(),
        })?;
        let scheme = match url.scheme() {
            "http" | "ws" => "http",
            "https" | "wss" => "https",
            _ => return Err(FORM.to_owned()),
        };
        // `set_scheme` refuses to change ws to http, so the text is changed.
        let plain = format!("{scheme}{}", &url[url::Position::AfterScheme..]);
        let mut url = Url::parse(&plain).map_err(|_error| FORM.to_owned())?;
        url.set_query(None);
        url.set_fragment(None);
        let path = format!("{}/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(Self { url, authorization: None, tls: None })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without user and password, which may be meant for a proxy.
        write!(f, "{}{}", self.url.origin().ascii_serialization(), self.url.path().trim_end_matches('/'))
    }
}

impl BaseUrl {
    /// The same address with a token or an API key.
    ///
    /// # Errors
    /// It has characters that no token can have.
    pub fn with_token(mut self, token: &str) -> Result<Self, String> {
        let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_error| "a token consists of visible ASCII characters".to_owned())?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// The same address with this TLS configuration.
    #[must_use]
    pub fn with_tls(self, tls: TlsTerms) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Whether it is reached over TLS.
    pub fn speaks_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The address of an endpoint; `path` without a leading slash.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The address for publishing to a zone.
    pub fn prices(&self, zone: &Zone) -> String {
        self.endpoint(&format!("api/zones/{zone}/prices"))
    }

    /// The address for publishing events of a type.
    pub fn events(&self, event: EventType) -> String {
        self.endpoint(&format!("api/events/{event}"))
    }

    /// The address of a WebSocket; `path` without a leading slash.
    pub fn socket(&self, path: &str) -> String {
        let scheme = if self.speaks_tls() { "wss" } else { "ws" };
        format!("{scheme}{}{path}", &self.url[url::Position::AfterScheme..])
    }

    /// An HTTP client for this gateway. The proxies of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are used,
    /// except for this machine's own addresses.
    pub fn http(&self) -> anyhow::Result<Http> {
        let is_here = match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let speaks_tls = match &self.tls {
            _ if !self.speaks_tls() => SpeaksTls::Never,
            Some(TlsTerms(config)) => SpeaksTls::With(Arc::clone(config)),
            None => SpeaksTls::Usually,
        };
        let http = Http::new((!is_here).then(Matcher::from_env), speaks_tls, self.authorization.clone());
        http.context("cannot read the certificates that this machine trusts")
    }
}

/// Runs a client command on this thread.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(command);
    // A pending read of standard input cannot be cancelled.
    runtime.shutdown_background();
    result
}

/// The gateway answered with an error.
#[derive(Debug, thiserror::Error)]
#[error("{base} answered {status}: {problem}")]
pub struct Refused {
    base: BaseUrl,
    /// The status of the answer.
    pub status: StatusCode,
    /// How long it asked to wait before a retry, in whole seconds.
    pub retry_after: Option<Duration>,
    problem: Problem,
}

impl Refused {
    /// The stable code of the problem; empty if there is none.
    pub fn code(&self) -> &str {
        self.problem.code.as_ref().map_or("", Open::as_str)
    }

    /// How many prices it accepted before the problem; `None` if it does not say.
    pub fn accepted(&self) -> Option<u64> {
        self.problem.accepted
    }

    /// The gateway's description of the problem.
    pub fn detail(&self) -> String {
        format!("{} ({})", self.problem.detail.as_deref().unwrap_or("no reason given"), self.code())
    }
}

/// There was no answer.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.words())]
pub struct NoAnswer {
    base: BaseUrl,
    /// Whether nothing was sent.
    pub is_absent: bool,
    why: String,
}

impl NoAnswer {
    fn words(&self) -> String {
        let Self { base, is_absent, why } = self;
        match is_absent {
            true => {
                format!("no gateway answers at {base} ({why}); is one running? (`zonewire demo` starts one)")
            }
            false => format!("the request to {base} failed: {why}"),
        }
    }

    /// No gateway answered at the address; `why` is a fragment of a sentence.
    pub fn absent(base: &BaseUrl, why: String) -> Self {
        Self { base: base.clone(), is_absent: true, why }
    }

    fn of(base: &BaseUrl, error: &SendError) -> Self {
        Self { base: base.clone(), is_absent: error.is_absent(), why: words::of_request(error) }
    }
}

/// The answer to a request, if it was successful; [`Refused`] if it was not, and [`NoAnswer`] if there was
/// none.
pub async fn answer(sent: Result<Response, SendError>, base: &BaseUrl) -> anyhow::Result<Response> {
    let response = sent.map_err(|error| NoAnswer::of(base, &error))?;
    let status = response.status;
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let body = response.bytes().await.unwrap_or_default();
    let problem = serde_json::from_slice(&body).unwrap_or_default();
    Err(Refused { base: base.clone(), status, retry_after, problem }.into())
}

/// Whether the request was successful, and the text of the answer in any case.
pub async fn success_and_text(
    sent: Result<Response, SendError>,
    base: &BaseUrl,
) -> anyhow::Result<(bool, String)> {
    let no_answer = |error| NoAnswer::of(base, &error);
    let response = sent.map_err(no_answer)?;
    let is_good = response.status.is_success();
    Ok((is_good, response.text().await.map_err(no_answer)?))
}

/// The text of an answer.
pub async fn text_of(sent: Result<Response, SendError>, base: &BaseUrl) -> anyhow::Result<String> {
    answer(sent, base).await?.text().await.map_err(|error| NoAnswer::of(base, &error).into())
}

/// Sends a small GET request; `path` without a leading slash.
pub async fn get(
    http: &Http,
    base: &BaseUrl,
    path: &str,
    query: &[(&str, Option<String>)],
) -> anyhow::Result<String> {
    let mut url = Url::parse(&base.endpoint(path)).context("not an address")?;
    for (name, value) in query {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    text_of(http.get(url).timeout(ANSWER_TIMEOUT).send().await, base).await
}

/// Parses an answer; `what` names the expected content, such as `an order`.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> anyhow::Result<T> {
    // The parser's message helps nobody: mostly, something other than a gateway has answered.
    serde_json::from_str(text).map_err(|_error| {
        anyhow!("the answer is not {what}; is this a Zonewire gateway of about this version?")
    })
}

/// How many prices were accepted.
pub async fn accepted(response: Response) -> anyhow::Result<u64> {
    let text = response.text().await.map_err(|_error| anyhow!("the answer broke off"))?;
    Ok(read::<Accepted>(&text, "the number of accepted prices")?.accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, endpoint: &str, socket: &str) {
        let base: BaseUrl = text.parse().unwrap();
        assert_eq!((base.endpoint("health").as_str(), base.socket("ws").as_str()), (endpoint, socket));
    }

    #[test]
    fn an_address_gives_both_endpoints() {
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080/health", "ws://127.0.0.1:8080/ws");
        check("wss://gw.example/feed/", "https://gw.example/feed/health", "wss://gw.example/feed/ws");
        check("ws://[::1]:9", "http://[::1]:9/health", "ws://[::1]:9/ws");
    }

    #[test]
    fn other_addresses_are_refused() {
        for (text, hint) in [
            ("", ""),
            ("127.0.0.1:8080", "; did you mean http://127.0.0.1:8080?"),
            ("localhost:8080", "; did you mean http://localhost:8080?"),
            ("[::1]:9/feed", "; did you mean http://[::1]:9/feed?"),
            ("a b", ""),
            ("ftp://x", ""),
            ("redis://x", ""),
            ("http://", ""),
            ("http://x:port", ""),
        ] {
            let expected = format!("expected an address such as http://127.0.0.1:8080{hint}");
            assert_eq!(text.parse::<BaseUrl>(), Err(expected), "{text:?}");
        }
    }
}
