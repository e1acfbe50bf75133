//! A separate wall clock for a child process, adjustable while it runs: libfaketime, preloaded.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::process::Command;

use crate::dir::TempDir;

/// Folders that contain a `faketime` folder, directly or in one folder per architecture.
const ROOTS: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"];
/// The library for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A fault could not be run at all, so it showed nothing about the gateways.
#[derive(Debug)]
pub struct NotRun(&'static str);

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotRun {}

const MISSING: NotRun = NotRun("libfaketime is missing (Debian: apt-get install faketime)");

/// The wall clock of one child process. Its monotonic clock is unaffected, just as when the time of a machine
/// is set.
#[derive(Debug, Clone)]
pub struct WallClock {
    library: PathBuf,
    dir: Arc<TempDir>,
}

impl WallClock {
    /// A correct clock; fails with [`NotRun`] if the library is not installed.
    pub fn right() -> anyhow::Result<Self> {
        let library = ROOTS.iter().find_map(|root| find(Path::new(root))).ok_or(MISSING)?;
        let clock = Self { library, dir: Arc::new(TempDir::new()?) };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets the clock to so many seconds ahead of the real time. The child notices within a second.
    pub fn set(&self, ahead_s: i32) -> anyhow::Result<()> {
        // Replaced as a whole, since the child may read the file at any time.
        let new = self.dir.path().join("new");
        fs::write(&new, format!("{ahead_s:+}\n")).context("cannot set the clock of a process")?;
        fs::rename(new, self.file()).context("cannot set the clock of a process")
    }

    /// Makes a child process use this clock.
    pub fn give_to(&self, command: &mut Command) {
        // An allocator that asks for the time while it initializes (that of redis-server does) would call the
        // library, which allocates. Loading libc first breaks that loop.
        command.env("LD_PRELOAD", format!("{} libc.so.6", self.library.display()));
        command.env("FAKETIME_TIMESTAMP_FILE", self.file());
        // Reading the file at each call would slow the process down.
        command.env("FAKETIME_CACHE_DURATION", "1");
        // Versions of the library use one or the other name.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        command.env("NO_FAKE_STAT", "1");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }
}

/// Removes the shared memory and semaphore that the library leaves behind when a process is killed.
pub fn forget(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // Usually there is none.
        let _left = fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

fn find(root: &Path) -> Option<PathBuf> {
    let here = root.join(LIBRARY);
    if here.is_file() {
        return Some(here);
    }
    let folders = fs::read_dir(root).ok()?;
    folders.filter_map(Result::ok).map(|folder| folder.path().join(LIBRARY)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_in_its_folder() {
        let dir = TempDir::new().unwrap();
        assert_eq!(find(dir.path()), None);
        let library = dir.path().join("some-arch").join(LIBRARY);
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        fs::write(&library, "").unwrap();
        assert_eq!(find(dir.path()), Some(library));
    }

    #[test]
    fn a_clock_is_set_by_an_offset() {
        let clock = WallClock { library: PathBuf::new(), dir: Arc::new(TempDir::new().unwrap()) };
        for (ahead_s, text) in [(0, "+0\n"), (3600, "+3600\n"), (-3600, "-3600\n")] {
            clock.set(ahead_s).unwrap();
            assert_eq!(fs::read_to_string(clock.file()).unwrap(), text);
        }
    }
}
