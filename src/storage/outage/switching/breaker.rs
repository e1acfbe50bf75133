//! Who serves each failure domain now, Redis or this node, and waiting for that to change.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time;

use super::until;
use crate::model::{BackendName, BackendState, ChannelName};
use crate::storage::outage::failover::First;
use crate::storage::primary::{Domain, Place, Primary};
use crate::storage::{Lost, Result, StorageError};

/// A call that failed waits this long for the verdict whether its failure domain is away; after it, the
/// failure is reported to the caller.
const VERDICT_WITHIN: Duration = Duration::from_millis(600);

/// Who serves a failure domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) state: BackendState,
    /// Memory serves because no Redis is configured, and none has appeared.
    pub(super) is_standalone: bool,
    pub(super) lost: Option<Lost>,
}

impl Mode {
    /// The mode that a failure domain begins with.
    pub(super) fn at(first: &First) -> Self {
        match first {
            First::Redis => Self { state: BackendState::Healthy, is_standalone: false, lost: None },
            First::Standalone => Self { state: BackendState::Healthy, is_standalone: true, lost: None },
            First::Memory(lost) => {
                Self { state: BackendState::Degraded, is_standalone: false, lost: Some(lost.clone()) }
            }
        }
    }

    /// Whether calls go to the primary.
    pub(super) fn is_primary(&self) -> bool {
        !self.is_standalone && self.state != BackendState::Degraded
    }
}

/// The modes by failure domain, of which there is at least one. `None`: nothing belongs to it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modes(pub(super) Vec<Option<Mode>>);

impl Modes {
    /// Whether calls about a failure domain go to the primary. They do if the domain has no mode, such as a
    /// new one, which its judge is about to check.
    pub(super) fn is_primary(&self, domain: Domain) -> bool {
        self.0.get(domain.index()).and_then(Option::as_ref).is_none_or(Mode::is_primary)
    }

    pub(super) fn present(&self) -> impl Iterator<Item = &Mode> {
        self.0.iter().flatten()
    }

    /// Whether memory serves because no Redis is configured; then there is one failure domain only.
    pub(super) fn is_standalone(&self) -> bool {
        self.present().any(|mode| mode.is_standalone)
    }

    pub(super) fn is_all_primary(&self) -> bool {
        self.present().all(Mode::is_primary)
    }

    pub(super) fn is_any_primary(&self) -> bool {
        self.present().any(Mode::is_primary)
    }
}

/// The circuit breakers, one for each failure domain of the primary. Judges (see `monitor`) set their modes;
/// calls to the primary pass through [`ask`](Self::ask).
pub(super) struct Breaker {
    pub(super) primary: Arc<dyn Primary>,
    modes: watch::Sender<Modes>,
    /// Notified when a mode has changed. It wakes the calls that wait for a failure domain to go away in the
    /// order in which they began to wait, which a `watch` would not do.
    away: Notify,
    /// By failure domain: notified when a call failed, so that it is probed at once.
    beat_now: Mutex<Vec<Arc<Notify>>>,
}

impl Breaker {
    pub(super) fn new(primary: Arc<dyn Primary>, first: &First) -> Self {
        let modes = watch::Sender::new(Modes(vec![Some(Mode::at(first))]));
        Self { primary, modes, away: Notify::new(), beat_now: Mutex::default() }
    }

    pub(super) fn modes(&self) -> watch::Ref<'_, Modes> {
        self.modes.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Modes> {
        self.modes.subscribe()
    }

    pub(super) fn set_mode(&self, domain: Domain, mode: Option<Mode>) {
        self.modes.send_if_modified(|Modes(held)| {
            if held.len() <= domain.index() {
                held.resize(domain.index() + 1, None);
            }
            let changed = held[domain.index()] != mode;
            held[domain.index()] = mode;
            changed
        });
        self.away.notify_waiters();
    }

    pub(super) fn domain_of(&self, channel: &ChannelName) -> Domain {
        self.domain_at(Place::Channel(channel))
    }

    pub(super) fn domain_at(&self, place: Place<'_>) -> Domain {
        self.primary.domain_of(place)
    }

    /// Whether calls about a failure domain go to the primary.
    pub(super) fn is_primary(&self, domain: Domain) -> bool {
        self.modes().is_primary(domain)
    }

    /// Whether calls about a channel go to the primary.
    pub(super) fn has_log(&self, channel: &ChannelName) -> bool {
        self.is_primary(self.domain_of(channel))
    }

    pub(super) fn is_standalone(&self) -> bool {
        self.modes().is_standalone()
    }

    /// Whether all failure domains are healthy.
    pub(super) fn is_well(&self) -> bool {
        self.modes().present().all(|mode| mode.state == BackendState::Healthy)
    }

    pub(super) fn serving(&self) -> BackendName {
        if self.modes().is_any_primary() { BackendName::Redis } else { BackendName::InMemory }
    }

    /// Whether a failure domain serves, or will soon because its connections are up again.
    pub(super) fn serves_soon(&self, domain: Domain) -> bool {
        let is_up = || self.primary.domains().borrow().part(domain).is_some_and(|part| part.health.is_up());
        self.is_primary(domain) || is_up()
    }

    /// The server of a failure domain, for messages; `None` where there is only one.
    pub(super) fn name_of(&self, domain: Domain) -> Option<String> {
        let domains = self.primary.domains();
        let name = domains.borrow().part(domain)?.name.clone();
        (!name.is_empty()).then_some(name)
    }

    /// Returns when calls about a failure domain no longer go to the primary.
    pub(super) async fn until_away(&self, domain: Domain) {
        until(&self.away, || !self.is_primary(domain)).await;
    }

    /// Returns when calls about a failure domain go to the primary.
    pub(super) async fn until_primary(&self, domain: Domain) {
        let mut modes = self.watch();
        let _gone = modes.wait_for(|modes| modes.is_primary(domain)).await;
    }

    /// Makes a call to the primary; `None` if its failure domain went away before it answered.
    pub(super) async fn ask<R>(
        &self,
        domain: Domain,
        call: impl Future<Output = Result<R>>,
    ) -> Option<Result<R>> {
        tokio::select! {
            biased;
            () = self.until_away(domain) => None,
            answer = call => match answer {
                Err(error) if error.is_outage() => self.verdict(domain, error).await.map(Err),
                answer => Some(answer),
            },
        }
    }

    /// The same about a channel.
    pub(super) async fn ask_log<R>(
        &self,
        channel: &ChannelName,
        call: impl Future<Output = Result<R>>,
    ) -> Option<Result<R>> {
        self.ask(self.domain_of(channel), call).await
    }

    /// Waits for the verdict on a call that failed: `None` if its failure domain went away, the error if that
    /// did not happen within [`VERDICT_WITHIN`].
    pub(super) async fn verdict(&self, domain: Domain, error: StorageError) -> Option<StorageError> {
        self.beat_now(domain).notify_one();
        let away = time::timeout(VERDICT_WITHIN, self.until_away(domain)).await.is_ok();
        (!away).then_some(error)
    }

    /// Notified when a failure domain is to be probed at once.
    pub(super) fn beat_now(&self, domain: Domain) -> Arc<Notify> {
        let mut all = self.beat_now.lock();
        if all.len() <= domain.index() {
            all.resize_with(domain.index() + 1, Arc::default);
        }
        Arc::clone(&all[domain.index()])
    }
}
