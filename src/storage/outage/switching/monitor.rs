//! Whether the primary serves: health probes and connections go into a state machine for each failure domain,
//! and its steps are executed and announced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::breaker::Mode;
use super::{Core, until};
use crate::model::BackendState;
use crate::storage::outage::failover::{Failover, First, Limits, Signal, Step};
use crate::storage::primary::{Beat, Domain, Domains, LinkHealth};
use crate::storage::status::{Scope, Served};
use crate::storage::{Lost, Result, StatusWriter};
use crate::support::counter::observe;

/// Between health probes.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Channels that were appended to so shortly before a loss are looked at even where nothing seems to
/// be missing: a server may lose what it had just acknowledged.
const JUST_BEFORE: Duration = Duration::from_secs(5);

pub(super) async fn drive(
    core: Arc<Core>,
    limits: Limits,
    first: First,
    status: Arc<StatusWriter>,
    well: String,
) {
    let announcer = Announcer { core: Arc::clone(&core), status, well };
    tokio::join!(
        watch_domains(&core, &announcer, limits, first),
        core.reconciler.run(),
        core.records.keep(),
        core.backlog.send_formers(),
        core.jobs.record_all(),
        core.incoming.pass_on(),
        core.backlog.tidy()
    );
}

/// Keeps a judge for each failure domain of the primary. Ends when the primary does.
async fn watch_domains(core: &Arc<Core>, announcer: &Announcer, limits: Limits, first: First) {
    let judge = |domain, first: First, is_new| Judge {
        failover: Failover::new(limits, first, Instant::now()),
        domain,
        is_new,
        core: Arc::clone(core),
        announcer,
        lost_data: false,
    };
    let breaker = &core.breaker;
    let mut domains = breaker.primary.domains();
    let mut judges = FuturesUnordered::new();
    let mut judged: BTreeSet<Domain> = BTreeSet::new();
    let (mut moves, mut is_begun) = (0, false);
    // Some failure domain was not healthy since slots last moved.
    let mut is_unwell = false;
    loop {
        let now = domains.borrow_and_update().clone();
        for (domain, _) in now.present() {
            if judged.insert(domain) {
                // The first ones are as the start found them.
                let (first, is_new) = (if is_begun { First::Redis } else { first.clone() }, is_begun);
                breaker.set_mode(domain, Some(Mode::at(&first)));
                let domains = domains.clone();
                judges.push(async move {
                    judge(domain, first, is_new).run(domains).await;
                    domain
                });
            }
        }
        // Before the servers are known by name, one failure domain stands for all.
        is_begun |= now.present().any(|(_, part)| !part.name.is_empty());
        is_unwell |= !breaker.is_well();
        if std::mem::replace(&mut moves, now.moves) != now.moves {
            core.replicas.lock().queue.rearrange(|channel| breaker.domain_of(channel));
            if std::mem::take(&mut is_unwell) {
                // Channels that forked in one failure domain may be in another one now.
                core.replicas.enqueue_due(None, |replica| {
                    replica.is_forked() || replica.is_followed() || replica.log().is_some()
                });
            }
        }
        announcer.announce();
        tokio::select! {
            biased;
            Some(domain) = judges.next(), if !judges.is_empty() => {
                if domains.has_changed().is_err() {
                    return;
                }
                judged.remove(&domain);
                is_unwell |= !breaker.is_well();
                breaker.set_mode(domain, None);
                core.replicas.lock().queue.await_none(domain);
            }
            changed = domains.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Feeds the state machine of a failure domain, and executes its steps.
struct Judge<'a> {
    failover: Failover,
    domain: Domain,
    /// The failure domain came after the start, and may not be connected yet.
    is_new: bool,
    core: Arc<Core>,
    announcer: &'a Announcer,
    /// Whether the server was found to have lost data since the last recovery began.
    lost_data: bool,
}

impl Judge<'_> {
    /// Runs until nothing belongs to the failure domain any more.
    async fn run(mut self, mut domains: watch::Receiver<Domains>) {
        let (core, domain) = (Arc::clone(&self.core), self.domain);
        let now = |domains: &mut watch::Receiver<Domains>| -> Option<LinkHealth> {
            domains.borrow_and_update().part(domain).map(|part| part.health.clone())
        };
        let Some(mut known) = now(&mut domains) else { return };
        while self.is_new && known.lost.as_ref().is_some_and(|lost| lost.code == "connecting") {
            // Calls wait meanwhile: whether the connection can be made is not known yet.
            if domains.changed().await.is_err() {
                return;
            }
            let Some(health) = now(&mut domains) else { return };
            known = health;
        }
        self.take(known.lost.clone().map_or(Signal::LinkUp, Signal::LinkDown));
        let beat_now = core.breaker.beat_now(self.domain);
        let mut beat: Option<BoxFuture<'_, Result<Beat, Lost>>> = None;
        let mut beat_at = Instant::now();
        loop {
            let far = Instant::now() + Duration::from_secs(3_600);
            let tick = self.failover.next_tick().unwrap_or(far);
            let is_recovering = self.failover.state() == BackendState::Recovering;
            tokio::select! {
                biased;
                () = until(&core.replicas.in_order, || core.is_in_order(domain)), if is_recovering => {
                    self.take(Signal::Reconciled);
                }
                changed = domains.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some(health) = now(&mut domains) else { return };
                    if health == known {
                        continue;
                    }
                    if health.losses > known.losses || !health.is_up() {
                        let lost = health.lost.clone().unwrap_or_else(|| Lost {
                            code: "unreachable",
                            reason: "a connection was lost".to_owned(),
                        });
                        self.take(Signal::LinkDown(lost));
                        beat = None;
                    }
                    known = health;
                    if known.is_up() {
                        self.take(Signal::LinkUp);
                        beat_at = Instant::now();
                    }
                }
                answer = async { match &mut beat { Some(beat) => beat.await, None => std::future::pending().await } } => {
                    beat = None;
                    self.take(match answer {
                        Ok(found) => found.lost().map_or(Signal::BeatOk, Signal::DataLost),
                        Err(lost) => Signal::BeatFailed(lost),
                    });
                }
                () = time::sleep_until(beat_at), if beat.is_none() && known.is_up() => {
                    beat_at = Instant::now() + BEAT_EVERY;
                    let (core, sent) = (&core, Instant::now());
                    let beating = async move {
                        let answer = core.breaker.primary.beat(domain, core.replicas.node).await?;
                        observe(&core.replicas.stats.redis_round_trip, sent.elapsed());
                        Ok(answer)
                    };
                    beat = Some(beating.boxed());
                }
                () = beat_now.notified(), if beat.is_none() => beat_at = Instant::now(),
                () = time::sleep_until(tick) => self.take(Signal::Tick),
            }
        }
    }

    fn take(&mut self, signal: Signal) {
        let now = Instant::now();
        // A loss is reported once, and most often before it is time to recover.
        self.lost_data |= matches!(signal, Signal::DataLost(_));
        let before = self.failover.state();
        let step = self.failover.on(signal, now);
        match step {
            Step::Stay => {}
            Step::StartRecovery | Step::Reconcile => self.begin_recovery(),
            Step::Degrade | Step::AbortRecovery | Step::Recovered => {}
        }
        let state = self.failover.state();
        let lost = self.failover.reason().cloned();
        let mode = Mode { state, is_standalone: self.failover.is_standalone(), lost };
        let breaker = &self.core.breaker;
        if mode.is_primary() && !breaker.is_primary(self.domain) {
            self.core.jobs.primary_is_back();
        }
        breaker.set_mode(self.domain, Some(mode));
        self.announcer.announce();
        if self.failover.is_standalone() || state == before {
            return;
        }
        let (code, reason) = self.failover.reason().map_or(("ok", ""), |lost| (lost.code, &*lost.reason));
        let server = breaker.name_of(self.domain);
        match state {
            BackendState::Degraded => {
                tracing::warn!(server, code, reason, "redis does not serve; going on in memory");
            }
            BackendState::Recovering => {
                let channels = self.core.replicas.lock().queue.awaited(self.domain);
                tracing::info!(server, channels, "redis answers again; putting channels in order");
            }
            BackendState::Healthy => {
                let away_ms = u64::try_from((now - self.failover.lost_at()).as_millis()).unwrap_or(u64::MAX);
                tracing::info!(server, away_ms, "redis serves again, and everything is in order");
            }
        }
        if step != Step::Stay {
            self.core.replicas.work.notify_one();
        }
    }

    /// Queues the channels that may not be in step with their logs: those that forked, those that are
    /// followed (messages may have been missed), those that were in use shortly before the loss, and, if the
    /// server lost data, all of its channels that are known here.
    fn begin_recovery(&mut self) {
        let lost_data = std::mem::take(&mut self.lost_data);
        let since = self.failover.lost_at().checked_sub(JUST_BEFORE);
        self.core.replicas.enqueue_due(Some(self.domain), |replica| {
            let is_recent = || since.is_none_or(|since| replica.used >= since);
            replica.is_forked()
                || replica.is_followed()
                || (replica.log().is_some() && (lost_data || is_recent()))
        });
    }
}

/// Announces how the storage serves, all failure domains together.
struct Announcer {
    core: Arc<Core>,
    status: Arc<StatusWriter>,
    well: String,
}

impl Announcer {
    fn announce(&self) {
        let core = &self.core;
        let modes = core.breaker.modes().clone();
        if modes.is_standalone() {
            return;
        }
        let is_any = |state| modes.present().any(|mode| mode.state == state);
        let state = match () {
            () if is_any(BackendState::Degraded) => BackendState::Degraded,
            () if is_any(BackendState::Recovering) => BackendState::Recovering,
            () => BackendState::Healthy,
        };
        let of = modes.present().count();
        let concerned: Vec<Domain> = (0..)
            .zip(&modes.0)
            .filter(|(_, mode)| mode.as_ref().is_some_and(|mode| mode.state != BackendState::Healthy))
            .map(|(number, _)| Domain::new(number))
            .collect();
        let scope = if concerned.is_empty() || concerned.len() == of {
            Scope::All
        } else {
            Scope::Some(core.breaker.primary.channels_of(&concerned))
        };
        let lost = modes.present().find(|mode| mode.state == state).and_then(|mode| mode.lost.as_ref());
        let (code, reason) = match lost {
            Some(lost) if of > 1 => {
                let count = concerned.len();
                (lost.code, format!("{count} of {of} primaries of the cluster: {}", lost.reason))
            }
            Some(lost) => (lost.code, lost.reason.clone()),
            None => ("ok", self.well.clone()),
        };
        let away = modes.present().filter(|mode| mode.state == BackendState::Degraded).count();
        self.status.set(Served {
            backend: core.breaker.serving(),
            state,
            reason_code: code,
            reason,
            scope,
            primaries: of,
            primaries_away: away,
            toll: core.toll(),
        });
    }
}
