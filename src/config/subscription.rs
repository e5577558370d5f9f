//! The keys of `[sources.NAME.subscription]`, `[sources.NAME.reconcile]` and `[subscriptions]`.
//!
//! Keeps true: no URL sends secrets in plain text beyond this machine, and none holds a password. This module knows no
//! provider: `subscriptions::rules` checks what a provider needs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::item::Item;
use super::keys::table;
use super::kinds::{ValueKind, inline};
use super::print::{Shown, quote};
use super::section::Section;
use super::sources::Source;
use super::units::{QuantityError, parse_duration, show_duration};
use super::values::{MAX_TIME, SECOND, duration, file, secret, text, value};
use super::{Config, Located, Position};
use crate::base::file::is_same_path;
use crate::config::secret::SecretRef;

table! {
    /// `[sources.NAME.subscription]`, as written. `subscriptions::rules` checks it against its provider.
    pub struct Subscription, checked by check_subscription {
        /// The event types to subscribe to. `*` stands for any characters. `[]` leaves no subscription. Required.
        events: Vec<Located<String>> = distinct(EVENTS, "an event type"), live, "[\"user.created\", \"consent.*\"]";
        /// Where the provider delivers: https, or http to this machine. The default is `edge.public_url`, the source's
        /// path, and the path token.
        url: Option<Located<String>> = provider_url(URL_EXAMPLE, true).located().optional(), live,
            "\"https://hooks.example.com/hooks/basiq\"";
        /// What the provider shows beside the subscription, where it has a description.
        description: String = text("a text", "hookgate"), live;
        /// Basiq, Atelio, IOF: the file that `subscriptions apply` writes the signing secret to. Name it in `secrets`
        /// too. Required for them.
        secret_file: Option<Located<PathBuf>> = written_file().optional(), live, "\"basiq.secret\"";
        /// Securitize: the ids of the domains.
        domains: Vec<Located<String>> = some_of(distinct(DOMAINS, "the id of a domain")), live,
            "[\"c2f82d16-178c-48ea-95c0-f72227c6fef4\"]";
        /// Anduin's legacy system: the ids of the funds.
        funds: Vec<Located<String>> = some_of(distinct(FUNDS, "the id of a fund")), live, "[\"txn0000000000000.fsb0000\"]";
        /// The provider's API. Required.
        api: ProviderApi = inline(), live, "{ base = \"https://au-api.basiq.io\", key = { env = \"BASIQ_API_KEY\" } }";
        besides {
            /// The position of the section.
            section: Located<()>,
        }
    }
}

table! {
    /// `api` of a subscription: where the provider's API is, and what it asks for.
    pub struct ProviderApi, checked by check_api {
        /// Its address, and what precedes the documented paths. https, or http to this machine. Required.
        base: Located<String> = provider_url(BASE_EXAMPLE, false).located(), live, "\"https://au-api.basiq.io\"";
        /// Securitize, Anduin, Basiq, IOF: the API key. Required for them.
        key: Option<Located<SecretRef>> = secret().optional(), live, "{ env = \"BASIQ_API_KEY\" }";
        /// Atelio: the value of the header `Identity`. Required for it.
        identity: Option<Located<SecretRef>> = secret().optional(), live, "{ env = \"ATELIO_IDENTITY\" }";
        /// Atelio: the value of the header `Authorization`. Required for it.
        authorization: Option<Located<SecretRef>> = secret().optional(), live, "{ env = \"ATELIO_AUTHORIZATION\" }";
        /// Atelio: the version of the events, `0.1` by default.
        version: Option<Located<String>> = text("a version such as \"0.1\"", "").located().optional(), live, "\"0.1\"";
        /// IOF: the value of the header `X-Tenant-ID`.
        tenant: Option<Located<String>> = text("the id of a tenant", "").located().optional(), live, "\"tenant_456\"";
        /// IOF: the value of the header `X-Workspace-ID`.
        workspace: Option<Located<String>> = text("the id of a workspace", "").located().optional(), live, "\"ws_123\"";
        besides {
            /// The position of the table.
            section: Located<()>,
        }
    }
}

table! {
    /// `[sources.NAME.reconcile]`.
    pub struct Reconcile, checked by check_reconcile {
        /// How often the gateway looks for events that never arrived. Required.
        every: Duration = duration(SECOND..=MAX_TIME, SECOND), live, "\"15m\"";
        /// How far before the last success it looks again. Required. It is at most `dedupe.window`.
        lookback: Duration = duration(SECOND..=MAX_TIME, SECOND), live, "\"1d\"";
        besides {
            /// The position of the section.
            section: Located<()>,
        }
    }
}

table! {
    /// `[subscriptions]`.
    pub struct Subscriptions {
        /// How often `serve` compares the subscriptions of the providers with the declared ones. `"off"`: never.
        check: Option<Duration> = duration_or_off(SECOND * 3600), live;
    }
}

impl Subscription {
    /// The position of the section.
    pub fn at(&self) -> Position {
        self.section.at
    }
}

impl ProviderApi {
    /// The position of the table.
    pub fn at(&self) -> Position {
        self.section.at
    }
}

impl Reconcile {
    /// The position of the section.
    pub fn at(&self) -> Position {
        self.section.at
    }
}

/// A list of texts, none of them twice.
fn distinct(what: &'static str, one: &'static str) -> ValueKind<Vec<Located<String>>> {
    let read = move |item: &Item<'_>| {
        let Some(items) = item.list() else { return item.expected(what) };
        let mut values: Vec<Located<String>> = Vec::new();
        for item in items {
            let Some(text) = item.text(one) else { continue };
            if values.iter().any(|before| before.value == text) {
                item.problem(format!("{text:?} is listed twice"));
            }
            values.push(Located { value: text.to_owned(), at: item.at });
        }
        Some(values)
    };
    let show = |values: &Vec<Located<String>>| {
        let quoted: Vec<_> = values.iter().map(|text| quote(&text.value)).collect();
        format!("[{}]", quoted.join(", "))
    };
    value(what, Vec::new(), read, show)
}

/// The same list, printed only if it holds something: most providers have no such key.
fn some_of(list: ValueKind<Vec<Located<String>>>) -> ValueKind<Vec<Located<String>>> {
    let show = list.show;
    ValueKind { show: Box::new(move |values| show(values).filter(|_| !values.is_empty())), ..list }
}

/// The path of a file that a command writes. The gateway reads it only where `secrets` names it too.
fn written_file() -> ValueKind<Located<PathBuf>> {
    file("the path of a file").naming(|_, _, _| ())
}

/// A duration from one second on, or `"off"`.
fn duration_or_off(default: Duration) -> ValueKind<Option<Duration>> {
    let ValueKind { allowed, read, show, .. } = duration(SECOND..=MAX_TIME, default);
    let read = move |item: &Item<'_>| match item.as_text().map(parse_duration) {
        Some(Err(QuantityError::NotAQuantity)) if item.as_text() == Some(OFF) => Some(None),
        Some(Err(QuantityError::NotAQuantity)) => item.expected("a duration such as \"1h\", or \"off\""),
        _ => read(item).map(Some),
    };
    let show = move |value: &Option<Duration>| match value {
        Some(time) => show(time),
        None => Some(Shown::Value(quote(OFF))),
    };
    ValueKind::new(format!("{allowed}, or {}", quote(OFF)), move |_, _| Some(default), read, show)
}

/// The URL of a webhook or an API.
fn provider_url(example: &'static str, query: bool) -> ValueKind<String> {
    let read = move |item: &Item<'_>| {
        let Some(text) = item.as_text() else { return item.expected_secret("a URL") };
        if let Some(flaw) = provider_url_flaw(text, query) {
            item.problem(format!("expected a URL such as {example:?}, found another text: it {flaw}"));
            return None;
        }
        Some(text.to_owned())
    };
    value("a URL", String::new(), read, |url| quote(url))
}

/// The mistake in such a URL. It follows "it ", and repeats no part of the URL.
fn provider_url_flaw(text: &str, query: bool) -> Option<&'static str> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("holds blanks or control characters; percent-encode them");
    }
    if !text.starts_with("https://") && !text.starts_with("http://") {
        return Some("does not begin with https://");
    }
    let Ok(url) = Url::parse(text) else { return Some("names no host, or a port that is none") };
    if !url.username().is_empty() || url.password().is_some() {
        Some("holds a user or password; leave them out")
    } else if url.fragment().is_some() {
        Some("holds a #, which is never sent to a server")
    } else if !query && url.query().is_some() {
        Some("holds a query; leave it out")
    } else if url.scheme() == "http" && !is_loopback(&url) {
        Some("is http to another machine; http is allowed only to 127.0.0.0/8, [::1] and localhost")
    } else {
        None
    }
}

/// Whether a URL leads to this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn check_subscription(subscription: &mut Subscription, section: &Section<'_>) {
    subscription.section.at = section.at();
    section.require("events", "a list of event types such as [\"user.created\"]; [] leaves no subscription");
    section.require("api", "the provider's API, such as { base = \"https://au-api.basiq.io\" }");
}

fn check_api(api: &mut ProviderApi, section: &Section<'_>) {
    api.section.at = section.at();
    // The default of `api`, which is required.
    if section.is_absent() {
        return;
    }
    section.require("base", "the address of the provider's API, such as \"https://au-api.basiq.io\"");
    api.base.value.truncate(api.base.value.trim_end_matches('/').len());
}

fn check_reconcile(reconcile: &mut Reconcile, section: &Section<'_>) {
    reconcile.section.at = section.at();
    section.require("every", "how often to look, such as \"15m\"");
    section.require("lookback", "how far to look back, such as \"1d\"");
}

/// Checks what the subscriptions need beyond their own sections.
pub(super) fn check_all(config: &Config, root: &Section<'_>) {
    for (number, source) in config.sources.iter().enumerate() {
        let section = root.section("sources").section(&source.name.value);
        let before = config.sources.get(..number).unwrap_or_default();
        if let Some(subscription) = &source.subscription {
            let section = section.section("subscription");
            check_default_url(config, root, &section);
            check_others(subscription, before, &section);
        }
        if let Some(reconcile) = &source.reconcile {
            if section.item("subscription").is_none() {
                let what =
                    "missing; reconcile asks the provider's API, which [sources.NAME.subscription] declares";
                section.missing("subscription", what);
            }
            let window = config.dedupe.window.value;
            if reconcile.lookback > window && !root.section("dedupe").is_invalid("window") {
                let section = section.section("reconcile");
                let [lookback, window] = [reconcile.lookback, window].map(show_duration);
                let what = format!(
                    "{lookback} is longer than dedupe.window, {window}: events from before it would enter twice"
                );
                section.problem(section.position_of("lookback"), "lookback", what);
            }
        }
    }
}

/// The default of `url` begins with `edge.public_url`.
fn check_default_url(config: &Config, root: &Section<'_>, section: &Section<'_>) {
    if section.item("url").is_some() || root.section("edge").is_invalid("public_url") {
        return;
    }
    let Some(base) = &config.edge.public_url else {
        return section
            .missing("url", "missing; set url, or edge.public_url, from which its default is made");
    };
    if Url::parse(&base.value).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
        let what = "the default begins with edge.public_url, which is http to another machine: set edge.public_url to \
                    an https URL, or set url";
        section.missing("url", what);
    }
}

/// Two sources cannot keep one subscription, or two secrets in one file.
fn check_others(subscription: &Subscription, before: &[Source], section: &Section<'_>) {
    for other in before {
        let Some(theirs) = &other.subscription else { continue };
        let name = &other.name.value;
        if let Some(file) = &subscription.secret_file
            && theirs.secret_file.as_ref().is_some_and(|theirs| is_same_path(&theirs.value, &file.value))
        {
            let what =
                format!("the source {name} has this file too, for another secret; choose another path");
            section.problem(file.at, "secret_file", what);
        }
        if let Some(url) = &subscription.url
            && theirs.url.as_ref() == Some(url)
            && theirs.api == subscription.api
        {
            let what = format!(
                "the source {name} has this URL too; each would change the subscription of the other"
            );
            section.problem(url.at, "url", what);
        }
    }
}

/// Hides the path token in a written `url`, for printing.
pub(super) fn hide_token(source: &mut Source) {
    if let Some(url) = source.subscription.as_mut().and_then(|subscription| subscription.url.as_mut())
        && let Some(token) = source.path_token.as_ref().and_then(|token| token.value.resolve().ok())
    {
        url.value = url.value.replace(token.expose(), HIDDEN);
    }
}

const EVENTS: &str = "a list of event types";
const DOMAINS: &str = "a list of ids of domains";
const FUNDS: &str = "a list of ids of funds";
const URL_EXAMPLE: &str = "https://hooks.example.com/hooks/basiq";
const BASE_EXAMPLE: &str = "https://au-api.basiq.io";
const OFF: &str = "off";
const HIDDEN: &str = "***";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_url_is_https_or_stays_on_this_machine() {
        for url in [
            "https://hooks.example.com/hooks/a",
            "https://hooks.example.com:8443",
            "https://[2001:db8::1]/x",
            "http://127.0.0.1:8080/hooks/a",
            "http://127.255.255.254",
            "http://[::1]:8080/",
            "http://localhost:8080",
        ] {
            assert_eq!(provider_url_flaw(url, false), None, "{url}");
        }
        let other = "is http to another machine; http is allowed only to 127.0.0.0/8, [::1] and localhost";
        for (url, flaw) in [
            ("http://hooks.example.com", other),
            ("http://128.0.0.1", other),
            ("http://[::2]", other),
            ("http://localhost.example.com", other),
            ("http://0.0.0.0", other),
            ("ftp://127.0.0.1", "does not begin with https://"),
            ("hooks.example.com", "does not begin with https://"),
            ("", "does not begin with https://"),
            ("https://", "names no host, or a port that is none"),
            ("https://h:0x", "names no host, or a port that is none"),
            ("https://user@h", "holds a user or password; leave them out"),
            ("https://:hush@h", "holds a user or password; leave them out"),
            ("https://h/#a", "holds a #, which is never sent to a server"),
            ("https://h/?a", "holds a query; leave it out"),
            ("https://h/a b", "holds blanks or control characters; percent-encode them"),
        ] {
            assert_eq!(provider_url_flaw(url, false), Some(flaw), "{url}");
        }
        assert_eq!(provider_url_flaw("https://h/?a", true), None);
    }

    #[test]
    fn off_is_printed_back_and_a_path_token_is_not() {
        let text = "[subscriptions]\ncheck = \"off\"\n[sources.a]\nprovider = \"securitize\"\n\
                    path_token = \"hush-hush-hush-hush\"\n[sources.a.subscription]\nevents = []\n\
                    url = \"https://h/hooks/a/hush-hush-hush-hush\"\napi = { base = \"https://api/v1/\" }\n";
        let (config, problems) = super::super::parse(text, Path::new(""));
        assert!(problems.iter().all(|problem| problem.warning), "{problems:?}");
        assert_eq!(config.subscriptions.check, None);
        let printed = config.redacted();
        let expected = "[sources.a.subscription]\nevents = []\nurl = \"https://h/hooks/a/***\"\n\
                        description = \"hookgate\"\napi = { base = \"https://api/v1\" }\n";
        assert!(printed.ends_with(expected), "{printed}");
        assert!(printed.contains("[subscriptions]\ncheck = \"off\"\n"), "{printed}");
        assert_eq!(super::super::parse(&printed, Path::new("")).0.redacted(), printed);
    }

    #[test]
    fn a_subscription_that_only_moved_in_the_file_is_no_change() {
        let text = "[sources.a]\nprovider = \"basiq\"\n[sources.a.subscription]\nevents = [\"user.created\"]\n\
                    url = \"https://h/\"\napi = { base = \"https://api\" }\n\
                    [sources.a.reconcile]\nevery = \"15m\"\nlookback = \"1d\"\n";
        let sources = |text: &str| super::super::parse(text, Path::new("")).0.sources;
        let [before, moved] = [text.to_owned(), format!("\n{text}")].map(|text| sources(&text));
        let at = |sources: &[Source]| sources.first().unwrap().subscription.as_ref().unwrap().at();
        assert_eq!(at(&moved).line, at(&before).line + 1);
        assert_eq!(before, moved);
        assert_ne!(before, sources(&text.replace("15m", "16m")));
        assert_ne!(before, sources(&text.replace("user.created", "user.updated")));
    }
}
