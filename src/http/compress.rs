//! gzip for answers that are worth compressing, to clients that accept it.
//!
//! The thread that answers also serves WebSockets, so it compresses in small parts and yields between them.
//! Answers are in memory as a whole anyway, so they are compressed as a whole. The number of answers that are
//! compressed at once is limited; others are sent uncompressed.

use std::io::{self, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY,
};
use tokio::sync::Semaphore;
use tokio::task;
use tracing::error;
use warp::Reply as _;
use warp::reply::Response;

use super::accepts::wanted;
use super::body_budget::BodyBudget;
use super::problem::internal;

/// Smaller answers fit into one packet anyway.
const WORTH_BYTES: u64 = 1 << 10;

/// How much is compressed before yielding to other tasks: about 0.2 ms.
const PART_BYTES: usize = 16 << 10;

/// Answers that are compressed at once; each takes about 300 KiB in addition to its own bytes.
const AT_ONCE: usize = 16;

/// Media types that compress well.
const TEXTS: [&str; 4] =
    ["application/json", "application/problem+json", "application/openmetrics-text", "text/"];

/// Compresses answers.
#[derive(Debug)]
pub(super) struct Compressor {
    places: Semaphore,
    /// A compressed answer counts here until its client has read it.
    budget: Arc<BodyBudget>,
}

/// Whether a client accepts gzip explicitly.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    wanted(headers, &ACCEPT_ENCODING, &["gzip", "x-gzip", "*"]).is_some_and(|weight| weight > 0.0)
}

impl Compressor {
    pub(super) fn new(budget: Arc<BodyBudget>) -> Self {
        Self { places: Semaphore::new(AT_ONCE), budget }
    }

    /// Compresses the answer if that is worth it.
    pub(super) async fn compress(&self, mut response: Response, is_asked_for: bool) -> Response {
        if !is_worth_it(&response) {
            return response;
        }
        response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
        if !is_asked_for {
            return response;
        }
        let Ok(_place) = self.places.try_acquire() else { return response };
        let (mut head, body) = response.into_parts();
        let whole = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            // None of the answers is a stream that could fail.
            Err(error) => {
                error!(error = %error, "could not read an answer in order to compress it");
                return internal().into_response();
            }
        };
        let bytes = match gzip(&whole).await {
            Ok(bytes) => {
                head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                head.headers.remove(CONTENT_LENGTH);
                self.budget.hold_smaller(bytes)
            }
            Err(error) => {
                error!(error = %error, "could not compress an answer");
                whole
            }
        };
        Response::from_parts(head, bytes.into())
    }
}

fn is_worth_it(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    response.body().size_hint().exact().is_some_and(|bytes| bytes >= WORTH_BYTES)
        && TEXTS.iter().any(|text| kind.starts_with(text))
        && !response.headers().contains_key(CONTENT_ENCODING)
        // An ETag names exactly these bytes; files with one are precompressed.
        && !response.headers().contains_key(ETAG)
}

async fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    for part in bytes.chunks(PART_BYTES) {
        encoder.write_all(part)?;
        task::yield_now().await;
    }
    let mut compressed = encoder.finish()?;
    compressed.shrink_to_fit();
    Ok(compressed)
}
