//! The sources, from their metrics.

use std::collections::BTreeMap;

use super::readings::{Readings, count};
use crate::base::label::{Label, UNKNOWN};
use crate::config::{self, Config};
use crate::observe::console::history::{Counts, History};
use crate::observe::console::view::{Rows, SOURCES, Source, TYPES};
use crate::observe::metrics::OutcomeLabel;

/// What [`counts`] reads.
pub(super) const SAMPLED: [&str; 2] = [REQUESTS, REJECTS];

/// The counts of every source, and of requests to none.
pub(super) fn counts(readings: &Readings) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    let accepted = [("outcome", OutcomeLabel::Accepted.label())];
    for series in readings.series(REQUESTS, &accepted) {
        counts.entry(series.label("source").to_owned()).or_default()[0] += count(series.value);
    }
    for series in readings.series(REJECTS, &[]) {
        counts.entry(series.label("source").to_owned()).or_default()[1] += count(series.value);
    }
    counts
}

/// The sources in the order of the config, and at the end the requests to none.
pub(super) fn sources(config: &Config, readings: &Readings, history: &History) -> Rows<Source> {
    let by_source = BySource::new(readings);
    let one = |source: &config::Source| {
        let mut one = by_source.source(&source.name.value, history);
        one.provider = Some(source.provider.value.clone());
        one.path = source.path.value.clone();
        one
    };
    let mut rows = Rows::first(config.sources.iter().map(one), SOURCES);
    rows.shown.push(by_source.source(UNKNOWN, history));
    rows
}

/// The readings, arranged so that many sources do not cost many searches through all series.
struct BySource<'r>(BTreeMap<&'r str, Vec<(&'static str, &'r super::readings::Series)>>);

impl<'r> BySource<'r> {
    fn new(readings: &'r Readings) -> BySource<'r> {
        let mut by_source: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for name in OF_SOURCES {
            for series in readings.series(name, &[]) {
                by_source.entry(series.label("source")).or_default().push((name, series));
            }
        }
        BySource(by_source)
    }

    fn source(&self, name: &str, history: &History) -> Source {
        let all = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        let of =
            |family: &'static str| all.iter().filter(move |(of, _)| *of == family).map(|(_, series)| *series);
        let sum = |family| count(of(family).map(|series| series.value).sum());
        let by = |family, label: &str| {
            let mut counts: Vec<(String, u64)> =
                of(family).map(|series| (series.label(label).to_owned(), count(series.value))).collect();
            counts.retain(|(_, count)| *count > 0);
            counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            counts
        };
        let requests = |outcome: OutcomeLabel| {
            let of_outcome = of(REQUESTS).filter(|series| series.label("outcome") == outcome.label());
            count(of_outcome.map(|series| series.value).sum())
        };
        let outcomes = OutcomeLabel::ALL.iter().map(|outcome| match outcome {
            // Connections that are refused before they have a request count only as rejects.
            OutcomeLabel::Rejected => (outcome.label(), sum(REJECTS)),
            outcome => (outcome.label(), requests(*outcome)),
        });
        let mut slots: Vec<(usize, u64)> = of(SLOTS)
            .filter_map(|series| Some((series.label("slot").parse().ok()?, count(series.value))))
            .collect();
        slots.sort_unstable();
        let last = of(LAST).next().map(|series| series.value).filter(|seconds| *seconds > 0.0);
        let answered = [
            ("provider's health check", requests(OutcomeLabel::Ignored)),
            ("handshake", requests(OutcomeLabel::Handshake)),
        ];
        let notes = answered.into_iter().chain(NOTES.iter().map(|(family, noun)| (*noun, sum(family))));
        Source {
            name: name.to_owned(),
            provider: None,
            path: String::new(),
            last: last.and_then(|seconds| jiff::Timestamp::from_microsecond((seconds * 1e6) as i64).ok()),
            outcomes: outcomes.collect(),
            types: Rows::first(by(TYPES_OF, "type"), TYPES),
            reasons: by(REJECTS, "reason"),
            slots: slots.into_iter().map(|(_, count)| count).collect(),
            notes: notes.filter(|(_, count)| *count > 0).collect(),
            minutes: history.minutes(name),
        }
    }
}

const REQUESTS: &str = "hookgate_requests_total";
const REJECTS: &str = "hookgate_rejects_total";
const TYPES_OF: &str = "hookgate_events_total";
const SLOTS: &str = "hookgate_secret_matches_total";
const LAST: &str = "hookgate_last_accepted_timestamp_seconds";
const OF_SOURCES: [&str; 11] = [
    REQUESTS, REJECTS, TYPES_OF, SLOTS, LAST, NOTES[0].0, NOTES[1].0, NOTES[2].0, NOTES[3].0, NOTES[4].0,
    NOTES[5].0,
];
/// Families whose counts are shown beside the outcomes, with the noun of what they count.
const NOTES: [(&str, &str); 6] = [
    ("hookgate_conflicts_total", "conflict"),
    ("hookgate_unreadable_total", "unreadable event"),
    ("hookgate_observed_total", "observed request"),
    ("hookgate_schema_drift_total", "unlisted name"),
    ("hookgate_sequence_gaps_total", "skipped sequence number"),
    ("hookgate_spool_dead_total", "dead letter"),
];
