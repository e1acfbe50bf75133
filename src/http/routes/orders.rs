//! `/api/orders`: placing and reading orders.

use std::sync::Arc;

use chrono::Utc;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{
    App, Caller, Handler, Text, caller, handler, json, json_body, json_body_of, limit, long_json, of_json,
    segments, sent, with,
};
use crate::http::arrival::Way;
use crate::http::forwarded::web_socket_base;
use crate::http::problem::Problem;
use crate::http::upgrade::Arrival;
use crate::model::{BackendName, BackendState, OrderId};
use crate::orders::{
    ExecutorChoice, InvalidOrder, Listed, PlaceError, RetryError, UpdateError, WhenDegraded,
};
use crate::protocol::{
    Accepted, DeadLetterList, OrderCancelling, OrderList, OrderPlaced, OrderStatus, OrderUpdate, ProblemCode,
};
use crate::storage::Cancelling;
use crate::support::json::json_fault;

/// How many orders a list has by default.
const LISTED: usize = 50;
const LISTED_MAX: usize = 500;

/// The longest `Idempotency-Key`, in bytes.
const KEY_LEN_MAX: usize = 255;

/// A path segment that names an order.
pub(super) fn order_id(segment: &str) -> Result<OrderId, Problem> {
    segment.parse().map_err(|error: crate::model::InvalidOrderId| {
        Problem::new(ProblemCode::InvalidOrderId, error.to_string())
    })
}

// Placing

/// What the addresses in an answer are derived from.
struct Asked {
    headers: HeaderMap,
    way: Option<Way>,
}

fn asked() -> BoxedFilter<(Asked,)> {
    warp::header::headers_cloned()
        .and(warp::ext::optional::<Arrival>())
        .map(|headers, arrival: Option<Arrival>| Asked { headers, way: arrival.map(|arrival| arrival.way) })
        .boxed()
}

/// `POST /api/orders/execute`
pub(in crate::http) fn execute(app: &Arc<App>) -> Handler {
    let sent = with(app).and(caller()).and(warp::ext::optional::<Arrival>()).and(json_body(app));
    handler(sent.then(|app: Arc<App>, caller: Caller, arrival: Option<Arrival>, mut text: Text| async move {
        let headers = std::mem::take(&mut text.headers);
        let asked = Asked { headers, way: arrival.map(|arrival| arrival.way) };
        let key = idempotency_key(&asked.headers)?;
        check_open(&app)?;
        let request = app.orders.read(&text).map_err(|error| match error {
            InvalidOrder::Json(_) => Problem::new(ProblemCode::InvalidJson, error.to_string()),
            InvalidOrder::Fields(ref faults) => {
                let faults = faults.clone();
                Problem::new(ProblemCode::InvalidOrder, error.to_string()).fields(faults)
            }
        })?;
        let owner = caller.principal()?.owner();
        let placed = app.orders.place(&request, key.as_deref(), owner).await;
        let placed = placed.map_err(|error| place_problem(&error))?;
        Ok::<_, Problem>(accepted(placed.order, None, placed.repeated, &asked, &app))
    }))
}

fn place_problem(error: &PlaceError) -> Problem {
    let detail = error.to_string();
    match error {
        PlaceError::Conflict => Problem::new(ProblemCode::IdempotencyConflict, detail),
        PlaceError::Full { .. } => Problem::new(ProblemCode::QueueFull, detail),
        PlaceError::Unavailable(error) => Problem::storage(error),
    }
}

fn accepted(order: OrderId, retry_of: Option<OrderId>, repeated: bool, asked: &Asked, app: &App) -> Response {
    let base = web_socket_base(&app.config, asked.way, &asked.headers);
    let body = OrderPlaced {
        job_id: order,
        order_id: order,
        retry_of,
        status: OrderStatus::Pending.as_str().to_owned(),
        success: true,
        ws_url: format!("{base}/api/orders/status/{order}"),
    };
    let mut response = json(StatusCode::ACCEPTED, &body);
    if repeated {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().map(str::trim);
    match key.filter(|key| (1..=KEY_LEN_MAX).contains(&key.len())) {
        Some(key) => Ok(Some(key.to_owned())),
        None => {
            let detail = format!("`Idempotency-Key` must be 1 to {KEY_LEN_MAX} visible ASCII characters");
            Err(Problem::new(ProblemCode::InvalidIdempotencyKey, detail))
        }
    }
}

// Reading

#[derive(Debug, Deserialize)]
struct ListQuery {
    status: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// No page can begin after an unknown order. The first page in its place would make a client that reads all
/// pages begin again for ever.
fn unknown_cursor(after: Option<OrderId>) -> Problem {
    let after = after.map(|after| after.to_string()).unwrap_or_default();
    let detail =
        format!("`after` names order {after}, which is no longer known; begin again with the newest orders");
    Problem::new(ProblemCode::UnknownOrder, detail)
}

/// `GET /api/orders/schema`: what an order must look like here. It does not change while the process runs.
pub(in crate::http) fn schema(app: &Arc<App>) -> Handler {
    handler(with(app).map(|app: Arc<App>| {
        let mut response = of_json(app.orders.schema());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }))
}

/// `GET /api/orders?status=&limit=&after=`: the newest first.
pub(in crate::http) fn list(app: &Arc<App>) -> Handler {
    handler(with(app).and(caller()).and(warp::query()).then(list_orders))
}

async fn list_orders(app: Arc<App>, caller: Caller, query: ListQuery) -> Result<Response, Problem> {
    if let Some(status) = &query.status
        && !OrderStatus::ALL.iter().any(|known| known.as_str() == status)
    {
        let known = OrderStatus::ALL.map(OrderStatus::as_str).join(", ");
        let detail = format!("`status` must be one of {known}");
        return Err(Problem::new(ProblemCode::InvalidStatus, detail));
    }
    let limit = limit(query.limit, LISTED, LISTED_MAX)?;
    let after = query.after.as_deref().map(order_id).transpose()?;
    let listed = app.orders.list(query.status.as_deref(), after, limit, caller.sees_orders_of()?).await;
    let Listed { found: orders, next, degraded } =
        listed.map_err(|error| Problem::storage(&error))?.ok_or_else(|| unknown_cursor(after))?;
    long_json(&app, &OrderList { orders, next, degraded })
}

/// `GET /api/orders/{id}`
pub(in crate::http) fn get(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).then(|app: Arc<App>, [id]: [String; 1]| async move {
        let order = order_id(&id)?;
        let found = app.orders.get(order).await.map_err(|error| Problem::storage(&error))?;
        let view = found.ok_or_else(|| Problem::unknown_order(Some(order)))?;
        long_json(&app, &view)
    }))
}

/// `POST /api/orders/{id}/cancel`
pub(in crate::http) fn cancel(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).then(|app: Arc<App>, [id]: [String; 1]| async move {
        let order = order_id(&id)?;
        let conflict = |code, detail: &str| Err(Problem::new(code, detail));
        match app.orders.cancel(order).await.map_err(|error| Problem::storage(&error))? {
            Cancelling::Asked => {
                let status = "cancelling".to_owned();
                let body = OrderCancelling { order_id: order, status, success: true };
                Ok(json(StatusCode::ACCEPTED, &body))
            }
            Cancelling::TooLate => {
                conflict(ProblemCode::TooLate, "the order has been submitted, and can no longer be cancelled")
            }
            Cancelling::Ended => conflict(ProblemCode::AlreadyEnded, "the order has ended"),
            Cancelling::Unknown if is_reported(order, &app).await? => {
                conflict(ProblemCode::NoJob, "this order is executed elsewhere, and must be cancelled there")
            }
            Cancelling::Unknown => Err(Problem::unknown_order(Some(order))),
        }
    }))
}

/// Whether an outside program reports on an order.
async fn is_reported(order: OrderId, app: &App) -> Result<bool, Problem> {
    app.orders.is_told_of(order).await.map_err(|error| Problem::storage(&error))
}

// Outside updates

/// `POST /api/orders/{id}/updates`
pub(in crate::http) fn update(app: &Arc<App>) -> Handler {
    let text = json_body_of(app, app.config.body_bytes_max, sent());
    handler(with(app).and(segments()).and(text).then(post_updates))
}

async fn post_updates(app: Arc<App>, [id]: [String; 1], text: Text) -> Result<Response, Problem> {
    let text: &str = &text;
    let order = order_id(&id)?;
    let now = Utc::now();
    let sized = |update: &str| {
        let max = app.config.line_bytes_max;
        if update.len() <= max {
            return Ok(());
        }
        let detail = format!("an update may have at most {max} bytes");
        Err(Problem::new(ProblemCode::UpdateTooLarge, detail))
    };
    let updates = if text.trim_start().starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
            Problem::new(ProblemCode::InvalidJson, format!("not a JSON array: {}", json_fault(text, &error)))
        })?;
        let parsed = elements.iter().enumerate().map(|(index, element)| {
            sized(element.get()).map_err(|problem| problem.at_index(index))?;
            OrderUpdate::parse(element.get(), now).map_err(|fault| Problem::from(fault).at_index(index))
        });
        parsed.collect::<Result<Vec<_>, _>>()?
    } else {
        sized(text)?;
        vec![OrderUpdate::parse(text, now)?]
    };
    let accepted = app.orders.add_updates(order, updates).await.map_err(|error| match &error {
        UpdateError::HasJob => Problem::new(ProblemCode::HasJob, error.to_string()),
        UpdateError::Ended => Problem::new(ProblemCode::AlreadyEnded, error.to_string()),
        UpdateError::Invalid { index, .. } => {
            let detail = error.to_string();
            Problem::new(ProblemCode::InvalidUpdate, detail).accepted(0).at_index(*index)
        }
        UpdateError::Publish(error) => Problem::publish(error).accepted(error.accepted() as u64),
        UpdateError::Unavailable(error) => Problem::storage(error),
    })?;
    Ok(json(StatusCode::OK, &Accepted { accepted: accepted as u64 }))
}

// Dead letters

/// `GET /api/orders/dead-letters?limit=&after=`
pub(in crate::http) fn dead_letters(app: &Arc<App>) -> Handler {
    let asked = with(app).and(caller()).and(warp::query());
    handler(asked.then(|app: Arc<App>, caller: Caller, query: ListQuery| async move {
        let limit = limit(query.limit, LISTED, LISTED_MAX)?;
        let after = query.after.as_deref().map(order_id).transpose()?;
        let listed = app.orders.dead_letters(after, limit, caller.sees_orders_of()?).await;
        let Listed { found: dead_letters, next, degraded } =
            listed.map_err(|error| Problem::storage(&error))?.ok_or_else(|| unknown_cursor(after))?;
        long_json(&app, &DeadLetterList { dead_letters, next, degraded })
    }))
}

#[derive(Debug, Deserialize)]
struct RetryQuery {
    #[serde(default)]
    force: bool,
}

/// `POST /api/orders/dead-letters/{id}/retry?force=`
pub(in crate::http) fn retry(app: &Arc<App>) -> Handler {
    let asked = with(app).and(segments()).and(warp::query()).and(asked());
    handler(asked.then(|app: Arc<App>, [id]: [String; 1], query: RetryQuery, asked: Asked| async move {
        let order = order_id(&id)?;
        check_open(&app)?;
        let placed = app.orders.retry_dead_letter(order, query.force).await.map_err(|error| match error {
            RetryError::Unknown => Problem::unknown_dead_letter(),
            RetryError::MayBeSubmitted => Problem::new(ProblemCode::MayBeSubmitted, error.to_string()),
            RetryError::Place(ref error) => place_problem(error),
        })?;
        Ok::<_, Problem>(accepted(placed.order, Some(order), placed.repeated, &asked, &app))
    }))
}

/// Whether an order accepted now would be executed, and would survive this process as configured.
fn check_open(app: &App) -> Result<(), Problem> {
    let refuse = |code, detail: &str| Err(Problem::new(code, detail));
    let storage = app.sources.storage.get();
    if storage.backend != BackendName::InMemory {
        return Ok(());
    }
    if storage.state != BackendState::Healthy && app.orders.config().when_degraded == WhenDegraded::Reject {
        let detail =
            "Redis is configured and does not serve, so an order would exist in this process' memory only";
        return refuse(ProblemCode::StorageDegraded, detail);
    }
    // An order accepted in an outage goes to Redis when that is back, and from there to a worker.
    let is_own = storage.state == BackendState::Healthy;
    if is_own && !app.works && app.orders.config().executor == ExecutorChoice::Paper {
        let detail = "nobody could execute the order: this process is not a worker, and no other process has access to its queue";
        return refuse(ProblemCode::NoWorker, detail);
    }
    Ok(())
}
