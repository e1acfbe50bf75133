//! Counters of the feeds of exchanges.

use std::collections::BTreeMap;

use super::table::counts;
use super::{Metric, Metrics};
use crate::open::words;

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
        /// The adapter that the feed uses.
        kind: String,
        /// `standby` (another process has the lease, or none can get it), `connecting`, `connected` or
        /// `waiting`.
        state: String,
        /// Why it is in that state, or what is wrong with its lease; empty if all is well.
        reason: String,
        /// 1 while this process runs the feed and is connected, otherwise 0.
        connected: u64 = gauge("exchange_connected"),
        /// Counters of the feed.
        #[serde(flatten)]
        counts: FeedCounts = of,
    }

    /// What the feed of an exchange did since the start of the process.
    pub struct FeedCounts<N> {
        /// Frames received from exchanges.
        frames: N = counter("exchange_frames"),
        /// Requests to exchanges that ended, with an answer or without.
        requests: N = counter("exchange_requests"),
        /// Events and prices of exchanges that were published.
        events: N = counter("exchange_events"),
        /// Frames, rows and events of exchanges that did not have the documented form and were ignored.
        malformed: N = counter("exchange_malformed"),
        /// Times that changes of a book were missing, and a new snapshot was requested.
        gaps: N = counter("exchange_gaps"),
        /// Trades that were missed, and that the exchange does not repeat.
        trades_missed: N = counter("exchange_trades_missed"),
        /// Subscriptions and requests that an exchange refused or did not answer.
        refused: N = counter("exchange_refused"),
        /// Times that a connection to an exchange was lost or could not be made.
        reconnects: N = counter("exchange_reconnects"),
        /// Events and prices that their channels did not accept.
        unpublished: N = counter("exchange_unpublished"),
        /// Times that a lease could not be renewed at the first try.
        lease_failures: N = counter("exchange_lease_failures"),
        /// Times that a lease was lost, and the feed stopped here.
        leases_lost: N = counter("exchange_leases_lost"),
    }
}

words! {
    /// The state of a feed.
    pub enum FeedState {
        /// Another process has the lease, or none can get it.
        Standby = "standby",
        /// It is connecting.
        Connecting = "connecting",
        /// The exchange has acknowledged everything that the feed asked for.
        Connected = "connected",
        /// It waits before it reconnects.
        Waiting = "waiting",
    }
}
