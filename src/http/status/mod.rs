//! What the gateway tells of itself: health, stats, metrics. All of it is asked of the same sources, so that
//! they never say different things.

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
use super::prices::IntakeStats;
use super::refusals::Refusals;
use super::room::BodyRoom;
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

/// What is asked.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) node: NodeId,
    pub(crate) started: Instant,
    pub(crate) manager: Manager,
    /// Of all but the threads that serve.
    pub(crate) runtime: Handle,
    pub(crate) channels: Channels,
    pub(crate) orders: Orders,
    pub(crate) registry: Registry,
    pub(crate) fleet: Fleet,
    pub(crate) storage: StatusReader,
    pub(crate) memory: MemoryBackend,
    pub(crate) outage: OutageReader,
    /// Whether a Redis is named in the configuration.
    pub(crate) redis_configured: bool,
    pub(crate) accepts: Arc<AcceptStats>,
    pub(crate) intake: Arc<IntakeStats>,
    pub(crate) bodies: BodyRoom,
    /// The room of answers that their clients have not taken yet.
    pub(crate) answers: Arc<BodyRoom>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) interop: Arc<InteropStats>,
    /// By name.
    pub(crate) feeds: BTreeMap<String, Arc<FeedCounters>>,
    pub(crate) bridge: Bridge,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// It is about to stop, or stops: who asks whether it is ready is told no.
    pub(crate) leaving: CancellationToken,
}
