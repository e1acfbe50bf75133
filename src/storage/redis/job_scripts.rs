//! The Lua scripts of the jobs role, which are in `lua/jobs/`. All get the same keys, in the order of [`KEYS`].
//!
//! Times, places and tokens are microseconds since 1970 by the server's clock. Places and tokens
//! never stand still or go back: each is at least one more than the one before it.
//!
//! A server that is out of memory refuses a script's first write if it adds something, and nothing
//! after it. So no script is half done; and those that end or extend a run remove before they add,
//! so that what would free memory is not refused.
//!
//! A build that knows neither attempts nor kinds keeps what stands behind the place as it found it,
//! since it takes it for an error, which it shows of dead letters alone.

use std::sync::LazyLock;

use super::scripts::Script;

/// What follows `<prefix>:{jobs}:` in the names of the keys.
pub(super) const KEYS: [&str; 15] = [
    "fixed", "parts", "keys", "key-ages", "ready", "delayed", "leases", "ended", "ages", "meta", "waiting",
    "delays", "claimed", "done", "dead",
];

const JOBS: &str = include_str!("lua/jobs/jobs.lua");
const TIDY: &str = include_str!("lua/jobs/tidy.lua");

/// One that also does what is due by the time alone.
fn tidying(text: &str) -> Script {
    Script::new(&[JOBS, TIDY, text])
}

/// One that does nothing besides.
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
