//! Reads request bodies, bounded in size and time.

use std::sync::Arc;

use bytes::{Buf, BufMut as _, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::body_budget::{BodyBudget, Held};
use super::problem::Problem;
use crate::channels::PublishError;
use crate::protocol::ProblemCode;

/// How long a JSON body may take to arrive; NDJSON has no such limit.
const JSON_WITHIN: time::Duration = time::Duration::from_secs(30);

/// After a fault, up to this much of the rest of a body is read and dropped, so that a client that is still
/// sending gets to read the answer.
const DISCARD_BYTES_MAX: usize = 16 << 20;
const DISCARD_FOR: time::Duration = time::Duration::from_secs(2);

/// As `DISCARD_FOR`, but while the gateway stops: well within the time that connections then have.
const DISCARD_FOR_AT_STOP: time::Duration = time::Duration::from_millis(250);

/// A complete body, and the memory that is reserved for it while this exists.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: BytesMut,
    pub(super) held: Held,
}

/// Reads a body of at most `max` bytes; `more` advises the sender of a larger one.
pub(super) async fn read_whole(
    body: &mut (impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin),
    max: usize,
    more: &str,
    budget: &Arc<BodyBudget>,
    stopping: &CancellationToken,
) -> Result<Whole, Problem> {
    let (mut bytes, mut held) = (BytesMut::new(), budget.enter());
    let deadline = time::Instant::now() + JSON_WITHIN;
    loop {
        let chunk = tokio::select! {
            chunk = time::timeout_at(deadline, body.next()) => chunk.map_err(|_elapsed| {
                let detail = format!("a JSON body must be complete within {JSON_WITHIN:?}");
                Problem::new(ProblemCode::BodyTimeout, detail)
            })?,
            () = stopping.cancelled() => {
                return Err(Problem::publish(&PublishError::ShuttingDown { accepted: 0 }));
            }
        };
        let Some(chunk) = chunk else { return Ok(Whole { bytes, held }) };
        let chunk = chunk.map_err(|_error| broken_body())?;
        if bytes.len() + chunk.remaining() > max {
            let detail = format!("a JSON body may have at most {max} bytes; {more}");
            return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
        }
        held.set(bytes.len() + chunk.remaining())?;
        bytes.put(chunk);
    }
}

pub(super) fn broken_body() -> Problem {
    Problem::new(ProblemCode::BrokenBody, "the body ended before it was complete")
}

pub(super) fn not_utf8() -> Problem {
    Problem::new(ProblemCode::InvalidUtf8, "the text is not UTF-8")
}

pub(super) async fn discard<E>(
    body: &mut (impl Stream<Item = Result<impl Buf, E>> + Unpin),
    stopping: &CancellationToken,
) {
    let mut dropped = 0;
    let dropping = async {
        while let Some(Ok(chunk)) = body.next().await {
            dropped += chunk.remaining();
            if dropped > DISCARD_BYTES_MAX {
                break;
            }
        }
    };
    // The answer is sent when the rest has been read, or when time is up.
    tokio::select! {
        () = dropping => {}
        () = time::sleep(DISCARD_FOR) => {}
        () = async {
            stopping.cancelled().await;
            time::sleep(DISCARD_FOR_AT_STOP).await;
        } => {}
    }
}
