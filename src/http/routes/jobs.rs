//! `/api/jobs`: outside workers claim orders, report on them, and end them.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::value::RawValue;
use warp::Filter;
use warp::reply::Response;

use super::orders::order_id;
use super::{App, Handler, Text, handler, json, json_body, parse, segments, with};
use crate::http::problem::Problem;
use crate::http::upgrade::Arrival;
use crate::orders::{Claimed, ExecutorChoice, RunError, Ticket};
use crate::protocol::{
    ClaimRequest, ExtendRequest, FailRequest, JobOutcome, LeaseHeld, Offer, OrderedFields, ProblemCode,
    ReportAccepted,
};
use crate::storage::StorageError;

/// The longest name of a worker, in bytes.
const WORKER_LEN_MAX: usize = 64;

/// `POST /api/jobs/claim`
pub(in crate::http) fn claim(app: &Arc<App>) -> Handler {
    handler(with(app).and(json_body(app)).and(warp::ext::optional()).then(offer))
}

/// `POST /api/jobs/{job}/extend`
pub(in crate::http) fn extend(app: &Arc<App>) -> Handler {
    about(app, Call::Extend)
}

/// `POST /api/jobs/{job}/progress`
pub(in crate::http) fn progress(app: &Arc<App>) -> Handler {
    about(app, Call::Progress)
}

/// `POST /api/jobs/{job}/complete`
pub(in crate::http) fn complete(app: &Arc<App>) -> Handler {
    about(app, Call::Complete)
}

/// `POST /api/jobs/{job}/release`
pub(in crate::http) fn release(app: &Arc<App>) -> Handler {
    about(app, Call::Release)
}

/// `POST /api/jobs/{job}/fail`
pub(in crate::http) fn fail(app: &Arc<App>) -> Handler {
    about(app, Call::Fail)
}

/// What to do with a job.
#[derive(Debug, Clone, Copy)]
enum Call {
    Extend,
    Progress,
    Complete,
    Release,
    Fail,
}

fn about(app: &Arc<App>, call: Call) -> Handler {
    let asked = with(app).and(segments()).and(json_body(app));
    handler(asked.then(move |app: Arc<App>, [job]: [String; 1], text: Text| async move {
        check_external(&app)?;
        let order = order_id(&job)?;
        let OrderedFields(fields) = parse(&text)?;
        let ticket = Ticket { order, token: token(&fields)? };
        match call {
            Call::Extend => hold(ticket, &text, &app).await,
            Call::Progress => report(app.orders.progress(ticket, &fields, worker(&fields)?.as_deref()).await),
            Call::Complete => report(app.orders.complete(ticket, &fields, worker(&fields)?.as_deref()).await),
            Call::Release => give_back(ticket, &app).await,
            Call::Fail => give_up(ticket, &text, worker(&fields)?.as_deref(), &app).await,
        }
    }))
}

/// Whether orders are executed by outside workers.
fn check_external(app: &App) -> Result<(), Problem> {
    if app.orders.config().executor == ExecutorChoice::External {
        return Ok(());
    }
    let detail = "orders are executed by the gateway's own workers; for outside workers, set orders.executor = \"external\"";
    Err(Problem::new(ProblemCode::NotExternal, detail))
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
    token.ok_or_else(|| invalid("`token` must be the number from the claim"))
}

/// The worker's name, for the `executor` field of updates.
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

async fn offer(app: Arc<App>, text: Text, arrival: Option<Arrival>) -> Result<Response, Problem> {
    check_external(&app)?;
    let request: ClaimRequest = parse(&text)?;
    if !is_worker(&request.worker) {
        return Err(invalid(WORKER_EXPECTED));
    }
    let claimed = tokio::select! {
        biased;
        () = app.stopping.cancelled() => return Err(Problem::shutting_down()),
        claimed = claim_while_it_waits(&request, arrival.as_ref(), &app) => {
            claimed.map_err(|error| Problem::storage(&error))?
        }
    };
    let response = json(StatusCode::OK, &Offer { jobs: claimed.jobs() });
    match arrival {
        Some(Arrival { look, handing_over, .. }) if look.has_sent_all() => {
            handing_over.begin(claimed, &look);
        }
        _ => claimed.take(),
    }
    Ok(response)
}

/// Claims waiting jobs. If there are none, it waits as long as the request says, but stops waiting when the
/// worker's connection can no longer send: such a worker may be gone, and must not be given jobs that come
/// later. If it is still there, it gets an empty answer.
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

async fn hold(ticket: Ticket, text: &str, app: &App) -> Result<Response, Problem> {
    let request: ExtendRequest = parse(text)?;
    app.orders.extend(ticket, request.lease_ms).await.map_err(|error| run_problem(&error))?;
    Ok(json(StatusCode::OK, &LeaseHeld { held: true }))
}

async fn give_back(ticket: Ticket, app: &App) -> Result<Response, Problem> {
    app.orders.release(ticket).await.map_err(|error| run_problem(&error))?;
    Ok(json(StatusCode::OK, &JobOutcome::Released))
}

fn report(reported: Result<(), RunError>) -> Result<Response, Problem> {
    reported.map_err(|error| run_problem(&error))?;
    Ok(json(StatusCode::OK, &ReportAccepted { accepted: true }))
}

async fn give_up(ticket: Ticket, text: &str, worker: Option<&str>, app: &App) -> Result<Response, Problem> {
    let FailRequest { error, retry, .. } = parse(text)?;
    if !is_worker(&error.code) {
        return Err(invalid("`error.code` must be a word such as no_liquidity"));
    }
    let outcome = app.orders.give_up(ticket, error.code, error.message, retry, worker).await;
    Ok(json(StatusCode::OK, &outcome.map_err(|error| run_problem(&error))?))
}

fn run_problem(error: &RunError) -> Problem {
    let code = match error {
        RunError::LeaseLost => ProblemCode::LeaseLost,
        RunError::Cancelled => ProblemCode::Cancelled,
        RunError::Ended => ProblemCode::AlreadyEnded,
        RunError::Payload(fault) => fault.code,
        RunError::Invalid(_) => ProblemCode::InvalidUpdate,
        RunError::Unavailable(_) => ProblemCode::StorageUnavailable,
    };
    Problem::new(code, error.to_string())
}
