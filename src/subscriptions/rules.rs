//! What a declared subscription must have, by the API of its provider.
//!
//! Keeps true: a gateway that compares subscriptions or reconciles has every key for it. A key that an API lacks is an
//! error and not ignored.

use std::io;

use super::api::Kind;
use crate::base::file::{ReadError, is_same_path};
use crate::config::secret::{Flaw, Secret, SecretError, SecretRef};
use crate::config::{self, Config, Located, Position, Problem, Source, SourceSecret, Subscription};
use crate::provider::{Catalog, Provider};

impl Kind {
    /// The keys of a subscription that depend on the provider: the required ones, then the optional ones.
    fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Kind::Securitize => (&[KEY, DOMAINS], &[]),
            Kind::Anduin => (&[KEY, FUNDS], &[]),
            Kind::Basiq => (&[KEY, SECRET_FILE], &[]),
            Kind::Atelio => (&[IDENTITY, AUTHORIZATION, SECRET_FILE], &[VERSION]),
            Kind::Iof => (&[KEY, SECRET_FILE], &[TENANT, WORKSPACE]),
        }
    }

    fn takes(self, key: &str) -> bool {
        let (required, optional) = self.keys();
        required.contains(&key) || optional.contains(&key)
    }
}

/// Checks the subscriptions of all sources against their providers, and resolves the secrets of the APIs. `problems` has
/// those that were found before.
pub fn check(config: &Config, catalog: &Catalog, problems: &mut Vec<Problem>) {
    for source in &config.sources {
        // An unknown provider is reported already.
        let Some(provider) = catalog.by_name(&source.provider.value) else { continue };
        Checker { config, source, provider, problems }.check();
    }
}

struct Checker<'a> {
    config: &'a Config,
    source: &'a Source,
    provider: &'static Provider,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn check(&mut self) {
        let (source, name) = (self.source, self.provider.name);
        let api = Kind::of(self.provider);
        if let Some(reconcile) = &source.reconcile
            && api.is_some_and(|api| !api.can_reconcile())
        {
            let what = format!("{name} keeps no log from which events could be fetched again; leave it out");
            self.error(reconcile.at(), "reconcile", what);
        }
        if let (Some(reconcile), Some(Kind::Iof), Some(retries)) =
            (&source.reconcile, api, self.provider.retries_for)
            && reconcile.lookback < retries
        {
            let what = format!(
                "iof gives up on an event {} after it was made, which is before a lookback of {}: make it longer",
                config::show_duration(retries),
                config::show_duration(reconcile.lookback)
            );
            self.problem(reconcile.at(), "reconcile", what, true);
        }
        let Some(subscription) = &source.subscription else { return };
        let Some(api) = api else {
            let what = format!("{name} has no API for subscriptions here; {APIS} have one; leave it out");
            return self.error(subscription.at(), "subscription", what);
        };
        if api == Kind::Anduin && !source.secrets.is_empty() {
            let what = "Anduin's current system, which signs with `secrets`, publishes no API for subscriptions; leave it \
                        out and subscribe in its console. Only the legacy system has one: its sources have no secrets";
            return self.error(subscription.at(), "subscription", what.to_owned());
        }
        self.check_keys(api, subscription);
        self.check_api_secrets(api, subscription);
        self.check_secret_file(api, subscription);
        self.check_token(subscription);
    }

    /// The keys that the API needs, and those that it does not have.
    fn check_keys(&mut self, api: Kind, subscription: &Subscription) {
        let name = self.provider.name;
        let (required, _) = api.keys();
        for (key, at) in positions(subscription) {
            match at {
                Some(at) if !api.takes(key) => {
                    let what = format!("a subscription of {name} has no such key; leave it out");
                    self.error(at, &in_subscription(key), what);
                }
                Some(_) => {}
                None if !required.contains(&key) => {}
                None if api == Kind::Securitize && key == DOMAINS && subscription.events.is_empty() => {}
                None => {
                    let is_of_api = key.starts_with("api.");
                    let at = if is_of_api { subscription.api.at() } else { subscription.at() };
                    if !self.is_reported(at, &in_subscription(key)) {
                        self.error(at, &in_subscription(key), missing(key, name));
                    }
                }
            }
        }
    }

    /// The secrets of the API can be read, and a header can carry them.
    fn check_api_secrets(&mut self, api: Kind, subscription: &Subscription) {
        let of = &subscription.api;
        // What the gateway needs them for. Without a need a problem is a warning: `subscriptions` finds it again.
        let need = if self.source.reconcile.is_some() {
            Some("the gateway reconciles with it")
        } else if self.config.subscriptions.check.is_some() {
            Some("the gateway compares subscriptions with it, unless subscriptions.check is \"off\"")
        } else {
            None
        };
        let reason = need.unwrap_or("`hookgate subscriptions` needs it, the gateway does not");
        for (key, secret) in [(KEY, &of.key), (IDENTITY, &of.identity), (AUTHORIZATION, &of.authorization)] {
            let Some(secret) = secret.as_ref().filter(|_| api.takes(key)) else { continue };
            if let Some(what) = unusable(&secret.value) {
                let what = format!("{what}; {reason}");
                self.problem(secret.at, &in_subscription(key), what, need.is_none());
            }
        }
    }

    /// `apply` writes the secret to a file, and the gateway reads it there.
    fn check_secret_file(&mut self, api: Kind, subscription: &Subscription) {
        let Some(file) = subscription.secret_file.as_ref().filter(|_| api.issues_secret()) else { return };
        let is_written = |secret: &&Located<SourceSecret>| match &secret.value.reference {
            SecretRef::File(path) => is_same_path(path, &file.value),
            SecretRef::Env(_) | SecretRef::Plain(_) => false,
        };
        let Some(named) = self.source.secrets.iter().find(is_written) else {
            if !self.is_reported(self.source.name.at, "secrets") {
                let what = "no entry of `secrets` names this file, so the gateway would not take the secret up; add \
                            { file = \"PATH\" } with the same path there";
                self.problem(file.at, &in_subscription(SECRET_FILE), what.to_owned(), true);
            }
            return;
        };
        let Err(why) = named.value.reference.resolve() else { return };
        let SecretError::File { why: ReadError::System(cause), .. } = &why else { return };
        if cause.kind() != io::ErrorKind::NotFound {
            return;
        }
        let (key, what) = (self.key("secrets"), why.to_string());
        let is_reported =
            |problem: &&mut Problem| problem.key == key && problem.at == named.at && problem.what == what;
        if let Some(problem) = self.problems.iter_mut().find(is_reported) {
            problem.what.push_str("; `hookgate subscriptions apply` writes it");
        }
    }

    /// A path token is a secret, which a written URL shows.
    fn check_token(&mut self, subscription: &Subscription) {
        if let Some(url) = &subscription.url
            && let Some(token) = self.source.path_token.as_ref().and_then(|token| token.value.resolve().ok())
            && url.value.contains(token.expose())
        {
            let what = "the path token stands here as plain text; leave url out: its default is edge.public_url, the \
                        path and the token";
            self.problem(url.at, &in_subscription("url"), what.to_owned(), true);
        }
    }

    /// Whether a key of the table that begins here has an error already, or may be in a line that did not parse.
    fn is_reported(&self, table: Position, key: &str) -> bool {
        if self.config.unparsed_lines.may_assign(table.line, key) {
            return true;
        }
        let key = self.key(key);
        self.problems.iter().any(|problem| !problem.warning && problem.key.starts_with(&key))
    }

    fn key(&self, key: &str) -> String {
        format!("sources.{}.{key}", config::quote_key(&self.source.name.value))
    }

    fn error(&mut self, at: Position, key: &str, what: String) {
        self.problem(at, key, what, false);
    }

    fn problem(&mut self, at: Position, key: &str, what: String, warning: bool) {
        let key = self.key(key);
        self.problems.push(Problem { at, key, what, warning });
    }
}

/// The keys that depend on the provider, each with the position of its value.
fn positions(subscription: &Subscription) -> [(&'static str, Option<Position>); 9] {
    fn at<T>(value: Option<&Located<T>>) -> Option<Position> {
        value.map(|value| value.at)
    }
    let api = &subscription.api;
    [
        (KEY, at(api.key.as_ref())),
        (IDENTITY, at(api.identity.as_ref())),
        (AUTHORIZATION, at(api.authorization.as_ref())),
        (VERSION, at(api.version.as_ref())),
        (TENANT, at(api.tenant.as_ref())),
        (WORKSPACE, at(api.workspace.as_ref())),
        (DOMAINS, at(subscription.domains.first())),
        (FUNDS, at(subscription.funds.first())),
        (SECRET_FILE, at(subscription.secret_file.as_ref())),
    ]
}

fn missing(key: &str, provider: &str) -> String {
    match key {
        DOMAINS => format!("missing; {provider} subscribes each domain: expected a list of their ids"),
        FUNDS => format!("missing; {provider} subscribes each fund: expected a list of their ids"),
        SECRET_FILE => format!(
            "missing; `hookgate subscriptions apply` writes the secret that {provider} issues: expected the path of a file"
        ),
        _ => format!(
            "missing; the API of {provider} asks for it: expected {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"
        ),
    }
}

/// Why a secret of an API cannot be used. It repeats no part of the secret.
fn unusable(reference: &SecretRef) -> Option<String> {
    let secret = match reference.resolve() {
        Ok(secret) => secret,
        Err(SecretError::Empty(origin)) => return Some(format!("the secret from {origin} is empty")),
        Err(why) => return Some(why.to_string()),
    };
    // Blanks inside are allowed: the value of a header may have several words.
    if !secret.expose().bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Some(
            "the secret holds a line break or another character that no header of HTTP can carry".to_owned(),
        );
    }
    copying_mistake(&secret).map(|flaw| format!("the secret {flaw}"))
}

/// A mistake that no key of an API has. The others are of signing secrets.
fn copying_mistake(secret: &Secret) -> Option<Flaw> {
    secret
        .flaw()
        .filter(|flaw| matches!(flaw, Flaw::Quotes | Flaw::BlankAround | Flaw::Json | Flaw::Placeholder))
}

fn in_subscription(key: &str) -> String {
    format!("subscription.{key}")
}

const APIS: &str = "securitize, anduin, basiq, atelio and iof";
const KEY: &str = "api.key";
const IDENTITY: &str = "api.identity";
const AUTHORIZATION: &str = "api.authorization";
const VERSION: &str = "api.version";
const TENANT: &str = "api.tenant";
const WORKSPACE: &str = "api.workspace";
const DOMAINS: &str = "domains";
const FUNDS: &str = "funds";
const SECRET_FILE: &str = "secret_file";
