//! From the config's sources to what a request is held against, and from a path to its source.
//!
//! Keeps true: a source exists only if everything that its provider needs to authenticate it is there and readable; what a
//! path token is compared with is never told by the answer or by its time.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use subtle::ConstantTimeEq;

use crate::config::{self, At, Config, OnConflict, Problem};
use crate::metrics::{Metrics, SourceLabels, SourceMetrics, UNKNOWN};
use crate::outcome::Reason;
use crate::provider::{self, Provider, Signing};
use crate::secret::{Redactor, Secret};
use crate::signature::{Key, Scheme, VerifiedBy};

/// A configured source, ready to serve.
pub struct Source {
    /// The configured name.
    pub name: Arc<str>,
    /// The path without token.
    pub path: Arc<str>,
    /// Its provider.
    pub provider: &'static dyn Provider,
    /// How it signs, where it has secrets.
    pub scheme: Option<Scheme>,
    /// One a secret, in the config's order.
    pub keys: Vec<Key>,
    /// What `verifiedby` says.
    pub verified_by: VerifiedBy,
    /// The last segment of its path.
    pub token: Option<Secret>,
    /// Empty allows all.
    pub allow_ips: Vec<IpNet>,
    /// Its rate, where limited.
    pub limiter: Option<DefaultDirectRateLimiter>,
    /// Seconds.
    pub tolerance: i64,
    /// Empty accepts all.
    pub subscriptions: HashSet<String>,
    /// What to do with another body under a known identity.
    pub on_conflict: OnConflict,
    /// Its series.
    pub metrics: Arc<SourceMetrics>,
    highest: Mutex<HashMap<String, u64>>,
}

impl Source {
    /// The methods that its path takes, as `Allow` lists them.
    pub fn methods(&self) -> &'static str {
        if self.provider.challenge_header().is_some() { "GET, POST" } else { "POST" }
    }

    /// How many numbers were skipped before this one, against the highest seen in this scope. A late one skips none.
    pub fn skipped(&self, scope: String, number: u64) -> u64 {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        if highest.len() >= MAX_SCOPES && !highest.contains_key(&scope) {
            // Bounded memory is worth more than the gaps of a subscription past the ten thousandth.
            return 0;
        }
        let known = highest.entry(scope).or_insert(number);
        let skipped = number.saturating_sub(*known).saturating_sub(1);
        *known = number.max(*known);
        skipped
    }
}

/// Every source, by path.
pub struct Routes {
    plain: HashMap<Arc<str>, Arc<Source>>,
    tokened: HashMap<Arc<str>, Arc<Source>>,
    /// The series of requests to no source.
    pub unknown: Arc<SourceMetrics>,
    /// Knows every secret, to cut them out of what is recorded.
    pub redactor: Redactor,
}

/// What a path leads to.
pub enum Found<'r> {
    /// A source.
    Source(&'r Arc<Source>),
    /// A source's path, with a wrong token or none.
    WrongToken(&'r Arc<Source>),
    /// Nothing.
    Nothing,
}

impl Routes {
    /// Builds the sources, resolving every secret. Adds its problems to the config's own, in the file's order; with an error
    /// among them, what is built must not serve.
    pub fn build(config: &Config, metrics: &Metrics, problems: &mut Vec<Problem>) -> Routes {
        let reasons = Reason::ALL.map(Reason::label);
        let unknown = metrics.source(&SourceLabels {
            source: UNKNOWN,
            provider: UNKNOWN,
            secrets: 0,
            types: &[],
            reasons: &reasons,
        });
        let mut routes =
            Routes { plain: HashMap::new(), tokened: HashMap::new(), unknown, redactor: Redactor::default() };
        for of in &config.sources {
            let mut builder = Builder { of, config, problems, redactor: &mut routes.redactor };
            if let Some(source) = builder.build(metrics, &reasons) {
                let by_path = if source.token.is_some() { &mut routes.tokened } else { &mut routes.plain };
                by_path.insert(source.path.clone(), Arc::new(source));
            }
        }
        problems.sort();
        problems.dedup();
        routes
    }

    /// The source that a request's path belongs to.
    pub fn find(&self, path: &str) -> Found<'_> {
        if let Some(source) = self.plain.get(path) {
            return Found::Source(source);
        }
        if let Some(source) = self.tokened.get(path) {
            return Found::WrongToken(source);
        }
        let Some((source, token)) =
            path.rsplit_once('/').and_then(|(path, token)| Some((self.tokened.get(path)?, token)))
        else {
            return Found::Nothing;
        };
        let expected = source.token.as_ref().map_or("", Secret::expose);
        // Comparing slices of unequal length tells the length and nothing else.
        if bool::from(expected.as_bytes().ct_eq(token.as_bytes())) {
            Found::Source(source)
        } else {
            Found::WrongToken(source)
        }
    }

    /// Every source.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.plain.values().chain(self.tokened.values())
    }
}

/// Builds one source, collecting what is wrong with it.
struct Builder<'a> {
    of: &'a config::Source,
    config: &'a Config,
    problems: &'a mut Vec<Problem>,
    redactor: &'a mut Redactor,
}

impl Builder<'_> {
    fn build(&mut self, metrics: &Metrics, reasons: &[&'static str]) -> Option<Source> {
        let of = self.of;
        let Some(provider) = provider::by_name(&of.provider.value) else {
            let allowed: Vec<&str> = provider::TABLE.iter().map(|provider| provider.name()).collect();
            // An empty name stands for one that was missing, which the config has reported.
            if !of.provider.value.is_empty() {
                self.error(
                    &of.provider,
                    "provider",
                    format!("no such provider; allowed: {}", allowed.join(", ")),
                );
            }
            return None;
        };
        let scheme = self.scheme(provider);
        let keys = self.keys(provider, scheme);
        let token = self.token();
        self.check_options(provider);
        let verified_by = self.verified_by(provider, scheme, token.is_some())?;
        let mut types: Vec<&'static str> = provider.types().iter().map(|(_, canonical)| *canonical).collect();
        types.sort_unstable();
        types.dedup();
        let labels = SourceLabels {
            source: &of.name.value,
            provider: provider.name(),
            secrets: keys.len(),
            types: &types,
            reasons,
        };
        let signed = scheme.is_some();
        let by_default =
            if provider.identity_is_signed(signed) { OnConflict::Drop } else { OnConflict::Forward };
        Some(Source {
            name: of.name.value.as_str().into(),
            path: of.path.value.as_str().into(),
            provider,
            scheme,
            keys,
            verified_by,
            token,
            allow_ips: of.allow_ips.clone(),
            limiter: of.rate_limit.and_then(limiter),
            tolerance: i64::try_from(of.tolerance.as_secs()).unwrap_or(i64::MAX),
            subscriptions: of.subscriptions.iter().flat_map(|list| list.value.iter().cloned()).collect(),
            on_conflict: of.on_conflict.unwrap_or(by_default),
            metrics: metrics.source(&labels),
            highest: Mutex::default(),
        })
    }

    /// The scheme to verify with; none for a source that is to be authenticated otherwise.
    fn scheme(&mut self, provider: &dyn Provider) -> Option<Scheme> {
        let scheme = provider.signing().scheme();
        match (scheme, self.of.secrets.first()) {
            (None, Some(first)) => {
                let what = format!(
                    "{} publishes no signature to verify with a secret; use path_token",
                    provider.name()
                );
                self.error(first, "secrets", what);
                None
            }
            (scheme, Some(_)) => scheme.map(|scheme| self.with_options(scheme)),
            (_, None) => None,
        }
    }

    fn with_options(&self, scheme: Scheme) -> Scheme {
        match (scheme, &self.of.accept_v1) {
            (Scheme::Bond { .. }, Some(accept)) => Scheme::Bond { accept_v1: accept.value },
            (scheme, _) => scheme,
        }
    }

    fn keys(&mut self, provider: &dyn Provider, scheme: Option<Scheme>) -> Vec<Key> {
        let Some(scheme) = scheme else { return Vec::new() };
        let mut keys = Vec::new();
        for reference in &self.of.secrets {
            let Some(secret) = self.resolve(reference, "secrets") else { continue };
            if scheme != Scheme::StandardWebhooks && secret.expose().len() < SHORT_SECRET {
                let bytes = secret.expose().len();
                let what = format!(
                    "the secret has {bytes} bytes; {} should have {SHORT_SECRET} or more",
                    provider.name()
                );
                self.warn(reference, "secrets", what);
            }
            match Key::new(scheme, &secret) {
                Ok(key) => keys.push(key),
                Err(error) => self.error(reference, "secrets", error.to_string()),
            }
        }
        keys
    }

    fn token(&mut self) -> Option<Secret> {
        let reference = self.of.path_token.as_ref()?;
        let token = self.resolve(reference, "path_token")?;
        let text = token.expose();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
        if !text.bytes().all(fits) {
            let what = "holds a character that cannot stand in a path segment; use letters, digits and -._~";
            self.error(reference, "path_token", what.to_owned());
        } else if text.len() < SHORT_SECRET {
            let what = format!("the token has {} bytes; {SHORT_SECRET} or more resist guessing", text.len());
            self.warn(reference, "path_token", what);
        }
        Some(token)
    }

    /// Options that another provider would not heed, and a window that forgets too early.
    fn check_options(&mut self, provider: &dyn Provider) {
        let of = self.of;
        if let Some(accept) = &of.accept_v1
            && !matches!(provider.signing().scheme(), Some(Scheme::Bond { .. }))
        {
            self.error(accept, "accept_v1", "only atelio signs in two versions; leave it out".to_owned());
        }
        if let Some(list) = &of.subscriptions
            && provider.name() != "securitize"
            && !list.value.is_empty()
        {
            self.error(list, "subscriptions", "only securitize names subscriptions; leave it out".to_owned());
        }
        let window = &self.config.dedupe.window;
        if let Some(schedule) = provider.retries_for().filter(|schedule| *schedule > window.value) {
            let what = format!(
                "{} s is shorter than {} s, for which {} retries ({}): a late retry would enter twice",
                window.value.as_secs(),
                schedule.as_secs(),
                provider.name(),
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

    /// What authenticates the source; none, with a problem, where nothing does.
    fn verified_by(
        &mut self,
        provider: &dyn Provider,
        scheme: Option<Scheme>,
        token: bool,
    ) -> Option<VerifiedBy> {
        let of = self.of;
        if let Some(scheme) = scheme {
            return Some(provider::verified_by(scheme));
        }
        if self.reported("secrets") || self.reported("path_token") || self.reported("allow_ips") {
            // It would be authenticated if what is there were right.
            return None;
        }
        let name = provider.name();
        let otherwise = match provider.signing() {
            Signing::Always(_) if of.secrets.is_empty() => {
                Err(format!("{name} signs its deliveries: set secrets = [{{ env = \"NAME\" }}]"))
            }
            Signing::Always(_) => return None,
            _ if token => Ok(VerifiedBy::PathToken),
            Signing::Sometimes(_) if !of.unauthenticated => Err(format!(
                "{name} needs secrets, or for its legacy system path_token = {{ env = \"NAME\" }}"
            )),
            _ if !of.allow_ips.is_empty() => Ok(VerifiedBy::ClientAddress),
            _ if of.unauthenticated => Ok(VerifiedBy::Nothing),
            _ => Err("nothing authenticates this source: set path_token = { env = \"NAME\" } or allow_ips, \
                or say unauthenticated = true"
                .to_owned()),
        };
        otherwise.map_err(|what| self.error(&of.name, "secrets", what)).ok()
    }

    fn resolve(&mut self, reference: &At<crate::secret::SecretRef>, key: &str) -> Option<Secret> {
        match reference.value.resolve() {
            Ok(secret) => {
                self.redactor.learn(&secret);
                Some(secret)
            }
            Err(error) => {
                self.error(reference, key, error.to_string());
                None
            }
        }
    }

    /// Whether a key of this source has an error already.
    fn reported(&self, key: &str) -> bool {
        let key = self.key(key);
        self.problems.iter().any(|problem| !problem.warning && problem.key.starts_with(&key))
    }

    fn key(&self, key: &str) -> String {
        format!("sources.{}.{key}", config::quote_key(&self.of.name.value))
    }

    fn error<T>(&mut self, at: &At<T>, key: &str, what: String) {
        self.problem(at, key, what, false);
    }

    fn warn<T>(&mut self, at: &At<T>, key: &str, what: String) {
        self.problem(at, key, what, true);
    }

    fn problem<T>(&mut self, at: &At<T>, key: &str, what: String, warning: bool) {
        let key = self.key(key);
        self.problems.push(Problem { at: at.at, key, what, warning });
    }
}

fn limiter(rate: config::RateLimit) -> Option<DefaultDirectRateLimiter> {
    let (per_second, burst) = (NonZeroU32::new(rate.per_second)?, NonZeroU32::new(rate.burst)?);
    Some(RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)))
}

const SHORT_SECRET: usize = 16;
const MAX_SCOPES: usize = 10_000;
