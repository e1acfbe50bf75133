//! The threads that serve connections.

use std::io;
use std::sync::Arc;
use std::thread;

use futures_util::future::join_all;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::connections::ShardSeed;
use crate::http::{self, AcceptParts, App, Door, Entrance, Listener};
use crate::support::panics::Vital;

/// A thread that serves connections.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) handle: thread::JoinHandle<()>,
    /// Completes when the thread ends, because that drops the sender.
    pub(super) done: oneshot::Receiver<()>,
}

/// What each serving thread needs.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) door: Door,
    pub(super) parts: Arc<AcceptParts>,
    pub(super) app: Arc<App>,
    pub(super) vital: Vital,
    pub(super) cut: CancellationToken,
}

/// A listener of a thread, not yet registered with the thread's runtime.
#[derive(Debug)]
pub(super) enum Listening {
    Address(std::net::TcpListener),
    File(std::os::unix::net::UnixListener),
}

impl Listening {
    /// Must be called in the thread's runtime.
    fn listener(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Address(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Self::File(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

impl Serving {
    /// Starts a thread with its own runtime that accepts connections and runs their shard.
    pub(super) fn start(
        self,
        index: usize,
        seed: ShardSeed,
        listening: Vec<(Entrance, Listening)>,
    ) -> io::Result<Thread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ended, done) = oneshot::channel();
        let handle = thread::Builder::new().name(format!("zonewire-{index}")).spawn(move || {
            // Dropped however this thread ends.
            let _ended = ended;
            let connections = LocalSet::new();
            let serving = connections.run_until(async {
                let listeners = listening.into_iter().map(|(entrance, on)| Ok((entrance, on.listener()?)));
                let listeners: Vec<_> = match listeners.collect::<io::Result<_>>() {
                    Ok(listeners) => listeners,
                    Err(error) => return error!(error = %error, "cannot listen on a thread"),
                };
                let (channels, gate) = (self.app.channels.clone(), Arc::clone(&self.app.gate));
                let status = self.app.sources.storage.clone();
                let shard = seed.run(channels, status, gate, &self.vital, self.cut.clone());
                let accepting = listeners.into_iter().map(|(entrance, listener)| {
                    http::serve(listener, entrance, index, self.door.clone(), Arc::clone(&self.parts))
                });
                let accepting = self.cut.run_until_cancelled_owned(join_all(accepting));
                tokio::join!(shard, accepting);
            });
            runtime.block_on(serving);
        })?;
        Ok(Thread { handle, done })
    }
}
