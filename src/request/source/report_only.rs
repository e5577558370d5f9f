//! Refusal reasons that a source only reports until a date, and warnings about dates in the config.
//!
//! Keeps true: report-only ends by itself at `observe_until`. The only check that authenticates a source is always
//! enforced.

use jiff::Timestamp;

use super::Builder;
use crate::base::reason::Reason;
use crate::config::{self, Config, Problem};
use crate::provider::signature::VerifiedBy;

/// Refusal reasons that are reported but not enforced until a date.
pub struct ReportOnly {
    reasons: Vec<Reason>,
    until: Option<Timestamp>,
}

impl ReportOnly {
    pub(super) fn of(source: &config::Source) -> ReportOnly {
        ReportOnly {
            reasons: source.observe.clone(),
            until: source.observe_until.as_ref().map(|until| until.value),
        }
    }

    /// The date from which this reason is enforced, for a request that arrived at `at`; none if it is enforced already.
    pub fn enforced_from(&self, reason: Reason, at: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| at < *until && self.reasons.contains(&reason))
    }
}

impl Builder<'_> {
    /// Reports an error if the only check that authenticates the source is report-only: it would accept every client.
    pub(super) fn check_report_only(&mut self, verified_by: VerifiedBy) {
        let Some(until) = &self.of.observe_until else { return };
        if verified_by == VerifiedBy::ClientAddress && self.of.observe.contains(&Reason::ClientNotAllowed) {
            let what = "client_not_allowed cannot be observed: only allow_ips authenticates this source; remove it, \
                or set path_token = { env = \"NAME\" }";
            self.error(until, "observe", what.to_owned());
        }
    }
}

/// Warnings about dates in the config, as of `now`.
pub fn dated(config: &Config, now: Timestamp) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in &config.sources {
        let mut warn = |at, key: &str, what: String| {
            let key = format!("sources.{}.{key}", config::quote_key(&source.name.value));
            problems.push(Problem { at, key, what, warning: true });
        };
        if let Some(until) = source.observe_until.as_ref().filter(|_| !source.observe.is_empty()) {
            let names: Vec<_> = source.observe.iter().map(|reason| reason.label()).collect();
            let (names, date) = (names.join(", "), until.value);
            let what = if now < date {
                format!("{names} is only observed, not enforced, until {date}")
            } else {
                format!("observe_until has passed: {names} is enforced; leave observe and observe_until out")
            };
            warn(until.at, "observe_until", what);
        }
        let secrets = &source.secrets;
        for secret in secrets {
            if let Some(end) = secret.value.not_after.filter(|end| *end <= now) {
                warn(secret.at, "secrets", format!("this secret has expired, at {end}; take it out"));
            }
        }
        let begins = |secret: &config::SourceSecret| secret.not_before.filter(|begin| now < *begin);
        let ended = |secret: &config::SourceSecret| secret.not_after.is_some_and(|end| end <= now);
        let idle = secrets.iter().all(|secret| begins(&secret.value).is_some() || ended(&secret.value));
        if let Some(first) = secrets.first().filter(|_| idle) {
            let next = secrets.iter().filter_map(|secret| begins(&secret.value)).min();
            let until = next.map_or_else(String::new, |next| format!(" until {next}"));
            warn(first.at, "secrets", format!("no secret counts now: every delivery is refused{until}"));
        }
    }
    problems
}
