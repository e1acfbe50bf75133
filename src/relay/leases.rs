//! Which of several relays for the same way carries a type: the one that has the lease, which is kept in the
//! Redis that events go to. It spares work, and doubles of what nobody numbers; that no log has anything twice
//! does not hang on it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tracing::{debug, info};

use super::Shared;
use crate::model::EventType;
use crate::storage::{Records as _, Result as StorageResult};

/// How long one lasts, and how often it is renewed, or tried for: another relay takes over within the sum.
const LEASE_FOR: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// For how long the leases are let go of at the end.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// How a lease stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    /// Until when it is this process'.
    until: Option<Instant>,
    /// Another one has it.
    pub(super) is_anothers: bool,
}

impl Held {
    /// Whether this process carries the type now.
    pub(super) fn is_ours(&self) -> bool {
        self.until.is_some_and(|until| until > Instant::now())
    }
}

/// How the leases stand, by type. Whoever watches hears of each try to renew them.
#[derive(Debug)]
pub(super) struct Leases(watch::Sender<[Held; EventType::ALL.len()]>);

impl Default for Leases {
    fn default() -> Self {
        Self(watch::Sender::new(Default::default()))
    }
}

impl Leases {
    pub(super) fn of(&self, event: EventType) -> Held {
        self.0.borrow()[event as usize]
    }

    pub(super) fn watch(&self) -> watch::Receiver<[Held; EventType::ALL.len()]> {
        self.0.subscribe()
    }

    /// Waits until this process is to carry a type.
    pub(super) async fn until_ours(&self, event: EventType) {
        // The sender is in `self`.
        let mut watched = self.watch();
        drop(watched.wait_for(|held| held[event as usize].is_ours()).await);
    }

    fn note(&self, event: EventType, begun: Instant, answer: &StorageResult<Option<u64>>) {
        let (was, mut held) = (self.of(event), self.of(event));
        match answer {
            Ok(Some(_fence)) => held = Held { until: Some(begun + LEASE_FOR), is_anothers: false },
            Ok(None) => held = Held { until: None, is_anothers: true },
            // What was granted lasts on; whoever has it otherwise is not known.
            Err(_) => held.is_anothers = false,
        }
        let is_told = (was.is_ours(), was.is_anothers) != (held.is_ours(), held.is_anothers);
        self.0.send_modify(|all| all[event as usize] = held);
        match (is_told, held.is_ours(), held.is_anothers) {
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

/// Lets go of what this process has, so that another relay need not wait.
pub(super) async fn let_go(shared: &Shared) {
    let holder = shared.to.node.to_string();
    let ours = shared.types.iter().filter(|event| shared.leases.of(**event).is_ours());
    let gone = ours.map(|event| async {
        if let Err(error) = shared.to.backend.let_go(&name(shared, *event), &holder).await {
            debug!(error = %error, "could not let go of a lease; it runs out");
        }
    });
    if time::timeout(LAST_PATIENCE, join_all(gone)).await.is_err() {
        debug!("could not let go of the leases in time; they run out");
    }
}
