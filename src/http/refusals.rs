//! Counts refused requests, and logs which setting would admit them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::protocol::ProblemCode;
use crate::support::seldom::Seldom;

/// Texts that a client chose are cut to this length in the log, in characters.
const SAID_MAX: usize = 128;

/// Counts requests that are answered with a problem, and logs the relevant setting for some of them.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// By the code of the problem.
    by_code: Mutex<BTreeMap<ProblemCode, u64>>,
    hosts: Mutex<Seldom>,
    origins: Mutex<Seldom>,
}

impl Refusals {
    pub(super) fn add(&self, code: ProblemCode) {
        *self.by_code.lock().entry(code).or_default() += 1;
    }

    /// The counts by code.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let always = [ProblemCode::OriginNotAllowed, ProblemCode::UnknownHost];
        let mut counts = BTreeMap::from(always.map(|code| (code.as_str().to_owned(), 0)));
        counts.extend(self.by_code.lock().iter().map(|(code, count)| (code.as_str().to_owned(), *count)));
        counts
    }

    /// A request for a host that the gateway does not serve.
    pub(super) fn log_host(&self, host: &str, peer: Option<IpAddr>) {
        if let Some(untold) = self.hosts.lock().may_tell(Instant::now()) {
            let (refused, host, peer) = (untold + 1, cut(host), peer.map(|peer| peer.to_string()));
            let setting = "http.hosts, or http.public_url";
            warn!(refused, host, peer.addr = peer, setting, "refused requests for an unknown host");
        }
    }

    /// A request from a page that may not use the gateway.
    pub(super) fn log_origin(&self, origin: &str, host: Option<&str>, peer: Option<IpAddr>) {
        if let Some(untold) = self.origins.lock().may_tell(Instant::now()) {
            let (refused, origin, host) = (untold + 1, cut(origin), host.map(cut));
            let peer = peer.map(|peer| peer.to_string());
            let setting = "http.origins; or http.public_url, if it is the gateway's own page behind a proxy";
            warn!(
                refused,
                origin,
                host,
                peer.addr = peer,
                setting,
                "refused requests from pages of another origin"
            );
        }
    }
}

fn cut(said: &str) -> String {
    said.chars().take(SAID_MAX).collect()
}
