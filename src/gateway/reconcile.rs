//! Admits what a provider's API handed over, wherever the stores are open: in the running gateway, or else in this
//! process.
//!
//! Keeps true: the process that has the stores open does the work, so every kind of queue works, and dedupe holds. A
//! command waits a bounded time for a gateway, and cancels its orders when it ends.

pub mod catching_up;
mod orders;
mod periodic;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::offline::{OfflineError, OfflineGateway};
use crate::base::clock::{self, Clock};
use crate::config::Config;
use crate::durable::data_dir;
use crate::durable::database::OpenError;
use crate::durable::reconcile::{ReconcileDb, Run};
use crate::observe::metrics::ReconcileOutcome;
use crate::provider::signature::ProviderApiPayload;
use crate::request::pipeline::{Admission, Pipeline};
pub(super) use orders::OrderDesk;
use orders::{Order, Told};
pub(super) use periodic::Periodic;

/// Hands payloads to the process that has the stores open.
pub struct Admitter {
    db: Arc<ReconcileDb>,
    way: Way,
}

/// Where the stores are open.
enum Way {
    /// In another process, which takes orders.
    Orders {
        run: Run,
        /// Whether it has listeners.
        serves: bool,
    },
    /// In this process, a command's.
    Offline(Box<OfflineGateway>),
    /// In this process, the gateway's.
    Own(Arc<Pipeline>),
}

/// Why a payload cannot be handed over, or what is kept of it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The stores cannot be opened.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The database with the orders cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The process that has the stores open takes no orders.
    #[error(
        "data_dir is in use by a process that takes no orders: a gateway of an older version, or one that is stopping"
    )]
    NoOrders,
    /// The gateway did not answer in time.
    #[error("the running gateway gave no answer within {} s; what it admits later is no loss", MAX_WAIT.as_secs())]
    NoAnswer,
    /// The gateway cannot do it.
    #[error("the running gateway: {0}")]
    Told(String),
    /// The gateway answered with something else.
    #[error("the running gateway does not know this order: it is of another version")]
    Strange,
}

impl Admitter {
    /// Finds the running gateway, or else opens the stores.
    ///
    /// # Errors
    /// When no gateway takes orders and the stores cannot be opened.
    pub async fn open(config: &Config, clock: Clock) -> Result<Admitter, AdmitError> {
        let db = Arc::new(ReconcileDb::new(&data_dir::database_file(&config.data_dir)));
        let begun = clock::instant();
        loop {
            match OfflineGateway::open(config, clock.clone()).await {
                Ok(offline) => return Ok(Admitter { db, way: Way::Offline(Box::new(offline)) }),
                Err(OfflineError::Running) => {}
                Err(why) => return Err(why.into()),
            }
            let way = Way::Orders { run: Run::begin(), serves: false };
            let mut admitter = Admitter { db: db.clone(), way };
            match admitter.order::<bool>(Order::Hello, HELLO_WITHIN).await {
                Ok(answer) => {
                    if let Way::Orders { serves, .. } = &mut admitter.way {
                        *serves = answer;
                    }
                    return Ok(admitter);
                }
                // Another command may have had the stores, or a gateway may be starting or stopping.
                Err(_) if clock::instant().saturating_duration_since(begun) < OPEN_WITHIN => {}
                Err(AdmitError::NoAnswer) => return Err(AdmitError::NoOrders),
                Err(why) => return Err(why),
            }
        }
    }

    /// For the gateway itself.
    pub(super) fn own(pipeline: Arc<Pipeline>, db: Arc<ReconcileDb>) -> Admitter {
        Admitter { db, way: Way::Own(pipeline) }
    }

    /// Whether a gateway serves, so that deliveries can arrive.
    pub fn gateway_runs(&self) -> bool {
        match &self.way {
            Way::Orders { serves, .. } => *serves,
            Way::Offline(_) => false,
            Way::Own(_) => true,
        }
    }

    /// Admits payloads of a source, each as a delivery of its own, in this order. Returns what became of each. A dry run
    /// looks only.
    ///
    /// # Errors
    /// When the gateway did not answer for all. It may have admitted some.
    pub async fn admit(
        &self,
        source: &str,
        payloads: &[ProviderApiPayload],
        dry_run: bool,
    ) -> Result<Vec<Admission>, AdmitError> {
        match &self.way {
            Way::Orders { .. } => {
                let order = Order::Admit { source: source.to_owned(), dry_run };
                let orders: Vec<_> = payloads.iter().map(|payload| (&order, payload.body())).collect();
                self.place(&orders, MAX_WAIT).await
            }
            Way::Offline(offline) => Ok(admit_all(&offline.pipeline, source, payloads, dry_run).await),
            Way::Own(pipeline) => Ok(admit_all(pipeline, source, payloads, dry_run).await),
        }
    }

    /// Counts events that were not admitted here. Counts nothing while no gateway runs.
    ///
    /// # Errors
    /// When the gateway did not answer.
    pub async fn count(
        &self,
        source: &str,
        outcome: ReconcileOutcome,
        events: u64,
    ) -> Result<(), AdmitError> {
        if events == 0 {
            return Ok(());
        }
        match &self.way {
            Way::Orders { .. } => {
                let (source, outcome) = (source.to_owned(), outcome.label().to_owned());
                self.order(Order::Count { source, outcome, events }, MAX_WAIT).await
            }
            Way::Offline(_) => Ok(()),
            Way::Own(pipeline) => {
                pipeline.count_reconciled(source, outcome, events);
                Ok(())
            }
        }
    }

    /// The highest sequence number that this source was seen with in a subscription. None: it was never seen. A gateway
    /// first writes what it has in memory.
    ///
    /// # Errors
    /// When the gateway did not answer, or the database cannot be read.
    pub async fn highest(&self, source: &str, subscription: &str) -> Result<Option<u64>, AdmitError> {
        match &self.way {
            Way::Orders { .. } => self.order(Order::WriteSequences, MAX_WAIT).await?,
            Way::Offline(offline) => self.write_sequences(&offline.pipeline).await?,
            Way::Own(pipeline) => self.write_sequences(pipeline).await?,
        }
        let key = (source.to_owned(), subscription.to_owned());
        self.with_db(move |db| db.highest(&key.0, &key.1)).await
    }

    /// Records a sequence number as seen.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn note(&self, source: &str, subscription: &str, number: u64) -> Result<(), AdmitError> {
        let key = (source.to_owned(), subscription.to_owned());
        self.with_db(move |db| db.note_sequence(&key.0, &key.1, number)).await
    }

    /// Whether the provider was asked after `since` to deliver an event again.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn was_retried(&self, source: &str, id: &str, since: Timestamp) -> Result<bool, AdmitError> {
        let key = (source.to_owned(), id.to_owned());
        self.with_db(move |db| db.was_retried(&key.0, &key.1, since.as_microsecond())).await
    }

    /// Records that the provider was asked now to deliver an event again. Forgets what was asked before `since`.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn retried(&self, source: &str, id: &str, since: Timestamp) -> Result<(), AdmitError> {
        let key = (source.to_owned(), id.to_owned());
        let now = Clock::System.now().as_microsecond();
        // Another run may look further back than this one.
        let forget = since.as_microsecond().min(now.saturating_sub(REMEMBERED_MICROS));
        self.with_db(move |db| db.retried(&key.0, &key.1, now, forget)).await
    }

    /// Up to when the source was reconciled without failure. None: never.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_success(&self, source: &str) -> Result<Option<Timestamp>, AdmitError> {
        let source = source.to_owned();
        let last = self.with_db(move |db| db.last_success(&source)).await?;
        Ok(last.and_then(|last| Timestamp::from_microsecond(last).ok()))
    }

    /// Records that a source was reconciled from `since` up to `until` without failure. It counts if it leaves no gap
    /// after the last success.
    ///
    /// # Errors
    /// When the database cannot be written, or the gateway did not answer.
    pub async fn succeeded(
        &self,
        source: &str,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<(), AdmitError> {
        let key = source.to_owned();
        let (since, until) = (since.as_microsecond(), until.as_microsecond());
        let last = self.with_db(move |db| db.succeeded(&key, since, until)).await?;
        match &self.way {
            Way::Orders { .. } => {
                let order = Order::Succeeded { source: source.to_owned(), until: last.unwrap_or(until) };
                self.order(order, MAX_WAIT).await
            }
            Way::Offline(_) => Ok(()),
            Way::Own(pipeline) => {
                pipeline.show_reconciled_until(source, last);
                Ok(())
            }
        }
    }

    /// Ends. Cancels orders that have no answer, or closes the stores.
    pub async fn close(self) {
        match self.way {
            Way::Orders { run, .. } => {
                // Orders that cannot be cancelled end with their time.
                let _ = with(&self.db, move |db| db.cancel(&run)).await;
            }
            Way::Offline(offline) => offline.close().await,
            Way::Own(_) => {}
        }
    }

    async fn write_sequences(&self, pipeline: &Arc<Pipeline>) -> Result<(), AdmitError> {
        let sequences = pipeline.sequences.clone();
        self.with_db(move |db| sequences.write(db)).await
    }

    async fn with_db<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReconcileDb) -> Result<T, OpenError> + Send + 'static,
    ) -> Result<T, AdmitError> {
        with(&self.db, work).await
    }

    async fn order<T: DeserializeOwned>(&self, order: Order, within: Duration) -> Result<T, AdmitError> {
        let mut answers = self.place(&[(&order, &[])], within).await?;
        answers.pop().ok_or(AdmitError::Strange)
    }

    /// Places orders and waits for all answers, which it returns in the order of the orders.
    async fn place<T: DeserializeOwned>(
        &self,
        orders: &[(&Order, &[u8])],
        within: Duration,
    ) -> Result<Vec<T>, AdmitError> {
        let Way::Orders { run, .. } = &self.way else { return Err(AdmitError::Strange) };
        let rows: Vec<(String, &[u8])> = orders
            .iter()
            .map(|(order, payload)| Ok((serde_json::to_string(order)?, *payload)))
            .collect::<Result<_, serde_json::Error>>()
            .map_err(|_| AdmitError::Strange)?;
        let until = Clock::System.now().as_microsecond().saturating_add(within.as_micros() as i64);
        // These calls block this thread for a moment. Only a command makes them.
        let seqs = self.db.place(run, until, &rows)?;
        let mut answers: Vec<Option<T>> = seqs.iter().map(|_| None).collect();
        let begun = clock::instant();
        // An order that was taken just in time has its answer a little later.
        while clock::instant().saturating_duration_since(begun) < within + within / 2 {
            for (seq, answer) in self.db.take_answers(run)? {
                if let Some(place) =
                    seqs.iter().position(|own| *own == seq).and_then(|at| answers.get_mut(at))
                {
                    *place = Some(match serde_json::from_str(&answer) {
                        Ok(Told::Answer(answer)) => answer,
                        Ok(Told::Failed(why)) => return Err(AdmitError::Told(why)),
                        Err(_) => return Err(AdmitError::Strange),
                    });
                }
            }
            if answers.iter().all(Option::is_some) {
                return Ok(answers.into_iter().flatten().collect());
            }
            tokio::time::sleep(POLL).await;
        }
        self.db.cancel(run)?;
        Err(AdmitError::NoAnswer)
    }
}

/// Admits payloads at the same time. They enter in this order, unless the queue is a broker.
async fn admit_all(
    pipeline: &Arc<Pipeline>,
    source: &str,
    payloads: &[ProviderApiPayload],
    dry_run: bool,
) -> Vec<Admission> {
    let all = payloads.iter().map(|payload| pipeline.admit_from_provider(source, payload, dry_run));
    futures_util::future::join_all(all).await
}

async fn with<T: Send + 'static>(
    db: &Arc<ReconcileDb>,
    work: impl FnOnce(&ReconcileDb) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, AdmitError> {
    let db = db.clone();
    match tokio::task::spawn_blocking(move || work(&db)).await {
        Ok(done) => Ok(done?),
        // The runtime ends.
        Err(_) => Err(AdmitError::NoAnswer),
    }
}

/// The longest wait for the answers to orders. A gateway whose queue is down needs `edge.request_timeout` for each group.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The wait for a first answer, which costs a gateway nothing.
const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// How long a process that takes no orders is waited for.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Longer than the time that any run looks back.
const REMEMBERED_MICROS: i64 = 90 * 86_400_000_000;
