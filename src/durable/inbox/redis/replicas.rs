//! How many replicas must have a write before it counts.
//!
//! Keeps true: a reply that is not a number says that none has it; asking for none costs nothing. WAIT waits for what its own
//! connection wrote last, and since Redis 7.2 a script that changes nothing is no write: for an event that is known already
//! it would be answered at once. So each is led by a small write.

use std::time::Duration;

use redis::{Pipeline, Value};

/// That many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::durable::inbox) struct Replicas(pub(in crate::durable::inbox) u32);

impl Replicas {
    /// Adds the commands that wait until they have all that the commands before wrote; none if there is nothing to wait
    /// for. `key` is one that the server has, and nobody else uses.
    pub(super) fn wait(self, commands: &mut Pipeline, key: &str, within: Duration) {
        if self.0 > 0 {
            commands.cmd("SET").arg(key).arg(1).arg("PX").arg(1000);
            // The limit is a constant here, far below 2^64 ms.
            commands.cmd("WAIT").arg(self.0).arg(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Takes the replies to [`Replicas::wait`] off the end: whether they have it.
    pub(super) fn have_it(self, replies: &mut Vec<Value>) -> bool {
        if self.0 == 0 {
            return true;
        }
        let (count, written) = (replies.pop(), replies.pop());
        matches!((written, count), (Some(Value::Okay), Some(Value::Int(count))) if count >= i64::from(self.0))
    }
}
