//! What can be configured about connections.

use serde::{Deserialize, Serialize};

use crate::support::checks::{Checks, Finding};

/// `[connections]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsConfig {
    /// Connections in all; one more is closed with 4005, or answered with 503. The limit of open files of the process
    /// (`ulimit -n`) bounds them too. Default 20,000.
    pub max: usize,
    /// TCP connections in all, WebSockets among them; of more, only those are served that ask for
    /// health or metrics. 0 = 1,000 more than `max`, or as many as the limit of open files leaves
    /// room for, which bounds every other number too. Default 0.
    pub tcp_max: usize,
    /// Connections from one address, or from one IPv6 network of 64 bits. Default 1,000.
    pub per_address_max: usize,
    /// Connections from one loopback address. Default 20,000.
    pub per_loopback_address_max: usize,
    /// How often an address, or an IPv6 network of 64 bits, may connect, per second in the long run.
    /// 0 = unlimited. Default 100.
    pub connects_per_s: u32,
    /// How often it may connect at once. Default 500.
    pub connects_burst: u32,
    /// How often a loopback address may connect, per second in the long run. 0 = unlimited. Default 0.
    pub loopback_connects_per_s: u32,
    /// How often `heartbeat` and a protocol ping are sent, in seconds. Default 30.
    pub heartbeat_interval_s: u64,
    /// After how long without a sign of life a connection is closed, in seconds; more than
    /// `heartbeat_interval_s`. Default 75.
    pub silence_timeout_s: u64,
    /// Subscriptions per connection, and channels that one request names. Default 128.
    pub subscriptions_max: usize,
    /// The largest message that a client may send, in bytes. Default 65,536.
    pub message_bytes_max: usize,
    /// Frames that wait for a slow reader, not counting those that a newer one may replace; at one
    /// more the connection is closed with 4001. At least 200. Default 256.
    pub outbox_frames_max: usize,
    /// Bytes that wait for a slow reader; past them the connection is closed with 4001. Default 1 MiB (1,048,576).
    pub outbox_bytes_max: usize,
    /// Connections whose clients do not take what they are sent as fast as it comes, for a second or more, in
    /// all; past it the one that has been so for longest is closed with 4001. 0 = unlimited. Default 0.
    pub behind_max: usize,
    /// The same of one address, or of one IPv6 network of 64 bits. 0 = unlimited. Default 0.
    pub behind_per_address_max: usize,
    /// Entries that are read at once for a connection that resumes. Default 300.
    pub replay_page_entries: usize,
    /// Live entries that are held back while a connection resumes; when it overflows they are
    /// dropped, and read again. Default 1,024.
    pub hold_entries_max: usize,
    /// Messages per second that a client may send, in the long run, before it is closed with 4004; each
    /// channel that it subscribes to counts as one. One that unsubscribes from more channels than that is read more slowly.
    /// 0 = unlimited. Default 50.
    pub messages_per_s: u32,
    /// Messages that a client may send at once. Default 200.
    pub messages_burst: u32,
    /// How long a client may take to answer a close frame, in milliseconds. 0 closes without
    /// waiting. Default 5,000.
    pub close_grace_ms: u64,
    /// How long a connection that was opened on an order, or a subscription to it on another one, stays after
    /// the order's last update has been sent, in milliseconds, to within a second. Default 5,000.
    pub order_linger_ms: u64,
}

/// Entries come in batches of up to 50; a reader must be able to fall behind by several of them.
const OUTBOX_FRAMES_MIN: usize = 200;

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max: 20_000,
            tcp_max: 0,
            per_address_max: 1_000,
            per_loopback_address_max: 20_000,
            connects_per_s: 100,
            connects_burst: 500,
            loopback_connects_per_s: 0,
            heartbeat_interval_s: 30,
            silence_timeout_s: 75,
            subscriptions_max: 128,
            message_bytes_max: 65_536,
            outbox_frames_max: 256,
            outbox_bytes_max: 1 << 20,
            behind_max: 0,
            behind_per_address_max: 0,
            replay_page_entries: 300,
            hold_entries_max: 1_024,
            messages_per_s: 50,
            messages_burst: 200,
            close_grace_ms: 5_000,
            order_linger_ms: 5_000,
        }
    }
}

/// TCP connections besides WebSockets, where nobody says how many.
const TCP_BESIDES: usize = 1_000;

impl ConnectionsConfig {
    /// The bound on TCP connections, where the process may have `files` for them.
    pub(crate) fn tcp_max_within(&self, files: Option<usize>) -> usize {
        let wanted = if self.tcp_max == 0 { self.max.saturating_add(TCP_BESIDES) } else { self.tcp_max };
        files.map_or(wanted, |files| wanted.min(files)).max(1)
    }

    /// What cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = Checks::of("connections");
        checks.at_least_1("max", self.max);
        checks.at_least_1("connects_burst", self.connects_burst);
        checks.at_least_1("per_address_max", self.per_address_max);
        checks.at_least_1("per_loopback_address_max", self.per_loopback_address_max);
        checks.at_least_1("heartbeat_interval_s", self.heartbeat_interval_s);
        checks.at_least_1("subscriptions_max", self.subscriptions_max);
        checks.at_least_1("messages_burst", self.messages_burst);
        checks.at_least_1("message_bytes_max", self.message_bytes_max);
        checks.require("outbox_frames_max", self.outbox_frames_max >= OUTBOX_FRAMES_MIN, || {
            format!("expected at least {OUTBOX_FRAMES_MIN}, found {}", self.outbox_frames_max)
        });
        checks.at_least_1("outbox_bytes_max", self.outbox_bytes_max);
        checks.at_least_1("replay_page_entries", self.replay_page_entries);
        checks.at_least_1("hold_entries_max", self.hold_entries_max);
        checks.require("silence_timeout_s", self.silence_timeout_s > self.heartbeat_interval_s, || {
            format!(
                "expected more than connections.heartbeat_interval_s ({}), found {}",
                self.heartbeat_interval_s, self.silence_timeout_s
            )
        });
        checks.finish()
    }
}
