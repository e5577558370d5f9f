//! What a source only observes for a while, and what of its dates an operator should hear.
//!
//! Keeps true: observing ends by itself, at a date; what authenticates a source is never only observed.

use jiff::Timestamp;

use super::Builder;
use crate::base::reason::Reason;
use crate::config::{self, Config, Problem};
use crate::provider::signature::VerifiedBy;

/// Reasons for which nothing is refused yet.
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

    /// From when on a request that came at `at` would be refused for this reason; none where it is refused now.
    pub fn enforced_from(&self, reason: Reason, at: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| at < *until && self.reasons.contains(&reason))
    }
}

impl Builder<'_> {
    /// To observe the only thing that authenticates a source would let everybody in.
    pub(super) fn check_report_only(&mut self, verified_by: VerifiedBy) {
        let Some(until) = &self.of.observe_until else { return };
        if verified_by == VerifiedBy::ClientAddress && self.of.observe.contains(&Reason::ClientNotAllowed) {
            let what = "client_not_allowed cannot be only observed: allow_ips is all that authenticates this \
                source; leave it out, or set path_token = { env = \"NAME\" }";
            self.error(until, "observe", what.to_owned());
        }
    }
}

/// What the dates in the config mean at `now`, as warnings.
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
