//! `POST /api/zones/{zone}/prices` and `POST /api/events/{type}`: one price or event, an array, or NDJSON
//! of any length.

use std::future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut as _, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap};
use tokio::time;
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::reply::Response;
use zonewire_protocol::stats::IntakeCounts;

use super::body::{Whole, broken_body, discard, not_utf8, read_whole};
use super::body_budget::BodyBudget;
use super::config::HttpConfig;
use super::problem::Problem;
use crate::access::{Quota, Share};
use crate::channels::{Channels, PublishError};
use crate::model::{ChannelName, DraftEntry, EventType};
use crate::protocol::{Accepted, InvalidPayload, ProblemCode, each_element, parse_event, parse_price};
use crate::support::counter::Counter;
use crate::support::json::json_fault;

/// How many lines of a stream are published together, if as many are there.
const LINES_PER_PUBLISH: usize = 256;

/// The counters of the intake.
pub(crate) type IntakeStats = IntakeCounts<Counter>;

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
}

impl Format {
    /// From the headers of a request.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let codings = headers.get_all(CONTENT_ENCODING).into_iter();
        if codings.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Problem::unsupported_coding());
        }
        let unsupported = || {
            let detail = "expected `Content-Type: application/json` (one object or an array) or \
                          `application/x-ndjson` (one object per line), in UTF-8";
            Problem::unsupported_media_type(detail, "application/json, application/x-ndjson")
        };
        let mut kinds = headers.get_all(CONTENT_TYPE).into_iter();
        let (Some(kind), None) = (kinds.next(), kinds.next()) else { return Err(unsupported()) };
        let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
        let mut parts = kind.split(';').map(str::trim);
        let format = match parts.next() {
            Some("application/json") => Self::Json,
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => Self::Ndjson,
            _ => return Err(unsupported()),
        };
        let mut charsets = parts.filter_map(|parameter| parameter.strip_prefix("charset="));
        if charsets.all(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii")) {
            Ok(format)
        } else {
            Err(unsupported())
        }
    }
}

/// Whether a client waits for `100 Continue` before it sends its body. When such a request is refused
/// early, its body must not be read, because reading would request it.
pub(super) fn holds_body_back(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// Prices of a zone.
    Price,
    /// Events of this type.
    Event(EventType),
}

impl Posted {
    fn parse(
        self,
        text: &str,
        now: DateTime<Utc>,
        ahead_max: Duration,
    ) -> Result<DraftEntry, InvalidPayload> {
        match self {
            Self::Price => parse_price(text, now, ahead_max),
            Self::Event(event) => parse_event(event, text, now, ahead_max),
        }
    }

    /// The problem for an entry that is too large.
    fn too_large(self, max: usize) -> Problem {
        let (code, what) = match self {
            Self::Price => (ProblemCode::PriceTooLarge, "a price"),
            Self::Event(_) => (ProblemCode::EventTooLarge, "an event"),
        };
        Problem::new(code, format!("{what} may have at most {max} bytes"))
    }

    /// Its counters: requests, refused requests, and accepted entries.
    fn counters(self, stats: &IntakeStats) -> [&Counter; 3] {
        match self {
            Self::Price => [&stats.price_requests, &stats.price_requests_refused, &stats.prices_accepted],
            Self::Event(_) => [&stats.event_requests, &stats.event_requests_refused, &stats.events_accepted],
        }
    }
}

/// Publishes prices to one zone, or events of one type.
pub(crate) struct Intake<'a> {
    pub(crate) channels: &'a Channels,
    pub(crate) config: &'a HttpConfig,
    pub(crate) stats: &'a IntakeStats,
    pub(crate) budget: &'a Arc<BodyBudget>,
    pub(crate) posted: Posted,
    pub(crate) channel: ChannelName,
    /// The limits of the publisher, if it has any.
    pub(crate) share: Option<Share>,
    /// Cancelled when the gateway stops, to end streams that may go on for ever.
    pub(crate) stopping: &'a CancellationToken,
}

/// Answers a request that posts prices or events. If it is refused, its body is read and dropped first.
pub(crate) async fn answer_post(
    posted: Posted,
    intake: Result<(Intake<'_>, Format), Problem>,
    stats: &IntakeStats,
    stopping: &CancellationToken,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    let [requests, refused, _] = posted.counters(stats);
    requests.add(1);
    tokio::pin!(body);
    let is_unread = intake.is_err() && holds_body_back(headers);
    let taken = match intake {
        Ok((intake, Format::Json)) => intake.take_json(&mut body).await,
        Ok((intake, Format::Ndjson)) => intake.take_lines(&mut body).await,
        Err(problem) => Err(problem),
    };
    match taken {
        Ok(accepted) => Ok(warp::reply::json(&Accepted { accepted }).into_response()),
        Err(problem) => {
            refused.add(1);
            if !is_unread {
                discard(&mut body, stopping).await;
            }
            Err(problem)
        }
    }
}

impl Intake<'_> {
    async fn take_json(
        &self,
        body: &mut (impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin),
    ) -> Result<u64, Problem> {
        let max = self.config.body_bytes_max;
        let more = "send more as application/x-ndjson";
        // The memory stays reserved until the whole request is done.
        let Whole { bytes, mut held } = read_whole(body, max, more, self.budget, self.stopping).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_error| not_utf8())?;
        let (now, ahead_max) = (Utc::now(), self.ahead_max());
        let drafts = if text.trim_start().starts_with('[') {
            // All entries are parsed before any is published, so a fault leaves nothing half done. Parsed,
            // small prices take many times their size in the body.
            let (mut drafts, mut taken) = (Vec::new(), bytes.len());
            let read = each_element(text, |index, element| {
                let draft = self.check_size(element.get()).and_then(|()| {
                    let draft = self.posted.parse(element.get(), now, ahead_max);
                    draft.map_err(|fault| Problem::from(fault).of_a_part())
                });
                let draft = draft.map_err(|problem| problem.at_index(index))?;
                taken += draft.cost();
                drafts.push(draft);
                if !self.budget.is_large_enough_for(taken) {
                    // Repeating the request could not help, so this is not 503.
                    let detail = format!(
                        "parsed, this array takes more memory than all bodies together may take; {more}"
                    );
                    return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
                }
                held.set(taken)
            });
            read.map_err(|error| {
                let detail = format!("not a JSON array: {}", json_fault(text, &error));
                Problem::new(ProblemCode::InvalidJson, detail)
            })??;
            drafts
        } else {
            self.check_size(text)?;
            vec![self.posted.parse(text, now, ahead_max)?]
        };
        let count = drafts.len() as u64;
        if let Some(share) = &self.share {
            share.take(Quota::Publishes, count).map_err(|over| Problem::over(over).accepted(0))?;
        }
        match self.publish(drafts).await {
            Ok(()) => Ok(count),
            Err(error @ PublishError::TooManyKeys { index, .. }) => {
                Err(Problem::publish(&error).accepted(0).at_index(index))
            }
            Err(error) => Err(Problem::publish(&error).accepted(error.accepted() as u64)),
        }
    }

    /// How far in the future a timestamp may be.
    fn ahead_max(&self) -> Duration {
        self.channels.config().ahead_max(&self.channel)
    }

    /// In every format, an entry may be no longer than a line, because each must fit a reader's outbox.
    fn check_size(&self, one: &str) -> Result<(), Problem> {
        let max = self.config.line_bytes_max;
        if one.len() <= max { Ok(()) } else { Err(self.posted.too_large(max)) }
    }

    async fn publish(&self, drafts: Vec<DraftEntry>) -> Result<(), PublishError> {
        let count = drafts.len();
        let published = self.channels.publish(&self.channel, drafts).await;
        let accepted = published.as_ref().map_or_else(PublishError::accepted, |()| count);
        let [.., counter] = self.posted.counters(self.stats);
        counter.add(accepted as u64);
        published
    }

    pub(super) async fn take_lines(
        &self,
        body: &mut (impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin),
    ) -> Result<u64, Problem> {
        let mut lines = Lines { accepted: 0, line: 0, first_line: 1, drafts: Vec::new(), bytes: 0 };
        let (mut rest, mut held) = (BytesMut::new(), self.budget.enter());
        let idle_max = Duration::from_secs(self.config.body_idle_s);
        loop {
            // Lines that have already arrived are published together: an append costs much more than one
            // more line in it, and a fast sender's body arrives in chunks of one line each.
            let chunk = if lines.drafts.is_empty() {
                self.next_part(body, idle_max, &lines).await?
            } else if let Some(chunk) = next_of_what_is_there(body).await {
                chunk
            } else {
                self.flush(&mut lines).await?;
                // Lines that have been published need no memory any more.
                held.set(rest.len())?;
                continue;
            };
            let Some(chunk) = chunk else { break };
            let waiting = lines.bytes + rest.len();
            let chunk = chunk.map_err(|_error| broken_body());
            let chunk = match chunk.and_then(|chunk| held.set(waiting + chunk.remaining()).map(|()| chunk)) {
                Ok(chunk) => chunk,
                Err(problem) => {
                    // The complete lines before it are valid.
                    self.flush(&mut lines).await?;
                    return Err(problem.accepted(lines.accepted).at_line(lines.line + 1));
                }
            };
            rest.put(chunk);
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                let line = rest.split_to(end + 1);
                lines.bytes += line.len();
                self.take_line(&line[..end], &mut lines).await?;
            }
            if rest.len() > self.config.line_bytes_max {
                self.flush(&mut lines).await?;
                return Err(self.too_long(&lines));
            }
        }
        self.take_line(&rest, &mut lines).await?;
        self.flush(&mut lines).await?;
        Ok(lines.accepted)
    }

    /// Waits for the next chunk of a streamed body. All parsed lines must have been published, so that a
    /// problem is reported at the line after them.
    async fn next_part<S, B>(
        &self,
        body: &mut S,
        idle_max: Duration,
        lines: &Lines,
    ) -> Result<Option<Result<B, warp::Error>>, Problem>
    where
        S: Stream<Item = Result<B, warp::Error>> + Unpin,
    {
        let problem = tokio::select! {
            chunk = time::timeout(idle_max, body.next()) => match chunk {
                Ok(chunk) => return Ok(chunk),
                Err(_elapsed) => {
                    let detail = format!("in a streamed body, something must arrive every {idle_max:?}");
                    Problem::new(ProblemCode::BodyTimeout, detail)
                }
            },
            () = self.stopping.cancelled() => {
                Problem::publish(&PublishError::ShuttingDown { accepted: 0 })
            }
        };
        Err(problem.accepted(lines.accepted).at_line(lines.line + 1))
    }

    async fn take_line(&self, line: &[u8], lines: &mut Lines) -> Result<(), Problem> {
        lines.line += 1;
        if line.len() > self.config.line_bytes_max {
            lines.line -= 1;
            self.flush(lines).await?;
            return Err(self.too_long(lines));
        }
        if line.trim_ascii().is_empty() {
            // Blank lines are counted, so that line numbers match the file, but contain no entry.
            self.flush(lines).await?;
            lines.first_line = lines.line + 1;
            return Ok(());
        }
        let fault = match std::str::from_utf8(line) {
            Err(_) => not_utf8(),
            Ok(text) => match self.posted.parse(text, Utc::now(), self.ahead_max()) {
                Err(fault) => Problem::from(fault).of_a_part(),
                Ok(draft) => {
                    lines.drafts.push(draft);
                    if lines.drafts.len() >= LINES_PER_PUBLISH {
                        self.flush(lines).await?;
                    }
                    return Ok(());
                }
            },
        };
        // The lines before the faulty one are valid, and are published.
        let line = lines.line;
        self.flush(lines).await?;
        Err(fault.accepted(lines.accepted).at_line(line))
    }

    fn too_long(&self, lines: &Lines) -> Problem {
        let detail = format!("a line may have at most {} bytes", self.config.line_bytes_max);
        let problem = Problem::new(ProblemCode::LineTooLarge, detail);
        problem.accepted(lines.accepted).at_line(lines.line + 1)
    }

    /// Waits until the publisher's limits permit the waiting lines; its body is not read meanwhile.
    async fn until_allowed(&self, lines: &Lines) -> Result<(), Problem> {
        let Some(share) = &self.share else { return Ok(()) };
        while let Err(over) = share.take(Quota::Publishes, lines.drafts.len() as u64) {
            tokio::select! {
                () = time::sleep(over.wait) => {}
                () = self.stopping.cancelled() => {
                    let error = PublishError::ShuttingDown { accepted: 0 };
                    return Err(Problem::publish(&error).accepted(lines.accepted).at_line(lines.first_line));
                }
            }
        }
        Ok(())
    }

    /// Publishes the waiting lines.
    async fn flush(&self, lines: &mut Lines) -> Result<(), Problem> {
        if lines.drafts.is_empty() {
            lines.first_line = lines.line + 1;
            return Ok(());
        }
        self.until_allowed(lines).await?;
        let drafts = std::mem::take(&mut lines.drafts);
        lines.bytes = 0;
        let count = drafts.len();
        let failed = match self.publish(drafts.clone()).await {
            Ok(()) => {
                lines.accepted += count as u64;
                lines.first_line = lines.line + 1;
                return Ok(());
            }
            Err(error) => error,
        };
        // The faulty line is the first one that was not accepted.
        let good = match failed {
            PublishError::TooManyKeys { index, .. } => {
                // None of this batch was accepted; the entries before the one with too many keys still can
                // be.
                let before = drafts[..index].to_vec();
                match self.publish(before).await {
                    Ok(()) => index,
                    Err(error) => error.accepted(),
                }
            }
            ref error => error.accepted(),
        };
        lines.accepted += good as u64;
        let problem = Problem::publish(&failed).accepted(lines.accepted);
        Err(problem.at_line(lines.first_line + good as u64))
    }
}

/// The progress of reading a stream of lines.
struct Lines {
    /// Lines that the log has.
    accepted: u64,
    /// Lines read, including blank ones.
    line: u64,
    /// The line number of the first of `drafts`.
    first_line: u64,
    /// Parsed but not yet published; from consecutive lines.
    drafts: Vec<DraftEntry>,
    /// Their size in the body.
    bytes: usize,
}

/// The next chunk of a body, if it has already arrived; otherwise `None`. hyper yields what the socket has
/// chunk by chunk, one each time the task is polled.
async fn next_of_what_is_there<S: Stream + Unpin>(body: &mut S) -> Option<Option<S::Item>> {
    let mut has_waited = false;
    future::poll_fn(|context| match body.poll_next_unpin(context) {
        Poll::Ready(part) => Poll::Ready(Some(part)),
        Poll::Pending if has_waited => Poll::Ready(None),
        Poll::Pending => {
            has_waited = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[tokio::test]
    async fn what_is_there_goes_together_and_nothing_is_waited_for() {
        // As in hyper: the next chunk is there when its reader is polled again.
        let mut parts = 0..6;
        let mut body = Box::pin(stream::poll_fn(move |context| {
            let part = parts.next();
            match part {
                Some(part) if part % 2 == 1 => Poll::Ready(Some(part)),
                Some(_) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Pending,
            }
        }));
        let mut taken = Vec::new();
        while let Some(part) = next_of_what_is_there(&mut body).await {
            taken.extend(part);
        }
        assert_eq!(taken, [1, 3, 5]);
        let mut ended = stream::empty::<u8>();
        assert_eq!(next_of_what_is_there(&mut ended).await, Some(None), "the end is there");
    }

    #[test]
    fn only_json_and_ndjson_in_utf_8_are_taken() {
        for (value, expected) in [
            (Some("application/json"), Some(Format::Json)),
            (Some("Application/JSON; charset=utf-8"), Some(Format::Json)),
            (Some("application/json;charset=\"UTF-8\""), Some(Format::Json)),
            (Some("application/json; charset=utf-16"), None),
            (Some("application/x-ndjson"), Some(Format::Ndjson)),
            (Some("application/x-www-form-urlencoded"), None),
            (Some("text/plain"), None),
            (None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(value.map(|value| (CONTENT_TYPE, value.parse().unwrap())));
            assert_eq!(Format::of(&headers).ok(), expected, "{value:?}");
            headers.append(CONTENT_ENCODING, "identity".parse().unwrap());
            assert_eq!(Format::of(&headers).ok(), expected, "{value:?}");
            headers.append(CONTENT_ENCODING, "gzip".parse().unwrap());
            assert_eq!(Format::of(&headers).unwrap_err().code, ProblemCode::UnsupportedContentEncoding);
        }
        let twice = [(CONTENT_TYPE, "application/json"), (CONTENT_TYPE, "text/plain")];
        let twice = twice.map(|(name, value)| (name, value.parse().unwrap()));
        let mut headers = HeaderMap::new();
        twice.into_iter().for_each(|(name, value)| {
            headers.append(name, value);
        });
        assert_eq!(Format::of(&headers).unwrap_err().code, ProblemCode::UnsupportedMediaType);
    }
}
