//! Orders whose updates come from outside workers, and outside consumers that wait for our updates.
//!
//! Those workers know nothing of our logs: they push each update to a list and publish it. For every order
//! that is watched on this node, `reader` follows both, `merge` makes one sequence of the two, and each
//! update is appended to the order's log; from then on it is an entry like any other, with an offset, on
//! every node. All nodes that watch an order try to append: an update's producer is the hash of its bytes, so
//! the log takes it once. In the other direction, `mirror` writes what this node accepted to the place where
//! outside consumers look for it.

mod config;
mod merge;
mod mirror;
#[cfg(any(test, feature = "probes"))]
pub(super) mod probes;
mod read;
mod reader;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use config::InteropConfig;
pub use mirror::OrderMirror;

use zonewire_protocol::stats::InteropCounts;

use crate::channels::WatchedOrders;
use crate::model::NodeId;
use crate::storage::{Outside, SharedBackend};
use crate::support::counter::Counter;
use mirror::MirrorWriter;
use reader::Reader;

/// The counters of the exchange.
pub(crate) type InteropStats = InteropCounts<Counter>;

/// What the exchange with outside workers needs to start.
#[derive(Debug)]
pub(crate) struct InteropParts {
    pub(crate) config: InteropConfig,
    pub(crate) backend: SharedBackend,
    pub(crate) node: NodeId,
    pub(crate) watched: Arc<WatchedOrders>,
    /// The largest update that is taken.
    pub(crate) update_bytes_max: usize,
    /// Ends the exchange once what waits has been appended and written, or after some seconds if it cannot
    /// be.
    pub(crate) stop: CancellationToken,
}

/// The exchange with outside workers.
pub(crate) struct Interop {
    /// Is told of the updates that this node has appended.
    pub(crate) mirror: OrderMirror,
    pub(crate) stats: Arc<InteropStats>,
    /// The tasks to run; `None` if the exchange is off.
    pub(crate) work: Option<InteropWork>,
}

/// The tasks to run.
pub(crate) struct InteropWork {
    /// Keeps the connection. Must outlive `exchange`; does not end by itself.
    pub(crate) driver: BoxFuture<'static, ()>,
    /// Ends some time after `stop`.
    pub(crate) exchange: BoxFuture<'static, ()>,
}

impl fmt::Debug for Interop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interop").field("works", &self.work.is_some()).finish_non_exhaustive()
    }
}

impl Interop {
    /// Does not connect yet; `work` does.
    pub(crate) fn new(parts: InteropParts) -> Self {
        let InteropParts { config, backend, node, watched, update_bytes_max, stop } = parts;
        let stats = Arc::<InteropStats>::default();
        let off = |stats| Self { mirror: OrderMirror::off(), stats, work: None };
        if !config.order_channels {
            return off(stats);
        }
        let Some(Outside { role: outside, driver }) = backend.outside_orders() else {
            warn!(
                storage = backend.name().as_str(),
                "interop.order_channels has no effect: outside workers are reached through Redis, \
                 which does not serve"
            );
            return off(stats);
        };
        let Some(incoming) = outside.take_incoming() else {
            warn!("interop.order_channels has no effect: somebody else follows the outside workers");
            return off(stats);
        };
        info!("exchanging updates of orders with outside workers");
        watched.begin();
        let (mirror, writer) =
            MirrorWriter::new(Arc::clone(&outside), Arc::clone(&backend), node, Arc::clone(&stats));
        let reader = Reader::new(outside, backend, Arc::clone(&stats), update_bytes_max);
        let exchange = async move {
            tokio::join!(reader.run(incoming, watched, stop.clone()), writer.run(stop));
        };
        Self { mirror, stats, work: Some(InteropWork { driver, exchange: Box::pin(exchange) }) }
    }
}
