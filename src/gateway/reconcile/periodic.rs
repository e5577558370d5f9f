//! Reconciles the sources that have a `reconcile` section, while the gateway runs.
//!
//! Keeps true: a run goes from the last success, less the lookback, and leaves no gap. A failure is logged and tried again
//! at the next time. A reload or a drain ends a run between two steps; the next run does the rest.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catching_up::{CatchingUp, Line, Summary, earliest};
use super::{AdmitError, Admitter};
use crate::config::{self, Config, Source};
use crate::durable::reconcile::ReconcileDb;
use crate::observe::audit::{self, Reject};
use crate::observe::metrics::ReconcileOutcome;
use crate::request::pipeline::Pipeline;
use crate::subscriptions::catch_up::{self, CatchUp};
use crate::subscriptions::provider_log;

/// Runs one task for each source.
pub(in crate::gateway) struct Periodic {
    db: Arc<ReconcileDb>,
    open: Opener,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Periodic {
    /// Starts the tasks on the present runtime.
    pub(in crate::gateway) fn start(
        config: &Config,
        pipeline: &Arc<Pipeline>,
        db: &Arc<ReconcileDb>,
    ) -> Periodic {
        let open: Opener = Arc::new(|config, source, since, until| {
            Box::pin(provider_log::open(config, source, since, until))
        });
        Periodic::with(open, config, pipeline, db)
    }

    fn with(open: Opener, config: &Config, pipeline: &Arc<Pipeline>, db: &Arc<ReconcileDb>) -> Periodic {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut periodic = Periodic { db: db.clone(), open, tasks, stop };
        periodic.restart(config, pipeline);
        periodic
    }

    /// Goes on by a new config.
    pub(in crate::gateway) fn restart(&mut self, config: &Config, pipeline: &Arc<Pipeline>) {
        self.stop.cancel();
        self.stop = CancellationToken::new();
        let config = Arc::new(config.clone());
        for (at, source) in config.sources.iter().enumerate() {
            let Some(reconcile) = &source.reconcile else { continue };
            let scheduled = Scheduled {
                config: config.clone(),
                at,
                name: source.name.value.clone(),
                every: reconcile.every,
                lookback: reconcile.lookback,
                db: self.db.clone(),
                open: self.open.clone(),
                pipeline: Arc::downgrade(pipeline),
            };
            self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(scheduled.run()));
        }
    }

    /// Ends the runs.
    pub(in crate::gateway) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Opens what a source's provider offers.
type Opener = Arc<dyn for<'a> Fn(&'a Config, &'a Source, Timestamp, Timestamp) -> Opening<'a> + Send + Sync>;

type Opening<'a> = Pin<Box<dyn Future<Output = Result<CatchUp, catch_up::OpenError>> + Send + 'a>>;

/// A source and its schedule.
struct Scheduled {
    config: Arc<Config>,
    /// The place of the source in the config.
    at: usize,
    name: String,
    every: Duration,
    lookback: Duration,
    db: Arc<ReconcileDb>,
    open: Opener,
    pipeline: Weak<Pipeline>,
}

impl Scheduled {
    async fn run(self) {
        let mut pause = self.first_pause().await;
        loop {
            tokio::time::sleep(pause).await;
            pause = self.every;
            let Some(pipeline) = self.pipeline.upgrade() else { return };
            let mut summary = Summary::default();
            let done = self.reconcile(pipeline.clone(), &mut summary).await;
            self.report(&pipeline, &summary, done);
        }
    }

    /// The time until the first run. A restart does not make runs more frequent.
    async fn first_pause(&self) -> Duration {
        let Some(pipeline) = self.pipeline.upgrade() else { return self.every };
        let now = pipeline.clock.now();
        let admitter = Admitter::own(pipeline.clone(), self.db.clone());
        let last = admitter.last_success(&self.name).await.unwrap_or_default();
        pipeline.show_reconciled_until(&self.name, last.map(Timestamp::as_microsecond));
        let since = last.and_then(|last| Duration::try_from(now.duration_since(last)).ok());
        since.map_or(Duration::ZERO, |since| self.every.saturating_sub(since))
    }

    async fn reconcile(&self, pipeline: Arc<Pipeline>, summary: &mut Summary) -> Result<(), RunError> {
        let Some(source) = self.config.sources.get(self.at) else { return Ok(()) };
        let now = pipeline.clock.now();
        let canonical = {
            let rules = pipeline.rules.load_full();
            let name = self.name.clone();
            move |kind: &str| {
                let source = rules.routes.sources().find(|source| *source.name == *name);
                source.map_or_else(
                    || kind.to_owned(),
                    |source| source.provider.canonical_type(Some(kind)).into_owned(),
                )
            }
        };
        let clock = pipeline.clock.clone();
        let admitter = Admitter::own(pipeline, self.db.clone());
        // A clock that was set back must not leave the runs without anything to look at.
        let last = admitter.last_success(&self.name).await?.map(|last| last.min(now));
        let wanted = last.unwrap_or(now).checked_sub(self.lookback).unwrap_or(Timestamp::MIN);
        let window = self.config.dedupe.window.value;
        let earliest = earliest(now, window);
        if last.is_some_and(|last| last < earliest) {
            tracing::warn!(
                source = self.name,
                "the last successful reconcile is longer ago than dedupe.window ({}): events before that window are not \
                 looked at",
                config::show_duration(window)
            );
        }
        let since = wanted.max(earliest);
        let log = (self.open)(&self.config, source, since, now).await?;
        let name = &self.name;
        let mut missing = 0;
        let mut each = |line: Line| match line.outcome {
            ReconcileOutcome::Failed => {
                tracing::warn!(
                    source = name,
                    id = line.id,
                    why = line.why.unwrap_or_default(),
                    "an event is not reconciled"
                );
            }
            ReconcileOutcome::Missing if missing < NAMED => {
                missing += 1;
                tracing::warn!(
                    source = name,
                    id = line.id,
                    "an event never arrived, and the provider keeps no log of it"
                );
            }
            _ => {}
        };
        let mut catching_up = CatchingUp {
            admitter: &admitter,
            source: &self.name,
            since,
            until: now,
            window,
            clock: &clock,
            dry_run: false,
            canonical: &canonical,
            each: &mut each,
            summary: Summary::default(),
        };
        let done = catching_up.run(log).await;
        *summary = catching_up.summary;
        done?;
        if summary.of(ReconcileOutcome::Failed) == 0 {
            // What lies between the last success and the window is lost: no later run can look at it either.
            admitter.succeeded(&self.name, last.map_or(since, |last| last.min(since)), now).await?;
        }
        Ok(())
    }

    /// Logs the end of a run, and leaves a record where something was admitted or retried.
    fn report(&self, pipeline: &Pipeline, summary: &Summary, done: Result<(), RunError>) {
        let source = &*self.name;
        let of = |outcome| summary.of(outcome);
        let (accepted, retried) = (of(ReconcileOutcome::Accepted), of(ReconcileOutcome::Retried));
        let (missing, failed) = (of(ReconcileOutcome::Missing), of(ReconcileOutcome::Failed));
        if let Err(why) = done {
            tracing::warn!(source, %why, "reconcile failed; it is tried again");
        }
        if accepted + retried + missing + failed > 0 {
            tracing::info!(source, accepted, retried, missing, failed, "reconciled");
        }
        if accepted + retried > 0 {
            let what = format!("reconcile: {accepted} admitted, {retried} retried, by the gateway");
            pipeline.audit.record(Reject::operator(audit::reject_id(), pipeline.clock.now(), source, what));
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Open(#[from] catch_up::OpenError),
    #[error(transparent)]
    Admit(#[from] AdmitError),
    #[error(transparent)]
    Run(#[from] super::catching_up::CatchingUpError),
}

/// Missing events that one run names in the log.
const NAMED: u32 = 100;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::clock::Clock;
    use crate::durable::inbox::embedded::Reader;
    use crate::gateway::Gateway;
    use crate::subscriptions::catch_up::{Answer, LogError, LoggedMessage, MessageLog};

    /// One page of messages, all of them tried just now.
    struct Log(Option<Vec<LoggedMessage>>, Timestamp);

    impl MessageLog for Log {
        fn next_page(&mut self) -> Answer<'_, Option<Vec<LoggedMessage>>> {
            let page = self.0.take();
            Box::pin(async move { Ok(page) })
        }

        fn first_attempt<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Timestamp>> {
            let at = if id == "broken" { Err(LogError("503".to_owned())) } else { Ok(Some(self.1)) };
            Box::pin(async move { at })
        }
    }

    /// The runs so far: from when they looked, up to when.
    type Runs = Arc<Mutex<Vec<(Timestamp, Timestamp)>>>;

    /// Answers the first run with `a`, the second with a failure of the API, the third with a message that cannot be
    /// looked at, and later ones with `b`.
    fn opener(runs: &Runs) -> Opener {
        let runs = runs.clone();
        Arc::new(move |_, _, since, until| {
            let mut runs = runs.lock().unwrap();
            runs.push((since, until));
            let message = |id: &str, event: &str| {
                LoggedMessage::new(
                    id.to_owned(),
                    format!("{{\"eventTypeId\":\"user.created\",\"eventId\":\"{event}\"}}"),
                )
            };
            let page = match runs.len() {
                1 => Ok(vec![message("m", "a")]),
                2 => Err(LogError("401".to_owned()).into()),
                3 => Ok(vec![message("broken", "c")]),
                _ => Ok(vec![message("m", "a"), message("n", "b")]),
            };
            Box::pin(async move { page.map(|page| CatchUp::Messages(Box::new(Log(Some(page), since)))) })
        })
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "it did not come: {what}");
    }

    #[tokio::test]
    async fn each_run_goes_from_the_last_success_less_the_lookback() {
        let folder = tempfile::tempdir().unwrap();
        let text = "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n\
                    [sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
        let served = config::parse(text, folder.path()).0;
        let text = format!("{text}[sources.basiq.reconcile]\nevery = \"1s\"\nlookback = \"1h\"\n");
        let mut config = config::parse(&text, folder.path()).0;
        let (every, lookback) = (Duration::from_millis(20), Duration::from_secs(3600));
        config.sources[0].reconcile.as_mut().unwrap().every = every;
        let gateway = Gateway::start(served, Clock::System).await.unwrap();
        let (pipeline, runs) = (gateway.pipeline.clone(), Runs::default());
        let before = pipeline.clock.now();
        let periodic = Periodic::with(opener(&runs), &config, &pipeline, gateway.desk.db());
        until("some runs", || runs.lock().unwrap().len() >= 6).await;
        periodic.stop().await;
        let runs = runs.lock().unwrap().clone();
        let (first_since, first) = runs[0];
        assert_eq!(first_since, first - lookback);
        assert!(first >= before);
        for (at, (since, until)) in runs.iter().enumerate().skip(1) {
            // The second and the third failed, so the fourth looks as far back as they did.
            let last = if at < 4 { first } else { runs[at - 1].1 };
            assert_eq!(since.as_microsecond(), (last - lookback).as_microsecond(), "run {at}");
            assert!(*until >= last);
        }
        let db = served_db(folder.path());
        let events = Reader::open(&db).unwrap().after(0, 100).unwrap();
        assert_eq!(events.len(), 2, "{events:?}");
        let last = gateway.desk.db().last_success("basiq").unwrap().unwrap();
        let shown = gateway.pipeline.metrics.render().unwrap().0;
        let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let success = line("hookgate_reconcile_last_success_timestamp_seconds");
        // The end may have come between a run's last two steps.
        let success: f64 = success.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(
            success > first.as_microsecond() as f64 / 1e6 && success <= last as f64 / 1e6,
            "{success} {last}"
        );
        let accepted = "hookgate_reconciled_events_total{outcome=\"accepted\",source=\"basiq\"} 2";
        assert!(shown.contains(accepted), "{shown}");
        // The next start goes on with its schedule.
        let later = Scheduled { every: Duration::from_secs(3600), ..scheduled(&config, &gateway) };
        let pause = later.first_pause().await;
        assert!(pause > Duration::from_secs(3500) && pause <= later.every, "{pause:?}");
        drop(pipeline);
        gateway.drain().await;
        let audit = std::fs::read_dir(folder.path().join("data/audit")).unwrap();
        let log: String =
            audit.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect();
        assert_eq!(log.matches("reconcile: 1 admitted, 0 retried, by the gateway").count(), 2, "{log}");
    }

    fn served_db(folder: &std::path::Path) -> std::path::PathBuf {
        crate::durable::data_dir::database_file(&folder.join("data"))
    }

    fn scheduled(config: &Config, gateway: &Gateway) -> Scheduled {
        Scheduled {
            config: Arc::new(config.clone()),
            at: 0,
            name: "basiq".to_owned(),
            every: Duration::ZERO,
            lookback: Duration::ZERO,
            db: gateway.desk.db().clone(),
            open: opener(&Runs::default()),
            pipeline: Arc::downgrade(&gateway.pipeline),
        }
    }

    #[tokio::test]
    async fn a_last_success_before_the_window_does_not_stop_later_ones() {
        let folder = tempfile::tempdir().unwrap();
        let text = "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\ndedupe.window = \"2d\"\n\
                    [sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
        let config = config::parse(text, folder.path()).0;
        let gateway = Gateway::start(config.clone(), Clock::System).await.unwrap();
        let runs = Runs::default();
        let days = |days: u64| Duration::from_secs(86_400 * days);
        let now = gateway.pipeline.clock.now();
        let long_ago = (now - days(9)).as_microsecond();
        gateway.desk.db().succeeded("basiq", 0, long_ago).unwrap();
        let scheduled = Scheduled { lookback: days(1), open: opener(&runs), ..scheduled(&config, &gateway) };
        scheduled.reconcile(gateway.pipeline.clone(), &mut Summary::default()).await.unwrap();
        let (since, until) = runs.lock().unwrap()[0];
        // A margin keeps what the store forgets during a run out of it.
        assert_eq!(since, until - days(2) + Duration::from_secs(60));
        let last = gateway.desk.db().last_success("basiq").unwrap();
        assert_eq!(last, Some(until.as_microsecond()));
        gateway.drain().await;
    }
}
