//! Sources that are not exchanges: rows of CSV or JSON, read like the files of a replay. Each row is a price.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io::Cursor;

use serde_json::value::RawValue;
use tokio::time::{Duration, Instant};

use super::super::FeedPrice;
use super::super::replay::{Replay, ReplayError, ReplayOptions};
use super::{ExchangeConfig, ExchangeKind, Feed, Malformed, Moment, RowsConfig, Step, Trouble, parse};

/// After how many consecutive failed answers the connection counts as lost.
const FAILURES_MAX: u32 = 3;

/// The longest delay after a failed request.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(10);

/// How many malformed rows of a document are reported one by one.
const REPORTED_MAX: usize = 5;

pub(crate) struct Rows {
    /// The address to poll; `None` if messages arrive by themselves.
    url: Option<String>,
    config: RowsConfig,
    options: ReplayOptions,
    due: Instant,
    is_asked: bool,
    failures: u32,
    is_ready: bool,
    /// The rows of the last document, if it was polled: those that the next one repeats are not published again.
    before: HashSet<FeedPrice>,
}

impl Rows {
    pub(crate) fn new(config: &ExchangeConfig, at: Moment) -> Self {
        let rows = config.rows.clone().unwrap_or_default();
        Self {
            url: (config.kind == ExchangeKind::Http).then(|| config.url().to_owned()),
            options: rows.options(),
            config: rows,
            due: at.now,
            is_asked: false,
            failures: 0,
            is_ready: false,
            before: HashSet::new(),
        }
    }

    fn ask_if_due(&mut self, at: Moment, steps: &mut Vec<Step>) {
        let Some(url) = self.url.as_ref().filter(|_| !self.is_asked && at.now >= self.due) else { return };
        self.is_asked = true;
        steps.push(Step::Fetch { id: 0, url: url.clone() });
    }

    fn ready(&mut self, steps: &mut Vec<Step>) {
        if !std::mem::replace(&mut self.is_ready, true) {
            steps.push(Step::Ready);
        }
    }

    /// The prices of a document, and the problems of its other rows.
    fn read(&self, text: &str) -> Result<(Vec<FeedPrice>, Vec<String>), Malformed> {
        let is_json = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'['));
        let text = if is_json { json_lines(text, &self.config.at)? } else { text.to_owned() };
        let (mut prices, mut wrong) = (Vec::new(), Vec::new());
        if text.trim().is_empty() {
            return Ok((prices, wrong));
        }
        let input = Box::new(Cursor::new(text.into_bytes()));
        let rows = Replay::read("the answer".to_owned(), input, self.options.clone());
        for row in rows.map_err(|error| error.to_string())? {
            match row {
                Ok(row) => prices.push(row.price),
                Err(ReplayError::Line { line, problem }) => wrong.push(format!("row {line}: {problem}")),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok((prices, wrong))
    }

    fn take(&mut self, text: &str, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        let (prices, wrong) = self.read(text)?;
        let more = wrong.len().saturating_sub(REPORTED_MAX);
        let more = (more > 0).then(|| format!("{more} more rows are malformed"));
        let reported = wrong.into_iter().take(REPORTED_MAX).chain(more);
        steps.extend(reported.map(|problem| Step::Trouble(Trouble::Malformed(problem))));
        let now: HashSet<FeedPrice> =
            if self.url.is_some() { prices.iter().cloned().collect() } else { HashSet::new() };
        let before = std::mem::replace(&mut self.before, now);
        let news = prices.into_iter().filter(|price| !before.contains(price));
        steps.extend(news.map(|FeedPrice { zone, json }| Step::Price { zone, json }));
        Ok(())
    }
}

/// The rows of a document, one per line, with their digits unchanged.
fn json_lines(text: &str, at: &str) -> Result<String, Malformed> {
    let mut found: &RawValue = parse(text)?;
    for token in at.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        found = inner(found, &token).ok_or_else(|| format!("there is nothing at {at}"))?;
    }
    let rows: Vec<&RawValue> = match serde_json::from_str(found.get()) {
        Ok(rows) => rows,
        Err(_) => vec![found],
    };
    // JSON texts contain no line breaks, so any break is between tokens.
    let lines = rows.into_iter().map(|row| row.get().replace(['\n', '\r'], " "));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn inner<'a>(value: &'a RawValue, token: &str) -> Option<&'a RawValue> {
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        return items.get(token.parse::<usize>().ok()?).copied();
    }
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value.get()).ok()?;
    fields.get(token).copied()
}

impl Feed for Rows {
    fn connected(&mut self, at: Moment, steps: &mut Vec<Step>) {
        if self.url.is_some() {
            self.ask_if_due(at, steps);
            return;
        }
        steps.extend(self.config.subscribe.iter().cloned().map(Step::Send));
        self.ready(steps);
    }

    fn frame(&mut self, text: &str, _at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed> {
        self.take(text, steps)
    }

    fn fetched(
        &mut self,
        _id: u64,
        answer: Result<&str, String>,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        self.is_asked = false;
        let every = Duration::from_secs(self.config.every_s());
        self.due = at.now + every;
        let text = match answer {
            Ok(text) => text,
            Err(reason) => {
                self.failures += 1;
                self.due = at.now + every.min(AGAIN_AFTER_MAX);
                if self.failures >= FAILURES_MAX {
                    steps.push(Step::Reconnect(reason));
                } else {
                    steps.push(Step::Trouble(Trouble::Refused(reason)));
                }
                return Ok(());
            }
        };
        self.failures = 0;
        self.ready(steps);
        self.take(text, steps)
    }

    fn tick(&mut self, at: Moment, steps: &mut Vec<Step>) {
        self.ask_if_due(at, steps);
    }
}
