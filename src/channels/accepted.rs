//! Notification about what this node accepted.

use std::fmt;

use crate::model::DraftEntry;

/// Is notified of the entries that publishers sent to this node, once their log has them, or the journal
/// does: of each entry once, in order within a channel. Must not wait.
pub(crate) trait TellAccepted: fmt::Debug + Send + Sync {
    /// These entries were accepted.
    fn accepted(&self, entries: &[DraftEntry]);
}
