//! Decides which of several relays with the same source and target carries a type: the one with the lease,
//! which is stored in the target's Redis. This saves work, and avoids duplicates of live events that have no
//! numbers. No log depends on it: a log takes each entry once in any case.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tracing::{debug, info};

use super::Shared;
use crate::model::EventType;
use crate::storage::{Records as _, Result as StorageResult};

/// How long a lease lasts, and how often a relay renews it or tries to get it: another relay takes over
/// within the sum of the two.
const LEASE_FOR: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How long releasing the leases may take at the end.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The state of a lease.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    /// Until when this process holds it.
    until: Option<Instant>,
    /// Whether another relay holds it.
    pub(super) is_anothers: bool,
}

impl Held {
    /// Whether this process carries the type now.
    pub(super) fn is_ours(&self) -> bool {
        self.until.is_some_and(|until| until > Instant::now())
    }
}

/// The state of the leases, by type. Watchers are notified of each attempt to renew.
#[derive(Debug, Default)]
pub(super) struct Leases(watch::Sender<[Held; EventType::ALL.len()]>);

impl Leases {
    pub(super) fn of(&self, event: EventType) -> Held {
        self.0.borrow()[event as usize]
    }

    pub(super) fn watch(&self) -> watch::Receiver<[Held; EventType::ALL.len()]> {
        self.0.subscribe()
    }

    /// Waits until this process is to carry a type, or no longer is.
    pub(super) async fn until(&self, event: EventType, is_ours: bool) {
        // The channel cannot close: `self` has its sender.
        let mut watched = self.watch();
        drop(watched.wait_for(|held| held[event as usize].is_ours() == is_ours).await);
    }

    fn note(&self, event: EventType, begun: Instant, answer: &StorageResult<Option<u64>>) {
        let (was, mut held) = (self.of(event), self.of(event));
        match answer {
            Ok(Some(_fence)) => held = Held { until: Some(begun + LEASE_FOR), is_anothers: false },
            Ok(None) => held = Held { until: None, is_anothers: true },
            // A lease that was granted is valid until it expires; whether another relay holds it is unknown.
            Err(_) => held.is_anothers = false,
        }
        let has_changed = (was.is_ours(), was.is_anothers) != (held.is_ours(), held.is_anothers);
        self.0.send_modify(|all| all[event as usize] = held);
        match (has_changed, held.is_ours(), held.is_anothers) {
            (true, true, _) => info!(event = event.as_str(), "carrying"),
            (true, _, true) => info!(event = event.as_str(), "another relay carries; waiting"),
            (true, ..) => info!(event = event.as_str(), "nobody is known to carry"),
            _ => {}
        }
    }
}

fn name(shared: &Shared, event: EventType) -> String {
    format!("relay:{}:{event}", shared.from.fleet())
}

/// Takes and renews the leases of all types. Does not end by itself.
pub(super) async fn renew(shared: &Shared) {
    let mut tick = time::interval(RENEW_EVERY);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let holder = shared.to.node.to_string();
    loop {
        tick.tick().await;
        let begun = Instant::now();
        let renewed = shared.types.iter().map(|event| async {
            let answer = shared.to.backend.hold(&name(shared, *event), &holder, LEASE_FOR).await;
            if answer.is_err() {
                shared.counts.failures.add(1);
            }
            shared.leases.note(*event, begun, &answer);
        });
        join_all(renewed).await;
    }
}

/// Releases the leases of this process, so that another relay need not wait.
pub(super) async fn let_go(shared: &Shared) {
    let holder = shared.to.node.to_string();
    let ours = shared.types.iter().filter(|event| shared.leases.of(**event).is_ours());
    let gone = ours.map(|event| async {
        if let Err(error) = shared.to.backend.let_go(&name(shared, *event), &holder).await {
            debug!(error = %error, "could not release a lease; it will expire");
        }
    });
    if time::timeout(LAST_PATIENCE, join_all(gone)).await.is_err() {
        debug!("could not release the leases in time; they will expire");
    }
}
