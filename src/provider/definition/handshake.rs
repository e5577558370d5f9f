//! Compiles `[providers.NAME.handshake]`.

use serde_json::Value as Json;

use super::Compiler;
use crate::config::Located;
use crate::config::definitions::Handshake as Keys;
use crate::provider::handshake::{AnswerValue, BodyHandshake, Handshake, QueryHandshake};
use crate::provider::pointer::keep;

impl Compiler<'_> {
    /// The definition's own handshake, or `base`, that of the definition that it is like.
    pub(super) fn handshake(&mut self, base: Option<&'static Handshake>) -> Option<&'static Handshake> {
        match &self.definition.handshake {
            None => base,
            Some(None) => None,
            Some(Some(keys)) => self.own_handshake(keys).map(|handshake| &*Box::leak(Box::new(handshake))),
        }
    }

    fn own_handshake(&mut self, of: &Keys) -> Option<Handshake> {
        let by_post = match &of.method {
            None => None,
            Some(method) if method.value == "GET" => Some(false),
            Some(method) if method.value == "POST" => Some(true),
            Some(method) => {
                let what = format!("expected \"GET\" or \"POST\", found {:?}", method.value);
                self.problem(method, "handshake.method", what);
                return None;
            }
        };
        let at = of.method.as_ref().or(of.header.as_ref()).or(of.query.as_ref());
        let at = at.or(of.when.first().map(|(name, _)| name)).unwrap_or(&self.definition.name).clone();
        let mut one_of = |what: &str| {
            self.problem(&at, "handshake", what);
            None
        };
        if of.when.is_empty() && (!of.answer.is_empty() || of.status.is_some()) {
            return one_of("answer and status belong to when");
        }
        match (&of.header, &of.query, of.when.is_empty()) {
            (Some(header), None, true) => {
                if by_post == Some(true) || of.token.is_some() {
                    return one_of("header is returned to a GET, and has no token");
                }
                self.header(header, "handshake.header").map(Handshake::Header)
            }
            (None, Some(parameter), true) => Some(Handshake::Query(QueryHandshake {
                by_post: by_post.unwrap_or(false),
                parameter: keep(&parameter.value),
                token: of.token.as_ref().map(|token| keep(&token.value)),
            })),
            (None, None, false) => {
                if by_post == Some(false) || of.token.is_some() {
                    return one_of("when is for a verified POST, and has no token");
                }
                self.body_handshake(of).map(Handshake::Body)
            }
            _ => one_of("expected one of header, query and when"),
        }
    }

    fn body_handshake(&mut self, of: &Keys) -> Option<BodyHandshake> {
        let mut when = Vec::new();
        for (name, expected) in &of.when {
            when.push((self.pointer(name, "handshake.when")?, expected.clone()));
        }
        let mut answer = Vec::new();
        for (name, value) in &of.answer {
            answer.push((keep(&name.value), self.answer_value(name, value)?));
        }
        let answer = (!answer.is_empty()).then_some(answer);
        if let Some(status) = of.status.as_ref().filter(|status| answer.is_some() && status.value != 200) {
            self.problem(status, "handshake.status", "an answer with a body is 200; leave status out");
            return None;
        }
        Some(BodyHandshake { when, answer, status: of.status.as_ref().map_or(204, |status| status.value) })
    }

    fn answer_value(&mut self, name: &Located<String>, value: &Json) -> Option<AnswerValue> {
        let Some(text) = value.as_str() else { return Some(AnswerValue::Plain(value.clone())) };
        let located = |text: &str| Located { value: text.to_owned(), at: name.at };
        let starts = ["/", "header:", "query:", "form:", "body:/"];
        if let Some(pointer) = text.strip_prefix("hmac:") {
            return self.pointer(&located(pointer), "handshake.answer").map(AnswerValue::Hmac);
        }
        if starts.iter().any(|start| text.starts_with(start)) {
            return self.pointer(&located(text), "handshake.answer").map(AnswerValue::At);
        }
        Some(AnswerValue::Plain(value.clone()))
    }
}
