//! From samples to the table: medians over rounds, ratios within rounds, and how they stand to the targets.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::leg::Leg;

/// Under what terms the run was.
pub(crate) struct Terms {
    /// Connections at a time.
    pub(crate) connections: u32,
    /// Bytes of a body.
    pub(crate) body: usize,
    /// Cores for everything together.
    pub(crate) cores: usize,
    /// Measurements of each server.
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

/// One server in one round.
pub(crate) struct Sample {
    /// Which.
    pub(crate) leg: Leg,
    /// Accepted requests a second.
    pub(crate) rate: f64,
    /// Processor time of the server a request.
    pub(crate) cpu_micros: f64,
    /// Processor time of its Redis a request.
    pub(crate) redis_cpu_micros: Option<f64>,
    /// Processor time of the load generator a request.
    pub(crate) load_cpu_micros: f64,
    /// Bytes resident at the end.
    pub(crate) rss: u64,
    /// The most bytes ever resident.
    pub(crate) peak: u64,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// What a run found.
pub(crate) struct Report {
    terms: Terms,
    rows: Vec<Row>,
    targets: Vec<Target>,
}

/// One server over all rounds.
struct Row {
    leg: Leg,
    rate: f64,
    rate_of_bare: f64,
    latency: Histogram<u64>,
    cpu_micros: f64,
    cpu_of_bare: f64,
    redis_cpu_micros: Option<f64>,
    load_cpu_micros: f64,
    rss: u64,
    peak: u64,
}

/// A figure, if it was measured, and what it has to be.
struct Target {
    what: String,
    figure: Option<f64>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Report {
    /// Every round holds the same legs, the bare server among them.
    pub(crate) fn new(terms: Terms, rounds: &[Vec<Sample>]) -> Self {
        let legs = rounds.first().map(|round| round.iter().map(|sample| sample.leg).collect::<Vec<_>>());
        let rows: Vec<Row> = legs.unwrap_or_default().into_iter().map(|leg| Row::new(leg, rounds)).collect();
        let targets = targets(&terms, &rows, rounds);
        Self { terms, rows, targets }
    }

    /// One object: `terms`, `servers`, `targets`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "terms": self.terms.json(),
            "servers": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "targets": self.targets.iter().map(Target::json).collect::<Vec<_>>(),
        })
    }
}

/// The targets as the requirements have them.
fn targets(terms: &Terms, rows: &[Row], rounds: &[Vec<Sample>]) -> Vec<Target> {
    let row = |leg| rows.iter().find(|row| row.leg == leg);
    let rate = |leg| row(leg).map(|row| row.rate_of_bare);
    let megabytes = |leg| row(leg).map(|row| row.rss as f64 / 1e6);
    let filled =
        row(Leg::Stored).map(|_| over_rounds(rounds, Leg::Stored, Leg::Embedded, |sample| sample.rate));
    let stored = if terms.stored > 0 { terms.stored } else { 10_000_000 };
    let target = |what: &str, figure, bound| Target { what: what.to_owned(), figure, bound };
    vec![
        target("redis: requests/s of bare", rate(Leg::Redis), Bound::AtLeast(0.45)),
        target("redis: CPU of bare", row(Leg::Redis).map(|row| row.cpu_of_bare), Bound::AtMost(1.8)),
        target("embedded: requests/s of bare", rate(Leg::Embedded), Bound::AtLeast(0.33)),
        target(&format!("embedded: requests/s after {stored} of its own"), filled, Bound::AtLeast(0.8)),
        target("redis: RSS MB", megabytes(Leg::Redis), Bound::Below(30.0)),
        target("embedded: RSS MB", megabytes(Leg::Embedded), Bound::Below(30.0)),
        target(&format!("embedded: RSS MB after {stored}"), megabytes(Leg::Stored), Bound::Below(30.0)),
    ]
}

impl Row {
    fn new(leg: Leg, rounds: &[Vec<Sample>]) -> Self {
        let samples = || rounds.iter().flatten().filter(move |sample| sample.leg == leg);
        let typical = |value: fn(&Sample) -> f64| median(samples().map(value).collect());
        let redis: Option<Vec<f64>> = samples().map(|sample| sample.redis_cpu_micros).collect();
        Self {
            leg,
            rate: typical(|sample| sample.rate),
            rate_of_bare: over_rounds(rounds, leg, Leg::Bare, |sample| sample.rate),
            latency: merged(samples().map(|sample| &sample.latency)),
            cpu_micros: typical(|sample| sample.cpu_micros),
            cpu_of_bare: over_rounds(rounds, leg, Leg::Bare, |sample| sample.cpu_micros),
            redis_cpu_micros: redis.map(median),
            load_cpu_micros: typical(|sample| sample.load_cpu_micros),
            rss: samples().map(|sample| sample.rss).max().unwrap_or_default(),
            peak: samples().map(|sample| sample.peak).max().unwrap_or_default(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "server": self.leg.name(),
            "requests_per_second": self.rate,
            "requests_per_second_of_bare": self.rate_of_bare,
            "p50_micros": self.latency.value_at_quantile(0.5),
            "p99_micros": self.latency.value_at_quantile(0.99),
            "p999_micros": self.latency.value_at_quantile(0.999),
            "cpu_micros_per_request": self.cpu_micros,
            "cpu_of_bare": self.cpu_of_bare,
            "rss_bytes": self.rss,
            "peak_rss_bytes": self.peak,
            "redis_cpu_micros_per_request": self.redis_cpu_micros,
            "load_cpu_micros_per_request": self.load_cpu_micros,
        })
    }

    fn cells(&self) -> [String; 12] {
        let millis = |quantile| format!("{:.2}", self.latency.value_at_quantile(quantile) as f64 / 1e3);
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        [
            self.leg.name().to_owned(),
            format!("{:.0}", self.rate),
            format!("{:.2}", self.rate_of_bare),
            millis(0.5),
            millis(0.99),
            millis(0.999),
            format!("{:.1}", self.cpu_micros),
            format!("{:.2}", self.cpu_of_bare),
            megabytes(self.rss),
            megabytes(self.peak),
            self.redis_cpu_micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.1}")),
            format!("{:.1}", self.load_cpu_micros),
        ]
    }
}

impl Target {
    fn verdict(&self) -> &'static str {
        match self.figure {
            None => "not measured",
            Some(figure) if self.bound.holds(figure) => "ok",
            Some(_) => "SHORT",
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
            Self::Below(bound) => figure < bound,
        }
    }
}

impl Terms {
    /// The targets are for these.
    fn are_the_targets(&self) -> bool {
        self.connections == 64 && self.body == 1024 && self.cores == 2 && !self.on_tmpfs
    }

    fn json(&self) -> Value {
        json!({
            "connections": self.connections,
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
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or_default();
        for cells in &lines {
            write!(out, "{:<1$}", cells[0], width(0))?;
            for (column, cell) in cells.iter().enumerate().skip(1) {
                write!(out, "  {cell:>0$}", width(column))?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        self.targets.iter().try_for_each(|target| writeln!(out, "{target}"))
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, body, cores, rounds, seconds, sync, .. } = self;
        let sync = sync.as_secs_f64() * 1e3;
        write!(
            out,
            "{connections} connections, {body} byte bodies, {cores} cores, {rounds} rounds of {seconds} s; "
        )?;
        write!(out, "a synced write takes {sync:.2} ms")?;
        if self.on_tmpfs {
            write!(out, "\nthe stores are on tmpfs, where a sync does nothing: give --folder on a disk")?;
        }
        if !self.are_the_targets() {
            write!(out, "\nthe targets are for 64 connections, 1024 byte bodies, 2 cores and a disk")?;
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
            Self::Below(bound) => write!(out, "below {bound}"),
        }
    }
}

/// The median over rounds of one leg's value divided by another's in the same round.
fn over_rounds(rounds: &[Vec<Sample>], leg: Leg, by: Leg, value: fn(&Sample) -> f64) -> f64 {
    let of = |round: &[Sample], leg| round.iter().find(|sample| sample.leg == leg).map(value);
    median(rounds.iter().filter_map(|round| Some(of(round, leg)? / of(round, by)?)).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => (values[half - 1] + values[half]) / 2.0,
        (half, _) => values[half],
    }
}

/// All samples' latencies as one distribution.
fn merged<'a>(samples: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    samples.cloned().reduce(|all, one| all + one).unwrap_or_else(|| unreachable!("a row has a sample"))
}

const HEADINGS: [&str; 12] = [
    "server",
    "requests/s",
    "of bare",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU us/request",
    "of bare",
    "RSS MB",
    "peak MB",
    "redis CPU us",
    "load CPU us",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(leg: Leg, rate: f64) -> Sample {
        let mut latency = Histogram::new(3).unwrap();
        latency.record(1_000).unwrap();
        let (cpu_micros, load_cpu_micros, rss, peak) = (10.0, 5.0, 29_000_000, 31_000_000);
        Sample { leg, rate, cpu_micros, redis_cpu_micros: None, load_cpu_micros, rss, peak, latency }
    }

    fn terms() -> Terms {
        let sync = Duration::from_micros(150);
        Terms {
            connections: 64,
            body: 1024,
            cores: 2,
            rounds: 3,
            seconds: 5,
            stored: 0,
            on_tmpfs: false,
            sync,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_so_a_slow_round_changes_nothing() {
        let round = |bare, gateway| vec![sample(Leg::Bare, bare), sample(Leg::Embedded, gateway)];
        let rounds = [round(100.0, 40.0), round(10.0, 4.0), round(100.0, 30.0)];
        let embedded = Row::new(Leg::Embedded, &rounds);
        assert_eq!((embedded.rate, embedded.rate_of_bare), (30.0, 0.4));
        assert_eq!(embedded.latency.len(), 3);
    }

    #[test]
    fn every_target_has_a_line_whether_met_short_or_not_measured() {
        let rounds = [vec![sample(Leg::Bare, 100.0), sample(Leg::Embedded, 32.9)]];
        let report = Report::new(terms(), &rounds);
        let verdicts: Vec<_> = report.targets.iter().map(Target::verdict).collect();
        let (ok, none) = ("ok", "not measured");
        assert_eq!(verdicts, [none, none, "SHORT", none, none, ok, none]);
        assert_eq!(report.to_string().lines().filter(|line| line.starts_with("SHORT ")).count(), 1);
        assert_eq!(report.json()["targets"][2]["verdict"], "SHORT");
    }
}
