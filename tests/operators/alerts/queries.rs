//! PromQL, as far as it names metrics and labels: held to what a gateway tells.

use std::collections::{BTreeMap, BTreeSet};

/// The series of gateways, by name: the values of each label.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Told {
    pub(super) fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let of = self.0.entry(name.to_owned()).or_default();
            let pairs = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
            for (label, value) in pairs {
                of.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Fails unless a gateway tells each metric, label and value that a query asks for. Returns the labels that its metrics have, and
/// those that are left after sums.
pub(super) fn held<'a>(whose: &str, expr: &'a str, told: &'a Told) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let selectors = selectors(expr);
    assert!(!selectors.is_empty(), "{whose} asks for nothing: {expr}");
    // What Prometheus adds.
    let mut labels = BTreeSet::from(["job", "instance"]);
    for (metric, matchers) in selectors.iter().filter(|(metric, _)| *metric != "up") {
        let series = told.0.get(*metric).unwrap_or_else(|| panic!("{whose}: no {metric}"));
        labels.extend(series.keys().map(String::as_str));
        for (label, value) in matchers.iter().filter(|(label, _)| !["job", "instance"].contains(label)) {
            let values =
                series.get(*label).unwrap_or_else(|| panic!("{whose}: {metric} has no label {label}"));
            for alternative in value.split('|').filter(|value| !value.is_empty() && !value.starts_with('$')) {
                let is_there = is_met(alternative, values);
                assert!(is_there, "{whose}: no {label} of {metric} is {alternative}, but {values:?}");
            }
        }
    }
    let summed: BTreeSet<&str> = lists_after(expr, "by (").collect();
    let of: BTreeSet<&str> = lists_after(expr, "on (").chain(summed.iter().copied()).collect();
    assert!(of.is_subset(&labels), "{whose}: {of:?} of {labels:?}");
    (labels, summed)
}

/// A metric's name, and what is asked of its labels. A matcher that excludes values asks for the label alone.
type Selector<'a> = (&'a str, Vec<(&'a str, &'a str)>);

fn selectors(expr: &str) -> Vec<Selector<'_>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut rest) = (Vec::new(), expr);
    while let Some(at) = rest.find(|c: char| is_word(c) || c == '"') {
        rest = &rest[at..];
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').unwrap().1;
            continue;
        }
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        rest = after;
        if !word.contains("hookgate_") && !word.starts_with("process_") && word != "up" {
            continue;
        }
        let matchers = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let matchers = matchers.map_or("", |(matchers, _)| matchers).split("\",").filter_map(|matcher| {
            let (label, value) = matcher.split_once('"')?;
            let value = if label.contains('!') { "" } else { value.trim_end_matches('"') };
            Some((label.trim_end_matches(['=', '~', '!']), value))
        });
        found.push((word, matchers.collect()));
    }
    found
}

/// Whether one of these values is what an alternative of a matcher asks for.
fn is_met(alternative: &str, values: &BTreeSet<String>) -> bool {
    match alternative.strip_suffix(".*") {
        Some(begins) => values.iter().any(|value| value.starts_with(begins)),
        // Prometheus 3 writes the bound 60 of a bucket as 60.0.
        None => values.contains(alternative.strip_suffix(".0").unwrap_or(alternative)),
    }
}

/// The names in every list that begins like this.
fn lists_after<'a>(expr: &'a str, begins: &'a str) -> impl Iterator<Item = &'a str> {
    let lists = expr.split(begins).skip(1).filter_map(|rest| rest.split_once(')'));
    lists.flat_map(|(list, _)| list.split(',').map(str::trim)).filter(|name| !name.is_empty())
}
