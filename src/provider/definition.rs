//! Compiles a definition (`[providers.NAME]`, or a built-in one) into a provider.
//!
//! Keeps true: a template, a pointer or a table of types is parsed once, here. A mistake is a problem with its position
//! in the file, and a provider with a mistake is not made.

mod event;
mod handshake;
mod signature;

use super::rules::EventRules;
use super::signature::{Scheme, Separator, VerifiedBy};
use super::{Handshake, Origin, Provider, Reader, Signing};
use crate::config::definitions::{BodyForm, Definition};
use crate::config::{Located, Problem, quote_key};

/// A definition with what it takes from the one that it is like.
pub(super) struct Compiler<'a> {
    definition: &'a Definition,
    /// The provider of `like`.
    base: Option<&'static Provider>,
    /// What the grammar cannot say, by the built-in provider that this one is or is like.
    code: Code,
    /// The form of its bodies.
    body: BodyForm,
    problems: Vec<Problem>,
    /// Whether it lacks a value that it needs. The config has reported that already.
    incomplete: bool,
}

/// The behaviour of built-in definitions that the grammar cannot say. A definition like one of them has it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Lists of signatures come as senders and proxies make them, `verifiedby` is `standard-webhooks`, and public keys
    /// are written `whpk_`.
    pub standard_webhooks: bool,
    /// Some percent escapes of the signed URL are decoded.
    pub decoded_url: bool,
}

impl Code {
    /// None.
    pub const NONE: Code = Code { standard_webhooks: false, decoded_url: false };

    /// The code of the built-in definition of this name.
    fn of(name: &str) -> Code {
        Code { standard_webhooks: name == "standard-webhooks", decoded_url: name == "hubspot" }
    }

    /// Whether there is any.
    pub fn is_some(self) -> bool {
        self != Code::NONE
    }
}

/// Makes a provider of a definition. `known` finds the provider of `like`.
///
/// # Errors
/// The mistakes, by their positions. None, if the config has reported them already.
pub fn compile(
    definition: &Definition,
    origin: Origin,
    known: impl Fn(&str) -> Option<&'static Provider>,
) -> Result<Provider, Vec<Problem>> {
    let mut compiler = Compiler {
        definition,
        base: None,
        code: Code::default(),
        body: BodyForm::Json,
        problems: Vec::new(),
        incomplete: false,
    };
    if let Some(like) = &definition.like {
        compiler.base = known(&like.value);
        if compiler.base.is_none() {
            compiler.problem(
                like,
                "like",
                format!("no provider {:?} is built in or defined above", like.value),
            );
        }
    }
    compiler.code = match (origin, compiler.base) {
        (Origin::BuiltIn, _) => Code::of(&definition.name.value),
        (Origin::Config, base) => base.map(|base| base.code).unwrap_or_default(),
    };
    let provider = compiler.provider(origin);
    let Compiler { problems, incomplete, .. } = compiler;
    if problems.is_empty() && !incomplete { Ok(provider) } else { Err(problems) }
}

impl Compiler<'_> {
    fn provider(&mut self, origin: Origin) -> Provider {
        let name = super::pointer::keep(&self.definition.name.value);
        let base = self.base;
        self.body = self.definition.body.or(base.map(|base| base.body)).unwrap_or(BodyForm::Json);
        let rules = self.rules();
        let schemes = self.schemes(rules.and_then(|rules| rules.each));
        let signing = match schemes {
            Some([]) => Signing::Never,
            Some(schemes) => Signing::Sometimes(schemes),
            None => base.map_or(Signing::Never, |base| base.signing),
        };
        if let (Some(rules), Some(schemes)) = (rules, schemes.or(base.map(|base| base.signing.schemes()))) {
            self.check_id(rules, schemes);
        }
        let handshake = self.handshake(base.and_then(|base| base.handshake));
        let code_reader = base.map(|base| base.reader).filter(|reader| matches!(reader, Reader::Code { .. }));
        let reader = match (rules, code_reader) {
            (Some(rules), _) => Reader::Rules(rules),
            (None, Some(code)) => code,
            (None, None) => Reader::Rules(Box::leak(Box::new(EventRules::empty()))),
        };
        let types = match &self.definition.event {
            Some(event) if event.types.is_some() => self.types(),
            Some(_) | None => base.and_then(|base| base.types),
        };
        Provider {
            name,
            origin,
            signing,
            retries_for: self.definition.retries_for.or(base.and_then(|base| base.retries_for)),
            handshake,
            signed_id: base.filter(|_| rules.is_none()).and_then(|base| base.signed_id),
            types,
            fields: base.filter(|_| rules.is_none()).and_then(|base| base.fields),
            body: self.body,
            reader,
            code: self.code,
            has_subscriptions: base.is_some_and(|base| base.has_subscriptions),
        }
    }

    /// Reports a mistake in the value of `key`.
    fn problem<T>(&mut self, at: &Located<T>, key: &str, what: impl Into<String>) {
        let key = format!("providers.{}.{key}", quote_key(&self.definition.name.value));
        self.problems.push(Problem { at: at.at, key, what: what.into(), warning: false });
    }

    /// The `verifiedby` of a signature by this algorithm.
    fn verified_by(&self, algorithm: super::signature::Algorithm) -> VerifiedBy {
        if self.code.standard_webhooks {
            VerifiedBy::StandardWebhooks
        } else {
            VerifiedBy::Signature(algorithm)
        }
    }

    /// The separator of a list, as the definition or its code has it.
    fn list_separator(&self, separator: Option<&'static str>) -> Separator {
        match separator {
            Some(_) if self.code.standard_webhooks => Separator::StandardWebhooks,
            Some(text) => Separator::Text(text),
            None => Separator::None,
        }
    }

    /// An id in a header or a query must be signed, since anybody could replay a delivery under a new one.
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
                    "{} is not covered by `signed`, so anybody could replay a delivery under a new id: add it to signed, \
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

/// The handshake that a definition without `handshake` takes.
pub(super) type Inherited = Option<&'static Handshake>;
