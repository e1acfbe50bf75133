//! Who is told what this node accepted, without asking.

use std::fmt;

use crate::model::DraftEntry;

/// Is told of entries when the log of their channel has them, or what waits for it: of those that publishers
/// gave this node, each once, and in each channel in their order. Must not wait.
pub(crate) trait TellAccepted: fmt::Debug + Send + Sync {
    /// These were accepted.
    fn accepted(&self, entries: &[DraftEntry]);
}
