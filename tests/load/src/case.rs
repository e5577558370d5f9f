//! What is measured: one row a case.

use crate::drive::Load;
use crate::leg::Leg;
use crate::request::Fields;

/// One measurement of every round.
pub(crate) struct Case {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What is started.
    pub(crate) leg: Leg,
    /// What is sent to it.
    pub(crate) load: Load,
    /// What the bodies are like.
    pub(crate) fields: Fields,
    /// The case of the same round that its ratios are taken of.
    pub(crate) compared_with: Option<&'static str>,
}

const fn case(name: &'static str, leg: Leg, load: Load, compared_with: Option<&'static str>) -> Case {
    Case { name, leg, load, fields: Fields::Known, compared_with }
}

pub(crate) const BARE: &str = "bare hyper";
pub(crate) const REDIS: &str = "redis";
pub(crate) const EMBEDDED: &str = "embedded";
pub(crate) const STORED: &str = "embedded, filled";
pub(crate) const UNKNOWN_FIELD: &str = "redis, unknown field";
pub(crate) const DEFINED: &str = "redis, defined provider";
pub(crate) const HTTP2: &str = "redis, HTTP/2";
pub(crate) const BARE_512: &str = "bare hyper, 512";
pub(crate) const REDIS_512: &str = "redis, 512";

/// In the order in which they run.
pub(crate) static CASES: [Case; 9] = [
    case(BARE, Leg::Bare, Load::Closed(64), None),
    case(REDIS, Leg::Redis, Load::Closed(64), Some(BARE)),
    Case { fields: Fields::OneUnknown, ..case(UNKNOWN_FIELD, Leg::Redis, Load::Closed(64), Some(REDIS)) },
    case(DEFINED, Leg::Defined, Load::Closed(64), Some(REDIS)),
    case(HTTP2, Leg::Redis, Load::Streams { connections: 4, streams: 16 }, Some(REDIS)),
    case(EMBEDDED, Leg::Embedded, Load::Closed(64), Some(BARE)),
    case(STORED, Leg::Stored, Load::Closed(64), Some(EMBEDDED)),
    case(BARE_512, Leg::Bare, Load::Closed(512), None),
    case(REDIS_512, Leg::Redis, Load::Closed(512), Some(BARE_512)),
];

/// Whose latency at a fixed rate, memory and allocations are measured.
pub(crate) const IDLE_LEGS: [Leg; 3] = [Leg::Bare, Leg::Redis, Leg::Embedded];
/// Requests a second of the open loops.
pub(crate) const RATES: [u32; 2] = [2_000, 10_000];
