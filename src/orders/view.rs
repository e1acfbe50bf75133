//! How orders are shown.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::desk::Desk;
use super::request::OrderRequest;
use crate::model::{ChannelName, Entry, OrderId};
use crate::protocol::{DeadLetter, Gap, Standing, entry_json};
use crate::storage::{JobState, JobView, Page, is_fork_of_unknown};

/// What is known of an order, with its updates in the form that all readers get.
pub type OrderView = crate::protocol::OrderView<Box<RawValue>>;

/// How many updates are missing before a page that was read from the oldest update on.
fn gap_before(page: &Page) -> Gap {
    let is_of_unknown = || page.epoch.as_ref().is_some_and(is_fork_of_unknown);
    if page.out_of_reach > 0 || (!page.is_final && is_of_unknown()) {
        return Gap::Unknown;
    }
    Gap::Known(page.first.saturating_sub(1))
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// The page's items, in order.
    pub found: Vec<T>,
    /// The order from which the next page goes on, if there may be one.
    pub next: Option<OrderId>,
    /// The storage is away, and these are the orders that this node knows by itself.
    pub degraded: bool,
}

/// An order without its updates, as lists show it.
pub(super) fn summary(
    order: OrderId,
    job: Option<&JobView>,
    newest: Option<&Entry>,
    desk: &Desk,
) -> OrderView {
    let standing = newest.map(Standing::of);
    let changed = job.map(|job| job.changed_at);
    let updated = newest.map(|entry| entry.draft.time).into_iter().chain(changed).max();
    let waits = job.is_some_and(|job| matches!(job.state, JobState::Waiting | JobState::Delayed));
    OrderView {
        order_id: order,
        job_id: job.map(|job| job.id.into()),
        degraded: false,
        status: standing.as_ref().map_or("pending", |standing| standing.kind.as_str()).to_owned(),
        progress: standing.as_ref().map_or(0, |standing| standing.progress),
        attempt: standing.as_ref().map_or(u32::from(!waits), |standing| standing.attempt),
        max_attempts: desk.parts.config.attempts_max,
        run: job.map_or(0, |job| job.run),
        cancel_requested: job.is_some_and(|job| job.cancelled),
        order: job.and_then(|job| request(job, desk)),
        created_at: job.map(|job| text(job.enqueued_at)),
        updated_at: updated.map(text),
        last_update: None,
        epoch: None,
        gap: None,
        updates: None,
    }
}

/// An order with its updates.
pub(super) fn whole(
    order: OrderId,
    job: Option<JobView>,
    newest: Option<Entry>,
    page: Page,
    desk: &Desk,
) -> OrderView {
    let channel = ChannelName::order(order);
    // The page and the newest update were read one after the other: the later one counts.
    let newest = newest.into_iter().chain(page.entries.last().cloned()).max_by_key(|entry| entry.offset);
    let updates = page.entries.iter().filter_map(|entry| message(&channel, entry));
    OrderView {
        updates: Some(updates.collect()),
        gap: Some(gap_before(&page)),
        epoch: page.epoch,
        last_update: newest.as_ref().and_then(|entry| message(&channel, entry)),
        ..summary(order, job.as_ref(), newest.as_ref(), desk)
    }
}

/// A dead letter as the list of dead letters shows it.
pub(super) fn dead_letter(job: &JobView, desk: &Desk) -> DeadLetter {
    DeadLetter {
        order_id: job.id.into(),
        error: job.error.clone().unwrap_or_default(),
        submitted: job.committed,
        runs: job.run,
        order: request(job, desk),
        created_at: text(job.enqueued_at),
        failed_at: text(job.changed_at),
    }
}

/// The run that published an update; `None` if it was not published under a claim.
pub(super) fn run_of(update: &Entry) -> Option<u32> {
    #[derive(Deserialize)]
    struct Fields {
        run: Option<u32>,
    }
    serde_json::from_slice::<Fields>(&update.draft.data).ok()?.run
}

/// What was ordered, as the client wrote it.
fn request(job: &JobView, desk: &Desk) -> Option<Box<RawValue>> {
    let order: OrderRequest = serde_json::from_slice(&job.payload).ok()?;
    let order = if desk.parts.schema.is_swap() { order.shown_as_swap() } else { order };
    Some(order.as_json().to_owned())
}

fn message(channel: &ChannelName, entry: &Entry) -> Option<Box<RawValue>> {
    let mut out = Vec::new();
    entry_json(channel, entry, false, &mut out);
    let message = serde_json::from_slice(&out);
    if let Err(error) = &message {
        tracing::error!(channel = %channel, offset = entry.offset, error = %error, "a stored update is not readable");
    }
    message.ok()
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
