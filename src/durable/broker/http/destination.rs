//! What is known of one URL: how many requests are on their way to it, whether it wants a pause, and its last answer.
//!
//! Keeps true: at most [`AT_ONCE`] requests are on their way to a URL, direct ones and those from the spool together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::clock;

/// A URL that events are posted to.
pub struct Destination {
    /// Tells it apart from others.
    pub id: u64,
    /// None: the event's values make no URL out of the template.
    pub(super) url: Option<Url>,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// The service wants no request before this.
    paused_until: Option<Instant>,
    /// The last request found nothing to connect to. No other follows before `probe_at`.
    unreachable: bool,
    probe_at: Instant,
    /// The last request was not answered in time.
    silent: bool,
    /// How many answers there were.
    answers: u64,
    /// Why the last request failed, if it did.
    failure: Option<String>,
    last_used: Instant,
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With an answer that is no failure of the service.
    Answered,
    /// With an answer that is one: which. With a pause, no request may follow before that.
    Failed(String, Option<Duration>),
    /// There was no connection: why.
    Unreachable(String),
    /// There was no whole answer: why.
    NoAnswer(String),
}

impl Destination {
    pub(super) fn new(id: u64, url: &str) -> Destination {
        let now = clock::instant();
        Destination {
            id,
            url: Url::parse(url).ok().filter(Url::has_host),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            state: Mutex::new(State {
                paused_until: None,
                unreachable: false,
                probe_at: now,
                silent: false,
                answers: 0,
                failure: None,
                last_used: now,
            }),
        }
    }

    /// Waits until another request may be on its way.
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().acquire_owned().await.ok()
    }

    /// Until when the service wants no request.
    pub fn paused_until(&self) -> Option<Instant> {
        self.lock().paused_until.filter(|until| *until > clock::instant())
    }

    /// Whether a request that a provider waits for would most likely be in vain.
    pub fn is_away(&self) -> bool {
        let state = self.lock();
        state.unreachable || state.silent
    }

    /// While nothing is there to connect to: when to look again. Until then one request at a time is enough.
    pub fn unreachable_until(&self) -> Option<Instant> {
        let state = self.lock();
        state.unreachable.then_some(state.probe_at)
    }

    /// How many answers there were, for [`Destination::on_late`].
    pub fn answers(&self) -> u64 {
        self.lock().answers
    }

    /// Call when a provider has waited in vain. If no answer came since there were so many, the service counts as silent.
    pub fn on_late(&self, answers: u64) {
        let mut state = self.lock();
        if state.answers == answers {
            state.silent = true;
            self.set_failure(&mut state, Some("it has not answered in time".to_owned()));
        }
    }

    pub(super) fn record(&self, ended: Ended) {
        let now = clock::instant();
        let mut state = self.lock();
        state.last_used = now;
        let (unreachable, silent) = match &ended {
            Ended::Answered | Ended::Failed(..) => (false, false),
            Ended::Unreachable(_) => (true, state.silent),
            Ended::NoAnswer(_) => (false, true),
        };
        (state.unreachable, state.silent) = (unreachable, silent);
        state.answers += u64::from(!unreachable && !silent);
        if unreachable {
            state.probe_at = now + PROBE_INTERVAL;
        }
        let failure = match ended {
            Ended::Answered => None,
            Ended::Failed(why, pause) => {
                if let Some(pause) = pause {
                    state.paused_until = state.paused_until.max(Some(now + pause));
                }
                Some(why)
            }
            Ended::Unreachable(why) | Ended::NoAnswer(why) => Some(why),
        };
        self.set_failure(&mut state, failure);
    }

    fn set_failure(&self, state: &mut State, failure: Option<String>) {
        let service = self.name();
        match (&state.failure, &failure) {
            (None, Some(why)) => tracing::warn!(service, why, "an HTTP service does not take events"),
            (Some(_), None) => tracing::info!(service, "an HTTP service takes events again"),
            _ => {}
        }
        state.failure = failure;
    }

    /// Why its last request failed.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    pub(super) fn unused_for(&self) -> Duration {
        clock::instant().saturating_duration_since(self.lock().last_used)
    }

    /// Host and port, for operators. A path or query may hold a secret.
    pub fn name(&self) -> String {
        let Some(url) = &self.url else { return "no host".to_owned() };
        let (host, port) =
            (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        format!("{host}:{port}")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most requests on their way to one URL.
const AT_ONCE: usize = 32;
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_request_says_what_the_next_one_may_expect() {
        let to = Destination::new(0, "http://127.0.0.1:3000/hooks?key=hush");
        assert_eq!((to.name().as_str(), to.is_away(), to.failure()), ("127.0.0.1:3000", false, None));
        to.record(Ended::Unreachable("nothing listens there".to_owned()));
        assert!(to.is_away() && to.unreachable_until().is_some() && to.failure().is_some());
        to.record(Ended::Failed("it answered 503".to_owned(), Some(Duration::from_secs(60))));
        assert!(!to.is_away() && to.unreachable_until().is_none(), "it answers");
        assert!(to.paused_until().is_some() && to.failure().unwrap().contains("503"));
        to.record(Ended::NoAnswer("it did not answer in time".to_owned()));
        assert!(to.is_away() && to.unreachable_until().is_none());
        to.record(Ended::Answered);
        assert_eq!((to.is_away(), to.failure()), (false, None));
        assert!(to.paused_until().is_some(), "the pause stands");
    }

    #[test]
    fn a_late_answer_makes_a_service_silent_unless_another_came_meanwhile() {
        let to = Destination::new(0, "http://127.0.0.1:3000/");
        let before = to.answers();
        to.record(Ended::Answered);
        to.on_late(before);
        assert_eq!((to.is_away(), to.failure()), (false, None));
        to.on_late(to.answers());
        assert!(to.is_away() && to.failure().is_some());
        to.record(Ended::Answered);
        assert_eq!((to.is_away(), to.failure()), (false, None));
    }

    #[test]
    fn what_makes_no_url_has_none() {
        for url in ["http://", "http://:80/", "http://a b/", "/events", "mailto:a@b"] {
            assert!(Destination::new(0, url).url.is_none(), "{url}");
        }
    }
}
