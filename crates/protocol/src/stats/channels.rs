//! Counters of channels and their entries.

use super::Timing;
use super::table::counts;

counts! {
    /// Channels, and their entries.
    pub struct ChannelsView {
        /// Channels in use.
        active: usize = gauge("channels_active"),
        /// Views of events that somebody follows.
        views: usize = gauge("views"),
        /// Types of events of which somebody follows the channel or a view.
        followed_events: usize = gauge("followed_events"),
        /// Counters of the channels.
        #[serde(flatten)]
        counts: ChannelCounts = of,
    }

    /// What the channels of a node did since its start.
    pub struct ChannelCounts<N> {
        /// Entries accepted by the log.
        entries_accepted: N = counter("entries_accepted"),
        /// Entries refused because the storage was unavailable.
        entries_unavailable: N = counter("entries_unavailable"),
        /// Updates of orders that the log refused for good.
        entries_refused_by_reason: RefusedEntries<N> = of,
        /// Entries handed to shards, in order.
        entries_delivered: N = counter("entries_delivered"),
        /// Entries that left the log before this node saw them.
        entries_missed: N = counter("entries_missed"),
        /// Entries of followed channels that this build cannot show.
        entries_skipped_by_reason: SkippedEntries<N> = of,
        /// Appends sent to the storage.
        appends: N = counter("storage_appends"),
        /// Duration of the appends that the storage answered, each of up to 50 entries.
        append_duration: Timing<N> = histogram("append_seconds"),
        /// Storage calls (appends and reads) that failed and were repeated.
        storage_retries: N = counter("storage_retries"),
        /// Times that the log was read because entries were missing.
        holes_repaired: N = counter("holes_repaired"),
        /// Times that a log changed its epoch.
        epoch_changes: N = counter("epoch_changes"),
        /// Storage events dropped because their channel was busy; the log was read instead.
        echoes_dropped: N = counter("echoes_dropped"),
    }

    /// Updates of orders that the log refuses for good.
    pub struct RefusedEntries<N> {
        /// Updates of orders that were written under a lost lease.
        stale_lease: N = counter("entries_refused", reason = "stale_lease"),
        /// Updates after the last one of their order.
        order_ended: N = counter("entries_refused", reason = "order_ended"),
    }

    /// Entries that this build cannot show.
    pub struct SkippedEntries<N> {
        /// Entries of followed channels whose kind only a newer build knows.
        unknown_kind: N = counter("entries_skipped", reason = "unknown_kind"),
        /// Entries whose stored form is different or damaged, including data that is not a JSON object,
        /// which other programs may have written to the same Redis.
        unreadable: N = counter("entries_skipped", reason = "unreadable"),
    }

    /// Pages for clients that catch up or start with a snapshot.
    pub struct PageCounts<N> {
        /// Pages of logs, and of latest entries for snapshots, read for clients. A page that several
        /// clients need at about the same time is read once.
        replay_reads: N = counter("replay_reads"),
        /// Times that a reader got a page that was read for another one.
        replay_reads_shared: N = counter("replay_reads_shared"),
    }
}
