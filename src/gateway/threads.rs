//! The threads that serve connections.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::access::Gate;
use crate::channels::Channels;
use crate::connections::ShardSeed;
use crate::http::{self, AcceptParts, Door};
use crate::storage::StatusReader;
use crate::support::panics::Vital;

/// A thread that serves connections.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) handle: thread::JoinHandle<()>,
    /// Dropped when it ends.
    pub(super) done: oneshot::Receiver<()>,
}

/// What each serving thread gets.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) door: Door,
    pub(super) parts: Arc<AcceptParts>,
    pub(super) channels: Channels,
    pub(super) status: StatusReader,
    pub(super) gate: Arc<Gate>,
    pub(super) vital: Vital,
    pub(super) cut: CancellationToken,
}

impl Serving {
    /// A thread with a runtime of its own that accepts connections and runs their shard.
    pub(super) fn start(
        self,
        index: usize,
        seed: ShardSeed,
        listener: std::net::TcpListener,
    ) -> io::Result<Thread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ended, done) = oneshot::channel();
        let handle = thread::Builder::new().name(format!("zonewire-{index}")).spawn(move || {
            // Dropped when this thread ends, however it does.
            let _ended = ended;
            let connections = LocalSet::new();
            let serving = connections.run_until(async {
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return error!(error = %error, "cannot listen on a thread"),
                };
                let shard = seed.run(self.channels, self.status, self.gate, &self.vital, self.cut.clone());
                let accepting = http::serve(listener, index, self.door, self.parts);
                let accepting = self.cut.run_until_cancelled_owned(accepting);
                tokio::join!(shard, accepting);
            });
            runtime.block_on(serving);
        })?;
        Ok(Thread { handle, done })
    }
}
