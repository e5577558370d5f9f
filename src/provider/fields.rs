//! The fields that a provider's payloads are known to have, over all of its event types.
//!
//! Keeps true: finding a known field does not allocate. Fields are checked at the top level, and one level below where
//! the provider nests its data. Free-form objects (Anduin's metadata) and deeper levels are not checked.

use std::ops::ControlFlow;

use super::Object;

/// Names of fields; each list is sorted.
#[derive(Debug)]
pub struct Fields {
    /// At the top level.
    pub top: &'static [&'static str],
    /// In the objects of these names at the top level.
    pub within: &'static [(&'static str, &'static [&'static str])],
}

impl Fields {
    /// Calls `visit` with each field that is not listed and the object that holds it (none at the top), until it
    /// breaks.
    pub fn for_each_unknown(
        &self,
        payload: &Object<'_>,
        mut visit: impl FnMut(Option<&'static str>, &str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for (name, value) in payload.members() {
            if self.top.binary_search(&&**name).is_err() {
                visit(None, name)?;
                continue;
            }
            let Some((outer, known)) = self.within.iter().find(|(outer, _)| outer == name) else { continue };
            let Some(object) = value.object() else { continue };
            for (name, _) in object.members() {
                if known.binary_search(&&**name).is_err() {
                    visit(Some(outer), name)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::catalog;

    #[test]
    fn every_list_is_sorted_and_every_nested_object_is_a_known_field() {
        for provider in catalog::with_coded_payloads() {
            let Fields { top, within } = provider.reader.code().unwrap().fields;
            for list in within.iter().map(|(_, list)| list).chain([top]) {
                assert!(list.is_sorted_by(|a, b| a < b), "{}: {list:?}", provider.name);
            }
            assert!(within.iter().all(|(outer, _)| top.contains(outer)), "{}", provider.name);
        }
    }

    #[test]
    fn each_unlisted_field_is_visited_with_its_object_until_the_visitor_breaks() {
        let fields = Fields { top: &["a", "b", "c"], within: &[("b", &["x"])] };
        let payload = br#"{"a":{"new":1},"b":{"x":{"deep":1},"y":1},"c":1,"d":{"x":1},"b2":1}"#;
        let payload = Object::parse(payload).unwrap();
        let unknown = |most: usize| {
            let mut told = Vec::new();
            let _ = fields.for_each_unknown(&payload, |outer, name| {
                told.push((outer, name.to_owned()));
                if told.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            told
        };
        let all = [(Some("b"), "y".to_owned()), (None, "d".to_owned()), (None, "b2".to_owned())];
        assert_eq!(unknown(9), all);
        assert_eq!(unknown(2), all[..2]);
    }
}
