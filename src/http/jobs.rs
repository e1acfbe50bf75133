//! `/api/jobs`: workers outside claim orders, report, and end them.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::value::RawValue;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::orders::{order_id, read_json};
use super::problem::Problem;
use super::routes::{App, answer, json as reply_json, with};
use super::upgrade::Arrival;
use crate::orders::{Claimed, ExecutorChoice, Outcome, ReportError, RunError, Ticket};
use crate::protocol::{
    ClaimRequest, ExtendRequest, FailRequest, JobOutcome, LeaseHeld, Offer, OrderedFields, ProblemCode,
    ReportAccepted, check_json,
};
use crate::storage::StorageError;
use crate::support::json::json_fault;

/// The longest name of a worker, in bytes.
const WORKER_LEN_MAX: usize = 64;

/// All routes of outside workers.
pub(super) fn jobs(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let claim = warp::path!("api" / "jobs" / "claim").map(|| Call::Claim);
    let about = warp::path!("api" / "jobs" / String / String).map(Call::About);
    claim
        .or(about)
        .unify()
        .and(warp::post())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Arrival>())
        .and(warp::body::stream())
        .and(with(app))
        .and_then(|call: Call, headers: HeaderMap, arrival, body, app: Arc<App>| async move {
            answer(respond(call, &headers, arrival, body, &app).await)
        })
        .boxed()
}

enum Call {
    Claim,
    /// A job, and what is to be done with it.
    About(String, String),
}

async fn respond<S, B>(
    call: Call,
    headers: &HeaderMap,
    arrival: Option<Arrival>,
    body: S,
    app: &App,
) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let text = read_json(headers, body, app.config.line_bytes_max, app).await?;
    if app.orders.config().executor != ExecutorChoice::External {
        let detail =
            "orders are carried out by the gateway's own workers; set orders.executor = \"external\"";
        return Err(Problem::new(ProblemCode::NotExternal, detail));
    }
    check_json(&text).map_err(|unreadable| Problem::new(ProblemCode::InvalidJson, unreadable.to_string()))?;
    match call {
        Call::Claim => claim(&text, arrival, app).await,
        Call::About(job, what) => {
            let order = order_id(&job)?;
            let OrderedFields(fields) =
                serde_json::from_str(&text).map_err(|error| bad_body(&text, &error))?;
            let ticket = Ticket { order, token: token(&fields)? };
            match what.as_str() {
                "extend" => extend(ticket, &text, app).await,
                "progress" => report(app.orders.progress(ticket, &fields, worker(&fields)?.as_deref()).await),
                "complete" => report(app.orders.complete(ticket, &fields, worker(&fields)?.as_deref()).await),
                "release" => release(ticket, app).await,
                "fail" => fail(ticket, &text, worker(&fields)?.as_deref(), app).await,
                _ => Err(Problem::new(ProblemCode::NotFound, "there is nothing at this address")),
            }
        }
    }
}

fn bad_body(text: &str, error: &serde_json::Error) -> Problem {
    let fault = json_fault(text, error);
    if error.is_data() {
        Problem::new(ProblemCode::InvalidRequest, fault)
    } else {
        Problem::new(ProblemCode::InvalidJson, format!("not JSON: {fault}"))
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidRequest, detail)
}

fn field<T: serde::de::DeserializeOwned>(fields: &[(String, &RawValue)], name: &str) -> Option<Option<T>> {
    let value = fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value);
    value.map(|value| serde_json::from_str(value.get()).ok())
}

fn token(fields: &[(String, &RawValue)]) -> Result<u64, Problem> {
    let token = field(fields, "token").flatten();
    token.ok_or_else(|| invalid("`token` must be the number that the claim gave"))
}

/// Who reports; stands in the `executor` field of the updates.
fn worker(fields: &[(String, &RawValue)]) -> Result<Option<String>, Problem> {
    match field::<String>(fields, "executor").or_else(|| field(fields, "worker")) {
        None => Ok(None),
        Some(Some(name)) if is_worker(&name) => Ok(Some(name)),
        Some(_) => Err(invalid(WORKER_EXPECTED)),
    }
}

const WORKER_EXPECTED: &str = "`worker` must be a text of 1 to 64 visible characters";

fn is_worker(name: &str) -> bool {
    (1..=WORKER_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

async fn claim(text: &str, arrival: Option<Arrival>, app: &App) -> Result<Response, Problem> {
    let request: ClaimRequest = serde_json::from_str(text).map_err(|error| bad_body(text, &error))?;
    if !is_worker(&request.worker) {
        return Err(invalid(WORKER_EXPECTED));
    }
    let claimed = tokio::select! {
        biased;
        () = app.stopping.cancelled() => {
            let detail = "the gateway is shutting down";
            return Err(Problem::new(ProblemCode::ShuttingDown, detail));
        }
        claimed = claim_while_it_waits(&request, arrival.as_ref(), app) => {
            claimed.map_err(|error| Problem::storage(&error))?
        }
    };
    let response = reply_json(StatusCode::OK, &Offer { jobs: claimed.jobs() });
    match arrival {
        Some(Arrival { look, handing_over, .. }) if look.has_sent_all() => {
            handing_over.begin(claimed, &look);
        }
        _ => claimed.take(),
    }
    Ok(response)
}

/// Claims what there is; where there is nothing, waits for as long as the request says, unless its worker
/// sends no more. That one may be gone, and must not be given what comes later; if it is not, it is
/// answered all the same.
async fn claim_while_it_waits(
    request: &ClaimRequest,
    arrival: Option<&Arrival>,
    app: &App,
) -> Result<Claimed, StorageError> {
    let at_once = ClaimRequest { wait_ms: None, ..request.clone() };
    let claimed = app.orders.claim(&at_once).await?;
    if !claimed.jobs().is_empty() || request.wait_ms.is_none_or(|wait| wait == 0) {
        return Ok(claimed);
    }
    let sends_no_more = async {
        match arrival {
            Some(arrival) => arrival.look.sends_no_more().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        claimed = app.orders.claim(request) => claimed,
        () = sends_no_more => Ok(claimed),
    }
}

async fn extend(ticket: Ticket, text: &str, app: &App) -> Result<Response, Problem> {
    let request: ExtendRequest = serde_json::from_str(text).map_err(|error| bad_body(text, &error))?;
    app.orders.extend(ticket, request.lease_ms).await.map_err(|error| run_problem(&error))?;
    Ok(reply_json(StatusCode::OK, &LeaseHeld { held: true }))
}

async fn release(ticket: Ticket, app: &App) -> Result<Response, Problem> {
    app.orders.release(ticket).await.map_err(|error| run_problem(&error))?;
    Ok(reply_json(StatusCode::OK, &JobOutcome::Released))
}

fn report(reported: Result<(), ReportError>) -> Result<Response, Problem> {
    match reported {
        Ok(()) => Ok(reply_json(StatusCode::OK, &ReportAccepted { accepted: true })),
        Err(ReportError::Payload(fault)) => Err(Problem::new(fault.code, fault.detail)),
        Err(ReportError::Run(error)) => Err(run_problem(&error)),
    }
}

async fn fail(ticket: Ticket, text: &str, worker: Option<&str>, app: &App) -> Result<Response, Problem> {
    let FailRequest { error, retry, .. } =
        serde_json::from_str(text).map_err(|error| bad_body(text, &error))?;
    if !is_worker(&error.code) {
        return Err(invalid("`error.code` must be a word such as no_liquidity"));
    }
    let ended = app.orders.give_up(ticket, error.code, error.message, retry, worker).await;
    Ok(match ended.map_err(|error| run_problem(&error))? {
        Outcome::Retry(after) => {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            reply_json(StatusCode::OK, &JobOutcome::Retry { retry_in_ms: after })
        }
        Outcome::Failed => reply_json(StatusCode::OK, &JobOutcome::Failed),
    })
}

fn run_problem(error: &RunError) -> Problem {
    let code = match error {
        RunError::LeaseLost => ProblemCode::LeaseLost,
        RunError::Cancelled => ProblemCode::Cancelled,
        RunError::Ended => ProblemCode::AlreadyEnded,
        RunError::Invalid(_) => ProblemCode::InvalidUpdate,
        RunError::Unavailable(_) => ProblemCode::StorageUnavailable,
    };
    Problem::new(code, error.to_string())
}
