//! The management APIs of the providers: one client each, behind one trait.
//!
//! Keeps true: a client says what its provider has and does what it is told. It decides nothing: `plan` does. No client
//! repeats a create by itself.

mod anduin;
mod atelio;
mod attempts;
mod basiq;
mod call;
mod iof;
mod json;
mod securitize;

use futures_util::future::BoxFuture;

use crate::base::label::{Label, labels};
use crate::config::secret::Secret;
use crate::provider::Provider;
pub(super) use attempts::Attempts;
pub use attempts::Failed;
pub use basiq::{Message, NextPage};
pub use call::{ApiError, Caller};
pub(super) use call::{client, reason};

/// The work of one call.
pub type Answer<'a, T, E = ApiError> = BoxFuture<'a, Result<T, E>>;

/// The management API of one provider, as one source may use it.
pub trait Api: Send + Sync {
    /// The facts about the API that plans depend on.
    fn facts(&self) -> &'static Facts;

    /// Every subscription that it has. An API that lists none is asked for those with the ids `known`.
    fn list<'a>(&'a self, known: &'a [String]) -> Answer<'a, Vec<Registered>>;

    /// The event types that it offers. None: it has no such call.
    fn types(&self) -> Answer<'_, Option<Vec<String>>>;

    /// Creates a subscription by one attempt. `key` is the idempotency key, where the API takes one.
    fn create<'a>(&'a self, declared: &'a Declared, key: &'a str) -> Answer<'a, Registered, Failed>;

    /// Changes a subscription to what is declared.
    fn update<'a>(&'a self, registered: &'a Registered, declared: &'a Declared) -> Answer<'a, Registered>;

    /// Deletes a subscription. One that is gone is deleted.
    fn delete<'a>(&'a self, registered: &'a Registered) -> Answer<'a, ()>;

    /// A subscription's secret, if reading tells it.
    fn secret<'a>(&'a self, registered: &'a Registered) -> Answer<'a, Option<Secret>> {
        let secret = registered.secret.clone();
        Box::pin(async move { Ok(secret) })
    }

    /// Asks the provider to send a test delivery of this type, where [`Facts::sends_tests`].
    fn test<'a>(&'a self, kind: &'a str) -> Answer<'a, ()> {
        let _ = kind;
        Box::pin(async {
            Err(ApiError::Unusable("the provider's API has no call for a test delivery".to_owned()))
        })
    }
}

/// What is true of a provider's API, whatever it has.
#[derive(Debug)]
pub struct Facts {
    /// What a subscription belongs to, such as `domain`. None: it is the account's.
    pub scope: Option<&'static str>,
    /// Whether a subscription has one event type.
    pub one_type_each: bool,
    /// Whether it takes patterns such as `card.*`, and answers with them or with the types that fit.
    pub takes_patterns: bool,
    /// Whether a create may be repeated under its idempotency key.
    pub repeats_creates: bool,
    /// When it tells a subscription's secret.
    pub secret: SecretTold,
    /// Whether it lists its subscriptions.
    pub lists: bool,
    /// Whether it calls the URL of a subscription before it accepts it.
    pub validates_url: bool,
    /// Whether it sends test deliveries on request.
    pub sends_tests: bool,
}

/// When an API tells a subscription's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretTold {
    /// It has none.
    Never,
    /// In every answer.
    Always,
    /// In the answer to a create or an update.
    OnWrite,
    /// Once, in the answer to the create.
    Once,
}

/// A subscription as the config declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The id of the domain or fund.
    pub scope: Option<String>,
    /// Where deliveries go, with the path token.
    pub url: String,
    /// Event types, and patterns where the API takes them.
    pub events: Vec<String>,
    /// The source's name, where a subscription has a name.
    pub name: String,
    /// A text for people, where a subscription has one.
    pub description: String,
}

/// A subscription as the provider has it.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The provider's id for it.
    pub id: String,
    /// The id of the domain or fund.
    pub scope: Option<String>,
    /// Where deliveries go.
    pub url: String,
    /// Event types or patterns.
    pub events: Vec<String>,
    /// Whether it delivers.
    pub state: State,
    /// Its name. None: the provider does not tell it.
    pub name: Option<String>,
    /// Its description. None: the provider does not tell it.
    pub description: Option<String>,
    /// Its secret. None: this answer does not tell it.
    pub secret: Option<Secret>,
    /// How many events it has triggered, where the provider counts them.
    pub nonce: Option<u64>,
}

/// Whether a subscription delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It delivers.
    Active,
    /// The provider has not approved it yet.
    Pending,
    /// It is disabled.
    Disabled,
}

labels! {
    /// The providers that have a client here.
    pub enum Kind {
        /// One subscription for each domain and event type.
        Securitize = "securitize",
        /// The legacy system: one subscription for each fund. The current one publishes no API.
        Anduin = "anduin",
        /// One subscription for each URL.
        Basiq = "basiq",
        /// One subscription for each URL.
        Atelio = "atelio",
        /// One subscription for each URL.
        Iof = "iof",
    }
}

impl Kind {
    /// Of a provider, also of a definition that is like it. None: hookgate knows no API of it.
    pub fn of(provider: &Provider) -> Option<Kind> {
        let code = provider.code?.name;
        Kind::ALL.iter().copied().find(|kind| kind.label() == code)
    }

    /// Whether it tells which events did not arrive, for `reconcile`.
    pub fn can_reconcile(self) -> bool {
        match self {
            // Securitize keeps no payloads. Its nonces tell which events are missing.
            Kind::Securitize | Kind::Basiq | Kind::Iof => true,
            Kind::Anduin | Kind::Atelio => false,
        }
    }

    /// Whether deliveries are signed with a secret that only its API tells.
    pub fn issues_secret(self) -> bool {
        matches!(self, Kind::Basiq | Kind::Atelio | Kind::Iof)
    }
}

/// The secrets and settings of a client, resolved.
pub struct Access {
    /// `api.key`.
    pub key: Option<Secret>,
    /// `api.identity`.
    pub identity: Option<Secret>,
    /// `api.authorization`.
    pub authorization: Option<Secret>,
    /// `api.version`.
    pub version: String,
    /// `api.tenant`.
    pub tenant: Option<String>,
    /// `api.workspace`.
    pub workspace: Option<String>,
    /// The declared domains or funds.
    pub scopes: Vec<String>,
}

/// The client for a provider.
pub fn open(kind: Kind, caller: Caller, access: Access) -> Client {
    match kind {
        Kind::Securitize => Client::Securitize(securitize::Securitize::new(caller, access)),
        Kind::Anduin => Client::Anduin(anduin::Anduin::new(caller, access)),
        Kind::Basiq => Client::Basiq(basiq::Basiq::new(caller, access)),
        Kind::Atelio => Client::Atelio(atelio::Atelio::new(caller, access)),
        Kind::Iof => Client::Iof(iof::Iof::new(caller, access)),
    }
}

/// A client of any provider.
pub enum Client {
    /// See [`Kind`].
    Securitize(securitize::Securitize),
    /// See [`Kind`].
    Anduin(anduin::Anduin),
    /// See [`Kind`].
    Basiq(basiq::Basiq),
    /// See [`Kind`].
    Atelio(atelio::Atelio),
    /// See [`Kind`].
    Iof(iof::Iof),
}

impl Client {
    /// The calls that every provider has.
    pub fn api(&self) -> &dyn Api {
        match self {
            Client::Securitize(api) => api,
            Client::Anduin(api) => api,
            Client::Basiq(api) => api,
            Client::Atelio(api) => api,
            Client::Iof(api) => api,
        }
    }
}
