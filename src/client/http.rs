//! HTTP/1.1 requests, through the proxies that the environment names.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::http::request::Builder;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{HeaderMap, Method, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tower_service::Service;

use super::CONNECT_TIMEOUT;

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Whether requests use TLS.
#[derive(Debug)]
pub(super) enum SpeaksTls {
    Never,
    /// With the authorities that this machine trusts.
    Usually,
    With(Arc<ClientConfig>),
}

/// An HTTP client, cheap to clone; connections are kept open for later requests.
#[derive(Debug, Clone)]
pub struct Http {
    client: legacy::Client<HttpsConnector<Way>, Body>,
    proxies: Option<Arc<Matcher>>,
    /// The `Authorization` header of each request.
    authorization: Option<HeaderValue>,
}

impl Http {
    /// `speaks_tls` says whether any request will need TLS, and with what.
    ///
    /// # Errors
    ///
    /// The certificates that this machine trusts cannot be read.
    pub(super) fn new(
        proxies: Option<Matcher>,
        speaks_tls: SpeaksTls,
        authorization: Option<HeaderValue>,
    ) -> io::Result<Self> {
        let proxies = proxies.map(Arc::new);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let way = Way { tcp, proxies: proxies.clone() };
        let tls = match speaks_tls {
            SpeaksTls::With(config) => {
                HttpsConnectorBuilder::new().with_tls_config(ClientConfig::clone(&config))
            }
            SpeaksTls::Usually => HttpsConnectorBuilder::new().with_native_roots()?,
            // Loading the trusted certificates takes a while, so they are left out.
            SpeaksTls::Never => HttpsConnectorBuilder::new().with_tls_config(
                ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth(),
            ),
        };
        let connector = tls.https_or_http().enable_http1().wrap_connector(way);
        let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, proxies, authorization })
    }

    /// Begins a GET.
    pub fn get(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::GET, url.as_ref())
    }

    /// Begins a POST.
    pub fn post(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::POST, url.as_ref())
    }

    /// Begins a PUT.
    pub fn put(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::PUT, url.as_ref())
    }

    /// Begins a DELETE.
    pub fn delete(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::DELETE, url.as_ref())
    }

    fn request(&self, method: Method, url: &str) -> Request {
        let agent = concat!("zonewire/", env!("CARGO_PKG_VERSION"));
        let mut head = hyper::Request::builder().method(method).uri(url).header(header::USER_AGENT, agent);
        if let Some(authorization) = &self.authorization {
            head = head.header(header::AUTHORIZATION, authorization);
        }
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Request { http: self.clone(), head, body, timeout: None }
    }
}

/// A request that is being built.
#[derive(Debug)]
#[must_use = "it is not sent before `send`"]
pub struct Request {
    http: Http,
    head: Builder,
    body: Body,
    timeout: Option<Duration>,
}

impl Request {
    /// Adds a header.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<header::HeaderName, Error: Into<hyper::http::Error>>,
        V: TryInto<header::HeaderValue, Error: Into<hyper::http::Error>>,
    {
        self.head = self.head.header(name, value);
        self
    }

    /// How long the request may take, from sending to the last byte of the answer; without a limit by
    /// default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        self
    }

    /// Sets a body that is sent as its parts arrive.
    pub fn stream(mut self, stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        self.body = StreamBody::new(stream.map(|part| part.map(Frame::data))).boxed_unsync();
        self
    }

    /// Sends the request, and waits for the head of the answer. Redirects are not followed.
    ///
    /// # Errors
    ///
    /// There is no answer; see [`SendError`].
    pub async fn send(self) -> Result<Response, SendError> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut request = self.head.body(self.body).map_err(|error| SendError::Address(error.into()))?;
        let proxy = self.http.proxies.as_ref().and_then(|proxies| proxies.intercept(request.uri()));
        if let Some(login) = proxy.as_ref().and_then(|proxy| proxy.basic_auth())
            && request.uri().scheme_str() == Some("http")
        {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, login.clone());
        }
        let answer = within(deadline, self.http.client.request(request)).await?.map_err(SendError::of)?;
        let (head, body) = answer.into_parts();
        Ok(Response { status: head.status, headers: head.headers, body, deadline })
    }
}

/// The head of an answer, and its body, which is still to be read.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    deadline: Option<Instant>,
}

impl Response {
    /// The whole body.
    ///
    /// # Errors
    ///
    /// It breaks off, or does not end within the request's time limit.
    pub async fn bytes(self) -> Result<Bytes, SendError> {
        let body = within(self.deadline, self.body.collect()).await?;
        Ok(body.map_err(|error| SendError::Broken(error.into()))?.to_bytes())
    }

    /// The whole body, of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// As for [`bytes`](Self::bytes); or it is longer, in which case no more is read.
    pub async fn bytes_within(self, max: usize) -> Result<Bytes, SendError> {
        let body = within(self.deadline, Limited::new(self.body, max).collect()).await?;
        Ok(body.map_err(SendError::of_body)?.to_bytes())
    }

    /// The whole body as text, with invalid UTF-8 replaced.
    ///
    /// # Errors
    ///
    /// As for [`bytes`](Self::bytes).
    pub async fn text(self) -> Result<String, SendError> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }
}

async fn within<T>(deadline: Option<Instant>, done: impl Future<Output = T>) -> Result<T, SendError> {
    match deadline {
        Some(deadline) => time::timeout_at(deadline, done).await.map_err(|_late| SendError::Timeout),
        None => Ok(done.await),
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
#[error("{}", super::words::of_request(self))]
pub enum SendError {
    /// The request is invalid.
    Address(#[source] Fault),
    /// No connection could be made, so nothing was sent.
    Connect(#[source] Fault),
    /// The connection ended before the answer did.
    Broken(#[source] Fault),
    /// The answer took too long.
    Timeout,
    /// The answer is longer than permitted.
    TooLong,
}

impl SendError {
    fn of(error: legacy::Error) -> Self {
        if error.is_connect() { Self::Connect(error.into()) } else { Self::Broken(error.into()) }
    }

    fn of_body(error: Fault) -> Self {
        if error.is::<LengthLimitError>() { Self::TooLong } else { Self::Broken(error) }
    }

    /// Whether nothing was sent.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Address(_) | Self::Connect(_))
    }
}

/// The connection to a server: direct, or through a proxy.
#[derive(Debug, Clone)]
struct Way {
    tcp: HttpConnector,
    proxies: Option<Arc<Matcher>>,
}

impl Service<Uri> for Way {
    type Response = Stretch;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Stretch, Fault>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let proxy = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&to));
        let mut tcp = self.tcp.clone();
        Box::pin(async move {
            let Some(proxy) = proxy else {
                return Ok(Stretch { stream: tcp.call(to).await?, asks_a_proxy: false });
            };
            // A proxy forwards plain HTTP itself; everything else needs a tunnel.
            if to.scheme_str() == Some("http") {
                return Ok(Stretch { stream: tcp.call(proxy.uri().clone()).await?, asks_a_proxy: true });
            }
            let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            let mut tunnel = match proxy.basic_auth() {
                Some(login) => tunnel.with_auth(login.clone()),
                None => tunnel,
            };
            Ok(Stretch { stream: tunnel.call(to).await?, asks_a_proxy: false })
        })
    }
}

/// A connection to a server, or to the proxy in front of it.
#[derive(Debug)]
struct Stretch {
    stream: TokioIo<TcpStream>,
    /// Whether it leads to a proxy, which needs the whole address in the request.
    asks_a_proxy: bool,
}

impl Connection for Stretch {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.asks_a_proxy)
    }
}

impl Read for Stretch {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl Write for Stretch {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// Sends a GET through a proxy that answers with `answer`; returns what the proxy received, and the
    /// outcome.
    async fn asked(url: &str, answer: &str) -> (String, Result<String, SendError>) {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://user:word@{}", proxy.local_addr().unwrap());
        let proxies = Matcher::builder().http(address.clone()).https(address).no("10.0.0.0/8").build();
        let http = Http::new(Some(proxies), SpeaksTls::Never, None).unwrap();
        let received = async {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let (reading, mut writing) = stream.split();
            let (mut lines, mut received) = (BufReader::new(reading).lines(), String::new());
            while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
                received += &line.to_lowercase();
                received.push('\n');
            }
            writing.write_all(answer.as_bytes()).await.unwrap();
            received
        };
        let sent = async { http.get(url).timeout(Duration::from_secs(10)).send().await?.text().await };
        tokio::join!(received, sent)
    }

    #[tokio::test]
    async fn a_proxy_carries_what_is_not_secret() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        let (received, came) = asked("http://gateway.example/health?x=1", answer).await;
        assert!(received.starts_with("get http://gateway.example/health?x=1 http/1.1\n"), "{received}");
        assert!(received.contains("\nproxy-authorization: basic dxnlcjp3b3jk\n"), "{received}");
        assert_eq!(came.unwrap(), "hi");
    }

    #[tokio::test]
    async fn a_proxy_is_a_tunnel_for_what_is() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (received, came) =
            asked("https://gateway.example/health", "HTTP/1.1 403 Forbidden\r\n\r\n").await;
        assert!(received.starts_with("connect gateway.example:443 http/1.1\n"), "{received}");
        assert!(received.contains("\nproxy-authorization: basic dxnlcjp3b3jk\n"), "{received}");
        assert!(came.unwrap_err().is_absent(), "nothing was sent to the gateway itself");
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_no_absence() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let http = Http::new(None, SpeaksTls::Never, None).unwrap();
        let sent = http.get(&url).timeout(Duration::from_millis(1)).send().await.unwrap_err();
        assert!(matches!(sent, SendError::Timeout), "{sent:?}");
        drop(listener);
        let sent = http.get(&url).send().await.unwrap_err();
        assert!(sent.is_absent(), "{sent:?}");
        assert_eq!(sent.to_string(), "the connection was refused");
    }

    #[tokio::test]
    async fn what_is_no_address_is_said() {
        let http = Http::new(None, SpeaksTls::Never, None).unwrap();
        let sent = http.get("no address at all").send().await.unwrap_err();
        assert!(matches!(sent, SendError::Address(_)), "{sent:?}");
    }
}
