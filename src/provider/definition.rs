//! Compiles a definition (`[providers.NAME]`, or a built-in one) into a provider.
//!
//! Keeps true: a template, a pointer or a table of types is parsed once, here. A mistake is a problem with its position
//! in the file, and a provider with a mistake is not made.

mod event;
mod handshake;
mod signature;

use super::rules::EventRules;
use super::signature::{Scheme, Separator, VerifiedBy};
use super::{Code, Origin, Provider, Reader, Signing};
use crate::config::definitions::{BodyForm, Definition};
use crate::config::{Located, Problem, quote_key};

/// A definition with what it takes from the one that it is like.
pub(super) struct Compiler<'a> {
    definition: &'a Definition,
    origin: Origin,
    /// The provider of `like`.
    base: Option<&'static Provider>,
    /// What code adds to this definition, or to the one that it is like.
    code: Option<&'static Code>,
    /// The form of its bodies.
    body: BodyForm,
    problems: Vec<Problem>,
    /// Whether it lacks a value that it needs. The config has reported that already.
    incomplete: bool,
}

/// Makes a provider of a config's definition. `known` finds the provider of `like`.
///
/// # Errors
/// The mistakes, by their positions. None, if the config has reported them already.
pub(super) fn compile(
    definition: &Definition,
    known: impl Fn(&str) -> Option<&'static Provider>,
) -> Result<Provider, Vec<Problem>> {
    let base = definition.like.as_ref().and_then(|like| known(&like.value));
    let mut compiler = Compiler::new(definition, Origin::Config, base, base.and_then(|base| base.code));
    if let Some(like) = definition.like.as_ref().filter(|_| base.is_none()) {
        let what = format!("no provider {:?} is built in or defined above", like.value);
        compiler.problem(like, "like", what);
    }
    compiler.finish()
}

/// Makes a provider of a built-in definition, and of what code adds to it.
///
/// # Errors
/// The mistakes, by their positions.
pub(super) fn compile_built_in(
    definition: &Definition,
    code: Option<&'static Code>,
) -> Result<Provider, Vec<Problem>> {
    Compiler::new(definition, Origin::BuiltIn, None, code).finish()
}

impl<'a> Compiler<'a> {
    fn new(
        definition: &'a Definition,
        origin: Origin,
        base: Option<&'static Provider>,
        code: Option<&'static Code>,
    ) -> Compiler<'a> {
        let (body, problems) = (BodyForm::Json, Vec::new());
        Compiler { definition, origin, base, code, body, problems, incomplete: false }
    }

    fn finish(mut self) -> Result<Provider, Vec<Problem>> {
        let provider = self.provider();
        if self.problems.is_empty() && !self.incomplete { Ok(provider) } else { Err(self.problems) }
    }

    fn provider(&mut self) -> Provider {
        let name = super::pointer::keep(&self.definition.name.value);
        let base = self.base;
        self.body = self.definition.body.or(base.map(|base| base.body)).unwrap_or(BodyForm::Json);
        let rules = self.rules();
        let schemes = self.schemes(rules.and_then(|rules| rules.each));
        let signing = match schemes {
            Some([]) => Signing::Never,
            Some(schemes) if self.own_code().is_some_and(|code| code.needs_secrets) => {
                Signing::Always(schemes)
            }
            Some(schemes) => Signing::Sometimes(schemes),
            None => base.map_or(Signing::Never, |base| base.signing),
        };
        if let Some(rules) = rules {
            let inherited = base.map(|base| base.signing.schemes());
            self.check_id(rules, schemes.or(inherited).unwrap_or_default());
        }
        let handshake = self.handshake(base.and_then(|base| base.handshake));
        let reader = match (rules, self.inherited_reader()) {
            (Some(rules), _) => Reader::Rules(rules),
            (None, Some(reader)) => reader,
            (None, None) => Reader::Rules(Box::leak(Box::new(EventRules::empty()))),
        };
        let types = match &self.definition.event {
            Some(event) if event.types.is_some() => self.types(),
            Some(_) | None => base.and_then(|base| base.types),
        };
        Provider {
            name,
            origin: self.origin,
            signing,
            retries_for: self.definition.retries_for.or(base.and_then(|base| base.retries_for)),
            handshake,
            types,
            body: self.body,
            reader,
            code: self.code,
        }
    }

    /// What code adds to this very definition, but not to those like it.
    fn own_code(&self) -> Option<&'static Code> {
        self.code.filter(|_| self.origin == Origin::BuiltIn)
    }

    /// What reads the payloads of a definition whose `event` does not.
    fn inherited_reader(&self) -> Option<Reader> {
        match self.own_code() {
            Some(code) => code.payloads.as_ref().map(Reader::Code),
            None => self.base.map(|base| base.reader),
        }
    }

    fn is_standard_webhooks(&self) -> bool {
        self.code.is_some_and(|code| code.standard_webhooks)
    }

    /// Reports a mistake in the value of `key`.
    fn problem<T>(&mut self, at: &Located<T>, key: &str, what: impl Into<String>) {
        let key = format!("providers.{}.{key}", quote_key(&self.definition.name.value));
        self.problems.push(Problem { at: at.at, key, what: what.into(), warning: false });
    }

    /// The `verifiedby` of a signature by this algorithm.
    fn verified_by(&self, algorithm: super::signature::Algorithm) -> VerifiedBy {
        if self.is_standard_webhooks() {
            VerifiedBy::StandardWebhooks
        } else {
            VerifiedBy::Signature(algorithm)
        }
    }

    /// The separator of a list, as the definition or its code has it.
    fn list_separator(&self, separator: Option<&'static str>) -> Separator {
        match separator {
            Some(_) if self.is_standard_webhooks() => Separator::StandardWebhooks,
            Some(text) => Separator::Text(text),
            None => Separator::None,
        }
    }

    /// An id in a header or a query must be signed, since a client could replay a delivery under a new one.
    fn check_id(&mut self, rules: &'static EventRules, schemes: &'static [Scheme]) {
        // An inherited id may have lost its cover to a signature of this definition.
        let of = self.definition;
        let own_id = of.event.as_ref().and_then(|event| event.id.first());
        let own_signed = of.signature.as_ref().and_then(|signatures| signatures.first());
        let (at, key) = match (own_id, own_signed) {
            (Some(id), _) => (id, "event.id"),
            (None, Some(signature)) => (&signature.signed, "signature.signed"),
            (None, None) => return,
        };
        let uncovered = schemes
            .iter()
            .filter(|scheme| scheme.algorithm.covers_body())
            .find_map(|scheme| rules.id_headers().find(|pointer| !super::rules::is_covered(scheme, pointer)));
        match uncovered {
            Some(pointer) => {
                let what = format!(
                    "{} is not covered by `signed`, so a client could replay a delivery under a new id: add it to signed, \
                     or take an id out of the body",
                    pointer.text
                );
                self.problem(at, key, what);
            }
            None if rules.each.is_some() && rules.id_headers().next().is_some() => {
                let what = "a header or query holds one id for all events of a delivery; with `each` take an id out of the \
                            element";
                self.problem(at, key, what);
            }
            _ => {}
        }
    }
}
