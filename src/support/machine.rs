//! What the system lets this process have.

use rustix::process::{Resource, getrlimit};

/// Files that this process may have open at once, sockets among them; `None` where there is no bound.
pub(crate) fn open_files() -> Option<usize> {
    getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok())
}
