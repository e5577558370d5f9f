//! What the READMEs and `config/full.toml` list is what the code has: every event type with its canonical type, every reject
//! reason with its status, every metric with its labels, every config key with its default.
//!
//! With `HOOKGATE_BLESS=1` the lists of config keys and of metrics are written anew. Read the diff before you commit them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use hookgate::base::label::Label;
use hookgate::base::reason::{Note, Reason};
use hookgate::config::{Config, KeyDescription};
use hookgate::observe::metrics::Metrics;
use hookgate::provider::{Handshake, Provider, catalog};
use prometheus::proto::MetricFamily;

#[test]
fn the_provider_page_lists_every_event_type_and_no_other() {
    let page = read("src/provider/README.md");
    let (_, page) = page.split_once("# Event types").unwrap();
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert_eq!(sections.len(), catalog::with_coded_payloads().count());
    for (provider, section) in catalog::with_coded_payloads().zip(sections) {
        assert!(
            section.to_lowercase().starts_with(provider.name),
            "{}: sections in the order of catalog::coded",
            provider.name
        );
        let listed: BTreeSet<_> = rows(section).filter(|(_, canonical)| canonical.contains('.')).collect();
        let known = provider
            .types
            .unwrap()
            .iter()
            .map(|(kind, canonical)| ((*kind).to_owned(), (*canonical).to_owned()));
        assert_eq!(listed, known.collect(), "{}", provider.name);
    }
}

#[test]
fn the_front_page_lists_every_defined_provider() {
    let page = read("README.md");
    let head = "| `provider` | signed by | handshake | may redeliver for |\n|---|---|---|---|\n";
    let start = page.find(head).unwrap() + head.len();
    let end = start + page[start..].find("\n\n").map_or(0, |end| end + 1);
    let end = if page[start..].starts_with('\n') { start } else { end };
    let defined = catalog::built_ins().filter(|provider| provider.reader.code().is_none());
    let row = |provider: &Provider| {
        let handshake = match provider.handshake {
            Some(Handshake::Header(header)) => format!("GET, returns `{header}`"),
            Some(Handshake::Query(query)) => {
                let method = if query.by_post { "POST" } else { "GET" };
                format!("{method}, returns `{}`", query.parameter)
            }
            Some(Handshake::Body(_)) => "a signed POST".to_owned(),
            None => String::new(),
        };
        let hours = provider.retries_for.map(|time| time.as_secs_f64() / 3600.0);
        let retries =
            hours.map_or("not published".to_owned(), |hours| format!("{} h", (hours * 10.0).round() / 10.0));
        let algorithms: Vec<_> = provider.algorithms().iter().map(|name| format!("`{name}`")).collect();
        format!("| `{}` | {} | {handshake} | {retries} |\n", provider.name, algorithms.join(", "))
    };
    let listed: String = defined.map(row).collect();
    holds("README.md", &page, start..end, &listed);
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
    let head = "| metric | type | labels | tells |\n|---|---|---|---|\n";
    let start = page.find(head).unwrap() + head.len();
    let end = start + page[start..].find("\n\n").unwrap() + 1;
    let metrics = Metrics::new().unwrap();
    let listed: String = metrics
        .families()
        .flat_map(|family| {
            let labels: Vec<_> =
                family.desc()[0].variable_labels.iter().map(|label| format!("`{label}`")).collect();
            let row = move |of: &MetricFamily| {
                let kind = format!("{:?}", of.get_field_type()).to_lowercase();
                format!("| `{}` | {kind} | {} | {} |\n", of.name(), labels.join(", "), of.help())
            };
            family.collect().iter().map(row).collect::<Vec<_>>()
        })
        .collect();
    holds("deploy/README.md", &page, start..end, &listed);
}

#[test]
fn every_config_key_has_a_default_or_an_example_and_a_comment() {
    let keys = Config::keys();
    assert!(keys.len() > 60, "{}", keys.len());
    for key in keys {
        assert!(!key.doc.is_empty() && key.doc.ends_with('.'), "{}: {:?}", key.name, key.doc);
        assert!(is_table(&key) || key.default.is_some() != key.example.is_some(), "{key:?}");
    }
}

#[test]
fn the_full_config_lists_every_key_outside_sources_with_its_default() {
    let page = read("config/full.toml");
    let (start, end) = (page.find("\ndata_dir").unwrap(), page.find("\n[sources.").unwrap());
    let mut listed = String::new();
    for key in Config::keys().iter().filter(|key| !key.name.starts_with("sources")) {
        listed.push_str(&line_of_full(key));
    }
    holds("config/full.toml", &page, start + 1..end, &listed);
}

#[test]
fn the_full_config_shows_every_key_of_a_source() {
    let page = read("config/full.toml");
    let sources = &page[page.find("\n[sources.").unwrap()..];
    for key in Config::keys() {
        let Some(name) = key.name.strip_prefix("sources.NAME.") else { continue };
        let name = name.rsplit('.').next().unwrap();
        if is_table(&key) && sources.contains(&format!(".{name}]")) {
            continue;
        }
        let default = key.default.filter(|default| default != "[]").unwrap_or_default();
        let shown = format!("{name} = {default}");
        assert!(sources.contains(&shown), "{shown} is in no source of config/full.toml");
    }
}

#[test]
fn the_front_page_lists_every_config_key_with_its_default() {
    let page = read("README.md");
    let head = "| key | default | takes | applied by | meaning |\n|---|---|---|---|---|\n";
    let start = page.find(head).unwrap() + head.len();
    let end = start + page[start..].find("\n\n").unwrap() + 1;
    let code = |text: &str| format!("`{text}`");
    let row = |key: &KeyDescription| {
        let KeyDescription { name, doc, allowed, .. } = key;
        let default = key.default.as_deref().map(code).unwrap_or_default();
        let by = match key.needs_restart {
            _ if is_table(key) => "",
            true => "restart",
            false => "reload",
        };
        format!("| `{name}` | {default} | {allowed} | {by} | {doc} |\n")
    };
    let listed: String = Config::keys().iter().map(row).collect();
    holds("README.md", &page, start..end, &listed);
}

fn is_table(key: &KeyDescription) -> bool {
    key.allowed == "a table"
}

/// A key as the full config shows it, with its comment beside it.
fn line_of_full(key: &KeyDescription) -> String {
    const BESIDE: usize = 43;
    const LONGEST: usize = 130;
    let (section, name) = key.name.rsplit_once('.').unwrap_or(("", &key.name));
    let value = key.default.as_deref().or(key.example);
    let (break_before, shown) = match value {
        Some(value) => ("", format!("{name} = {value}")),
        None => ("\n", format!("[{}]", key.name)),
    };
    // What is not there unless it is written, and the keys of a table that is not.
    let is_left_out =
        key.default.is_none() && (value.is_some() || !section.is_empty()) || section.contains('.');
    let mark = if is_left_out { "# " } else { "" };
    let mut line = format!("{break_before}{:<width$}", format!("{mark}{shown} "), width = BESIDE);
    line.push('#');
    let mut width = line.trim_start().chars().count();
    // A choice of words is not clear from the default.
    let words = if key.allowed.starts_with('"') { format!("{}. ", key.allowed) } else { String::new() };
    for word in (words + key.doc).split_whitespace() {
        if width + 1 + word.chars().count() > LONGEST {
            line.push_str(&format!("\n{:BESIDE$}#", ""));
            width = BESIDE + 1;
        }
        line.push_str(&format!(" {word}"));
        width += 1 + word.chars().count();
    }
    line + "\n"
}

/// Fails unless the file has this text in this place. With `HOOKGATE_BLESS=1` it writes the text there.
fn holds(path: &str, page: &str, place: Range<usize>, text: &str) {
    if std::env::var_os("HOOKGATE_BLESS").is_some() {
        let page = [&page[..place.start], text, &page[place.end..]].concat();
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), page).unwrap();
        return;
    }
    let (is, should): (Vec<_>, Vec<_>) = (page[place].lines().collect(), text.lines().collect());
    let at = is.iter().zip(&should).take_while(|(is, should)| is == should).count();
    assert!(
        is == should,
        "{path} does not say what the code does: {:?} should be {:?}; write it anew with HOOKGATE_BLESS=1",
        is.get(at),
        should.get(at)
    );
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
