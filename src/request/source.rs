//! Builds the sources from the config, and finds the source of a path.
//!
//! Keeps true: a source is built only if all secrets that authenticate it are readable. Neither the answer nor its
//! timing reveals a path token.

mod authenticated;
mod drift;
pub mod headers;
pub mod keys;
mod memory;
mod near;
mod rates;
mod recent;
mod report_only;
mod tokens;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::base::label::UNKNOWN;
use crate::base::peer::Network;
use crate::config::secret::{Flaw, Redactor, Secret, SecretRef};
use crate::config::{self, Config, Located, OnConflict, Position, Problem};
use crate::observe::metrics::{Metrics, SourceLabels, SourceMetrics, TypeLabels};
use crate::provider::signature::{Scheme, VerifiedBy, Verifier};
use crate::provider::{Catalog, Handshake, Provider};
use headers::SigningHeaders;
pub use memory::SourceMemory;
pub use near::NearMiss;
use rates::RateLimits;
pub use recent::{RecentEvent, RecentEvents};
use report_only::ReportOnly;
pub use report_only::dated;

/// A configured source, ready to serve.
pub struct Source {
    /// The configured name.
    pub name: Arc<str>,
    /// The path without the token.
    pub path: Arc<str>,
    /// Its provider.
    pub provider: &'static Provider,
    /// The ways of signing that it accepts, each with its keys. Empty: it has no secrets.
    pub verifiers: Vec<Verifier>,
    /// How many secrets it has.
    pub secrets: usize,
    /// The value of an event's `verifiedby`, if no signature says it.
    pub verified_by: VerifiedBy,
    /// The token that a validation request must name.
    pub handshake_token: Option<Secret>,
    /// The secret last segment of its path.
    pub token: Option<Secret>,
    /// Networks of allowed clients. Empty allows all.
    pub allow_ips: Vec<Network>,
    /// The rate limits of the source and of each client.
    pub rates: RateLimits,
    /// Refusals that are only reported until a date.
    pub report_only: ReportOnly,
    /// Origins whose validation requests it grants, in lower case.
    pub webhook_origins: Vec<String>,
    /// The name that a client's certificate must match.
    pub client_certificate: Option<String>,
    /// The largest accepted age of a signature, in seconds.
    pub tolerance: i64,
    /// Accepted subscription ids. Empty accepts all.
    pub subscriptions: HashSet<String>,
    /// What to do with a different body under a known identity. None: as the identity says, signed or not.
    pub on_conflict: Option<OnConflict>,
    /// Its metric series.
    pub metrics: Arc<SourceMetrics>,
    /// State that a reload preserves.
    pub memory: Arc<SourceMemory>,
}

impl Source {
    /// Whether its provider validates an endpoint by a GET.
    pub fn answers_get(&self) -> bool {
        match self.provider.handshake {
            Some(Handshake::Header(_)) => true,
            Some(Handshake::Query(query)) => !query.by_post,
            Some(Handshake::Body(_)) | None => false,
        }
    }

    /// Whether deliveries need a signature.
    pub fn needs_signature(&self) -> bool {
        !self.verifiers.is_empty()
    }

    /// The path at which its provider reaches it, with the token.
    pub fn captured_target(&self) -> String {
        let token = self.token.as_ref().map(|token| format!("/{}", token.expose()));
        format!("{}{}", self.path, token.unwrap_or_default())
    }

    /// The secret that a delivery must hold in its body, if its provider sends one there.
    pub fn shared_secret(&self) -> Option<&str> {
        let in_body = self.verifiers.iter().find(|verifier| verifier.scheme.secret_in_body.is_some())?;
        in_body.keys.first()?.text()
    }

    /// The methods of its path, as listed in `Allow`.
    pub fn methods(&self) -> &'static str {
        match (self.answers_get(), !self.webhook_origins.is_empty()) {
            (false, false) => "POST",
            (true, false) => "GET, POST",
            (false, true) => "POST, OPTIONS",
            (true, true) => "GET, POST, OPTIONS",
        }
    }
}

/// Every source, by path.
pub struct Routes {
    plain: HashMap<Arc<str>, Arc<Source>>,
    tokened: HashMap<Arc<str>, Arc<Source>>,
    /// Every source by its path in lower case, to find near misses.
    shapes: HashMap<String, Arc<Source>>,
    /// The series of requests to unknown paths.
    pub unknown: Arc<SourceMetrics>,
    /// The providers of this config.
    pub catalog: Catalog,
    /// The headers by which any of them signs.
    pub signing_headers: SigningHeaders,
    /// Removes every known secret from text that is recorded.
    pub redactor: Redactor,
}

/// The result of [`Routes::find`].
pub enum RouteMatch<'r> {
    /// A source's path, with its token if it has one.
    Source(&'r Arc<Source>),
    /// A source's path with a wrong or missing token.
    WrongToken(&'r Arc<Source>),
    /// No source's path.
    Nothing,
}

impl Routes {
    /// Builds the sources and resolves every secret. Adds errors and warnings to `problems`; after an error, the result
    /// must not serve. A source that existed `before` keeps its counters and its memory.
    pub fn build(
        config: &Config,
        metrics: &Metrics,
        before: Option<&Routes>,
        problems: &mut Vec<Problem>,
    ) -> Routes {
        let catalog = Catalog::of(&config.providers, problems);
        let unknown = metrics.source(&SourceLabels {
            source: UNKNOWN,
            provider: UNKNOWN,
            secrets: 0,
            types: TypeLabels { known: &[], open: false },
            observed: &[],
        });
        let mut routes = Routes {
            plain: HashMap::new(),
            tokened: HashMap::new(),
            shapes: HashMap::new(),
            unknown,
            signing_headers: SigningHeaders::of(&catalog),
            catalog,
            redactor: Redactor::default(),
        };
        for of in &config.sources {
            let catalog = routes.catalog.clone();
            let same = before.and_then(|before| before.named(&of.name.value, &of.provider.value));
            let redactor = &mut routes.redactor;
            let mut builder = Builder { of, config, catalog, before: same, problems, redactor };
            if let Some(source) = builder.build(metrics) {
                let source = Arc::new(source);
                routes.add_shape(&source);
                let by_path = if source.token.is_some() { &mut routes.tokened } else { &mut routes.plain };
                by_path.insert(source.path.clone(), source);
            }
        }
        tokens::check_paths(&routes, config, problems);
        if let Some(before) = before {
            routes.redactor.add_from(&before.redactor);
        }
        routes
    }

    /// Finds the source of a request's path.
    pub fn find(&self, path: &str) -> RouteMatch<'_> {
        if let Some(source) = self.plain.get(path) {
            return RouteMatch::Source(source);
        }
        if let Some(source) = self.tokened.get(path) {
            return RouteMatch::WrongToken(source);
        }
        let Some((source, token)) =
            path.rsplit_once('/').and_then(|(path, token)| Some((self.tokened.get(path)?, token)))
        else {
            return RouteMatch::Nothing;
        };
        let expected = source.token.as_ref().map_or("", Secret::expose);
        // The time of the comparison reveals at most the token's length.
        if bool::from(expected.as_bytes().ct_eq(token.as_bytes())) {
            RouteMatch::Source(source)
        } else {
            RouteMatch::WrongToken(source)
        }
    }

    fn named(&self, name: &str, provider: &str) -> Option<&Source> {
        let mut sources = self.sources();
        let found = sources.find(|source| &*source.name == name && source.provider.name == provider);
        found.map(|source| &**source)
    }

    /// Every source.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.plain.values().chain(self.tokened.values())
    }
}

/// Builds one source and collects its problems.
struct Builder<'a> {
    of: &'a config::Source,
    config: &'a Config,
    catalog: Catalog,
    /// The same source before the reload.
    before: Option<&'a Source>,
    problems: &'a mut Vec<Problem>,
    redactor: &'a mut Redactor,
}

impl Builder<'_> {
    fn build(&mut self, metrics: &Metrics) -> Option<Source> {
        let of = self.of;
        let Some(provider) = self.catalog.by_name(&of.provider.value) else {
            let allowed: Vec<&str> = self.catalog.iter().map(|provider| provider.name).collect();
            let is_defined =
                self.config.providers.iter().any(|defined| defined.name.value == of.provider.value);
            // An empty name stands for a missing one, which the config has reported; so has it a definition's mistakes.
            if !of.provider.value.is_empty() && !is_defined {
                self.error(
                    &of.provider,
                    "provider",
                    format!("no such provider; allowed: {}", allowed.join(", ")),
                );
            }
            return None;
        };
        let verifiers = self.verifiers(provider);
        let token = self.token();
        let handshake_token = self.handshake_token(provider);
        self.check_options(provider);
        let certificate = self.client_certificate();
        let verified_by = self.verified_by(provider, certificate.is_some(), token.is_some())?;
        self.check_report_only(verified_by);
        self.check_unauthenticated(provider, verified_by);
        let mut types: Vec<&'static str> =
            provider.types.unwrap_or_default().iter().map(|(_, canonical)| *canonical).collect();
        types.sort_unstable();
        types.dedup();
        let observed: Vec<_> = of.observe.iter().map(|reason| reason.label()).collect();
        let labels = SourceLabels {
            source: &of.name.value,
            provider: provider.name,
            secrets: of.secrets.len(),
            types: TypeLabels { known: &types, open: provider.types.is_none() },
            observed: &observed,
        };
        let series = metrics.source(&labels);
        series.show_subscription_drift(of.subscription.is_some());
        if of.reconcile.is_some() {
            series.init_reconciled();
        }
        Some(Source {
            name: of.name.value.as_str().into(),
            path: of.path.value.as_str().into(),
            provider,
            verifiers,
            secrets: of.secrets.len(),
            verified_by,
            handshake_token,
            token,
            allow_ips: of.allow_ips.clone(),
            rates: RateLimits::of(of, self.before.map(|before| &before.rates)),
            report_only: ReportOnly::of(of),
            webhook_origins: of.webhook_origins.clone(),
            client_certificate: certificate,
            tolerance: i64::try_from(of.tolerance.as_secs()).unwrap_or(i64::MAX),
            subscriptions: of.subscriptions.iter().flat_map(|list| list.value.iter().cloned()).collect(),
            on_conflict: of.on_conflict,
            metrics: series,
            memory: self.before.map_or_else(Arc::default, |before| before.memory.clone()),
        })
    }

    fn client_certificate(&mut self) -> Option<String> {
        let name = self.of.client_certificate.as_ref()?;
        let tls = self.config.edge.tls.as_ref();
        // The broken section may hold client_ca, so do not report it as missing.
        let unread =
            self.problems.iter().any(|problem| !problem.warning && problem.key.starts_with("edge.tls"));
        if tls.is_none_or(|tls| tls.client_ca.is_none()) && !unread {
            let what = "no client certificate can be verified: set edge.tls.client_ca to the authorities that issue them";
            self.error(name, "client_certificate", what.to_owned());
        }
        Some(name.value.clone())
    }

    /// Checks options that only some providers use, and a dedupe window shorter than the provider's retries.
    fn check_options(&mut self, provider: &Provider) {
        let of = self.of;
        let has_old = |scheme: &Scheme| scheme.versions.iter().any(|version| version.old);
        if let Some(accept) = &of.accept_v1
            && !provider.signing.schemes().iter().any(has_old)
        {
            self.error(accept, "accept_v1", "only atelio signs in two versions; leave it out".to_owned());
        }
        if let Some(list) = &of.subscriptions
            && !provider.reader.code().is_some_and(|code| code.has_subscriptions)
            && !list.value.is_empty()
        {
            self.error(list, "subscriptions", "only securitize names subscriptions; leave it out".to_owned());
        }
        let window = &self.config.dedupe.window;
        if let Some(schedule) = provider.retries_for.filter(|schedule| *schedule > window.value) {
            let what = format!(
                "{} s is shorter than {} s, for which {} retries ({}): a late retry would enter twice",
                window.value.as_secs(),
                schedule.as_secs(),
                provider.name,
                of.name.value,
            );
            self.problems.push(Problem {
                at: window.at,
                key: "dedupe.window".to_owned(),
                what,
                warning: true,
            });
        }
    }

    fn resolve(&mut self, at: Position, reference: &SecretRef, key: &str) -> Option<Secret> {
        self.resolve_unless(at, reference, key, |_| false)
    }

    /// Reads a secret. A flaw of it is an error, unless `allowed`.
    fn resolve_unless(
        &mut self,
        at: Position,
        reference: &SecretRef,
        key: &str,
        allowed: impl Fn(Flaw) -> bool,
    ) -> Option<Secret> {
        match reference.resolve() {
            Ok(secret) => {
                self.redactor.add(&secret);
                if let Some(flaw) = secret.flaw().filter(|flaw| !allowed(*flaw)) {
                    self.error(
                        &Located { value: (), at },
                        key,
                        format!("the {} {flaw}", if key == "secrets" { "secret" } else { "token" }),
                    );
                    return None;
                }
                Some(secret)
            }
            Err(error) => {
                self.error(&Located { value: (), at }, key, error.to_string());
                None
            }
        }
    }

    /// Whether a key of this source has an error already, or may be in a line that did not parse.
    fn reported(&self, key: &str) -> bool {
        if self.config.unparsed_lines.may_assign(self.of.name.at.line, key) {
            return true;
        }
        let key = self.key(key);
        self.problems.iter().any(|problem| !problem.warning && problem.key.starts_with(&key))
    }

    fn key(&self, key: &str) -> String {
        format!("sources.{}.{key}", config::quote_key(&self.of.name.value))
    }

    fn error<T>(&mut self, at: &Located<T>, key: &str, what: String) {
        self.problem(at, key, what, false);
    }

    fn warn<T>(&mut self, at: &Located<T>, key: &str, what: String) {
        self.problem(at, key, what, true);
    }

    fn problem<T>(&mut self, at: &Located<T>, key: &str, what: String, warning: bool) {
        let key = self.key(key);
        self.problems.push(Problem { at: at.at, key, what, warning });
    }
}

const SHORT_SECRET: usize = 16;
