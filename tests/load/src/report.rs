//! From samples to the tables: medians over rounds, ratios within rounds, and how they stand to the targets.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::case::{
    BARE, BARE_512, CASES, Case, DEFINED, EMBEDDED, HTTP2, REDIS, REDIS_512, STORED, UNKNOWN_FIELD,
};
use crate::leg::Leg;

/// Under what terms the run was.
pub(crate) struct Terms {
    /// Bytes of a body.
    pub(crate) body: usize,
    /// Cores for everything together.
    pub(crate) cores: usize,
    /// Measurements of each case.
    pub(crate) rounds: u32,
    /// Length of each.
    pub(crate) seconds: u64,
    /// Identities in the filled store, before.
    pub(crate) stored: u64,
    /// The stores are in memory: what is said of the embedded one is worth nothing.
    pub(crate) on_tmpfs: bool,
    /// Of a small synced write where the stores are.
    pub(crate) sync: Duration,
}

/// One case in one round.
pub(crate) struct Sample {
    /// Which.
    pub(crate) case: &'static Case,
    /// Accepted requests a second.
    pub(crate) rate: f64,
    /// Processor time of the server a request.
    pub(crate) cpu_micros: f64,
    /// Processor time of its Redis a request.
    pub(crate) redis_cpu_micros: Option<f64>,
    /// Processor time of the load generator a request.
    pub(crate) load_cpu_micros: f64,
    /// Context switches of the server's threads a request.
    pub(crate) switches: f64,
    /// Events that the store takes at a time.
    pub(crate) events_a_batch: Option<f64>,
    /// Bytes resident at the end.
    pub(crate) rss: u64,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// Latencies at a fixed rate.
pub(crate) struct Open {
    /// Of which server.
    pub(crate) leg: Leg,
    /// Requests a second.
    pub(crate) rate: u32,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// What a run found.
pub(crate) struct Report {
    terms: Terms,
    /// Every round holds the same cases.
    pub(crate) rounds: Vec<Vec<Sample>>,
    /// Each server at each rate.
    pub(crate) open: Vec<Open>,
    /// Bytes an idle connection.
    pub(crate) idle: Vec<(Leg, f64)>,
    /// Heap allocations a request.
    pub(crate) allocations: Vec<(Leg, f64)>,
}

/// A figure, if it was measured, and its bound.
struct Target {
    what: &'static str,
    figure: Option<f64>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    /// Without a measurement yet.
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms, rounds: Vec::new(), open: Vec::new(), idle: Vec::new(), allocations: Vec::new() }
    }

    /// Whether no target falls short.
    pub(crate) fn is_met(&self) -> bool {
        self.targets().iter().all(|target| target.verdict() != SHORT)
    }

    /// One object: `terms`, `cases`, `open_loops`, `idle_connections`, `allocations`, `targets`.
    pub(crate) fn json(&self) -> Value {
        let by_leg = |values: &[(Leg, f64)]| -> Value {
            values.iter().map(|(leg, value)| (leg.name().to_owned(), json!(value))).collect()
        };
        json!({
            "terms": self.terms.json(),
            "cases": self.cases().map(|case| self.case_json(case)).collect::<Vec<_>>(),
            "open_loops": self.open.iter().map(Open::json).collect::<Vec<_>>(),
            "idle_connection_bytes": by_leg(&self.idle),
            "allocations_per_request": by_leg(&self.allocations),
            "targets": self.targets().iter().map(Target::json).collect::<Vec<_>>(),
        })
    }

    fn cases(&self) -> impl Iterator<Item = &'static Case> {
        CASES.iter().filter(|case| self.samples(case.name).next().is_some())
    }

    fn samples(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.rounds.iter().flatten().filter(move |sample| sample.case.name == name)
    }

    fn typical(&self, name: &str, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples(name).map(value).collect())
    }

    /// The median over rounds of one case's value divided by another's in the same round.
    fn ratio(&self, name: &str, by: &str, value: impl Fn(&Sample) -> f64) -> Option<f64> {
        let of = |round: &[Sample], name| round.iter().find(|sample| sample.case.name == name).map(&value);
        let ratios: Vec<f64> =
            self.rounds.iter().filter_map(|round| Some(of(round, name)? / of(round, by)?)).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }

    fn latency(&self, name: &str) -> Option<Histogram<u64>> {
        self.samples(name).map(|sample| sample.latency.clone()).reduce(|all, one| all + one)
    }

    fn millis(&self, name: &str, quantile: f64) -> Option<f64> {
        Some(self.latency(name)?.value_at_quantile(quantile) as f64 / 1e3)
    }

    fn of_leg(values: &[(Leg, f64)], leg: Leg) -> Option<f64> {
        values.iter().find(|(of, _)| *of == leg).map(|(_, value)| *value)
    }

    fn targets(&self) -> Vec<Target> {
        let target = |what, figure, bound| Target { what, figure, bound };
        let rate = |name, by| self.ratio(name, by, |sample| sample.rate);
        let bare_cpu = self.samples(BARE).next().map(|_| self.typical(BARE, |sample| sample.cpu_micros));
        let redis_cpu = self
            .samples(REDIS)
            .next()
            .map(|_| self.typical(REDIS, |sample| sample.redis_cpu_micros.unwrap_or(f64::NAN)));
        let p99 = |name, by| Some(self.millis(name, 0.99)? / self.millis(by, 0.99)?);
        let beyond = Self::of_leg(&self.allocations, Leg::Redis)
            .zip(Self::of_leg(&self.allocations, Leg::Bare))
            .map(|(gateway, bare)| gateway - bare);
        let rss = |name| self.samples(name).map(|sample| sample.rss).max().map(|bytes| bytes as f64 / 1e6);
        vec![
            target("redis: requests/s of bare hyper", rate(REDIS, BARE), Bound::AtLeast(0.45)),
            target(
                "redis: the gateway's CPU a request, of bare hyper's",
                self.ratio(REDIS, BARE, |sample| sample.cpu_micros),
                Bound::AtMost(2.0),
            ),
            target(
                "redis: Redis' own CPU a request, of bare hyper's",
                redis_cpu.zip(bare_cpu).map(|(redis, bare)| redis / bare),
                Bound::AtMost(1.1),
            ),
            target("redis, 512: requests/s of bare hyper", rate(REDIS_512, BARE_512), Bound::AtLeast(0.45)),
            target("redis, 512: p99 ms", self.millis(REDIS_512, 0.99), Bound::AtMost(39.0)),
            target("embedded: requests/s of bare hyper", rate(EMBEDDED, BARE), Bound::AtLeast(0.38)),
            target("embedded: p99 of bare hyper's", p99(EMBEDDED, BARE), Bound::AtMost(2.0)),
            target("embedded, filled: requests/s of its own", rate(STORED, EMBEDDED), Bound::AtLeast(0.9)),
            target("redis, HTTP/2: requests/s of HTTP/1.1", rate(HTTP2, REDIS), Bound::AtLeast(0.85)),
            target(
                "redis, unknown field: requests/s of the figure without",
                rate(UNKNOWN_FIELD, REDIS),
                Bound::AtLeast(0.97),
            ),
            target(
                "redis, defined provider: requests/s of the coded one",
                rate(DEFINED, REDIS),
                Bound::AtLeast(0.95),
            ),
            target(
                "redis, defined provider: the gateway's CPU a request, of the coded one's",
                self.ratio(DEFINED, REDIS, |sample| sample.cpu_micros),
                Bound::AtMost(1.05),
            ),
            target(
                "KB resident an idle connection",
                Self::of_leg(&self.idle, Leg::Redis).map(|bytes| bytes / 1e3),
                Bound::AtMost(20.0),
            ),
            target("allocations a request beyond bare hyper's", beyond, Bound::AtMost(20.0)),
            target("redis: RSS MB", rss(REDIS), Bound::AtMost(30.0)),
            target("embedded: RSS MB", rss(EMBEDDED), Bound::AtMost(30.0)),
            target("embedded, filled: RSS MB", rss(STORED), Bound::AtMost(30.0)),
        ]
    }

    fn case_json(&self, case: &Case) -> Value {
        let name = case.name;
        let quantile = |quantile| self.latency(name).map(|latency| latency.value_at_quantile(quantile));
        json!({
            "case": name,
            "requests_per_second": self.typical(name, |sample| sample.rate),
            "compared_with": case.compared_with,
            "requests_per_second_ratio": case.compared_with.and_then(|by| self.ratio(name, by, |sample| sample.rate)),
            "p50_micros": quantile(0.5),
            "p99_micros": quantile(0.99),
            "p999_micros": quantile(0.999),
            "cpu_micros_per_request": self.typical(name, |sample| sample.cpu_micros),
            "redis_cpu_micros_per_request": self.samples(name).next().and_then(|sample| sample.redis_cpu_micros)
                .map(|_| self.typical(name, |sample| sample.redis_cpu_micros.unwrap_or(f64::NAN))),
            "load_cpu_micros_per_request": self.typical(name, |sample| sample.load_cpu_micros),
            "events_per_batch": self.samples(name).next().and_then(|sample| sample.events_a_batch)
                .map(|_| self.typical(name, |sample| sample.events_a_batch.unwrap_or(f64::NAN))),
            "context_switches_per_request": self.typical(name, |sample| sample.switches),
            "rss_bytes": self.samples(name).map(|sample| sample.rss).max(),
        })
    }

    fn cells(&self, case: &Case) -> Vec<String> {
        let name = case.name;
        let millis =
            |quantile| self.millis(name, quantile).map_or_else(dash, |millis| format!("{millis:.2}"));
        let typical = |value: fn(&Sample) -> f64, digits| format!("{:.digits$}", self.typical(name, value));
        let maybe = |value: fn(&Sample) -> Option<f64>| {
            let values: Option<Vec<f64>> = self.samples(name).map(value).collect();
            values.map_or_else(dash, |values| format!("{:.1}", median(values)))
        };
        let ratio = case.compared_with.and_then(|by| self.ratio(name, by, |sample| sample.rate));
        let cpu = case.compared_with.and_then(|by| self.ratio(name, by, |sample| sample.cpu_micros));
        let two = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.2}"));
        vec![
            name.to_owned(),
            typical(|sample| sample.rate, 0),
            two(ratio),
            millis(0.5),
            millis(0.99),
            millis(0.999),
            typical(|sample| sample.cpu_micros, 1),
            two(cpu),
            maybe(|sample| sample.redis_cpu_micros),
            typical(|sample| sample.load_cpu_micros, 1),
            maybe(|sample| sample.events_a_batch),
            typical(|sample| sample.switches, 2),
            format!(
                "{:.1}",
                self.samples(name).map(|sample| sample.rss).max().unwrap_or_default() as f64 / 1e6
            ),
        ]
    }
}

impl Open {
    fn json(&self) -> Value {
        json!({
            "server": self.leg.name(),
            "requests_per_second": self.rate,
            "p50_micros": self.latency.value_at_quantile(0.5),
            "p99_micros": self.latency.value_at_quantile(0.99),
            "p999_micros": self.latency.value_at_quantile(0.999),
        })
    }

    fn cells(&self) -> Vec<String> {
        let millis = |quantile| format!("{:.2}", self.latency.value_at_quantile(quantile) as f64 / 1e3);
        vec![self.leg.name().to_owned(), self.rate.to_string(), millis(0.5), millis(0.99), millis(0.999)]
    }
}

impl Target {
    fn verdict(&self) -> &'static str {
        match self.figure {
            None => "not measured",
            Some(figure) if self.bound.holds(figure) => "ok",
            Some(_) => SHORT,
        }
    }

    fn json(&self) -> Value {
        json!({
            "target": self.what,
            "bound": self.bound.to_string(),
            "figure": self.figure,
            "verdict": self.verdict(),
        })
    }
}

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

impl Terms {
    /// The targets are for these.
    fn are_the_targets(&self) -> bool {
        self.body == 1024 && self.cores == 2 && !self.on_tmpfs
    }

    fn json(&self) -> Value {
        json!({
            "body_bytes": self.body,
            "cores": self.cores,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "stored": self.stored,
            "on_tmpfs": self.on_tmpfs,
            "sync_micros": self.sync.as_micros() as u64,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}\n", self.terms)?;
        table(out, &CASE_HEADINGS, self.cases().map(|case| self.cells(case)))?;
        if !self.open.is_empty() {
            table(out, &OPEN_HEADINGS, self.open.iter().map(Open::cells))?;
        }
        let by_leg = self.idle.iter().zip(&self.allocations).map(|((leg, bytes), (_, allocations))| {
            vec![leg.name().to_owned(), format!("{:.1}", bytes / 1e3), format!("{allocations:.1}")]
        });
        if !self.idle.is_empty() {
            table(out, &LEG_HEADINGS, by_leg)?;
        }
        self.targets().iter().try_for_each(|target| writeln!(out, "{target}"))
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, cores, rounds, seconds, sync, .. } = self;
        let sync = sync.as_secs_f64() * 1e3;
        write!(out, "{body} byte bodies, {cores} cores, {rounds} rounds of {seconds} s; ")?;
        write!(out, "a synced write takes {sync:.2} ms")?;
        if self.on_tmpfs {
            write!(out, "\nthe stores are on tmpfs, where a sync does nothing: give --folder on a disk")?;
        }
        if !self.are_the_targets() {
            write!(out, "\nthe targets are for 1024 byte bodies, 2 cores and a disk")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = self.figure.map(|figure| format!(": {figure:.2}")).unwrap_or_default();
        write!(out, "{:<12}  {}{figure} ({})", self.verdict(), self.what, self.bound)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(out, "at least {bound}"),
            Self::AtMost(bound) => write!(out, "at most {bound}"),
        }
    }
}

/// Columns as wide as they need; the first to the left, the others to the right. An empty line follows.
fn table(
    out: &mut fmt::Formatter<'_>,
    headings: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let mut lines = vec![headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or_default();
    for cells in &lines {
        write!(out, "{:<1$}", cells[0], width(0))?;
        for (column, cell) in cells.iter().enumerate().skip(1) {
            write!(out, "  {cell:>0$}", width(column))?;
        }
        writeln!(out)?;
    }
    writeln!(out)
}

fn dash() -> String {
    "-".to_owned()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => (values[half - 1] + values[half]) / 2.0,
        (half, _) => values[half],
    }
}

const SHORT: &str = "SHORT";
const CASE_HEADINGS: [&str; 13] = [
    "case",
    "requests/s",
    "ratio",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU us/request",
    "ratio",
    "redis CPU us",
    "load CPU us",
    "events a batch",
    "switches",
    "RSS MB",
];
const OPEN_HEADINGS: [&str; 5] = ["open loop", "requests/s", "p50 ms", "p99 ms", "p99.9 ms"];
const LEG_HEADINGS: [&str; 3] = ["server", "KB an idle connection", "allocations a request"];

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, rate: f64) -> Sample {
        let mut latency = Histogram::new(3).unwrap();
        latency.record(1_000).unwrap();
        Sample {
            case: CASES.iter().find(|case| case.name == name).unwrap(),
            rate,
            cpu_micros: 10.0,
            redis_cpu_micros: None,
            load_cpu_micros: 5.0,
            switches: 0.5,
            events_a_batch: None,
            rss: 29_000_000,
            latency,
        }
    }

    fn report(rounds: Vec<Vec<Sample>>) -> Report {
        let terms = Terms {
            body: 1024,
            cores: 2,
            rounds: 3,
            seconds: 5,
            stored: 0,
            on_tmpfs: false,
            sync: Duration::from_micros(150),
        };
        Report { rounds, ..Report::new(terms) }
    }

    #[test]
    fn ratios_are_taken_within_a_round_so_a_slow_round_changes_nothing() {
        let round = |bare, gateway| vec![sample(BARE, bare), sample(EMBEDDED, gateway)];
        let report = report(vec![round(100.0, 40.0), round(10.0, 4.0), round(100.0, 30.0)]);
        assert_eq!(report.typical(EMBEDDED, |sample| sample.rate), 30.0);
        assert_eq!(report.ratio(EMBEDDED, BARE, |sample| sample.rate), Some(0.4));
        assert_eq!(report.latency(EMBEDDED).unwrap().len(), 3);
    }

    #[test]
    fn a_target_that_falls_short_is_told_and_fails_the_run() {
        let of = |rate| report(vec![vec![sample(BARE, 100.0), sample(EMBEDDED, rate)]]);
        let verdict = |report: &Report| {
            let targets = report.targets();
            targets.iter().find(|target| target.what.starts_with("embedded: requests/s")).unwrap().verdict()
        };
        assert_eq!((verdict(&of(37.9)), of(37.9).is_met()), (SHORT, false));
        assert_eq!((verdict(&of(38.0)), of(38.0).is_met()), ("ok", true));
        assert_eq!(of(37.9).to_string().lines().filter(|line| line.starts_with(SHORT)).count(), 1);
        assert!(of(38.0).to_string().contains("not measured"), "what was not measured is told");
    }

    #[test]
    fn every_case_is_compared_with_one_that_runs_before_it() {
        for (at, case) in CASES.iter().enumerate() {
            let Some(by) = case.compared_with else { continue };
            assert!(CASES[..at].iter().any(|case| case.name == by), "{}", case.name);
        }
    }
}
