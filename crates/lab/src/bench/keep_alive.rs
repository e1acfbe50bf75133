//! An HTTP connection that stays open between requests.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time};

use super::{
    clock::Clock,
    publisher::{ANSWER_LEN_MAX, PATIENCE},
    target::Endpoint,
};

/// One connection, and one request at a time on it.
#[derive(Debug)]
pub(super) struct KeepAlive {
    base: Endpoint,
    clock: Clock,
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; ends with it.
    _driver: JoinSet<()>,
}

/// The answer to a request, and when its head arrived.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) at_ns: u64,
    pub(super) body: Bytes,
}

/// Opens so many connections, spread over the gateways.
pub(super) async fn connect_all(
    bases: &[Endpoint],
    count: usize,
    clock: Clock,
) -> anyhow::Result<Vec<KeepAlive>> {
    let mut connections = Vec::with_capacity(count);
    for base in bases.iter().cycle().take(count) {
        connections.push(KeepAlive::connect(base, clock).await?);
    }
    Ok(connections)
}

impl KeepAlive {
    /// Connects to a gateway.
    pub(super) async fn connect(base: &Endpoint, clock: Clock) -> anyhow::Result<Self> {
        let connecting = async {
            let stream = TcpStream::connect(base.address).await?;
            stream.set_nodelay(true)?;
            anyhow::Ok(handshake(TokioIo::new(stream)).await?)
        };
        let connected = time::timeout(PATIENCE, connecting).await.map_err(anyhow::Error::from).flatten();
        let (sender, connection) =
            connected.with_context(|| format!("cannot connect to http://{}", base.host))?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // The sender of a request gets the same error.
            drop(connection.await);
        });
        Ok(Self { base: base.clone(), clock, sender, _driver: driver })
    }

    /// Posts JSON; an answer other than `expected` is an error that contains it.
    pub(super) async fn post(
        &mut self,
        path: &str,
        json: impl Into<Bytes>,
        expected: StatusCode,
    ) -> anyhow::Result<Answered> {
        let request = Request::post(format!("{}{path}", self.base.path))
            .header(HOST, &self.base.host)
            .header(CONTENT_TYPE, "application/json");
        self.send(request.body(Full::new(json.into()))?, expected).await
    }

    /// Gets a resource that must exist.
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Answered> {
        let request = Request::get(format!("{}{path}", self.base.path)).header(HOST, &self.base.host);
        self.send(request.body(Full::default())?, StatusCode::OK).await
    }

    async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
        expected: StatusCode,
    ) -> anyhow::Result<Answered> {
        if let Some(bearer) = self.base.token.bearer() {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::try_from(bearer)?);
        }
        let what = format!("{} http://{}{}", request.method(), self.base.host, request.uri());
        let answering = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let at_ns = self.clock.now_ns();
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok((at_ns, status, body))
        };
        let answered = time::timeout(PATIENCE, answering).await.map_err(anyhow::Error::from).flatten();
        let (at_ns, status, body) = answered.with_context(|| format!("no answer to {what}"))?;
        ensure!(
            status == expected,
            "{what} was answered with {status}: {}",
            String::from_utf8_lossy(&body).chars().take(ANSWER_LEN_MAX).collect::<String>()
        );
        Ok(Answered { at_ns, body })
    }
}
