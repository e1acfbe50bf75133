//! The main thread's part: it reads the counters of the loops and the publisher, and decides when a phase is
//! over.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::ensure;

use super::{
    client::{Client, ClientPlan, Seat, Tally},
    clock::{Clock, seconds},
    common::WaitArgs,
    cpu::{CpuTime, rss_bytes},
    report::{Delivered, Percentiles, ServerCpu, ServerMemory},
};

/// How often it reads them.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// A reading of everything that is compared between the start and the end of the window.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at_ns: u64,
    pub(super) deliveries: u64,
    pub(super) bytes: u64,
    pub(super) server: Option<CpuTime>,
    pub(super) own: CpuTime,
}

/// The subscribers of a run, all of them open and ready.
#[derive(Debug)]
pub(super) struct Subscribers {
    pub(super) client: Client,
    clock: Clock,
    server_pid: Option<u32>,
    count: usize,
    open_s: f64,
    memory: ServerMemory,
}

impl Subscribers {
    /// Opens all of them, and lets the server settle.
    pub(super) fn open(
        seats: Vec<Seat>,
        plan: &ClientPlan,
        threads: usize,
        waits: &WaitArgs,
        server_pid: Option<u32>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let (count, rss_before_bytes) = (seats.len(), server_pid.map(rss_bytes).transpose()?);
        let client = Client::start(seats, plan, threads, clock)?;
        if let Err(error) = wait_until_ready(&client, count, waits.open_timeout, &clock) {
            let failures = client.finish()?.failures;
            return Err(match failures.is_empty() {
                true => error,
                false => error.context(format!("handshakes failed: {failures:?}")),
            });
        }
        let open_s = clock.seconds_since(plan.started_ns);
        thread::sleep(Duration::from_secs_f64(waits.settle));
        let rss_open_bytes = server_pid.map(rss_bytes).transpose()?;
        let memory = ServerMemory { rss_before_bytes, rss_open_bytes, ..ServerMemory::default() };
        Ok(Self { client, clock, server_pid, count, open_s, memory })
    }

    pub(super) fn reading(&self) -> anyhow::Result<Reading> {
        let progress = &self.client.progress;
        Ok(Reading {
            at_ns: self.clock.now_ns(),
            deliveries: progress.deliveries.load(Relaxed),
            bytes: progress.delivered_bytes.load(Relaxed),
            server: self.server_pid.map(CpuTime::of).transpose()?,
            own: CpuTime::own()?,
        })
    }

    /// Waits for `total` deliveries, or until there was no new one for `patience_s`.
    pub(super) fn drain(&self, total: u64, patience_s: f64) -> anyhow::Result<()> {
        let deliveries = || self.client.progress.deliveries.load(Relaxed);
        let (mut seen, mut since_ns) = (deliveries(), self.clock.now_ns());
        while seen < total {
            ensure!(!self.client.has_died(), "a client loop ended early");
            thread::sleep(LOOK);
            if deliveries() > seen {
                (seen, since_ns) = (deliveries(), self.clock.now_ns());
            } else if self.clock.seconds_since(since_ns) >= patience_s {
                break;
            }
        }
        Ok(())
    }

    /// Ends them all. The window began with the reading `start`; `published` has the number of messages of
    /// each channel, and `expected` that of all deliveries.
    pub(super) fn finish(
        self,
        start: &Reading,
        published: Option<&[u64]>,
        expected: Option<u64>,
    ) -> anyhow::Result<(Delivered, Tally)> {
        let end = self.reading()?;
        let rss_end_bytes = self.server_pid.map(rss_bytes).transpose()?;
        let last_ns = self.client.progress.last_delivery_ns.load(Relaxed);
        let tally = self.client.finish()?;
        let deliveries = end.deliveries - start.deliveries;
        let window_s = seconds(last_ns.max(start.at_ns) - start.at_ns);
        // The readings enclose the window, so they include all CPU time spent on it.
        let read_s = seconds(end.at_ns - start.at_ns);
        let cpu = start.server.zip(end.server).map(|(start, end)| end.since(start));
        let delivered = Delivered {
            open_s: self.open_s,
            window_s,
            deliveries,
            deliveries_per_s: if window_s > 0.0 { deliveries as f64 / window_s } else { 0.0 },
            frame_bytes: if deliveries > 0 {
                (end.bytes - start.bytes) as f64 / deliveries as f64
            } else {
                0.0
            },
            sequences: tally.sequences(published),
            expected,
            stale: tally.stale,
            other_frames: tally.other_frames,
            pings: tally.pings,
            broken_frames: tally.broken_frames,
            closed_by_code: tally.closed_by_code.clone(),
            latency_us: Percentiles::of(&tally.latency_ns),
            server: cpu.map(|cpu| ServerCpu::of(cpu, window_s, deliveries)).unwrap_or_default(),
            memory: ServerMemory { rss_end_bytes, ..self.memory }.per_connection(self.count as u64),
            client_busy_ratio: end.own.since(start.own).total_s() / read_s.max(1e-9),
        };
        Ok((delivered, tally))
    }
}

/// Waits until all subscribers are ready.
fn wait_until_ready(
    client: &Client,
    subscribers: usize,
    timeout_s: f64,
    clock: &Clock,
) -> anyhow::Result<()> {
    let began_ns = clock.now_ns();
    loop {
        let ready = client.progress.ready.load(Relaxed);
        let failed = client.progress.failed.load(Relaxed);
        ensure!(failed == 0, "{failed} of {subscribers} subscribers could not be opened");
        if ready >= subscribers {
            return Ok(());
        }
        ensure!(!client.has_died(), "a client loop ended early");
        ensure!(
            clock.seconds_since(began_ns) < timeout_s,
            "{ready} of {subscribers} subscribers were ready after {timeout_s} s"
        );
        thread::sleep(LOOK);
    }
}
