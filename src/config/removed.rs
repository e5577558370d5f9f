//! Keys that earlier versions took.
//!
//! Keeps true: each is refused with what to use instead.

/// The full name of each key, and what to use instead.
const REMOVED: [(&str, &str); 1] = [(
    "audit.ship",
    "to have the reject log elsewhere too, let rsyslog, Vector or Fluent Bit read data_dir/audit/*.jsonl; deploy/reject-log has \
     a config for each",
)];

/// What to use instead of the key with this full name, if it was removed.
pub(super) fn instead(key: &str) -> Option<&'static str> {
    REMOVED.iter().find_map(|(removed, instead)| (*removed == key).then_some(*instead))
}
