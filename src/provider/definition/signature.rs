//! Compiles `[providers.NAME.signature]` into schemes.

use super::Compiler;
use crate::base::label::Label;
use crate::config::Located;
use crate::config::definitions::{BodyForm, Signature};
use crate::provider::pointer::{Each, Pointer, Root, header_name, keep};
use crate::provider::signature::{
    Algorithm, Carrier, Encoding, Format, Part, Scheme, SecretForm, TimeUnit, Version,
};

impl Compiler<'_> {
    /// The definition's own schemes. None: it has no `signature`. Invalid ones are left out, since the provider is then
    /// not made.
    pub(super) fn schemes(&mut self, each: Option<Each>) -> Option<&'static [Scheme]> {
        let signatures = self.definition.signature.as_ref()?;
        let complete = self.own_code().and_then(|code| code.scheme).unwrap_or(|scheme| scheme);
        let schemes: Vec<Scheme> =
            signatures.iter().filter_map(|signature| self.scheme(signature, each)).map(complete).collect();
        Some(schemes.leak())
    }

    fn scheme(&mut self, of: &Signature, each: Option<Each>) -> Option<Scheme> {
        if of.algorithm.value.is_empty() || of.header.is_empty() && of.pointer.is_none() {
            self.incomplete = true;
            return None;
        }
        let algorithm = self.choice::<Algorithm>(&of.algorithm, "signature.algorithm");
        let encoding = self.choice::<Encoding>(&of.encoding, "signature.encoding");
        let unit = self.choice::<TimeUnit>(&of.timestamp_unit, "signature.timestamp_unit");
        let (algorithm, encoding, unit) = (algorithm?, encoding?, unit?);
        let secret = self.secret_form(of, algorithm)?;
        let secret_in_body = self.secret_in_body(of, algorithm, each)?;
        let (format, versions) = self.format(of)?;
        let signed = self.signed(of)?;
        let time_in_body = self.time_in_body(of)?;
        let carriers = self.carriers(of, time_in_body.is_some(), format)?;
        let has = |part: &Part| signed.contains(part);
        let in_format = matches!(format, Format::Pairs { .. });
        let timed = in_format || carriers.iter().all(|carrier| carrier.timestamp.is_some());
        if has(&Part::Timestamp) && !timed {
            let what = "{timestamp} is signed, but neither format nor timestamp says where it is";
            self.problem(&of.signed, "signature.signed", what);
            return None;
        }
        if has(&Part::Id) && carriers.iter().any(|carrier| carrier.id.is_none()) {
            self.problem(&of.signed, "signature.signed", "{id} is signed, but id does not name its header");
            return None;
        }
        if algorithm.covers_body() && !has(&Part::Body) {
            self.problem(&of.signed, "signature.signed", "the body must be signed: expected {body} in it");
            return None;
        }
        Some(Scheme {
            algorithm,
            carriers,
            format,
            versions,
            unit,
            signed,
            encoding,
            padded: false,
            secret,
            verified_by: self.verified_by(algorithm),
            renamed: None,
            accept_old: false,
            secret_in_body,
            time_in_body,
        })
    }

    /// The value of a key with a fixed set of words.
    fn choice<L: Label>(&mut self, text: &Located<String>, key: &str) -> Option<L> {
        let found = L::LABELS.iter().position(|label| *label == text.value).and_then(|at| L::ALL.get(at));
        if found.is_none() {
            let words: Vec<String> = L::LABELS.iter().map(|label| format!("{label:?}")).collect();
            let what = format!("expected {}, found {:?}", words.join(" or "), text.value);
            self.problem(text, key, what);
        }
        found.copied()
    }

    fn secret_form(&mut self, of: &Signature, algorithm: Algorithm) -> Option<SecretForm> {
        let public = SecretForm::PublicKey { prefixed: self.is_standard_webhooks() };
        let Some(text) = &of.secret else {
            return Some(if algorithm.has_public_key() { public } else { SecretForm::Text });
        };
        let form = match &*text.value {
            "text" => SecretForm::Text,
            "hex" => SecretForm::Hex,
            "base64" => SecretForm::Base64,
            "whsec" => SecretForm::Whsec,
            "public-key" => public,
            other => {
                let what = format!(
                    "expected \"text\", \"hex\", \"base64\", \"whsec\" or \"public-key\", found {other:?}"
                );
                self.problem(text, "signature.secret", what);
                return None;
            }
        };
        let is_public = matches!(form, SecretForm::PublicKey { .. });
        let what = match algorithm {
            _ if is_public && !algorithm.has_public_key() => {
                "a public key cannot be a secret, because it is public"
            }
            _ if !is_public && algorithm.has_public_key() => {
                "this algorithm verifies with a public key; leave it out"
            }
            Algorithm::Equal if form != SecretForm::Text => "equal compares the text itself; leave it out",
            _ => return Some(form),
        };
        self.problem(text, "signature.secret", what);
        None
    }

    /// The outer None: there is a mistake.
    fn secret_in_body(
        &mut self,
        of: &Signature,
        algorithm: Algorithm,
        each: Option<Each>,
    ) -> Option<Option<(Pointer, Option<Each>)>> {
        let Some(text) = &of.pointer else { return Some(None) };
        if algorithm != Algorithm::Equal {
            self.problem(text, "signature.pointer", "only equal can find its secret in the body");
            return None;
        }
        if let Some(header) = of.header.first() {
            self.problem(header, "signature.header", "either header or pointer");
            return None;
        }
        let pointer = self.pointer(text, "signature.pointer")?;
        Some(Some((pointer, each.filter(|_| pointer.root == Root::Event))))
    }

    /// The outer None: there is a mistake.
    fn time_in_body(&mut self, of: &Signature) -> Option<Option<Pointer>> {
        let is_pointer = |text: &str| text.starts_with('/') || text.contains(':');
        match of.timestamp.iter().find(|text| is_pointer(&text.value)) {
            Some(several) if of.timestamp.len() > 1 => {
                self.problem(several, "signature.timestamp", "a pointer stands alone, and not in a list");
                None
            }
            Some(text) => self.pointer(text, "signature.timestamp").map(Some),
            None => Some(None),
        }
    }

    fn carriers(&mut self, of: &Signature, time_in_body: bool, format: Format) -> Option<&'static [Carrier]> {
        let timestamps = if time_in_body { &[][..] } else { &of.timestamp };
        if let (Format::Pairs { .. }, Some(timestamp)) = (format, of.timestamp.first()) {
            self.problem(
                timestamp,
                "signature.timestamp",
                "format has the {timestamp} already; leave it out",
            );
            return None;
        }
        for (texts, key) in [(timestamps, "signature.timestamp"), (&of.id, "signature.id")] {
            if let Some(first) = texts.first()
                && texts.len() != of.header.len()
            {
                let what = format!(
                    "expected as many as header has, {}, found {}; the lists go together, first with first",
                    of.header.len(),
                    texts.len()
                );
                self.problem(first, key, what);
                return None;
            }
        }
        let mut carriers = Vec::new();
        for (at, header) in of.header.iter().enumerate() {
            let timestamp = timestamps.get(at).map(|text| self.header(text, "signature.timestamp"));
            let id = of.id.get(at).map(|text| self.header(text, "signature.id"));
            carriers.push(Carrier {
                header: self.header(header, "signature.header")?,
                timestamp: optional(timestamp)?,
                id: optional(id)?,
            });
        }
        Some(carriers.leak())
    }

    /// The format of the header, and the version of its signatures.
    fn format(&mut self, of: &Signature) -> Option<(Format, &'static [Version])> {
        let text = &of.format.value;
        let mut wrong = |what: &str| {
            self.problem(&of.format, "signature.format", what);
            None
        };
        if text.matches("{signature}").count() != 1 {
            return wrong("expected {signature} in it, once");
        }
        if let Some(other) = text.replace("{signature}", "").replace("{timestamp}", "").find(['{', '}']) {
            return wrong(&format!(
                "only {{signature}} and {{timestamp}} stand in braces (character {})",
                other + 1
            ));
        }
        let (before, after) = text.split_once("{signature}").unwrap_or_default();
        if !text.contains("{timestamp}") {
            if let Some(separator) = of.separator.as_ref().filter(|_| !self.is_standard_webhooks())
                && [before, after].iter().any(|part| part.contains(&*separator.value))
            {
                let what = "format holds it, so no entry of the list would fit; choose another";
                self.problem(separator, "signature.separator", what);
                return None;
            }
            let separator = of.separator.as_ref().map(|text| {
                // Blanks around a separator do not count, unless it would then stand in the format.
                let trimmed = text.value.trim();
                let in_format = before.contains(trimmed) || after.contains(trimmed);
                keep(if in_format { &text.value } else { trimmed })
            });
            let version = Version { label: keep(before), after: keep(after), timestamp: None, old: false };
            return Some((Format::List(self.list_separator(separator)), vec![version].leak()));
        }
        if let Some(separator) = &of.separator {
            let what = "a format with {timestamp} is a list of pairs already; leave separator out";
            self.problem(separator, "signature.separator", what);
            return None;
        }
        match pairs(text) {
            Some((timestamp, separator, label)) => {
                let versions = vec![Version::plain(keep(label))].leak();
                Some((Format::Pairs { separator: keep(separator), timestamp: keep(timestamp) }, versions))
            }
            None => wrong("with {timestamp}, expected two pairs such as \"t={timestamp},v1={signature}\""),
        }
    }

    fn signed(&mut self, of: &Signature) -> Option<&'static [Part]> {
        let mut parts = Vec::new();
        let mut rest = &*of.signed.value;
        while let Some((text, after)) = rest.split_once('{') {
            if !text.is_empty() {
                parts.push(Part::Text(keep(text)));
            }
            let Some((name, after)) = after.split_once('}') else {
                self.problem(&of.signed, "signature.signed", "a { is not closed");
                return None;
            };
            let part = match name {
                "body" => Some(Part::Body),
                "timestamp" => Some(Part::Timestamp),
                "id" => Some(Part::Id),
                "method" => Some(Part::Method),
                "url" => Some(Part::Url { decoded: self.code.is_some_and(|code| code.decoded_url) }),
                "path" => Some(Part::Path),
                "query" => Some(Part::Query),
                _ => name.strip_prefix("header:").and_then(|name| header_name(name).ok()).map(Part::Header),
            };
            let Some(part) = part else {
                let what = format!(
                    "{{{name}}} is unknown; allowed: {{body}}, {{timestamp}}, {{id}}, {{method}}, {{url}}, {{path}}, \
                     {{query}}, {{header:NAME}}"
                );
                self.problem(&of.signed, "signature.signed", what);
                return None;
            };
            parts.push(part);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(keep(rest)));
        }
        Some(parts.leak())
    }

    /// The name of a header.
    pub(super) fn header(&mut self, text: &Located<String>, key: &str) -> Option<&'static str> {
        let name = header_name(&text.value);
        if name.is_err() {
            self.problem(text, key, format!("expected the name of a header, found {:?}", text.value));
        }
        name.ok()
    }

    /// A pointer.
    pub(super) fn pointer(&mut self, text: &Located<String>, key: &str) -> Option<Pointer> {
        match Pointer::parse(&text.value) {
            Ok(Pointer { root: Root::Form(_), .. }) if self.body == BodyForm::Json => {
                self.problem(text, key, "form: needs body = \"form\" or body = \"auto\"");
                None
            }
            Ok(pointer) => Some(pointer),
            Err(why) => {
                self.problem(text, key, format!("{:?}: {why}", text.value));
                None
            }
        }
    }
}

/// Takes the mistake of an optional value out of it. The outer None: there is a mistake.
fn optional<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    value.map_or(Some(None), |read| read.map(Some))
}

/// The key of the timestamp, the separator and the key of the signature, of `KEY={timestamp}SEPARATORKEY={signature}`, or
/// of the pairs in the other order.
fn pairs(format: &str) -> Option<(&str, &str, &str)> {
    let (first, second) = match (format.find("{timestamp}")?, format.find("{signature}")?) {
        (timestamp, signature) if timestamp < signature => ("{timestamp}", "{signature}"),
        _ => ("{signature}", "{timestamp}"),
    };
    let (first_key, rest) = format.split_once(&format!("={first}"))?;
    let between = rest.strip_suffix(&format!("={second}"))?;
    let starts = between.find(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-')?;
    let (separator, second_key) = between.split_at(starts);
    // Blanks around a separator do not count. A separator of blanks alone does.
    let trimmed = separator.trim();
    let separator = if trimmed.is_empty() { separator } else { trimmed };
    let is_key = |key: &str| !key.is_empty() && !key.contains(['=', '{', '}']) && !key.contains(separator);
    if separator.is_empty() || !is_key(first_key) || !is_key(second_key) {
        return None;
    }
    match first {
        "{timestamp}" => Some((first_key, separator, second_key)),
        _ => Some((second_key, separator, first_key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_names_every_word_of_the_engine_and_no_other() {
        let keys = crate::config::Config::keys();
        for (key, labels) in [
            ("algorithm", Algorithm::LABELS),
            ("encoding", Encoding::LABELS),
            ("timestamp_unit", TimeUnit::LABELS),
        ] {
            let name = format!("providers.NAME.signature.{key}");
            let allowed = &keys.iter().find(|known| known.name == name).unwrap().allowed;
            let words: Vec<&str> = allowed.split('"').skip(1).step_by(2).collect();
            assert_eq!(words, labels, "{allowed}");
        }
    }

    #[test]
    fn pairs_are_found_in_either_order_with_any_separator() {
        assert_eq!(pairs("t={timestamp},v1={signature}"), Some(("t", ",", "v1")));
        assert_eq!(pairs("ts={timestamp};h1={signature}"), Some(("ts", ";", "h1")));
        assert_eq!(pairs("sig={signature} & t={timestamp}"), Some(("t", "&", "sig")));
        assert_eq!(pairs("t={timestamp} v1={signature}"), Some(("t", " ", "v1")));
        for wrong in [
            "{timestamp}{signature}",
            "t={timestamp}v1={signature}",
            "t={timestamp},{signature}",
            "t:{timestamp},v1={signature}",
            "t={timestamp},={signature}",
        ] {
            assert_eq!(pairs(wrong), None, "{wrong}");
        }
    }
}
