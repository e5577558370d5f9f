//! Metrics of one source.
//!
//! Keeps true: a source's series exist from the start, at zero. Their labels come from the config and from enums.

use std::collections::HashMap;
use std::sync::OnceLock;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};

use super::DURATIONS;
use super::family::{By, Handle, Open, metrics};
use super::labels::{OutcomeLabel, ReconcileOutcome};
use crate::base::label::{Label, UNMAPPED};
use crate::base::reason::Reason;

metrics! {
    /// Updated by one source's requests and events.
    pub struct SourceMetrics from SourceFamilies for SourceLabels<'_> {
        /// Requests answered.
        requests: By<OutcomeLabel, IntCounter> = "hookgate_requests_total" of source, provider by outcome;
        /// Requests refused.
        rejects: By<Reason, IntCounter> = "hookgate_rejects_total" of source by reason;
        /// Requests let in only because the source observes this reason.
        observed: HashMap<&'static str, IntCounter> = "hookgate_observed_total"
            of source by reason in observed;
        /// Seconds from a request's head to its answer.
        durations: By<OutcomeLabel, Histogram> = "hookgate_request_duration_seconds"
            of source by outcome with DURATIONS;
        /// Bytes of bodies that were read whole.
        pub body_bytes: Histogram = "hookgate_request_body_bytes" of source with BYTES;
        /// Events put in the queue; a type outside the provider's table counts as `unmapped`, beyond 100 types as `other`.
        events: EventsByType = "hookgate_events_total" of source by type in types;
        /// New bodies under a known identity.
        pub conflicts: IntCounter = "hookgate_conflicts_total" of source;
        /// Requests that a secret verified, by its place in the source's list.
        secret_matches: Vec<IntCounter> = "hookgate_secret_matches_total" of source by slot in secrets;
        /// Receipt minus signed timestamp; below 0 the signer's clock is ahead.
        pub signature_age: Histogram = "hookgate_signature_age_seconds" of source with AGES;
        /// Unix time of the last accepted event; before the first one, of when the source was first served.
        last_accepted: OnceLock<Gauge> = "hookgate_last_accepted_timestamp_seconds" of source;
        /// Sequence numbers skipped, against the highest seen.
        pub sequence_gaps: IntCounter = "hookgate_sequence_gaps_total" of source;
        /// Fields and types that the provider's table does not know, each counted once.
        pub drift: IntCounter = "hookgate_schema_drift_total" of source;
        /// Events whose body is no JSON object, put in the queue as bytes.
        pub unreadable: IntCounter = "hookgate_unreadable_total" of source;
        /// Events that became dead letters.
        pub dead: IntCounter = "hookgate_spool_dead_total" of source;
        /// Events that `reconcile` looked at, by what became of each.
        reconciled: Open<IntCounter> = "hookgate_reconciled_events_total" of source by outcome;
        /// Unix time up to which a `reconcile` without failures has looked; 0 before the first one.
        reconcile_success: Open<Gauge> = "hookgate_reconcile_last_success_timestamp_seconds" of source;
        /// 1 while the provider's subscriptions are not what the config declares.
        subscription_drift: Open<IntGauge> = "hookgate_subscription_drift" of source;
    }
}

/// A source's events, by canonical type.
struct EventsByType {
    known: HashMap<&'static str, IntCounter>,
    /// Types that no table lists.
    others: OtherTypes,
}

enum OtherTypes {
    /// The provider has a table, so all others count as one.
    Unmapped(IntCounter),
    /// The provider has no table: each type that comes has a series, up to a limit.
    Open { family: IntCounterVec, own: Vec<String>, seen: ArcSwap<HashMap<String, IntCounter>> },
}

/// The canonical types of a source's events.
#[derive(Clone, Copy)]
pub struct TypeLabels<'a> {
    /// Those in the provider's table.
    pub known: &'a [&'static str],
    /// Whether the provider has no table, so that any type may come.
    pub open: bool,
}

impl Handle for EventsByType {
    type Metric = IntCounter;
    type Values<'v> = TypeLabels<'v>;

    fn of(family: &IntCounterVec, own: &[&str], types: TypeLabels<'_>) -> EventsByType {
        let others = if types.open {
            let own = own.iter().map(|&text| text.to_owned()).collect();
            OtherTypes::Open { family: family.clone(), own, seen: ArcSwap::default() }
        } else {
            OtherTypes::Unmapped(family.with_label_values(&[own, &[UNMAPPED]].concat()))
        };
        EventsByType { known: Handle::of(family, own, types.known), others }
    }
}

impl EventsByType {
    fn count(&self, kind: &str) {
        match (self.known.get(kind), &self.others) {
            (Some(counter), _) | (None, OtherTypes::Unmapped(counter)) => counter.inc(),
            (None, OtherTypes::Open { family, own, seen }) => {
                let known = seen.load();
                if let Some(counter) = known.get(kind) {
                    counter.inc();
                    return;
                }
                let label = if known.len() < MAX_TYPES { kind } else { OTHER };
                let own: Vec<&str> = own.iter().map(String::as_str).chain([label]).collect();
                let counter = family.with_label_values(&own);
                counter.inc();
                if label == kind {
                    seen.rcu(|seen| {
                        let mut seen = HashMap::clone(seen);
                        seen.insert(kind.to_owned(), counter.clone());
                        seen
                    });
                }
            }
        }
    }
}

impl SourceMetrics {
    /// Counts a finished request.
    pub fn finished(&self, outcome: OutcomeLabel, seconds: f64) {
        self.requests.at(outcome).inc();
        self.durations.at(outcome).observe(seconds);
    }

    /// Counts a reject.
    pub fn rejected(&self, reason: Reason) {
        self.rejects.at(reason).inc();
    }

    /// Counts a request that was accepted only because the source has this reason set to report only.
    pub fn observed(&self, reason: Reason) {
        if let Some(counter) = self.observed.get(reason.label()) {
            counter.inc();
        }
    }

    /// Counts a forwarded event; a type outside the provider's table counts as `unmapped`.
    pub fn event(&self, kind: &str) {
        self.events.count(kind);
    }

    /// Updates the time of the last accepted event. Both times are seconds of Unix time.
    pub fn accepted_at(&self, received: f64, now: f64) {
        let Some(last) = self.last_accepted.get() else { return };
        let before = last.get();
        // A time in the future comes from a wrong clock. It would hide that the source is silent.
        if before < received || before > now {
            last.set(received);
        }
    }

    /// Shows the counts of reconciled events from the start, at zero.
    pub fn init_reconciled(&self) {
        ReconcileOutcome::ALL.iter().for_each(|outcome| self.reconciled(*outcome, 0));
    }

    /// Counts events that `reconcile` looked at.
    pub fn reconciled(&self, outcome: ReconcileOutcome, events: u64) {
        self.reconciled.at(&[outcome.label()]).inc_by(events);
    }

    /// Sets the time up to which a successful `reconcile` has looked, in seconds of Unix time.
    pub fn reconciled_until(&self, at: f64) {
        self.reconcile_success.at(&[]).set(at);
    }

    /// Shows whether the subscriptions differ from the config: 0 at first. False: the source declares no subscription.
    pub fn show_subscription_drift(&self, shown: bool) {
        if shown {
            let _ = self.subscription_drift.at(&[]);
        } else {
            self.subscription_drift.remove(&[]);
        }
    }

    /// Counts a request that the secret in this slot verified.
    pub fn secret_matched(&self, slot: usize) {
        if let Some(counter) = self.secret_matches.get(slot) {
            counter.inc();
        }
    }
}

/// The labels that a source's series need at the start.
pub struct SourceLabels<'a> {
    /// The configured name, or [`UNKNOWN`](crate::base::label::UNKNOWN).
    pub source: &'a str,
    /// The provider's name, or [`UNKNOWN`](crate::base::label::UNKNOWN).
    pub provider: &'a str,
    /// The number of secrets.
    pub secrets: usize,
    /// The canonical types of its events.
    pub types: TypeLabels<'a>,
    /// The reasons that are, or were, set to report only.
    pub observed: &'a [&'static str],
}

impl SourceFamilies {
    pub(super) fn set_subscription_drift(&self, source: &str, drifts: bool) {
        self.subscription_drift.with_label_values(&[source]).set(i64::from(drifts));
    }

    /// Exports when the source last had an event accepted: 0, unless it was exported before. Not exported earlier,
    /// because a 0 before the stored time is loaded would look like a long silence.
    pub(super) fn show_last_accepted(&self, source: &str, handles: &SourceMetrics) -> Gauge {
        handles.last_accepted.get_or_init(|| self.last_accepted.with_label_values(&[source])).clone()
    }
}

/// One of a source's series, by the labels that come from the config.
pub struct SourceSeries<'a> {
    /// The source's name.
    pub source: &'a str,
    /// Its provider, if the series has that label.
    pub provider: Option<&'a str>,
    /// The secret's slot, if the series has that label.
    pub slot: Option<usize>,
}

/// A family whose series can be removed.
pub(super) trait Retain: Collector {
    /// Removes the series of sources for which `keep` is false. Handles still held keep counting but are no longer
    /// exported.
    fn retain(&self, keep: &dyn Fn(&SourceSeries<'_>) -> bool);
}

impl<B: MetricVecBuilder> Retain for MetricVec<B> {
    fn retain(&self, keep: &dyn Fn(&SourceSeries<'_>) -> bool) {
        for series in self.collect().iter().flat_map(|family| family.get_metric()) {
            let labels: HashMap<&str, &str> =
                series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            let Some(source) = labels.get("source") else { continue };
            let slot = labels.get("slot").and_then(|slot| slot.parse().ok());
            if !keep(&SourceSeries { source, provider: labels.get("provider").copied(), slot }) {
                // Cannot fail: the series was just listed, and only a reload removes series.
                let _ = self.remove(&labels);
            }
        }
    }
}

/// The types of one source that have a series of their own; further ones count as `other`.
const MAX_TYPES: usize = 100;
const OTHER: &str = "other";
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 10_485_760.0];
const AGES: &[f64] = &[-300.0, -60.0, -10.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

#[cfg(test)]
mod tests {
    use crate::observe::metrics::{Metrics, SourceLabels, TypeLabels};

    #[test]
    fn the_latest_event_counts_unless_it_is_of_a_clock_that_was_wrong() {
        let metrics = Metrics::new().unwrap();
        let source = metrics.source(&SourceLabels {
            source: "a",
            provider: "basiq",
            secrets: 0,
            types: TypeLabels { known: &[], open: false },
            observed: &[],
        });
        // Nothing is exported yet, so nothing is recorded.
        source.accepted_at(5.0, 5.0);
        assert!(!metrics.render().unwrap().0.contains("hookgate_last_accepted"));
        let gauge = metrics.last_accepted("a", &source);
        for (received, now, last) in
            [(10.0, 10.0, 10.0), (7.0, 11.0, 10.0), (99.0, 99.0, 99.0), (12.0, 12.0, 12.0)]
        {
            source.accepted_at(received, now);
            assert_eq!(gauge.get(), last);
        }
    }
}
