//! Orders as they are shown.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::request::OrderRequest;
use crate::model::{ChannelName, Entry, Epoch, OrderId};
use crate::protocol::{Standing, entry_json};
use crate::storage::{JobState, JobView, Page, is_fork_of_unknown};

/// What is known of an order.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderView {
    /// Its name.
    pub order_id: OrderId,
    /// The name of the job that carries it out; absent when there is none here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<OrderId>,
    /// While Redis is away: what this node knows by itself, which may be behind. Absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    /// `pending`, or the type of the newest update.
    pub status: String,
    /// 0 to 100.
    pub progress: u8,
    /// Which try it is at.
    pub attempt: u32,
    /// How many there are.
    pub max_attempts: u32,
    /// How many times a worker took it up.
    pub run: u32,
    /// Somebody asked for it to be cancelled.
    pub cancel_requested: bool,
    /// What was ordered; absent when it was not placed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Box<RawValue>>,
    /// When it was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When something last happened to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The newest update, also where it is no longer among `updates`; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<Box<RawValue>>,
    /// The life of the log that the updates' offsets belong to; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How many updates came before those that are still kept; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// All that are kept, in order, as sockets get them; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<Vec<Box<RawValue>>>,
}

/// How many updates of an order are gone for good, before those that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Gap {
    /// So many.
    Known(u64),
    /// Others may be kept where they cannot be reached now. JSON's null.
    Unknown,
}

impl Gap {
    /// Before the first update of a page that was read from the oldest on.
    fn before(page: &Page) -> Self {
        let is_of_unknown = || page.epoch.as_ref().is_some_and(is_fork_of_unknown);
        if page.out_of_reach > 0 || (!page.is_final && is_of_unknown()) {
            return Self::Unknown;
        }
        Self::Known(page.first.saturating_sub(1))
    }
}

/// How this node shows orders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shows {
    pub(super) attempts_max: u32,
    /// Orders are swaps.
    pub(super) swaps: bool,
}

/// Part of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// In order.
    pub found: Vec<T>,
    /// The order to go on from, where there may be more.
    pub next: Option<OrderId>,
    /// The storage is away, and these are the ones that this node knows by itself.
    pub degraded: bool,
}

/// An order that was tried in vain.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Its name.
    pub order_id: OrderId,
    /// What went wrong last.
    pub error: String,
    /// It may have been carried out all the same.
    pub submitted: bool,
    /// How many times a worker took it up.
    pub runs: u32,
    /// What was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Box<RawValue>>,
    /// When it was placed.
    pub created_at: String,
    /// When it was given up.
    pub failed_at: String,
}

impl OrderView {
    /// As lists show it.
    pub(super) fn summary(job: &JobView, newest: Option<&Entry>, shows: Shows) -> Self {
        Self::build(job.id.into(), Some(job), newest, shows)
    }

    fn build(order: OrderId, job: Option<&JobView>, newest: Option<&Entry>, shows: Shows) -> Self {
        let standing = newest.map(Standing::of);
        let changed = job.map(|job| job.changed_at);
        let updated = newest.map(|entry| entry.draft.time).into_iter().chain(changed).max();
        let waits = job.is_some_and(|job| matches!(job.state, JobState::Waiting | JobState::Delayed));
        Self {
            order_id: order,
            job_id: job.map(|job| job.id.into()),
            degraded: false,
            status: standing.as_ref().map_or("pending", |standing| standing.kind.as_str()).to_owned(),
            progress: standing.as_ref().map_or(0, |standing| standing.progress),
            attempt: standing.as_ref().map_or(u32::from(!waits), |standing| standing.attempt),
            max_attempts: shows.attempts_max,
            run: job.map_or(0, |job| job.run),
            cancel_requested: job.is_some_and(|job| job.cancelled),
            order: job.and_then(|job| request(job, shows)),
            created_at: job.map(|job| text(job.enqueued_at)),
            updated_at: updated.map(text),
            last_update: None,
            epoch: None,
            gap: None,
            updates: None,
        }
    }

    /// With its updates.
    pub(super) fn whole(
        order: OrderId,
        job: Option<JobView>,
        newest: Option<Entry>,
        page: Page,
        shows: Shows,
    ) -> Self {
        let channel = ChannelName::order(order);
        // They were read one after the other: what is newer counts.
        let newest = newest.into_iter().chain(page.entries.last().cloned()).max_by_key(|entry| entry.offset);
        let updates = page.entries.iter().filter_map(|entry| message(&channel, entry));
        Self {
            updates: Some(updates.collect()),
            gap: Some(Gap::before(&page)),
            epoch: page.epoch,
            last_update: newest.as_ref().and_then(|entry| message(&channel, entry)),
            ..Self::build(order, job.as_ref(), newest.as_ref(), shows)
        }
    }
}

impl DeadLetter {
    pub(super) fn new(job: &JobView, shows: Shows) -> Self {
        Self {
            order_id: job.id.into(),
            error: job.error.clone().unwrap_or_default(),
            submitted: job.committed,
            runs: job.run,
            order: request(job, shows),
            created_at: text(job.enqueued_at),
            failed_at: text(job.changed_at),
        }
    }
}

/// Whether an update was told by whoever claimed the order's job.
pub(super) fn is_of_a_worker(update: &Entry) -> bool {
    run_of(update).is_some()
}

/// The run that an update was told by.
pub(super) fn run_of(update: &Entry) -> Option<u32> {
    #[derive(Deserialize)]
    struct Fields {
        run: Option<u32>,
    }
    serde_json::from_slice::<Fields>(&update.draft.data).ok()?.run
}

/// What was ordered, as its client wrote it.
fn request(job: &JobView, shows: Shows) -> Option<Box<RawValue>> {
    let order: OrderRequest = serde_json::from_slice(&job.payload).ok()?;
    let order = if shows.swaps { order.shown_as_swap() } else { order };
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
