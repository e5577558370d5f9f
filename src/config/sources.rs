//! The keys of `[sources.NAME]`.
//!
//! Keeps true: no two sources share a path, and clients and proxies rewrite no path. This module knows no provider:
//! `request::source` checks what a provider needs.

use std::time::Duration;

use jiff::Timestamp;

use super::Located;
use super::item::Item;
use super::keys::{self, Table, Target, table};
use super::kinds::{ValueKind, inline, section};
use super::print::{Shown, quote, quote_key, reference};
use super::section::Section;
use super::subscription::{Reconcile, Subscription};
use super::values::{
    POSITIVE_TIME, SECOND, choice, duration, flag, moment, networks, secret, text, value, whole,
};
use crate::base::label::{Label, UNKNOWN, labels};
use crate::base::peer::{self, Certificate, Network};
use crate::base::reason::Reason;
use crate::config::secret::SecretRef;

table! {
    /// `[sources.NAME]`, as written. `request::source` checks it against its provider.
    pub struct Source {
        /// The provider's name. Required.
        provider: Located<String> = text("the name of a provider", "").located(), live, "\"basiq\"";
        /// The path at which the source is reached. The default is `/hooks/` and the source's name.
        path: Located<String> = text("a path such as \"/hooks/basiq\"", "").located(), live, "\"/hooks/NAME\"";
        /// The provider's secrets. Any one of them may match. Each may have dates, `not_before` and `not_after`.
        secrets: Vec<Located<SourceSecret>> = secrets(), live;
        /// How far a signed time may be off, both ways.
        tolerance: Duration = duration(POSITIVE_TIME, 300 * SECOND), live;
        /// The networks and addresses that may deliver. Empty allows all. `::ffff:…` means IPv4.
        allow_ips: Vec<Network> = networks(), live;
        /// The requests that all clients together may send. A request beyond it gets 429. Without it there is no limit.
        rate_limit: Option<RateLimit> = inline().optional(), live, "{ per_second = 500, burst = 1000 }";
        /// The same for each client's address (IPv6: each /64). A client that a trusted proxy does not name has no
        /// limit.
        client_rate_limit: Option<RateLimit> = inline().optional(), live, "{ per_second = 50 }";
        /// The last segment of the path. The provider is then given `PATH/TOKEN`.
        path_token: Option<Located<SecretRef>> = secret().optional(), live, "{ env = \"SECURITIZE_TOKEN\" }";
        /// The token that a provider's validation request names, where its handshake has one, such as Meta's verify token.
        handshake_token: Option<Located<SecretRef>> = secret().optional(), live, "{ env = \"META_VERIFY_TOKEN\" }";
        /// A name in the client's certificate, `*.` and the domain of a host name there, or the whole subject. It needs
        /// `edge.tls.client_ca`.
        client_certificate: Option<Located<String>> = client_certificate().located().optional(), live, "\"*.webhooks.example\"";
        /// Securitize: the ids of the subscriptions that are taken. Others get 403. Empty takes all.
        subscriptions: Option<Located<Vec<String>>> =
            text("a subscription id", "").list("a list of subscription ids").located().optional(), live,
            "[\"44a85f64-5717-4562-b3fc-2c963f66af44\"]";
        /// What to do with another body under a known identity: forward it marked, or drop it. Each provider has its
        /// own default.
        on_conflict: Option<OnConflict> = choice(OnConflict::ALL, OnConflict::Forward).optional(), live, "\"forward\"";
        /// With `true`, the gateway serves a source that nothing authenticates. For tests only.
        unauthenticated: Located<bool> = flag(false).located(), live;
        /// Atelio: with `true`, a header with only the old v1 signature passes.
        accept_v1: Option<Located<bool>> = flag(false).located().optional(), live, "false";
        /// Reasons that refuse nothing until `observe_until`: the gateway counts and records them, and lets the
        /// delivery in.
        observe: Vec<Reason> = choice(OBSERVABLE, Reason::ClientNotAllowed).list(OBSERVED), live;
        /// When `observe` ends. Required with it. A day counts whole.
        observe_until: Option<Located<Timestamp>> = moment(true).located().optional(), live, "2030-01-31";
        /// CloudEvents: the gateway grants OPTIONS requests from these origins, and refuses others.
        webhook_origins: Vec<String> = origin().list("a list of origins such as [\"eventemitter.example.com\"]"), live;
        /// What the provider should deliver here, for `hookgate subscriptions`. Providers with an API here: securitize,
        /// anduin (legacy), basiq, atelio, iof.
        subscription: Option<Subscription> = section().optional(), live;
        /// Fetches events that never arrived from the provider, while the gateway runs.
        reconcile: Option<Reconcile> = section().optional(), live;
        besides {
            /// NAME, 1 to 64 of `A-Z a-z 0-9 . _ -`.
            name: Located<String>,
        }
    }
}

table! {
    /// `rate_limit` and `client_rate_limit`.
    pub struct RateLimit, checked by check_rate_limit {
        /// Requests a second. Required.
        per_second: u32 = whole(1..=MAX_RATE, 0), live, "500";
        /// Requests at once. The default is `per_second`.
        burst: u32 = whole(1..=MAX_RATE, 0), live, "1000";
    }
}
impl Copy for RateLimit {}
impl Eq for RateLimit {}

labels! {
    /// What to do with another body under a known identity.
    pub enum OnConflict {
        /// Forward it, marked.
        Forward = "forward",
        /// Answer it as a duplicate, counted and recorded.
        Drop = "drop",
    }
}

/// One of `secrets`, and when it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSecret {
    /// Where it is read from.
    pub reference: SecretRef,
    /// The first moment at which it is valid. None: no limit.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it is no longer valid. None: no limit.
    pub not_after: Option<Timestamp>,
}

/// The tables of all sources, in the order of the file.
pub(super) fn named_sources() -> ValueKind<Vec<Source>> {
    let read = |item: &Item<'_>| {
        let sources = item.section()?;
        let read = |(name, section): (Located<String>, Section<'_>)| {
            check_name(&sources, &name);
            let mut source = Source { name, ..Source::read(&section) };
            check_source(&mut source, &section);
            source
        };
        Some(sources.named().into_iter().map(read).collect())
    };
    let show = |sources: &Vec<Source>| {
        let source = |source: &Source| (quote_key(&source.name.value), Shown::Table(keys::show(source)));
        Some(Shown::Table(sources.iter().map(source).collect()))
    };
    ValueKind {
        // A reload compares sources one by one, in `request::source`.
        changes: |_, _, _, _| (),
        nested: Some(|above, keys| keys::describe::<Source>(&format!("{above}.NAME"), keys)),
        ..ValueKind::new("a table", |_, _| Vec::new(), read, show)
    }
    .naming(|sources, key, found| {
        for source in sources {
            let above = format!("{}.{}", key.name, quote_key(&source.name.value));
            keys::references(source, &above, found);
        }
    })
}

/// The secrets of a source.
fn secrets() -> ValueKind<Vec<Located<SourceSecret>>> {
    let read = |item: &Item<'_>| match item.list() {
        Some(items) => Some(items.iter().filter_map(source_secret).collect()),
        None => item.expected_secret("a list of secrets such as [{ env = \"NAME\" }]"),
    };
    let show = |secrets: &Vec<Located<SourceSecret>>| {
        let secrets: Vec<_> = secrets.iter().map(|secret| dated(&secret.value)).collect();
        format!("[{}]", secrets.join(", "))
    };
    value("a list of secrets", Vec::new(), read, show).naming(|secrets, key, found| {
        let secrets = secrets.iter();
        found.extend(secrets.map(|secret| key.names(secret.at, Target::Secret(&secret.value.reference))));
    })
}

fn source_secret(item: &Item<'_>) -> Option<Located<SourceSecret>> {
    let section = item.is_table().then(|| item.section()).flatten();
    let date = |key, after_it| section.as_ref()?.item(key)?.moment(after_it);
    let (not_before, not_after) = (date("not_before", false), date("not_after", true));
    let Located { value: reference, at } = item.secret(&["not_before", "not_after"])?;
    if let (Some(from), Some(until)) = (not_before, not_after)
        && from >= until
    {
        item.problem("not_before is not before not_after: this secret would never be valid");
    }
    Some(Located { value: SourceSecret { reference, not_before, not_after }, at })
}

/// A secret with its dates, as TOML. A redacted plain text has none, since only a table can hold dates.
fn dated(secret: &SourceSecret) -> String {
    let shown = reference(&secret.reference);
    let dates = [("not_before", secret.not_before), ("not_after", secret.not_after)];
    let dates: String = dates.iter().filter_map(|(key, at)| Some(format!(", {key} = {}", (*at)?))).collect();
    match shown.strip_suffix(" }") {
        Some(table) => format!("{table}{dates} }}"),
        None => shown,
    }
}

/// A name or subject that the client's certificate must have.
fn client_certificate() -> ValueKind<String> {
    let read = |item: &Item<'_>| {
        let expected = item.as_text().filter(|text| !text.trim().is_empty() && Certificate::can_match(text));
        expected.map(str::to_owned).or_else(|| item.expected(Certificate::EXPECTED))
    };
    value("a name, or a subject such as CN=sender,O=Example", String::new(), read, |name| quote(name))
}

fn origin() -> ValueKind<String> {
    let read = |item: &Item<'_>| {
        let text = item.text("an origin: a host name")?;
        // `*` would grant every origin, which the request is there to prevent.
        if text.contains(|c: char| !c.is_ascii_graphic() || "*,\"".contains(c)) {
            item.problem(format!("expected an origin: a host name, found {text:?}; list each"));
            return None;
        }
        Some(text.to_ascii_lowercase())
    };
    value("an origin", String::new(), read, |origin| quote(origin))
}

fn check_rate_limit(limit: &mut RateLimit, section: &Section<'_>) {
    section.require("per_second", "requests a second, 1 or more");
    if section.given_at("burst").is_none() {
        limit.burst = limit.per_second;
    }
}

fn check_source(source: &mut Source, section: &Section<'_>) {
    section.require("provider", "the name of a provider");
    let has_path = section.item("path").is_some();
    if section.given_at("path").is_none() {
        source.path.value = format!("/hooks/{}", source.name.value);
    }
    // An invalid name gives an invalid default path, but the name is reported already.
    if has_path || is_name(&source.name.value) {
        check_path(section, &source.path);
    }
    if peer::covers_all(&source.allow_ips) {
        let what = "allows every client; list the sender's own networks, or leave it out";
        section.warning(section.position_of("allow_ips"), "allow_ips", what);
    }
    let observe = std::mem::take(&mut source.observe);
    for observable in observe {
        if !source.observe.contains(&observable) {
            source.observe.push(observable);
        }
    }
    let until = section.item("observe_until");
    if !source.observe.is_empty() && until.is_none() {
        section.missing("observe_until", "missing; observing must end: expected a date such as 2027-01-31");
    }
    if let Some(until) = until
        && source.observe.is_empty()
        && section.item("observe").is_none()
    {
        until.warning("no effect without observe");
    }
}

/// Checks all sources together: at least one, each with a path of its own.
pub(super) fn check_all(sources: &[Source], root: &Section<'_>) {
    let section = root.section("sources");
    if section.is_empty() {
        root.missing("sources", "no source; expected at least one [sources.NAME] with a provider");
    }
    for (number, source) in sources.iter().enumerate() {
        let before = sources.iter().take(number).find(|before| before.path.value == source.path.value);
        if let Some(before) = before {
            let what =
                format!("{:?} is already the path of the source {}", source.path.value, before.name.value);
            section.section(&source.name.value).problem(source.path.at, "path", what);
        }
    }
}

fn check_name(sources: &Section<'_>, name: &Located<String>) {
    if !is_name(&name.value) {
        let what = "expected a name of 1 to 64 of A-Z a-z 0-9 . _ -";
        sources.problem(name.at, &name.value, what);
    } else if name.value == UNKNOWN {
        let what = "the gateway uses this name for requests to no source; choose another";
        sources.problem(name.at, &name.value, what);
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

fn check_path(section: &Section<'_>, path: &Located<String>) {
    let text = path.value.as_str();
    let wrong = path_defect(text).or_else(|| text.ends_with('/').then_some("it ends with /"));
    if let Some(wrong) = wrong {
        let what = format!("expected a path such as \"/hooks/basiq\", found {text:?}: {wrong}");
        section.problem(path.at, "path", what);
    }
}

/// Why a text is no path, or why a client or a proxy would rewrite it.
pub(super) fn path_defect(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') {
        Some("it does not start with /")
    } else if text.contains(|c: char| !c.is_ascii_graphic() || "?#%".contains(c)) {
        Some("only visible ASCII without ? # % is allowed")
    } else if text.contains("//") {
        Some("it holds //")
    } else if text.len() > MAX_PATH {
        Some("it is over 600 bytes")
    } else if text.split('/').any(|part| part == "." || part == "..") {
        Some("a segment . or .. would be resolved by clients")
    } else {
        None
    }
}

/// Reports a health path that a source has too: the gateway could not tell probes from deliveries.
pub(super) fn check_health_path(path: &Located<String>, sources: &[Source], root: &Section<'_>) {
    let text = path.value.as_str();
    let taken = sources.iter().find(|source| {
        let rest = text.strip_prefix(source.path.value.as_str());
        // A source with a token has the paths below its own.
        rest.is_some_and(|rest| rest.is_empty() || source.path_token.is_some() && rest.starts_with('/'))
    });
    if let Some(source) = taken {
        let (name, below) = (&source.name.value, source.path.value != text);
        let place = if below { "below the path" } else { "the path" };
        let what = format!("{text:?} is {place} of the source {name}; choose another, such as \"/healthz\"");
        root.section("edge").problem(path.at, "health_path", what);
    }
}

/// Bytes: the path is the event's `source`, and no attribute is longer.
const MAX_PATH: usize = 600;
const MAX_RATE: u64 = 1_000_000_000;
const OBSERVED: &str = "a list of reasons such as [\"client_not_allowed\"]";
/// The reasons that a source may observe instead of refuse. A wrong signature is always refused.
const OBSERVABLE: &[Reason] = &[
    Reason::ClientNotAllowed,
    Reason::RateLimited,
    Reason::TimestampOutsideTolerance,
    Reason::SubscriptionNotAllowed,
];
