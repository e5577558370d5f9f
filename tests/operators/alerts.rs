//! Prometheus takes `deploy/alerts.yml`, each alert fires when it should and not otherwise, and a gateway exposes every metric,
//! label and label value that the rules name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use support::{Gateway, Home, Persistence, Redis, until};

/// An alert of `deploy/alerts.yml`, as text.
#[derive(Debug, Default)]
struct Alert {
    name: String,
    expr: String,
    annotations: String,
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs promtool on a file.
fn promtool(arguments: &[&str], on: &str) {
    let output = Command::new("promtool").args(arguments).arg(file(on)).output();
    let output = output.expect("promtool: Debian's package prometheus has it, and tests/run installs that");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The alerts of the file. Fails at a line that it cannot read, so that no alert is passed over.
fn alerts() -> Vec<Alert> {
    let text = std::fs::read_to_string(file("deploy/alerts.yml")).unwrap();
    let (_, rules) = text.split_once("    rules:\n").unwrap();
    let (mut alerts, mut in_expr) = (Vec::<Alert>::new(), false);
    for line in rules.lines().filter(|line| !line.trim_start().starts_with('#') && !line.is_empty()) {
        if let Some(name) = line.strip_prefix("      - alert: ") {
            alerts.push(Alert { name: name.to_owned(), ..Alert::default() });
            continue;
        }
        let alert = alerts.last_mut().unwrap();
        if let Some(expr) = line.strip_prefix("        expr: ") {
            in_expr = expr == "|";
            alert.expr = if in_expr { String::new() } else { expr.to_owned() };
        } else if in_expr && line.starts_with("          ") {
            alert.expr += line;
        } else {
            in_expr = false;
            let known = ["        for: ", "        labels: ", "        annotations:", "          summary: "];
            assert!(known.iter().any(|known| line.starts_with(known)), "{line}");
            if line.starts_with("          summary: ") {
                alert.annotations += line;
            }
        }
    }
    alerts
}

#[test]
fn prometheus_takes_the_rules_and_its_config() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], "deploy/alerts.yml");
    promtool(&["check", "config", "--syntax-only"], "deploy/prometheus.yml");
}

#[test]
fn each_alert_fires_when_it_should_and_else_does_not() {
    promtool(&["test", "rules"], "tests/alerts.yml");
    let cases = std::fs::read_to_string(file("tests/alerts.yml")).unwrap();
    let (_, rare) = cases.split_once("exp_samples: &rare\n").unwrap();
    let (rare, _) = rare.split_once("      #").unwrap();
    for Alert { name, .. } in alerts() {
        let named = format!("alertname=\"{name}\"");
        let of: Vec<&str> = cases.lines().filter(|line| line.contains(&named)).collect();
        let fires = |line: &&str| line.contains("value: 1");
        assert!(of.iter().any(fires), "no case of {name} fires");
        // The rare ones are held to be silent by all that is not listed there.
        assert!(rare.contains(&named) || !of.iter().all(fires), "all cases of {name} fire");
    }
}

/// The series of a gateway, by name: the values of each label.
type Told = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn told(text: &str) -> Told {
    let mut told = Told::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of = told.entry(name.to_owned()).or_default();
        for (label, value) in
            labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""))
        {
            of.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    told
}

/// The selectors of an expression: a metric's name, and what is asked of its labels.
fn selectors(expr: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = expr;
    while let Some(at) = ["hookgate_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        let from = &rest[at..];
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (name, after) = from.split_at(end);
        let matchers = after.strip_prefix('{').and_then(|after| after.split_once('}')).map_or("", |(m, _)| m);
        let matchers = matchers.split("\",").filter_map(|matcher| {
            let (label, value) = matcher.split_once('"')?;
            let positive = !label.contains('!');
            let value = if positive { value.trim_end_matches('"') } else { "" };
            Some((label.trim_end_matches(['=', '~', '!']).to_owned(), value.to_owned()))
        });
        found.push((name.to_owned(), matchers.collect()));
        rest = after;
    }
    found
}

/// Whether one of these values is what an alternative of a matcher asks for.
fn is_met(alternative: &str, values: &BTreeSet<String>) -> bool {
    match alternative.strip_suffix(".*") {
        Some(begins) => values.iter().any(|value| value.starts_with(begins)),
        None => values.contains(alternative),
    }
}

#[tokio::test]
async fn what_the_alerts_ask_for_is_what_a_gateway_tells() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis).with("spool.enabled", true);
    let home = home.with_sources(OBSERVING);
    let gateway = home.serve().await;
    let told = everything(&gateway, &redis).await;
    // What Prometheus adds.
    let added = ["job", "instance"];
    for alert in alerts() {
        let selectors = selectors(&alert.expr);
        let mut labels: BTreeSet<&str> = added.into();
        for (metric, matchers) in &selectors {
            let series = told.get(metric).unwrap_or_else(|| panic!("{}: no {metric}", alert.name));
            labels.extend(series.keys().map(String::as_str));
            for (label, value) in matchers {
                let Some(values) = series.get(label) else {
                    panic!("{}: {metric} has no label {label}", alert.name)
                };
                for alternative in value.split('|').filter(|alternative| !alternative.is_empty()) {
                    assert!(
                        is_met(alternative, values),
                        "{}: no {label} of {metric} is {alternative}",
                        alert.name
                    );
                }
            }
        }
        assert!(!selectors.is_empty() || alert.expr.contains("up{job=\"hookgate\"}"), "{alert:?}");
        let summed: BTreeSet<&str> = lists_after(&alert.expr, "by (").collect();
        let of: BTreeSet<&str> = lists_after(&alert.expr, "on (").chain(summed.iter().copied()).collect();
        assert!(of.is_subset(&labels), "{}: {of:?} of {labels:?}", alert.name);
        let shown = alert.annotations.split("{{ $labels.").skip(1);
        for shown in shown.filter_map(|shown| shown.split_once(" }}")).map(|(label, _)| label) {
            let there = if summed.is_empty() { labels.contains(shown) } else { summed.contains(shown) };
            assert!(there, "{}: its summary shows {shown}, which it does not have", alert.name);
        }
    }
}

/// The names in every list that begins like this.
fn lists_after<'a>(expr: &'a str, begins: &'a str) -> impl Iterator<Item = &'a str> {
    let lists = expr.split(begins).skip(1).filter_map(|rest| rest.split_once(')'));
    lists.flat_map(|(list, _)| list.split(',').map(str::trim))
}

/// What it tells once it has looked at its servers, and at a consumer group.
async fn everything(gateway: &Gateway, redis: &Redis) -> Told {
    let () = redis.run(&["XGROUP", "CREATE", "hookgate.events", "any", "0", "MKSTREAM"]).await;
    let mut all = Told::new();
    until("it has looked at Redis and the group", async || {
        all = told(&gateway.admin("/metrics").await.body);
        ["hookgate_unsafe_settings", "hookgate_consumer_group_lag_events"]
            .iter()
            .all(|name| all.contains_key(*name))
    })
    .await;
    all
}

/// A source that observes, so that there are series of it.
const OBSERVING: &str = "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
    allow_ips = [\"192.0.2.0/24\"]\nobserve = [\"client_not_allowed\"]\nobserve_until = \"2999-01-01\"\n";
