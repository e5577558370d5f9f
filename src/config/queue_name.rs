//! A queue's name: a text with the placeholders `{provider}`, `{source}` and `{type}`, filled in for each event.
//!
//! Keeps true: the same event always gets the same name. Each kind of queue checks which characters it allows.

/// A name as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueName(Vec<Part>);

/// A piece of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Literal text.
    Text(String),
    /// The provider's name.
    Provider,
    /// The source's name.
    Source,
    /// The event's canonical type.
    Type,
}

/// The values of the placeholders for one event.
#[derive(Clone, Copy, Debug)]
pub struct PlaceholderValues<'a> {
    /// For `{provider}`.
    pub provider: &'a str,
    /// For `{source}`.
    pub source: &'a str,
    /// For `{type}`.
    pub kind: &'a str,
}

impl QueueName {
    /// Reads a name. The error says what is wrong, without the name.
    ///
    /// # Errors
    /// If it is empty, or holds white space, control characters, or a brace outside a placeholder.
    pub fn parse(name: &str) -> Result<QueueName, String> {
        if name.is_empty() {
            return Err("the name is empty".to_owned());
        }
        if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(
                "white space and control characters are not allowed in the name of a queue".to_owned()
            );
        }
        let mut parts = Vec::new();
        let mut rest = name;
        while let Some(brace) = rest.find(['{', '}']) {
            let (text, tail) = rest.split_at(brace);
            let found = PLACEHOLDERS.iter().find(|(word, _)| tail.starts_with(word));
            let (word, part) = found.ok_or("unknown placeholder; allowed: {provider}, {source}, {type}")?;
            push_text(&mut parts, text);
            parts.push(part.clone());
            rest = &tail[word.len()..];
        }
        push_text(&mut parts, rest);
        Ok(QueueName(parts))
    }

    /// The name for one event.
    pub fn fill(&self, with: PlaceholderValues<'_>) -> String {
        let pieces = self.0.iter().map(|part| match part {
            Part::Text(text) => text,
            Part::Provider => with.provider,
            Part::Source => with.source,
            Part::Type => with.kind,
        });
        pieces.collect()
    }

    /// The name, if it has no placeholders.
    pub fn fixed(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Text(name)] => Some(name),
            _ => None,
        }
    }

    /// Its pieces.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether `text` can be this name filled in. Each placeholder stands for at least one character.
    pub fn covers(&self, text: &str) -> bool {
        fits(&self.0, text)
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

fn fits(parts: &[Part], text: &str) -> bool {
    match parts.split_first() {
        None => text.is_empty(),
        Some((Part::Text(literal), rest)) => {
            text.strip_prefix(literal.as_str()).is_some_and(|t| fits(rest, t))
        }
        Some((Part::Provider | Part::Source | Part::Type, rest)) => {
            text.char_indices().any(|(at, c)| fits(rest, &text[at + c.len_utf8()..]))
        }
    }
}

const PLACEHOLDERS: [(&str, Part); 3] =
    [("{provider}", Part::Provider), ("{source}", Part::Source), ("{type}", Part::Type)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_filled_in_and_covers_what_it_fills() {
        let name = QueueName::parse("h.{provider}.{type}").unwrap();
        let filled =
            name.fill(PlaceholderValues { provider: "iof", source: "iof-test", kind: "kyc.verified" });
        assert_eq!(filled, "h.iof.kyc.verified");
        assert!(name.covers(&filled) && !name.covers("h.iof") && !name.covers("g.iof.x"));
        assert_eq!(name.fixed(), None);
        assert_eq!(QueueName::parse("hooks").unwrap().fixed(), Some("hooks"));
    }

    #[test]
    fn braces_around_anything_else_are_refused() {
        for name in ["", "a{b}c", "a}b", "{", "{type", "a b", "a\tb", "{type}}"] {
            assert!(QueueName::parse(name).is_err(), "{name}");
        }
    }
}
