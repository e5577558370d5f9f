//! Prometheus takes the rules of `deploy/prometheus`, each alert fires when it should and not otherwise, and the runbook has an
//! entry for each. A gateway exposes every metric, label and label value that the rules and Grafana's dashboards name.

mod fire;
mod queries;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use queries::{Told, held};
use serde_json::Value;
use support::{Gateway, Home, Persistence, Redis, Request, basiq, until};

/// A rule of `rules.yml`, as text.
#[derive(Debug, Default)]
struct Rule {
    /// Of the alert, or the name under which the result is recorded.
    name: String,
    is_alert: bool,
    expr: String,
    summary: String,
    description: String,
    runbook: String,
}

const RULES: &str = "deploy/prometheus/rules.yml";
const DASHBOARDS: [&str; 2] =
    ["deploy/grafana/dashboards/hookgate-sre.json", "deploy/grafana/dashboards/hookgate-security.json"];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// Runs promtool on a file.
fn promtool(arguments: &[&str], on: &str) {
    let output = Command::new("promtool").args(arguments).arg(file(on)).output();
    let output = output.expect("promtool: Debian's package prometheus has it, and tests/run installs that");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The rules of the file. Fails at a line that it cannot read, so that no rule is passed over.
fn rules() -> Vec<Rule> {
    let text = read(RULES);
    let (_, groups) = text.split_once("groups:\n").unwrap();
    let (mut rules, mut in_expr) = (Vec::<Rule>::new(), false);
    for line in groups.lines().filter(|line| !line.trim_start().starts_with('#') && !line.is_empty()) {
        if line.starts_with("  - name: hookgate-") || line == "    rules:" {
            continue;
        }
        let begins = [("      - alert: ", true), ("      - record: ", false)];
        if let Some((name, is_alert)) =
            begins.iter().find_map(|(begins, is_alert)| Some((line.strip_prefix(begins)?, *is_alert)))
        {
            rules.push(Rule { name: name.to_owned(), is_alert, ..Rule::default() });
            continue;
        }
        let rule = rules.last_mut().unwrap();
        if let Some(expr) = line.strip_prefix("        expr: ") {
            in_expr = expr == "|";
            rule.expr = if in_expr { String::new() } else { expr.to_owned() };
            continue;
        }
        if in_expr && line.starts_with("          ") {
            rule.expr += line;
            continue;
        }
        in_expr = false;
        let known = ["        for: ", "        labels: ", "        annotations:"];
        let mut annotations = [
            ("          summary: ", &mut rule.summary),
            ("          description: ", &mut rule.description),
            ("          runbook_url: ", &mut rule.runbook),
        ];
        let annotation = annotations.iter_mut().find(|(begins, _)| line.starts_with(begins));
        match annotation {
            Some((begins, annotation)) => **annotation = line[begins.len()..].trim_matches('"').to_owned(),
            None => assert!(known.iter().any(|known| line.starts_with(known)), "{line}"),
        }
    }
    rules
}

fn alerts() -> impl Iterator<Item = Rule> {
    rules().into_iter().filter(|rule| rule.is_alert)
}

#[test]
fn prometheus_takes_the_rules_and_its_config() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], RULES);
    promtool(&["check", "config", "--syntax-only"], "deploy/prometheus/prometheus.yml");
}

#[test]
fn each_alert_fires_when_it_should_and_else_does_not() {
    promtool(&["test", "rules"], "tests/alerts.yml");
    promtool(&["test", "rules"], "tests/alerts_of_weeks.yml");
    let cases = read("tests/alerts.yml") + &read("tests/alerts_of_weeks.yml");
    let (_, rare) = cases.split_once("exp_samples: &rare\n").unwrap();
    let (rare, _) = rare.split_once("      #").unwrap();
    for Rule { name, .. } in alerts() {
        let named = format!("alertname=\"{name}\"");
        let of: Vec<&str> = cases.lines().filter(|line| line.contains(&named)).collect();
        let fires = |line: &&str| line.contains("value: 1");
        assert!(of.iter().any(fires), "no case of {name} fires");
        // The rare ones are held to be silent by all that is not listed there.
        assert!(rare.contains(&named) || !of.iter().all(fires), "all cases of {name} fire");
    }
}

/// How Markdown names a heading in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn each_alert_has_an_entry_in_the_runbook_and_no_entry_is_left_over() {
    let runbook = read("deploy/runbook.md");
    let headings: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts: Vec<Rule> = alerts().collect();
    for alert in &alerts {
        let Rule { name, summary, description, runbook, .. } = alert;
        assert!(!summary.is_empty() && description.ends_with('.'), "{alert:?}");
        assert_eq!(runbook.strip_prefix("runbook.md#"), Some(&*anchor(name)));
        assert_eq!(headings.iter().filter(|heading| anchor(heading) == anchor(name)).count(), 1, "{name}");
    }
    let left_over = headings.iter().filter(|heading| {
        heading.starts_with("Hookgate") && !alerts.iter().any(|alert| alert.name == **heading)
    });
    assert_eq!(left_over.collect::<Vec<_>>(), <[&&str; 0]>::default());
}

#[test]
fn each_link_into_the_runbook_leads_to_a_heading() {
    let runbook = read("deploy/runbook.md");
    let headings: Vec<String> = runbook
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches(['#', ' '])))
        .collect();
    for (name, link) in [
        ("deploy/runbook.md", "](#"),
        ("deploy/README.md", "](runbook.md#"),
        ("README.md", "](deploy/runbook.md#"),
    ] {
        let text = read(name);
        let links: Vec<&str> = text.split(link).skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
        assert!(!links.is_empty(), "{name}");
        for link in links {
            assert!(headings.iter().any(|heading| heading == link), "{name}: {link}");
        }
    }
}

#[tokio::test]
async fn what_the_rules_and_dashboards_ask_for_is_what_a_gateway_tells() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis).with("spool.enabled", true).with("subscriptions.check", "off");
    let home = home.with_sources(DECLARED);
    home.write("api.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let gateway = home.serve().await;
    let mut told = everything(&gateway, &redis).await;
    let posting = Home::embedded()
        .with("quarantine.enabled", true)
        .with("quarantine.key", "0123456789abcdef0123456789abcdef");
    let posting = posting.with("queue.kind", "http").with("queue.url", "http://127.0.0.1:9/");
    told.add(&posting.serve_unready().await.admin("/metrics").await.body);
    let rules = rules();
    for Rule { name, .. } in rules.iter().filter(|rule| !rule.is_alert) {
        told.add(&format!("{name}{{source=\"basiq\"}} 0\n"));
    }
    for rule in &rules {
        let (labels, summed) = held(&rule.name, &rule.expr, &told);
        let shown = rule.summary.split("{{ $labels.").chain(rule.description.split("{{ $labels.")).skip(1);
        for shown in shown.filter_map(|shown| shown.split_once(" }}")).map(|(label, _)| label) {
            let there = if summed.is_empty() { labels.contains(shown) } else { summed.contains(shown) };
            assert!(there, "{}: its text shows {shown}, which it does not have", rule.name);
        }
    }
    for name in DASHBOARDS {
        let board: Value = serde_json::from_str(&read(name)).unwrap();
        let mut queries = 0;
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let title = format!("{name}: {}", panel["title"]);
                let (labels, _) = held(&title, target["expr"].as_str().unwrap(), &told);
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                for shown in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
                    assert!(labels.contains(shown), "{title}: its legend shows {shown}");
                }
                queries += 1;
            }
        }
        assert!(queries > 10, "{name} has {queries} queries");
        for variable in board["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                let (metric, label) = query.strip_prefix("label_values(").unwrap().split_once(", ").unwrap();
                let label = label.trim_end_matches(')');
                let (labels, _) = held(name, metric, &told);
                assert!(labels.contains(label), "{name}: {query}");
            }
        }
    }
}

/// What it tells once it has looked at its servers, and at a consumer group.
async fn everything(gateway: &Gateway, redis: &Redis) -> Told {
    let () = redis.run(&["XGROUP", "CREATE", "hookgate.events", "any", "0", "MKSTREAM"]).await;
    let mut all = Told::default();
    until("it has looked at Redis and the group", async || {
        all = Told::default();
        all.add(&gateway.admin("/metrics").await.body);
        all.has("hookgate_unsafe_settings") && all.has("hookgate_consumer_group_lag_events")
    })
    .await;
    all
}

/// A source that observes, and one that has a subscription and is reconciled, so that there are series of them.
const DECLARED: &str = "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
    allow_ips = [\"192.0.2.0/24\"]\nobserve = [\"client_not_allowed\"]\nobserve_until = \"2999-01-01\"\n\
    [sources.api]\nprovider = \"basiq\"\nsecrets = [{ file = \"api.secret\" }]\n\
    [sources.api.subscription]\nevents = [\"user.created\"]\nurl = \"https://hooks.example.com/hooks/api\"\n\
    secret_file = \"api.secret\"\napi = { base = \"http://127.0.0.1:9\", key = \"a2V5\" }\n\
    [sources.api.reconcile]\nevery = \"1h\"\nlookback = \"1d\"\n";

/// promtool's opinion of `/metrics`, and the number of series.
async fn checked(gateway: &Gateway) -> usize {
    let text = gateway.admin("/metrics").await.body;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("metrics"), &text).unwrap();
    let metrics = std::fs::File::open(folder.path().join("metrics")).unwrap();
    let mut check = Command::new("promtool");
    let output = check.args(["check", "metrics"]).stdin(Stdio::from(metrics)).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    // It knows the process' own metrics by other rules than the library that exports them.
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test]
async fn promtool_finds_nothing_in_the_metrics_and_a_flood_of_names_adds_few_series() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis).with_sources(DECLARED.replace("192.0.2.0/24", "127.0.0.0/8") + OPEN);
    home.write("api.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let gateway = home.serve().await;
    everything(&gateway, &redis).await;
    gateway.deliver(&basiq("first")).await.assert_accepted("first");
    let before = checked(&gateway).await;
    for n in 0..300 {
        for path in
            [format!("/{n}"), format!("/hooks/{n}"), format!("/hooks/basiq/{n}"), format!("/hooks/basiq?{n}")]
        {
            gateway.deliver(&Request::post(&path, "{}").with("x-name", n.to_string())).await;
        }
        let typed = format!("{{\"type\":\"kind.{n}\",\"id\":\"{n}\"}}");
        assert_eq!(gateway.deliver(&Request::post("/hooks/open", typed)).await.status, 200);
        let () = redis.run(&["XGROUP", "CREATE", "hookgate.events", &format!("group{n}"), "0"]).await;
    }
    until("it has looked at the groups", async || {
        gateway.admin("/metrics").await.body.contains("group=\"other\"")
    })
    .await;
    let added = checked(&gateway).await - before;
    // A hundred types and `other`; thirty-two groups and `other`, with two series each; a stream.
    assert!(added <= 101 + 2 * 33 + 8, "{added} series more");
    assert!(added > 101 + 2 * 31, "{added} series more: nothing was flooded");
}

const OPEN: &str = "[providers.anybody.event]\ntype = \"/type\"\nid = \"/id\"\n\
    [sources.open]\nprovider = \"anybody\"\nunauthenticated = true\n";
