//! What a source's series count of an event that was handed over.
//!
//! Keeps true: each hand-over is counted once, by the future that makes it; one that outlives its request counts as any other.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use crate::base::clock::Clock;
use crate::durable::inbox::Enqueued;
use crate::request::source::Source;

/// What has to be known of an event to count it.
pub(super) struct Counts {
    /// The source that it came from.
    pub(super) source: Arc<Source>,
    /// When its request arrived. A request that was kept in the quarantine arrived long before the hand-over.
    pub(super) received: Timestamp,
    /// The time of the hand-over.
    pub(super) clock: Clock,
    /// Its canonical type.
    pub(super) kind: Cow<'static, str>,
    /// The scope of its sequence number, and the number.
    pub(super) sequence: Option<(String, u64)>,
    /// Its body is no JSON object.
    pub(super) unreadable: bool,
}

impl Counts {
    /// Counts what the hand-over came to.
    pub(super) fn count(self, verdict: &Enqueued) {
        let metrics = &self.source.metrics;
        match verdict {
            Enqueued::Accepted { conflict, .. } => {
                metrics.event(&self.kind);
                metrics.conflicts.inc_by((*conflict).into());
                metrics.unreadable.inc_by(self.unreadable.into());
                let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
                metrics.accepted_at(seconds(self.received), seconds(self.clock.now()));
                if let Some((scope, number)) = self.sequence {
                    metrics.sequence_gaps.inc_by(self.source.memory.skipped(scope, number));
                }
            }
            Enqueued::Duplicate { dropped, .. } => metrics.conflicts.inc_by((*dropped).into()),
        }
    }
}
