//! Runs a gateway, and stops its parts one after the other.

use std::time::Duration;

use tokio::time::{self, Instant};
use tracing::{error, info, warn};
use zonewire_protocol::stats::OutageView;

use super::threads::Thread;
use super::{Gateway, RunError};
use crate::model::BackendName;

/// After the drain window and the clients' time to answer, what is left is cut after this.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// Between looks whether a thread has ended.
const THREAD_POLL: Duration = Duration::from_millis(5);

/// How long a worker may take to finish its orders or to give them back, counted from the end of the
/// drain.
const WORK_WITHIN: Duration = Duration::from_secs(8);

/// How long appends under way, and what waits for Redis while it serves, may take at shutdown.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// The drain of a gateway that a part has failed is no longer than this.
const FAILED_DRAIN: Duration = Duration::from_secs(2);

impl Gateway {
    /// Runs until `shutdown` is ready; then says that it is not ready any more, stops accepting, tells each
    /// client `closing`, closes over the drain window, and flushes what was accepted.
    ///
    /// # Errors
    /// See [`RunError`]: a gateway without one of its parts ends by itself, in the same way but sooner;
    /// and what was accepted may be lost with it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut failed = self.failed_before(shutdown).await;
        self.stops.leaving.cancel();
        if failed.is_none() && !self.drain_lead.is_zero() {
            info!(drain_lead_s = self.drain_lead.as_secs(), "not ready any more, and still accepting");
            failed = self.failed_before(time::sleep(self.drain_lead)).await;
        }
        let drain_window = match failed {
            Some(part) => {
                error!(part, "stopping, because this part has ended");
                self.drain_window.min(FAILED_DRAIN)
            }
            None => {
                info!(connections = self.manager.totals().connections.open, "stopping");
                self.drain_window
            }
        };
        let drained_by = self.drain(drain_window).await;
        self.give_back_work().await;
        self.flush(drained_by).await;
        let lost = self.say_what_is_left();
        self.memory.close().await;
        drop(self.storage);
        join(self.threads).await;
        info!("stopped");
        match (failed, lost) {
            (Some(part), _) => Err(RunError::Failed { part }),
            (None, Some(lost)) => Err(lost),
            (None, None) => Ok(()),
        }
    }

    /// Stops accepting, closes all connections, and cuts those that do not close in time. Says until when they
    /// had time.
    async fn drain(&mut self, window: Duration) -> Instant {
        self.stops.stopping.cancel();
        self.stops.accepting.cancel();
        self.manager.drain(window).await;
        let deadline = Instant::now() + window + self.close_grace + DRAIN_GRACE;
        let mut cut = false;
        for thread in &mut self.threads {
            // One that has ended already was taken note of above.
            if !thread.handle.is_finished() && time::timeout_at(deadline, &mut thread.done).await.is_err() {
                cut = true;
            }
        }
        if cut {
            warn!(
                connections = self.manager.totals().connections.open,
                "cutting connections that did not close in time"
            );
        }
        self.stops.cut.cancel();
        deadline
    }

    /// Waits for the orders under way, and for what workers outside claim and report.
    async fn give_back_work(&self) {
        self.work.close();
        let worked = async {
            tokio::join!(self.work.wait(), self.orders.settled());
            // What these wrote too.
            self.registry.flushed().await;
        };
        if time::timeout(WORK_WITHIN, worked).await.is_err() {
            error!(
                "orders under way could not be given back, or records not be written, in time; leases run out instead"
            );
        }
    }

    /// Waits until what was accepted is in the log, or in what the storage keeps for it.
    async fn flush(&self, drained_by: Instant) {
        self.stops.channels.cancel();
        self.tracker.close();
        let flushed_by = Instant::now() + FLUSH_WITHIN;
        if time::timeout_at(flushed_by, self.tracker.wait()).await.is_err() {
            error!(tasks = self.tracker.len(), "accepted entries could not be flushed in time");
        }
        // Redis may come back within the drain; what is left then is said.
        let _in_time = time::timeout_at(drained_by.max(flushed_by), self.outage.until_sent()).await;
    }

    /// Waits until something happens, or a part of the gateway fails; says which one did.
    async fn failed_before(&mut self, happens: impl Future<Output = ()>) -> Option<&'static str> {
        let threads = self.threads.iter_mut().map(|thread| Box::pin(&mut thread.done));
        let any_ended = futures_util::future::select_all(threads);
        tokio::select! {
            () = happens => None,
            part = self.vital.failed() => Some(part),
            _ = any_ended => Some("thread of connections"),
        }
    }

    /// Says what was accepted and the log does not have, at the end; and what of it is lost.
    fn say_what_is_left(&self) -> Option<RunError> {
        let OutageView { journal_entries, journal_in_memory_only: entries, jobs_waiting, .. } =
            self.outage.view();
        let is_served = self.status.get().backend == BackendName::Redis;
        let why = if is_served { "Redis did not take them in time" } else { "Redis is away" };
        let on_disk = journal_entries - entries;
        if on_disk > 0 {
            info!(
                entries = on_disk,
                why, "accepted entries wait in the spool; they are sent after the next start"
            );
        }
        if entries > 0 {
            error!(entries, why, "accepted entries are lost: they are not in a spool");
        }
        // Where no Redis is configured, orders end with their gateway by design.
        let orders = if self.redis_configured { jobs_waiting } else { 0 };
        if orders > 0 {
            error!(orders, why, "accepted orders are lost: nobody else knows them");
        }
        (entries > 0 || orders > 0).then_some(RunError::Lost { entries, orders })
    }
}

/// Waits for the threads, which have nothing left to do.
async fn join(threads: Vec<Thread>) {
    let deadline = Instant::now() + DRAIN_GRACE;
    for thread in threads {
        while !thread.handle.is_finished() && Instant::now() < deadline {
            time::sleep(THREAD_POLL).await;
        }
        // A thread that does not end must not keep the process from it.
        if !thread.handle.is_finished() {
            error!("a thread that serves connections does not end; leaving it behind");
        } else if thread.handle.join().is_err() {
            error!("a thread that serves connections panicked");
        }
    }
}
