//! The queue, from its metrics.

use std::collections::BTreeMap;

use super::readings::{GROUP_AGE, GROUP_LAG, Readings, STREAM_EVENTS, STREAM_LIMIT, count};
use crate::config::{Config, QueueKind};
use crate::durable::data_dir;
use crate::observe::console::view::{Group, Part, Queue, ROWS, Rows};

pub(super) fn queue(config: &Config, readings: &Readings, part: Part, file_bytes: Option<u64>) -> Queue {
    let kind = config.queue.kind;
    let of_kind = [("queue", kind.label())];
    let name = match kind {
        QueueKind::Embedded => data_dir::database_file(&config.data_dir).display().to_string(),
        QueueKind::Http => "HTTP services".to_owned(),
        _ => config.queue.name.value.clone(),
    };
    let durations = readings.series("hookgate_enqueue_duration_seconds", &of_kind).next();
    let batches = readings.series("hookgate_enqueue_batch_events", &of_kind).next();
    let mean = durations.filter(|durations| durations.observations > 0);
    Queue {
        kind: kind.label(),
        name,
        dedupe: config.dedupe.store.label(),
        part,
        writes: batches.map_or((0, 0), |batches| (batches.observations, count(batches.value))),
        mean_ms: mean.map(|durations| durations.value / durations.observations as f64 * 1000.0),
        failures: readings.by("hookgate_enqueue_failures_total", &of_kind, "kind"),
        streams: streams(readings),
        groups: groups(readings),
        routes: routes(readings),
        file_bytes,
    }
}

/// The fullest first.
fn streams(readings: &Readings) -> Rows<(String, u64, u64)> {
    let mut streams: Vec<(String, u64, u64)> = readings
        .series(STREAM_EVENTS, &[])
        .map(|series| {
            let stream = series.label("stream");
            (stream.to_owned(), count(series.value), readings.sum(STREAM_LIMIT, &[("stream", stream)]))
        })
        .collect();
    streams.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Rows::first(streams, ROWS)
}

/// The furthest behind first.
fn groups(readings: &Readings) -> Rows<Group> {
    let ages: BTreeMap<(&str, &str), f64> = readings
        .series(GROUP_AGE, &[])
        .map(|series| ((series.label("stream"), series.label("group")), series.value))
        .collect();
    let mut groups: Vec<Group> = readings
        .series(GROUP_LAG, &[])
        .map(|series| {
            let of = (series.label("stream"), series.label("group"));
            let oldest = ages.get(&of).copied().unwrap_or(0.0);
            Group { stream: of.0.to_owned(), name: of.1.to_owned(), lag: count(series.value), oldest }
        })
        .collect();
    groups.sort_by(|a, b| b.lag.cmp(&a.lag).then_with(|| (&a.stream, &a.name).cmp(&(&b.stream, &b.name))));
    Rows::first(groups, ROWS)
}

fn routes(readings: &Readings) -> Rows<(String, Vec<(String, u64)>)> {
    let mut routes: BTreeMap<&str, Vec<(String, u64)>> = BTreeMap::new();
    for series in readings.series("hookgate_http_posts_total", &[]) {
        let outcomes = routes.entry(series.label("route")).or_default();
        if series.value > 0.0 {
            outcomes.push((series.label("outcome").to_owned(), count(series.value)));
        }
    }
    Rows::first(routes.into_iter().map(|(route, outcomes)| (route.to_owned(), outcomes)), ROWS)
}
