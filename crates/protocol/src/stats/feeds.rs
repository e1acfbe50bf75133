//! What is counted of the feeds of exchanges.

use std::collections::BTreeMap;

use super::table::counts;
use super::{Metric, Metrics};

impl Metrics for BTreeMap<String, FeedView> {
    fn tell(&self, to: &mut dyn FnMut(Metric<'_>)) {
        for (name, exchange) in self {
            exchange.tell(&mut |metric| to(Metric { label: Some(("exchange", name)), ..metric }));
        }
    }
}

counts! {
    /// A feed of an exchange.
    pub struct FeedView {
        /// What it speaks.
        kind: String,
        /// `standby` (another process has it, or nobody may), `connecting`, `connected` or `waiting`.
        state: String,
        /// Why it is in that state, or what is wrong with its lease; empty where all is well.
        reason: String,
        /// 1 while this process has the feed and is connected, else 0.
        connected: u64 = gauge("exchange_connected"),
        /// What it did.
        #[serde(flatten)]
        counts: FeedCounts = of,
    }

    /// What the feed of an exchange did since the start of the process.
    pub struct FeedCounts<N> {
        /// Frames that came from exchanges.
        frames: N = counter("exchange_frames"),
        /// Requests to exchanges that ended, with an answer or without.
        requests: N = counter("exchange_requests"),
        /// Events and prices of exchanges that were published.
        events: N = counter("exchange_events"),
        /// Frames, rows and events of exchanges that were not of the documented shape, and were left out.
        malformed: N = counter("exchange_malformed"),
        /// Times that changes of a book were missing, and a fresh snapshot was asked for.
        gaps: N = counter("exchange_gaps"),
        /// Trades that were missed, and that the exchange does not give again.
        trades_missed: N = counter("exchange_trades_missed"),
        /// Subscriptions and requests that an exchange refused or did not answer.
        refused: N = counter("exchange_refused"),
        /// Times that a connection to an exchange was lost, or did not come about.
        reconnects: N = counter("exchange_reconnects"),
        /// Events and prices that the channels did not take.
        unpublished: N = counter("exchange_unpublished"),
        /// Times that a lease could not be renewed at once.
        lease_failures: N = counter("exchange_lease_failures"),
        /// Times that a lease was lost, and the feed stopped here.
        leases_lost: N = counter("exchange_leases_lost"),
    }
}

/// How a feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedState {
    /// Another process has it, or nobody may.
    Standby,
    /// It connects.
    Connecting,
    /// Everything that it asked for was acknowledged.
    Connected,
    /// It waits before it connects again.
    Waiting,
}

impl FeedState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Waiting => "waiting",
        }
    }
}
