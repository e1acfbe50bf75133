//! The Lua scripts of the jobs role, in `lua/jobs/`. All get the same keys, in the order of [`KEYS`].
//!
//! Times, places and tokens are microseconds since 1970 by the server's clock. Places and tokens always grow:
//! each is at least one more than the one before it.
//!
//! A server that is out of memory refuses a script's first write if that adds something, and no later write.
//! So no script is half done; and scripts that end or extend a run remove before they add, so that a call
//! that would free memory is not refused.
//!
//! A build that does not know attempts and kinds takes what follows the place for an error, which it shows
//! only for dead letters, and keeps it unchanged.

use std::sync::LazyLock;

use super::scripts::Script;

/// The part of each key's name after `<prefix>:{jobs}:`.
pub(super) const KEYS: [&str; 15] = [
    "fixed", "parts", "keys", "key-ages", "ready", "delayed", "leases", "ended", "ages", "meta", "waiting",
    "delays", "claimed", "done", "dead",
];

const JOBS: &str = include_str!("lua/jobs/jobs.lua");
const TIDY: &str = include_str!("lua/jobs/tidy.lua");

/// A script that also performs changes that are due.
fn tidying(text: &str) -> Script {
    Script::new(&[JOBS, TIDY, text])
}

/// A script that does nothing else.
fn plain(text: &str) -> Script {
    Script::new(&[JOBS, text])
}

pub(super) static ENQUEUE: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/enqueue.lua")));
pub(super) static RECORD: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/record.lua")));
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/claim.lua")));
pub(super) static HOLD: LazyLock<Script> = LazyLock::new(|| plain(include_str!("lua/jobs/hold.lua")));
pub(super) static FINISH: LazyLock<Script> = LazyLock::new(|| plain(include_str!("lua/jobs/finish.lua")));
pub(super) static CANCEL: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/cancel.lua")));
pub(super) static JOB: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/job.lua")));
pub(super) static LIST: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/list.lua")));
pub(super) static SETTLE: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/settle.lua")));
pub(super) static COUNTS: LazyLock<Script> = LazyLock::new(|| tidying(include_str!("lua/jobs/counts.lua")));
