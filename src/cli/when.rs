//! Parses an operator's times: a moment, a day, or a duration ago.
//!
//! Keeps true: every command that takes a time parses it here.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::config;

/// A time that may be relative to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Ago(Duration),
}

impl When {
    /// The moment, given the present time. A duration too long ago gives the earliest `Timestamp`.
    pub(super) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            When::At(at) => at,
            When::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        let wrong = || {
            format!(
                "{text:?} is not a time: expected RFC 3339 (2026-11-21T10:00:00Z), a date (2026-11-21) or a duration ago (1h)"
            )
        };
        if let Ok(ago) = config::parse_duration(text) {
            return Ok(When::Ago(ago));
        }
        if let Ok(date) = Date::strptime("%Y-%m-%d", text) {
            // The last days that parse are beyond the latest `Timestamp`.
            let start = date.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |start| start.timestamp());
            return Ok(When::At(start));
        }
        text.parse().map(When::At).map_err(|_| wrong())
    }
}

/// Help text for commands that take times.
pub(super) const WHEN_HELP: &str = "A TIME is RFC 3339 (2026-11-21T10:00:00Z), a date (2026-11-21: the start of that day in \
    UTC, so that --until 2026-11-21 leaves the day out), or a duration ago (90s, 15m, 1h, 7d).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_a_day_in_utc_or_so_long_ago() {
        let now: Timestamp = "2026-11-21T12:30:00Z".parse().unwrap();
        for (text, at) in [
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
            ("2026-11-21T10:00:00.5+01:00", "2026-11-21T09:00:00.5Z"),
            ("2026-11-21t10:00:00z", "2026-11-21T10:00:00Z"),
            ("2026-11-21", "2026-11-21T00:00:00Z"),
            ("1h", "2026-11-21T11:30:00Z"),
            ("90m", "2026-11-21T11:00:00Z"),
            ("7d", "2026-11-14T12:30:00Z"),
            ("0s", "2026-11-21T12:30:00Z"),
        ] {
            assert_eq!(text.parse::<When>().unwrap().at(now), at.parse().unwrap(), "{text}");
        }
        assert_eq!("9999-12-31".parse::<When>().unwrap().at(now), Timestamp::MAX);
        assert_eq!("1000000000d".parse::<When>().unwrap().at(now), Timestamp::MIN);
        let wrong =
            ["yesterday", "", "1", "-1h", "2026-11-31", "2026-11-21T10:00:00", "1 h", "21.11.2026", "1h ago"];
        for wrong in wrong {
            let why = wrong.parse::<When>().unwrap_err();
            assert!(why.contains("a date (2026-11-21)"), "{why}");
        }
    }
}
