//! Orders whose updates come from outside workers, and outside consumers that wait for our updates.
//!
//! Those workers know nothing of our logs: they push each update to a list and publish it. For every order
//! that is watched on this node, `reader` follows both, `merge` makes one sequence of the two, and each
//! update is appended to the order's log; from then on it is an entry like any other, with an offset, on
//! every node. All nodes that watch an order try to append: an update's producer is the hash of its bytes, so
//! the log takes it once. In the other direction, `mirror` writes what this node accepted to the place where
//! outside consumers look for it.

mod merge;
mod mirror;
pub(super) mod read;
mod reader;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use mirror::OrderMirror;

use zonewire_protocol::stats::InteropCounts;

use crate::channels::WatchedOrders;
use crate::model::NodeId;
use crate::storage::{Outside, SharedBackend};
use crate::support::counter::Counter;
use mirror::MirrorWriter;
use reader::Reader;

/// `[interop]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InteropConfig {
    /// Whether updates of orders are exchanged with workers that use the Redis list
    /// `order:<id>:updates` and the pub/sub channel `order:<id>`. Default false.
    pub order_channels: bool,
}

/// The counters of the exchange.
pub(crate) type InteropStats = InteropCounts<Counter>;

/// The tasks of the exchange.
pub(crate) struct InteropWork {
    /// Keeps the connection. Must outlive `exchange`; does not end by itself.
    pub(crate) driver: BoxFuture<'static, ()>,
    /// Ends some time after `stop`.
    pub(crate) exchange: BoxFuture<'static, ()>,
}

/// Prepares the exchange with outside workers: returns the mirror, which is notified of the updates that this node
/// has appended, the counters, and the tasks to run, which connect; `None` if the exchange is off.
///
/// Updates larger than `update_bytes_max` are not taken. `stop` ends the exchange once what waits has been appended and
/// written, or after some seconds if it cannot be.
pub(crate) fn exchange_updates(
    config: &InteropConfig,
    backend: &SharedBackend,
    node: NodeId,
    watched: &Arc<WatchedOrders>,
    update_bytes_max: usize,
    stop: CancellationToken,
) -> (OrderMirror, Arc<InteropStats>, Option<InteropWork>) {
    let stats = Arc::<InteropStats>::default();
    let off = |stats| (OrderMirror::off(), stats, None);
    if !config.order_channels {
        return off(stats);
    }
    let Some(Outside { role: outside, driver }) = backend.outside_orders() else {
        warn!(
            storage = backend.name().as_str(),
            "interop.order_channels has no effect: outside workers are reached through Redis, which does not serve"
        );
        return off(stats);
    };
    let Some(incoming) = outside.take_incoming() else {
        warn!("interop.order_channels has no effect: somebody else follows the outside workers");
        return off(stats);
    };
    info!("exchanging updates of orders with outside workers");
    watched.begin();
    let (backend, watched) = (Arc::clone(backend), Arc::clone(watched));
    let (mirror, writer) =
        MirrorWriter::new(Arc::clone(&outside), Arc::clone(&backend), node, Arc::clone(&stats));
    let reader = Reader::new(outside, backend, Arc::clone(&stats), update_bytes_max);
    let exchange = async move {
        tokio::join!(reader.run(incoming, watched, stop.clone()), writer.run(stop));
    };
    (mirror, stats, Some(InteropWork { driver, exchange: Box::pin(exchange) }))
}
