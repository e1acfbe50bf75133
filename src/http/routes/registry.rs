//! `/api/providers`, `/api/active-orders` and `/api/registry`.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LOCATION,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;
use tokio::time;
use uuid::Uuid;
use warp::reject::Rejection;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::entries::named;
use super::{
    App, Handler, Text, handler, json, json_body, json_body_of, limit, long_json, of_json, segments, sent,
    with,
};
use crate::http::body::discard;
use crate::http::problem::Problem;
use crate::model::BackendState;
use crate::protocol::{ProblemCode, RecordList, RegistryStatus, RegistrySync, each_element};
use crate::registry::{
    Condition, InvalidRecord, Query, Record, RegistryError, RegistryKind, SyncError, Version, Written,
};
use crate::support::json::json_fault;

/// Says whether records of other gateways are known here.
const STATE: HeaderName = HeaderName::from_static("registry-state");

/// How many records a list has by default.
const LISTED: usize = 100;
const LISTED_MAX: usize = 1_000;

/// How long an answer waits for the log, if asked to.
const WRITTEN_WITHIN: time::Duration = time::Duration::from_secs(5);

/// The media type of a merge patch (RFC 7396).
const MERGE_PATCH: &str = "application/merge-patch+json";

// Requests

/// A query, as pairs.
type Pairs = Vec<(String, String)>;

fn query() -> impl Filter<Extract = (Pairs,), Error = std::convert::Infallible> + Clone {
    warp::query::raw().or(warp::any().map(String::new)).unify().map(|raw: String| {
        url::form_urlencoded::parse(raw.as_bytes())
            .into_owned()
            .filter(|(name, _)| name != "access_token")
            .collect()
    })
}

fn invalid_query(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidQuery, detail)
}

/// How to write a record, besides the body.
#[derive(Debug, Default)]
struct Wish {
    condition: Condition,
    /// Answer only once the log has it.
    until_written: bool,
    /// Take the record offline when this connection closes.
    connection: Option<Uuid>,
}

impl Wish {
    fn of(kind: RegistryKind, headers: &HeaderMap, query: &[(String, String)]) -> Result<Self, Problem> {
        let mut wish = Self { condition: condition(headers)?, ..Self::default() };
        for (name, value) in query {
            match (name.as_str(), value.as_str()) {
                ("written", "1" | "true") => wish.until_written = true,
                ("written", "0" | "false") => {}
                ("connection", id) if kind == RegistryKind::Providers => {
                    let id = id.parse().map_err(|_| {
                        invalid_query("`connection` must be the `connection_id` of an open WebSocket, a UUID")
                    })?;
                    wish.connection = Some(id);
                }
                _ => {
                    let expected = match kind {
                        RegistryKind::Providers => "`written=1` or `connection=<connection_id>`",
                        RegistryKind::ActiveOrders => "`written=1`",
                    };
                    return Err(invalid_query(format!("{name:?} is not known here: expected {expected}")));
                }
            }
        }
        Ok(wish)
    }
}

/// How to write a record. It may be bound to an open connection of this node only.
async fn wish(
    app: &App,
    kind: RegistryKind,
    headers: &HeaderMap,
    query: &[(String, String)],
) -> Result<Wish, Problem> {
    let wish = Wish::of(kind, headers, query)?;
    if let Some(id) = wish.connection
        && !app.manager.closed(vec![id]).await.is_empty()
    {
        let detail = "this node has no open connection with this id; ask the gateway that the WebSocket is connected to";
        return Err(Problem::new(ProblemCode::UnknownConnection, detail));
    }
    Ok(wish)
}

/// `If-Match` and `If-None-Match` (RFC 9110, section 13.1).
fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let wrong = |detail: &str| Problem::new(ProblemCode::InvalidHeader, detail);
    let (matching, absent) = (headers.get_all(IF_MATCH), headers.get_all(IF_NONE_MATCH));
    let mut absent = absent.iter().peekable();
    if absent.peek().is_some() {
        let is_any = absent.all(|value| value.as_bytes().trim_ascii() == b"*");
        return match is_any && !headers.contains_key(IF_MATCH) {
            true => Ok(Condition::Absent),
            false => Err(wrong("`If-None-Match` must be `*` here, and cannot be combined with `If-Match`")),
        };
    }
    let mut versions = Vec::new();
    for value in matching {
        let value = value.to_str().map_err(|_| wrong("`If-Match` must consist of visible characters"))?;
        for tag in value.split(',').map(str::trim) {
            match tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) {
                Some(version) => versions.push(version.to_owned()),
                None if tag == "*" => return Ok(Condition::Present),
                None => {
                    return Err(wrong("`If-Match` must be `*`, or the `ETag` of an answer, such as \"…\""));
                }
            }
        }
    }
    Ok(if versions.is_empty() { Condition::None } else { Condition::Versions(versions) })
}

// Answers

fn invalid(InvalidRecord { code, detail }: InvalidRecord) -> Problem {
    Problem::new(code, detail)
}

fn problem(error: RegistryError) -> Problem {
    let detail = error.to_string();
    match error {
        RegistryError::Invalid(cause) => invalid(cause),
        RegistryError::InvalidAt { index, cause } => invalid(cause).of_a_part().at_index(index),
        RegistryError::Unknown => Problem::new(ProblemCode::UnknownRecord, detail),
        RegistryError::Changed { version } => {
            let now =
                version.map_or("there is none now".to_owned(), |version| format!("it is {version} now"));
            Problem::new(ProblemCode::PreconditionFailed, format!("{detail} ({now})"))
        }
        RegistryError::Behind { .. } => Problem::new(ProblemCode::RegistryBehind, detail),
        RegistryError::OthersUnknown => Problem::new(ProblemCode::StorageDegraded, detail),
    }
}

/// The problem with the record that a request names. While this node cannot see all records, one that is
/// unknown here may be known to others.
fn problem_here(app: &App, kind: RegistryKind, error: RegistryError) -> Problem {
    match error {
        RegistryError::Unknown if app.registry.state(kind) != BackendState::Healthy => {
            let detail = "this node knows no such record, but cannot see all records of other nodes at the moment; they may know it";
            Problem::new(ProblemCode::UnknownWhileDegraded, detail)
        }
        error => problem(error),
    }
}

fn says_state(app: &App, kind: RegistryKind, mut response: Response) -> Response {
    let state = HeaderValue::from_static(app.registry.state(kind).as_str());
    response.headers_mut().insert(STATE, state);
    response
}

fn etag(version: Version) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("versions are visible characters")
}

fn one(app: &App, kind: RegistryKind, status: StatusCode, record: &Record) -> Result<Response, Problem> {
    let mut response = of_json(app.sources.answers.hold(record.json.to_vec())?);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ETAG, etag(record.version));
    if status == StatusCode::CREATED {
        let key = utf8_percent_encode(&record.key, NON_ALPHANUMERIC);
        let location = format!("{}/api/{kind}/{key}", app.config.base_path);
        headers.insert(LOCATION, HeaderValue::from_str(&location).expect("an address is visible characters"));
    }
    Ok(says_state(app, kind, response))
}

/// Answers a write, once it is in the log if that was requested.
async fn written(app: &App, kind: RegistryKind, wish: &Wish, written: Written) -> Result<Response, Problem> {
    let Written { mut record, is_new } = written;
    if let Some(connection) = wish.connection {
        record = app.registry.bind(&record.key, connection).map_err(problem)?.record;
    }
    until_written(app, kind, wish, &record.key).await?;
    one(app, kind, if is_new { StatusCode::CREATED } else { StatusCode::OK }, &record)
}

async fn until_written(app: &App, kind: RegistryKind, wish: &Wish, key: &str) -> Result<(), Problem> {
    if wish.until_written && time::timeout(WRITTEN_WITHIN, app.registry.is_in_log(kind, key)).await.is_err() {
        let detail = format!(
            "the record is written on this node, but not in the log within {WRITTEN_WITHIN:?}; it will be as soon as the \
             storage accepts it"
        );
        return Err(Problem::new(ProblemCode::StorageUnavailable, detail));
    }
    Ok(())
}

// Lists

pub(in crate::http) fn list(app: &Arc<App>, kind: RegistryKind) -> Handler {
    handler(with(app).and(query()).map(move |app: Arc<App>, pairs| get_list(&app, kind, pairs)))
}

fn get_list(app: &App, kind: RegistryKind, pairs: Pairs) -> Result<Response, Problem> {
    let mut query = Query { limit: LISTED, ..Query::default() };
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => query.limit = limit(Some(value.parse().unwrap_or(0)), LISTED, LISTED_MAX)?,
            "after" => query.after = Some(value),
            "sort" => {
                let (field, is_descending) = match value.strip_prefix('-') {
                    Some(field) => (field, true),
                    None => (value.as_str(), false),
                };
                if field.is_empty() {
                    return Err(invalid_query(
                        "`sort` must be the name of a field, with `-` before it for descending order",
                    ));
                }
                query.sort = Some((field.to_owned(), is_descending));
            }
            _ => query.filter.push((name, value)),
        }
    }
    let listing = app.registry.list(kind, &query).map_err(invalid)?;
    let raw = |record: &Arc<Record>| RawValue::from_string(record.text().to_owned()).ok();
    let view = RecordList {
        versions: listing.records.iter().map(|record| record.version.to_string()).collect(),
        records: listing.records.iter().filter_map(raw).collect(),
        total: listing.total,
        next: listing.next,
        state: app.registry.state(kind).into(),
    };
    Ok(says_state(app, kind, long_json(app, &view)?))
}

pub(in crate::http) fn add(app: &Arc<App>, kind: RegistryKind) -> Handler {
    let asked = with(app).and(query()).and(json_body(app));
    handler(asked.then(move |app: Arc<App>, query: Pairs, text: Text| async move {
        let wish = wish(&app, kind, &text.headers, &query).await?;
        let added = app.registry.put(kind, None, &text, &Condition::Absent).map_err(|error| match error {
            RegistryError::Changed { .. } => {
                let detail = "there is a record with this key already: `PUT` replaces it, `PATCH` changes it";
                Problem::new(ProblemCode::RecordExists, detail)
            }
            error => problem(error),
        })?;
        written(&app, kind, &wish, added).await
    }))
}

pub(in crate::http) fn set_all(app: &Arc<App>, kind: RegistryKind) -> Handler {
    let asked = with(app).and(json_body_of(app, app.config.body_bytes_max, sent()));
    handler(asked.then(move |app: Arc<App>, text: Text| async move {
        let mut records: Vec<&str> = Vec::new();
        let read = each_element(&text, |_, element| {
            records.push(element.get());
            Ok::<(), std::convert::Infallible>(())
        });
        if let Err(error) = read {
            let detail = format!("expected a JSON array of records: {}", json_fault(&text, &error));
            let code = if error.is_data() { ProblemCode::InvalidRecord } else { ProblemCode::InvalidJson };
            return Err(Problem::new(code, detail));
        }
        let set = app.registry.set_all(kind, &records).map_err(problem)?;
        Ok(says_state(&app, kind, json(StatusCode::OK, &set)))
    }))
}

pub(in crate::http) fn clear(app: &Arc<App>, kind: RegistryKind) -> Handler {
    handler(with(app).map(move |app: Arc<App>| {
        let set = app.registry.set_all(kind, &[]).map_err(problem)?;
        Ok::<Response, Problem>(says_state(&app, kind, json(StatusCode::OK, &set)))
    }))
}

// Single records

pub(in crate::http) fn get(app: &Arc<App>, kind: RegistryKind) -> Handler {
    handler(with(app).and(segments()).map(move |app: Arc<App>, [key]: [String; 1]| {
        let record = app.registry.get(kind, &named::<String>(&key)?);
        let record = record.ok_or_else(|| problem_here(&app, kind, RegistryError::Unknown))?;
        one(&app, kind, StatusCode::OK, &record)
    }))
}

/// How a record is written.
#[derive(Clone, Copy)]
enum How {
    Put,
    Patch,
}

pub(in crate::http) fn put(app: &Arc<App>, kind: RegistryKind) -> Handler {
    write(app, kind, How::Put, json_body(app))
}

pub(in crate::http) fn patch(app: &Arc<App>, kind: RegistryKind) -> Handler {
    let sent = sent().map(|headers, body| (merge_patch_as_json(headers), body)).untuple_one();
    write(app, kind, How::Patch, json_body_of(app, app.config.line_bytes_max, sent))
}

fn merge_patch_as_json(mut headers: HeaderMap) -> HeaderMap {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_some_and(|kind| kind.trim() == MERGE_PATCH) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers
}

fn write<T>(app: &Arc<App>, kind: RegistryKind, how: How, text: T) -> Handler
where
    T: Filter<Extract = (Text,), Error = Rejection> + Clone + Send + Sync + 'static,
{
    let asked = with(app).and(segments()).and(query()).and(text);
    handler(asked.then(move |app: Arc<App>, [key]: [String; 1], query: Pairs, text: Text| async move {
        let (key, wish) = (named::<String>(&key)?, wish(&app, kind, &text.headers, &query).await?);
        let done = match how {
            How::Put => app.registry.put(kind, Some(&key), &text, &wish.condition),
            How::Patch => app.registry.patch(kind, &key, &text, &wish.condition),
        };
        let done = done.map_err(|error| problem_here(&app, kind, error))?;
        written(&app, kind, &wish, done).await
    }))
}

pub(in crate::http) fn remove(app: &Arc<App>, kind: RegistryKind) -> Handler {
    let asked = with(app).and(segments()).and(warp::header::headers_cloned()).and(query());
    handler(asked.then(
        move |app: Arc<App>, [key]: [String; 1], headers: HeaderMap, query: Pairs| async move {
            // Removals take no `connection`; neither do active orders, so the query is checked as theirs.
            let (key, wish) =
                (named::<String>(&key)?, Wish::of(RegistryKind::ActiveOrders, &headers, &query)?);
            app.registry
                .remove(kind, &key, &wish.condition)
                .map_err(|error| problem_here(&app, kind, error))?;
            until_written(&app, kind, &wish, &key).await?;
            Ok::<_, Problem>(says_state(&app, kind, StatusCode::NO_CONTENT.into_response()))
        },
    ))
}

pub(in crate::http) fn renew(app: &Arc<App>, kind: RegistryKind) -> Handler {
    let asked = with(app).and(segments()).and(query()).and(sent());
    handler(asked.then(move |app: Arc<App>, [key]: [String; 1], query: Pairs, headers, body| async move {
        tokio::pin!(body);
        discard(&mut body, &app.stopping).await;
        let (key, wish) = (named::<String>(&key)?, wish(&app, kind, &headers, &query).await?);
        let renewed = app.registry.renew(kind, &key).map_err(|error| problem_here(&app, kind, error))?;
        written(&app, kind, &wish, renewed).await
    }))
}

// All registries

/// `GET /api/registry`
pub(in crate::http) fn status(app: &Arc<App>) -> Handler {
    handler(with(app).map(|app: Arc<App>| {
        let [providers, active_orders] = RegistryKind::ALL.map(|kind| app.registry.view(kind));
        let node = app.sources.node.to_string();
        json(StatusCode::OK, &RegistryStatus { node, providers, active_orders })
    }))
}

/// `POST /api/registry/sync?replace=`
pub(in crate::http) fn sync(app: &Arc<App>) -> Handler {
    let asked = with(app).and(query()).and(warp::body::stream());
    handler(asked.then(|app: Arc<App>, query: Pairs, body| async move {
        tokio::pin!(body);
        discard(&mut body, &app.stopping).await;
        let mut replaces = false;
        for (name, value) in query {
            match (name.as_str(), value.as_str()) {
                ("replace", "1" | "true") => replaces = true,
                ("replace", "0" | "false") => {}
                _ => return Err(invalid_query(format!("{name:?} is not known here: expected `replace=1`"))),
            }
        }
        let synced = app.registry.sync(replaces).await.map_err(|error| {
            let code = match error {
                SyncError::NoRedis => ProblemCode::NotFound,
                SyncError::Degraded => ProblemCode::StorageDegraded,
                SyncError::Unavailable(_) => ProblemCode::StorageUnavailable,
            };
            Problem::new(code, error.to_string())
        })?;
        Ok(json(StatusCode::OK, &RegistrySync { synced }))
    }))
}
