//! What the system lets this process have.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Files that this process may have open at once, sockets among them; `None` where there is no bound.
pub(crate) fn open_files() -> Option<usize> {
    getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok())
}

/// What the system says of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Process {
    /// CPU time, in seconds.
    pub(crate) cpu_s: f64,
    /// Memory that is in the machine's, in bytes.
    pub(crate) resident_bytes: u64,
    /// Files that are open, sockets among them.
    pub(crate) open_files: u64,
    /// When it began, in seconds since 1970.
    pub(crate) started_s: f64,
}

/// How it stands now; `None` where the system does not say so as Linux does (proc(5)).
pub(crate) fn process() -> Option<Process> {
    let (ticks_per_s, page_bytes) = (clock_ticks_per_second() as f64, page_size() as u64);
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold spaces; what follows it begins with field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Process {
        cpu_s: (field(14)? + field(15)?) as f64 / ticks_per_s,
        resident_bytes: field(24)? * page_bytes,
        // The one that lists them is open too.
        open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
        started_s: booted as f64 + field(22)? as f64 / ticks_per_s,
    })
}
