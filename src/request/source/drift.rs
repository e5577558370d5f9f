//! Schema drift: fields and event types that a source sends but its provider's table does not list.
//!
//! Keeps true: each name is logged and counted once per source and process, and never with its value. The number of
//! remembered names is bounded. A delivery with only known names takes no lock.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::Source;
use crate::config::secret::Redactor;
use crate::provider::Object;

/// The names noticed so far.
#[derive(Default)]
pub(super) struct Drift {
    noticed: ArcSwap<Noticed>,
    /// Locked while a name is added.
    adding: Mutex<()>,
}

#[derive(Clone, Default)]
struct Noticed {
    /// By [`Kind`].
    names: [HashSet<String>; 2],
    full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Kind {
    Field,
    Type,
}

/// The result of [`Drift::notice`].
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    Known,
    New,
    /// The first name over the limit.
    Full,
    OverLimit,
}

impl Drift {
    fn notice(&self, kind: Kind, name: &str) -> Notice {
        let known = |noticed: &Noticed| noticed.names[kind as usize].contains(name);
        if known(&self.noticed.load()) {
            return Notice::Known;
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.noticed.load_full();
        if known(&before) {
            return Notice::Known;
        }
        if before.full {
            return Notice::OverLimit;
        }
        let mut noticed = Noticed::clone(&before);
        noticed.full = before.count() >= MAX_NAMES;
        if !noticed.full {
            noticed.names[kind as usize].insert(name.to_owned());
        }
        let notice = if noticed.full { Notice::Full } else { Notice::New };
        self.noticed.store(Arc::new(noticed));
        notice
    }
}

impl Noticed {
    fn count(&self) -> usize {
        self.names.iter().map(HashSet::len).sum()
    }
}

impl Source {
    /// Reports fields of a verified delivery that the provider's table does not list, and its type if `unmapped`.
    pub fn notice_drift(&self, payload: &Object<'_>, unmapped: Option<&str>, redactor: &Redactor) {
        if let Some(kind) = unmapped {
            // Continue even over the limit: the fields may be known.
            let _ = self.drifted(Kind::Type, kind, redactor);
        }
        let Some(code) = self.provider.reader.code() else { return };
        let _ = code.fields.for_each_unknown(payload, |outer, name| {
            let path = outer.map_or(Cow::Borrowed(name), |outer| format!("{outer}.{name}").into());
            self.drifted(Kind::Field, &path, redactor)
        });
    }

    /// Breaks once the limit is reached, so that a body full of new names is not walked to its end.
    fn drifted(&self, kind: Kind, name: &str, redactor: &Redactor) -> ControlFlow<()> {
        match self.memory.drift.notice(kind, clipped(name)) {
            Notice::Known => {}
            Notice::New => {
                self.metrics.drift.inc();
                let (source, provider) = (&*self.name, self.provider.name);
                let kind = if kind == Kind::Field { "field" } else { "type" };
                // Redact before clipping: a secret cut in half would not be recognized.
                let clean = redactor.redact(name);
                let name = if is_plain(name) { clipped(&clean) } else { "(not a plain name)" };
                tracing::warn!(source, provider, kind, %name, "schema drift: the provider's table does not list this name");
            }
            Notice::Full => {
                tracing::warn!(
                    source = &*self.name,
                    provider = self.provider.name,
                    names = MAX_NAMES,
                    "schema drift: the source has sent so many unknown names that further ones are not counted"
                );
                return ControlFlow::Break(());
            }
            Notice::OverLimit => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

/// Whether a name looks like a schema's. Any other text may be personal data in the place of a key.
fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/".contains(c))
}

fn clipped(name: &str) -> &str {
    let end = (0..=MAX_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

/// Bounds the memory of a source whose field names vary without end.
const MAX_NAMES: usize = 256;
/// No provider's field name is longer. The beginning identifies a longer name well enough.
const MAX_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_new_once_and_their_number_is_bounded() {
        let drift = Drift::default();
        let results: Vec<Notice> = (0..100).map(|_| drift.notice(Kind::Field, "extra")).collect();
        assert_eq!(results.iter().filter(|notice| **notice == Notice::New).count(), 1);
        assert_eq!(drift.notice(Kind::Type, "extra"), Notice::New, "a type is no field");
        for n in 2..MAX_NAMES {
            assert_eq!(drift.notice(Kind::Field, &n.to_string()), Notice::New);
        }
        assert_eq!(drift.notice(Kind::Field, "one more"), Notice::Full);
        assert_eq!(drift.notice(Kind::Field, "one more"), Notice::OverLimit);
        assert_eq!(drift.notice(Kind::Field, "extra"), Notice::Known);
        assert_eq!(drift.noticed.load().count(), MAX_NAMES);
    }

    #[test]
    fn a_name_is_clipped_at_a_character_boundary() {
        assert_eq!(clipped("a"), "a");
        assert_eq!(clipped(&"ä".repeat(40)), "ä".repeat(32));
        assert_eq!(clipped(&format!("a{}", "ä".repeat(40))).len(), 63);
    }
}
