//! The main thread's part: it reads the counters of the loops and the publisher, and decides when a phase is
//! over.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::{bail, ensure};

use super::{
    client::{Client, Progress},
    clock::Clock,
    cpu::CpuTime,
};

/// How often it reads them.
const LOOK: Duration = Duration::from_millis(5);

/// A reading of everything that is compared between the start and the end of the window.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at_ns: u64,
    pub(super) deliveries: u64,
    pub(super) bytes: u64,
    pub(super) server: Option<CpuTime>,
    pub(super) own: CpuTime,
}

impl Reading {
    pub(super) fn take(progress: &Progress, server_pid: Option<u32>, clock: &Clock) -> anyhow::Result<Self> {
        Ok(Self {
            at_ns: clock.now_ns(),
            deliveries: progress.deliveries.load(Relaxed),
            bytes: progress.delivered_bytes.load(Relaxed),
            server: server_pid.map(CpuTime::of).transpose()?,
            own: CpuTime::own()?,
        })
    }
}

/// Returns the client once all its `subscribers` are ready, or an error that says why they are not.
pub(super) fn ready(
    client: Client,
    subscribers: usize,
    timeout_s: f64,
    clock: &Clock,
) -> anyhow::Result<Client> {
    let Err(error) = wait_until_ready(&client, subscribers, timeout_s, clock) else { return Ok(client) };
    let failures = client.finish()?.failures;
    match failures.is_empty() {
        true => Err(error),
        false => Err(error.context(format!("handshakes failed: {failures:?}"))),
    }
}

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
        if failed > 0 {
            bail!("{failed} of {subscribers} subscribers could not be opened");
        }
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

/// Waits for `total` deliveries, or until there was no new one for `patience_s`.
pub(super) fn drain(client: &Client, total: u64, patience_s: f64, clock: &Clock) -> anyhow::Result<()> {
    let mut seen = client.progress.deliveries.load(Relaxed);
    let mut since_ns = clock.now_ns();
    while seen < total {
        ensure!(!client.has_died(), "a client loop ended early");
        thread::sleep(LOOK);
        let now = client.progress.deliveries.load(Relaxed);
        if now > seen {
            (seen, since_ns) = (now, clock.now_ns());
        } else if clock.seconds_since(since_ns) >= patience_s {
            break;
        }
    }
    Ok(())
}
