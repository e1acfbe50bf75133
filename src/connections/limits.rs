//! Limits on all clients, whoever they are: TCP connections and WebSockets in all, those of one source, and
//! how often it connects.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::config::ConnectionsConfig;
use super::shard::spread_retry_ms;
use crate::access::{Over, Quota};
use crate::protocol::CloseCode;
use crate::support::counter::Counter;
use crate::support::rate::Rates;
use crate::support::seldom::Seldom;

/// What limits on addresses apply to: an IPv4 address, or a network of 2^64 IPv6 addresses, because a
/// customer of a provider has at least one such network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }

    fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = if self.0.is_ipv6() && !self.is_loopback() { "/64" } else { "" };
        write!(f, "{}{network}", self.0)
    }
}

/// A limit that refuses a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// WebSockets in all.
    Full,
    /// TCP connections in all.
    Tcp,
    /// Connections of one source at once.
    Address,
    /// How often one source connects.
    Rate,
    /// A limit of a principal or a tenant, which is counted there.
    Quota(Over),
}

impl Limit {
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::Tcp, Self::Address, Self::Rate];

    /// The label in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Tcp => "tcp",
            Self::Address => "address",
            Self::Rate => "rate",
            Self::Quota(_) => "quota",
        }
    }

    /// Its index in [`ALL`](Self::ALL), if it is there.
    fn place(self) -> Option<usize> {
        Self::ALL.iter().position(|limit| *limit == self)
    }

    /// When to reconnect; spread, because many clients may be refused at once.
    pub(crate) fn retry_after_ms(self) -> u64 {
        match self {
            Self::Quota(over) => over.wait_ms().max(spread_retry_ms()),
            _ => spread_retry_ms(),
        }
    }

    /// The close code of a WebSocket that it refuses.
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Self::Full | Self::Tcp | Self::Address => CloseCode::TooManyConnections,
            Self::Rate | Self::Quota(Over { quota: Quota::Connects, .. }) => CloseCode::RateLimited,
            Self::Quota(_) => CloseCode::TooManyConnections,
        }
    }

    /// The setting that would admit more connections from loopback, or from elsewhere.
    fn setting(self, is_loopback: bool) -> &'static str {
        match (self, is_loopback) {
            (Self::Full, _) => "connections.max",
            (Self::Tcp, _) => "connections.tcp_max and the limit of open files (ulimit -n)",
            (Self::Address, false) => "connections.per_address_max; behind a proxy http.trusted_proxies",
            (Self::Address, true) => "connections.per_loopback_address_max",
            (Self::Rate, false) => "connections.connects_per_s; behind a proxy http.trusted_proxies",
            (Self::Rate, true) => "connections.loopback_connects_per_s",
            (Self::Quota(_), _) => "limits",
        }
    }
}

/// The most refused WebSockets that are open at once, each for as long as it takes to send the reason.
const TURNED_AWAY_MAX: usize = 64;

/// The limits, and the current counts.
#[derive(Debug)]
pub(crate) struct Limits {
    config: ConnectionsConfig,
    web_sockets: AtomicUsize,
    turned_away: AtomicUsize,
    tcp: AtomicUsize,
    by_source: Mutex<HashMap<Source, usize>>,
    rates: Rates<Source>,
    loopback_rates: Rates<Source>,
    refused: [(Counter, Mutex<Seldom>); 4],
}

impl Limits {
    pub(super) fn new(config: ConnectionsConfig) -> Self {
        Self {
            web_sockets: AtomicUsize::new(0),
            turned_away: AtomicUsize::new(0),
            tcp: AtomicUsize::new(0),
            by_source: Mutex::default(),
            rates: Rates::new(config.connects_per_s, config.connects_burst),
            loopback_rates: Rates::new(config.loopback_connects_per_s, config.connects_burst),
            refused: Limit::ALL.map(|_| (Counter::default(), Mutex::default())),
            config,
        }
    }

    /// The most subscriptions of a connection.
    pub(crate) fn subscriptions_max(&self) -> usize {
        self.config.subscriptions_max
    }

    /// How often a limit refused.
    pub(super) fn refused(&self, limit: Limit) -> u64 {
        limit.place().map_or(0, |place| self.refused[place].0.get())
    }

    /// Open TCP connections.
    pub(super) fn tcp(&self) -> usize {
        self.tcp.load(Ordering::Acquire)
    }

    fn refuse(&self, limit: Limit, source: Option<Source>) -> Limit {
        let Some((counter, line)) = limit.place().map(|place| &self.refused[place]) else { return limit };
        counter.add(1);
        if let Some(untold) = line.lock().may_tell(Instant::now()) {
            let refused = untold + 1;
            let setting = limit.setting(source.is_some_and(Source::is_loopback));
            let (limit, source) = (limit.as_str(), source.map(|source| source.to_string()));
            warn!(refused, limit, source, setting, "connections were refused");
        }
        limit
    }

    /// Counts a TCP connection until the place is dropped: in all, and for its source if that is known yet.
    ///
    /// # Errors
    /// There are as many as allowed.
    pub(crate) fn admit_tcp(self: &Arc<Self>, source: Option<Source>) -> Result<TcpPlace, Limit> {
        if let Some(source) = source {
            self.count(source)?;
        }
        self.tcp_place(source).ok_or_else(|| self.refuse(Limit::Tcp, None))
    }

    fn tcp_place(self: &Arc<Self>, source: Option<Source>) -> Option<TcpPlace> {
        let max = self.config.tcp_max;
        // Created first, because its drop undoes the count if this is one too many.
        let place = TcpPlace { limits: Arc::clone(self), source, is_turned_away: AtomicBool::new(false) };
        if self.tcp.fetch_add(1, Ordering::AcqRel) >= max && max > 0 {
            return None;
        }
        Some(place)
    }

    /// Counts that a source connects.
    ///
    /// # Errors
    /// It connects more often than allowed.
    pub(crate) fn admit_connect(&self, source: Source) -> Result<(), Limit> {
        let rates = if source.is_loopback() { &self.loopback_rates } else { &self.rates };
        if rates.allows(source, Instant::now()) {
            Ok(())
        } else {
            Err(self.refuse(Limit::Rate, Some(source)))
        }
    }

    /// Counts a connection of a source until the permit is dropped.
    ///
    /// # Errors
    /// It has as many as allowed.
    pub(crate) fn admit_address(self: &Arc<Self>, source: Source) -> Result<AddressPermit, Limit> {
        self.count(source)?;
        Ok(AddressPermit { limits: Arc::clone(self), source })
    }

    fn count(&self, source: Source) -> Result<(), Limit> {
        let max = match source.is_loopback() {
            true => self.config.per_loopback_address_max,
            false => self.config.per_address_max,
        };
        let mut by_source = self.by_source.lock();
        let count = by_source.entry(source).or_insert(0);
        if *count < max {
            *count += 1;
            return Ok(());
        }
        drop(by_source);
        Err(self.refuse(Limit::Address, Some(source)))
    }

    fn give_back(&self, source: Source) {
        let mut by_source = self.by_source.lock();
        if let Some(count) = by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&source);
            }
        }
    }

    /// Counts a WebSocket, with the permits that it depends on, until the admission is dropped.
    ///
    /// # Errors
    /// There are as many as allowed.
    pub(crate) fn admit(
        &self,
        tcp: Arc<TcpPlace>,
        forwarded: Option<Arc<AddressPermit>>,
    ) -> Result<Admission, Limit> {
        if self.web_sockets.fetch_add(1, Ordering::AcqRel) >= self.config.max {
            self.web_sockets.fetch_sub(1, Ordering::AcqRel);
            let source = forwarded.as_ref().map(|permit| permit.source).or(tcp.source);
            return Err(self.refuse(Limit::Full, source));
        }
        tcp.is_turned_away.store(false, Ordering::Relaxed);
        Ok(Admission { tcp, forwarded })
    }

    /// Admits a refused WebSocket for a moment, so that its client learns the reason; `None` if too many
    /// refused ones are open already, or there is no room for its TCP connection.
    pub(crate) fn admit_beyond(
        self: &Arc<Self>,
        tcp: Option<Arc<TcpPlace>>,
        forwarded: Option<Arc<AddressPermit>>,
    ) -> Option<Admission> {
        let tcp = match tcp {
            Some(tcp) => tcp,
            None => Arc::new(self.tcp_place(None)?),
        };
        if self.turned_away.fetch_add(1, Ordering::AcqRel) >= TURNED_AWAY_MAX {
            self.turned_away.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        tcp.is_turned_away.store(true, Ordering::Relaxed);
        Some(Admission { tcp, forwarded })
    }
}

/// Counts a TCP connection until dropped. One allocation, because every idle connection has it.
#[derive(Debug)]
pub(crate) struct TcpPlace {
    limits: Arc<Limits>,
    /// `None` for a trusted proxy, whose requests name their clients.
    source: Option<Source>,
    /// Whether its WebSocket is beyond the limits.
    is_turned_away: AtomicBool,
}

impl TcpPlace {
    /// Whether its source is known, so that it counts for that source.
    pub(crate) fn has_source(&self) -> bool {
        self.source.is_some()
    }
}

impl Drop for TcpPlace {
    fn drop(&mut self) {
        self.limits.tcp.fetch_sub(1, Ordering::AcqRel);
        if let Some(source) = self.source {
            self.limits.give_back(source);
        }
    }
}

/// Counts a request that a proxy passes on for a source, until dropped.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    limits: Arc<Limits>,
    source: Source,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.limits.give_back(self.source);
    }
}

/// Counts a WebSocket until dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    tcp: Arc<TcpPlace>,
    forwarded: Option<Arc<AddressPermit>>,
}

impl Admission {
    /// The source of the connection; `None` if a proxy does not name it.
    pub(crate) fn source(&self) -> Option<Source> {
        self.forwarded.as_ref().map(|permit| permit.source).or(self.tcp.source)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let limits = &self.tcp.limits;
        let is_turned_away = self.tcp.is_turned_away.load(Ordering::Relaxed);
        let count = if is_turned_away { &limits.turned_away } else { &limits.web_sockets };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    fn limits(change: impl FnOnce(&mut ConnectionsConfig)) -> Arc<Limits> {
        let mut config = ConnectionsConfig::default();
        change(&mut config);
        Arc::new(Limits::new(config))
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let same = [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("127.0.0.1", "127.0.0.2", false),
            ("::1", "::2", false),
        ];
        for (a, b, expected) in same {
            assert_eq!(source(a) == source(b), expected, "{a} {b}");
        }
        assert_eq!(source("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(
            (source("::1").to_string(), source("10.0.0.1").to_string()),
            ("::1".into(), "10.0.0.1".into())
        );
        assert!(source("::1").is_loopback() && source("::ffff:127.0.0.1").is_loopback());
    }

    #[test]
    fn a_source_has_so_many_connections_and_gets_back_those_that_end() {
        let limits = limits(|config| config.per_address_max = 2);
        let a = limits.admit_address(source("2001:db8::1")).unwrap();
        let _b = limits.admit_address(source("2001:db8::2")).unwrap();
        assert_eq!(limits.admit_address(source("2001:db8::3")).unwrap_err(), Limit::Address);
        assert!(limits.admit_address(source("2001:db8:0:1::1")).is_ok(), "another network");
        let held: Vec<_> = (0..10).map(|_| limits.admit_address(source("::1"))).collect();
        assert!(held.iter().all(Result::is_ok), "loopback has a limit of its own");
        drop(a);
        assert!(limits.admit_address(source("2001:db8::3")).is_ok());
        drop((held, _b));
        assert!(limits.by_source.lock().is_empty());
        assert_eq!((limits.refused(Limit::Address), limits.refused(Limit::Rate)), (1, 0));
    }

    #[test]
    fn a_source_connects_so_often() {
        let limits = limits(|config| (config.connects_per_s, config.connects_burst) = (1, 3));
        let passed =
            |address: &str| (0..10).filter(|_| limits.admit_connect(source(address)).is_ok()).count();
        assert_eq!((passed("10.0.0.1"), passed("10.0.0.2"), passed("127.0.0.1")), (3, 3, 10));
        assert_eq!(limits.refused(Limit::Rate), 14);
    }

    #[test]
    fn there_are_so_many_connections_in_all() {
        let limits = limits(|config| (config.max, config.tcp_max) = (1, 2));
        let peer = Some(source("10.0.0.1"));
        let first = Arc::new(limits.admit_tcp(peer).unwrap());
        let second = Arc::new(limits.admit_tcp(None).unwrap());
        assert_eq!(limits.admit_tcp(peer).unwrap_err(), Limit::Tcp);
        let forwarded = Some(Arc::new(limits.admit_address(source("10.0.0.2")).unwrap()));
        let admission = limits.admit(first, None).unwrap();
        assert_eq!(limits.admit(Arc::clone(&second), forwarded.clone()).unwrap_err(), Limit::Full);
        assert_eq!(limits.admit_tcp(peer).unwrap_err(), Limit::Tcp, "a WebSocket keeps its place");
        assert_eq!(limits.by_source.lock().len(), 2);
        drop(admission);
        assert_eq!(limits.by_source.lock().len(), 1, "what was refused counts no longer");
        assert!(limits.admit_tcp(peer).is_ok() && limits.admit(second, forwarded).is_ok());
        assert_eq!(limits.tcp.load(Ordering::Acquire), 0);
        assert!(limits.by_source.lock().is_empty());
    }

    #[test]
    fn so_many_that_were_refused_are_told_at_once() {
        let limits = limits(|config| (config.max, config.tcp_max) = (1, 1_000));
        let beyond = || limits.admit_beyond(None, None);
        let mut told: Vec<_> = (0..TURNED_AWAY_MAX).map(|_| beyond().unwrap()).collect();
        assert!(beyond().is_none());
        assert_eq!(limits.tcp(), TURNED_AWAY_MAX, "they count as what they are");
        told.pop();
        assert!(beyond().is_some());
        let tcp = Arc::new(limits.admit_tcp(None).unwrap());
        assert!(limits.admit(tcp, None).is_ok(), "and take no place of those that are let in");
        drop(told);
        assert_eq!((limits.tcp(), limits.turned_away.load(Ordering::Acquire)), (0, 0));

        let full = Arc::new(Limits::new(ConnectionsConfig { tcp_max: 1, ..ConnectionsConfig::default() }));
        let tcp = full.admit_tcp(None).unwrap();
        assert!(full.admit_beyond(None, None).is_none());
        assert!(full.admit_beyond(Some(Arc::new(tcp)), None).is_some());
        assert_eq!(full.refused(Limit::Tcp), 0);
    }
}
