//! Publishing to the channel that an address names, and reading from it.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hyper::header::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use warp::Filter;
use warp::reply::Response;

use super::{App, Caller, Handler, caller, handler, limit, long_json, segments, sent, with};
use crate::channels::in_log;
use crate::http::prices::{Format, Intake, Posted, answer_post};
use crate::http::problem::Problem;
use crate::model::{ChannelName, Entry, Position};
use crate::protocol::{Entries, ProblemCode, entry_json};
use crate::storage::{LatestPage, Page};

/// How many entries `/history` returns by default.
const HISTORY: usize = 100;
const HISTORY_MAX: usize = 1_000;

/// The most keys that `/latest` returns; their entries are also limited to 1 MiB.
const LATEST_MAX: usize = 10_000;

/// Parses the path segment that names a channel.
type ToChannel = fn(&str) -> Result<ChannelName, Problem>;

/// Decodes and parses a path segment; the error is in words.
pub(super) fn decoded<T: FromStr<Err: Display>>(segment: &str) -> Result<T, String> {
    let text = percent_decode_str(segment).decode_utf8();
    let text = text.map_err(|_error| "the name in the address is not UTF-8".to_owned())?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The same, with the error as a problem.
pub(super) fn named<T: FromStr<Err: Display>>(segment: &str) -> Result<T, Problem> {
    decoded(segment).map_err(|detail| Problem::new(ProblemCode::InvalidName, detail))
}

/// Publishes the body of a request; `posted` says what it consists of.
pub(super) fn publish(app: &Arc<App>, to_channel: ToChannel, posted: fn(&str) -> Posted) -> Handler {
    let asked = with(app).and(caller()).and(segments()).and(sent());
    handler(asked.then(move |app: Arc<App>, caller: Caller, [name]: [String; 1], headers, body| async move {
        post(&app, &caller, posted(&name), to_channel(&name), &headers, body).await
    }))
}

async fn post(
    app: &App,
    caller: &Caller,
    posted: Posted,
    channel: Result<ChannelName, Problem>,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, Problem> {
    let stats = &app.sources.intake;
    let intake = || {
        let intake = Intake {
            channels: &app.channels,
            config: &app.config,
            stats,
            budget: &app.sources.bodies,
            posted,
            channel: channel?,
            share: app.gate.share(caller.principal()?),
            stopping: &app.stopping,
        };
        Ok((intake, Format::of(headers)?))
    };
    answer_post(posted, intake(), stats, &app.stopping, headers, body).await
}

/// Which part of a list to return.
#[derive(Debug, Deserialize)]
struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// Answers with the latest entry of each key.
pub(super) fn latest(app: &Arc<App>, to_channel: ToChannel) -> Handler {
    let asked = with(app).and(segments()).and(warp::query());
    handler(asked.then(move |app: Arc<App>, [name]: [String; 1], query: PageQuery| async move {
        read_latest(&app, to_channel(&name)?, &query).await
    }))
}

async fn read_latest(app: &App, channel: ChannelName, query: &PageQuery) -> Result<Response, Problem> {
    let limit = limit(query.limit, LATEST_MAX, LATEST_MAX)?;
    let page = app.channels.latest(&channel, query.after.as_deref(), limit).await;
    let LatestPage { mut entries, next, .. } = page.map_err(|error| Problem::storage(&error))?;
    entries.retain(|entry| entry.draft.kind.unknown().is_none());
    let entries = messages(&channel, &entries)?;
    let view = Entries { channel, epoch: None, first_offset: None, last_offset: None, next, entries };
    long_json(app, &view)
}

/// Answers with entries of the log.
pub(super) fn history(app: &Arc<App>, to_channel: ToChannel) -> Handler {
    let asked = with(app).and(segments()).and(warp::query());
    handler(asked.then(move |app: Arc<App>, [name]: [String; 1], query: PageQuery| async move {
        read_history(&app, to_channel(&name)?, &query).await
    }))
}

async fn read_history(app: &App, channel: ChannelName, query: &PageQuery) -> Result<Response, Problem> {
    let limit = limit(query.limit, HISTORY, HISTORY_MAX)?;
    let after = query.after.as_deref().map(Position::from_str).transpose();
    let after = after.map_err(|error| Problem::new(ProblemCode::InvalidPosition, error.to_string()))?;
    let has_after = after.is_some();
    let after = after.and_then(in_log);
    let page = match &after {
        None if !has_after => app.channels.newest(&channel, limit).await,
        after => app.channels.read_after(&channel, after.as_ref(), limit).await,
    };
    let Page { epoch, top, first, entries, .. } = page.map_err(|error| Problem::storage(&error))?;
    if after.is_some_and(|position| epoch.as_ref() != Some(&position.epoch)) {
        let detail = "the log has a new epoch since that position; read again without `after`";
        return Err(Problem::new(ProblemCode::ForeignEpoch, detail));
    }
    let view = Entries {
        entries: messages(&channel, &entries)?,
        channel,
        epoch,
        first_offset: (first <= top).then_some(first),
        last_offset: (first <= top).then_some(top),
        next: None,
    };
    long_json(app, &view)
}

fn messages(channel: &ChannelName, entries: &[Entry]) -> Result<Vec<Box<RawValue>>, Problem> {
    let messages = entries.iter().map(|entry| {
        let mut out = Vec::new();
        entry_json(channel, entry, false, &mut out);
        serde_json::from_slice(&out)
    });
    messages.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(channel = %channel, error = %error, "a stored entry is not readable");
        Problem::new(ProblemCode::Corrupt, "a stored entry is not readable")
    })
}
