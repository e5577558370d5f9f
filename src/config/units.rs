//! Durations and sizes as text: `"250ms"`, `"64KiB"`.
//!
//! Keeps true: a printed value reads back as the same value, and a number without a unit is refused.

use std::time::Duration;

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// Digits alone.
    UnitMissing,
    /// Something else entirely.
    NotAQuantity,
    /// A number that does not fit into 64 bits.
    TooLarge,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// Time, in milliseconds.
    Time,
    /// Memory, in bytes.
    Size,
}

/// Reads a duration, such as `90m` or `7d`.
///
/// # Errors
/// If it is no whole number with a unit, or too large.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    Unit::Time.read(text).map(Duration::from_millis)
}

/// A duration in the largest unit that leaves nothing over.
pub fn show_duration(value: Duration) -> String {
    Unit::Time.show(as_milliseconds(value))
}

/// Milliseconds are the config's unit of time.
pub(super) fn as_milliseconds(value: Duration) -> u64 {
    u64::try_from(value.as_millis()).unwrap_or(u64::MAX)
}

impl Unit {
    pub(super) fn read(self, text: &str) -> Result<u64, QuantityError> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(QuantityError::NotAQuantity);
        }
        if unit.is_empty() {
            return Err(QuantityError::UnitMissing);
        }
        let (_, factor) =
            self.names().iter().find(|(name, _)| *name == unit).ok_or(QuantityError::NotAQuantity)?;
        let number: u64 = number.parse().map_err(|_| QuantityError::TooLarge)?;
        number.checked_mul(*factor).ok_or(QuantityError::TooLarge)
    }

    /// The quantity in the largest unit that leaves nothing over.
    pub(super) fn show(self, value: u64) -> String {
        let fits =
            self.names().iter().rev().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
        match fits.or(self.names().first()) {
            Some((unit, factor)) => format!("{}{unit}", value / factor),
            None => value.to_string(),
        }
    }

    /// What to write, with examples.
    pub(super) fn example(self) -> &'static str {
        match self {
            Unit::Time => "a duration such as \"250ms\", \"5s\", \"10m\", \"2h\" or \"7d\"",
            Unit::Size => "a size such as \"64KiB\" or \"1MiB\"",
        }
    }

    /// Each unit with its factor, in ascending order: `show` searches from the end for the largest.
    fn names(self) -> &'static [(&'static str, u64)] {
        match self {
            Unit::Time => &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
            Unit::Size => &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_unit() {
        let seconds = |n| Ok(Duration::from_secs(n));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("5s"), seconds(5));
        assert_eq!(parse_duration("10m"), seconds(600));
        assert_eq!(parse_duration("2h"), seconds(7200));
        assert_eq!(parse_duration("7d"), seconds(604_800));
        let size = |text| Unit::Size.read(text);
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1MiB"), Ok(1_048_576));
        assert_eq!(size("2GiB"), Ok(2_147_483_648));
    }

    #[test]
    fn refuses_everything_else() {
        let size = |text| Unit::Size.read(text);
        assert_eq!(parse_duration("5"), Err(QuantityError::UnitMissing));
        for text in ["", "s", "5 s", " 5s", "-5s", "+5s", "1.5s", "5S", "1m30s", "٣s", "5µs"] {
            assert_eq!(parse_duration(text), Err(QuantityError::NotAQuantity), "{text:?}");
        }
        for text in ["1MB", "1kib", "1 MiB", "1M", "0x10KiB"] {
            assert_eq!(size(text), Err(QuantityError::NotAQuantity), "{text:?}");
        }
        assert_eq!(size("99999999999999999999B"), Err(QuantityError::TooLarge));
        assert_eq!(size("99999999999999GiB"), Err(QuantityError::TooLarge));
    }

    #[test]
    fn prints_what_reads_back() {
        for (unit, texts) in [
            (Unit::Time, ["0ms", "1ms", "1500ms", "5s", "90s", "25h", "7d"].as_slice()),
            (Unit::Size, &["0B", "1B", "1025B", "64KiB", "1MiB", "3GiB"]),
        ] {
            for text in texts {
                assert_eq!(unit.show(unit.read(text).unwrap()), *text);
            }
        }
    }
}
