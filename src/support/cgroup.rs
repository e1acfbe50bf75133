//! The memory limit of this process.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory that this process may use: the machine's, or the limit of its cgroup (version 2 or 1) or
/// one above it, whichever is least. `None` if unknown. `root` is `/`, except in tests.
pub(crate) fn memory(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_files(line, root)).flatten();
    let limits = limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain(of_the_machine(root)).min()
}

/// The files with the limits of a group and of all groups above it, from a line such as `0::/user.slice`
/// (version 2) or `4:memory:/docker/1f` (version 1). In a container the path may be one on the host; then
/// the topmost group is the container's own.
fn group_files(line: &str, root: &Path) -> Option<Vec<PathBuf>> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (mount, file) = if number == "0" && controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    let path = Path::new(path.trim_start_matches('/'));
    Some(path.ancestors().map(|group| root.join(mount).join(group).join(file)).collect())
}

fn of_the_machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        memory(dir.path())
    }

    #[test]
    fn the_least_of_all_that_is_said_counts() {
        const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        1024 kB\nMemFree:  1 kB\n");
        const V2: (&str, &str) = ("proc/self/cgroup", "0::/a/b\n");
        const V1: (&str, &str) = ("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/docker/1f\n0::/\n");
        type Files<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Files<'_>, Option<u64>); 8] = [
            (&[], None),
            (&[MACHINE], Some(1 << 20)),
            (&[MACHINE, V2, ("sys/fs/cgroup/a/b/memory.max", "max\n")], Some(1 << 20)),
            (&[MACHINE, V2, ("sys/fs/cgroup/a/b/memory.max", "4096\n")], Some(4096)),
            // The group above is stricter.
            (
                &[V2, ("sys/fs/cgroup/a/b/memory.max", "4096\n"), ("sys/fs/cgroup/a/memory.max", "2048\n")],
                Some(2048),
            ),
            // In a container that sees its own group at the top.
            (&[MACHINE, V2, ("sys/fs/cgroup/memory.max", "8192\n")], Some(8192)),
            (&[MACHINE, V1, ("sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes", "512\n")], Some(512)),
            (
                &[MACHINE, V1, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")],
                Some(1 << 20),
            ),
        ];
        for (files, expected) in cases {
            assert_eq!(said(files), expected, "{files:?}");
        }
    }

    #[test]
    fn this_process_may_use_some() {
        assert!(memory(Path::new("/")).is_none_or(|bytes| bytes > 1 << 20));
    }
}
