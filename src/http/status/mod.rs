//! What the gateway reports about itself: health, stats, metrics. All of it comes from the same sources, so
//! they never disagree.

mod health;
mod metrics;
mod stats;

pub(crate) use metrics::metrics_of;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accept::AcceptStats;
use super::body_budget::BodyBudget;
use super::prices::IntakeStats;
use super::refusals::Refusals;
use super::tls::Tls;
use crate::access::Gate;
use crate::bridge::Bridge;
use crate::channels::Channels;
use crate::connections::Manager;
use crate::feeds::FeedCounters;
use crate::fleet::Fleet;
use crate::model::NodeId;
use crate::orders::{InteropStats, Orders};
use crate::registry::Registry;
use crate::storage::{MemoryBackend, OutageReader, StatusReader};

/// The sources of what is reported.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) node: NodeId,
    pub(crate) started: Instant,
    pub(crate) manager: Manager,
    /// The runtime of everything except the serving threads.
    pub(crate) runtime: Handle,
    pub(crate) channels: Channels,
    pub(crate) orders: Orders,
    pub(crate) registry: Registry,
    pub(crate) fleet: Fleet,
    pub(crate) storage: StatusReader,
    pub(crate) memory: MemoryBackend,
    pub(crate) outage: OutageReader,
    /// Whether the configuration names a Redis.
    pub(crate) redis_configured: bool,
    pub(crate) accepts: Arc<AcceptStats>,
    pub(crate) intake: Arc<IntakeStats>,
    pub(crate) bodies: Arc<BodyBudget>,
    /// The memory for answers that clients have not read yet.
    pub(crate) answers: Arc<BodyBudget>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) interop: Arc<InteropStats>,
    /// By name.
    pub(crate) feeds: BTreeMap<String, Arc<FeedCounters>>,
    pub(crate) bridge: Bridge,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// Cancelled when the node is about to stop: it is not ready from then on.
    pub(crate) leaving: CancellationToken,
}
