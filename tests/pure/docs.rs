//! What the READMEs list is what the code has: every event type with its canonical type, every reject reason with its status,
//! every metric with its labels.

use std::collections::BTreeSet;

use hookgate::label::Label;
use hookgate::metrics::Metrics;
use hookgate::provider;
use hookgate::reason::{Note, Reason};
use prometheus::proto::MetricFamily;

#[test]
fn the_provider_page_lists_every_event_type_and_no_other() {
    let page = read("src/provider/README.md");
    let (_, page) = page.split_once("# Event types").unwrap();
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert_eq!(sections.len(), provider::TABLE.len());
    for (provider, section) in provider::TABLE.iter().zip(sections) {
        assert!(section.to_lowercase().starts_with(provider.name), "{}: sections as in TABLE", provider.name);
        let listed: BTreeSet<_> = rows(section).filter(|(_, canonical)| canonical.contains('.')).collect();
        let known =
            provider.types.iter().map(|(kind, canonical)| ((*kind).to_owned(), (*canonical).to_owned()));
        assert_eq!(listed, known.collect(), "{}", provider.name);
    }
}

#[test]
fn the_front_page_lists_every_reject_reason_with_its_status() {
    let page = read("README.md");
    let (_, section) = page.split_once("\n## When a delivery is refused").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let listed: Vec<_> = rows(section).collect();
    let (listed, notes) = listed.split_at(Reason::ALL.len());
    let refused =
        Reason::ALL.iter().map(|reason| (reason.label().to_owned(), reason.status().as_u16().to_string()));
    assert_eq!(listed, refused.collect::<Vec<_>>());
    let notes: Vec<_> = notes.iter().map(|(note, _)| note).collect();
    assert_eq!(notes, Note::LABELS);
}

#[test]
fn the_operators_page_lists_every_metric_as_its_row_has_it() {
    let page = read("deploy/README.md");
    let (_, section) = page.split_once("\n## Metrics").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let listed: Vec<_> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let metrics = Metrics::new().unwrap();
    let known = metrics.families().flat_map(|family| {
        let labels: Vec<_> =
            family.desc()[0].variable_labels.iter().map(|label| format!("`{label}`")).collect();
        let row = move |of: &MetricFamily| {
            let kind = format!("{:?}", of.get_field_type()).to_lowercase();
            format!("| `{}` | {kind} | {} | {} |", of.name(), labels.join(", "), of.help())
        };
        family.collect().iter().map(row).collect::<Vec<_>>()
    });
    let known: Vec<_> = known.collect();
    assert!(listed == known, "deploy/README.md should list:\n{}", known.join("\n"));
}

/// The first two cells of each row that begins with a code word, without their quotes.
fn rows(section: &str) -> impl Iterator<Item = (String, String)> {
    section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
        (cells.next().unwrap(), cells.next().unwrap())
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}
