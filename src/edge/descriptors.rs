//! The files that the process may have open: every connection is one.
//!
//! Keeps true: the process has as many as it may have, and says at its start if those are too few, not when connections fail.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection_limit::MAX_TURNED_AWAY;

/// Raises the limit as far as the system lets it be raised, and warns where that is not enough for so many connections.
pub fn raise(max_connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // No number is no limit.
    let limit = if raised.is_ok() { maximum } else { current }.unwrap_or(u64::MAX);
    let wanted = max_connections.saturating_add(MAX_TURNED_AWAY + OWN_FILES) as u64;
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            "edge.max_connections needs more open files than this process may have, so connections will wait before it is \
             reached; raise the limit (ulimit -n, LimitNOFILE=) or lower edge.max_connections"
        );
    }
}

/// The store, the reject log, connections to the queue, the admin listener's.
const OWN_FILES: usize = 256;
