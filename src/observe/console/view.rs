//! The facts that the console shows, at one moment.
//!
//! Keeps true: nothing here is of a body, and no secret. Lists are bounded by the limits below, and say how many more
//! there are.

use jiff::Timestamp;

use super::history::Minutes;

/// Everything that the console shows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// When it was taken.
    pub at: Timestamp,
    /// When the gateway started.
    pub started: Timestamp,
    /// The gateway as a whole.
    pub status: Status,
    /// The sources by name, and the requests to none of them.
    pub sources: Rows<Source>,
    /// The latest accepted events, newest first.
    pub flow: Vec<Accepted>,
    /// The refused requests.
    pub rejects: Rejects,
    /// The queue.
    pub queue: Queue,
    /// What waits on disk.
    pub spool: Spool,
    /// The declared subscriptions.
    pub subscriptions: Rows<Subscription>,
    /// How often subscriptions are looked at; none: never.
    pub subscriptions_checked: Option<String>,
    /// The config in force.
    pub config: Config,
}

/// A list that may be cut.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    /// The rows that are shown.
    pub shown: Vec<T>,
    /// How many are not.
    pub more: usize,
}

impl<T> Default for Rows<T> {
    fn default() -> Rows<T> {
        Rows { shown: Vec::new(), more: 0 }
    }
}

impl<T> Rows<T> {
    /// The first `limit` rows.
    pub fn first(rows: impl IntoIterator<Item = T>, limit: usize) -> Rows<T> {
        let mut rows = rows.into_iter();
        let shown: Vec<T> = rows.by_ref().take(limit).collect();
        Rows { shown, more: rows.count() }
    }
}

/// How a part does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It works.
    #[default]
    Good,
    /// It needs a look.
    Warning,
    /// It does not work.
    Bad,
    /// It is not in use.
    Off,
}

/// One part of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its state, as `/readyz` says it.
    pub state: &'static str,
    /// How it does.
    pub health: Health,
    /// Since when it has this state.
    pub since: Timestamp,
    /// Why, and what follows.
    pub detail: Option<String>,
}

/// The gateway as a whole.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether a new event could be made durable.
    pub ready: bool,
    /// Whether it drains before its end.
    pub draining: bool,
    /// The parts behind that.
    pub parts: Vec<Part>,
    /// What an operator should look at besides.
    pub warnings: Vec<String>,
    /// Events accepted in the last minute.
    pub accepted_a_minute: u64,
    /// Requests refused in the last minute.
    pub rejected_a_minute: u64,
    /// Requests between head and answer.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// Version and revision.
    pub version: String,
}

/// One source.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its name; `unknown` for requests to no source.
    pub name: String,
    /// Its provider; none for `unknown`.
    pub provider: Option<String>,
    /// Its path, without a token.
    pub path: String,
    /// When it last had an event accepted, or was first served if it had none.
    pub last: Option<Timestamp>,
    /// Requests of each outcome since the start.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Events by type, most first.
    pub types: Rows<(String, u64)>,
    /// Rejects by reason, most first.
    pub reasons: Vec<(String, u64)>,
    /// Requests that each secret verified, by its place in the list.
    pub slots: Vec<u64>,
    /// Other counts that are not zero, with their words.
    pub notes: Vec<(&'static str, u64)>,
    /// The last hour.
    pub minutes: Minutes,
}

impl Source {
    /// The requests with this outcome.
    pub fn outcome(&self, label: &str) -> u64 {
        self.outcomes.iter().find(|(outcome, _)| *outcome == label).map_or(0, |(_, count)| *count)
    }
}

/// An accepted event, without what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// When it was accepted.
    pub at: Timestamp,
    /// Its source.
    pub source: String,
    /// Its canonical type.
    pub kind: String,
    /// Its id.
    pub id: String,
}

/// The refused requests.
#[derive(Clone, Debug, Default)]
pub struct Rejects {
    /// All since the start, by reason, most first.
    pub reasons: Vec<(String, u64)>,
    /// The newest records, newest first.
    pub records: Vec<Record>,
    /// Why the reject log cannot be read.
    pub unread: Option<String>,
    /// Records written since the start.
    pub written: u64,
    /// Rejects that are summed up in another record.
    pub suppressed: u64,
    /// Records that could not be written.
    pub failed: u64,
    /// Quarantined requests and their bytes; none without a quarantine.
    pub quarantined: Option<(u64, u64)>,
}

/// A record of the reject log.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Its time.
    pub at: String,
    /// Its source.
    pub source: String,
    /// Its reason.
    pub reason: String,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// The client's address.
    pub client: Option<String>,
    /// The request's path, without query and tokens.
    pub path: String,
    /// The other fields by name, in the order of the record.
    pub fields: Vec<(String, String)>,
}

/// The queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Its kind.
    pub kind: &'static str,
    /// Its name, or the file of the embedded one.
    pub name: String,
    /// Where dedupe is.
    pub dedupe: &'static str,
    /// Its state.
    pub part: Part,
    /// Durable writes, and the events in them.
    pub writes: (u64, u64),
    /// The mean time of a durable write in milliseconds.
    pub mean_ms: Option<f64>,
    /// Failed enqueues by kind.
    pub failures: Vec<(String, u64)>,
    /// Redis' streams: name, length, limit.
    pub streams: Rows<(String, u64, u64)>,
    /// Redis' consumer groups, the furthest behind first.
    pub groups: Rows<Group>,
    /// The routes to HTTP services with their requests by outcome.
    pub routes: Rows<(String, Vec<(String, u64)>)>,
    /// The size of the embedded queue's file in bytes.
    pub file_bytes: Option<u64>,
}

/// A consumer group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The stream.
    pub stream: String,
    /// The group.
    pub name: String,
    /// Events that it has not acknowledged.
    pub lag: u64,
    /// The age of the oldest of them in seconds.
    pub oldest: f64,
}

/// What waits on disk.
#[derive(Clone, Debug, Default)]
pub struct Spool {
    /// Its state.
    pub part: Part,
    /// Waiting events.
    pub events: u64,
    /// Bytes, dead letters included.
    pub bytes: u64,
    /// The limit of the bytes.
    pub max_bytes: u64,
    /// The age of the oldest waiting event in seconds.
    pub oldest: f64,
    /// How many dead letters there are.
    pub dead: u64,
    /// The newest of them.
    pub letters: Vec<DeadLetter>,
    /// Why they cannot be read.
    pub unread: Option<String>,
}

/// An event that the queue never took.
#[derive(Clone, Debug, Default)]
pub struct DeadLetter {
    /// Its number.
    pub seq: i64,
    /// When the delivery arrived.
    pub received: Timestamp,
    /// The source.
    pub source: String,
    /// The type.
    pub kind: String,
    /// The id.
    pub id: String,
    /// Why it is dead.
    pub why: String,
}

/// A subscription that a source declares.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    /// The source.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// The declared event types.
    pub events: Vec<String>,
    /// When the provider's side was last looked at.
    pub looked: Option<Timestamp>,
    /// How that is.
    pub health: Health,
    /// The same in words.
    pub state: String,
    /// `every` of `reconcile`, and up to when the last run without failures looked.
    pub reconciled: Option<(String, Option<Timestamp>)>,
}

/// The config in force.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// When it was loaded.
    pub loaded: Option<Timestamp>,
    /// Reloads that were applied, and that were refused.
    pub reloads: (u64, u64),
    /// When the first certificate expires.
    pub certificates_expire: Option<Timestamp>,
    /// As `check --print` has it.
    pub text: String,
}

/// The most sources.
pub const SOURCES: usize = 100;
/// The most types of a source.
pub const TYPES: usize = 8;
/// The most events of the flow, records and dead letters.
pub const LATEST: usize = 25;
/// The most streams, groups, routes and subscriptions, each.
pub const ROWS: usize = 50;
