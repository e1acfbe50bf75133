//! The operating system's limits on this process, and its numbers about it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// How many files this process may have open at once, including sockets; `None` without a limit.
pub(crate) fn open_files() -> Option<usize> {
    getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok())
}

/// The operating system's numbers about this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Process {
    /// CPU time, in seconds.
    pub(crate) cpu_s: f64,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
    /// Open files, including sockets.
    pub(crate) open_files: u64,
    /// When it started, in seconds since 1970.
    pub(crate) started_s: f64,
}

/// The current numbers; `None` on systems without Linux' `/proc` (proc(5)).
pub(crate) fn process() -> Option<Process> {
    let (ticks_per_s, page_bytes) = (clock_ticks_per_second() as f64, page_size() as u64);
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in parentheses, may contain spaces; after it comes field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Process {
        cpu_s: (field(14)? + field(15)?) as f64 / ticks_per_s,
        resident_bytes: field(24)? * page_bytes,
        // Without the descriptor that is open for listing them.
        open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
        started_s: booted as f64 + field(22)? as f64 / ticks_per_s,
    })
}
