//! Every provider that a config knows: the built-in ones, and those that it defines.
//!
//! Keeps true: a definition lives until the process ends. A reload makes only those that it has not made before.

use std::sync::{LazyLock, Mutex, PoisonError};

use super::definition::{compile, compile_built_in};
use super::{Code, Provider, anduin, atelio, basiq, iof, securitize};
use crate::config::definitions::{self, Definition};
use crate::config::{Located, Problem, quote_key};

/// The providers of one config.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    defined: Vec<&'static Provider>,
}

impl Catalog {
    /// Compiles a config's definitions, and adds their mistakes to `problems`.
    pub fn of(definitions: &[Definition], problems: &mut Vec<Problem>) -> Catalog {
        let mut catalog = Catalog::default();
        let mut mistaken: Vec<&str> = Vec::new();
        for (at, definition) in definitions.iter().enumerate() {
            let before = definitions.get(..at).unwrap_or_default();
            if let Some(what) = name_flaw(&definition.name, before) {
                let key = format!("providers.{}", quote_key(&definition.name.value));
                problems.push(Problem { at: definition.name.at, key, what, warning: false });
                continue;
            }
            let like = definition.like.as_ref();
            let of_mistaken = like.is_some_and(|like| mistaken.contains(&&*like.value));
            // The mistakes of the definition that it is like are reported there.
            let made = if of_mistaken { Err(Vec::new()) } else { remembered(definition, &catalog) };
            match made {
                Ok(provider) => catalog.defined.push(provider),
                Err(wrong) => {
                    mistaken.push(&definition.name.value);
                    problems.extend(wrong);
                }
            }
        }
        catalog
    }

    /// The provider of that name.
    pub fn by_name(&self, name: &str) -> Option<&'static Provider> {
        self.iter().find(|provider| provider.name == name)
    }

    /// Every provider: the built-in ones, then those of the config in its order.
    pub fn iter(&self) -> impl Iterator<Item = &'static Provider> + '_ {
        built_ins().chain(self.defined.iter().copied())
    }
}

/// The built-in providers.
pub fn built_ins() -> impl Iterator<Item = &'static Provider> {
    BUILT_IN.iter()
}

/// Those whose payloads code reads.
pub fn with_coded_payloads() -> impl Iterator<Item = &'static Provider> {
    built_ins().filter(|provider| provider.reader.code().is_some())
}

/// The built-in provider of that name.
pub fn built_in(name: &str) -> Option<&'static Provider> {
    built_ins().find(|provider| provider.name == name)
}

/// The definition of a built-in provider as it is kept, with its comments. Code may add to it (`Provider::code`).
pub fn source(name: &str) -> Option<&'static str> {
    DEFINITIONS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What code adds to built-in definitions. A definition that is not listed here says all of its provider.
static CODE: &[&Code] = &[
    &securitize::CODE,
    &anduin::CODE,
    &basiq::CODE,
    &atelio::CODE,
    &iof::CODE,
    &Code { name: "standard-webhooks", standard_webhooks: true, ..Code::NONE },
    &Code { name: "hubspot", decoded_url: true, ..Code::NONE },
];

/// Declares the files of built-in definitions, by the names of their providers.
macro_rules! definitions {
    ($($name:literal)+) => {
        const DEFINITIONS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("definitions/", $name, ".toml")))),+];
    };
}

definitions! {
    "securitize"
    "anduin"
    "basiq"
    "atelio"
    "iof"
    "standard-webhooks"
    "github"
    "gitlab"
    "stripe"
    "shopify"
    "slack"
    "zoom"
    "meta"
    "discord"
    "hubspot"
    "paddle"
    "sendgrid"
    "square"
    "linear"
    "sentry"
    "pagerduty"
    "typeform"
    "calendly"
    "docusign"
    "telegram"
    "microsoft-graph"
}

static BUILT_IN: LazyLock<Vec<Provider>> = LazyLock::new(|| {
    let made = DEFINITIONS.iter().filter_map(|(name, text)| {
        let (definitions, _) = definitions::parse(text);
        // A test compiles every built-in definition, and expects no problem.
        compile_built_in(definitions.first()?, code(name)).ok()
    });
    made.collect()
});

fn code(name: &str) -> Option<&'static Code> {
    CODE.iter().copied().find(|code| code.name == name)
}

/// What was made of a definition before.
struct Made {
    definition: Definition,
    /// The provider that it is like.
    base: Option<&'static Provider>,
    /// A mistaken definition is kept with its positions, since its problems have them.
    positions: String,
    result: Result<&'static Provider, Vec<Problem>>,
}

impl Made {
    fn is_of(&self, definition: &Definition, base: Option<&'static Provider>) -> bool {
        let is_same_base = match (self.base, base) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let is_there = self.result.is_ok() || self.positions == format!("{definition:?}");
        is_same_base && self.definition == *definition && is_there
    }
}

/// The provider of a definition. A definition that was compiled before, over the same base, gives the same result: a
/// reload that is tried again and again makes nothing new.
fn remembered(definition: &Definition, above: &Catalog) -> Result<&'static Provider, Vec<Problem>> {
    static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());
    let base = definition.like.as_ref().and_then(|like| above.by_name(&like.value));
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = made.iter().find(|before| before.is_of(definition, base)) {
        return before.result.clone();
    }
    let result =
        compile(definition, |name| above.by_name(name)).map(|provider| &*Box::leak(Box::new(provider)));
    let (definition, positions) = (definition.clone(), format!("{definition:?}"));
    made.push(Made { definition, base, positions, result: result.clone() });
    result
}

/// Why a definition cannot have its name.
fn name_flaw(name: &Located<String>, before: &[Definition]) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text = &name.value;
    if !(1..=64).contains(&text.len()) || !text.chars().all(allowed) {
        return Some("expected a name of 1 to 64 of A-Z a-z 0-9 . _ -".to_owned());
    }
    if built_in(text).is_some() {
        return Some(format!(
            "{text} is built in; choose another name, and like = {text:?} to start from it"
        ));
    }
    let taken = [crate::base::label::UNKNOWN, crate::base::label::UNMAPPED].contains(&&**text);
    let again = before.iter().any(|other| other.name.value == *text);
    (taken || again).then(|| "this name is taken; choose another".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_definition_compiles() {
        for (name, text) in DEFINITIONS {
            let (definitions, problems) = definitions::parse(text);
            assert_eq!(problems, [], "{name}");
            let [definition] = definitions.as_slice() else { panic!("{name}: one definition a file") };
            assert_eq!(definition.name.value, *name);
            compile_built_in(definition, code(name))
                .unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
            assert!(text.starts_with("# "), "{name}: the pages that it was made from");
        }
    }

    #[test]
    fn code_adds_to_definitions_that_are_built_in_and_no_definition_takes_the_reading_from_it() {
        for code in CODE {
            let provider = built_in(code.name).unwrap_or_else(|| panic!("{}", code.name));
            assert!(provider.code.is_some_and(|own| std::ptr::eq(own, *code)), "{}", code.name);
            assert_eq!(provider.reader.code().is_some(), code.payloads.is_some(), "{}", code.name);
        }
        assert_eq!(built_ins().filter(|provider| provider.code.is_some()).count(), CODE.len());
    }

    #[test]
    fn a_definition_like_a_mistaken_one_adds_no_mistake_and_a_retry_makes_nothing() {
        let text = "[providers.one]\nlike = \"nowhere\"\n[providers.two]\nlike = \"one\"\n";
        let problems = |text: &str| {
            let mut problems = Vec::new();
            Catalog::of(&definitions::parse(text).0, &mut problems);
            problems
        };
        let first = problems(text);
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!(problems(text), first);
        let moved = problems(&format!("# moved\n{text}"));
        assert_eq!(moved[0].at.line, first[0].at.line + 1, "positions are those of the file as it is");
    }

    #[test]
    fn a_reload_makes_no_provider_again() {
        let text = "[providers.acme]\nlike = \"github\"\n[providers.acme2]\nlike = \"acme\"\n";
        let catalog = || {
            let (definitions, problems) = definitions::parse(text);
            assert_eq!(problems, []);
            let mut problems = Vec::new();
            let catalog = Catalog::of(&definitions, &mut problems);
            assert_eq!(problems, []);
            catalog
        };
        let (one, other) = (catalog(), catalog());
        assert_eq!(one.defined.len(), 2);
        assert!(one.defined.iter().zip(&other.defined).all(|(one, other)| std::ptr::eq(*one, *other)));
    }
}
