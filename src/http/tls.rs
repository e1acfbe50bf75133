//! TLS of the gateway's own: the certificate, which is read anew when its files change, and the handshake.

mod files;
mod handshake;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zonewire_protocol::TlsHealth;
use zonewire_protocol::stats::TlsView;

use self::files::{Files, Loaded};
pub(super) use self::handshake::{TlsFailure, shake_hands};
use super::config::TlsConfig;
use crate::support::counter::Counter;
use crate::support::seldom::Seldom;

/// How soon files are read again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Files that have not been the same for so long are read again: somebody may be writing them.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// What the gateway shows to those who come by TLS, and how that goes.
#[derive(Debug)]
pub(crate) struct Tls {
    config: TlsConfig,
    /// Makes and opens session tickets; the same one after the certificate has changed.
    tickets: Arc<dyn rustls::server::ProducesTickets>,
    current: Mutex<Current>,
    handshakes: Counter,
    resumed: Counter,
    failed: [Counter; TlsFailure::ALL.len()],
    failures: Mutex<Seldom>,
    reloads: Counter,
    failed_reloads: Counter,
}

#[derive(Debug)]
struct Current {
    server: Arc<ServerConfig>,
    expires_at: i64,
    /// Of what was read last, whether or not it could be used.
    digest: u64,
    /// What was wrong with it, where something was.
    problem: Option<String>,
}

impl Tls {
    /// Reads the files; `None` where TLS is off.
    ///
    /// # Errors
    /// They cannot be used; in words.
    pub(crate) async fn open(config: &TlsConfig) -> Result<Option<Arc<Self>>, String> {
        if !config.is_on() {
            return Ok(None);
        }
        let tickets = rustls::crypto::ring::Ticketer::new().map_err(|error| error.to_string())?;
        let files = Files::read(config).await?;
        let loaded = files.load()?;
        let current = Current {
            server: server(&loaded, &tickets),
            expires_at: loaded.expires_at,
            digest: files.digest(),
            problem: None,
        };
        let tls = Self {
            config: config.clone(),
            tickets,
            current: Mutex::new(current),
            handshakes: Counter::default(),
            resumed: Counter::default(),
            failed: Default::default(),
            failures: Mutex::default(),
            reloads: Counter::default(),
            failed_reloads: Counter::default(),
        };
        tls.tell_certificate("speaks TLS");
        Ok(Some(Arc::new(tls)))
    }

    /// What the next handshake is made with.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().server)
    }

    /// Reads the files anew when they change, until `stop`. Sockets that are open stay so.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.look_for_ever()).await;
    }

    async fn look_for_ever(&self) {
        loop {
            time::sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// Certificate and key are replaced one after the other, or both by a link to another folder: what counts
    /// is what is in them, once that stays the same.
    async fn look(&self) {
        let read = Files::read(&self.config).await;
        if digest_of(&read) == self.current.lock().digest {
            return;
        }
        time::sleep(SETTLED_AFTER).await;
        let again = Files::read(&self.config).await;
        let digest = digest_of(&again);
        if digest != digest_of(&read) {
            return;
        }
        match again.and_then(|files| files.load()) {
            Ok(loaded) => {
                let mut current = self.current.lock();
                current.server = server(&loaded, &self.tickets);
                (current.expires_at, current.digest, current.problem) = (loaded.expires_at, digest, None);
                drop(current);
                self.reloads.add(1);
                self.tell_certificate("took a new certificate");
            }
            Err(problem) => {
                warn!(problem, "cannot use the new certificate; the one that there was goes on");
                let mut current = self.current.lock();
                (current.digest, current.problem) = (digest, Some(problem));
                self.failed_reloads.add(1);
            }
        }
    }

    fn tell_certificate(&self, what: &str) {
        let expires_at = self.current.lock().expires_at;
        let expires = chrono::DateTime::from_timestamp(expires_at, 0).map(|at| at.to_rfc3339());
        if left(expires_at) > 0 {
            info!(expires, "{what}");
        } else {
            warn!(expires, "{what}, with a certificate that has expired: clients will refuse it");
        }
    }

    pub(super) fn count_handshake(&self, is_resumed: bool) {
        self.handshakes.add(1);
        self.resumed.add(u64::from(is_resumed));
    }

    /// Counts a handshake that came to nothing, and says so now and then.
    pub(super) fn count_failure(&self, failure: TlsFailure, peer: &super::way::Peer) {
        self.failed[failure as usize].add(1);
        if let Some(untold) = self.failures.lock().may_tell(Instant::now()) {
            let (failed, reason) = (untold + 1, failure.as_str());
            info!(failed, reason, peer.addr = %peer, "TLS handshakes failed");
        }
    }

    /// How it does, for health.
    pub(crate) fn health(&self) -> TlsHealth {
        let current = self.current.lock();
        TlsHealth {
            files: if current.problem.is_none() { "fresh" } else { "stale" }.to_owned(),
            expires_at: chrono::DateTime::from_timestamp(current.expires_at, 0).unwrap_or_default(),
        }
    }

    /// What is counted of it.
    pub(crate) fn view(&self) -> TlsView {
        let failed = TlsFailure::ALL.iter().zip(&self.failed);
        TlsView {
            handshakes: self.handshakes.get(),
            resumed: self.resumed.get(),
            failed_by_reason: failed
                .map(|(failure, count)| (failure.as_str().to_owned(), count.get()))
                .collect(),
            reloads_by_result: [("good", &self.reloads), ("failed", &self.failed_reloads)]
                .map(|(result, count)| (result.to_owned(), count.get()))
                .into(),
            certificate_left_s: left(self.current.lock().expires_at),
        }
    }
}

fn left(expires_at: i64) -> i64 {
    expires_at - chrono::Utc::now().timestamp()
}

/// Of what was read, or of why it could not be.
fn digest_of(read: &Result<Files, String>) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    match read {
        Ok(files) => files.digest(),
        Err(problem) => {
            let mut hasher = DefaultHasher::new();
            problem.hash(&mut hasher);
            hasher.finish()
        }
    }
}

fn server(loaded: &Loaded, tickets: &Arc<dyn rustls::server::ProducesTickets>) -> Arc<ServerConfig> {
    let mut server = loaded.server.clone();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.ticketer = Arc::clone(tickets);
    // Tickets are kept by clients; nothing of a session is kept here.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(server)
}
