//! Connections: one shard per thread, direct writes, and a queue only for clients that lag.
//!
//! A shard and all its connections live on one thread and share no locks. Other threads reach it through
//! two bounded queues: entries from the channels, and commands from the [`Manager`].

mod behind;
mod config;
mod connection;
mod events;
mod fragments;
mod inbound;
mod intake;
mod limits;
mod manager;
mod outbox;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod publishing;
mod shard;
mod socket;
mod stats;
mod subscription;
mod tls;
mod transport;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use behind::Behind;
pub use config::ConnectionsConfig;
pub(crate) use events::{Resume, Wanted, closing as closing_events, stream as event_stream};
pub(crate) use limits::{AddressPermit, Admission, Limit, Source, TcpPlace};
pub use manager::Manager;
pub(crate) use manager::{Listing, Overview, ShardHandle};
pub(crate) use shard::{Arriving, Opening, spread_retry_ms};
pub(crate) use socket::{Kept, Look, Socket, read_first};
pub(crate) use stats::Totals;
pub(crate) use tls::Tls;
pub use zonewire_protocol::stats::{ConnectionHealth, ConnectionInfo, ConnectionStory};

use crate::access::{Gate, Principal, Seat};
use crate::channels::{CREDITS, Channels, Delivery};
use crate::storage::StatusReader;
use crate::support::panics::Vital;
use shard::{Command, Shard};
use stats::ShardStats;

/// The most messages on their way to one shard; beyond that, publishers wait. A channel has fewer credits, so
/// none can fill the queue alone.
const LIVE_QUEUE: usize = 128;
const _: () = assert!(CREDITS < LIVE_QUEUE);

/// Commands that wait for one shard.
const COMMAND_QUEUE: usize = 1_024;

/// The client of a connection.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) principal: Arc<Principal>,
    /// Counts the connection for its principal; `None` without limits.
    pub(crate) seat: Option<Seat>,
}

/// A client without limits.
impl From<Arc<Principal>> for Guest {
    fn from(principal: Arc<Principal>) -> Self {
        Self { principal, seat: None }
    }
}

/// A shard that does not run yet, to be sent to its thread.
pub(crate) struct ShardSeed {
    index: usize,
    config: ConnectionsConfig,
    live: mpsc::Receiver<Delivery>,
    commands: mpsc::Receiver<Command>,
    stats: Arc<ShardStats>,
    behind: Arc<Behind>,
}

impl ShardSeed {
    /// Runs the shard on this thread, which must be in a `LocalSet`, until it is drained or stopped.
    pub(crate) async fn run(
        self,
        channels: Channels,
        status: StatusReader,
        gate: Arc<Gate>,
        vital: &Vital,
        stop: CancellationToken,
    ) {
        let Self { index, config, live, commands, stats, behind } = self;
        let shard = Shard::new(index, config, channels, stats, status, gate, behind);
        shard.run(live, commands, vital, stop).await;
    }
}

/// The manager of `count` shards, the shards to run, and the queues into which the channels put entries.
pub(crate) fn prepare(
    count: usize,
    config: &ConnectionsConfig,
) -> (Manager, Vec<ShardSeed>, Vec<mpsc::Sender<Delivery>>) {
    let (mut handles, mut seeds, mut live_senders) = (Vec::new(), Vec::new(), Vec::new());
    let behind = Behind::new(config);
    for index in 0..count {
        let (live_sender, live) = mpsc::channel(LIVE_QUEUE);
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let stats = Arc::new(ShardStats::default());
        handles.push(ShardHandle { commands: command_sender, stats: Arc::clone(&stats) });
        let behind = Arc::clone(&behind);
        seeds.push(ShardSeed { index, config: config.clone(), live, commands, stats, behind });
        live_senders.push(live_sender);
    }
    (Manager::new(handles, config.clone(), behind), seeds, live_senders)
}
