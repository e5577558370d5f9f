//! Converts a provider's time to the event's `time`.
//!
//! Keeps true: the result is RFC 3339 in UTC, within the years 0001 to 9999, which every CloudEvents SDK accepts.
//! Fraction digits are never invented or rounded.

use jiff::SignedDuration;
use jiff::civil::DateTime;

use super::attribute::MAX_BYTES;

/// A time as RFC 3339 in UTC, with its own fraction digits. None if it is not strictly RFC 3339 with an offset, or
/// leaves the years 0001 to 9999 in UTC. A leap second becomes the second before it, because most parsers reject it. A
/// fraction longer than an attribute allows is cut.
pub fn utc(time: &str) -> Option<String> {
    let parts = Parts::of(time)?;
    // The offset does not change the fraction, so it is copied as text.
    let local: DateTime = parts.date.parse().ok()?;
    let at = local.checked_sub(parts.offset).ok().filter(|at| at.year() >= 1)?;
    let fraction = &parts.fraction[..parts.fraction.len().min(MAX_FRACTION)];
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{at:.0}{point}{fraction}Z"))
}

/// The parts of an RFC 3339 time.
struct Parts<'a> {
    /// Date and time, to the second.
    date: &'a str,
    /// Digits; may be empty.
    fraction: &'a str,
    /// Ahead of UTC.
    offset: SignedDuration,
}

impl<'a> Parts<'a> {
    fn of(time: &'a str) -> Option<Parts<'a>> {
        let (date, rest) = time.split_at_checked("2026-11-21T10:00:00".len())?;
        let shaped = date.bytes().zip("0000-00-00T00:00:00".bytes()).all(|(found, shape)| match shape {
            b'0' => found.is_ascii_digit(),
            b'T' => found.eq_ignore_ascii_case(&b'T'),
            other => found == other,
        });
        let at = rest.find(['Z', 'z', '+', '-'])?;
        let (fraction, offset) = rest.split_at(at);
        let fraction =
            if fraction.is_empty() { "" } else { fraction.strip_prefix('.').filter(|f| !f.is_empty())? };
        let digits = fraction.bytes().all(|b| b.is_ascii_digit());
        (shaped && digits).then_some(Parts { date, fraction, offset: offset_of(offset)? })
    }
}

/// `Z`, or `+hh:mm`.
fn offset_of(text: &str) -> Option<SignedDuration> {
    if text.eq_ignore_ascii_case("z") {
        return Some(SignedDuration::ZERO);
    }
    let number = |digits: &str, limit: i64| {
        let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|number: &i64| plain && *number < limit)
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let seconds = number(hours, 24)? * 3600 + number(minutes, 60)? * 60;
    Some(SignedDuration::from_secs(if text.starts_with('-') { -seconds } else { seconds }))
}

const MAX_FRACTION: usize = MAX_BYTES - "2026-11-21T10:00:00.Z".len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_the_digits_that_came() {
        for (sent, utc_time) in [
            ("2024-10-20T07:52:28.696629792Z", Some("2024-10-20T07:52:28.696629792Z")),
            ("2021-10-20T10:27:20.154286+00:00", Some("2021-10-20T10:27:20.154286Z")),
            ("2021-10-20T23:27:20.10-02:30", Some("2021-10-21T01:57:20.10Z")),
            ("2026-10-21t08:14:37z", Some("2026-10-21T08:14:37Z")),
            ("2021-02-02-00:50:58.484840+00:00", None),
            ("2022-06-24T18:36:30.416759", None),
            ("2022-06-24", None),
            ("2022-13-24T18:36:30Z", None),
            ("2022-06-24T18:36:30.Z", None),
            ("2022-06-24T18:36:30.1x2Z", None),
            ("2022-06-24T18:36:30+0000", None),
            ("2022-06-24T18:36:30+24:00", None),
            ("2022-06-24T18:36:30+23:59", Some("2022-06-23T18:37:30Z")),
            ("2022-06-24T18:36:30++1:00", None),
            ("2022-06-24T18:36:30+1:000", None),
            ("2022-06-24T18:36:30é", None),
            ("", None),
            ("yesterday, about half past", None),
        ] {
            assert_eq!(utc(sent).as_deref(), utc_time, "{sent}");
        }
    }

    #[test]
    fn a_time_is_within_the_years_that_every_parser_takes() {
        for (sent, utc_time) in [
            ("0000-01-01T00:00:00Z", None),
            ("0000-12-31T23:30:00-01:00", Some("0001-01-01T00:30:00Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
            ("0001-01-01T00:59:59.9+01:00", None),
            ("0001-01-01T01:00:00+01:00", Some("0001-01-01T00:00:00Z")),
            ("9999-12-31T23:59:59.999999999Z", Some("9999-12-31T23:59:59.999999999Z")),
            ("9999-12-31T22:59:59-01:00", Some("9999-12-31T23:59:59Z")),
            ("9999-12-31T23:00:00-01:00", None),
            ("-001-01-01T00:00:00Z", None),
            ("10000-01-01T00:00:00Z", None),
        ] {
            assert_eq!(utc(sent).as_deref(), utc_time, "{sent}");
        }
    }

    #[test]
    fn a_leap_second_is_the_second_before_it_and_no_day_has_25_hours() {
        assert_eq!(utc("2016-12-31T23:59:60Z").as_deref(), Some("2016-12-31T23:59:59Z"));
        assert_eq!(utc("2016-12-31T15:59:60.5-08:00").as_deref(), Some("2016-12-31T23:59:59.5Z"));
        for sent in
            ["2016-12-31T24:00:00Z", "2016-12-31T23:60:00Z", "2016-12-31T23:59:61Z", "2023-02-29T00:00:00Z"]
        {
            assert_eq!(utc(sent), None, "{sent}");
        }
    }

    #[test]
    fn a_fraction_without_end_is_cut() {
        let time = utc(&format!("2024-10-20T07:52:28.{}Z", "1234567890".repeat(10_000))).unwrap();
        assert!(
            time.len() == MAX_BYTES
                && time.starts_with("2024-10-20T07:52:28.1234567890123")
                && time.ends_with('Z')
        );
    }
}
