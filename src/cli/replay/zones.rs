//! Sends the lines of each zone in order, in batches of all lines that wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::client::header::CONTENT_TYPE;
use crate::client::{Http, StatusCode};
use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::cli::print;
use crate::client::{ANSWER_TIMEOUT, BaseUrl, NoAnswer, Refused, accepted, answer};
use crate::model::Zone;
use crate::support::backoff::RESEND;

/// How many zones a file may have: each zone has requests of its own.
const ZONES_MAX: usize = 256;

/// How many lines of a zone may wait and are sent together; at the limit, reading the file pauses.
const LINES_MAX: usize = 256;

/// For how long an unreachable or busy gateway is retried.
const TRY_FOR: Duration = Duration::from_secs(60);

/// Invalid lines: either they are skipped and reported up to a limit, or the first one is an error.
#[derive(Debug, Clone)]
pub(super) struct Skipped {
    are_left_out: bool,
    count: Arc<AtomicU64>,
    bar: ProgressBar,
}

impl Skipped {
    /// How many are reported; all are counted.
    const SAID: u64 = 20;

    pub(super) fn new(are_left_out: bool, bar: ProgressBar) -> Self {
        Self { are_left_out, count: Arc::default(), bar }
    }

    /// Reports an invalid line, or fails if lines are not skipped.
    pub(super) fn line(&self, line: u64, problem: &str) -> anyhow::Result<()> {
        if !self.are_left_out {
            bail!("line {line}: {problem}");
        }
        if self.count.fetch_add(1, Ordering::Relaxed) < Self::SAID {
            self.say(&format!("left out line {line}: {problem}"));
        }
        Ok(())
    }

    /// Reports how many lines were left out, if any, and returns their number.
    pub(super) fn report(&self) -> u64 {
        let count = self.count.load(Ordering::Relaxed);
        let more =
            if count > Self::SAID { format!("; the first {} are above", Self::SAID) } else { String::new() };
        if count > 0 {
            print::say(&format!("left out {count} invalid lines{more}"));
        }
        count
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| print::say(text));
    }
}

/// A line of the file in the form that is sent.
#[derive(Debug)]
struct Line {
    number: u64,
    json: String,
}

/// The zones of a file.
pub(super) struct Zones {
    base: BaseUrl,
    http: Http,
    skipped: Skipped,
    queues: BTreeMap<Zone, mpsc::Sender<Line>>,
    carriers: JoinSet<(Zone, u64, anyhow::Result<()>)>,
    /// Results of the zones that have ended.
    accepted: BTreeMap<Zone, u64>,
    result: anyhow::Result<()>,
}

impl Zones {
    pub(super) fn new(base: BaseUrl, skipped: Skipped) -> anyhow::Result<Self> {
        let http = base.http()?;
        let (queues, carriers, accepted) = (BTreeMap::new(), JoinSet::new(), BTreeMap::new());
        Ok(Self { base, http, skipped, queues, carriers, accepted, result: Ok(()) })
    }

    /// Queues a line; waits while the queue of its zone is full. If the zone has failed already, the line
    /// is dropped, and [`failed`](Self::failed) returns.
    pub(super) async fn push(&mut self, zone: Zone, number: u64, json: String) -> anyhow::Result<()> {
        if !self.queues.contains_key(&zone) {
            if self.queues.len() == ZONES_MAX {
                bail!("the file names more than {ZONES_MAX} zones: is --zone-column right?");
            }
            let queue = self.begin(&zone);
            self.queues.insert(zone.clone(), queue);
        }
        if let Some(queue) = self.queues.get(&zone) {
            let _sent = queue.send(Line { number, json }).await;
        }
        Ok(())
    }

    /// Waits until a zone has failed; for ever if none does.
    pub(super) async fn failed(&mut self) {
        while self.result.is_ok() {
            match self.carriers.join_next().await {
                Some(joined) => self.ended(joined),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until all queued lines are sent. Returns how many prices each zone accepted, and the first
    /// error, if any.
    pub(super) async fn finish(mut self) -> (BTreeMap<Zone, u64>, anyhow::Result<()>) {
        self.queues.clear();
        while let Some(joined) = self.carriers.join_next().await {
            self.ended(joined);
        }
        (self.accepted, self.result)
    }

    fn ended(&mut self, joined: Result<(Zone, u64, anyhow::Result<()>), tokio::task::JoinError>) {
        let result = match joined {
            Ok((zone, count, result)) => {
                let result = result.with_context(|| format!("zone {zone}"));
                self.accepted.insert(zone, count);
                result
            }
            Err(error) => Err(error.into()),
        };
        if self.result.is_ok() {
            self.result = result;
        }
    }

    fn begin(&mut self, zone: &Zone) -> mpsc::Sender<Line> {
        let (sender, mut queue) = mpsc::channel(LINES_MAX);
        let mut carrier = Carrier {
            url: self.base.prices(zone),
            base: self.base.clone(),
            http: self.http.clone(),
            skipped: self.skipped.clone(),
            accepted: 0,
            is_known: false,
        };
        let zone = zone.clone();
        self.carriers.spawn(async move {
            let (mut lines, mut result) = (Vec::new(), Ok(()));
            while result.is_ok() && queue.recv_many(&mut lines, LINES_MAX).await > 0 {
                result = carrier.carry(&mut lines).await;
            }
            (zone, carrier.accepted, result)
        });
        sender
    }
}

/// Sends the lines of one zone.
struct Carrier {
    url: String,
    base: BaseUrl,
    http: Http,
    skipped: Skipped,
    accepted: u64,
    /// Whether the gateway has answered before: if it is unreachable now, it may come back.
    is_known: bool,
}

impl Carrier {
    /// Sends these lines, and retries while the gateway is unreachable.
    async fn carry(&mut self, lines: &mut Vec<Line>) -> anyhow::Result<()> {
        let (mut attempt, mut deadline) = (0, Instant::now() + TRY_FOR);
        while let Some(first) = lines.first() {
            let number = first.number;
            let body: String = lines.iter().flat_map(|line| [line.json.as_str(), "\n"]).collect();
            let request = self
                .http
                .post(&self.url)
                .header(CONTENT_TYPE, "application/x-ndjson")
                .timeout(ANSWER_TIMEOUT)
                .body(body);
            let answered = async { accepted(answer(request.send().await, &self.base).await?).await };
            let error = match answered.await {
                Ok(count) => {
                    self.is_known = true;
                    self.accepted += count;
                    lines.clear();
                    return Ok(());
                }
                Err(error) => error,
            };
            let (wait, is_unsure) = if let Some(refused) = error.downcast_ref::<Refused>() {
                self.is_known = true;
                let done = usize::try_from(refused.accepted().unwrap_or(0)).unwrap_or(usize::MAX);
                let done = lines.drain(..done.min(lines.len())).count();
                self.accepted += done as u64;
                if done > 0 {
                    (attempt, deadline) = (0, Instant::now() + TRY_FOR);
                }
                let number = lines.first().map_or(number, |line| line.number);
                match Refusal::of(refused.status, refused.code()) {
                    // If storage failed, only its answer may have been lost; an error of a proxy may
                    // hide any result.
                    Refusal::OfNow => (
                        refused.retry_after,
                        refused.accepted().is_none() || refused.code() == "storage_unavailable",
                    ),
                    Refusal::OfLine => {
                        self.skipped.line(number, &refused.detail())?;
                        lines.drain(..1.min(lines.len()));
                        continue;
                    }
                    Refusal::ForGood => return Err(error.context(format!("line {number}"))),
                }
            } else {
                match error.downcast_ref::<NoAnswer>() {
                    Some(NoAnswer { is_absent: true, .. }) if self.is_known => (None, false),
                    Some(NoAnswer { is_absent: false, .. }) => (None, true),
                    // No gateway was ever reached at this address, or the server is something else.
                    _ => return Err(error),
                }
            };
            attempt += 1;
            let wait = RESEND.wait(attempt).max(wait.unwrap_or_default());
            if Instant::now() + wait > deadline {
                return Err(error.context(format!("line {number}: giving up after a minute")));
            }
            let doubt = match (lines.first(), lines.last()) {
                (Some(first), Some(last)) if is_unsure => format!(
                    "; lines {} to {} are sent again, and may be stored twice",
                    first.number, last.number
                ),
                _ => String::new(),
            };
            self.skipped.say(&format!("{error}; trying again in {:.1} s{doubt}", wait.as_secs_f64()));
            time::sleep(wait).await;
        }
        Ok(())
    }
}

/// What a refusal means for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The gateway refuses everything for now: try again.
    OfNow,
    /// The first line that was not accepted is invalid.
    OfLine,
    /// No further try can succeed.
    ForGood,
}

impl Refusal {
    fn of(status: StatusCode, code: &str) -> Self {
        match (status, code) {
            (StatusCode::UNPROCESSABLE_ENTITY, "too_many_keys" | "too_many_zones") => Self::ForGood,
            (StatusCode::UNPROCESSABLE_ENTITY, _) | (StatusCode::PAYLOAD_TOO_LARGE, "line_too_large") => {
                Self::OfLine
            }
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT, _) => Self::OfNow,
            (status, _) if status.is_server_error() => Self::OfNow,
            _ => Self::ForGood,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_yet_succeed_is_sent_again() {
        for (status, code, expected) in [
            (503, "shutting_down", Refusal::OfNow),
            (503, "storage_unavailable", Refusal::OfNow),
            (502, "", Refusal::OfNow),
            (429, "", Refusal::OfNow),
            (422, "invalid_timestamp", Refusal::OfLine),
            (413, "line_too_large", Refusal::OfLine),
            (422, "too_many_keys", Refusal::ForGood),
            (422, "too_many_zones", Refusal::ForGood),
            (413, "", Refusal::ForGood),
            (404, "not_found", Refusal::ForGood),
            (403, "", Refusal::ForGood),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Refusal::of(status, code), expected, "{status} {code}");
        }
    }
}
