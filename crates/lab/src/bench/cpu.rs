//! Reads a process's CPU time, memory and limit on open files from `/proc`.

use std::fs;

use anyhow::{Context, ensure};

/// Ticks per second in `/proc/PID/stat`; Linux fixes it for user space.
const TICKS_PER_S: f64 = 100.0;

/// Open files that a process needs beside its sockets.
const SPARE_FILES: u64 = 64;

/// CPU time of a process over all of its threads, including those that ended.
///
/// The sum is exact to two ticks (20 ms), which limits how short a measured window may be; the split into
/// user and system time is the kernel's estimate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CpuTime {
    pub(super) user_s: f64,
    pub(super) system_s: f64,
}

impl CpuTime {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("no process {pid} to measure"))?;
        parse_stat(&text).with_context(|| format!("cannot read {path}"))
    }

    /// This process's own.
    pub(super) fn own() -> anyhow::Result<Self> {
        Self::of(std::process::id())
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s }
    }

    pub(super) fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Resident memory of a process.
pub(crate) fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("no process {pid} to measure"))?;
    parse_rss(&text).with_context(|| format!("cannot read VmRSS in {path}"))
}

/// Fails early, with a remedy, if this process or the server may not open that many sockets.
pub(super) fn ensure_open_files(connections: usize, server_pid: Option<u32>) -> anyhow::Result<()> {
    let wanted = connections as u64 + SPARE_FILES;
    let sides = [("this process", "self".to_owned())];
    let server = server_pid.map(|pid| ("the server", pid.to_string()));
    for (side, process) in sides.into_iter().chain(server) {
        let text = fs::read_to_string(format!("/proc/{process}/limits"))
            .with_context(|| format!("cannot read the limits of {side}"))?;
        let Some(limit) = parse_open_files(&text) else { continue };
        ensure!(
            limit >= wanted,
            "{side} may open {limit} files, but {connections} connections need {wanted}: raise it with `ulimit -n`"
        );
    }
    Ok(())
}

/// Reads `utime` and `stime`. The command name may contain spaces and brackets, so fields are counted from
/// the last bracket.
fn parse_stat(text: &str) -> Option<CpuTime> {
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(CpuTime { user_s: ticks()? as f64 / TICKS_PER_S, system_s: ticks()? as f64 / TICKS_PER_S })
}

fn parse_rss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The soft limit; `None` if it is unlimited or missing.
fn parse_open_files(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_hostile_command_name() {
        let text = "42 (a b) c) S 1 42 42 0 -1 4194304 100 0 0 0 150 275 9 9 20 0 4 0 94905 31 388 1";
        assert_eq!(parse_stat(text), Some(CpuTime { user_s: 1.5, system_s: 2.75 }));
        assert_eq!(parse_stat("42 (short) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn rss_is_read_in_bytes() {
        assert_eq!(parse_rss("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_rss("Name:\tx\n"), None);
    }

    #[test]
    fn the_soft_limit_on_open_files_counts() {
        let head = "Limit                     Soft Limit           Hard Limit           Units\n";
        let line = |soft: &str| format!("{head}Max open files            {soft}   524288   files\n");
        assert_eq!(parse_open_files(&line("1024")), Some(1024));
        assert_eq!(parse_open_files(&line("unlimited")), None);
    }

    #[test]
    fn too_many_connections_are_refused_with_a_remedy() {
        let error = ensure_open_files(usize::MAX / 4, None);
        assert!(error.is_err_and(|error| error.to_string().contains("ulimit -n")));
    }

    #[test]
    fn the_own_process_can_be_read() {
        assert!(CpuTime::own().is_ok());
        assert!(rss_bytes(std::process::id()).is_ok_and(|bytes| bytes > 0));
    }
}
