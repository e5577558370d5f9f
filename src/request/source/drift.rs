//! Schema drift: fields and event types that a source sends and its provider's table does not know.
//!
//! Keeps true: each is logged and counted once a source and process, by its name and never by its value; how many names are
//! remembered is bounded. A delivery whose names are all known, to the table or from before, takes no lock.

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
    /// Held while one is added.
    adding: Mutex<()>,
}

#[derive(Clone, Default)]
struct Noticed {
    /// By [`Kind`].
    names: [HashSet<String>; 2],
    full: bool,
}

/// What drifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Kind {
    Field,
    Type,
}

/// What came of a name.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    Known,
    New,
    /// The first that there is no room for.
    Full,
    Beyond,
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
            return Notice::Beyond;
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
    /// Looks for what its provider's table does not know in a verified delivery. `unmapped`: its type, where that is unknown.
    pub fn notice_drift(&self, payload: &Object<'_>, unmapped: Option<&str>, redactor: &Redactor) {
        if let Some(kind) = unmapped {
            // Whether there is room for more changes nothing for the fields, which may be known.
            let _ = self.drifted(Kind::Type, kind, redactor);
        }
        let _ = self.provider.fields.unknown(payload, |outer, name| {
            let path = outer.map_or(Cow::Borrowed(name), |outer| format!("{outer}.{name}").into());
            self.drifted(Kind::Field, &path, redactor)
        });
    }

    /// Breaks where nothing more is remembered, so that a body full of new names is not walked to its end.
    fn drifted(&self, kind: Kind, name: &str, redactor: &Redactor) -> ControlFlow<()> {
        match self.memory.drift.notice(kind, clipped(name)) {
            Notice::Known => {}
            Notice::New => {
                self.metrics.drift.inc();
                let (source, provider) = (&*self.name, self.provider.name);
                let kind = if kind == Kind::Field { "field" } else { "type" };
                // Cleaned first: cut first, a part of a secret could stand at the end and not be known for what it is.
                let clean = redactor.clean(name);
                let name = if is_plain(name) { clipped(&clean) } else { "(not a plain name)" };
                tracing::warn!(source, provider, kind, %name, "schema drift: the provider's table does not know this");
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
            Notice::Beyond => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

/// A schema's names are; what is none may be somebody's name or address, standing where one belongs.
fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/".contains(c))
}

fn clipped(name: &str) -> &str {
    let end = (0..=MAX_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

/// A source whose fields are not fixed would fill memory otherwise.
const MAX_NAMES: usize = 256;
/// No provider's field is longer; what is tells itself by its beginning.
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
        assert_eq!(drift.notice(Kind::Field, "one more"), Notice::Beyond);
        assert_eq!(drift.notice(Kind::Field, "extra"), Notice::Known);
        assert_eq!(drift.noticed.load().count(), MAX_NAMES);
    }

    #[test]
    fn a_name_is_clipped_between_two_letters() {
        assert_eq!(clipped("a"), "a");
        assert_eq!(clipped(&"ä".repeat(40)), "ä".repeat(32));
        assert_eq!(clipped(&format!("a{}", "ä".repeat(40))).len(), 63);
    }
}
