//! How many files, and so sockets, this process may have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and gives how many that are; `None` without a limit.
///
/// The soft one is 1024 on many machines, for programs that use `select`; nothing here does.
/// Source: <https://0pointer.net/blog/file-descriptor-limits.html>.
///
/// # Errors
///
/// When the system refuses; the soft limit is then as it was.
pub fn raise_limit() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}
