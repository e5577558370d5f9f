//! What a provider's API tells about events that never arrived, in one of three forms.
//!
//! Keeps true: only a [`LoggedMessage`] makes a payload that counts as handed over by a provider's API. An API client
//! makes one from an answer that came over TLS, under the configured key.

use std::pin::Pin;

use jiff::Timestamp;

use crate::provider::signature::ProviderApiPayload;

/// What a call will answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LogError>> + Send + 'a>>;

/// How a provider lets a source catch up. Each form is opened for one time: from `since` up to, and without, `until`.
pub enum CatchUp {
    /// It keeps the messages that it sent (Basiq).
    Messages(Box<dyn MessageLog>),
    /// It delivers failed events once more, on request (IOF).
    Retry(Box<dyn FailedEvents>),
    /// It keeps no log, only a counter for each subscription (Securitize).
    Nonces(Box<dyn Nonces>),
}

/// Why a source cannot catch up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The config does not say where the provider's API is.
    #[error("the source {0} has no subscription section, which names the provider's API; nothing was done")]
    NoSubscription(String),
    /// There is nothing to ask for.
    #[error("{0} keeps no log of what it sent that its API could be asked for; nothing was done")]
    Unsupported(String),
    /// The provider delivers to no webhook of this source.
    #[error("the provider has no webhook of {0}; run `hookgate subscriptions apply` first; nothing was done")]
    NoWebhook(String),
    /// The API failed, or cannot be asked.
    #[error("{0}; nothing was done")]
    Log(#[from] LogError),
}

/// The messages that a provider sent to the source's webhook.
pub trait MessageLog: Send + Sync {
    /// The next page, at most a few hundred messages. None: there are no more.
    ///
    /// A page may hold messages whose first attempt is outside the opened time, because the API may filter by another
    /// time, or not at all.
    ///
    /// # Errors
    /// When the page cannot be read, after the client's own attempts.
    fn next_page(&mut self) -> Answer<'_, Option<Vec<LoggedMessage>>>;

    /// When the provider first tried to deliver the message with this id. None: it has not tried yet, or no longer has
    /// the message.
    ///
    /// # Errors
    /// When the message cannot be read.
    fn first_attempt<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Timestamp>>;
}

/// The events that a provider failed to deliver.
pub trait FailedEvents: Send + Sync {
    /// The next page of events that have the status `failed` and belong to the opened time. None: there are no more.
    ///
    /// # Errors
    /// When the page cannot be read.
    fn next_page(&mut self) -> Answer<'_, Option<Vec<FailedEvent>>>;

    /// Asks the provider to deliver an event again.
    ///
    /// # Errors
    /// When the provider did not say that it will.
    fn retry<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
}

/// The counters of the source's subscriptions.
pub trait Nonces: Send + Sync {
    /// Every subscription of the source.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&mut self) -> Answer<'_, Vec<SubscriptionNonce>>;
}

/// A message out of a provider's log.
#[derive(Debug)]
pub struct LoggedMessage {
    /// The message's id, for [`MessageLog::first_attempt`].
    pub id: String,
    /// Its payload.
    pub payload: ProviderApiPayload,
}

impl LoggedMessage {
    /// A message as the API wrote it. `payload` is the delivery's body: the JSON text of its object.
    pub fn new(id: String, payload: String) -> LoggedMessage {
        LoggedMessage { id, payload: ProviderApiPayload::out_of_a_log(payload.into_bytes()) }
    }
}

/// An event that a provider failed to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedEvent {
    /// The provider's id of the event.
    pub id: String,
    /// The provider's type, if the API tells it.
    pub kind: Option<String>,
}

/// The counter of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionNonce {
    /// The subscription's id.
    pub subscription: String,
    /// The provider's type of its events.
    pub kind: String,
    /// The nonce of the last event that the provider sent; 0 if there was none.
    pub nonce: u64,
}

/// Why a provider's API did not answer, in words for the operator. It holds no key and no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LogError(pub String);
