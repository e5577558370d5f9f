//! What each key of `[sources.NAME]` means.
//!
//! Keeps true: no two sources share a path, and no path holds what a client or a proxy would rewrite. Knows no
//! provider: what a provider needs is checked in `route.rs`.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::At;
use super::item::Item;
use super::read::Section;
use super::sections::{SECOND, SOME_TIME};
use crate::label::UNKNOWN;
use crate::peer::{self, Certificate, Network};
use crate::reason::Reason;
use crate::secret::SecretRef;

/// What to do with another body under a known identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Forward it, marked.
    Forward,
    /// Answer it as a duplicate, counted and recorded.
    Drop,
}

/// `rate_limit` and `client_rate_limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

/// One of `secrets`, and when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSecret {
    /// Where it is read from.
    pub reference: SecretRef,
    /// None: always has.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it no longer counts. None: it always will.
    pub not_after: Option<Timestamp>,
}

/// `[sources.NAME]`, as written; `route.rs` holds it against what its provider needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// NAME, 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: At<String>,
    /// The provider's name.
    pub provider: At<String>,
    /// Starts with `/`; the path without token.
    pub path: At<String>,
    /// Any one that counts may match.
    pub secrets: Vec<At<SourceSecret>>,
    /// How far a signed timestamp may be from now, both ways.
    pub tolerance: Duration,
    /// Empty allows all.
    pub allow_ips: Vec<Network>,
    /// Of all its clients together. None: unlimited.
    pub rate_limit: Option<RateLimit>,
    /// Of each client. None: unlimited.
    pub client_rate_limit: Option<RateLimit>,
    /// The path's last segment.
    pub path_token: Option<At<SecretRef>>,
    /// What a subject or alternative name of the client's certificate must look like; `*` stands for any text.
    pub client_certificate: Option<At<String>>,
    /// Securitize subscription ids; empty accepts all.
    pub subscriptions: Option<At<Vec<String>>>,
    /// None: the provider's default.
    pub on_conflict: Option<OnConflict>,
    /// For these a request is accepted, counted and recorded before `observe_until`, and refused from then on.
    pub observe: Vec<Reason>,
    /// The first moment at which everything is enforced. There is one where `observe` is not empty.
    pub observe_until: Option<At<Timestamp>>,
    /// The origins whose CloudEvents validation requests are granted, lower case.
    pub webhook_origins: Vec<String>,
    /// Serve it although nothing authenticates it.
    pub unauthenticated: Option<At<bool>>,
    /// Atelio: a header with v1 alone passes.
    pub accept_v1: Option<At<bool>>,
}

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
    if peer::everybody(&allow_ips)
        && let Some(item) = section.item("allow_ips")
    {
        let what = "lets everybody in; list the sender's own networks, or leave it out";
        section.warning(item.at, "allow_ips", what.to_owned());
    }
    let rate_limit_of_all = rate_limit(&section.section("rate_limit"));
    let client_rate_limit = rate_limit(&section.section("client_rate_limit"));
    let path_token = section.secret("path_token", base);
    let client_certificate = client_certificate(section);
    let subscriptions = subscriptions(section);
    let choices = [("forward", OnConflict::Forward), ("drop", OnConflict::Drop)];
    let on_conflict = section.one_of("on_conflict", &choices).map(|choice| choice.value);
    let unauthenticated = section.flag("unauthenticated");
    let accept_v1 = section.flag("accept_v1");
    let (observe, observe_until) = observe(section);
    let webhook_origins = webhook_origins(section);
    section.finish();
    Source {
        // An empty one stands for one that has been reported.
        provider: provider.unwrap_or(At { value: String::new(), at: section.at() }),
        name,
        path,
        secrets,
        tolerance,
        allow_ips,
        rate_limit: rate_limit_of_all,
        client_rate_limit,
        path_token,
        client_certificate,
        subscriptions,
        on_conflict,
        observe,
        observe_until,
        webhook_origins,
        unauthenticated,
        accept_v1,
    }
}

fn secrets(section: &Section<'_>, base: &Path) -> Vec<At<SourceSecret>> {
    let Some(item) = section.item("secrets") else { return Vec::new() };
    match item.list() {
        Some(items) => items.into_iter().filter_map(|item| secret(&item, base)).collect(),
        None => item.expected_secret("a list of secrets such as [{ env = \"NAME\" }]").unwrap_or_default(),
    }
}

fn secret(item: &Item<'_>, base: &Path) -> Option<At<SourceSecret>> {
    let (mut not_before, mut not_after) = (None, None);
    let At { value: reference, at } = item.secret_with(base, |section| {
        not_before = section.item("not_before").and_then(|item| item.moment(false));
        not_after = section.item("not_after").and_then(|item| item.moment(true));
    })?;
    if let (Some(from), Some(until)) = (not_before, not_after)
        && from >= until
    {
        item.problem("not_before is not before not_after: this secret would never count");
    }
    Some(At { value: SourceSecret { reference, not_before, not_after }, at })
}

fn rate_limit(limit: &Section<'_>) -> Option<RateLimit> {
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

fn observe(section: &Section<'_>) -> (Vec<Reason>, Option<At<Timestamp>>) {
    let until = section.item("observe_until");
    let at = until.as_ref().map_or(section.at(), |item| item.at);
    let given = until.is_some();
    let until = until.and_then(|item| item.moment(true)).map(|value| At { value, at });
    let what = "a list of what is only to be observed, such as [\"client_not_allowed\"]";
    let mut observe = Vec::new();
    for item in section.items("observe", what).into_iter().flatten() {
        let Some(found) = item.choice(&OBSERVABLE.map(|reason| (reason.label(), reason))) else { continue };
        if !observe.contains(&found) {
            observe.push(found);
        }
    }
    if !observe.is_empty() && !given {
        section.missing("observe_until", "missing; observing ends: expected a date such as 2027-01-31");
    }
    if observe.is_empty() && given && section.item("observe").is_none() {
        section.warning(at, "observe_until", "no effect without observe");
    }
    (observe, until)
}

fn webhook_origins(section: &Section<'_>) -> Vec<String> {
    let what = "a list of origins such as [\"eventemitter.example.com\"]";
    let mut origins = Vec::new();
    for item in section.items("webhook_origins", what).into_iter().flatten() {
        let Some(text) = item.text("an origin: a host name") else { continue };
        // `*` would grant whoever asks, which is what the request is there to prevent.
        if text.contains(|c: char| !c.is_ascii_graphic() || "*,\"".contains(c)) {
            item.problem(format!("expected an origin: a host name, found {text:?}; list each"));
            continue;
        }
        origins.push(text.to_ascii_lowercase());
    }
    origins
}

fn client_certificate(section: &Section<'_>) -> Option<At<String>> {
    let item = section.item("client_certificate")?;
    let name = item.text(Certificate::EXPECTED)?;
    if !Certificate::can_match(name) {
        return item.expected(Certificate::EXPECTED);
    }
    Some(At { value: name.to_owned(), at: item.at })
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
    let wrong = odd_path(text).or_else(|| text.ends_with('/').then_some("it ends with /"));
    if let Some(wrong) = wrong {
        let what = format!("expected a path such as \"/hooks/basiq\", found {text:?}: {wrong}");
        section.problem(path.at, "path", what);
    }
}

/// Why a text is no path, or one that a client or a proxy would rewrite.
pub(super) fn odd_path(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') {
        Some("it does not start with /")
    } else if text.contains(|c: char| !c.is_ascii_graphic() || "?#%".contains(c)) {
        Some("only visible ASCII without ? # % is allowed")
    } else if text.contains("//") {
        Some("it holds //")
    } else if text.len() > MAX_PATH {
        // It is the event's `source`.
        Some("it is over 600 bytes")
    } else if text.split('/').any(|part| part == "." || part == "..") {
        Some("a segment . or .. would be resolved by clients")
    } else {
        None
    }
}

/// Reports a health path that a source has: probes would be taken for its deliveries, or the other way round.
pub(super) fn check_health_path(root: &Section<'_>, path: &At<String>, sources: &[Source]) {
    let text = path.value.as_str();
    let taken = sources.iter().find(|source| {
        let rest = text.strip_prefix(source.path.value.as_str());
        // Below the path of a source with a token stands the token.
        rest.is_some_and(|rest| rest.is_empty() || source.path_token.is_some() && rest.starts_with('/'))
    });
    if let Some(source) = taken {
        let (name, below) = (&source.name.value, source.path.value != text);
        let place = if below { "below the path" } else { "the path" };
        let what = format!("{text:?} is {place} of the source {name}; choose another, such as \"/healthz\"");
        root.problem_at(path.at, "edge.health_path", what);
    }
}

/// Bytes: no attribute of an event is longer.
const MAX_PATH: usize = 600;
const MAX_RATE: u64 = 1_000_000_000;
/// The reasons that a source may only observe. A wrong signature is always refused.
const OBSERVABLE: [Reason; 4] = [
    Reason::ClientNotAllowed,
    Reason::RateLimited,
    Reason::TimestampOutsideTolerance,
    Reason::SubscriptionNotAllowed,
];
