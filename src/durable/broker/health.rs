//! How a broker stands: whether it takes messages, and why not.
//!
//! Keeps true: the watch is told at once, in the order in which things happened, and "up" only while there is a connection, the
//! broker holds nothing against it, it answers what is published, and there is a place for messages. Where each event has a
//! place of its own, one of the known places is enough: what has none is one event's misfortune, and `live` names it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::{PublishError, Watch};
use crate::base::clock;
use crate::observe::admin::QueueState;

/// The state, and the watch that is told of it.
pub(super) struct BrokerHealth {
    watch: Watch,
    /// Every message goes to one name.
    fixed: bool,
    /// The names that messages go to, as far as they are known.
    names: Mutex<Arc<[String]>>,
    known: Mutex<Known>,
    /// There may be something to look for.
    look: Notify,
    /// For the one that may try while the broker is silent.
    turn: Semaphore,
    /// What ends a silence, or a refusal; they hold nothing up.
    doubts: TaskTracker,
}

/// What the broker has under one name.
pub(super) enum Lookup {
    /// Messages have a place there.
    There,
    /// They have none: why, and what to do.
    Absent(String),
    /// The broker does not let us look: the next publish will tell.
    Hidden,
    /// There was no answer: why.
    NoAnswer(&'static str),
}

#[derive(Default)]
struct Known {
    connected: bool,
    /// Why there is no connection, where that is known.
    unconnected: Option<String>,
    /// What the broker says while it has no room for anything.
    blocked: Option<String>,
    /// Why no message has a place, as of the last look.
    placeless: Option<String>,
    /// Why what was published last was not taken, where any other message would have met the same.
    refused: Option<Refusal>,
    /// When a message was taken last.
    taken: Option<Instant>,
    /// What was published last was not answered.
    silent: bool,
    /// How often it refused or fell silent.
    doubts: u64,
    /// What was logged last, while it takes nothing.
    logged: Option<String>,
}

/// Why a message was not taken.
struct Refusal {
    why: String,
    /// There is a place for it, and no room there.
    full: bool,
}

impl Known {
    /// Whether messages are taken, and why not.
    fn state(&self) -> (QueueState, Option<&str>) {
        match self {
            Known { connected: false, unconnected, .. } => {
                (QueueState::Down, Some(unconnected.as_deref().unwrap_or(NO_CONNECTION)))
            }
            Known { blocked: Some(why), .. } => (QueueState::Full, Some(why)),
            Known { placeless: Some(why), .. } => (QueueState::Down, Some(why)),
            Known { refused: Some(Refusal { why, full: true }), .. } => (QueueState::Full, Some(why)),
            Known { refused: Some(Refusal { why, full: false }), .. } => (QueueState::Down, Some(why)),
            Known { silent: true, .. } => (QueueState::Down, Some("it does not answer what is published")),
            _ => (QueueState::Up, None),
        }
    }
}

impl BrokerHealth {
    /// Not connected yet. Until one of these names is found to have a place, none has.
    pub(super) fn new(watch: Watch, fixed: bool, names: impl IntoIterator<Item = String>) -> BrokerHealth {
        watch.set(QueueState::Down, Some(NO_CONNECTION));
        let names: Arc<[String]> = names.into_iter().collect();
        let placeless = (!names.is_empty()).then(|| NOT_LOOKED.to_owned());
        BrokerHealth {
            watch,
            fixed,
            names: Mutex::new(names),
            known: Mutex::new(Known { placeless, ..Known::default() }),
            look: Notify::new(),
            turn: Semaphore::new(1),
            doubts: TaskTracker::new(),
        }
    }

    /// From now on messages go to these names, as far as they are known.
    pub(super) fn set_names(&self, names: impl IntoIterator<Item = String>) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names.into_iter().collect();
        self.look.notify_one();
    }

    /// The names that messages go to, as far as they are known.
    pub(super) fn names(&self) -> Arc<[String]> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There is a connection now.
    pub(super) fn connected(&self) {
        self.change(|known| {
            (known.connected, known.unconnected, known.blocked, known.silent) = (true, None, None, false);
        });
        self.look.notify_one();
    }

    /// Publishes, and draws the conclusion: a broker that is connected and confirms nothing takes no messages. While it is
    /// silent one message at a time is tried, and the others are told at once.
    ///
    /// # Errors
    /// Those of `publish`.
    pub(super) async fn watch(
        self: &Arc<Self>,
        publish: impl Future<Output = Result<(), PublishError>>,
    ) -> Result<(), PublishError> {
        let _turn = match self.known().silent {
            true => Some(self.turn.try_acquire().map_err(|_| PublishError::Unreachable)?),
            false => None,
        };
        let done = publish.await;
        match &done {
            Err(PublishError::Unknown) => self.doubt(SILENCE, |known| known.silent = true),
            Err(PublishError::Unreachable) => {}
            _ if self.known().silent => self.change(|known| known.silent = false),
            _ => {}
        }
        done
    }

    /// Not for ever: while readiness keeps all deliveries away, no publish would show that the broker takes messages again.
    fn doubt(self: &Arc<Self>, lasts: Duration, change: impl FnOnce(&mut Known)) {
        let mut doubt = 0;
        self.change(|known| {
            change(known);
            known.doubts += 1;
            doubt = known.doubts;
        });
        let standing = Arc::downgrade(self);
        self.doubts.spawn(async move {
            tokio::time::sleep(lasts).await;
            if let Some(standing) = standing.upgrade()
                && standing.known().doubts == doubt
            {
                standing.change(|known| (known.silent, known.refused) = (false, None));
            }
        });
    }

    /// Whether there is a connection.
    #[cfg(feature = "kafka")]
    pub(super) fn is_connected(&self) -> bool {
        self.known().connected
    }

    /// There is no connection any more.
    pub(super) fn lost(&self) {
        self.change(|known| known.connected = false);
    }

    /// There is no connection, for this reason.
    pub(super) fn unconnected(&self, why: String) {
        self.change(|known| (known.connected, known.unconnected) = (false, Some(why)));
    }

    /// The broker has no room for anything, for this reason; or it takes messages again.
    pub(super) fn blocked(&self, reason: Option<String>) {
        self.change(|known| known.blocked = reason);
    }

    /// Why the broker takes nothing, if it says so.
    pub(super) fn why_blocked(&self) -> Option<String> {
        self.known().blocked.clone()
    }

    /// A message was refused as any other would be now.
    pub(super) fn refused(self: &Arc<Self>, why: String) {
        self.doubt(REFUSED, |known| known.refused = Some(Refusal { why, full: false }));
    }

    /// The place of a message did not take it: it has no room (`full`), or another reason to take none now. Where each event
    /// has a place of its own, others may take theirs: that counts for all only while none has taken any.
    pub(super) fn refused_there(self: &Arc<Self>, why: String, full: bool) {
        let taken = self.known().taken;
        if self.fixed || taken.is_none_or(|taken| taken.elapsed() >= REFUSED) {
            self.doubt(REFUSED, |known| known.refused = Some(Refusal { why, full }));
        }
    }

    /// A message could not go where it should: there is no such thing, or we may not use it. Where each event has its own,
    /// others may have theirs.
    pub(super) fn nowhere(self: &Arc<Self>, what: String) -> PublishError {
        if self.fixed {
            self.refused(what.clone());
        }
        self.look.notify_one();
        match self.fixed {
            true => PublishError::Refused(what),
            false => PublishError::Unroutable(what),
        }
    }

    /// A message went where it should, or could have.
    pub(super) fn found(&self) {
        let mut known = self.known();
        known.taken = Some(clock::instant());
        if known.placeless.is_some() || known.refused.is_some() {
            drop(known);
            self.change(|known| (known.placeless, known.refused) = (None, None));
        }
    }

    /// Looks for a place for messages, for ever: when there is a connection, when a message found none, and now and then.
    pub(super) async fn keep_looking<F: Future<Output = Lookup>>(&self, look: impl Fn(String) -> F) {
        loop {
            if self.known().connected {
                let began = clock::instant();
                self.look_at_all(&look).await;
                // Where there are many names, they are not all that the broker has to answer.
                tokio::time::sleep(LOOK_AGAIN.max(began.elapsed() * 4)).await;
                if self.known().placeless.is_some() {
                    continue;
                }
            }
            let _ = tokio::time::timeout(LOOK_EVERY, self.look.notified()).await;
        }
    }

    /// One name that has a place is enough.
    async fn look_at_all<F: Future<Output = Lookup>>(&self, look: &impl Fn(String) -> F) {
        let (mut absent, mut others) = (None, 0);
        for name in self.names().iter() {
            match look(name.clone()).await {
                Lookup::There => return self.has_place(),
                Lookup::Hidden => return self.change(|known| known.placeless = None),
                Lookup::NoAnswer(why) => return self.gave_no_answer(why),
                Lookup::Absent(why) if absent.is_none() => absent = Some(why),
                Lookup::Absent(_) => others += 1,
            }
        }
        match absent {
            Some(why) if others > 0 => {
                self.has_none(format!("{why} (nor is there a place for any of {others} other names)"));
            }
            Some(why) => self.has_none(why),
            None => self.has_place(),
        }
    }

    /// A look found a place. What was refused for want of one will be taken.
    pub(super) fn has_place(&self) {
        let known = self.known();
        if let Some(why) = &known.placeless {
            let was_looked_for = why != NOT_LOOKED;
            drop(known);
            self.change(|known| {
                known.placeless = None;
                if was_looked_for {
                    known.refused = None;
                }
            });
        }
    }

    /// A look found no place: why, and what to do.
    pub(super) fn has_none(&self, why: String) {
        if self.known().placeless.as_ref() != Some(&why) {
            self.change(|known| known.placeless = Some(why));
        }
    }

    /// A place that was there may be there still.
    fn gave_no_answer(&self, why: &str) {
        let not_looked = self.known().placeless.as_deref() == Some(NOT_LOOKED);
        if not_looked && self.known().connected {
            self.has_none(why.to_owned());
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        let (before, _) = known.state();
        change(&mut known);
        let (state, why) = known.state();
        let (was_up, why) = (before == QueueState::Up, why.map(str::to_owned));
        match &why {
            None if !was_up => {
                tracing::info!("the broker takes messages");
                known.logged = None;
            }
            None => {}
            // At the start that is a matter of time.
            Some(why) if !was_up && (why == NO_CONNECTION || why == NOT_LOOKED) => {}
            Some(why) if known.logged.as_ref() != Some(why) => {
                match state {
                    QueueState::Full => tracing::warn!(why, "the broker has no room for messages"),
                    QueueState::Down | QueueState::Up => tracing::warn!(why, "the broker takes no messages"),
                }
                known.logged = Some(why.clone());
            }
            Some(_) => {}
        }
        self.watch.set(state, why.as_deref());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_CONNECTION: &str = "there is no connection";
const NOT_LOOKED: &str = "it is not known yet whether it has a place for messages";
/// How long a broker that does not answer is not asked, but for one message at a time.
const SILENCE: Duration = Duration::from_secs(3);
/// How long one refusal counts for all messages: longer than the spool waits before it tries again.
const REFUSED: Duration = Duration::from_secs(10);
/// Between two looks while there is no place.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Between two looks while there is one.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::observe::admin::Readiness;
    use crate::observe::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn looks_that_the_broker_does_not_allow_do_not_end_a_refusal() {
        let readiness = Arc::<Readiness>::default();
        readiness.set_dedupe(true);
        let watch = Watch { metrics: Metrics::new().unwrap().queue("nats"), readiness: readiness.clone() };
        let standing = Arc::new(BrokerHealth::new(watch, true, ["hooks".to_owned()]));
        let looks = Arc::new(AtomicU32::new(0));
        let (looking, count) = (standing.clone(), looks.clone());
        let looking = TaskTracker::new().spawn(async move {
            let hidden = |_| {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Lookup::Hidden)
            };
            looking.keep_looking(hidden).await;
        });
        let looked = async |times| {
            while looks.load(Ordering::Relaxed) < times {
                tokio::time::sleep(LOOK_AGAIN / 10).await;
            }
        };
        standing.connected();
        looked(1).await;
        assert!(readiness.ready(), "the next publish will tell");
        let began = tokio::time::Instant::now();
        assert!(matches!(standing.nowhere("no stream".to_owned()), PublishError::Refused(_)));
        looked(2).await;
        assert!(!readiness.ready(), "a look that shows nothing ends the refusal");
        while !readiness.ready() {
            tokio::time::sleep(LOOK_AGAIN / 10).await;
        }
        assert!(began.elapsed() >= REFUSED && looks.load(Ordering::Relaxed) > 2);
        looking.abort();
    }
}
