//! What the channels count.

use crate::support::counter::Counter;

/// Counters of the channels, since the start.
#[derive(Debug, Default)]
pub(crate) struct ChannelStats {
    /// Entries acknowledged by the log.
    pub(crate) accepted: Counter,
    /// Entries that were refused because the storage did not take them.
    pub(crate) unavailable: Counter,
    /// Entries that the log refused because they were written under a lease that was lost.
    pub(crate) refused_stale: Counter,
    /// Entries that the log refused because it had come to its end.
    pub(crate) refused_closed: Counter,
    /// Appends sent to the storage.
    pub(crate) appends: Counter,
    /// Appends and reads that failed and were tried again.
    pub(crate) retries: Counter,
    /// Entries handed to shards in order.
    pub(crate) delivered: Counter,
    /// Times that the log was read because an entry was missing.
    pub(crate) holes: Counter,
    /// Entries that left the log before this node saw them.
    pub(crate) missed: Counter,
    /// Entries that this build cannot show because their kind is unknown to it.
    pub(crate) skipped_unknown: Counter,
    /// Entries that this build cannot show because their stored form is not readable.
    pub(crate) skipped_unreadable: Counter,
    /// Times that a log began a new life.
    pub(crate) epoch_changes: Counter,
    /// Pages read from the storage for readers that catch up.
    pub(crate) pages_read: Counter,
    /// Times that a reader was given a page that was read for another one.
    pub(crate) pages_shared: Counter,
    /// Echoes let go because a channel was busy; the log was read instead.
    pub(crate) echoes_dropped: Counter,
}
