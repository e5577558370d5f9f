//! Counts an enqueued event in its source's series.
//!
//! Keeps true: the future that enqueues an event also counts it, once, even if it outlives the request.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use crate::base::clock::Clock;
use crate::durable::inbox::Enqueued;
use crate::durable::reconcile::Sequences;
use crate::request::source::Source;

/// The data to count one event.
pub(super) struct EventCounts {
    pub(super) source: Arc<Source>,
    /// When its request arrived. A quarantined request arrived long before the enqueue. None: no request brought it.
    pub(super) received: Option<Timestamp>,
    /// Gives the time of the enqueue.
    pub(super) clock: Clock,
    /// The canonical event type.
    pub(super) kind: Cow<'static, str>,
    /// The scope of its sequence number, and the number.
    pub(super) sequence: Option<(String, u64)>,
    /// Keeps the numbers over restarts.
    pub(super) sequences: Arc<Sequences>,
    /// Whether its body is not a JSON object.
    pub(super) unreadable: bool,
}

impl EventCounts {
    pub(super) fn count(self, enqueued: &Enqueued) {
        let metrics = &self.source.metrics;
        if let Some((scope, number)) = &self.sequence {
            // Of a duplicate too: a kill may have lost the number of the first delivery.
            self.sequences.seen(&self.source.name, scope, *number);
        }
        match enqueued {
            Enqueued::Accepted { id, conflict } => {
                metrics.event(&self.kind);
                metrics.conflicts.inc_by((*conflict).into());
                metrics.unreadable.inc_by(self.unreadable.into());
                let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
                let now = self.clock.now();
                self.source.memory.recent.note(now, &self.kind, id);
                // A provider whose events only reconcile brings is silent, and must show as such.
                if let Some(received) = self.received {
                    metrics.accepted_at(seconds(received), seconds(now));
                }
                if let Some((scope, number)) = self.sequence {
                    metrics.sequence_gaps.inc_by(self.source.memory.skipped(scope, number));
                }
            }
            Enqueued::Duplicate { dropped, .. } => metrics.conflicts.inc_by((*dropped).into()),
        }
    }
}
