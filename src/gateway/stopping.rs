//! Runs a gateway, and stops its parts in order.

use std::time::Duration;

use tokio::time::{self, Instant};
use tracing::{error, info, warn};
use zonewire_protocol::stats::OutageView;

use super::threads::Thread;
use super::{Gateway, RunError};
use crate::model::BackendName;

/// How long after the drain window and the close grace connections that are still open are cut.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// How often it is checked whether a thread has ended.
const THREAD_POLL: Duration = Duration::from_millis(5);

/// How long a worker may take to finish its orders or give them back, counted from the end of the drain.
const WORK_WITHIN: Duration = Duration::from_secs(8);

/// How long appends in progress may take at shutdown. What waits for Redis has the same time, or until the
/// drain ends, if that is later.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// The longest drain of a gateway in which a part has failed.
const FAILED_DRAIN: Duration = Duration::from_secs(2);

impl Gateway {
    /// Runs until `shutdown` is ready. Then it reports that it is not ready, stops accepting, sends each
    /// client `closing`, closes connections over the drain window, and flushes what was accepted.
    ///
    /// # Errors
    /// See [`RunError`]: if an essential part fails, the gateway stops by itself, in the same way but
    /// sooner; and accepted entries may be lost with it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut failed = self.failed_before(shutdown).await;
        self.stops.leaving.cancel();
        let drain_lead_s = self.config.http.drain_lead_s;
        if failed.is_none() && drain_lead_s > 0 {
            info!(drain_lead_s, "no longer ready, but still accepting");
            failed = self.failed_before(time::sleep(Duration::from_secs(drain_lead_s))).await;
        }
        let drain_window = Duration::from_secs(self.config.http.drain_s);
        let drain_window = match failed {
            Some(part) => {
                error!(part, "stopping because this part has ended");
                drain_window.min(FAILED_DRAIN)
            }
            None => {
                info!(connections = self.manager.totals().connections.open, "stopping");
                drain_window
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

    /// Stops accepting, closes all connections, and cuts those that do not close in time. Returns the
    /// deadline that they had.
    async fn drain(&mut self, window: Duration) -> Instant {
        self.stops.stopping.cancel();
        self.stops.accepting.cancel();
        self.manager.drain(window).await;
        let close_grace = Duration::from_millis(self.config.connections.close_grace_ms);
        let deadline = Instant::now() + window + close_grace + DRAIN_GRACE;
        let mut cut = false;
        for thread in &mut self.threads {
            // `failed_before` may have received from a thread that has ended; receiving again would panic.
            if !thread.done.is_terminated() && time::timeout_at(deadline, &mut thread.done).await.is_err() {
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

    /// Waits for orders in progress, and for claims and reports of outside workers.
    async fn give_back_work(&self) {
        self.work.close();
        let worked = async {
            tokio::join!(self.work.wait(), self.orders.settled());
            // Only now, to include the records that the worker and the reports wrote.
            self.registry.flushed().await;
        };
        if time::timeout(WORK_WITHIN, worked).await.is_err() {
            error!(
                "orders in progress could not be given back, or records not be written, in time; their leases will expire instead"
            );
        }
    }

    /// Waits until the log, or the spool, has everything that was accepted.
    async fn flush(&self, drained_by: Instant) {
        self.stops.channels.cancel();
        self.tracker.close();
        let flushed_by = Instant::now() + FLUSH_WITHIN;
        if time::timeout_at(flushed_by, self.tracker.wait()).await.is_err() {
            error!(tasks = self.tracker.len(), "accepted entries could not be flushed in time");
        }
        // Redis may come back within the drain; what is left after that is reported.
        let _in_time = time::timeout_at(drained_by.max(flushed_by), self.outage.until_sent()).await;
    }

    /// Waits until something happens, or a part of the gateway fails; returns the failed part.
    async fn failed_before(&mut self, happens: impl Future<Output = ()>) -> Option<&'static str> {
        let threads = self.threads.iter_mut().map(|thread| Box::pin(&mut thread.done));
        let any_ended = futures_util::future::select_all(threads);
        tokio::select! {
            () = happens => None,
            part = self.vital.failed() => Some(part),
            _ = any_ended => Some("thread of connections"),
        }
    }

    /// Reports what was accepted and is not in the log at the end, and which of it is lost.
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
        // If no Redis is configured, orders end with their gateway by design.
        let orders = if self.config.storage.redis.is_configured() { jobs_waiting } else { 0 };
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
        // A thread that does not end must not keep the process from ending.
        if !thread.handle.is_finished() {
            error!("a thread that serves connections does not end; leaving it behind");
        } else if thread.handle.join().is_err() {
            error!("a thread that serves connections panicked");
        }
    }
}
