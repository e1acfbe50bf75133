//! `/health` and `/metrics` of a relay, if an operator asked for them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;
use tracing::info;
use zonewire_protocol::stats::RelayView;

use super::{Shared, stats};
use crate::http::{Exposition, metrics_of};
use crate::support::seldom::{Seldom, warn_seldom};

/// Connections at once; others wait in the kernel.
const CONNECTIONS_MAX: usize = 16;

/// How long the head of a request may take, and a connection in total.
const HEAD_WITHIN: Duration = Duration::from_secs(2);
const CONNECTION_FOR: Duration = Duration::from_secs(30);

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// How long accepting pauses after it failed.
const REST: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    if let Ok(address) = listener.local_addr() {
        info!(address = %address, "serving health and metrics");
    }
    let (mut connections, mut of_failures) = (FuturesUnordered::new(), Seldom::default());
    loop {
        let has_room = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            Some(_ended) = connections.next() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => connections.push(time::timeout(CONNECTION_FOR, answer(stream, Arc::clone(&shared)))),
                Err(error) => {
                    warn_seldom!(of_failures, error = %error, "cannot accept a connection");
                    time::sleep(REST).await;
                }
            },
        }
    }
}

/// Serves one connection. Its errors concern only the client, so they are ignored.
async fn answer(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<_>| {
        let response = respond(&request, &shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let _ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn respond<B>(request: &Request<B>, shared: &Shared) -> Response<Full<Bytes>> {
    let json = HeaderValue::from_static("application/json");
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let (status, kind, body) = match request.uri().path() {
        _ if !is_read => {
            (StatusCode::METHOD_NOT_ALLOWED, json, r#"{"error":"only GET and HEAD"}"#.to_owned())
        }
        "/health" => {
            let (status, body) = health(&stats::read(shared));
            (status, json, body)
        }
        "/metrics" => {
            let format = Exposition::asked_for(request.headers());
            match metrics_of(&stats::read(shared)) {
                Ok(text) => (StatusCode::OK, format.content_type(), format.of(text)),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json, format!(r#"{{"error":"{error}"}}"#)),
            }
        }
        _ => (StatusCode::NOT_FOUND, json, r#"{"error":"there are /health and /metrics"}"#.to_owned()),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Healthy if both Redis are connected, even if another relay holds the leases.
fn health(counted: &RelayView) -> (StatusCode, String) {
    let is_well = counted.from_connected == 1 && counted.to_connected == 1;
    let status = if is_well { "healthy" } else { "degraded" };
    let said = serde_json::json!({ "status": status, "relay": counted });
    (if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, said.to_string())
}
