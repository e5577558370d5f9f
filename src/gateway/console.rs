//! The facts of the console, from the parts of a gateway.
//!
//! Keeps true: no request waits for it. It reads metrics and states that the parts publish anyway. It reads files on a
//! thread of its own, and waits for them only so long.
//!
//! - `readings`: the metrics by name. `sources`, `queue`: the views that are made of them.
//! - `states`: since when a part has its state. `files`: the reject log and the dead letters on disk.

mod files;
mod queue;
mod readings;
mod sources;
mod states;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::access::Map;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use super::stores::Dependencies;
use super::subscriptions::Looks;
use crate::base::clock::Clock;
use crate::config::{Config, show_duration};
use crate::observe::admin::{Admin, Readiness};
use crate::observe::console::history::{History, SAMPLE_SECONDS};
use crate::observe::console::view::{self, Accepted, Health, LATEST, Part, Rows, Status, Subscription, View};
use crate::observe::console::{Console, Facts};
use crate::observe::metrics::Metrics;
use crate::request::pipeline::RuntimeConfig;
use files::{Files, Found, Wanted};
use readings::Readings;
use states::States;

/// The parts that the console looks at.
pub(super) struct ConsoleFacts {
    rules: Arc<ArcSwap<RuntimeConfig>>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    clock: Clock,
    /// What the last looks at the providers' subscriptions found.
    pub(super) looks: Arc<Looks>,
    started: Timestamp,
    config: ArcSwap<Shown>,
    history: Mutex<History>,
    states: Mutex<States>,
    files: Files,
}

/// The config in force, and as `check --print` has it.
struct Shown {
    config: Config,
    text: String,
}

impl Shown {
    fn of(config: &Config) -> Arc<Shown> {
        Arc::new(Shown { config: config.clone(), text: config.redacted() })
    }
}

/// The admin listener with its console.
pub(super) fn admin(
    config: &Config,
    rules: &Arc<ArcSwap<RuntimeConfig>>,
    deps: &Dependencies<'_>,
) -> (Admin, Arc<ConsoleFacts>) {
    let facts = Arc::new(ConsoleFacts::new(config, rules, deps));
    let admin = Admin {
        metrics: deps.metrics.clone(),
        readiness: deps.readiness.clone(),
        console: Arc::new(Console::new(facts.clone())),
        rules: Arc::new(Map::new(rules.clone(), |rules: &RuntimeConfig| &rules.admin)),
    };
    (admin, facts)
}

impl ConsoleFacts {
    fn new(config: &Config, rules: &Arc<ArcSwap<RuntimeConfig>>, deps: &Dependencies<'_>) -> ConsoleFacts {
        ConsoleFacts {
            rules: rules.clone(),
            metrics: deps.metrics.clone(),
            readiness: deps.readiness.clone(),
            clock: deps.clock.clone(),
            looks: Arc::default(),
            started: deps.clock.now(),
            config: ArcSwap::new(Shown::of(config)),
            history: Mutex::default(),
            states: Mutex::default(),
            files: Files::default(),
        }
    }

    /// Shows another config from now on.
    pub(super) fn set_config(&self, config: &Config) {
        self.config.store(Shown::of(config));
    }

    /// Notes changes of state each second, and counts for the sparklines.
    pub(super) async fn sample(self: Arc<ConsoleFacts>) {
        let mut turn = tokio::time::interval(Duration::from_secs(1));
        turn.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            for second in 0..SAMPLE_SECONDS {
                turn.tick().await;
                lock(&self.states).note(&self.readiness, self.clock.now());
                if second == 0 {
                    let readings = Readings::of(&self.metrics, &sources::SAMPLED);
                    lock(&self.history).sample(sources::counts(&readings));
                }
            }
        }
    }

    async fn gather(&self) -> View {
        let shown = self.config.load_full();
        let config = &shown.config;
        let readings = Readings::of(&self.metrics, &readings::WANTED);
        let found = self.files.look(Wanted::of(config, readings.count("hookgate_spool_dead_events"))).await;
        let now = self.clock.now();
        let parts = lock(&self.states).note(&self.readiness, now).parts(&self.readiness);
        let part = |name: &str| parts.iter().find(|part| part.name == name).cloned().unwrap_or_default();
        let sources = sources::sources(config, &readings, &lock(&self.history));
        let (subscriptions, warnings) =
            (self.subscriptions(config, &readings), self.warnings(&readings, now));
        View {
            at: now,
            started: self.started,
            sources,
            flow: self.flow(),
            rejects: rejects(&readings, &found, config),
            queue: queue::queue(config, &readings, part("queue"), found.queue_bytes),
            spool: spool(&readings, &found, part("spool")),
            status: self.status(&readings, parts, warnings),
            subscriptions,
            subscriptions_checked: config.subscriptions.check.map(show_duration),
            config: view::Config {
                loaded: readings.moment("hookgate_config_loaded_timestamp_seconds", &[]),
                reloads: (
                    readings.sum("hookgate_config_reloads_total", &[("result", "applied")]),
                    readings.sum("hookgate_config_reloads_total", &[("result", "refused")]),
                ),
                certificates_expire: self.rules.load().admin.certificates_expire,
                text: shown.text.clone(),
            },
        }
    }

    fn status(&self, readings: &Readings, parts: Vec<Part>, warnings: Vec<String>) -> Status {
        let [accepted_a_minute, rejected_a_minute] = lock(&self.history).last_minute();
        Status {
            ready: self.readiness.ready(),
            draining: self.readiness.draining(),
            parts,
            warnings,
            accepted_a_minute,
            rejected_a_minute,
            in_flight: readings.count("hookgate_requests_in_flight"),
            connections: readings.count("hookgate_connections"),
            version: format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("HOOKGATE_REVISION")),
        }
    }

    fn warnings(&self, readings: &Readings, now: Timestamp) -> Vec<String> {
        let unsafe_settings = readings.by("hookgate_unsafe_settings", &[], "setting");
        let mut warnings: Vec<String> = unsafe_settings
            .into_iter()
            .map(|(setting, _)| {
                format!(
                    "a setting of a server puts events at risk ({setting}); hookgate check --live says more"
                )
            })
            .collect();
        let drift = readings.by("hookgate_subscription_drift", &[], "source");
        warnings.extend(
            drift.into_iter().map(|(source, _)| format!("the subscription of {source} is not as declared")),
        );
        if let Some(expire) = self.rules.load().admin.certificates_expire
            && expire.as_second() - now.as_second() < SOON
        {
            let days = (expire.as_second() - now.as_second()).div_euclid(86_400);
            let when = if days < 0 { "has expired".to_owned() } else { format!("expires in {days} d") };
            warnings.push(format!("a certificate {when}"));
        }
        warnings
    }

    /// The latest events of all sources, newest first.
    fn flow(&self) -> Vec<Accepted> {
        let rules = self.rules.load();
        let mut events = Vec::new();
        for source in rules.routes.sources() {
            let recent = source.memory.recent.all();
            events.extend(recent.into_iter().rev().map(|event| Accepted {
                at: event.at,
                source: source.name.to_string(),
                kind: event.kind,
                id: event.id,
            }));
        }
        // Stable: events of one moment stay newest first.
        events.sort_by_key(|event| std::cmp::Reverse(event.at));
        events.truncate(LATEST);
        events
    }

    fn subscriptions(&self, config: &Config, readings: &Readings) -> Rows<Subscription> {
        let declared =
            config.sources.iter().filter_map(|source| Some((source, source.subscription.as_ref()?)));
        let row = |(source, subscription): (&crate::config::Source, &crate::config::Subscription)| {
            let name = &source.name.value;
            let looked = self.looks.of(name);
            let (health, state) = match &looked {
                None => (Health::Off, "not looked at yet".to_owned()),
                Some(looked) => match (looked.drifts, &looked.said) {
                    (Some(false), _) => (Health::Good, "as declared".to_owned()),
                    (_, said) => (Health::Warning, said.clone().unwrap_or_default()),
                },
            };
            let success = "hookgate_reconcile_last_success_timestamp_seconds";
            let reconciled = source.reconcile.as_ref().map(|reconcile| {
                (show_duration(reconcile.every), readings.moment(success, &[("source", name)]))
            });
            Subscription {
                source: name.clone(),
                provider: source.provider.value.clone(),
                events: subscription.events.iter().map(|event| event.value.clone()).collect(),
                looked: looked.map(|looked| looked.at),
                health,
                state,
                reconciled,
            }
        };
        Rows::first(declared.map(row), view::ROWS)
    }
}

impl Facts for ConsoleFacts {
    fn view(&self) -> BoxFuture<'_, View> {
        Box::pin(self.gather())
    }
}

fn rejects(readings: &Readings, found: &Found, config: &Config) -> view::Rejects {
    view::Rejects {
        reasons: readings.by("hookgate_rejects_total", &[], "reason"),
        records: found.records.clone(),
        unread: found.records_unread.clone(),
        written: readings.count("hookgate_audit_records_total"),
        suppressed: readings.count("hookgate_audit_suppressed_total"),
        failed: readings.count("hookgate_audit_failures_total"),
        quarantined: config.quarantine.enabled.then(|| {
            (readings.count("hookgate_quarantine_requests"), readings.count("hookgate_quarantine_bytes"))
        }),
    }
}

fn spool(readings: &Readings, found: &Found, part: Part) -> view::Spool {
    view::Spool {
        part,
        events: readings.count("hookgate_spool_events"),
        bytes: readings.count("hookgate_spool_bytes"),
        max_bytes: readings.count("hookgate_spool_max_bytes"),
        oldest: readings.value("hookgate_spool_oldest_age_seconds"),
        dead: readings.count("hookgate_spool_dead_events"),
        letters: found.letters.clone(),
        unread: found.letters_unread.clone(),
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every step under these locks leaves them consistent, so a poisoned lock is fine.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Before a certificate's end, in seconds.
const SOON: i64 = 14 * 86_400;
