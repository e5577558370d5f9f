//! Goes through what a provider's API tells about a time, and admits what never arrived.
//!
//! Keeps true: memory is bounded by a page of the API. What is done stays done when a later step fails, and a repeat does
//! only the rest.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{AdmitError, Admitter};
use crate::base::clock::{self, Clock};
use crate::base::label::Label;
use crate::observe::metrics::ReconcileOutcome;
use crate::request::pipeline::{Admission, AdmissionOutcome};
use crate::subscriptions::catch_up::{
    CatchUp, FailedEvents, LogError, LoggedMessage, MessageLog, Nonces, SubscriptionNonce,
};

/// One run for one source.
pub struct CatchingUp<'a> {
    /// Takes what never arrived.
    pub admitter: &'a Admitter,
    /// The source's name.
    pub source: &'a str,
    /// From when on events count, by their first attempt.
    pub since: Timestamp,
    /// Up to when, exclusive.
    pub until: Timestamp,
    /// `dedupe.window`.
    pub window: Duration,
    /// The clock.
    pub clock: &'a Clock,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Gives the canonical type of a provider's type.
    pub canonical: &'a (dyn Fn(&str) -> String + Sync),
    /// Gets every event that was looked at.
    pub each: &'a mut (dyn FnMut(Line) + Send + Sync),
    /// The counts so far.
    pub summary: Summary,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The event's id, else the provider's id of the message.
    pub id: String,
    /// The canonical type, if it is known.
    pub kind: Option<String>,
    /// What became of it.
    pub outcome: ReconcileOutcome,
    /// Why it failed.
    pub why: Option<String>,
}

/// Events by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary([u64; ReconcileOutcome::ALL.len()]);

impl Summary {
    /// How many had this outcome.
    pub fn of(&self, outcome: ReconcileOutcome) -> u64 {
        self.0[outcome.index()]
    }

    /// Each outcome and its count.
    pub fn counts(&self) -> impl Iterator<Item = (ReconcileOutcome, u64)> {
        ReconcileOutcome::ALL.iter().map(|outcome| (*outcome, self.of(*outcome)))
    }
}

/// Why a run ended early. What was done stays done.
#[derive(Debug, thiserror::Error)]
pub enum CatchingUpError {
    /// The provider's API failed.
    #[error("the provider's API: {0}")]
    Log(#[from] LogError),
    /// The gateway or its database failed.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// No gateway would take what the provider delivers.
    #[error(
        "no gateway runs with this data_dir, so what the provider delivers again could not arrive; nothing was retried"
    )]
    NoGateway,
}

impl CatchingUp<'_> {
    /// Goes through everything.
    ///
    /// # Errors
    /// When the API or the gateway fails.
    pub async fn run(&mut self, log: CatchUp) -> Result<(), CatchingUpError> {
        match log {
            CatchUp::Messages(mut log) => self.messages(&mut *log).await,
            CatchUp::Retry(mut events) => self.retry(&mut *events).await,
            CatchUp::Nonces(mut nonces) => self.nonces(&mut *nonces).await,
        }
    }

    async fn messages(&mut self, log: &mut dyn MessageLog) -> Result<(), CatchingUpError> {
        while let Some(page) = log.next_page().await? {
            let mut page = page.into_iter().peekable();
            while page.peek().is_some() {
                self.message_group(&*log, page.by_ref().take(ADMITTED_AT_ONCE).collect()).await?;
            }
        }
        Ok(())
    }

    /// A list tells no times. So only messages that never arrived are looked at singly.
    async fn message_group(
        &mut self,
        log: &dyn MessageLog,
        group: Vec<LoggedMessage>,
    ) -> Result<(), CatchingUpError> {
        let (ids, payloads): (Vec<_>, Vec<_>) =
            group.into_iter().map(|LoggedMessage { id, payload }| (id, payload)).unzip();
        let looks = self.admitter.admit(self.source, &payloads, true).await?;
        let mut unknown = Vec::new();
        let mut counted = Summary::default();
        for ((id, payload), look) in ids.into_iter().zip(payloads).zip(looks) {
            match look.outcome {
                AdmissionOutcome::Duplicate => {
                    counted.add(self.line(id, look, ReconcileOutcome::Duplicate, None))
                }
                _ => unknown.push((id, payload, look)),
            }
        }
        let mut missing = Vec::new();
        for some in chunks(unknown, LOOKED_AT_ONCE) {
            let attempts = join_all(some.iter().map(|(id, ..)| log.first_attempt(id))).await;
            for ((id, payload, look), first) in some.into_iter().zip(attempts) {
                match first {
                    Err(why) => {
                        counted.add(self.line(id, look, ReconcileOutcome::Failed, Some(why.to_string())));
                    }
                    Ok(Some(at)) if !(self.since..self.until).contains(&at) => {}
                    Ok(Some(at)) if at < remembered_since(self.clock.now(), self.window, 1) => {
                        let why =
                            "dedupe.window has passed meanwhile, so whether it arrived is no longer known";
                        let why = Some(why.to_owned());
                        counted.add(self.line(id, look, ReconcileOutcome::Failed, why));
                    }
                    Ok(Some(at)) => {
                        missing.push((at, id, payload, look));
                    }
                    Ok(None) => {}
                }
            }
        }
        missing.sort_by_key(|(at, ..)| *at);
        if self.dry_run {
            for (_, id, _, look) in missing {
                let (outcome, why) = told(&look.outcome);
                self.line(id, look, outcome, why);
            }
            return Ok(());
        }
        let (ids, payloads): (Vec<_>, Vec<_>) =
            missing.into_iter().map(|(_, id, payload, _)| (id, payload)).unzip();
        // The gateway counts these itself.
        for (id, admission) in ids.into_iter().zip(self.admitter.admit(self.source, &payloads, false).await?)
        {
            let (outcome, why) = told(&admission.outcome);
            self.line(id, admission, outcome, why);
        }
        self.count(counted).await
    }

    async fn retry(&mut self, events: &mut dyn FailedEvents) -> Result<(), CatchingUpError> {
        if !self.dry_run && !self.admitter.gateway_runs() {
            return Err(CatchingUpError::NoGateway);
        }
        while let Some(page) = events.next_page().await? {
            let mut counted = Summary::default();
            for event in page {
                // A second retry is left to the next time that is looked at.
                if self.admitter.was_retried(self.source, &event.id, self.since).await? {
                    continue;
                }
                let (outcome, why) = match self.dry_run {
                    true => (ReconcileOutcome::Missing, None),
                    false => match events.retry(&event.id).await {
                        Ok(()) => {
                            self.admitter.retried(self.source, &event.id, self.since).await?;
                            (ReconcileOutcome::Retried, None)
                        }
                        Err(why) => (ReconcileOutcome::Failed, Some(why.to_string())),
                    },
                };
                let kind = event.kind.map(|kind| (self.canonical)(&kind));
                counted.add(self.tell(Line { id: event.id, kind, outcome, why }));
            }
            self.count(counted).await?;
        }
        Ok(())
    }

    async fn nonces(&mut self, nonces: &mut dyn Nonces) -> Result<(), CatchingUpError> {
        let subscriptions = nonces.read().await?;
        let read = clock::instant();
        for SubscriptionNonce { subscription, kind, nonce } in subscriptions {
            let missing = match self.highest(&subscription, nonce, read).await? {
                Some(highest) => highest.saturating_add(1)..=nonce,
                // What came before the source was set up is not missing.
                None => nonce.saturating_add(1)..=nonce,
            };
            let kind = (self.canonical)(&kind);
            let mut counted = Summary::default();
            let unnamed =
                missing.end().saturating_add(1).saturating_sub(*missing.start()).saturating_sub(NAMED);
            for number in missing.take(NAMED as usize) {
                let id = format!("{subscription}#{number}");
                let line =
                    Line { id, kind: Some(kind.clone()), outcome: ReconcileOutcome::Missing, why: None };
                counted.add(self.tell(line));
            }
            // A counter that jumped must not keep this busy for ever.
            counted.add_many(ReconcileOutcome::Missing, unnamed);
            self.summary.add_many(ReconcileOutcome::Missing, unnamed);
            if !self.dry_run {
                self.admitter.note(self.source, &subscription, nonce).await?;
            }
            self.count(counted).await?;
        }
        Ok(())
    }

    /// The highest number that was seen. If that is below `nonce`, which was `read` then, waits a moment for deliveries on
    /// their way.
    async fn highest(
        &self,
        subscription: &str,
        nonce: u64,
        read: Instant,
    ) -> Result<Option<u64>, AdmitError> {
        loop {
            let highest = self.admitter.highest(self.source, subscription).await?;
            let waited = clock::instant().saturating_duration_since(read);
            if highest.is_none_or(|highest| highest >= nonce)
                || !self.admitter.gateway_runs()
                || waited > ON_THEIR_WAY
            {
                return Ok(highest);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn line(
        &mut self,
        message: String,
        of: Admission,
        outcome: ReconcileOutcome,
        why: Option<String>,
    ) -> ReconcileOutcome {
        self.tell(Line { id: of.id.unwrap_or(message), kind: of.kind, outcome, why })
    }

    fn tell(&mut self, line: Line) -> ReconcileOutcome {
        let outcome = line.outcome;
        self.summary.add(outcome);
        (self.each)(line);
        outcome
    }

    async fn count(&self, counted: Summary) -> Result<(), CatchingUpError> {
        for (outcome, events) in counted.counts().filter(|_| !self.dry_run) {
            self.admitter.count(self.source, outcome, events).await?;
        }
        Ok(())
    }
}

impl Summary {
    fn add(&mut self, outcome: ReconcileOutcome) {
        self.add_many(outcome, 1);
    }

    fn add_many(&mut self, outcome: ReconcileOutcome, events: u64) {
        self.0[outcome.index()] += events;
    }
}

fn told(outcome: &AdmissionOutcome) -> (ReconcileOutcome, Option<String>) {
    let why = match outcome {
        AdmissionOutcome::Failed { why } => Some(why.clone()),
        AdmissionOutcome::Accepted | AdmissionOutcome::Duplicate | AdmissionOutcome::Missing => None,
    };
    (outcome.label(), why)
}

fn chunks<T>(all: Vec<T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    let mut all = all.into_iter();
    std::iter::from_fn(move || {
        Some(all.by_ref().take(size).collect::<Vec<_>>()).filter(|some| !some.is_empty())
    })
}

/// From when on the dedupe store remembers what arrived, for as long as a run takes.
pub fn earliest(now: Timestamp, window: Duration) -> Timestamp {
    remembered_since(now, window, 2)
}

/// The window's start, and some margins after it: an identity that is forgotten during a run would enter twice.
fn remembered_since(now: Timestamp, window: Duration, margins: u32) -> Timestamp {
    let margin = MARGIN.min(window / 20);
    now.checked_sub(window.saturating_sub(margin * margins)).unwrap_or(Timestamp::MIN)
}

const MARGIN: Duration = Duration::from_secs(30);
/// Messages that are handed over together.
const ADMITTED_AT_ONCE: usize = 64;
/// Calls to the API at the same time.
const LOOKED_AT_ONCE: usize = 8;
/// Missing numbers of a subscription that are named; all are counted.
const NAMED: u64 = 100_000;
/// A delivery takes less.
const ON_THEIR_WAY: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);
