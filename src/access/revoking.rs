//! Distributes revocations between nodes. They are records in the storage, beside a number that grows with
//! each. Every node polls the number, reads the records when it has changed, and publishes up to which
//! number it has read.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};
use zonewire_access::{Revocation, Revoked, TooManyRevocations};

use super::{Gate, now_s};
use crate::protocol::RevokedOn;
use crate::storage::{RecordKind, Result as StorageResult, StorageError};

/// How often a node looks for revocations.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a request to revoke waits for other nodes to confirm.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

/// How often it checks whether they have.
const CONFIRMED_POLL: Duration = Duration::from_millis(100);

/// How often a node publishes its number if nothing has changed, and after how long without that it counts
/// as gone.
const SAY_EVERY: Duration = Duration::from_secs(5);
const GONE_AFTER: Duration = Duration::from_secs(20);

/// How long the revocation of an API key lasts, or of a subject with one or with a certificate, in seconds:
/// ten years.
const KEY_REVOKED_S: i64 = 10 * 366 * 24 * 3600;

/// Records read in one call.
const PAGE: usize = 1_000;

/// The key of the record with the number of the newest revocation, beside the records of the nodes.
const NEWEST: &str = "newest";

/// What this node knows about revocations made elsewhere.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// The number up to which this node has read them.
    reached: AtomicI64,
    /// Whether they have been read from the shared storage since it was last away.
    are_known: AtomicBool,
}

/// What a request to revoke names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A token, by its `jti`.
    Token,
    /// An API key, by its name.
    Key,
    /// Everything issued to a subject so far.
    Subject,
}

/// Why a revocation failed, at least in part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    #[error(transparent)]
    TooMany(#[from] TooManyRevocations),
    /// It is in effect on this node nevertheless.
    #[error(
        "the revocation is in effect on this node, but may not reach others: the storage does not answer"
    )]
    Storage(#[from] StorageError),
}

impl Gate {
    /// Whether this node knows all revocations of all nodes.
    pub(super) fn knows_revocations(&self) -> bool {
        self.revocations.are_known.load(Ordering::Acquire) && !self.backend.is_degraded()
    }

    /// Revokes on this node at once, and on others as soon as possible; waits a bounded time for their
    /// confirmation.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub(crate) async fn revoke(&self, named: Named, name: &str, by: &str) -> Result<RevokedOn, RevokeError> {
        let at = now_s();
        let lifetime = self.config().lifetime_max_s.saturating_add(self.config().leeway_s);
        let lifetime = i64::try_from(lifetime).unwrap_or(i64::MAX);
        // API keys and certificates may be valid for much longer than tokens, so the revocation of their
        // subject must last.
        let is_long = match named {
            Named::Token => false,
            Named::Key => true,
            Named::Subject => self.access.outlives_tokens(name),
        };
        let keep = if is_long { KEY_REVOKED_S.max(lifetime) } else { lifetime };
        let what = if named == Named::Subject { Revoked::Subject } else { Revoked::Credential };
        // A token may have the id of an API key; its shorter revocation must not end that of the key.
        let held = self.access.revoked_until(what, name).unwrap_or(i64::MIN);
        let until = at.saturating_add(keep).max(held);
        let revocation = Revocation { what, name: name.to_owned(), at, until };
        self.access.revoke(&revocation)?;
        self.has_news();
        info!(what = ?named, name, by, "revoked");
        let number = self.write(&revocation).await?;
        Ok(self.confirmed(number).await?)
    }

    /// Writes the record first, and then the number that makes others read it.
    async fn write(&self, revocation: &Revocation) -> StorageResult<i64> {
        let value = serde_json::to_vec(revocation).expect("texts and numbers are JSON");
        let left = u64::try_from(revocation.until - now_s()).unwrap_or(0).max(1);
        let (key, ttl) = (revocation.key(), Duration::from_secs(left));
        self.backend.put(RecordKind::Revocation, &key, value.into(), ttl).await?;
        let before = number_of(self.backend.get(RecordKind::RevokedUpTo, NEWEST).await?);
        let number = chrono::Utc::now().timestamp_micros().max(before.saturating_add(1));
        self.say(NEWEST, number, Duration::from_secs(KEY_REVOKED_S.unsigned_abs())).await?;
        Ok(number)
    }

    async fn say(&self, whose: &str, number: i64, ttl: Duration) -> StorageResult<()> {
        let number = Bytes::from(number.to_string());
        self.backend.put(RecordKind::RevokedUpTo, whose, number, ttl).await
    }

    /// Waits until all nodes have read up to `number`, or time is up; returns which have.
    async fn confirmed(&self, number: i64) -> StorageResult<RevokedOn> {
        let (own, deadline) = (self.node.to_string(), Instant::now() + CONFIRMED_WITHIN);
        loop {
            if self.backend.is_degraded() {
                return Ok(RevokedOn { holds_on: vec![own], unconfirmed_on: Vec::new(), degraded: true });
            }
            let mut on = RevokedOn { holds_on: vec![own.clone()], ..RevokedOn::default() };
            for record in self.backend.list(RecordKind::RevokedUpTo, None, PAGE).await? {
                if record.key == NEWEST || record.key == own {
                    continue;
                }
                let has_it = number_of(Some(record.value)) >= number;
                if has_it { &mut on.holds_on } else { &mut on.unconfirmed_on }.push(record.key);
            }
            if on.unconfirmed_on.is_empty() || Instant::now() >= deadline {
                // The storage may have failed in the meantime.
                return Ok(RevokedOn { degraded: self.backend.is_degraded(), ..on });
            }
            time::sleep(CONFIRMED_POLL).await;
        }
    }

    pub(super) async fn keep_revocations(&self, stop: &CancellationToken) {
        let own = self.node.to_string();
        let mut tick = time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_at: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
            }
            self.access.forget_revocations(now_s());
            let is_new = self.look_for_revocations().await;
            if is_new || said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                let reached = self.revocations.reached.load(Ordering::Acquire);
                match self.say(&own, reached, GONE_AFTER).await {
                    Ok(()) => said_at = Some(Instant::now()),
                    Err(error) => {
                        debug!(error = %error, "could not publish which revocations are known here")
                    }
                }
            }
        }
        // Nobody should wait for a node that has stopped.
        let _gone_by_itself = self.backend.delete(RecordKind::RevokedUpTo, &own).await;
    }

    /// Reads new revocations, if there are any; returns whether there were.
    pub(super) async fn look_for_revocations(&self) -> bool {
        let was_degraded = self.backend.is_degraded();
        match self.read_revocations().await {
            Ok(is_new) => {
                let is_shared = !was_degraded && !self.backend.is_degraded();
                self.revocations.are_known.store(is_shared, Ordering::Release);
                is_new
            }
            Err(error) => {
                debug!(error = %error, "could not read revocations");
                self.revocations.are_known.store(false, Ordering::Release);
                false
            }
        }
    }

    async fn read_revocations(&self) -> StorageResult<bool> {
        let newest = number_of(self.backend.get(RecordKind::RevokedUpTo, NEWEST).await?);
        let is_known = self.revocations.are_known.load(Ordering::Acquire);
        if is_known && newest == self.revocations.reached.load(Ordering::Acquire) {
            return Ok(false);
        }
        let (mut after, mut is_news): (Option<String>, bool) = (None, false);
        loop {
            let page = self.backend.list(RecordKind::Revocation, after.as_deref(), PAGE).await?;
            for record in &page {
                is_news |= self.learn(&record.key, &record.value);
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().last().map(|record| record.key);
        }
        self.revocations.reached.store(newest, Ordering::Release);
        if is_news {
            self.has_news();
        }
        Ok(true)
    }

    /// Applies a revocation of another node; returns whether it was new.
    fn learn(&self, key: &str, value: &[u8]) -> bool {
        let revocation = match serde_json::from_slice::<Revocation>(value) {
            Ok(revocation) => revocation,
            Err(error) => {
                error!(key, error = %error, "a revocation is unreadable and could not be applied here");
                return false;
            }
        };
        match self.access.revoke(&revocation) {
            Ok(is_news) => is_news,
            Err(error) => {
                error!(key, error = %error, "a revocation could not be applied here");
                false
            }
        }
    }
}

fn number_of(value: Option<Bytes>) -> i64 {
    let text = value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use zonewire_access::{AuthConfig, Certificate, CertificateConfig, Refused};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_subject_with_a_certificate_stays_revoked_for_longer_than_any_token_lasts() {
        let name = "CN:feed".to_owned();
        let auth = AuthConfig {
            lifetime_max_s: 60,
            certificates: vec![CertificateConfig { name: name.clone(), ..CertificateConfig::default() }],
            ..AuthConfig::default()
        };
        let gate = Gate::in_memory(&auth).await;
        let now = now_s();
        let shown = Certificate {
            names: vec![name],
            not_before: now - 10,
            not_after: now + 86_400,
            authorities: gate.authorities(),
        };
        let feed = gate.certified(&shown).unwrap();
        for subject in ["feed", "alice"] {
            gate.revoke(Named::Subject, subject, "root").await.unwrap();
        }
        assert_eq!((gate.still_certified(&feed), gate.revocations()), (Err(Refused::Revoked), 2));
        gate.access.forget_revocations(now + 3_600);
        assert_eq!((gate.still_certified(&feed), gate.revocations()), (Err(Refused::Revoked), 1));
    }
}
