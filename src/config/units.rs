//! Durations and sizes as text: `"250ms"`, `"64KiB"`.
//!
//! Keeps true: what is printed reads back as the same value, and no number is taken without a unit.

use std::time::Duration;

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Digits alone.
    UnitMissing,
    /// Something else entirely.
    NotAQuantity,
    /// More than 64 bits hold.
    TooLarge,
}

/// Reads a duration, such as `90m` or `7d`.
///
/// # Errors
/// When it is no whole number with a unit, or too large.
pub fn duration(text: &str) -> Result<Duration, Malformed> {
    quantity(text, MILLISECONDS).map(Duration::from_millis)
}

/// Reads a size in bytes.
pub(super) fn size(text: &str) -> Result<u64, Malformed> {
    quantity(text, BYTES)
}

/// A duration in the largest unit that leaves nothing over.
pub(super) fn show_duration(value: Duration) -> String {
    show(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), MILLISECONDS)
}

/// A size in the largest unit that leaves nothing over.
pub(super) fn show_size(value: u64) -> String {
    show(value, BYTES)
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, Malformed> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(Malformed::NotAQuantity);
    }
    if unit.is_empty() {
        return Err(Malformed::UnitMissing);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(Malformed::NotAQuantity)?;
    let number: u64 = number.parse().map_err(|_| Malformed::TooLarge)?;
    number.checked_mul(*factor).ok_or(Malformed::TooLarge)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    match fits.or(units.first()) {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => value.to_string(),
    }
}

// Ascending, so that the reverse finds the largest.
const MILLISECONDS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTES: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_unit() {
        let seconds = |n| Ok(Duration::from_secs(n));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5s"), seconds(5));
        assert_eq!(duration("10m"), seconds(600));
        assert_eq!(duration("2h"), seconds(7200));
        assert_eq!(duration("7d"), seconds(604_800));
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1MiB"), Ok(1_048_576));
        assert_eq!(size("2GiB"), Ok(2_147_483_648));
    }

    #[test]
    fn refuses_everything_else() {
        assert_eq!(duration("5"), Err(Malformed::UnitMissing));
        for text in ["", "s", "5 s", " 5s", "-5s", "+5s", "1.5s", "5S", "1m30s", "٣s", "5µs"] {
            assert_eq!(duration(text), Err(Malformed::NotAQuantity), "{text:?}");
        }
        for text in ["1MB", "1kib", "1 MiB", "1M", "0x10KiB"] {
            assert_eq!(size(text), Err(Malformed::NotAQuantity), "{text:?}");
        }
        assert_eq!(size("99999999999999999999B"), Err(Malformed::TooLarge));
        assert_eq!(size("99999999999999GiB"), Err(Malformed::TooLarge));
    }

    #[test]
    fn prints_what_reads_back() {
        for text in ["0ms", "1ms", "1500ms", "5s", "90s", "25h", "7d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "1025B", "64KiB", "1MiB", "3GiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }
}
