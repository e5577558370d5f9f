//! How many replicas must have a write before it counts.
//!
//! Keeps true: a reply that is no number counts as no replica. Zero replicas cost nothing.
//!
//! WAIT waits for the last write of its own connection. Since Redis 7.2 a script that changes nothing is no write, so
//! WAIT would return at once for a duplicate event. A small write therefore precedes each WAIT.

use std::time::Duration;

use redis::{Pipeline, Value};

/// The number of replicas; 0 turns the wait off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::durable::inbox) struct Replicas(pub(in crate::durable::inbox) u32);

impl Replicas {
    /// Adds commands that wait until the replicas have everything written before; none for zero replicas. `key` must be
    /// on this server and unused.
    pub(super) fn wait(self, commands: &mut Pipeline, key: &str, within: Duration) {
        if self.0 > 0 {
            commands.cmd("SET").arg(key).arg(1).arg("PX").arg(1000);
            // The limit is a constant here, far below 2^64 ms.
            commands.cmd("WAIT").arg(self.0).arg(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Takes the replies to [`Replicas::wait`] off the end. True if enough replicas have the writes.
    pub(super) fn have_writes(self, replies: &mut Vec<Value>) -> bool {
        if self.0 == 0 {
            return true;
        }
        let (count, written) = (replies.pop(), replies.pop());
        matches!((written, count), (Some(Value::Okay), Some(Value::Int(count))) if count >= i64::from(self.0))
    }
}
