//! `/api/zones`: publishing, reading and removing prices.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{App, Caller, Handler, caller, handler, long_json, segments, with};
use crate::channels::{PublishError, in_log};
use crate::http::prices::{Format, Intake, Posted, answer_post};
use crate::http::problem::Problem;
use crate::model::{ChannelName, Entry, Position, Zone};
use crate::protocol::{Entries, ProblemCode, ZoneList, ZoneView, entry_json};
use crate::storage::{LatestPage, Page, StorageError};
use crate::support::fault;

/// How many entries `/history` returns by default.
const HISTORY: usize = 100;
const HISTORY_MAX: usize = 1_000;

/// The most keys that `/latest` returns; their entries are also limited to 1 MiB.
const LATEST_MAX: usize = 10_000;

/// Parses a path segment.
fn named<T: FromStr<Err: std::fmt::Display>>(segment: &str) -> Result<T, Problem> {
    let invalid = |detail| Problem::new(ProblemCode::InvalidName, detail);
    decoded(segment).map_err(invalid)
}

/// Decodes and parses a path segment; the error is in words.
pub(super) fn decoded<T: FromStr<Err: std::fmt::Display>>(segment: &str) -> Result<T, String> {
    let text = percent_decode_str(segment).decode_utf8();
    let text = text.map_err(|_error| "the name in the address is not UTF-8".to_owned())?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// `POST /api/zones/{zone}/prices`
pub(in crate::http) fn publish(app: &Arc<App>) -> Handler {
    let sent = warp::header::headers_cloned().and(warp::body::stream());
    handler(with(app).and(caller()).and(segments()).and(sent).then(post_prices))
}

async fn post_prices<S, B>(
    app: Arc<App>,
    caller: Caller,
    [zone]: [String; 1],
    headers: HeaderMap,
    body: S,
) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let channel = named::<Zone>(&zone).map(|zone| ChannelName::zone(&zone));
    post_entries(&app, &caller, Posted::Price, channel, &headers, body).await
}

/// Publishes the body of a request.
pub(super) async fn post_entries<S, B>(
    app: &App,
    caller: &Caller,
    posted: Posted,
    channel: Result<ChannelName, Problem>,
    headers: &HeaderMap,
    body: S,
) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let stats = &app.sources.intake;
    let intake = || {
        let intake = Intake {
            channels: &app.channels,
            config: &app.config,
            stats,
            room: &app.sources.bodies,
            posted,
            channel: channel?,
            share: app.gate.share(caller.principal()?),
            stopping: &app.stopping,
        };
        Ok((intake, Format::of(headers)?))
    };
    answer_post(posted, intake(), stats, &app.stopping, headers, body).await
}

/// `GET /api/zones`
pub(in crate::http) fn list(app: &Arc<App>) -> Handler {
    handler(with(app).and(caller()).then(list_zones))
}

async fn list_zones(app: Arc<App>, caller: Caller) -> Result<Response, Problem> {
    fault::point(|| "request".to_owned());
    let zones = app.channels.zones().await.map_err(|error| Problem::storage(&error))?;
    let views = zones.into_iter().filter(|zone| caller.may_know(zone)).map(|zone| {
        let channel = ChannelName::zone(&zone);
        let lane = app.channels.config().lane(&channel);
        let stream = format!("{}/ws/market/{zone}", app.config.base_path);
        ZoneView { zone: zone.to_string(), channel, lane, stream }
    });
    long_json(&app, &ZoneList { zones: views.collect() })
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

/// `GET /api/zones/{zone}/latest?limit=&after=`
pub(in crate::http) fn latest(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).and(warp::query()).then(get_latest))
}

async fn get_latest(app: Arc<App>, [zone]: [String; 1], query: PageQuery) -> Result<Response, Problem> {
    latest_of(&app, ChannelName::zone(&named::<Zone>(&zone)?), &query).await
}

/// The latest entry of each key of a channel.
pub(super) async fn latest_of(
    app: &App,
    channel: ChannelName,
    query: &PageQuery,
) -> Result<Response, Problem> {
    let limit = query.limit(LATEST_MAX, LATEST_MAX)?;
    let page = app.channels.latest(&channel, query.after.as_deref(), limit).await;
    let LatestPage { mut entries, next, .. } = page.map_err(|error| Problem::storage(&error))?;
    entries.retain(|entry| entry.draft.kind.unknown().is_none());
    let entries = messages(&channel, &entries)?;
    let view = Entries { channel, epoch: None, first_offset: None, last_offset: None, next, entries };
    long_json(app, &view)
}

/// `DELETE /api/zones/{zone}/keys/{key}`
pub(in crate::http) fn remove_key(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).then(delete_key))
}

async fn delete_key(app: Arc<App>, [zone, key]: [String; 2]) -> Result<Response, Problem> {
    let zone = named::<Zone>(&zone)?;
    let key = named::<String>(&key)?;
    let detail = || format!("the zone {zone} has no price for this key");
    removed(app.channels.remove_key(&zone, &key).await, &zone, ProblemCode::UnknownKey, detail, &app)
}

/// `DELETE /api/zones/{zone}`
pub(in crate::http) fn remove(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).then(delete_zone))
}

async fn delete_zone(app: Arc<App>, [zone]: [String; 1]) -> Result<Response, Problem> {
    let zone = named::<Zone>(&zone)?;
    let detail = || format!("nobody has published to the zone {zone}, or it was removed");
    removed(app.channels.remove_zone(&zone).await, &zone, ProblemCode::UnknownZone, detail, &app)
}

fn removed(
    found: Result<bool, PublishError>,
    zone: &Zone,
    code: ProblemCode,
    detail: impl FnOnce() -> String,
    app: &App,
) -> Result<Response, Problem> {
    match found {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        // Other nodes may know it.
        Ok(false) if app.channels.is_degraded(&ChannelName::zone(zone)) => {
            Err(Problem::storage(&StorageError::Unknown { op: "remove" }))
        }
        Ok(false) => Err(Problem::new(code, detail())),
        Err(error) => Err(Problem::publish(&error)),
    }
}

/// Which part of a list to return.
#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

impl PageQuery {
    fn limit(&self, usual: usize, max: usize) -> Result<usize, Problem> {
        let limit = self.limit.unwrap_or(usual);
        if (1..=max).contains(&limit) {
            return Ok(limit);
        }
        let detail = format!("`limit` must be 1 to {max}");
        Err(Problem::new(ProblemCode::InvalidLimit, detail))
    }
}

/// `GET /api/zones/{zone}/history?limit=&after=`
pub(in crate::http) fn history(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).and(warp::query()).then(get_history))
}

async fn get_history(app: Arc<App>, [zone]: [String; 1], query: PageQuery) -> Result<Response, Problem> {
    history_of(&app, ChannelName::zone(&named::<Zone>(&zone)?), &query).await
}

/// Entries of a channel's log.
pub(super) async fn history_of(
    app: &App,
    channel: ChannelName,
    query: &PageQuery,
) -> Result<Response, Problem> {
    let limit = query.limit(HISTORY, HISTORY_MAX)?;
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
