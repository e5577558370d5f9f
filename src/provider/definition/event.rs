//! Compiles `[providers.NAME.event]` into the rules by which payloads are read.

use super::Compiler;
use crate::config::Located;
use crate::config::definitions::{EntityKeys, TypeKey};
use crate::provider::pointer::{self, Each, PointerError, keep};
use crate::provider::rules::{EntityRule, EventRules, KindRule, Source, Word};
use crate::provider::{Reader, Types};

impl Compiler<'_> {
    /// The rules of the definition's own `event`, or of the definition that it is like. None: that one reads by code.
    pub(super) fn rules(&mut self) -> Option<&'static EventRules> {
        let own = self.definition.event.as_ref();
        let says_more_than_types = own.is_some_and(|event| {
            event.r#type.is_some()
                || !event.id.is_empty()
                || event.time.is_some()
                || event.subject.is_some()
                || event.tenant.is_some()
                || event.status.is_some()
                || !event.related.is_empty()
                || event.each.is_some()
        });
        let Some(of) = own.filter(|_| says_more_than_types) else {
            return self.inherited_reader().and_then(Reader::rules);
        };
        let mut rules = EventRules::default();
        if let Some(path) = &of.each {
            rules.each = self.each(path);
        }
        if let Some(kind) = &of.r#type {
            rules.kind = match kind {
                TypeKey::Joined(texts) => KindRule::Joined(self.sources(&mut rules, texts, "event.type")),
                TypeKey::First(texts) => KindRule::First(self.sources(&mut rules, texts, "event.type")),
            };
        }
        rules.id = self.sources(&mut rules, &of.id, "event.id");
        rules.time = of.time.as_ref().and_then(|text| self.source(&mut rules, text, "event.time"));
        rules.subject =
            of.subject.as_ref().and_then(|entity| self.entity(&mut rules, entity, "event.subject"));
        rules.tenant = of.tenant.as_ref().and_then(|entity| self.entity(&mut rules, entity, "event.tenant"));
        rules.status = of.status.as_ref().map(|status| {
            let mut source =
                |text: &Option<Located<String>>| self.source(&mut rules, text.as_ref()?, "event.status");
            (source(&status.from), source(&status.to))
        });
        for entity in &of.related {
            let rule = self.entity(&mut rules, entity, "event.related");
            rules.related.extend(rule);
        }
        Some(Box::leak(Box::new(rules)))
    }

    fn each(&mut self, path: &Located<String>) -> Option<Each> {
        match pointer::steps(&path.value) {
            Ok(steps) => Some(Each { steps }),
            Err(why) => {
                let allowed =
                    "expected the path of an array such as \"/events\", or \"\" for the body itself";
                let what = match why {
                    PointerError::Start => format!("{allowed}, found {:?}", path.value),
                    why => format!("{:?}: {why}", path.value),
                };
                self.problem(path, "event.each", what);
                None
            }
        }
    }

    fn sources(&mut self, rules: &mut EventRules, texts: &[Located<String>], key: &str) -> Vec<Source> {
        texts.iter().filter_map(|text| self.source(rules, text, key)).collect()
    }

    fn source(&mut self, rules: &mut EventRules, text: &Located<String>, key: &str) -> Option<Source> {
        let pointer = self.pointer(text, key)?;
        Some(rules.source(pointer))
    }

    fn entity(&mut self, rules: &mut EventRules, of: &EntityKeys, key: &str) -> Option<EntityRule> {
        let is_pointer = of.kind.value.starts_with('/') || of.kind.value.contains(':');
        let kind = if is_pointer {
            Word::At(self.source(rules, &of.kind, key)?)
        } else {
            Word::Fixed(keep(&of.kind.value))
        };
        Some(EntityRule { kind, id: self.source(rules, &of.id, key)? })
    }

    /// The definition's table of types.
    pub(super) fn types(&mut self) -> Option<Types> {
        let types = self.definition.event.as_ref()?.types.as_ref()?;
        let mut rows = Vec::new();
        for (from, to) in types {
            let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.');
            if !to.value.contains('.')
                || to.value.starts_with('.')
                || to.value.ends_with('.')
                || !to.value.chars().all(plain)
            {
                let what = format!(
                    "expected a canonical type such as \"invoice.paid\", of a-z 0-9 _ and ., found {:?}",
                    to.value
                );
                self.problem(to, "event.types", what);
            }
            rows.push((keep(&from.value), keep(&to.value)));
        }
        Some(rows.leak())
    }
}
