//! The limit of open files. Every connection is one open file.
//!
//! Keeps true: the limit is raised as far as the system allows, and a limit that is too low is reported at the start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection_limit::MAX_REFUSING;

/// Raises the limit to its maximum, and warns if that is too low for `max_connections`.
pub fn raise(max_connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // None means unlimited.
    let limit = if raised.is_ok() { maximum } else { current }.unwrap_or(u64::MAX);
    let wanted = max_connections.saturating_add(MAX_REFUSING + OWN_FILES) as u64;
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            "edge.max_connections needs more open files than this process may have, so connections will wait before it is \
             reached; raise the limit (ulimit -n, LimitNOFILE=) or lower edge.max_connections"
        );
    }
}

/// Files for the store, the reject log, the queue connections and the admin listener.
const OWN_FILES: usize = 256;
