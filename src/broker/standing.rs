//! How a broker stands: whether it takes messages, and why not.
//!
//! Keeps true: the watch is told at once, in the order in which things happened, and "up" only while there is a connection, the
//! broker holds nothing against it, it answers what is published, and no queue, stream or exchange is known to be missing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::{PublishError, Watch};

/// The state, and whom it is told.
pub(super) struct Standing {
    watch: Watch,
    /// The name that every message goes to, where there is one.
    fixed: Option<String>,
    known: Mutex<Known>,
    /// There may be something to look for.
    look: Notify,
    /// For the one that may try while the broker is silent.
    turn: Semaphore,
    /// What ends a silence; they hold nothing up.
    doubts: TaskTracker,
}

#[derive(Default)]
struct Known {
    connected: bool,
    /// What the broker says while it takes nothing.
    blocked: Option<String>,
    /// Nothing of the fixed name is there, or it was not looked for yet.
    missing: bool,
    /// What was published last was not answered.
    silent: bool,
    /// How often it fell silent.
    silences: u64,
}

impl Known {
    /// Why no messages are taken, if so.
    fn holds_up(&self) -> Option<&str> {
        match self {
            Known { connected: false, .. } => Some("there is no connection"),
            Known { blocked: Some(why), .. } => Some(why),
            Known { missing: true, .. } => Some("what the messages go to is not there"),
            Known { silent: true, .. } => Some("it does not answer what is published"),
            _ => None,
        }
    }
}

impl Standing {
    /// Not connected yet. A name that every message goes to is missing until it is found; where each event has its own, one
    /// that is missing says nothing of the others.
    pub(super) fn new(watch: Watch, fixed: Option<&str>) -> Standing {
        watch.set(false);
        let known = Known { missing: fixed.is_some(), ..Known::default() };
        Standing {
            watch,
            fixed: fixed.map(str::to_owned),
            known: Mutex::new(known),
            look: Notify::new(),
            turn: Semaphore::new(1),
            doubts: TaskTracker::new(),
        }
    }

    /// There is a connection now.
    pub(super) fn connected(&self) {
        self.change(|known| {
            (known.connected, known.blocked, known.silent) = (true, None, false);
        });
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
            Err(PublishError::Unknown) => self.fell_silent(),
            Err(PublishError::Unreachable) => {}
            _ if self.known().silent => self.change(|known| known.silent = false),
            _ => {}
        }
        done
    }

    /// Not for ever: where readiness keeps everybody away, nobody would find out that it answers again.
    fn fell_silent(self: &Arc<Self>) {
        let mut silence = 0;
        self.change(|known| {
            (known.silent, known.silences) = (true, known.silences + 1);
            silence = known.silences;
        });
        let standing = Arc::downgrade(self);
        self.doubts.spawn(async move {
            tokio::time::sleep(SILENCE).await;
            if let Some(standing) = standing.upgrade()
                && standing.known().silences == silence
            {
                standing.change(|known| known.silent = false);
            }
        });
    }

    /// The name that every message goes to, where there is one.
    #[cfg(feature = "kafka")]
    pub(super) fn fixed(&self) -> Option<&str> {
        self.fixed.as_deref()
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

    /// The broker takes nothing for this reason, or takes messages again.
    pub(super) fn blocked(&self, reason: Option<String>) {
        self.change(|known| known.blocked = reason);
    }

    /// Why the broker takes nothing, if it says so.
    pub(super) fn why_blocked(&self) -> Option<String> {
        self.known().blocked.clone()
    }

    /// What every message goes to is not there.
    pub(super) fn missing(&self) {
        self.change(|known| known.missing = self.fixed.is_some());
    }

    /// A message could not go where it should, as there is no such thing. Where each event has its own, others may have
    /// theirs.
    pub(super) fn nowhere(&self, what: String) -> PublishError {
        self.missing();
        match self.fixed {
            Some(_) => PublishError::Refused(what),
            None => PublishError::Unroutable(what),
        }
    }

    /// A message went where it should, or could have.
    pub(super) fn found(&self) {
        if self.known().missing {
            self.change(|known| known.missing = false);
        }
    }

    /// Waits until the fixed name is to be looked for over a connection.
    pub(super) async fn sought(&self) -> &str {
        loop {
            let look = self.look.notified();
            let (connected, missing) = {
                let known = self.known();
                (known.connected, known.missing)
            };
            match &self.fixed {
                Some(name) if connected && missing => return name,
                _ => look.await,
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        let was_up = known.holds_up().is_none();
        change(&mut known);
        let why = known.holds_up();
        match why {
            None if !was_up => tracing::info!("the broker takes messages"),
            Some(why) if was_up => tracing::warn!(why, "the broker takes no messages"),
            _ => {}
        }
        self.watch.set(why.is_none());
        self.look.notify_one();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a broker that does not answer is not asked, but for one message at a time.
const SILENCE: Duration = Duration::from_secs(3);
