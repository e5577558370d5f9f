//! Looks at the providers' side for a gateway that serves, and for `check --live`.
//!
//! Keeps true: it changes nothing at a provider, and a look that fails changes no metric.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::base::clock::Clock;
use crate::config::{Config, Problem};
use crate::observe::metrics::Metrics;
use crate::subscriptions::look::{Look, look};
use crate::subscriptions::plan::Action;

/// What the last look at each source found, for the console.
#[derive(Default)]
pub(super) struct Looks(Mutex<BTreeMap<String, Looked>>);

/// What a look found.
#[derive(Clone)]
pub(super) struct Looked {
    pub(super) at: Timestamp,
    /// Whether the provider's side differs. None: it could not be looked at.
    pub(super) drifts: Option<bool>,
    /// The same in words. None: all is as declared.
    pub(super) said: Option<String>,
}

impl Looks {
    /// What the last look at a source found.
    pub(super) fn of(&self, source: &str) -> Option<Looked> {
        self.lock().get(source).cloned()
    }

    fn retain(&self, config: &Config) {
        let declares = |name: &str| {
            config.sources.iter().any(|source| source.name.value == name && source.subscription.is_some())
        };
        self.lock().retain(|source, _| declares(source));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Looked>> {
        // Every step under the lock leaves the map consistent, so a poisoned lock is fine.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again. A reload restarts it.
pub(super) async fn watch(config: Config, clock: Clock, metrics: Arc<Metrics>, looks: &Looks) {
    looks.retain(&config);
    let Some(every) = config.subscriptions.check else { return };
    let mut logged: HashMap<String, String> = HashMap::new();
    loop {
        for found in look(&config, &clock).await {
            if let Some(drifts) = found.drifts() {
                metrics.subscription_drift(&found.source, drifts);
            }
            let said = said(&found);
            let looked = Looked { at: clock.now(), drifts: found.drifts(), said: said.clone() };
            looks.lock().insert(found.source.clone(), looked);
            let Some(said) = said else {
                logged.remove(&found.source);
                continue;
            };
            if logged.get(&found.source) != Some(&said) {
                tracing::warn!(source = &*found.source, "{said}");
                logged.insert(found.source, said);
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// The problems of the subscriptions at the providers. One that is absent or disabled is an error.
pub async fn check(config: &Config, clock: &Clock) -> Vec<Problem> {
    let mut problems = Vec::new();
    for found in look(config, clock).await {
        let Some(what) = said(&found) else { continue };
        let source = config.sources.iter().find(|source| source.name.value == found.source);
        let Some(at) = source.and_then(|source| Some(source.subscription.as_ref()?.at())) else { continue };
        let key = format!("sources.{}.subscription", found.source);
        problems.push(Problem { at, key, what, warning: !delivers_nothing(&found) });
    }
    problems
}

/// Whether a declared subscription is not there, or is disabled.
fn delivers_nothing(found: &Look) -> bool {
    let steps = found.found.as_deref().unwrap_or_default();
    steps.iter().any(|step| match step.action {
        Action::Create => true,
        Action::Update => step.detail.get("active").is_some(),
        Action::Delete | Action::None => false,
    })
}

/// What a person is told of a look. None: all is as declared.
fn said(found: &Look) -> Option<String> {
    let steps = match &found.found {
        Ok(steps) => steps,
        Err(why) => return Some(format!("the subscription at the provider cannot be looked at: {why}")),
    };
    let count = |action: Action| steps.iter().filter(|step| step.is_drift && step.action == action).count();
    let counted = [
        (count(Action::Create), "missing"),
        (count(Action::Update), "different"),
        (count(Action::Delete), "not declared"),
    ];
    let counted: Vec<String> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let disabled = if delivers_nothing(found) && count(Action::Create) == 0 { ", disabled" } else { "" };
    (!counted.is_empty()).then(|| {
        format!(
            "the subscriptions at the provider are not as declared ({}{disabled}): `hookgate subscriptions plan` shows the \
             difference, `apply` makes it so",
            counted.join(", ")
        )
    })
}
