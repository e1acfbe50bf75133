//! The gateway's own TLS: its certificate, which is reloaded when its files change, the handshake, and the
//! principals of client certificates.

mod files;
mod handshake;
mod verifying;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zonewire_protocol::TlsHealth;
use zonewire_protocol::stats::TlsView;

use self::files::{Files, Loaded};
pub(super) use self::handshake::TlsFailure;
use self::handshake::shake_hands;
use self::verifying::Said;
use super::arrival::{Peer, Way};
use super::config::TlsConfig;
use crate::access::{Certificate, Gate, Principal, Standing, now_s};
use crate::connections;
use crate::support::counter::Counter;
use crate::support::seldom::Seldom;

/// How often the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Changed files must stay the same for this long before they are used: a program may still be writing
/// them.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// How many characters of the names of an unlisted certificate are logged.
const NAMES_TOLD_MAX: usize = 256;

/// The TLS state of the gateway.
#[derive(Debug)]
pub(crate) struct Tls {
    config: TlsConfig,
    gate: Arc<Gate>,
    current: Mutex<Current>,
    handshakes: Counter,
    resumed: Counter,
    failed: [Counter; TlsFailure::ALL.len()],
    failures: Mutex<Seldom>,
    listed: Counter,
    unlisted: Counter,
    strangers: Mutex<Seldom>,
    reloads: Counter,
    failed_reloads: Counter,
}

#[derive(Debug)]
struct Current {
    servers: Servers,
    tickets: Tickets,
    /// The authorities that verify client certificates, and their generation in the gate.
    authorities: Vec<CertificateDer<'static>>,
    number: u32,
    expires_at: i64,
    /// A digest of what was read last, whether or not it was usable.
    digest: u64,
    /// What was wrong with it, if anything.
    problem: Option<String>,
}

/// The configuration of handshakes for each kind of listener.
#[derive(Debug)]
struct Servers {
    public: Arc<ServerConfig>,
    operators: Arc<ServerConfig>,
}

/// What makes and opens session tickets. It stays when the certificate changes. A resumed session has the
/// client certificate of the original one, or none, and it is not verified again. Therefore each kind of
/// listener accepts only its own tickets, and the removal of an authority invalidates all of them.
#[derive(Debug, Clone)]
struct Tickets {
    public: Arc<dyn ProducesTickets>,
    operators: Arc<dyn ProducesTickets>,
}

impl Tickets {
    fn new() -> Result<Self, String> {
        let new = || rustls::crypto::ring::Ticketer::new().map_err(|error| error.to_string());
        Ok(Self { public: new()?, operators: new()? })
    }
}

impl Servers {
    fn new(loaded: &Loaded, tickets: &Tickets) -> Self {
        let public = server(&loaded.server, &tickets.public);
        let of_operators = loaded.of_operators.as_ref().map(|of| server(of, &tickets.operators));
        Self { operators: of_operators.unwrap_or_else(|| Arc::clone(&public)), public }
    }
}

impl Tls {
    /// Reads the files; `None` if TLS is off.
    ///
    /// # Errors
    /// They are unusable; in words.
    pub(crate) async fn open(config: &TlsConfig, gate: Arc<Gate>) -> Result<Option<Arc<Self>>, String> {
        if !config.is_on() {
            return Ok(None);
        }
        let tickets = Tickets::new()?;
        let files = Files::read(config).await;
        let digest = digest_of(&files);
        let loaded = files?.load()?;
        let current = Current {
            servers: Servers::new(&loaded, &tickets),
            tickets,
            number: gate.authorities(),
            authorities: loaded.authorities,
            expires_at: loaded.expires_at,
            digest,
            problem: None,
        };
        let tls = Self {
            config: config.clone(),
            gate,
            current: Mutex::new(current),
            handshakes: Counter::default(),
            resumed: Counter::default(),
            failed: Default::default(),
            failures: Mutex::default(),
            listed: Counter::default(),
            unlisted: Counter::default(),
            strangers: Mutex::default(),
            reloads: Counter::default(),
            failed_reloads: Counter::default(),
        };
        tls.log_certificate("speaks TLS");
        Ok(Some(Arc::new(tls)))
    }

    /// Does the handshake with a client whose first bytes have been read, and returns the principal if the
    /// client shows a listed certificate. The caller must limit the time.
    pub(super) async fn welcome(
        &self,
        stream: &TcpStream,
        first: &[u8],
        way: &Way,
    ) -> Result<(connections::Tls, Option<Arc<Principal>>), TlsFailure> {
        let (server, number) = {
            let Current { servers, number, .. } = &*self.current.lock();
            let server = if way.is_for_operators { &servers.operators } else { &servers.public };
            (Arc::clone(server), *number)
        };
        let (mut session, is_resumed) = shake_hands(stream, first, server).await?;
        self.handshakes.add(1);
        self.resumed.add(u64::from(is_resumed));
        let shown = session.session().peer_certificates().and_then(|chain| chain.first());
        let principal =
            shown.filter(|_| self.gate.is_on()).and_then(|shown| self.whose(shown, number, &way.peer));
        Ok((session, principal))
    }

    /// The principal of a verified certificate.
    fn whose(&self, shown: &CertificateDer<'_>, authorities: u32, peer: &Peer) -> Option<Arc<Principal>> {
        let said = Said::read(shown).map_err(|error| error.to_string());
        let (names, principal) = match said {
            Ok(Said { names, not_before, not_after }) => {
                let certificate = Certificate { names, not_before, not_after, authorities };
                let principal = self.gate.certified(&certificate);
                (Ok(certificate.names), principal)
            }
            Err(error) => (Err(error), None),
        };
        let count = if principal.is_some() { &self.listed } else { &self.unlisted };
        count.add(1);
        if principal.is_none()
            && let Some(untold) = self.strangers.lock().may_tell(Instant::now())
        {
            let names = names.map_or_else(|error| error, |names| names.join(", "));
            let names: String = names.chars().take(NAMES_TOLD_MAX).collect();
            let setting = "auth.certificates";
            info!(times = untold + 1, names, setting, peer.addr = %peer, "client certificates are not listed");
        }
        principal
    }

    /// Reloads the files when they change, until `stop`. Open connections are unaffected.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.look_for_ever()).await;
    }

    async fn look_for_ever(&self) {
        loop {
            time::sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// The certificate and the key may be replaced one after the other, or both at once by a symbolic link,
    /// so what counts is their content, once it stays the same.
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
        match again.and_then(|files| files.load()).and_then(|loaded| self.take(loaded, digest)) {
            Ok(()) => {
                self.reloads.add(1);
                self.log_certificate("loaded a new certificate");
            }
            Err(problem) => {
                warn!(problem, "could not use the new certificate; the previous one stays in effect");
                let mut current = self.current.lock();
                (current.digest, current.problem) = (digest, Some(problem));
                self.failed_reloads.add(1);
            }
        }
    }

    /// Puts the files' content into effect for new handshakes.
    fn take(&self, loaded: Loaded, digest: u64) -> Result<(), String> {
        let mut current = self.current.lock();
        let is_there = |authority| loaded.authorities.contains(authority);
        if !current.authorities.iter().all(is_there) {
            current.tickets = Tickets::new()?;
            info!(
                "an authority of client certificates was removed: clients with certificates have to reconnect"
            );
            // A handshake in progress has the previous generation, so its client has to reconnect too.
            current.number = self.gate.withdraw_authorities();
        }
        current.servers = Servers::new(&loaded, &current.tickets);
        (current.authorities, current.expires_at) = (loaded.authorities, loaded.expires_at);
        (current.digest, current.problem) = (digest, None);
        Ok(())
    }

    /// Whether a principal's client certificate is still valid.
    pub(super) fn still_welcomes(&self, principal: &Principal) -> bool {
        self.gate.standing(principal) == Standing::Holds && !principal.has_expired(now_s())
    }

    fn log_certificate(&self, what: &str) {
        let expires_at = self.current.lock().expires_at;
        let expires = chrono::DateTime::from_timestamp(expires_at, 0).map(|at| at.to_rfc3339());
        if left(expires_at) > 0 {
            info!(expires, "{what}");
        } else {
            warn!(expires, "{what}, with a certificate that has expired: clients will refuse it");
        }
    }

    /// Counts a failed handshake, and logs it now and then.
    pub(super) fn count_failure(&self, failure: TlsFailure, peer: &Peer) {
        self.failed[failure as usize].add(1);
        if let Some(untold) = self.failures.lock().may_tell(Instant::now()) {
            let (failed, reason) = (untold + 1, failure.as_str());
            info!(failed, reason, peer.addr = %peer, "TLS handshakes failed");
        }
    }

    /// The state of the certificate, for health.
    pub(crate) fn health(&self) -> TlsHealth {
        let current = self.current.lock();
        TlsHealth {
            files: if current.problem.is_none() { "fresh" } else { "stale" }.to_owned(),
            expires_at: chrono::DateTime::from_timestamp(current.expires_at, 0).unwrap_or_default(),
        }
    }

    /// The counters of TLS.
    pub(crate) fn view(&self) -> TlsView {
        let failed = TlsFailure::ALL.iter().zip(&self.failed);
        TlsView {
            handshakes: self.handshakes.get(),
            resumed: self.resumed.get(),
            failed_by_reason: failed
                .map(|(failure, count)| (failure.as_str().to_owned(), count.get()))
                .collect(),
            certificates_by_result: [("listed", &self.listed), ("unlisted", &self.unlisted)]
                .map(|(result, count)| (result.to_owned(), count.get()))
                .into(),
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

/// A digest of the content, or of the reason why it could not be read.
fn digest_of(read: &Result<Files, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    read.hash(&mut hasher);
    hasher.finish()
}

fn server(loaded: &ServerConfig, tickets: &Arc<dyn ProducesTickets>) -> Arc<ServerConfig> {
    let mut server = loaded.clone();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.ticketer = Arc::clone(tickets);
    // Clients store the tickets; the server keeps no session state.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(server)
}
