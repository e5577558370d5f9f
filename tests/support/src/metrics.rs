//! `/metrics`, read.

use std::collections::{BTreeMap, BTreeSet};

/// Every sample.
#[derive(Debug)]
pub struct Metrics {
    /// By name, labels and value.
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
    /// The type of each name, as its `# TYPE` line says.
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    pub fn read(text: &str) -> Metrics {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels =
                labels.strip_suffix('}').unwrap().split("\",").filter_map(|pair| pair.split_once("=\""));
            let labels =
                labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
            (name.to_owned(), labels.collect(), value.parse().unwrap())
        });
        Metrics {
            samples: samples.collect(),
            types: types.map(|(n, t)| (n.to_owned(), t.to_owned())).collect(),
        }
    }

    /// The sum over the samples of this name with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut found = self.samples.iter().filter(|(known, has, _)| {
            known == name
                && labels.iter().all(|(label, value)| has.get(*label).is_some_and(|has| has == value))
        });
        found.by_ref().map(|(_, _, value)| value).sum()
    }

    /// The values of a label, over all samples of this name.
    pub fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let of_name = self.samples.iter().filter(|(known, ..)| known == name);
        of_name.filter_map(|(_, labels, _)| labels.get(label).cloned()).collect()
    }

    pub fn requests(&self, source: &str, outcome: &str) -> f64 {
        self.sum("hookgate_requests_total", &[("source", source), ("outcome", outcome)])
    }

    pub fn rejects(&self, source: &str, reason: &str) -> f64 {
        self.sum("hookgate_rejects_total", &[("source", source), ("reason", reason)])
    }

    /// How many requests were answered, over all sources and outcomes.
    pub fn answered(&self) -> f64 {
        self.sum("hookgate_requests_total", &[])
    }

    /// How many refusals there were, over all sources and reasons.
    pub fn refused(&self) -> f64 {
        self.sum("hookgate_rejects_total", &[])
    }
}
