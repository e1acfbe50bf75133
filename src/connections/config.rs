//! The settings of connections.

use crate::support::checks::Finding;
use crate::support::settings;

settings! {
    /// `[connections]`
    #[derive(Debug)]
    pub struct ConnectionsConfig in "connections" {
        /// Connections in all; further ones are closed with 4005, or answered with 503. The process' limit on
        /// open files (`ulimit -n`) bounds them too. Default 20,000.
        pub max: usize [1..] = 20_000,
        /// TCP connections in all, including WebSockets; further ones are served only if they ask for health
        /// or metrics. 0 = 1,000 more than `max`, or as many as the limit on open files permits, which bounds
        /// every other number too. Default 0.
        pub tcp_max: usize = 0,
        /// Connections from one address, or from one IPv6 network of 64 bits. Default 1,000.
        pub per_address_max: usize [1..] = 1_000,
        /// Connections from one loopback address. Default 20,000.
        pub per_loopback_address_max: usize [1..] = 20_000,
        /// How often an address, or an IPv6 network of 64 bits, may connect, per second on average. 0 =
        /// unlimited. Default 100.
        pub connects_per_s: u32 = 100,
        /// How often it may connect at once. Default 500.
        pub connects_burst: u32 [1..] = 500,
        /// How often a loopback address may connect, per second on average. 0 = unlimited. Default 0.
        pub loopback_connects_per_s: u32 = 0,
        /// The interval between `heartbeat` messages and protocol pings, in seconds. Default 30.
        pub heartbeat_interval_s: u64 [1..] = 30,
        /// After how long a silent connection is closed, in seconds; more than `heartbeat_interval_s`.
        /// Default 75.
        pub silence_timeout_s: u64 = 75,
        /// The most subscriptions of a connection, and channels in one request. Default 128.
        pub subscriptions_max: usize [1..] = 128,
        /// The largest message that a client may send, in bytes. Default 65,536.
        pub message_bytes_max: usize [1..] = 65_536,
        /// The most frames that wait for a slow client, not counting those that a newer one may replace; with
        /// more, the connection is closed with 4001. At least 200. Default 256.
        pub outbox_frames_max: usize [OUTBOX_FRAMES_MIN..] = 256,
        /// The most bytes that wait for a slow client; with more, the connection is closed with 4001. Default
        /// 1 MiB (1,048,576).
        pub outbox_bytes_max: usize [1..] = 1 << 20,
        /// Connections that may lag for a second or more, in all; beyond that, the one that has lagged
        /// longest is closed with 4001. 0 = unlimited. Default 0.
        pub behind_max: usize = 0,
        /// The same for one address, or one IPv6 network of 64 bits. 0 = unlimited. Default 0.
        pub behind_per_address_max: usize = 0,
        /// Entries read at once for a connection that resumes. Default 300.
        pub replay_page_entries: usize [1..] = 300,
        /// Live entries held back while a connection catches up; beyond that they are dropped and read from
        /// the log again. Default 1,024.
        pub hold_entries_max: usize [1..] = 1_024,
        /// Messages that a client may send, per second on average, before its connection is closed with 4004;
        /// each channel that it subscribes to counts as one. A client that unsubscribes from more channels
        /// than that is read more slowly. 0 = unlimited. Default 50.
        pub messages_per_s: u32 = 50,
        /// Messages that a client may send at once. Default 200.
        pub messages_burst: u32 [1..] = 200,
        /// How long a client may take to answer a close frame, in milliseconds. 0 closes without
        /// waiting. Default 5,000.
        pub close_grace_ms: u64 = 5_000,
        /// How long a connection that was opened on an order, or another connection's subscription to it,
        /// stays after the order's last update was sent, in milliseconds, to within a second. Default 5,000.
        pub order_linger_ms: u64 = 5_000,
    }
}

/// Entries come in batches of up to 50, and a client must be able to lag by several batches.
const OUTBOX_FRAMES_MIN: usize = 200;

/// TCP connections in addition to WebSockets, unless configured.
const TCP_BESIDES: usize = 1_000;

impl ConnectionsConfig {
    /// The bound on TCP connections of a process that has `files` file descriptors for them.
    pub(crate) fn tcp_max_within(&self, files: Option<usize>) -> usize {
        let wanted = if self.tcp_max == 0 { self.max.saturating_add(TCP_BESIDES) } else { self.tcp_max };
        files.map_or(wanted, |files| wanted.min(files)).max(1)
    }

    /// The invalid settings.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = self.check_ranges();
        checks.require("silence_timeout_s", self.silence_timeout_s > self.heartbeat_interval_s, || {
            format!(
                "expected more than connections.heartbeat_interval_s ({}), found {}",
                self.heartbeat_interval_s, self.silence_timeout_s
            )
        });
        checks.finish()
    }
}
