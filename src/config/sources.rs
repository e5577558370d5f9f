//! What each key of `[sources.NAME]` means.
//!
//! Keeps true: no two sources share a path, and no path holds what a client or a proxy would rewrite. Knows no
//! provider: what a provider needs is checked in `route.rs`.

use std::path::Path;

use super::read::{Off, Section};
use super::sections::{SECOND, SOME_TIME};
use super::{At, OnConflict, RateLimit, Source};
use crate::secret::SecretRef;

/// Every source, in the order of the file.
pub(super) fn sources(root: &Section<'_>, base: &Path) -> Vec<Source> {
    let section = root.section("sources");
    let sources: Vec<_> = section
        .named()
        .into_iter()
        .map(|(name, named)| {
            check_name(&section, &name);
            source(name, &named, base)
        })
        .collect();
    if section.is_empty() {
        root.missing("sources", "no source; expected at least one [sources.NAME] with a provider");
    }
    for (number, source) in sources.iter().enumerate() {
        let before = sources.iter().take(number).find(|before| before.path.value == source.path.value);
        if let Some(before) = before {
            let key = format!("{}.path", section.key_of(&source.name.value));
            let what =
                format!("{:?} is already the path of the source {}", source.path.value, before.name.value);
            section.problem_at(source.path.at, &key, what);
        }
    }
    sources
}

fn source(name: At<String>, section: &Section<'_>, base: &Path) -> Source {
    let provider = section.string("provider", "the name of a provider");
    if section.item("provider").is_none() {
        section.missing("provider", "missing; expected the name of a provider");
    }
    let path = section.string("path", "a path such as \"/hooks/basiq\"");
    let path = path.unwrap_or_else(|| At { value: format!("/hooks/{}", name.value), at: section.at() });
    // The default path of a bad name is as bad; the name has been reported.
    if section.item("path").is_some() || is_name(&name.value) {
        check_path(section, &path);
    }
    let secrets = secrets(section, base);
    let tolerance = section.duration("tolerance", SOME_TIME, 300 * SECOND).value;
    let allow_ips = section.networks("allow_ips");
    let rate_limit = rate_limit(section);
    let path_token = section.secret("path_token", base);
    let subscriptions = subscriptions(section);
    let choices = [("forward", OnConflict::Forward), ("drop", OnConflict::Drop)];
    let on_conflict = section.one_of("on_conflict", &choices).map(|choice| choice.value);
    let unauthenticated = section.flag("unauthenticated").is_some_and(|flag| flag.value);
    let accept_v1 = section.flag("accept_v1");
    section.later("client_certificate", Off::Absent);
    section.later("observe", Off::False);
    section.later("observe_until", Off::Absent);
    section.later("webhook_origins", Off::EmptyList);
    section.finish();
    Source {
        // An empty one stands for one that has been reported.
        provider: provider.unwrap_or(At { value: String::new(), at: section.at() }),
        name,
        path,
        secrets,
        tolerance,
        allow_ips,
        rate_limit,
        path_token,
        subscriptions,
        on_conflict,
        unauthenticated,
        accept_v1,
    }
}

fn secrets(section: &Section<'_>, base: &Path) -> Vec<At<SecretRef>> {
    let Some(item) = section.item("secrets") else { return Vec::new() };
    match item.list() {
        Some(items) => items.into_iter().filter_map(|item| item.secret(base)).collect(),
        None => item.expected_secret("a list of secrets such as [{ env = \"NAME\" }]").unwrap_or_default(),
    }
}

fn rate_limit(section: &Section<'_>) -> Option<RateLimit> {
    let limit = section.section("rate_limit");
    if !limit.is_present() {
        return None;
    }
    let per_second = limit.integer("per_second", 1..=MAX_RATE);
    let burst = limit.integer("burst", 1..=MAX_RATE);
    if limit.item("per_second").is_none() {
        limit.missing("per_second", "missing; expected requests a second, 1 or more");
    }
    limit.finish();
    let per_second = u32::try_from(per_second?.value).ok()?;
    let burst = burst.and_then(|burst| u32::try_from(burst.value).ok()).unwrap_or(per_second);
    Some(RateLimit { per_second, burst })
}

fn subscriptions(section: &Section<'_>) -> Option<At<Vec<String>>> {
    let at = section.item("subscriptions")?.at;
    let items = section.items("subscriptions", "a list of subscription ids")?;
    let ids = items.iter().filter_map(|item| item.text("a subscription id")).map(str::to_owned);
    Some(At { value: ids.collect(), at })
}

fn check_name(sources: &Section<'_>, name: &At<String>) {
    if !is_name(&name.value) {
        let what = "expected a name of 1 to 64 of A-Z a-z 0-9 . _ -";
        sources.problem(name.at, &name.value, what);
    } else if name.value == UNKNOWN {
        let what = "the name is taken by requests to no source; choose another";
        sources.problem(name.at, &name.value, what);
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

fn check_path(section: &Section<'_>, path: &At<String>) {
    let text = path.value.as_str();
    let wrong = if !text.starts_with('/') {
        "it does not start with /"
    } else if text.contains(|c: char| !c.is_ascii_graphic() || "?#%".contains(c)) {
        "only visible ASCII without ? # % is allowed"
    } else if text.ends_with('/') {
        "it ends with /"
    } else if text.contains("//") {
        "it holds //"
    } else if text.split('/').any(|part| part == "." || part == "..") {
        "a segment . or .. would be resolved by clients"
    } else {
        return;
    };
    section.problem(
        path.at,
        "path",
        format!("expected a path such as \"/hooks/basiq\", found {text:?}: {wrong}"),
    );
}

// What metrics and records call the source of a request that belongs to none.
const UNKNOWN: &str = "unknown";
const MAX_RATE: u64 = 1_000_000_000;
