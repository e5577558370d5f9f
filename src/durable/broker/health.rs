//! Whether a broker accepts messages, and why not.
//!
//! Keeps true:
//! - Every change is reported to the watch at once and in order.
//! - "Up" means: connected, not blocked, confirming publishes, and with a destination for messages.
//! - Where the name is a template, one existing destination is enough. Missing ones concern single events, and `live`
//!   reports them.
//!
//! A destination is a NATS stream, a RabbitMQ exchange or a Kafka topic.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::{PublishError, Watch};
use crate::base::clock;
use crate::observe::admin::QueueState;

pub(super) struct BrokerHealth {
    watch: Watch,
    /// The queue's name is no template: every message goes to the same destination.
    fixed: bool,
    /// The known names of destinations.
    names: Mutex<Arc<[String]>>,
    state: Mutex<State>,
    /// Asks for a lookup of the destinations soon.
    look: Notify,
    /// Held by the one publish that may try while the broker is silent.
    trial: Semaphore,
    /// Timers that clear `silent` and `refused`.
    suspicions: TaskTracker,
}

/// The result of looking up one destination.
pub(super) enum Lookup {
    /// It exists.
    Found,
    /// It does not exist: why, and how to fix it.
    Missing(String),
    /// The broker does not allow the lookup. The next publish will show whether it exists.
    NotAllowed,
    /// The broker did not answer: why.
    NoAnswer(&'static str),
}

#[derive(Default)]
struct State {
    connected: bool,
    /// Why there is no connection, if that is known.
    unconnected: Option<String>,
    /// The broker's reason while it blocks all publishers.
    blocked: Option<String>,
    /// Why the last lookup found no destination.
    no_destination: Option<String>,
    /// Why the last message was refused, if any other message would be refused too.
    refused: Option<Refusal>,
    /// When the last message was confirmed.
    taken: Option<Instant>,
    /// The last publish got no answer.
    silent: bool,
    /// Counts refusals and silences, so that a timer clears only its own.
    suspicions: u64,
    /// The reason logged last while the broker is not up.
    logged: Option<String>,
}

struct Refusal {
    why: String,
    /// The destination exists but has no room.
    full: bool,
}

impl State {
    /// The state to report, and why the broker accepts no messages.
    fn report(&self) -> (QueueState, Option<&str>) {
        match self {
            State { connected: false, unconnected, .. } => {
                (QueueState::Down, Some(unconnected.as_deref().unwrap_or(NO_CONNECTION)))
            }
            State { blocked: Some(why), .. } => (QueueState::Full, Some(why)),
            State { no_destination: Some(why), .. } => (QueueState::Down, Some(why)),
            State { refused: Some(Refusal { why, full: true }), .. } => (QueueState::Full, Some(why)),
            State { refused: Some(Refusal { why, full: false }), .. } => (QueueState::Down, Some(why)),
            State { silent: true, .. } => (QueueState::Down, Some("it does not answer publishes")),
            _ => (QueueState::Up, None),
        }
    }
}

impl BrokerHealth {
    /// Starts unconnected, with no destination until a lookup finds one of `names`.
    pub(super) fn new(watch: Watch, fixed: bool, names: impl IntoIterator<Item = String>) -> BrokerHealth {
        watch.set(QueueState::Down, Some(NO_CONNECTION));
        let names: Arc<[String]> = names.into_iter().collect();
        let no_destination = (!names.is_empty()).then(|| NOT_LOOKED_UP.to_owned());
        BrokerHealth {
            watch,
            fixed,
            names: Mutex::new(names),
            state: Mutex::new(State { no_destination, ..State::default() }),
            look: Notify::new(),
            trial: Semaphore::new(1),
            suspicions: TaskTracker::new(),
        }
    }

    /// Replaces the known names of destinations.
    pub(super) fn set_names(&self, names: impl IntoIterator<Item = String>) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names.into_iter().collect();
        self.look.notify_one();
    }

    pub(super) fn names(&self) -> Arc<[String]> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn on_connected(&self) {
        self.change(|state| {
            (state.connected, state.unconnected, state.blocked, state.silent) = (true, None, None, false);
        });
        self.look.notify_one();
    }

    /// Runs a publish and records its result. A connected broker that does not answer counts as down. While it is
    /// silent, one publish at a time tries; the others fail at once as unreachable.
    pub(super) async fn observe(
        self: &Arc<Self>,
        publish: impl Future<Output = Result<(), PublishError>>,
    ) -> Result<(), PublishError> {
        let _trial = match self.state().silent {
            true => Some(self.trial.try_acquire().map_err(|_| PublishError::Unreachable)?),
            false => None,
        };
        let done = publish.await;
        match &done {
            Err(PublishError::Unknown) => self.suspect(SILENT_FOR, |state| state.silent = true),
            Err(PublishError::Unreachable) => {}
            _ if self.state().silent => self.change(|state| state.silent = false),
            _ => {}
        }
        done
    }

    /// Applies `change` for a limited time. While hookgate is not ready no deliveries come, so no publish would clear
    /// it.
    fn suspect(self: &Arc<Self>, lasts: Duration, change: impl FnOnce(&mut State)) {
        let mut suspicion = 0;
        self.change(|state| {
            change(state);
            state.suspicions += 1;
            suspicion = state.suspicions;
        });
        let health = Arc::downgrade(self);
        self.suspicions.spawn(async move {
            tokio::time::sleep(lasts).await;
            if let Some(health) = health.upgrade()
                && health.state().suspicions == suspicion
            {
                health.change(|state| (state.silent, state.refused) = (false, None));
            }
        });
    }

    #[cfg(feature = "kafka")]
    pub(super) fn is_connected(&self) -> bool {
        self.state().connected
    }

    pub(super) fn on_disconnected(&self) {
        self.change(|state| state.connected = false);
    }

    pub(super) fn on_connect_failed(&self, why: String) {
        self.change(|state| (state.connected, state.unconnected) = (false, Some(why)));
    }

    /// Sets or clears the broker's reason to block all publishers.
    pub(super) fn set_blocked(&self, reason: Option<String>) {
        self.change(|state| state.blocked = reason);
    }

    pub(super) fn why_blocked(&self) -> Option<String> {
        self.state().blocked.clone()
    }

    /// Records a refusal that any other message would meet too.
    pub(super) fn on_refused(self: &Arc<Self>, why: String) {
        self.suspect(REFUSED_FOR, |state| state.refused = Some(Refusal { why, full: false }));
    }

    /// Records that one destination refused a message, for lack of room if `full`. Where the name is a template, this
    /// counts for all messages only if no destination has confirmed one lately.
    pub(super) fn on_destination_refused(self: &Arc<Self>, why: String, full: bool) {
        let taken = self.state().taken;
        if self.fixed || taken.is_none_or(|taken| taken.elapsed() >= REFUSED_FOR) {
            self.suspect(REFUSED_FOR, |state| state.refused = Some(Refusal { why, full }));
        }
    }

    /// Records that a message's destination is missing or forbidden, and gives the publish error. Where the name is a
    /// template, other messages may still have a destination.
    pub(super) fn unroutable(self: &Arc<Self>, what: String) -> PublishError {
        if self.fixed {
            self.on_refused(what.clone());
        }
        self.look.notify_one();
        match self.fixed {
            true => PublishError::Refused(what),
            false => PublishError::Unroutable(what),
        }
    }

    /// Records a confirmed message.
    pub(super) fn on_confirmed(&self) {
        let mut state = self.state();
        state.taken = Some(clock::instant());
        if state.no_destination.is_some() || state.refused.is_some() {
            drop(state);
            self.change(|state| (state.no_destination, state.refused) = (None, None));
        }
    }

    /// Looks up the destinations forever: after a connect, after an unroutable message, and every 5 s.
    pub(super) async fn watch_destinations<F: Future<Output = Lookup>>(&self, look: impl Fn(String) -> F) {
        loop {
            if self.state().connected {
                let began = clock::instant();
                self.look_up_all(&look).await;
                // With many names, the pause limits the lookups to a fifth of the time.
                tokio::time::sleep(RETRY_LOOKUP.max(began.elapsed() * 4)).await;
                if self.state().no_destination.is_some() {
                    continue;
                }
            }
            let _ = tokio::time::timeout(LOOKUP_INTERVAL, self.look.notified()).await;
        }
    }

    /// Looks the names up until one is found.
    async fn look_up_all<F: Future<Output = Lookup>>(&self, look: &impl Fn(String) -> F) {
        let (mut absent, mut others) = (None, 0);
        for name in self.names().iter() {
            match look(name.clone()).await {
                Lookup::Found => return self.on_destination_found(),
                Lookup::NotAllowed => return self.change(|state| state.no_destination = None),
                Lookup::NoAnswer(why) => return self.on_lookup_unanswered(why),
                Lookup::Missing(why) if absent.is_none() => absent = Some(why),
                Lookup::Missing(_) => others += 1,
            }
        }
        match absent {
            Some(why) if others > 0 => {
                self.on_destination_missing(format!("{why} ({others} other names have none either)"));
            }
            Some(why) => self.on_destination_missing(why),
            None => self.on_destination_found(),
        }
    }

    /// Clears a missing destination, and the refusal that it caused.
    pub(super) fn on_destination_found(&self) {
        let state = self.state();
        if let Some(why) = &state.no_destination {
            let was_looked_for = why != NOT_LOOKED_UP;
            drop(state);
            self.change(|state| {
                state.no_destination = None;
                if was_looked_for {
                    state.refused = None;
                }
            });
        }
    }

    pub(super) fn on_destination_missing(&self, why: String) {
        if self.state().no_destination.as_ref() != Some(&why) {
            self.change(|state| state.no_destination = Some(why));
        }
    }

    /// Without an answer, a destination that was found before still counts as found.
    fn on_lookup_unanswered(&self, why: &str) {
        let not_looked = self.state().no_destination.as_deref() == Some(NOT_LOOKED_UP);
        if not_looked && self.state().connected {
            self.on_destination_missing(why.to_owned());
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let (before, _) = state.report();
        change(&mut state);
        let (now, why) = state.report();
        let (was_up, why) = (before == QueueState::Up, why.map(str::to_owned));
        match &why {
            None if !was_up => {
                tracing::info!("the broker takes messages");
                state.logged = None;
            }
            None => {}
            // Not logged at the start, when this is expected.
            Some(why) if !was_up && (why == NO_CONNECTION || why == NOT_LOOKED_UP) => {}
            Some(why) if state.logged.as_ref() != Some(why) => {
                match now {
                    QueueState::Full => tracing::warn!(why, "the broker has no room for messages"),
                    QueueState::Down | QueueState::Up => tracing::warn!(why, "the broker takes no messages"),
                }
                state.logged = Some(why.clone());
            }
            Some(_) => {}
        }
        self.watch.set(now, why.as_deref());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_CONNECTION: &str = "there is no connection";
const NOT_LOOKED_UP: &str = "its destination was not looked up yet";
/// How long only one publish at a time tries a silent broker.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// How long one refusal counts for all messages. Longer than the spool's retry pause.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// The pause between lookups while no destination is found.
const RETRY_LOOKUP: Duration = Duration::from_millis(500);
/// The pause between lookups while one is found.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::observe::admin::Readiness;
    use crate::observe::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn a_forbidden_lookup_does_not_clear_a_refusal() {
        let readiness = Arc::<Readiness>::default();
        readiness.set_dedupe(true);
        let watch = Watch { metrics: Metrics::new().unwrap().queue("nats"), readiness: readiness.clone() };
        let health = Arc::new(BrokerHealth::new(watch, true, ["hooks".to_owned()]));
        let looks = Arc::new(AtomicU32::new(0));
        let (looking, count) = (health.clone(), looks.clone());
        let looking = TaskTracker::new().spawn(async move {
            let hidden = |_| {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Lookup::NotAllowed)
            };
            looking.watch_destinations(hidden).await;
        });
        let looked = async |times| {
            while looks.load(Ordering::Relaxed) < times {
                tokio::time::sleep(RETRY_LOOKUP / 10).await;
            }
        };
        health.on_connected();
        looked(1).await;
        assert!(readiness.ready(), "the next publish will show it");
        let began = tokio::time::Instant::now();
        assert!(matches!(health.unroutable("no stream".to_owned()), PublishError::Refused(_)));
        looked(2).await;
        assert!(!readiness.ready(), "a forbidden lookup must not clear the refusal");
        while !readiness.ready() {
            tokio::time::sleep(RETRY_LOOKUP / 10).await;
        }
        assert!(began.elapsed() >= REFUSED_FOR && looks.load(Ordering::Relaxed) > 2);
        looking.abort();
    }
}
