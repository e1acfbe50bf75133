//! Notification about what this node accepted.

use std::fmt;

use crate::model::DraftEntry;

/// Notified of entries when the log of their channel has them, or the journal does: of those that
/// publishers sent to this node, each once, and in order within each channel. Must not wait.
pub(crate) trait TellAccepted: fmt::Debug + Send + Sync {
    /// These entries were accepted.
    fn accepted(&self, entries: &[DraftEntry]);
}
