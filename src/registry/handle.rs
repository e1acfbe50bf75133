//! The handle through which others read and write registries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::Utc;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;
use zonewire_protocol::stats::{Live as _, RegistryCounts, RegistryView};

use super::RegistryStats;
use super::clock::{Version, short_of};
use super::config::RegistryConfig;
use super::core::Core;
use super::kind::RegistryKind;
use super::presence::Bindings;
use super::query::{Listing, Query};
use super::record::{Body, InvalidRecord, Record, invalid, time_json};
use super::writing::LAGS_AFTER;
use crate::channels::Channels;
use crate::fleet::Fleet;
use crate::model::{BackendState, DraftEntry, NodeId, OrderId};
use crate::protocol::{ProblemCode, RecordsSet};
use crate::storage::SharedBackend;

/// How many keys may wait for the log, as a multiple of the permitted records.
const WAITING_PER_RECORD: usize = 2;

/// What registries are built from.
#[derive(Debug)]
pub(crate) struct RegistryParts {
    pub(crate) channels: Channels,
    pub(crate) backend: SharedBackend,
    pub(crate) node: NodeId,
    /// The list of nodes.
    pub(crate) fleet: Fleet,
    pub(crate) config: RegistryConfig,
    /// The index of the registries among the receivers that channels deliver to.
    pub(crate) place: usize,
}

/// Online providers, and active orders. Cheap to clone, and callable from anywhere: neither reads nor writes
/// wait.
#[derive(Debug, Clone)]
pub struct Registry(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) parts: RegistryParts,
    books: [Arc<Book>; 2],
    pub(super) bindings: Bindings,
}

/// One registry on this node.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) core: RwLock<Core>,
    /// Notified when a key waits to be appended.
    pub(super) written: Notify,
    /// Notified when somebody waits for an append, which is then made without the usual rest.
    pub(super) awaited: Notify,
    /// Notified when something was appended.
    pub(super) appended: Notify,
    /// Notified when the log may differ from memory, so that the two have to be compared.
    pub(super) compare_due: Notify,
    /// Notified when anything changed, for the writer of the legacy key.
    pub(super) changed: Notify,
    pub(super) stats: RegistryStats,
    /// Whether memory was compared with the log since the log was last away.
    pub(super) is_compared: AtomicBool,
}

impl Book {
    /// Notifies the writer of the legacy key and, if keys wait to be appended, the task that appends.
    pub(super) fn notify_changed(&self, some_wait: bool) {
        if some_wait {
            self.written.notify_one();
        }
        self.changed.notify_one();
    }
}

/// The condition of a write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// None.
    #[default]
    None,
    /// The record must not exist.
    Absent,
    /// The record must exist.
    Present,
    /// The record must have one of these versions.
    Versions(Vec<String>),
}

/// The result of a write.
#[derive(Debug, Clone)]
pub struct Written {
    /// The record after the write.
    pub record: Arc<Record>,
    /// Whether the key had no record before.
    pub is_new: bool,
}

/// Why a write was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The record is invalid, or the registry is full.
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
    /// One of several records is invalid.
    #[error("record {index}: {cause}")]
    InvalidAt {
        /// Its index, from 0.
        index: usize,
        /// What is wrong with it.
        cause: InvalidRecord,
    },
    /// The key has no record.
    #[error("there is no record of this key, or it has expired")]
    Unknown,
    /// The record's version, existence or absence contradicts the condition.
    #[error("the record does not match `If-Match` or `If-None-Match`: read it again, and decide anew")]
    Changed {
        /// Its current version.
        version: Option<Version>,
    },
    /// As many changes wait for the log as may.
    #[error("{waiting} records, the most permitted, wait to be written to the log; try again in a moment")]
    Behind {
        /// How many wait.
        waiting: usize,
    },
    /// What others wrote is not known here, and this request must not be decided without it.
    #[error(
        "what other gateways wrote meanwhile is not known here, so all records cannot be replaced or removed at \
         once: change single ones, or try again when `GET /api/registry` says `healthy`"
    )]
    OthersUnknown,
}

impl Registry {
    pub(crate) fn new(parts: RegistryParts) -> Self {
        let books = RegistryKind::ALL.map(|kind| {
            Arc::new(Book {
                core: RwLock::new(Core::new(kind, short_of(parts.node), parts.config.ttl(kind))),
                written: Notify::new(),
                awaited: Notify::new(),
                appended: Notify::new(),
                compare_due: Notify::new(),
                changed: Notify::new(),
                stats: RegistryStats::default(),
                is_compared: AtomicBool::new(false),
            })
        });
        Self(Arc::new(Inner { parts, books, bindings: Bindings::default() }))
    }

    pub(super) fn book(&self, kind: RegistryKind) -> &Arc<Book> {
        &self.0.books[kind as usize]
    }

    /// The settings.
    pub fn config(&self) -> &RegistryConfig {
        &self.0.parts.config
    }

    // Reading

    /// The record of a key.
    pub fn get(&self, kind: RegistryKind, key: &str) -> Option<Arc<Record>> {
        self.book(kind).core.read().table.get(key).cloned()
    }

    /// The part of the list that a query asks for.
    ///
    /// # Errors
    /// `after` is not a cursor of a list with the same order.
    pub fn list(&self, kind: RegistryKind, query: &Query) -> Result<Listing, InvalidRecord> {
        if !query.is_readable() {
            let detail = "`after` must be `next` of a list with the same `sort`";
            return Err(invalid(ProblemCode::InvalidQuery, detail));
        }
        Ok(query.of(&self.book(kind).core.read().table))
    }

    /// Whether there are no records.
    pub fn is_empty(&self, kind: RegistryKind) -> bool {
        self.book(kind).core.read().table.len() == 0
    }

    /// `Healthy` if everything that others wrote is known here: not while Redis is away, nor after that until
    /// memory has been compared with the log.
    pub fn state(&self, kind: RegistryKind) -> BackendState {
        if self.0.parts.channels.is_degraded(&kind.channel()) {
            BackendState::Degraded
        } else if self.book(kind).is_compared.load(Ordering::Acquire) {
            BackendState::Healthy
        } else {
            BackendState::Recovering
        }
    }

    // Writing

    /// Replaces the record of a key, or creates it. The key may come from the address.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn put(
        &self,
        kind: RegistryKind,
        named: Option<&str>,
        json: &str,
        condition: &Condition,
    ) -> Result<Written, RegistryError> {
        let body = self.body(kind, named, json)?;
        let (book, now) = (self.book(kind), Instant::now());
        let mut core = book.core.write();
        let held = core.table.get(&body.key).cloned();
        check(condition, held.as_deref())?;
        self.check_room(&core, usize::from(held.is_none()))?;
        let bound_to = held.as_ref().and_then(|held| held.bound_to);
        let record = core.write(body, bound_to, wall_ms(), now);
        drop(core);
        book.stats.written.add(1);
        book.notify_changed(true);
        Ok(Written { record, is_new: held.is_none() })
    }

    /// Changes a record by a merge patch (RFC 7396).
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn patch(
        &self,
        kind: RegistryKind,
        key: &str,
        patch: &str,
        condition: &Condition,
    ) -> Result<Written, RegistryError> {
        self.change(kind, key, condition, |held| {
            let body = Body::patched(kind, held, patch, self.config().record_bytes_max)?;
            Ok((seen(kind, body, patch), held.bound_to))
        })
    }

    /// Renews a record: its time to live starts again.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn renew(&self, kind: RegistryKind, key: &str) -> Result<Written, RegistryError> {
        self.change(kind, key, &Condition::None, |held| {
            let body = Body { key: Arc::clone(&held.key), json: held.json.clone() };
            Ok((seen(kind, body, "{}"), held.bound_to))
        })
    }

    /// Writes the body that `make` returns for the current record.
    pub(super) fn change(
        &self,
        kind: RegistryKind,
        key: &str,
        condition: &Condition,
        make: impl FnOnce(&Record) -> Result<(Body, Option<u64>), RegistryError>,
    ) -> Result<Written, RegistryError> {
        let (book, now) = (self.book(kind), Instant::now());
        let mut core = book.core.write();
        let held = core.table.get(key).cloned();
        check(condition, held.as_deref())?;
        let held = held.ok_or(RegistryError::Unknown)?;
        self.check_room(&core, 0)?;
        let (body, bound_to) = make(&held)?;
        let record = core.write(body, bound_to, wall_ms(), now);
        drop(core);
        book.stats.written.add(1);
        book.notify_changed(true);
        Ok(Written { record, is_new: false })
    }

    /// Removes a record.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn remove(
        &self,
        kind: RegistryKind,
        key: &str,
        condition: &Condition,
    ) -> Result<Arc<Record>, RegistryError> {
        let (book, now) = (self.book(kind), Instant::now());
        let mut core = book.core.write();
        check(condition, core.table.get(key).map(|held| &**held))?;
        self.check_room(&core, 0)?;
        let removed = core.remove(key, wall_ms(), now).ok_or(RegistryError::Unknown)?;
        drop(core);
        book.stats.removed.add(1);
        book.notify_changed(true);
        Ok(removed)
    }

    /// Replaces all records by these, or removes all if there are none.
    ///
    /// # Errors
    /// See [`RegistryError`]. In that case nothing has changed.
    pub fn set_all(&self, kind: RegistryKind, records: &[&str]) -> Result<RecordsSet, RegistryError> {
        let mut bodies = Vec::with_capacity(records.len());
        let mut keys = std::collections::HashSet::with_capacity(records.len());
        for (index, json) in records.iter().enumerate() {
            let at = |cause| RegistryError::InvalidAt { index, cause };
            let body = self.body(kind, None, json).map_err(at)?;
            if !keys.insert(Arc::clone(&body.key)) {
                let detail = format!("there are two records with this `{}`", kind.id_field());
                return Err(at(invalid(ProblemCode::InvalidRecord, detail)));
            }
            bodies.push(body);
        }
        if self.state(kind) != BackendState::Healthy {
            return Err(RegistryError::OthersUnknown);
        }
        let max = self.config().records_max;
        if bodies.len() > max {
            return Err(too_many(max).into());
        }
        let (book, now) = (self.book(kind), Instant::now());
        let mut core = book.core.write();
        let before = core.table.len();
        let others: Vec<Arc<str>> = core.table.records().map(|record| Arc::clone(&record.key)).collect();
        let others: Vec<Arc<str>> = others.into_iter().filter(|key| !keys.contains(key)).collect();
        let waiting = core.behind();
        if waiting + bodies.len() + others.len() > max * WAITING_PER_RECORD {
            return Err(RegistryError::Behind { waiting });
        }
        for key in &others {
            core.remove(key, wall_ms(), now);
        }
        let count = bodies.len();
        for body in bodies {
            let bound_to = core.table.get(&body.key).and_then(|held| held.bound_to);
            core.write(body, bound_to, wall_ms(), now);
        }
        drop(core);
        book.stats.written.add(count as u64);
        book.stats.removed.add(others.len() as u64);
        book.notify_changed(true);
        Ok(RecordsSet { records: count, before })
    }

    /// Applies an update of an order that is executed here: the order is active until its last update.
    pub(crate) fn follow_order(&self, order: OrderId, update: &DraftEntry) {
        let kind = RegistryKind::ActiveOrders;
        let key = order.to_string();
        if update.kind.is_terminal() {
            let _none = self.remove(kind, &key, &Condition::None);
            return;
        }
        let state = format!("\"{}\"", update.kind.as_str());
        let held = self.get(kind, &key);
        let text = held.as_ref().map_or("{}", |held| held.text());
        let followed =
            Body::read(kind, text, Some(&key), usize::MAX).map_err(RegistryError::from).and_then(|body| {
                let body = body.with("state", &state).with("updatedAt", &time_json(update.time));
                let json = std::str::from_utf8(&body.json).unwrap_or("{}");
                self.put(kind, Some(&key), json, &Condition::None)
            });
        if followed.is_err() {
            self.book(kind).stats.orders_left_out.add(1);
        }
    }

    fn body(&self, kind: RegistryKind, named: Option<&str>, json: &str) -> Result<Body, InvalidRecord> {
        Ok(seen(kind, Body::read(kind, json, named, self.config().record_bytes_max)?, json))
    }

    fn check_room(&self, core: &Core, more: usize) -> Result<(), RegistryError> {
        let max = self.config().records_max;
        if core.table.len() + more > max && more > 0 {
            return Err(too_many(max).into());
        }
        let waiting = core.behind();
        if waiting >= max * WAITING_PER_RECORD {
            return Err(RegistryError::Behind { waiting });
        }
        Ok(())
    }

    // Reporting

    /// The state and the counters of a registry.
    pub fn view(&self, kind: RegistryKind) -> RegistryView {
        let book = self.book(kind);
        let core = book.core.read();
        let behind_for = core.behind_since().map(|since| since.elapsed());
        RegistryView {
            state: self.state(kind).as_str().to_owned(),
            records: core.table.len(),
            removals: core.table.removals(),
            waiting: core.behind(),
            waiting_for_ms: behind_for.map(|waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)),
            is_lagging: behind_for.is_some_and(|waited| waited >= LAGS_AFTER),
            counts: RegistryCounts { superseded: core.superseded, ..book.stats.read() },
        }
    }
}

/// Writing a provider sets its `lastSeen`, unless the writer states one.
fn seen(kind: RegistryKind, body: Body, written: &str) -> Body {
    match kind.seen_field() {
        Some(field) if !Body::has(written, field) => body.with(field, &time_json(Utc::now())),
        _ => body,
    }
}

fn too_many(max: usize) -> InvalidRecord {
    let detail = format!("the registry has {max} records, as many as it may (registry.records_max)");
    invalid(ProblemCode::TooManyRecords, detail)
}

fn check(condition: &Condition, held: Option<&Record>) -> Result<(), RegistryError> {
    let holds = match condition {
        Condition::None => true,
        Condition::Absent => held.is_none(),
        Condition::Present => held.is_some(),
        Condition::Versions(versions) => {
            held.is_some_and(|held| versions.contains(&held.version.to_string()))
        }
    };
    if holds { Ok(()) } else { Err(RegistryError::Changed { version: held.map(|held| held.version) }) }
}

/// This node's wall clock.
pub(super) fn wall_ms() -> u64 {
    u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default()
}
