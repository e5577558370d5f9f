//! What a service's answer to an event means.
//!
//! Keeps true: only a 2xx confirms. A service that is down or overloaded never costs an event: only an answer about the
//! event itself counts as a refusal.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;

/// The meaning of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The service has the event.
    Confirmed,
    /// The service may take the event later: its status. With a pause, it wants no request before that.
    NotNow(u16, Option<Duration>),
    /// The service does not want this event: its status.
    Refused(u16),
}

impl Answer {
    /// Reads the status and the `Retry-After` of an answer that came at `now`.
    pub(super) fn of(status: StatusCode, retry_after: Option<&HeaderValue>, now: Timestamp) -> Answer {
        let code = status.as_u16();
        match code {
            200..=299 => Answer::Confirmed,
            429 | 503 => Answer::NotNow(code, retry_after.and_then(|value| pause(value, now))),
            408 | 425 | 500.. => Answer::NotNow(code, None),
            _ => Answer::Refused(code),
        }
    }
}

/// How long `Retry-After` asks to wait, at most an hour. None: no time, or a text that is neither seconds nor a date.
fn pause(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(LONGEST_PAUSE, Duration::from_secs)
    } else {
        let until = rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(until.duration_since(now)).ok()?
    };
    (!asked.is_zero()).then(|| asked.min(LONGEST_PAUSE))
}

const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, retry_after: &str) -> Answer {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let retry_after = (!retry_after.is_empty()).then(|| HeaderValue::from_str(retry_after).unwrap());
        Answer::of(StatusCode::from_u16(code).unwrap(), retry_after.as_ref(), now)
    }

    #[test]
    fn each_status_has_its_meaning() {
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(of(code, "5"), Answer::Confirmed);
        }
        for code in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(of(code, ""), Answer::NotNow(code, None));
        }
        for code in [300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 410, 413, 422] {
            assert_eq!(of(code, "5"), Answer::Refused(code));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        for (text, seconds) in [
            ("1", Some(1)),
            ("120", Some(120)),
            ("3601", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("Mon, 30 Nov 2026 12:00:30 GMT", Some(30)),
            ("Tue, 01 Dec 2026 12:00:00 GMT", Some(3600)),
            ("Mon, 30 Nov 2026 11:59:00 GMT", None),
            ("0", None),
            ("-5", None),
            ("soon", None),
        ] {
            for code in [429, 503] {
                assert_eq!(of(code, text), Answer::NotNow(code, seconds.map(Duration::from_secs)), "{text}");
            }
        }
        for code in [408, 500, 502] {
            assert_eq!(of(code, "30"), Answer::NotNow(code, None), "only 429 and 503 pause");
        }
    }
}
